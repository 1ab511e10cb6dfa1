"""Scores, photographs and tables of answers against numbers worked out by hand."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics

from wbc_helpers import cells
from wbc_helpers.errors import BrokenRun, DataMismatch, DataNotFound, InvalidParameter
from wbc_helpers.evaluate import classification
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


# Photographs


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
    by_photograph = classification.by_photograph(five_images, NAMES)
    assert by_photograph.n_images == 3
    assert by_photograph.true_types.tolist() == ["eosinophil", "lymphocyte", "monocyte"]
    np.testing.assert_allclose(by_photograph.probabilities[0], [0.6, 0.4, 0, 0])
    assert (five_images.accuracy, by_photograph.accuracy) == (3 / 5, 2 / 3)


def test_photograph_under_two_types_counts_under_each(five_images):
    by_photograph = classification.by_photograph(five_images, ["a", "a", "a", "a", "c"])
    assert by_photograph.true_types.tolist() == ["eosinophil", "lymphocyte", "monocyte"]
    np.testing.assert_allclose(by_photograph.probabilities[1], [0.6, 0.4, 0, 0])


def test_views_leave_out_what_train_shows(five_images):
    looks = classification.views(five_images, NAMES, [True, True, True, False, False])
    assert {name: each.n_images for name, each in looks.items()} == {
        "images": 5,
        "photographs": 3,
        "images of unseen cells": 2,
        "photographs of unseen cells": 2,
    }
    assert looks["photographs of unseen cells"].accuracy == 1 / 2
    for seen in (None, [False] * 5, [True] * 5):
        assert list(classification.views(five_images, NAMES, seen)) == ["images", "photographs"]


def test_part_takes_the_catalogs_column(five_images):
    chosen = pd.Series([True, False, False, False, True], dtype="boolean")
    assert classification.part(five_images, chosen).accuracy == 1


@pytest.mark.parametrize("chosen", [[True] * 4, [True, None, True, True, True], [False] * 5])
def test_part_refuses_an_unclear_choice(five_images, chosen):
    with pytest.raises(InvalidParameter):
        classification.part(five_images, chosen)


@pytest.mark.parametrize("names", [["a"] * 4, ["a", None, "b", "c", "d"], ["a", pd.NA, *"bcd"]])
def test_unknown_photographs_are_refused(five_images, names):
    with pytest.raises(InvalidParameter, match="photographs"):
        classification.by_photograph(five_images, names)


def test_kappa_by_hand():
    # Agreement 0.7; by chance 0.5 · 0.6 + 0.5 · 0.4 = 0.5; so 0.2 / 0.5.
    confusion = np.zeros((4, 4))
    confusion[:2, :2] = [[20, 5], [10, 15]]
    assert classification.kappa(confusion) == pytest.approx(0.4)
    # Perfect; guessing; always wrong among two of equal size.
    three = np.zeros((3, 4, 4))
    three[0] = np.eye(4)
    three[1] = 3
    three[2, [0, 1], [1, 0]] = 5
    np.testing.assert_allclose(classification.kappa(three), [1, 0, -1], atol=1e-12)
    assert np.isnan(classification.kappa(np.diag([7, 0, 0, 0])))


def test_kappa_is_that_of_scikit_learn():
    generator = np.random.default_rng(0)
    true, predicted = generator.integers(0, 4, (2, 200))
    confusion = metrics.confusion_matrix(true, predicted)
    expected = metrics.cohen_kappa_score(true, predicted)
    assert classification.kappa(confusion) == pytest.approx(expected)


def test_summary_holds_plain_numbers(five_images):
    scores = classification.summary(five_images)
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
    scores = classification.summary(evaluate(["monocyte"], [np.eye(4)[2]]))
    assert scores["kappa"] is None
    assert scores["roc_auc"] is None
    assert scores["average_precision"] == 1
    assert set(cells.NAMES) == set(scores["per_class"])


# Tables of answers


@pytest.fixture
def rows():
    table = pd.DataFrame(
        {
            "path": list("abcd"),
            "file": [f"TEST/{name.upper()}/_0_1.jpeg" for name in cells.NAMES],
            "split": pd.Categorical(["TEST"] * 4),
            "cell_type": pd.Categorical(cells.NAMES),
            "source_id": pd.array(["BloodImage_00001", pd.NA, "x", "y"], "string"),
        },
        index=[7, 3, 9, 1],
    )
    return table


@pytest.fixture
def probabilities():
    scores = np.random.default_rng(0).random((4, 4), np.float32)
    return scores / scores.sum(axis=1, keepdims=True)


def test_table_comes_back_as_it_was(rows, probabilities, tmp_path):
    table = classification.tabulate(rows, probabilities)
    assert list(table.columns) == list(classification.COLUMNS)
    classification.write_predictions(tmp_path, table)
    again = classification.read_predictions(tmp_path)
    read = again[list(classification.PROBABILITIES)].to_numpy(np.float32)
    np.testing.assert_array_equal(read, probabilities)
    others = [name for name in table if name not in classification.PROBABILITIES]
    pd.testing.assert_frame_equal(again[others], table[others])
    assert again["source_id"].isna().tolist() == [False, True, False, False]
    assert again["group_id"].isna().all()
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.csv"]


def test_prediction_is_the_most_probable_type(rows):
    table = classification.tabulate(rows, np.eye(4)[[0, 2, 2, 1]])
    expected = ["eosinophil", "monocyte", "monocyte", "lymphocyte"]
    assert table["predicted"].tolist() == expected
    assert classification.evaluate_table(table).accuracy == 0.5


def test_half_a_catalog_is_refused(rows, probabilities):
    with pytest.raises(InvalidParameter, match="split"):
        classification.tabulate(rows.drop(columns="split"), probabilities)
    with pytest.raises(InvalidParameter, match="twice"):
        classification.tabulate(rows.assign(file="a"), probabilities)


def test_missing_and_damaged_tables_are_named(rows, probabilities, tmp_path):
    with pytest.raises(DataNotFound, match="04_evaluate"):
        classification.read_predictions(tmp_path)
    path = classification.write_predictions(tmp_path, classification.tabulate(rows, probabilities))
    whole = path.read_text()
    for text in ("", "file\na\n", whole.replace("lymphocyte", "ghost"), whole[:-60]):
        path.write_text(text)
        with pytest.raises(BrokenRun, match="damaged"):
            classification.read_predictions(tmp_path)


def test_two_runs_are_brought_into_one_order(rows, probabilities):
    first = classification.tabulate(rows, np.eye(4))
    second = classification.tabulate(rows, probabilities).iloc[::-1]
    images, one, other = classification.align(first, second)
    assert images["file"].tolist() == first["file"].tolist()
    assert one.true_types.tolist() == other.true_types.tolist() == list(cells.NAMES)
    np.testing.assert_array_equal(other.probabilities, probabilities)


def test_runs_on_other_images_cannot_be_aligned(rows, probabilities):
    first = classification.tabulate(rows, probabilities)
    fewer = first.iloc[:3]
    renamed = first.assign(file=first["file"] + "x")
    relabelled = first.assign(cell_type=first["cell_type"].to_numpy()[::-1])
    for second in (fewer, renamed, relabelled):
        with pytest.raises(DataMismatch, match="same"):
            classification.align(first, second)
        with pytest.raises(DataMismatch, match="same"):
            classification.align(second, first)
