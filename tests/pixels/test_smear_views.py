"""Views of a smear in which one dark cell lies on white: its box must go where the cell goes."""

import dataclasses

import numpy as np
import pytest

from wbc_helpers.pixels.stain import WHITE
from wbc_helpers.pixels.views import STILL, SmearViews, draw_smear

SIZE = (48, 64)
CELL = np.array([[20.0, 30.0, 52.0, 58.0]])


def photograph(corners=CELL):
    drawn = np.full((96, 128, 3), WHITE, np.uint8)
    for x_min, y_min, x_max, y_max in corners.astype(int):
        drawn[y_min:y_max, x_min:x_max] = 60
    return drawn


def draw(views, seed=0, corners=CELL, turned=False, size=SIZE):
    rng = np.random.default_rng(seed)
    return draw_smear(photograph(corners), corners, size, 0.5, views, rng, turned)


def dark(view):
    lines, columns = np.nonzero(view[..., 1] < 150)
    return columns.min(), lines.min(), columns.max() + 1, lines.max() + 1


def test_still_it_is_the_photograph_at_half_its_size():
    view, rows, corners, unsure = draw(STILL)
    assert view.shape == (48, 64, 3) and view.dtype == np.uint8
    assert rows.tolist() == [0] and not unsure.any()
    assert corners.tolist() == [[10, 15, 26, 29]] and dark(view) == (10, 15, 26, 29)


@pytest.mark.parametrize("turned", [False, True])
def test_boxes_go_where_the_cells_go(turned):
    views = dataclasses.replace(SmearViews(), stain=0, blur=0, noise=0)
    size = SIZE[::-1] if turned else SIZE
    centres, sides = [], []
    for seed in range(60):
        view, rows, corners, _ = draw(views, seed, turned=turned, size=size)
        if len(rows):
            np.testing.assert_allclose(corners[0], dark(view), atol=0.76)
            centres.append((corners[0, :2] + corners[0, 2:]) / 2)
            sides.append(corners[0, 2:] - corners[0, :2])
    assert len(centres) > 40
    # All four quarters of the view are reached, and magnifications well apart.
    quarters = {tuple(centre > np.array(size[::-1]) / 2) for centre in centres}
    assert len(quarters) == 4
    assert max(side[0] for side in sides) > 1.4 * min(side[0] for side in sides if side.min() > 8)


def test_a_quarter_turn_exchanges_the_sides():
    view, _, corners, _ = draw(STILL, turned=True, size=SIZE[::-1])
    assert view.shape == (64, 48, 3)
    assert corners.tolist() == [[15, 10, 29, 26]] and dark(view) == (15, 10, 29, 26)


def test_what_the_frame_cuts_is_kept_unsure_or_gone():
    # The frame, 30 pixels wide at half the scale, shows the middle 60 columns: 34 to 94.
    cells = np.array([[26, 20, 46, 40], [26, 50, 42, 70], [24, 75, 40, 90], [60, 20, 80, 40.0]])
    # Of 20 columns 12 are seen, of 16 columns 8, of 16 columns 6, of 20 all.
    _, rows, corners, unsure = draw(STILL, corners=cells, size=(48, 30))
    assert rows.tolist() == [0, 1, 3]
    assert unsure.tolist() == [False, True, False]
    assert corners[:, 0].tolist() == [0, 0, 13] and corners[:, 2].tolist() == [6, 4, 23]


def test_the_same_state_gives_the_same_view():
    first, second, other = draw(SmearViews(), 3), draw(SmearViews(), 3), draw(SmearViews(), 4)
    for one, same in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, same)
    assert (first[0] != other[0]).any()


def test_a_photograph_without_cells_stays_without():
    _, rows, corners, unsure = draw(SmearViews(), corners=np.empty((0, 4)))
    assert len(rows) == len(corners) == len(unsure) == 0


def test_stain_and_noise_change_pixels_and_no_boxes():
    coloured = dataclasses.replace(STILL, stain=0.5, noise=6.0, blur=1.0)
    view, _, corners, _ = draw(coloured)
    assert corners.tolist() == [[10, 15, 26, 29]]
    assert np.abs(view.astype(int) - draw(STILL)[0]).mean() > 2
