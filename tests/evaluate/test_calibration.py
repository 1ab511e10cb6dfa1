"""Calibration of scorers whose miscalibration is known."""

import json

import numpy as np
import pytest

from wbc_helpers import cells
from wbc_helpers.errors import BrokenRun, DataNotFound, InvalidParameter
from wbc_helpers.evaluate import calibration
from wbc_helpers.evaluate.classification import evaluate

NAMES = np.array(cells.NAMES)


@pytest.fixture(scope="module")
def calibrated():
    """Types drawn from the very probabilities that are given."""
    generator = np.random.default_rng(0)
    logits = generator.normal(scale=1.5, size=(20_000, 4))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    drawn = (generator.random((20_000, 1)) > probabilities.cumsum(axis=1)).sum(axis=1)
    return evaluate(NAMES[np.minimum(drawn, 3)], probabilities)


def sure(confidence, n_right, n):
    """`n` images of one type, answered with one confidence, `n_right` of them rightly."""
    row = [confidence, 1 - confidence, 0, 0]
    return evaluate([NAMES[0]] * n_right + [NAMES[1]] * (n - n_right), [row] * n)


def test_error_of_a_scorer_that_is_too_sure():
    assert calibration.expected_calibration_error(sure(0.9, 6, 10)) == pytest.approx(0.3)
    assert calibration.expected_calibration_error(sure(0.75, 3, 4)) == pytest.approx(0)
    # 10 images off by 0.3 and 30 off by 0.1, in other bins.
    both = evaluate(
        [*sure(0.9, 6, 10).true_types, *sure(0.6, 21, 30).true_types],
        [*sure(0.9, 6, 10).probabilities, *sure(0.6, 21, 30).probabilities],
    )
    assert calibration.expected_calibration_error(both) == pytest.approx(0.25 * 0.3 + 0.75 * 0.1)


def test_calibrated_scorer_has_next_to_no_error(calibrated):
    assert calibration.expected_calibration_error(calibrated) < 0.01
    bins = calibration.reliability(calibrated)
    assert bins["n_images"].sum() == 20_000
    # No answer of four types is less sure than a quarter.
    assert bins["n_images"][:2].tolist() == [0, 0]
    assert bins["accuracy"][:2].isna().all()


def test_bins_exclude_their_lower_and_include_their_upper_edge():
    bins = calibration.reliability(sure(1.0, 1, 1), n_bins=4)
    assert bins["n_images"].tolist() == [0, 0, 0, 1]
    assert calibration.reliability(sure(0.75, 1, 1), 4)["n_images"].tolist() == [0, 0, 1, 0]
    assert calibration.reliability(sure(0.751, 1, 1), 4)["n_images"].tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize("n_bins", [0, 2.5, True])
def test_bins_that_cannot_be_made_are_refused(n_bins):
    with pytest.raises(InvalidParameter, match="n_bins"):
        calibration.reliability(sure(0.9, 1, 1), n_bins)


def test_brier_and_log_loss_by_hand():
    quarter = evaluate(NAMES[:1], [[0.25] * 4])
    assert calibration.brier(quarter) == pytest.approx(0.75)
    assert calibration.log_loss(quarter) == pytest.approx(np.log(4))
    assert calibration.brier(sure(1.0, 3, 4)) == pytest.approx(2 / 4)
    assert calibration.log_loss(sure(1.0, 4, 4)) == 0
    assert np.isfinite(calibration.log_loss(sure(1.0, 0, 1)))
    assert calibration.brier(sure(0.8, 1, 2)) == pytest.approx((2 * 0.2**2 + 2 * 0.8**2) / 2)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_known_temperature_is_found(calibrated, temperature):
    distorted = calibration.with_temperature(calibrated, 1 / temperature)
    fitted = calibration.fit_temperature(distorted)
    assert fitted.temperature == pytest.approx(temperature, rel=0.03)
    assert fitted.loss_after <= fitted.loss_before
    assert not fitted.at_limit
    mended = calibration.with_temperature(distorted, fitted.temperature)
    assert calibration.expected_calibration_error(mended) < 0.015
    assert calibration.log_loss(mended) == pytest.approx(fitted.loss_after)


def test_temperature_in_closed_form():
    # Sure by logits ±a with accuracy 0.8: best where a / T = log 4, over two types.
    fitted = calibration.fit_temperature(sure(0.99, 8, 10))
    assert fitted.temperature == pytest.approx(np.log(99) / np.log(4), rel=1e-3)


def test_scaling_keeps_every_answer(calibrated):
    scaled = calibration.with_temperature(calibrated, 3)
    same = scaled.probabilities.argmax(axis=1) == calibrated.probabilities.argmax(axis=1)
    assert same.all()
    assert scaled.probabilities.sum(axis=1) == pytest.approx(1)
    once = calibration.apply_temperature([[0.8, 0.2, 0, 0]], 2)
    np.testing.assert_allclose(once, [[2 / 3, 1 / 3, 0, 0]], atol=1e-12)


def test_all_right_ends_at_the_limit():
    fitted = calibration.fit_temperature(sure(0.7, 5, 5))
    assert fitted.at_limit
    assert fitted.temperature == pytest.approx(calibration.TEMPERATURES[0], rel=0.01)


@pytest.mark.parametrize("temperature", [0, -1, np.nan, np.inf])
def test_impossible_temperatures_are_refused(temperature):
    with pytest.raises(InvalidParameter, match="temperature"):
        calibration.apply_temperature([[0.5, 0.5, 0, 0]], temperature)


def test_calibration_is_kept_with_the_run(tmp_path):
    fitted = calibration.fit_temperature(sure(0.9, 6, 10), split="grouped")
    path = calibration.write_calibration(
        tmp_path, fitted, test={"before": calibration.summary(sure(0.9, 1, 4))}
    )
    assert calibration.read_calibration(tmp_path) == fitted
    content = json.loads(path.read_text())
    assert (content["split"], content["n_images"]) == ("grouped", 10)
    assert content["test"]["before"]["accuracy"] == 0.25


def test_missing_and_damaged_calibration_is_named(tmp_path):
    with pytest.raises(DataNotFound, match="04_evaluate"):
        calibration.read_calibration(tmp_path)
    for text in ("{", "[]", '{"format": 99}', '{"format": 1, "temperature": 1.0}'):
        (tmp_path / "calibration.json").write_text(text)
        with pytest.raises(BrokenRun, match="damaged"):
            calibration.read_calibration(tmp_path)
