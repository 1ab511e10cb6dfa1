"""Cross-validation on the drawn sample, and its summary on answers known by hand."""

import json

import numpy as np
import pandas as pd
import pytest

from wbc_helpers import cells
from wbc_helpers.classify import training
from wbc_helpers.data.identity import identify
from wbc_helpers.errors import BrokenRun, DataMismatch, DataNotFound, RunExists
from wbc_helpers.evaluate import classification
from wbc_helpers.runs import recipes


def table_of(rows):
    """Answers of certainty: (photograph, true type, told type) for each image."""
    source, true, told = zip(*rows, strict=True)
    images = pd.DataFrame(
        {"file": [f"{i}.jpeg" for i in range(len(rows))], "split": "TRAIN", "cell_type": true,
         "source_id": source, "group_id": source}
    )  # fmt: skip
    certain = np.eye(4)[[cells.NAMES.index(name) for name in told]]
    return classification.tabulate(images, certain)


def test_photographs_are_judged_by_the_mean_of_their_images():
    table = table_of(
        [
            ("a", "monocyte", "monocyte"), ("a", "monocyte", "monocyte"),
            ("a", "monocyte", "neutrophil"), ("b", "neutrophil", "eosinophil"),
        ]
    )  # fmt: skip
    summary = training.summarise(table)
    assert summary["images"]["accuracy"] == 0.5 and summary["images"]["n_images"] == 4
    # Two of three images carry photograph a; b is lost.
    assert summary["photographs"]["accuracy"] == 0.5
    assert summary["photographs"]["n_images"] == 2
    assert summary["photographs"]["balanced_accuracy"] == 0.5


def test_the_report_gives_scores_with_their_intervals():
    rows = [(f"m{i}", "monocyte", "monocyte" if i else "neutrophil") for i in range(4)]
    rows += [(f"n{i}", "neutrophil", "eosinophil" if i else "neutrophil") for i in range(4)]
    scores = training.summarise(table_of(rows))["photographs"]
    low, high = scores["intervals"]["accuracy"]
    assert scores["accuracy"] == 0.5 and 0 <= low < 0.5 < high <= 1
    told = training.report(table_of(rows))
    assert f"photographs (n = 8): accuracy 50.0% ({low:.1%}–{high:.1%})" in told
    assert "monocyte 75%, neutrophil 25%" in told


@pytest.mark.slow
def test_every_photograph_is_judged_once_by_a_network_that_never_saw_it(
    sample_folder, tmp_path, monkeypatch
):
    identity = identify(sample_folder)
    chosen = recipes.TrainingSettings(recipe="compact", epochs=1, image_size=(16, 16))
    trained = []
    through = training.train

    def watched(prepared, *arguments):
        trained.append(set(prepared.catalog.loc[prepared.part == "train", "group_id"]))
        return through(prepared, *arguments)

    monkeypatch.setattr(training, "train", watched)
    arguments = (chosen, identity, "cv", tmp_path, tmp_path)
    table = training.cross_validate(*arguments, n_folds=2)
    assert not table["file"].duplicated().any() and (table["split"] == "TRAIN").all()
    for number, groups in enumerate(trained):
        split = pd.read_csv(tmp_path / "cv" / f"fold-{number}" / "split.csv", index_col="file")
        judged = table.set_index("file")["group_id"][split.index[split["part"] == "validation"]]
        assert not groups & set(judged)
    assert len(training.read("cv", tmp_path, identity.to_dict())) == len(table)
    with pytest.raises(DataMismatch):
        training.read("cv", tmp_path, {**identity.to_dict(), "digest": "other"})

    # Started again, nothing is trained twice, and the answers are the same.
    before = (tmp_path / "cv" / "fold-0" / "model.keras").stat().st_mtime_ns
    again = training.cross_validate(*arguments, n_folds=2)
    assert (tmp_path / "cv" / "fold-0" / "model.keras").stat().st_mtime_ns == before
    pd.testing.assert_frame_equal(again, table)
    scores = json.loads((tmp_path / "cv" / "crossval.json").read_text())
    assert scores["photographs"]["n_images"] == table["source_id"].nunique()


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "settings.json").write_text("{}")
    with pytest.raises(RunExists, match=r"settings\.json"):
        training.cross_validate(
            recipes.TrainingSettings(recipe="compact"), None, "run", tmp_path, tmp_path
        )
    assert [entry.name for entry in (tmp_path / "run").iterdir()] == ["settings.json"]


def test_a_damaged_cross_validation_is_named(tmp_path):
    (tmp_path / "cv").mkdir()
    (tmp_path / "cv" / "crossval.json").write_text("{")
    with pytest.raises(BrokenRun, match=r"crossval\.json is damaged"):
        training.read("cv", tmp_path)


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(DataNotFound, match="make crossval RUN=none"):
        training.read("none", tmp_path)
