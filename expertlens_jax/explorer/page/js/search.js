// Concepts, units and sentences that hold what is asked.
"use strict";

// "L3 mlp.up 417", "3 mlp.up 417", "mlp.up 417", "417": what of a unit's place is said.
function readUnit(text) {
  const said = {};
  for (const word of text.trim().split(/[\s,]+/)) {
    if (/^l(ayer)?\.?\d+$/i.test(word)) said.layer = Number(word.replace(/\D/g, ""));
    else if (/^[a-z_]+\.[a-z_]+$/i.test(word) || /^(resid|sae)$/i.test(word)) said.site = word.toLowerCase();
    else if (/^\d+$/.test(word)) said.channel = said.channel === undefined ? Number(word) : (said.layer = said.channel, Number(word));
    else return null;
  }
  return said.channel === undefined && said.layer === undefined && said.site === undefined ? null : said;
}

function SearchView({ state, asked }) {
  const { table } = state;
  const text = asked.trim().toLowerCase();
  const unit = text ? readUnit(text) : null;
  const list = useChunk(unit ? `${table.id}/units` : null);
  const [parts, setParts] = useState([]);
  const number = Math.ceil(table.numSentences / table.sentencesPerChunk);
  const wanted = text.length >= 2 && number > 0;
  useEffect(() => {
    if (!wanted) return undefined;
    let still = true;
    Promise.all(Array.from({ length: number }, (_, i) => EXPERTLENS.load(`${table.id}/sentences/${i}`))).then((all) => still && setParts(all), () => {});
    return () => { still = false; };
  }, [table, wanted]);
  const concepts = text ? table.concepts.map((name, row) => ({ name, row })).filter((each) => `${each.name} ${table.domains[each.row]}`.toLowerCase().includes(text)) : [];
  const units = [];
  if (unit && list.data) {
    const at = list.data.at || (list.data.at = { layer: unpack(list.data.layer), site: unpack(list.data.site), channel: unpack(list.data.channel) });
    for (let i = 0; i < at.channel.length && units.length < 50; i++) {
      const found = { layer: at.layer[i], site: table.sites[at.site[i]], channel: at.channel[i] };
      if (["layer", "site", "channel"].every((name) => unit[name] === undefined || unit[name] === found[name])) units.push(found);
    }
  }
  const sentences = [];
  let matches = 0;
  if (wanted) for (const part of parts) part.texts.forEach((sentence, i) => {
    if (sentence.toLowerCase().includes(text) && ++matches <= 50) sentences.push({ sentence, concepts: part.concepts[i] });
  });
  const marked = (sentence) => {
    const at = sentence.toLowerCase().indexOf(text);
    return html`${sentence.slice(0, at)}<mark>${sentence.slice(at, at + text.length)}</mark>${sentence.slice(at + text.length)}`;
  };
  const change = (value) => { history.replaceState(null, "", linkTo(state, ["search"], { q: value })); dispatchEvent(new HashChangeEvent("hashchange")); };
  return html`<h1>Search</h1>
    <label class="field">Concepts, units (<q>L3 mlp.up 417</q>) and sentences <input type="search" id="asked" value=${asked} onInput=${(e) => change(e.target.value)} /></label>
    ${text && html`
      <section><h2>Concepts</h2>${concepts.length ? html`<ul>${concepts.slice(0, 50).map(({ name, row }) => html`<li><a href=${conceptLink(state, row)}>${name}</a> <${Domain} table=${table} row=${row} /></li>`)}</ul>` : html`<p class="faint">None.</p>`}</section>
      <section><h2>Units</h2>${!unit ? html`<p class="faint">Write a layer, a site, a channel, or all of them.</p>` : !list.data ? html`<${Waiting} of=${list} />` : units.length ? html`<ul>${units.map((each) => html`<li><a href=${unitLink(state, each)}>${unitName(each)}</a></li>`)}</ul>` : html`<p class="faint">None among the ${whole(table.shownUnits)} units that are shown.</p>`}</section>
      <section><h2>Sentences</h2>${!number ? html`<p class="faint">They couldn't be had; the notes on the first page say why.</p>` : sentences.length ? html`<ul class="sentences">${sentences.map((each) => html`<li>${marked(each.sentence)} ${each.concepts.map((row) => html`<a class="tag" href=${conceptLink(state, row)}>${table.concepts[row]}</a> `)}</li>`)}</ul>${matches > 50 && html`<p class="faint">The first 50 of ${whole(matches)}.</p>`}` : html`<p class="faint">${wanted ? "None." : "Write two letters or more."}</p>`}</section>`}`;
}
