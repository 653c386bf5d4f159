// Two concepts: what they share, what they don't, and where people see them.
"use strict";

function RatedScatter({ state, ratings, pair, counts }) {
  const { table, level } = state;
  const points = table.rated[ratings].map(([i, j, rating]) => ({ i, j, rating, jaccard: overlapOf(table, counts, level, i, j).jaccard }));
  const [width, height, left, bottom] = [420, 260, 60, 36];
  const most = Math.max(0.01, ...points.map((p) => p.jaccard));
  const [low, high] = [Math.min(...points.map((p) => p.rating)), Math.max(...points.map((p) => p.rating))];
  const x = (v) => left + ((v - low) / Math.max(1e-9, high - low)) * (width - left - 14);
  const y = (v) => 10 + (1 - v / most) * (height - bottom - 10);
  const rho = spearman(points.map((p) => [p.rating, p.jaccard]));
  const own = (p) => pair && ((p.i === pair[0] && p.j === pair[1]) || (p.j === pair[0] && p.i === pair[1]));
  const text = `${ratings}: ${plural(points.length, "rated pair")}, Spearman's ρ ${Number.isNaN(rho) ? "not defined" : rho.toFixed(2)} at τ = ${state.tau}`;
  return html`<figure><svg class="chart" viewBox="0 0 ${width} ${height}" role="group" aria-label=${text}>
    ${[0, 0.5, 1].map((s) => html`<g class="tick"><line x1=${left} x2=${width - 10} y1=${y(s * most)} y2=${y(s * most)} /><text x=${left - 6} y=${y(s * most) + 3} text-anchor="end">${(s * most).toPrecision(2)}</text></g>
      <text class="axis" x=${x(low + s * (high - low))} y=${height - 20} text-anchor="middle">${(low + s * (high - low)).toPrecision(3)}</text>`)}
    <text class="axis" x=${(left + width) / 2} y=${height - 4} text-anchor="middle">people's rating</text>
    <text class="axis" transform=${`translate(10 ${(height - bottom) / 2}) rotate(-90)`} text-anchor="middle">overlap</text>
    ${points.sort((a, b) => own(a) - own(b)).map((p) => html`<a href=${pairLink(state, p.i, p.j)} aria-label=${`${table.concepts[p.i]} and ${table.concepts[p.j]}: rating ${p.rating}, overlap ${p.jaccard.toFixed(3)}`}>
      <circle cx=${x(p.rating)} cy=${y(p.jaccard)} r=${own(p) ? 7 : 4.5} fill=${own(p) ? "var(--kind1)" : "var(--kind0)"} fill-opacity=${own(p) ? 1 : 0.65}><title>${`${table.concepts[p.i]} – ${table.concepts[p.j]}: ${p.rating}, ${p.jaccard.toFixed(3)}`}</title></circle></a>`)}
  </svg><figcaption>${text}.</figcaption></figure>`;
}

function PairView({ state, names }) {
  const { table, level, tau } = state;
  const rows = names.map((name) => table.concepts.indexOf(name));
  const known = rows.every((row) => row >= 0);
  const shared = useChunk(`${table.id}/shared/${level}`);
  const list = useChunk(`${table.id}/units`);
  const chunks = [useChunk(known ? `${table.id}/concepts/${rows[0]}` : null), useChunk(known ? `${table.id}/concepts/${rows[1]}` : null)];
  if (!known) return html`<h1>No such pair</h1><p>This table doesn't have both of <q>${names[0]}</q> and <q>${names[1]}</q>. <a href=${linkTo(state, [])}>All concepts</a></p>`;
  const waits = [shared, list, ...chunks].find((each) => !each.data);
  if (waits) return html`<h1>${names[0]} and ${names[1]}</h1><${Waiting} of=${waits} />`;
  const counts = shared.data.values || (shared.data.values = unpack(shared.data));
  const { both, jaccard, sizes } = overlapOf(table, counts, level, ...rows);
  const experts = chunks.map((chunk) => unitRows(table, chunk.data, list.data).filter((each) => each.ap >= tau));
  const others = chunks.map((chunk) => new Map(unitRows(table, chunk.data, list.data).map((each) => [each.place, each.ap])));
  const common = experts[0].filter((each) => (others[1].get(each.place) ?? -1) >= tau).map((each) => ({ ...each, other: others[1].get(each.place) }));
  const alone = experts.map((each, k) => each.filter((unit) => !((others[1 - k].get(unit.place) ?? -1) >= tau)));
  const column = (label, value) => ({ name: label, label, number: true, value, show: (r) => fixed(value(r)) });
  const unit = { name: "unit", label: "Unit", value: (r) => unitName(r), show: (r) => html`<a href=${unitLink(state, r)}>${unitName(r)}</a>` };
  const ratings = Object.entries(table.rated).map(([name, pairs]) => [name, pairs.find(([i, j]) => (i === rows[0] && j === rows[1]) || (j === rows[0] && i === rows[1]))]);
  const choose = (k, name) => { location.hash = linkTo(state, ["pair", ...(k ? [names[0], name] : [name, names[1]])]); };
  const total = Math.max(1, sizes[0] + sizes[1] - both);
  const parts = [[`only ${names[0]}`, sizes[0] - both, "part0"], ["both", both, "part1"], [`only ${names[1]}`, sizes[1] - both, "part2"]];
  return html`
    <h1><a href=${conceptLink(state, rows[0])}>${names[0]}</a> and <a href=${conceptLink(state, rows[1])}>${names[1]}</a></h1>
    <div class="row">${[0, 1].map((k) => html`<label class="field">${k ? "with" : "Compare"} <select onChange=${(e) => choose(k, e.target.value)}>${table.concepts.map((name) => html`<option value=${name} selected=${name === names[k]}>${name}</option>`)}</select></label>`)}</div>
    <p>They share <strong>${whole(both)}</strong> of ${whole(sizes[0] + sizes[1] - both)} experts at τ = ${tau}: overlap (Jaccard) <strong>${fixed(jaccard)}</strong>.
      ${ratings.filter(([, pair]) => pair).map(([name, pair]) => html` People rate them ${fixed(pair[2], 2)} (${name}).`)}
      ${!ratings.some(([, pair]) => pair) && " There is no rating of this pair."}</p>
    <div class="bar" role="img" aria-label=${parts.map(([name, n]) => `${name}: ${n}`).join(", ")}>${parts.map(([name, n, part]) => n > 0 && html`<span class=${part} style=${`flex:${n / total}`} title=${`${name}: ${whole(n)}`}>${name}: ${whole(n)}</span>`)}</div>
    <section><h2>Shared experts</h2>
      <${SortedTable} columns=${[unit, column(`AP on ${names[0]}`, (r) => r.ap), column(`AP on ${names[1]}`, (r) => r.other)]} rows=${common} first=${`AP on ${names[0]}`} caption="Shared experts" limit=${25} empty=${both ? "" : `At τ = ${tau} they share none.`} />
      ${common.length < both && html`<p class="faint">Listed are the ${whole(common.length)} of ${whole(both)} that are among the best ${whole(table.best)} of each.</p>`}</section>
    <div class="columns">${[0, 1].map((k) => html`<section><h2>Experts on ${names[k]} alone</h2>
      <${SortedTable} columns=${[unit, column("AP", (r) => r.ap)]} rows=${alone[k]} first="AP" caption=${`Experts on ${names[k]} alone`} limit=${10} />
      ${sizes[k] > experts[k].length && html`<p class="faint">Of the best ${whole(table.best)}; ${names[1 - k]} may have some beyond its own best ${whole(table.best)}.</p>`}</section>`)}</div>
    ${Object.keys(table.rated).length > 0 && html`<section><h2>Among the rated pairs</h2><div class="columns">${Object.keys(table.rated).map((name) => html`<${RatedScatter} state=${state} ratings=${name} pair=${rows} counts=${counts} />`)}</div></section>`}`;
}
