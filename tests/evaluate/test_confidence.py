"""Calibration of scorers whose miscalibration is known; abstention against curves by hand."""

import json
import math

import numpy as np
import pytest

from wbc_helpers import cells
from wbc_helpers.errors import BrokenRun, DataNotFound, InvalidParameter
from wbc_helpers.evaluate import confidence
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
    assert confidence.expected_calibration_error(sure(0.9, 6, 10)) == pytest.approx(0.3)
    assert confidence.expected_calibration_error(sure(0.75, 3, 4)) == pytest.approx(0)
    # 10 images off by 0.3 and 30 off by 0.1, in other bins.
    both = evaluate(
        [*sure(0.9, 6, 10).true_types, *sure(0.6, 21, 30).true_types],
        [*sure(0.9, 6, 10).probabilities, *sure(0.6, 21, 30).probabilities],
    )
    assert confidence.expected_calibration_error(both) == pytest.approx(0.25 * 0.3 + 0.75 * 0.1)


def test_calibrated_scorer_has_next_to_no_error(calibrated):
    assert confidence.expected_calibration_error(calibrated) < 0.01
    bins = confidence.reliability(calibrated)
    assert bins["n_images"].sum() == 20_000
    # No answer of four types is less sure than a quarter.
    assert bins["n_images"][:2].tolist() == [0, 0]
    assert bins["accuracy"][:2].isna().all()


def test_bins_exclude_their_lower_and_include_their_upper_edge():
    bins = confidence.reliability(sure(1.0, 1, 1), n_bins=4)
    assert bins["n_images"].tolist() == [0, 0, 0, 1]
    assert confidence.reliability(sure(0.75, 1, 1), 4)["n_images"].tolist() == [0, 0, 1, 0]
    assert confidence.reliability(sure(0.751, 1, 1), 4)["n_images"].tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize("n_bins", [0, 2.5, True])
def test_bins_that_cannot_be_made_are_refused(n_bins):
    with pytest.raises(InvalidParameter, match="n_bins"):
        confidence.reliability(sure(0.9, 1, 1), n_bins)


def test_brier_and_log_loss_by_hand():
    quarter = evaluate(NAMES[:1], [[0.25] * 4])
    assert confidence.brier(quarter) == pytest.approx(0.75)
    assert confidence.log_loss(quarter) == pytest.approx(np.log(4))
    assert confidence.brier(sure(1.0, 3, 4)) == pytest.approx(2 / 4)
    assert confidence.log_loss(sure(1.0, 4, 4)) == 0
    assert np.isfinite(confidence.log_loss(sure(1.0, 0, 1)))
    assert confidence.brier(sure(0.8, 1, 2)) == pytest.approx((2 * 0.2**2 + 2 * 0.8**2) / 2)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_known_temperature_is_found(calibrated, temperature):
    distorted = confidence.with_temperature(calibrated, 1 / temperature)
    fitted = confidence.fit_temperature(distorted)
    assert fitted.temperature == pytest.approx(temperature, rel=0.03)
    assert fitted.loss_after <= fitted.loss_before
    mended = confidence.with_temperature(distorted, fitted.temperature)
    assert confidence.expected_calibration_error(mended) < 0.015
    assert confidence.log_loss(mended) == pytest.approx(fitted.loss_after)


def test_temperature_in_closed_form():
    # Sure by logits ±a with accuracy 0.8: best where a / T = log 4, over two types.
    fitted = confidence.fit_temperature(sure(0.99, 8, 10))
    assert fitted.temperature == pytest.approx(np.log(99) / np.log(4), rel=1e-3)


def test_scaling_keeps_every_answer(calibrated):
    scaled = confidence.with_temperature(calibrated, 3)
    same = scaled.probabilities.argmax(axis=1) == calibrated.probabilities.argmax(axis=1)
    assert same.all()
    assert scaled.probabilities.sum(axis=1) == pytest.approx(1)
    once = confidence.apply_temperature([[0.8, 0.2, 0, 0]], 2)
    np.testing.assert_allclose(once, [[2 / 3, 1 / 3, 0, 0]], atol=1e-12)


def test_all_right_ends_at_the_limit():
    fitted = confidence.fit_temperature(sure(0.7, 5, 5))
    assert fitted.temperature == pytest.approx(confidence.TEMPERATURES[0], rel=0.01)


@pytest.mark.parametrize("temperature", [0, -1, np.nan, np.inf])
def test_impossible_temperatures_are_refused(temperature):
    with pytest.raises(InvalidParameter, match="temperature"):
        confidence.apply_temperature([[0.5, 0.5, 0, 0]], temperature)


def test_calibration_is_kept_with_the_run(tmp_path):
    fitted = confidence.fit_temperature(sure(0.9, 6, 10), split="grouped")
    path = confidence.write_calibration(
        tmp_path, fitted, test={"before": confidence.summary(sure(0.9, 1, 4))}
    )
    assert confidence.read_calibration(tmp_path) == fitted
    content = json.loads(path.read_text())
    assert (content["split"], content["n_images"]) == ("grouped", 10)
    assert content["test"]["before"]["accuracy"] == 0.25


def test_missing_and_damaged_calibration_is_named(tmp_path):
    with pytest.raises(DataNotFound, match="04_evaluate"):
        confidence.read_calibration(tmp_path)
    for text in ("{", "[]", '{"format": 99}', '{"format": 1, "temperature": 1.0}'):
        (tmp_path / "calibration.json").write_text(text)
        with pytest.raises(BrokenRun, match="damaged"):
            confidence.read_calibration(tmp_path)


# Answering only where it is sure


def answered(confidences, right):
    """Eosinophils, answered with these confidences."""
    rows = [
        [p, 1 - p, 0, 0] if hit else [1 - p, p, 0, 0]
        for p, hit in zip(confidences, right, strict=True)
    ]
    return evaluate([NAMES[0]] * len(rows), rows)


@pytest.fixture
def five_images():
    return answered([0.95, 0.9, 0.8, 0.7, 0.6], [True, True, False, True, False])


def simulate(generator, n_photographs, n_each, spread):
    """Images whose photographs differ by `spread`; all exchangeable between photographs."""
    types = generator.integers(0, 4, n_photographs)
    logits = generator.normal(scale=spread, size=(n_photographs, 1, 4))
    logits = logits + generator.normal(scale=0.5, size=(n_photographs, n_each, 4))
    logits[np.arange(n_photographs), :, types] += 1
    scores = np.exp(logits).reshape(-1, 4)
    names = np.repeat(np.arange(n_photographs), n_each)
    return evaluate(NAMES[types[names]], scores / scores.sum(axis=1, keepdims=True)), names


def test_curve_by_hand(five_images):
    curve = confidence.risk_coverage(five_images)
    assert curve.threshold.tolist() == [0.95, 0.9, 0.8, 0.7, 0.6]
    assert curve.coverage.tolist() == pytest.approx([0.2, 0.4, 0.6, 0.8, 1])
    assert curve.risk.tolist() == pytest.approx([0, 0, 1 / 3, 1 / 4, 2 / 5])
    assert curve.area == pytest.approx((1 / 3 + 1 / 4 + 2 / 5) / 5)


def test_equal_confidences_are_answered_together():
    curve = confidence.risk_coverage(answered([0.9, 0.7, 0.7, 0.7], [True, False, True, True]))
    assert curve.coverage.tolist() == [0.25, 1]
    assert curve.risk.tolist() == [0, 0.25]
    # A confidence that says nothing has the error rate as its area.
    flat = confidence.risk_coverage(answered([0.7] * 4, [True, False, True, True]))
    assert flat.area == 0.25


@pytest.mark.parametrize(
    ("wanted", "threshold", "coverage", "error"),
    [(0, 0.9, 0.4, 0), (0.25, 0.7, 0.8, 0.25), (0.3, 0.7, 0.8, 0.25), (0.4, 0.6, 1, 0.4)],
)
def test_threshold_answers_most_at_the_wanted_rate(five_images, wanted, threshold, coverage, error):
    chosen = confidence.choose_threshold(five_images, wanted)
    found = (chosen.threshold, chosen.coverage, chosen.error)
    assert found == pytest.approx((threshold, coverage, error))
    assert chosen.attainable
    row = confidence.answer(five_images, chosen.threshold).loc["all"]
    assert (row["coverage"], row["error"]) == pytest.approx((coverage, error))


def test_unattainable_rate_answers_nothing():
    always_wrong = answered([0.9, 0.8], [False, True])
    chosen = confidence.choose_threshold(always_wrong, 0.1)
    assert not chosen.attainable
    assert (chosen.threshold, chosen.coverage, chosen.error) == (math.inf, 0, None)
    row = confidence.answer(always_wrong, chosen.threshold).loc["all"]
    assert (row["n_answered"], row["coverage"]) == (0, 0)
    assert math.isnan(row["error"])


def test_refusals_are_counted_by_type():
    certain = np.eye(4)[[0, 0, 1, 3]]
    certain[1] = [0.6, 0.4, 0, 0]
    evaluation = evaluate(NAMES[[0, 0, 1, 1]], certain)
    table = confidence.answer(evaluation, 0.9)
    assert table.index.tolist() == [*cells.NAMES, "all"]
    assert table["n_images"].tolist() == [2, 2, 0, 0, 4]
    assert table["n_answered"].tolist() == [1, 2, 0, 0, 3]
    assert table.loc["eosinophil", ["coverage", "error"]].tolist() == [0.5, 0]
    assert table.loc["lymphocyte", ["coverage", "error"]].tolist() == [1, 0.5]
    assert table.loc["monocyte", ["coverage", "error"]].isna().all()


@pytest.mark.parametrize("wanted", [-0.1, 1, math.nan])
def test_impossible_error_rates_are_refused(five_images, wanted):
    with pytest.raises(InvalidParameter, match="wanted_error"):
        confidence.choose_threshold(five_images, wanted)
    with pytest.raises(InvalidParameter, match="error_rate"):
        confidence.fit_sets(five_images, wanted)


def test_threshold_that_is_no_number_is_refused(five_images):
    with pytest.raises(InvalidParameter, match="NaN"):
        confidence.answer(five_images, math.nan)


def test_least_probability_is_the_conformal_quantile():
    # Nine images: the ceil(10 · 0.8) = 8th most probable true type.
    right = answered(np.arange(0.55, 1, 0.05), [True] * 9)
    rule = confidence.fit_sets(right, 0.2)
    assert rule.least_probability == pytest.approx(0.6)
    assert confidence.fit_sets(right, 0.1).least_probability == pytest.approx(0.55)
    assert rule.n_units == 9


def test_too_few_units_give_all_types():
    rule = confidence.fit_sets(answered([0.9] * 8, [True] * 8), 0.1)
    assert not rule.attainable
    measured = confidence.measure_sets(answered([0.9], [False]), rule)
    assert measured.loc["all", ["coverage", "mean_size"]].tolist() == [1, 4]
    assert confidence.fit_sets(answered([0.9] * 9, [True] * 9), 0.1).attainable
    # Nine images of three photographs are three units.
    photographs = np.repeat(list("abc"), 3)
    assert not confidence.fit_sets(answered([0.9] * 9, [True] * 9), 0.1, photographs).attainable


def test_sets_are_measured_by_hand():
    evaluation = evaluate(
        NAMES[[0, 1, 2]], [[0.5, 0.5, 0, 0], [0.7, 0.2, 0.1, 0], [0.25, 0.25, 0.25, 0.25]]
    )
    rule = confidence.ConformalSets(0.3, 0.1, 100)
    np.testing.assert_array_equal(confidence.sets(evaluation, rule).sum(axis=1), [2, 1, 0])
    table = confidence.measure_sets(evaluation, rule)
    everyone = table.loc["all", ["n_images", "coverage", "mean_size", "empty", "single"]]
    assert everyone.tolist() == pytest.approx([3, 1 / 3, 1, 1 / 3, 1 / 3])
    assert table.loc["lymphocyte", "coverage"] == 0
    assert math.isnan(table.loc["neutrophil", "coverage"])
    # The first two of one photograph: it counts as much as the third.
    table = confidence.measure_sets(evaluation, rule, ["a", "a", "b"])
    assert table.loc["all", "coverage"] == pytest.approx(1 / 4)
    assert table.loc["all", "mean_size"] == pytest.approx(3 / 4)


@pytest.mark.parametrize("error_rate", [0.05, 0.1, 0.3])
def test_coverage_of_exchangeable_images_is_as_promised(error_rate):
    generator = np.random.default_rng(0)
    other, _ = simulate(generator, 5000, 1, 1)
    coverage = []
    for _ in range(30):
        validation, _ = simulate(generator, 500, 1, 1)
        rule = confidence.fit_sets(validation, error_rate)
        coverage.append(confidence.measure_sets(other, rule).loc["all", "coverage"])
    # As promised, and above it by at most 1 in 501; ± three standard errors.
    assert np.mean(coverage) == pytest.approx(1 - error_rate, abs=0.022)
    assert np.mean(coverage) >= 1 - error_rate - 0.015


def test_promise_for_new_photographs_needs_photographs():
    generator = np.random.default_rng(0)
    other, _ = simulate(generator, 5000, 1, 2)
    types = [cells.NAMES.index(name) for name in other.true_types]
    kept = {"photographs": [], "images": []}
    for _ in range(100):
        validation, names = simulate(generator, 12, 10, 2)
        for how, units in (("photographs", names), ("images", None)):
            rule = confidence.fit_sets(validation, 0.1, units)
            kept[how].append(confidence.sets(other, rule)[range(5000), types].mean())
    assert np.mean(kept["photographs"]) >= 0.9 - 0.01
    # Taking 120 images for as many photographs falls short of what it promises.
    assert np.mean(kept["images"]) < 0.9 - 0.01


def test_measured_beside_wanted():
    generator = np.random.default_rng(0)
    validation, names = simulate(generator, 100, 3, 1)
    table = confidence.coverage_by_rate(
        validation, validation, [0.2, 0.002], names, photographs=names
    )
    assert table["wanted"].unique().tolist() == [0.8, 0.998]
    assert table["cell_type"].tolist() == [*cells.NAMES, "all"] * 2
    assert table["attainable"].tolist() == [True] * 5 + [False] * 5
    everyone = table[table["cell_type"] == "all"]["coverage"].tolist()
    assert everyone == pytest.approx([0.808, 1], abs=0.005)
