// A unit: where it is, which concepts it serves, and when it speaks.
"use strict";

function Copyable({ text }) {
  const [done, setDone] = useState("");
  const copy = () => {
    const old = () => {
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      const copied = document.execCommand("copy");
      area.remove();
      setDone(copied ? "Copied" : "Select the text to copy it");
    };
    if (navigator.clipboard && isSecureContext) navigator.clipboard.writeText(text).then(() => setDone("Copied"), old);
    else old();
  };
  return html`<div class="code"><pre tabindex="0">${text}</pre><button type="button" onClick=${copy}>Copy</button> <span role="status">${done}</span></div>`;
}

function hookOf(module, channel) {
  if (!module || channel < 0) return null;
  const before = module.endsWith("#input");
  const name = module.replace(/#input$/, "");
  const value = before ? "inputs[0]" : "(output[0] if isinstance(output, tuple) else output)";
  return `said = []  # [batch, tokens] a call\n\ndef hook(module, inputs${before ? "" : ", output"}):\n    said.append(${value}[..., ${channel}].detach())\n\nhandle = model.get_submodule("${name}").${before ? "register_forward_pre_hook" : "register_forward_hook"}(hook)`;
}

function Spread({ state, spread }) {
  const { table } = state;
  const [width, height, left, bottom] = [420, 170, 10, 24];
  const number = spread.positive.length;
  const parts = [spread.positive, spread.negative].map((counts) => {
    const total = Math.max(1, counts.reduce((a, b) => a + b, 0));
    return counts.map((n) => n / total);
  });
  const most = Math.max(...parts.flat());
  const x = (i) => left + (i / number) * (width - 2 * left);
  const outline = (part) => part.map((share, i) => `${i ? "L" : "M"}${x(i)} ${height - bottom - (share / most) * (height - bottom - 8)}H${x(i + 1)}`).join("");
  const name = table.concepts[spread.concept];
  return html`<figure><svg class="chart" viewBox="0 0 ${width} ${height}" role="img" aria-label=${`Responses to sentences of ${name}, and to its negatives, from ${spread.edges[0]} to ${spread.edges[number]}`}>
      ${parts.map((part, k) => html`<path d=${`${outline(part)}V${height - bottom}H${left}Z`} fill=${k ? "var(--kind0)" : "var(--kind1)"} fill-opacity="0.35" stroke=${k ? "var(--kind0)" : "var(--kind1)"} stroke-width="1.5" stroke-dasharray=${k ? "4 3" : "none"} />`)}
      ${[0, 0.5, 1].map((share) => html`<text class="axis" x=${left + share * (width - 2 * left)} y=${height - 8} text-anchor=${["start", "middle", "end"][share * 2]}>${spread.edges[Math.round(share * number)].toPrecision(3)}</text>`)}
    </svg><figcaption>Responses to ${plural(spread.positive.reduce((a, b) => a + b, 0), "sentence")} of <a href=${conceptLink(state, spread.concept)}>${name}</a> (solid), and to ${whole(spread.negative.reduce((a, b) => a + b, 0))} negatives (dashed); shares of each.</figcaption></figure>`;
}

function Speaking({ state, file }) {
  const { table } = state;
  const speaks = useChunk(`${table.id}/speaks/${file}`);
  if (!speaks.data) return html`<${Waiting} of=${speaks} />`;
  const { scales, most, least, spread } = speaks.data;
  const list = (part) => html`<ol class="sentences">${part.map((told) => html`<li><${Tokens} told=${told} unit=${0} scale=${scales[0]} /></li>`)}</ol>`;
  return html`
    ${spread.length > 0 && html`<section><h2>Responses</h2><div class="columns">${spread.map((each) => html`<${Spread} state=${state} spread=${each} />`)}</div></section>`}
    <section><h2>Where it says most</h2><p><${Scale} scale=${scales[0]} /></p>${list(most)}</section>
    <section><h2>Where it says least</h2><p class="faint">The lowest activations at any token: below the middle a unit is blue.</p>${list(least)}</section>`;
}

function UnitView({ state, layer, site, channel }) {
  const { table, level, tau } = state;
  const list = useChunk(`${table.id}/units`);
  const place = list.data ? findUnit(table, list.data, layer, site, channel) : -1;
  const chunk = useChunk(place < 0 ? null : `${table.id}/units/${Math.floor(place / table.unitsPerChunk)}`);
  const name = `L${layer} ${site} ${channel}`;
  if (!list.data) return html`<h1>${name}</h1><${Waiting} of=${list} />`;
  if (place < 0) {
    return html`<h1>${name}</h1><p>This page doesn't show that unit: ${table.sites.includes(site) ? `it is not among the best ${table.best} of any concept` : `the table has no site ${site}; it has ${table.sites.join(", ")}`}.</p>
      <p><a href=${linkTo(state, ["search"])}>Search</a></p>`;
  }
  if (!chunk.data) return html`<h1>${name}</h1><${Waiting} of=${chunk} />`;
  const told = chunk.data[place % table.unitsPerChunk];
  const rows = told.concepts.map((row, i) => ({ row, ap: told.ap[i], ...Object.fromEntries(MEASURES.filter((m) => told[m]).map((m) => [m, told[m][i]])) }));
  const columns = [
    { name: "concept", label: "Concept", value: (r) => table.concepts[r.row], show: (r) => html`<a href=${conceptLink(state, r.row)}>${table.concepts[r.row]}</a>` },
    { name: "domain", label: "Domain", value: (r) => table.domains[r.row], show: (r) => html`<${Domain} table=${table} row=${r.row} />` },
    ...measureColumns(table),
    { name: "expert", label: `Expert at τ = ${tau}`, value: (r) => r.ap >= tau ? "yes" : "no" },
  ];
  const hook = hookOf(told.module, told.channel);
  const file = table.speaking[place];
  return html`
    <h1>${name}</h1>
    <p>Channel ${channel} of ${site} in layer ${layer}${told.expert === undefined ? "" : `, of the mixture's expert ${told.expert}`}. It is an expert on <strong>${plural(told.serves[level], "concept")}</strong> of ${whole(table.concepts.length)} at τ = ${tau}.</p>
    <section><h2>Concepts it serves</h2><${SortedTable} columns=${columns} rows=${rows} first="ap" caption="Concepts it serves" limit=${20} />
      ${rows.length < table.concepts.length && html`<p class="faint">The ${rows.length} that it serves best.</p>`}</section>
    ${file === undefined ? html`<p class="faint">What it says at each token wasn't read: ${Object.keys(table.speaking).length ? "it is not among the first experts of any concept" : "the notes on the first page say why"}.</p>` : html`<${Speaking} key=${file} state=${state} file=${file} />`}
    <section><h2>Take it elsewhere</h2>
      ${hook ? html`<p>In Hugging Face's model it is channel ${told.channel} of <code>${told.module}</code>. A hook in PyTorch:</p><${Copyable} text=${hook} />` : html`<p>No module of Hugging Face's model has it as a channel of its own.</p>`}
      <p>In this package:</p><${Copyable} text=${`el.trace(model, ["A sentence."], (${layer}, "${site}", ${channel}))`} /></section>`;
}

function findUnit(table, list, layer, site, channel) {
  const at = list.at || (list.at = { layer: unpack(list.layer), site: unpack(list.site), channel: unpack(list.channel) });
  const column = table.sites.indexOf(site);
  return at.channel.findIndex((each, i) => each === Number(channel) && at.site[i] === column && at.layer[i] === Number(layer));
}
