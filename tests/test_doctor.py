from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from prunebench import doctor
from prunebench.cli import main
from prunebench.doctor import Finding, examine


@pytest.fixture
def findings(tmp_path: Path) -> dict[str, Finding]:
    return {finding.what: finding for finding in examine(str(tmp_path / "outputs"))}


def test_every_warning_says_what_to_do(findings: dict[str, Finding]) -> None:
    assert {finding.status for finding in findings.values()} <= {"ok", "warn"}
    assert all(finding.advice for finding in findings.values() if finding.status == "warn")
    for what in ("python", "torch", "cores", "memory", "cpu", "hub cache", "hub", "wandb login", "outputs"):
        assert what in findings


def test_offline_is_said(findings: dict[str, Finding]) -> None:
    assert "HF_HUB_OFFLINE" in findings["hub"].found  # tests/conftest.py sets it


def test_looking_makes_nothing(findings: dict[str, Finding], tmp_path: Path) -> None:
    assert list(tmp_path.iterdir()) == []


def test_the_key_of_wandb_is_never_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    assert main(["doctor", "--json"]) == 0
    shown = capsys.readouterr().out
    assert "a" * 40 not in shown
    assert next(item for item in json.loads(shown) if item["what"] == "wandb login")["found"].startswith("found")


def test_a_file_in_the_way_of_the_outputs(tmp_path: Path) -> None:
    (tmp_path / "outputs").touch()
    (finding,) = doctor._outputs(tmp_path / "outputs")
    assert finding.status == "warn" and "outputs=<folder>" in finding.advice


def test_a_check_that_breaks_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> list[Finding]:
        raise OSError("no such thing\nreally")

    (finding,) = doctor._guarded("hub", broken)  # type: ignore[arg-type]
    assert finding == Finding("hub", "warn", "could not be examined: OSError: no such thing", finding.advice)
    assert finding.advice


def test_reachable_is_whether_a_connection_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert doctor._reachable(f"http://127.0.0.1:{port}")
    assert not doctor._reachable(f"http://127.0.0.1:{port}")
