"""Learning from several laboratories: whose cells, in which shares, and what is said abroad."""

import csv

import cv2
import numpy as np
import pandas as pd
import pytest
from drawn_fields import draw_field
from PIL import Image

from wbc_helpers import cells
from wbc_helpers.__main__ import main
from wbc_helpers.classify import classifier, laboratories
from wbc_helpers.errors import DataNotFound, RunExists


def test_laboratories_count_alike_and_their_answers_too():
    table = pd.DataFrame(
        {
            "laboratory": ["a"] * 6 + ["b"] * 2,
            "cell_type": [*["neutrophil"] * 5, "basophil", "neutrophil", "other"],
        }
    )
    weights = laboratories.weights_of(table)
    assert weights.sum() == pytest.approx(1)
    assert weights[:6].sum() == pytest.approx(weights[6:].sum())
    assert weights[:5].sum() == pytest.approx(weights[5])


def test_balanced_accuracy_counts_types_alike_and_leaves_out_what_is_none():
    table = pd.DataFrame(
        {
            "cell_type": ["neutrophil"] * 4 + ["basophil"] * 2 + ["other"],
            "source_id": list("aabbccd"),
        }
    )
    for answer in laboratories.ANSWERS:
        table[f"p_{answer}"] = 0.0
    # Three of four neutrophils, one of two basophils; `other` is no answer among the five.
    table.loc[[0, 1, 2, 4], "p_neutrophil"] = 0.6
    table.loc[[3, 5], "p_basophil"] = 0.6
    table["p_other"] = 0.9
    score, low, high, recalls = laboratories.balanced_accuracy(table)
    assert recalls == {"neutrophil": 0.75, "basophil": 0.5}
    assert score == pytest.approx(0.625) and low <= score <= high


def test_what_is_shown_is_the_middle_of_a_patch():
    patch = np.zeros((1, 10, 10, 3), np.uint8)
    patch[:, 3:7, 3:7] = 255
    assert laboratories.middles(patch, 4).min() == 255


@pytest.fixture(scope="module")
def shipped():
    return classifier.load()


@pytest.fixture
def folder(tmp_path):
    images = tmp_path / "cells"
    images.mkdir()
    for name, nuclei in (("two.png", [(90, 120, 26), (230, 120, 20)]), ("none.png", [])):
        field = draw_field(52, nuclei, 320, 240)
        cv2.imwrite(str(images / name), cv2.cvtColor(field, cv2.COLOR_RGB2BGR))
    (images / "broken.png").write_bytes(b"no image")
    Image.new("1", (20_000, 20_000)).save(images / "bomb.png")
    return images


def test_the_shipped_network_knows_five_types_and_none_of_them(shipped):
    assert shipped.answers == (*cells.LEUKOCYTES, cells.OTHER)
    nothing = np.full((4, 80, 80, 3), 235, np.uint8)
    named = shipped.name(nothing)
    assert not named["answered"].any()
    assert named["foreign"].between(0, 1).all()


def test_the_command_names_every_cell_and_goes_on_after_a_broken_file(folder, tmp_path, capsys):
    out = tmp_path / "answers.csv"
    assert main(["classify", str(folder), "--out", str(out), "--red-cell", "52"]) == 1
    rows = list(csv.DictReader(out.open(encoding="utf-8")))
    columns = ["file", "found", "cell_type", "probability", "answered", "foreign", *cells.BOX]
    assert list(rows[0])[: len(columns)] == columns
    of_two = [row for row in rows if row["file"].endswith("two.png")]
    # The largest nucleus first.
    assert [float(row["x_min"]) < 160 for row in of_two] == [True, False]
    (nothing,) = [row for row in rows if row["file"].endswith("none.png")]
    assert nothing["found"] == "False" and nothing["cell_type"] == ""
    printed = capsys.readouterr().out
    assert "2 white cells" in printed and "broken.png" in printed and "bomb.png" in printed


def test_a_single_image_is_named_alone_and_foreign_files_are_kept(shipped, folder, tmp_path):
    named = classifier.classify_folder(shipped, folder / "two.png", tmp_path / "a.csv", 52)
    assert len(named.table) == 2 and named.went_well and not named.is_foreign
    mine = tmp_path / "mine.csv"
    mine.write_text("my own notes\n")
    with pytest.raises(RunExists, match="mine"):
        classifier.classify_folder(shipped, folder, mine, 52)
    assert mine.read_text() == "my own notes\n"
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataNotFound, match="no photograph"):
        classifier.classify_folder(shipped, tmp_path / "empty", tmp_path / "b.csv", 52)


def test_a_given_width_that_the_images_contradict_is_questioned(shipped, folder, tmp_path):
    named = classifier.classify_folder(shipped, folder / "two.png", tmp_path / "a.csv", 200)
    assert "said to be 200 pixels wide" in str(named)
