"""Counts and their agreement, by hand."""

import numpy as np
import pandas as pd
import pytest

from wbc_helpers.errors import InvalidParameter
from wbc_helpers.evaluate.detection import count_agreement, count_cells


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
