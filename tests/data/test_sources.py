"""Fetching and identifying data: once, whole, and without touching what a user made."""

import errno
import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from written_files import below, write_folder, write_zip

from wbc_helpers import cells
from wbc_helpers.data import archives, catalog, identity, sample, sources
from wbc_helpers.errors import (
    BrokenArchive,
    DataMismatch,
    DataNotFound,
    DownloadFailed,
    InvalidParameter,
    NoSpaceLeft,
    ReadOnlyFolder,
    UnsafeArchive,
)

IMAGES = "dataset2-master/dataset2-master/images"
PHOTOGRAPHS = "dataset-master/dataset-master"
COUNTS = {"TRAIN": 5, "TEST": 2, "TEST_SIMPLE": 1}


def contents(note=""):
    """Build a small data set in the layout of the real archive; every file differs."""
    files = {
        f"{IMAGES}/{split}/{cell.folder}/_{i}_{i}.jpeg": f"{split} {cell.name} {i} {note}"
        for split, n_images in COUNTS.items()
        for cell in cells.CELL_TYPES
        for i in range(n_images)
    }
    files[f"{PHOTOGRAPHS}/JPEGImages/BloodImage_00000.jpg"] = "photograph"
    files[f"{PHOTOGRAPHS}/Annotations/BloodImage_00000.xml"] = "<annotation/>"
    files[f"{PHOTOGRAPHS}/labels.csv"] = "Image,Category"
    return {name: text.encode() for name, text in files.items()}


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    # Port 9 of this machine refuses connections.
    monkeypatch.setattr(archives, "KAGGLE", "http://127.0.0.1:9")


@pytest.fixture
def data_dir(tmp_path):
    return tmp_path / "data dir"


@pytest.fixture
def archive(tmp_path):
    return write_zip(tmp_path / "blood-cells.zip", contents())


@pytest.fixture
def quick_sample(monkeypatch):
    """Draws nothing, but leaves what a drawn sample looks like from outside."""
    calls = []

    def draw_sample(folder, seed=0, progress=False):
        calls.append(folder)
        if folder.exists() and not (folder / "sample.json").exists():
            raise DataMismatch(f"{folder} was not drawn by this package")
        write_folder(folder, contents("drawn") | {"sample.json": b'{"version": 1, "seed": 0}'})
        return folder

    monkeypatch.setattr(sample, "draw_sample", draw_sample)
    return calls


@pytest.fixture
def kaggle(archive, monkeypatch):
    """Kaggle gives the archive; what it was asked for is listed."""
    asked = []

    def download(dataset, folder, n_bytes, progress):
        asked.append(dataset)
        folder.mkdir(parents=True)
        return Path(shutil.copy(archive, folder / "blood-cells.zip"))

    monkeypatch.setattr(archives, "download_from_kaggle", download)
    return asked


# Archives


def test_archive_is_unpacked_once(archive, data_dir, monkeypatch, capfd):
    folder = sources.fetch(archive, data_dir, progress=False)
    assert folder == data_dir / "blood-cells"
    before = below(data_dir, with_times=True)
    assert {name: data for name, data in below(folder).items() if name[0] != "."} == contents()
    marker = json.loads((folder / ".fetched.json").read_text())
    assert marker["archive"]["sha256"] == hashlib.sha256(archive.read_bytes()).hexdigest()
    assert marker["n_files"] == len(contents())
    # The second time the archive is not even read.
    monkeypatch.setattr(hashlib, "file_digest", pytest.fail)
    assert sources.fetch(str(archive), str(data_dir), progress=False) == folder
    assert below(data_dir, with_times=True) == before
    assert capfd.readouterr() == ("", "")


def test_touched_or_renamed_archive_is_the_same(archive, data_dir):
    folder = sources.fetch(archive, data_dir, progress=False)
    os.utime(archive, (1, 1))
    assert sources.fetch(archive, data_dir, progress=False) == folder
    archive.rename(archive.with_name("archive.zip"))
    assert sources.fetch(archive.with_name("archive.zip"), data_dir, progress=False) == folder
    assert [path.name for path in data_dir.iterdir()] == ["blood-cells"]


def test_another_archive_of_the_same_name_gets_another_folder(archive, data_dir, tmp_path):
    first = sources.fetch(archive, data_dir, progress=False)
    before = below(first, with_times=True)
    (tmp_path / "later").mkdir()
    other = write_zip(tmp_path / "later/blood-cells.zip", contents("other"))
    second = sources.fetch(other, data_dir, progress=False)
    digest = hashlib.sha256(other.read_bytes()).hexdigest()
    assert second == data_dir / f"blood-cells-{digest[:8]}"
    assert below(first, with_times=True) == before
    assert sources.fetch(other, data_dir, progress=False) == second
    assert sources.fetch(archive, data_dir, progress=False) == first


def test_folder_of_a_user_is_not_overwritten(archive, data_dir):
    write_folder(data_dir / "blood-cells", {"notes.txt": b"mine"})
    folder = sources.fetch(archive, data_dir, progress=False)
    assert folder.name.startswith("blood-cells-")
    assert below(data_dir / "blood-cells") == {"notes.txt": b"mine"}


def test_interrupted_unpacking_leaves_nothing_and_is_redone(archive, data_dir, monkeypatch):
    content, n_written = archives._content, []

    def interrupted(*arguments):
        n_written.append(1)
        if len(n_written) == 7:
            raise KeyboardInterrupt
        return content(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(archives, "_content", interrupted)
        with pytest.raises(KeyboardInterrupt):
            sources.fetch(archive, data_dir, progress=False)
    assert list(data_dir.iterdir()) == []
    assert len(below(sources.fetch(archive, data_dir, progress=False))) == len(contents()) + 1


def test_killed_unpacking_is_redone(archive, data_dir):
    program = (
        "import os, sys; from wbc_helpers.data import archives, sources\n"
        "content, n = archives._content, []\n"
        "def killed(*arguments):\n"
        "    n.append(1)\n"
        "    return os._exit(9) if len(n) == 7 else content(*arguments)\n"
        "archives._content = killed\n"
        "sources.fetch(sys.argv[1], sys.argv[2], False)\n"
    )
    root = Path(sources.__file__).parents[2]
    killed = subprocess.run([sys.executable, "-c", program, archive, data_dir], cwd=root)
    assert killed.returncode == 9
    (left_over,) = data_dir.iterdir()
    assert left_over.name.endswith(".partial")
    left = sorted(below(left_over).values())
    assert (len(left), left[0]) == (7, b"")
    folder = sources.fetch(archive, data_dir, progress=False)
    assert list(data_dir.iterdir()) == [folder]


def test_what_lost_files_since_is_not_used(archive, data_dir):
    folder = sources.fetch(archive, data_dir, progress=False)
    (folder / IMAGES / "TRAIN/MONOCYTE/_3_3.jpeg").unlink()
    for source in (archive, "auto"):
        with pytest.raises(DataMismatch, match="34 of the 35 files"):
            sources.fetch(source, data_dir, progress=False)


def test_two_processes_unpack_at_once(archive, data_dir, monkeypatch):
    unpack = archives.unpack

    def slow(source, folder, progress):
        monkeypatch.setattr(archives, "unpack", unpack)
        other = data_dir / "elsewhere"
        sources.fetch(source, other, progress=False)
        shutil.move(other / "blood-cells", data_dir / "blood-cells")
        return unpack(source, folder, progress)

    monkeypatch.setattr(archives, "unpack", slow)
    assert sources.fetch(archive, data_dir, progress=False) == data_dir / "blood-cells"


def test_archive_without_class_folders_is_not_unpacked(data_dir, tmp_path):
    other = write_zip(tmp_path / "holiday.zip", {"beach/1.jpeg": b"sand"})
    with pytest.raises(DataNotFound, match="holds no TRAIN and TEST folders"):
        sources.fetch(other, data_dir, progress=False)
    assert not data_dir.exists()


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-200]), BrokenArchive),
        (lambda path: path.write_bytes(b""), BrokenArchive),
        (lambda path: write_zip(path, {**contents(), "../x": b"harm"}), UnsafeArchive),
    ],
)
def test_bad_archive_leaves_nothing(damage, error, archive, data_dir, tmp_path):
    damage(archive)
    before = archive.read_bytes()
    with pytest.raises(error):
        sources.fetch(archive, data_dir, progress=False)
    assert not data_dir.exists()
    assert not (tmp_path / "x").exists()
    assert archive.read_bytes() == before


def test_full_disk_leaves_nothing(archive, data_dir, monkeypatch):
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda path: type("", (), {"free": 10}))
    with pytest.raises(NoSpaceLeft):
        sources.fetch(archive, data_dir, progress=False)
    assert list(data_dir.iterdir()) == []


def test_read_only_data_dir(archive, data_dir, monkeypatch):
    def refuse(path, *_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    data_dir.mkdir()
    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(ReadOnlyFolder, match="data_dir"):
        sources.fetch(archive, data_dir, progress=False)
    assert list(data_dir.iterdir()) == []


# Folders


@pytest.mark.parametrize("outer", ["", "copied", "a b/ü"])
@pytest.mark.parametrize(
    "inner", ["", "images/", "dataset2-master/images/", f"{IMAGES}/"], ids=[0, 1, 2, 3]
)
def test_folder_is_used_where_it_is(inner, outer, data_dir, tmp_path):
    images = {
        inner + name.removeprefix(f"{IMAGES}/"): data
        for name, data in contents().items()
        if name.startswith(IMAGES)
    }
    folder = write_folder(tmp_path / "mine" / outer.split("/")[0], images)
    before = below(tmp_path / "mine", with_times=True)
    found = sources.fetch(tmp_path / "mine", data_dir, progress=False)
    assert len(catalog.find_images(found)) == 32
    assert found == folder
    assert identity.identify(found).n_images == 32
    assert below(tmp_path / "mine", with_times=True) == before
    assert not data_dir.exists()


def test_folder_without_class_folders(data_dir, tmp_path):
    write_folder(tmp_path / "mine", {"TRAIN/EOSINOPHIL/1.jpeg": b"1", "other/2": b"2"})
    with pytest.raises(DataNotFound, match="no TRAIN and TEST"):
        sources.fetch(tmp_path / "mine", data_dir)


@pytest.mark.parametrize("source", [None, 3, "", "  ", ["kaggle"], "kagle", "Auto"])
def test_unknown_source(source, data_dir):
    with pytest.raises(InvalidParameter, match=r"Expected 'auto', 'kaggle', 'sample'"):
        sources.fetch(source, data_dir)
    assert not data_dir.exists()


@pytest.mark.parametrize("folder", [None, 3, "", b"data"])
def test_wrong_data_dir(folder):
    with pytest.raises(InvalidParameter, match="data_dir"):
        sources.fetch("auto", folder)


@pytest.mark.parametrize("source", ["nowhere/blood-cells.zip", "blood-cells.zip", "~/no/folder"])
def test_nothing_at_the_path(source, data_dir):
    with pytest.raises(DataNotFound, match="There is nothing at"):
        sources.fetch(source, data_dir)


# What `auto` stands for


def test_auto_without_network_draws_the_sample_and_says_so(data_dir, quick_sample, capfd):
    for _ in range(2):
        started = time.monotonic()
        folder = sources.fetch("auto", data_dir, progress=False)
        assert time.monotonic() - started < 3
        assert folder == data_dir / "sample"
        said = capfd.readouterr().err
        assert sources.banner(sources.SOURCES["images", "sample"]) in said
        assert "http://127.0.0.1:9 cannot be reached" in said


@pytest.mark.parametrize("place", ["sample", "copied/sample"])
def test_auto_downloads_although_a_sample_lies_there(place, data_dir, quick_sample, kaggle, capfd):
    write_folder(data_dir / place, contents("drawn") | {"sample.json": b'{"version": 1}'})
    before = below(data_dir, with_times=True)
    folder = sources.fetch("auto", data_dir, progress=False)
    assert folder == data_dir / "blood-cells"
    assert before.items() < below(data_dir, with_times=True).items()
    assert sources.fetch("auto", data_dir, progress=False) == folder
    assert kaggle == ["paultimothymooney/blood-cells"]
    assert quick_sample == []
    assert capfd.readouterr() == ("", "")


def test_kaggle_without_network_says_what_to_do(data_dir):
    with pytest.raises(DownloadFailed, match=r"cannot be reached.*run it again.*token.*SOURCE"):
        sources.fetch("kaggle", data_dir, progress=False)
    assert not data_dir.exists()


def test_auto_prefers_kaggle_then_others_then_archives_then_the_sample(
    archive, data_dir, quick_sample, tmp_path
):
    def auto():
        return sources.fetch("auto", data_dir, progress=False)

    assert auto() == data_dir / "sample"
    shutil.copy(archive, data_dir / "archive (1).zip")
    assert auto() == data_dir / "archive (1)"
    mine = write_folder(data_dir / "aa own", contents("own"))
    assert auto() == mine
    other = write_zip(tmp_path / "zz.zip", contents("kaggle"))
    fetched = sources._unpack(other, data_dir, "kaggle", sources.LAYOUTS["images"], False)
    assert auto() == fetched == data_dir / "zz"


def test_auto_finds_what_was_unpacked_into_data_dir_itself(data_dir, tmp_path):
    write_folder(data_dir, contents())
    before = below(data_dir, with_times=True)
    found = sources.fetch("auto", data_dir, progress=False)
    assert catalog.images_folder(found) == (data_dir / IMAGES).resolve()
    assert below(data_dir, with_times=True) == before


def test_auto_leaves_other_archives_alone(data_dir, quick_sample):
    write_folder(data_dir, {"notes.zip": b"no archive"})
    write_zip(data_dir / "archive.zip", {"beach/1.jpeg": b"sand"})
    assert sources.fetch("auto", data_dir, progress=False) == data_dir / "sample"


def test_auto_names_a_download_cut_off_instead_of_drawing(archive, data_dir, quick_sample):
    write_folder(data_dir, {"blood-cells.zip": archive.read_bytes()[:500]})
    with pytest.raises(BrokenArchive, match=r"blood-cells\.zip is cut off"):
        sources.fetch("auto", data_dir, progress=False)
    assert quick_sample == []


def test_sample_does_not_touch_a_folder_of_that_name(data_dir, quick_sample):
    write_folder(data_dir / "sample", {"mine.txt": b"mine"})
    folder = sources.fetch("sample", data_dir, progress=False)
    assert folder != data_dir / "sample"
    assert below(data_dir / "sample") == {"mine.txt": b"mine"}
    assert sources.fetch("sample", data_dir, progress=False) == folder


@pytest.mark.slow
def test_real_sample_is_found_again(sample_folder, data_dir):
    folder = Path(shutil.copytree(sample_folder, data_dir / "sample"))
    before = below(folder, with_times=True)
    assert sources.fetch("sample", data_dir, progress=False) == folder
    assert below(folder, with_times=True) == before


# What people are told about it


def test_banner_for_drawn_cells_only(data_dir, quick_sample, tmp_path):
    drawn = identity.identify(sources.fetch("sample", data_dir, progress=False))
    assert "THESE CELLS ARE DRAWN" in sources.banner(drawn.source)
    markdown = sources.banner(drawn.source, markdown=True)
    assert markdown.startswith("> # ⚠️ These cells are drawn\n")
    assert all(line.startswith("> ") for line in markdown.splitlines())
    photographed = identity.identify(write_folder(tmp_path / "mine", contents()))
    assert (
        sources.banner(photographed.source)
        == sources.banner(photographed.source, markdown=True)
        == ""
    )


def test_manifest_from_the_command_line(tmp_path, monkeypatch, capsys):
    folder = write_folder(tmp_path / "known", contents())
    target = tmp_path / "manifest.csv.gz"
    arguments = ["identity", "--write-manifest", str(folder), "--target", str(target)]
    monkeypatch.setattr(sys, "argv", arguments)
    identity.main()
    assert len(gzip.decompress(target.read_bytes()).splitlines()) == 1 + len(contents())
    assert f"digest={identity.identify(folder).digest}" in capsys.readouterr().out


# What was downloaded


def test_download_is_unpacked_and_the_archive_removed(kaggle, data_dir, capfd):
    folder = sources.fetch("kaggle", data_dir, progress=False)
    assert list(data_dir.iterdir()) == [folder] == [data_dir / "blood-cells"]
    assert json.loads((folder / ".fetched.json").read_text())["source"] == "kaggle"
    assert identity.identify(folder).source.name == "kaggle"
    before = below(data_dir, with_times=True)
    for source in ("kaggle", "auto"):
        assert sources.fetch(source, data_dir, progress=False) == folder
    assert below(data_dir, with_times=True) == before
    assert kaggle == ["paultimothymooney/blood-cells"]
    assert capfd.readouterr() == ("", "")


def test_archive_that_was_given_before_is_not_unpacked_again(kaggle, archive, data_dir):
    folder = sources.fetch(archive, data_dir, progress=False)
    assert sources.fetch("kaggle", data_dir, progress=False) == folder
    assert list(data_dir.iterdir()) == [folder]
    assert json.loads((folder / ".fetched.json").read_text())["source"] == "kaggle"


def test_unpacking_interrupted_after_the_download_needs_no_network(archive, data_dir, monkeypatch):
    write_folder(data_dir / ".kaggle-download", {"blood-cells.zip": archive.read_bytes()})
    with monkeypatch.context() as patched:
        patched.setattr(archives, "unpack", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            sources.fetch("kaggle", data_dir, progress=False)
    folder = sources.fetch("auto", data_dir, progress=False)
    assert list(data_dir.iterdir()) == [folder] == [data_dir / "blood-cells"]


def test_damaged_download_is_removed(kaggle, archive, data_dir):
    data = bytearray(archive.read_bytes())
    data[data.index(b"TRAIN eosinophil 0")] ^= 1
    archive.write_bytes(data)
    with pytest.raises(DownloadFailed, match="damaged on its way"):
        sources.fetch("kaggle", data_dir, progress=False)
    assert list(data_dir.iterdir()) == []


def test_full_disk_is_no_reason_to_draw(data_dir, monkeypatch, quick_sample):
    def refuse(*_):
        raise NoSpaceLeft("the disk filled up")

    monkeypatch.setattr(archives, "download_from_kaggle", refuse)
    with pytest.raises(NoSpaceLeft):
        sources.fetch("auto", data_dir, progress=False)
    assert quick_sample == []
