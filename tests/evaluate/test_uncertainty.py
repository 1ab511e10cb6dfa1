"""Intervals against closed forms: independent images, and images that are copies."""

import time

import numpy as np
import pandas as pd
import pytest

from wbc_helpers import cells
from wbc_helpers.errors import InvalidParameter
from wbc_helpers.evaluate import classification, uncertainty
from wbc_helpers.evaluate.classification import evaluate

Z = 1.959964
CERTAIN = np.eye(4)


def answers(n_right, n, n_copies=1):
    """Answers of which `n_right[k]` of `n[k]` photographs of type k are right, in copies."""
    types = np.repeat(np.arange(4), n)
    right = np.concatenate([np.arange(size) < hits for hits, size in zip(n_right, n, strict=True)])
    predicted = np.where(right, types, (types + 1) % 4)
    names = np.array(cells.NAMES)[np.repeat(types, n_copies)]
    evaluation = evaluate(names, CERTAIN[np.repeat(predicted, n_copies)])
    return evaluation, np.repeat(np.arange(len(types)), n_copies)


def random_answers(n_images, n_photographs, seed=0, skill=1.0):
    generator = np.random.default_rng(seed)
    names = np.arange(n_images) % n_photographs
    types = names % 4
    scores = generator.normal(size=(n_photographs, 4))[names] + generator.normal(size=(n_images, 4))
    scores[np.arange(n_images), types] += skill
    scores = np.exp(scores)
    return evaluate(np.array(cells.NAMES)[types], scores / scores.sum(axis=1, keepdims=True)), names


def test_values_are_those_of_the_evaluation():
    evaluation, names = random_answers(300, 40)
    table = uncertainty.intervals(evaluation, names, n_resamples=50)
    scores = classification.summary(evaluation)
    for name in uncertainty.POOLED:
        assert table.loc[name, "value"] == pytest.approx(scores[name], abs=1e-12)
    for name in cells.NAMES:
        recall = scores["per_class"][name]["recall"]
        assert table.loc[f"recall of {name}", "value"] == pytest.approx(recall)
    assert tuple(table.index) == uncertainty.SCORES


def test_areas_with_ties_are_those_of_scikit_learn():
    generator = np.random.default_rng(1)
    probabilities = generator.integers(1, 4, (200, 4)).astype(float)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    evaluation = evaluate(np.array(cells.NAMES)[generator.integers(0, 4, 200)], probabilities)
    table = uncertainty.intervals(evaluation, np.arange(200), n_resamples=1)
    scores = classification.summary(evaluation)
    for name in ("roc_auc", "average_precision"):
        assert table.loc[name, "value"] == pytest.approx(scores[name], abs=1e-12)


def test_resampled_areas_are_those_of_repeated_images():
    evaluation, _ = random_answers(60, 20)
    weights = np.random.default_rng(2).integers(0, 3, (1, 60))
    types = np.array([cells.NAMES.index(name) for name in evaluation.true_types])
    found = uncertainty._Judge(evaluation, types).scores(weights.astype(float))[0]
    repeated = np.repeat(np.arange(60), weights[0])
    drawn = evaluate(evaluation.true_types[repeated], evaluation.probabilities[repeated])
    scores = classification.summary(drawn)
    expected = [scores[name] for name in uncertainty.POOLED]
    np.testing.assert_allclose(found[: len(expected)], expected, atol=1e-12)


def test_independent_images_have_the_binomial_interval():
    n_right, n = np.array([60, 90, 50, 40]), np.array([100, 100, 100, 100])
    evaluation, names = answers(n_right, n)
    table = uncertainty.intervals(evaluation, names, n_resamples=4000)
    rate = n_right / n
    variance = rate * (1 - rate) / (n - 1)
    expected = {
        **{f"recall of {name}": np.sqrt(variance[i]) for i, name in enumerate(cells.NAMES)},
        # Types are of equal size, and drawn each by itself.
        "balanced_accuracy": np.sqrt(variance.sum()) / 4,
        "accuracy": np.sqrt(variance.sum()) / 4,
    }
    for name, deviation in expected.items():
        row = table.loc[name]
        for prefix in ("", "naive_"):
            width = row[f"{prefix}high"] - row[f"{prefix}low"]
            assert width == pytest.approx(2 * Z * deviation, rel=0.08)
            centre = (row[f"{prefix}high"] + row[f"{prefix}low"]) / 2
            assert centre == pytest.approx(row["value"], abs=0.3 * deviation)
        assert row["widening"] == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("n_copies", [4, pytest.param(16, marks=pytest.mark.slow)])
def test_copies_widen_the_interval_by_the_design_effect(n_copies):
    evaluation, names = answers([15, 22, 12, 10], [25, 25, 25, 25], n_copies)
    table = uncertainty.intervals(evaluation, names, n_resamples=3000)
    # The design effect of m copies is m: the interval grows by its root. The few photographs
    # count as 24 of 25 degrees of freedom.
    expected = np.sqrt(n_copies * 25 / 24)
    for name in ("accuracy", "balanced_accuracy"):
        assert table.loc[name, "widening"] == pytest.approx(expected, rel=0.08)


def test_variance_is_not_too_small_for_four_photographs():
    # Two of four right: unbiased variance 0.25 / 3, where the plain bootstrap has 0.25 / 4.
    strata = np.zeros(4, int)
    generator = np.random.default_rng(0)
    weights = np.concatenate(list(uncertainty._weights(strata, 20000, generator)))
    assert weights.sum(axis=1) == pytest.approx(4)
    recall = weights @ [1, 1, 0, 0] / 4
    assert recall.mean() == pytest.approx(0.5, abs=0.01)
    assert recall.var() == pytest.approx(0.25 / 3, rel=0.03)


def test_one_photograph_of_a_type_has_no_interval():
    evaluation, names = answers([1, 3, 3, 3], [1, 6, 6, 6], n_copies=5)
    table = uncertainty.intervals(evaluation, names, n_resamples=100)
    assert table.loc["accuracy", ["low", "high"]].isna().all()
    assert table.loc["recall of eosinophil", ["low", "high"]].isna().all()
    assert table.loc["recall of monocyte", ["low", "high"]].notna().all()
    assert table.loc["accuracy", ["naive_low", "naive_high"]].notna().all()


def test_absent_type_is_left_out():
    evaluation, names = answers([3, 3, 3, 0], [6, 6, 6, 0], n_copies=2)
    table = uncertainty.intervals(evaluation, names, n_resamples=100)
    assert table.loc["recall of neutrophil"].isna().all()
    assert table.drop("recall of neutrophil")[["value", "low", "high"]].notna().all(axis=None)


def test_group_of_two_types_is_drawn_whole():
    evaluation, names = answers([3, 3, 3, 3], [6, 6, 6, 6], n_copies=2)
    names[names == 6] = 0
    table = uncertainty.intervals(evaluation, names, n_resamples=100)
    assert table[["low", "high"]].notna().all(axis=None)


def test_seed_gives_the_same_and_another_another():
    evaluation, names = random_answers(200, 30)
    first, again, other = (
        uncertainty.intervals(evaluation, names, n_resamples=100, seed=seed) for seed in (0, 0, 1)
    )
    assert first.equals(again)
    assert not first.equals(other)


def test_a_classifier_does_not_differ_from_itself():
    evaluation, names = random_answers(200, 30)
    table = uncertainty.compare(evaluation, evaluation, names, n_resamples=100)
    assert (table[["difference", "low", "high", "naive_low", "naive_high"]] == 0).all(axis=None)
    assert (table["in_favour"] == 0.5).all()


def test_paired_difference_has_the_interval_of_the_pairs():
    # 20 of 100 photographs of each type are right for the second alone, 5 for the first alone.
    types = np.repeat(np.arange(4), 100)
    number = np.tile(np.arange(100), 4)
    first_right = (number < 5) | (number >= 60)
    second_right = (number >= 5) & (number < 25) | (number >= 60)
    first, second = (
        evaluate(np.array(cells.NAMES)[types], CERTAIN[np.where(right, types, (types + 1) % 4)])
        for right in (first_right, second_right)
    )
    table = uncertainty.compare(first, second, np.arange(400), n_resamples=4000)
    row = table.loc["accuracy"]
    assert (row["first"], row["second"]) == pytest.approx((0.45, 0.60))
    assert row["difference"] == pytest.approx(0.15)
    # McNemar: each photograph adds +1, 0 or -1.
    deviation = np.sqrt((0.25 - 0.15**2) / 99 / 4)
    assert row["high"] - row["low"] == pytest.approx(2 * Z * deviation, rel=0.08)
    assert row["in_favour"] > 0.99
    backwards = uncertainty.compare(second, first, np.arange(400), n_resamples=4000)
    assert backwards.loc["accuracy", "low"] == pytest.approx(-row["high"])
    assert backwards.loc["accuracy", "in_favour"] == pytest.approx(1 - row["in_favour"])


def test_other_images_cannot_be_compared():
    first, names = random_answers(40, 10)
    second = evaluate(first.true_types[::-1], first.probabilities)
    with pytest.raises(InvalidParameter, match="same images"):
        uncertainty.compare(first, second, names)


def comparison(difference, low, high):
    row = {"first": 0.5, "second": 0.5 + difference, "difference": difference}
    return pd.DataFrame([row | {"low": low, "high": high}], index=["balanced_accuracy"])


@pytest.mark.parametrize(
    ("difference", "low", "high", "expected"),
    [
        (0.1, 0.02, 0.18, "0.600 in balanced accuracy, old 0.500: a difference of +0.100, interval "
         "+0.020 to +0.180. On photographs like these, new is the better one."),
        (-0.1, -0.18, -0.02, "interval -0.180 to -0.020. On photographs like these, old is the"),
        (0.1, -0.02, 0.22, "to +0.220. These photographs do not tell the two apart."),
        (0.1, 1e-17, 0.2, "do not tell the two apart."),
        (-0.1, -0.2, -1e-17, "do not tell the two apart."),
        (0.1, np.nan, np.nan, "a difference of +0.100. With one photograph of a type there is no"),
        (np.nan, np.nan, np.nan, "The balanced accuracy is undefined for at least one of old and"),
    ],
)  # fmt: skip
def test_a_comparison_is_read_for_what_it_allows(difference, low, high, expected):
    compared = comparison(difference, low, high)
    assert expected in uncertainty.in_words(compared, "balanced_accuracy", "old", "new")


def test_a_classifier_is_not_told_apart_from_itself_in_words():
    evaluation, names = random_answers(200, 30)
    table = uncertainty.compare(evaluation, evaluation, names, n_resamples=100)
    for score in uncertainty.SCORES:
        assert "do not tell" in uncertainty.in_words(table, score, "first", "second")
    with pytest.raises(InvalidParameter, match="no score 'speed'"):
        uncertainty.in_words(table, "speed", "first", "second")


@pytest.mark.parametrize(
    "wrong", [{"n_resamples": 0}, {"n_resamples": 2.5}, {"confidence": 1}, {"confidence": 95}]
)
def test_numbers_out_of_range_are_refused(wrong):
    evaluation, names = random_answers(40, 10)
    with pytest.raises(InvalidParameter, match="No interval"):
        uncertainty.intervals(evaluation, names, **wrong)


@pytest.mark.slow
def test_two_thousand_resamples_of_the_test_images_are_quick():
    evaluation, names = random_answers(2487, 71)
    started = time.process_time()
    uncertainty.intervals(evaluation, names)
    assert time.process_time() - started < 4
