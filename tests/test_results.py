from __future__ import annotations

import json
import os
from io import StringIO

import pytest
from rich.console import Console

from prunebench.report import duration, panel, score, size
from prunebench.results import Result, compressed_bytes, environment, recovery

RESULT = Result(
    status="finished",
    recipe="bert_smc_90",
    name="bert_smc_90",
    digest="0123456789ab",
    seed=1,
    metric={"name": "f1", "value": 85.0, "higher_is_better": True, "weights": "last"},
    metrics={"f1": 85.0, "exact_match": 76.5},
    dense={"value": 88.5, "metrics": {"f1": 88.5}, "folder": "outputs/dense/x"},
    recovery=85 / 88.5,
    sparsity={"target": 0.9, "prunable": 0.9, "model": 0.698, "components": {"encoder": 0.9}},
    weights={"model": 1000, "model_nonzero": 302, "prunable": 776, "prunable_nonzero": 78},
    bytes={"dense": 4000, "compressed": 1305, "format": "bitmask"},
    seconds=4000.0,
    model="model",
)


def shown(result: Result, width: int = 100) -> str:
    console = Console(file=StringIO(), width=width)
    console.print(panel(result.to_json(), "outputs/bert_smc_90/0123456789ab"))
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_the_panel_has_what_a_user_wants_to_know() -> None:
    text = shown(RESULT)
    pieces = ["88.50", "85.00", "96.0 % of dense", "90.00 % of encoder", "69.80 % of the whole model", "302 of 1,000"]
    for piece in [*pieces, "1 h 06 min", "exact_match 76.50", "do not make a dense PyTorch model faster", "/model"]:
        assert piece in text, piece


def test_a_dense_run_has_no_sparse_lines() -> None:
    dense = Result(**{**RESULT.to_json(), "sparsity": {**RESULT.sparsity, "target": 0.0, "prunable": 0.0}})
    assert "recovery" not in shown(dense) and "faster" not in shown(dense)


def test_the_result_is_plain_json() -> None:
    assert Result(**json.loads(json.dumps(RESULT.to_json(), allow_nan=False))) == RESULT


@pytest.mark.parametrize(
    ("sparse", "dense", "higher", "expected"),
    [
        (80, 100, True, 0.8),
        (0.5, 0.4, False, 0.8),
        (0.5, None, True, None),
        (0.3, 0.0, True, None),
        (0.1, -0.2, True, None),
    ],
)
def test_recovery_is_defined_in_both_directions(
    sparse: float, dense: float | None, higher: bool, expected: float | None
) -> None:
    assert recovery(sparse, dense, higher) == (None if expected is None else pytest.approx(expected))


def test_compressed_bytes_count_bits_and_values() -> None:
    # 776 prunable weights need 97 bytes of mask; 224 others and 78 survivors four bytes each
    assert compressed_bytes(RESULT.weights) == 97 + 4 * (224 + 78)


def test_the_environment_tells_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "secret-key")
    monkeypatch.setenv("HF_TOKEN", "secret-token")
    text = json.dumps(environment("cpu", "fp32"))
    assert "secret" not in text and os.environ["HF_TOKEN"] not in text
    assert json.loads(text)["packages"]["torch"].startswith("2.")


def test_numbers_are_easy_to_read() -> None:
    assert (score(0.98765), score(88.539)) == ("0.9877", "88.54")
    assert [size(n) for n in (12, 45_600, 90.9e6, 1.3e9)] == ["12 B", "45.6 kB", "90.9 MB", "1.30 GB"]
    assert [duration(s) for s in (12.34, 190, 4000)] == ["12.3 s", "3 min 10 s", "1 h 06 min"]
