"""What a laboratory left out of training is answered for, and what labels of its own bring there.

    python benchmarks/teaching.py BCCD=data/blood-cells Barcelona=PBC-subset.tar Chula=…

It takes the runs that `benchmarks/laboratories.py` left below `--runs-dir`. Labels are drawn
`spread` over some slides (Chulalongkorn), runs of file numbers (Barcelona) or photographs (BCCD),
or as `neighbours` in the order of files, as somebody labels who begins at some slide and goes on;
judged is on the other ones. `--ship` writes what `broad`, trained on all of them, learned from.
"""

import argparse
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from wbc_helpers.cells import LEUKOCYTES
from wbc_helpers.classify import classifier, laboratories, teaching
from wbc_helpers.classify.inputs import Patches
from wbc_helpers.errors import WbcError
from wbc_helpers.evaluate import confidence
from wbc_helpers.runs import folders

LABELS = (5, 10, 20)
"""Labels of each type."""


def balanced(answers: np.ndarray, codes: np.ndarray) -> float:
    """Mean recall of the types that there are, the most probable of the five counting."""
    named = answers[:, : len(LEUKOCYTES)].argmax(axis=1)
    return float(np.mean([(named[codes == code] == code).mean() for code in np.unique(codes)]))


def answered(
    network: classifier.Classifier, features: np.ndarray, types: pd.Series
) -> tuple[np.ndarray, np.ndarray]:
    """Which cells are answered for, and which answers are not what the cells are."""
    named = network.name_by(features[np.newaxis])
    wrong = named["cell_type"].to_numpy() != types.to_numpy()
    return named["answered"].to_numpy(bool), wrong


def knows_when(
    network: classifier.Classifier, features: np.ndarray, table: pd.DataFrame
) -> dict[str, object]:
    """Judge on cells of one laboratory what is answered, in a folder that holds all of them."""
    assert network.learned is not None
    codes = np.array([teaching.ANSWERS.index(name) for name in table["cell_type"]])
    typed, nothing = codes < len(LEUKOCYTES), table["label"].eq(laboratories.NO_CELL).to_numpy()
    foreign = ~typed & ~nothing
    by_itself = balanced(network.learned.probabilities(features)[typed], codes[typed])
    network = network.adapted(features[np.newaxis, ~nothing])
    sure, is_wrong = answered(network, features, table["cell_type"])
    probabilities = network.name_by(features[np.newaxis]).filter(like="p_")
    score, low, high, recalls = laboratories.balanced_accuracy(table.join(probabilities))
    wrong = is_wrong[typed & sure]
    is_foreign = confidence.looks_foreign(int(sure[typed].sum()), int(typed.sum()))
    return {
        "n": int(typed.sum()),
        "cell by cell": by_itself,
        "as a folder": score,
        "interval": f"{low:.3f}–{high:.3f}",
        "recalls": " ".join(f"{name[0]} {recall:.2f}" for name, recall in recalls.items()),
        "moved": "" if network.moved is None else "yes",
        "answered": sure[typed].mean(),
        "wrong": wrong.mean() if len(wrong) else np.nan,
        "foreign answered": sure[foreign].mean() if foreign.any() else np.nan,
        "no cell answered": sure[nothing].mean() if nothing.any() else np.nan,
        "folder": "foreign" if is_foreign else "",
    }


def drawn(
    table: pd.DataFrame, n: int, how: str, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw `n` labels a type; and the places of the cells to judge, of groups without a label."""
    labelled: list[int] = []
    for _, rows in table.groupby("cell_type"):
        sizes = rows["source_id"].value_counts(sort=False).sort_index()
        if how == "spread":
            names = rng.permutation(sizes.index)
            n_enough = int((sizes[names].cumsum() < max(n, len(rows) / 3)).sum()) + 1
        else:
            names = np.roll(sizes.index.to_numpy(), -int(rng.integers(len(sizes))))
            n_enough = int((sizes[names].cumsum() < n).sum()) + 1
        pool = rows[rows["source_id"].isin(names[: min(n_enough, len(names) - 1)])]
        labelled += list(rng.permutation(pool.index)[:n])
    used = table.loc[labelled, "source_id"]
    return np.array(labelled), table.index[~table["source_id"].isin(used)].to_numpy()


def taught(
    network: classifier.Classifier, features: np.ndarray, table: pd.DataFrame, n_draws: int
) -> Iterator[dict[str, object]]:
    """Teach with labels of one laboratory, and judge on others of it; a row a number of labels."""
    learned = network.learned
    assert learned is not None
    typed = table["cell_type"].isin(LEUKOCYTES).to_numpy()
    features, table = features[typed], table[typed].reset_index(drop=True)
    codes = np.array([teaching.ANSWERS.index(name) for name in table["cell_type"]])
    by_default = learned.probabilities(learned.moved(features))
    for how in ("spread", "neighbours"):
        for n in LABELS:
            rows = []
            for seed in range(n_draws):
                labels, others = drawn(table, n, how, np.random.default_rng(seed))
                groups = list(table["file"][labels])
                own, judgement = teaching.learn_from(
                    network, features[labels], codes[labels], groups, "drawn"
                )
                sure, is_wrong = answered(
                    replace(network, laboratory=own), features[others], table["cell_type"][others]
                )
                wrong = is_wrong[sure].mean() if sure.any() else np.nan
                before = balanced(by_default[others], codes[others])
                after = balanced(own.probabilities(features[others]), codes[others])
                rows.append(
                    {
                        "before": before, "after": after, "spread": after,
                        "worse": after < before, "refused": judgement.after <= judgement.before,
                        "said": judgement.after, "answered": sure.mean(), "wrong": wrong,
                        "promised": judgement.promised is not None,
                    }
                )  # fmt: skip
            of_draws = pd.DataFrame(rows).astype(float)
            means = of_draws.mean().to_dict() | {"spread": of_draws["spread"].std()}
            yield {"labels": how, "a type": n, **means}


def main() -> int:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("laboratories", nargs="+", metavar="NAME=SOURCE")
    parser.add_argument("--seeds", default=1, type=int)
    parser.add_argument("--draws", default=20, type=int)
    parser.add_argument(
        "--ship",
        action="store_true",
        help="judge broad itself, too, and write what it learned from",
    )
    parser.add_argument("--data-dir", default="data", type=Path)
    parser.add_argument("--runs-dir", default="runs", type=Path)
    options = parser.parse_args()
    try:
        sets = laboratories.fetch_all(options.laboratories, options.data_dir)
        patches = laboratories.cut_patches(laboratories.find_all(sets), options.data_dir / "cache")
        report(patches, list(sets), options)
    except WbcError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    return 0


def report(patches: Patches, names: list[str], options: argparse.Namespace) -> None:
    """Ask the runs, and print."""
    warnings.simplefilter("ignore")
    shipped = classifier.load()
    when, brought, of_all = [], [], None
    for seed in range(options.seeds):
        for name in [*names, *([None] if options.ship else [])]:
            run = folders.open_run(laboratories.title_of(seed, name), options.runs_dir)
            features = laboratories.features_of(run, patches)
            learned = laboratories.learned_by(run, patches, features)
            if name is None and seed == 0:
                of_all = learned
            network = replace(shipped, learned=learned)
            for judge in names:
                rows = patches.table["laboratory"].eq(judge)
                rows &= patches.table["held_out"] | (judge == name)
                own, table = features[rows], patches.table[rows].reset_index(drop=True)
                facts = {"seed": seed, "without": name or "none", "judged on": judge}
                when.append({**facts, **knows_when(network, own, table)})
                if judge == name:
                    for row in taught(network, own, table, options.draws):
                        brought.append({"seed": seed, "laboratory": name, **row})
    for rows in (when, brought):
        print(pd.DataFrame(rows).to_string(index=False, float_format="%.3f", na_rep="–"))
        print()
    if of_all is not None:
        weights = Path(classifier.__file__).parents[1] / "weights"
        teaching.write_learned(of_all, weights / "broad.learned.json")


if __name__ == "__main__":
    sys.exit(main())
