"""Unpacking: what is good comes out byte for byte, what is bad is refused before it is written."""

import errno
import gzip
import os
import stat
import struct
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import pytest
from written_files import below, write_tar, write_zip

from wbc_helpers import storage
from wbc_helpers.data import archives
from wbc_helpers.errors import (
    BrokenArchive,
    DataNotFound,
    NoSpaceLeft,
    ReadOnlyFolder,
    UnsafeArchive,
)

CONTENT = {
    "images/TRAIN/EOSINOPHIL/_0_1.jpeg": os.urandom(3000),
    "images/TRAIN/NEUTROPHIL/_3_2.jpeg": b"",
    "labels.csv": b"Image,Category\n" * 40,
}
UNSAFE_NAMES = [
    "../outside.txt",
    "images/../../outside.txt",
    "/tmp/outside.txt",
    "//server/outside.txt",
    "\\outside.txt",
    "..\\outside.txt",
    "C:\\outside.txt",
    "C:outside.txt",
    "line\nfeed.txt",
    "n" * 256,
]


def write_deflated(path, files):
    return write_zip(path, files, zipfile.ZIP_DEFLATED)


WRITERS = {"cells.zip": write_deflated, "cells.tar.gz": write_tar}


@pytest.fixture(params=WRITERS)
def archive(request, tmp_path):
    """A good archive of either kind."""
    return WRITERS[request.param](tmp_path / request.param, CONTENT)


def refused(error, archive, match=None):
    """Unpacking raises, and neither the folder nor anything beside it appears."""
    before = below(archive.parent)
    for call in (archives.inspect, lambda path: archives.unpack(path, path.parent / "out", False)):
        with pytest.raises(error, match=match) as caught:
            call(archive)
        assert archive.name in str(caught.value)
    assert below(archive.parent) == before
    assert not (archive.parent / "out").exists()
    assert not Path("/tmp/outside.txt").exists()


def test_unpacks_byte_for_byte(archive, tmp_path, capfd):
    assert archives.unpack(archive, tmp_path / "out", progress=False) == 3
    assert below(tmp_path / "out") == CONTENT
    assert capfd.readouterr() == ("", "")


def test_shows_progress(archive, tmp_path, capfd):
    archives.unpack(archive, tmp_path / "out", progress=True)
    assert "unpacking: 100%" in capfd.readouterr().err


def test_kind_is_told_by_content(tmp_path):
    misnamed = write_tar(tmp_path / "cells.zip", CONTENT)
    archives.unpack(misnamed, tmp_path / "out", progress=False)
    assert below(tmp_path / "out") == CONTENT


def test_inspect_lists_and_writes_nothing(archive, tmp_path):
    members = archives.inspect(archive)
    assert {member.name: member.n_bytes for member in members} == {
        name: len(data) for name, data in CONTENT.items()
    }
    assert list(tmp_path.iterdir()) == [archive]


@pytest.mark.parametrize("writer", [write_zip, write_tar])
def test_folders_backslashes_and_dots_in_names(writer, tmp_path):
    content = {"./a/./b.txt": b"1", "c\\d.txt": b"2", "... odd ..name": b"3"}
    archives.unpack(writer(tmp_path / "odd", content), tmp_path / "out", progress=False)
    assert below(tmp_path / "out") == {
        "a/b.txt": b"1",
        "c/d.txt": b"2",
        "... odd ..name": b"3",
    }


def test_empty_folders_are_kept(tmp_path):
    with zipfile.ZipFile(tmp_path / "cells.zip", "w") as archive:
        archive.writestr("TRAIN/MONOCYTE/", "")
    assert archives.unpack(tmp_path / "cells.zip", tmp_path / "out", progress=False) == 0
    assert (tmp_path / "out/TRAIN/MONOCYTE").is_dir()


@pytest.mark.parametrize("name", UNSAFE_NAMES)
@pytest.mark.parametrize("kind", WRITERS)
def test_names_that_lead_outside(kind, name, tmp_path):
    refused(UnsafeArchive, WRITERS[kind](tmp_path / kind, {**CONTENT, name: b"harm"}))


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_in_a_zip(kind, tmp_path):
    link = zipfile.ZipInfo("link")
    link.external_attr = (kind | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "cells.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    refused(UnsafeArchive, tmp_path / "cells.zip", "'link' is a link")


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE]
)
def test_links_and_devices_in_a_tar(kind, tmp_path):
    bad = write_tar(tmp_path / "cells.tgz", {"link": b""}, type=kind, linkname="/etc/passwd")
    refused(UnsafeArchive, bad, "'link' is a link")


def test_encrypted_member(tmp_path):
    bad = write_zip(tmp_path / "cells.zip", {"secret.jpeg": b"1234"})
    data = bytearray(bad.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    data[6] |= 1
    bad.write_bytes(data)
    refused(UnsafeArchive, bad, "encrypted")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("names", [("a.txt", "a.txt"), ("a.txt", "A.TXT"), ("a.txt", "./a.txt")])
def test_members_that_overwrite_one_another(names, tmp_path):
    with zipfile.ZipFile(tmp_path / "cells.zip", "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    refused(UnsafeArchive, tmp_path / "cells.zip", "written twice")


@pytest.mark.parametrize("kind", WRITERS)
def test_file_and_folder_of_one_name(kind, tmp_path):
    bad = WRITERS[kind](tmp_path / kind, {"a": b"x", "a/b": b"y"})
    refused(UnsafeArchive, bad, "file and a folder")


@pytest.mark.parametrize("kind", WRITERS)
def test_too_many_members(kind, tmp_path, monkeypatch):
    good = WRITERS[kind](tmp_path / kind, CONTENT)
    monkeypatch.setattr(archives, "MAX_MEMBERS", 3)
    assert len(archives.inspect(good)) == 3
    monkeypatch.setattr(archives, "MAX_MEMBERS", 2)
    refused(UnsafeArchive, good, "more than 2 files")


@pytest.mark.parametrize("kind", WRITERS)
def test_too_large_in_all(kind, tmp_path, monkeypatch):
    good = WRITERS[kind](tmp_path / kind, CONTENT)
    monkeypatch.setattr(archives, "MAX_BYTES", 3500)
    refused(UnsafeArchive, good, "unpacks to more than")


def test_bomb_with_the_limits_as_they_are(tmp_path):
    bomb = write_deflated(tmp_path / "cells.zip", {"zeros": bytes(archives.RATIO_COUNTS_FROM + 1)})
    assert bomb.stat().st_size < 200_000
    refused(UnsafeArchive, bomb, "50 times its size")


def test_bomb_in_a_tar_is_not_unpacked_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "RATIO_COUNTS_FROM", 2**20)
    bomb = write_tar(tmp_path / "cells.tgz", {"zeros": bytes(8 * 2**20), "more": bytes(2**20)})
    followed = []
    read = archives._BoundedStream.read

    def recording(stream, n_bytes):
        data = read(stream, n_bytes)
        followed.append(stream.tell())
        return data

    monkeypatch.setattr(archives._BoundedStream, "read", recording)
    refused(UnsafeArchive, bomb, "50 times its size")
    assert max(followed) < 2**20


def test_huge_header_in_a_tar(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "_LARGEST_TAR_HEADER", 2**19)
    bad = write_tar(tmp_path / "cells.tgz", {"x": b""}, pax_headers={"comment": "c" * 2**20})
    refused(UnsafeArchive, bad, "header")


def test_size_that_lies_writes_no_more_than_it_says(tmp_path):
    bad = write_deflated(tmp_path / "cells.zip", {"zeros": bytes(10**6)})
    data = bytearray(bad.read_bytes())
    struct.pack_into("<I", data, data.index(b"PK\x01\x02") + 24, 100)
    bad.write_bytes(data)
    with pytest.raises(BrokenArchive, match="zeros"):
        archives.unpack(bad, tmp_path / "out", progress=False)
    assert (tmp_path / "out/zeros").stat().st_size <= 100


@pytest.mark.parametrize("part", [0.0, 0.002, 0.3, 0.6, 0.99])
def test_truncated(archive, part):
    data = archive.read_bytes()
    archive.write_bytes(data[: int(part * len(data))])
    refused(BrokenArchive, archive, "empty" if part == 0 else "cut off or damaged")


def test_one_byte_short(archive):
    archive.write_bytes(archive.read_bytes()[:-1])
    refused(BrokenArchive, archive, "download it again")


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"<!DOCTYPE html><title>Log in</title>", "a web page"),
        (b"not an archive at all", "not a zip, tar or tar.gz"),
        (b"\x1f\x8b" + bytes(40), "damaged"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "not a zip, tar or tar.gz"),
    ],
)
def test_what_is_no_archive(data, what, tmp_path):
    (tmp_path / "cells.zip").write_bytes(data)
    refused(BrokenArchive, tmp_path / "cells.zip", what)


def test_no_such_archive(tmp_path):
    for missing in (tmp_path / "cells.zip", tmp_path):
        with pytest.raises(DataNotFound, match="There is no archive"):
            archives.unpack(missing, tmp_path / "out", progress=False)


def test_flipped_byte_names_the_member(tmp_path):
    bad = write_zip(tmp_path / "cells.zip", CONTENT, zipfile.ZIP_STORED)
    data = bytearray(bad.read_bytes())
    data[data.index(CONTENT["images/TRAIN/EOSINOPHIL/_0_1.jpeg"]) + 100] ^= 1
    bad.write_bytes(data)
    with pytest.raises(BrokenArchive, match=r"_0_1\.jpeg cannot be read.*CRC"):
        archives.unpack(bad, tmp_path / "out", progress=False)


def test_flipped_byte_in_a_tar_is_found_before_writing(tmp_path):
    bad = write_tar(tmp_path / "cells.tgz", CONTENT)
    data = bytearray(bad.read_bytes())
    data[len(data) // 2] ^= 1
    bad.write_bytes(data)
    refused(BrokenArchive, bad, "damaged")


def test_damaged_header_in_a_sound_gzip(tmp_path):
    good = gzip.decompress(write_tar(tmp_path / "cells.tgz", CONTENT).read_bytes())
    position = good.index(b"labels.csv")
    (tmp_path / "cells.tgz").write_bytes(
        gzip.compress(good[:position] + b"?" + good[position + 1 :])
    )
    refused(BrokenArchive, tmp_path / "cells.tgz", "its end is missing")
    (tmp_path / "cells.tgz").write_bytes(gzip.compress(good[:position]))
    refused(BrokenArchive, tmp_path / "cells.tgz", "its end is missing")


def test_wrong_position_of_a_member(tmp_path):
    bad = write_zip(tmp_path / "cells.zip", {"a.jpeg": b"1234"})
    data = bytearray(bad.read_bytes())
    struct.pack_into("<I", data, data.index(b"PK\x05\x06") + 16, 2**31)
    bad.write_bytes(data)
    with pytest.raises(BrokenArchive, match=r"a\.jpeg cannot be read"):
        archives.unpack(bad, tmp_path / "out", progress=False)


def test_method_that_python_does_not_know(tmp_path):
    bad = write_zip(tmp_path / "cells.zip", {"a.jpeg": b"1234"})
    data = bytearray(bad.read_bytes())
    data[data.index(b"PK\x01\x02") + 10] = data[8] = 9
    bad.write_bytes(data)
    with pytest.raises(BrokenArchive, match=r"a\.jpeg cannot be read"):
        archives.unpack(bad, tmp_path / "out", progress=False)


def test_no_space_is_known_beforehand(archive, tmp_path, monkeypatch):
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda path: type("", (), {"free": 3000}))
    with pytest.raises(NoSpaceLeft, match="0 MB are free"):
        archives.unpack(archive, tmp_path / "deep/out", progress=False)
    assert list(tmp_path.iterdir()) == [archive]


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (errno.ENOSPC, NoSpaceLeft),
        (errno.EDQUOT, NoSpaceLeft),
        (errno.EROFS, ReadOnlyFolder),
        (errno.EACCES, ReadOnlyFolder),
    ],
)
def test_refusals_of_the_disk_while_writing(code, error, archive, tmp_path, monkeypatch):
    written = []

    def content(*arguments):
        if written:
            raise OSError(code, os.strerror(code))
        written.append(arguments)
        yield b"first"

    monkeypatch.setattr(archives, "_content", content)
    with (
        pytest.raises(error, match=r"out|target"),
        archives.atomic_folder(tmp_path / "target") as partial,
    ):
        archives.unpack(archive, partial, progress=False)
    assert written
    assert list(tmp_path.iterdir()) == [archive]


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES])
def test_folder_that_cannot_be_made(code, archive, tmp_path, monkeypatch):
    def refuse(path, *_, **__):
        raise OSError(code, os.strerror(code), str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(ReadOnlyFolder, match="data_dir"):
        archives.unpack(archive, tmp_path / "out", progress=False)
    with pytest.raises(ReadOnlyFolder), archives.atomic_folder(tmp_path / "target"):
        pass
    assert list(tmp_path.iterdir()) == [archive]


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only to root")
def test_read_only_folder(archive, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(ReadOnlyFolder):
        archives.unpack(archive, tmp_path / "locked/out", progress=False)


def test_folder_with_something_in_it(archive, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("mine")
    with pytest.raises(ReadOnlyFolder, match="not empty"):
        archives.unpack(archive, tmp_path / "out", progress=False)
    assert below(tmp_path / "out") == {"mine.txt": b"mine"}


# The atomic folder


def test_atomic_folder_appears_when_complete(tmp_path):
    with archives.atomic_folder(tmp_path / "deep/target") as partial:
        (partial / "a.txt").write_text("a")
        assert not (tmp_path / "deep/target").exists()
        assert partial.parent == tmp_path / "deep"
    assert below(tmp_path) == {"deep/target/a.txt": b"a"}


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_atomic_folder_vanishes_when_interrupted(error, tmp_path):
    with pytest.raises(error), archives.atomic_folder(tmp_path / "target") as partial:
        (partial / "a.txt").write_text("a")
        raise error
    assert list(tmp_path.iterdir()) == []


def test_atomic_folder_overwrites_nothing(tmp_path):
    (tmp_path / "target").mkdir()
    (tmp_path / "target/mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine too")
    for target in ("target", "file"):
        with pytest.raises(ReadOnlyFolder), archives.atomic_folder(tmp_path / target):
            pytest.fail("nothing may be filled")
    assert below(tmp_path) == {"target/mine.txt": b"mine", "file": b"mine too"}


def test_atomic_folder_takes_an_empty_folder(tmp_path):
    (tmp_path / "target").mkdir()
    with archives.atomic_folder(tmp_path / "target") as partial:
        (partial / "a.txt").write_text("a")
    assert below(tmp_path) == {"target/a.txt": b"a"}


def test_atomic_folder_loses_a_race_without_harm(tmp_path):
    with pytest.raises(ReadOnlyFolder), archives.atomic_folder(tmp_path / "target") as partial:
        (partial / "a.txt").write_text("mine")
        (tmp_path / "target").mkdir()
        (tmp_path / "target/a.txt").write_text("theirs")
    assert below(tmp_path) == {"target/a.txt": b"theirs"}


def test_leftovers_of_a_dead_process_are_removed(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    day_ago = time.time() - 25 * 3600
    names = {
        f".target.{storage.HOST}-{dead.pid}.partial": False,
        f".other.{storage.HOST}-{dead.pid}.partial": False,
        f".target.{storage.HOST}-{os.getppid()}.partial": True,
        ".target.01234567-1.partial": True,
        ".target.76543210-1.partial": False,
        ".target.partial": True,
        "mine.partial": True,
    }
    for name in names:
        (tmp_path / name).mkdir()
    os.utime(tmp_path / ".target.76543210-1.partial", (day_ago, day_ago))
    with archives.atomic_folder(tmp_path / "target"):
        pass
    assert {name: (tmp_path / name).exists() for name in names} == names
