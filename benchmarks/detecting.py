"""How well cells are found and counted: `make count SOURCE=...` with boxed photographs.

Judges the detector that ships, and beside it the counter that learns nothing, on the photographs
that are set aside for the test. With RUN=..., a run of `06_count` instead, on the test part of its
own split. Prints scores with intervals over photographs, counts, and speed.

Of SOURCE=txl, whose boxes are complete, each laboratory is judged by itself, whole cells and those
that the frame cuts apart; and every finished run that left a laboratory out, on that laboratory:

    python benchmarks/detecting.py --source txl --train NAME [--without Raabin] [--epochs 80]
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import simulated

from wbc_helpers.audit import overlaps
from wbc_helpers.cells import BOX
from wbc_helpers.count import classical
from wbc_helpers.data import sources, splits
from wbc_helpers.data.identity import identify
from wbc_helpers.evaluate import detection
from wbc_helpers.pixels.images import read_image
from wbc_helpers.runs import folders

ROOT = Path(__file__).resolve().parents[1]

AGREEMENT = ["true", "counted", "mae", "bias", "bias_low", "bias_high", "lower", "upper"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", default="auto")
    parser.add_argument("--classes", nargs="*", help="names of YOLO's numbers, if no file has them")
    parser.add_argument("--run", help="name of a run of 06_count, instead of what ships")
    parser.add_argument("--data-dir", default=ROOT / "data", type=Path)
    parser.add_argument("--runs-dir", default=ROOT / "runs", type=Path)
    parser.add_argument("--train", metavar="NAME", help="train a run of this name, and end there")
    parser.add_argument("--most", type=int, default=100, help="photographs of one left out")
    parser.add_argument("--without", nargs="*", default=[], help="laboratories to leave out")
    parser.add_argument("--epochs", type=int, default=80)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=0.003)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    folder = sources.fetch(options.source, options.data_dir, holds="photographs")
    identity = identify(folder, holds="photographs")
    print(identity)
    boxed = splits.read_boxed(folder, options.classes)
    print(boxed)

    from wbc_helpers.count import detector, training

    if options.train:
        chosen = training.DetectorSettings(
            epochs=options.epochs, batch_size=options.batch_size, seed=options.seed,
            learning_rate=options.learning_rate, without=tuple(options.without),
        )  # fmt: skip
        training.train_new(chosen, identity, options.train, options.runs_dir)
        return
    if "laboratory" in boxed.photographs:
        judge_laboratories(boxed, training.deal(folder, boxed), options)
        return
    if options.run:
        run = folders.open_run(options.run, options.runs_dir / folders.DETECTORS)
        parts = run.split
        validation = parts.index[parts == "val"].tolist()
        found, _ = training.choose_reading(detector.of_run(run), boxed, validation)
    else:
        found, parts = detector.load(), training.deal(folder, boxed)
    test = parts.index[parts == "test"].tolist()
    pairs = overlaps.find_smear_pairs(folder, progress=False)
    parted = splits.parted_pairs(pairs, parts)
    in_test = (parted[["first_part", "second_part"]] == "test").any(axis=1).sum()
    print(
        f"\nTest: {len(test)} photographs; {len(parted)} pairs of overlapping photographs are "
        f"parted, {in_test} with one in the test"
    )
    groups = splits.group_sources(pairs, boxed.photographs["photograph"])

    thresholds = [f"{kind} {score:.2f}" for kind, score in found.about["thresholds"].items()]
    print(f"Ways of looking: {found.about['ways']}; counted from {', '.join(thresholds)} on")

    shown = boxed.photographs.set_index("photograph").loc[test].reset_index()
    found.detect(shown["path"].head(8))  # warm
    judge(
        "The detector", groups,
        lambda: training.judge(found, boxed, test), len(test),
    )  # fmt: skip
    judge(
        "Without learning: threshold, distance transform, colour", groups,
        lambda: training.judge_boxes(
            boxed, test, classical.find_cells_in(shown, progress=False)
        ),
        len(test),
    )  # fmt: skip
    judge_elsewhere(found, boxed, shown)


def judge_laboratories(boxed, parts: pd.Series, options) -> None:
    """Judge on complete boxes: the grouped test, TXL-PBC's own list, laboratories left out."""
    from wbc_helpers.count import detector, training

    of_run = {}
    for run in folders.list_runs(options.runs_dir / folders.DETECTORS):
        without = run.settings["training"].get("without") or []
        if run.is_complete and len(without) == 1:
            of_run[run.name] = (run, without[0])
    if options.run:
        run = folders.open_run(options.run, options.runs_dir / folders.DETECTORS)
        parts = run.split
        found, tried = training.choose_reading(detector.of_run(run), boxed, names_in(parts, "val"))
        print(tried.round(4).to_string(index=False))
    else:
        found = detector.load()
    print(f"\nWays of looking: {found.about['ways']}; counted from {found.about['thresholds']} on")
    table = boxed.photographs.set_index("photograph")
    test = table.loc[names_in(parts, "test")]
    copies = test["width"].eq(416)
    groups = {
        "test, BCCD": test[test["laboratory"].eq("BCCD") & ~copies],
        "of these in BCCD's own test list": test[splits.in_own_test(test) & ~copies],
        "test, Barcelona": test[test["laboratory"].eq("Barcelona")],
        "test, Raabin": test[test["laboratory"].eq("Raabin")],
        "test, BCCD and Barcelona": test[~test["laboratory"].eq("Raabin") & ~copies],
        "TXL-PBC's own test list": test[test["part"].eq("test")],
    }
    for title, rows in groups.items():
        as_published = title.startswith("TXL-PBC")
        truth = (
            boxed
            if not as_published
            else replace(boxed, photographs=boxed.photographs.drop(columns="incomplete"))
        )
        tell(title, truth, rows.index.tolist(), training, found)
        if title.startswith("test") and "and" not in title:
            apart = [each.reset_index() for _, each in rows.groupby(["width", "height"])]
            cells_of = [classical.find_cells_in(each, progress=False) for each in apart]
            tell(f"{title}, without learning", boxed, rows.index.tolist(), training,
                 boxes=pd.concat(cells_of, ignore_index=True))  # fmt: skip
    for name, (run, laboratory) in of_run.items():
        others = run.split[run.split.index.map(table["laboratory"]) != laboratory]
        reading, _ = training.choose_reading(
            detector.of_run(run), boxed, names_in(others, "val"),
            ious=(found.about["iou"],), ways=(1,),
        )  # fmt: skip
        elsewhere = table.index[table["laboratory"].eq(laboratory) & table["width"].ne(416)]
        drawn = np.random.default_rng(0).permutation(elsewhere.tolist())[: options.most]
        print(f"\nCounted from {reading.about['thresholds']} on")
        tell(f"{laboratory}, left out of {name}", boxed, drawn.tolist(), training, reading)


def names_in(parts: pd.Series, part: str) -> list[str]:
    return parts.index[parts == part].tolist()


def tell(title, boxed, names: list[str], training, found=None, boxes=None) -> None:
    """Print how cells are found and counted, by kind, and whole and cut red cells apart."""
    if found is not None:
        judged = training.judge(found, boxed, names)
    else:
        judged = training.judge_boxes(boxed, names, boxes)
    scores = detection.intervals(judged.scores, boxed.photographs.set_index("photograph")["group"])
    print(f"\n{title} (n = {len(names)} photographs)")
    for score in ("mAP@0.5", "mAP@0.5:0.95"):
        row = scores.loc[score]
        print(f"  {score:14} {row['value']:.3f} ({row['low']:.3f}–{row['high']:.3f})")
    table = judged.scores.per_kind[["ap_50", "ap_50_95"]].join(judged.table)
    table["of_boxed"] = table["counted"] / table["true"]
    print(table[["ap_50", "ap_50_95", "recall", "precision", *AGREEMENT[:4], "of_boxed"]]
          .round(3).to_string())  # fmt: skip
    print(judged.by_cut.loc[["RBC"]].round(3).to_string())


def judge_elsewhere(found, boxed, photographs: pd.DataFrame) -> None:
    """Judge the detector on the same photographs as other laboratories might have taken them."""
    from wbc_helpers.count import training

    print("\nThe detector on simulated laboratories: mAP@0.5, and AP of each kind")
    for laboratory in simulated.LABORATORIES:
        taken = [simulated.simulate(read_image(path), laboratory) for path in photographs["path"]]
        boxes = found.detect(taken)
        scale = taken[0].shape[1] / photographs["width"].iloc[0]
        boxes[BOX] /= scale
        names = dict(enumerate(photographs["photograph"]))
        boxes["photograph"] = boxes["photograph"].astype(int).map(names)
        scores = training.judge_boxes(boxed, list(names.values()), boxes).scores
        each = ", ".join(f"{kind} {row['ap_50']:.3f}" for kind, row in scores.per_kind.iterrows())
        print(f"  {laboratory.name:20} {scores.map_50:.3f}   {each}", flush=True)


def judge(title: str, groups: pd.Series, judged, n_photographs: int) -> None:
    started = time.perf_counter()
    judged = judged()
    seconds = time.perf_counter() - started
    print(f"\n{title} (n = {n_photographs} photographs, {n_photographs / seconds:.1f} of them a "
          "second, reading and scoring included)")  # fmt: skip
    scored = detection.intervals(judged.scores, groups)
    for name, row in scored.iterrows():
        print(f"  {name:26} {row['value']:.3f} ({row['low']:.3f}–{row['high']:.3f})")
    table = judged.table
    print(table[["found", "false", "missed", "precision", "recall", "f1"]].round(3).to_string())
    print(table[AGREEMENT].round(2).to_string())


if __name__ == "__main__":
    main()
