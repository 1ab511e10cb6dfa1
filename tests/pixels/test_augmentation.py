"""Views drawn from a patch whose content is known."""

import numpy as np
import pytest

from wbc_helpers.pixels.stain import WHITE
from wbc_helpers.pixels.views import Views, draw, patch_size

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
