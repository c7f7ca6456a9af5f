"""Names of models: folders, the hub's cache, and what is said when neither has the model."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import constants

from prunebench.errors import UsageError
from prunebench.identity import model_folder, model_identity

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    path.mkdir()
    for name, content in {"config.json": b"{}", "model.safetensors": b"weights", "vocab.txt": b"a\nb"}.items():
        (path / name).write_bytes(content)
    return path


def test_identity_is_the_digest_of_names_and_contents(folder: Path) -> None:
    lines = [f"{name}\0{hashlib.sha256((folder / name).read_bytes()).hexdigest()}\n"
             for name in ("config.json", "model.safetensors", "vocab.txt")]  # fmt: skip
    assert model_identity(str(folder)) == "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()


def test_identity_follows_contents_not_place_or_other_files(folder: Path, tmp_path: Path) -> None:
    before = model_identity(str(folder))
    (folder / "README.md").write_text("a card")
    (folder / "training_args.bin").write_bytes(b"x")
    os.utime(folder / "config.json", (1, 1))
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert model_identity(str(folder)) == model_identity(str(copy)) == before
    for name in ("config.json", "model.safetensors", "vocab.txt", "model-00001-of-00002.safetensors", "spm.model"):
        changed = Path(shutil.copytree(folder, tmp_path / f"changed-{name}"))
        with (changed / name).open("ab") as file:
            file.write(b"!")
        assert model_identity(str(changed)) != before, name


def test_folder_needs_a_config(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has no config\.json"):
        model_folder(str(tmp_path))


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "~/nowhere", "a/b/c"])
def test_missing_folder_is_not_sought_on_the_hub(name: str) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        model_folder(name)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An offline hub cache that holds one model at one commit, as the hub's client lays it out."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    repository = tmp_path / "hub" / "models--someone--model"
    (repository / "snapshots" / COMMIT).mkdir(parents=True)
    (repository / "snapshots" / COMMIT / "config.json").write_text("{}")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    return repository


def test_hub_name_offline_means_the_cached_commit(cache: Path) -> None:
    assert model_folder("someone/model") == cache / "snapshots" / COMMIT
    assert model_identity("someone/model") == model_identity("someone/model", "main") == COMMIT
    assert model_identity("someone/model", COMMIT) == COMMIT


@pytest.mark.parametrize(("name", "revision"), [("someone/other", None), ("other", None), ("someone/model", "v2")])
def test_hub_name_that_is_not_cached_offline(cache: Path, name: str, revision: str | None) -> None:
    with pytest.raises(UsageError, match=f"'{name}' is neither a folder nor .*HF_HUB_OFFLINE is set; check") as error:
        model_identity(name, revision)
    assert "\n" not in str(error.value)
    assert revision is None or f"revision '{revision}'" in str(error.value)


def test_impossible_hub_name(cache: Path) -> None:
    with pytest.raises(UsageError, match="nor a possible hub name"):
        model_folder("bert base!")


def test_network_errors_are_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def unreachable(*args: object, **kwargs: object) -> str:
        raise LocalEntryNotFoundError("long\ntext") from ConnectionError("Name or service not known")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(UsageError, match="cannot be reached: Name or service not known; check the name"):
        model_folder("someone/other")


def test_imports_no_torch() -> None:
    code = "import sys, prunebench.identity, prunebench.sizes; print({'torch', 'transformers'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
