"use strict";
// Where documents come from: this page's own text where it was exported, else the server, which sends what changed.

const data = { runs: new Map(), common: {}, sweeps: [], store: "", version: 0, outputs: "", exported: "" };
const embedded = document.getElementById("documents");
const documents = new Map(); // by key; those of a run are forgotten when it changes
let written = null;

async function unpack() {
  const bytes = Uint8Array.from(atob(embedded.textContent), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).json();
}

// The document of a key, null where there is none.
function load(key) {
  if (!documents.has(key)) documents.set(key, fetchDocument(key).catch((error) => { documents.delete(key); throw error; }));
  return documents.get(key);
}

async function fetchDocument(key) {
  if (embedded) return written[key] ?? null;
  const answer = await fetch("api/" + key.split("/").map(encodeURIComponent).join("/"));
  if (answer.status === 404) return null;
  if (!answer.ok) throw new Error(`${key}: ${answer.status}`);
  return answer.json();
}

// Takes in what changed since the last time; tells whether anything did.
async function refresh() {
  let news;
  if (embedded) {
    if (written) return false;
    written = await unpack();
    news = written.runs;
  } else {
    const answer = await fetch(`api/runs?since=${data.version}`);
    if (!answer.ok) throw new Error(await answer.text());
    news = await answer.json();
  }
  if (data.store && news.store !== data.store) location.reload(); // another server, whose versions are others
  if (news.common) Object.assign(data, { common: news.common, outputs: news.outputs, exported: news.exported ?? "" });
  for (const run of news.runs) {
    data.runs.set(run.id, run);
    forget(run.id);
  }
  for (const id of news.gone) {
    data.runs.delete(id);
    forget(id);
  }
  const changed = news.version !== data.version;
  Object.assign(data, { store: news.store, version: news.version, sweeps: news.sweeps ?? data.sweeps });
  return changed;
}

function forget(id) {
  for (const kind of ["curves", "run", "predictions"]) documents.delete(`${kind}/${id}`);
}

// A setting of a run, or undefined.
function setting(run, key) {
  return key in run.differs ? run.differs[key] : data.common[key];
}

function settings(run) {
  return { ...data.common, ...run.differs };
}
