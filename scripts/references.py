"""Loading other people's code from their checkouts, and layers with inputs to run it on. Nothing of theirs is copied.

What is missing here, or wants a GPU, is replaced while their modules are imported or run:

- `torch.cuda.synchronize`, called at the end of SparseGPT's `fasterprune`, does nothing;
- `transformers.AdamW`, imported but not called by GBLM-Pruner, is torch's: transformers 5 has none;
- `matplotlib.pyplot`, imported but not called by GBLM-Pruner, is an empty module where it is not installed.
"""

from __future__ import annotations

import contextlib
import gzip
import importlib
import importlib.util
import io
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn

MINILM = Path.home() / ".cache/prunebench-models/minilm-l6"
SST2 = Path(__file__).resolve().parents[2] / "shared/data/glue/SST-2/train.tsv.gz"


@contextlib.contextmanager
def stubs() -> Iterator[None]:
    """Without the printing of others, and with what they miss."""
    library: Any = sys.modules["transformers"]  # which replaces itself when a model is loaded
    synchronize, missing = torch.cuda.synchronize, not hasattr(library, "AdamW")
    torch.cuda.synchronize = lambda *_: None
    if missing:
        library.AdamW = torch.optim.AdamW
    if importlib.util.find_spec("matplotlib") is None:
        sys.modules.setdefault("matplotlib", types.ModuleType("matplotlib"))
        sys.modules.setdefault("matplotlib.pyplot", types.ModuleType("matplotlib.pyplot"))
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        torch.cuda.synchronize = synchronize
        if missing:
            del library.AdamW


def load(folder: Path, name: str) -> Any:
    """The module `name` of a checkout's `folder`, whether it imports its neighbours by `from .x` or by `import x`."""
    if not (folder / f"{name}.py").is_file():
        raise SystemExit(f"{folder / name}.py is missing: give the folder that holds the references' checkouts")
    package = "reference_" + "_".join(part for part in folder.parts if part.isidentifier())
    if package not in sys.modules:
        module = types.ModuleType(package)
        module.__path__ = [str(folder)]
        sys.modules[package] = module
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        with stubs():
            return importlib.import_module(f"{package}.{name}")
    finally:
        sys.path.remove(str(folder))
        for plain in {path.stem for path in folder.glob("*.py")} & (set(sys.modules) - before):
            del sys.modules[plain]  # another checkout may have a module of the same name


@dataclass(frozen=True)
class Layer:
    """A weight (out, in), and inputs (sequences, length, in)."""

    name: str
    weight: Tensor
    inputs: Tensor

    @property
    def tokens(self) -> Tensor:
        return self.inputs.reshape(-1, self.inputs.shape[-1])

    def error(self, weight: Tensor) -> float:
        """|(W - W') X|^2 over |W X|^2."""
        dense, x = self.weight.double(), self.tokens.double()
        return float((x @ (weight.double() - dense).T).square().sum() / (x @ dense.T).square().sum())


def random_layer(out: int, inputs: int, *, sequences: int = 128, length: int = 64, seed: int = 0) -> Layer:
    """Correlated inputs of different sizes and means."""
    generator = torch.Generator().manual_seed(seed)
    mixing = 0.3 * torch.eye(inputs) + torch.randn(inputs, inputs, generator=generator) / inputs**0.5
    mean = torch.randn(inputs, generator=generator) / 4
    x = torch.randn(sequences * length, inputs, generator=generator) @ mixing + mean
    weight = torch.randn(out, inputs, generator=generator) / inputs**0.5
    return Layer(f"random {out} x {inputs}", weight, x.view(sequences, length, inputs))


def real_layers(*, sequences: int = 128, length: int = 64, layer: int = 2) -> list[Layer]:
    """Of MiniLM on SST-2's training sentences, whose tokens are strung together; empty where either is missing."""
    if not ((MINILM / "model.safetensors").is_file() and SST2.is_file()):
        return []
    with stubs():
        model = transformers.AutoModel.from_pretrained(MINILM).eval()
        tokenizer = transformers.AutoTokenizer.from_pretrained(MINILM)
    modules = {
        name: model.encoder.layer[layer].get_submodule(name)
        for name in ("attention.self.query", "intermediate.dense", "output.dense")
    }
    seen = _inputs(model, tokenizer, modules, sequences * length)
    return [
        Layer(
            f"MiniLM layer {layer} {name}",
            module.weight.detach().clone(),
            seen[name][: sequences * length].reshape(sequences, length, -1),
        )
        for name, module in modules.items()
    ]


@torch.no_grad()
def _inputs(model: nn.Module, tokenizer: Any, modules: dict[str, nn.Module], wanted: int) -> dict[str, Tensor]:
    """(tokens, in) of every module, without padding, at least as many as `wanted`."""
    with gzip.open(SST2, "rt", encoding="utf-8") as file:
        sentences = [line.split("\t")[0] for line in file][1:]
    seen: dict[str, list[Tensor]] = {name: [] for name in modules}
    mask, found = torch.empty(0), 0
    for name, module in modules.items():
        module.register_forward_pre_hook(lambda _, args, name=name: seen[name].append(args[0][mask.bool()]))
    for start in range(0, len(sentences), 64):
        batch = tokenizer(sentences[start : start + 64], padding=True, return_tensors="pt")
        mask = batch["attention_mask"]
        model(**batch)
        found += int(mask.sum())
        if found >= wanted:
            break
    return {name: torch.cat(inputs) for name, inputs in seen.items()}
