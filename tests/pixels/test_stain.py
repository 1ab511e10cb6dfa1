"""Light and stain of drawn fields whose lamp and dyes are known."""

import cv2
import numpy as np
import pytest
from drawn_fields import LAMP, draw_disc

from wbc_helpers.pixels import stain


def test_the_background_is_found_beside_fill_and_cells():
    drawn = draw_disc()
    drawn[:60] = 0
    np.testing.assert_array_equal(stain.background(drawn), LAMP)


def test_an_image_of_fill_has_the_usual_background():
    usual = stain.background(np.zeros((240, 320, 3), np.uint8))
    assert (usual > 200).all()


@pytest.mark.parametrize("lamp", [LAMP, (250, 250, 250), (200, 230, 180), (150, 140, 160)])
def test_balancing_takes_the_lamp_away_and_leaves_the_stain(lamp):
    balanced = stain.balance(draw_disc(lamp=lamp))
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
    drawn = draw_disc()
    drawn[:, :40] = 0
    drawn[:, 40:42] = 70  # what JPEG makes of such an edge
    assert (stain.balance(drawn)[:, 40:42] == stain.WHITE).all()
    assert (stain.balance(drawn)[:, :40] == stain.WHITE).all()
    assert (drawn[:, :40] == 0).all()  # the image itself is left alone


def test_a_cell_takes_on_the_stain_of_another_and_the_background_stays():
    rng = np.random.default_rng(0)
    cell, other = (np.full((40, 40, 3), stain.WHITE, np.uint8) for _ in range(2))
    cell[10:30, 10:30] = rng.normal((150, 90, 170), 6, (20, 20, 3)).clip(0, 255)
    other[5:35, 5:35] = rng.normal((110, 70, 120), 12, (30, 30, 3)).clip(0, 255)
    mean, spread = stain.statistics(other)
    # Of the stained pixels alone, as NumPy reckons them.
    absorbed = stain.absorbance(other[5:35, 5:35].reshape(-1, 3).astype(float))
    np.testing.assert_allclose(mean, absorbed.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(spread, absorbed.std(axis=0) + 0.03, rtol=1e-3)
    moved = stain.transfer_stain(cell, mean, spread, 1)
    assert (moved[:10] == stain.WHITE).all()
    np.testing.assert_allclose(stain.statistics(moved)[0], mean, atol=0.02)
    np.testing.assert_array_equal(stain.transfer_stain(cell, mean, spread, 0), cell)
    nothing = stain.statistics(np.full((8, 8, 3), stain.WHITE, np.uint8))
    np.testing.assert_allclose(nothing, ([0] * 3, [0.03] * 3), rtol=1e-6)
