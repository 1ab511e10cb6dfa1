"""Fetching and identifying data: once, whole, and without touching what a user made."""

import dataclasses
import errno
import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import traceback
import urllib.parse
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from wbc_helpers import archives, catalog, cells, sample, sources
from wbc_helpers.errors import (
    BrokenArchive,
    DataMismatch,
    DataNotFound,
    DownloadFailed,
    InvalidParameter,
    NoSpaceLeft,
    ReadOnlyFolder,
    UnreadableImage,
    UnsafeArchive,
)

TOKEN = "KGAT_0123456789abcdef/+=secret"
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


def write_folder(folder, files):
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def write_zip(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def below(folder, with_times=False):
    return {
        path.relative_to(folder).as_posix(): (
            (path.read_bytes(), path.stat().st_mtime_ns) if with_times else path.read_bytes()
        )
        for path in Path(folder).rglob("*")
        if path.is_file()
    }


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    """A user without credentials, and no network."""
    home = tmp_path / "home"
    home.mkdir()
    for name in list(os.environ):
        if name.startswith("KAGGLE_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    # Port 9 of this machine refuses connections.
    monkeypatch.setattr(sources, "KAGGLE_ADDRESS", "http://127.0.0.1:9")
    return home


@pytest.fixture
def data_dir(tmp_path):
    return tmp_path / "data dir"


@pytest.fixture
def archive(tmp_path):
    return write_zip(tmp_path / "blood-cells.zip", contents())


@pytest.fixture
def known(tmp_path, monkeypatch):
    """A folder that is the known data set, as far as the table and the manifest say."""
    folder = write_folder(tmp_path / "known", contents())
    sources.write_manifest(folder, tmp_path / "manifest.csv.gz")
    monkeypatch.setattr(sources, "_MANIFEST", tmp_path / "manifest.csv.gz")
    identity = sources.identify(folder)
    published = dataclasses.replace(
        sources.SOURCES["kaggle"],
        counts={split: dict.fromkeys(cells.NAMES, n_images) for split, n_images in COUNTS.items()},
        digest=identity.digest,
        photographs_digest=identity.photographs_digest,
        n_bytes=1000,
    )
    monkeypatch.setitem(sources.SOURCES, "kaggle", published)
    return folder


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


# The table


def test_table_holds_the_published_counts():
    counts = sources.SOURCES["kaggle"].counts
    assert {split: sum(row.values()) for split, row in counts.items()} == {
        "TRAIN": 9957,
        "TEST": 2487,
        "TEST_SIMPLE": 71,
    }
    assert counts["TEST_SIMPLE"]["neutrophil"] == 48
    assert sources.SOURCES["kaggle"].licence == "MIT"
    assert [source.drawn for source in sources.SOURCES.values()] == [False, True, False]


def test_shipped_manifest_agrees_with_the_table():
    manifest = sources._read_manifest()
    counts = sources._count(file for file in manifest if file.startswith("T"))
    assert counts.T.to_dict() == sources.SOURCES["kaggle"].counts
    assert sum(file.startswith("JPEGImages/") for file in manifest) == 366
    assert sum(file.startswith("Annotations/") for file in manifest) == 343
    assert all(re.fullmatch("[0-9a-f]{16}", digest) for digest in manifest.values())


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
    monkeypatch.setattr(sources.hashlib, "file_digest", pytest.fail)
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
        "import os, sys; from wbc_helpers import archives, sources\n"
        "content, n = archives._content, []\n"
        "def killed(*arguments):\n"
        "    n.append(1)\n"
        "    return os._exit(9) if len(n) == 7 else content(*arguments)\n"
        "archives._content = killed\n"
        "sources._fetch_archive(sources.Path(sys.argv[1]), sources.Path(sys.argv[2]), 'local', 0)\n"
    )
    root = Path(sources.__file__).parents[1]
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
    assert sources.identify(found).n_images == 32
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
    started = time.monotonic()
    folder = sources.fetch("auto", data_dir, progress=False)
    assert time.monotonic() - started < 3
    assert folder == data_dir / "sample"
    said = capfd.readouterr().err
    assert sources.SAMPLE_BANNER in said
    assert "http://127.0.0.1:9 cannot be reached" in said
    assert sources.banner(sources.identify(folder)) == sources.SAMPLE_BANNER
    # The second time Kaggle is not asked, and the banner still shows.
    sources.fetch("auto", data_dir, progress=False)
    said = capfd.readouterr().err
    assert sources.SAMPLE_BANNER in said
    assert "earlier call" in said


def test_kaggle_without_network_says_what_to_do(data_dir):
    with pytest.raises(DownloadFailed, match=r"cannot be reached.*run it again.*token.*SOURCE"):
        sources.fetch("kaggle", data_dir, progress=False)
    assert not data_dir.exists()


def test_network_that_never_answers_is_given_up(data_dir, monkeypatch):
    with ThreadingHTTPServer(("127.0.0.1", 0), Silent) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setattr(sources, "KAGGLE_ADDRESS", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setattr(sources, "PROBE_SECONDS", 0.2)
        started = time.monotonic()
        with pytest.raises(DownloadFailed, match="cannot be reached"):
            sources.fetch("kaggle", data_dir, progress=False)
        assert time.monotonic() - started < 2
        server.shutdown()


def test_name_look_up_that_hangs_is_given_up(data_dir, monkeypatch):
    monkeypatch.setattr(sources, "PROBE_SECONDS", 0.1)
    asking = threading.Event()

    def hang():
        asking.wait(5)
        raise OSError

    monkeypatch.setattr(sources.urllib.request, "build_opener", hang)
    started = time.monotonic()
    with pytest.raises(DownloadFailed, match=r"no answer within 0\.1 seconds"):
        sources.fetch("kaggle", data_dir, progress=False)
    assert time.monotonic() - started < 2
    asking.set()


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
    fetched = sources._fetch_archive(other, data_dir, "kaggle", False)
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


def test_real_sample_is_found_again_and_identified(sample_folder, data_dir):
    folder = Path(shutil.copytree(sample_folder, data_dir / "sample"))
    before = below(folder, with_times=True)
    assert sources.fetch("sample", data_dir, progress=False) == folder
    assert below(folder, with_times=True) == before
    identity = sources.verify(folder)
    assert identity.source is sources.SOURCES["sample"]
    assert identity.drawn
    assert identity.deviations == ()
    assert identity.n_images == sum(sum(row.values()) for row in sample.COUNTS.values())
    # Also from inside: drawn cells are never taken for photographs.
    assert sources.identify(catalog.images_folder(folder)).drawn


# What a folder is


def test_digest_as_documented(tmp_path):
    folder = write_folder(
        tmp_path / "mine", {"TRAIN/NEUTROPHIL/b.jpeg": b"1", "TRAIN/EOSINOPHIL/a.jpeg": b"2"}
    )
    (folder / "TEST").mkdir()
    lines = (
        f"TRAIN/EOSINOPHIL/a.jpeg\0{hashlib.sha256(b'2').hexdigest()}\n"
        f"TRAIN/NEUTROPHIL/b.jpeg\0{hashlib.sha256(b'1').hexdigest()}\n"
    )
    identity = sources.identify(folder)
    assert identity.digest == hashlib.sha256(lines.encode()).hexdigest()
    assert identity.photographs_digest == ""
    assert identity.counts.loc["TRAIN"].to_dict() == {
        "eosinophil": 1,
        "lymphocyte": 0,
        "monocyte": 0,
        "neutrophil": 1,
    }


def test_what_systems_leave_behind_does_not_count(known):
    before = sources.identify(known)
    for name in ("__MACOSX/._a.jpeg", ".DS_Store", "._0_1.jpeg", "Thumbs.db", "desktop.ini"):
        write_folder(known / IMAGES / "TRAIN", {name: b"x", f"EOSINOPHIL/{name}": b"x"})
    after = sources.identify(known)
    assert (after.digest, after.n_images, after.deviations) == (before.digest, 32, ())


def test_known_data_set_has_no_deviations(known):
    identity = sources.verify(known)
    assert identity.source is sources.SOURCES["kaggle"]
    assert not identity.drawn
    assert sources.banner(identity) == ""
    assert identity.digest == sources.SOURCES["kaggle"].digest
    assert identity.deviations == ()


def test_known_data_set_without_its_photographs(known):
    shutil.rmtree(known / "dataset-master")
    assert sources.verify(known).photographs_digest == ""


def test_deviations_name_the_files(known):
    train = known / IMAGES / "TRAIN"
    (train / "EOSINOPHIL/_0_0.jpeg").unlink()
    (train / "MONOCYTE/_1_1.jpeg").write_bytes(b"changed")
    write_folder(train, {"NEUTROPHIL/new.jpeg": b"new", "BASOPHIL/_0_0.jpeg": b"new"})
    (known / PHOTOGRAPHS / "labels.csv").write_bytes(b"changed")
    identity = sources.identify(known)
    assert identity.deviations == (
        "TRAIN/EOSINOPHIL holds 4 images, expected 5.",
        "TRAIN/NEUTROPHIL holds 6 images, expected 5.",
        "1 file is missing: TRAIN/EOSINOPHIL/_0_0.jpeg.",
        "2 files are no part of the data set: TRAIN/BASOPHIL/_0_0.jpeg, TRAIN/NEUTROPHIL/new.jpeg.",
        "2 files are changed: TRAIN/MONOCYTE/_1_1.jpeg, labels.csv.",
    )
    with pytest.raises(DataMismatch, match=r"TRAIN/MONOCYTE/_1_1\.jpeg.*Expected 32 images"):
        sources.verify(known)
    assert sources.verify(known, strict=False).deviations == identity.deviations


def test_many_deviations_are_counted(known):
    missing = sorted((known / IMAGES / "TRAIN").rglob("*.jpeg"))[:12]
    for path in missing:
        path.unlink()
    named = ", ".join(path.relative_to(known / IMAGES).as_posix() for path in missing[:10])
    assert f"12 files are missing: {named} and 2 more." in sources.identify(known).deviations


@pytest.mark.parametrize(("n_own", "name"), [(16, "kaggle"), (17, "local")])
def test_half_of_the_images_make_it_the_known_data_set(n_own, name, known):
    for path in sorted((known / IMAGES).rglob("*.jpeg"))[:n_own]:
        path.write_bytes(b"own " + str(path).encode())
    identity = sources.identify(known)
    assert identity.source.name == name
    assert bool(identity.deviations) == (name == "kaggle")


def test_own_images_have_no_deviations(known, tmp_path):
    mine = write_folder(tmp_path / "mine", contents("own"))
    identity = sources.verify(mine)
    assert identity.source is sources.SOURCES["local"]
    assert (identity.n_images, identity.deviations) == (32, ())


def test_what_came_from_kaggle_stays_that_however_damaged(known, data_dir, tmp_path):
    other = write_zip(tmp_path / "blood-cells.zip", contents("all changed"))
    folder = sources._fetch_archive(other, data_dir, "kaggle", False)
    with pytest.raises(DataMismatch, match="32 files are changed"):
        sources.verify(folder)
    assert sources.identify(catalog.images_folder(folder)).source.name == "kaggle"


def test_unreadable_file_is_named(known, monkeypatch):
    read_bytes = Path.read_bytes

    def refuse(path):
        if path.name == "_1_1.jpeg" and path.parent.name == "MONOCYTE":
            raise PermissionError(13, "Permission denied")
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(UnreadableImage, match=r"MONOCYTE/_1_1\.jpeg cannot be read"):
        sources.identify(known)


def test_manifest_is_the_same_bytes_each_time(known, tmp_path, capsys):
    sources.write_manifest(known, tmp_path / "again.csv.gz")
    assert (tmp_path / "again.csv.gz").read_bytes() == (tmp_path / "manifest.csv.gz").read_bytes()
    lines = gzip.decompress((tmp_path / "again.csv.gz").read_bytes()).decode().splitlines()
    digest = hashlib.sha256(b"TEST eosinophil 0 ").hexdigest()
    assert lines[:2] == ["file,sha256", f"TEST/EOSINOPHIL/_0_0.jpeg,{digest[:16]}"]
    assert f"digest={sources.SOURCES['kaggle'].digest}" in capsys.readouterr().out


# Kaggle, with a stand-in for its client


class Silent(BaseHTTPRequestHandler):
    """Takes a request and never answers."""

    def do_GET(self):
        time.sleep(1)


class Kaggle(BaseHTTPRequestHandler):
    """As much of Kaggle as a download needs, reached as a proxy for http://localhost."""

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if "/files/" not in self.path:
            return self.answer(404)
        data, etag = self.server.archive.read_bytes(), '"one"'
        headers = {"Accept_Ranges": "bytes", "ETag": etag, "Content_Type": "application/zip"}
        self.server.ranges.append(self.headers.get("Range"))
        if self.headers.get("Range"):
            start = int(re.fullmatch(r"bytes=(\d+)-", self.headers["Range"])[1])
            return self.answer(206, data[start:], **headers)
        return self.answer(200, data, **headers)

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        authorization = self.headers.get("Authorization")
        if self.path.endswith("/IntrospectToken"):
            known = self.server.token == TOKEN
            body = json.dumps({"active": known, "username": "somebody" if known else ""}).encode()
            return self.answer(200, body, Content_Type="application/json")
        self.server.asked.append(authorization)
        if self.server.token is None or authorization == f"Bearer {self.server.token}":
            return self.answer(302, Location="http://localhost/files/blood-cells.zip?sig=signature")
        body = json.dumps({"code": 401, "message": f"Unauthenticated: {authorization}"}).encode()
        return self.answer(401, body, Content_Type="application/json")


@pytest.fixture
def kaggle(archive, known, monkeypatch):
    """Kaggle on the loopback interface; `token` None means that everybody is let in."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Kaggle) as server:
        server.archive, server.token, server.asked, server.ranges = archive, None, [], []
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "LOCALHOST")
        monkeypatch.setattr(sources, "KAGGLE_ADDRESS", "http://localhost")
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def use_client(monkeypatch, program):
    """Run `program` in place of Kaggle's client; `zip_file` is where it should write."""
    start = (
        "import os, pathlib, sys, time\n"
        "assert sys.argv[1:4] == ['datasets', 'download', 'paultimothymooney/blood-cells']\n"
        "zip_file = pathlib.Path(sys.argv[4], 'blood-cells.zip')\n"
        "token = os.environ.get('KAGGLE_API_TOKEN')\n"
    )
    monkeypatch.setattr(sources, "_CLIENT", (sys.executable, "-c", start + program))


def give(archive):
    return f"zip_file.write_bytes(pathlib.Path({str(archive)!r}).read_bytes())\n"


def test_download_is_unpacked_and_the_archive_removed(
    kaggle, archive, data_dir, monkeypatch, capfd
):
    use_client(monkeypatch, "print('chatter'); assert token is None\n" + give(archive))
    folder = sources.fetch("kaggle", data_dir, progress=False)
    assert list(data_dir.iterdir()) == [folder] == [data_dir / "blood-cells"]
    assert json.loads((folder / ".fetched.json").read_text())["source"] == "kaggle"
    assert sources.verify(folder).source.name == "kaggle"
    assert capfd.readouterr() == ("", "")
    before = below(data_dir, with_times=True)
    use_client(monkeypatch, "sys.exit('never asked again')")
    assert sources.fetch("kaggle", data_dir, progress=False) == folder
    assert sources.fetch("auto", data_dir, progress=False) == folder
    assert below(data_dir, with_times=True) == before


def test_download_shows_progress(kaggle, archive, data_dir, monkeypatch, capfd):
    use_client(monkeypatch, give(archive) + "time.sleep(0.7)")
    sources.fetch("kaggle", data_dir, progress=True)
    said = capfd.readouterr().err
    assert "downloading" in said
    assert "unpacking: 100%" in said


def test_download_cut_off_is_continued_and_never_used(kaggle, archive, data_dir, monkeypatch):
    data = archive.read_bytes()
    use_client(
        monkeypatch,
        give(archive) + "os.truncate(zip_file, 1000); sys.exit('Error: connection lost')",
    )
    with pytest.raises(DownloadFailed, match="connection lost"):
        sources.fetch("kaggle", data_dir, progress=False)
    assert below(data_dir) == {".kaggle-download/blood-cells.zip": data[:1000]}
    use_client(
        monkeypatch,
        "assert zip_file.stat().st_size == 1000\n"
        f"zip_file.open('ab').write(pathlib.Path({str(archive)!r}).read_bytes()[1000:])",
    )
    folder = sources.fetch("kaggle", data_dir, progress=False)
    assert list(data_dir.iterdir()) == [folder]


def test_client_that_ends_well_with_half_an_archive(kaggle, archive, data_dir, monkeypatch):
    use_client(monkeypatch, give(archive) + "os.truncate(zip_file, 1000)")
    with pytest.raises(DownloadFailed):
        sources.fetch("kaggle", data_dir, progress=False)
    assert not (data_dir / "blood-cells").exists()


def test_unpacking_interrupted_after_the_download_needs_no_network(
    kaggle, archive, data_dir, monkeypatch
):
    use_client(monkeypatch, give(archive))
    with monkeypatch.context() as patched:
        patched.setattr(archives, "unpack", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            sources.fetch("kaggle", data_dir, progress=False)
    monkeypatch.setattr(sources, "_why_unreachable", lambda: "no network")
    assert sources.fetch("auto", data_dir, progress=False) == data_dir / "blood-cells"


def test_damaged_download_is_removed(kaggle, archive, data_dir, monkeypatch):
    data = bytearray(archive.read_bytes())
    data[data.index(b"TRAIN eosinophil 0")] ^= 1
    archive.write_bytes(data)
    use_client(monkeypatch, give(archive))
    with pytest.raises(DownloadFailed, match="damaged on its way"):
        sources.fetch("kaggle", data_dir, progress=False)
    assert list(data_dir.iterdir()) == []


def test_stalled_download_is_given_up(kaggle, data_dir, monkeypatch):
    monkeypatch.setattr(sources, "STALL_SECONDS", 0.1)
    use_client(monkeypatch, "time.sleep(60)")
    started = time.monotonic()
    with pytest.raises(DownloadFailed, match=r"no data came for 0\.1 seconds"):
        sources.fetch("kaggle", data_dir, progress=False)
    assert time.monotonic() - started < 5


def test_interrupted_download_ends_the_client(kaggle, data_dir, tmp_path, monkeypatch):
    use_client(
        monkeypatch,
        f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid())); time.sleep(60)",
    )

    def interrupt(*_):
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            time.sleep(0.01)
        raise KeyboardInterrupt

    monkeypatch.setattr(sources, "_wait", interrupt)
    with pytest.raises(KeyboardInterrupt):
        sources.fetch("kaggle", data_dir, progress=False)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_full_disk_during_the_download(kaggle, data_dir, monkeypatch, quick_sample):
    use_client(monkeypatch, "sys.exit('OSError: [Errno 28] No space left on device')")
    for source in ("kaggle", "auto"):
        with pytest.raises(NoSpaceLeft, match="is continued"):
            sources.fetch(source, data_dir, progress=False)
    assert quick_sample == []


def test_full_disk_before_the_download(kaggle, data_dir, monkeypatch):
    use_client(monkeypatch, "sys.exit('never started')")
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda path: type("", (), {"free": 1999}))
    with pytest.raises(NoSpaceLeft, match="Blood Cell Images needs"):
        sources.fetch("kaggle", data_dir, progress=False)
    assert not data_dir.exists()


def test_client_that_is_not_installed(kaggle, data_dir, monkeypatch):
    monkeypatch.setattr(sources.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DownloadFailed, match="pip install kaggle"):
        sources.fetch("kaggle", data_dir, progress=False)


PLACES = {
    "KAGGLE_API_TOKEN": lambda home, patch: patch.setenv("KAGGLE_API_TOKEN", TOKEN),
    "a file": lambda home, patch: (
        patch.setenv("KAGGLE_API_TOKEN", str(home / "token.txt")),
        write_folder(home, {"token.txt": TOKEN.encode()}),
    ),
    "KAGGLE_KEY": lambda home, patch: (
        patch.setenv("KAGGLE_USERNAME", "somebody"),
        patch.setenv("KAGGLE_KEY", TOKEN),
    ),
    "access_token": lambda home, patch: write_folder(
        home, {".kaggle/access_token": TOKEN.encode() + b"\n"}
    ),
    "kaggle.json": lambda home, patch: write_folder(
        home,
        {".config/kaggle/kaggle.json": json.dumps({"username": "me", "key": TOKEN}).encode()},
    ),
    "credentials.json": lambda home, patch: write_folder(
        home,
        {".kaggle/credentials.json": json.dumps({"refresh_token": TOKEN}, indent=1).encode()},
    ),
}


@pytest.mark.parametrize("place", PLACES)
def test_credentials_are_used_only_after_anonymous_access_failed(
    place, kaggle, archive, data_dir, machine, monkeypatch
):
    PLACES[place](machine, monkeypatch)
    use_client(
        monkeypatch,
        f"named = [n for n in os.environ if n.startswith('KAGGLE_')]\n"
        f"if os.environ['HOME'] != {str(machine)!r}:\n"
        "    assert named == ['KAGGLE_API_ENVIRONMENT'], named\n"
        "    assert not any(pathlib.Path.home().iterdir())\n"
        "    sys.exit('HTTPError: 401 Client Error: Unauthorized')\n" + give(archive),
    )
    before = below(machine, with_times=True)
    assert sources.fetch("kaggle", data_dir, progress=False) == data_dir / "blood-cells"
    assert below(machine, with_times=True) == before


@pytest.mark.parametrize("place", PLACES)
def test_refused_token_appears_nowhere(
    place, kaggle, data_dir, machine, monkeypatch, capfd, quick_sample
):
    PLACES[place](machine, monkeypatch)
    forms = [TOKEN, urllib.parse.quote(TOKEN, safe=""), f"Bearer {TOKEN}", json.dumps(TOKEN)]
    use_client(monkeypatch, f"sys.exit('HTTPError: 401 Client Error: ' + ' '.join({forms!r}))")
    with pytest.raises(DownloadFailed, match="401 Client Error") as caught:
        sources.fetch("kaggle", data_dir, progress=True)
    told = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    frames = [frame.locals for frame in told.stack if Path(frame.filename).name == "sources.py"]
    assert len(frames) >= 3
    folder = sources.fetch("auto", data_dir, progress=True)
    assert folder == data_dir / "sample"
    output = capfd.readouterr()
    assert "401 Client Error" in output.err
    everything = f"{frames} {caught.value.args} {output} {below(data_dir)}"
    # A part of it would be too much as well.
    for secret in (TOKEN, TOKEN[5:21], urllib.parse.quote(TOKEN, safe="")[10:]):
        assert secret not in everything


def test_refused_without_credentials_says_so(kaggle, data_dir, monkeypatch):
    use_client(
        monkeypatch, "sys.exit('HTTPError: 403 Client Error: Forbidden for url: http://x/y')"
    )
    with pytest.raises(DownloadFailed) as caught:
        sources.fetch("kaggle", data_dir, progress=False)
    reason = "without an account: 403 Client Error: Forbidden; no credentials were found"
    assert reason in str(caught.value)
    assert "accept the terms" in str(caught.value)


def test_client_is_never_asked_to_be_verbose(monkeypatch):
    monkeypatch.setenv("VERBOSE", "1")
    monkeypatch.setenv("VERBOSE_OUTPUT", "true")
    for home in (None, "/nowhere"):
        assert not {"VERBOSE", "VERBOSE_OUTPUT"} & set(sources._environment(home))


# Kaggle's own client, against Kaggle on the loopback interface


def test_real_client_downloads_without_an_account(kaggle, data_dir, capfd):
    folder = sources.fetch("kaggle", data_dir, progress=False)
    assert list(data_dir.iterdir()) == [folder]
    assert sources.verify(folder).source.name == "kaggle"
    assert kaggle.asked == [None]
    assert kaggle.ranges == [None]
    assert capfd.readouterr() == ("", "")


def test_real_client_continues_a_download(kaggle, archive, data_dir):
    data = archive.read_bytes()
    marker = json.dumps({"validator": '"one"', "size": len(data)}).encode()
    write_folder(
        data_dir / ".kaggle-download",
        {"blood-cells.zip": data[:1000], "blood-cells.zip.kaggle-partial": marker},
    )
    folder = sources.fetch("kaggle", data_dir, progress=False)
    assert kaggle.ranges[-1] == "bytes=1000-"
    assert list(data_dir.iterdir()) == [folder]
    assert sources.verify(folder).deviations == ()


def test_real_client_uses_a_token_where_it_must(kaggle, data_dir, monkeypatch):
    kaggle.token = TOKEN
    monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)
    folder = sources.fetch("kaggle", data_dir, progress=False)
    assert kaggle.asked == [None, f"Bearer {TOKEN}"]
    assert TOKEN not in "".join(map(bytes.decode, below(data_dir).values()))
    assert sources.verify(folder).deviations == ()


def test_real_client_with_a_refused_token(kaggle, data_dir, monkeypatch, capfd):
    kaggle.token = "another"
    monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)
    with pytest.raises(DownloadFailed) as caught:
        sources.fetch("kaggle", data_dir, progress=True)
    assert f"Bearer {TOKEN}" in kaggle.asked
    assert "without an account: Unauthenticated: None" in str(caught.value)
    assert "with KAGGLE_API_TOKEN: Unauthenticated: [hidden]" in str(caught.value)
    output = capfd.readouterr()
    assert TOKEN not in str(caught.value) + output.out + output.err
    assert "Authentication required" not in output.out + output.err


# The real archive


@pytest.mark.real_data
def test_real_archive_is_the_published_one(real_folder):
    identity = sources.verify(real_folder)
    published = sources.SOURCES["kaggle"]
    assert identity.source is published
    assert identity.n_images == 12_515
    assert identity.counts.T.to_dict() == published.counts
    assert identity.digest == published.digest
    assert identity.photographs_digest == published.photographs_digest


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
    with pytest.raises(DataMismatch, match=f"1 file is changed: TRAIN/MONOCYTE/{image.name}\\."):
        sources.verify(linked)
