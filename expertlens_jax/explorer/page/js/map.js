// The concepts by the experts they share: a map (t-SNE of 1 - Jaccard), and the tree of the same distances.
"use strict";

// Maps and trees were drawn at some levels of τ; the nearest is shown, and named.
function arrangedLevel(table, level) {
  return table.maps.reduce((best, each) => best === null || Math.abs(each - level) < Math.abs(best - level) ? each : best, null);
}

function leavesOf(tree, number) {
  const order = (node) => node < number ? [node] : [...order(tree[node - number][0]), ...order(tree[node - number][1])];
  return order(number + tree.length - 1);
}

function Places2D({ state, arranged }) {
  const { table } = state;
  const [width, height, edge] = [900, 620, 40];
  const ends = (values) => [Math.min(...values), Math.max(...values)];
  const [[x0, x1], [y0, y1]] = [ends(arranged.x), ends(arranged.y)];
  const x = (v) => edge + ((v - x0) / Math.max(1e-9, x1 - x0)) * (width - 2 * edge - 60);
  const y = (v) => edge + ((v - y0) / Math.max(1e-9, y1 - y0)) * (height - 2 * edge);
  return html`<${Zoomable} width=${width} height=${height} label="Map of the concepts" content=${(scale) => table.concepts.map((name, row) => html`
    <a href=${conceptLink(state, row)} aria-label=${`${name}${table.domains[row] ? `, ${table.domains[row]}` : ""}: ${table.experts[row][state.level]} experts`}>
      <title>${`${name}${table.domains[row] ? ` (${table.domains[row]})` : ""}: ${whole(table.experts[row][state.level])} experts`}</title>
      <g transform=${`translate(${x(arranged.x[row])} ${y(arranged.y[row])}) scale(${1 / scale ** 0.75})`}><${Mark} kind=${kindOf(table, row)} /><text x="8" y="4">${name}</text></g></a>`)} />`;
}

function Tree({ state, arranged }) {
  const { table } = state;
  const number = table.concepts.length;
  const leaves = leavesOf(arranged.tree, number);
  const [rowHeight, width, names] = [15, 900, 150];
  const height = number * rowHeight + 30;
  const heights = arranged.tree.map((row) => row[2]);
  const [low, high] = [Math.min(...heights), Math.max(...heights)];
  const from = Math.max(0, low - (high - low) * 0.05);
  const x = (distance) => width - names - ((Math.max(distance, from) - from) / Math.max(1e-9, high - from)) * (width - names - 20);
  const spot = leaves.reduce((places, leaf, i) => { places[leaf] = { x: x(0), y: i * rowHeight + 12 }; return places; }, {});
  const paths = arranged.tree.map(([a, b, distance], i) => {
    const [one, two] = [spot[a], spot[b]];
    const at = { x: x(distance), y: (one.y + two.y) / 2 };
    spot[number + i] = at;
    return html`<path d=${`M${one.x} ${one.y}H${at.x}V${two.y}H${two.x}`}><title>${`joined at overlap ${(1 - distance).toFixed(3)}`}</title></path>`;
  });
  return html`<${Zoomable} width=${width} height=${height} label="Tree of the concepts" content=${() => html`<g class="tree">${paths}</g>
    ${leaves.map((leaf) => html`<a href=${conceptLink(state, leaf)} aria-label=${table.concepts[leaf]}><g transform=${`translate(${spot[leaf].x + 10} ${spot[leaf].y})`}><${Mark} kind=${kindOf(table, leaf)} size=${4} /><text x="9" y="4">${table.concepts[leaf]}</text></g></a>`)}
    ${[low, high].map((d) => html`<text class="axis" x=${x(d)} y=${height - 4} text-anchor="middle">${(1 - d).toFixed(3)}</text>`)}`} />`;
}

function Legend({ table }) {
  const rows = [...new Set(table.domains.filter(Boolean))].map((name) => table.domains.indexOf(name));
  return rows.length > 1 && html`<p class="legend">${rows.map((row) => html`<${Domain} table=${table} row=${row} /> `)}</p>`;
}

function MapView({ state }) {
  const { table, level } = state;
  const at = arrangedLevel(table, level);
  const arranged = useChunk(at === null ? null : `${table.id}/arranged/${at}`);
  if (at === null) return html`<h1>Map</h1><p>A map wants four concepts or more, and a tree three; this table has ${table.concepts.length}.</p>`;
  return html`<h1>Map</h1>
    <p>Concepts that share experts stand together: t-SNE of 1 − Jaccard at τ = ${table.levels[at]}${at !== level && html` (the nearest to ${state.tau} that was drawn)`}${arranged.data && arranged.data.trustworthiness !== undefined && html`; trustworthiness ${arranged.data.trustworthiness}`}. Zoom with the wheel, or + and −; drag or arrows move; a concept leads on.</p>
    <${Legend} table=${table} />
    ${!arranged.data ? html`<${Waiting} of=${arranged} />` : html`
      ${arranged.data.x && html`<${Places2D} state=${state} arranged=${arranged.data} />`}
      <section><h2>Tree</h2><p class="faint">Average linkage of the same distances; below it, the overlap at which branches join.</p><${Tree} state=${state} arranged=${arranged.data} /></section>`}`;
}
