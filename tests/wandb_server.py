"""Plays as much of wandb's server as its clients need to list runs and to save and open views, on localhost."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

PAGE = 2  # however many are asked for, so that there are pages


@dataclass
class Project:
    """What there is, and what was asked.

    Attributes:
        runs: (id, config, summary, state) each.
        asked: the variables of every query for them.
        views: the variables with which each view was saved, by its name in addresses.
        known: whether the key has an account.
        refusal: what is said to who saves a view; empty: it is saved.
    """

    path: str
    runs: Sequence[tuple[str, dict[str, Any], dict[str, Any], str]]
    asked: list[dict[str, Any]] = field(default_factory=list)
    views: dict[str, dict[str, Any]] = field(default_factory=dict)
    known: bool = True
    refusal: str = ""

    def body(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        if self.refusal and "upsertView" in query:
            return {"data": {"upsertView": None}, "errors": [{"message": self.refusal}]}
        return {"data": self.answer(query, variables)}

    def answer(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        if "upsertView" in query:
            self.views[variables["name"]] = variables
            return {"upsertView": {"view": {"id": "1", "name": variables["name"]}, "inserted": True}}
        if "allViews" in query:
            view = self.views[variables["viewName"]]
            node = {"id": "1", "displayName": view["displayName"], "spec": view["spec"]}
            return {"project": {"allViews": {"edges": [{"node": node}]}}}
        if "runs(" not in query:
            viewer = {"id": "1", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}}
            return {"viewer": viewer if self.known else None}
        self.asked.append(variables)
        if f"{variables['entity']}/{variables['project']}" != self.path:
            return {"project": None}
        state = json.loads(variables["filters"])["state"]
        every = [run for run in self.runs if run[3] == state]
        first = int(variables.get("cursor") or 0)
        edges = [
            {"node": _node(run), "cursor": str(first + i + 1)} for i, run in enumerate(every[first : first + PAGE])
        ]
        page = {"endCursor": str(first + len(edges)), "hasNextPage": first + PAGE < len(every)}
        runs = {"edges": edges, "pageInfo": page}
        return {"project": {"internalId": "1", "runCount": len(every), "readOnly": False, "runs": runs}}


def _node(run: tuple[str, dict[str, Any], dict[str, Any], str]) -> dict[str, Any]:
    identity, config, summary, state = run
    return {
        "id": identity, "name": identity, "displayName": identity, "state": state, "tags": [], "projectId": "1",
        "config": json.dumps({key: {"value": value} for key, value in config.items()}),
        "summaryMetrics": json.dumps(summary), "systemMetrics": "{}", "historyKeys": None,
        "user": {"name": "me", "username": "me"},
        "sweepName": None, "group": None, "jobType": None, "createdAt": "2026-01-01T00:00:00", "readOnly": False,
    }  # fmt: skip


@contextmanager
def serving(project: Project) -> Iterator[str]:
    """Yields the base URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"] or 0))
            asked = json.loads(body) if self.path == "/graphql" else {}
            answer = project.body(asked["query"], asked.get("variables") or {}) if asked else {}
            text = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
