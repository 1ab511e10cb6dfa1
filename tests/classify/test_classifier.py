"""The weights that ship, and a classifier made of a run: on drawn cells, never on real ones."""

import json
from importlib import resources

import cv2
import numpy as np
import pytest
from PIL import Image

from wbc_helpers import cells
from wbc_helpers.classify import classifier, networks
from wbc_helpers.errors import BrokenRun, InvalidParameter, UnreadableImage
from wbc_helpers.evaluate import classification
from wbc_helpers.pixels import stain, white_cells
from wbc_helpers.runs import backend, folders, recipes

SMEAR = (225, 215, 228)


def smear(nucleus=True):
    drawn = np.full((240, 320, 3), SMEAR, np.uint8)
    for x in range(30, 320, 65):
        for y in (30, 210):
            cv2.circle(drawn, (x, y), 26, (205, 130, 140), -1, cv2.LINE_AA)
    if nucleus:
        cv2.circle(drawn, (160, 120), 24, (110, 70, 180), -1, cv2.LINE_AA)
    return drawn


@pytest.fixture(scope="module")
def shipped():
    return classifier.load("compact")


def test_what_ships_is_small_and_says_what_it_is(shipped):
    folder = resources.files("wbc_helpers") / "weights"
    assert (folder / "compact.weights.h5").stat().st_size <= 2_000_000
    about = json.loads((folder / "compact.json").read_text())
    assert about == shipped.about
    assert about["recipe"] == "compact" and about["data_digest"] and about["temperature"] > 0
    assert 0 < about["threshold"] < 1
    card = (folder / "compact.md").read_text()
    for heading in ("Data", "For", "Not for", "Scores", "How it was chosen", "Failures", "Licence"):
        assert f"## {heading}" in card


def test_answers_come_one_row_an_image(shipped, tmp_path):
    path = tmp_path / "smear.png"
    Image.fromarray(smear()).save(path)
    answers = shipped.classify([path, smear(), smear(nucleus=False)], red_cell=52)
    assert answers["file"].tolist() == [str(path), "", ""]
    assert answers["found"].tolist() == [True, True, False]
    told = answers[list(classification.PROBABILITIES)]
    np.testing.assert_allclose(told[:2].sum(axis=1), 1, atol=1e-6)
    # File and array hold the same pixels.
    np.testing.assert_allclose(told.iloc[0], told.iloc[1], atol=1e-5)
    assert answers["cell_type"][0] == cells.NAMES[told.iloc[0].to_numpy().argmax()]
    assert answers["probability"][0] == told.iloc[0].max()
    # Nothing found is said, not guessed.
    assert answers.loc[2, ["cell_type", "probability", "answered"]].isna().all()
    threshold = shipped.about["threshold"]
    assert answers["answered"][0] == (answers["probability"][0] >= threshold)


def test_the_scale_is_told_from_the_red_cells_or_asked_for(shipped):
    twice = cv2.resize(smear(), None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR)
    answers = [shipped.classify([image]) for image in (smear(), twice)]
    assert answers[0]["cell_type"][0] == answers[1]["cell_type"][0]
    assert answers[0]["probability"][0] == pytest.approx(answers[1]["probability"][0], abs=0.2)
    alone = np.full((240, 320, 3), SMEAR, np.uint8)
    cv2.circle(alone, (160, 120), 24, (110, 70, 180), -1, cv2.LINE_AA)
    # A nucleus has the usual width of one.
    assert shipped.classify([alone])["found"].all()
    with pytest.raises(InvalidParameter, match="Too few red cells"):
        shipped.classify([np.full((240, 320, 3), SMEAR, np.uint8)])
    assert shipped.classify([alone], red_cell=np.float32(52))["found"].all()


def test_turning_the_image_does_not_change_the_answer(shipped):
    ways = [np.ascontiguousarray(np.rot90(smear(), quarter)) for quarter in range(4)]
    answers = shipped.classify([*ways, np.ascontiguousarray(smear()[:, ::-1])], red_cell=52)
    told = answers[list(classification.PROBABILITIES)].to_numpy()
    # But for how the cell is resampled into its crop.
    np.testing.assert_allclose(told, np.broadcast_to(told[0], told.shape), atol=0.05)


def test_answers_do_not_depend_on_how_many_are_asked_at_once(shipped, monkeypatch):
    many = [smear(), smear(nucleus=False), smear()]
    at_once = shipped.classify(many, red_cell=52)
    monkeypatch.setattr(classifier, "AT_A_TIME", 1)
    one_by_one = shipped.classify(many, red_cell=52)
    np.testing.assert_allclose(at_once["probability"], one_by_one["probability"], atol=1e-5)
    assert len(shipped.classify([])) == 0


def test_what_cannot_be_read_is_named(shipped, tmp_path):
    with pytest.raises(UnreadableImage, match="nowhere"):
        shipped.classify([tmp_path / "nowhere.jpeg"], red_cell=52)
    with pytest.raises(UnreadableImage, match="float64"):
        shipped.classify([np.zeros((4, 4, 3))], red_cell=52)
    with pytest.raises(UnreadableImage, match=r"\(4, 4\)"):
        shipped.classify([np.zeros((4, 4), np.uint8)], red_cell=52)
    # By whatever way the scale is found.
    for scale in ({}, {"red_cell": 52}):
        with pytest.raises(UnreadableImage, match=r"\(4, 4\)"):
            shipped.classify([np.zeros((4, 4), np.uint8)], **scale)
        for single in ("smear.jpg", tmp_path / "smear.jpg", smear()):
            with pytest.raises(InvalidParameter, match="into a list"):
                shipped.classify(single, **scale)
    for wrong in (0, -3, "52", True, 0.5, 5_000, float("inf")):
        with pytest.raises(InvalidParameter, match="red_cell"):
            shipped.classify([smear()], red_cell=wrong)
    with pytest.raises(InvalidParameter, match="compact"):
        classifier.load("resnet")


# Crops of boxed cells

SIZE, RED_CELL = 64, 52.0
PER_PIXEL = SIZE / (white_cells.SIDE * RED_CELL)  # of a crop, for each pixel of the photograph


@pytest.fixture
def cutter():
    """No network is asked for crops."""
    return classifier.Classifier(None, {"recipe": "compact", "image_size": [SIZE, SIZE]})


def centre_of(crop):
    """Where the green mark lies, in the crop's pixels from its middle, as (x, y)."""
    lines, columns = np.nonzero(crop[..., 1].astype(int) > crop[..., 2].astype(int) + 60)
    assert len(lines) > 4
    return columns.mean() - (SIZE - 1) / 2, lines.mean() - (SIZE - 1) / 2


def nuclei(*centres, mark):
    """Nuclei on a plain smear, and a green mark that no dye leaves, to be found in the crop."""
    drawn = np.full((240, 320, 3), SMEAR, np.uint8)
    for centre in centres:
        cv2.circle(drawn, centre, 24, (110, 70, 180), -1, cv2.LINE_AA)
    cv2.circle(drawn, mark, 5, (60, 200, 60), -1, cv2.LINE_AA)
    return drawn


def test_a_boxed_cell_is_centred_on_its_nucleus(cutter):
    # The mark lies 36 pixels to the left of the nucleus; the box reaches further right and down.
    drawn = nuclei((160, 120), mark=(124, 120))
    (crop,) = cutter.cut_boxed(drawn, np.array([[130.0, 90, 230, 190]]), RED_CELL)
    assert crop.shape == (SIZE, SIZE, 3) and crop.dtype == np.uint8
    assert centre_of(crop) == pytest.approx((-36 * PER_PIXEL, 0), abs=0.6)


def test_of_two_nuclei_in_a_box_the_nearer_to_its_middle_is_taken(cutter):
    drawn = nuclei((90, 120), (190, 120), mark=(140, 120))
    boxes = np.array([[60.0, 80, 200, 160], [80, 80, 220, 160]])
    left, right = cutter.cut_boxed(drawn, boxes, RED_CELL)
    assert centre_of(left) == pytest.approx((50 * PER_PIXEL, 0), abs=0.6)
    assert centre_of(right) == pytest.approx((-50 * PER_PIXEL, 0), abs=0.6)


def test_a_box_without_a_nucleus_is_cut_around_its_middle(cutter):
    # There is one in the photograph, but not in the box. Pixels 210 to 269 lie about 239.5.
    drawn = nuclei((90, 120), mark=(250, 130))
    (crop,) = cutter.cut_boxed(drawn, np.array([[210.0, 90, 270, 150]]), RED_CELL)
    expected = (10.5 * PER_PIXEL, 10.5 * PER_PIXEL)
    assert centre_of(crop) == pytest.approx(expected, abs=0.4)


def test_crops_of_boxes_are_of_one_scale_whatever_the_size_of_box_or_photograph(cutter):
    drawn = nuclei((160, 120), mark=(124, 120))
    boxes = np.array([[130.0, 90, 190, 150], [100, 60, 220, 180]])
    small, large = cutter.cut_boxed(drawn, boxes, RED_CELL)
    np.testing.assert_array_equal(small, large)
    twice = cv2.resize(drawn, None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR)
    (crop,) = cutter.cut_boxed(twice, 2 * boxes[:1], 2 * RED_CELL)
    assert centre_of(crop) == pytest.approx(centre_of(small), abs=0.6)


def test_beyond_the_edge_of_the_photograph_a_crop_is_background(cutter):
    drawn = nuclei((15, 120), mark=(51, 120))
    (crop,) = cutter.cut_boxed(drawn, np.array([[0.0, 90, 50, 150]]), RED_CELL)
    # 80.6 pixels reach from the middle to the edge of a crop, of which 65 lie outside.
    assert (crop[:, : int(62 * PER_PIXEL)] == stain.WHITE).all()
    assert (crop[SIZE // 2, int(70 * PER_PIXEL)] < stain.WHITE).any()


def test_no_boxes_no_crops(cutter):
    none = cutter.cut_boxed(smear(), np.empty((0, 4)), RED_CELL)
    assert none.shape == (0, SIZE, SIZE, 3)
    assert cutter.probabilities(none).shape == (0, len(cells.NAMES))


def test_a_boxed_cell_is_named_as_the_same_cell_alone_would_be(shipped):
    (crop,) = shipped.cut_boxed(smear(), np.array([[100.0, 80, 200, 160]]), 52)
    alone = shipped.classify([smear()], red_cell=52)[list(classification.PROBABILITIES)]
    np.testing.assert_allclose(
        shipped.probabilities(crop[np.newaxis]), alone.to_numpy(float), atol=1e-5
    )


@pytest.fixture
def run(tmp_path):
    """A run of the compact recipe that was never trained, but is complete."""
    chosen = recipes.TrainingSettings(recipe="compact", epochs=1, image_size=(32, 32))
    here = backend.Runtime("CPU", "tensorflow", 1, "a test.")
    run = folders.start("untrained", tmp_path, recipes.describe(chosen, {"digest": "-"}, here))
    networks.build("compact", (32, 32), None).save(run.folder / "model.keras")
    folders.write_history(run, run.history.reindex([0]))
    return run


def test_a_run_can_be_asked_and_shipped(run, tmp_path, monkeypatch):
    of_run = classifier.of_run(run)
    before = of_run.classify([smear()], red_cell=52)
    of_run.about.update(threshold=0.5)
    classifier.ship(of_run, tmp_path, "other")
    monkeypatch.setattr(resources, "files", lambda package: tmp_path)
    (tmp_path / "weights").symlink_to(tmp_path)
    after = classifier.load("other").classify([smear()], red_cell=52)
    columns = list(classification.PROBABILITIES)
    np.testing.assert_allclose(after[columns], before[columns], atol=1e-5)


def test_a_run_of_whole_images_cannot_be_asked(run):
    run.settings["training"]["recipe"] = "paper"
    with pytest.raises(InvalidParameter, match="whole images"):
        classifier.of_run(run)


def test_a_broken_model_is_named(run):
    (run.folder / "model.keras").write_bytes(b"nothing")
    with pytest.raises(BrokenRun):
        classifier.of_run(run)
