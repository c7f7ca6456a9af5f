"""Which files a model name means, and the identity of their contents (no torch, no transformers).

A folder stands for itself. A hub name is resolved to the snapshot folder of one commit in the local hub cache, so what
follows reads files only: nothing is fetched behind its back, and a run that worked online works offline.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from prunebench.errors import UsageError

CONFIG = "config.json"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "model-*.safetensors")
TOKENIZER = (  # tokenizer_config.json and the like alone hold no vocabulary
    "tokenizer.json", "vocab.txt", "vocab.json", "merges.txt", "*.model", "bpe.codes",
)  # fmt: skip
TOKENIZER_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
FILES = (CONFIG, "generation_config.json", *WEIGHTS, *TOKENIZER, *TOKENIZER_SETTINGS)


def model_folder(name: str, revision: str | None = None, patterns: Sequence[str] = FILES) -> Path:
    """The folder that holds the files of the model `name`: itself, or the snapshot of a hub model.

    A hub model's files that match `patterns` are downloaded where the cache lacks them; without network the cache's
    own notion of `revision` (default: main) counts. Raises UsageError when there is no such model or no way to it.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / CONFIG).is_file():
            raise UsageError(f"model folder '{name}' has no {CONFIG}: give a folder written by save_pretrained")
        return folder
    if folder.exists() or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise UsageError(f"model '{name}': there is no such folder")
    return _snapshot(name, revision, patterns)


def has_any(folder: str | Path, patterns: Sequence[str]) -> bool:
    """Whether one of the files that `patterns` describe is in `folder`."""
    return any(path for pattern in patterns for path in Path(folder).glob(pattern))


def model_identity(name: str, revision: str | None = None) -> str:
    """What the model's contents are known by: "sha256:..." of a folder, the commit hash of a hub model.

    The digest of a folder covers config.json, the safetensors and the tokenizer's files: names and bytes.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir():
        return model_folder(name, revision, [CONFIG]).name  # a snapshot folder is named by its commit
    digest = hashlib.sha256()
    for path in sorted(model_folder(name).iterdir()):
        if path.is_file() and any(fnmatch(path.name, pattern) for pattern in (*FILES, "*.safetensors")):
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            digest.update(f"{path.name}\0{content}\n".encode())
    return f"sha256:{digest.hexdigest()}"


def _snapshot(name: str, revision: str | None, patterns: Sequence[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(patterns)))
    except GatedRepoError as error:
        raise UsageError(f"model '{name}' is gated: accept its terms on the hub and run `hf auth login`") from error
    except RepositoryNotFoundError as error:
        raise UsageError(
            f"model '{name}' is neither a folder nor on the hub: check the name (a private one: `hf auth login`)"
        ) from error
    except RevisionNotFoundError as error:
        raise UsageError(f"model '{name}' has no revision '{revision}' on the hub: check model.revision") from error
    except HFValidationError as error:
        raise UsageError(f"model '{name}' is neither a folder nor a possible hub name") from error
    except Exception as error:  # each version of the hub client has its own network errors
        at = f" at revision '{revision}'" if revision else ""
        raise UsageError(
            f"model '{name}' is neither a folder nor{at} in the local hub cache, and the hub cannot be reached: "
            f"{_reason(error)}; check the name, the network, or give a folder"
        ) from error


def _reason(error: BaseException) -> str:
    """One line on why, from the deepest known cause."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    cause = error.__cause__ or error
    return next(iter(str(cause).splitlines()), "").strip() or type(cause).__name__
