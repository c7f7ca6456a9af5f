"use strict";
// Starts the page, draws the view that the address names, and keeps it up with what runs do.

const VIEWS = {
  scores: ["Scores", viewScores], curves: ["Curves", viewCurves], layers: ["Layers", viewLayers], examples: ["Examples", viewExamples],
  differences: ["Differences", viewDifferences], runs: ["Runs", viewRuns], sweeps: ["Sweeps", viewSweeps], run: ["", viewRun],
};
const EVERY = 2000; // milliseconds between looks at what runs do
const byId = (id) => document.getElementById(id);
let drawing = 0;

// Draws the view. A later call wins over one that still waits for documents.
async function render() {
  const turn = ++drawing, [name, view] = VIEWS[state.get("view")] ?? VIEWS.scores;
  drawFrame();
  let content;
  try {
    content = await view();
  } catch (error) {
    content = el("p", { className: "empty" }, `This could not be read (${error.message}). Is prunebench dashboard still running?`);
  }
  if (turn !== drawing) return;
  const focused = document.activeElement?.id, open = [...document.querySelectorAll("details[open]")].map((one) => one.querySelector("summary").textContent);
  byId("main").replaceChildren(...[content].flat(3).filter(Boolean), el("footer"));
  for (const one of document.querySelectorAll("details")) one.open ||= open.includes(one.querySelector("summary").textContent);
  drawCharts();
  if (focused && focused !== document.activeElement?.id) byId(focused)?.focus({ preventScroll: true });
  document.title = `${name || state.get("run")} – prunebench`;
}

function drawFrame() {
  const now = state.get("view"), link = (name, text) => el("a", { href: state.link({ view: name, run: "" }), id: `view-${name}`, ariaCurrent: name === now || (name === "runs" && now === "run") ? "page" : null }, text);
  const focused = document.activeElement?.id;
  byId("nav").replaceChildren(...Object.entries(VIEWS).filter(([, [text]]) => text).map(([name, [text]]) => link(name, text)));
  if (focused?.startsWith("view-")) byId(focused)?.focus();
  byId("nav").querySelector("[aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
  const words = byId("words"), unknown = unknownKey();
  if (document.activeElement !== words) words.value = state.get("where");
  words.setAttribute("aria-invalid", String(Boolean(unknown)));
  const runs = filtered(), list = buckets([...data.runs.values()]), bucket = state.get("data") || shown().bucket?.bucket;
  byId("bucket").replaceChildren(...list.map(({ bucket: value, label }) => el("option", { value, selected: value === bucket }, label)));
  byId("bucket").parentElement.hidden = list.length < 2;
  byId("count").textContent = unknown ? `no setting “${unknown}”` : `${format.count(runs.length)} of ${format.count(data.runs.size)} runs`;
  byId("where").textContent = data.outputs;
}

function drawTheme() {
  const kept = keep("theme"), dark = matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = kept || (dark ? "dark" : "light");
  byId("theme").textContent = theme() === "dark" ? "Light" : "Dark";
  byId("theme").setAttribute("aria-label", `Change to ${theme() === "dark" ? "light" : "dark"} colours`);
}

// A page from disk may have no storage.
function keep(key, value) {
  try {
    if (value === undefined) return localStorage.getItem(`prunebench-${key}`);
    localStorage.setItem(`prunebench-${key}`, value);
  } catch { /* then it is forgotten */ }
  return value;
}

function live(text, on) {
  byId("live").textContent = text;
  byId("live").className = `live ${on}`;
}

async function follow() {
  try {
    if (!document.hidden && (await refresh())) await render();
    live("live", "on");
  } catch {
    live("the server is gone", "off");
  }
  setTimeout(follow, EVERY);
}

async function begin() {
  drawTheme();
  byId("theme").addEventListener("click", () => { keep("theme", theme() === "dark" ? "light" : "dark"); drawTheme(); render(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { drawTheme(); render(); });
  byId("words").addEventListener("input", (event) => state.set({ where: event.target.value, pick: [] }, true));
  byId("filter").addEventListener("submit", (event) => event.preventDefault());
  byId("bucket").addEventListener("change", (event) => state.set({ data: event.target.value, hide: [] }));
  byId("skip").addEventListener("click", (event) => { event.preventDefault(); byId("main").focus(); });
  addEventListener("popstate", render); // also for links to another #
  await refresh();
  if (data.exported) live(`as of ${data.exported}`, "");
  await render();
  if (!embedded) follow();
}

begin().catch((error) => byId("main").replaceChildren(el("p", { className: "empty" }, `The runs could not be read: ${error.message}`)));
