"use strict";
// Where two models disagree, example by example.

const KINDS = [["disagree", "say different things"], ["a", "only A is right"], ["b", "only B is right"], ["wrong", "both are wrong"], ["all", "all examples"]];

async function viewExamples() {
  const runs = filtered().filter((run) => run.status === "finished");
  if (!runs.length) return data.runs.size ? [el("h1", {}, "Examples"), nothingLeft("No finished run is among those shown")] : noRuns();
  const a = pickRun("a", [runs.find((run) => run.target) ?? runs[0]], 0), same = runs.filter((run) => bucketOf(run) === bucketOf(a));
  const b = pickRun("b", [opponent(a, same)], 1);
  return [
    el("h1", {}, "Where two models disagree"),
    el("div", { className: "pair" }, select("A", "a", withChoice(runOptions(runs), a)), select("B", "b", withChoice(runOptions(same), b))),
    ...(await examplesOf(a, b)),
  ];
}

// The dense model of the same seed, or another run.
function opponent(run, same) {
  const others = same.filter((other) => other !== run);
  return others.find((other) => other.target === 0 && other.seed === run.seed) ?? others[0] ?? run;
}

async function examplesOf(a, b) {
  const [one, two] = await Promise.all([load(`predictions/${a.id}`), load(`predictions/${b.id}`)]);
  for (const [run, own] of [[a, one], [b, two]]) if (!own?.predicted.length) return [el("p", { className: "empty" }, `${run.id} has no predictions.${own === null && embedded ? " They were left out of this report to keep it small." : ""}`)];
  if (one.examples !== two.examples) return [el("p", { className: "empty" }, "These two runs were scored on different examples: choose two of the same data.")];
  const shared = await load(`examples/${one.examples}`);
  const rows = shared.id.map((_, i) => ({ i, split: shared.split[i], id: shared.id[i], text: shared.text[i], expected: shared.expected[i], a: one.predicted[i], b: two.predicted[i], rightA: one.right[i], rightB: two.right[i] }));
  return [kindCounts(rows, shared),
    shared.left_out > 0 && el("p", { className: "note" }, `${format.count(shared.left_out)} further examples, on which all runs of this report say the same, were left out of it.`),
    exampleList(rows.filter(kindOf(state.get("kind"))), a, b)];
}

const differ = (row) => JSON.stringify(row.a) !== JSON.stringify(row.b);
const isRight = (value) => value === 1;

// Answers in part right, and numbers, have no right and wrong: they only differ.
function kindOf(kind) {
  return {
    disagree: differ, a: (row) => isRight(row.rightA) && !isRight(row.rightB), b: (row) => !isRight(row.rightA) && isRight(row.rightB),
    wrong: (row) => !isRight(row.rightA) && !isRight(row.rightB), all: () => true,
  }[kind] ?? differ;
}

function kindCounts(rows, shared) {
  const numbers = typeof shared.expected[0] === "number";
  const kinds = numbers ? KINDS.filter(([kind]) => kind === "disagree" || kind === "all") : KINDS;
  return el("div", { className: "counts", role: "group", ariaLabel: "Which examples" }, kinds.map(([kind, text]) => {
    const count = rows.filter(kindOf(kind)).length;
    return el("button", { type: "button", id: `kind-${kind}`, ariaPressed: String(state.get("kind") === kind), onclick: () => state.set({ kind }) }, el("b", {}, format.count(count)), el("span", { className: "quiet" }, text));
  }));
}

function exampleList(rows, a, b) {
  if (!rows.length) return el("p", { className: "empty" }, "There is no such example.");
  const list = el("div", {}), more = el("button", { type: "button", onclick: () => add() }, "Show more");
  let made = 0;
  const add = () => {
    list.append(...rows.slice(made, made + 50).map((row) => example(row, a, b)));
    made += 50;
    more.hidden = made >= rows.length;
    more.textContent = `Show more (${format.count(Math.max(0, rows.length - made))} left)`;
  };
  add();
  return el("div", {}, list, el("p", { className: "tools" }, more));
}

function example(row, a, b) {
  const said = (name, run, value, right) => el("li", {}, link({ view: "run", run: run.id }, name), el("span", { className: verdict(right) }, shownValue(value), verdict(right) && ` · ${typeof row.expected === "number" || Number.isInteger(right) ? verdict(right) : `F1 ${format.score(right)}`}`));
  return el("article", { className: "example" },
    el("div", {}, el("p", { className: "text" }, row.text ?? el("span", { className: "quiet" }, "(this run was made before texts were kept)")),
      el("p", { className: "quiet" }, `${row.split} ${row.id}`)),
    el("ul", {}, el("li", {}, el("span", {}, "expected"), el("span", {}, shownValue(row.expected))), said("A", a, row.a, row.rightA), said("B", b, row.b, row.rightB)));
}

const verdict = (right) => (right === 1 ? "right" : right === 0 ? "wrong" : "");
const shownValue = (value) => (Array.isArray(value) ? [...new Set(value)].join(" / ") : value === "" ? "(nothing)" : format.any(value));
