"""Views of a patch whose content is known, and of a smear whose boxes go where its cells go."""

import dataclasses

import numpy as np
import pytest

from wbc_helpers.pixels.images import LARGEST_SIDE
from wbc_helpers.pixels.stain import WHITE
from wbc_helpers.pixels.views import STILL as STILL_SMEAR
from wbc_helpers.pixels.views import SmearViews, Views, draw, draw_smear, patch_size

STILL = Views(zoom=0, shear=0, shift=0, cut=0, stain=0, blur=0, noise=0)


SIZE = 32


def patch(radius=20):
    """A dark disc in the middle of a white patch."""
    side = patch_size(SIZE)
    along = np.arange(side) - (side - 1) / 2
    disc = np.hypot(*np.meshgrid(along, along)) <= radius
    return np.where(disc[..., None], (120, 60, 160), WHITE).astype(np.uint8)


def views(kind, n=40):
    rng = np.random.default_rng(0)
    return [draw(patch(), SIZE, kind, rng).astype(int) for _ in range(n)]


def area(view):
    return (view[..., 1] < 150).sum()


def with_only(**changed):
    return Views(**{**STILL.__dict__, **changed})


def test_a_still_view_is_the_patch_at_its_own_scale():
    for view in views(STILL, 5):
        # Turned and flipped, a disc stays itself; 1.5 pixels of the patch make one of the view.
        assert area(view) == pytest.approx(np.pi * (20 / 1.5) ** 2, rel=0.05)
        y, x = np.nonzero(view[..., 1] < 150)
        assert (x.mean(), y.mean()) == pytest.approx((15.5, 15.5), abs=0.2)
        assert (view[0, 0] == WHITE).all()


def test_views_turn_and_flip_every_way():
    marked = patch()
    middle = len(marked) // 2
    marked[middle - 6 : middle + 6, middle + 8 : middle + 18] = (250, 60, 60)
    rng = np.random.default_rng(0)
    angles = []
    for _ in range(200):
        view = draw(marked, SIZE, STILL, rng).astype(int)
        y, x = np.nonzero(view[..., 0] > view[..., 2] + 100)
        angles.append(np.arctan2(y.mean() - 15.5, x.mean() - 15.5))
    counts, _ = np.histogram(angles, 8, (-np.pi, np.pi))
    assert counts.min() >= 10  # 25 expected in each eighth of the circle


def test_zoom_stays_in_its_range_and_uses_it():
    areas = np.array([area(view) for view in views(with_only(zoom=0.2))])
    zooms = np.sqrt(areas / (np.pi * (20 / 1.5) ** 2))
    assert zooms.min() > np.exp(-0.2) * 0.97 and zooms.max() < np.exp(0.2) * 1.03
    assert zooms.min() < 0.9 and zooms.max() > 1.1


def test_an_edge_cuts_to_background_and_leaves_the_middle():
    for view in views(with_only(cut=1.0)):
        assert (view[15:17, 15:17, 1] < 150).all()
    assert np.mean([area(view) for view in views(with_only(cut=1.0))]) < 0.9 * area(
        views(STILL, 1)[0]
    )


def test_stain_changes_colours_but_not_what_is_where():
    drawn = views(with_only(stain=0.5), 60)
    inside = np.array([view[16, 16] for view in drawn])
    assert (inside.std(axis=0) > 8).all()
    for view in drawn:
        assert len(np.unique(view.reshape(-1, 3), axis=0)) < 80  # the disc, white, their edge
        assert view[16, 16].sum() < view[0, 0].sum()  # stained stays darker than background


def test_the_same_state_gives_the_same_view():
    first, second = (draw(patch(), SIZE, Views(), np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert first.dtype == np.uint8 and first.shape == (SIZE, SIZE, 3)


def test_noise_is_as_strong_as_asked_for_and_never_the_same():
    grey = np.full((patch_size(SIZE),) * 2 + (3,), 128, np.uint8)
    rng = np.random.default_rng(0)
    noisy = np.array([draw(grey, SIZE, with_only(noise=20.0), rng) for _ in range(300)], float)
    spreads = noisy.std(axis=(1, 2, 3))
    # Uniform from 0 to 20, and half a grey level of rounding; the mean stays.
    assert spreads.max() < 21 and spreads.mean() == pytest.approx(10, abs=1)
    assert noisy.mean() == pytest.approx(128, abs=0.1)
    first, second = noisy[np.argsort(spreads)[-2:]]
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.1


def test_the_largest_view_that_a_recipe_may_ask_for_has_noise():
    grey = np.full((LARGEST_SIDE, LARGEST_SIDE, 3), 128, np.uint8)
    view = draw(grey, LARGEST_SIDE, with_only(noise=20.0), np.random.default_rng(0))
    assert view.shape == grey.shape and view.std() > 1


# Of smears

FRAME = (48, 64)


CELL = np.array([[20.0, 30.0, 52.0, 58.0]])


def smear(corners=CELL):
    drawn = np.full((96, 128, 3), WHITE, np.uint8)
    for x_min, y_min, x_max, y_max in corners.astype(int):
        drawn[y_min:y_max, x_min:x_max] = 60
    return drawn


def smear_view(views, seed=0, corners=CELL, turned=False, size=FRAME):
    rng = np.random.default_rng(seed)
    return draw_smear(smear(corners), corners, size, 0.5, views, rng, turned)


def dark(view):
    lines, columns = np.nonzero(view[..., 1] < 150)
    return columns.min(), lines.min(), columns.max() + 1, lines.max() + 1


def test_still_it_is_the_photograph_at_half_its_size():
    view, rows, corners, unsure = smear_view(STILL_SMEAR)
    assert view.shape == (48, 64, 3) and view.dtype == np.uint8
    assert rows.tolist() == [0] and not unsure.any()
    assert corners.tolist() == [[10, 15, 26, 29]] and dark(view) == (10, 15, 26, 29)


@pytest.mark.parametrize("turned", [False, True])
def test_boxes_go_where_the_cells_go(turned):
    views = dataclasses.replace(SmearViews(), stain=0, light=0, blur=0, noise=0)
    size = FRAME[::-1] if turned else FRAME
    centres, sides = [], []
    for seed in range(60):
        view, rows, corners, _ = smear_view(views, seed, turned=turned, size=size)
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
    view, _, corners, _ = smear_view(STILL_SMEAR, turned=True, size=FRAME[::-1])
    assert view.shape == (64, 48, 3)
    assert corners.tolist() == [[15, 10, 29, 26]] and dark(view) == (15, 10, 29, 26)


def test_what_the_frame_cuts_is_kept_unsure_or_gone():
    # The frame, 30 pixels wide at half the scale, shows the middle 60 columns: 34 to 94.
    cells = np.array([[26, 20, 46, 40], [22, 50, 37, 70], [24, 75, 35, 90], [60, 20, 80, 40.0]])
    # Of 20 columns 12 are seen, of 15 columns 3, of 11 columns 1, of 20 all.
    _, rows, corners, unsure = smear_view(STILL_SMEAR, corners=cells, size=(48, 30))
    assert rows.tolist() == [0, 1, 3]
    assert unsure.tolist() == [False, True, False]
    assert corners[:, 0].tolist() == [0, 0, 13] and corners[:, 2].tolist() == [6, 1.5, 23]


def test_the_same_state_gives_the_same_view_of_a_smear():
    first, second, other = (
        smear_view(SmearViews(), 3),
        smear_view(SmearViews(), 3),
        smear_view(SmearViews(), 4),
    )
    for one, same in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, same)
    assert (first[0] != other[0]).any()


def test_a_photograph_without_cells_stays_without():
    _, rows, corners, unsure = smear_view(SmearViews(), corners=np.empty((0, 4)))
    assert len(rows) == len(corners) == len(unsure) == 0


def test_stain_and_noise_change_pixels_and_no_boxes():
    coloured = dataclasses.replace(STILL_SMEAR, stain=0.5, light=0.1, noise=6.0, blur=1.0)
    view, _, corners, _ = smear_view(coloured)
    assert corners.tolist() == [[10, 15, 26, 29]]
    assert np.abs(view.astype(int) - smear_view(STILL_SMEAR)[0]).mean() > 2
