"""Folders of plain photographs counted by a reader that knows what each shows: tables by hand."""

import csv
import dataclasses
import json
import os
import shutil
import sys
import tracemalloc
import zipfile

import numpy as np
import pandas as pd
import plain_smears
import pytest
from PIL import Image
from plain_smears import photograph, reader_of

from wbc_helpers import cells
from wbc_helpers.__main__ import main
from wbc_helpers.cells import BOX
from wbc_helpers.count import detector, fitness, smears
from wbc_helpers.count.smears import count_folder, find_photographs, read_list
from wbc_helpers.errors import (
    BrokenArchive,
    DataMismatch,
    DataNotFound,
    DownloadFailed,
    InvalidParameter,
    NoWorkers,
    PackageMissing,
    RunExists,
)
from wbc_helpers.pixels import scale
from wbc_helpers.runs import backend
from wbc_helpers.runs.backend import Workers

pytestmark = pytest.mark.usefixtures("plain_is_fit")

KNOWN = {
    # One counted red cell, one too unsure to be seen at all, and an unsure platelet.
    10: [
        ("RBC", 0, 0, 0.9),
        ("RBC", 5, 5, 0.3),
        ("WBC", 20, 10, 0.95),
        ("WBC", 40, 40, 0.9),
        ("Platelets", 70, 0, 0.26),
    ],
    20: [("RBC", 0, 0, 0.9), ("RBC", 30, 0, 0.54)],
    30: [("WBC", 60, 0, 0.8), ("Platelets", 0, 30, 0.8)],
}
A_B_C = {"a": 10, "b": 20, "c": 30}
CELLS_OF_A = [
    ["a.png", "RBC", "", "0.0", "0.0", "10.0", "10.0", "0.9", "", "", "left upper"],
    ["a.png", "WBC", "lymphocyte", "20.0", "10.0", "30.0", "20.0", "0.95", "0.91", "True", ""],
    ["a.png", "WBC", "monocyte", "40.0", "40.0", "50.0", "50.0", "0.9", "0.4", "False", ""],
]


def rows_of(table):
    with table.open(encoding="utf-8", newline="") as lines:
        return list(csv.reader(lines))


def contents(folder):
    """Every file below a folder, to the byte; and the folders."""
    return {
        path.relative_to(folder): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def count(folder, out, reader, **options):
    return count_folder(
        folder, out, reader, **{"red_cell": plain_smears.RED_CELL, "progress": False, **options}
    )


@pytest.fixture
def reader():
    return reader_of(KNOWN)


@pytest.fixture
def folder(tmp_path):
    return plain_smears.write(tmp_path / "smears", **A_B_C)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "counted"


@dataclasses.dataclass(frozen=True, eq=False)
class Shifts(plain_smears.Names_by_place):
    """Moves each folder by the number of the cells it is shown: then every cell is a monocyte."""

    moved: object = None
    adapts: bool = True
    laboratory = None
    about = plain_smears.Names_by_place().about

    def check_adapts(self):
        assert self.adapts

    def crops_of(self, images, widths):
        return np.zeros((len(images), 1, 1, 3), np.uint8)

    def features(self, crops):
        return crops

    def adapted(self, crops):
        moved = np.array([float(len(crops))]) if len(crops) else None
        return dataclasses.replace(self, moved=moved)

    def name(self, crops):
        named = super().name(crops)
        return named if self.moved is None else named.assign(cell_type="monocyte")


def test_types_are_moved_to_the_folder_as_when_it_was_begun(folder, out, reader, tmp_path):
    reader = dataclasses.replace(reader, classifier=Shifts())
    few = count(folder, out, reader)
    assert not few.is_adapted and set(few.counts["monocyte"]) == {0}
    assert count(folder, tmp_path / "asked", reader, adapt=True).is_adapted
    plain_smears.write(folder, d=10, e=30)
    moved = count(folder, tmp_path / "moved", reader)
    assert moved.is_adapted and "--no-adapt" in str(moved)
    assert moved.counts["monocyte"].tolist() == [1, 0, 1, 1, 1]
    plain_smears.write(folder, f=30)
    longer = count(folder, tmp_path / "moved", reader)
    assert longer.counts["monocyte"].sum() == 5
    assert json.loads((tmp_path / "moved" / "settings.json").read_text())["moved"] == [5.0]
    left = count(folder, tmp_path / "left", reader, adapt=False)
    assert not left.is_adapted and left.counts["neutrophil"].sum() == 3
    with pytest.raises(RunExists, match="adapted"):
        count(folder, tmp_path / "moved", reader, adapt=False)


def test_photographs_that_are_not_fit_move_nothing(folder, out, reader, monkeypatch):
    monkeypatch.setattr(fitness, "judge", lambda looks: ["over-exposed"])
    reader = dataclasses.replace(reader, classifier=Shifts())
    assert not count(folder, out, reader, adapt=True).is_adapted


def test_what_an_earlier_version_counted_is_read(folder, out, reader):
    before = count(folder, out, reader).boxes_of("a.png")
    lines = [json.loads(line) for line in (out / smears.JOURNAL).read_text().splitlines()]
    for line in lines:
        line["boxes"] = [row[:-1] for row in line["boxes"]]
    (out / smears.JOURNAL).write_text("".join(json.dumps(line) + "\n" for line in lines))
    settings = json.loads((out / smears.SETTINGS).read_text())
    del settings["adapted"]
    (out / smears.SETTINGS).write_text(json.dumps(settings))
    again = count(folder, out, reader)
    assert reader.detector.greys == [10, 20, 30], "nothing is counted anew"
    pd.testing.assert_frame_equal(
        again.boxes_of("a.png").drop(columns="probabilities"), before.drop(columns="probabilities")
    )


# What is written


def test_every_counted_cell_has_a_row(folder, out, reader):
    count(folder, out, reader)
    header, *rows = rows_of(out / "cells.csv")
    assert header[:9] == [
        "file", "kind", "cell_type", "x_min", "y_min", "x_max", "y_max", "score",
        "type_probability",
    ]  # fmt: skip
    assert header[9:] == ["answered", "cut"]
    assert rows == [
        *CELLS_OF_A,
        ["b.png", "RBC", "", "0.0", "0.0", "10.0", "10.0", "0.9", "", "", "left upper"],
        ["b.png", "RBC", "", "30.0", "0.0", "40.0", "10.0", "0.54", "", "", "upper"],
        [
            "c.png",
            "WBC",
            "neutrophil",
            "60.0",
            "0.0",
            "70.0",
            "10.0",
            "0.8",
            "0.91",
            "True",
            "upper",
        ],
        ["c.png", "Platelets", "", "0.0", "30.0", "10.0", "40.0", "0.8", "", "", "left"],
    ]


def test_every_photograph_has_a_row_also_one_without_cells(folder, out, reader):
    plain_smears.write(folder, d=99)
    found = count(folder, out, reader)
    rows = rows_of(out / "counts.csv")
    judged = ["20.0", "True", "True", "", ""]
    assert rows == [
        ["file", "RBC", "WBC", "Platelets", *cells.NAMES, "unanswered", "unsure", "width",
         "height", *(f"{what}_{kind}" for what in ("whole", "cut", "framed")
                     for kind in ("RBC", "WBC", "Platelets")),
         "red_cell", "fit", "fit_to_name", "reasons", "note", "basophil"],
        # Whole, cut and framed are three numbers each.
        ["a.png", *"120", *"0100", *"12", "80", "60", *"020", *"100", *"020", *judged, "0"],
        ["b.png", *"200", *"0000", *"01", "80", "60", *"000", *"200", *"000", *judged, "0"],
        ["c.png", *"011", *"0001", *"00", "80", "60", *"000", *"011", *"000", *judged, "0"],
        ["d.png", *"000", *"0000", *"00", "80", "60", *"000", *"000", *"000", *judged, "0"],
    ]  # fmt: skip
    assert found.counts.astype(str).to_numpy().tolist() == rows[1:]
    assert rows_of(out / "failures.csv") == [["file", "problem"]]


def test_what_is_returned_sums_up_the_tables(folder, out, reader):
    found = count(folder, out, reader)
    assert (found.folder, found.out, found.red_cell) == (folder, out, plain_smears.RED_CELL)
    assert found.differential.table["count"].tolist() == [0, 1, 0, 1, 0]
    assert (found.differential.n_cells, found.differential.n_abstained) == (2, 1)
    assert found.differential.n_photographs == 3
    # The monocyte, too, for which there was no answer.
    assert found.most_probable.to_dict() == dict(
        zip(cells.LEUKOCYTES, (0, 1, 1, 1, 0), strict=True)
    )
    ratios = found.differential.ratios
    # Of all 3 red cells, and of one of 3 white cells, the upper edge would count a neighbour's.
    assert ratios.loc["RBC:WBC", ["first", "second", "ratio"]].tolist() == [0, 2, 0]
    assert "Cut by the frame: 5 of them" in str(found)
    assert str(found).startswith("3 photographs: 3 red cells, 3 white cells, 1 platelet")


def test_the_worst_photographs_come_first(folder, out, reader):
    plain_smears.write(folder, aa=20)
    assert count(folder, out, reader).worst_first["file"].tolist() == [
        "a.png", "aa.png", "b.png", "c.png"
    ]  # fmt: skip


def test_boxes_of_a_photograph_are_those_counted_with_types_where_there_is_an_answer(
    folder, out, reader
):
    boxes = count(folder, out, reader).boxes_of("a.png")
    assert boxes["kind"].tolist() == ["RBC", "WBC", "WBC"]
    assert boxes["cell_type"].fillna("-").tolist() == ["-", "lymphocyte", "-"]
    assert boxes[BOX].to_numpy().tolist() == [[0, 0, 10, 10], [20, 10, 30, 20], [40, 40, 50, 50]]


def test_a_folder_without_a_single_cell(tmp_path, out, reader):
    found = count(plain_smears.write(tmp_path / "empty fields", a=99, b=98), out, reader)
    assert found.counts[list(cells.KIND_NAMES)].to_numpy().tolist() == [[0, 0, 0]] * 2
    assert len(rows_of(out / "cells.csv")) == 1
    assert found.differential.n_cells == found.most_probable.sum() == 0
    assert "2 photographs: 0 red cells" in str(found)


# Which files


def test_photographs_are_found_in_folders_of_folders(folder, out):
    plain_smears.write(folder / "slide 2" / "left", a=10, _hidden=20)
    plain_smears.write(folder / ".trash", z=10)
    (folder / "slide 2" / "left" / "_hidden.png").rename(folder / "slide 2" / ".hidden.png")
    (folder / "c.png").rename(folder / "c.JPEG")
    (folder / "notes.txt").write_text("slide 2 is blurred")
    root, images, others = find_photographs(folder)
    assert root == folder
    assert images == ["a.png", "b.png", "c.JPEG", "slide 2/left/a.png"]
    assert others == ["notes.txt"]


def test_a_single_photograph_is_counted_alone(folder, out, reader):
    (folder / "c.png").rename(folder / "c")
    for name in ("a.png", "c"):
        found = count(folder / name, out / name, reader)
        assert (found.folder, found.counts["file"].tolist()) == (folder, [name])
        assert found.passed_over == []
    assert reader.detector.greys == [10, 30]


def test_results_inside_of_the_folder_are_no_photographs(folder, reader):
    out = folder / "report"
    count(folder, out, reader)
    plain_smears.write(out / "kept", z=10)
    found = count(folder, out, reader)
    assert (len(found.counts), found.passed_over) == (3, [])


def test_a_folder_with_nothing_to_count_is_named(tmp_path, out, reader):
    with pytest.raises(DataNotFound, match=r"nowhere does not exist"):
        count(tmp_path / "nowhere", out, reader)
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(DataNotFound, match=r"notes\.txt is no photograph"):
        count(tmp_path / "notes.txt", out, reader)
    with pytest.raises(DataNotFound, match="no photograph among 1 files"):
        count(tmp_path, out, reader)
    assert not out.exists()


def spoil(folder):
    """Put beside the three photographs whatever a folder may hold; return what cannot be read."""
    Image.fromarray(photograph(10)).save(folder / "cut off.jpg")
    whole = (folder / "cut off.jpg").read_bytes()
    (folder / "cut off.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.jpg").touch()
    (folder / "text.jpg").write_text("no picture")
    (folder / "text.txt").write_text("no picture")
    Image.fromarray(photograph(10, (1, 1))).save(folder / "pixel.png")
    Image.fromarray(photograph(10)[..., 0]).save(folder / "grey.png")
    Image.fromarray(photograph(10)[..., 0]).save(folder / "named.png", "jpeg")
    return {
        "cut off.jpg": "damaged or cut off",
        "empty.jpg": "is empty (0 bytes)",
        "grey.png": "is greyscale",
        "named.png": "is greyscale",
        "pixel.png": "1×1 pixels are less than a red cell",
        "text.jpg": "is not an image",
    }


def test_what_cannot_be_counted_is_listed_and_the_rest_is_counted(folder, out, reader):
    expected = spoil(folder)
    found = count(folder, out, reader)
    assert found.counts["file"].tolist() == ["a.png", "b.png", "c.png"]
    assert sorted(reader.detector.greys) == [10, 20, 30]
    assert found.passed_over == ["text.txt"]
    assert [name for name, _ in found.failures] == sorted(expected)
    for name, problem in found.failures:
        assert problem.startswith("UnreadableImage: ") and expected[name] in problem
    header, *rows = rows_of(out / "failures.csv")
    assert (header, rows) == (["file", "problem"], [list(each) for each in found.failures])
    said = str(found)
    assert "6 files could not be counted" in said and "1 file passed over" in said
    assert all(name in said for name in (*expected, "text.txt"))


def test_without_a_scale_photographs_are_read_at_a_guess_and_said_to_be_unsure(folder, out, reader):
    found = count(folder, out, reader, red_cell=None)
    assert found.red_cell is None and found.failures == []
    # 60 pixels high: as wide as in the same field at 640 by 480 pixels.
    assert found.counts["red_cell"].tolist() == [13.0] * 3
    assert found.counts["note"].str.startswith("scale unsure: too few red cells").all()
    assert "scale unsure" in str(found) and "red_cell" in str(found)


def test_the_scale_is_estimated_once_and_kept(folder, out, reader, monkeypatch):
    monkeypatch.setattr(scale, "red_cell_diameter", lambda image: 33.0)
    assert count(folder, out, reader, red_cell=None).red_cell == 33
    plain_smears.write(folder, d=20)
    monkeypatch.setattr(scale, "red_cell_diameter", lambda image: 44.0)
    assert count(folder, out, reader, red_cell=None).red_cell == 33
    assert len(reader.detector.greys) == 4 and reader.detector.scales == {33}


def test_a_photograph_that_vanishes_while_others_are_counted_is_listed(tmp_path, out):
    names = {f"p{number:02}": number for number in range(40)}
    folder = plain_smears.write(tmp_path / "smears", **names)
    reader = reader_of()
    detect_each = reader.detector.detect_each

    def detect_and_remove(*asked):
        (folder / "p39.png").unlink(missing_ok=True)
        return detect_each(*asked)

    reader.detector.detect_each = detect_and_remove
    found = count(folder, out, reader)
    assert [name for name, _ in found.failures] == ["p39.png"]
    assert len(found.counts) == 39


def test_a_photograph_that_vanishes_while_the_scale_is_estimated_is_listed(
    folder, out, reader, monkeypatch
):
    def measure(image):
        (folder / "b.png").unlink(missing_ok=True)
        return plain_smears.RED_CELL

    monkeypatch.setattr(scale, "red_cell_diameter", measure)
    found = count(folder, out, reader, red_cell=None)
    assert [name for name, _ in found.failures] == ["b.png"]
    assert found.counts["file"].tolist() == ["a.png", "c.png"]


def test_a_link_that_leads_nowhere_is_listed(folder, out, reader):
    (folder / "gone.jpg").symlink_to("nowhere.jpg")
    found = count(folder, out, reader)
    assert [name for name, _ in found.failures] == ["gone.jpg"]
    assert found.counts["file"].tolist() == ["a.png", "b.png", "c.png"]


def test_names_that_are_no_text_are_counted_like_any_other(folder, out, reader):
    os.rename(folder / "b.png", os.fsencode(folder) + b"/caf\xe9.png")
    (folder / os.fsdecode(b"leer\xe9.png")).touch()
    found = count(folder, out, reader)
    assert (len(found.counts), len(found.failures)) == (3, 1)
    table = pd.read_csv(out / "counts.csv", encoding_errors="replace")
    assert table["RBC"].tolist() == [1, 0, 2]
    # A terminal takes it.
    str(found).encode()


def test_a_folder_whose_name_is_no_text_is_counted_and_gone_on_with(tmp_path, out, reader):
    folder = plain_smears.write(tmp_path / os.fsdecode(b"caf\xe9"), **A_B_C)
    count(folder, out, reader)
    assert len(count(folder, out, reader).counts) == 3
    assert sorted(reader.detector.greys) == [10, 20, 30]


@pytest.mark.parametrize("only", [["c", "a"], ["c.png", "a.png"], ["a", "c.png", "a.png"]])
def test_only_those_named_are_counted_with_or_without_suffix(folder, out, reader, only):
    (folder / "notes.txt").write_text("")
    found = count(folder, out, reader, only=only)
    assert found.counts["file"].tolist() == ["a.png", "c.png"]
    assert sorted(reader.detector.greys) == [10, 30] and found.passed_over == []
    # The others can follow.
    assert len(count(folder, out, reader).counts) == 3
    assert sorted(reader.detector.greys) == [10, 20, 30]


def test_one_of_two_namesakes_is_chosen_by_its_folder(folder, out, reader):
    plain_smears.write(folder / "left", a=20)
    assert count(folder, out, reader, only=["left/a"]).counts["file"].tolist() == ["left/a.png"]


@pytest.mark.parametrize("only", [["a", "z"], ["z"], []])
def test_names_that_are_not_in_the_folder_are_refused(folder, out, reader, only):
    with pytest.raises(InvalidParameter, match=f"Of {len(only)} photographs"):
        count(folder, out, reader, only=only)
    assert not out.exists()


def test_lists_are_read_a_name_a_line(tmp_path):
    (tmp_path / "list.txt").write_bytes("a\n\n  é b.png \r\nc".encode())
    assert read_list(tmp_path / "list.txt") == ["a", "é b.png", "c"]
    (tmp_path / "list.bin").write_bytes(b"\xff\xfe")
    for name in ("nowhere.txt", "list.bin", "."):
        with pytest.raises(DataNotFound, match="cannot be read"):
            read_list(tmp_path / name)


@pytest.mark.parametrize("wrong", [0, 5_000, "104", True, float("nan")])
def test_a_scale_that_is_none_is_refused_before_anything_is_made(folder, out, reader, wrong):
    with pytest.raises(InvalidParameter, match="red_cell"):
        count(folder, out, reader, red_cell=wrong)
    assert not out.exists()


# Going on


def test_nothing_is_counted_twice(folder, out, reader):
    count(folder, out, reader)
    before = contents(out)
    again = reader_of(KNOWN)
    found = count(folder, out, again)
    assert again.detector.greys == []
    assert contents(out) == before
    assert found.differential.table["count"].tolist() == [0, 1, 0, 1, 0]


def test_an_added_photograph_is_counted_alone(folder, out, reader):
    count(folder, out, reader)
    plain_smears.write(folder, aa=30)
    again = reader_of(KNOWN)
    found = count(folder, out, again)
    assert again.detector.greys == [30]
    assert found.counts["file"].tolist() == ["a.png", "aa.png", "b.png", "c.png"]
    assert found.counts["WBC"].tolist() == [2, 1, 0, 1]


def test_a_changed_photograph_is_counted_again(folder, out, reader):
    count(folder, out, reader)
    plain_smears.write(folder, a=30)
    again = reader_of(KNOWN)
    found = count(folder, out, again)
    assert again.detector.greys == [30]
    assert found.counts["WBC"].tolist() == [1, 0, 1]
    rows = rows_of(out / "cells.csv")
    assert [row[:3] for row in rows if row[0] == "a.png"] == [
        ["a.png", "WBC", "neutrophil"], ["a.png", "Platelets", ""]
    ]  # fmt: skip
    assert found.boxes_of("a.png")["kind"].tolist() == ["WBC", "Platelets"]


def test_a_photograph_that_breaks_or_goes_is_in_no_count_any_more(folder, out, reader):
    count(folder, out, reader)
    (folder / "a.png").write_bytes(b"overwritten by mistake")
    (folder / "b.png").unlink()
    found = count(folder, out, reader_of(KNOWN))
    assert [name for name, _ in found.failures] == ["a.png"]
    assert found.counts["file"].tolist() == ["c.png"]
    assert {row[0] for row in rows_of(out / "cells.csv")[1:]} == {"c.png"}


def test_a_repaired_photograph_is_counted(folder, out, reader):
    whole = (folder / "a.png").read_bytes()
    (folder / "a.png").write_bytes(whole[:40])
    assert len(count(folder, out, reader).failures) == 1
    (folder / "a.png").write_bytes(whole)
    again = reader_of(KNOWN)
    found = count(folder, out, again)
    assert again.detector.greys == [10] and found.failures == []
    assert rows_of(out / "cells.csv")[1:4] == CELLS_OF_A
    assert rows_of(out / "failures.csv") == [["file", "problem"]]


@pytest.mark.parametrize("n_bytes", [1, 2, 30])
def test_a_line_that_is_torn_is_counted_again(folder, out, reader, n_bytes):
    count(folder, out, reader)
    before = contents(out)
    journal = out / "counted.jsonl"
    os.truncate(journal, journal.stat().st_size - n_bytes)
    again = reader_of(KNOWN)
    count(folder, out, again)
    # The last one in the order of names.
    assert again.detector.greys == [30]
    assert contents(out) == before


def test_half_a_letter_at_the_end_is_cut_off_too(folder, out, reader):
    count(folder, out, reader)
    before = contents(out)
    with (out / "counted.jsonl").open("ab") as journal:
        journal.write(b'{"file": "\xc3')
    again = reader_of(KNOWN)
    count(folder, out, again)
    assert again.detector.greys == [] and contents(out) == before


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, MemoryError])
def test_an_interruption_keeps_what_was_counted(tmp_path, out, interruption):
    names = {f"p{number:02}": number for number in range(30)}
    folder = plain_smears.write(tmp_path / "smears", **names)
    interrupted = reader_of({number: [("RBC", 0, 0, 0.9)] for number in range(30)})
    detect_each = interrupted.detector.detect_each
    finished = []

    def detect_some(*asked):
        if len(finished) > 12:
            raise interruption
        tables = list(detect_each(*asked))
        finished.extend(interrupted.detector.greys[len(finished) :])
        return tables

    interrupted.detector.detect_each = detect_some
    with pytest.raises(interruption):
        count(folder, out, interrupted)
    assert 12 < len(finished) < 30
    again = reader_of({number: [("RBC", 0, 0, 0.9)] for number in range(30)})
    found = count(folder, out, again)
    assert sorted([*finished, *again.detector.greys]) == list(range(30))
    assert found.counts["RBC"].tolist() == [1] * 30


def test_when_the_machine_stops_what_was_counted_is_on_the_disk(tmp_path, out):
    names = {f"p{number:02}": number for number in range(30)}
    folder = plain_smears.write(tmp_path / "smears", **names)
    reader = reader_of()
    detect_each = reader.detector.detect_each
    done_before = {}

    def detect_and_note(*asked):
        # The folder as a power cut leaves it now.
        copy = shutil.copytree(out, tmp_path / f"after {len(reader.detector.greys)}")
        done_before[copy] = list(reader.detector.greys)
        return detect_each(*asked)

    reader.detector.detect_each = detect_and_note
    count(folder, out, reader)
    copy, done = list(done_before.items())[-1]
    again = reader_of()
    assert len(count(folder, copy, again).counts) == 30
    assert len(done) > 10 and sorted([*done, *again.detector.greys]) == list(range(30))


# What is not fit to be counted


@pytest.fixture
def judged(monkeypatch):
    """Photographs of these greys have these reasons."""

    def judge(**reasons):
        monkeypatch.setattr(fitness, "measure", lambda photograph, red_cell: photograph[0, 0, 0])
        monkeypatch.setattr(
            fitness, "judge_reading", lambda grey, red_cell, boxes: reasons.get(f"grey{grey}", [])
        )
        monkeypatch.setattr(
            fitness, "judge", lambda grey: [fitness.NO_SMEAR] if f"none{grey}" in reasons else []
        )

    return judge


def test_nothing_rests_on_what_is_not_fit(folder, out, reader, judged):
    judged(grey10=[fitness.OUT_OF_FOCUS, fitness.OVER_EXPOSED], grey30=[fitness.TOO_SMALL])
    found = count(folder, out, reader)
    header, *rows = rows_of(out / "counts.csv")
    rows = [dict(zip(header, row, strict=True)) for row in rows]
    assert [row["fit"] for row in rows] == ["False", "True", "True"]
    assert [row["fit_to_name"] for row in rows] == ["False", "True", "False"]
    assert [row["reasons"] for row in rows] == [
        "out of focus; over-exposed", "", fitness.TOO_SMALL
    ]  # fmt: skip
    # What was counted is told; no cell is named.
    assert [row["WBC"] for row in rows] == ["2", "0", "1"]
    assert [row["unanswered"] for row in rows] == ["2", "0", "1"]
    assert all(row[9] in ("", "False") for row in rows_of(out / "cells.csv")[1:])
    assert found.differential.n_cells == found.differential.n_abstained == 0
    assert found.most_probable.sum() == 0
    assert found.differential.n_photographs == 2
    assert found.unfit == {
        "out of focus": ["a.png"], "over-exposed": ["a.png"], fitness.TOO_SMALL: ["c.png"]
    }  # fmt: skip
    said = str(found)
    assert said.startswith("3 photographs, 2 of them fit to be counted: 2 red cells, 1 white cell")
    assert f"- out of focus, 1 photograph: a.png. {fitness.ADVICE['out of focus']}" in said
    assert found.went_well


def test_what_shows_no_smear_is_not_read_and_does_not_go_well(folder, out, reader, judged):
    judged(none10=[])
    found = count(folder, out, reader)
    assert reader.detector.greys == [20, 30]
    assert found.counts["RBC"].tolist() == [0, 2, 0]
    assert found.unfit == {fitness.NO_SMEAR: ["a.png"]} and not found.went_well
    # Nor is it looked at again.
    count(folder, out, reader)
    assert reader.detector.greys == [20, 30]


def test_where_nothing_is_fit_nothing_is_said_of_the_blood(folder, out, reader, judged):
    judged(**{f"grey{grey}": [fitness.OUT_OF_FOCUS] for grey in A_B_C.values()})
    found = count(folder, out, reader)
    said = str(found)
    assert "No photograph is fit to be counted." in said and not found.went_well
    assert "adult" not in said and "Not for diagnosis" not in said


# Shared among workers, and read from elsewhere


@pytest.fixture
def shared(monkeypatch, reader):
    """Two workers in this process, whose reader is the same; and what they were given."""
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr(detector, "load_reader", lambda: reader)
    monkeypatch.setattr(smears, "_PIECE", 2)
    smears._loaded.cache_clear()
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0"
    ) as cluster:
        yield Workers(scheduler=cluster.scheduler_address)
    smears._loaded.cache_clear()


def loadable(reader):
    return dataclasses.replace(reader, loaded_by={})


def test_workers_write_the_same_tables_to_the_byte(folder, out, tmp_path, reader, shared):
    spoil(folder)
    plain_smears.write(folder, d=10, e=20, f=30, g=10)
    alone = count(folder, out, reader)
    n_looks = len(reader.detector.greys)
    together = count(folder, tmp_path / "together", loadable(reader), workers=shared)
    assert plain_smears.tables(tmp_path / "together") == plain_smears.tables(out)
    assert together.failures == alone.failures != []
    assert len(reader.detector.greys) == 2 * n_looks
    # What workers have counted, this process does not count again.
    again = reader_of(KNOWN)
    count(folder, tmp_path / "together", again)
    assert again.detector.greys == []


def test_an_interrupted_sharing_goes_on_where_it_was(folder, out, reader, shared, monkeypatch):
    plain_smears.write(folder, d=40, e=50, f=60, g=70)
    share = Workers.share

    def share_some(self, *arguments):
        for lines in share(self, *arguments):
            yield lines
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Workers, "share", share_some)
        with pytest.raises(KeyboardInterrupt):
            count(folder, out, loadable(reader), workers=shared)
    assert (out / "counted.jsonl").read_bytes().count(b"\n") == 2
    assert len(count(folder, out, loadable(reader), workers=shared).counts) == 7
    assert (out / "counted.jsonl").read_bytes().count(b"\n") == 7


def test_workers_of_other_weights_or_another_disk_are_refused(
    folder, out, reader, shared, monkeypatch
):
    other = dataclasses.replace(other_thresholds(), loaded_by={})
    with pytest.raises(DataMismatch, match="other weights"):
        count(folder, out, other, workers=shared)
    asked = {"red_cell": 20.0, "given": True}
    with pytest.raises(DataMismatch, match="no folder"):
        smears._count_piece(
            ["a.png"], {}, smears._describe_weights(reader), folder=folder / "not", **asked
        )
    with pytest.raises(InvalidParameter, match="load_reader"):
        count(folder, out / "2", reader, workers=shared)


@pytest.mark.parametrize("wrong", [{"n": 0}, {"scheduler": "here"}, {"scheduler": "a://b", "n": 2}])
def test_workers_that_are_none_are_refused(wrong):
    with pytest.raises(InvalidParameter, match="workers="):
        Workers(**wrong)


def test_a_scheduler_that_is_not_there_is_named(folder, out, reader, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr(backend, "_PATIENCE", 1)
    with pytest.raises(NoWorkers, match=r"tcp://127\.0\.0\.1:9 cannot be reached"):
        count(folder, out, loadable(reader), workers=Workers(scheduler="tcp://127.0.0.1:9"))


@pytest.mark.parametrize("missing", ["distributed", "fsspec"])
def test_without_the_extra_it_is_said_how_to_install_it(folder, out, reader, missing, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    options = {"workers": Workers(n=2)} if missing == "distributed" else {}
    place = folder if missing == "distributed" else "s3://bucket/without-the-package"
    with pytest.raises(PackageMissing, match=r"pip install '\.\[cluster\]'"):
        count(place, out, loadable(reader), **options)


@pytest.fixture(params=["file", "memory", "zip", "tar", "tar.gz", "zip in memory"])
def place(request, folder, tmp_path):
    """The photographs where no folder of this disk is, with a file that is none."""
    fsspec = pytest.importorskip("fsspec")
    (folder / "letter.txt").write_text("none")
    (folder / "cut off.png").write_bytes((folder / "a.png").read_bytes()[:40])
    kind = request.param
    if kind == "file":
        yield folder.as_uri()
        return
    memory = fsspec.filesystem("memory")
    if kind == "memory":
        memory.put(str(folder), "/smears", recursive=True)
        yield "memory://smears"
    elif kind == "zip in memory":
        archive = shutil.make_archive(str(tmp_path / "photographs"), "zip", folder)
        memory.put(archive, "/photographs.zip")
        yield "memory://photographs.zip"
    else:
        form = {"tar.gz": "gztar"}.get(kind, kind)
        yield shutil.make_archive(str(tmp_path / "photographs"), form, folder)
    memory.rm("/", recursive=True)


def test_photographs_elsewhere_are_counted_as_here(place, folder, out, reader, tmp_path):
    found = count(place, out, reader)
    count(folder, tmp_path / "here", reader)
    said = [row[1] for row in rows_of(out / "failures.csv")]
    assert [name for name, _ in found.failures] == ["cut off.png"] and "/cut off.png is" in said[1]
    for name in ("cells.csv", "counts.csv"):
        assert (out / name).read_bytes() == (tmp_path / "here" / name).read_bytes()
    assert found.passed_over == ["letter.txt"]
    again = reader_of(KNOWN)
    count(place, out, again)
    assert again.detector.greys == []


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
def test_an_archive_that_is_damaged_is_named(folder, tmp_path, out, reader, name):
    (tmp_path / name).write_bytes(b"no archive at all")
    with pytest.raises(BrokenArchive, match=f"{name} is cut off, damaged or no archive"):
        count(tmp_path / name, out, reader)


def test_what_leads_out_of_an_archive_is_left_in_it(folder, tmp_path, out, reader):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("../a.png", "b/./a.png", "/c.png", ".hidden/a.png"):
            archive.write(folder / "a.png", name)
    assert count(tmp_path / "a.zip", out, reader).counts["file"].tolist() == ["b/a.png", "c.png"]


def test_workers_read_elsewhere_too(folder, out, reader, shared):
    archive = shutil.make_archive(str(folder), "zip", folder)
    assert count(archive, out, loadable(reader), workers=shared).counts["WBC"].tolist() == [2, 0, 1]


def test_an_address_with_a_secret_is_refused_and_not_repeated(out, reader):
    for address in ("s3://name:secret@bucket/a", "https://a/b?token=secret"):
        with pytest.raises(InvalidParameter) as refusal:
            count(address, out, reader)
        assert "secret" not in str(refusal.value)


def test_what_a_storage_says_is_left_out(monkeypatch, out, reader):
    fsspec = pytest.importorskip("fsspec")

    def refuse(*_):
        raise PermissionError("the key secret is not known")

    monkeypatch.setattr(fsspec, "url_to_fs", refuse)
    with pytest.raises(DownloadFailed, match="PermissionError") as refusal:
        count("memory://nowhere", out, reader)
    assert "secret" not in str(refusal.value) and refusal.value.__suppress_context__


# What is refused, and left as it is


def other_thresholds():
    return reader_of(KNOWN, thresholds={**plain_smears.THRESHOLDS, "RBC": 0.4})


def other_classifier():
    other = reader_of(KNOWN)
    other.classifier.about["threshold"] = 0.8
    return other


@pytest.mark.parametrize(
    ("other", "options", "differing"),
    [
        (lambda: reader_of(KNOWN, created="2027-01-01"), {}, "detector"),
        (other_thresholds, {}, "detector"),
        (other_classifier, {}, "classifier"),
        (lambda: reader_of(KNOWN), {"red_cell": 21.0}, "red_cell"),
        (lambda: reader_of(KNOWN), {"red_cell": None}, "red_cell"),
    ],
)
def test_counts_made_otherwise_are_not_mixed(folder, out, reader, other, options, differing):
    count(folder, out, reader)
    before = contents(out)
    with pytest.raises(RunExists, match=f"differ in {differing}"):
        count(folder, out, other(), **options)
    assert contents(out) == before


def test_counts_of_another_folder_are_not_mixed(folder, tmp_path, out, reader):
    count(folder, out, reader)
    before = contents(out)
    with pytest.raises(RunExists, match="differ in folder"):
        count(plain_smears.write(tmp_path / "others", a=10), out, reader)
    assert contents(out) == before


@pytest.mark.parametrize(
    "name", ["letter.txt", "cells.csv", "index.html", "settings.json", "a/b.txt", ".hidden"]
)
def test_a_folder_that_holds_something_else_is_left_alone(folder, out, reader, name):
    (out / name).parent.mkdir(parents=True)
    (out / name).write_text('{"written": "by someone else"}')
    before = contents(out)
    with pytest.raises(RunExists, match="Nothing is overwritten"):
        count(folder, out, reader)
    assert contents(out) == before and reader.detector.greys == []


def test_a_file_in_the_place_of_results_is_left_alone(folder, out, reader):
    out.write_text("a letter")
    with pytest.raises(RunExists, match="holds something else"):
        count(folder, out, reader)
    assert out.read_text() == "a letter"


@pytest.mark.parametrize("place", [".", ".."])
def test_results_do_not_go_among_the_photographs(folder, reader, place):
    before = contents(folder)
    with pytest.raises(RunExists, match="holds something else"):
        count(folder, (folder / place).resolve(), reader)
    assert contents(folder) == before


def test_the_photographs_are_left_as_they_are(folder, out, reader):
    spoil(folder)
    before = contents(folder)
    count(folder, out, reader)
    assert contents(folder) == before


# On the command line


@pytest.fixture
def command(folder, out, reader, monkeypatch):
    monkeypatch.setattr(detector, "load_reader", lambda *_: reader)

    def run(*options, scale=("--red-cell", "20")):
        return main(["count", str(folder), "--out", str(out), *scale, *options])

    return run


def test_the_command_counts_and_says_where(command, out, capsys):
    assert command() == 0
    assert rows_of(out / "cells.csv")[1:4] == CELLS_OF_A
    assert (out / "index.html").is_file()
    said = capsys.readouterr().out
    assert "3 photographs: 3 red cells, 3 white cells, 1 platelet" in said
    assert str(out / "index.html") in said and "Differential of 2 white cells" in said


def test_the_command_goes_on_after_files_that_fail_and_says_so_with_1(command, folder, out, capsys):
    expected = spoil(folder)
    assert command() == 1
    assert len(rows_of(out / "counts.csv")) == 4
    said = capsys.readouterr().out
    assert all(name in said for name in expected)
    for name in expected:
        (folder / name).unlink()
    assert command() == 0


def test_the_command_says_with_1_that_a_photograph_shows_no_smear(command, judged, out, capsys):
    judged(none20=[])
    assert command() == 1
    assert "- no smear, 1 photograph: b.png" in capsys.readouterr().out
    assert (out / "index.html").is_file()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--red-cell", "wide"), "InvalidParameter: red_cell='wide'"),
        (("--red-cell", "-3"), "InvalidParameter: red_cell=-3"),
        (("--ways", "three"), "InvalidParameter: ways='three'"),
        (("--list", "nowhere.txt"), "DataNotFound: The list nowhere.txt"),
    ],
)
def test_the_command_refuses_with_2_before_any_work(command, out, options, complaint, capsys):
    assert command(*options) == 2
    assert complaint in capsys.readouterr().err and not out.exists()


@pytest.mark.parametrize(("options", "ways"), [((), None), (("--fast",), 1), (("--ways", "4"), 4)])
def test_fast_looks_once(command, reader, monkeypatch, options, ways):
    asked = []
    monkeypatch.setattr(detector, "load_reader", lambda *given: asked.append(given) or reader)
    assert command(*options) == 0
    assert asked == [(ways, None)]


def test_fast_and_another_number_of_looks_contradict(command, capsys):
    with pytest.raises(SystemExit, match="2"):
        command("--fast", "--ways", "2")
    assert "not allowed with argument" in capsys.readouterr().err


def test_the_command_refuses_a_foreign_folder_with_2(command, folder, out, capsys):
    out.mkdir()
    (out / "letter.txt").write_text("")
    assert command() == 2
    assert "RunExists" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["letter.txt"]
    for image in folder.iterdir():
        image.unlink()
    assert command() == 2
    assert "holds no photograph" in capsys.readouterr().err


def test_the_command_refuses_a_foreign_page_with_2_and_keeps_the_counts(command, out, capsys):
    assert command() == 0
    (out / "index.html").write_text("<p>mine</p>")
    before = contents(out)
    assert command() == 2
    assert "PageExists" in capsys.readouterr().err and contents(out) == before


def test_the_command_counts_those_of_a_list(command, tmp_path, out, reader):
    (tmp_path / "list.txt").write_text("c\na.png\n")
    assert command("--list", str(tmp_path / "list.txt")) == 0
    assert [row[0] for row in rows_of(out / "counts.csv")] == ["file", "a.png", "c.png"]
    (tmp_path / "list.txt").write_text("c\nz\n")
    assert command("--list", str(tmp_path / "list.txt")) == 2
    assert sorted(reader.detector.greys) == [10, 30]


def test_the_command_reads_an_archive_and_draws_its_pages_or_none(
    folder, out, tmp_path, reader, monkeypatch
):
    monkeypatch.setattr(detector, "load_reader", lambda *_: reader)
    archive = shutil.make_archive(str(tmp_path / "my slides"), "zip", folder)
    options = ("--red-cell", "20", "--out", str(out))
    assert main(["count", archive, *options, "--no-pages"]) == 0
    assert not (out / "index.html").exists()
    assert main(["count", archive, *options]) == 0
    assert "my slides.zip" in (out / "index.html").read_text(encoding="utf-8")
    assert "data:image" in (out / "index.html").read_text(encoding="utf-8")


def test_an_interrupted_command_says_how_to_go_on(command, reader, capsys, monkeypatch):
    def interrupt(*asked):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(reader.detector, "detect_each", interrupt)
        assert command() == 130
    assert "same command goes on" in capsys.readouterr().err
    assert command() == 0


# Memory


@pytest.mark.slow
def test_memory_does_not_grow_with_the_folder(tmp_path):
    reader = reader_of({100: [("RBC", 0, 0, 0.9), ("WBC", 20, 10, 0.9)]})

    def peak(n_photographs):
        folder = tmp_path / f"{n_photographs}"
        folder.mkdir()
        for place in range(n_photographs):
            Image.fromarray(photograph(100, (150, 200))).save(folder / f"{place}.png")
        tracemalloc.start()
        found = count(folder, tmp_path / f"out-{n_photographs}", reader)
        _, highest = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert found.counts["RBC"].tolist() == [1] * n_photographs
        return highest

    # What is imported and kept once and for all.
    peak(1)
    assert peak(200) < 1.3 * peak(20)
