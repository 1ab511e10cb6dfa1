"""Boxes drawn as maps and read again; doubles told by overlaps worked out by hand."""

import numpy as np
import pytest
from keras import ops
from known_boxes import BOXES, answer, maps_of

from wbc_helpers.count import detector
from wbc_helpers.count.detector import MIDDLE, N_KINDS, STRIDE, Detector, drop_doubles, find_boxes
from wbc_helpers.pixels.scale import RED_CELL

RED, WHITE, PLATELET = range(N_KINDS)


def test_boxes_come_back_where_they_were():
    rng = np.random.default_rng(0)
    for _ in range(20):
        centres = rng.uniform((20, 20), (108, 76), (3, 2))
        sides = rng.uniform(12, 60, (3, 2))
        corners = np.hstack([centres - sides / 2, centres + sides / 2])
        found, kinds, scores = find_boxes(maps_of(corners, [RED, WHITE, PLATELET]), iou=0.5)
        assert kinds.tolist() == [RED, WHITE, PLATELET] and scores.tolist() == [1, 1, 1]
        # Where two centres share a place, the later box has it.
        places = {tuple(place) for place in (centres // STRIDE).astype(int)}
        if len(places) == 3:
            np.testing.assert_allclose(found, corners, atol=1e-3)


def test_a_map_tells_kind_size_and_offset_at_the_centre():
    # Centre (41, 30) lies in column 20, line 15, a place whose own middle is (41, 31).
    maps = maps_of([[41 - RED_CELL / 2, 30 - RED_CELL, 41 + RED_CELL / 2, 30 + RED_CELL]], [WHITE])
    assert np.argwhere(maps[..., WHITE] == 1).tolist() == [[15, 20]]
    assert maps[..., [RED, PLATELET]].max() == 0
    np.testing.assert_allclose(
        maps[15, 20, N_KINDS : N_KINDS + 4], [0, np.log(2), 0, -0.5], atol=1e-6
    )
    # The places that learn the size count as one cell together, and lie in its middle.
    counts = maps[..., N_KINDS + 4]
    assert counts.sum() == pytest.approx(1, abs=1e-5)
    lines, columns = np.nonzero(counts)
    assert (maps[lines, columns, WHITE] >= MIDDLE).all()
    # Each of them tells the way to the same centre.
    np.testing.assert_allclose(columns + 0.5 + maps[lines, columns, N_KINDS + 2], 20.5, atol=1e-5)
    np.testing.assert_allclose(lines + 0.5 + maps[lines, columns, N_KINDS + 3], 15, atol=1e-5)


def test_the_hill_is_as_wide_as_the_box_asks():
    # A side of 100 pixels are 50 places; one standard deviation, 0.09 of it, is 4.5 places.
    maps = maps_of([[14, -2, 114, 98]], [RED])
    line, column = np.argwhere(maps[..., RED] == 1)[0]
    across = maps[line, column + 9, RED]  # two standard deviations
    assert across == pytest.approx(np.exp(-2), rel=1e-5)


def test_an_unsure_cell_is_neither_found_nor_missed():
    maps = maps_of([[40, 30, 80, 70], [46, 30, 86, 70]], [RED, RED], unsure=[True, False])
    # What is sure stands although it is drawn on top of what is not.
    assert (maps[..., RED] == 1).sum() == 1 and (maps[..., RED] == -1).any()
    assert maps[..., N_KINDS + 4].sum() == pytest.approx(1, abs=1e-5)
    alone = maps_of([[40, 30, 80, 70]], [RED], unsure=[True])
    assert alone[..., RED].max() == 0 and alone[25, 30, RED] == -1
    assert not find_boxes(alone, iou=0.5)[2].size


def test_an_empty_field_has_empty_maps():
    maps = maps_of([], [])
    assert maps.shape == (48, 64, N_KINDS + 5) and not maps.any()
    corners, kinds, scores = find_boxes(maps, iou=0.5)
    assert corners.shape == (0, 4) and not len(kinds) and not len(scores)


def test_a_cell_at_the_frame_keeps_its_centre_inside():
    corners = [[100, 60, 128, 96]]
    found, _, scores = find_boxes(maps_of(corners, [RED]), iou=0.5)
    np.testing.assert_allclose(found, corners, atol=1e-3)
    assert scores.tolist() == [1]


def test_doubles_go_and_touching_cells_stay():
    boxes = np.array(
        [
            [0, 0, 10, 10],
            [1, 0, 11, 10],  # shares 9 of 11 columns with the first: 0.82
            [4, 0, 14, 10],  # shares 6 of 14: 0.43; with the second 7 of 13: 0.54
            [10, 0, 20, 10],  # touches the first
        ],
        float,
    )
    scores = np.array([0.7, 0.9, 0.8, 0.6])
    # The second is surest and takes the first and, at 0.5, the third with it.
    assert drop_doubles(boxes, scores, 0.5).tolist() == [1, 3]
    # At 0.6 the third is a cell of its own, and the order is that of the scores.
    assert drop_doubles(boxes, scores, 0.6).tolist() == [1, 2, 3]
    assert drop_doubles(boxes, scores, 0.9).tolist() == [1, 2, 0, 3]
    # A double that was dropped drops none itself: without the second, the third stays.
    assert drop_doubles(boxes[[0, 2, 3]], scores[[0, 2, 3]], 0.5).tolist() == [1, 0, 2]
    assert drop_doubles(np.empty((0, 4)), np.empty(0), 0.5).tolist() == []


def test_only_the_surest_are_read_and_nothing_below_the_lowest():
    maps = np.zeros((48, 64, N_KINDS + 4), np.float32)
    maps[5, 5::10, PLATELET] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    assert find_boxes(maps, 0.5, lowest=0.35)[2] == pytest.approx([0.6, 0.5, 0.4])
    assert find_boxes(maps, 0.5, most=2)[2] == pytest.approx([0.6, 0.5])


def loss(truth, maps):
    return ops.convert_to_numpy(detector.centre_loss(truth[np.newaxis], maps[np.newaxis])).item()


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
    wider, moved, gone = answer(truth), answer(truth), answer(truth)
    wider[..., N_KINDS] += np.log(1.25)
    # The true box fills 0.8 of the wider one, which encloses both.
    assert loss(truth, wider) == pytest.approx(np.log(1.25) / 2 + 2 * 0.2, abs=1e-4)
    moved[..., N_KINDS + 2] += 4  # places, that is 8 of 40 pixels
    # 32 of 48 columns are shared, and nothing lies around both that neither fills.
    assert loss(truth, moved) == pytest.approx(8 / 40 / 2 + 2 * (1 - 32 / 48), abs=1e-4)
    gone[..., N_KINDS + 2] += 40
    # Two squares of 40 pixels, 80 apart: a third of what encloses them is filled by neither.
    assert loss(truth, gone) == pytest.approx(80 / 40 / 2 + 2 * (1 + 40 / 120), abs=1e-4)


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
    each = ops.convert_to_numpy(detector.centre_loss(truth, maps))
    assert each.mean() == pytest.approx(0.25 * np.log(2), abs=1e-4)


# The network


def test_the_network_takes_any_size_and_believes_in_nothing_at_first():
    small = Detector(detector.centre_network((4, 4, 8, 8)), {})
    for height, width in ((48, 64), (64, 48), (96, 96)):
        shown = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), np.uint8)
        maps = small.maps(shown)
        assert maps.shape == (2, height // STRIDE, width // STRIDE, N_KINDS + 4)
        assert maps[..., :N_KINDS].mean() < 0.1


def test_as_many_are_read_as_the_field_can_hold():
    maps = np.zeros((120, 160, N_KINDS + 4), np.float32)
    maps[5:115:10, 5:155:10, RED] = 0.5
    assert len(find_boxes(maps, 0.5)[2]) == 11 * 15
