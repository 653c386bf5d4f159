// All concepts, and what the page shows of the run.
"use strict";

function Home({ index, state }) {
  const { table, level } = state;
  const [asked, setAsked] = useState("");
  const controls = Object.values(table.random);
  const rows = useMemo(() => table.concepts.map((name, row) => ({
    row, name, domain: table.domains[row], positives: table.positives[row], experts: table.experts[row][level],
    highest: table.highest[row],
    random: controls.length ? controls.reduce((sum, each) => sum + each[row][level], 0) / controls.length : null,
  })), [table, level]);
  const shown = rows.filter((each) => `${each.name} ${each.domain}`.toLowerCase().includes(asked.toLowerCase()));
  const columns = [
    { name: "name", label: "Concept", value: (r) => r.name, show: (r) => html`<a href=${conceptLink(state, r.row)}>${r.name}</a>` },
    { name: "domain", label: "Domain", value: (r) => r.domain, show: (r) => html`<${Domain} table=${table} row=${r.row} />` },
    { name: "experts", label: `Experts at τ = ${state.tau}`, number: true, value: (r) => r.experts, show: (r) => whole(r.experts) },
    ...(controls.length ? [{ name: "random", label: "… with random weights", number: true, value: (r) => r.random, show: (r) => whole(r.random) }] : []),
    { name: "highest", label: "Best AP", number: true, value: (r) => r.highest, show: (r) => fixed(r.highest) },
    { name: "positives", label: "Sentences", number: true, value: (r) => r.positives, show: (r) => whole(r.positives) },
  ];
  return html`
    <h1>${table.title}</h1>
    <p>${plural(table.concepts.length, "concept")}, ${plural(table.numUnits, "unit")} in ${plural(table.layers.length, "layer")}: ${table.sites.join(", ")}.
      An expert on a concept is a unit whose average precision (AP) on its sentences is at least τ; a unit that knows nothing has ${fixed(table.baseRates[0])}.</p>
    <p class="faint">Counts and overlaps are over all ${whole(table.numUnits)} units. By name you find the ${whole(table.shownUnits)} that are among the best ${whole(table.best)} of some concept.</p>
    <${Notes} index=${index} />
    <label class="field">Filter concepts <input type="search" value=${asked} onInput=${(e) => setAsked(e.target.value)} /></label>
    <${SortedTable} columns=${columns} rows=${shown} first="experts" caption="Concepts" limit=${200} />
    <details><summary>What these numbers follow from</summary>
      <dl>${Object.entries(table.settings).map(([name, value]) => html`<dt>${name}</dt><dd>${value}</dd>`)}</dl></details>`;
}
