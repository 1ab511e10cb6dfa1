"""Grad-CAM and occlusion on networks whose answer depends on a known patch."""

import importlib.util
import os
import subprocess
import sys

import cv2
import keras
import numpy as np
import pytest
from keras import layers

from wbc_helpers import cells
from wbc_helpers.classify import judging, networks
from wbc_helpers.errors import InvalidParameter
from wbc_helpers.pixels import images
from wbc_helpers.runs import answering

SMEAR, STAIN = (220, 180, 190), (60, 20, 200)
SIZE = (24, 32)
PATCH = np.s_[4:8, 24:28]
LYMPHOCYTE, NEUTROPHIL = cells.NAMES.index("lymphocyte"), cells.NAMES.index("neutrophil")


@pytest.fixture
def pixels():
    """Two images: one with a stained patch near its upper right corner, one without."""
    pixels = np.full((2, *SIZE, 3), SMEAR, np.uint8)
    pixels[0][PATCH] = STAIN
    return pixels


@pytest.fixture
def masks():
    masks = np.zeros((2, *SIZE), bool)
    masks[0][PATCH] = True
    return masks


def blueness_reader(end="softmax", strength=40.0):
    """Lymphocyte if blue exceeds red anywhere, else neutrophil; seen in fields of 4×4 pixels."""
    smears = keras.Input((*SIZE, 3), dtype="uint8")
    hidden = layers.Rescaling(1 / 255)(smears)
    hidden = layers.AveragePooling2D(4)(hidden)
    hidden = layers.Conv2D(2, 1, name="colours")(hidden)
    hidden = layers.ReLU(name="blue_and_red")(hidden)
    hidden = layers.GlobalAveragePooling2D()(hidden)
    if end == "own layer":
        answer = layers.Softmax()(layers.Dense(4, name="scores")(hidden))
    else:
        answer = layers.Dense(4, activation=end, name="scores")(hidden)
    model = keras.Model(smears, answer)
    # Outputs of the convolution: blue - red, red - blue.
    kernel = np.array([[-1, 1], [0, 0], [1, -1]], "float32")[None, None]
    model.get_layer("colours").set_weights([kernel, np.zeros(2, "float32")])
    weights, bias = np.zeros((2, 4), "float32"), np.zeros(4, "float32")
    weights[0, LYMPHOCYTE], bias[NEUTROPHIL] = strength * 48, 0.25 * strength
    model.get_layer("scores").set_weights([weights, bias])
    return model


def field_map(row, column):
    """What a map of 6×8 fields with one hot field becomes at full size."""
    coarse = np.zeros((6, 8), np.float32)
    coarse[row, column] = 1
    resized = cv2.resize(coarse, SIZE[::-1], interpolation=cv2.INTER_LINEAR)
    return resized / resized.max()


@pytest.mark.parametrize("end", ["softmax", "own layer", "linear", "sigmoid"])
def test_the_map_peaks_on_the_patch_that_decides(pixels, end):
    strength = 1.0 if end == "sigmoid" else 40.0
    model = blueness_reader(end, strength)
    found = judging.grad_cam(model, pixels, LYMPHOCYTE)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0], field_map(1, 6), atol=1e-5)
    # Without the patch nothing speaks for a lymphocyte.
    assert not found[1].any()


def test_a_network_that_is_perfectly_sure_still_has_a_map(pixels):
    model = blueness_reader(strength=1e4)
    assert answering.predict(model, pixels)[0, LYMPHOCYTE] == 1
    assert judging.grad_cam(model, pixels)[0].max() == 1


def test_the_default_is_the_most_probable_type_of_each_image(pixels):
    model = blueness_reader()
    each = judging.grad_cam(model, pixels, [LYMPHOCYTE, NEUTROPHIL])
    np.testing.assert_array_equal(judging.grad_cam(model, pixels), each)
    np.testing.assert_array_equal(judging.grad_cam(model, pixels, batch_size=1), each)


def position_reader(seed=0):
    smears = keras.Input((12, 16, 3), dtype="uint8")
    hidden = layers.Rescaling(1 / 255)(smears)
    hidden = layers.Conv2D(3, 4, strides=4, activation="relu", name="maps")(hidden)
    answer = layers.Dense(4, activation="softmax", name="answer")(layers.Flatten()(hidden))
    model = keras.Model(smears, answer)
    generator = np.random.default_rng(seed)
    model.set_weights([generator.normal(0, 1, w.shape) for w in model.get_weights()])
    return model


def test_the_map_is_that_of_the_papers_equations():
    model = position_reader()
    pixels = np.random.default_rng(1).integers(0, 256, (5, 12, 16, 3), dtype=np.uint8)
    types = np.array([0, 1, 2, 3, 0])
    # By hand: after `maps` all is linear, so the gradient is the dense kernel itself.
    kernel, bias = model.get_layer("maps").get_weights()
    fields = (pixels / 255).reshape(5, 3, 4, 4, 4, 3)
    maps = np.maximum(np.einsum("nyixjc,ijck->nyxk", fields, kernel) + bias, 0)
    slopes = model.get_layer("answer").get_weights()[0].reshape(3, 4, 3, 4)
    weights = slopes.mean(axis=(0, 1))[:, types].T
    coarse = np.maximum(np.einsum("nyxk,nk->nyx", maps, weights), 0).astype(np.float32)
    expected = np.array([cv2.resize(each, (16, 12)) for each in coarse])
    highest = expected.max(axis=(1, 2), keepdims=True)
    assert (highest > 0).any()
    expected = expected / np.where(highest > 0, highest, 1)
    np.testing.assert_allclose(judging.grad_cam(model, pixels, types), expected, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_other_backends_give_the_same(backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    check = (
        "import keras, pytest, sys; code = pytest.main(['-q', '-p', 'no:cacheprovider', '-k', "
        f"'equations or patch_that_decides or shortcut', {__file__!r}]); "
        f"sys.exit(code or keras.backend.backend() != {backend!r})"
    )
    done = subprocess.run(
        [sys.executable, "-c", check],
        env={**os.environ, "KERAS_BACKEND": backend},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "6 passed" in done.stdout


def test_the_papers_network_is_mapped_after_its_last_relu():
    generator = np.random.default_rng(0)
    statistics = images.PixelStatistics(
        np.full((48, 64, 3), 128, "float32"), np.full((48, 64, 3), 50, "float32"), 10
    )
    model = networks.build("paper", (48, 64), statistics)
    for layer in model.layers:
        # Keras draws other weights each time, with which sometimes nothing speaks for a type.
        if isinstance(layer, layers.Conv2D | layers.Dense):
            drawn = [generator.normal(0, 0.3, w.shape) for w in layer.get_weights()]
            # What the last maps show speaks for every type, since no dense weight is negative.
            signed = isinstance(layer, layers.Conv2D)
            layer.set_weights(drawn if signed else [np.abs(weights) for weights in drawn])
    pixels = generator.integers(0, 256, (3, 48, 64, 3), dtype=np.uint8)
    cams = judging.grad_cam(model, pixels, [0, 1, 2])
    assert cams.shape == (3, 48, 64)
    assert cams.min() >= 0 and cams.max() == 1
    last_relu = [each.name for each in model.layers if isinstance(each, layers.ReLU)][-1]
    np.testing.assert_array_equal(cams, judging.grad_cam(model, pixels, [0, 1, 2], last_relu))
    last_convolution = [each.name for each in model.layers if "conv" in each.name][-1]
    assert (cams != judging.grad_cam(model, pixels, [0, 1, 2], last_convolution)).any()


def test_a_shortcut_is_mapped_where_the_paths_have_met(pixels):
    smears = keras.Input((*SIZE, 3), dtype="uint8")
    first = layers.Conv2D(4, 3, padding="same")(layers.Rescaling(1 / 255)(smears))
    second = layers.Conv2D(4, 3, padding="same", activation="relu", name="bypassed")(first)
    met = layers.Add(name="met")([first, second])
    answer = layers.Dense(4, activation="softmax")(layers.GlobalAveragePooling2D()(met))
    model = keras.Model(smears, answer)
    np.testing.assert_array_equal(
        judging.grad_cam(model, pixels, 0), judging.grad_cam(model, pixels, 0, "met")
    )
    with pytest.raises(InvalidParameter, match=r"'bypassed'.*met"):
        judging.grad_cam(model, pixels, layer="bypassed")


def test_what_cannot_be_mapped_is_refused(pixels):
    model = blueness_reader()
    with pytest.raises(InvalidParameter, match=r"'none_such'.*blue_and_red"):
        judging.grad_cam(model, pixels, layer="none_such")
    with pytest.raises(InvalidParameter, match="'scores'"):
        judging.grad_cam(model, pixels, layer="scores")
    for wrong in (4, -1, [0.5, 0.5]):
        with pytest.raises(InvalidParameter, match="0 to 3"):
            judging.grad_cam(model, pixels, wrong)


def test_weight_and_area_of_a_map_known_by_construction(masks):
    cams = np.zeros((2, *SIZE), np.float32)
    cams[0][PATCH] = 1
    cams[0, 20, :8] = 0.5  # 16 on the cell, 4 off it
    measured = judging.weight_on_cell(cams, masks)
    assert measured.loc[0].tolist() == [0.8, 16 / (24 * 32), True]
    assert measured.loc[1].isna().all()
    all_zero = judging.weight_on_cell(np.zeros_like(cams), masks).loc[0]
    assert all_zero[["weight", "peak"]].isna().all() and all_zero["area"] > 0
    with pytest.raises(InvalidParameter, match="bool"):
        judging.weight_on_cell(cams, masks.astype(int))


def test_blanking_changes_the_patch_and_nothing_else(pixels, masks):
    pixels[0, -3:] = 0  # black fill, which is no smear colour
    occluded = judging.occlude(pixels, masks)
    assert occluded.rows.tolist() == [0]
    counts = (occluded.n_images, occluded.n_without_cell, occluded.n_without_room)
    assert counts == (2, 1, 0)
    untouched = pixels[0].copy()
    untouched[PATCH] = SMEAR
    np.testing.assert_array_equal(occluded.cell[0], untouched)


def test_the_background_patch_has_the_cells_shape_and_lies_off_cell_and_fill(masks):
    generator = np.random.default_rng(0)
    pixels = generator.integers(100, 250, (1, *SIZE, 3), dtype=np.uint8)
    pixels[0, :, :10] = 0
    mask = masks[:1].copy()
    mask[0, 7, 27] = False  # no rectangle
    ys, xs = np.nonzero(mask[0])
    places = set()
    for seed in range(30):
        occluded = judging.occlude(pixels, mask, seed)
        changed = (occluded.background[0] != pixels[0]).any(axis=-1)
        assert not (changed & mask[0]).any() and not changed[:, :10].any()
        y, x = np.nonzero(changed)
        places.add((y.min(), x.min()))
        if len(y) == len(ys):  # noise may have the smear's mean colour by chance
            np.testing.assert_array_equal(y - y.min(), ys - ys.min())
            np.testing.assert_array_equal(x - x.min(), xs - xs.min())
    assert len(places) > 10
    again = judging.occlude(pixels, mask, 29)
    np.testing.assert_array_equal(again.background, occluded.background)


def test_a_cell_with_no_room_for_its_shape_is_compared_with_as_much_background(masks):
    pixels = np.random.default_rng(0).integers(100, 250, (1, *SIZE, 3), dtype=np.uint8)
    pixels[0, :2] = 0
    mask = np.zeros_like(masks[:1])
    mask[0, 6:20, 8:26] = True  # 252 of 768 pixels, nowhere so much beside them
    occluded = judging.occlude(pixels, mask)
    assert occluded.rows.tolist() == [0] and occluded.n_without_room == 0
    changed = (occluded.background[0] != pixels[0]).any(axis=-1)
    # Noise may have the smear's mean colour by chance.
    assert 245 <= changed.sum() <= 252
    assert not (changed & mask[0]).any() and not changed[:2].any()


def test_a_cell_that_leaves_no_room_is_counted_not_forced(pixels, masks):
    masks[1, 2:-2, 4:-4] = True
    occluded = judging.occlude(pixels, masks)
    assert (occluded.rows.tolist(), occluded.n_without_cell, occluded.n_without_room) == ([0], 0, 1)
    with pytest.raises(InvalidParameter, match="1 leave no room"):
        alone = judging.occlude(pixels[1:], masks[1:])
        judging.answers_to(blueness_reader(), pixels[1:], ["neutrophil"], alone)


def test_blanking_what_decides_destroys_the_answer_and_nothing_else_does(pixels, masks):
    pixels, masks = np.repeat(pixels, 10, axis=0), np.repeat(masks, 10, axis=0)
    types = ["lymphocyte"] * 9 + ["monocyte"] + ["neutrophil"] * 10
    occluded = judging.occlude(pixels, masks)
    answers = judging.answers_to(blueness_reader(), pixels, types, occluded)
    assert len(answers) == 30 and answers["image"].unique().tolist() == list(range(10))
    summary = judging.summarise_occluded(answers)
    assert summary.index.tolist() == list(judging.CONDITIONS)
    assert summary["n_images"].tolist() == [10, 10, 10]
    assert summary["accuracy"].tolist() == [0.9, 0.9, 0]
    assert summary["kept"].tolist() == [1, 1, 0]
    assert summary.loc["untouched", "probability"] > 0.99
    assert summary.loc["background blanked", "probability"] > 0.99
    assert summary.loc["cell blanked", "probability"] < 0.01


def test_a_network_that_reads_something_else_is_found_out(pixels, masks):
    # What is taken for the cell is a corner that this network ignores.
    elsewhere = np.roll(masks, (12, -20), axis=(1, 2))
    pixels, elsewhere = np.repeat(pixels[:1], 40, axis=0), np.repeat(elsewhere[:1], 40, axis=0)
    occluded = judging.occlude(pixels, elsewhere)
    answers = judging.answers_to(blueness_reader(), pixels, ["lymphocyte"] * 40, occluded)
    assert judging.summarise_occluded(answers).loc["cell blanked", "accuracy"] == 1


def test_other_images_than_those_blanked_are_refused(pixels, masks):
    with pytest.raises(InvalidParameter, match="same images"):
        judging.answers_to(
            blueness_reader(), pixels[:1], ["lymphocyte"], judging.occlude(pixels, masks)
        )
