"""What the guidelines are for, in some minutes: quickstart beside the Sparsity-May-Cry way, over three seeds.

    python scripts/quickstart_table.py

Both leave equally many weights. The bag of words (logistic regression on word counts) shows that the task is not
trivial. What is finished is skipped.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

from rich.console import Console
from rich.table import Table

from prunebench.compose import load_config
from prunebench.run import run
from prunebench.tasks.base import load_task


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--outputs", default="outputs")
    args = parser.parse_args()
    bag = bag_of_words()
    table = Table("seed", "bag of words", "dense", "guidelines", "recovery", "SMC-Bench's way", "non-zero weights")
    rows: list[list[float]] = []
    for seed in args.seeds:
        guided, bench = (result_of(recipe, seed, args.outputs) for recipe in ("quickstart", "quickstart_smc_bench"))
        accuracies = [result["metric"]["value"] for result in (guided, bench)]
        scores = [bag, guided["dense"]["value"], accuracies[0], guided["recovery"], accuracies[1]]
        rows.append(scores)
        left = [f"{result['weights']['model_nonzero']:,}" for result in (guided, bench)]
        table.add_row(str(seed), *[f"{100 * score:.1f}" for score in scores], " / ".join(left))
    table.add_row("mean", *[f"{100 * statistics.mean(column):.1f}" for column in zip(*rows, strict=True)], "")
    Console().print(table)


def result_of(recipe: str, seed: int, outputs: str) -> dict[str, Any]:
    return run(load_config([f"recipe={recipe}", f"seed={seed}", f"outputs={outputs}"]))


def bag_of_words() -> float:
    """Accuracy of logistic regression on word counts, with the best of three regularisations."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

    task: Any = load_task(load_config(["recipe=quickstart"]).dataset)
    (texts, labels), (others, answers) = (columns(task.raw(split)) for split in ("train", "validation"))
    counter = CountVectorizer(token_pattern=r"[a-z']+")
    counts, other_counts = counter.fit_transform(texts), counter.transform(others)
    models = (LogisticRegression(C=c, max_iter=2000).fit(counts, labels) for c in (0.1, 1.0, 10.0))
    return max(float(model.score(other_counts, answers)) for model in models)


def columns(table: Any) -> tuple[list[str], list[str]]:
    return table.column("sentence", "text"), table.column("label", "label")


if __name__ == "__main__":
    main()
