"""Simulated laboratories, on patches of known colour."""

import numpy as np
import pytest
import simulated as laboratories
from simulated import LABORATORIES, Laboratory

HALF = 127  # transmits half of the light: (127 + 1) / 256


@pytest.fixture
def patch():
    patch = np.full((24, 32, 3), HALF, np.uint8)
    patch[:, 16:] = 255
    patch[:4] = 0
    return patch


def test_the_laboratory_at_hand_changes_nothing(patch):
    np.testing.assert_array_equal(laboratories.simulate(patch, Laboratory("own")), patch)


def test_twice_the_stain_transmits_the_square(patch):
    strong = Laboratory("strong", mixing=((2, 0, 0), (0, 1, 0), (0, 0, 1)))
    taken = laboratories.simulate(patch, strong)
    # Half of a half is a quarter of 256, less one.
    assert taken[10, 4].tolist() == [63, HALF, HALF]
    assert taken[10, 20].tolist() == [255, 255, 255]  # nothing absorbs in the background


def test_a_tint_darkens_background_and_cells_by_one_factor(patch):
    taken = laboratories.simulate(patch, Laboratory("lamp", tint=(0, 0, np.log(2))))
    assert taken[10, 20].tolist() == [255, 255, 127] and taken[10, 4].tolist() == [HALF, HALF, 63]


def test_fill_stays_fill_and_magnification_counts(patch):
    for laboratory in LABORATORIES:
        taken = laboratories.simulate(patch, laboratory)
        sides = [round(side * laboratory.magnification) for side in (24, 32)]
        assert list(taken.shape) == [*sides, 3]
        assert (taken[0] == 0).all()
    assert len({laboratory.name for laboratory in LABORATORIES}) == len(LABORATORIES)


def test_blur_spreads_an_edge_by_its_width(patch):
    taken = laboratories.simulate(patch[4:], Laboratory("soft", blur=20.0))
    # Two pixels in an image 32 wide: a quarter of the step lies 1.35 pixels to either side.
    row = taken[10, :, 0].astype(float)
    assert np.interp(0.25 * 128 + 127, row[8:24], np.arange(8, 24)) == pytest.approx(14.15, abs=0.2)
