// With the model loaded (expertlens explore --live): type a text, steer, and watch it write.
"use strict";

// Asks the server; where another question runs, again in a moment. `tell` hears that this waits.
async function askModel(what, body, signal, tell = () => {}) {
  for (let pause = 300; ; pause = Math.min(2 * pause, 2000)) {
    const response = await fetch(`live/${what}`, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal });
    if (response.ok) return response;
    const { error, name } = await response.json().catch(() => ({ error: `The server answers ${response.status}.` }));
    if (response.status !== 429) throw Object.assign(new Error(error), { field: name });
    tell(error);
    await new Promise((resolve) => setTimeout(resolve, pause));
    if (signal.aborted) throw new DOMException("left", "AbortError");
  }
}
const whyNot = (error) => error.message === "Failed to fetch" ? "The server doesn't answer: was it ended?" : error.message;

// The units that colour a concept's sentences, with the scale of each; of a page without tokens, its best, without scales.
function liveUnits(table, chunk, list, spoken) {
  const rows = unitRows(table, chunk, list);
  const of = (place) => rows.find((each) => each.place === place);
  return spoken ? spoken.units.map((place, i) => ({ ...of(place), scale: spoken.scales[i] })) : rows.slice(0, 5);
}

// A unit's scale: as its sentences have it, or from what it says here.
function scaleOf(unit, values) {
  if (unit.scale) return unit.scale;
  const sorted = [...values].sort((a, b) => a - b);
  return [sorted[0], sorted[Math.floor(sorted.length / 2)], sorted[sorted.length - 1]];
}

// How far each value is from its unit's middle, where the unit's highest is 1 and the mean over units is taken.
function meanOfUnits(units, activations) {
  return activations[0].map((_, token) => activations.reduce((sum, values, i) => {
    const [, middle, highest] = scaleOf(units[i], values);
    return sum + (values[token] - middle) / Math.max(highest - middle, 1e-12);
  }, 0) / units.length);
}

function LiveTokens({ tokens, values, scale }) {
  return html`<span class="tokens">${tokens.map((token, i) => html`<span style=${`background:${tint(values[i], scale)}`} title=${`${token.trim()}: ${values[i].toPrecision(4)}`}>${token}</span>`)}</span>`;
}

function LiveReading({ state, most, units, text, setText }) {
  const [chosen, choose] = useState("0");
  const [told, setTold] = useState(null);
  const [says, say] = useState("");
  const key = units.map(unitName).join();
  useEffect(() => {
    if (!text.trim()) { setTold(null); say(""); return undefined; }
    const control = new AbortController();
    const timer = setTimeout(() => {
      say("Reading …");
      askModel("trace", { table: state.table.id, text, units: units.map((u) => [u.layer, u.site, u.channel]) }, control.signal, say)
        .then((response) => response.json())
        .then((read) => { setTold({ key, ...read }); say(""); })
        .catch((error) => { if (error.name !== "AbortError") { setTold(null); say(whyNot(error)); } });
    }, 300);
    return () => { clearTimeout(timer); control.abort(); };
  }, [text, key]);
  const all = chosen === "all";
  const unit = units[Math.min(Number(chosen) || 0, units.length - 1)];
  const here = told && told.key === key ? told : null;
  const values = here && (all ? meanOfUnits(units, here.activations) : here.activations[units.indexOf(unit)]);
  const scale = here && (all ? [-1, 0, 1] : scaleOf(unit, values));
  return html`<section aria-label="Read a text"><h2>Read a text</h2>
    <label class="field grow">Text <textarea id="typed" rows="3" maxlength=${most.characters} value=${text} onInput=${(e) => setText(e.target.value)}></textarea></label>
    <div class="row"><label class="field">Coloured by <select id="unit" value=${chosen} onChange=${(e) => choose(e.target.value)}>
      ${units.map((each, i) => html`<option value=${String(i)}>${unitName(each)} (AP ${fixed(each.ap)})</option>`)}
      ${units.length > 1 && html`<option value="all">mean of these ${units.length}, each by its own range</option>`}</select></label>
      ${!all && html`<a href=${unitLink(state, unit)}>This unit</a>`} ${here && html`<${Scale} scale=${scale} />`}</div>
    <p class="typed">${here ? html`<${LiveTokens} tokens=${here.tokens} values=${values} scale=${scale} />` : html`<span class="faint">${text}</span>`}</p>
    <p class="faint" role="status">${says}</p>
    ${here && html`<details><summary>Numbers</summary><div class="wide" tabindex="0" role="region" aria-label="Activations"><table><caption class="unseen">Activations</caption>
      <thead><tr><th scope="col">Token</th>${units.map((each) => html`<th scope="col" class="number">${unitName(each)}</th>`)}</tr></thead>
      <tbody>${here.tokens.map((token, i) => html`<tr><th scope="row"><code>${token}</code></th>${here.activations.map((of) => html`<td class="number">${of[i].toPrecision(4)}</td>`)}</tr>`)}</tbody></table></div></details>`}
  </section>`;
}

// A text, with the words marked that begin like the concept.
function Marked({ text, word }) {
  const form = new RegExp(`(?<![\\p{L}])(${word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")}\\p{L}{0,2})(?![\\p{L}])`, "giu");
  return html`${text.split(form).map((part, i) => i % 2 ? html`<mark>${part}</mark>` : part)}`;
}

const METHOD_TOLD = {
  set_median: "say what they say at a typical sentence of it", set_p90: "say what they say at a strong sentence of it",
  zero: "say nothing", aura: "damped, the better the more (AurA)", aura_ap: "damped by average precision",
  mean_shift: "moved by the difference of means", linear_ot: "moved by optimal transport",
};

// What the server is asked of what stands in the form; without a unit and its bounds, steering is at every token.
function questionOf({ unit, above, below, ...rest }) {
  const bound = (typed) => typed === "" ? null : Number(typed);
  return { ...rest, when: unit.trim() || above !== "" || below !== "" ? { unit, above: bound(above), below: bound(below) } : null };
}

function LiveWriting({ state, name, live, most, asked, setAsked }) {
  const [texts, setTexts] = useState({ plain: "", steered: "" });
  const [says, say] = useState("");
  const [wrong, setWrong] = useState("");
  const running = useRef(null);
  const change = (part) => setAsked((now) => ({ ...now, ...part }));
  const stop = () => { if (running.current) running.current.abort(); running.current = null; };
  useEffect(() => stop, []);

  const write = async (question) => {
    stop();
    const control = new AbortController();
    running.current = control;
    setTexts({ plain: "", steered: "", prompt: question.prompt, only: "" });
    setWrong("");
    say("Writing … the first time a length is asked for, this takes a while.");
    const errors = [];
    try {
      const response = await askModel("write", { table: state.table.id, concept: name, ...questionOf(question) }, control.signal, say);
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        const lines = (rest + value).split("\n");
        rest = lines.pop();
        const grown = { plain: "", steered: "" };
        for (const line of lines.map((each) => JSON.parse(each))) {
          if (line.error) errors.push(line.error);
          if (line.only) setTexts((now) => ({ ...now, only: `, only ${line.only}` }));
          grown[line.column] += line.text || "";
        }
        if (control.signal.aborted) return;
        if (grown.plain || grown.steered) { say("Writing …"); setTexts((now) => ({ ...now, plain: now.plain + grown.plain, steered: now.steered + grown.steered })); }
      }
      if (running.current === control) { running.current = null; say([...new Set(errors)].join(" ") || "Done."); }
    } catch (error) {
      if (running.current !== control) return;
      running.current = null;
      setWrong(error.field === "when" ? error.message : "");
      say(error.field === "when" ? "Nothing was written." : whyNot(error));
    }
  };
  // The slider writes anew while it is moved, once it rests for a moment.
  const timer = useRef(0);
  const slide = (strength) => {
    change({ strength });
    clearTimeout(timer.current);
    timer.current = setTimeout(() => write({ ...asked, strength }), 350);
  };
  const number = (field, label, least, top, step = 1) => html`<label class="field">${label} <input type="number" min=${least} max=${top} step=${step} value=${asked[field]} onInput=${(e) => { const value = Number(e.target.value); if (e.target.value !== "" && value >= least && value <= top) change({ [field]: value }); }} /></label>`;
  // Of the unit that steering goes by: what is typed stays as it is until the server reads it.
  const typed = (field, label, more) => html`<label class="field">${label} <input ...${more} value=${asked[field]} aria-invalid=${wrong ? "true" : null} aria-describedby=${wrong ? "wrong" : null} onInput=${(e) => change({ [field]: e.target.value })} /></label>`;
  const bound = { type: "number", step: "any", placeholder: "any" };
  return html`<section aria-label="Steer"><h2>Steer</h2>
    <form onSubmit=${(e) => { e.preventDefault(); write(asked); }}>
      <label class="field grow">Prompt <input id="prompt" value=${asked.prompt} maxlength=${most.characters} onInput=${(e) => change({ prompt: e.target.value })} /></label>
      <label class="field tau">Strength <input type="range" id="strength" min="0" max="1" step="0.05" value=${asked.strength} onInput=${(e) => slide(Number(e.target.value))} /> <output for="strength">${asked.strength}</output></label>
      <div class="row">
        ${number("count", "Experts", 1, Math.min(most.steered, state.table.numUnits))}
        <label class="field">They <select value=${asked.method} onChange=${(e) => change({ method: e.target.value })}>${live.methods.map((each) => html`<option value=${each}>${METHOD_TOLD[each] || each}</option>`)}</select></label>
        ${live.layers > 1 && number("fromLayer", "From layer", 0, live.layers - 1)}
        ${number("newTokens", "New tokens", 1, most.newTokens)} ${number("temperature", "Temperature", 0, 5, 0.1)} ${number("seed", "Seed", 0, 2147483647)}
        <button type="submit">Write</button> <button type="button" onClick=${() => { stop(); say("Stopped."); }}>Stop</button>
      </div>
      <div class="row" role="group" aria-label="Condition">${typed("unit", "Only where unit", { id: "when", placeholder: "L0 mlp.up 417", spellcheck: false, size: 16, maxlength: 60 })} ${typed("above", "is above", bound)} ${typed("below", "and below", bound)}
        ${wrong ? html`<span class="wrong" id="wrong" role="alert">${wrong}</span>` : html`<span class="faint">Empty: at every token.</span>`}</div>
    </form>
    <p class="faint" role="status">${says}</p>
    <div class="columns written">
      <section aria-label="Unsteered"><h3>Unsteered</h3><p><span class="faint">${texts.prompt}</span><${Marked} text=${texts.plain} word=${name} /></p></section>
      <section aria-label="Steered"><h3>Steered to ${name}, strength ${asked.strength}${texts.only}</h3><p><span class="faint">${texts.prompt}</span><${Marked} text=${texts.steered} word=${name} /></p></section>
    </div></section>`;
}

function LiveView({ index, state, name }) {
  const { table } = state;
  const live = index.live && index.live.tables[table.id];
  const known = table.concepts.includes(name) ? name : table.concepts[0];
  const row = table.concepts.indexOf(known);
  // What was typed and asked stays when another concept is chosen; what was read and written doesn't.
  const [text, setText] = useState("The cat sat on the mat, and a dog barked at it.");
  const methods = live ? live.methods : [];
  const [asked, setAsked] = useState({ prompt: "They talked about the", strength: 1, count: 50, method: methods.includes("set_median") ? "set_median" : methods[0], seed: 0, temperature: 0.8, newTokens: 40, fromLayer: 0, unit: "", above: "", below: "" });
  const chunk = useChunk(live ? `${table.id}/concepts/${row}` : null);
  const list = useChunk(live ? `${table.id}/units` : null);
  const spoken = useChunk(live && Object.keys(table.speaking).length ? `${table.id}/spoken/${row}` : null);
  if (!live) {
    return html`<h1>Live</h1><p>${index.live ? "The model of this table couldn't be loaded; the notes on the first page say why." : html`This page was written to be read. <code>expertlens explore RUN --live</code> serves it with the model loaded, to type a text and to steer.`}</p>
      <p><a href=${linkTo(state, [])}>All concepts</a></p>`;
  }
  const wait = [chunk, list, spoken].find((each) => each.error) || (!chunk.data || !list.data ? chunk : null) || (Object.keys(table.speaking).length && !spoken.data ? spoken : null);
  return html`<h1>${live.model}, live</h1>
    <label class="field">Concept <select id="concept" value=${known} onChange=${(e) => { location.hash = linkTo(state, ["live", e.target.value]); }}>${table.concepts.map((each) => html`<option value=${each} selected=${each === known}>${each}</option>`)}</select></label> <a href=${conceptLink(state, row)}>Its experts</a>
    ${wait ? html`<${Waiting} of=${wait} />` : html`<${LiveReading} key=${known} state=${state} text=${text} setText=${setText} most=${index.live.most} units=${liveUnits(table, chunk.data, list.data, spoken.data)} />
    ${live.writes && live.methods.length ? html`<${LiveWriting} key=${known} state=${state} asked=${asked} setAsked=${setAsked} name=${known} live=${live} most=${index.live.most} />` : html`<p class="faint">${live.writes ? "The table doesn't say what the units say at sentences of a concept, so nothing can be steered." : `${live.model} is an encoder: it reads, and writes nothing.`}</p>`}`}`;
}
