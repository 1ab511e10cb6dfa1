"""Cells found and named where both networks are stand-ins that know what they are shown."""

import plain_smears
import pytest
from plain_smears import photograph, reader_of

from wbc_helpers.cells import BOX
from wbc_helpers.count import detector
from wbc_helpers.errors import InvalidParameter, UnreadableImage

KNOWN = {
    10: [("RBC", 0, 0, 0.9), ("WBC", 20, 10, 0.95), ("WBC", 40, 40, 0.9)],
    20: [("RBC", 10, 10, 0.9)],
    30: [("WBC", 60, 0, 0.8)],
    40: [("WBC", 0, 50, 0.99), ("Platelets", 30, 30, 0.9), ("WBC", 0, 0, 0.99)],
}


def read(*greys, known=KNOWN):
    return reader_of(known).read([photograph(grey) for grey in greys], plain_smears.RED_CELL)


def test_every_white_cell_gets_the_answer_to_its_own_crop():
    tables = read(10, 20, 30, 40)
    assert [table["kind"].tolist() for table in tables] == [
        ["RBC", "WBC", "WBC"], ["RBC"], ["WBC"], ["WBC", "Platelets", "WBC"],
    ]  # fmt: skip
    named = [table["cell_type"].dropna().tolist() for table in tables]
    assert named == [["lymphocyte", "monocyte"], [], ["neutrophil"], ["eosinophil"] * 2]
    sure = [table["type_probability"].dropna().tolist() for table in tables]
    assert sure == [[0.91, 0.4], [], [0.91], [0.4, 0.91]]
    answered = [table["answered"].dropna().tolist() for table in tables]
    assert answered == [[True, False], [], [True], [False, True]]
    for table in tables:
        assert table.columns.tolist() == detector.READ_COLUMNS
        is_named = table["kind"] == "WBC"
        for column in ("cell_type", "type_probability", "answered"):
            assert table[column].notna().tolist() == is_named.tolist()


def test_boxes_and_scores_are_the_detectors():
    (table,) = read(10)
    assert table[BOX].to_numpy().tolist() == [[0, 0, 10, 10], [20, 10, 30, 20], [40, 40, 50, 50]]
    assert table["score"].tolist() == [0.9, 0.95, 0.9]


@pytest.mark.parametrize(
    ("kind", "score", "expected"),
    [
        # Each kind has a threshold of its own: 0.5, 0.6 and 0.3.
        ("RBC", 0.56, (True, False)),
        ("RBC", 0.54, (True, True)),
        ("RBC", 0.5, (True, True)),
        ("RBC", 0.46, (False, True)),
        ("RBC", 0.44, None),
        ("WBC", 0.66, (True, False)),
        ("WBC", 0.58, (False, True)),
        ("WBC", 0.54, None),
        ("Platelets", 0.36, (True, False)),
        ("Platelets", 0.26, (False, True)),
        ("Platelets", 0.24, None),
    ],
)
def test_what_is_near_the_threshold_of_its_kind_is_unsure(kind, score, expected):
    (table,) = read(10, known={10: [(kind, 20, 10, score)]})
    found = list(zip(table["counted"], table["unsure"], strict=True))
    assert found == ([] if expected is None else [expected])


def test_a_white_cell_without_an_answer_is_unsure_however_surely_it_is_one():
    (table,) = read(10, known={10: [("WBC", 0, 0, 1.0), ("WBC", 0, 50, 1.0)]})
    assert table["answered"].tolist() == [True, False]
    assert table["unsure"].tolist() == [False, True]
    assert table["counted"].all()


def test_a_white_cell_that_is_not_counted_is_not_named():
    (table,) = read(10, known={10: [("WBC", 20, 10, 0.55), ("WBC", 60, 10, 0.95)]})
    assert table["cell_type"].fillna("-").tolist() == ["-", "neutrophil"]
    assert table["counted"].tolist() == [False, True]


def test_photographs_without_white_cells_or_without_any():
    tables = read(20, 99)
    assert [len(table) for table in tables] == [1, 0]
    assert all(table.columns.tolist() == detector.READ_COLUMNS for table in tables)
    assert tables[0][["cell_type", "type_probability", "answered"]].isna().all(axis=None)
    assert read() == []


def test_one_answer_does_not_depend_on_what_else_is_asked():
    alone = [read(grey)[0] for grey in KNOWN]
    for table, together in zip(alone, read(*KNOWN), strict=True):
        assert table.equals(together)


# The scale


def test_photographs_smaller_than_a_red_cell_are_refused():
    detector.check_photograph(photograph(200, (20, 30)), 20)
    for size, red_cell in (((19, 30), 20), ((30, 19), 20), ((9, 30), None)):
        with pytest.raises(UnreadableImage, match=f"{size[1]}×{size[0]} pixels"):
            detector.check_photograph(photograph(200, size), red_cell)


def test_without_a_scale_it_is_asked_for():
    with pytest.raises(InvalidParameter, match="diameter in pixels as red_cell"):
        detector.check_photograph(photograph(200), None)


@pytest.mark.parametrize("ways", [0, 3, -1, "2", 2.5, [1]])
def test_ways_to_look_are_checked_before_a_network_is_loaded(ways):
    with pytest.raises(InvalidParameter, match=r"ways=.*Expected one of 1, 2, 4"):
        detector.load_reader(ways)
