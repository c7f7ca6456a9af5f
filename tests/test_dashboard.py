"""What the dashboard reads, sends and writes; tests/test_dashboard_browser.py has the page itself."""

from __future__ import annotations

import base64
import gzip
import http.client
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from prunebench.cli import main
from prunebench.config import PhaseConfig, RunConfig
from prunebench.dashboard import documents, export
from prunebench.dashboard.reading import Lines
from prunebench.dashboard.serve import is_loopback, listen, make_app
from prunebench.dashboard.store import LEFT_OUT, Store
from prunebench.sweep_record import MemberRecord, SweepFolder, SweepRecord
from tests.dashboard_runs import HOSTILE, MATRICES, STEPS, make_run, rows, touch_later


def store_of(outputs: Path) -> Store:
    """One that looks at every call."""
    store = Store(outputs)
    store.scan = 0.0
    return store


def row_of(answer: dict[str, Any], name: str) -> dict[str, Any]:
    return next(row for row in answer["runs"] if row["id"] == name)


# --- documents ----------------------------------------------------------------------------------------------------


def test_a_level_in_a_name_is_not_part_of_the_method() -> None:
    assert documents.method_of("bert_smc_90", 0.9) == "bert_smc" == documents.method_of("bert_smc_97", 0.97)
    assert documents.method_of("gmp_star_30", 0.9) == "gmp_star_30" and documents.method_of("mine", None) == "mine"


def test_settings_of_older_runs_are_completed_with_their_defaults() -> None:
    old = documents.complete({"seed": 3, "pruning.schedule.phases": [{"name": "prune", "units": 2.0, "repeat": 1}]})
    assert old["seed"] == 3 and old["trainer.lr"] == RunConfig().trainer.lr
    phases = {key: value for key, value in old.items() if "phases" in key}
    assert phases == {"pruning.schedule.phases.0.name": "prune", "pruning.schedule.phases.0.units": 2.0}
    assert PhaseConfig().repeat == 1


def test_curves_hold_prunings_rewinds_and_evaluations() -> None:
    plan = {"phases": [{"name": "a", "start": 0, "stop": 20, "lr": {"start": 0}},
                       {"name": "b", "start": 20, "stop": 30, "lr": {"start": 20}},
                       {"name": "c", "start": 30, "stop": 40, "lr": {"start": 20}}]}  # fmt: skip
    found = documents.curves(rows(0.8), plan)
    assert found["updates"]["step"] == list(range(STEPS)) and found["updates"]["loss"][9] == 0.1
    assert found["evals"] == {"step": [30], "accuracy": [0.7]}
    assert found["prunings"] == [[10, 0.4, 0.1], [20, 0.8, 0.1]]
    assert found["rewinds"] == [20] and found["steps"] == 40  # the third phase goes on with the second's curve


def test_long_curves_are_means_of_neighbours_but_the_last_learning_rate() -> None:
    table = {
        "step": list(range(1000)),
        "loss": [float(i % 2) for i in range(1000)],
        "lr": [i / 1000 for i in range(1000)],
    }
    thin = documents.thinned(table, 400)
    assert thin["step"] == [*range(2, 999, 3), 999] and thin["lr"][0] == 0.002
    assert thin["loss"][:2] == [pytest.approx(1 / 3, abs=1e-5), pytest.approx(2 / 3, abs=1e-5)]


def test_matrices_over_time(tmp_path: Path) -> None:
    found = documents.matrices(rows(0.8), tmp_path / "none")
    assert found == {"names": MATRICES, "steps": [10, 20], "sparsity": [[0.4] * 4, [0.8] * 4]}
    many = [{"step": i, "pruning": {"layers": {"a": i / 1000}}} for i in range(500)]
    steps = documents.matrices(many, tmp_path / "none")["steps"]
    assert len(steps) == documents.MOMENTS and (steps[0], steps[-1]) == (0, 499)


def test_a_run_that_kept_zeros_has_its_masks_counted(tmp_path: Path) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    save_file({"w": np.array([[True, False], [False, False]])}, tmp_path / "masks.safetensors")
    found = documents.matrices([], tmp_path / "masks.safetensors")
    assert found == {"names": ["w"], "steps": [None], "sparsity": [[0.75]]}


@pytest.mark.parametrize(
    ("line", "expected", "right"),
    [
        ({"label": "a", "prediction": "b", "correct": False}, "a", 0),
        ({"label": 2.0, "prediction": 1.5, "error": -0.5}, 2.0, None),
        ({"answers": ["x"], "prediction": "x", "f1": 0.5, "exact_match": 0}, ["x"], 0.5),
        ({"target": "1 + 1", "prediction": "2", "loss": 0.1}, "1 + 1", None),
        ({"tokens": 4, "nll": 6.0, "correct": 3}, None, None),
    ],
)
def test_predictions_of_every_family(line: dict[str, Any], expected: Any, right: float | None) -> None:
    _, examples, own = documents.predictions([{"split": "validation", "id": 0, **line}])
    assert examples["expected"] == [expected]
    assert (own["predicted"], own["right"]) == ([line.get("prediction", 1.5)], [right])


# --- store --------------------------------------------------------------------------------------------------------


def test_groups_variants_and_what_may_be_put_side_by_side(tmp_path: Path) -> None:
    names = [
        make_run(tmp_path, "m_50", sparsity=0.5),
        make_run(tmp_path, "m_90", seed=1), make_run(tmp_path, "m_90", seed=2),
        make_run(tmp_path, "m_90", lr=0.5), make_run(tmp_path, "other", content="d"),
    ]  # fmt: skip
    answer = store_of(tmp_path).runs()
    half, first, second, faster, other = (row_of(answer, name) for name in names)
    assert first["group"] == second["group"] != faster["group"]
    assert half["variant"] == first["variant"] != faster["variant"] and half["method"] == first["method"] == "m"
    assert half["bucket"] == faster["bucket"] != other["bucket"]
    assert faster["differs"]["trainer.lr"] == 0.5 and answer["common"]["trainer.lr"] == 1e-3
    assert "trainer.lr" not in first["differs"]


def test_only_what_changed_is_read_and_told_again(tmp_path: Path) -> None:
    first, second = make_run(tmp_path, seed=1), make_run(tmp_path, seed=2)
    store = store_of(tmp_path)
    version = store.runs()["version"]
    assert store.runs(version) == {"store": store.runs()["store"], "version": version, "runs": [], "gone": []}
    before = store.document(f"curves/{first}")
    with (tmp_path / second / "metrics.jsonl").open("a") as file:
        file.write(
            json.dumps({"step": STEPS, "loss": 0.5}) + "\n" + '{"step": 41, "lo'
        )  # the last one is not whole yet
    news = store.runs(version)
    assert [row["id"] for row in news["runs"]] == [second] and news["version"] > version
    assert store.document(f"curves/{first}") is before
    assert store.document(f"curves/{second}")["updates"]["step"][-1] == STEPS  # type: ignore[index]
    third = make_run(tmp_path, seed=3)
    (tmp_path / first / "config.yaml").unlink()
    news = store.runs(news["version"])
    assert third in {row["id"] for row in news["runs"]} and news["gone"] == [first]
    assert store.document(f"curves/{first}") is None


def test_who_is_left_out_is_told_at_once_and_comes_back(tmp_path: Path) -> None:
    first = make_run(tmp_path, "a", group="g")
    store = store_of(tmp_path)
    version = store.runs()["version"]
    second = make_run(tmp_path, "b", group="g")  # the same group and seed
    news = store.runs(version)
    rows_now = {row["id"]: row for row in store.runs()["runs"]}
    (left_out,) = [name for name, row in rows_now.items() if row["reason"] == LEFT_OUT]
    assert "group" not in rows_now[left_out] and left_out in {row["id"] for row in news["runs"]}
    (counted,) = {first, second} - {left_out}
    (tmp_path / counted / "config.yaml").unlink()
    (row,) = store.runs(news["version"])["runs"]
    assert (row["id"], row["reason"]) == (left_out, None) and row["group"]


def test_of_a_growing_file_only_what_was_added_is_read(tmp_path: Path) -> None:
    path, lines = tmp_path / "metrics.jsonl", Lines()
    assert lines.read(path) == []
    path.write_text('{"step": 0}\n{"step"')
    assert lines.read(path) == [{"step": 0}]
    first = lines.rows[0]
    with path.open("a") as file:
        file.write(': 1}\nno json\n[2]\n{"step": 3}\n')
    assert lines.read(path) == [{"step": 0}, {"step": 1}, {"step": 3}] and lines.rows[0] is first
    whole = tmp_path / "again"
    whole.write_text('{"step": 9}\n' * 9)
    whole.replace(path)  # as a run that is continued does it
    assert lines.read(path) == [{"step": 9}] * 9
    path.write_text("")
    assert lines.read(path) == []


def test_running_stopped_and_damaged_runs_are_there(tmp_path: Path) -> None:
    running = make_run(tmp_path, "running", status="running")
    failed = make_run(tmp_path, "failed", status="failed", reason="diverged")
    damaged = make_run(tmp_path, "damaged", metric="accuracy")
    (tmp_path / make_run(tmp_path, "broken") / "result.json").write_text("{")
    answer = store_of(tmp_path).runs()
    assert row_of(answer, running)["status"] == "killed"  # nobody holds its lock
    assert row_of(answer, running)["progress"] == 1.0
    assert row_of(answer, failed)["reason"] == "diverged"
    assert row_of(answer, damaged)["status"] == "damaged" and len(answer["runs"]) == 4


@pytest.mark.parametrize("file", ["result.json", "config.yaml", "plan.json", "metrics.jsonl", "predictions.jsonl"])
@pytest.mark.parametrize(
    "text",
    ["", "{", "null", "[1]", '"x"', "NaN",
     '{"step": NaN, "pruning": 3, "phases": 3, "config": 3, "status": "finished"}',
     '{"status": "running", "phases": [{"stop": "x"}], "step": "x", "eval": [1], "label": 1}', "\xff\x00", "a: .inf"],
)  # fmt: skip
@pytest.mark.parametrize("status", ["finished", "running"])
def test_a_damaged_file_hides_no_other_run(file: str, text: str, status: str, tmp_path: Path) -> None:
    good, bad = make_run(tmp_path, "good"), make_run(tmp_path, "bad", status=status)
    path = tmp_path / bad / file
    path.write_bytes(text.encode("latin-1"))
    if file in ("config.yaml", "plan.json"):  # without what newer runs have in result.json too
        result = json.loads((tmp_path / bad / "result.json").read_text())
        (tmp_path / bad / "result.json").write_text(json.dumps(result | {"config": {}, "group": ""}))
    store = store_of(tmp_path)
    answer = store.runs()
    assert row_of(answer, good)["score"] == 0.8 and len(answer["runs"]) == 2
    documents_of_bad = [store.document(f"{kind}/{bad}") for kind in ("curves", "run", "predictions")]
    json.dumps([answer, documents_of_bad], allow_nan=False)


def test_a_run_that_is_at_work_is_running(tmp_path: Path) -> None:
    from prunebench.paths import RunFolder, locked

    name = make_run(tmp_path, status="running")
    store = store_of(tmp_path)
    version = store.runs()["version"]
    with locked(RunFolder(tmp_path / name).lock):
        assert row_of(store.runs(version), name)["status"] == "running"
        assert len(store.document(f"curves/{name}")["updates"]["step"]) == STEPS  # type: ignore[index]
        with (tmp_path / name / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"step": STEPS, "loss": 0.5}) + "\n")
        assert store.document(f"curves/{name}")["updates"]["loss"][-1] == 0.5  # type: ignore[index]


def test_links_out_of_the_folder_are_not_followed(tmp_path: Path) -> None:
    outputs, elsewhere = tmp_path / "outputs", tmp_path / "elsewhere"
    kept = make_run(outputs)
    secret = make_run(elsewhere, "secret")
    (outputs / "secret").symlink_to(elsewhere / "secret")
    partly = outputs / make_run(outputs, "partly") / "predictions.jsonl"
    partly.unlink()
    partly.symlink_to(elsewhere / secret / "predictions.jsonl")
    store = store_of(outputs)
    assert [row["id"] for row in store.runs()["runs"]] == [kept]
    assert store.document(f"curves/{secret}") is None


def test_texts_of_a_newer_run_serve_older_ones(tmp_path: Path) -> None:
    old, new = make_run(tmp_path, seed=1), make_run(tmp_path, seed=2)
    path = tmp_path / old / "predictions.jsonl"
    path.write_text(path.read_text().replace('"text"', '"was_not_kept"'))
    store = store_of(tmp_path)
    keys = {store.document(f"predictions/{name}")["examples"] for name in (new, old)}  # type: ignore[index]
    assert len(keys) == 1 and store.document(f"examples/{keys.pop()}")["text"][3] == f"{HOSTILE} 3"  # type: ignore[index]


def test_sweeps_are_told_when_they_change(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    folder = SweepFolder(tmp_path / ".sweeps" / "s1")
    folder.root.mkdir(parents=True)
    record = SweepRecord("s1", ["run", "-m", "seed=1,2"], "2026-01-01T00:00:00+00:00", "failed", [
        MemberRecord("seed=1", ["seed=1"], run, "finished"),
        MemberRecord("seed=2", ["seed=2"], None, "failed", "diverged"),
    ])  # fmt: skip
    folder.write(record)
    store = store_of(tmp_path)
    answer = store.runs()
    (sweep,) = answer["sweeps"]
    assert sweep["command"] == "prunebench run -m seed=1,2" and sweep["members"][1]["reason"] == "diverged"
    assert "sweeps" not in store.runs(answer["version"])
    folder.write(SweepRecord(**{**vars(record), "status": "finished"}))
    touch_later(folder.record)
    assert store.runs(answer["version"])["sweeps"][0]["status"] == "finished"


# --- server -------------------------------------------------------------------------------------------------------


@contextmanager
def serving(outputs: Path, token: str | None = None, host: str = "127.0.0.1") -> Iterator[int]:
    listener = listen("127.0.0.1", 0)
    config = uvicorn.Config(make_app(store_of(outputs), host, token), log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    yield listener.getsockname()[1]
    server.should_exit = True
    thread.join()


def ask(port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, headers=given)
    answer = connection.getresponse()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    outputs = tmp_path_factory.mktemp("served") / "outputs"
    make_run(outputs)
    (outputs.parent / "secret.json").write_text('{"secret": 1}')
    with serving(outputs) as port:
        yield port, outputs


def test_the_page_its_files_and_documents_are_served(server: tuple[int, Path]) -> None:
    port, _ = server
    status, headers, body = ask(port, "/")
    assert status == 200 and headers["content-type"].startswith("text/html") and b"prunebench" in body
    for name in re.findall(r'(?:src|href)="(page/.+?)"', body.decode()):
        assert ask(port, f"/{name}")[0] == 200, name
    status, headers, body = ask(port, "/api/runs")
    (run,) = json.loads(body)["runs"]
    assert status == 200 and ask(port, f"/api/curves/{run['id']}")[0] == 200
    assert ask(port, "/api/runs", If_None_Match=headers["etag"])[::2] == (304, b"")


@pytest.mark.parametrize("path", ["/", "/api/runs", "/api/nothing", "/page/style.css"])
def test_every_answer_forbids_what_the_page_does_not_need(server: tuple[int, Path], path: str) -> None:
    _, headers, _ = ask(server[0], path, Origin="https://evil.example")
    assert (
        "default-src 'none'" in headers["content-security-policy"]
        and "unsafe" not in headers["content-security-policy"]
    )
    assert headers["x-content-type-options"] == "nosniff" and headers["cross-origin-resource-policy"] == "same-origin"
    assert not [name for name in headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "path",
    [
        "/secret.json", "/../secret.json", "/page/../../secret.json", "/page/%2e%2e/%2e%2e/secret.json",
        "/page//etc/passwd", "/page/__init__.py", "/api/run/../secret.json", "/api/run/..%2f..%2fsecret.json",
        "/api/run/mine/../../secret", "/api/curves//etc/passwd", "/api/examples/../../secret", "/api/run/mine",
        "/api/", "/api/_known/x", "/outputs", "/docs",
    ],
)  # fmt: skip
def test_nothing_else_is_served(server: tuple[int, Path], path: str) -> None:
    status, _, body = ask(server[0], path)
    assert status == 404 and b"secret" not in body and b"root:" not in body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_nothing_can_be_changed(server: tuple[int, Path], method: str) -> None:
    assert ask(server[0], "/api/runs", method)[0] == 405


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8765", "127.0.0.1.evil.example", ""])
def test_another_host_name_is_refused(server: tuple[int, Path], host: str) -> None:
    """A page elsewhere whose name comes to point at this machine (DNS rebinding) would send its own name."""
    status, _, body = ask(server[0], "/api/runs", Host=host)
    assert status == 400 and b"mine" not in body


@pytest.mark.parametrize("since", ["-1", "x", "1e9", "9" * 30, "٣"])
def test_a_wrong_version_gets_everything(server: tuple[int, Path], since: str) -> None:
    from urllib.parse import quote

    status, _, body = ask(server[0], f"/api/runs?since={quote(since)}")
    assert status == 200 and "common" in json.loads(body)


def test_another_address_needs_the_token_and_gives_a_cookie_for_it(tmp_path: Path) -> None:
    make_run(tmp_path)
    with serving(tmp_path, token="right", host="0.0.0.0") as port:
        for path in ("/", "/api/runs", "/page/style.css", "/?token=wrong", "/?token=", "/nothing"):
            status, headers, body = ask(port, path)
            assert status == 401 and b"mine" not in body and "set-cookie" not in headers
        status, headers, _ = ask(port, "/?token=right")
        cookie = headers["set-cookie"]
        assert (status, headers["location"]) == (303, "/")  # the token leaves the address
        assert "HttpOnly" in cookie and "SameSite=strict" in cookie
        own = cookie.split(";")[0]
        assert ask(port, "/api/runs", Cookie=own)[0] == 200
        assert ask(port, "/api/runs", Cookie=own.replace("right", "wrong"))[0] == 401


def test_only_this_machine_goes_without_a_token() -> None:
    assert all(is_loopback(host) for host in ("127.0.0.1", "localhost", "::1", "127.8.8.8"))
    assert not any(is_loopback(host) for host in ("0.0.0.0", "::", "192.168.1.2", "me.lan", "127.0.0.1.evil.example"))


def test_the_verb_serves_until_it_is_stopped(tmp_path: Path) -> None:
    import signal

    make_run(tmp_path / "outputs")
    process = subprocess.Popen([sys.executable, "-m", "prunebench", "dashboard", "--port", "0", "--host", "0.0.0.0"],
                               cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    found = re.fullmatch(r"http://0\.0\.0\.0:(\d+)/\?token=([\w-]{32})", address)
    assert found, address
    assert ask(int(found[1]), "/")[0] == 401 and ask(int(found[1]), f"/?token={found[2]}")[0] == 303
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "", "Ctrl-C ends it.\n")


# --- export -------------------------------------------------------------------------------------------------------


def documents_of(page: str) -> dict[str, Any]:
    found = re.search(r'id="documents">([^<]*)<', page)
    assert found
    read: dict[str, Any] = json.loads(gzip.decompress(base64.b64decode(found[1])))
    return read


def test_the_report_has_every_document_and_asks_for_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = make_run(tmp_path / "outputs")
    path = tmp_path / "new" / "report.html"
    assert main(["dashboard", "--outputs", str(tmp_path / "outputs"), "--export", str(path)]) == 0
    assert capsys.readouterr().out.strip() == str(path)
    page = path.read_text()
    docs, store = documents_of(page), store_of(tmp_path / "outputs")
    for kind in ("curves", "run", "predictions"):
        assert docs[f"{kind}/{name}"] == store.document(f"{kind}/{name}")
    head = page[: page.index("</head>")]
    assert (
        "src=" not in page.replace(page[page.index("<script>") :], "") and "unsafe" not in head and "<link" not in head
    )


def test_a_report_that_would_be_too_large_loses_the_least_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [make_run(tmp_path, seed=seed, said=said) for seed, said in ((1, "ppnn"), (2, "pnnn"), (3, "ppnp"))]
    monkeypatch.setattr(export, "assemble", lambda docs: "x" * (6_000_000 if "left_out" not in str(docs) else 10))
    docs = {"runs": store_of(tmp_path).runs()}
    store = store_of(tmp_path)
    for name in names:
        docs |= {f"{kind}/{name}": store.document(f"{kind}/{name}") for kind in export.KINDS}
    key = docs[f"predictions/{names[0]}"]["examples"]
    docs[f"examples/{key}"] = store.document(f"examples/{key}")
    _, told = export.report(docs)
    assert len(told) == 2 and docs[f"examples/{key}"]["id"] == [1, 3] and docs[f"examples/{key}"]["left_out"] == 2
    assert docs[f"predictions/{names[1]}"]["predicted"] == ["negative", "negative"]
    assert len(docs[f"curves/{names[0]}"]["updates"]["step"]) == STEPS


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--outputs", "nowhere"], "there is no such folder"),
        (["--port", "99999"], "from 0 to 65535"),
        (["--port", "x"], "invalid int value"),
        (["--host", "no.such.host.invalid"], "choose another --host"),
        (["--export", "outputs"], "name a file that can be written"),
        (["--export", "outputs/file/report.html"], "name a file that can be written"),
    ],
)
def test_mistakes_are_one_line(
    words: list[str], part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "outputs")
    (tmp_path / "outputs" / "file").touch()
    assert main(["dashboard", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("prunebench: error: ") and part in line


def test_a_port_in_use_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with listen("127.0.0.1", 0) as taken:
        assert main(["dashboard", "--outputs", str(tmp_path), "--port", str(taken.getsockname()[1])]) == 2
    assert "choose another --port" in capsys.readouterr().err
