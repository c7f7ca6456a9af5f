from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("patient", deadline=None)  # a loaded machine is no defect
settings.load_profile("patient")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.pop("WANDB_API_KEY", None)
os.environ["WANDB_MODE"] = "offline"

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real data beside the checkout; tests marked `real` skip without them, but not in CI."""
    if not SHARED.is_dir():
        if os.environ.get("CI"):
            pytest.fail(f"{SHARED} is missing: CI must run the tests marked real")
        pytest.skip(f"no real data: {SHARED} is missing")
    return SHARED


@pytest.fixture(scope="session")
def minilm(shared: Path) -> Path:
    """all-MiniLM-L6-v2: a real pretrained BERT of 6 layers, distilled and then tuned for sentence embeddings."""
    folder = Path.home() / ".cache" / "prunebench-models" / "minilm-l6"
    if not (folder / "model.safetensors").is_file():
        if os.environ.get("CI"):
            pytest.fail("run ../shared/models/get_minilm first: CI must run the tests marked real")
        pytest.skip("run ../shared/models/get_minilm first")
    return folder
