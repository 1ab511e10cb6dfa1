"""The embedded sample is what it says it is: cells, boxes, files, truth, and safe to redraw."""

import errno
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import ndimage
from sklearn.linear_model import LogisticRegression

from wbc_helpers import cells
from wbc_helpers.data import sample
from wbc_helpers.errors import (
    DataMismatch,
    DataNotFound,
    InvalidParameter,
    NoSpaceLeft,
    ReadOnlyFolder,
)

REPOSITORY = Path(__file__).parents[2]
PHOTOGRAPHS = "dataset-master/dataset-master"
IMAGES = "dataset2-master/dataset2-master/images"


@pytest.fixture(scope="module")
def drawn(sample_folder) -> Path:
    return sample_folder


@pytest.fixture
def few(monkeypatch):
    """Make the sample small where only its files matter: tests stay fast."""
    one = dict.fromkeys(cells.NAMES, 1)
    monkeypatch.setattr(sample, "PHOTOGRAPHS", {"TRAIN": one})
    monkeypatch.setattr(sample, "COUNTS", {"TRAIN": one})
    monkeypatch.setattr(sample, "TWO_WHITE_CELLS", ())
    monkeypatch.setattr(sample, "OVERLAPPING", ())
    monkeypatch.setattr(sample, "N_PHOTOGRAPHS", 4)
    monkeypatch.setattr(sample, "N_IMAGES", 4)


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def half_size(folder: Path, source_id: str) -> np.ndarray:
    """Average over blocks of 2 x 2 pixels, without the module under test."""
    whole = pixels(folder / PHOTOGRAPHS / "JPEGImages" / f"{source_id}.jpg").astype(float)
    return whole.reshape(240, 2, 320, 2, 3).mean(axis=(1, 3))


def boxes_of(folder: Path, source_id: str) -> list[tuple[str, list[int]]]:
    root = ElementTree.parse(folder / PHOTOGRAPHS / "Annotations" / f"{source_id}.xml").getroot()
    return [
        (thing.findtext("name"), [int(edge.text) for edge in thing.find("bndbox")])
        for thing in root.iter("object")
    ]


def labels_of(folder: Path) -> dict[str, str]:
    table = pd.read_csv(folder / PHOTOGRAPHS / "labels.csv")
    return {
        f"BloodImage_{number:05d}": label
        for number, label in zip(table["Image"], table["Category"], strict=True)
    }


# Layout


@pytest.mark.parametrize("split", ["TRAIN", "TEST", "TEST_SIMPLE"])
def test_class_folders_hold_the_counts_the_module_promises(drawn, split):
    folders = {f.name: f for f in (drawn / IMAGES / split).iterdir()}
    assert sorted(folders) == ["EOSINOPHIL", "LYMPHOCYTE", "MONOCYTE", "NEUTROPHIL"]
    found = {c.name: len(list(folders[c.folder].glob("*.jpeg"))) for c in cells.CELL_TYPES}
    assert found == sample.COUNTS[split]
    assert sum(len(list(f.iterdir())) for f in folders.values()) == sum(found.values())


def test_counts_are_a_few_dozen_and_differ_between_classes():
    for split, low, high in (("TRAIN", 40, 60), ("TEST", 20, 30)):
        counts = sample.COUNTS[split].values()
        assert low <= min(counts) < max(counts) <= high
    assert sum(sum(c.values()) for c in sample.COUNTS.values()) == sample.N_IMAGES == 306
    assert sample.N_PHOTOGRAPHS == 50


def test_files_are_named_and_sized_as_in_the_real_archive(drawn):
    for path in (drawn / IMAGES).rglob("*.jpeg"):
        assert re.fullmatch(r"_\d{1,2}_\d{1,4}\.jpeg", path.name)
        with Image.open(path) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (320, 240))
    photographs = sorted((drawn / PHOTOGRAPHS / "JPEGImages").iterdir())
    assert [p.name for p in photographs] == [f"BloodImage_{n:05d}.jpg" for n in range(50)]
    for path in photographs:
        with Image.open(path) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (640, 480))
        assert (drawn / PHOTOGRAPHS / "Annotations" / f"{path.stem}.xml").is_file()


def test_labels_have_the_real_format(drawn):
    lines = (drawn / PHOTOGRAPHS / "labels.csv").read_bytes().split(b"\r\n")
    assert lines[0] == b",Image,Category"
    assert lines[-1] == b""
    assert len(lines) == 52
    assert sum(b'"NEUTROPHIL, EOSINOPHIL"' in line for line in lines) == 1
    # The real labels also name two cells so; no class folder was made from such photographs.
    two = {name for name, label in labels_of(drawn).items() if "," in label}
    assert len(two) == len(sample.TWO_WHITE_CELLS)
    assert not two & set(sample.truth(drawn).source_id)


def test_annotations_have_the_real_fields(drawn):
    path = drawn / PHOTOGRAPHS / "Annotations" / "BloodImage_00000.xml"
    root = ElementTree.parse(path).getroot()
    assert root.attrib == {"verified": "no"}
    tags = ["folder", "filename", "path", "source", "size", "segmented"]
    assert [child.tag for child in root][:6] == tags
    assert root.findtext("filename") == "BloodImage_00000"
    assert [child.text for child in root.find("size")] == ["640", "480", "3"]
    thing = root.find("object")
    fields = ["name", "pose", "truncated", "difficult", "bndbox"]
    assert [child.tag for child in thing] == fields
    assert [child.tag for child in thing.find("bndbox")] == ["xmin", "ymin", "xmax", "ymax"]


# Cells and boxes


def test_a_photograph_has_as_many_white_boxes_as_its_label_has_types(drawn):
    for source_id, label in labels_of(drawn).items():
        names = [name for name, _ in boxes_of(drawn, source_id)]
        assert names.count("WBC") == len(label.split(", "))
        assert names.count("RBC") >= 3
        assert set(names) <= {"RBC", "WBC", "Platelets"}


def test_boxes_lie_in_the_frame_and_say_when_they_are_cut(drawn):
    for path in (drawn / PHOTOGRAPHS / "Annotations").iterdir():
        for thing in ElementTree.parse(path).iter("object"):
            xmin, ymin, xmax, ymax = (int(edge.text) for edge in thing.find("bndbox"))
            assert 1 <= xmin < xmax <= 640
            assert 1 <= ymin < ymax <= 480
            at_frame = xmin == 1 or ymin == 1 or xmax == 640 or ymax == 480
            assert thing.findtext("truncated") == str(int(at_frame))


def test_nuclei_lie_in_white_boxes_and_nowhere_else(drawn):
    for source_id in labels_of(drawn):
        red, green, blue = np.moveaxis(
            pixels(drawn / PHOTOGRAPHS / "JPEGImages" / f"{source_id}.jpg").astype(int), 2, 0
        )
        dark_blue = (blue - green > 60) & (green < 110) & (red < 160)
        rest = dark_blue.copy()
        for name, (xmin, ymin, xmax, ymax) in boxes_of(drawn, source_id):
            inside = np.s_[ymin - 1 : ymax, xmin - 1 : xmax]
            if name == "WBC":
                assert 0.08 < dark_blue[inside].mean() < 0.85, source_id
            if name != "RBC":
                rest[inside] = False
        assert rest.mean() < 0.001, source_id


def test_a_lone_red_cell_fills_its_box_exactly():
    dyes = {"haemoglobin": (0.2, 0.4, 0.4), "azure": (1, 1.4, 0.2), "eosin": (0.2, 0.8, 0.6)}
    stain = {dye: np.array(absorbance, np.float32) for dye, absorbance in dyes.items()}
    field = sample.Field((sample.Cell("red", 300.5, 200.25, 50, seed=5),), stain)
    photograph, (box,) = sample.photograph(field, np.random.default_rng(0))
    left, top, cover, _ = sample.paint(field.cells[0], stain)
    y, x = np.nonzero(cover > 0.5)
    assert (box.name, box.truncated) == ("RBC", False)
    assert (box.xmin, box.xmax) == (left + x.min() + 1, left + x.max() + 1)
    assert (box.ymin, box.ymax) == (top + y.min() + 1, top + y.max() + 1)
    assert 70 < box.xmax - box.xmin < 125
    # Green is what haemoglobin absorbs: dark in the box, the bare lamp 10 pixels around it.
    green = photograph[..., 1].astype(float)
    outside = np.ones(green.shape, bool)
    outside[box.ymin - 11 : box.ymax + 10, box.xmin - 11 : box.xmax + 10] = False
    assert np.median(green[200, 275:325]) < 0.9 * np.median(green[outside])
    rows, columns = np.nonzero(ndimage.uniform_filter(green, 5) < 0.85 * np.median(green[outside]))
    assert box.xmin - 1 <= columns.min() < columns.max() <= box.xmax - 1
    assert box.ymin - 1 <= rows.min() < rows.max() <= box.ymax - 1


def test_the_stage_moves_a_cell_and_cuts_it_at_the_frame():
    stain = sample.mix_stain(np.random.default_rng(0))
    field = sample.Field((sample.Cell("neutrophil", 320, 240, 60, seed=1),), stain)
    _, (here,) = sample.photograph(field, np.random.default_rng(0))
    _, (there,) = sample.photograph(field, np.random.default_rng(0), stage=(100, -30))
    assert (there.xmin, there.ymin) == (here.xmin - 100, here.ymin + 30)
    _, (cut,) = sample.photograph(field, np.random.default_rng(0), stage=(320, 0))
    assert cut.truncated
    assert cut.xmin == 1
    _, nothing = sample.photograph(field, np.random.default_rng(0), stage=(600, 0))
    assert nothing == []


@pytest.mark.parametrize(
    ("cell_type", "numbers"),
    [("lymphocyte", {1}), ("monocyte", {1}), ("eosinophil", {2}), ("neutrophil", {3, 4, 5})],
)
def test_nuclei_have_the_lobes_of_their_type(cell_type, numbers):
    x = np.linspace(-1.2, 1.2, 241)
    z = x + 1j * x[:, None]
    found = []
    for seed in range(12):
        nucleus = sample.WHITE_CELLS[cell_type].nucleus(z, np.random.default_rng(seed)) < 0
        assert ndimage.label(nucleus)[1] == 1, "strands hold the lobes together"
        # Lobes are where the nucleus is thick: maxima of the distance to its outline.
        depth = ndimage.gaussian_filter(ndimage.distance_transform_edt(nucleus), 2)
        peaks = (depth == ndimage.maximum_filter(depth, 21)) & (depth > 0.5 * depth.max())
        found.append(ndimage.label(ndimage.binary_dilation(peaks, iterations=4))[1])
    # Lobes that lie close together can look like one.
    assert np.mean([number in numbers for number in found]) >= 0.75, found


# Truth


def test_the_recorded_map_makes_every_image_from_its_photograph(drawn):
    truth = sample.truth(drawn)
    assert list(truth.columns) == ["file", "source_id", "m00", "m01", "m02", "m10", "m11", "m12"]
    files = sorted(p.relative_to(drawn / IMAGES).as_posix() for p in drawn.rglob("*.jpeg"))
    assert sorted(truth.file) == files
    for row in truth.iloc[::14].itertuples():
        linear = np.array([[row.m00, row.m01], [row.m10, row.m11]])
        shift = np.array([row.m02, row.m12])
        y, x = np.mgrid[:240, :320]
        source_x, source_y = np.linalg.solve(
            linear, np.stack([x.ravel(), y.ravel()]) - shift[:, None]
        )
        within = (source_x >= 1) & (source_x <= 318) & (source_y >= 1) & (source_y <= 238)
        beyond = (source_x < -9) | (source_x > 328) | (source_y < -9) | (source_y > 248)
        image = pixels(drawn / IMAGES / row.file).reshape(-1, 3).astype(float)
        half = half_size(drawn, row.source_id)
        warped = np.stack(
            [
                ndimage.map_coordinates(half[..., k], [source_y, source_x], order=1, mode="nearest")
                for k in range(3)
            ],
            axis=1,
        )

        # Near the black fill JPEG's blocks of 16 pixels (colour at half size) ring.
        calm = ndimage.minimum_filter(within.reshape(240, 320), 33).ravel()
        assert np.abs(image - warped)[calm].mean() < 3, row.file
        if beyond.sum() > 500:
            assert np.median(image[beyond]) <= 2, "filled with black"
        aside = np.roll(warped.reshape(240, 320, 3), 2, axis=1).reshape(-1, 3)
        assert np.abs(image - aside)[calm].mean() > 1.1 * np.abs(image - warped)[calm].mean()


def test_the_map_is_exact():
    y, x = np.mgrid[:240, :320]
    ramp = Image.fromarray((0.6 * x + 0.2 * y).astype(np.float32))
    rng = np.random.default_rng(4)
    for _ in range(8):
        affine = sample.random_affine(rng)
        image = np.asarray(sample.augment(ramp, affine))
        back = np.linalg.inv(affine)
        source_x, source_y, _ = np.tensordot(back, np.stack([x, y, np.ones_like(x)]), 1)
        inside = (source_x > 1) & (source_x < 318) & (source_y > 1) & (source_y < 238)
        # Between pixels a ramp is interpolated without error.
        np.testing.assert_allclose(
            image[inside], (0.6 * source_x + 0.2 * source_y)[inside], atol=0.01, rtol=0
        )


def test_maps_stay_in_the_range_of_the_real_augmentation():
    rng = np.random.default_rng(0)
    maps = np.array([sample.random_affine(rng) for _ in range(400)])
    centre = np.array([159.5, 119.5, 1])
    moved = (maps @ centre - centre)[:, :2]
    assert np.abs(moved[:, 0]).max() <= 32
    assert np.abs(moved[:, 1]).max() <= 24
    assert np.abs(moved[:, 0]).max() > 28, "the whole range is used"
    # The first column is not sheared: its direction is the rotation, but for the flips.
    angles = np.degrees(np.arctan(maps[:, 1, 0] / maps[:, 0, 0]))
    assert 18 < np.abs(angles).max() <= 20
    determinants = np.linalg.det(maps)
    assert np.all(np.abs(determinants) <= 1 + 1e-12)
    assert np.all(np.abs(determinants) >= np.cos(0.2) - 1e-12)
    assert 100 < (determinants < 0).sum() < 300
    assert 100 < (maps[:, 0, 0] < 0).sum() < 300


def test_test_simple_is_the_unaugmented_test_photographs(drawn):
    truth = sample.truth(drawn)
    split = truth.file.str.split("/").str[0]
    simple = truth[split == "TEST_SIMPLE"]
    assert (simple[["m00", "m01", "m02", "m10", "m11", "m12"]] == [1, 0, 0, 0, 1, 0]).all(axis=None)
    assert simple.source_id.is_unique
    assert set(simple.source_id) == set(truth.source_id[split == "TEST"])
    for row in simple.iloc[::5].itertuples():
        image = pixels(drawn / IMAGES / row.file)
        distance = np.abs(image - half_size(drawn, row.source_id)).mean()
        whole = pixels(drawn / PHOTOGRAPHS / "JPEGImages" / f"{row.source_id}.jpg").astype(float)
        assert distance < 3
        assert distance < np.abs(image - whole[::2, ::2]).mean(), "averaged, not thinned out"
        assert distance < np.abs(image - whole[1::2, 1::2]).mean(), "averaged, not thinned out"


def test_photographs_are_split_before_augmentation_and_labelled_alike(drawn):
    truth = sample.truth(drawn)
    truth[["split", "folder"]] = truth.file.str.split("/", expand=True)[[0, 1]]
    per_split = truth.groupby("split").source_id.agg(set)
    assert not per_split["TRAIN"] & per_split["TEST"]
    assert (truth.source_id.map(labels_of(drawn)) == truth.folder).all()
    per_photograph = truth[truth.split == "TRAIN"].source_id.value_counts()
    assert per_photograph.between(5, 8).all()
    recorded = json.loads((drawn / "sample.json").read_text())["photographs"]
    assert set(recorded["TRAIN"]) == per_split["TRAIN"]
    assert set(recorded["TEST"]) == per_split["TEST"]


def test_the_number_in_a_file_name_does_not_tell_the_photograph(drawn):
    truth = sample.truth(drawn)
    eosinophils = truth[truth.file.str.startswith("TRAIN/EOSINOPHIL/")]
    number = eosinophils.file.str.extract(r"/_(\d+)_")[0]
    assert (eosinophils.groupby(number).source_id.nunique() > 1).all()


def test_overlapping_photographs_show_the_same_field_shifted(drawn):
    recorded = json.loads((drawn / "sample.json").read_text())
    assert len(recorded["overlaps"]) == len(sample.OVERLAPPING) == 2
    for overlap in recorded["overlaps"]:
        assert set(overlap["photographs"]) <= set(recorded["photographs"]["TRAIN"])
        one, two = (
            ndimage.gaussian_filter(
                pixels(drawn / PHOTOGRAPHS / "JPEGImages" / f"{name}.jpg")[..., 1].astype(float), 2
            )
            for name in overlap["photographs"]
        )

        def agreement(x: int, y: int, one=one, two=two) -> float:
            rows = slice(max(0, y), 480 + min(0, y)), slice(max(0, -y), 480 + min(0, -y))
            columns = slice(max(0, x), 640 + min(0, x)), slice(max(0, -x), 640 + min(0, -x))
            first, second = one[rows[0], columns[0]], two[rows[1], columns[1]]
            return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])

        x, y = overlap["shift"]
        assert abs(x) >= 60
        assert agreement(x, y) > 0.9
        assert agreement(x, y) > agreement(x + 2, y)
        assert agreement(x, y) > agreement(x, y - 2)
        assert agreement(0, 0) < 0.5


# Learnable, but not by colour


def test_the_mean_colour_does_not_tell_the_cell_types_apart(drawn):
    files = sample.truth(drawn).file
    colours = np.array([pixels(drawn / IMAGES / f).reshape(-1, 3).mean(axis=0) for f in files])
    split, cell_type = files.str.split("/", expand=True)[[0, 1]].to_numpy().T
    training, test = split == "TRAIN", split == "TEST"
    centre, spread = colours[training].mean(axis=0), colours[training].std(axis=0)
    classifier = LogisticRegression(C=100, max_iter=2000)
    classifier.fit((colours[training] - centre) / spread, cell_type[training])
    accuracy = classifier.score((colours[test] - centre) / spread, cell_type[test])
    assert accuracy < 0.75


def test_the_white_cells_tell_the_cell_types_apart(drawn):
    """A few measures of each white cell, as with a ruler, suffice."""
    measures, labels, splits = [], [], []
    recorded = json.loads((drawn / "sample.json").read_text())["photographs"]
    names = labels_of(drawn)
    for split in ("TRAIN", "TEST"):
        for source_id in recorded[split]:
            photograph = pixels(drawn / PHOTOGRAPHS / "JPEGImages" / f"{source_id}.jpg")
            ((xmin, ymin, xmax, ymax),) = [
                edges for name, edges in boxes_of(drawn, source_id) if name == "WBC"
            ]
            crop = photograph[ymin - 1 : ymax, xmin - 1 : xmax].astype(float)
            lamp = np.percentile(photograph.reshape(-1, 3), 90, axis=0)
            red, green, blue = np.moveaxis(-np.log(np.maximum(crop, 1) / lamp), 2, 0)
            nucleus = (red > 0.35) & (green > 0.5)
            hull = ndimage.binary_closing(np.pad(nucleus, 30), iterations=25)
            measures.append(
                (
                    nucleus.mean(),
                    nucleus.sum() / hull.sum(),
                    blue[~nucleus].mean() / green[~nucleus].mean(),
                    crop.shape[0] * crop.shape[1] / 1e4,
                )
            )
            labels.append(names[source_id])
            splits.append(split)
    measures, labels, splits = np.array(measures), np.array(labels), np.array(splits)
    training = splits == "TRAIN"
    standard = (measures - measures[training].mean(axis=0)) / measures[training].std(axis=0)
    classifier = LogisticRegression(C=10, max_iter=2000)
    classifier.fit(standard[training], labels[training])
    assert classifier.score(standard[~training], labels[~training]) >= 0.8


def test_stain_and_light_vary_between_photographs(drawn):
    means = np.array(
        [
            pixels(path).reshape(-1, 3).mean(axis=0)
            for path in (drawn / PHOTOGRAPHS / "JPEGImages").iterdir()
        ]
    )
    assert (means.std(axis=0) > 4).all()
    assert (means[:, 0] - means[:, 2]).std() > 1.5, "the tint varies, not the brightness alone"


# Drawing again, elsewhere, or not at all


@pytest.mark.slow
def test_a_seed_draws_the_same_bytes_and_another_other_pixels(few, tmp_path):
    one, again = (sample.draw_sample(tmp_path / name, seed=3) for name in ("one", "again"))
    assert digests(again) == digests(one)
    two = sample.draw_sample(tmp_path / "two", seed=4)
    name = f"{PHOTOGRAPHS}/JPEGImages/BloodImage_00000.jpg"
    difference = pixels(one / name).astype(int) - pixels(two / name)
    assert np.abs(difference).mean() > 5


def test_a_complete_sample_is_left_as_it_is(drawn):
    before = {path: path.stat().st_mtime_ns for path in drawn.rglob("*")}
    start = time.perf_counter()
    assert sample.draw_sample(str(drawn), seed=np.int64(0)) == drawn
    assert time.perf_counter() - start < 1
    assert {path: path.stat().st_mtime_ns for path in drawn.rglob("*")} == before


def test_is_sample_goes_by_the_marker(drawn, tmp_path):
    assert sample.is_sample(drawn)
    assert sample.is_sample(str(drawn))
    assert not sample.is_sample(tmp_path)
    assert not sample.is_sample(tmp_path / "nowhere")


def test_truth_is_asked_of_a_sample_only(tmp_path):
    with pytest.raises(DataNotFound, match="no drawn sample"):
        sample.truth(tmp_path)


@pytest.mark.parametrize("content", [None, "mine.txt"])
def test_a_folder_that_is_no_sample_is_refused_untouched(tmp_path, content):
    folder = tmp_path / "own images"
    folder.mkdir()
    if content:
        (folder / content).write_text("mine")
    with pytest.raises(DataMismatch, match="own images exists and was not drawn"):
        sample.draw_sample(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["own images"]
    assert [path.name for path in folder.iterdir()] == ([content] if content else [])


def test_a_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "sample").write_text("mine")
    with pytest.raises(DataMismatch, match="exists and was not drawn"):
        sample.draw_sample(tmp_path / "sample")
    assert (tmp_path / "sample").read_text() == "mine"


def test_a_sample_of_another_seed_or_version_is_refused(drawn, monkeypatch):
    before = digests(drawn)
    this = sample.VERSION
    with pytest.raises(
        DataMismatch, match=f"version {this} and seed 0; asked for was version {this}, seed 4"
    ):
        sample.draw_sample(drawn, seed=4)
    monkeypatch.setattr(sample, "VERSION", this + 1)
    with pytest.raises(DataMismatch, match=f"asked for was version {this + 1}"):
        sample.draw_sample(drawn, seed=0)
    assert digests(drawn) == before


def test_a_sample_with_missing_files_is_refused_by_name(few, tmp_path):
    folder = sample.draw_sample(tmp_path / "sample")
    gone = folder / PHOTOGRAPHS / "Annotations" / "BloodImage_00003.xml"
    gone.unlink()
    with pytest.raises(DataMismatch, match=r"1 of 14 files .*BloodImage_00003\.xml"):
        sample.draw_sample(folder)


@pytest.mark.parametrize("marker", ["", "[]", "{}", '{"version": 1}'])
def test_a_damaged_marker_is_refused(tmp_path, marker):
    (tmp_path / "sample.json").write_text(marker)
    with pytest.raises(DataMismatch, match="damaged"):
        sample.draw_sample(tmp_path)


@pytest.mark.parametrize("seed", [-1, 1.5, "0", None, True])
def test_a_wrong_seed_is_refused_before_anything_is_written(tmp_path, seed):
    with pytest.raises(InvalidParameter, match="seed="):
        sample.draw_sample(tmp_path / "sample", seed=seed)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "named"),
    [
        (errno.ENOSPC, NoSpaceLeft),
        (errno.EACCES, ReadOnlyFolder),
        (errno.EROFS, ReadOnlyFolder),
    ],
)
def test_disk_errors_are_named_and_leave_nothing(few, tmp_path, monkeypatch, number, named):
    write_bytes, written = Path.write_bytes, []

    def refuse_the_tenth(path: Path, content: bytes) -> int:
        written.append(path)
        if len(written) == 10:
            raise OSError(number, os.strerror(number))
        return write_bytes(path, content)

    monkeypatch.setattr(Path, "write_bytes", refuse_the_tenth)
    with pytest.raises(named, match="sample"):
        sample.draw_sample(tmp_path / "sample")
    assert len(written) == 10
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_leaves_nothing_and_the_next_call_draws(few, tmp_path, monkeypatch):
    with monkeypatch.context() as interrupted:

        def interrupt(*_):
            raise KeyboardInterrupt

        interrupted.setattr(sample, "_overlaps", interrupt)
        with pytest.raises(KeyboardInterrupt):
            sample.draw_sample(tmp_path / "sample")
    assert list(tmp_path.iterdir()) == []
    assert sample.is_sample(sample.draw_sample(tmp_path / "sample"))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_drawing_is_no_sample_and_is_drawn_again(few, tmp_path):
    folder = tmp_path / "sample"
    code = "import sys; from wbc_helpers.data import sample; sample.draw_sample(sys.argv[1])"
    process = subprocess.Popen([sys.executable, "-c", code, str(folder)], cwd=REPOSITORY)
    deadline = time.monotonic() + 60
    while not list(tmp_path.rglob("*.jpg")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert list(tmp_path.rglob("*.jpg")), "the drawing had begun"
    assert not folder.exists()
    assert sample.is_sample(sample.draw_sample(folder))


def test_another_process_that_was_faster_wins(few, tmp_path, monkeypatch):
    folder, draw = tmp_path / "sample", sample._draw

    def draw_after_another(drawing: Path, seed: int, progress: bool) -> None:
        draw(drawing, seed, progress)
        if not folder.exists():
            draw(folder, seed, progress)

    monkeypatch.setattr(sample, "_draw", draw_after_another)
    assert sample.draw_sample(folder) == folder
    assert [path.name for path in tmp_path.iterdir()] == ["sample"]


def test_folders_above_are_made_and_others_may_read(few, tmp_path):
    folder = sample.draw_sample(tmp_path / "with space" / "sample")
    ordinary = tmp_path / "ordinary"
    ordinary.mkdir()
    assert folder.stat().st_mode == ordinary.stat().st_mode


def test_progress_is_shown_only_when_asked_for(few, tmp_path, capfd):
    sample.draw_sample(tmp_path / "quiet")
    assert capfd.readouterr().err == ""
    sample.draw_sample(tmp_path / "shown", progress=True)
    assert "8/8" in capfd.readouterr().err
