"""Boxes read from XML: exact where they are right, named where they are wrong."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from wbc_helpers import cells
from wbc_helpers.cells import BOX
from wbc_helpers.data import annotations, sample, sources
from wbc_helpers.data.annotations import read_annotations
from wbc_helpers.errors import DataMismatch, DataNotFound

GOOD = [("RBC", 1, 1, 640, 480), ("WBC", 11, 21, 30, 60), ("Platelets", 100, 100, 109, 119)]


def xml(boxes, size=(640, 480)):
    def edge(name, value):
        return "" if value is None else f"<{name}>{value}</{name}>"

    objects = "".join(
        f"<object>{edge('name', kind)}<bndbox>"
        + "".join(map(edge, ("xmin", "ymin", "xmax", "ymax"), corners))
        + "</bndbox></object>"
        for kind, *corners in boxes
    )
    stated = f"<size>{edge('width', size[0])}{edge('height', size[1])}<depth>3</depth></size>"
    return f"<annotation>{stated}{objects}</annotation>"


@pytest.fixture
def write(tmp_path):
    """Write a photograph and its XML; `None` leaves either out."""
    for part in ("JPEGImages", "Annotations"):
        (tmp_path / part).mkdir()

    def write_one(name, boxes=GOOD, text=None, image=b"", size=(640, 480)):
        if image == b"":
            Image.new("RGB", (640, 480)).save(tmp_path / "JPEGImages" / f"{name}.jpg")
        elif image is not None:
            (tmp_path / "JPEGImages" / f"{name}.jpg").write_bytes(image)
        if boxes is not None:
            text = xml(boxes, size) if text is None else text
            (tmp_path / "Annotations" / f"{name}.xml").write_text(text)
        return tmp_path

    return write_one


def test_boxes_reach_from_edge_to_edge_of_their_pixels(write):
    found = read_annotations(write("a"))
    assert found.boxes[["photograph", "kind", *BOX, "width", "height"]].to_numpy().tolist() == [
        ["a", "RBC", 0, 0, 640, 480, 640, 480],
        ["a", "WBC", 10, 20, 30, 60, 640, 480],
        ["a", "Platelets", 99, 99, 109, 119, 640, 480],
    ]
    assert list(found.boxes["kind"].cat.categories) == ["RBC", "WBC", "Platelets"]
    assert all(kind.kind == "f" for kind in found.boxes[BOX].dtypes)
    assert found.problems.empty
    assert str(found) == ("1 photographs with 3 boxes: 1 RBC, 1 WBC, 1 Platelets\n0 problems")


def test_drawn_box_holds_the_pixels_that_were_drawn(tmp_path):
    stain = sample.mix_stain(np.random.default_rng(0))
    field = sample.Field((sample.Cell("red", 300.5, 200.25, 50, seed=5),), stain)
    pixels, boxes = sample.photograph(field, np.random.default_rng(0))
    for part in ("JPEGImages", "Annotations"):
        (tmp_path / part).mkdir()
    Image.fromarray(pixels).save(tmp_path / "JPEGImages" / "one.jpg")
    (tmp_path / "Annotations" / "one.xml").write_bytes(sample._annotation("one", boxes))
    left, top, cover, _ = sample.paint(field.cells[0], stain)
    y, x = np.nonzero(cover > 0.5)
    box = read_annotations(tmp_path, kinds=["RBC"]).boxes.iloc[0]
    assert box[["x_min", "x_max"]].tolist() == [left + x.min(), left + x.max() + 1]
    assert box[["y_min", "y_max"]].tolist() == [top + y.min(), top + y.max() + 1]


WRONG = {
    "no area": (("RBC", 5, 7, 5, 9), "RBC from 5, 7 to 5, 9", "dropped", None),
    "swapped corners": (("RBC", 30, 9, 21, 4), "30, 9 to 21, 4", "exchanged", [20, 3, 30, 9]),
    "outside": (("WBC", 631, 0, 700, 9), "of 640×480", "clipped", [630, 0, 640, 9]),
    "outside, nothing left": (("WBC", 700, 1, 710, 9), "of 640×480", "dropped", None),
    "unknown kind": (("parasite", 1, 1, 9, 9), "parasite", "dropped", None),
    "unknown kind, no name": ((None, 1, 1, 9, 9), "no name", "dropped", None),
    "no numbers": (("RBC", 1, 1, "nan", 9), "RBC from 1, 1, nan, 9", "dropped", None),
    "no numbers, one missing": (("RBC", 1, None, 4, 9), "1, None, 4, 9", "dropped", None),
    "no numbers, words": (("RBC", 1, "two", 4, 9), "1, two, 4, 9", "dropped", None),
}


@pytest.mark.parametrize("case", WRONG)
def test_box_that_is_wrong_is_named(write, case):
    box, found, handled, left = WRONG[case]
    read = read_annotations(write("a", [*GOOD[:2], box, GOOD[2]]))
    (problem,) = read.problems.to_dict("records")
    assert found in problem.pop("found")
    expected = {"photograph": "a", "box": 3, "problem": case.split(",")[0], "handled": handled}
    assert problem == expected
    corners = read.boxes[BOX].to_numpy().tolist()
    assert corners[:2] == [[0, 0, 640, 480], [10, 20, 30, 60]]
    assert corners[2:-1] == ([left] if left else [])
    assert f"a, box 3: {case.split(',')[0]}" in str(read)


def test_box_with_two_faults_has_two_rows(write):
    read = read_annotations(write("a", [*GOOD, ("RBC", 650, 9, 21, 500)]))
    assert read.problems[["box", "problem"]].to_numpy().tolist() == [
        [4, "swapped corners"],
        [4, "outside"],
    ]
    assert read.boxes[BOX].iloc[-1].tolist() == [20, 8, 640, 480]


BOMB = (
    '<!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c "&b;&b;&b;">]><annotation><size><width>&c;</width>'
    "</size></annotation>"
)
LEFT_OUT = {
    "no annotation": {"boxes": None},
    "no photograph": {"image": None},
    "broken photograph": {"image": b"no image"},
    "broken annotation": {"text": "<annotation><object>"},
    "broken annotation, empty": {"text": ""},
    "broken annotation, entities": {"text": BOMB},
    "other size": {"size": (320, 240)},
}


@pytest.mark.parametrize("case", LEFT_OUT)
def test_photograph_of_which_too_little_is_known_is_left_out(write, case):
    write("a")
    read = read_annotations(write("b", **LEFT_OUT[case]))
    (problem,) = read.problems.to_dict("records")
    assert (problem["photograph"], problem["problem"]) == ("b", case.split(",")[0])
    assert pd.isna(problem["box"]) and problem["handled"] == "left out"
    assert list(read.photographs["photograph"]) == ["a"]
    assert set(read.boxes["photograph"]) == {"a"}


@pytest.mark.parametrize("size", [(None, None), (0, 0), ("", 480)])
def test_size_that_is_not_stated_is_the_photographs_own(write, size):
    read = read_annotations(write("a", size=size))
    assert read.problems.empty
    assert read.boxes[["width", "height"]].drop_duplicates().to_numpy().tolist() == [[640, 480]]


def test_photograph_without_cells_counts(write):
    write("a")
    read = read_annotations(write("b", []))
    assert list(read.photographs["photograph"]) == ["a", "b"]
    assert read.problems.empty


def test_kind_that_never_occurs_is_refused(write):
    folder = write("a", [GOOD[0], ("basophil", 1, 1, 9, 9)])
    with pytest.raises(
        DataMismatch, match=r"box no WBC, Platelets \(found: RBC, basophil\).*SOURCE=bccd"
    ):
        read_annotations(folder)
    assert len(read_annotations(folder, kinds=["RBC"]).boxes) == 1


def test_nothing_to_read_is_refused(write):
    with pytest.raises(DataNotFound, match=r"1 photographs and 0 annotations.*a, no annotation"):
        read_annotations(write("a", boxes=None))


def test_hidden_files_are_no_photographs(write):
    folder = write("a")
    (folder / "JPEGImages" / "._a.jpg").write_bytes(b"junk")
    (folder / "Annotations" / "._a.xml").write_bytes(b"junk")
    assert read_annotations(folder).problems.empty


def test_drawn_sample_has_no_problems(sample_folder):
    read = read_annotations(sample_folder)
    assert len(read.photographs) == sample.N_PHOTOGRAPHS
    assert read.problems.empty
    white = read.boxes[read.boxes["kind"] == "WBC"]
    assert len(white) == sample.N_PHOTOGRAPHS + len(sample.TWO_WHITE_CELLS)


@pytest.mark.real_data
def test_real_annotations(real_bccd):
    """What the table in the package says was annotated, and the two clicks among it."""
    read = read_annotations(real_bccd)
    published = sources.SOURCES["photographs", "bccd"].boxes
    assert len(read.photographs) == 364
    assert read.problems[["photograph", "box", "problem"]].to_numpy().tolist() == [
        ["BloodImage_00338", 13, "no area"],
        ["BloodImage_00343", 4, "no area"],
    ]
    counts = read.boxes["kind"].value_counts()
    assert {kind: int(counts[kind]) for kind in cells.KIND_NAMES} == {
        **published,
        "RBC": published["RBC"] - 2,
    }


@pytest.mark.real_data
def test_copy_on_kaggle_boxes_red_cells_only(real_folder):
    with pytest.raises(DataMismatch, match=r"343 annotations.*no WBC, Platelets \(found: RBC\)"):
        read_annotations(real_folder)
    only_red = annotations.read_annotations(real_folder, kinds=["RBC"])
    assert only_red.problems["problem"].value_counts().to_dict() == {
        "no annotation": 23,
        "no area": 2,
    }
