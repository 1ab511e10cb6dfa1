"""Average precision against numbers worked out by hand, and against COCO's own evaluation."""

import json

import numpy as np
import pandas as pd
import pytest

from wbc_helpers.errors import InvalidParameter
from wbc_helpers.evaluate import detection
from wbc_helpers.evaluate.detection import IOUS, average_precisions, intervals, score_detections

COLUMNS = ["photograph", "kind", "x_min", "y_min", "x_max", "y_max"]


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


# By hand


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
