"""The loss by hand, and the network before it has learned."""

import numpy as np
import pytest
from keras import ops
from known_boxes import BOXES, answer, maps_of

from wbc_helpers.count import network
from wbc_helpers.count.detector import Detector
from wbc_helpers.count.maps import N_KINDS, STRIDE


def loss(truth, maps):
    return ops.convert_to_numpy(network.centre_loss(truth[np.newaxis], maps[np.newaxis])).item()


# The loss, by hand


def test_perfect_maps_cost_nothing():
    truth = maps_of(BOXES, [0, 1, 2])
    assert loss(truth, answer(truth)) == pytest.approx(0, abs=1e-5)


def test_an_unsure_centre_costs_by_how_unsure_it_is():
    truth = maps_of(BOXES[:1], [0])
    maps = answer(truth)
    maps[maps[..., 0] == 1, 0] = 0.5
    # (1 - 0.5)² · -log 0.5, for one cell.
    assert loss(truth, maps) == pytest.approx(0.25 * np.log(2), abs=1e-4)


def test_a_false_centre_costs_less_the_nearer_it_is_to_a_true_one():
    truth = maps_of(BOXES[:1], [0])
    line, column = np.argwhere(truth[..., 0] == 1)[0]
    far, near = answer(truth), answer(truth)
    far[2, 2, 0], near[line, column + 1, 0] = 0.5, 0.5
    assert loss(truth, far) == pytest.approx(0.25 * np.log(2), abs=1e-4)
    hill = truth[line, column + 1, 0]
    assert loss(truth, near) == pytest.approx((1 - hill) ** 4 * 0.25 * np.log(2), abs=1e-4)


def test_wrong_sides_and_offsets_cost_as_parts_of_the_side():
    truth = maps_of([[20, 20, 60, 60]], [0])
    wider, moved = answer(truth), answer(truth)
    wider[..., N_KINDS] += np.log(1.1)
    assert loss(truth, wider) == pytest.approx(np.log(1.1), abs=1e-4)
    moved[..., N_KINDS + 2] += 2  # places, that is 4 of 40 pixels
    assert loss(truth, moved) == pytest.approx(2 * STRIDE / 40, abs=1e-4)


def test_what_is_unsure_costs_nothing_whatever_is_said():
    truth = maps_of(BOXES[:2], [0, 1], unsure=[True, False])
    maps = answer(truth)
    maps[22, 17, 0] = 0.9
    assert truth[22, 17, 0] == -1
    assert loss(truth, maps) == pytest.approx(0, abs=1e-5)


def test_the_mean_over_a_batch_is_the_loss_per_cell():
    truth = np.stack([maps_of(BOXES, [0, 1, 2]), maps_of(BOXES[:1], [0])])
    maps = np.stack([answer(each) for each in truth])
    maps[..., :N_KINDS] *= 0.5
    each = ops.convert_to_numpy(network.centre_loss(truth, maps))
    assert each.mean() == pytest.approx(0.25 * np.log(2), abs=1e-4)


# The network


def test_the_network_takes_any_size_and_believes_in_nothing_at_first():
    small = Detector(network.centre_network((4, 4, 8, 8)), {})
    for height, width in ((48, 64), (64, 48), (96, 96)):
        shown = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), np.uint8)
        maps = small.maps(shown)
        assert maps.shape == (2, height // STRIDE, width // STRIDE, N_KINDS + 4)
        assert maps[..., :N_KINDS].mean() < 0.1
