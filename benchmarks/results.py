"""Print the table of docs/results.md from finished runs, and draw its figure.

    python benchmarks/results.py --runs-dir runs

Runs that differ in nothing but their seed make one row: mean, and in brackets the lowest and the
highest. Runs on drawn cells are left out. The figure
goes below the runs' folder; `--replace` replaces that of docs/ instead.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from wbc_helpers import figures
from wbc_helpers.runs import folders

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs" / "images"

PAPERS_CLAIM = 0.90
ALIKE = ("validation_fraction", "batch_size", "learning_rate")
"""Settings that runs of one row share, beside those that the table shows."""


def collect(runs_dir: Path) -> pd.DataFrame:
    """One row a finished and evaluated run on real images."""
    rows = []
    for run in folders.list_runs(runs_dir):
        path = run.folder / "evaluation.json"
        if not run.is_complete or not path.is_file() or run.settings["data"]["drawn"]:
            continue
        if "photographs" not in json.loads(path.read_text(encoding="utf-8"))["test"]:
            print(f"{run.name} was evaluated by an older version; left out.", file=sys.stderr)
            continue
        scores, training = json.loads(path.read_text(encoding="utf-8")), run.settings["training"]
        rows.append(
            {
                "recipe": training["recipe"],
                "epochs": training["epochs"],
                "split": scores["validation"]["split"],
                "size": "×".join(map(str, training["image_size"])),
                "seed": training["seed"],
                **{setting: training[setting] for setting in ALIKE},
                "n": scores["test"]["n_images"],
                "parameters": scores["parameters"],
                "validation": scores["validation"]["accuracy"],
                "accuracy": scores["test"]["accuracy"],
                "balanced": scores["test"]["balanced_accuracy"],
                "low": scores["test"]["interval_by_photograph"][0],
                "high": scores["test"]["interval_by_photograph"][1],
                "photographs": scores["test"]["photographs"]["accuracy"],
                "n_photographs": scores["test"]["photographs"]["n_images"],
                "minutes": scores["seconds"]["train"] / 60,
            }
        )
    return pd.DataFrame(rows)


def spread(values: Sequence[float], form: str = ".1f", to: str = "–") -> str:
    """Mean, and in brackets the lowest and the highest of several values, in per cent."""
    mean, low, high = (format(100 * of(values), form) for of in (np.mean, np.min, np.max))
    return mean if len(values) == 1 else f"{mean} ({low}{to}{high})"


def table(results: pd.DataFrame) -> str:
    """Markdown, one row a recipe, number of epochs and way of validating."""
    lines = [
        "| run | seeds | validation accuracy, % | TEST accuracy, % | its interval by photograph "
        "| TEST balanced accuracy, % | TEST photographs right, % | training, min | parameters |",
        "|---|---|---|---|---|---|---|---|---|",
        f"| the paper's claim | 1 | | over {100 * PAPERS_CLAIM:.0f} | | | | | not stated |",
    ]
    for (recipe, epochs, split, size, *_), group in results.groupby(
        ["recipe", "epochs", "split", "size", *ALIKE]
    ):
        seeds = ", ".join(map(str, sorted(group["seed"])))
        lines.append(
            f"| `{recipe}`, {epochs} epochs at {size} | {seeds} "
            f"| {spread(group['validation'])}, {split} | {spread(group['accuracy'])} "
            f"| {100 * group['low'].mean():.1f}–{100 * group['high'].mean():.1f} "
            f"| {spread(group['balanced'])} | {spread(group['photographs'])} "
            f"| {group['minutes'].mean():.1f} | {group['parameters'].iloc[0]:,} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs-dir", type=Path, default=ROOT / "runs")
    parser.add_argument("--replace", action="store_true", help="replace the figure of docs/")
    options = parser.parse_args(arguments)
    results = collect(options.runs_dir)
    if results.empty:
        sys.exit(f"{options.runs_dir} holds no finished run on real images; `make run` makes one.")
    print(table(results))
    figure = figures.validation_beside_test(results, PAPERS_CLAIM)
    path = (DOCS if options.replace else options.runs_dir) / "results.svg"
    figure.savefig(path, metadata={"Date": None})
    first = results.iloc[0]
    print(f"\nn = {first['n']:,} TEST images of {first['n_photographs']} photographs.")
    print(f"Figure: {path}")


if __name__ == "__main__":
    main()
