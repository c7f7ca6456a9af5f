"use strict";
// Learning curves of the chosen runs, with every pruning and every rewind of the learning rate.

const MOST = 60; // curves drawn at once

async function viewCurves() {
  if (!data.runs.size) return noRuns();
  const selected = state.list("select").filter((id) => data.runs.has(id));
  const candidates = selected.length ? selected : shown().runs.filter((run) => run.target !== 0).slice(0, 6).map((run) => run.id);
  const ids = candidates.slice(0, MOST);
  if (!ids.length) return [el("h1", {}, "Learning curves"), nothingLeft("No run is among those shown")];
  const found = await loadCurves(ids);
  return [
    el("h1", {}, "Learning curves"),
    el("p", { className: "quiet" }, selected.length ? `${ids.length} chosen ${ids.length === 1 ? "run" : "runs"}` : `The first ${ids.length} of the runs shown; `,
      !selected.length && link({ view: "runs" }, "choose others in the table"), candidates.length > MOST && ` (the first ${MOST} of ${candidates.length})`, "."),
    curvesFigure("curves", found),
    curveChips(found),
  ];
}

async function loadCurves(ids) {
  const all = await Promise.all(ids.map(async (id) => ({ run: data.runs.get(id), curves: await load(`curves/${id}`) })));
  return all.filter(({ run, curves }) => run && curves).map((one, index) => ({ ...one, index }));
}

function curvesFigure(name, found) {
  const kinds = new Map([["loss", "Loss"]]);
  for (const { curves } of found) {
    for (const key of Object.keys(curves.updates)) if (!["step", "epoch", "lr", "sparsity", "examples_per_second"].includes(key)) kinds.set(key, capital(key.replaceAll("_", " ")));
    for (const key of Object.keys(curves.evals)) if (key !== "step") kinds.set(`eval/${key}`, `${capital(key.replaceAll("_", " "))} (evaluations)`);
  }
  const kind = kinds.has(state.get("series")) ? state.get("series") : "loss";
  const points = found.some(({ curves }) => curves.updates.step?.length || curves.evals.step?.length);
  if (!points) return el("p", { className: "empty" }, "Nothing was logged by these runs yet.");
  const title = kinds.get(kind);
  return el("figure", {},
    el("div", { className: "tools" }, select("Show", "series", [...kinds])),
    plot(name, curvesOption(found, kind, title), `${title}, learning rate and sparsity over steps of ${found.length} runs, with ${found.map(({ curves }) => curves.prunings.length).join(", ")} prunings`,
      { className: "chart tall", onclick: ({ data: item, seriesId }) => (item?.id || seriesId) && state.set({ view: "run", run: item?.id ?? seriesId.split("|")[1] }) }),
    el("figcaption", {}, "Ticks: prunings. Triangles and dashed lines: the learning rate starts anew. Where a run has more than 400 updates, a point is the mean of neighbouring ones."));
}

function curvesOption(found, kind, title) {
  const grids = [{ top: 16, bottom: "46%" }, { top: "59%", bottom: "29%" }, { top: "76%", bottom: "12%" }].map((grid) => ({ left: 72, right: 20, ...grid }));
  const last = Math.max(1, ...found.map(({ curves }) => curves.steps ?? curves.updates.step?.at(-1) ?? 1));
  const x = (gridIndex) => axisX(gridIndex === 2 ? "Step" : "", { gridIndex, min: 0, max: last, axisLabel: { show: gridIndex === 2, color: css("quiet"), hideOverlap: true }, axisPointer: { label: { show: gridIndex === 2, precision: 0 } } });
  const y = (gridIndex, name, more) => axisY(name, { gridIndex, splitNumber: gridIndex ? 2 : 5, ...more });
  const series = found.flatMap((one) => runSeries(one, kind, found.length));
  return {
    grid: grids, xAxis: [x(0), x(1), x(2)],
    yAxis: [y(0, title), y(1, "LR", { scale: false, axisLabel: { color: css("quiet"), formatter: (value) => (value ? value.toExponential(0) : "0") } }),
      y(2, "Sparsity", { scale: false, min: 0, max: 1, axisLabel: { color: css("quiet"), formatter: (value) => `${Math.round(100 * value)} %` } })],
    axisPointer: { link: [{ xAxisIndex: "all" }], show: true, type: "line", lineStyle: { color: css("quiet"), width: 1, type: "solid", opacity: 0.5 }, label: { backgroundColor: css("quiet") } },
    tooltip: { ...frame().tooltip, formatter: ({ data: item, seriesName }) => tip(seriesName, ...(item?.tell ?? [])) },
    dataZoom: [{ type: "inside", xAxisIndex: [0, 1, 2], zoomOnMouseWheel: "ctrl", filterMode: "none" }],
    series,
  };
}

function runSeries({ run, curves, index }, kind, count) {
  const { color, dash, symbol } = look(index), { updates, evals, prunings } = curves;
  const [steps, values] = kind.startsWith("eval/") ? [evals.step ?? [], evals[kind.slice(5)] ?? []] : [updates.step ?? [], updates[kind] ?? []];
  const name = `${run.name} ${run.digest.slice(0, 8)} seed ${run.seed ?? "?"}`;
  const points = (ys, xs, tell) => xs.map((step, i) => ({ value: [step, ys[i]], id: run.id, tell: [`step ${step}`, tell(ys[i])] })).filter(({ value }) => value[1] !== null && value[1] !== undefined);
  const base = (grid, more) => ({ type: "line", name, id: `${grid}|${run.id}`, xAxisIndex: grid, yAxisIndex: grid, triggerLineEvent: true, symbol: "circle", symbolSize: 6, showSymbol: false, lineStyle: { color, width: count > 12 ? 1.2 : 1.8, type: dash }, itemStyle: { color }, ...more });
  const show = (value) => String(value);
  return [
    base(0, { data: points(values, steps, (value) => `${kind} ${show(value)}`), showSymbol: kind.startsWith("eval/"), symbol, markLine: marks(curves, color, count) }),
    base(1, { data: points(updates.lr ?? [], updates.step ?? [], (value) => `learning rate ${show(value)}`) }),
    base(2, { data: points(updates.sparsity ?? [], updates.step ?? [], (value) => `${format.percent(value)} zeros`), step: "end" }),
    { type: "scatter", name, id: `rewinds|${run.id}`, xAxisIndex: 1, yAxisIndex: 1, symbol: "triangle", symbolSize: 8, itemStyle: { color },
      data: curves.rewinds.map((step) => ({ value: [step, 0], id: run.id, tell: [`the learning rate starts anew at step ${step}`] })) },
    { type: "scatter", name, id: `prunings|${run.id}`, xAxisIndex: 2, yAxisIndex: 2, symbol: "rect", symbolSize: [1.5, 9], itemStyle: { color },
      data: prunings.map(([step, sparsity, churn]) => ({ value: [step, sparsity], id: run.id, tell: [`pruning at step ${step}: ${format.percent(sparsity)} zeros`, churn ? `${format.percent(churn)} of the mask changed` : ""] })) },
  ];
}

// Upright lines through the curve: rewinds, and for a run by itself every pruning.
function marks(curves, color, count) {
  const rewinds = count > 4 ? [] : curves.rewinds.map((step) => ({ xAxis: step, lineStyle: { color, type: [5, 4], opacity: 0.75, width: 1.2 }, label: { show: count === 1, formatter: "LR rewind", color: css("quiet"), fontSize: 11, position: "insideEndTop" } }));
  const prunings = count > 1 ? [] : curves.prunings.map(([step]) => ({ xAxis: step, lineStyle: { color: css("quiet"), type: "solid", opacity: 0.22, width: 1 }, label: { show: false } }));
  return { silent: true, symbol: "none", animation: false, data: [...prunings, ...rewinds] };
}

function curveChips(found) {
  return el("div", { className: "chips" }, found.map(({ run, index }) => el("span", { className: "chip-run" }, swatch(look(index)), " ",
    link({ view: "run", run: run.id }, `${run.name} ${run.digest.slice(0, 8)}`), el("span", { className: "quiet" }, ` seed ${run.seed ?? "?"}`))));
}
