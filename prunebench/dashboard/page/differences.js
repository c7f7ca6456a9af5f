"use strict";
// What distinguishes two runs: the settings that differ, and what came of it.

const RESULTS = [["score", format.score], ["dense", format.score], ["recovery", (v) => format.percent(v, 1)], ["prunable", format.percent], ["model", format.percent], ["nonzero", format.count], ["bytes", format.bytes], ["steps", format.count], ["seconds", format.seconds]];
const RESULT_NAMES = { score: "score", dense: "dense score", recovery: "of dense", prunable: "zeros in pruned parts", model: "zeros in the whole model", nonzero: "non-zero weights", bytes: "size compressed", steps: "steps", seconds: "time" };

function viewDifferences() {
  const runs = filtered();
  if (!runs.length) return data.runs.size ? [el("h1", {}, "Differences"), nothingLeft("No run is among those shown")] : noRuns();
  const a = pickRun("a", runs, 0), b = pickRun("b", runs, 1), options = runOptions(runs);
  const keys = differing([a, b]).filter((key) => key !== "outputs");
  return [
    el("h1", {}, "What distinguishes two runs"),
    el("div", { className: "pair" }, select("A", "a", withChoice(options, a)), select("B", "b", withChoice(options, b))),
    a === b && el("p", { className: "empty" }, "A and B are the same run: choose another."),
    a !== b && [
      el("h2", {}, "Results"),
      bucketOf(a) && bucketOf(b) && bucketOf(a) !== bucketOf(b) && el("p", { className: "note wrong" }, "Their scores are of different data or metrics and cannot be compared."),
      diffTable("result", a, b, RESULTS.filter(([field]) => (a[field] ?? b[field] ?? null) !== null).map(([field, show]) => [RESULT_NAMES[field], show(a[field]), show(b[field])])),
      el("h2", {}, keys.length ? `${keys.length} ${keys.length === 1 ? "setting" : "settings"}` : "Settings"),
      keys.length ? diffTable("setting", a, b, keys.map((key) => [key, format.any(setting(a, key)), format.any(setting(b, key))]))
        : el("p", { className: "quiet" }, "All settings are the same."),
      el("p", { className: "tools" }, link({ view: "curves", select: [a.id, b.id] }, "Their curves"), link({ view: "layers", mode: "change", a: a.id, b: b.id }, "Their layers"), link({ view: "examples", a: a.id, b: b.id }, "Their examples")),
    ],
  ];
}

function diffTable(what, a, b, rows) {
  const head = (letter, run) => el("th", { scope: "col" }, `${letter}: `, link({ view: "run", run: run.id }, `${run.name} ${run.digest.slice(0, 8)}`));
  return el("div", { className: "scroll" }, el("table", {}, el("thead", {}, el("tr", {}, el("th", { scope: "col" }, what), head("A", a), head("B", b))),
    el("tbody", {}, rows.map(([key, left, right]) => el("tr", {}, el("th", { scope: "row" }, key), el("td", { className: "wrap" }, left), el("td", { className: "wrap" }, right))))));
}
