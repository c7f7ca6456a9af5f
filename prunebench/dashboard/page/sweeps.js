"use strict";
// The state of sweeps: what each member does, and the runs behind them.

function viewSweeps() {
  if (!data.sweeps.length) {
    return [el("h1", {}, "Sweeps"), el("p", { className: "empty" }, "There are no sweeps here yet. ", el("code", {}, "prunebench run -m recipe=quickstart seed=1,2,3"), " starts one; it appears here while it runs.")];
  }
  return [el("h1", {}, "Sweeps"), data.sweeps.map(sweepPart)];
}

function sweepPart(sweep) {
  const counts = new Map();
  for (const { status } of sweep.members) counts.set(status, (counts.get(status) ?? 0) + 1);
  const done = counts.get("finished") ?? 0;
  const told = [...counts].map(([status, count]) => `${count} ${status}`).join(", ");
  const runs = sweep.members.map((member) => member.run).filter((id) => data.runs.has(id));
  return el("section", {},
    el("h2", {}, sweep.id, "  ", el("span", { className: sweep.status }, sweep.status)),
    el("p", {}, el("progress", { value: done, max: Math.max(1, sweep.members.length), ariaLabel: `${done} of ${sweep.members.length} finished` }), `  ${told}`),
    sweep.command && el("p", {}, el("code", {}, sweep.command)),
    runs.length > 0 && el("p", { className: "tools" }, link({ view: "runs", pick: runs }, "Its runs in the table"), link({ view: "curves", select: runs }, "Their curves")),
    el("details", { open: sweep.members.length <= 30, id: `sweep-${sweep.id}` }, el("summary", {}, `${sweep.members.length} members`), el("div", { className: "scroll" }, el("table", {},
      el("thead", {}, el("tr", {}, ["member", "status", "score", "run"].map((heading) => el("th", { scope: "col" }, heading)))),
      el("tbody", {}, sweep.members.map(memberRow))))));
}

function memberRow(member) {
  const run = data.runs.get(member.run);
  return el("tr", {}, el("td", { className: "wrap" }, member.name), el("td", { className: "wrap" }, run && member.status === "running" ? statusOf(run) : el("span", { className: member.status }, member.status), member.reason && [": ", member.reason]),
    el("td", {}, run ? format.score(run.score) : ""), el("td", {}, run ? link({ view: "run", run: run.id }, run.digest) : ""));
}
