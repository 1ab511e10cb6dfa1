"""Cells found without learning, in smears whose cells are known."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from wbc_helpers import cells
from wbc_helpers.cells import BOX
from wbc_helpers.count.classical import find_cells, find_cells_in
from wbc_helpers.data import sample, splits
from wbc_helpers.data.annotations import read_annotations
from wbc_helpers.errors import UnreadableImage
from wbc_helpers.evaluate import detection
from wbc_helpers.evaluate.detection import match_boxes

SPREAD = (
    *[sample.Cell("red", x, y, 50, seed) for seed, (x, y) in enumerate(
        [(80, 80), (240, 90), (400, 80), (560, 100), (90, 400), (580, 390)]
    )],
    sample.Cell("platelet", 90, 240, 16, 20),
    sample.Cell("platelet", 330, 430, 16, 21),
    sample.Cell("neutrophil", 320, 280, 75, 22),
)  # fmt: skip


def draw(*drawn, seed=0):
    """A photograph of these cells, and their boxes as a table."""
    generator = np.random.default_rng(seed)
    pixels, boxes = sample.photograph(sample.Field(drawn, sample.mix_stain(generator)), generator)
    rows = [("a", box.name, box.xmin - 1, box.ymin - 1, box.xmax, box.ymax) for box in boxes]
    return pixels, pd.DataFrame(rows, columns=["photograph", "kind", *BOX])


def counts_of(pixels):
    counts = find_cells(pixels)["kind"].value_counts()
    return {kind: int(counts[kind]) for kind in cells.KIND_NAMES}


@pytest.mark.parametrize("seed", range(4))
def test_cells_that_lie_apart_are_all_found_where_they_are(seed):
    pixels, truth = draw(*SPREAD, seed=seed)
    found = find_cells(pixels).assign(photograph="a")
    # People, after whom its margin was chosen, box a platelet more generously than it was drawn.
    counts = match_boxes(truth, found, iou=0.4).counts
    assert counts["found"].to_dict() == {"RBC": 6, "Platelets": 2, "WBC": 1}
    assert counts[["false", "missed"]].to_numpy().sum() == 0
    assert found["score"].between(0, 1).all()
    assert (found["kind"].cat.categories == list(cells.KIND_NAMES)).all()


def test_red_cells_that_touch_are_parted():
    pixels, truth = draw(*[sample.Cell("red", 150 + 85 * i, 240, 50, i) for i in range(4)])
    found = find_cells(pixels).assign(photograph="a")
    assert match_boxes(truth, found).counts.loc["RBC", ["found", "false", "missed"]].tolist() == [
        4, 0, 0,
    ]  # fmt: skip


@pytest.mark.parametrize("cell_type", cells.NAMES)
def test_every_type_of_white_cell_is_one_white_cell(cell_type):
    for seed in range(3):
        pixels, truth = draw(sample.Cell(cell_type, 300, 240, 70, seed), seed=seed)
        found = find_cells(pixels).assign(photograph="a")
        assert match_boxes(truth, found).counts.loc["WBC"].tolist()[:3] == [1, 0, 0], seed


def test_cells_cut_by_the_frame_count_where_they_show_for_the_most_part():
    most = sample.Cell("red", 30, 240, 50, 0), sample.Cell("red", 400, 450, 50, 1)
    little = sample.Cell("red", 645, 240, 50, 2), sample.Cell("red", 200, -10, 50, 3)
    found = find_cells(draw(*most, *little)[0]).sort_values("x_min")
    assert len(found) == 2
    assert found["x_min"].iloc[0] == 0 and found["y_max"].iloc[1] == 480
    assert found[BOX].to_numpy().min() == 0 and found["x_max"].max() <= 640


def test_empty_slide_has_no_cells():
    for brightness in (0, 210, 255):
        assert find_cells(np.full((480, 640, 3), brightness, np.uint8)).empty
    pixels, _ = draw()
    assert counts_of(pixels)["WBC"] == 0


def test_many_photographs_in_one_table(tmp_path):
    pixels, _ = draw(*SPREAD)
    for name in "ab":
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    photographs = pd.DataFrame(
        {"photograph": ["b", "a"], "path": [str(tmp_path / "b.png"), str(tmp_path / "a.png")]}
    )
    found = find_cells_in(photographs, progress=False)
    assert found["photograph"].value_counts().to_dict() == {"a": 9, "b": 9}
    pd.testing.assert_frame_equal(
        found.loc[found["photograph"] == "a", ["kind", *BOX, "score"]].reset_index(drop=True),
        find_cells(pixels),
    )
    nothing = find_cells_in(photographs[:0], progress=False)
    assert list(nothing.columns) == list(found.columns) and nothing.empty
    with pytest.raises(UnreadableImage):
        find_cells_in(photographs.assign(path="nowhere.png"), progress=False)


@pytest.mark.slow
@pytest.mark.real_data
def test_counts_of_real_photographs_are_off_by_what_the_module_says(real_bccd):
    annotated = read_annotations(real_bccd)
    lists = splits.read_lists(real_bccd)
    names = lists.index[lists == "test"]
    photographs = annotated.photographs[annotated.photographs["photograph"].isin(names)]
    truth = annotated.boxes[annotated.boxes["photograph"].isin(names)].reset_index(drop=True)
    found = find_cells_in(photographs, progress=False)
    agreement = detection.count_agreement(
        detection.count_cells(truth, names), detection.count_cells(found, names)
    )
    assert agreement["n"].tolist() == [72] * 3
    # Other versions of OpenCV and Pillow differ in a few pixels.
    assert agreement.loc["RBC", "mae"] == pytest.approx(3.38, abs=0.1)
    assert agreement.loc["WBC", "mae"] == pytest.approx(0.056, abs=0.02)
    assert agreement.loc["Platelets", "mae"] == pytest.approx(0.60, abs=0.05)
    rates = match_boxes(truth, found).counts.loc[list(cells.KIND_NAMES)]
    assert rates["recall"].tolist() == pytest.approx([0.646, 0.986, 0.551], abs=0.03)
    assert rates["precision"].tolist() == pytest.approx([0.599, 0.933, 0.655], abs=0.03)
