"""Boxes read from XML: exact where they are right, named where they are wrong."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from written_files import below, write_zip

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


# YOLO and COCO, and VOC beside the images


def picture(path, size=(200, 100)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)


def written(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text if isinstance(text, str) else json.dumps(text))


YOLO = "1 0.5 0.5 0.25 0.5\n0 0.1 0.1 0.2 0.2\n2 0.9 0.9 0.02 0.04 0.87\n"
CORNERS = [["RBC", 75, 25, 125, 75], ["WBC", 0, 0, 40, 20], ["Platelets", 178, 88, 182, 92]]
NAMES = "WBC\nRed Blood Cells\nthrombocyte\n"
COCO = {
    "images": [{"id": 7, "file_name": "a.jpg", "width": 200, "height": 100}],
    "categories": [
        {"id": 0, "name": "cells", "supercategory": "none"},
        {"id": 1, "name": "erythrocyte"}, {"id": 2, "name": "Leukocytes"},
        {"id": 3, "name": "platelet"},
    ],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 1, "bbox": [75, 25, 50, 50]},
        {"id": 2, "image_id": 7, "category_id": 2, "bbox": [0, 0, 40, 20]},
        {"id": 3, "image_id": 7, "category_id": 3, "bbox": [178, 88, 4, 4]},
    ],
}  # fmt: skip
VOC = [("rbc", 76, 26, 125, 75), ("Leukocyte", 1, 1, 40, 20), ("Platelet", 179, 89, 182, 92)]


def yolo_of_roboflow(root):
    picture(root / "train" / "images" / "a.jpg")
    written(root / "train" / "labels" / "a.txt", YOLO)
    written(root / "data.yaml", "train: ../train/images\nnc: 3\nnames: ['WBC', 'RBC', 'PLT']\n")


def yolo_with_numbered_names(root):
    yolo_of_roboflow(root)
    written(root / "data.yaml", "names:\n  0: WBC\n  1: RBC\n  2: Platelets\n")


def yolo_of_label_studio(root):
    picture(root / "images" / "a.jpg")
    written(root / "labels" / "a.txt", YOLO)
    written(root / "classes.txt", NAMES)


def yolo_of_labelimg(root):
    picture(root / "a.jpg")
    written(root / "a.txt", YOLO)
    written(root / "classes.txt", NAMES)


def coco_of_roboflow(root):
    picture(root / "train" / "a.jpg")
    written(root / "train" / "_annotations.coco.json", COCO)


def coco_of_label_studio(root):
    picture(root / "images" / "a.jpg")
    image = COCO["images"][0] | {"file_name": "../../label-studio/data/images/a.jpg"}
    written(root / "result.json", COCO | {"images": [image]})


def voc_of_labelimg(root):
    picture(root / "a.jpg")
    written(root / "a.xml", xml(VOC, (200, 100)))


def voc_of_label_studio(root):
    picture(root / "images" / "a.jpg")
    written(root / "Annotations" / "a.xml", xml(VOC, (200, 100)))


LAYOUTS = [
    yolo_of_roboflow, yolo_with_numbered_names, yolo_of_label_studio, yolo_of_labelimg,
    coco_of_roboflow, coco_of_label_studio, voc_of_labelimg, voc_of_label_studio,
]  # fmt: skip


@pytest.mark.parametrize("wrapped", ["", "export/of/mine"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_tools_boxes_are_read_alike(layout, wrapped, tmp_path):
    layout(tmp_path / wrapped)
    folder = sources.fetch(tmp_path, "nowhere", holds="photographs")
    read = read_annotations(folder)
    assert read.problems.empty, str(read)
    assert read.boxes[["kind", *BOX]].to_numpy().tolist() == CORNERS
    assert read.photographs[["photograph", "width", "height"]].to_numpy().tolist() == [
        ["a", 200, 100]
    ]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_archive_of_them_is_taken(layout, tmp_path):
    layout(tmp_path / "mine")
    files = {f"mine/{name}": data for name, data in below(tmp_path / "mine").items()}
    archive = write_zip(tmp_path / "mine.zip", files)
    folder = sources.fetch(archive, tmp_path / "data", False, "photographs")
    assert len(read_annotations(folder).boxes) == 3


def test_names_that_are_not_known_are_refused_with_the_list(tmp_path):
    yolo_of_labelimg(tmp_path)
    written(tmp_path / "classes.txt", "WBC\nparasite\nplatelet\n")
    with pytest.raises(
        DataMismatch, match=r"called parasite, of the names WBC, parasite, plat"
    ) as error:
        read_annotations(tmp_path)
    assert "RBC (rbc, red blood cell" in str(error.value)
    # What is listed and never used does no harm; names given by hand go before those in files.
    written(tmp_path / "classes.txt", "WBC\nRBC\nplatelet\nparasite\n")
    assert len(read_annotations(tmp_path).boxes) == 3
    with pytest.raises(DataMismatch, match="number 2"):
        read_annotations(tmp_path, classes=["WBC", "RBC"])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("data.yaml", "names: 3"),
        ("data.yaml", "names: ["),
        ("notes.json", "{}"),
        ("notes.json", "{"),
    ],
)
def test_names_that_cannot_be_read_are_refused(name, text, tmp_path):
    yolo_of_labelimg(tmp_path)
    (tmp_path / "classes.txt").unlink()
    with pytest.raises(DataNotFound, match=r"classes\.txt"):
        read_annotations(tmp_path)
    written(tmp_path / name, text)
    with pytest.raises(DataMismatch, match=f"{name} gives no list of names"):
        read_annotations(tmp_path)


@pytest.mark.parametrize(
    "broken",
    [
        {"images": [{"id": 7}]},
        {"annotations": [{"id": 1, "image_id": 8, "category_id": 1, "bbox": [1, 1, 2, 2]}]},
        {"annotations": [{"id": 1, "image_id": 7, "category_id": 1, "bbox": [1, 2]}]},
        {"annotations": [{"id": 1, "image_id": 7, "category_id": 1}]},
        {"categories": None},
    ],
)
def test_malformed_coco_is_refused_by_name(broken, tmp_path):
    coco_of_roboflow(tmp_path)
    written(tmp_path / "train" / "_annotations.coco.json", COCO | broken)
    with pytest.raises(DataMismatch, match=r"_annotations\.coco\.json is malformed"):
        read_annotations(tmp_path)


def test_lines_that_are_no_boxes_are_named(tmp_path):
    yolo_of_labelimg(tmp_path)
    written(tmp_path / "a.txt", YOLO + "1 0.5 0.5\n1 x 0.5 0.1 0.1\n1 0.1 0.1 0.3 0.1 0.3 0.2\n")
    read = read_annotations(tmp_path)
    assert read.problems[["box", "problem"]].to_numpy().tolist() == [
        [4, "no numbers"], [5, "no numbers"],
    ]  # fmt: skip
    # The last one is an outline.
    assert read.boxes[["kind", *BOX]].to_numpy().tolist()[3] == ["RBC", 20, 10, 60, 20]


def test_photographs_of_one_name_are_told_apart_by_their_folders(tmp_path):
    yolo_of_roboflow(tmp_path)
    picture(tmp_path / "valid" / "images" / "a.jpg")
    written(tmp_path / "valid" / "labels" / "a.txt", YOLO.splitlines()[0])
    picture(tmp_path / "valid" / "images" / "b.jpg")
    written(tmp_path / "valid" / "labels" / "c.txt", YOLO)
    read = read_annotations(tmp_path)
    counts = read.boxes["photograph"].value_counts().to_dict()
    assert counts == {"train/images/a": 3, "valid/images/a": 1}
    assert read.problems[["photograph", "problem"]].to_numpy().tolist() == [
        ["b", "no annotation"], ["c", "no photograph"],
    ]  # fmt: skip


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_a_turned_photograph_is_boxed_as_people_see_it(suffix, tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (100, 200)).save(tmp_path / f"a{suffix}", exif=turned)
    written(tmp_path / "a.xml", xml(VOC, (200, 100)))
    read = read_annotations(tmp_path)
    assert read.photographs[["width", "height"]].to_numpy().tolist() == [[200, 100]]
    assert read.boxes[["kind", *BOX]].to_numpy().tolist() == CORNERS


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


@pytest.mark.slow
@pytest.mark.real_data
def test_copy_on_kaggle_boxes_red_cells_only(real_folder):
    with pytest.raises(DataMismatch, match=r"343 annotations.*no WBC, Platelets \(found: RBC\)"):
        read_annotations(real_folder)
    only_red = annotations.read_annotations(real_folder, kinds=["RBC"])
    assert only_red.problems["problem"].value_counts().to_dict() == {
        "no annotation": 23,
        "no area": 2,
    }
