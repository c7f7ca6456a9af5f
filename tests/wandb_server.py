"""A local server that answers wandb's own client as https://api.wandb.ai does, as far as prunebench asks it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.reading import wandb_run


class FakeWandb(ThreadingHTTPServer):
    """GraphQL over HTTP: who asks, the runs of a project in pages, and saving and reading views.

    Attributes:
        projects: the runs of each "entity/project", as `node` makes them.
        views: what was saved, by name: the variables of the client's mutation.
        known: whether there is an account for the key.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.projects: dict[str, Sequence[Mapping[str, Any]]] = {}
        self.views: dict[str, dict[str, Any]] = {}
        self.known = True
        self.refusal = ""  # of saving, as GraphQL says it

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def answer(self, query: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        if "upsertView" in query:
            return self._save(variables)
        if "project(" not in query:
            viewer = {"id": "1", "entity": "team", "username": "me", "email": "", "flags": "{}", "teams": {"edges": []}}
            return {"data": {"viewer": viewer if self.known else None}}
        place = (
            f"{variables.get('entity') or variables.get('entityName')}/{variables.get('project') or variables['name']}"
        )
        if place not in self.projects:
            return {"data": {"project": None}}
        if "allViews" in query:
            view = self.views[variables["viewName"]]
            node = {"id": "view", "displayName": view["displayName"], "spec": view["spec"]}
            return {"data": {"project": {"allViews": {"edges": [{"node": node}]}}}}
        return {"data": {"project": _page(self.projects[place], variables)}}

    def _save(self, view: Mapping[str, Any]) -> dict[str, Any]:
        if self.refusal:
            return {"errors": [{"message": self.refusal}], "data": {"upsertView": None}}
        self.views[view["name"]] = dict(view)
        return {"data": {"upsertView": {"view": {"id": "view", "name": view["name"]}, "inserted": True}}}


def _page(nodes: Sequence[Mapping[str, Any]], variables: Mapping[str, Any]) -> dict[str, Any]:
    wanted = json.loads(variables.get("filters") or "{}")
    nodes = [node for node in nodes if wanted.get("state") in (None, node["state"])]
    begin = int(variables.get("cursor") or 0)
    end = begin + int(variables["perPage"])
    info = {"endCursor": str(end), "hasNextPage": end < len(nodes)}
    edges = [{"node": node, "cursor": str(begin + at + 1)} for at, node in enumerate(nodes[begin:end])]
    return {
        "internalId": "1", "runCount": len(nodes), "readOnly": False, "runs": {"edges": edges, "pageInfo": info}
    }  # fmt: skip


class _Handler(BaseHTTPRequestHandler):
    server: FakeWandb

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        body = json.dumps(self.server.answer(asked["query"], asked.get("variables") or {})).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing to the terminal."""


def node(file: Path) -> dict[str, Any]:
    """The run that wandb has once it was sent the file of an offline run."""
    told = wandb_run(file)
    return {
        "id": told["id"], "name": told["id"], "displayName": told["id"], "projectId": "1", "state": "finished",
        "tags": told["tags"], "group": told["group"], "jobType": told["job_type"], "sweepName": None, "commit": None,
        "readOnly": False, "createdAt": "2026-01-01T00:00:00Z", "heartbeatAt": "2026-01-01T00:00:00Z",
        "description": None, "notes": None, "systemMetrics": "{}", "historyLineCount": 1, "historyKeys": {},
        "user": {"name": "me", "username": "me"}, "summaryMetrics": json.dumps(told["summary"]),
        "config": json.dumps({key: {"value": value} for key, value in told["config"].items()}),
    }  # fmt: skip


@contextmanager
def wandb_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeWandb]:
    """The server, with wandb's client pointed to it. The client keeps its address and key until it is torn down."""
    import wandb

    with FakeWandb() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
        monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
        monkeypatch.delenv("WANDB_MODE", raising=False)
        wandb.teardown()
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()
        wandb.teardown()
