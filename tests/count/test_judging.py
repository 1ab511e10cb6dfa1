"""A detector read and judged whose every box, double and miss is known."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from wbc_helpers import cells
from wbc_helpers.cells import BOX
from wbc_helpers.count.detector import N_KINDS, Detector, draw_maps
from wbc_helpers.count.training import choose_reading, judge, judge_boxes, judge_each
from wbc_helpers.data.annotations import Annotations
from wbc_helpers.pixels.scale import RED_CELL

ABOUT = {"filters": [4], "iou": 0.5, "thresholds": dict.fromkeys(cells.KIND_NAMES, 0.3)}
PAIR = [[20, 20, 72, 72], [46, 20, 98, 72]]  # they share 26 of 78 columns: 0.33
NAMES = ["a", "b"]


class Stand_in:
    """Finds both cells of a pair, the second less surely, and something that is none."""

    def predict_on_batch(self, shown):
        corners = np.array([*PAIR, [104, 70, 120, 86]], float)
        drawn = draw_maps(corners, np.array([0, 0, 2]), np.zeros(3, bool), shown.shape[1:3])
        maps = drawn[..., : N_KINDS + 4]
        maps[..., :N_KINDS] = maps[..., :N_KINDS] == 1
        for (line, column), score in zip(
            ((23, 23), (23, 36), (39, 56)), (0.9, 0.6, 0.4), strict=True
        ):
            maps[line, column, :N_KINDS] *= score
        return np.stack([maps] * len(shown))


@pytest.fixture
def boxed(tmp_path):
    photographs = []
    for name in NAMES:
        Image.new("RGB", (128, 96), (220, 220, 220)).save(tmp_path / f"{name}.png")
        photographs.append((name, str(tmp_path / f"{name}.png"), 128, 96))
    boxes = [(name, "RBC", *box, 128, 96) for name in NAMES for box in PAIR]
    boxes.append(("b", "Platelets", 5, 5, 15, 15, 128, 96))
    table = pd.DataFrame(boxes, columns=["photograph", "kind", *BOX, "width", "height"])
    table["kind"] = pd.Categorical(table["kind"], categories=list(cells.KIND_NAMES))
    columns = ["photograph", "path", "width", "height"]
    return Annotations(table, pd.DataFrame(), pd.DataFrame(photographs, columns=columns))


@pytest.fixture(autouse=True)
def scale(monkeypatch):
    """Plain photographs show no red cells to measure."""
    monkeypatch.setattr(
        "wbc_helpers.pixels.scale.red_cell_diameter_of", lambda images, default: RED_CELL
    )


def test_the_overlap_is_chosen_that_keeps_neighbours(boxed):
    found = Detector(Stand_in(), ABOUT)
    chosen, tried = choose_reading(found, boxed, NAMES, ious=(0.2, 0.5), ways=(1,))
    assert chosen.about["iou"] == 0.5 and chosen.about["ways"] == 1
    # Without the second cells half of the red ones are found, at precision 1: 51 points of 101.
    # No platelet is, so that the mean is half of that.
    assert tried["map_50"].tolist() == pytest.approx([51 / 202, 0.5])


def test_ways_that_bring_nothing_are_left(boxed):
    # This one answers the same whatever it is shown, so that its own boxes stay the surest.
    chosen, tried = choose_reading(Detector(Stand_in(), ABOUT), boxed, NAMES, ious=(0.5,))
    assert tried["map_50"].tolist() == pytest.approx([0.5] * 3)
    assert chosen.about["ways"] == 1


def test_the_thresholds_take_as_many_boxes_as_there_are_cells(boxed):
    found = Detector(Stand_in(), ABOUT)
    chosen, _ = choose_reading(found, boxed, NAMES, ways=(1,))
    thresholds = chosen.about["thresholds"]
    assert thresholds["RBC"] == pytest.approx(0.6)
    # Nothing right was found of the others: none of their boxes is counted.
    assert thresholds["WBC"] == thresholds["Platelets"] == pytest.approx(1.1)


def test_cells_are_counted_by_photograph(boxed):
    about = {**ABOUT, "thresholds": {"RBC": 0.7, "WBC": 0.5, "Platelets": 0.3}}
    judged = judge(Detector(Stand_in(), about), boxed, NAMES)
    scores, counts = judged.scores, judged.table
    # Average precision asks for all boxes, counting for the sure ones.
    assert scores.per_kind["ap_50"]["RBC"] == pytest.approx(1)
    red, platelets = counts.loc["RBC"], counts.loc["Platelets"]
    assert (red["found"], red["false"], red["missed"]) == (2, 0, 2)
    assert (red["mae"], red["bias"]) == (1, -1)
    # One platelet too many in a; in b one false, one missed, and the number right.
    assert (platelets["false"], platelets["missed"]) == (2, 1)
    assert (platelets["mae"], platelets["bias"]) == (0.5, 0.5)
    assert counts.loc["WBC", "mae"] == 0
    # One red cell is missed in each; the platelets come on top.
    assert judged.mistakes.to_dict() == {"a": 2, "b": 3}


def test_mistakes_are_false_boxes_and_missed_cells_of_each_photograph(boxed):
    truth = boxed.boxes.assign(score=0.9)
    others = [
        ("a", "WBC", *PAIR[0], 0.9),  # of another kind than the cell there
        ("a", "RBC", 22, 20, 74, 72, 0.8),  # a second one on a cell
        ("b", "RBC", 0, 70, 20, 90, 0.1),
    ]
    others = pd.DataFrame(others, columns=["photograph", "kind", *BOX, "score"])
    boxes = pd.concat([truth.drop(index=4), others], ignore_index=True)
    judged = judge_boxes(boxed, ["b", "a"], boxes)
    # In b the platelet is missed and one box is false.
    assert list(judged.mistakes.items()) == [("b", 2), ("a", 2)]
    # What is not counted is no mistake, and what is left out of it one more.
    judged = judge_boxes(boxed, ["b", "a"], boxes, boxes[boxes["score"] > 0.85].iloc[1:])
    assert list(judged.mistakes.items()) == [("b", 1), ("a", 2)]
    assert judged.scores.n_predicted.sum() == len(boxes)


def test_a_photograph_without_mistakes_or_without_cells_has_none(boxed):
    empty = pd.DataFrame([("c", "c.png", 128, 96)], columns=boxed.photographs.columns)
    boxed = Annotations(boxed.boxes, boxed.problems, pd.concat([boxed.photographs, empty]))
    judged = judge_boxes(boxed, ["c", *NAMES], boxed.boxes.assign(score=0.9))
    assert list(judged.mistakes.items()) == [("c", 0), ("a", 0), ("b", 0)]
    judged = judge_boxes(boxed, ["c", *NAMES], boxed.boxes[:0].assign(score=0.9))
    assert list(judged.mistakes.items()) == [("c", 0), ("a", 2), ("b", 3)]


def test_whole_cells_and_those_at_the_frame_are_judged_apart(boxed):
    # Of a pair one is whole and one, moved, reaches the right edge; the platelet is whole.
    boxes = boxed.boxes.copy()
    boxes.loc[[1, 3], ["x_min", "x_max"]] = [76, 128]
    boxed = Annotations(boxes, boxed.problems, boxed.photographs)
    found = boxes.assign(score=0.9).drop(columns=["width", "height"]).drop(index=3)
    table = judge_boxes(boxed, NAMES, found).by_cut
    assert table.loc[("RBC", "whole")].tolist() == [2, 2, 1, 0, 0]
    assert table.loc[("RBC", "cut")].tolist() == [2, 1, 0.5, 0.5, -0.5]
    assert table.loc[("Platelets", "whole"), "true"] == 1


def test_a_kind_that_people_boxed_in_part_is_not_judged_there(boxed):
    here = boxed.photographs.assign(incomplete=["", "Platelets"], laboratory=["near", "far"])
    here = Annotations(boxed.boxes, boxed.problems, here)
    about = {**ABOUT, "thresholds": dict.fromkeys(cells.KIND_NAMES, 0.3)}
    judged = judge(Detector(Stand_in(), about), here, NAMES)
    assert judged.true_counts["Platelets"].tolist() == [0, 0]
    assert judged.counts["Platelets"].tolist() == [1, 0]
    each = judge_each(Detector(Stand_in(), about), here, NAMES)
    assert each.loc[("near", "RBC"), ["n_photographs", "of_boxed"]].tolist() == [1, 1]
