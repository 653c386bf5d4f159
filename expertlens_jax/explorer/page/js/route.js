// Every view has a link: #/concept/cat?t=t0&tau=0.5
"use strict";

function readRoute() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const decode = (part) => { try { return decodeURIComponent(part); } catch { return part; } };
  return { parts: path.split("/").filter(Boolean).map(decode), query: new URLSearchParams(query || "") };
}

// The link of a view of the table and τ that are shown now, unless others are given.
function linkTo(state, parts, more = {}) {
  const query = new URLSearchParams({ t: state.table.id, tau: String(state.tau), ...more });
  return `#/${parts.map((part) => encodeURIComponent(String(part))).join("/")}?${query}`;
}

const conceptLink = (state, row) => linkTo(state, ["concept", state.table.concepts[row]]);
const pairLink = (state, i, j) => linkTo(state, ["pair", state.table.concepts[i], state.table.concepts[j]]);
const unitLink = (state, unit) => linkTo(state, ["unit", unit.layer, unit.site, unit.channel]);
const unitName = (unit) => `L${unit.layer} ${unit.site} ${unit.channel}`;
