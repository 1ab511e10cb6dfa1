"""Put the weights of a run of 06_count where the package ships them, with what they score.

    .venv/bin/python .ci/ship_detector.py --run NAME --source BCCD_Dataset-master.tar.gz

How the maps are read is chosen on the validation photographs, by a run that did not learn from
them: where what ships did, `--chosen-by` names another one, trained in the same way without them.
The photographs of the test are looked at last, here, when nothing is left to choose.
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from wbc_helpers.audit import overlaps
from wbc_helpers.data import annotations, sources, splits
from wbc_helpers.data.identity import identify
from wbc_helpers.evaluate import detection
from wbc_helpers.runs import backend, folders, recipes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", required=True, help="name of a finished run of a detector")
    parser.add_argument("--chosen-by", help="name of the run by which reading is chosen")
    parser.add_argument("--source", default="auto")
    parser.add_argument("--data-dir", default=ROOT / "data", type=Path)
    parser.add_argument("--runs-dir", default=ROOT / "runs", type=Path)
    parser.add_argument("--dry", action="store_true", help="validation only; nothing is written")
    options = parser.parse_args()
    folder = sources.fetch(options.source, options.data_dir, holds="photographs")
    boxed = annotations.read_annotations(folder)
    run = folders.open_run(options.run, options.runs_dir / folders.DETECTORS)
    data = run.settings["data"]
    if data["digest"] != identify(folder, holds="photographs").digest:
        sys.exit(f"{run.name} was trained on other data than {options.source}.")
    backend.choose()
    from wbc_helpers.count import detector, training

    part = {name: run.split.index[run.split == name].tolist() for name in splits.PARTS}
    chooser = folders.open_run(options.chosen_by or options.run, run.folder.parent)
    if "val" in chooser.settings["training"]["train_on"] or not chooser.split.equals(run.split):
        sys.exit(f"{chooser.name} learned from what it should choose by, or of another split.")
    chosen, tried = training.choose_reading(detector.of_run(chooser), boxed, part["val"])
    print(tried.round(4).to_string(index=False), chosen.about, sep="\n")
    reading = {key: chosen.about[key] for key in ("ways", "iou", "thresholds")}
    found = detector.of_run(run, reading)
    pairs = overlaps.find_smear_pairs(folder, progress=False)
    groups = splits.group_sources(pairs, boxed.photographs["photograph"])
    scores = {}
    for name in ("val",) if options.dry else ("val", "test"):
        judged = training.judge(chosen if name == "val" else found, boxed, part[name])
        scored = detection.intervals(judged.scores, groups)
        print(f"\n{name}", scored.round(3).to_string(), judged.table.round(3).to_string(), sep="\n")
        scores[name] = {
            **judged.scores.to_dict(),
            "map_50_interval": scored.loc["mAP@0.5", ["low", "high"]].round(4).tolist(),
            "mean_absolute_error": judged.table["mae"].round(4).to_dict(),
            "bias": judged.table["bias"].round(4).to_dict(),
        }
    if options.dry:
        return
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
    detector.ship(found, ROOT / "wbc_helpers" / "weights")


if __name__ == "__main__":
    main()
