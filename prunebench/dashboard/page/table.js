"use strict";
// Tables that sort by their headings, and the one of all runs.

const PAGE = 100; // rows made at a time

// `columns`: [heading, class, value to sort by, what is shown]. The order stands in the address under `key`.
function sortableTable(key, columns, rows, { caption = "", first = "", rowClass = () => "" } = {}) {
  const order = state.get(key) || first, down = order.startsWith("-"), by = order.replace(/^-/, "");
  const column = columns.find(([heading]) => heading === by);
  const sorted = column ? sortRows(rows, column[2], down) : rows;
  const heads = columns.map(([heading, kind]) => el("th", { className: kind, scope: "col", ariaSort: heading !== by ? null : down ? "descending" : "ascending" },
    el("button", { type: "button", id: `${key}-${heading}`, onclick: () => state.set({ [key]: heading === by && !down ? `-${heading}` : heading }, true) }, heading)));
  const body = el("tbody");
  const table = el("table", {}, caption && el("caption", {}, caption), el("thead", {}, el("tr", {}, heads)), body);
  grow(body, sorted, (row) => el("tr", { className: rowClass(row) }, columns.map(([, kind, , show]) => el("td", { className: kind }, show(row)))), columns.length);
  return el("div", { className: "scroll", tabIndex: 0, role: "region", ariaLabel: caption || "Table" }, table);
}

// Missing values last, whatever the direction.
function sortRows(rows, value, down) {
  const missing = (one) => one === null || one === undefined || one === "";
  const keyed = rows.map((row) => [value(row), row]);
  const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true }));
  keyed.sort(([a], [b]) => (missing(a) || missing(b) ? missing(a) - missing(b) : down ? compare(b, a) : compare(a, b)));
  return keyed.map(([, row]) => row);
}

// The first rows now, others when the end comes near: a thousand at once would be felt.
function grow(body, rows, make, width) {
  let made = 0;
  const end = el("tr", {}, el("td", { colSpan: width, className: "quiet" }, "…"));
  const more = () => {
    end.remove();
    body.append(...rows.slice(made, made + PAGE).map(make));
    made += PAGE;
    if (made < rows.length) body.append(end);
  };
  more();
  new IntersectionObserver((entries, watch) => {
    if (!body.isConnected && made > PAGE) watch.disconnect();
    else if (entries.some((entry) => entry.isIntersecting)) {
      more();
      watch.unobserve(end);
      if (made < rows.length) watch.observe(end);
    }
  }, { rootMargin: "600px" }).observe(end);
}

function viewRuns() {
  if (!data.runs.size) return noRuns();
  const picked = new Set(state.list("pick")), chosen = state.list("data")[0];
  const runs = filtered().filter((run) => (!picked.size || picked.has(run.id)) && (!chosen || bucketOf(run) === chosen || !run.metric));
  const different = differing(runs.filter((run) => run.status === "finished")).filter((key) => !/^(seed|sparsity|name|recipe|outputs)$|^pruning\.schedule\.phases|^dataset\.(examples|windows)|^tracker|^model\.config/.test(key));
  const extra = state.get("settings") ? different : [];
  const selected = state.list("select");
  return [
    el("h1", {}, "Runs"),
    el("div", { className: "tools" },
      picked.size > 0 && el("span", {}, `The ${picked.size} runs behind a point. `, link({ pick: [] }, "Show all")),
      different.length > 0 && el("label", { className: "quiet" }, el("input", { type: "checkbox", id: "settings", checked: Boolean(state.get("settings")), onchange: (event) => state.set({ settings: event.target.checked ? "1" : "" }) }), `${different.length} settings that differ`),
      selectionTools(selected)),
    runs.length ? sortableTable("sort", runColumns(extra, selected), runs, { caption: "Choose runs to draw their curves or compare two of them.", first: "run", rowClass: (run) => (selected.includes(run.id) ? "chosen" : "") })
      : nothingLeft("No run fits"),
  ];
}

function selectionTools(selected) {
  if (!selected.length) return null;
  const pair = selected.length === 2 && { a: selected[0], b: selected[1] };
  return el("span", {}, `${selected.length} chosen: `, link({ view: "curves" }, "curves"),
    pair && [" · ", link({ view: "layers", mode: "change", ...pair }, "layers"), " · ", link({ view: "examples", ...pair }, "examples"), " · ", link({ view: "differences", ...pair }, "differences")],
    " · ", link({ select: [] }, "none"));
}

function runColumns(extra, selected) {
  const toggle = (run) => state.set({ select: selected.includes(run.id) ? selected.filter((id) => id !== run.id) : [...selected, run.id] }, true);
  const plain = (heading, kind, value, show = (run) => format.any(value(run))) => [heading, kind, value, show];
  return [
    plain("chosen", "", (run) => (selected.includes(run.id) ? 0 : 1), (run) => el("input", { type: "checkbox", id: `choose-${run.id}`, ariaLabel: `Choose ${run.id}`, checked: selected.includes(run.id), onchange: () => toggle(run) })),
    plain("run", "", (run) => run.id, (run) => link({ view: "run", run: run.id }, `${run.name} `, el("span", { className: "quiet" }, run.digest.slice(0, 8)))),
    plain("status", "", (run) => run.status, statusOf),
    plain("data", "", (run) => run.dataset),
    plain("seed", "n", (run) => run.seed),
    plain("sparsity", "n", (run) => run.prunable, (run) => format.percent(run.prunable)),
    plain("whole model", "n", (run) => run.model, (run) => format.percent(run.model)),
    plain("score", "n", (run) => run.score, (run) => format.score(run.score)),
    plain("metric", "", (run) => run.metric ?? ""),
    plain("of dense", "n", (run) => run.recovery, (run) => format.percent(run.recovery, 1)),
    plain("time", "n", (run) => run.seconds, (run) => format.seconds(run.seconds)),
    ...extra.map((key) => plain(shortKey(key), "", (run) => setting(run, key))),
  ];
}

function statusOf(run) {
  const word = el("span", { className: run.status, title: run.reason ?? "" }, run.status);
  return run.status === "running" && run.progress !== null && run.progress !== undefined
    ? [word, " ", el("progress", { value: run.progress, max: 1, ariaLabel: `${Math.round(100 * run.progress)} % of its steps` })] : word;
}

// --- empty states --------------------------------------------------------------------------------------------------

function noRuns() {
  return el("p", { className: "empty" }, `There are no runs in ${data.outputs || "this folder"} yet. `, el("code", {}, "prunebench run recipe=quickstart"),
    " makes the first within a minute or two, and it appears here while it runs.");
}

function nothingLeft(what) {
  const words = state.get("where");
  return el("p", { className: "empty" }, `${what}. `, words && ["The filter is ", el("code", {}, words), ". ", link({ where: "" }, "Take it away")]);
}
