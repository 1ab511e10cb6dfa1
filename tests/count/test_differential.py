"""Differential counts against closed forms; remarks only where the cells are enough for them."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom

from wbc_helpers import cells
from wbc_helpers.count.differential import (
    LEAST_CELLS,
    MOST_CELLS,
    cells_needed,
    count_differential,
    exact_interval,
)
from wbc_helpers.errors import InvalidParameter


def slide(abstained=0, **numbers):
    """A table of so many cells of each type."""
    named = [name for name, number in numbers.items() for _ in range(number)]
    table = pd.DataFrame({"cell_type": named, "abstained": False, "probability": 0.9})
    more = pd.DataFrame({"cell_type": ["neutrophil"] * abstained, "abstained": True})
    return pd.concat([table, more], ignore_index=True)


# Intervals


@pytest.mark.parametrize("n", [1, 7, 100])
def test_interval_of_none_and_all_has_a_closed_form(n):
    # None of n: the highest p with (1 - p)^n = 0.025.
    assert exact_interval(0, n) == (0, pytest.approx(1 - 0.025 ** (1 / n)))
    assert exact_interval(n, n) == (pytest.approx(0.025 ** (1 / n)), 1)


def test_interval_is_where_the_binomial_tails_begin():
    low, high = exact_interval(23, 100, confidence=0.9)
    assert binom.sf(22, 100, low) == pytest.approx(0.05)
    assert binom.cdf(23, 100, high) == pytest.approx(0.05)
    assert exact_interval(0, 0) == (0, 1)


def test_cells_needed_by_closed_form():
    # No neutrophil among n: 1 - 0.025^(1/n) < 0.4 from n = ln 0.025 / ln 0.6 = 7.2 on.
    assert cells_needed(0, 5, (40, 80)) == 8 == math.ceil(math.log(0.025) / math.log(0.6))
    # No eosinophil: ln 0.025 / ln 0.99 = 367.04.
    assert cells_needed(0, 100, (1, 6)) == 368
    # Nothing but lymphocytes: 0.025^(1/n) > 0.4 from n = ln 0.025 / ln 0.4 = 4.03 on.
    assert cells_needed(3, 3, (20, 40)) == 5


@pytest.mark.parametrize(("count", "n"), [(30, 100), (1, 3), (19, 50), (85, 100)])
def test_cells_needed_are_the_least(count, n):
    needed = cells_needed(count, n, (40, 80))
    outside = [
        exact_interval(count / n * size, size)[1] < 0.4
        or exact_interval(count / n * size, size)[0] > 0.8
        for size in range(1, needed + 50)
    ]
    assert not any(outside[: needed - 1]) and all(outside[needed - 1 :])


def test_no_number_of_cells_is_needed_within_the_range_or_enough_at_its_edge():
    assert cells_needed(40, 100, (40, 80)) == cells_needed(6, 10, (40, 80)) == 0
    assert cells_needed(3_999_999, 10_000_000, (40, 80)) == MOST_CELLS + 1


# The differential


def test_percentages_by_hand():
    found = count_differential(slide(neutrophil=120, lymphocyte=60, monocyte=14, eosinophil=6))
    assert list(found.table.index) == list(cells.LEUKOCYTES)
    assert found.table["count"].to_dict() == {
        "eosinophil": 6,
        "lymphocyte": 60,
        "monocyte": 14,
        "neutrophil": 120,
        "basophil": 0,
    }
    assert found.table["percent"].tolist() == pytest.approx([3, 30, 7, 60, 0])
    row = found.table.loc["monocyte"]
    assert [row["low"], row["high"]] == pytest.approx([100 * p for p in exact_interval(14, 200)])
    assert found.table[["reference_low", "reference_high"]].to_numpy().tolist() == [
        [1, 6],
        [20, 40],
        [2, 10],
        [40, 80],
        [0, 2],
    ]
    # 30 of 60: 52.9 to 66.8; 30 % : 23.7 to 36.9; monocytes 3.9 to 11.5 and eosinophils 1.1 to
    # 6.4 reach beyond their ranges.
    assert found.table["verdict"].tolist() == ["unclear", "within", "unclear", "within", "within"]
    assert (found.table["needed"] == 0).all()
    assert (found.n_cells, found.n_abstained) == (200, 0)


def test_what_lies_wholly_outside_is_something_to_look_at():
    found = count_differential(slide(neutrophil=30, lymphocyte=150, monocyte=10, eosinophil=10))
    neutrophil, lymphocyte = found.table.loc["neutrophil"], found.table.loc["lymphocyte"]
    assert (neutrophil["verdict"], lymphocyte["verdict"]) == ("below", "above")
    assert neutrophil["remark"] == (
        "neutrophils: 15.0% (10.4–20.7%), below the adult range of 40–80%: "
        "relative neutropenia, something to look at."
    )
    assert (
        "above the adult range of 20–40%: relative lymphocytosis, something to look at"
        in lymphocyte["remark"]
    )
    page = str(found)
    assert "Not for diagnosis" in page and "basophils" in page
    assert "disease" not in page


def test_too_few_cells_name_the_number_that_it_would_take():
    # 5 of 10 lymphocytes: above 20–40 %, the interval 18.7–81.3 % says little.
    found = count_differential(slide(lymphocyte=5, neutrophil=5))
    row = found.table.loc["lymphocyte"]
    assert row["verdict"] == "unclear"
    needed = cells_needed(5, 10, (20, 40))
    assert row["needed"] == max(needed, LEAST_CELLS) == 104
    assert row["remark"] == (
        "lymphocytes: 50.0% (18.7–81.3%), above the adult range of 20–40%, but 10 cells are too "
        "few to say so: at this proportion it would take 104."
    )
    neutrophil = found.table.loc["neutrophil"]
    assert neutrophil["needed"] == 0
    assert "10 cells agree with the adult range of 40–80%, and with others" in neutrophil["remark"]


def test_ten_of_ten_is_not_enough_although_the_interval_is_outside():
    found = count_differential(slide(lymphocyte=10))
    row = found.table.loc["lymphocyte"]
    assert row["low"] > 40
    assert (row["verdict"], row["needed"]) == ("unclear", LEAST_CELLS)
    assert "too few" in row["remark"] and "would take 100" in row["remark"]
    assert "something to look at" not in str(found)
    bold = count_differential(slide(lymphocyte=10), least_cells=10)
    assert bold.table.loc["lymphocyte", "verdict"] == "above"


def test_edge_of_the_range_is_not_decided_by_counting():
    found = count_differential(slide(neutrophil=7_999, lymphocyte=12_001))
    assert found.table.loc["neutrophil", "verdict"] == "unclear"
    # 39.995 %.
    assert "no count would decide" in found.table.loc["neutrophil", "remark"]


def test_cells_without_an_answer_are_in_no_percentage():
    found = count_differential(slide(abstained=17, neutrophil=3, lymphocyte=1))
    assert found.table["percent"].tolist() == [0, 25, 0, 75, 0]
    assert (found.n_cells, found.n_abstained) == (4, 17)
    assert "17 more without an answer" in str(found)


def test_no_cell_at_all():
    for table in (slide(), slide(abstained=2)):
        found = count_differential(table)
        assert found.table["percent"].isna().all()
        assert found.table[["low", "high"]].to_numpy().tolist() == [[0, 100]] * 5
        assert set(found.table["verdict"]) == {"unclear"}
        assert "no white cell was named" in str(found)
        assert "100.0" not in str(found)
    assert "nan" not in str(count_differential(slide(abstained=2)))


def test_type_of_a_cell_without_an_answer_does_not_matter():
    table = slide(neutrophil=1)
    table.loc[1] = [np.nan, True, np.nan]
    assert count_differential(table).n_abstained == 1


def test_ratios_by_hand():
    counts = pd.DataFrame({"RBC": [300, 300], "WBC": [1, 2], "Platelets": [20, 10]})
    found = count_differential(slide(neutrophil=3), counts)
    ratios = found.ratios
    assert ratios["ratio"].to_dict() == {"RBC:WBC": 200, "Platelets:RBC": pytest.approx(0.05)}
    low, high = exact_interval(600, 603)
    assert ratios.loc["RBC:WBC", ["low", "high"]].tolist() == pytest.approx(
        [low / (1 - low), high / (1 - high)]
    )
    # 3900/11 to 6500/4 red cells for a white one, 150/6500 to 400/3900 platelets for a red one.
    assert ratios["reference_low"].tolist() == pytest.approx([354.5454, 0.0230769], rel=1e-5)
    assert ratios["reference_high"].tolist() == pytest.approx([1625, 0.1025641], rel=1e-5)
    assert found.n_photographs == 2
    assert "RBC:WBC = 200 (" in str(found)


@pytest.mark.filterwarnings("error")
def test_ratios_where_something_is_missing():
    counts = pd.DataFrame({"RBC": [3], "WBC": [0]})
    ratios = count_differential(slide(), counts).ratios
    assert list(ratios.index) == ["RBC:WBC"]
    assert ratios[["ratio", "low", "high"]].isna().all(axis=None)
    assert "RBC:WBC: 3 to 0, no ratio" in str(count_differential(slide(), counts))
    assert count_differential(slide()).ratios.empty
    none = pd.DataFrame({"RBC": [0], "Platelets": [5]}, index=["a"])
    assert np.isnan(count_differential(slide(), none).ratios["ratio"].iloc[0])


@pytest.mark.parametrize(
    ("table", "arguments", "message"),
    [
        (slide().drop(columns="abstained"), {}, "without abstained"),
        (slide(blast=1), {}, "include blast"),
        (slide(), {"confidence": 1}, "confidence=1"),
        (slide(), {"least_cells": 0}, "least_cells=0"),
    ],
)
def test_what_cannot_be_counted(table, arguments, message):
    with pytest.raises(InvalidParameter, match=message):
        count_differential(table, **arguments)


@pytest.mark.parametrize(
    ("platelets", "red", "said"),
    [
        # In adult blood 150/6,500 to 400/3,900: of 1,000 such cells, 22.6 to 93.0 are platelets.
        (5, 995, "few platelets beside the red cells, as in thrombocytopenia"),
        (200, 800, "many platelets beside the red cells, as in thrombocytosis"),
        (50, 950, "Within what the adult ranges allow."),
        (5, 95, "100 red cells and platelets agree with the adult ranges, and with others."),
        # Of 50 cells none is a platelet, whose interval reaches to 7.1 %.
        (
            0,
            50,
            "50 red cells and platelets are too few to say so: at this ratio it would take 162.",
        ),
    ],
)
def test_platelets_are_remarked_on_beside_red_cells(platelets, red, said):
    counts = pd.DataFrame({"RBC": [red], "WBC": [1], "Platelets": [platelets]})
    found = count_differential(slide(neutrophil=1), counts)
    assert said in found.ratios.loc["Platelets:RBC", "remark"] and said in str(found)
    assert found.ratios.loc["RBC:WBC", "remark"] == ""


def test_slides_on_which_the_network_is_hardly_sure_get_no_differential():
    foreign = count_differential(slide(neutrophil=6, abstained=14))
    assert foreign.is_foreign
    assert "look foreign" in str(foreign) and "adult range" not in str(foreign)
    assert not count_differential(slide(neutrophil=7, abstained=13)).is_foreign
    # Of few cells nothing is concluded.
    assert not count_differential(slide(abstained=19)).is_foreign
    # To what a laboratory taught it is not foreign.
    own = count_differential(slide(neutrophil=6, abstained=14), taught=True)
    assert not own.is_foreign and "adult range" in str(own)
