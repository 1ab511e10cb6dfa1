"""Put the weights of a run where the package ships them, with what they score.

    .venv/bin/python .ci/ship.py classifier --run compact-0 --crossval crossval-train
    .venv/bin/python .ci/ship.py detector --run NAME --source BCCD_Dataset-master.tar.gz
    .venv/bin/python .ci/ship.py onnx                      # anew, of the weights that ship
    .venv/bin/python .ci/ship.py int8 --run NAME --source TXL-PBC_Dataset-main.tar

Of a classifier, the temperature and the threshold below which it leaves the answer to a
haematologist are fitted on the answers of a cross-validation over the photographs of TRAIN, not on
TEST. How the maps of a detector are read is chosen on the validation photographs, by a run that did
not learn from them: where what ships did, `--chosen-by` names another one, trained in the same way
without them. Its photographs of the test are looked at last, here, when nothing is left to choose.
The detector in whole numbers, which is what answers, is calibrated on photographs that its run
learned from, and compared with the exact one on those that it validated by; it scores last.
"""

import argparse
import json
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from wbc_helpers import storage
from wbc_helpers.audit import overlaps
from wbc_helpers.classify import classifier, training
from wbc_helpers.count import detector
from wbc_helpers.count import training as detector_training
from wbc_helpers.data import sources, splits
from wbc_helpers.data.annotations import Annotations
from wbc_helpers.data.identity import identify
from wbc_helpers.evaluate import classification, confidence, detection
from wbc_helpers.runs import answering, folders, recipes

WEIGHTS = ROOT / "wbc_helpers" / "weights"


def ship_classifier(options: argparse.Namespace) -> None:
    run = folders.open_run(options.run, options.runs_dir)
    data = run.settings["data"]
    answers = training.read(options.crossval, options.runs_dir, data)
    if set(answers["split"]) != {"TRAIN"}:
        sys.exit(f"{options.crossval} judged more than TRAIN. Expected `make crossval` as it is.")
    folder = folders.folder_of(options.crossval, options.runs_dir)
    judged_by = json.loads((folder / "crossval.json").read_text(encoding="utf-8"))["training"]
    trained = run.settings["training"]
    other = [key for key in ("recipe", "epochs", "image_size") if judged_by[key] != trained[key]]
    if other:
        sys.exit(f"{options.crossval} differs from {run.name} in {', '.join(other)}.")
    out_of_fold = classification.evaluate_table(answers)
    fitted = confidence.fit_temperature(out_of_fold)
    scaled = confidence.with_temperature(out_of_fold, fitted.temperature)
    chosen = confidence.choose_threshold(scaled, options.wanted_error)
    if not chosen.attainable:
        sys.exit(f"No threshold answers with an error rate of {options.wanted_error:.0%}.")
    about = {
        "title": "compact: four types of white blood cells, from crops",
        "created": run.settings["created"],
        "data": data["title"],
        "data_digest": data["digest"],
        "training": {
            key: run.settings["training"][key]
            for key in ("epochs", "seed", "validation", "validation_fraction", "learning_rate")
        },
        "n_training_images": int((run.split == "train").sum()),
        "temperature": fitted.temperature,
        "threshold": chosen.threshold,
        "threshold_is_for": f"an error rate of {options.wanted_error:.0%} among the answers given",
        "threshold_answers": chosen.coverage,
        "versions": run.settings["versions"],
    }
    made = classifier.of_run(run, keras=True)
    made.about.update(about)
    classifier.ship(made, WEIGHTS)
    print(json.dumps(made.about, indent=2, ensure_ascii=False))


def ship_detector(options: argparse.Namespace) -> None:
    folder = sources.fetch(options.source, options.data_dir, holds="photographs")
    boxed = splits.read_boxed(folder)
    run = folders.open_run(options.run, options.runs_dir / folders.DETECTORS)
    data = run.settings["data"]
    if data["digest"] != identify(folder, holds="photographs").digest:
        sys.exit(f"{run.name} was trained on other data than {options.source}.")
    part = {name: run.split.index[run.split == name].tolist() for name in splits.PARTS}
    chooser = folders.open_run(options.chosen_by or options.run, run.folder.parent)
    if "val" in chooser.settings["training"]["train_on"] or not chooser.split.equals(run.split):
        sys.exit(f"{chooser.name} learned from what it should choose by, or of another split.")
    chosen, tried = detector_training.choose_reading(detector.of_run(chooser), boxed, part["val"])
    print(tried.round(4).to_string(index=False), chosen.about, sep="\n")
    reading = {key: chosen.about[key] for key in ("ways", "iou", "thresholds")}
    found = detector.of_run(run, reading, keras=True)
    pairs = overlaps.find_smear_pairs(folder, progress=False)
    groups = splits.group_sources(pairs, boxed.photographs["photograph"])
    scores = {"val": score("val", chosen, boxed, part["val"], groups)}
    if options.dry:
        return
    scores["test"] = score("test", found, boxed, part["test"], groups)
    found.about.update(
        title="detector: red cells, white cells and platelets of smears",
        created=run.settings["created"],
        data=data["title"],
        data_digest=data["digest"],
        training=run.settings["training"],
        n_training_photographs=sum(
            len(part[name]) for name in run.settings["training"]["train_on"]
        ),
        reading_chosen="on the validation list, by a network that did not learn from it: "
        f"{chooser.settings['training']}",
        scores=scores,
        versions=recipes.versions(),
    )
    detector.ship(found, WEIGHTS)


def score(
    title: str, found: detector.Detector, boxed: Annotations, names: list[str], groups: pd.Series
) -> dict[str, Any]:
    """Print how well photographs are read, and say it as `about["scores"]` does."""
    judged = detector_training.judge(found, boxed, names)
    scored = detection.intervals(judged.scores, groups)
    print(f"\n{title}", scored.round(3).to_string(), judged.table.round(3).to_string(), sep="\n")
    return {
        **judged.scores.to_dict(),
        "map_50_interval": scored.loc["mAP@0.5", ["low", "high"]].round(4).tolist(),
        "mean_absolute_error": judged.table["mae"].round(4).to_dict(),
        "bias": judged.table["bias"].round(4).to_dict(),
    }


def write_onnx(options: argparse.Namespace) -> None:
    for name, load in SHIPPED.items():
        digest = answering.digest(WEIGHTS / f"{name}.weights.h5")
        metadata = {"weights_sha256": digest}
        answering.write_onnx(load(name, keras=True).model, WEIGHTS / f"{name}.onnx", metadata)


def ship_int8(options: argparse.Namespace) -> None:
    folder = sources.fetch(options.source, options.data_dir, holds="photographs")
    boxed = splits.read_boxed(folder)
    run = folders.open_run(options.run, options.runs_dir / folders.DETECTORS)
    exact = detector.load(exact=True)
    if run.settings["created"] != exact.about["created"]:
        sys.exit(f"{run.name} is not the run whose weights ship as the detector.")
    part = boxed.photographs["photograph"].map(run.split)
    learned = boxed.photographs[part.isin(run.settings["training"]["train_on"])]
    learned = learned.groupby("laboratory").sample(options.calibrate_on, random_state=0)
    batches = detector_training.SmearBatches(boxed, learned, 1, gain=exact.about["gain"])
    shown = [batches[place][0] for place in range(len(batches))]
    write_int8(WEIGHTS / "detector.onnx", WEIGHTS / "detector.int8.onnx", shown)
    print("network | looks | mAP@0.5 | mAP@0.5:0.95 | mean absolute error, bias of each kind")
    names = boxed.photographs.loc[part.eq("val"), "photograph"].tolist()
    whole = detector.load()
    for title, found in (("float32", exact), ("int8", whole)):
        for ways in (1, 2, 4):
            looking = detector.Detector(found.model, {**found.about, "ways": ways})
            judged = detector_training.judge(looking, boxed, names)
            counts = judged.table[["mae", "bias"]].round(3).to_dict("index")
            print(f"{title} | {ways} | {judged.scores.map_50:.4f} | {judged.scores.map_50_95:.4f} "
                  f"| {counts}", flush=True)  # fmt: skip
    groups = boxed.photographs.set_index("photograph")["group"]
    scores = {
        name: score(name, whole, boxed, run.split.index[run.split == name].tolist(), groups)
        # What the run learned from, another one was judged on.
        for name in ("val", "test")
        if name not in run.settings["training"]["train_on"]
    }
    storage.write_json(
        WEIGHTS / "detector.json", {**exact.about, "scores": exact.about["scores"] | scores}
    )


def write_int8(path: Path, target: Path, shown: list[np.ndarray]) -> None:
    """Write a detector's ONNX file again, in whole numbers of 8 bits.

    Ranges of its layers are measured on `shown`, (1, height, width, 3) uint8 each, see
    `detector.show`. Weights have seven bits: of eight, products would overflow on processors
    without instructions of their own for them.
    """
    from onnxruntime import quantization

    class Shown(quantization.CalibrationDataReader):
        def __init__(self):
            self.left = iter(shown)

        def get_next(self) -> dict[str, np.ndarray] | None:
            pixels = next(self.left, None)
            return None if pixels is None else {"smears": pixels}

    # That the graph was not optimised before, which brings nothing.
    logging.disable(logging.WARNING)
    quantization.quantize_static(
        path, target, Shown(), per_channel=True, reduce_range=True,
        activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QInt8,
    )  # fmt: skip
    logging.disable(logging.NOTSET)


SHIPPED = {"broad": classifier.load, "compact": classifier.load, "detector": detector.load}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    kinds = parser.add_subparsers(required=True)
    namer = kinds.add_parser("classifier", help="a run of a recipe that looks at cells")
    namer.add_argument("--crossval", required=True, help="name of a cross-validation on TRAIN")
    namer.add_argument("--wanted-error", type=float, default=0.05)
    namer.set_defaults(ship=ship_classifier)
    finder = kinds.add_parser("detector", help="a run of 06_count")
    finder.add_argument("--chosen-by", help="name of the run by which reading is chosen")
    finder.add_argument("--source", default="auto")
    finder.add_argument("--data-dir", default=ROOT / "data", type=Path)
    finder.add_argument("--dry", action="store_true", help="validation only; nothing is written")
    finder.set_defaults(ship=ship_detector)
    whole = kinds.add_parser("int8", help="the detector in whole numbers, of the weights that ship")
    whole.add_argument("--source", default="auto")
    whole.add_argument("--data-dir", default=ROOT / "data", type=Path)
    whole.add_argument("--calibrate-on", default=16, type=int, help="photographs of a laboratory")
    whole.set_defaults(ship=ship_int8)
    kinds.add_parser("onnx", help="the files to ask").set_defaults(ship=write_onnx)
    for kind in (namer, finder, whole):
        kind.add_argument("--run", required=True, help="name of a finished run")
        kind.add_argument("--runs-dir", default=ROOT / "runs", type=Path)
    options = parser.parse_args()
    options.ship(options)


if __name__ == "__main__":
    main()
