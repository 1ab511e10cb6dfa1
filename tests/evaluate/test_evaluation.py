"""Scores against numbers worked out by hand."""

import json
import math

import numpy as np
import pandas as pd
import pytest

from wbc_helpers import cells
from wbc_helpers.errors import InvalidParameter
from wbc_helpers.evaluate.classification import evaluate, most_confident_mistakes, wilson_interval

# Rows are true types. Ten images: 6 right; neutrophils are called monocytes once, and so on.
COUNTS = np.array([[2, 1, 0, 0], [0, 1, 0, 1], [0, 0, 1, 0], [1, 0, 1, 2]])


def answers_with(counts, certainty=0.7):
    """True types and probabilities that have a given confusion matrix."""
    true_types, rows = [], []
    for true, predicted in np.argwhere(np.ones((4, 4))):
        for _ in range(counts[true, predicted]):
            true_types.append(cells.NAMES[true])
            row = np.full(4, (1 - certainty) / 3)
            row[predicted] = certainty
            rows.append(row)
    return true_types, np.array(rows)


@pytest.fixture
def ten_images():
    return evaluate(*answers_with(COUNTS))


def test_counts_and_confusion_are_those_that_went_in(ten_images):
    assert ten_images.n_images == 10
    np.testing.assert_array_equal(ten_images.confusion, COUNTS)
    assert tuple(ten_images.confusion.index) == tuple(ten_images.confusion.columns) == cells.NAMES
    assert (ten_images.confusion.index.name, ten_images.confusion.columns.name) == (
        "true",
        "predicted",
    )
    # One neutrophil was called an eosinophil, and no eosinophil a neutrophil.
    assert ten_images.confusion.loc["neutrophil", "eosinophil"] == 1
    assert ten_images.confusion.loc["eosinophil", "neutrophil"] == 0


def test_scores_by_hand(ten_images):
    assert ten_images.accuracy == pytest.approx(6 / 10)
    assert ten_images.balanced_accuracy == pytest.approx((2 / 3 + 1 / 2 + 1 + 2 / 4) / 4)
    scores = ten_images.per_class
    assert list(scores.columns) == ["precision", "recall", "f1", "n_images"]
    assert scores["n_images"].tolist() == [3, 2, 1, 4]
    assert scores["precision"].tolist() == pytest.approx([2 / 3, 1 / 2, 1 / 2, 2 / 3])
    assert scores["recall"].tolist() == pytest.approx([2 / 3, 1 / 2, 1, 1 / 2])
    assert scores["f1"].tolist() == pytest.approx([2 / 3, 1 / 2, 2 / 3, 4 / 7])
    assert ten_images.macro_f1 == pytest.approx((2 / 3 + 1 / 2 + 2 / 3 + 4 / 7) / 4)


def test_rates_are_by_true_type(ten_images):
    rates = ten_images.confusion_rates
    np.testing.assert_allclose(rates.sum(axis="columns"), 1)
    assert rates.loc["neutrophil"].tolist() == pytest.approx([0.25, 0, 0.25, 0.5])


def test_perfect_classifier():
    perfect = evaluate(*answers_with(np.diag([3, 1, 2, 4])))
    assert perfect.accuracy == perfect.balanced_accuracy == perfect.macro_f1 == 1
    assert (perfect.per_class[["precision", "recall", "f1"]] == 1).all(axis=None)
    for name in cells.NAMES:
        assert perfect.roc(name).auc == 1
        assert perfect.precision_recall(name).average_precision == 1


def test_classifier_that_is_always_wrong():
    worst = evaluate(*answers_with(np.roll(np.diag([2, 2, 2, 2]), 1, axis=1), certainty=1.0))
    assert worst.accuracy == worst.balanced_accuracy == worst.macro_f1 == 0
    assert (worst.per_class[["precision", "recall", "f1"]] == 0).all(axis=None)
    # Two of the six others outrank both true ones, the remaining four tie with them at zero.
    assert worst.roc("monocyte").auc == pytest.approx((0 * 2 + 0.5 * 4) / 6)


def test_one_type_for_every_image_is_no_better_than_guessing():
    counts = np.zeros((4, 4), int)
    counts[:, 3] = [13, 6, 4, 48]
    lazy = evaluate(*answers_with(counts))
    assert lazy.accuracy == pytest.approx(48 / 71)
    assert lazy.balanced_accuracy == pytest.approx(1 / 4)
    # Never predicted: precision is undefined, but there were images to find, so F1 is 0.
    assert math.isnan(lazy.per_class.loc["monocyte", "precision"])
    assert lazy.per_class.loc["monocyte", "f1"] == 0
    assert lazy.macro_f1 == pytest.approx(2 * 48 / (71 + 48) / 4)
    assert lazy.to_dict()["per_class"]["monocyte"] == {
        "precision": None,
        "recall": 0.0,
        "f1": 0.0,
        "n_images": 4,
    }


def test_absent_type_is_left_out_of_the_averages():
    absent = evaluate(*answers_with(np.diag([1, 3, 0, 2])))
    assert absent.balanced_accuracy == absent.macro_f1 == 1
    assert absent.per_class.loc["monocyte", "n_images"] == 0
    assert absent.to_dict()["per_class"]["monocyte"] == {
        "precision": None,
        "recall": None,
        "f1": None,
        "n_images": 0,
    }
    assert absent.confusion_rates.loc["monocyte"].isna().all()
    assert absent.roc("monocyte").auc is None
    assert absent.precision_recall("monocyte").average_precision is None


def test_type_absent_but_predicted_has_precision_zero():
    counts = np.diag([1, 3, 0, 2])
    counts[0, 2] = 1
    scores = evaluate(*answers_with(counts)).to_dict()
    assert scores["per_class"]["monocyte"] == {
        "precision": 0.0,
        "recall": None,
        "f1": 0.0,
        "n_images": 0,
    }
    assert scores["balanced_accuracy"] == pytest.approx((1 / 2 + 1 + 1) / 3)
    assert scores["macro_f1"] == pytest.approx((2 / 3 + 1 + 0 + 1) / 4)


def test_images_of_one_type_only_have_no_roc():
    counts = np.zeros((4, 4), int)
    counts[1, 1] = 5
    only = evaluate(*answers_with(counts))
    assert only.roc("lymphocyte").auc is None
    assert only.precision_recall("lymphocyte").average_precision == 1
    assert only.precision_recall("lymphocyte").prevalence == 1


def test_curves_by_hand():
    # Monocyte probabilities fall as: true, false, true, false.
    true_types = ["monocyte", "neutrophil", "monocyte", "neutrophil"]
    monocyte = np.array([0.9, 0.8, 0.7, 0.1])
    probabilities = np.zeros((4, 4))
    probabilities[:, 2], probabilities[:, 3] = monocyte, 1 - monocyte
    ranked = evaluate(true_types, probabilities)
    # Of four pairs of a monocyte and another, three are in the right order.
    roc = ranked.roc("monocyte")
    assert roc.auc == pytest.approx(3 / 4)
    assert (roc.false_positive_rate[0], roc.true_positive_rate[0]) == (0, 0)
    assert (roc.false_positive_rate[-1], roc.true_positive_rate[-1]) == (1, 1)
    # Half of the recall at precision 1, the other half at 2/3.
    curve = ranked.precision_recall("monocyte")
    assert curve.average_precision == pytest.approx(1 / 2 * 1 + 1 / 2 * 2 / 3)
    assert curve.prevalence == 1 / 2
    assert (curve.recall[0], curve.recall[-1]) == (1, 0)


def test_equal_probabilities_go_to_the_first_type():
    guess = evaluate(["eosinophil", "neutrophil"], np.full((2, 4), 0.25))
    assert guess.confusion["eosinophil"].sum() == 2


def test_json_holds_the_agreed_keys_and_plain_numbers(ten_images):
    scores = ten_images.to_dict()
    assert list(scores) == [
        "n_images",
        "accuracy",
        "balanced_accuracy",
        "macro_f1",
        "per_class",
        "confusion",
    ]
    assert list(scores["per_class"]) == list(cells.NAMES)
    assert json.loads(json.dumps(scores, allow_nan=False)) == scores
    assert scores["confusion"] == COUNTS.tolist()
    assert type(scores["per_class"]["neutrophil"]["n_images"]) is int
    assert type(scores["accuracy"]) is type(scores["per_class"]["neutrophil"]["f1"]) is float


def test_takes_a_catalogs_column_and_float32():
    true_types, probabilities = answers_with(COUNTS)
    column = pd.Series(pd.Categorical(true_types, categories=cells.NAMES), index=range(50, 60))
    assert evaluate(column, np.float32(probabilities)).accuracy == pytest.approx(6 / 10)
    assert evaluate(column, np.float16(probabilities)).accuracy == pytest.approx(6 / 10)


@pytest.mark.parametrize(
    ("n_correct", "n_images", "low", "high"),
    [
        # Wilson's interval of 8 in 10 and of 0 in 10, as printed in textbooks.
        (8, 10, 0.4902, 0.9433),
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
    ],
)
def test_wilson_interval(n_correct, n_images, low, high):
    assert wilson_interval(n_correct, n_images) == pytest.approx((low, high), abs=5e-5)


def test_accuracy_interval_is_that_of_the_counts(ten_images):
    assert ten_images.accuracy_interval == wilson_interval(6, 10)
    assert wilson_interval(6, 10, 0.99)[0] < ten_images.accuracy_interval[0]


@pytest.mark.parametrize("counts", [(0, 0), (3, 2), (-1, 2), (1, 2, 1.0), (1, 2, 0)], ids=str)
def test_impossible_counts_are_refused(counts):
    with pytest.raises(InvalidParameter, match="No interval"):
        wilson_interval(*counts)


def test_mistakes_come_surest_first():
    catalog = pd.DataFrame(
        {
            "path": ["a", "b", "c", "d"],
            "cell_type": pd.Categorical(
                ["eosinophil", "lymphocyte", "monocyte", "neutrophil"], categories=cells.NAMES
            ),
        },
        index=[7, 8, 9, 10],
    )
    probabilities = [
        [0.10, 0.60, 0.20, 0.10],
        [0.05, 0.95, 0.00, 0.00],
        [0.00, 0.00, 0.10, 0.90],
        [0.50, 0.10, 0.00, 0.40],
    ]
    mistakes = most_confident_mistakes(catalog, probabilities)
    assert mistakes.to_dict("list") == {
        "path": ["c", "a", "d"],
        "cell_type": ["monocyte", "eosinophil", "neutrophil"],
        "predicted": ["neutrophil", "lymphocyte", "eosinophil"],
        "probability": [0.90, 0.60, 0.50],
        "true_probability": [0.10, 0.10, 0.40],
    }
    assert mistakes.index.tolist() == [9, 7, 10]
    assert most_confident_mistakes(catalog, probabilities, n=1)["path"].tolist() == ["c"]
    assert most_confident_mistakes(catalog[1:2], probabilities[1:2]).empty


@pytest.mark.parametrize("n", [0, -1, 2.5, "ten", True])
def test_mistakes_need_a_number(n):
    catalog = pd.DataFrame({"path": ["a"], "cell_type": ["monocyte"]})
    with pytest.raises(InvalidParameter, match="mistakes"):
        most_confident_mistakes(catalog, [[1, 0, 0, 0]], n=n)


def test_mistakes_need_the_catalogs_columns():
    with pytest.raises(InvalidParameter, match="no column path"):
        most_confident_mistakes(pd.DataFrame({"cell_type": ["monocyte"]}), [[1, 0, 0, 0]])


GOOD = [0.7, 0.1, 0.1, 0.1]


@pytest.mark.parametrize(
    ("true_types", "probabilities", "complaint"),
    [
        ([], np.empty((0, 4)), "at least one"),
        ([["monocyte"]], [GOOD], r"shape \(1, 1\)"),
        (["basophil", "monocyte"], [GOOD, GOOD], "basophil"),
        (["MONOCYTE"], [GOOD], "MONOCYTE"),
        ([None, "monocyte"], [GOOD, GOOD], "None"),
        (["monocyte"], [GOOD, GOOD], r"Expected \(1, 4\)"),
        (["monocyte"], [[0.5, 0.25, 0.25]], r"Expected \(1, 4\)"),
        (["monocyte"], GOOD, r"Expected \(1, 4\)"),
        (["monocyte"], [["a", "b", "c", "d"]], "not an array of numbers"),
        (["monocyte"] * 2, [GOOD, [0.7, 0.3, np.nan, 0.0]], "first row 1.*diverged"),
        (["monocyte"] * 2, [GOOD, [np.inf, 0, 0, 0]], "1 of 2 rows.*infinity"),
        (["monocyte"], [[0.7, 0.7, 0.1, 0.1]], "no probabilities"),
        (["monocyte"], [[1.5, -0.5, 0, 0]], "no probabilities"),
        (["monocyte"] * 3, [GOOD, GOOD, [2.0, -1.0, 3.0, 0.0]], "first row 2.*softmax"),
    ],
)
def test_bad_input_is_named(true_types, probabilities, complaint):
    with pytest.raises(InvalidParameter, match=complaint):
        evaluate(true_types, probabilities)


@pytest.mark.parametrize("curve", ["roc", "precision_recall"])
def test_curves_need_a_known_type(ten_images, curve):
    with pytest.raises(InvalidParameter, match=r"'basophil'.*eosinophil"):
        getattr(ten_images, curve)("basophil")
