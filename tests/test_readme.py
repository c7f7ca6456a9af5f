"""What the README tells a user to type is understood."""

from __future__ import annotations

import gzip
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from prunebench.compose import load_config
from prunebench.validate import problems

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = "\n".join(re.findall(r"```bash\n(.*?)```", README, re.S)).replace("\\\n", " ")
COMMANDS = sorted(set(re.findall(r"prunebench (?:run|plan) [^\n#&`]+", BLOCKS)))


def test_the_readme_shows_the_verbs_and_no_other() -> None:
    from prunebench.cli import VERBS

    section = README[README.index("## Verbs") :]
    table = set(re.findall(r"^\| `(\w+)` \|", section, re.M))
    assert table == set(VERBS)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_compose(command: str, tmp_path: Path) -> None:
    model = tmp_path / "my-bert"
    model.mkdir()
    (model / "config.json").write_text('{"model_type": "bert", "architectures": ["BertForSequenceClassification"]}')
    for name in ("model.safetensors", "tokenizer.json"):  # only their presence is looked at
        (model / name).touch()
    for name in ("train.csv", "validation.csv", "train.tsv.gz", "dev.tsv"):
        between = "," if "csv" in name else "\t"
        rows = [["sentence", "label"], *[["good", "positive"], ["bad", "negative"]] * 2000]
        text = "".join(between.join(row) + "\n" for row in rows).encode()
        (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    for place in ("<hub name or folder>", "/path/to/my-bert", "$HOME/.cache/prunebench-models/minilm-l6"):
        command = command.replace(place, str(model))
    words = shlex.split(command)
    overrides = [re.sub(r"(_file)=", rf"\1={tmp_path}/", word) for word in words[2:] if word != "-m"]
    sweep = [override for override in overrides if re.search(r"=[^\[]*,", override)]
    config = load_config([override for override in overrides if override not in sweep])
    assert problems(config) == []


def test_nothing_was_left_to_be_filled_in() -> None:
    assert not re.search(r"^@[A-Z]+@$", README, re.M)


def test_there_are_enough_commands_to_check() -> None:
    assert len(COMMANDS) >= 9


def test_ci_runs_the_readmes_test_command() -> None:
    command = re.search(r"<!-- tests -->\s*```bash\n(.+?)\n```", README, re.S)
    assert command is not None and command.group(1).endswith("pytest -n 2")
    assert "<!-- tests -->" in (ROOT / ".ci" / "run").read_text()


def test_both_set_up_commands_install_from_the_constraints() -> None:
    installs = re.findall(r"pip install [^&\n]+", README)
    assert len(installs) == 2 and all("-c constraints.txt" in command for command in installs)
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    assert all("==" in line for line in pins if line and not line.startswith("#"))
    assert "torch==2.13.0" in pins


def test_the_table_is_that_of_the_data() -> None:
    """Nobody writes numbers by hand: README.md has what scripts/sst2_table.py makes of docs/sst2_table.json."""
    script = [sys.executable, str(ROOT / "scripts" / "sst2_table.py"), "-", "--markdown"]
    made = subprocess.run(script, capture_output=True, text=True, check=True).stdout
    found = re.search(r"<!-- scripts/sst2_table.py -->\n(.*?)\n\n", README, re.S)
    assert found is not None and found.group(1).strip() == made.strip()
