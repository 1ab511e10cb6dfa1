"""The detector's answers, where stand-ins for the network draw or know what they are shown."""

import json
import os
import subprocess
import sys
from importlib import resources
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import plain_smears
import pytest
from known_boxes import BOXES, answer, maps_of
from PIL import Image
from plain_smears import photograph, reader_of

from wbc_helpers.cells import BOX
from wbc_helpers.count import detector, training
from wbc_helpers.count.detector import Detector
from wbc_helpers.data import annotations, splits
from wbc_helpers.errors import BrokenRun, InvalidParameter, UnreadableImage
from wbc_helpers.evaluate import detection
from wbc_helpers.pixels import scale, stain
from wbc_helpers.pixels.scale import RED_CELL
from wbc_helpers.runs import backend, folders, recipes

ROOT = Path(__file__).resolve().parents[2]
ABOUT = {"iou": 0.5, "thresholds": {"RBC": 0.5, "WBC": 0.5, "Platelets": 0.5}}


@pytest.fixture(scope="module")
def small():
    return detector.centre_network((4, 4, 8, 8))


# What it is shown and what it answers


def test_photographs_are_shown_at_the_scale_of_their_red_cells():
    photograph = np.full((480, 640, 3), (180, 170, 190), np.uint8)
    photograph[100:200, 300:400] = (150, 60, 80)
    shown = detector.show(photograph, red_cell=2 * RED_CELL)
    assert shown.shape == (240, 320, 3)
    lines, columns = np.nonzero(shown[..., 1] < 200)
    assert (lines.min(), lines.max(), columns.min(), columns.max()) == (50, 99, 150, 199)
    assert (shown[0, 0] == stain.WHITE).all()
    # 250 × 330 is filled up to the next multiples of 16, with background.
    photograph = np.full((250, 330, 3), 220, np.uint8)
    photograph[200:, 300:] = (200, 60, 80)
    shown = detector.show(photograph, red_cell=RED_CELL)
    assert shown.shape == (256, 336, 3)
    assert (shown[250:] == stain.WHITE).all() and (shown[:, 330:] == stain.WHITE).all()
    assert (shown[249, 329] < stain.WHITE).all()


class Stand_in:
    """Answers every photograph with the same boxes, given in pixels of what is shown."""

    def __init__(self, corners=BOXES, kinds=(0, 1, 2)):
        self.corners, self.kinds, self.asked = corners, kinds, []

    def predict_on_batch(self, shown):
        self.asked.append(len(shown))
        return np.stack(
            [answer(maps_of(self.corners, self.kinds, size=each.shape[:2])) for each in shown]
        )


def plain(height=96, width=128):
    return np.full((height, width, 3), 220, np.uint8)


def test_boxes_come_in_pixels_of_the_photograph(tmp_path):
    path = tmp_path / "smear 7.png"
    Image.fromarray(plain(192, 256)).save(path)
    boxes = Detector(Stand_in(), ABOUT).detect([path, plain(192, 256)], red_cell=2 * RED_CELL)
    assert boxes.columns.tolist() == detector.COLUMNS
    assert boxes["photograph"].tolist() == ["smear 7"] * 3 + ["1"] * 3
    assert boxes["kind"].tolist() == ["RBC", "WBC", "Platelets"] * 2
    np.testing.assert_allclose(boxes[BOX][:3], 2 * BOXES, atol=1e-3)
    assert boxes["score"].tolist() == [1.0] * 6


def test_boxes_are_clipped_to_the_photograph_and_gone_beyond_it():
    # Shown are 96×128 pixels, of which the photograph fills 90×120.
    corners = np.array([[100, 70, 126, 96], [121, 10, 127, 20], [10, 10, 60, 60]], float)
    stand_in = Stand_in(corners, (0, 0, 0))
    boxes = Detector(stand_in, ABOUT).detect([plain(90, 120)], red_cell=RED_CELL)
    found = boxes.sort_values("x_min")[BOX].to_numpy()
    np.testing.assert_allclose(found, [[10, 10, 60, 60], [100, 70, 120, 90]], atol=1e-3)


def test_photographs_of_any_sizes_come_in_their_order_and_one_at_a_time():
    sizes = [(96, 128)] * 9 + [(128, 96), (96, 128)]
    stand_in = Stand_in()
    boxes = Detector(stand_in, ABOUT).detect((plain(*size) for size in sizes), red_cell=RED_CELL)
    assert stand_in.asked == [1] * len(sizes)
    assert pd.unique(boxes["photograph"]).tolist() == [str(place) for place in range(len(sizes))]


def test_no_more_photographs_are_held_than_the_one_that_is_shown():
    drawn = []

    def endless():
        while True:
            drawn.append(1)
            yield plain()

    tables = Detector(Stand_in(), ABOUT).detect_each(endless(), red_cell=RED_CELL)
    for number in range(24):
        assert len(next(tables)) == 3
        assert len(drawn) == number + 1


class Sees_every_dark_cell:
    """Boxes every patch that is dark, also the part of one that an edge leaves."""

    largest = 0

    def predict_on_batch(self, shown):
        self.largest = max(self.largest, *shown.shape[1:3])
        return np.stack([self.answer_to(each) for each in shown])

    def answer_to(self, shown):
        is_dark = (shown[..., 1] < 150).astype(np.uint8)
        _, _, found, _ = cv2.connectedComponentsWithStats(is_dark)
        left, top, width, height = found[1:, :4].T
        corners = np.column_stack([left, top, left + width, top + height])
        return answer(maps_of(corners, [0] * len(corners), size=shown.shape[:2]))


def test_a_wide_field_is_seen_in_parts_and_no_cell_lost_or_doubled_at_their_seams():
    # Cells everywhere, at every distance from the seams: the lattice has another pitch than these.
    field = plain(1650, 1900)
    side, pitch = round(RED_CELL), 61
    corners = np.array([
        (x, y, x + side, y + side)
        for y in range(3, field.shape[0] - side, pitch) for x in range(5, 1900 - side, pitch)
    ])  # fmt: skip
    for x_min, y_min, x_max, y_max in corners:
        field[y_min:y_max, x_min:x_max] = 60
    stand_in = Sees_every_dark_cell()
    boxes = Detector(stand_in, {**ABOUT, "gain": False}).detect([field], red_cell=RED_CELL)
    assert stand_in.largest == detector.TILE
    assert len(boxes) == len(corners) == 27 * 31
    found = boxes.sort_values(["y_min", "x_min"])[BOX].to_numpy()
    np.testing.assert_allclose(found, corners, atol=1e-3)


class Sees_a_dark_cell:
    """Boxes what is dark; surer of it in the left half than in the right."""

    asked = 0

    def predict_on_batch(self, shown):
        self.asked += 1
        lines, columns = np.nonzero(shown[0, ..., 0] < 150)
        box = [columns.min(), lines.min(), columns.max() + 1, lines.max() + 1]
        maps = answer(maps_of([box], [1], size=shown.shape[1:3]))
        maps[..., 1] *= 0.9 if columns.mean() < shown.shape[2] / 2 else 0.3
        return maps[np.newaxis]


def test_flipped_looks_agree_on_the_box_and_share_their_doubts():
    photograph = plain()
    photograph[31:64, 12:41] = 60
    once, four_times = Sees_a_dark_cell(), Sees_a_dark_cell()
    for stand_in, ways, score in ((once, 1, 0.9), (four_times, 4, 0.6)):
        boxes = Detector(stand_in, {**ABOUT, "ways": ways}).detect([photograph], red_cell=52)
        # The surest: where the centre lies between two places, flipping finds it in the other.
        np.testing.assert_allclose(boxes.loc[0, BOX].astype(float), [12, 31, 41, 64], atol=1e-3)
        assert boxes["score"].sum() == pytest.approx(score, abs=1e-6)
    assert (once.asked, four_times.asked) == (1, 4)


def test_nothing_asked_nothing_answered():
    boxes = Detector(Stand_in(), ABOUT).detect([])
    assert len(boxes) == 0 and boxes.columns.tolist() == detector.COLUMNS
    empty = Detector(Stand_in(np.empty((0, 4)), ()), ABOUT).detect([plain()], red_cell=RED_CELL)
    assert len(empty) == 0


def test_counted_are_boxes_that_reach_the_threshold_of_their_kind():
    about = {**ABOUT, "thresholds": {"RBC": 0.2, "WBC": 0.6, "Platelets": 0.9}}
    boxes = detector._tabulate("a", [0, 0, 1, 1, 2], np.tile(BOXES[0], (5, 1)),
                               [0.2, 0.1, 0.7, 0.5, 0.8])  # fmt: skip
    assert Detector(None, about).counted(boxes)["score"].tolist() == [0.2, 0.7]


def test_what_cannot_be_read_is_named(tmp_path):
    asked = Detector(Stand_in(), ABOUT)
    with pytest.raises(UnreadableImage, match="nowhere"):
        asked.detect([tmp_path / "nowhere.jpeg"], red_cell=52)
    with pytest.raises(UnreadableImage, match="float64"):
        asked.detect([np.zeros((4, 4, 3))], red_cell=52)
    for wrong in (0, -3, "52", float("inf")):
        with pytest.raises(InvalidParameter, match="red_cell"):
            asked.detect([plain()], red_cell=wrong)
    with pytest.raises(InvalidParameter, match="yolo"):
        detector.load("yolo")


# Cells found and named: both networks know what they are shown

KNOWN = {
    10: [("RBC", 0, 0, 0.9), ("WBC", 20, 10, 0.95), ("WBC", 40, 40, 0.9)],
    20: [("RBC", 10, 10, 0.9)],
    30: [("WBC", 60, 0, 0.8)],
    40: [("WBC", 0, 50, 0.99), ("Platelets", 30, 30, 0.9), ("WBC", 0, 0, 0.99)],
}


def read(*greys, known=KNOWN):
    return reader_of(known).read([photograph(grey) for grey in greys], plain_smears.RED_CELL)


def test_every_white_cell_gets_the_answer_to_its_own_crop():
    tables = read(10, 20, 30, 40)
    assert [table["kind"].tolist() for table in tables] == [
        ["RBC", "WBC", "WBC"], ["RBC"], ["WBC"], ["WBC", "Platelets", "WBC"],
    ]  # fmt: skip
    named = [table["cell_type"].dropna().tolist() for table in tables]
    assert named == [["lymphocyte", "monocyte"], [], ["neutrophil"], ["eosinophil"] * 2]
    sure = [table["type_probability"].dropna().tolist() for table in tables]
    assert sure == [[0.91, 0.4], [], [0.91], [0.4, 0.91]]
    answered = [table["answered"].dropna().tolist() for table in tables]
    assert answered == [[True, False], [], [True], [False, True]]
    for table in tables:
        assert table.columns.tolist() == detector.READ_COLUMNS
        is_named = table["kind"] == "WBC"
        for column in ("cell_type", "type_probability", "answered", "probabilities"):
            assert table[column].notna().tolist() == is_named.tolist()
    # Of all types, and of none: what is not the most probable is shared alike by three others.
    assert tables[2]["probabilities"].tolist() == [[0.03, 0.03, 0.03, 0.91, 0, 0]]


def test_boxes_and_scores_are_the_detectors():
    (table,) = read(10)
    assert table[BOX].to_numpy().tolist() == [[0, 0, 10, 10], [20, 10, 30, 20], [40, 40, 50, 50]]
    assert table["score"].tolist() == [0.9, 0.95, 0.9]


@pytest.mark.parametrize(
    ("kind", "score", "expected"),
    [
        # Each kind has a threshold of its own: 0.5, 0.6 and 0.3.
        ("RBC", 0.56, (True, False)),
        ("RBC", 0.54, (True, True)),
        ("RBC", 0.5, (True, True)),
        ("RBC", 0.46, (False, True)),
        ("RBC", 0.44, None),
        ("WBC", 0.66, (True, False)),
        ("WBC", 0.58, (False, True)),
        ("WBC", 0.54, None),
        ("Platelets", 0.36, (True, False)),
        ("Platelets", 0.26, (False, True)),
        ("Platelets", 0.24, None),
    ],
)
def test_what_is_near_the_threshold_of_its_kind_is_unsure(kind, score, expected):
    (table,) = read(10, known={10: [(kind, 20, 10, score)]})
    found = list(zip(table["counted"], table["unsure"], strict=True))
    assert found == ([] if expected is None else [expected])


def test_a_white_cell_without_an_answer_is_unsure_however_surely_it_is_one():
    (table,) = read(10, known={10: [("WBC", 0, 0, 1.0), ("WBC", 0, 50, 1.0)]})
    assert table["answered"].tolist() == [True, False]
    assert table["unsure"].tolist() == [False, True]
    assert table["counted"].all()


def test_a_white_cell_that_is_not_counted_is_not_named():
    (table,) = read(10, known={10: [("WBC", 20, 10, 0.55), ("WBC", 60, 10, 0.95)]})
    assert table["cell_type"].fillna("-").tolist() == ["-", "neutrophil"]
    assert table["counted"].tolist() == [False, True]


def test_photographs_without_white_cells_or_without_any():
    tables = read(20, 99)
    assert [len(table) for table in tables] == [1, 0]
    assert all(table.columns.tolist() == detector.READ_COLUMNS for table in tables)
    assert tables[0][["cell_type", "type_probability", "answered"]].isna().all(axis=None)
    assert read() == []


def test_one_answer_does_not_depend_on_what_else_is_asked():
    alone = [read(grey)[0] for grey in KNOWN]
    for table, together in zip(alone, read(*KNOWN), strict=True):
        assert table.equals(together)


# Photographs that are refused


def test_photographs_smaller_than_a_red_cell_are_refused():
    scale.check_photograph(photograph(200, (20, 30)), 20)
    for size, red_cell in (((19, 30), 20), ((30, 19), 20), ((9, 30), None)):
        with pytest.raises(UnreadableImage, match=f"{size[1]}×{size[0]} pixels"):
            scale.check_photograph(photograph(200, size), red_cell)


def test_without_a_scale_it_is_asked_for():
    with pytest.raises(InvalidParameter, match="diameter in pixels as red_cell"):
        scale.check_photograph(photograph(200), None)


@pytest.mark.parametrize("ways", [0, 3, -1, "2", 2.5, [1]])
def test_ways_to_look_are_checked_before_a_network_is_loaded(ways):
    with pytest.raises(InvalidParameter, match=r"ways=.*Expected one of 1, 2, 4"):
        detector.load_reader(ways)


# Runs and what ships


@pytest.fixture
def run(tmp_path, small):
    """A run that was never trained, but is complete."""
    chosen = training.DetectorSettings(epochs=1, filters=(4, 4, 8, 8))
    here = backend.Runtime("CPU", "tensorflow", 1, "a test.")
    described = recipes.describe(chosen, {"digest": "-"}, here)
    run = folders.start("untrained", tmp_path, described)
    small.save_weights(run.folder / "model.weights.h5")
    (run.folder / "model.keras").write_bytes(b"not asked for")
    folders.write_history(run, run.history.reindex([0]))
    return run


@pytest.mark.slow
def test_a_run_can_be_asked_and_shipped(run, small, tmp_path, monkeypatch):
    of_run = detector.of_run(run, {"iou": 0.45})
    assert of_run.about["iou"] == 0.45 and of_run.about["filters"] == [4, 4, 8, 8]
    (tmp_path / "other.int8.onnx").write_bytes(b"of the weights before")
    detector.ship(of_run, tmp_path, "other")
    monkeypatch.setattr(resources, "files", lambda package: tmp_path)
    (tmp_path / "weights").symlink_to(tmp_path)
    shipped = detector.load("other")
    assert shipped.about == of_run.about
    shown = np.random.default_rng(0).integers(0, 256, (1, 48, 64, 3), np.uint8)
    expected = Detector(small, ABOUT).maps(shown)
    np.testing.assert_allclose(shipped.maps(shown), expected, atol=1e-5)


def test_a_broken_or_other_run_is_named(run):
    (run.folder / "model.weights.h5").write_bytes(b"nothing")
    with pytest.raises(BrokenRun, match=r"model\.weights\.h5"):
        detector.of_run(run)
    run.settings["training"]["recipe"] = "compact"
    with pytest.raises(BrokenRun, match="compact"):
        detector.of_run(run)


# The weights that ship


WEIGHTS = resources.files("wbc_helpers") / "weights"


def test_what_ships_is_small_and_its_card_tells_its_scores():
    about = json.loads((WEIGHTS / "detector.json").read_text())
    assert (WEIGHTS / "detector.weights.h5").stat().st_size <= 8_000_000
    card = (WEIGHTS / "detector.md").read_text()
    low, high = about["scores"]["test"]["map_50_interval"]
    assert f"{about['scores']['test']['map_50']:.3f} ({low:.3f}–{high:.3f})" in card
    assert about["training"]["epochs"] > 1 and about["data_digest"]


@pytest.fixture(scope="module")
def drawn(sample_folder):
    boxed = annotations.read_annotations(sample_folder)
    return boxed, boxed.photographs["path"].head(4).tolist()


def test_what_ships_finds_drawn_white_cells_that_it_never_saw(drawn):
    boxed, paths = drawn
    shipped = detector.load()
    found = shipped.counted(shipped.detect(paths))
    names = [Path(path).stem for path in paths]
    truth = boxed.boxes[boxed.boxes["photograph"].isin(names)].reset_index(drop=True)
    assert detection.match_boxes(truth, found).counts.loc["WBC", "recall"] >= 0.75


def test_of_the_unsure_boxes_as_many_are_told_as_asked_for(drawn):
    shipped, paths = detector.load(), drawn[1][:2]
    for all_boxes, surer in zip(
        shipped.detect_each(paths, 104), shipped.detect_each(paths, 104, 0.2), strict=True
    ):
        expected = all_boxes[all_boxes["score"] >= 0.2].reset_index(drop=True)
        assert 0 < len(expected) < len(all_boxes)
        pd.testing.assert_frame_equal(surer, expected)


@pytest.mark.slow
def test_what_ships_finds_the_same_on_jax(drawn, tmp_path):
    pytest.importorskip("jax")
    _, paths = drawn
    told = f"""
from wbc_helpers.count import detector
detector.load(keras=True).detect({paths!r}, 104).to_csv({str(tmp_path / "jax.csv")!r}, index=False)
"""
    environment = {**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", told], check=True, env=environment, cwd=ROOT)
    there = pd.read_csv(tmp_path / "jax.csv")
    here = detector.load(exact=True).detect(paths, 104)
    sure = [table[table["score"] > 0.1].reset_index(drop=True) for table in (there, here)]
    assert len(sure[0]) == len(sure[1]) > 20
    np.testing.assert_allclose(sure[0][[*BOX, "score"]], sure[1][[*BOX, "score"]], atol=0.05)


@pytest.mark.slow
@pytest.mark.real_data
def test_what_ships_scores_on_photographs_what_its_card_says(real_txl):
    boxed = splits.read_boxed(real_txl)
    parts = training.deal(real_txl, boxed)
    shipped = detector.load()
    judged = training.judge(shipped, boxed, parts.index[parts == "test"].tolist())
    stated = shipped.about["scores"]["test"]
    assert judged.scores.map_50 == pytest.approx(stated["map_50"], abs=0.005)
    assert judged.table["mae"].to_dict() == pytest.approx(stated["mean_absolute_error"], abs=0.1)
