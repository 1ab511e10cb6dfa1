"""Photographs dealt so that no cell is on two sides; lists that do not keep that are found out."""

import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from wbc_helpers.audit import overlaps
from wbc_helpers.data import splits
from wbc_helpers.data.annotations import Annotations, read_annotations
from wbc_helpers.errors import DataMismatch, DataNotFound, InvalidParameter

NAMES = [f"p{number:02d}" for number in range(20)]


def annotated(names=NAMES, without=()):
    """Photographs with four red cells and a white one, or with none."""
    boxes = [
        (name, kind, 0.0, 0.0, 9.0, 9.0, 640, 480)
        for name in names
        if name not in without
        for kind in ["RBC"] * 4 + ["WBC"]
    ]
    columns = ["photograph", "kind", "x_min", "y_min", "x_max", "y_max", "width", "height"]
    photographs = pd.DataFrame({"photograph": names, "width": 640, "height": 480})
    return Annotations(pd.DataFrame(boxes, columns=columns), pd.DataFrame(), photographs)


def pairs_of(*pairs):
    return pd.DataFrame(pairs, columns=["first", "second"]).assign(same_cell=True)


def test_overlapping_photographs_stay_together():
    chain = pairs_of(("p00", "p07"), ("p07", "p13"), ("p02", "p03"), ("p19", "not there"))
    for seed in range(8):
        parts = splits.split_photographs(annotated(), chain, seed=seed)
        assert parts.value_counts().to_dict() == {"train": 12, "val": 4, "test": 4}
        assert parts["p00"] == parts["p07"] == parts["p13"]
        assert parts["p02"] == parts["p03"]
        assert splits.parted_pairs(chain, parts).empty
        assert list(parts.index) == NAMES


def test_same_seed_deals_alike_and_another_does_not():
    def deal(seed):
        return splits.split_photographs(annotated(), pairs_of(), seed=seed).tolist()

    assert deal(0) == deal(0)
    assert len({tuple(deal(seed)) for seed in range(5)}) > 1


def test_photographs_without_cells_are_dealt_evenly_too():
    half = NAMES[::2]
    parts = splits.split_photographs(annotated(without=half), pairs_of())
    assert parts.notna().all()
    with_cells = parts.drop(half)
    assert with_cells.value_counts().to_dict() == {"train": 6, "val": 2, "test": 2}


def test_given_photographs_are_tested_on_with_those_that_overlap_them():
    parts = splits.split_photographs(
        annotated(), pairs_of(("p00", "p05")), fraction=0.25, test=["p00", "p19"]
    )
    assert sorted(parts.index[parts == "test"]) == ["p00", "p05", "p19"]
    # A quarter of the other 17.
    assert (parts == "val").sum() in (4, 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fraction": 0}, "fraction=0"),
        ({"fraction": 0.5}, "up to 1/3"),
        ({"fraction": 1.5}, "fraction=1.5"),
        ({"test": ["p00", "nobody"]}, "testing on 2, of which 1 are not annotated"),
        ({"test": NAMES}, "0 groups of overlapping photographs cannot be dealt into 5"),
        ({"fraction": 0.04}, "20 groups of overlapping photographs cannot be dealt into 25"),
    ],
)
def test_split_that_is_not_possible(arguments, message):
    with pytest.raises(InvalidParameter, match=message):
        splits.split_photographs(annotated(), pairs_of(), **arguments)


def test_parted_pairs_by_hand():
    parts = pd.Series({"a": "train", "b": "train", "c": "test", "d": "val"})
    pairs = pairs_of(("a", "b"), ("b", "c"), ("c", "d"), ("d", "elsewhere"))
    parted = splits.parted_pairs(pairs, parts)
    assert parted[["first", "second", "first_part", "second_part"]].to_numpy().tolist() == [
        ["b", "c", "train", "test"],
        ["c", "d", "test", "val"],
    ]


@pytest.fixture
def listed(tmp_path):
    """Three photographs and their lists."""
    for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (tmp_path / part).mkdir(parents=True)
    for part, name in zip(splits.PARTS, "bac", strict=True):
        Image.new("RGB", (8, 8)).save(tmp_path / "JPEGImages" / f"{name}.jpg")
        (tmp_path / "ImageSets" / "Main" / f"{part}.txt").write_text(f"{name}\n")
    return tmp_path


def test_lists_are_read(listed):
    assert splits.read_lists(listed).to_dict() == {"a": "val", "b": "train", "c": "test"}


def test_folders_are_lists_too(tmp_path):
    for name in ("train/images/a", "train/images/b", "valid/images/a", "test/images/c"):
        file = tmp_path / f"{name}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        (file.parents[1] / "labels").mkdir(exist_ok=True)
    assert splits.read_lists(tmp_path).to_dict() == {
        "c": "test",
        "b": "train",
        "train/images/a": "train",
        "valid/images/a": "val",
    }
    assert splits.has_lists(tmp_path)
    (tmp_path / "test/images/c.jpg").unlink()
    assert not splits.has_lists(tmp_path)
    with pytest.raises(DataNotFound, match=r"no list train\.txt"):
        splits.read_lists(tmp_path)


def test_wrong_lists_are_refused(listed):
    (listed / "ImageSets/Main/val.txt").write_text("a\nb\nz\n")
    with pytest.raises(DataMismatch, match=r"1 photographs twice \(b\) and 1 .* there \(z\)"):
        splits.read_lists(listed)
    (listed / "ImageSets/Main/test.txt").unlink()
    with pytest.raises(DataNotFound, match=r"no list test\.txt.*split_photographs"):
        splits.read_lists(listed)


def test_pairs_of_drawn_smears_are_known(sample_folder):
    pairs = overlaps.find_smear_pairs(sample_folder, progress=False)
    assert len(pairs) == 2
    parts = splits.split_photographs(read_annotations(sample_folder), pairs)
    assert parts.value_counts().loc[list(splits.PARTS)].sum() == 50
    assert splits.parted_pairs(pairs, parts).empty


def test_pairs_of_copies_are_known_by_name(tmp_path):
    known = splits.originals()
    copies = known[known["original"] == "BloodImage_00094"].index
    others = known[known["original"].str.startswith("basophil/")].index[:2]
    for name in [*copies, *others, "unknown"]:
        (tmp_path / "JPEGImages").mkdir(exist_ok=True)
        (tmp_path / "JPEGImages" / f"{name}.jpg").touch()
    (tmp_path / "Annotations").mkdir()
    pairs = overlaps.find_smear_pairs(tmp_path)
    assert len(copies) == 2 and pairs.to_numpy().tolist() == [[*sorted(copies), True]]


def test_pairs_of_unknown_photographs_are_found_in_the_pixels(sample_folder, tmp_path):
    """The same drawn photographs without the sample's own record."""
    known = overlaps.find_smear_pairs(sample_folder, progress=False)
    names = sorted({*known["first"], *known["second"], "BloodImage_00000", "BloodImage_00001"})
    root = sample_folder / "dataset-master/dataset-master"
    for part in ("JPEGImages", "Annotations"):
        (tmp_path / part).mkdir()
    for name in names:
        shutil.copy(root / "JPEGImages" / f"{name}.jpg", tmp_path / "JPEGImages")
    found = overlaps.find_smear_pairs(tmp_path, progress=False)
    columns = ["first", "second", "same_cell"]
    assert np.array_equal(found[columns].to_numpy(), known.sort_values("first")[columns])


@pytest.mark.real_data
def test_published_lists_part_what_overlaps(real_bccd, monkeypatch):
    monkeypatch.setattr(overlaps, "find_overlaps", pytest.fail)
    pairs = overlaps.find_smear_pairs(real_bccd)
    lists = splits.read_lists(real_bccd)
    assert lists.value_counts().to_dict() == {"train": 205, "val": 87, "test": 72}
    parted = splits.parted_pairs(pairs, lists)
    assert (len(pairs), len(parted), parted["same_cell"].sum()) == (47, 32, 22)
    assert (parted[["first_part", "second_part"]] == "test").any(axis=1).sum() == 15
    dealt = splits.split_photographs(read_annotations(real_bccd), pairs)
    assert splits.parted_pairs(pairs, dealt).empty
    assert dealt.value_counts().between(70, 222).all()
