"""Print the README's table of results from finished runs, and draw its figure.

    make results RUNS_DIR=runs

Runs that differ in nothing but their seed make one row: mean, and in brackets the lowest and the
highest. Runs on drawn cells are left out.
"""

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import pandas as pd

from wbc_helpers import figures
from wbc_helpers.runs import folders

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


def spread(values: pd.Series) -> str:
    """Mean, and the range over the seeds, in per cent."""
    mean, low, high = (
        f"{100 * value:.1f}" for value in (values.mean(), values.min(), values.max())
    )
    return mean if len(values) == 1 else f"{mean} ({low}–{high})"


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs-dir", type=Path, default=ROOT / "runs")
    parser.add_argument("--figure", type=Path, default=ROOT / ".github" / "results.svg")
    options = parser.parse_args()
    results = collect(options.runs_dir)
    if results.empty:
        sys.exit(f"{options.runs_dir} holds no finished run on real images; `make run` makes one.")
    print(table(results))
    figure = figures.validation_beside_test(results, PAPERS_CLAIM)
    figure.savefig(options.figure, metadata={"Date": None})
    first = results.iloc[0]
    print(f"\nn = {first['n']:,} TEST images of {first['n_photographs']} photographs.")
    print(f"Figure: {options.figure}")


if __name__ == "__main__":
    main()
