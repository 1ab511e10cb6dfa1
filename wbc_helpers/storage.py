"""Files written whole or not at all, files of other machines read; errors that say what to do."""

import errno
import functools
import json
import os
import re
import shutil
import tarfile
import tempfile
import threading
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from wbc_helpers.errors import (
    BrokenArchive,
    DataNotFound,
    DownloadFailed,
    InvalidParameter,
    NoSpaceLeft,
    PackageMissing,
    ReadOnlyFolder,
    WbcError,
)


def make_folder(folder: str | Path) -> Path:
    """Make a folder, `~` for the home folder, and those above it; its absolute path.

    Raises `ReadOnlyFolder` or `NoSpaceLeft` if it cannot be made.
    """
    folder = Path(folder).expanduser().absolute()
    with named_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def named_errors(target: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write `target` into named errors.

    Raises `NoSpaceLeft` if the disk, or the user's share of it, is full; `ReadOnlyFolder` if there
    is no permission to write, or the file system is read-only.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpaceLeft(
                f"No space left while writing {target}. Free some space, or choose another "
                "folder with data_dir or runs_dir; what was there before is untouched."
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise ReadOnlyFolder(
                f"Cannot write {target} ({error.strerror}). Choose another folder with data_dir "
                "or runs_dir, or change its permissions."
            ) from error
        raise


@contextmanager
def atomic_file(target: str | Path, n_bytes: int = 0) -> Iterator[Path]:
    """Write a file under a temporary name and give it its own only when it is complete.

    Yields the temporary file, in the same folder, with the same suffix; `target` is replaced in one
    step if it exists. That `n_bytes` are free is checked beforehand. Raises as `named_errors` does.
    """
    target = Path(target)
    with named_errors(target):
        free = shutil.disk_usage(target.parent).free
        if n_bytes > free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        handle, partial = tempfile.mkstemp(
            dir=target.parent, prefix=f".{target.name.split('.')[0]}-", suffix=_suffix(target)
        )
        os.close(handle)
        # mkstemp makes files private; a run folder is shared like any other file.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(partial, 0o666 & ~umask)
        try:
            yield Path(partial)
            os.replace(partial, target)
        finally:
            Path(partial).unlink(missing_ok=True)


def _suffix(target: Path) -> str:
    # Keras goes by the whole suffix: `.weights.h5`.
    return "".join(target.suffixes[-2:]) if target.suffix == ".h5" else target.suffix


def write_text(target: str | Path, text: str) -> None:
    """Write a text file atomically, as UTF-8."""
    with atomic_file(target) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(target: str | Path, content: Any) -> None:
    """Write a JSON file atomically, indented for people to read."""
    write_text(target, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


# Files that lie on no disk of this machine, or in an archive


MOST_BYTES = 512 * 2**20
"""Of a file that is brought here; a larger one is no photograph."""

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://.")
_ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz")


class Elsewhere(str):
    """A folder behind an address of fsspec's, or in an archive; or one of its files.

    As text it is its own address, which holds no secret. `Elsewhere / name` is the file of that
    `name`, a path from the folder on.
    """

    address: str
    name: str

    def __new__(cls, address: str, name: str = "") -> "Elsewhere":
        """Name a folder by its address, or a file in it."""
        place = super().__new__(cls, f"{address.rstrip('/')}/{name}" if name else address)
        place.address, place.name = address, name
        return place

    def __reduce__(self) -> tuple[Any, ...]:
        """Tell by what it is made again when it is unpickled."""
        return Elsewhere, (self.address, self.name)

    def __truediv__(self, name: str) -> "Elsewhere":
        """Name a file of the folder."""
        return Elsewhere(self.address, name)

    def files(self) -> list[str]:
        """List the files of the folder and of those in it, sorted.

        Raises `PackageMissing` if the package for such addresses is not installed, `DataNotFound`
        if there is no such place, `DownloadFailed` if it cannot be reached or read, and
        `BrokenArchive`.
        """
        with _reaching(self):
            opened = _opened(self.address)
            opened.system.invalidate_cache()
            start = len(opened.root.strip("/"))
            opened.stamps.clear()
            for path, info in opened.system.find(opened.root, detail=True).items():
                name = path.strip("/")[start:].strip("/")
                # A name that leads elsewhere is an archive's mistake, or meant to harm.
                if name and ".." not in PurePosixPath(name).parts:
                    opened.stamps[name] = _stamp(info)
        return sorted(opened.stamps)

    def stamp(self) -> list[Any]:
        """Tell what changes with the file: its size, and what the place says of its version.

        Raises as `files` does.
        """
        with _reaching(self):
            opened = _opened(self.address)
            return opened.stamps.get(self.name) or _stamp(opened.system.info(opened.path(self)))

    @contextmanager
    def at_hand(self) -> Iterator[Path]:
        """Bring the file to this disk for as long as the block runs; raises as `files` does."""
        with tempfile.TemporaryDirectory() as folder:
            local = Path(folder, f"file{PurePosixPath(self.name).suffix[:8]}")
            with _reaching(self):
                opened = _opened(self.address)
                if (n_bytes := self.stamp()[0] or 0) > MOST_BYTES:
                    raise DownloadFailed(
                        f"{self} has {n_bytes:,} bytes, more than the {MOST_BYTES:,} that are read."
                    )
                opened.system.get_file(opened.path(self), str(local))
            yield local


def elsewhere(path: str | Path) -> Elsewhere | None:
    """Name the place that a path means if it is an address or an archive; None of other paths.

    Raises `InvalidParameter` if the address holds a password, a key or a token: those are taken
    from where the storage's own tools find them.
    """
    text = os.fspath(path)
    if not _ADDRESS.match(text):
        local = Path(text).expanduser().absolute()
        is_archive = local.suffix.lower() in _ARCHIVES and local.is_file()
        return Elsewhere(str(local)) if is_archive else None
    if "@" in text or "?" in text:
        raise InvalidParameter(
            "The address of the photographs holds a user's name, a key or options. Expected one "
            "such as s3://bucket/folder; keys belong into the environment, or where the storage's "
            "own tools look for them."
        )
    return Elsewhere(text)


@dataclass(frozen=True, eq=False)
class _Opened:
    """A file system of fsspec's kind, the folder in it, and stamps of the files that it listed."""

    system: Any
    root: str
    stamps: dict[str, list[Any]]

    def path(self, file: Elsewhere) -> str:
        return f"{self.root.rstrip('/')}/{file.name}" if self.root else file.name


def _opened(address: str) -> _Opened:
    """Open a place; one that is open, and has not changed on this disk, is opened once."""
    is_local = not _ADDRESS.match(address)
    status = os.stat(address) if is_local else None
    return _open(address, (status.st_size, status.st_mtime_ns) if status else None)


@functools.lru_cache(4)
def _open(address: str, version: tuple[int, int] | None) -> _Opened:
    is_archive = PurePosixPath(address).suffix.lower() in _ARCHIVES
    if version:
        return _Opened(_Archive(open(address, "rb")), "", {})
    import fsspec

    if is_archive:
        return _Opened(_Archive(fsspec.open(address).open()), "", {})
    system, root = fsspec.url_to_fs(address)
    return _Opened(system, root, {})


class _Archive:
    """What is used of a file system of fsspec's, for the files of a zip or tar file."""

    def __init__(self, stream: Any):
        self.alone = threading.Lock()  # they are all read through one stream
        self.archive: Any
        if zipfile.is_zipfile(stream):
            self.archive = zipfile.ZipFile(stream)
            members = [m for m in self.archive.infolist() if not m.is_dir()]
            listed = [(m.filename, {"size": m.file_size, "CRC": m.CRC}) for m in members]
        else:
            stream.seek(0)
            self.archive = tarfile.open(fileobj=stream)  # noqa: SIM115 (it stays open)
            members = [m for m in self.archive if m.isfile()]
            listed = [(m.name, {"size": m.size, "mtime": m.mtime}) for m in members]
        # `./a.png` and `/a.png` are a.png.
        names = [str(PurePosixPath(name)).lstrip("/") for name, _ in listed]
        self.members = dict(zip(names, members, strict=True))
        self.infos = {name: info for name, (_, info) in zip(names, listed, strict=True)}

    def invalidate_cache(self) -> None:
        pass

    def find(self, root: str, detail: bool) -> dict[str, dict[str, Any]]:
        return self.infos

    def info(self, name: str) -> dict[str, Any]:
        if name not in self.infos:
            raise FileNotFoundError(name)
        return self.infos[name]

    def get_file(self, name: str, local: str) -> None:
        is_zip = isinstance(self.archive, zipfile.ZipFile)
        read = self.archive.open if is_zip else self.archive.extractfile
        with self.alone, read(self.members[name]) as content, open(local, "wb") as file:
            shutil.copyfileobj(content, file)


def _stamp(info: dict[str, Any]) -> list[Any]:
    """Choose from what a file system says of a file: its size, and the first that tells versions.

    They come back from JSON as they are.
    """
    versions = (info.get(key) for key in ("ETag", "etag", "md5Hash", "CRC", "mtime", "created"))
    return [info.get("size"), str(next((version for version in versions if version), ""))]


@contextmanager
def _reaching(place: Elsewhere) -> Iterator[None]:
    """Turn whatever a storage answers into named errors.

    Its own words are left out: they may hold a key.
    """
    try:
        yield
    except WbcError:
        raise
    except ImportError as error:
        needed = getattr(error, "name", None) or str(error)
        raise PackageMissing(
            f"Reading {place} takes a package that is not installed here ({needed}). Install "
            "fsspec with: pip install '.[cluster]'; for s3:// also s3fs, for gs:// gcsfs."
        ) from None
    except FileNotFoundError:
        raise DataNotFound(f"There is no {place}. Expected a folder of photographs.") from None
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError) as error:
        raise BrokenArchive(
            f"{place} is cut off, damaged or no archive ({error}). Expected a whole zip or tar "
            "file; fetch it again."
        ) from error
    except Exception as error:  # each storage has errors of its own
        raise DownloadFailed(
            f"{place} cannot be read ({type(error).__name__}). Expected a place that the storage's "
            "own tools can read from here; look at its address, the network, and the keys in the "
            "environment."
        ) from None
