// The claims that the run put to the test, on one screen.
"use strict";

const MARKS = { held: "✓", "not held": "✗", "not testable": "?", "left out": "–", failed: "!", waiting: "…" };

function Verdict({ verdict }) {
  return html`<span class=${`verdict ${verdict.replace(" ", "-")}`}>${MARKS[verdict] || ""} ${verdict}</span>`;
}

function VerdictsView({ index, state, only }) {
  const { experiments, alignment } = index;
  const conclusions = only ? index.conclusions.filter((each) => each.experiment === only) : index.conclusions;
  const counts = {};
  for (const each of conclusions) counts[each.verdict] = (counts[each.verdict] || 0) + 1;
  const undone = experiments.filter((each) => each.state !== "done" && (!only || each.experiment === only));
  const numbers = (each) => index.numbers[each.experiment || ""] || [];
  const figure = (each) => index.figures[`${each.experiment}/${each.figure}`] || index.figures[each.figure];
  const number = (row, name) => row[name] === null || row[name] === undefined ? "–" : typeof row[name] === "number" ? Number(row[name].toPrecision(3)).toLocaleString("en") : row[name];
  const shown = ["sentences", "measure", "threshold", "negatives_per_positive", "ratings", "pairs", "experts_median", "spearman", "ci_low", "ci_high", "p_value"];
  const numeric = new Set(["threshold", "negatives_per_positive", "pairs", "experts_median", "spearman", "ci_low", "ci_high", "p_value"]);
  const columns = shown.map((name) => ({ name, label: name.replaceAll("_", " "), number: numeric.has(name), value: (r) => r[name], show: (r) => number(r, name) }));
  return html`<h1>Verdicts${only && html` of ${only}`}</h1>
    ${only && html`<p><a href=${linkTo(state, ["verdicts"])}>All verdicts</a></p>`}
    ${conclusions.length ? html`<p>${Object.entries(counts).map(([verdict, n], i) => `${i ? ", " : ""}${n} ${verdict}`)}. A claim is <em>not testable</em> where there are too few pairs, concepts or draws to tell: that speaks neither for it nor against it.${index.report && html` The whole report: <a href="report.html">report.html</a>.`}</p>`
      : html`<p>No claim was put to the test yet, or this run tests none; <code>expertlens reproduce</code> tests all.</p>`}
    ${undone.length > 0 && html`<ul>${undone.map((each) => html`<li><${Verdict} verdict=${each.state} /> ${each.experiment}${each.reason ? `: ${each.reason}` : ""}</li>`)}</ul>`}
    ${conclusions.map((each) => html`<article class=${`claim ${each.verdict.replace(" ", "-")}`}>
      <h2><${Verdict} verdict=${each.verdict} /> ${each.claim}</h2>
      <p>${each.reason && html`<strong>${each.reason}.</strong> `}${each.found}</p>
      ${each.experiment && html`<p class="faint">Experiment: ${index.report ? html`<a href=${`report.html#${each.experiment}`}>${each.experiment}</a>` : each.experiment}${!only && html` · <a href=${linkTo(state, ["verdicts", each.experiment])}>its verdicts alone</a>`}</p>`}
      ${numbers(each).length > 0 && html`<details><summary>Numbers: ${plural(numbers(each).length, "table")}</summary><ul>${numbers(each).map((path) => html`<li><a href=${path}>${path.split("/").pop()}</a></li>`)}</ul></details>`}
      ${figure(each) && html`<details><summary>Figure: ${each.figure}</summary><a href=${figure(each)}><img loading="lazy" src=${figure(each)} alt=${`${each.figure}: ${each.claim}`} /></a></details>`}
    </article>`)}
    ${alignment.length > 0 && (!only || only === "alignment") && html`<section><h2>Alignment with people's ratings</h2>
      <${SortedTable} columns=${columns} rows=${alignment} first="spearman" caption="Alignment with people's ratings" limit=${30} /></section>`}
    ${!only && !experiments.length && Object.keys(index.figures).length > 0 && html`<section><h2>Figures</h2>${Object.entries(index.figures).map(([name, path]) => html`<details><summary>${name}</summary><a href=${path}><img loading="lazy" src=${path} alt=${name} /></a></details>`)}</section>`}`;
}
