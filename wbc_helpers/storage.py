"""Files read and written, whole or not at all, here and on other machines, with named errors."""

import codecs
import errno
import functools
import hashlib
import itertools
import json
import os
import re
import shutil
import socket
import stat
import tarfile
import tempfile
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

from wbc_helpers.errors import (
    BrokenArchive,
    BrokenRun,
    DataNotFound,
    DownloadFailed,
    FolderGone,
    FolderInUse,
    InvalidParameter,
    NoSpaceLeft,
    PackageMissing,
    ReadOnlyFolder,
    WbcError,
)


def absolute(path: str | Path) -> Path:
    """Make a path that a person gave absolute, `~` for the home folder; it need not exist.

    Raises `InvalidParameter` if no file can have it: it holds NUL, is too long, leads in a circle
    or to an unknown user's home; and `FolderGone`, see `named_errors`.
    """
    try:
        path = Path(path).expanduser().absolute()
        os.stat(path)
    except (OSError, ValueError, RuntimeError) as error:
        if is_gone(error):
            raise gone(error, path) from error
        if not isinstance(error, OSError) or error.errno in (errno.ELOOP, errno.ENAMETOOLONG):
            shown = repr(str(path)[:200])
            raise InvalidParameter(
                f"{shown} is no usable path ({getattr(error, 'strerror', error)}). Expected that "
                "of a file or folder."
            ) from error
    return Path(path)


def check_folder(name: str, value: object, root: Path) -> Path:
    """Make the path of a folder that a person gave absolute; it need not exist.

    `~` stands for the home folder, a relative path is meant from `root`, `name` is the parameter's,
    for the message. Raises `InvalidParameter` if it is no path, or a file stands there.
    """
    if not isinstance(value, str | Path) or not str(value).strip():
        raise InvalidParameter(
            f"{name}={value!r} is no folder. Expected a path, absolute or from the project's."
        )
    given = Path(value)
    folder = absolute(given if str(given).startswith("~") else root / given)
    if folder.exists() and not folder.is_dir():
        raise InvalidParameter(f"{name}={value!r} is a file. Expected a folder, or a new name.")
    return folder


def make_folder(folder: str | Path) -> Path:
    """Make a folder, `~` for the home folder, and those above it; its absolute path.

    Raises `ReadOnlyFolder` or `NoSpaceLeft` if it cannot be made.
    """
    folder = absolute(folder)
    with named_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


_FULL = (errno.ENOSPC, errno.EDQUOT)
_GONE = (errno.ENOTCONN, errno.ESTALE, errno.EHOSTDOWN)
_REFUSED = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR,
    errno.ENAMETOOLONG, errno.ELOOP,
)  # fmt: skip


@contextmanager
def named_errors(target: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write `target` into named errors.

    Raises `NoSpaceLeft` if the disk, or the user's share of it, is full; `ReadOnlyFolder` if there
    is no permission to write, or the file system is read-only; `FolderGone` if a drive is no longer
    there.
    """
    try:
        yield
    except OSError as error:
        # HDF5 tells the number in its text alone.
        told = re.search(r"errno = (\d+)", str(error)) if error.errno is None else None
        number = int(told[1]) if told else error.errno
        if number in _FULL:
            raise NoSpaceLeft(
                f"No space left while writing {target}. Free some space, or choose another "
                "folder with data_dir or runs_dir; what was there before is untouched."
            ) from error
        if number in _GONE:
            raise gone(error, target) from error
        if number in _REFUSED:
            raise ReadOnlyFolder(
                f"Cannot write {target} ({error.strerror}). Choose another folder with data_dir "
                "or runs_dir, or change its permissions."
            ) from error
        raise


def is_gone(error: BaseException) -> bool:
    """Tell whether the system's error says that a drive or network folder is no longer there."""
    return isinstance(error, OSError) and error.errno in _GONE


def gone(error: BaseException, place: object) -> FolderGone:
    """Say that a drive is no longer there, and that nothing is lost."""
    said = getattr(error, "strerror", error)
    return FolderGone(
        f"{place} can no longer be reached ({said}): the drive that it is on has gone away. Mount "
        "it again (on Colab by executing the notebook from its beginning) and run the same cell or "
        "command: what was finished is there, and it goes on from it."
    )


@contextmanager
def atomic_file(target: str | Path, n_bytes: int = 0) -> Iterator[Path]:
    """Write a file under a temporary name and give it its own only when it is complete.

    Yields the temporary file, in the same folder, with the same suffix; `target` is replaced in one
    step if it exists. That there is space for `n_bytes` is tried beforehand; what a killed process
    left in the folder is removed. Raises as `named_errors` does.
    """
    target = Path(target)
    with named_errors(target):
        _sweep_once(target.parent)
        handle, name = tempfile.mkstemp(
            dir=target.parent,
            prefix=f".{target.name.split('.')[0][:40]}.{HOST}-{os.getpid()}-",
            suffix=f".partial{_suffix(target)}",
        )
        os.close(handle)
        partial = Path(name)
        try:
            reserve(partial, n_bytes)
            # mkstemp makes files private; a run folder is shared like any other file.
            umask = os.umask(0)
            os.umask(umask)
            partial.chmod(0o666 & ~umask)
            yield partial
            os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)


def _suffix(target: Path) -> str:
    # Keras goes by the whole suffix: `.weights.h5`.
    return "".join(target.suffixes[-2:]) if target.suffix == ".h5" else target.suffix


def reserve(file: Path, n_bytes: int) -> None:
    """Set bytes of the disk aside for a file, which gets that long if it is shorter.

    To a mapped file the system cannot say that the disk is full: it ends the process. Raises
    OSError if there are not so many.
    """
    own = getattr(file.stat(), "st_blocks", 0) * 512
    if n_bytes > shutil.disk_usage(file.parent).free + own:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with file.open("r+b") as opened:
        try:
            if n_bytes:
                os.posix_fallocate(opened.fileno(), 0, n_bytes)
        except (AttributeError, OSError) as error:  # macOS has no such call, some disks do not
            if isinstance(error, OSError) and error.errno in (*_FULL, errno.EFBIG):
                raise
            for start in range(file.stat().st_size, n_bytes, _CHUNK):
                opened.seek(start)
                opened.write(bytes(min(_CHUNK, n_bytes - start)))


_CHUNK = 2**20
_STALE_SECONDS = 24 * 3600
_PARTIAL_NAME = re.compile(r"\..+\.([0-9a-f]{8})-(\d+)(-\w+)?\.partial(\.\S+)?")
HOST = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]
"""Stands for this machine in the names of what is not complete yet."""


def sweep(folder: Path) -> None:
    """Remove what `atomic_file` and `atomic_folder` left in a folder when they were killed."""
    for entry in folder.iterdir():
        match = _PARTIAL_NAME.fullmatch(entry.name)
        if match and not _is_being_filled(entry, match[1], int(match[2])):
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)


@functools.cache
def _sweep_once(folder: Path) -> None:
    with suppress(OSError):  # as a folder that may not be listed
        sweep(folder)


def _is_being_filled(partial: Path, host: str, process: int) -> bool:
    # On another machine (a shared disk), or where asking for a process could end it (Windows),
    # only the time tells.
    if host != HOST or os.name == "nt":
        return time.time() - partial.stat().st_mtime < _STALE_SECONDS
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


_HELD: set[Path] = set()


@contextmanager
def only_one(folder: str | Path) -> Iterator[None]:
    """Keep other processes from writing into a folder meanwhile; within one process it nests.

    The system lets go of it when a process ends, however it does. Where it has no locks, nothing is
    kept. Raises `FolderInUse` if another process is at work there.
    """
    folder = Path(folder).resolve()
    if fcntl is None or folder in _HELD:
        yield
        return
    with named_errors(folder):
        handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FolderInUse(
                f"Another process is writing into {folder}. Nothing was changed: wait until it is "
                "done, then run the same command again, or give another folder or name."
            ) from error
        except OSError:
            pass  # some network drives have no locks
        _HELD.add(folder)
        yield
    finally:
        _HELD.discard(folder)
        os.close(handle)


def write_text(target: str | Path, text: str) -> None:
    """Write a text file atomically, as UTF-8."""
    with atomic_file(target) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(target: str | Path, content: Any) -> None:
    """Write a JSON file atomically, indented for people to read."""
    write_text(target, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


_OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    """Write what a terminal would obey, such as a colour or a turned line, as its code."""
    return _OBEYED.sub(lambda match: ascii(match[0])[1:-1], text)


def plain(name: str) -> str:
    r"""Write the name of a file for a table or a terminal: no program runs what it holds.

    Excel takes `=`, `+`, `-` and `@` at the beginning for a formula; with `./` before it, the path
    of the same file is none.

    Examples
    --------
    >>> plain("slide 1.jpg"), plain("=1+1.jpg"), plain("\x1b[2Jred.jpg")
    ('slide 1.jpg', './=1+1.jpg', '\\x1b[2Jred.jpg')
    """
    name = visible(name).replace("\n", r"\n").replace("\t", r"\t")
    return f"./{name}" if name.startswith(("=", "+", "-", "@")) else name


# Reading what others wrote


def check_regular(path: str | Path) -> None:
    """Raise OSError unless this is a file: a pipe would be waited for, a device never ends."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "it is a folder, pipe or device, not a file", str(path))


def read_text(path: str | Path) -> str:
    """Read a text as programs save it: in UTF-8, in UTF-16 with its mark, or in Windows' Latin.

    Raises OSError if it cannot be read or is longer than `LONGEST_TEXT`, UnicodeError if it is no
    text.
    """
    check_regular(path)
    if os.stat(path).st_size > LONGEST_TEXT:
        raise OSError(errno.EFBIG, f"it holds more than {LONGEST_TEXT:,} bytes", str(path))
    content = Path(path).read_bytes()
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        if b"\0" in content:
            raise
        return content.decode("cp1252")


LONGEST_TEXT = 2**28
"""Bytes of the longest text or record that is read."""


def read_json(path: str | Path) -> dict[str, Any]:
    """Read a JSON file that holds a record.

    Raises FileNotFoundError if there is none, ValueError if it is damaged or no record, and
    `FolderGone`.
    """
    try:
        content = json.loads(read_text(path), parse_int=_whole)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except OSError as error:
        if is_gone(error):
            raise gone(error, path) from error
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(error.strerror) from error
    if not isinstance(content, dict):
        raise ValueError(f"it holds {type(content).__name__}, not a record")
    return content


def _whole(digits: str) -> int:
    if len(digits) > 300:  # more than a float holds
        raise ValueError(f"it holds a number of {len(digits):,} digits")
    return int(digits)


class _Record(dict):
    """A record that says which file lacks what was asked for."""

    def __init__(self, content: dict[str, Any], path: Path, hint: str) -> None:
        super().__init__(
            (key, _Record(value, path, hint) if isinstance(value, dict) else value)
            for key, value in content.items()
        )
        self.path, self.hint = path, hint

    def __missing__(self, key: str) -> Any:
        raise BrokenRun(f"{self.path} is damaged or half written: it has no {key!r}. {self.hint}")


def read_record(path: str | Path, hint: str) -> dict[str, Any]:
    """Read a JSON file that a run left; what it lacks is named, too, when it is asked for.

    Raises FileNotFoundError if there is none; `BrokenRun`, with `hint`, if it is damaged; and
    `FolderGone`.
    """
    try:
        return _Record(read_json(path), Path(path), hint)
    except ValueError as error:
        raise BrokenRun(f"{path} is damaged or half written ({error}). {hint}") from error


def walk(
    folder: str | Path,
    unreadable: Callable[[OSError], None],
    skip: Callable[[str], bool] = lambda name: False,
) -> Iterator[Path]:
    """Yield all files below a folder, those that links lead to, too; but of no link back up.

    `unreadable` is called for a folder that may not be listed; the others follow. Of what `skip` is
    true, by its name, nothing is looked at.
    """
    linked: set[tuple[int, int]] = set()
    for place, subfolders, files in os.walk(folder, followlinks=True, onerror=unreadable):
        walked = []
        for name in sorted(itertools.filterfalse(skip, subfolders)):
            path = os.path.join(place, name)
            if os.path.islink(path):
                target, above = _identity(path), map(_identity, [Path(place), *Path(place).parents])
                if target in linked or target in above:
                    continue
                linked.add(target)
            walked.append(name)
        subfolders[:] = walked
        yield from (Path(place, name) for name in sorted(itertools.filterfalse(skip, files)))


def _identity(path: str | Path) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


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
    file: str

    def __new__(cls, address: str, file: str = "") -> "Elsewhere":
        """Name a folder by its address, or a file in it."""
        place = super().__new__(cls, f"{address.rstrip('/')}/{file}" if file else address)
        place.address, place.file = address, file
        return place

    @property
    def name(self) -> str:
        """The last part, as a path's."""
        return PurePosixPath(self).name

    def __reduce__(self) -> tuple[Any, ...]:
        """Tell by what it is made again when it is unpickled."""
        return Elsewhere, (self.address, self.file)

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
            return opened.stamps.get(self.file) or _stamp(opened.system.info(opened.path(self)))

    @contextmanager
    def at_hand(self) -> Iterator[Path]:
        """Bring the file to this disk for as long as the block runs; raises as `files` does."""
        with tempfile.TemporaryDirectory() as folder:
            local = Path(folder, f"file{PurePosixPath(self.file).suffix[:8]}")
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
        local = absolute(text)
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

    def path(self, place: Elsewhere) -> str:
        return f"{self.root.rstrip('/')}/{place.file}" if self.root else place.file


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
