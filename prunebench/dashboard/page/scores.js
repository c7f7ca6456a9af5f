"use strict";
// Score over sparsity: one line a method, with a band over seeds, the dense model and the Pareto front.

function viewScores() {
  const share = state.get("share"), { runs, bucket, list } = shown();
  if (!data.runs.size) return noRuns();
  const all = lines(runs, share);
  if (!all.length) return [el("h1", {}, "Score over sparsity"), nothingLeft(list.length ? "No finished, pruned run is among those shown" : "No run is finished yet")];
  const hidden = new Set(state.list("hide"));
  const visible = all.filter((line) => !hidden.has(line.key));
  const parts = [...new Set(runs.filter((run) => run.target).map((run) => run.components))];
  const higher = runs[0].higher, dense = denseScores(runs);
  const name = share === "model" ? "zeros in the whole model" : `zeros in ${parts.length === 1 ? parts[0] : "what was pruned"}`;
  return [
    el("h1", {}, `${capital(bucket.metric)} over sparsity`),
    el("p", { className: "quiet" }, `${bucket.dataset}, ${bucket.detail}. Mean over seeds, band and bars ± one standard deviation; small dots are single runs.`),
    el("div", { className: "tools" },
      choice("Sparsity of", "share", [["prunable", "Pruned parts"], ["model", "Whole model"]]),
      el("span", { className: "quiet" }, "Click a point for its runs.")),
    share === "prunable" && parts.length > 1 && el("p", { className: "note" },
      `These runs count the zeros of different parts (${parts.join("; ")}): only the whole model is a common scale.`),
    el("figure", {}, plot("scores", scoresOption(visible, runs, share, name, dense, higher, bucket.metric),
      `${bucket.metric} over ${name}: ${visible.length} methods; the numbers are in the table below`,
      { onclick: ({ data: item }) => item?.runs && openRuns(item.runs) })),
    chips(all, hidden),
    el("h2", {}, "Methods"),
    groupTable(visible, share, dense, higher, bucket.metric),
  ];
}

const capital = (word) => word.charAt(0).toUpperCase() + word.slice(1);

// One score a dense model: many runs are compared with the same.
function denseScores(runs) {
  return [...new Set(runs.map((run) => run.dense).filter((value) => value !== null && value !== undefined))];
}

function openRuns(runs) {
  if (runs.length === 1) state.set({ view: "run", run: runs[0].id });
  else state.set({ view: "runs", pick: runs.map((run) => run.id) });
}

function scoresOption(visible, runs, share, name, dense, higher, metric) {
  const series = [];
  for (const line of visible) series.push(...lineSeries(line, share));
  const points = visible.flatMap((line) => line.points);
  series.push(paretoSeries(paretoFront(points, higher)));
  if (dense.length) series.push(denseSeries(dense));
  const scores = [...points.flatMap(({ y, spread }) => [y - (spread ?? 0), y + (spread ?? 0)]), ...dense];
  const [low, high] = [Math.min(...scores), Math.max(...scores)], room = (high - low || 0.02) * 0.06;
  return {
    grid: { left: 66, right: 22, top: 22, bottom: 52 },
    xAxis: axisX(`Sparsity: ${name}`, { axisLabel: { color: css("quiet"), hideOverlap: true, showMinLabel: false, showMaxLabel: false, formatter: (value) => `${+(100 * value).toFixed(2)} %` }, ...reach(points) }),
    yAxis: axisY(metric, { min: low - room, max: high + room, axisLabel: { color: css("quiet"), showMinLabel: false, showMaxLabel: false, formatter: (value) => +value.toPrecision(4) } }),
    dataZoom: [{ type: "inside", zoomOnMouseWheel: "ctrl" }, { type: "inside", orient: "vertical", zoomOnMouseWheel: "ctrl" }],
    series,
  };
}

// A single level in the middle, not over the whole width.
function reach(points) {
  const x = points.map((one) => one.x), low = Math.min(...x), high = Math.max(...x);
  const room = Math.max((high - low) * 0.05, 0.005);
  return { min: Math.max(0, low - room), max: Math.min(1, high + room) };
}

function lineSeries(line, share) {
  const { color, symbol, dash } = look(line.index);
  const tell = ({ data: item }) => item && tip(line.label, `${format.score(item.value[1])}${item.spread === null ? "" : ` ± ${format.score(item.spread)}`}  (n = ${item.runs.length})`,
    `${format.percent(item.value[0])} zeros`, item.recovery !== null && `${format.percent(item.recovery, 1)} of dense`);
  const points = line.points.map((one) => ({ value: [one.x, one.y], spread: one.spread, runs: one.runs, recovery: one.recovery }));
  const single = line.points.flatMap((one) => (one.n > 1 ? one.runs.map((run) => ({ value: [run[share], run.score], runs: [run], spread: null, recovery: run.recovery })) : []));
  const common = { z: 3, tooltip: { formatter: tell }, emphasis: { focus: "none" } };
  return [
    { ...common, type: "custom", z: 1, silent: true, data: line.points.map((one) => [one.x, one.y - (one.spread ?? 0), one.y + (one.spread ?? 0)]), renderItem: bandOf(line.points, color) },
    { ...common, type: "scatter", z: 2, data: single, symbolSize: 4, itemStyle: { color, opacity: 0.35 } },
    { ...common, type: "line", id: line.key, name: line.label, data: points, symbol, symbolSize: 10, lineStyle: { color, width: 2, type: dash }, itemStyle: { color, borderColor: css("page"), borderWidth: 1 }, showAllSymbol: true },
  ];
}

// Between neighbouring points the band of one standard deviation, at each point its bar.
function bandOf(points, color) {
  return (params, api) => {
    const at = (index, sign) => api.coord([points[index].x, points[index].y + sign * (points[index].spread ?? 0)]);
    const index = params.dataIndex, children = [];
    const clip = { x: params.coordSys.x, y: params.coordSys.y, width: params.coordSys.width, height: params.coordSys.height };
    if (points[index].spread !== null) {
      const [x, top] = at(index, 1), [, bottom] = at(index, -1);
      children.push({ type: "line", shape: { x1: x, y1: top, x2: x, y2: bottom }, style: { stroke: color, lineWidth: 1.5, opacity: 0.7 } });
    }
    if (index + 1 < points.length) {
      const corners = [at(index, 1), at(index + 1, 1), at(index + 1, -1), at(index, -1)];
      children.push({ type: "polygon", shape: { points: echarts.graphic.clipPointsByRect(corners, clip) }, style: { fill: color, opacity: 0.13 } });
    }
    return { type: "group", children };
  };
}

function paretoSeries(front) {
  return {
    type: "line", name: "Pareto front", step: "start", z: 2, silent: true, symbol: "none", data: front.map(({ x, y }) => [x, y]),
    lineStyle: { color: css("quiet"), width: 1, type: [4, 4] },
  };
}

function denseSeries(dense) {
  const value = mean(dense);
  return {
    type: "line", name: "dense", data: [], silent: true,
    markLine: {
      silent: true, symbol: "none", data: [{ yAxis: value }], lineStyle: { color: css("text"), width: 1, type: "solid", opacity: 0.55 },
      label: { position: "insideStartTop", color: css("text"), textBorderColor: css("page"), textBorderWidth: 3, formatter: `dense ${format.score(value)}${dense.length > 1 ? ` (mean of ${dense.length})` : ""}` },
    },
  };
}

function chips(all, hidden) {
  const toggle = (key) => state.set({ hide: hidden.has(key) ? [...hidden].filter((other) => other !== key) : [...hidden, key] }, true);
  const buttons = all.map((line) => el("button", { type: "button", id: `chip-${line.key}`, ariaPressed: String(!hidden.has(line.key)), title: line.label, onclick: () => toggle(line.key) },
    swatch(look(line.index)), el("span", {}, line.label)));
  const still = (color, dash, text) => el("span", { className: "still" }, swatch({ color, dash }), text);
  return el("div", { className: "chips", role: "group", ariaLabel: "Methods shown" }, buttons,
    still(css("quiet"), [3, 3], "Pareto front"), still(css("text"), "solid", "dense model"));
}

function groupTable(visible, share, dense, higher, metric) {
  const front = new Set(paretoFront(visible.flatMap((line) => line.points), higher));
  const rows = visible.flatMap((line) => line.points.map((one) => ({ line, one })));
  const columns = [
    ["method", "", ({ line, one }) => line.label, ({ line, one }) => el("a", { href: one.n === 1 ? state.link({ view: "run", run: one.runs[0].id }) : state.link({ view: "runs", pick: one.runs.map((run) => run.id) }) }, line.label)],
    ["asked", "n", ({ one }) => one.target, ({ one }) => format.percent(one.target, 0)],
    ["zeros", "n", ({ one }) => one.x, ({ one }) => format.percent(one.x)],
    ["runs", "n", ({ one }) => one.n, ({ one }) => one.n],
    [metric, "n", ({ one }) => one.y, ({ one }) => format.score(one.y) + (one.spread === null ? "" : ` ± ${format.score(one.spread)}`)],
    ["of dense", "n", ({ one }) => one.recovery, ({ one }) => format.percent(one.recovery, 1)],
    ["non-zeros", "n", ({ one }) => one.nonzero, ({ one }) => format.count(Math.round(one.nonzero))],
    ["time", "n", ({ one }) => one.seconds, ({ one }) => format.seconds(one.seconds)],
    ["Pareto", "", ({ one }) => (front.has(one) ? 0 : 1), ({ one }) => (front.has(one) ? "on the front" : "")],
  ];
  return sortableTable("gsort", columns, rows, { caption: "Each line leads to the runs behind it.", first: `-${metric}` });
}
