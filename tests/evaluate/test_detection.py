"""Boxes paired off, scored and counted by hand, and as COCO's own evaluation does."""

import dataclasses
import itertools
import json

import numpy as np
import pandas as pd
import pytest

from wbc_helpers.cells import BOX
from wbc_helpers.errors import InvalidParameter
from wbc_helpers.evaluate import detection
from wbc_helpers.evaluate.detection import (
    IOUS,
    average_precisions,
    count_agreement,
    count_cells,
    fair_thresholds,
    intervals,
    match_boxes,
    overlap,
    score_detections,
)

COLUMNS = ["photograph", "kind", *BOX]


def truth_of(*boxes):
    return pd.DataFrame(boxes, columns=COLUMNS)


def predicted(*boxes):
    return pd.DataFrame(boxes, columns=[*COLUMNS, "score"])


def square(photograph, left, kind="RBC", side=10, score=None):
    """A square box; those 20 pixels apart do not overlap."""
    box = (photograph, kind, left, 0, left + side, side)
    return box if score is None else (*box, score)


def ap_50(truth, predictions, photographs="ab"):
    return score_detections(truth, predictions, photographs, ["RBC"]).average_precision.iloc[0, 0]


# Average precision by hand


def test_found_false_found():
    truth = truth_of(square("a", 0), square("b", 0))
    predictions = predicted(
        square("a", 0, score=0.9), square("a", 40, score=0.8), square("b", 0, score=0.7)
    )
    # Precision 1, 1/2, 2/3 at recall 1/2, 1/2, 1: up to recall 0.50 it is 1 (51 points of 101),
    # beyond that 2/3 (50 points).
    assert ap_50(truth, predictions) == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_false_found_missed():
    truth = truth_of(square("a", 0), square("a", 20), square("b", 0))
    predictions = predicted(square("b", 40, score=0.9), square("a", 20, score=0.8))
    # Precision 0, 1/2 at recall 0, 1/3: 1/2 at 0.00 to 0.33 (34 points), 0 beyond.
    assert ap_50(truth, predictions) == pytest.approx(34 / 2 / 101)


def test_second_box_on_a_cell_is_false():
    truth = truth_of(square("a", 0), square("b", 0))
    twice = [square("a", 0, score=0.9), square("a", 1, score=0.8)]
    once_more = square("b", 0, score=0.7)
    assert ap_50(truth, predicted(*twice, once_more)) == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_overlap_decides_at_which_thresholds_a_box_counts():
    truth = truth_of(square("a", 0))
    # 7 of 13 columns shared: IoU 0.54. So it counts at 0.5 only, not at 0.55.
    scores = score_detections(truth, predicted(square("a", 3, score=1.0)), "a", ["RBC"])
    assert scores.average_precision.iloc[0].tolist() == pytest.approx([1] + 9 * [0])
    assert (scores.map_50, scores.map_50_95) == pytest.approx((1, 0.1))


def test_mean_leaves_out_what_is_not_there():
    truth = truth_of(square("a", 0), square("a", 0, "WBC"))
    predictions = predicted(square("a", 0, score=1.0), square("a", 40, "Platelets", score=1.0))
    scores = score_detections(truth, predictions, ["a"])
    assert scores.per_kind["ap_50"].tolist()[:2] == pytest.approx([1, 0])
    assert np.isnan(scores.per_kind.loc["Platelets", "ap_50"])
    assert scores.per_kind[["n_truth", "n_predicted"]].to_numpy().tolist() == [
        [1, 1],
        [1, 0],
        [0, 1],
    ]
    assert (scores.map_50, scores.map_50_95) == pytest.approx((0.5, 0.5))
    plain = json.loads(json.dumps(scores.to_dict()))
    assert plain["per_kind"]["Platelets"] == {
        "ap_50": None,
        "ap_50_95": None,
        "n_truth": 0,
        "n_predicted": 1,
    }


def test_no_box_at_all_and_no_cell_at_all():
    nothing = predicted().astype({"x_min": float})
    assert ap_50(truth_of(square("a", 0)), nothing) == 0
    scores = score_detections(truth_of(), predicted(square("a", 0, score=1.0)), "a")
    assert scores.average_precision.isna().all(axis=None) and np.isnan(scores.map_50)
    assert scores.to_dict()["map_50"] is None
    empty = score_detections(truth_of(), nothing, "ab")
    assert intervals(empty, n_resamples=3).isna().all(axis=None)


def test_other_photographs_boxes_do_not_count_for_a_cell():
    assert ap_50(truth_of(square("a", 0)), predicted(square("b", 0, score=1.0))) == 0


def test_only_the_surest_hundred_boxes_count():
    boxes = [square("a", 20 * i, score=1 - i / 1000) for i in range(1, 101)]
    late = square("a", 0, score=0.1)
    assert ap_50(truth_of(square("a", 0)), predicted(*boxes, late)) == 0
    assert ap_50(truth_of(square("a", 0)), predicted(*boxes[:99], late)) == pytest.approx(0.01)


def test_nothing_is_printed(capfd):
    ap_50(truth_of(square("a", 0)), predicted(square("a", 0, score=1.0)))
    assert capfd.readouterr() == ("", "")


GOOD = predicted(square("a", 0, score=0.5))


@pytest.mark.parametrize(
    ("predictions", "message"),
    [
        (GOOD.drop(columns="score"), "have no column score"),
        (GOOD.assign(x_max=np.nan), "not finite"),
        (GOOD.assign(score=np.inf), "not finite"),
        (GOOD.assign(x_max=-1), "end before they begin"),
        (GOOD.assign(kind="neutrophil"), "other kinds: neutrophil"),
        (GOOD.assign(photograph="c"), "1 other photographs: c"),
    ],
)
def test_predictions_that_cannot_be_scored(predictions, message):
    with pytest.raises(InvalidParameter, match=rf"predictions .*{message}.*in the 2 photographs"):
        score_detections(truth_of(square("a", 0)), predictions, "ab")


def test_no_photograph():
    with pytest.raises(InvalidParameter, match="no photograph"):
        score_detections(truth_of(), predicted(), [])


# Against COCO's own evaluation


@pytest.fixture(scope="module")
def drawn():
    """Twelve photographs with jittered, missed, doubled and invented boxes."""
    generator = np.random.default_rng(5)
    truth, predictions = [], []
    for number in range(12):
        name = f"p{number:02d}"
        for kind, most in (("RBC", 9), ("WBC", 2), ("Platelets", 3)):
            for _ in range(generator.integers(0, most)):
                corner = generator.uniform(0, 500, 2)
                box = [*corner, *(corner + generator.uniform(40, 90, 2))]
                truth.append((name, kind, *box))
                for _ in range(generator.choice([0, 1, 1, 1, 2])):
                    moved = np.array(box) + generator.normal(0, 5, 4)
                    predictions.append((name, kind, *moved, generator.random()))
            if generator.random() < 0.5:
                corner = generator.uniform(0, 500, 2)
                predictions.append((name, kind, *corner, *(corner + 60), generator.random()))
    return truth_of(*truth), predicted(*predictions), [f"p{number:02d}" for number in range(12)]


@pytest.fixture(scope="module")
def scores(drawn):
    return score_detections(*drawn)


def test_counting_again_gives_cocos_numbers(scores):
    once = np.ones((1, scores.n_photographs), int)
    again = [average_precisions(evidence, once)[0] for evidence in scores.evidence]
    # But for the order in which numbers are added.
    np.testing.assert_allclose(again, scores.average_precision, rtol=0, atol=1e-14)
    # The drawn boxes are neither all right nor all wrong.
    assert 0.2 < scores.map_50_95 < scores.map_50 < 0.95


@pytest.mark.parametrize("seed", range(4))
def test_counting_photographs_twice_gives_what_coco_gives_for_copies(drawn, scores, seed):
    truth, predictions, names = drawn
    weights = np.random.default_rng(seed).multinomial(12, np.full(12, 1 / 12))
    copies = [(name, f"{name} {copy}") for name, n in zip(names, weights, strict=True)
              for copy in range(n)]  # fmt: skip

    def copied(boxes):
        return pd.concat(
            [boxes[boxes["photograph"] == name].assign(photograph=copy) for name, copy in copies]
        )

    expected = score_detections(copied(truth), copied(predictions), [copy for _, copy in copies])
    found = [average_precisions(evidence, weights[np.newaxis])[0] for evidence in scores.evidence]
    np.testing.assert_allclose(found, expected.average_precision, atol=1e-12)


def test_intervals_hold_the_value_and_follow_the_seed(scores):
    table = intervals(scores, n_resamples=200)
    assert table["value"].iloc[0] == pytest.approx(scores.map_50)
    assert table["value"].iloc[1] == pytest.approx(scores.map_50_95)
    assert table.loc["AP@0.5 of WBC", "value"] == pytest.approx(scores.per_kind.loc["WBC", "ap_50"])
    assert table.loc["AP@0.5:0.95 of RBC", "value"] == pytest.approx(
        scores.per_kind.loc["RBC", "ap_50_95"]
    )
    assert ((table["low"] < table["value"]) & (table["value"] < table["high"])).all()
    pd.testing.assert_frame_equal(table, intervals(scores, n_resamples=200))
    narrow = intervals(scores, n_resamples=200, confidence=0.5)
    assert (narrow["high"] - narrow["low"] < table["high"] - table["low"]).all()


def test_quantiles_by_hand():
    """Two photographs, one found, one missed: AP 1, 1/2 (51 of 101 points) or 0."""
    truth = truth_of(square("a", 0), square("b", 0))
    scores = score_detections(truth, predicted(square("a", 0, score=1.0)), "ab", ["RBC"])
    table = intervals(scores, n_resamples=4000, confidence=0.4)
    # A quarter of the draws shows "a" twice, a quarter "b" twice: the quantiles 0.3 and 0.7 are
    # those of one of each.
    assert table.loc["AP@0.5 of RBC"].tolist() == pytest.approx([51 / 101] * 3)
    wide = intervals(scores, n_resamples=4000, confidence=0.6)
    assert wide.loc["mAP@0.5"].tolist() == pytest.approx([51 / 101, 0, 1])


def test_groups_are_drawn_together(scores):
    alone = pd.Series("one", index=scores.photographs)
    assert intervals(scores, alone, n_resamples=20)[["low", "high"]].isna().all(axis=None)
    pairs = pd.Series(np.arange(12) // 2, index=scores.photographs)
    grouped = intervals(scores, pairs.sample(frac=1, random_state=0), n_resamples=20)
    pd.testing.assert_frame_equal(grouped, intervals(scores, pairs, n_resamples=20))


@pytest.mark.parametrize(
    "arguments", [{"n_resamples": 0}, {"n_resamples": True}, {"confidence": 1}, {"confidence": 0}]
)
def test_intervals_refuse_numbers_out_of_range(scores, arguments):
    with pytest.raises(InvalidParameter, match="No interval"):
        intervals(scores, **arguments)
    with pytest.raises(InvalidParameter, match="1 of 12 photographs in no group"):
        intervals(scores, pd.Series(0, index=scores.photographs[1:]))


def test_a_kind_in_few_photographs_is_missing_from_some_draws(drawn):
    truth, predictions, names = drawn
    one = truth[(truth["kind"] != "WBC") | (truth.index == truth.index[truth["kind"] == "WBC"][0])]
    table = intervals(score_detections(one, predictions, names), n_resamples=50)
    assert table.notna().all(axis=None)


def test_thresholds_are_cocos():
    from pycocotools.cocoeval import Params

    np.testing.assert_array_equal(IOUS, Params("bbox").iouThrs)
    np.testing.assert_array_equal(detection._RECALLS, Params("bbox").recThrs)
    assert Params("bbox").maxDets[-1] == detection.MOST_BOXES


# Boxes paired off


def test_overlap_by_hand():
    first = np.array([[0, 0, 10, 10], [0, 0, 0, 0]])
    second = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [10, 0, 20, 10], [2, 2, 4, 4], [0, 0, 0, 0]])
    # Half of each shared: 50 of 150. Inside: 4 of 100.
    np.testing.assert_allclose(overlap(first, second), [[1, 1 / 3, 0, 0.04, 0], [0] * 5])
    assert overlap(first, second[:0]).shape == (2, 0)


TRUTH = truth_of(
    ("a", "RBC", 0, 0, 10, 10),
    ("a", "RBC", 100, 0, 110, 10),
    ("a", "WBC", 0, 0, 10, 10),
    ("b", "RBC", 0, 0, 10, 10),
)


def test_the_surest_box_chooses_first():
    predictions = predicted(
        ("a", "RBC", 0, 1, 10, 11, 0.5),  # 90 of 110 shared, but another was surer
        ("a", "RBC", 0, 2, 10, 12, 0.9),  # 80 of 120
        ("b", "RBC", 0, 0, 10, 10, 0.1),
        ("a", "Platelets", 0, 0, 10, 10, 1.0),
        ("c", "RBC", 0, 0, 10, 10, 1.0),
    )
    matches = match_boxes(TRUTH, predictions)
    assert matches.predictions["match"].tolist() == [-1, 0, 3, -1, -1]
    assert matches.predictions["iou"].tolist() == pytest.approx([0, 2 / 3, 1, 0, 0])
    assert matches.truth["match"].tolist() == [1, -1, -1, 2]
    counts = matches.counts
    assert counts.loc["RBC", ["found", "false", "missed"]].tolist() == [2, 2, 1]
    assert counts.loc["RBC", ["precision", "recall", "f1"]].tolist() == pytest.approx(
        [1 / 2, 2 / 3, 4 / 7]
    )
    assert counts.loc["WBC", ["found", "false", "missed"]].tolist() == [0, 0, 1]
    assert np.isnan(counts.loc["WBC", "precision"]) and counts.loc["WBC", "recall"] == 0
    assert np.isnan(counts.loc["Platelets", "recall"]) and counts.loc["Platelets", "precision"] == 0


def test_a_box_takes_what_it_overlaps_most():
    truth = truth_of(("a", "RBC", 0, 0, 10, 10), ("a", "RBC", 2, 0, 12, 10))
    near_second = predicted(("a", "RBC", 2, 0, 12, 10, 1.0), ("a", "RBC", 2, 0, 12, 10, 0.9))
    # The second box finds its cell taken, and gets the other: 80 of 120.
    assert match_boxes(truth, near_second).predictions["match"].tolist() == [1, 0]
    assert match_boxes(truth, near_second, iou=0.7).predictions["match"].tolist() == [1, -1]


def test_labels_of_the_index_are_kept():
    truth = TRUTH.iloc[[3, 0]]
    found = match_boxes(truth, predicted(("b", "RBC", 0, 0, 10, 10, 1.0)).set_axis([77]))
    assert found.predictions.loc[77, "match"] == 3
    assert found.truth["match"].to_dict() == {3: 77, 0: -1}


def test_nothing_to_match():
    nothing = predicted()
    assert match_boxes(TRUTH, nothing).counts["missed"].to_dict() == {"RBC": 3, "WBC": 1}
    assert match_boxes(TRUTH[:0], nothing).counts.empty
    assert fair_thresholds(match_boxes(TRUTH, nothing)).empty


@pytest.mark.parametrize("iou", [0.5, 0.75])
def test_finds_what_coco_finds(iou):
    generator = np.random.default_rng(1)
    truth, predictions = [], []
    for name in "abcdef":
        for _ in range(12):
            corner = generator.uniform(0, 150, 2)
            box = np.array([*corner, *(corner + 40)])
            truth.append((name, "RBC", *box))
            moved = box + generator.normal(0, 5, 4)
            predictions.append((name, "RBC", *moved, generator.random()))
    truth, predictions = truth_of(*truth), predicted(*predictions)
    matches = match_boxes(truth, predictions, iou)
    scores = score_detections(truth, predictions, "abcdef", ["RBC"])
    hits = scores.evidence[0].hits[np.flatnonzero(np.isclose(IOUS, iou))[0]]
    surest = matches.predictions.sort_values("score", ascending=False)
    assert (surest["match"] >= 0).tolist() == hits.tolist()
    assert 20 < hits.sum() < 72


def test_thresholds_take_as_many_boxes_as_there_are_cells():
    predictions = predicted(
        ("a", "RBC", 0, 0, 10, 10, 0.9),
        ("b", "RBC", 50, 0, 60, 10, 0.8),  # wrong
        ("b", "RBC", 0, 0, 10, 10, 0.7),
        ("b", "RBC", 70, 0, 80, 10, 0.6),  # wrong, and a fourth of three cells
        ("a", "WBC", 80, 0, 90, 10, 0.6),
    )
    assert fair_thresholds(match_boxes(TRUTH, predictions)).to_dict() == {"RBC": 0.7, "WBC": np.inf}
    # Fewer than there are cells: all.
    few = predictions.iloc[:2]
    assert fair_thresholds(match_boxes(TRUTH, few)).to_dict() == {"RBC": 0.8}


@pytest.mark.parametrize("iou", [0, -1, 1.1, float("nan")])
def test_overlap_out_of_range(iou):
    with pytest.raises(InvalidParameter, match="is no overlap"):
        match_boxes(TRUTH, predicted(), iou)


@pytest.mark.parametrize("labels", [[0, 1, 2, 2], list("abcd")])
def test_index_that_names_no_box(labels):
    with pytest.raises(InvalidParameter, match="index of the truth"):
        match_boxes(TRUTH.set_axis(labels), predicted())


# Counts


def boxes_of(*rows):
    return pd.DataFrame(rows, columns=["photograph", "kind"])


def table(**columns):
    return pd.DataFrame(columns, index=pd.Index(list("abcd"), name="photograph"))


def test_every_photograph_and_kind_is_counted():
    boxes = boxes_of(("b", "RBC"), ("a", "WBC"), ("b", "RBC"))
    boxes["kind"] = pd.Categorical(boxes["kind"], ["WBC", "RBC"])
    counts = count_cells(boxes, ["b", "a", "none"])
    assert counts.to_dict("index") == {
        "b": {"RBC": 2, "WBC": 0, "Platelets": 0},
        "a": {"RBC": 0, "WBC": 1, "Platelets": 0},
        "none": {"RBC": 0, "WBC": 0, "Platelets": 0},
    }
    assert list(counts.index) == ["b", "a", "none"]
    assert count_cells(boxes_of(), ["a"]).to_numpy().tolist() == [[0, 0, 0]]


@pytest.mark.parametrize(
    ("boxes", "photographs", "message"),
    [
        (boxes_of(("z", "RBC")), ["a"], "unknown: z"),
        (boxes_of(("a", "neutrophil")), ["a"], "unknown: neutrophil"),
        (boxes_of(), ["a", "a"], "1 of them listed twice"),
    ],
)
def test_what_cannot_be_counted(boxes, photographs, message):
    with pytest.raises(InvalidParameter, match=message):
        count_cells(boxes, photographs)


def test_agreement_by_hand():
    true = table(RBC=[10, 12, 8, 10], WBC=[1, 1, 1, 1])
    # Differences 2, -2, 1, 3: mean 1; squares about it 1, 9, 0, 4: 14 / 3.
    counted = table(WBC=[1, 1, 1, 1], RBC=[12, 10, 9, 13]).iloc[::-1]
    red = count_agreement(true, counted).loc["RBC"]
    assert red[["n", "true", "counted"]].tolist() == [4, 40, 44]
    assert red["mae"] == 2 and red["bias"] == 1
    sd = np.sqrt(14 / 3)
    assert red["sd"] == pytest.approx(sd)
    assert red[["lower", "upper"]].tolist() == pytest.approx([1 - 1.96 * sd, 1 + 1.96 * sd])
    # Student's t with 3 degrees of freedom: 3.182 at 97.5 %.
    reach = 3.1824463 * sd / 2
    assert red[["bias_low", "bias_high"]].tolist() == pytest.approx([1 - reach, 1 + reach])
    white = count_agreement(true, counted).loc["WBC"]
    assert white[["mae", "bias", "sd", "lower", "upper"]].tolist() == [0] * 5


def test_one_photograph_has_no_spread():
    one = table(RBC=3).iloc[:1]
    found = count_agreement(one, one + 2).loc["RBC"]
    assert found[["mae", "bias"]].tolist() == [2, 2]
    assert found[["sd", "lower", "upper", "bias_low", "bias_high"]].isna().all()


def test_confidence_is_that_of_the_bias_only():
    true, counted = table(RBC=[1, 2, 3, 4]), table(RBC=[2, 2, 5, 4])
    usual, bold = (count_agreement(true, counted, c).loc["RBC"] for c in (0.95, 0.5))
    assert bold["bias_high"] < usual["bias_high"]
    assert bold["upper"] == usual["upper"]


@pytest.mark.parametrize(
    ("true", "counted", "confidence"),
    [
        (table(RBC=1), table(RBC=1).iloc[:3], 0.95),
        (table(RBC=1), table(WBC=1), 0.95),
        (table(RBC=1).iloc[:0], table(RBC=1).iloc[:0], 0.95),
        (table(RBC=1), table(RBC=1), 1),
    ],
)
def test_what_cannot_be_compared(true, counted, confidence):
    with pytest.raises(InvalidParameter, match="cannot be compared"):
        count_agreement(true, counted, confidence)


def test_the_even_threshold_is_where_boxes_become_more_often_wrong_than_right():
    matches = match_boxes(TRUTH, TRUTH.iloc[:0].assign(score=0.0))
    rows = pd.DataFrame({"kind": "RBC", "score": [0.9, 0.8, 0.7, 0.6, 0.5, 0.4],
                         "match": [0, 1, -1, 2, -1, -1]})  # fmt: skip
    even = detection.even_thresholds(dataclasses.replace(matches, predictions=rows))
    # Two right, one wrong, one right, two wrong: ahead by 1, 2, 1, 2, 1, 0.
    assert even.to_dict() == {"RBC": 0.8}


# What the frame cuts


def test_edges_are_named_and_a_field_of_fields_counts_each_cell_once():
    # Squares of 10 pixels, all over a plane of 300×300, seen in nine fields of 100×100.
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 290, (500, 2))
    plane = pd.DataFrame(np.hstack([corners, corners + 10]), columns=BOX)
    counted = visible = 0
    for left, upper in itertools.product((0, 100, 200), repeat=2):
        seen = (plane - [left, upper, left, upper]).clip(0, 100)
        seen = seen[(seen["x_max"] - seen["x_min"] > 0) & (seen["y_max"] - seen["y_min"] > 0)]
        counted += detection.is_framed(detection.cut_edges(seen, 100, 100)).sum()
        visible += len(seen)
    # Less those at the plane's own left and upper edge, which no field takes.
    own = (plane[["x_min", "y_min"]] > 1.5).all(axis=1).sum()
    assert visible > 560 and abs(counted - own) <= 0.03 * own
    box = pd.DataFrame([[0, 0, 10, 10], [30, 90, 40, 100]], columns=BOX)
    edges = detection.cut_edges(box, 100, 100)
    assert [" ".join(edges.columns[row]) for row in edges.to_numpy()] == ["left upper", "lower"]
