"""Local files and the hub's cache give the same tables; without a network that is all there is."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from prunebench.config import DatasetConfig
from prunebench.errors import UsageError
from prunebench.tasks.sources import Files, Hub, source_of

COMMIT = "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c"
QUESTIONS = {
    "id": ["q0", "q1"],
    "title": ["t", "t"],
    "context": ["On a mat.", "In Paris."],
    "question": ["Where?", "Where?"],
    "answers": [{"text": ["mat", "a mat"], "answer_start": [5, 3]}, {"text": ["Paris"], "answer_start": [3]}],
}
ROWS = {"sentence": ["good cat", "bad mat", "good mat"], "label": [1, 0, -1], "idx": [0, 1, 2]}


def config(**settings: Any) -> DatasetConfig:
    return DatasetConfig(name="x", task="classification", **settings)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    for name in ("train", "dev"):
        (tmp_path / f"{name}.tsv").write_text(f"sentence\tlabel\n{name}\t1\nb\t0\n")
    return {"train_file": str(tmp_path / "train.tsv"), "validation_file": str(tmp_path / "dev.tsv")}


def test_files_are_read_by_split(files: dict[str, str]) -> None:
    source = source_of(config(**files, hub="nyu-mll/glue"))  # files win
    assert isinstance(source, Files) and source.eval_splits == ["validation"]
    assert source.read("train").columns["sentence"] == ["train", "b"]
    assert source.read("validation").columns["sentence"] == ["dev", "b"]


def test_identity_is_content_without_folders(files: dict[str, str], tmp_path: Path) -> None:
    before = source_of(config(**files)).identity(["train", "validation"])
    moved = tmp_path / "elsewhere.tsv"
    Path(files["train_file"]).rename(moved)
    files["train_file"] = str(moved)
    assert source_of(config(**files)).identity(["train", "validation"]) == before
    moved.write_text(moved.read_text() + "c\t1\n")
    after = source_of(config(**files)).identity(["train", "validation"])
    assert after["train"] != before["train"] and after["validation"] == before["validation"]


def test_missing_settings_and_files(files: dict[str, str]) -> None:
    train = {"train_file": files["train_file"]}
    assert source_of(config(**train, holdout=1)).eval_splits == ["validation"]
    for settings, says in [
        ({}, "has no data"),
        (train, "without dataset.validation_file"),
        ({"validation_file": files["validation_file"]}, "without dataset.train_file"),
        (
            {**files, "train_file": files["train_file"].replace("train", "trian")},
            r"no such file \(did you mean 'train.tsv'",
        ),
        ({**files, "train_file": "/no/folder/x.tsv"}, "dataset.train_file=/no/folder/x.tsv: no such file$"),
        ({**files, "train_file": "x.doc"}, "which format"),
    ]:
        with pytest.raises(UsageError, match=says):
            source_of(config(**settings))


WINOGRANDE = {"sentence": "Ann and _ .", "option1": "Bo", "option2": "Cy", "answer": "2"}
RACE = {"example_id": "1", "article": "Text.", "answer": "D", "question": "Is _ ?", "options": ["w", "x", "y", "z"]}
ENDINGS = {"ending0": "w", "ending1": "x", "ending2": "y", "ending3": "z"}
CSQA_CHOICES = {"label": ["A", "B", "C", "D", "E"], "text": ["v", "w", "x", "y", "z"]}
CHOICES = {  # by dataset, a row as the hub has it; and what is scored: context, choices, index of the answer
    "commonsense_qa": (
        {"question": "Where?", "question_concept": "x", "choices": CSQA_CHOICES, "answerKey": "B"},
        ("Q: Where?", [f"A: {letter}" for letter in "vwxyz"], 1),
    ),
    "winogrande": (WINOGRANDE, ("Ann and", ["Bo .", "Cy ."], 1)),
    "winogrande_span": (WINOGRANDE, ("Ann and ", ["Bo", "Cy"], 1)),
    "race_middle": (RACE, ("Text.", [f"Is {letter} ?" for letter in "wxyz"], 3)),
    "race_high": (RACE, ("Text.", [f"Is {letter} ?" for letter in "wxyz"], 3)),
    "swag": (
        {"startphrase": "a. b", "sent1": "a.", "sent2": "b", **ENDINGS, "label": 2},
        ("a.", ["b w", "b x", "b y", "b z"], 2),
    ),
    "hellaswag": (
        {"ctx_a": "a", "ctx_b": "", "ctx": "a", "endings": ["w", "x", "y", "z"], "label": "3"},
        ("a", ["w", "x", "y", "z"], 3),
    ),
}
HUB = {
    **{"commonsense_qa": "tau/commonsense_qa/default", "winogrande": "allenai/winogrande/winogrande_xl"},
    **{"winogrande_span": "allenai/winogrande/winogrande_xl", "race_middle": "ehovy/race/middle"},
    **{"race_high": "ehovy/race/high", "swag": "allenai/swag/regular", "hellaswag": "Rowan/hellaswag/default"},
}


@pytest.mark.parametrize("name", CHOICES)
def test_choices_as_the_hub_has_them(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each dataset of conf/ with its hub name, from a prepared cache: nobody here can reach the hub itself."""
    import datasets
    from datasets import ClassLabel, Features, Sequence, Value

    from prunebench.compose import load_config
    from prunebench.tasks.base import load_task

    (row, expected), (owner, hub, config_name) = CHOICES[name], HUB[name].split("/")
    features: dict[str, Any] = {key: Value("string") for key in row}
    if "choices" in row:
        features["choices"] = Sequence({"label": Value("string"), "text": Value("string")})
    features |= {key: Sequence(Value("string")) for key, value in row.items() if isinstance(value, list)}
    if name == "swag":
        features["label"] = ClassLabel(names=["0", "1", "2", "3"])
    folder = tmp_path / f"{owner}___{hub}" / config_name
    _cache(
        folder, Features(features), {key: [value, value] for key, value in row.items()}, {"train": 2, "validation": 1}
    )
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    task = load_task(load_config(["recipe=bert_smc_90", f"dataset={name}"]).dataset)
    question = task.examples("validation").questions[0]
    assert (question.context, question.choices, question.answer) == expected
    assert len(task.examples("train").questions) == 2


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache `datasets` leaves behind after loading two datasets from the hub; and no network."""
    import datasets
    from datasets import ClassLabel, Features, Sequence, Value

    label = ClassLabel(names=["negative", "positive"])
    features = Features({"sentence": Value("string"), "label": label, "idx": Value("int32")})
    _cache(tmp_path / "nyu-mll___glue" / "sst2", features, ROWS, {"train": 2, "validation": 1, "test": 3})
    answers = Sequence({"text": Value("string"), "answer_start": Value("int32")})
    text = Value("string")
    features = Features({"id": text, "title": text, "context": text, "question": text, "answers": answers})
    _cache(tmp_path / "rajpurkar___squad" / "plain_text", features, QUESTIONS, {"train": 2, "validation": 1})
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    return tmp_path


def _cache(folder: Path, features: Any, rows: dict[str, list[Any]], sizes: dict[str, int]) -> None:
    from datasets import DatasetInfo, SplitDict, SplitInfo
    from datasets.arrow_writer import ArrowWriter

    name, place = folder.parent.name.split("___")[1], folder / "0.0.0" / COMMIT
    place.mkdir(parents=True)
    for split, size in sizes.items():
        with ArrowWriter(path=str(place / f"{name}-{split}.arrow"), features=features) as writer:
            writer.write_batch({column: values[:size] for column, values in rows.items()})
            writer.finalize()
    splits = SplitDict({split: SplitInfo(split, num_examples=size, dataset_name=name) for split, size in sizes.items()})
    info = DatasetInfo(features=features, splits=splits, dataset_name=name, config_name=folder.name, version="0.0.0")
    info.write_to_directory(str(place))


SST2 = {"hub": "nyu-mll/glue", "hub_config": "sst2"}


def test_the_hubs_cache_is_used_without_a_network(hub_cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = source_of(config(**SST2, revision=COMMIT))
    table = source.read("train")
    assert isinstance(source, Hub)
    assert table.columns == {name: column[:2] for name, column in ROWS.items()}
    assert table.class_names == {"label": ["negative", "positive"]}
    assert table.where(1) == "nyu-mll/glue/sst2, split train, row 2"
    assert source.identity(["validation"]) == {
        "validation": {
            **{"hub": "nyu-mll/glue", "config": "sst2", "split": "validation"},
            "revision": COMMIT,
            "rows": 1,
        }
    }
    assert capfd.readouterr() == ("", "")


def test_what_the_cache_does_not_hold(hub_cache: Path) -> None:
    for settings, split, says in [
        (
            {"hub": "rajpurkar/squad_v2"},
            "train",
            "dataset rajpurkar/squad_v2 is not in the local cache and the hub cannot be reached",
        ),
        (
            {**SST2, "hub_config": "cola"},
            "train",
            "cannot be loaded: Couldn't find cache for nyu-mll/glue for config 'cola'",
        ),
        (
            {**SST2, "train_split": "trian"},
            "train",
            r"has no split 'trian' \(did you mean 'train'\?\): it has train, val",
        ),
        ({**SST2, "revision": "0" * 40}, "train", f"holds revision {COMMIT}, not dataset.revision=0000"),
    ]:
        with pytest.raises(UsageError, match=says) as caught:
            source_of(config(**settings)).read(split)
        assert "\n" not in str(caught.value)


def test_squad_as_the_hub_has_it(hub_cache: Path) -> None:
    from prunebench.tasks.base import load_task

    task = load_task(DatasetConfig(name="squad", task="question_answering", hub="rajpurkar/squad", max_length=384))
    examples = task.examples("train")
    assert examples.answers == [["mat", "a mat"], ["Paris"]] and examples.starts == [[5, 3], [3]]
    assert examples.ids == ["q0", "q1"]


def test_hidden_labels_are_refused(hub_cache: Path) -> None:
    from prunebench.tasks.base import load_task

    task = load_task(config(**SST2, validation_splits=["test"]))
    with pytest.raises(UsageError, match="split test, row 3: label -1: -1 marks hidden labels"):
        task.examples("test")
    assert load_task(config(**SST2)).labels == ["negative", "positive"]


@pytest.mark.real
@pytest.mark.parametrize(("folder", "train", "dev"), [("SST-2", 67349, 872), ("RTE", 2490, 277), ("CoLA", 8551, 1043)])
def test_glues_own_files(folder: str, train: int, dev: int, shared: Path) -> None:
    glue = shared / "glue" / folder
    settings = {"train_file": str(glue / "train.tsv.gz"), "validation_file": str(glue / "dev.tsv")}
    source = source_of(config(**settings, header=folder != "CoLA"))
    assert (len(source.read("train")), len(source.read("validation"))) == (train, dev)


@pytest.mark.real
def test_squads_own_files(shared: Path) -> None:
    settings = {
        f"{split}_file": str(shared / "squad_v1.1" / f"{name}-v1.1.json.gz")
        for split, name in (("train", "train"), ("validation", "dev"))
    }
    table = source_of(config(**settings)).read("validation")
    with gzip.open(settings["validation_file"]) as file:
        first = json.load(file)["data"][0]["paragraphs"][0]
    assert len(table) == 10570
    assert table.columns["context"][0] == first["context"]
    assert table.columns["answers"][0]["text"] == [answer["text"] for answer in first["qas"][0]["answers"]]
