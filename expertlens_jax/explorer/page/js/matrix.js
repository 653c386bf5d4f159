// All overlaps at once, in the tree's order.
"use strict";

// White or black to a strong colour, by the share of the largest overlap.
function cellColour(share, dark) {
  const t = Math.sqrt(share);
  const [from, to] = dark ? [[32, 36, 43], [255, 196, 110]] : [[255, 255, 255], [92, 26, 92]];
  return `rgb(${from.map((v, k) => Math.round(v + (to[k] - v) * t)).join(",")})`;
}

function MatrixView({ state }) {
  const { table, level } = state;
  const number = table.concepts.length;
  const at = arrangedLevel(table, level);
  const shared = useChunk(`${table.id}/shared/${level}`);
  const arranged = useChunk(at === null ? null : `${table.id}/arranged/${at}`);
  const [byDomain, setByDomain] = useState(false);
  const [cursor, setCursor] = useState(null);
  const [zoom, setZoom] = useState(1);
  const canvas = useRef(null);
  const counts = shared.data ? shared.data.values || (shared.data.values = unpack(shared.data)) : null;
  const order = useMemo(() => {
    if (byDomain) return table.concepts.map((_, i) => i).sort((a, b) => byName(table.domains[a], table.domains[b]) || a - b);
    return arranged.data ? leavesOf(arranged.data.tree, number) : table.concepts.map((_, i) => i);
  }, [table, byDomain, arranged.data]);
  const cell = Math.max(3, Math.round(Math.max(3, Math.min(28, 640 / number)) * zoom));
  useEffect(() => {
    if (!counts || !canvas.current) return;
    const context = canvas.current.getContext("2d");
    const dark = getComputedStyle(document.documentElement).getPropertyValue("--dark").trim() === "1";
    let most = 1e-9;
    for (let i = 0; i < number; i++) for (let j = i + 1; j < number; j++) most = Math.max(most, overlapOf(table, counts, level, i, j).jaccard);
    context.clearRect(0, 0, canvas.current.width, canvas.current.height);
    order.forEach((a, i) => order.forEach((b, j) => {
      context.fillStyle = a === b ? (dark ? "#4a505a" : "#d5d5d5") : cellColour(overlapOf(table, counts, level, a, b).jaccard / most, dark);
      context.fillRect(j * cell, i * cell, cell > 6 ? cell - 1 : cell, cell > 6 ? cell - 1 : cell);
    }));
    if (cursor) {
      context.strokeStyle = dark ? "#fff" : "#000";
      context.lineWidth = 2;
      context.strokeRect(cursor[1] * cell, cursor[0] * cell, cell, cell);
    }
  });
  if (number < 2) return html`<h1>Matrix</h1><p>One concept alone has no overlaps.</p>`;
  if (!counts || (at !== null && !arranged.data)) return html`<h1>Matrix</h1><${Waiting} of=${counts ? arranged : shared} />`;
  const find = (event) => {
    const box = canvas.current.getBoundingClientRect();
    const place = [(event.clientY - box.top) / box.height, (event.clientX - box.left) / box.width].map((s) => Math.floor(s * number));
    return place.every((p) => p >= 0 && p < number) ? place : null;
  };
  const open = (place) => { if (place && place[0] !== place[1]) location.hash = pairLink(state, order[place[0]], order[place[1]]); else if (place) location.hash = conceptLink(state, order[place[0]]); };
  const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  const onKey = (event) => {
    if (step[event.key]) {
      event.preventDefault();
      const [i, j] = cursor || [0, 0];
      setCursor([i + step[event.key][0], j + step[event.key][1]].map((p) => Math.min(number - 1, Math.max(0, p))));
    } else if (event.key === "Enter") open(cursor);
    else if (event.key === "+" || event.key === "=") setZoom(Math.min(8, zoom * 1.5));
    else if (event.key === "-") setZoom(Math.max(1, zoom / 1.5));
  };
  const told = cursor && overlapOf(table, counts, level, order[cursor[0]], order[cursor[1]]);
  return html`<h1>Matrix</h1>
    <p>Overlap of expert sets (Jaccard) at τ = ${state.tau}; the darker${" "}(in the dark, the brighter) the more. A cell leads to its pair; arrows move, Enter opens, + and − zoom.</p>
    <div class="row"><label class="field"><input type="checkbox" checked=${byDomain} onChange=${(e) => setByDomain(e.target.checked)} /> by domain, not by the tree</label>
      <span class="buttons"><button type="button" onClick=${() => setZoom(Math.min(8, zoom * 1.5))} aria-label="Zoom in">+</button>
      <button type="button" onClick=${() => setZoom(Math.max(1, zoom / 1.5))} aria-label="Zoom out">−</button></span></div>
    <p class="told" role="status">${told ? html`<strong>${table.concepts[order[cursor[0]]]}</strong> and <strong>${table.concepts[order[cursor[1]]]}</strong>: overlap ${fixed(told.jaccard)}, ${whole(told.both)} shared` : "Point at a cell."}</p>
    <div class="matrix">
      <canvas ref=${canvas} width=${number * cell} height=${number * cell} style=${`width:${number * cell}px;height:${number * cell}px`} tabindex="0" role="application"
        aria-label=${`Matrix of ${number} by ${number} overlaps`} onKeyDown=${onKey} onPointerMove=${(e) => setCursor(find(e))} onClick=${(e) => open(find(e))}></canvas>
      ${cell >= 11 && html`<div class="names" aria-hidden="true" style=${`--cell:${cell}px`}>${order.map((row) => html`<span>${table.concepts[row]}</span>`)}</div>`}
    </div>`;
}
