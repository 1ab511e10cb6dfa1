"""Scores by photograph against numbers worked out by hand."""

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics

from wbc_helpers import cells
from wbc_helpers.errors import InvalidParameter
from wbc_helpers.evaluate import predictions
from wbc_helpers.evaluate.classification import evaluate

NAMES = ["a", "a", "a", "b", "c"]


@pytest.fixture
def five_images():
    """Photograph a is called right in two of three images, but rightly on average."""
    return evaluate(
        ["eosinophil"] * 3 + ["lymphocyte", "monocyte"],
        [
            [0.9, 0.1, 0, 0],
            [0.8, 0.2, 0, 0],
            [0.1, 0.9, 0, 0],
            [0.6, 0.4, 0, 0],
            [0, 0, 1, 0],
        ],
    )


def test_photographs_are_judged_by_the_mean_of_their_images(five_images):
    by_photograph = predictions.by_photograph(five_images, NAMES)
    assert by_photograph.n_images == 3
    assert by_photograph.true_types.tolist() == ["eosinophil", "lymphocyte", "monocyte"]
    np.testing.assert_allclose(by_photograph.probabilities[0], [0.6, 0.4, 0, 0])
    assert (five_images.accuracy, by_photograph.accuracy) == (3 / 5, 2 / 3)


def test_photograph_under_two_types_counts_under_each(five_images):
    by_photograph = predictions.by_photograph(five_images, ["a", "a", "a", "a", "c"])
    assert by_photograph.true_types.tolist() == ["eosinophil", "lymphocyte", "monocyte"]
    np.testing.assert_allclose(by_photograph.probabilities[1], [0.6, 0.4, 0, 0])


def test_views_leave_out_what_train_shows(five_images):
    looks = predictions.views(five_images, NAMES, [True, True, True, False, False])
    assert {name: each.n_images for name, each in looks.items()} == {
        "images": 5,
        "photographs": 3,
        "images of unseen cells": 2,
        "photographs of unseen cells": 2,
    }
    assert looks["photographs of unseen cells"].accuracy == 1 / 2
    for seen in (None, [False] * 5, [True] * 5):
        assert list(predictions.views(five_images, NAMES, seen)) == ["images", "photographs"]


def test_part_takes_the_catalogs_column(five_images):
    chosen = pd.Series([True, False, False, False, True], dtype="boolean")
    assert predictions.part(five_images, chosen).accuracy == 1


@pytest.mark.parametrize("chosen", [[True] * 4, [True, None, True, True, True], [False] * 5])
def test_part_refuses_an_unclear_choice(five_images, chosen):
    with pytest.raises(InvalidParameter):
        predictions.part(five_images, chosen)


@pytest.mark.parametrize("names", [["a"] * 4, ["a", None, "b", "c", "d"], ["a", pd.NA, *"bcd"]])
def test_unknown_photographs_are_refused(five_images, names):
    with pytest.raises(InvalidParameter, match="photographs"):
        predictions.by_photograph(five_images, names)


def test_kappa_by_hand():
    # Agreement 0.7; by chance 0.5 · 0.6 + 0.5 · 0.4 = 0.5; so 0.2 / 0.5.
    confusion = np.zeros((4, 4))
    confusion[:2, :2] = [[20, 5], [10, 15]]
    assert predictions.kappa(confusion) == pytest.approx(0.4)
    # Perfect; guessing; always wrong among two of equal size.
    three = np.zeros((3, 4, 4))
    three[0] = np.eye(4)
    three[1] = 3
    three[2, [0, 1], [1, 0]] = 5
    np.testing.assert_allclose(predictions.kappa(three), [1, 0, -1], atol=1e-12)
    assert np.isnan(predictions.kappa(np.diag([7, 0, 0, 0])))


def test_kappa_is_that_of_scikit_learn():
    generator = np.random.default_rng(0)
    true, predicted = generator.integers(0, 4, (2, 200))
    confusion = metrics.confusion_matrix(true, predicted)
    expected = metrics.cohen_kappa_score(true, predicted)
    assert predictions.kappa(confusion) == pytest.approx(expected)


def test_summary_holds_plain_numbers(five_images):
    scores = predictions.summary(five_images)
    # Lymphocyte 0.4 against 0.1, 0.2, 0.9 and 0: above three of the four.
    lymphocyte = scores["per_class"]["lymphocyte"]
    assert lymphocyte["roc_auc"] == pytest.approx(3 / 4)
    assert lymphocyte["average_precision"] == pytest.approx(1 / 2)
    assert scores["per_class"]["neutrophil"]["roc_auc"] is None
    assert scores["per_class"]["neutrophil"]["average_precision"] is None
    # Eosinophils 0.9, 0.8, 0.1 against 0.6, 0: five of six pairs.
    assert scores["roc_auc"] == pytest.approx((5 / 6 + 3 / 4 + 1) / 3)
    assert scores["kappa"] == pytest.approx((3 / 5 - (3 * 3 + 1 + 1) / 25) / (1 - 11 / 25))
    assert scores["accuracy"] == five_images.accuracy


def test_summary_of_one_type_has_no_kappa():
    scores = predictions.summary(evaluate(["monocyte"], [np.eye(4)[2]]))
    assert scores["kappa"] is None
    assert scores["roc_auc"] is None
    assert scores["average_precision"] == 1
    assert set(cells.NAMES) == set(scores["per_class"])
