"""How well cells are found and counted: `make count SOURCE=...` with boxed photographs.

Judges the detector that ships, and beside it the counter that learns nothing, on the photographs
that the data set's own list sets aside for the test. With RUN=..., a run of `06_count` instead, on
the test part of its own split. Prints scores with intervals over photographs, counts, and speed.
"""

import argparse
import time
from pathlib import Path

import laboratories
import pandas as pd

from wbc_helpers.audit import overlaps
from wbc_helpers.cells import BOX
from wbc_helpers.count import classical
from wbc_helpers.data import annotations, sources, splits
from wbc_helpers.data.identity import identify
from wbc_helpers.evaluate import detection
from wbc_helpers.pixels.images import read_image
from wbc_helpers.runs import folders

ROOT = Path(__file__).resolve().parents[1]

AGREEMENT = ["true", "counted", "mae", "bias", "bias_low", "bias_high", "lower", "upper"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", default="auto")
    parser.add_argument("--run", help="name of a run of 06_count, instead of what ships")
    parser.add_argument("--data-dir", default=ROOT / "data", type=Path)
    parser.add_argument("--runs-dir", default=ROOT / "runs", type=Path)
    options = parser.parse_args()
    folder = sources.fetch(options.source, options.data_dir, holds="photographs")
    print(sources.banner(identify(folder, holds="photographs").source))
    boxed = annotations.read_annotations(folder)
    print(boxed)

    from wbc_helpers.count import detector, training

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


def judge_elsewhere(found, boxed, photographs: pd.DataFrame) -> None:
    """Judge the detector on the same photographs as other laboratories might have taken them."""
    from wbc_helpers.count import training

    print("\nThe detector on simulated laboratories: mAP@0.5, and AP of each kind")
    for laboratory in laboratories.LABORATORIES:
        taken = [
            laboratories.simulate(read_image(path), laboratory) for path in photographs["path"]
        ]
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
