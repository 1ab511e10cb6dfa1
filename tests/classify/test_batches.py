"""Batches: every image once, views of training photographs alone, and no chance but the seed's."""

import dataclasses

import numpy as np
import pytest

from wbc_helpers.classify import inputs, training
from wbc_helpers.pixels.views import Views
from wbc_helpers.runs import recipes

VIEWED = recipes.TrainingSettings(recipe="compact", epochs=2, image_size=(16, 16), batch_size=8)


def test_batches_give_every_image_once_an_epoch_in_a_new_order(noise):
    _, pixels = noise
    given = training.Batches(pixels, np.arange(40), np.arange(40), 16, seed=5)

    def order():
        return np.concatenate([given[index][1] for index in range(len(given))])

    first = order()
    assert sorted(first) == list(range(40)) and first.tolist() != list(range(40))
    assert np.array_equal(order(), first)
    given.epoch = 1
    assert sorted(order()) == list(range(40)) and not np.array_equal(order(), first)


def test_batches_divide_evenly_among_devices(noise):
    _, pixels = noise
    given = training.Batches(pixels, np.arange(40), np.arange(39), 16, n_devices=4)
    assert [len(given[index][1]) for index in range(len(given))] == [16, 16, 4]


def views_of(drawn_from, rows, epoch=0):
    views = training.DrawnViews(drawn_from[0], rows, VIEWED.to_dict())
    views.epoch = epoch
    return views


@pytest.fixture
def plain_views(monkeypatch):
    """Views that only turn: the grey level of the middle tells the photograph."""
    still = Views(zoom=0, shear=0, shift=0, cut=0, stain=0, blur=0, noise=0)
    recipe = dataclasses.replace(recipes.RECIPES["compact"], views=still, images_per_epoch=800)
    monkeypatch.setitem(recipes.RECIPES, "compact", recipe)


def test_views_come_from_training_photographs_alone_and_all_types_alike(drawn_from, plain_views):
    rows = drawn_from[1]
    allowed = rows.drop(index=5)  # one of two lymphocytes is held out
    views = views_of(drawn_from, allowed)
    assert len(views) == 100
    shown = [views[index] for index in range(len(views))]
    levels = np.concatenate([pixels[:, 8, 8, 0] for pixels, _ in shown])
    types = np.concatenate([told for _, told in shown])
    photograph = (levels.astype(int) - 40) // 20
    assert set(photograph) == set(allowed.index)
    # The label is that of the photograph.
    assert (types.argmax(axis=1) == photograph % 4).all()
    # 200 of each type expected, standard deviation 12; of a photograph 100 or, the one left, 200.
    assert types.sum(axis=0) == pytest.approx([200] * 4, abs=50)
    counts = np.bincount(photograph, minlength=8)
    assert counts[1] == pytest.approx(200, abs=50) and counts[0] == pytest.approx(100, abs=40)


def test_the_same_epoch_shows_the_same_views_and_another_others(drawn_from):
    first, again = (views_of(drawn_from, drawn_from[1])[3] for _ in range(2))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    other = views_of(drawn_from, drawn_from[1], epoch=1)[3]
    assert (other[0] != first[0]).any()


def test_an_image_that_stands_for_its_photograph_must_be_a_training_image(drawn_from, plain_views):
    patches, rows = drawn_from
    stand_ins = patches.table.assign(source_id="one photograph", file=rows["file"])
    views = views_of((inputs.Patches(patches.pixels, stand_ins), rows), rows.assign(
        source_id="one photograph"
    )[:4])  # fmt: skip
    assert views.rows.tolist() == [0, 1, 2, 3]
