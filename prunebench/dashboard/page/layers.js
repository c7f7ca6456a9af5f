"use strict";
// Sparsity by layer and matrix: of one run, over its prunings, and as the difference of two.

async function viewLayers() {
  const mode = state.get("mode"), two = mode === "change";
  const runs = withPruning();
  if (!runs.length) return data.runs.size ? [el("h1", {}, "Layers"), nothingLeft("No pruned run is among those shown")] : noRuns();
  const a = pickRun("a", runs, 0), b = pickRun("b", runs, 1);
  const options = runOptions(runs);
  return [
    el("h1", {}, "Sparsity by layer and matrix"),
    el("div", { className: "tools" }, choice("Show", "mode", [["grid", "One run"], ["time", "Over time"], ["change", "Two runs"]])),
    el("div", { className: "pair" }, select(two ? "A" : "Run", "a", withChoice(options, a)), two && select("B", "b", withChoice(options, b))),
    await layersFigure(mode, a, b),
  ];
}

const withPruning = () => filtered().filter((run) => run.status !== "unknown" && (run.prunable ?? run.target));

// The run that the address names, or one to begin with.
function pickRun(key, runs, position) {
  const named = data.runs.get(state.get(key));
  if (named) return named;
  const chosen = state.list("select").map((id) => data.runs.get(id)).filter(Boolean);
  return chosen[position] ?? runs[Math.min(position, runs.length - 1)];
}

// A select that shows the run even while the address does not name it.
function withChoice(options, run) {
  return [...options.filter(([id]) => id === run.id), ...options.filter(([id]) => id !== run.id)];
}

async function layersFigure(mode, a, b) {
  const [one, two] = await Promise.all([load(`run/${a.id}`), mode === "change" ? load(`run/${b.id}`) : null]);
  if (!one?.matrices.names.length) return noMatrices(a);
  if (mode === "change" && !two?.matrices.names.length) return noMatrices(b);
  if (mode === "time") return timeFigure(a, one.matrices);
  if (mode === "change") return changeFigure(a, b, one.matrices, two.matrices);
  return gridFigure(a, one.matrices);
}

const noMatrices = (run) => el("p", { className: "empty" }, link({ view: "run", run: run.id }, run.id), run.status === "running" ? " has not pruned anything yet." : " has no prunings: it is dense, or its masks are gone.");

// "bert.encoder.layer.3.output.dense.weight" -> layer 3, "output.dense"
function placeOf(name, common) {
  const plain = name.replace(/\.weight$/, "").slice(common.length), number = /(?:^|\.)(\d+)\.(.*)$/.exec(plain);
  return number ? { layer: Number(number[1]), kind: number[2] } : { layer: null, kind: plain };
}

function gridOf(names) {
  let common = names[0];
  for (const name of names) while (!name.startsWith(common)) common = common.slice(0, -1);
  common = names.length > 1 ? common.slice(0, common.lastIndexOf(".") + 1) : "";
  const places = names.map((name) => placeOf(name, common));
  const layers = [...new Set(places.map(({ layer }) => layer))].sort((x, y) => (x ?? 1e9) - (y ?? 1e9));
  const kinds = [...new Set(places.map(({ kind }) => kind))];
  const at = new Map(places.map(({ layer, kind }, index) => [`${layer}|${kind}`, index]));
  const nameOf = (index) => (places[index].layer === null ? "" : `${places[index].layer} · `) + shortKind(places[index].kind);
  return { layers, kinds, nameOf, index: (row, column) => at.get(`${layers[row]}|${kinds[column]}`) };
}

function gridFigure(run, { names, steps, sparsity }) {
  const moment = Math.min(steps.length - 1, state.get("moment") === "" ? steps.length - 1 : Number(state.get("moment")) || 0);
  const grid = gridOf(names), now = sparsity[moment];
  const columns = grid.kinds.map(shortKind);
  return el("figure", {},
    steps.length > 1 && el("div", { className: "tools" }, el("label", {}, el("span", { className: "quiet" }, "Pruning"),
      el("input", { type: "range", id: "moment", min: 0, max: steps.length - 1, value: moment, ariaValueText: `after step ${steps[moment]}`, oninput: (event) => state.set({ moment: Number(event.target.value) === steps.length - 1 ? "" : event.target.value }, true) })),
    el("span", { className: "quiet" }, `after step ${steps[moment]}`)),
    heat("layers", {
      rows: grid.layers.map(layerName), columns, value: (row, column) => now[grid.index(row, column)] ?? null,
      describe: `Share of zeros by layer and matrix of ${run.id}`, onclick: () => state.set({ view: "run", run: run.id }),
      tell: (row, column, share) => tip(names[grid.index(row, column)], `${format.percent(share)} zeros`, run.id),
    }),
    numbersTable(["matrix", "zeros"], names.map((name, index) => [name, format.percent(now[index])])));
}

function timeFigure(run, { names, steps, sparsity }) {
  const grid = gridOf(names), short = names.map((_, index) => grid.nameOf(index));
  return el("figure", {}, heat("layers", {
    rows: short, columns: steps.map((step) => format.any(step)), columnName: "Pruning at step", label: false,
    value: (row, column) => sparsity[column][row], describe: `Share of zeros of ${names.length} matrices over ${steps.length} prunings of ${run.id}`,
    onclick: () => state.set({ view: "run", run: run.id }),
    tell: (row, column, share) => tip(names[row], `after step ${steps[column]}: ${format.percent(share)} zeros`, run.id),
  }), numbersTable(["matrix", "first", "last"], names.map((name, index) => [name, format.percent(sparsity[0][index]), format.percent(sparsity.at(-1)[index])])));
}

function changeFigure(a, b, one, two) {
  const names = one.names.filter((name) => two.names.includes(name));
  if (!names.length) return el("p", { className: "empty" }, "These two runs have no matrix in common.");
  const last = ({ names: all, sparsity }, name) => sparsity.at(-1)[all.indexOf(name)];
  const change = names.map((name) => last(one, name) - last(two, name)), grid = gridOf(names);
  return el("figure", {},
    el("p", { className: "quiet" }, "Zeros of A minus zeros of B at the end: ", link({ view: "run", run: a.id }, a.id), " − ", link({ view: "run", run: b.id }, b.id),
      names.length < Math.max(one.names.length, two.names.length) && `; ${names.length} matrices that both have`),
    heat("layers", {
      rows: grid.layers.map(layerName), columns: grid.kinds.map(shortKind), change: true, value: (row, column) => change[grid.index(row, column)] ?? null,
      describe: `Difference of the share of zeros, ${a.id} minus ${b.id}`,
      tell: (row, column, share, text) => tip(names[grid.index(row, column)], `${text} points`, `A ${format.percent(last(one, names[grid.index(row, column)]))}, B ${format.percent(last(two, names[grid.index(row, column)]))}`),
    }),
    numbersTable(["matrix", "A", "B"], names.map((name) => [name, format.percent(last(one, name)), format.percent(last(two, name))])));
}

const layerName = (layer) => (layer === null ? "other" : `layer ${layer}`);
const shortKind = (kind) => kind.replace("attention.self.", "").replace(/\.dense$/, "");

function numbersTable(headings, rows) {
  return el("details", {}, el("summary", {}, "Numbers"), el("div", { className: "scroll" }, el("table", {},
    el("thead", {}, el("tr", {}, headings.map((heading, index) => el("th", { scope: "col", className: index ? "n" : "" }, heading)))),
    el("tbody", {}, rows.map((row) => el("tr", {}, row.map((cell, index) => el("td", { className: index ? "n" : "" }, cell))))))));
}
