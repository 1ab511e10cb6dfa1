"""Put the weights of a run where the package ships them, and write down what they are.

    .venv/bin/python .ci/ship_weights.py --run compact-0 --crossval crossval-train

The temperature and the threshold below which the classifier leaves the answer to a haematologist
are fitted on the answers of a cross-validation over the photographs of TRAIN, not on TEST.
"""

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from wbc_helpers.classify import classifier, training
from wbc_helpers.evaluate import abstention, calibration, classification
from wbc_helpers.runs import folders


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", required=True, help="name of a finished run of a recipe for cells")
    parser.add_argument("--crossval", required=True, help="name of a cross-validation on TRAIN")
    parser.add_argument("--runs-dir", type=Path, default=ROOT / "runs")
    parser.add_argument("--wanted-error", type=float, default=0.05)
    options = parser.parse_args()
    run = folders.open_run(options.run, options.runs_dir)
    data = run.settings["data"]
    told = training.read(options.crossval, options.runs_dir, data)
    if set(told["split"]) != {"TRAIN"}:
        sys.exit(f"{options.crossval} judged more than TRAIN. Expected `make crossval` as it is.")
    folder = folders.folder_of(options.crossval, options.runs_dir)
    judged_by = json.loads((folder / "crossval.json").read_text(encoding="utf-8"))["training"]
    trained = run.settings["training"]
    other = [key for key in ("recipe", "epochs", "image_size") if judged_by[key] != trained[key]]
    if other:
        sys.exit(f"{options.crossval} differs from {run.name} in {', '.join(other)}.")
    out_of_fold = classification.evaluate_table(told)
    fitted = calibration.fit_temperature(out_of_fold)
    scaled = calibration.with_temperature(out_of_fold, fitted.temperature)
    chosen = abstention.choose_threshold(scaled, options.wanted_error)
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
    classifier.ship(run, about, ROOT / "wbc_helpers" / "weights")
    print(json.dumps(about, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
