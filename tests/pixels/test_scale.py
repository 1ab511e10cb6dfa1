"""The scale of drawn smears, whose red cells are as wide as they were drawn."""

import cv2
import numpy as np
import pytest
from drawn_fields import draw_field
from PIL import Image

from benchmarks import simulated as laboratories
from wbc_helpers.errors import InvalidParameter
from wbc_helpers.pixels import scale as scale_module
from wbc_helpers.pixels.images import resample
from wbc_helpers.pixels.scale import (
    RED_CELL,
    SMALLEST_RED_CELL,
    check_red_cell,
    estimate_scale,
    red_cell_diameter,
    red_cell_diameter_of,
    red_cell_of,
)

SMEAR = (220, 180, 190)


@pytest.mark.parametrize("red_cell", [30, 52, 104])
def test_the_red_cells_give_the_scale(red_cell):
    field = draw_field(red_cell, [(320, 240, red_cell // 2)])
    # Drawn cells have sharp edges, which the factor, measured on blurred ones, does not know.
    assert red_cell_diameter(field) == pytest.approx(red_cell * 1.2, rel=0.12)


def test_estimates_of_one_field_at_two_magnifications_differ_by_the_magnification():
    field = draw_field(70, [(320, 240, 40)])
    half = cv2.resize(field, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    ratio = red_cell_diameter(field) / red_cell_diameter(half)
    assert ratio == pytest.approx(2, rel=0.05)


@pytest.mark.parametrize("laboratory", laboratories.LABORATORIES, ids=lambda each: each.name)
def test_another_laboratory_does_not_hide_the_scale(laboratory):
    field = draw_field(52, [(320, 240, 40)])
    there = red_cell_diameter(laboratories.simulate(field, laboratory))
    here = red_cell_diameter(field)
    assert there == pytest.approx(here * laboratory.magnification, rel=0.1)


def test_noise_is_not_enlarged_until_its_grains_are_as_large_as_cells(monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    scales = []

    def resampled(image, scale):
        scales.append(scale)
        return resample(image, scale)

    monkeypatch.setattr(scale_module, "resample", resampled)
    assert not red_cell_diameter(noise) < 10
    assert max(scales) <= 2 * RED_CELL / SMALLEST_RED_CELL


def test_no_red_cells_no_scale():
    empty = np.full((240, 320, 3), SMEAR, np.uint8)
    black = np.zeros((240, 320, 3), np.uint8)
    assert np.isnan(red_cell_diameter(empty))
    assert np.isnan(red_cell_diameter(black))
    assert red_cell_diameter_of([empty, black]) == RED_CELL
    assert red_cell_diameter_of([], default=70) == 70
    # One good image among empty ones gives the scale.
    field = draw_field(52, [])
    alone = red_cell_diameter(field)
    assert red_cell_diameter_of([empty, field, black]) == alone


def drawn_smear(zoom=1):
    smear = np.full((240, 320, 3), (225, 215, 228), np.uint8)
    for x in range(30, 320, 65):
        for y in (30, 95, 160, 215):
            cv2.circle(smear, (x, y), 26, (205, 130, 140), -1, cv2.LINE_AA)
    return cv2.resize(smear, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_LINEAR)


@pytest.fixture
def smears(tmp_path):
    """Save drawn smears of some magnifications; 0 stands for a file that is none."""

    def save(*zooms):
        paths = [tmp_path / f"{place}.png" for place in range(len(zooms))]
        for path, zoom in zip(paths, zooms, strict=True):
            if zoom:
                Image.fromarray(drawn_smear(zoom)).save(path)
            else:
                path.write_bytes(b"nothing")
        return paths

    return save


def test_the_scale_is_the_median_of_what_the_photographs_tell(smears):
    once, twice = (red_cell_diameter(drawn_smear(zoom)) for zoom in (1, 2))
    assert twice > 1.8 * once
    assert estimate_scale(smears(1, 2, 1)) == (once, 3)
    assert estimate_scale(smears(2, 1, 2)) == (twice, 3)


def test_files_that_tell_nothing_about_the_scale_are_passed_over(smears, tmp_path):
    once = red_cell_diameter(drawn_smear())
    Image.fromarray(np.full((60, 80, 3), 200, np.uint8)).save(tmp_path / "empty field.png")
    paths = [*smears(0, 1, 0), tmp_path / "nowhere.png", tmp_path / "empty field.png"]
    assert estimate_scale(paths) == (once, 1)
    assert estimate_scale(paths[3:]) == (None, 0)
    assert estimate_scale([]) == (None, 0)


def test_the_scale_is_told_from_some_photographs_spread_evenly(smears):
    once = red_cell_diameter(drawn_smear())
    assert estimate_scale(smears(1, 2, 2, 2, 1), n_photographs=2) == (once, 2)


def test_a_given_diameter_is_taken_and_none_is_estimated():
    field = draw_field(52, [])
    assert red_cell_of([field], 70) == 70
    assert red_cell_of([field]) == red_cell_diameter(field)
    assert red_cell_of([]) == RED_CELL
    with pytest.raises(InvalidParameter, match="Too few red cells are seen in 1 images"):
        red_cell_of([np.zeros((240, 320, 3), np.uint8)])


@pytest.mark.parametrize("red_cell", [9, 1001, "52", True, np.nan])
def test_an_unusable_diameter_is_refused(red_cell):
    with pytest.raises(InvalidParameter, match="such as 52 for the published"):
        check_red_cell(red_cell)
