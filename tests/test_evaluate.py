from __future__ import annotations

from pathlib import Path

import pytest
import torch

from prunebench.context import settle_labels, tokenizer_of
from prunebench.errors import RunError
from prunebench.evaluate import collect_rows, score_splits
from prunebench.models import load_model
from tests.tiny import tiny_config


@pytest.fixture
def scored(tmp_path: Path):
    config, task = settle_labels(tiny_config(tmp_path))
    data = task.encode("validation", tokenizer_of(config, task), tmp_path)
    model = load_model(config.model.name, head=task.head, labels=task.labels, num_labels=2, seed=1)
    return task, data, model


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_rows_do_not_depend_on_the_batches_they_were_computed_in(scored, batch_size: int) -> None:
    task, data, model = scored
    rows = collect_rows(model, task, data, batch_size=batch_size, device=torch.device("cpu"))
    assert sorted(rows) == list(range(40))
    for index in (0, 17, 39):  # one by one, by hand
        batch = task.collate(data.batch([index]))
        with torch.no_grad():
            alone = model(**task.inputs(batch)).logits[0]
        assert torch.allclose(torch.from_numpy(rows[index]["logits"]), alone, atol=1e-5)


def test_the_mode_is_restored_and_dropout_is_off_inside(scored) -> None:
    task, data, model = scored
    model.train()
    first = collect_rows(model, task, data, batch_size=8, device=torch.device("cpu"))
    again = collect_rows(model, task, data, batch_size=8, device=torch.device("cpu"))
    assert model.training
    assert all((first[index]["logits"] == again[index]["logits"]).all() for index in first)


def test_nan_outputs_are_refused(scored) -> None:
    task, data, model = scored
    torch.nn.init.constant_(model.classifier.weight, float("nan"))
    with pytest.raises(RunError, match="outputs on validation are not finite"):
        score_splits(
            task, lambda _: collect_rows(model, task, data, batch_size=8, device=torch.device("cpu")), ["validation"]
        )
