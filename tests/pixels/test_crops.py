"""Crops of drawn fields whose light, scale and place are known."""

import cv2
import numpy as np
import pytest
from PIL import Image

from wbc_helpers.pixels import stain, white_cells

LAMP = (230, 200, 215)


def field(size=(240, 320), lamp=LAMP, centre=(160, 120), radius=25):
    """A bluish disc on a background of one colour."""
    drawn = np.full((*size, 3), lamp, np.uint8)
    stained = tuple(
        round(level * share) for level, share in zip(lamp, (0.5, 0.3, 0.9), strict=True)
    )
    cv2.circle(drawn, centre, radius, stained, -1)
    return drawn


def cell(x, y):
    return white_cells.WhiteCell(x, y, 0, 0, 320, 240, 2000.0, False)


def test_the_background_is_found_beside_fill_and_cells():
    drawn = field()
    drawn[:60] = 0
    np.testing.assert_array_equal(stain.background(drawn), LAMP)


def test_an_image_of_fill_has_the_usual_background():
    usual = stain.background(np.zeros((240, 320, 3), np.uint8))
    assert (usual > 200).all()


@pytest.mark.parametrize("lamp", [LAMP, (250, 250, 250), (200, 230, 180), (150, 140, 160)])
def test_balancing_takes_the_lamp_away_and_leaves_the_stain(lamp):
    balanced = stain.balance(field(lamp=lamp))
    assert (balanced[0, 0] == stain.WHITE).all()
    # Transmitted parts of the light, whatever the lamp was; no red cell is there to correct them.
    np.testing.assert_allclose(balanced[120, 160] / stain.WHITE, (0.5, 0.3, 0.9), atol=0.012)


def stained(strength, lamp=(235, 235, 235)):
    """A field of red cells with a nucleus, stained (red, green, blue) times as much as usual."""
    drawn = np.full((240, 320, 3), lamp, np.float64) + 1
    cells = np.zeros((2, 240, 320))
    for x in range(30, 320, 65):
        for y in (40, 200):
            cv2.circle(cells[0], (x, y), 26, 1, -1)
    cv2.circle(cells[1], (160, 120), 25, 1, -1)
    for mask, absorbance in zip(cells, (stain.RED_CELL_ABSORBANCE, (0.8, 1.2, 0.2)), strict=True):
        drawn *= np.exp(-mask[..., None] * np.multiply(absorbance, strength))
    return np.rint(drawn - 1).astype(np.uint8)


@pytest.mark.parametrize("strength", [(1, 1, 1), (0.7, 0.7, 0.7), (1.5, 1.3, 0.8)])
def test_red_cells_give_the_stain_and_the_nucleus_follows(strength):
    balanced = stain.balance(stained(strength, (240, 210, 225))).astype(float)
    absorbance = -np.log((balanced + 1) / (stain.WHITE + 1))
    assert absorbance[0, 0] == pytest.approx([0, 0, 0], abs=0.01)
    assert absorbance[40, 30] == pytest.approx(stain.RED_CELL_ABSORBANCE, abs=0.02)
    # However it was stained, the nucleus absorbs as at usual strength.
    assert absorbance[120, 160] == pytest.approx((0.8, 1.2, 0.2), rel=0.1)


def test_a_stain_beyond_belief_is_corrected_in_part():
    faint = stain.balance(stained((0.3, 0.3, 0.3))).astype(float)
    absorbance = -np.log((faint[40, 30] + 1) / (stain.WHITE + 1))
    # Twice 0.3 of the usual, and no more.
    assert absorbance == pytest.approx(np.multiply(stain.RED_CELL_ABSORBANCE, 0.6), abs=0.02)


def test_fill_becomes_background():
    drawn = field()
    drawn[:, :40] = 0
    drawn[:, 40:42] = 70  # what JPEG makes of such an edge
    assert (stain.balance(drawn)[:, 40:42] == stain.WHITE).all()
    assert (stain.balance(drawn)[:, :40] == stain.WHITE).all()
    assert (drawn[:, :40] == 0).all()  # the image itself is left alone


def test_a_crop_shows_the_cell_in_its_middle_at_the_scale_of_the_red_cells():
    for scale in (1, 2):
        size = (240 * scale, 320 * scale)
        drawn = field(size, (235, 235, 235), (100 * scale, 90 * scale), 25 * scale)
        red_cell = 50 * scale
        crop = white_cells.cut_out(drawn, cell(100 * scale, 90 * scale), 68, red_cell, side=3.4)
        # 3.4 red cells are 68 pixels, so the disc, a red cell wide, is 20 pixels wide.
        stained = crop[..., 1] < 150
        assert stained.sum() == pytest.approx(np.pi * 10**2, rel=0.08)
        y, x = np.nonzero(stained)
        assert (x.mean(), y.mean()) == pytest.approx((33.5, 33.5), abs=0.6)


def test_beyond_the_frame_is_background():
    crop = white_cells.cut_out(field(lamp=(100, 100, 100)), cell(0, 0), 64, 52)
    assert (crop[:28, :] == stain.WHITE).all() and (crop[:, :28] == stain.WHITE).all()
    assert (crop[40:, 40:] == 100).all()


def test_from_file_to_crop(tmp_path):
    path = tmp_path / "cell.png"
    Image.fromarray(field(centre=(220, 150))).save(path)
    crop = white_cells.read_crop(path, (64, 64))
    assert crop.shape == (64, 64, 3) and (crop[0, 0] == stain.WHITE).all()
    y, x = np.nonzero(crop[..., 1] < 150)
    assert (x.mean(), y.mean()) == pytest.approx((31.5, 31.5), abs=0.6)
