"""Boxes paired off by hand, and as COCO pairs them."""

import numpy as np
import pandas as pd
import pytest

from wbc_helpers.errors import InvalidParameter
from wbc_helpers.evaluate.detection import (
    IOUS,
    fair_thresholds,
    match_boxes,
    overlap,
    score_detections,
)

COLUMNS = ["photograph", "kind", "x_min", "y_min", "x_max", "y_max"]


def boxes(*rows):
    return pd.DataFrame(rows, columns=COLUMNS)


def predicted(*rows):
    return pd.DataFrame(rows, columns=[*COLUMNS, "score"])


def test_overlap_by_hand():
    first = np.array([[0, 0, 10, 10], [0, 0, 0, 0]])
    second = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [10, 0, 20, 10], [2, 2, 4, 4], [0, 0, 0, 0]])
    # Half of each shared: 50 of 150. Inside: 4 of 100.
    np.testing.assert_allclose(overlap(first, second), [[1, 1 / 3, 0, 0.04, 0], [0] * 5])
    assert overlap(first, second[:0]).shape == (2, 0)


TRUTH = boxes(
    ("a", "RBC", 0, 0, 10, 10),
    ("a", "RBC", 100, 0, 110, 10),
    ("a", "WBC", 0, 0, 10, 10),
    ("b", "RBC", 0, 0, 10, 10),
)


def test_the_surest_box_chooses_first():
    predictions = predicted(
        ("a", "RBC", 0, 1, 10, 11, 0.5),  # 90 of 110 shared, but another was surer
        ("a", "RBC", 0, 2, 10, 12, 0.9),  # 80 of 120
        ("b", "RBC", 0, 0, 10, 10, 0.1),
        ("a", "Platelets", 0, 0, 10, 10, 1.0),
        ("c", "RBC", 0, 0, 10, 10, 1.0),
    )
    matches = match_boxes(TRUTH, predictions)
    assert matches.predictions["match"].tolist() == [-1, 0, 3, -1, -1]
    assert matches.predictions["iou"].tolist() == pytest.approx([0, 2 / 3, 1, 0, 0])
    assert matches.truth["match"].tolist() == [1, -1, -1, 2]
    counts = matches.counts
    assert counts.loc["RBC", ["found", "false", "missed"]].tolist() == [2, 2, 1]
    assert counts.loc["RBC", ["precision", "recall", "f1"]].tolist() == pytest.approx(
        [1 / 2, 2 / 3, 4 / 7]
    )
    assert counts.loc["WBC", ["found", "false", "missed"]].tolist() == [0, 0, 1]
    assert np.isnan(counts.loc["WBC", "precision"]) and counts.loc["WBC", "recall"] == 0
    assert np.isnan(counts.loc["Platelets", "recall"]) and counts.loc["Platelets", "precision"] == 0


def test_a_box_takes_what_it_overlaps_most():
    truth = boxes(("a", "RBC", 0, 0, 10, 10), ("a", "RBC", 2, 0, 12, 10))
    near_second = predicted(("a", "RBC", 2, 0, 12, 10, 1.0), ("a", "RBC", 2, 0, 12, 10, 0.9))
    # The second box finds its cell taken, and gets the other: 80 of 120.
    assert match_boxes(truth, near_second).predictions["match"].tolist() == [1, 0]
    assert match_boxes(truth, near_second, iou=0.7).predictions["match"].tolist() == [1, -1]


def test_labels_of_the_index_are_kept():
    truth = TRUTH.iloc[[3, 0]]
    found = match_boxes(truth, predicted(("b", "RBC", 0, 0, 10, 10, 1.0)).set_axis([77]))
    assert found.predictions.loc[77, "match"] == 3
    assert found.truth["match"].to_dict() == {3: 77, 0: -1}


def test_nothing_to_match():
    nothing = predicted()
    assert match_boxes(TRUTH, nothing).counts["missed"].to_dict() == {"RBC": 3, "WBC": 1}
    assert match_boxes(TRUTH[:0], nothing).counts.empty
    assert fair_thresholds(match_boxes(TRUTH, nothing)).empty


@pytest.mark.parametrize("iou", [0.5, 0.75])
def test_finds_what_coco_finds(iou):
    generator = np.random.default_rng(1)
    truth, predictions = [], []
    for name in "abcdef":
        for _ in range(12):
            corner = generator.uniform(0, 150, 2)
            box = np.array([*corner, *(corner + 40)])
            truth.append((name, "RBC", *box))
            moved = box + generator.normal(0, 5, 4)
            predictions.append((name, "RBC", *moved, generator.random()))
    truth, predictions = boxes(*truth), predicted(*predictions)
    matches = match_boxes(truth, predictions, iou)
    scores = score_detections(truth, predictions, "abcdef", ["RBC"])
    hits = scores.evidence[0].hits[np.flatnonzero(np.isclose(IOUS, iou))[0]]
    surest = matches.predictions.sort_values("score", ascending=False)
    assert (surest["match"] >= 0).tolist() == hits.tolist()
    assert 20 < hits.sum() < 72


def test_thresholds_take_as_many_boxes_as_there_are_cells():
    predictions = predicted(
        ("a", "RBC", 0, 0, 10, 10, 0.9),
        ("b", "RBC", 50, 0, 60, 10, 0.8),  # wrong
        ("b", "RBC", 0, 0, 10, 10, 0.7),
        ("b", "RBC", 70, 0, 80, 10, 0.6),  # wrong, and a fourth of three cells
        ("a", "WBC", 80, 0, 90, 10, 0.6),
    )
    assert fair_thresholds(match_boxes(TRUTH, predictions)).to_dict() == {"RBC": 0.7, "WBC": np.inf}
    # Fewer than there are cells: all.
    few = predictions.iloc[:2]
    assert fair_thresholds(match_boxes(TRUTH, few)).to_dict() == {"RBC": 0.8}


@pytest.mark.parametrize("iou", [0, -1, 1.1, float("nan")])
def test_overlap_out_of_range(iou):
    with pytest.raises(InvalidParameter, match="is no overlap"):
        match_boxes(TRUTH, predicted(), iou)


@pytest.mark.parametrize("labels", [[0, 1, 2, 2], list("abcd")])
def test_index_that_names_no_box(labels):
    with pytest.raises(InvalidParameter, match="index of the truth"):
        match_boxes(TRUTH.set_axis(labels), predicted())
