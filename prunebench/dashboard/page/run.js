"use strict";
// One run: what came of it, its curve, its layers, its settings.

async function viewRun() {
  const run = data.runs.get(state.get("run"));
  if (!run) return el("p", { className: "empty" }, `There is no run ${state.get("run")} here (any more). `, link({ view: "runs", run: "" }, "All runs"));
  const [detail, curves] = await Promise.all([load(`run/${run.id}`), load(`curves/${run.id}`)]);
  const result = detail?.result ?? {};
  return [
    el("h1", {}, run.name, el("span", { className: "quiet" }, `  ${run.digest}`)),
    el("p", {}, statusOf(run), el("span", { className: "quiet" }, `  seed ${run.seed ?? "?"} · ${run.dataset ?? "?"} · `), el("code", {}, detail?.folder ?? "")),
    run.reason && el("p", { className: "wrong" }, run.reason),
    (result.warnings ?? []).map((warning) => el("p", { className: "wrong" }, `warning: ${warning}`)),
    facts(run, result),
    el("p", { className: "tools" }, link({ view: "runs", pick: sameGroup(run).map((other) => other.id) }, `Its ${sameGroup(run).length} seeds`), link({ view: "differences", a: run.id, b: "" }, "What distinguishes it"), link({ view: "examples", a: run.id, b: "" }, "Its examples")),
    el("h2", {}, "Learning curve"),
    curves ? curvesFigure("run-curves", [{ run, curves, index: 0 }]) : null,
    detail?.matrices.names.length ? [el("h2", {}, "Sparsity by layer and matrix"), gridFigure(run, detail.matrices), el("p", {}, link({ view: "layers", mode: "time", a: run.id }, "Over time"))] : null,
    settingsOf(run),
  ];
}

const sameGroup = (run) => (run.group ? [...data.runs.values()].filter((other) => other.group === run.group) : [run]);

function facts(run, result) {
  const fact = (name, value, more) => value !== "" && value !== null && value !== undefined && el("div", {}, el("dt", {}, name), el("dd", {}, value, more && el("small", {}, ` ${more}`)));
  const others = Object.entries(result.metrics ?? {}).filter(([name]) => name !== run.metric);
  return el("dl", {},
    fact(run.metric ?? "score", format.score(run.score), run.recovery !== null && run.target ? `${format.percent(run.recovery, 1)} of dense` : ""),
    others.map(([name, value]) => fact(name, format.score(value))),
    run.target ? fact("dense", format.score(run.dense)) : null,
    fact(`zeros in ${run.components || "pruned parts"}`, format.percent(run.prunable), run.target ? `asked ${format.percent(run.target, 1)}` : ""),
    fact("zeros in the whole model", format.percent(run.model)),
    fact("non-zero weights", format.count(run.nonzero), result.weights ? `of ${format.count(result.weights.model)}` : ""),
    fact("size", format.bytes(run.bytes), "compressed"),
    fact("steps", format.count(run.steps), result.training?.prunings ? `${result.training.prunings} prunings` : ""),
    fact("time", format.seconds(run.seconds)));
}

function settingsOf(run) {
  const rows = Object.entries(settings(run)).filter(([, value]) => value !== null && value !== undefined).sort(([a], [b]) => a.localeCompare(b));
  return el("details", {}, el("summary", {}, `${rows.length} settings`), el("div", { className: "scroll" }, el("table", {}, el("tbody", {},
    rows.map(([key, value]) => el("tr", {}, el("th", { scope: "row" }, key), el("td", { className: "wrap" }, format.any(value))))))));
}
