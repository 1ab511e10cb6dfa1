"""Whether drawn photographs are fit to be read, spoiled in known ways, and their own scale."""

import re

import cv2
import numpy as np
import pandas as pd
import plain_smears
import pytest
from drawn_fields import draw_field
from PIL import Image

from benchmarks import simulated as laboratories
from wbc_helpers import cells
from wbc_helpers.cells import BOX
from wbc_helpers.count import fitness, smears
from wbc_helpers.count.detector import READ_COLUMNS

RED_CELL = 60.0


@pytest.fixture(scope="module")
def smear():
    """Red cells on a lattice and a nucleus, as blurred as a lens leaves them, with some noise."""
    field = draw_field(round(RED_CELL), [(320, 240, 40)])
    field = cv2.GaussianBlur(field, (0, 0), 1.2).astype(float)
    field += np.random.default_rng(0).normal(0, 2, field.shape)
    return np.clip(field, 0, 255).astype(np.uint8)


def boxes(n_red=8, width=RED_CELL, score=0.9, counted=True):
    """Boxes of so many red cells, side by side inside of a photograph."""
    table = pd.DataFrame({"kind": ["RBC"] * n_red})
    table["x_min"], table["y_min"] = 10 + width * np.arange(n_red), 10.0
    table["x_max"], table["y_max"] = table["x_min"] + width, table["y_min"] + width
    table = table.assign(score=score, counted=counted, unsure=False)
    return table.reindex(columns=READ_COLUMNS)


def reasons_of(photograph, red_cell=RED_CELL, read=None):
    looks = fitness.measure(photograph, red_cell)
    read = boxes() if read is None else read
    return fitness.judge(looks) or fitness.judge_reading(looks, red_cell, read)


def with_gain(photograph, gain):
    return np.clip(photograph.astype(float) * gain, 0, 255).astype(np.uint8)


# Fit or not


def test_a_smear_is_fit(smear):
    assert reasons_of(smear) == []


@pytest.mark.parametrize("laboratory", laboratories.LABORATORIES, ids=lambda each: each.name)
def test_another_laboratory_is_fit(smear, laboratory):
    there = laboratories.simulate(smear, laboratory)
    assert reasons_of(there, RED_CELL * laboratory.magnification) == []


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda smear: cv2.GaussianBlur(smear, (0, 0), 0.15 * RED_CELL), fitness.OUT_OF_FOCUS),
        (lambda smear: with_gain(smear, 1.6), fitness.OVER_EXPOSED),
        (lambda smear: with_gain(smear, 9), fitness.OVER_EXPOSED),
        (lambda smear: with_gain(smear, 0.2), fitness.UNDER_EXPOSED),
        (lambda smear: smear[..., [1, 1, 1]], fitness.NO_SMEAR),
        # A meadow, a sky, bricks: what a smear's colours are not.
        (lambda smear: smear[..., [1, 0, 1]], fitness.NO_SMEAR),
        (lambda smear: smear[..., [2, 0, 1]], fitness.NO_SMEAR),
        (lambda smear: np.full_like(smear, 200), fitness.NO_CELL),
        (lambda smear: np.zeros_like(smear), fitness.UNDER_EXPOSED),
    ],
)
def test_what_is_spoiled_is_named(smear, spoil, reason):
    assert reasons_of(spoil(smear)) == [reason]


def test_a_page_of_text_is_no_smear():
    page = np.full((600, 800, 3), (250, 248, 240), np.uint8)
    for y in range(40, 600, 36):
        cv2.putText(page, "the blood was spread on a slide", (20, y), 0, 1.2, (30, 30, 35), 2)
    assert reasons_of(page) == [fitness.NO_SMEAR]


def test_a_field_without_a_cell_is_said(smear):
    assert reasons_of(smear, read=boxes(0)) == [fitness.NO_CELL]
    assert reasons_of(smear, read=boxes(counted=False)) == [fitness.NO_CELL]


def test_cells_too_small_to_name_are_counted(smear):
    small = cv2.resize(smear, None, fx=0.3, fy=0.3, interpolation=cv2.INTER_AREA)
    assert reasons_of(small, 0.3 * RED_CELL) == [fitness.TOO_SMALL]
    assert fitness.is_fit([fitness.TOO_SMALL]) and fitness.is_fit([])
    assert not fitness.is_fit([fitness.OUT_OF_FOCUS, fitness.TOO_SMALL])


# Through an eyepiece


def through_eyepiece(photograph, grey):
    height, width = photograph.shape[:2]
    y, x = np.mgrid[:height, :width]
    beyond = np.hypot(y - height / 2, x - width / 2) / (0.48 * height)
    lit = np.clip((1.02 - beyond) / 0.04, 0, 1)[..., np.newaxis]
    noise = np.random.default_rng(1).normal(0, 2, photograph.shape)
    seen = photograph * lit + (grey + noise) * (1 - lit)
    return np.clip(seen, 0, 255).astype(np.uint8), beyond


@pytest.mark.parametrize("grey", [0, 12, 30, 60])
def test_the_surround_of_an_eyepiece_becomes_background(smear, grey):
    seen, beyond = through_eyepiece(smear, grey)
    filled, part = fitness.fill_surround(seen)
    assert part == pytest.approx((beyond > 0.97).mean(), abs=0.04)
    np.testing.assert_array_equal(filled[beyond < 0.9], smear[beyond < 0.9])
    assert np.abs(filled[beyond > 1.02].astype(int) - (225, 220, 228)).max() <= 4
    assert reasons_of(filled) == []


def test_a_smear_without_a_surround_is_left_alone(smear):
    dark_corners = smear.copy()
    for corner in ((0, 0), (639, 0), (0, 479)):
        cv2.circle(dark_corners, corner, 45, (70, 40, 120), -1)
    for photograph in (smear, dark_corners, np.zeros_like(smear)):
        filled, part = fitness.fill_surround(photograph)
        assert part == 0 and filled is photograph


# A photograph's own scale


class Sees:
    """A reader whose boxes come nearer to the true width the nearer it is asked; few from far."""

    def __init__(self, true, n_red=8):
        self.true, self.n_red, self.asked = true, n_red, []

    def read(self, photographs, red_cell):
        self.asked.append(red_cell)
        off = abs(np.log(red_cell / self.true))
        if off > 1.2:
            return [boxes(0) for _ in photographs]
        width = self.true * (red_cell / self.true) ** 0.2
        return [boxes(self.n_red, width, score=float(np.exp(-off))) for _ in photographs]


@pytest.fixture
def field():
    return np.full((1000, 2000, 3), 200, np.uint8)


@pytest.mark.parametrize("start", [25, 40, 100, 150])
def test_boxes_lead_to_the_scale(field, start):
    reader = Sees(60)
    reading = fitness.read_at_own_scale(reader, field, reader.read([field], start)[0], start)
    assert reading.measured == pytest.approx(60, rel=0.08)
    assert reading.red_cell == pytest.approx(60, rel=0.25) and len(reader.asked) <= 5


def test_at_the_right_scale_nothing_is_read_twice(field):
    reader = Sees(60)
    table = reader.read([field], 62)[0]
    reading = fitness.read_at_own_scale(reader, field, table, 62)
    assert reading.boxes is table and reading.red_cell == 62 and reader.asked == [62]


def test_where_no_boxes_tell_the_picture_does(field, monkeypatch):
    reader = Sees(60)
    monkeypatch.setattr(fitness, "red_cell_diameter", lambda photograph: 70.0)
    reading = fitness.read_at_own_scale(reader, field, boxes(0), 300)
    assert reading.measured == pytest.approx(60, rel=0.08)
    # It agrees, or tells nothing either.
    for estimate in (280.0, float("nan")):
        monkeypatch.setattr(fitness, "red_cell_diameter", lambda photograph, e=estimate: e)
        reading = fitness.read_at_own_scale(Sees(60), field, boxes(0), 300)
        assert reading.red_cell == 300 and np.isnan(reading.measured)


def test_cells_at_the_frame_and_other_kinds_do_not_tell_the_width():
    table = boxes(8)
    table.loc[:3, "x_min"] = 0
    assert np.isnan(fitness.measured_red_cell(table, (1000, 2000)))
    table = pd.concat([boxes(6), boxes(20, 30).assign(kind="Platelets")], ignore_index=True)
    assert fitness.measured_red_cell(table, (1000, 2000)) == RED_CELL


# In a folder


class KnowsWidths(plain_smears.Knows):
    """A detector of photographs of one grey, whose red cells are as wide as the grey level."""

    def detect_each(self, photographs, red_cell, lowest=0):
        for photograph in photographs:
            true = float(photograph[0, 0, 0])
            self.scales.add(red_cell)
            off = abs(np.log(red_cell / true))
            width = true * (red_cell / true) ** 0.2
            table = boxes(8 if off < 1.2 else 0, width, score=0.6 + 0.4 * float(np.exp(-off)))
            yield table.assign(
                photograph="0", kind=pd.Categorical(table["kind"], list(cells.KIND_NAMES))
            )[["photograph", "kind", *BOX, "score"]]


def reader_of_widths():
    reader = plain_smears.reader_of()
    detector = KnowsWidths({})
    return type(reader)(detector, reader.classifier)


@pytest.fixture
def widths(tmp_path, monkeypatch):
    """A folder of photographs whose red cells are 40 or 100 pixels wide."""
    monkeypatch.setattr(fitness, "judge", lambda looks: [])
    monkeypatch.setattr(
        fitness, "judge_reading",
        lambda looks, red_cell, boxes: [] if boxes["counted"].any() else [fitness.NO_CELL],
    )  # fmt: skip
    for place in range(6):
        grey = 40 if place % 2 else 100
        field = np.full((400, 1200, 3), grey, np.uint8)
        Image.fromarray(field).save(tmp_path / f"{place}.png")
    return tmp_path


def test_two_magnifications_in_a_folder_are_each_read_at_their_own(widths, monkeypatch):
    monkeypatch.setattr(smears, "estimate_scale", lambda paths, read: (100.0, 6))
    found = smears.count_folder(widths, widths / "out", reader_of_widths(), progress=False)
    assert found.counts["red_cell"].tolist() == pytest.approx([100, 40] * 3, rel=0.2)
    assert found.counts["RBC"].tolist() == [8] * 6 and found.counts["fit"].all()
    assert (
        found.counts["note"].tolist() == ["", "red cells of another width than in the folder"] * 3
    )


def test_at_its_own_scale_a_photograph_is_judged_anew(widths, monkeypatch):
    """Where its middle is burnt out, and only cells at its rim told how wide they are."""
    monkeypatch.setattr(smears, "estimate_scale", lambda paths, read: (100.0, 6))
    monkeypatch.setattr(fitness, "measure", lambda photograph, red_cell: red_cell)
    monkeypatch.setattr(
        fitness, "judge", lambda red_cell: [fitness.OVER_EXPOSED] if red_cell < 60 else []
    )
    found = smears.count_folder(widths, widths / "out", reader_of_widths(), progress=False)
    assert found.counts["reasons"].tolist() == ["", fitness.OVER_EXPOSED] * 3
    assert found.counts["fit"].tolist() == [True, False] * 3


def test_a_single_photograph_is_not_compared_with_its_folder(widths, monkeypatch):
    monkeypatch.setattr(smears, "estimate_scale", lambda paths, read: (100.0, 1))
    reader = reader_of_widths()
    found = smears.count_folder(widths / "1.png", widths / "out", reader, progress=False)
    assert found.counts["red_cell"].tolist() == pytest.approx([40], rel=0.2)
    assert found.counts["note"].tolist() == [""]


def test_a_given_width_is_kept_and_questioned(widths):
    found = smears.count_folder(widths, widths / "out", reader_of_widths(), 40.0, progress=False)
    assert found.counts["red_cell"].tolist() == [40.0] * 6
    assert found.counts["fit"].tolist() == [False, True] * 3
    assert found.counts["reasons"].tolist()[0] == fitness.WRONG_WIDTH
    width = float(re.search(r"about (\d+) pixels wide, not 40", found.counts["note"][0])[1])
    assert width == pytest.approx(100, rel=0.2)
    said = str(found)
    assert "6 photographs, 3 of them fit to be counted: 24 red cells" in said
    assert f"{fitness.WRONG_WIDTH}, 3 photographs: 0.png, 2.png, 4.png" in said
    # Ratios rest on the others alone.
    assert found.differential.ratios.loc["Platelets:RBC", "second"] == 24
