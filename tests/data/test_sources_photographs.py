"""Fetching boxed photographs: once, whole, and told apart by their annotations."""

import dataclasses
import json
import os
import shutil

import pytest
from written_files import below, write_folder, write_tar, write_zip

from wbc_helpers import cells
from wbc_helpers.data import archives, catalog, identity, sample, sources
from wbc_helpers.errors import (
    BrokenArchive,
    DataMismatch,
    DataNotFound,
    DownloadFailed,
    InvalidParameter,
)

PUBLISHED = sources.SOURCES["photographs", "bccd"]
WRAPPED = "BCCD_Dataset-master/BCCD"


def contents(note="", wrapped=WRAPPED):
    """Three photographs in the layout of GitHub's archive; every file differs."""
    files = {f"{wrapped}/ImageSets/Main/train.txt": f"BloodImage_00000 {note}"}
    for number in range(3):
        files[f"{wrapped}/JPEGImages/BloodImage_{number:05d}.jpg"] = f"photograph {number}"
        files[f"{wrapped}/Annotations/BloodImage_{number:05d}.xml"] = f"<boxes {number}{note}/>"
    return {name.lstrip("/"): text.encode() for name, text in files.items()}


def fetch(source, data_dir):
    return sources.fetch(source, data_dir, progress=False, holds="photographs")


@pytest.fixture(autouse=True)
def known(tmp_path_factory, monkeypatch):
    """The known data set is `contents()`, and there is no network."""
    folder = write_folder(tmp_path_factory.mktemp("known"), contents())
    manifest = folder / "manifest.csv.gz"
    identity.write_manifest(folder, manifest, "photographs")
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    # Port 9 of this machine refuses connections.
    away = dataclasses.replace(
        PUBLISHED,
        archive="http://127.0.0.1:9/master.zip",
        manifest=manifest,
        digest=identity.identify(folder, holds="photographs").digest,
    )
    monkeypatch.setitem(sources.SOURCES, ("photographs", "bccd"), away)


@pytest.fixture
def data_dir(tmp_path):
    return tmp_path / "data dir"


@pytest.fixture
def archive(tmp_path):
    return write_zip(tmp_path / "BCCD_Dataset-master.zip", contents())


@pytest.fixture
def github(archive, monkeypatch):
    """GitHub gives the archive; what it was asked for is listed."""
    asked = []

    def download(address, target, largest, what_else, progress):
        if not target.exists():
            asked.append(address)
            target.parent.mkdir(parents=True)
            shutil.copy(archive, target)
        return target

    monkeypatch.setattr(archives, "download", download)
    return asked


@pytest.fixture
def quick_sample(monkeypatch):
    """Draws nothing, but leaves what a drawn sample looks like from outside."""

    def draw_sample(folder, seed=0, progress=False):
        drawn = contents("drawn", "dataset-master/dataset-master")
        return write_folder(folder, drawn | {"sample.json": b'{"version": 1, "seed": 0}'})

    monkeypatch.setattr(sample, "draw_sample", draw_sample)


# Archives and folders


@pytest.mark.parametrize("pack", [write_zip, write_tar])
def test_archive_is_unpacked_once(pack, data_dir, tmp_path, monkeypatch):
    archive = pack(tmp_path / "mine.tar.gz", contents())
    folder = fetch(archive, data_dir)
    assert folder == data_dir / "mine"
    assert {name: data for name, data in below(folder).items() if name[0] != "."} == contents()
    assert catalog.smears_folder(folder) == (folder / WRAPPED).resolve()
    before = below(data_dir, with_times=True)
    monkeypatch.setattr(archives, "unpack", pytest.fail)
    assert fetch(str(archive), str(data_dir)) == folder
    assert below(data_dir, with_times=True) == before


@pytest.mark.parametrize("outer", ["", "BCCD", WRAPPED, "a/b/c"])
def test_folder_is_used_where_it_is(outer, data_dir, tmp_path):
    folder = write_folder(tmp_path / "mine", contents(wrapped=outer))
    before = below(folder, with_times=True)
    assert fetch(folder, data_dir) == folder
    assert catalog.smears_folder(folder) == (folder / outer).resolve()
    found = identity.identify(folder, holds="photographs")
    assert (found.source.name, found.n_photographs, found.n_annotations) == ("bccd", 3, 3)
    assert below(folder, with_times=True) == before
    assert not data_dir.exists()


@pytest.mark.parametrize(
    "files",
    [
        {"TRAIN/EOSINOPHIL/1.jpeg": b"1"},
        {"JPEGImages/1.jpg": b"1"},
        {"Annotations/1.xml": b"1"},
        {"a/JPEGImages/1.jpg": b"1", "b/Annotations/1.xml": b"1"},
        {"a/b/c/d/JPEGImages/1.jpg": b"1", "a/b/c/d/Annotations/1.xml": b"1"},
    ],
)
def test_what_is_not_the_data_is_refused(files, data_dir, tmp_path):
    folder = write_folder(tmp_path / "mine", files)
    with pytest.raises(DataNotFound, match=r"JPEGImages and Annotations.*BCCD_Dataset"):
        fetch(folder, data_dir)
    # An archive nested too deep is found out only when it is unpacked.
    if len(files) == 1 or "a/JPEGImages/1.jpg" in files:
        other = write_zip(tmp_path / "other.zip", files)
        with pytest.raises(DataNotFound, match="nothing was unpacked"):
            fetch(other, data_dir)
        assert not data_dir.exists()


def test_two_sets_in_one_folder_are_not_guessed_between(data_dir, tmp_path):
    both = contents(wrapped="one") | contents(wrapped="two")
    with pytest.raises(DataNotFound, match=r"2 sets of photographs \(one, two\)"):
        fetch(write_folder(tmp_path / "mine", both), data_dir)


def test_damaged_archive_leaves_nothing(archive, data_dir):
    archive.write_bytes(archive.read_bytes()[:-100])
    with pytest.raises(BrokenArchive):
        fetch(archive, data_dir)
    assert not data_dir.exists()


def test_what_lost_files_since_is_not_used(archive, data_dir):
    folder = fetch(archive, data_dir)
    (folder / WRAPPED / "Annotations/BloodImage_00001.xml").unlink()
    for source in (archive, "auto"):
        with pytest.raises(DataMismatch, match="6 of the 7 files"):
            fetch(source, data_dir)


def test_folder_of_a_user_is_not_overwritten(archive, data_dir):
    write_folder(data_dir / "BCCD_Dataset-master", {"notes.txt": b"mine"})
    folder = fetch(archive, data_dir)
    assert folder.name.startswith("BCCD_Dataset-master-")
    assert below(data_dir / "BCCD_Dataset-master") == {"notes.txt": b"mine"}


@pytest.mark.parametrize("source", [None, 3, "", "  ", "kaggle", "BCCD"])
def test_unknown_source(source, data_dir):
    with pytest.raises(InvalidParameter, match="Expected 'auto', 'bccd', 'txl', 'sample'"):
        fetch(source, data_dir)
    assert not data_dir.exists()


def test_nothing_at_the_path(data_dir):
    with pytest.raises(DataNotFound, match="There is nothing at"):
        fetch("no/where.zip", data_dir)
    with pytest.raises(InvalidParameter, match="data_dir"):
        fetch("auto", "")


# GitHub


def test_download_is_unpacked_and_the_archive_removed(github, data_dir):
    folder = fetch("bccd", data_dir)
    assert list(data_dir.iterdir()) == [folder] == [data_dir / "BCCD_Dataset-master"]
    assert json.loads((folder / ".fetched.json").read_text())["source"] == "bccd"
    before = below(data_dir, with_times=True)
    for source in ("bccd", "auto"):
        assert fetch(source, data_dir) == folder
    assert below(data_dir, with_times=True) == before
    assert github == ["http://127.0.0.1:9/master.zip"]


def test_unpacking_interrupted_after_the_download_needs_no_network(github, data_dir, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(archives, "unpack", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            fetch("bccd", data_dir)
    folder = fetch("bccd", data_dir)
    assert list(data_dir.iterdir()) == [folder]
    assert len(github) == 1


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b"<html>log in</html>"),
        lambda path: path.write_bytes(path.read_bytes()[:-100]),
        lambda path: write_zip(path, {"holiday/beach.jpg": b"sand"}),
    ],
)
def test_bad_download_is_removed(spoil, github, archive, data_dir):
    spoil(archive)
    with pytest.raises(DownloadFailed, match=r"was removed.*run it again.*SOURCE=sample"):
        fetch("bccd", data_dir)
    assert list(data_dir.iterdir()) == []


def test_no_network_says_what_to_do(data_dir):
    with pytest.raises(DownloadFailed, match=r"no connection.*browser.*SOURCE=sample"):
        fetch("bccd", data_dir)
    assert not data_dir.exists()


# What `auto` stands for


def test_auto_without_network_draws_and_says_so(data_dir, quick_sample, capfd):
    assert fetch("auto", data_dir) == data_dir / "sample"
    said = capfd.readouterr().err
    assert sources.banner(sources.SOURCES["photographs", "sample"]) in said
    assert "no connection" in said


def test_auto_takes_what_is_there(archive, data_dir, quick_sample, tmp_path, capfd):
    # The photographs of the other data set have boxes too, but only of red cells.
    write_folder(data_dir / "blood-cells", contents("red cells", "dataset-master/dataset-master"))
    write_folder(data_dir / "holiday", {"beach.jpg": b"sand"})
    write_zip(data_dir / "BCCD_Dataset-old.zip", {"beach.jpg": b"sand"})
    assert fetch("auto", data_dir) == data_dir / "sample"
    shutil.copy(archive, data_dir / "BCCD_Dataset-master (1).zip")
    assert fetch("auto", data_dir) == data_dir / "BCCD_Dataset-master (1)"
    shutil.rmtree(data_dir / "BCCD_Dataset-master (1)")
    mine = write_folder(data_dir / "unpacked", contents())
    assert fetch("auto", data_dir) == mine


# What a folder is


def test_deviations_name_the_files(archive, data_dir):
    root = catalog.smears_folder(fetch(archive, data_dir))
    (root / "JPEGImages/BloodImage_00000.jpg").unlink()
    (root / "Annotations/BloodImage_00002.xml").write_bytes(b"changed")
    (root / "Annotations/BloodImage_00009.xml").write_bytes(b"new")
    found = identity.identify(root, holds="photographs")
    assert found.deviations == (
        "1 file is missing: JPEGImages/BloodImage_00000.jpg.",
        "1 file is no part of the data set: Annotations/BloodImage_00009.xml.",
        "1 file is changed: Annotations/BloodImage_00002.xml.",
    )
    assert found.source.name == "bccd"


def test_other_annotations_of_the_same_photographs_are_another_data_set(tmp_path):
    folder = write_folder(tmp_path / "mine", contents("red cells only"))
    found = identity.identify(folder, holds="photographs")
    assert (found.source.name, found.deviations, found.drawn) == ("local", (), False)
    assert sources.banner(found.source) == ""


def test_drawn_smears_are_announced(data_dir, quick_sample):
    found = identity.identify(fetch("sample", data_dir), holds="photographs")
    assert found.drawn
    assert found.to_dict()["source"] == "sample"
    assert "THESE SMEARS ARE DRAWN" in sources.banner(found.source)
    markdown = sources.banner(found.source, markdown=True)
    assert all(line.startswith("> ") for line in markdown.splitlines())


def test_digest_is_that_of_sorted_files(tmp_path):
    folder = write_folder(
        tmp_path / "mine",
        {"JPEGImages/a.jpg": b"1", "Annotations/a.xml": b"2", "Annotations/.hidden": b"3"},
    )
    expected = catalog.digest_of(
        catalog.digest_files(folder, ["Annotations/a.xml", "JPEGImages/a.jpg"], False)
    )
    assert identity.identify(folder, holds="photographs").digest == expected


def test_holds_asks_about_paths_with_slashes_at_both_ends(archive):
    seen = []
    assert archives.holds(archive, lambda names: seen.extend(names) or True)
    assert f"/{WRAPPED}/JPEGImages/BloodImage_00000.jpg/" in seen


# The shipped table


def test_shipped_manifest_agrees_with_the_table():
    source, files = PUBLISHED, catalog.read_manifest(PUBLISHED.manifest)
    assert sum(file.startswith("JPEGImages/") for file in files) == source.n_photographs == 364
    assert sum(file.startswith("Annotations/") for file in files) == 364
    assert sum(file.startswith("ImageSets/Main/") for file in files) == 4
    assert sum(source.lists.values()) == source.n_photographs
    assert set(source.boxes) == set(cells.KIND_NAMES)


@pytest.mark.real_data
def test_real_archive_is_as_published(real_bccd, monkeypatch):
    monkeypatch.setitem(sources.SOURCES, ("photographs", "bccd"), PUBLISHED)
    source = PUBLISHED
    found = identity.identify(real_bccd, holds="photographs")
    assert (found.source.name, found.deviations, found.digest) == ("bccd", (), source.digest)
