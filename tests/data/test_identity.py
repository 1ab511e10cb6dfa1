"""Telling data sets apart by content, and naming what deviates."""

import dataclasses
import gzip
import hashlib
import json
import os
import re
import shutil
from pathlib import Path

import pytest
from written_files import write_folder

from wbc_helpers import cells
from wbc_helpers.data import archives, catalog, identity, sample
from wbc_helpers.data.sources import SOURCES
from wbc_helpers.errors import UnreadableImage

COUNTS = {"TRAIN": 5, "TEST": 2, "TEST_SIMPLE": 1}


def own_images(note="own"):
    """Name and content of 32 images that all differ."""
    return {
        f"{split}/{cell.folder}/_{i}_{i}.jpeg": f"{split} {cell.name} {i} {note}".encode()
        for split, n_images in COUNTS.items()
        for cell in cells.CELL_TYPES
        for i in range(n_images)
    }


@pytest.fixture
def known(tmp_path, monkeypatch):
    """A folder that is the known data set, as far as the table and the manifest say."""
    folder = write_folder(tmp_path / "known", own_images(""))
    photographs = {"JPEGImages/BloodImage_00000.jpg": b"photograph", "labels.csv": b"Category"}
    write_folder(folder, photographs | {"Annotations/BloodImage_00000.xml": b"<annotation/>"})
    identity.write_manifest(folder, tmp_path / "manifest.csv.gz")
    found = identity.identify(folder)
    published = dataclasses.replace(
        SOURCES["images", "kaggle"],
        counts={split: dict.fromkeys(cells.NAMES, n_images) for split, n_images in COUNTS.items()},
        digest=found.digest,
        photographs_digest=found.photographs_digest,
        manifest=tmp_path / "manifest.csv.gz",
    )
    monkeypatch.setitem(SOURCES, ("images", "kaggle"), published)
    return folder


def test_table_holds_the_published_counts():
    counts = SOURCES["images", "kaggle"].counts
    assert {split: sum(row.values()) for split, row in counts.items()} == {
        "TRAIN": 9957,
        "TEST": 2487,
        "TEST_SIMPLE": 71,
    }
    assert counts["TEST_SIMPLE"]["neutrophil"] == 48
    assert SOURCES["images", "kaggle"].licence == "MIT"
    assert [key for key, source in SOURCES.items() if source.drawn] == [
        ("images", "sample"),
        ("photographs", "sample"),
    ]


def test_shipped_manifest_agrees_with_the_table():
    manifest = catalog.read_manifest(SOURCES["images", "kaggle"].manifest)
    counts = identity._count(file for file in manifest if file.startswith("T"))
    assert counts.T.to_dict() == SOURCES["images", "kaggle"].counts
    assert sum(file.startswith("JPEGImages/") for file in manifest) == 366
    assert sum(file.startswith("Annotations/") for file in manifest) == 343
    assert all(re.fullmatch("[0-9a-f]{16}", digest) for digest in manifest.values())


def test_digest_as_documented(tmp_path):
    folder = write_folder(
        tmp_path / "mine", {"TRAIN/NEUTROPHIL/b.jpeg": b"1", "TRAIN/EOSINOPHIL/a.jpeg": b"2"}
    )
    (folder / "TEST").mkdir()
    lines = (
        f"TRAIN/EOSINOPHIL/a.jpeg\0{hashlib.sha256(b'2').hexdigest()}\n"
        f"TRAIN/NEUTROPHIL/b.jpeg\0{hashlib.sha256(b'1').hexdigest()}\n"
    )
    found = identity.identify(folder)
    assert found.digest == hashlib.sha256(lines.encode()).hexdigest()
    assert found.photographs_digest == ""
    assert found.counts.loc["TRAIN"].to_dict() == {
        "eosinophil": 1,
        "lymphocyte": 0,
        "monocyte": 0,
        "neutrophil": 1,
    }


def test_what_systems_leave_behind_does_not_count(known):
    before = identity.identify(known)
    for name in ("__MACOSX/._a.jpeg", ".DS_Store", "._0_1.jpeg", "Thumbs.db", "desktop.ini"):
        write_folder(known / "TRAIN", {name: b"x", f"EOSINOPHIL/{name}": b"x"})
    after = identity.identify(known)
    assert (after.digest, after.n_images, after.deviations) == (before.digest, 32, ())


def test_known_data_set_has_no_deviations(known):
    found = identity.identify(known)
    assert found.source is SOURCES["images", "kaggle"]
    assert not found.drawn
    assert found.digest == SOURCES["images", "kaggle"].digest
    assert found.deviations == ()


def test_known_data_set_without_its_photographs(known):
    for name in ("JPEGImages", "Annotations"):
        shutil.rmtree(known / name)
    (known / "labels.csv").unlink()
    assert identity.identify(known).photographs_digest == ""


def test_deviations_name_the_files(known):
    train = known / "TRAIN"
    (train / "EOSINOPHIL/_0_0.jpeg").unlink()
    (train / "MONOCYTE/_1_1.jpeg").write_bytes(b"changed")
    write_folder(train, {"NEUTROPHIL/new.jpeg": b"new", "BASOPHIL/_0_0.jpeg": b"new"})
    (known / "labels.csv").write_bytes(b"changed")
    found = identity.identify(known)
    assert found.deviations == (
        "TRAIN/EOSINOPHIL holds 4 images, expected 5.",
        "TRAIN/NEUTROPHIL holds 6 images, expected 5.",
        "1 file is missing: TRAIN/EOSINOPHIL/_0_0.jpeg.",
        "2 files are no part of the data set: TRAIN/BASOPHIL/_0_0.jpeg, TRAIN/NEUTROPHIL/new.jpeg.",
        "2 files are changed: TRAIN/MONOCYTE/_1_1.jpeg, labels.csv.",
    )


def test_many_deviations_are_counted(known):
    missing = sorted((known / "TRAIN").rglob("*.jpeg"))[:12]
    for path in missing:
        path.unlink()
    named = ", ".join(path.relative_to(known).as_posix() for path in missing[:10])
    assert f"12 files are missing: {named} and 2 more." in identity.identify(known).deviations


@pytest.mark.parametrize(("n_own", "name"), [(16, "kaggle"), (17, "local")])
def test_half_of_the_images_make_it_the_known_data_set(n_own, name, known):
    for path in sorted(known.rglob("*.jpeg"))[:n_own]:
        path.write_bytes(b"own " + str(path).encode())
    found = identity.identify(known)
    assert found.source.name == name
    assert bool(found.deviations) == (name == "kaggle")


def test_own_images_have_no_deviations(known, tmp_path):
    mine = write_folder(tmp_path / "mine", own_images())
    found = identity.identify(mine)
    assert found.source is SOURCES["images", "local"]
    assert (found.n_images, found.deviations) == (32, ())


@pytest.mark.parametrize("below", ["", "images/", "dataset2-master/dataset2-master/images/"])
def test_what_came_from_kaggle_stays_that_however_damaged(below, known, tmp_path):
    changed = {below + name: data for name, data in own_images("changed").items()}
    folder = write_folder(tmp_path / "fetched", changed)
    assert identity.identify(folder).source.name == "local"
    marker = {"format": 1, "source": "kaggle", "archive": {"name": "x.zip"}, "n_files": 32}
    write_folder(folder, {archives.MARKER: json.dumps(marker).encode()})
    assert any("32 files are changed" in each for each in identity.identify(folder).deviations)
    assert identity.identify(catalog.images_folder(folder)).source.name == "kaggle"


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"format": 2, "archive": {"name": "x"}, "n_files": 1}', '{"format": 1}'],
)
def test_marker_that_is_not_ours_counts_for_nothing(text, tmp_path):
    write_folder(tmp_path, {archives.MARKER: text.encode()})
    assert archives.read_marker(tmp_path) == {}
    assert archives.source_of(tmp_path) == ""


def test_drawn_cells_are_told_by_their_mark_from_any_depth(tmp_path):
    images = "dataset2-master/dataset2-master/images/"
    folder = write_folder(
        tmp_path / "x", {images + name: data for name, data in own_images().items()}
    )
    assert not identity.identify(folder).drawn
    write_folder(folder, {"sample.json": b'{"version": 1, "seed": 0}'})
    for place in (folder, catalog.images_folder(folder)):
        assert identity.identify(place).source is SOURCES["images", "sample"]


def test_description_for_a_run(known):
    found = identity.identify(known)
    assert found.to_dict() == {
        "source": "kaggle",
        "title": "Blood Cell Images",
        "drawn": False,
        "digest": found.digest,
        "n_images": 32,
        "folder": str(known),
    }


@pytest.mark.slow
def test_sample_is_identified(sample_folder):
    found = identity.identify(sample_folder)
    assert found.source is SOURCES["images", "sample"]
    assert found.drawn
    assert found.deviations == ()
    assert found.n_images == sample.N_IMAGES
    # Also from inside: drawn cells are never taken for photographs.
    assert identity.identify(catalog.images_folder(sample_folder)).drawn


def test_unreadable_file_is_named(known, monkeypatch):
    read_bytes = Path.read_bytes

    def refuse(path):
        if path.name == "_1_1.jpeg" and path.parent.name == "MONOCYTE":
            raise PermissionError(13, "Permission denied")
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(UnreadableImage, match=r"MONOCYTE/_1_1\.jpeg cannot be read"):
        identity.identify(known)


def test_manifest_is_the_same_bytes_each_time(known, tmp_path, capsys):
    identity.write_manifest(known, tmp_path / "again.csv.gz")
    assert (tmp_path / "again.csv.gz").read_bytes() == (tmp_path / "manifest.csv.gz").read_bytes()
    lines = gzip.decompress((tmp_path / "again.csv.gz").read_bytes()).decode().splitlines()
    digest = hashlib.sha256(b"TEST eosinophil 0 ").hexdigest()
    assert lines[:2] == ["file,sha256", f"TEST/EOSINOPHIL/_0_0.jpeg,{digest[:16]}"]
    assert f"digest={SOURCES['images', 'kaggle'].digest}" in capsys.readouterr().out


# The real archive


@pytest.mark.real_data
def test_real_archive_is_the_published_one(real_folder):
    found = identity.identify(real_folder)
    published = SOURCES["images", "kaggle"]
    assert found.source is published
    assert found.n_images == 12_515
    assert found.counts.T.to_dict() == published.counts
    assert found.digest == published.digest
    assert found.photographs_digest == published.photographs_digest


@pytest.mark.slow
@pytest.mark.real_data
def test_one_flipped_bit_in_the_real_archive_is_named(real_folder, tmp_path):
    linked = tmp_path / "linked"
    shutil.copytree(real_folder, linked, copy_function=os.symlink)
    image = catalog.images_folder(linked) / "TRAIN/MONOCYTE/_9_9901.jpeg"
    if not image.exists():
        image = min(image.parent.iterdir())
    data = bytearray(image.read_bytes())
    image.unlink()
    data[len(data) // 2] ^= 1
    image.write_bytes(data)
    assert identity.identify(linked).deviations == (
        f"1 file is changed: TRAIN/MONOCYTE/{image.name}.",
    )


def test_what_was_brought_says_in_a_notebook_what_it_is(sample_folder, tmp_path):
    data = identity.bring(sample_folder, tmp_path)
    said = data._repr_markdown_()
    assert said.startswith("> # ⚠️ These cells are drawn")
    assert f"{data.n_images:,} images" in said and str(data.folder) in said
