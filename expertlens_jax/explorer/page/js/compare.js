// Runs side by side: what they were told, what each concept's experts are in both, and which verdicts change.
"use strict";

const tableById = (index, id) => index.tables.find((each) => each.id === id);
const levelAt = (table, tau) => table.levels.findIndex((level) => Math.abs(level - tau) < 1e-9);

// Two numbers of each concept, or pair of concepts, against each other; on the line both runs are alike.
function RunsScatter({ points, label, names, root = false, logarithmic = false }) {
  const [width, height, left, bottom] = [320, 300, 48, 38];
  const values = points.flatMap((p) => [p.x, p.y]);
  const bend = (v) => logarithmic ? Math.log10(v + 1) : root ? Math.sqrt(Math.max(v, 0)) : v;
  const [low, high] = logarithmic || root ? [0, Math.max(logarithmic ? 10 : 0.01, ...values) * 1.1] : [Math.min(1, ...values) - 0.02, Math.max(0, ...values) + 0.02];
  const share = (v) => (bend(v) - bend(low)) / Math.max(bend(high) - bend(low), 1e-12);
  const x = (v) => left + share(v) * (width - left - 10);
  const y = (v) => 8 + (1 - share(v)) * (height - bottom - 8);
  const ticks = logarithmic ? [0, 1, 10, 100, 1000, 10000, 100000].filter((v) => v <= high)
    : root ? (high < 0.4 ? [0, 0.01, 0.05, 0.1, 0.2] : [0, 0.05, 0.2, 0.5, 1]).filter((v) => v <= high)
    : niceTicks(low, high);
  return html`<figure><svg class="chart" viewBox="0 0 ${width} ${height}" role="group" aria-label=${label}>
    ${ticks.map((v) => html`<g class="tick"><line x1=${left} x2=${width - 10} y1=${y(v)} y2=${y(v)} /><text x=${left - 6} y=${y(v) + 3} text-anchor="end">${whole(v)}</text><text x=${x(v)} y=${height - 20} text-anchor="middle">${whole(v)}</text></g>`)}
    <line class="now" x1=${x(low)} y1=${y(low)} x2=${x(high)} y2=${y(high)} />
    <text class="axis" x=${(left + width) / 2} y=${height - 4} text-anchor="middle">${names[0]}</text>
    <text class="axis" transform=${`translate(10 ${(height - bottom) / 2}) rotate(-90)`} text-anchor="middle">${names[1]}</text>
    ${points.map((p) => html`<a href=${p.href} aria-label=${p.told}><circle cx=${x(p.x)} cy=${y(p.y)} r=${points.length > 300 ? 2 : 4} fill="var(--kind0)" fill-opacity="0.6"><title>${p.told}</title></circle></a>`)}
  </svg><figcaption>${label}</figcaption></figure>`;
}

// Round numbers within a range.
function niceTicks(low, high) {
  const step = [0.01, 0.02, 0.05, 0.1, 0.2].find((each) => (high - low) / each <= 6) || 0.5;
  const first = Math.ceil(low / step);
  return Array.from({ length: Math.floor(high / step) - first + 1 }, (_, i) => Number(((first + i) * step).toFixed(2)));
}

function SettingsApart({ runs, rows, caption }) {
  return html`<div class="wide" tabindex="0" role="region" aria-label=${caption}><table><caption class="unseen">${caption}</caption>
    <thead><tr><th scope="col">Setting</th>${runs.map((run) => html`<th scope="col">${run}</th>`)}</tr></thead>
    <tbody>${rows.map((row) => html`<tr><th scope="row">${row.setting}${row.sentences ? ` (${row.sentences})` : ""}</th>${runs.map((run) => html`<td class="setting">${row[run]}</td>`)}</tr>`)}</tbody></table></div>`;
}

function useOverlaps(table, level) {
  const shared = useChunk(level < 0 ? null : `${table.id}/shared/${level}`);
  if (shared.data && !shared.data.values) shared.data.values = unpack(shared.data);
  return shared;
}

function ComparedPair({ index, state, pair }) {
  const tables = pair.tables.map((id) => tableById(index, id));
  const levels = tables.map((table) => levelAt(table, state.tau));
  const overlaps = [useOverlaps(tables[0], levels[0]), useOverlaps(tables[1], levels[1])];
  const same = useChunk(pair.chunk);
  const places = useMemo(() => tables.map((table) => pair.concepts.map((name) => table.concepts.indexOf(name))), [pair]);
  const [a, b] = pair.runs;
  const state0 = { ...state, table: tables[0] };
  if (levels.some((level) => level < 0)) return html`<p class="faint">τ = ${state.tau} isn't among the thresholds of both: their base rates differ. Move the slider up.</p>`;
  const wait = [same, ...overlaps].find((each) => !each.data);
  if (wait) return html`<${Waiting} of=${wait} />`;
  const at = pair.sharesUnits ? same.data.levels.findIndex((level) => Math.abs(level - state.tau) < 1e-9) : -1;
  const counts = at < 0 ? null : (same.data.counts || (same.data.counts = [unpack(same.data.both), unpack(same.data.either)]));
  const number = pair.concepts.length;
  const rows = pair.concepts.map((name, i) => ({
    name, place: places[0][i],
    experts: tables.map((table, k) => table.experts[places[k][i]][levels[k]]),
    best: tables.map((table, k) => table.highest[places[k][i]]),
    same: counts && counts[1][at * number + i] ? counts[0][at * number + i] / counts[1][at * number + i] : counts ? 0 : null,
    chance: counts ? same.data.chance[at * number + i] : null,
  }));
  const jaccard = (k, i, j) => overlapOf(tables[k], overlaps[k].data.values, levels[k], places[k][i], places[k][j]).jaccard;
  const pairs = [];
  for (let i = 0; i < number; i++) for (let j = i + 1; j < number; j++) pairs.push({ i, j, x: jaccard(0, i, j), y: jaccard(1, i, j) });
  const rho = spearman(pairs.map((p) => [p.x, p.y]));
  const shown = pairs.length <= 3000 ? pairs : pairs.filter((_, k) => k % Math.ceil(pairs.length / 3000) === 0);
  const cell = (name, label, value, show, title) => ({ name, label, title, number: true, value, show: (r) => show(value(r)) });
  const columns = [
    { name: "name", label: "Concept", value: (r) => r.name, show: (r) => html`<a href=${conceptLink(state0, r.place)}>${r.name}</a>` },
    cell("e0", `Experts, ${a}`, (r) => r.experts[0], whole), cell("e1", `Experts, ${b}`, (r) => r.experts[1], whole),
    cell("b0", `Best AP, ${a}`, (r) => r.best[0], fixed), cell("b1", `Best AP, ${b}`, (r) => r.best[1], fixed),
    ...(pair.sharesUnits ? [cell("same", "The same experts", (r) => r.same, fixed, "Jaccard overlap of the concept's experts in both"), cell("chance", "By chance", (r) => r.chance, fixed, "That of random sets as large")] : []),
  ];
  const ratings = Object.keys(tables[0].rated).map((name) => {
    const of = (k) => tables[k].rated[name] ? tables[k].rated[name].flatMap(([i, j, rating]) => {
      const both = [i, j].map((row) => places[k].indexOf(row));
      return both.includes(-1) ? [] : [[rating, jaccard(k, ...both)]];
    }) : [];
    return { name, pairs: of(0).length, rho: [spearman(of(0)), spearman(of(1))] };
  }).filter((each) => each.pairs >= 10);
  const many = rows.filter((r) => r.experts[1] > r.experts[0]).length, few = rows.filter((r) => r.experts[1] < r.experts[0]).length;
  return html`
    <p>At τ = ${state.tau}, ${b} has more experts for <strong>${whole(many)}</strong> and fewer for <strong>${whole(few)}</strong> of ${plural(number, "concept")}. The overlaps of pairs of concepts correlate by <strong>${Number.isNaN(rho) ? "–" : rho.toFixed(2)}</strong> (Spearman).
      ${pair.sharesUnits ? html` A concept's experts are the same by <strong>${fixed(rows.reduce((sum, r) => sum + r.same, 0) / number, 2)}</strong> in the mean (Jaccard), by chance ${fixed(rows.reduce((sum, r) => sum + (r.chance || 0), 0) / number, 2)}.` : " Their units aren't the same, so whether the experts are can't be asked."}</p>
    ${ratings.length > 0 && html`<ul>${ratings.map((each) => html`<li>Alignment with ${each.name} (${plural(each.pairs, "pair")}): ${fixed(each.rho[0], 2)} in ${a}, ${fixed(each.rho[1], 2)} in ${b}.</li>`)}</ul>`}
    <div class="columns three">
      <${RunsScatter} label="Experts of each concept" names=${pair.runs} logarithmic points=${rows.map((r) => ({ x: r.experts[0], y: r.experts[1], told: `${r.name}: ${whole(r.experts[0])} and ${whole(r.experts[1])}`, href: conceptLink(state0, r.place) }))} />
      <${RunsScatter} label="Average precision of its best unit" names=${pair.runs} points=${rows.map((r) => ({ x: r.best[0], y: r.best[1], told: `${r.name}: ${fixed(r.best[0])} and ${fixed(r.best[1])}`, href: conceptLink(state0, r.place) }))} />
      <${RunsScatter} label=${`Overlap of each pair of concepts${shown.length < pairs.length ? `, ${whole(shown.length)} of ${whole(pairs.length)}` : ""}`} names=${pair.runs} root points=${shown.map((p) => ({ x: p.x, y: p.y, told: `${pair.concepts[p.i]} and ${pair.concepts[p.j]}: ${fixed(p.x)} and ${fixed(p.y)}`, href: pairLink(state0, places[0][p.i], places[0][p.j]) }))} />
    </div>
    <${SortedTable} columns=${columns} rows=${rows} first=${pair.sharesUnits ? "same" : "e0"} caption="Concepts in both runs" limit=${25} />`;
}

function CompareView({ index, state }) {
  const [chosen, choose] = useState(0);
  const compared = index.compared;
  if (!compared) return html`<h1>Runs side by side</h1><p>This page shows one run. <code>expertlens explore RUN --compare OTHER</code> shows another beside it.</p><p><a href=${linkTo(state, [])}>All concepts</a></p>`;
  const pair = compared.pairs[Math.min(chosen, compared.pairs.length - 1)];
  const verdicts = [...compared.verdicts].sort((one, other) => other.changes - one.changes);
  const changing = verdicts.filter((each) => each.changes).length;
  const deep = (row) => row.setting.startsWith("config.") || row.setting.endsWith("sha256");
  const [plain, rest] = [compared.settings.filter((row) => !deep(row)), compared.settings.filter(deep)];
  const listed = `${compared.runs.slice(0, -1).join(", ")} and ${compared.runs[compared.runs.length - 1]}`;
  return html`<h1>${listed}</h1>
    <section><h2>What differs</h2>${plain.length ? html`<${SettingsApart} runs=${compared.runs} rows=${plain} caption="What differs" />` : ""}
      ${!compared.settings.length && html`<p>Nothing: they were told the same, and measured with the same.</p>`}
      ${rest.length > 0 && html`<details><summary>${plural(rest.length, "option")} of the networks, and digests</summary><${SettingsApart} runs=${compared.runs} rows=${rest} caption="Options of the networks, and digests" /></details>`}</section>
    <section><h2>Concepts</h2>
      ${compared.pairs.length > 1 && html`<label class="field">Side by side <select value=${chosen} onChange=${(e) => choose(Number(e.target.value))}>${compared.pairs.map((each, i) => html`<option value=${i}>${each.runs.join(" and ")}, ${each.sentences}</option>`)}</select></label>`}
      <${ComparedPair} key=${pair.chunk} index=${index} state=${state} pair=${pair} /></section>
    ${verdicts.length > 0 && html`<section><h2>Verdicts</h2><p>${whole(changing)} of ${whole(verdicts.length)} change.</p>
      <div class="wide" tabindex="0" role="region" aria-label="Verdicts of each run"><table><caption class="unseen">Verdicts of each run</caption><thead><tr><th scope="col">Claim</th>${compared.runs.map((run) => html`<th scope="col">${run}</th>`)}</tr></thead>
      <tbody>${verdicts.map((each) => html`<tr><td>${each.changes && html`<strong>changes: </strong>`}${each.experiment ? `${each.experiment}: ` : ""}${each.claim}</td>${compared.runs.map((run) => html`<td>${each[run] ? html`<${Verdict} verdict=${each[run]} />` : "–"}</td>`)}</tr>`)}</tbody></table></div></section>`}`;
}
