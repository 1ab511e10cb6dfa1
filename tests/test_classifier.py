"""The weights that ship, and a classifier made of a run: on drawn cells, never on real ones."""

import json
from importlib import resources

import cv2
import numpy as np
import pytest
from PIL import Image

from wbc_helpers import cells, classifier, models, predictions, runs, runtime, settings
from wbc_helpers.errors import BrokenRun, InvalidParameter, UnreadableImage

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
    return classifier.load()


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
    told = answers[list(predictions.PROBABILITIES)]
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
    with pytest.raises(InvalidParameter, match="Too few red cells"):
        shipped.classify([alone])
    assert shipped.classify([alone], red_cell=np.float32(52))["found"].all()


def test_turning_the_image_does_not_change_the_answer(shipped):
    ways = [np.ascontiguousarray(np.rot90(smear(), quarter)) for quarter in range(4)]
    answers = shipped.classify([*ways, np.ascontiguousarray(smear()[:, ::-1])], red_cell=52)
    told = answers[list(predictions.PROBABILITIES)].to_numpy()
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


@pytest.fixture
def run(tmp_path):
    """A run of the compact recipe that was never trained, but is complete."""
    chosen = settings.TrainingSettings(recipe="compact", epochs=1, image_size=(32, 32))
    here = runtime.Runtime("CPU", "tensorflow", 1, "a test.")
    run = runs.start("untrained", tmp_path, settings.describe(chosen, {"digest": "-"}, here))
    models.build("compact", (32, 32), None).save(run.folder / "model.keras")
    runs.write_history(run, run.history.reindex([0]))
    return run


def test_a_run_can_be_asked_and_shipped(run, tmp_path, monkeypatch):
    of_run = classifier.of_run(run)
    before = of_run.classify([smear()], red_cell=52)
    classifier.ship(run, {"temperature": 1.0, "threshold": 0.5}, tmp_path, "other")
    monkeypatch.setattr(classifier.resources, "files", lambda package: tmp_path)
    (tmp_path / "weights").symlink_to(tmp_path)
    after = classifier.load("other").classify([smear()], red_cell=52)
    columns = list(predictions.PROBABILITIES)
    np.testing.assert_allclose(after[columns], before[columns], atol=1e-5)


def test_a_run_of_whole_images_cannot_be_asked(run):
    run.settings["training"]["recipe"] = "paper"
    with pytest.raises(InvalidParameter, match="whole images"):
        classifier.of_run(run)


def test_a_broken_model_is_named(run):
    (run.folder / "model.keras").write_bytes(b"nothing")
    with pytest.raises(BrokenRun):
        classifier.of_run(run)
