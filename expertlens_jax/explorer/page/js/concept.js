// A concept: its experts and where they are, its neighbours, and its sentences.
"use strict";

// The units of a concept's chunk, a row each. `list` is the chunk of all units that are shown.
function unitRows(table, chunk, list) {
  if (!chunk.rows) {
    const at = { layer: unpack(list.layer), site: unpack(list.site), channel: unpack(list.channel), expert: list.expert && unpack(list.expert) };
    chunk.rows = chunk.units.map((place, i) => ({
      place, layer: at.layer[place], site: table.sites[at.site[place]], channel: at.channel[place], ap: chunk.ap[i],
      expert: at.expert && at.expert[place] ? at.expert[place] - 1 : null, // of a mixture
      ...Object.fromEntries(MEASURES.filter((name) => chunk[name]).map((name) => [name, chunk[name][i]])),
    }));
  }
  return chunk.rows;
}
const MEASURES = ["q_value", "familywise_p", "auroc", "half_0", "half_1", "positive_median", "positive_p90", "negative_mean"];

// Columns of numbers of a unit and a concept, as far as the table has them.
function measureColumns(table) {
  const column = (name, label, show, title) => ({ name, label, title, number: true, value: (r) => r[name], show: (r) => show(r[name]) });
  return [
    column("ap", "AP", fixed, "Average precision"),
    ...(table.hasQ ? [column("q_value", "q", small, "False discovery rate among the units (Benjamini & Hochberg)"),
      column("familywise_p", "p of all", small, "Of the best of all units, by permuted labels")] : []),
    ...(table.hasHalves ? [column("half_0", "AP, 1st half", fixed, "In one half of the sentences"), column("half_1", "AP, 2nd half", fixed, "In the other half")] : []),
    column("auroc", "AUROC", fixed, "That a positive's response is above a negative's"),
  ];
}

function Places({ state, chunk, row, chosen, choose }) {
  const { table, level } = state;
  const counts = chunk.places || (chunk.places = unpack(chunk.perPlace));
  const [layers, sites] = [table.layers.length, table.sites.length];
  const at = (i, j) => counts[(level * layers + i) * sites + j];
  const share = (i, j) => table.unitsPerPlace[i][j] ? at(i, j) / table.unitsPerPlace[i][j] : 0;
  const most = Math.max(1e-9, ...table.layers.flatMap((_, i) => table.sites.map((_, j) => share(i, j))));
  return html`<div class="wide" tabindex="0" role="region" aria-label="Experts by layer and site"><table class="places">
    <caption class="unseen">Experts by layer and site at τ = ${state.tau}; a cell filters the table of experts</caption>
    <thead><tr><th scope="col">Layer</th>${table.sites.map((site) => html`<th scope="col">${site}</th>`)}</tr></thead>
    <tbody>${table.layers.map((layer, i) => html`<tr><th scope="row">${layer}</th>${table.sites.map((site, j) => {
      const on = chosen.layer === String(layer) && chosen.site === site;
      return table.unitsPerPlace[i][j] === 0 ? html`<td class="faint">–</td>` : html`<td style=${`--share:${(share(i, j) / most).toFixed(3)}`}>
        <button type="button" aria-pressed=${on} title=${`${whole(at(i, j))} of ${plural(table.unitsPerPlace[i][j], "unit")} of layer ${layer}, ${site}`}
          onClick=${() => choose({ expert: chosen.expert, ...(on ? { layer: "", site: "" } : { layer: String(layer), site }) })}>${whole(at(i, j))}</button></td>`;
    })}</tr>`)}</tbody></table></div>`;
}

function Neighbours({ state, row }) {
  const { table, level } = state;
  const shared = useChunk(`${table.id}/shared/${level}`);
  if (!shared.data) return html`<${Waiting} of=${shared} />`;
  const counts = shared.data.values || (shared.data.values = unpack(shared.data));
  const names = Object.keys(table.rated);
  const rows = table.concepts.map((name, other) => ({ name, other, ...overlapOf(table, counts, level, row, other) }))
    .filter((each) => each.other !== row);
  for (const each of rows) for (const rating of names) {
    const pair = table.rated[rating].find(([i, j]) => (i === row && j === each.other) || (j === row && i === each.other));
    each[rating] = pair ? pair[2] : null;
  }
  const rated = names.filter((name) => rows.some((each) => each[name] !== null));
  const columns = [
    { name: "name", label: "Concept", value: (r) => r.name, show: (r) => html`<a href=${conceptLink(state, r.other)}>${r.name}</a>` },
    { name: "domain", label: "Domain", value: (r) => table.domains[r.other], show: (r) => html`<${Domain} table=${table} row=${r.other} />` },
    { name: "jaccard", label: "Overlap", number: true, title: "Jaccard: shared experts over experts of either", value: (r) => r.jaccard, show: (r) => html`<a href=${pairLink(state, row, r.other)}>${fixed(r.jaccard)}</a>` },
    { name: "both", label: "Shared", number: true, value: (r) => r.both, show: (r) => whole(r.both) },
    ...rated.map((name) => ({ name, label: `People (${name})`, number: true, value: (r) => r[name], show: (r) => r[name] === null ? "–" : fixed(r[name], 2) })),
  ];
  return html`<${SortedTable} columns=${columns} rows=${rows} first="jaccard" caption="Nearest concepts" limit=${12} />`;
}

function Sentences({ state, row, chunk, list }) {
  const { table } = state;
  const spoken = useChunk(Object.keys(table.speaking).length ? `${table.id}/spoken/${row}` : null);
  const [unit, setUnit] = useState(0);
  if (!chunk.sentences.length) return html`<p class="faint">They couldn't be had; the notes on the first page say why.</p>`;
  if (!Object.keys(table.speaking).length) return html`<${PlainSentences} table=${table} ids=${chunk.sentences} />`;
  if (!spoken.data) return html`<${Waiting} of=${spoken} />`;
  const { units, scales, sentences } = spoken.data;
  const rows = unitRows(table, chunk, list);
  const of = (place) => rows.find((each) => each.place === place);
  return html`
    <div class="row"><label class="field">Coloured by <select value=${unit} onChange=${(e) => setUnit(Number(e.target.value))}>
      ${units.map((place, i) => html`<option value=${i}>${unitName(of(place))} (AP ${fixed(of(place).ap)})</option>`)}</select></label>
      <a href=${unitLink(state, of(units[unit]))}>This unit</a> <${Scale} scale=${scales[unit]} /></div>
    <ol class="sentences">${sentences.map((told) => html`<li><${Tokens} told=${told} unit=${unit} scale=${scales[unit]} /></li>`)}</ol>
    ${chunk.sentences.length > sentences.length && html`<p class="faint">The first ${whole(sentences.length)} of ${whole(chunk.sentences.length)}.</p>`}`;
}

function PlainSentences({ table, ids }) {
  const first = ids.slice(0, 16);
  const part = useChunk(`${table.id}/sentences/${Math.floor(first[0] / table.sentencesPerChunk)}`);
  if (!part.data) return html`<${Waiting} of=${part} />`;
  const here = first.filter((id) => Math.floor(id / table.sentencesPerChunk) === Math.floor(first[0] / table.sentencesPerChunk));
  return html`<ol class="sentences">${here.map((id) => html`<li>${part.data.texts[id % table.sentencesPerChunk]}</li>`)}</ol>
    <p class="faint">${whole(here.length)} of ${whole(ids.length)}, without colours: the notes on the first page say why.</p>`;
}

function ConceptView({ index, state, name }) {
  const { table, level, tau } = state;
  const row = table.concepts.indexOf(name);
  const chunk = useChunk(row < 0 ? null : `${table.id}/concepts/${row}`);
  const list = useChunk(`${table.id}/units`);
  const [chosen, choose] = useState({ layer: "", site: "", expert: "" });
  const [all, setAll] = useState(false);
  if (row < 0) return html`<h1>No such concept</h1><p>This table has no concept <q>${name}</q>. <a href=${linkTo(state, [])}>All concepts</a></p>`;
  const controls = Object.entries(table.random);
  const lines = [{ name, values: table.experts[row], colour: "var(--kind0)" },
    ...controls.map(([model, counts]) => ({ name: model, values: counts[row], colour: "var(--kind1)", dashed: true }))];
  const rows = chunk.data && list.data ? unitRows(table, chunk.data, list.data) : [];
  const shown = rows.filter((each) => (all || each.ap >= tau)
    && (!chosen.layer || String(each.layer) === chosen.layer) && (!chosen.site || each.site === chosen.site)
    && (!chosen.expert || String(each.expert) === chosen.expert));
  const experts = [...new Set(rows.map((each) => each.expert))].filter((each) => each !== null).sort((a, b) => a - b);
  const columns = [
    { name: "unit", label: "Unit", value: (r) => unitName(r), show: (r) => html`<a href=${unitLink(state, r)}>${unitName(r)}</a>` },
    { name: "layer", label: "Layer", number: true, value: (r) => r.layer },
    { name: "site", label: "Site", value: (r) => r.site },
    ...(experts.length ? [{ name: "expert", label: "Of the mixture's expert", number: true, value: (r) => r.expert, show: (r) => r.expert === null ? "" : r.expert }] : []),
    ...measureColumns(table),
  ];
  const hidden = table.experts[row][level] - rows.filter((each) => each.ap >= tau).length;
  return html`
    <h1>${name} <${Domain} table=${table} row=${row} /></h1>
    <p><strong>${whole(table.experts[row][level])}</strong> of ${whole(table.numUnits)} units are experts at τ = ${tau}${controls.map(([model, counts]) => html`; with random weights (${model}) ${whole(counts[row][level])}`)}.${" "}
      ${whole(table.positives[row])} sentences against ${whole(table.negatives[row])}; a unit that knows nothing has AP ${fixed(table.baseRates[row])}.</p>
    <div class="columns">
      <section><h2>Experts over τ</h2><${ExpertsOverTau} state=${state} lines=${lines} />
        ${controls.length > 0 && html`<p class="faint">Dashed: the same network with random weights.</p>`}</section>
      <section><h2>Where they are</h2>${chunk.data ? html`<${Places} state=${state} chunk=${chunk.data} row=${row} chosen=${chosen} choose=${choose} />` : html`<${Waiting} of=${chunk} />`}</section>
    </div>
    <section><h2>Experts</h2>
      <div class="row">
        <label class="field">Layer <select value=${chosen.layer} onChange=${(e) => choose({ ...chosen, layer: e.target.value })}><option value="">all</option>${table.layers.map((layer) => html`<option value=${layer}>${layer}</option>`)}</select></label>
        <label class="field">Site <select value=${chosen.site} onChange=${(e) => choose({ ...chosen, site: e.target.value })}><option value="">all</option>${table.sites.map((site) => html`<option value=${site}>${site}</option>`)}</select></label>
        ${experts.length > 0 && html`<label class="field">Of the mixture's expert <select value=${chosen.expert} onChange=${(e) => choose({ ...chosen, expert: e.target.value })}><option value="">all</option>${experts.map((expert) => html`<option value=${expert}>${expert}</option>`)}</select></label>`}
        <label class="field"><input type="checkbox" checked=${all} onChange=${(e) => setAll(e.target.checked)} /> also those below τ</label>
      </div>
      ${chunk.data && list.data ? html`<${SortedTable} columns=${columns} rows=${shown} first="ap" caption="Experts" limit=${25} empty=${`None of those that are listed has AP ≥ ${tau} here.`} />` : html`<${Waiting} of=${chunk.data ? list : chunk} />`}
      ${chunk.data && hidden > 0 && html`<p class="faint">Listed are the best ${whole(rows.length)}; ${plural(hidden, "further expert")} ${hidden === 1 ? "is" : "are"} counted above, and not listed.</p>`}
    </section>
    <section><h2>Nearest concepts</h2><${Neighbours} state=${state} row=${row} /></section>
    <section><h2>Sentences</h2>${index.live && index.live.tables[table.id] && html`<p><a href=${linkTo(state, ["live", name])}>Type a text of your own, and steer</a></p>`}${chunk.data && list.data ? html`<${Sentences} key=${row} state=${state} row=${row} chunk=${chunk.data} list=${list.data} />` : html`<${Waiting} of=${chunk} />`}</section>`;
}
