"""Training a detector on a few small drawn smears, cut off and gone on with."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageDraw

from wbc_helpers import cells
from wbc_helpers.cells import BOX
from wbc_helpers.count import detector, training
from wbc_helpers.count.detector import N_KINDS, find_boxes
from wbc_helpers.count.training import DetectorSettings, SmearBatches
from wbc_helpers.data import annotations
from wbc_helpers.data.annotations import Annotations
from wbc_helpers.data.identity import identify
from wbc_helpers.errors import InvalidParameter
from wbc_helpers.pixels import scale, views
from wbc_helpers.pixels.scale import RED_CELL
from wbc_helpers.pixels.views import SmearViews
from wbc_helpers.runs import backend, folders, recipes
from wbc_helpers.runs.recorder import Recorder

pytestmark = [
    pytest.mark.usefixtures("eager"),
    pytest.mark.filterwarnings("ignore:Even though the `tf.config"),
]

SMALL = (96, 128)
CHOSEN = DetectorSettings(epochs=3, batch_size=2, filters=(4, 4))
PARTS = pd.Series({f"smear-{number}": "train" if number < 4 else "val" for number in range(6)})


@pytest.fixture(scope="module", autouse=True)
def frame():
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(training, "FRAME", SMALL)
        patched.setattr(training, "VIEW", (96, 96))
        patched.setattr(training, "EVERY", 2)
        yield


@pytest.fixture(scope="module")
def boxed(tmp_path_factory):
    """Six smears of one red cell, 50 pixels wide, and one platelet, 16 wide."""
    folder, rng = tmp_path_factory.mktemp("smears"), np.random.default_rng(0)
    boxes, photographs = [], []
    for name in PARTS.index:
        drawn = Image.new("RGB", SMALL[::-1], (225, 215, 228))
        for kind, side, color in (("RBC", 50, (200, 130, 140)), ("Platelets", 16, (120, 80, 170))):
            x, y = (int(each) for each in rng.integers(4, (74, 42)))
            ImageDraw.Draw(drawn).ellipse([x, y, x + side - 1, y + side - 1], fill=color)
            boxes.append((name, kind, x, y, x + side, y + side, *SMALL[::-1]))
        drawn.save(folder / f"{name}.png")
        photographs.append((name, str(folder / f"{name}.png"), *SMALL[::-1]))
    table = pd.DataFrame(boxes, columns=["photograph", "kind", *BOX, "width", "height"])
    table["kind"] = pd.Categorical(table["kind"], categories=list(cells.KIND_NAMES))
    columns = ["photograph", "path", "width", "height"]
    return Annotations(
        table.astype(dict.fromkeys(BOX, float)),
        pd.DataFrame(),
        pd.DataFrame(photographs, columns=columns),
    )


def begin(name, folder, chosen=CHOSEN):
    here = backend.Runtime("CPU", "tensorflow", 1, "a test.")
    return folders.start(name, folder, recipes.describe(chosen, {"digest": "x"}, here))


def train(boxed, name, folder, chosen=CHOSEN, parts=PARTS):
    return training.train(boxed, parts, begin(name, folder, chosen), verbose=0)


def scores(run):
    return run.history.drop(columns=["seconds", "peak_memory_bytes"])


# What is trained on


def test_red_cells_inside_the_frame_give_the_scale(boxed):
    assert scale.boxed_red_cell(boxed.boxes) == 50
    cut = boxed.boxes.copy()
    cut.loc[cut["kind"] == "RBC", "x_max"] = SMALL[1]
    with pytest.raises(InvalidParameter, match="RBC"):
        scale.boxed_red_cell(cut)


def test_validation_shows_each_photograph_once_as_it_is(boxed):
    batches = SmearBatches(boxed, boxed.photographs, 4)
    assert [len(batches[index][0]) for index in range(len(batches))] == [4, 2]
    shown, maps = batches[1]
    assert shown.shape == (2, *SMALL, 3) and shown.dtype == np.uint8
    assert maps.shape == (2, SMALL[0] // 2, SMALL[1] // 2, N_KINDS + 5)
    truth = boxed.boxes[boxed.boxes["photograph"] == "smear-4"]
    corners, kinds, _ = find_boxes(maps[0], iou=0.5)
    # Red cells of 50 pixels become 52 wide, about the middle of the frame.
    middle = np.array(SMALL[::-1] * 2) / 2
    enlarged = (truth[BOX].to_numpy() - middle) * RED_CELL / 50 + middle
    np.testing.assert_allclose(corners, np.clip(enlarged, 0, middle * 2), atol=1e-3)
    assert kinds.tolist() == truth["kind"].cat.codes.tolist()


def test_batches_depend_on_seed_epoch_and_number_alone(boxed):
    def make(seed=0, epoch=0):
        batches = SmearBatches(boxed, boxed.photographs, 2, SmearViews(), seed)
        batches.epoch = epoch
        return batches

    first = make()
    assert len(first) == 3
    second = make()
    # In another order, with others in between.
    drawn = {index: second[index] for index in (2, 0, 1)}
    for index in range(3):
        for one, same in zip(first[index], drawn[index], strict=True):
            np.testing.assert_array_equal(one, same)
    for other in (make(seed=1), make(epoch=1)):
        assert (other[0][0] != first[0][0]).any()


def test_views_are_square_and_a_batch_mixes_how_they_lie(boxed):
    shown, maps = SmearBatches(boxed, boxed.photographs, 6, SmearViews(), 0)[0]
    assert shown.shape == (6, 96, 96, 3) and maps.shape[:3] == (6, 48, 48)


def told(boxed, **columns):
    """The same boxes, and more that is known of their photographs."""
    return Annotations(boxed.boxes, boxed.problems, boxed.photographs.assign(**columns))


def test_each_laboratory_is_shown_as_often_as_another(boxed):
    here = told(boxed, laboratory=["near"] * 5 + ["far"])
    batches = SmearBatches(here, here.photographs, 2, SmearViews())
    for epoch in range(4):
        batches.epoch = epoch
        order = batches._order()
        assert len(order) == 6 and (order == 5).sum() == 3


def test_each_laboratory_has_its_own_scale(boxed):
    boxes = boxed.boxes.copy()
    far = boxes["photograph"] == "smear-5"
    boxes.loc[far, BOX] /= 2
    here = Annotations(boxes, boxed.problems, told(boxed, laboratory=[*"aaaaab"]).photographs)
    scales = SmearBatches(here, here.photographs, 2).scales
    assert scales.round(3).tolist() == [1.04] * 5 + [2.08]


def test_where_a_kind_is_boxed_in_part_its_background_teaches_nothing(boxed):
    here = told(boxed, incomplete="Platelets")
    _, maps = SmearBatches(here, here.photographs, 1)[0]
    assert set(np.unique(maps[..., 2])) == {-1, 1} and (maps[..., 0] >= 0).all()


def test_a_laboratory_can_be_left_out_and_validation_learned_from(boxed, tmp_path):
    here = told(boxed, laboratory=["near"] * 3 + ["far"] * 3)
    chosen = DetectorSettings(
        epochs=1, batch_size=2, filters=(4, 4), without=("near",), train_on=("train", "val")
    )
    run = train(here, "far", tmp_path, chosen)
    assert run.is_complete and run.history["val_loss"].isna().all()
    chosen = DetectorSettings(epochs=1, filters=(4, 4), without=("near", "far"))
    with pytest.raises(InvalidParameter, match="No annotated photograph"):
        train(here, "none", tmp_path, chosen)


def test_a_photograph_without_boxes_teaches_background(boxed):
    bare = Annotations(
        boxed.boxes[boxed.boxes["photograph"] != "smear-0"], boxed.problems, boxed.photographs
    )
    _, maps = SmearBatches(bare, bare.photographs, 2)[0]
    assert not maps[0].any() and maps[1].any()


# Runs


@pytest.fixture(scope="module")
def whole(boxed, frame, tmp_path_factory):
    """A run that nothing disturbed; tests only read it."""
    return train(boxed, "whole", tmp_path_factory.mktemp("runs"))


def test_a_run_folder_holds_all_that_is_needed(boxed, whole):
    assert whole.is_complete
    names = {entry.name for entry in whole.folder.iterdir()}
    assert names == {
        "settings.json", "history.csv", "split.csv", "model.keras", "model.weights.h5"
    }  # fmt: skip
    assert whole.history.columns.tolist() == list(training.HISTORY_COLUMNS)
    assert whole.history["loss"].notna().all()
    assert whole.history["val_loss"].notna().tolist() == [False, True, False]
    assert whole.split.to_dict() == PARTS.to_dict()
    boxes = detector.of_run(whole).detect(boxed.photographs["path"], red_cell=50)
    assert set(boxes["photograph"]) <= set(PARTS.index)


@pytest.mark.slow
def test_an_interrupted_run_ends_as_if_it_had_not_been(boxed, whole, tmp_path, monkeypatch):
    through = Recorder.on_epoch_begin

    def interrupted(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt
        through(self, epoch, logs)

    with monkeypatch.context() as context:
        context.setattr(Recorder, "on_epoch_begin", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(boxed, "disturbed", tmp_path)
    halfway = folders.open_run("disturbed", tmp_path)
    assert len(halfway.history) == 1 and not halfway.is_complete
    assert scores(train(boxed, "disturbed", tmp_path)).equals(scores(whole))


def test_a_finished_run_is_not_trained_again(boxed, whole, monkeypatch):
    monkeypatch.setattr(training, "centre_network", None)
    assert train(boxed, "whole", whole.folder.parent).history.equals(whole.history)


def test_nothing_to_train_on_is_refused(boxed, tmp_path):
    with pytest.raises(InvalidParameter, match="No annotated photograph"):
        train(boxed, "none", tmp_path, parts=PARTS.replace("train", "test"))
    with pytest.raises(InvalidParameter, match="3 devices"):
        training.train(boxed, PARTS, begin("three", tmp_path), n_devices=3)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0), ("batch_size", 1.5), ("learning_rate", 2), ("weight_decay", -1),
        ("filters", (8,)), ("filters", (8, 0)), ("train_on", ()), ("train_on", ("all",)),
        ("seed", -1), ("blocks", 0),
    ],
)  # fmt: skip
def test_settings_out_of_range_are_named(name, value):
    with pytest.raises(InvalidParameter, match=name):
        DetectorSettings(**{name: value})


@pytest.mark.slow
def test_a_minute_of_training_finds_most_drawn_cells(
    sample_folder, compiled, tmp_path, monkeypatch
):
    monkeypatch.setattr(training, "FRAME", (240, 320))
    identity = identify(sample_folder, holds="photographs")
    chosen = DetectorSettings(epochs=30, batch_size=4, filters=(8, 16, 32, 48))
    run = training.train_new(chosen, identity, "drawn", tmp_path, verbose=0)
    assert run.folder.parent.name == folders.DETECTORS
    settings = json.loads((run.folder / "settings.json").read_text())
    assert settings["data"]["drawn"] is True
    boxed = annotations.read_annotations(sample_folder)
    held_out = run.split.index[run.split == "val"].tolist()
    chosen, _ = training.choose_reading(detector.of_run(run), boxed, held_out)
    counts = training.judge(chosen, boxed, held_out).table
    assert counts["recall"]["RBC"] > 0.5 and counts["precision"]["RBC"] > 0.5


def test_still_views_are_those_of_validation():
    assert SmearBatches.__init__.__defaults__[0] is views.STILL
