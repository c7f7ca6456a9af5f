"use strict";
// Which runs are shown: those that the filter's words and the choice of data leave, and how they are grouped.

// "movement sparsity>=0.9 dataset.name=sst2 -dense": every word must hold. A word without a relation is looked for.
const WORD = /(-?)(?:"([^"]*)"|([\w.]+)(>=|<=|!=|=|>|<)(?:"([^"]*)"|(\S*))|(\S+))/g;

function parseFilter(text) {
  return [...text.matchAll(WORD)].map(([, no, quoted, key, relation, value, bare, word]) =>
    ({ no: no === "-", key, relation, value: value ?? bare, word: (quoted ?? word ?? "").toLowerCase() }));
}

const FIELDS = ["name", "digest", "status", "method", "seed", "dataset", "metric", "score", "dense", "recovery",
  "target", "prunable", "model", "nonzero", "bytes", "steps", "seconds"];

// The full name of a field or setting that a word means; several ends of settings: the shortest.
const keyOf = memo((word, _) => {
  if (FIELDS.includes(word)) return word;
  const keys = allKeys().filter((key) => key === word || key.endsWith("." + word));
  return keys.sort((a, b) => a.length - b.length)[0];
});

function memo(make) {
  let version = -1, known = new Map();
  return (word) => {
    if (version !== data.version) [version, known] = [data.version, new Map()];
    if (!known.has(word)) known.set(word, make(word));
    return known.get(word);
  };
}

function allKeys() {
  const keys = new Set(Object.keys(data.common));
  for (const run of data.runs.values()) for (const key in run.differs) keys.add(key);
  return [...keys];
}

function valueOf(run, key) {
  return FIELDS.includes(key) ? run[key] : setting(run, key);
}

function holds(run, { no, key, relation, value, word }) {
  return no !== (key ? compares(valueOf(run, keyOf(key)), relation, value)
    : `${run.id} ${run.dataset} ${run.status}`.toLowerCase().includes(word));
}

function compares(have, relation, want) {
  if (have === null || have === undefined) return relation === "!=" || (relation === "=" && /^(null|)$/.test(want));
  const numbers = typeof have === "number" && want !== "" && !Number.isNaN(Number(want));
  const [a, b] = numbers ? [have, Number(want)] : [String(have).toLowerCase(), want.toLowerCase()];
  return { "=": a === b, "!=": a !== b, ">=": a >= b, "<=": a <= b, ">": a > b, "<": a < b }[relation];
}

// The first key of the filter that no run has, if any.
function unknownKey() {
  return parseFilter(state.get("where")).find(({ key }) => key && !keyOf(key))?.key;
}

function filtered() {
  const words = parseFilter(state.get("where"));
  return [...data.runs.values()].filter((run) => words.every((word) => holds(run, word)));
}

// Scores are put side by side only if metric and data are the same.
const bucketOf = (run) => (run.metric ? run.bucket : null);

function buckets(runs) {
  const found = new Map();
  for (const run of runs) {
    const bucket = bucketOf(run);
    if (bucket === null) continue;
    const known = found.get(bucket) ?? { bucket, dataset: run.dataset, metric: run.metric, detail: run.detail, count: 0 };
    found.set(bucket, { ...known, count: known.count + 1 });
  }
  const list = [...found.values()].sort((a, b) => b.count - a.count);
  const names = new Map();
  for (const one of list) {
    const name = `${one.dataset ?? "?"}, ${one.metric}`;
    const same = names.get(name) ?? 0;
    names.set(name, same + 1);
    one.label = same ? `${name} (${one.detail || "other data"} ${same + 1})` : name;
  }
  return list;
}

// The filtered runs of the data that were chosen, or else of those with most runs.
function shown() {
  const runs = filtered(), list = buckets(runs);
  const now = list.find(({ bucket }) => bucket === state.get("data")) ?? list[0];
  return { runs: runs.filter((run) => bucketOf(run) === now?.bucket), bucket: now, list };
}

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

function deviation(values) {
  if (values.length < 2) return null;
  const middle = mean(values);
  return Math.sqrt(values.reduce((sum, value) => sum + (value - middle) ** 2, 0) / (values.length - 1));
}

// One line a method and variant of its settings; its points are the runs that differ in their seed only.
function lines(runs, share) {
  const found = new Map();
  for (const run of runs) {
    if (run.score === null || run[share] === null || run.target === 0) continue;
    const key = `${run.method}|${run.variant}`;
    const line = found.get(key) ?? { key, method: run.method, groups: new Map(), runs: [] };
    found.set(key, line);
    line.runs.push(run);
    const group = run.group || `${key}|${run.target}`;
    line.groups.set(group, [...(line.groups.get(group) ?? []), run]);
  }
  const all = [...found.values()].sort((a, b) => a.method.localeCompare(b.method));
  nameLines(all);
  return all.map((line, index) => ({
    ...line,
    index,
    points: [...line.groups.values()].map((group) => point(group, share)).sort((a, b) => a.x - b.x),
  }));
}

function point(runs, share) {
  const scores = runs.map((run) => run.score);
  return {
    runs, n: runs.length, x: mean(runs.map((run) => run[share])), y: mean(scores), spread: deviation(scores),
    target: runs[0].target, recovery: known(runs, "recovery"), seconds: known(runs, "seconds"), nonzero: known(runs, "nonzero"),
  };
}

function known(runs, field) {
  const values = runs.map((run) => run[field]).filter((value) => value !== null && value !== undefined);
  return values.length ? mean(values) : null;
}

// A method's name, and where it was run with different settings what is different.
function nameLines(all) {
  for (const line of all) {
    const family = all.filter(({ method }) => method === line.method);
    line.label = line.method;
    if (family.length === 1) continue;
    const keys = differing(family.map(({ runs }) => runs[0])).filter((key) => !NO_VARIANT.test(key));
    const told = keys.slice(0, 3).map((key) => `${shortKey(key)}=${format.any(setting(line.runs[0], key))}`);
    line.label += told.length ? ` · ${told.join(" ")}${keys.length > 3 ? " …" : ""}` : ` · ${line.runs[0].digest}`;
  }
}

const NO_VARIANT = /^(seed|sparsity|name|recipe|outputs|tracker\..*)$/;
// The end of a key; "criterion" for pruning.criterion.name.
const shortKey = (key) => key.split(".").slice(key.endsWith(".name") ? -2 : -1).join(".").replace(/\.name$/, "");

// Settings in which some runs differ.
function differing(runs) {
  const keys = new Set(runs.flatMap((run) => Object.keys(run.differs)));
  return [...keys].filter((key) => new Set(runs.map((run) => JSON.stringify(setting(run, key) ?? null))).size > 1).sort();
}

// Points that no other point beats in score without being less sparse, by sparsity.
function paretoFront(points, higher) {
  const better = (a, b) => (higher ? a > b : a < b);
  const front = [];
  for (const one of [...points].sort((a, b) => b.x - a.x || (better(a.y, b.y) ? -1 : 1))) {
    if (!front.length || better(one.y, front[0].y)) front.unshift(one);
  }
  return front;
}

function runOptions(runs) {
  return runs.map((run) => [run.id, `${run.name} ${run.digest.slice(0, 8)}  seed ${run.seed ?? "?"}${run.score === null ? "" : `  ${format.score(run.score)}`}`]);
}
