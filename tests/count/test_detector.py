"""The detector's loss and answers, where a stand-in for the network draws maps of known boxes."""

import json
import os
import subprocess
import sys
from importlib import resources
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from keras import ops
from PIL import Image

from wbc_helpers.cells import BOX
from wbc_helpers.count import detector, network, training
from wbc_helpers.count.detector import Detector
from wbc_helpers.count.maps import N_KINDS, STRIDE, draw_maps
from wbc_helpers.data import annotations, splits
from wbc_helpers.errors import BrokenRun, InvalidParameter, UnreadableImage
from wbc_helpers.evaluate import detection
from wbc_helpers.pixels import stain
from wbc_helpers.pixels.scale import RED_CELL
from wbc_helpers.runs import backend, folders, recipes

ROOT = Path(__file__).resolve().parents[2]
SIZE = (96, 128)
ABOUT = {"iou": 0.5, "thresholds": {"RBC": 0.5, "WBC": 0.5, "Platelets": 0.5}}
BOXES = np.array([[10, 20, 60, 70], [70, 10, 110, 60], [20, 76, 36, 92]], float)


def maps_of(corners, kinds, unsure=None, size=SIZE):
    unsure = np.zeros(len(corners), bool) if unsure is None else np.array(unsure)
    return draw_maps(np.array(corners, float), np.array(kinds), unsure, size)


def answer(truth):
    """Maps that are right and sure: 1 at centres, 0 elsewhere."""
    maps = truth[..., : N_KINDS + 4].copy()
    maps[..., :N_KINDS] = maps[..., :N_KINDS] == 1
    return maps


def loss(truth, maps):
    return ops.convert_to_numpy(network.centre_loss(truth[np.newaxis], maps[np.newaxis])).item()


# The loss, by hand


def test_perfect_maps_cost_nothing():
    truth = maps_of(BOXES, [0, 1, 2])
    assert loss(truth, answer(truth)) == pytest.approx(0, abs=1e-5)


def test_an_unsure_centre_costs_by_how_unsure_it_is():
    truth = maps_of(BOXES[:1], [0])
    maps = answer(truth)
    maps[maps[..., 0] == 1, 0] = 0.5
    # (1 - 0.5)² · -log 0.5, for one cell.
    assert loss(truth, maps) == pytest.approx(0.25 * np.log(2), abs=1e-4)


def test_a_false_centre_costs_less_the_nearer_it_is_to_a_true_one():
    truth = maps_of(BOXES[:1], [0])
    line, column = np.argwhere(truth[..., 0] == 1)[0]
    far, near = answer(truth), answer(truth)
    far[2, 2, 0], near[line, column + 1, 0] = 0.5, 0.5
    assert loss(truth, far) == pytest.approx(0.25 * np.log(2), abs=1e-4)
    hill = truth[line, column + 1, 0]
    assert loss(truth, near) == pytest.approx((1 - hill) ** 4 * 0.25 * np.log(2), abs=1e-4)


def test_wrong_sides_and_offsets_cost_as_parts_of_the_side():
    truth = maps_of([[20, 20, 60, 60]], [0])
    wider, moved = answer(truth), answer(truth)
    wider[..., N_KINDS] += np.log(1.1)
    assert loss(truth, wider) == pytest.approx(np.log(1.1), abs=1e-4)
    moved[..., N_KINDS + 2] += 2  # places, that is 4 of 40 pixels
    assert loss(truth, moved) == pytest.approx(2 * STRIDE / 40, abs=1e-4)


def test_what_is_unsure_costs_nothing_whatever_is_said():
    truth = maps_of(BOXES[:2], [0, 1], unsure=[True, False])
    maps = answer(truth)
    maps[22, 17, 0] = 0.9
    assert truth[22, 17, 0] == -1
    assert loss(truth, maps) == pytest.approx(0, abs=1e-5)


def test_the_mean_over_a_batch_is_the_loss_per_cell():
    truth = np.stack([maps_of(BOXES, [0, 1, 2]), maps_of(BOXES[:1], [0])])
    maps = np.stack([answer(each) for each in truth])
    maps[..., :N_KINDS] *= 0.5
    each = ops.convert_to_numpy(network.centre_loss(truth, maps))
    assert each.mean() == pytest.approx(0.25 * np.log(2), abs=1e-4)


# The network


@pytest.fixture(scope="module")
def small():
    return network.centre_network((4, 4, 8, 8))


def test_the_network_takes_any_size_and_believes_in_nothing_at_first(small):
    for height, width in ((48, 64), (64, 48), (96, 96)):
        shown = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), np.uint8)
        maps = Detector(small, ABOUT).maps(shown)
        assert maps.shape == (2, height // STRIDE, width // STRIDE, N_KINDS + 4)
        assert maps[..., :N_KINDS].mean() < 0.1


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


def test_photographs_of_any_sizes_come_in_their_order_and_a_few_at_a_time():
    sizes = [(96, 128)] * (detector.AT_A_TIME + 1) + [(128, 96), (96, 128)]
    stand_in = Stand_in()
    boxes = Detector(stand_in, ABOUT).detect((plain(*size) for size in sizes), red_cell=RED_CELL)
    assert stand_in.asked == [detector.AT_A_TIME, 1, 1, 1]
    assert pd.unique(boxes["photograph"]).tolist() == [str(place) for place in range(len(sizes))]


def test_no_more_photographs_are_held_than_are_shown_together():
    drawn = []

    def endless():
        while True:
            drawn.append(1)
            yield plain()

    tables = Detector(Stand_in(), ABOUT).detect_each(endless(), red_cell=RED_CELL)
    for number in range(3 * detector.AT_A_TIME):
        assert len(next(tables)) == 3
        assert len(drawn) <= number + 1 + detector.AT_A_TIME


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


def test_a_run_can_be_asked_and_shipped(run, small, tmp_path, monkeypatch):
    of_run = detector.of_run(run, {"iou": 0.45})
    assert of_run.about["iou"] == 0.45 and of_run.about["filters"] == [4, 4, 8, 8]
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


@pytest.mark.slow
def test_what_ships_finds_the_same_on_jax(drawn, tmp_path):
    pytest.importorskip("jax")
    _, paths = drawn
    told = f"""
from wbc_helpers.count import detector
detector.load().detect({paths!r}, 104).to_csv({str(tmp_path / "jax.csv")!r}, index=False)
"""
    environment = {**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", told], check=True, env=environment, cwd=ROOT)
    there, here = pd.read_csv(tmp_path / "jax.csv"), detector.load().detect(paths, 104)
    sure = [table[table["score"] > 0.1].reset_index(drop=True) for table in (there, here)]
    assert len(sure[0]) == len(sure[1]) > 20
    np.testing.assert_allclose(sure[0][[*BOX, "score"]], sure[1][[*BOX, "score"]], atol=0.05)


@pytest.mark.slow
@pytest.mark.real_data
def test_what_ships_scores_on_photographs_what_its_card_says(real_bccd):
    boxed = annotations.read_annotations(real_bccd)
    lists = splits.read_lists(real_bccd)
    shipped = detector.load()
    judged = training.judge(shipped, boxed, lists.index[lists == "test"].tolist())
    stated = shipped.about["scores"]["test"]
    assert judged.scores.map_50 == pytest.approx(stated["map_50"], abs=0.005)
    assert judged.table["mae"].to_dict() == pytest.approx(stated["mean_absolute_error"], abs=0.1)
