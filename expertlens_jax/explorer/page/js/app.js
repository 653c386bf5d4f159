// The frame: which view the link names, and the table, the τ and the theme that all views follow.
"use strict";

const remember = (name, value) => { try { localStorage.setItem(name, value); } catch { /* not from the file system */ } };
const remembered = (name) => { try { return localStorage.getItem(name); } catch { return null; } };

function nearestLevel(table, tau) {
  return table.levels.reduce((best, level, i) => Math.abs(level - tau) < Math.abs(table.levels[best] - tau) ? i : best, 0);
}

function App({ index }) {
  const [route, setRoute] = useState(readRoute());
  const [theme, setTheme] = useState(remembered("expertlens-theme") || "");
  const [held, hold] = useState({ t: null, tau: 0.5 });  // for links that say neither
  useEffect(() => {
    const follow = () => setRoute(readRoute());
    addEventListener("hashchange", follow);
    const onKey = (event) => {
      if (event.key === "/" && !/^(input|select|textarea)$/i.test(event.target.tagName)) {
        event.preventDefault();
        document.getElementById("find").focus();
      }
    };
    addEventListener("keydown", onKey);
    return () => { removeEventListener("hashchange", follow); removeEventListener("keydown", onKey); };
  }, []);
  document.documentElement.dataset.theme = theme;  // now, so that what is drawn below finds its colours
  const asked = route.query.get("t") || held.t;
  const table = index.tables.find((each) => each.id === asked) || index.tables[0];
  const level = nearestLevel(table, Number(route.query.get("tau") || held.tau) || 0.5);
  const state = { table, level, tau: table.levels[level] };
  const { parts } = route;
  const [view, ...rest] = parts;
  const query = route.query.get("q") ? { q: route.query.get("q") } : {};
  const replace = (next) => { history.replaceState(null, "", next); setRoute(readRoute()); };
  const setTau = (i) => { hold({ ...held, tau: table.levels[i] }); replace(linkTo({ table, tau: table.levels[i] }, parts, query)); };
  const setTable = (id) => { hold({ ...held, t: id }); location.hash = linkTo({ table: { id }, tau: state.tau }, parts, query); };
  const title = view ? `${parts.map((part) => part).join(" ")} · ${table.title}` : table.title;
  useEffect(() => { document.title = title; }, [title]);
  useEffect(() => { scrollTo(0, 0); }, [parts.join("/")]);
  const dark = theme === "dark" || (theme === "" && matchMedia("(prefers-color-scheme: dark)").matches);
  const turn = () => { const next = dark ? "light" : "dark"; remember("expertlens-theme", next); setTheme(next); };
  const find = (event) => {
    event.preventDefault();
    location.hash = linkTo(state, ["search"], { q: new FormData(event.target).get("q") });
  };
  const views = {
    concept: () => html`<${ConceptView} key=${rest[0]} index=${index} state=${state} name=${rest[0]} />`,
    unit: () => html`<${UnitView} state=${state} layer=${rest[0]} site=${rest[1]} channel=${rest[2]} />`,
    pair: () => html`<${PairView} state=${state} names=${rest} />`,
    map: () => html`<${MapView} state=${state} />`,
    matrix: () => html`<${MatrixView} key=${table.id} state=${state} />`,
    search: () => html`<${SearchView} key=${table.id} state=${state} asked=${route.query.get("q") || ""} />`,
    verdicts: () => html`<${VerdictsView} index=${index} state=${state} only=${rest[0]} />`,
    compare: () => html`<${CompareView} index=${index} state=${state} />`,
    live: () => html`<${LiveView} key=${table.id} index=${index} state=${state} name=${rest[0]} />`,
  };
  const enough = { concept: 1, unit: 3, pair: 2 };
  const known = view in views && rest.length >= (enough[view] || 0);
  const tab = (name, target, label) => html`<a href=${linkTo(state, target)} aria-current=${(view || "") === name ? "page" : undefined}>${label}</a>`;
  return html`
    <header>
      <nav aria-label="Views">${tab("", [], "Concepts")}${tab("map", ["map"], "Map")}${tab("matrix", ["matrix"], "Matrix")}${tab("verdicts", ["verdicts"], "Verdicts")}${index.compared && tab("compare", ["compare"], "Compare")}${index.live && tab("live", ["live"], "Live")}${tab("search", ["search"], "Search")}</nav>
      <form role="search" onSubmit=${find}><input id="find" name="q" type="search" placeholder="Search  ( / )" aria-label="Search concepts, units, sentences" /></form>
      ${index.tables.length > 1 && html`<label class="field">Table <select value=${table.id} onChange=${(e) => setTable(e.target.value)}>${index.tables.map((each) => html`<option value=${each.id} selected=${each.id === table.id}>${each.title}</option>`)}</select></label>`}
      <label class="field tau">τ <input type="range" id="tau" min="0" max=${table.levels.length - 1} step="1" value=${level} aria-valuetext=${String(state.tau)} onInput=${(e) => setTau(Number(e.target.value))} /> <output for="tau">${state.tau}</output></label>
      <button type="button" onClick=${turn}>${dark ? "Light" : "Dark"}</button>
    </header>
    <main id="main" tabindex="-1">${!view ? html`<${Home} key=${table.id} index=${index} state=${state} />` : known ? views[view]() : html`<h1>No such view</h1><p><a href=${linkTo(state, [])}>All concepts</a></p>`}</main>
    <footer><p>Run ${index.run}${index.started ? `, last launched ${index.started.slice(0, 10)}` : ""}; expertlens_jax ${index.version}.${index.notes.length > 0 && html` <a href=${linkTo(state, [])}>${plural(index.notes.length, "note")}</a> on what it leaves out.`}</p></footer>`;
}

document.querySelector("[data-skip]").addEventListener("click", (event) => {
  event.preventDefault();
  document.getElementById("main").focus();
});
EXPERTLENS.load("index").then(
  (index) => {
    const page = document.getElementById("page");
    page.textContent = "";
    render(html`<${App} index=${index} />`, page);
  },
  (error) => { document.getElementById("page").textContent = `${error.message}. Copy the whole folder of the page.`; },
);
