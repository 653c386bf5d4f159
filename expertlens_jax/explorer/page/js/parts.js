// What views are made of: numbers, tables, notes, small charts.
"use strict";

const whole = (n) => n === null || n === undefined ? "–" : n.toLocaleString("en");
const fixed = (n, digits = 3) => n === null || n === undefined || Number.isNaN(n) ? "–" : n.toFixed(digits);
const small = (n) => n === null || n === undefined ? "–" : n >= 0.001 ? n.toFixed(3) : n === 0 ? "0" : n.toExponential(1);
const plural = (n, one, many) => `${whole(n)} ${n === 1 ? one : many || one + "s"}`;
const byName = (a, b) => String(a).localeCompare(String(b));

const SHAPES = ["circle", "square", "triangle"];
// Okabe & Ito's colours, darker or lighter by theme in page.css; with a shape, eighteen kinds can be told apart.
function kindOf(table, row) {
  const names = table.domainNames || (table.domainNames = [...new Set(table.domains.filter(Boolean))]);
  const place = names.indexOf(table.domains[row]);
  return place < 0 ? { colour: "var(--ink)", shape: "circle" }
    : { colour: `var(--kind${place % 6})`, shape: SHAPES[Math.floor(place / 6) % 3] };
}

function Mark({ kind, x = 0, y = 0, size = 5 }) {
  if (kind.shape === "square") return html`<rect x=${x - size} y=${y - size} width=${2 * size} height=${2 * size} fill=${kind.colour} />`;
  if (kind.shape === "triangle") return html`<path d=${`M${x} ${y - size * 1.2}L${x + size * 1.15} ${y + size}H${x - size * 1.15}Z`} fill=${kind.colour} />`;
  return html`<circle cx=${x} cy=${y} r=${size} fill=${kind.colour} />`;
}

function Domain({ table, row }) {
  if (!table.domains[row]) return null;
  return html`<span class="domain"><svg width="12" height="12" viewBox="-7 -7 14 14" aria-hidden="true"><${Mark} kind=${kindOf(table, row)} /></svg> ${table.domains[row]}</span>`;
}

// A table whose columns sort; a column is { name, label, value, show, number, title }.
function SortedTable({ columns, rows, first, down = true, caption, limit = 100, empty = "There are none." }) {
  const [sort, setSort] = useState({ name: first, down });
  const [all, setAll] = useState(false);
  const column = columns.find((each) => each.name === sort.name);
  const sorted = useMemo(() => {
    if (!column) return rows;
    const sign = sort.down ? -1 : 1;
    const absent = (v) => v === null || v === undefined || Number.isNaN(v);
    return [...rows].sort((a, b) => {
      const [u, v] = [column.value(a), column.value(b)];
      if (absent(u) || absent(v)) return absent(u) - absent(v);
      return sign * (column.number ? u - v : byName(u, v));
    });
  }, [rows, sort.name, sort.down]);
  if (!rows.length) return html`<p class="faint">${empty}</p>`;
  const shown = all ? sorted : sorted.slice(0, limit);
  const turn = (each) => setSort({ name: each.name, down: sort.name === each.name ? !sort.down : Boolean(each.number) });
  const state = (each) => each.name !== sort.name ? "none" : sort.down ? "descending" : "ascending";
  return html`
    <div class="wide" tabindex="0" role="region" aria-label=${caption}>
      <table>
        <caption class="unseen">${caption}</caption>
        <thead><tr>${columns.map((each) => html`
          <th scope="col" class=${each.number ? "number" : ""} aria-sort=${state(each)} title=${each.title || ""}>
            <button type="button" onClick=${() => turn(each)}>${each.label}<span aria-hidden="true">${{ none: "", ascending: " ▲", descending: " ▼" }[state(each)]}</span></button>
          </th>`)}</tr></thead>
        <tbody>${shown.map((row) => html`<tr>${columns.map((each) => html`
          <td class=${each.number ? "number" : ""}>${each.show ? each.show(row) : each.value(row)}</td>`)}</tr>`)}</tbody>
      </table>
    </div>
    ${sorted.length > shown.length && html`<button type="button" class="plain" onClick=${() => setAll(true)}>Show all ${whole(sorted.length)}</button>`}`;
}

function Waiting({ of }) {
  if (of.error) return html`<p class="note" role="alert">${of.error.message}. Copy the whole folder of the page.</p>`;
  return html`<p class="faint" role="status">Loading …</p>`;
}

function Notes({ index }) {
  if (!index.notes.length && !index.leftOut.length) return null;
  return html`<section class="note" aria-label="Notes">
    ${index.notes.map((note) => html`<p>${note}</p>`)}
    ${index.leftOut.length > 0 && html`<details><summary>${plural(index.leftOut.length, "further table")} of this run ${index.leftOut.length === 1 ? "isn't" : "aren't"} shown</summary>
      <p>Each is a run of its own: <code>expertlens explore RUN/expertise/NAME</code></p>
      <ul>${index.leftOut.map((name) => html`<li>${name}</li>`)}</ul></details>`}
  </section>`;
}

// Lines over τ, on a logarithmic scale of experts.
function ExpertsOverTau({ state, lines }) {
  const { table } = state;
  const [width, height, left, bottom] = [320, 150, 46, 28];
  const most = Math.max(10, ...lines.flatMap((line) => line.values));
  const x = (i) => left + (i / Math.max(1, table.levels.length - 1)) * (width - left - 10);
  const y = (n) => 8 + (1 - Math.log10(n + 1) / Math.log10(most + 1)) * (height - bottom - 8);
  const ticks = [0, 1, 10, 100, 1000, 10000, 100000, 1000000].filter((n) => n <= most);
  const told = lines.map((line) => `${line.name}: ${whole(line.values[state.level])}`).join("; ");
  return html`<svg class="chart" viewBox="0 0 ${width} ${height}" role="img" aria-label=${`Experts by τ. At τ = ${state.tau}: ${told}`}>
    ${ticks.map((n) => html`<g class="tick"><line x1=${left} x2=${width - 10} y1=${y(n)} y2=${y(n)} /><text x=${left - 6} y=${y(n) + 3} text-anchor="end">${whole(n)}</text></g>`)}
    ${table.levels.map((level, i) => i % 4 === 0 && html`<text class="axis" x=${x(i)} y=${height - 14} text-anchor="middle">${level}</text>`)}
    <text class="axis" x=${(left + width) / 2} y=${height - 2} text-anchor="middle">τ</text>
    <line class="now" x1=${x(state.level)} x2=${x(state.level)} y1="4" y2=${height - bottom} />
    ${lines.map((line) => html`<polyline fill="none" stroke=${line.colour} stroke-width="2" stroke-dasharray=${line.dashed ? "4 3" : "none"} points=${line.values.map((n, i) => `${x(i)},${y(n)}`).join(" ")} />
      <circle cx=${x(state.level)} cy=${y(line.values[state.level])} r="3.5" fill=${line.colour} />`)}
  </svg>`;
}

// Wheel, drag, buttons and keys move a view box; `content(scale)` draws what is in it.
function Zoomable({ width, height, label, content }) {
  const whole = { x: 0, y: 0, scale: 1 };
  const [view, setView] = useState(whole);
  const svg = useRef(null);
  const held = useRef(null);
  const zoom = (factor, at = { x: width / 2, y: height / 2 }) => setView((now) => {
    const scale = Math.min(20, Math.max(1, now.scale * factor));
    const ratio = 1 / now.scale - 1 / scale;
    return within({ scale, x: now.x + at.x * ratio, y: now.y + at.y * ratio });
  });
  const within = (v) => ({ ...v, x: Math.min(width - width / v.scale, Math.max(0, v.x)), y: Math.min(height - height / v.scale, Math.max(0, v.y)) });
  const move = (dx, dy) => setView((now) => within({ ...now, x: now.x + dx / now.scale, y: now.y + dy / now.scale }));
  const inBox = (event) => {
    const box = svg.current.getBoundingClientRect();
    return { x: ((event.clientX - box.left) / box.width) * width, y: ((event.clientY - box.top) / box.height) * height };
  };
  useEffect(() => {
    const onWheel = (event) => { event.preventDefault(); zoom(event.deltaY < 0 ? 1.25 : 0.8, inBox(event)); };
    svg.current.addEventListener("wheel", onWheel, { passive: false });
    const seen = svg.current;
    return () => seen.removeEventListener("wheel", onWheel);
  }, []);
  const keys = { "+": () => zoom(1.4), "=": () => zoom(1.4), "-": () => zoom(1 / 1.4), "0": () => setView(whole), ArrowLeft: () => move(-60, 0), ArrowRight: () => move(60, 0), ArrowUp: () => move(0, -60), ArrowDown: () => move(0, 60) };
  const onKey = (event) => { if (keys[event.key]) { event.preventDefault(); keys[event.key](); } };
  return html`<div class="zoomable">
    <div class="buttons"><button type="button" onClick=${() => zoom(1.5)} aria-label="Zoom in">+</button>
      <button type="button" onClick=${() => zoom(1 / 1.5)} aria-label="Zoom out">−</button>
      <button type="button" onClick=${() => setView(whole)}>Whole</button></div>
    <svg ref=${svg} class="zoomed" viewBox="${view.x} ${view.y} ${width / view.scale} ${height / view.scale}" role="group" aria-label=${label}
      tabindex="0" onKeyDown=${onKey}
      onPointerDown=${(e) => { held.current = { x: e.clientX, y: e.clientY }; }}
      onPointerMove=${(e) => {
        if (!held.current || !e.buttons) return;
        const box = svg.current.getBoundingClientRect();
        move(((held.current.x - e.clientX) / box.width) * width, ((held.current.y - e.clientY) / box.height) * height);
        held.current = { x: e.clientX, y: e.clientY };
      }}
      onPointerUp=${() => { held.current = null; }}>${content(view.scale)}</svg></div>`;
}
