"""Pairs of photographs whose shift is known, and images whose map is known by construction."""

import numpy as np
import pytest
from known_maps import MAPS, augmented, corner_error, crop

from wbc_helpers.audit import overlaps
from wbc_helpers.errors import DataNotFound


@pytest.mark.parametrize("name", MAPS)
def test_map_is_found_and_exact(photographs, name):
    pictures = list(photographs.values())[:8]
    image = augmented(pictures[5], MAPS[name])
    index = overlaps.PictureIndex(pictures)
    best = index.find(overlaps.find_features(image))[0]
    affine, residual = overlaps.refine_affine(pictures[5], image, best.affine)
    assert best.picture == 5
    assert best.inliers >= overlaps.MIN_INLIERS
    assert corner_error(affine, MAPS[name][:2]) < 0.7
    assert residual < 1.5


def test_map_is_exact_where_contrast_was_stretched(photographs):
    photograph = next(iter(photographs.values()))
    low, high = int(photograph.min()), int(photograph.max())
    stretched = ((photograph.astype(float) - low) * 255 / (high - low)).astype(np.uint8)
    affine = MAPS["turned, shifted, sheared"]
    rough = affine[:2] + np.array([[0, 0, 1.5], [0, 0, -1.5]])
    found, _ = overlaps.refine_affine(photograph, augmented(stretched, affine), rough)
    assert corner_error(found, affine[:2]) < 0.5


def test_plain_pictures_have_no_match():
    plain = np.full((240, 320, 3), 200, np.uint8)
    index = overlaps.PictureIndex([plain, plain])
    assert index.find(overlaps.find_features(plain)) == []
    # Nothing but fill is no better.
    assert index.find(overlaps.find_features(np.zeros_like(plain))) == []


def test_overlaps_are_those_drawn(report, true_pairs):
    found = report.overlaps.set_index(["first", "second"])
    expected = {tuple(sorted(pair["photographs"])): pair for pair in true_pairs}
    assert set(found.index) == set(expected)
    for names, pair in expected.items():
        moved_by = np.array(pair["shift"]) / 2  # the stage's, in pixels of the whole photograph
        if list(names) != pair["photographs"]:
            moved_by = -moved_by
        row = found.loc[names]
        np.testing.assert_allclose([row["shift_x"], row["shift_y"]], -moved_by, atol=1)
        shared = (1 - abs(moved_by[0]) / 320) * (1 - abs(moved_by[1]) / 240)
        assert row["shared"] == pytest.approx(shared, abs=0.01)
        assert row["same_cell"]


@pytest.mark.parametrize(
    ("shift", "same_cell"), [((40, 30), True), ((-60, 25), True), ((200, 90), False)]
)
def test_shift_of_a_pair_is_exact(field, shift, same_cell):
    # What lies at x in the first lies at x - shift in the second, whose frame lies further on.
    start = (250, 130) if same_cell else (100, 40)
    first, second = crop(field, *start), crop(field, start[0] + shift[0], start[1] + shift[1])
    if not same_cell:
        second[second[..., 1] < 90] = (215, 210, 215)
    (pair,) = overlaps.find_overlaps({"a": first, "b": second}, progress=False).itertuples()
    assert (pair.shift_x, pair.shift_y) == (-shift[0], -shift[1])
    assert bool(pair.same_cell) is same_cell
    assert pair.correlation > 0.7


def test_fields_apart_do_not_overlap(field):
    apart = {"a": crop(field, 0, 0), "b": crop(field, 340, 250)}
    found = overlaps.find_overlaps(apart, progress=False)
    assert found.empty
    assert list(found) == [
        *["first", "second", "shift_x", "shift_y", "shared", "distinctness", "correlation"],
        "same_cell",
    ]


def test_photographs_of_other_sizes_are_not_compared(field):
    sizes = {"a": crop(field, 0, 0), "b": field[:300, :400].copy()}
    assert overlaps.find_overlaps(sizes, progress=False).empty


def test_no_photographs(tmp_path):
    with pytest.raises(DataNotFound, match="JPEGImages"):
        overlaps.read_photographs(tmp_path)
