"""Predictions come back from their table as they went in."""

import numpy as np
import pandas as pd
import pytest

from wbc_helpers import cells
from wbc_helpers.errors import BrokenRun, DataMismatch, DataNotFound, InvalidParameter
from wbc_helpers.evaluate import predictions
from wbc_helpers.runs import folders


@pytest.fixture
def rows():
    table = pd.DataFrame(
        {
            "path": list("abcd"),
            "file": [f"TEST/{name.upper()}/_0_1.jpeg" for name in cells.NAMES],
            "split": pd.Categorical(["TEST"] * 4),
            "cell_type": pd.Categorical(cells.NAMES),
            "source_id": pd.array(["BloodImage_00001", pd.NA, "x", "y"], "string"),
        },
        index=[7, 3, 9, 1],
    )
    return table


@pytest.fixture
def probabilities():
    scores = np.random.default_rng(0).random((4, 4), np.float32)
    return scores / scores.sum(axis=1, keepdims=True)


@pytest.fixture
def run(tmp_path):
    return folders.Run(tmp_path, {"training": {}})


def test_table_comes_back_as_it_was(rows, probabilities, run):
    table = predictions.tabulate(rows, probabilities)
    assert list(table.columns) == list(predictions.COLUMNS)
    predictions.write(run.folder, table)
    again = predictions.read(run.folder)
    read = again[list(predictions.PROBABILITIES)].to_numpy(np.float32)
    np.testing.assert_array_equal(read, probabilities)
    others = [name for name in table if name not in predictions.PROBABILITIES]
    pd.testing.assert_frame_equal(again[others], table[others])
    assert again["source_id"].isna().tolist() == [False, True, False, False]
    assert again["group_id"].isna().all()
    assert [path.name for path in run.folder.iterdir()] == ["predictions.csv"]


def test_prediction_is_the_most_probable_type(rows):
    table = predictions.tabulate(rows, np.eye(4)[[0, 2, 2, 1]])
    expected = ["eosinophil", "monocyte", "monocyte", "lymphocyte"]
    assert table["predicted"].tolist() == expected
    assert predictions.evaluate_table(table).accuracy == 0.5


def test_half_a_catalog_is_refused(rows, probabilities):
    with pytest.raises(InvalidParameter, match="split"):
        predictions.tabulate(rows.drop(columns="split"), probabilities)
    with pytest.raises(InvalidParameter, match="twice"):
        predictions.tabulate(rows.assign(file="a"), probabilities)


def test_missing_and_damaged_tables_are_named(rows, probabilities, run):
    with pytest.raises(DataNotFound, match="04_evaluate"):
        predictions.read(run.folder)
    path = predictions.write(run.folder, predictions.tabulate(rows, probabilities))
    whole = path.read_text()
    for text in ("", "file\na\n", whole.replace("lymphocyte", "ghost"), whole[:-60]):
        path.write_text(text)
        with pytest.raises(BrokenRun, match="damaged"):
            predictions.read(run.folder)


def test_two_runs_are_brought_into_one_order(rows, probabilities):
    first = predictions.tabulate(rows, np.eye(4))
    second = predictions.tabulate(rows, probabilities).iloc[::-1]
    images, one, other = predictions.align(first, second)
    assert images["file"].tolist() == first["file"].tolist()
    assert one.true_types.tolist() == other.true_types.tolist() == list(cells.NAMES)
    np.testing.assert_array_equal(other.probabilities, probabilities)


def test_runs_on_other_images_cannot_be_aligned(rows, probabilities):
    first = predictions.tabulate(rows, probabilities)
    fewer = first.iloc[:3]
    renamed = first.assign(file=first["file"] + "x")
    relabelled = first.assign(cell_type=first["cell_type"].to_numpy()[::-1])
    for second in (fewer, renamed, relabelled):
        with pytest.raises(DataMismatch, match="same"):
            predictions.align(first, second)
        with pytest.raises(DataMismatch, match="same"):
            predictions.align(second, first)
