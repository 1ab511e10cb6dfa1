"""Doubtful labels: exactly those that were exchanged by construction, and scores by hand."""

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from wbc_helpers import cells
from wbc_helpers.audit import labels
from wbc_helpers.data import annotations
from wbc_helpers.errors import DataMismatch, DataNotFound, InvalidParameter
from wbc_helpers.evaluate import classification

E, L, M, N = cells.NAMES


def sure_of(cell_type, probability=0.91):
    """Probabilities of which the rest is spread evenly."""
    row = np.full(4, (1 - probability) / 3)
    row[cells.NAMES.index(cell_type)] = probability
    return row


def two(first, probability, second):
    """Probabilities of two types."""
    row = np.zeros(4)
    row[[cells.NAMES.index(first), cells.NAMES.index(second)]] = probability, 1 - probability
    return row


def answers(*photographs):
    """Out-of-fold answers: for each photograph its name, label, and one row an image."""
    names, types, rows = [], [], []
    for name, cell_type, images in photographs:
        images = np.atleast_2d(images)
        names += [name] * len(images)
        types += [cell_type] * len(images)
        rows.append(images)
    table = pd.DataFrame({"source_id": pd.array(names, "string"), "cell_type": types})
    table["file"] = [f"TRAIN/{cell_type}/{i}.jpeg" for i, cell_type in enumerate(types)]
    table["split"] = "TRAIN"
    return classification.tabulate(table, np.concatenate(rows))


def accurate_network(n_each, exchanged=(), jitter=0.0, seed=0):
    """Answers that are right about what is shown; the labels of some photographs were exchanged.

    Photograph 0, 1, … of each type with three images each; `exchanged` maps a photograph's name to
    the label that it was given.
    """
    generator = np.random.default_rng(seed)
    exchanged = dict(exchanged)
    photographs = []
    for cell_type in cells.NAMES:
        for number in range(n_each):
            name = f"{cell_type}-{number}"
            sure = 0.8 + jitter * generator.random()
            label = exchanged.get(name, cell_type)
            photographs.append((name, label, [sure_of(cell_type, sure)] * 3))
    return answers(*photographs)


EXCHANGED = {
    "eosinophil-0": N,
    "neutrophil-3": E,
    "monocyte-1": L,
    "lymphocyte-7": M,
    "lymphocyte-8": N,
}


def test_exactly_the_exchanged_labels_are_found():
    out_of_fold = accurate_network(10, EXCHANGED)
    judged = labels.judge(out_of_fold)
    assert list(judged.columns) == list(labels.COLUMNS)
    assert judged.dtypes.astype(str).to_dict() == labels.COLUMNS
    assert len(judged) == 40 and set(judged.n_images) == {3}
    found = judged[judged.doubtful].set_index("source_id")
    assert set(found.index) == set(EXCHANGED)
    # The published label stands as it was; what is suggested is what is shown.
    assert found.cell_type.to_dict() == EXCHANGED
    assert found.suggested.to_dict() == {name: name.split("-")[0] for name in EXCHANGED}
    np.testing.assert_allclose(found.p_suggested, 0.8)
    np.testing.assert_allclose(found.self_confidence, 0.2 / 3)
    np.testing.assert_allclose(found.margin, 0.2 / 3 - 0.8)


def test_recall_and_precision_where_the_network_wavers():
    # Thirty labels of 200 exchanged; the network is 60 % sure of every tenth photograph.
    generator = np.random.default_rng(3)
    photographs, exchanged, sure = [], set(), set()
    for number in range(200):
        shown = cells.NAMES[number % 4]
        name, wavers = f"photograph-{number:03}", number % 10 == 9
        label = shown
        if number >= 170:
            exchanged.add(name)
            label = cells.NAMES[(number + generator.integers(1, 4)) % 4]
        if not wavers:
            sure.add(name)
        photographs.append((name, label, sure_of(shown, 0.6 if wavers else 0.95)))
    judged = labels.judge(answers(*photographs))
    found = set(judged.source_id[judged.doubtful])
    # The usual sureness of a type, with up to 17 % of its labels wrong, is between 0.6 and 0.95.
    assert found == exchanged & sure
    recall, precision = len(found & exchanged) / len(exchanged), len(found & exchanged) / len(found)
    assert (recall, precision) == (27 / 30, 1)


@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_doubtful_where_all_labels_are_right(seed):
    judged = labels.judge(accurate_network(10, jitter=0.19, seed=seed))
    assert not judged.doubtful.any()
    assert judged.also_under.isna().all()
    # Still ordered: the least certain first.
    assert judged.margin.is_monotonic_increasing
    assert judged.margin.iloc[0] < judged.margin.iloc[-1]


def test_a_label_is_doubtful_from_the_usual_sureness_of_the_other_type_on():
    # Eosinophils are usually called so with (0.9 + 0.9 + 0.3) / 3 = 0.7.
    photographs = [
        ("a", E, two(E, 0.9, L)),
        ("b", E, two(E, 0.9, L)),
        ("c", E, two(E, 0.3, M)),
        ("d", L, two(L, 1.0, E)),
        ("e", L, two(L, 1.0, E)),
        ("above", L, two(E, 0.75, L)),
        # Three of which one would be doubtful, too, if their number were estimated from the rest.
        ("below", L, two(E, 0.65, L)),
        ("well below", L, two(E, 0.6, L)),
        ("far below", L, two(E, 0.55, L)),
    ]
    judged = labels.judge(answers(*photographs))
    # No monocyte is published, so that nothing is called one, not even c.
    below = ["below", "well below", "far below"]
    assert judged.source_id.tolist() == ["above", "c", *below, "a", "b", "d", "e"]
    assert judged.doubtful.tolist() == [True] + [False] * 8
    c = judged.set_index("source_id").loc["c"]
    assert (c.suggested, c.self_confidence, c.p_suggested) == (M, 0.3, 0.7)
    np.testing.assert_allclose(judged.margin, [-0.5, -0.4, -0.3, -0.2, -0.1, 0.8, 0.8, 1, 1])


def test_a_photograph_is_judged_once_by_the_mean_of_its_images():
    photographs = [
        ("a", E, [two(E, 1.0, L)] * 9),
        ("b", E, two(E, 0.2, L)),
        # By photograph eosinophils are called so with 0.6, by image with 0.92.
        ("c", L, [two(E, 0.4, L), two(E, 1.0, L)]),
        ("d", L, two(L, 1.0, E)),
        # Two images of three speak against its label, but not their mean.
        ("e", L, [two(E, 0.6, L), two(E, 0.6, L), two(L, 1.0, E)]),
    ]
    judged = labels.judge(answers(*photographs)).set_index("source_id")
    assert judged.n_images.to_dict() == {"a": 9, "b": 1, "c": 2, "d": 1, "e": 3}
    assert judged.index[judged.doubtful].tolist() == ["b", "c"]
    assert judged.loc["c", "self_confidence"] == pytest.approx(0.3)
    assert judged.loc["e", "self_confidence"] == pytest.approx(0.6)


def test_two_labels_of_one_photograph_conflict_whatever_the_network_says():
    photographs = [
        ("a", E, two(E, 0.9, L)),
        ("b", L, two(L, 0.9, E)),
        ("both", N, [two(N, 1.0, E)] * 3),
        ("both", E, two(N, 0.8, E)),
    ]
    judged = labels.judge(answers(*photographs))
    first = judged.iloc[0]
    assert judged.doubtful.tolist() == [True, False, False]
    # Of its two labels the one that fits less is in doubt.
    assert (first.source_id, first.cell_type, first.also_under) == ("both", E, N)
    assert (first.suggested, first.n_images) == (N, 4)
    assert (first.self_confidence, first.p_suggested) == pytest.approx((0.05, 0.95))


def test_a_conflict_says_nothing_of_what_is_usual():
    # With the conflicting photograph, eosinophils would be called so with 0.5 on average, and c
    # would be doubtful.
    photographs = [
        ("a", E, two(E, 1.0, L)),
        ("both", E, two(L, 1.0, E)),
        ("both", N, two(L, 1.0, E)),
        ("c", L, two(E, 0.7, L)),
        ("d", L, two(L, 1.0, E)),
    ]
    judged = labels.judge(answers(*photographs))
    assert judged.source_id[judged.doubtful].tolist() == ["both"]
    # Three types disagree: both labels are less probable than what is suggested.
    assert (judged.cell_type[0], judged.also_under[0], judged.suggested[0]) == (E, N, L)


def test_the_answers_are_left_as_they_are():
    out_of_fold = accurate_network(3, {"eosinophil-0": N})
    out_of_fold.index = range(100, 100 + len(out_of_fold))
    before = out_of_fold.copy()
    judged = labels.judge(out_of_fold)
    labels.scores_with_and_without(out_of_fold, judged)
    pd.testing.assert_frame_equal(out_of_fold, before)
    # Neither the order of the images nor their index matters.
    shuffled = out_of_fold.sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(labels.judge(shuffled), judged)


def test_probabilities_in_half_precision_are_taken():
    out_of_fold = accurate_network(3)
    out_of_fold[list(classification.PROBABILITIES)] *= 1.009
    assert labels.judge(out_of_fold).self_confidence.max() == pytest.approx(0.8)
    certain = answers(("a", E, sure_of(E, 1.0)), ("b", L, sure_of(L, 1.0)))
    certain[list(classification.PROBABILITIES)] *= 1.009
    assert labels.judge(certain).self_confidence.tolist() == [1, 1]


def test_scores_with_and_without_by_hand():
    photographs = [
        ("a", E, [sure_of(E)] * 4),
        ("b", E, [sure_of(E)] * 2),
        ("c", L, [sure_of(L)] * 2),
        ("d", L, [sure_of(L)] * 3),
        # Labelled a lymphocyte, surely called an eosinophil: three wrong images, one photograph.
        ("e", L, [sure_of(E)] * 3),
    ]
    out_of_fold = answers(*photographs)
    # A mistake that casts no doubt, since the other image of c outvote it.
    out_of_fold.loc[6, list(classification.PROBABILITIES)] = two(L, 0.45, N)
    judged = labels.judge(out_of_fold)
    assert judged.source_id[judged.doubtful].tolist() == ["e"]
    scores = labels.scores_with_and_without(out_of_fold, judged)
    assert scores.index.tolist() == [
        ("images", "as published"),
        ("images", "without doubtful"),
        ("photographs", "as published"),
        ("photographs", "without doubtful"),
    ]
    assert scores.n.tolist() == [14, 11, 5, 4]
    np.testing.assert_allclose(scores.accuracy, [10 / 14, 10 / 11, 4 / 5, 1])
    # Recall of eosinophils is 1 throughout.
    np.testing.assert_allclose(
        scores.balanced_accuracy, [(1 + 4 / 8) / 2, (1 + 4 / 5) / 2, (1 + 2 / 3) / 2, 1]
    )
    # Five photographs: agreement 0.8, by chance (2 · 3 + 3 · 2) / 25.
    assert scores.kappa.iloc[2] == pytest.approx((0.8 - 12 / 25) / (1 - 12 / 25))
    assert scores.macro_f1.iloc[3] == 1


def test_another_runs_answers_are_scored_by_the_same_doubts():
    judged = labels.judge(accurate_network(5, {"monocyte-0": E}))
    others = accurate_network(5, {"monocyte-0": E})
    # Another network, which calls everything a monocyte.
    others[list(classification.PROBABILITIES)] = sure_of(M)
    scores = labels.scores_with_and_without(others, judged)
    np.testing.assert_allclose(scores.loc["photographs"].accuracy, [4 / 20, 4 / 19])
    some = others[others.source_id.str.startswith("mono")]
    assert labels.scores_with_and_without(some, judged).n.tolist() == [15, 12, 5, 4]


def test_a_score_that_is_undefined_is_nan():
    photographs = [("a", E, sure_of(E)), ("b", L, sure_of(L)), ("c", L, sure_of(E))]
    out_of_fold = answers(*photographs)
    judged = labels.judge(out_of_fold)
    only_eosinophils = out_of_fold[out_of_fold.source_id == "a"]
    scores = labels.scores_with_and_without(only_eosinophils, judged)
    assert scores.kappa.isna().all() and scores.kappa.dtype == "float64"
    assert scores.n.tolist() == [1, 1, 1, 1]


def score(table):
    return labels.scores_with_and_without(table, labels.judge(accurate_network(3)))


@pytest.mark.parametrize("judge", [labels.judge, score])
@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda table: table.drop(columns=["source_id", "p_monocyte"]), "source_id, p_monocyte"),
        (lambda table: table.assign(file="a"), "repeats 35 files"),
        (lambda table: table.assign(p_neutrophil=np.nan), "NaN"),
        (lambda table: table.assign(p_neutrophil=2.0), "no probabilities"),
        (lambda table: table.assign(cell_type="ghost"), "ghost"),
        (lambda table: table.assign(cell_type=table.cell_type.where(table.index > 0)), "Unknown"),
        (lambda table: table.assign(source_id=table.source_id.where(table.index > 4)), "5 of 36"),
        (lambda table: table.iloc[:0], "at least one"),
    ],
)
def test_a_table_that_lacks_something_is_refused(judge, damage, complaint):
    with pytest.raises(InvalidParameter, match=complaint):
        judge(damage(accurate_network(3)))


def test_one_type_alone_is_refused():
    with pytest.raises(InvalidParameter, match=r"2 photographs.*1 types \(monocyte\)"):
        labels.judge(answers(("a", M, sure_of(M)), ("b", M, sure_of(N))))
    with pytest.raises(InvalidParameter, match=r"0 types \(none\)"):
        labels.judge(answers(("a", M, sure_of(M)), ("a", N, sure_of(M))))


def test_photographs_that_were_not_judged_are_not_scored():
    judged = labels.judge(accurate_network(3))
    with pytest.raises(DataMismatch, match="4 of 16 photographs were not judged"):
        labels.scores_with_and_without(accurate_network(4), judged)


def test_nothing_left_to_score_is_said():
    out_of_fold = accurate_network(3, {"monocyte-0": E})
    judged = labels.judge(out_of_fold)
    doubtful = out_of_fold[out_of_fold.source_id == "monocyte-0"]
    with pytest.raises(InvalidParameter, match="all 1 photographs are doubtful"):
        labels.scores_with_and_without(doubtful, judged)


def test_white_cells_are_cropped_each_at_its_own_scale(tmp_path):
    paths = []
    for scale in (1, 2):
        picture = np.full((240 * scale, 320 * scale, 3), (225, 200, 215), np.uint8)
        for column in range(30, 320, 70):
            cv2.circle(picture, (column * scale, 200 * scale), 26 * scale, (205, 120, 140), -1)
        cv2.circle(picture, (190 * scale, 100 * scale), 26 * scale, (90, 50, 150), -1)
        paths.append(tmp_path / f"{scale}.png")
        Image.fromarray(picture).save(paths[-1])
    crops = labels.crop_white_cells(pd.Series(paths), size=96)
    widths = []
    for crop in crops:
        assert crop.shape == (96, 96, 3)
        y, x = np.nonzero(crop[..., 1] < 150)
        assert (x.mean(), y.mean()) == pytest.approx((47.5, 47.5), abs=1)
        widths.append(np.ptp(x))
    assert widths[0] == pytest.approx(widths[1], abs=2)


# Boxes that are missing


def boxed_photographs(folder, prefix, shades, boxes):
    """Photographs of one shade each, all with these boxes: kind and corners."""
    folder.mkdir()
    names = [f"{prefix}{number}" for number in range(len(shades))]
    for name, shade in zip(names, shades, strict=True):
        Image.new("RGB", (64, 48), (shade, 128, 128)).save(folder / f"{name}.png")
    photographs = pd.DataFrame({"photograph": names, "width": 64, "height": 48})
    photographs["path"] = [str(folder / f"{name}.png") for name in names]
    table = pd.DataFrame(
        [(name, *box, 64, 48) for name in names for box in boxes],
        columns=["photograph", "kind", *cells.BOX, "width", "height"],
    )
    table["kind"] = pd.Categorical(table["kind"], categories=cells.KIND_NAMES)
    return annotations.Annotations(table, pd.DataFrame(), photographs)


WHOLE, CUT, AT_FOUR = ("RBC", 10, 10, 20, 20), ("RBC", 50, 30, 60.5, 40), ("RBC", 4, 20, 14, 30)


@pytest.fixture
def twice(tmp_path):
    """Three photographs boxed, and two of them completely, under other names and reversed."""
    some = boxed_photographs(tmp_path / "some", "a", [0, 60, 120], [WHOLE])
    every = [WHOLE, WHOLE, CUT, AT_FOUR, ("WBC", 20, 20, 40, 40)]
    return some, boxed_photographs(tmp_path / "every", "b", [200, 120, 61], every)


def test_the_same_photographs_are_found_by_their_pixels(twice):
    some, every = twice
    twins = labels.same_photographs(some.photographs, every.photographs)
    assert twins.to_dict() == {"a1": "b2", "a2": "b1"}


@pytest.fixture
def read_twice(twice, monkeypatch):
    by_name = dict(zip(("some", "every"), twice, strict=True))
    monkeypatch.setattr(labels, "read_annotations", by_name.__getitem__)


def test_missing_boxes_are_counted_whole_and_cut_apart(read_twice, tmp_path):
    missing = labels.missing_boxes("some", "every")
    counts = missing.counts
    assert set(counts["photograph"]) == {"a1", "a2"}
    one = counts[counts["photograph"] == "a2"].set_index(["kind", "place"])
    assert one.loc[("RBC", "whole"), ["boxed", "complete"]].tolist() == [1, 2]
    # 60.5 is 3.5 pixels from the edge at 64, and 4 is still at the frame.
    assert one.loc[("RBC", "cut"), ["boxed", "complete"]].tolist() == [0, 2]
    total = missing.total()
    assert total.loc[("RBC", "whole"), ["boxed", "complete", "share"]].tolist() == [2, 4, 0.5]
    assert total.loc[("WBC", "whole"), ["boxed", "complete"]].tolist() == [0, 2]
    assert np.isnan(total.loc[("Platelets", "cut"), "share"])
    assert missing.total(["a2"]).loc[("RBC", "whole"), "complete"] == 2
    path, boxes, complete = missing.worst()
    assert path == str(tmp_path / "some" / "a1.png")
    assert (len(boxes), len(complete)) == (1, 5)
    assert set(complete["photograph"]) == {"b2"}


def test_without_complete_boxes_those_at_the_frame_are_missing(read_twice):
    total = labels.missing_boxes("every").total()
    assert total.loc[("RBC", "cut"), ["boxed", "complete"]].tolist() == [0, 6]
    assert total.loc[("RBC", "whole"), "share"] == 1


def test_other_photographs_are_refused(twice, tmp_path, monkeypatch):
    other = boxed_photographs(tmp_path / "other", "c", [250], [WHOLE])
    monkeypatch.setattr(labels, "read_annotations", {"some": twice[0], "other": other}.get)
    with pytest.raises(DataNotFound, match="None of 3 boxed photographs"):
        labels.missing_boxes("some", "other")
