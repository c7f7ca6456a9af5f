"use strict";
// Apache ECharts on canvases, in the page's colours. A chart keeps its canvas while the page around it is made anew.

const COLOURS = { // Okabe and Ito's, which the colour-blind tell apart; on dark ground the lighter of them
  light: ["#0072b2", "#d55e00", "#009e73", "#b8568f", "#b47800", "#3a93c9", "#6a6a6a"],
  dark: ["#56b4e9", "#f0813a", "#22c493", "#dd93bf", "#e9ad2c", "#f0e442", "#bdbdbd"],
};
const SHAPES = ["circle", "rect", "triangle", "diamond", "arrow"];
const DASHES = ["solid", [7, 4], [2, 3], [9, 3, 2, 3]];
const SCALES = {
  light: { share: ["#f4f6f8", "#bcd7e8", "#5fa5cd", "#0072b2", "#003a5c"], change: ["#b04600", "#f0b78a", "#f6f6f4", "#8fc1de", "#005f94"] },
  dark: { share: ["#22262b", "#1f4a66", "#2279ad", "#56b4e9", "#d3ecfa"], change: ["#f0813a", "#8a5330", "#2a2d31", "#2a6d98", "#6cbcf0"] },
};

const theme = () => document.documentElement.dataset.theme;
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

// Colour, and where they repeat another shape and dash.
function look(index) {
  const colours = COLOURS[theme()], round = Math.floor(index / colours.length);
  return { color: colours[index % colours.length], symbol: SHAPES[(index + round) % SHAPES.length], dash: DASHES[round % DASHES.length] };
}

function swatch({ color, symbol, dash }) {
  const make = (tag, attributes) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    return node;
  };
  const picture = make("svg", { viewBox: "0 0 26 12", "aria-hidden": "true" });
  picture.append(make("line", { x1: 0, y1: 6, x2: 26, y2: 6, stroke: color, "stroke-width": 2, "stroke-dasharray": dash === "solid" ? "none" : dash.join(" ") }));
  const paths = { circle: "M9 6a4 4 0 1 0 8 0a4 4 0 1 0-8 0", rect: "M9.5 2.5h7v7h-7z", triangle: "M13 1.5l4.6 8h-9.2z", diamond: "M13 1l5 5-5 5-5-5z", arrow: "M13 1.5l4 9-4-2.4-4 2.4z" };
  if (symbol) picture.append(make("path", { d: paths[symbol], fill: color }));
  return picture;
}

const charts = new Map(); // by name: { host, chart }
const watcher = new ResizeObserver((entries) => {
  for (const { target } of entries) if (target.isConnected) echarts.getInstanceByDom(target)?.resize();
});

// The host of the chart `name`, showing `option`. `describe` is read to who does not see it; `onclick` gets the data item.
function plot(name, option, describe, { className = "chart", onclick } = {}) {
  let known = charts.get(name);
  if (!known || known.theme !== theme()) {
    known?.chart.dispose();
    known?.host.remove();
    const host = el("div", { className });
    known = { host, theme: theme(), chart: null, click: null };
    charts.set(name, known);
  }
  known.host.className = className;
  known.host.setAttribute("role", "img");
  known.host.setAttribute("aria-label", describe);
  known.click = onclick;
  known.option = { ...frame(), ...option };
  return known.host;
}

// Draws the charts that were put into the page; a canvas needs its size first.
function drawCharts() {
  for (const [name, known] of charts) {
    if (!known.host.isConnected) {
      known.chart?.dispose();
      charts.delete(name);
    } else if (known.option) {
      known.chart ??= start(known);
      known.chart.setOption(known.option, { notMerge: true });
      known.option = null;
    }
  }
}

function start(known) {
  const chart = echarts.init(known.host, null, { renderer: "canvas" });
  chart.on("click", (event) => known.click?.(event));
  watcher.observe(known.host);
  return chart;
}

function frame() {
  const text = { color: css("quiet"), fontFamily: getComputedStyle(document.body).fontFamily, fontSize: 12 };
  return {
    animation: false,
    textStyle: text,
    tooltip: {
      trigger: "item", confine: true, backgroundColor: css("panel"), borderColor: css("line"), borderWidth: 1, padding: [8, 12],
      textStyle: { ...text, color: css("text") }, extraCssText: "box-shadow:0 2px 12px rgb(0 0 0/.12)", transitionDuration: 0,
    },
  };
}

function axis(name, more = {}) {
  return {
    type: "value", scale: true, name, nameLocation: "middle", nameTextStyle: { color: css("quiet") },
    axisLine: { show: false }, axisTick: { show: false }, axisLabel: { color: css("quiet"), hideOverlap: true },
    splitLine: { lineStyle: { color: css("line") } }, ...more,
  };
}

const axisX = (name, more) => axis(name, { nameGap: 32, axisLine: { show: true, lineStyle: { color: css("line") } }, splitLine: { show: false }, ...more });
const axisY = (name, more) => axis(name, { nameGap: 52, ...more });

// What stands in a tooltip: a heading and quiet lines. A node, so that no name in it is read as HTML.
function tip(heading, ...lines) {
  return el("div", { className: "tip" }, el("b", {}, heading), lines.filter(Boolean).map((line) => el("div", {}, line)));
}

// A heat map; `value(row, column)` is a share, a difference or null.
function heat(name, { rows, columns, value, change = false, describe, tell, onclick, label = true, columnName = "" }) {
  const cells = rows.flatMap((_, row) => columns.map((_, column) => [column, row, value(row, column)])).filter(([, , share]) => share !== null && share !== undefined);
  const most = change ? Math.max(0.001, ...cells.map(([, , share]) => Math.abs(share))) : 1;
  const wide = Math.min(1132, window.innerWidth - 48) / (columns.length + 2);
  const text = (share) => (change && share > 0 ? "+" : "") + (100 * share).toFixed(1);
  const option = {
    grid: { left: 8, right: 12, top: 8, bottom: columnName ? 84 : 66, containLabel: true },
    xAxis: { type: "category", data: columns, name: columnName, nameLocation: "middle", nameGap: 30, axisTick: { show: false }, axisLine: { show: false }, axisLabel: { color: css("quiet"), hideOverlap: true } },
    yAxis: { type: "category", data: rows, inverse: true, axisTick: { show: false }, axisLine: { show: false }, axisLabel: { color: css("quiet"), width: window.innerWidth < 640 ? 96 : 260, overflow: "truncate" } },
    visualMap: {
      min: change ? -most : 0, max: most, calculable: false, orient: "horizontal", left: "center", bottom: 0, itemHeight: 180, itemWidth: 10,
      text: change ? [`+${(100 * most).toFixed(1)} points`, `−${(100 * most).toFixed(1)}`] : ["100 % zeros", "0 %"],
      textStyle: { color: css("quiet") }, inRange: { color: SCALES[theme()][change ? "change" : "share"] },
    },
    series: [{
      type: "heatmap", data: cells, itemStyle: { borderColor: css("page"), borderWidth: columns.length > 30 ? 0 : 1 },
      label: { show: label && wide > 42, fontSize: 11, formatter: ({ value: cell }) => text(cell[2]), color: "inherit" },
      emphasis: { itemStyle: { borderColor: css("text"), borderWidth: 1 } },
    }],
  };
  readable(option.series[0], most, change);
  option.tooltip = { ...frame().tooltip, formatter: ({ value: [column, row, share] }) => tell(row, column, share, text(share)) };
  const host = plot(name, option, describe, { onclick });
  host.style.height = `${Math.max(220, Math.min(1600, rows.length * (rows.length > 40 ? 15 : 30) + 100))}px`;
  return host;
}

// Numbers in cells: light on dark cells, dark on light ones.
function readable(series, most, change) {
  const dark = theme() === "dark";
  series.data = series.data.map((cell) => {
    const strength = Math.abs(cell[2]) / most;
    const inverse = change ? strength > 0.6 : strength > (dark ? 0.66 : 0.55);
    const light = dark !== inverse;
    return { value: cell, label: { color: light ? "#f2f2f2" : "#16181b" } };
  });
}
