"""Train `broad` without each laboratory in turn, and judge it on the one left out.

    python benchmarks/laboratories.py BCCD=data/blood-cells Barcelona=PBC-subset.tar Chula=…

A source is what `sources.fetch` takes: a name, an archive or a folder. Trained runs are kept below
`--runs-dir`, and gone on with; `--workers` or `--scheduler` share them, see docs/scale.md.
What is answered there, benchmarks/teaching.py prints.
"""

import argparse
import functools
import sys
from pathlib import Path

import pandas as pd

from wbc_helpers.__main__ import add_workers, workers_of
from wbc_helpers.cells import LEUKOCYTES
from wbc_helpers.classify import laboratories
from wbc_helpers.errors import WbcError
from wbc_helpers.runs.recipes import TrainingSettings


def judged(answers: pd.DataFrame) -> dict[str, object]:
    """Score a table of answers, see `laboratories.answers_of`, as a row of the printed table."""
    score, low, high, recalls = laboratories.balanced_accuracy(answers)
    return {
        "n": int(answers["cell_type"].isin(LEUKOCYTES).sum()),
        "balanced": f"{score:.3f} ({low:.3f}–{high:.3f})",
        **{name[:5]: f"{recalls[name]:.2f}" if name in recalls else "–" for name in LEUKOCYTES},
    }


def train_without(
    piece: tuple[int, str | None], table: pd.DataFrame, data_dir: Path, runs_dir: Path,
    epochs: int | None,
) -> tuple[tuple[int, str | None], pd.DataFrame]:  # fmt: skip
    """Train with a seed and without a laboratory: both, and the answers to all patches."""
    seed, name = piece
    patches = laboratories.cut_patches(table, data_dir / "cache", progress=False)
    settings = TrainingSettings("broad", seed=seed, epochs=epochs)
    title = laboratories.title_of(seed, name)
    run = laboratories.train(patches, title, runs_dir, settings, name)
    return piece, laboratories.answers_of(run, patches)


def main() -> int:
    """Print the table; one row a laboratory and seed, left out and held out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("laboratories", nargs="+", metavar="NAME=SOURCE")
    parser.add_argument("--seeds", default=1, type=int)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--ship", action="store_true", help="train on all of them, too")
    parser.add_argument("--data-dir", default="data", type=Path)
    parser.add_argument("--runs-dir", default="runs", type=Path)
    add_workers(parser)
    options = parser.parse_args()
    try:
        workers = workers_of(options)
        folders = laboratories.fetch_all(options.laboratories, options.data_dir)
        table = laboratories.find_all(folders)
        data_dir, runs_dir = options.data_dir.absolute(), options.runs_dir.absolute()
        # Before it is shared: what is cut here, workers find cut.
        laboratories.cut_patches(table, data_dir / "cache")
        work = functools.partial(
            train_without, table=table, data_dir=data_dir, runs_dir=runs_dir, epochs=options.epochs
        )
        left_out = [*folders, *([None] if options.ship else [])]
        pieces = [(seed, name) for seed in range(options.seeds) for name in left_out]
        answers = dict(workers.share(work, pieces))
        rows = []
        for seed, name in pieces:
            for judge in folders:
                of_judge = answers[seed, name]
                of_judge = of_judge[of_judge["laboratory"].eq(judge)]
                of_judge = of_judge if judge == name else of_judge[of_judge["held_out"]]
                facts = {"seed": seed, "trained without": name or "none", "judged on": judge}
                rows.append({**facts, **judged(of_judge)})
    except WbcError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    print(pd.DataFrame(rows).to_string(index=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
