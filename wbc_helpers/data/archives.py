"""Archives (zip, tar, tar.gz), each downloaded and unpacked once, whole and safely or not at all.

Everything that an archive says about itself is checked before the first byte is written: a data
set comes from the internet, and a name or a size in it may be wrong or meant to harm. `tarfile`'s
own `data` filter is asked member by member, when others are on the disk already; it mends names
instead of refusing them, and knows nothing of sizes and duplicates.
"""

import contextlib
import errno
import gzip
import hashlib
import http.client
import importlib.util
import json
import lzma
import os
import re
import shutil
import site
import ssl
import stat
import struct
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, cast

import requests
from tqdm import tqdm

from wbc_helpers import storage
from wbc_helpers.errors import (
    BrokenArchive,
    DataMismatch,
    DataNotFound,
    DownloadFailed,
    NoSpaceLeft,
    ReadOnlyFolder,
    UnsafeArchive,
    WbcError,
    is_whole,
)

MARKER = ".fetched.json"
"""File in a fetched folder that says what it was unpacked from."""

_ARCHIVE_SUFFIX = re.compile(r"\.(zip|tgz|tar|tar\.gz)$", re.IGNORECASE)


def unpack_once(
    archive: Path,
    data_dir: Path,
    origin: str,
    is_wanted: Callable[[list[str]], bool],
    wanted: str,
    progress: bool = True,
) -> Path:
    """Unpack an archive below a folder, unless that was done before; give back the folder.

    A folder named like the archive is made in `data_dir`, itself made if needed; if something else
    has that name, digits of the archive's SHA-256 are added. `origin`, the source's name, is noted
    in it; `local` if the archive came from the user. `is_wanted` tells from the paths of an
    archive's files and folders, each with `/` at both ends, whether it holds the data; `wanted` is
    what these look like, for the message.

    Raises `DataNotFound`, with nothing unpacked, if the archive does not hold the data, and as
    `unpack`.
    """
    stamp = archive.stat()
    facts = {"name": archive.name, "size": stamp.st_size, "mtime_ns": stamp.st_mtime_ns}
    earlier = {folder: read_marker(folder)["archive"] for folder in fetched_folders(data_dir)}
    for folder, unpacked in earlier.items():
        if facts.items() <= unpacked.items():
            return folder
    with archive.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    for folder, unpacked in earlier.items():
        if unpacked.get("sha256") == digest:
            if origin != "local":
                storage.write_json(folder / MARKER, {**read_marker(folder), "source": origin})
            return folder
    if not holds(archive, is_wanted):
        raise DataNotFound(f"{archive} holds no {wanted}; nothing was unpacked.")
    stem = _ARCHIVE_SUFFIX.sub("", archive.name) or "archive"
    names = (stem, f"{stem}-{digest[:8]}", f"{stem}-{digest}")
    target = next(filter(is_free, map(data_dir.joinpath, names)), data_dir / stem)
    try:
        with atomic_folder(target) as partial:
            n_files = unpack(archive, partial, progress)
            storage.write_json(
                partial / MARKER,
                {
                    "format": 1,
                    "source": origin,
                    "archive": facts | {"sha256": digest},
                    "n_files": n_files,
                    "finished": datetime.now(UTC).isoformat(timespec="seconds"),
                },
            )
    except ReadOnlyFolder:
        # Another process may have unpacked the same archive in the meantime.
        if read_marker(target).get("archive") != facts | {"sha256": digest}:
            raise
    return target


def holds(archive: Path, is_wanted: Callable[[list[str]], bool]) -> bool:
    """Tell whether an archive holds the data that are looked for, see `unpack_once`."""
    return is_wanted([f"/{member.name}/" for member in inspect(archive)])


def fetched_folders(data_dir: Path) -> list[Path]:
    """List the folders in `data_dir` that archives were unpacked into."""
    if not data_dir.is_dir():
        return []
    return [folder for folder in sorted(data_dir.iterdir()) if read_marker(folder)]


def read_marker(folder: Path) -> dict[str, Any]:
    """Read what was noted when the folder was fetched; empty if it was not fetched."""
    try:
        marker = storage.read_json(folder / MARKER)
    except (OSError, ValueError):
        return {}
    known = marker.get("format") == 1 and isinstance(marker.get("archive"), dict)
    return marker if known and is_whole(marker.get("n_files"), 1) else {}


def source_of(folder: Path) -> str:
    """Name of the source that a folder was fetched from, whatever is in it by now; or nothing."""
    return read_marker(folder).get("source", "")


def require_whole(folder: Path) -> Path:
    """Give back the folder; one that was fetched and lost files since raises `DataMismatch`."""
    marker = read_marker(folder)
    n_files = sum(len(files) for _, _, files in os.walk(folder)) - 1
    if marker and n_files < marker["n_files"]:
        raise DataMismatch(
            f"{folder} holds {n_files:,} of the {marker['n_files']:,} files that were unpacked "
            "there; the others were removed since. Move the folder away and fetch again."
        )
    return folder


MAX_MEMBERS = 200_000
"""Most files and folders in an archive; the blood-cells archive holds 13,226."""

MAX_BYTES = 8 * 2**30
"""Most bytes that an archive may unpack to; the blood-cells archive unpacks to 114 MB."""

MAX_RATIO = 50
"""Most bytes out for each byte in. JPEG files give about 1, tables of text up to 20, bombs 1000."""

RATIO_COUNTS_FROM = 100 * 2**20
"""Bytes out below which the ratio does not matter: small archives harm nobody."""

_LARGEST_TAR_HEADER = 16 * 2**20
_TAR = b"ustar"  # at byte 257 of a tar file
_CHUNK = 2**18
_BLOCK = 4096
_LONGEST_PATH = 1000  # bytes; systems take 1,024 or 4,096, of the folder around it, too
_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    NotImplementedError,
    RecursionError,
    ValueError,
    LookupError,
)


@dataclass(frozen=True)
class Member:
    """One file or folder of an archive: relative path with `/`, bytes unpacked, how to find it."""

    name: str
    n_bytes: int
    is_folder: bool
    key: zipfile.ZipInfo | tarfile.TarInfo


def inspect(archive: str | Path) -> list[Member]:
    """List what an archive would unpack to, without writing anything.

    Whether it is a .zip, a .tar or a .tar.gz file is told by content, not by name.

    Raises `DataNotFound` if there is no such file; `BrokenArchive` if it is truncated, damaged or
    not an archive; `UnsafeArchive` if it holds absolute names, `..`, drive letters, links, devices,
    encrypted or clashing members, or exceeds a limit above.
    """
    with _opened(Path(archive)) as (members, _):
        return members


def unpack(archive: str | Path, folder: str | Path, progress: bool = True) -> int:
    """Unpack an archive into an empty folder, made if needed; the number of files written.

    The folder is half-filled if unpacking fails: use `atomic_folder` around it where others may
    look.

    Raises as `inspect`, all of `UnsafeArchive` before anything is written; `BrokenArchive` also for
    a member whose content does not match its checksum, by name; `NoSpaceLeft` if the disk is too
    full for all of it (checked before anything is written), or fills up; `ReadOnlyFolder` if the
    folder cannot be written to, or is not empty.
    """
    archive, folder = Path(archive), storage.absolute(folder)
    with _opened(archive) as (members, open_member):
        files = [member for member in members if not member.is_folder]
        # File systems hand out whole blocks.
        require_space(folder, sum(member.n_bytes + _BLOCK for member in members), archive.name)
        storage.make_folder(folder)
        with storage.named_errors(folder):
            if any(folder.iterdir()):
                raise FileExistsError(errno.EEXIST, "the folder is not empty", str(folder))
            for member in members:
                if member.is_folder:
                    (folder / member.name).mkdir(parents=True, exist_ok=True)
            for member in tqdm(
                files, desc="unpacking", unit="file", disable=not progress, mininterval=0.5
            ):
                target = folder / member.name
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("xb") as written:
                    for chunk in _content(archive, member, open_member):
                        written.write(chunk)
    return len(files)


def require_space(folder: str | Path, n_bytes: int, what: str) -> None:
    """Raise `NoSpaceLeft` if `what` needs more bytes than are free where the folder will be."""
    folder = Path(folder).absolute()
    existing = next(above for above in (folder, *folder.parents) if above.exists())
    free = shutil.disk_usage(existing).free
    if n_bytes > free:
        raise NoSpaceLeft(
            f"{what} needs {n_bytes / 1e6:,.0f} MB in {folder}, and {free / 1e6:,.0f} MB are free. "
            "Free some space, or choose another folder with data_dir; nothing was written."
        )


@contextmanager
def atomic_folder(target: str | Path) -> Iterator[Path]:
    """Fill a folder under a temporary name and give it its own only when it is complete.

    The temporary folder to fill stands beside the target, which must not exist, or be empty; it is
    removed if filling it fails. What a process that was killed left behind is removed first; what a
    living one is filling is left alone.

    Raises `ReadOnlyFolder` if the target exists (nothing is overwritten) or cannot be made,
    `NoSpaceLeft` if the disk is full.
    """
    target = storage.absolute(target)
    storage.make_folder(target.parent)
    partial = target.parent / f".{target.name}.{storage.HOST}-{os.getpid()}.partial"
    with storage.named_errors(target):
        storage.sweep(target.parent)
        if not is_free(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
        partial.mkdir()
    try:
        yield partial
        with storage.named_errors(target):
            try:
                os.rename(partial, target)
            except OSError as error:
                if error.errno == errno.ENOTEMPTY:
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from error
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def is_free(folder: Path) -> bool:
    """Tell whether a folder of this name can be made: nothing there, or an empty folder."""
    is_folder = folder.is_dir() and not folder.is_symlink()
    return not any(folder.iterdir()) if is_folder else not os.path.lexists(folder)


@contextmanager
def _opened(archive: Path) -> Iterator[tuple[list[Member], Callable[..., Any]]]:
    """Open an archive: its members, all checked, and how to open one of them."""
    archive = storage.absolute(archive)
    if not archive.is_file():
        raise DataNotFound(
            f"There is no archive {archive}. Give the path of a downloaded blood-cells .zip file."
        )
    with archive.open("rb") as stream, _naming_damage(archive):
        start = stream.read(512)
        is_zipped = start[:2] == b"\x1f\x8b"
        if is_zipped or start[257:262] == _TAR:
            with (gzip.open if is_zipped else open)(archive, "rb") as unzipped:
                bounded = _BoundedStream(cast(BinaryIO, unzipped), archive)
                with tarfile.TarFile(fileobj=cast(BinaryIO, bounded)) as tar:
                    members = [_tar_member(archive, info) for info in _bounded_list(archive, tar)]
                    # At a damaged header tarfile ends in silence, as at the block of zeros.
                    if bounded.last.strip(b"\0") or not bounded.last:
                        raise tarfile.ReadError("its end is missing")
                    # Only at its very end does gzip say whether the content was whole.
                    while bounded.read(_CHUNK):
                        pass
                    _check_members(archive, members)
                    yield [member for member in members if member.name], tar.extractfile
        else:
            with zipfile.ZipFile(archive) as zipped:
                infos = _bounded_list(archive, zipped.infolist())
                members = [_zip_member(archive, info) for info in infos]
                _check_members(archive, members)
                yield [member for member in members if member.name], zipped.open


def _bounded_list(archive: Path, infos: Iterable) -> list:
    """List the members, and stop as soon as there are too many or they are too large."""
    listed, n_bytes = [], 0
    for info in infos:
        listed.append(info)
        n_bytes += info.size if isinstance(info, tarfile.TarInfo) else info.file_size
        _check_size(archive, n_bytes)
        if len(listed) > MAX_MEMBERS:
            raise _unsafe(archive, f"it holds more than {MAX_MEMBERS:,} files")
    return listed


def _zip_member(archive: Path, info: zipfile.ZipInfo) -> Member:
    mode = info.external_attr >> 16
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise _unsafe(archive, f"{info.filename!r} is a link or a device")
    if info.flag_bits & 0x1:
        raise _unsafe(archive, f"{info.filename!r} is encrypted")
    name = info.orig_filename
    return Member(_safe_name(archive, name), info.file_size, name.endswith(("/", "\\")), info)


def _tar_member(archive: Path, info: tarfile.TarInfo) -> Member:
    if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE):
        raise _unsafe(archive, f"{info.name!r} is a link, a device or a file with holes")
    return Member(_safe_name(archive, info.name), info.size, info.isdir(), info)


def _safe_name(archive: Path, name: str) -> str:
    """Bring a member's name into one form; empty for the folder itself."""
    # Some Windows programs write backslashes, and Windows would follow them.
    parts = name.replace("\\", "/").split("/")
    if (parts[0] == "" and name) or ".." in parts or re.match("[A-Za-z]:", name):
        raise _unsafe(archive, f"{name!r} would be written outside its folder")
    lengths = [len(part.encode("utf-8", "surrogateescape")) for part in parts]
    if re.search("[\0-\x1f]", name) or max(lengths) > 255 or sum(lengths) > _LONGEST_PATH:
        raise _unsafe(archive, f"{name[:80]!r} is no usable file name")
    return "/".join(part for part in parts if part not in ("", "."))


def _check_members(archive: Path, members: list[Member]) -> None:
    """Refuse members that would overwrite one another, also where letter case does not count."""
    files: set[str] = set()
    for name in (member.name.casefold() for member in members if not member.is_folder):
        if not name or name in files:
            raise _unsafe(archive, f"{name!r} would be written twice")
        files.add(name)
    folders = {member.name.casefold() for member in members if member.is_folder}
    folders |= {name[: cut.start()] for name in files for cut in re.finditer("/", name)}
    if clash := files & folders:
        raise _unsafe(archive, f"{min(clash)!r} is a file and a folder at once")


def _check_size(archive: Path, n_bytes: int) -> None:
    if n_bytes > MAX_BYTES:
        raise _unsafe(archive, f"it unpacks to more than {MAX_BYTES / 1e9:,.1f} GB")
    if n_bytes > max(RATIO_COUNTS_FROM, MAX_RATIO * archive.stat().st_size):
        raise _unsafe(archive, f"it unpacks to more than {MAX_RATIO} times its size")


def _unsafe(archive: Path, what: str) -> UnsafeArchive:
    return UnsafeArchive(
        f"{archive} is refused: {what}. Expected plain files in folders, at most "
        f"{MAX_MEMBERS:,} of them and {MAX_BYTES / 1e9:,.1f} GB. Nothing was written; download the "
        "archive again from its original source."
    )


class _BoundedStream:
    """The bytes of a tar file, unzipped, followed no further than the limits allow."""

    def __init__(self, stream: BinaryIO, archive: Path) -> None:
        self._stream = stream
        self._archive = archive
        self.tell = stream.tell

    def seek(self, position: int) -> int:
        _check_size(self._archive, position)
        return self._stream.seek(position)

    def read(self, n_bytes: int) -> bytes:
        if n_bytes > _LARGEST_TAR_HEADER:
            raise _unsafe(self._archive, f"it holds a header of {n_bytes:,} bytes")
        _check_size(self._archive, self.tell() + n_bytes)
        self.last = self._stream.read(n_bytes)
        return self.last


def _content(archive: Path, member: Member, open_member: Callable) -> Iterator[bytes]:
    with _naming_damage(archive, member.name), open_member(member.key) as stream:
        n_bytes = 0
        while chunk := stream.read(_CHUNK):
            n_bytes += len(chunk)
            yield chunk
        if n_bytes != member.n_bytes:
            raise EOFError(f"{n_bytes:,} of {member.n_bytes:,} bytes")


@contextmanager
def _naming_damage(archive: Path, member: str | None = None) -> Iterator[None]:
    """Say in plain words what is wrong with an archive."""
    try:
        yield
    except WbcError:
        raise
    except (*_DAMAGE, OSError) as error:
        # A wrong position in the archive is an invalid argument to the operating system; bzip2
        # gives damage no number.
        is_told = isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)
        if is_told or getattr(error, "filename", None):
            raise
        with archive.open("rb") as stream:
            start = stream.read(512)
        if not start:
            what = "is empty (0 bytes)"
        elif member:
            what = f"is damaged: {member} cannot be read ({error})"
        elif start.lstrip()[:1] == b"<":
            what = "is a web page, not an archive: perhaps a log-in page was saved in its place"
        elif start[:2] in (b"PK", b"\x1f\x8b") or start[257:262] == _TAR:
            what = f"is cut off or damaged ({error})"
        else:
            what = "is not a zip, tar or tar.gz archive"
        raise BrokenArchive(
            f"{archive} {what}. Expected a complete archive; download it again. What was there "
            "before is untouched."
        ) from error


# Downloading from a web address

CONNECT_SECONDS, STALL_SECONDS = 5, 60
"""After which no answer, or no further byte, means no network."""


def download(
    address: str, target: str | Path, largest: int, what_else: str, progress: bool = True
) -> Path:
    """Download a file, unless it is there already; its absolute path.

    A download that was cut off begins anew: GitHub packs its archives as they are asked for, says
    neither how long they are nor gives a part of one. `address` is `https://…`; a proxy named in
    the environment is used. The folder of `target` is made once there is an answer, and the file
    gets its name when it is complete. Beyond `largest` bytes it is given up; `what_else` a person
    can do is for the message.

    Raises `DownloadFailed` if there is no answer, a refusal, a silence of `STALL_SECONDS`, or too
    much; `NoSpaceLeft` or `ReadOnlyFolder` if it cannot be written.
    """
    target = storage.absolute(target)
    if target.is_file():
        return target
    try:
        with requests.get(address, stream=True, timeout=(CONNECT_SECONDS, STALL_SECONDS)) as answer:
            answer.raise_for_status()
            # Only now: where nothing can be fetched, no folder is left behind.
            storage.make_folder(target.parent)
            _receive(answer, target, largest, progress)
    except (requests.RequestException, _TooMuch) as error:
        raise download_failure(address, _reason(error), what_else) from error
    return target


def download_failure(address: str, reason: str, what_else: str) -> DownloadFailed:
    """Make the error that says why a download failed, and what else there is to do."""
    return DownloadFailed(
        f"{address} could not be downloaded: {reason}. Expected a public file. {what_else}"
    )


class _TooMuch(Exception):
    """More bytes came than the file can have."""


def _receive(answer: requests.Response, target: Path, largest: int, progress: bool) -> None:
    n_bytes = int(answer.headers.get("Content-Length", 0)) or None
    with (
        storage.atomic_file(target, n_bytes or 0) as partial,
        partial.open("wb") as written,
        tqdm(
            total=n_bytes,
            desc="downloading",
            unit="B",
            unit_scale=True,
            disable=not progress,
            mininterval=0.5,
        ) as bar,
    ):
        for chunk in answer.iter_content(2**16):
            written.write(chunk)
            bar.update(len(chunk))
            if written.tell() > largest:
                raise _TooMuch(f"it sent more than {largest / 1e6:,.0f} MB")


def _reason(error: Exception) -> str:
    """Say in plain words why; the library's own name the addresses of its objects."""
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"the server answered {error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.exceptions.SSLError):
        return "the server's certificate was not accepted"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "it broke off"
    # A silence in the middle is a broken connection to the library, not a timeout.
    if isinstance(error, requests.ConnectionError | requests.Timeout):
        return (
            f"no connection within {CONNECT_SECONDS} seconds, or nothing more for {STALL_SECONDS}"
        )
    return str(error)


# Downloading from Kaggle. Its own client runs in a process of its own: what it prints, and the
# credentials that it reads, stay there, and of both no secret reaches a message.

KAGGLE = "https://api.kaggle.com"
"""Asked whether it answers before the client is started."""

PROBE_SECONDS = 4
"""After which no answer means no network."""

KAGGLE_STALL_SECONDS = 120
"""Without new bytes; the client itself waits up to a minute between its attempts."""


# The client allows access without an account only where it finds its own name and command.
_CLIENT = (
    sys.executable,
    "-P",
    "-c",
    "import sys; sys.argv[0] = 'kaggle'; import kaggle; "
    "kaggle.api.dataset_download_files(sys.argv[3], path=sys.argv[4], quiet=True)",
)


def download_from_kaggle(
    dataset: str, folder: str | Path, n_bytes: int, progress: bool = True
) -> Path:
    """Download a data set's zip file: without an account, then with the user's.

    `dataset` is `owner/name` on Kaggle; `folder`, made if needed, is where the archive goes. What
    an interrupted download left there is continued, and an archive that is whole is not asked for
    again. Twice `n_bytes`, those of the data, must be free, for the archive and for unpacking it.

    Raises `DownloadFailed` if Kaggle does not answer (known within seconds), refuses, or sends
    nothing for `STALL_SECONDS`, with what the client said last, without secrets; `NoSpaceLeft` or
    `ReadOnlyFolder` if the archive cannot be written.
    """
    archive = storage.absolute(folder) / f"{dataset.split('/')[1]}.zip"
    if _is_whole(archive):
        return archive
    if reason := _why_unreachable():
        raise kaggle_failure(dataset, f"{KAGGLE} cannot be reached ({reason})")
    if importlib.util.find_spec("kaggle") is None:
        raise kaggle_failure(dataset, "its client is not installed (pip install kaggle)")
    require_space(archive.parent, 2 * n_bytes, dataset)
    storage.make_folder(archive.parent)
    reasons: list[str] = []
    for account in ("", ", ".join(_credentials())):
        if reasons and not account:
            reasons.append("no credentials were found")
            break
        answer = _run_client(dataset, archive, n_bytes, bool(account), progress)
        if answer is None and _is_whole(archive):
            return archive
        if "No space left" in (answer or ""):
            raise NoSpaceLeft(
                f"The disk filled up while {archive} was downloaded; the data need "
                f"{2 * n_bytes / 1e6:,.0f} MB until they are unpacked. Free some space and "
                "run again: the download is continued."
            )
        reasons.append(f"{f'with {account}' if account else 'without an account'}: {answer}")
    raise kaggle_failure(dataset, "; ".join(reasons))


def kaggle_failure(dataset: str, reason: str) -> DownloadFailed:
    """`download_failure` of a data set on Kaggle."""
    return DownloadFailed(
        f"{dataset} could not be downloaded from Kaggle: {reason}. Expected access to a "
        "public data set. Either run it again (a download cut off is continued); or log in at "
        f"https://www.kaggle.com/datasets/{dataset}, accept the terms if asked, make a token at "
        "https://www.kaggle.com/settings/api and save it as ~/.kaggle/access_token or in "
        "KAGGLE_API_TOKEN; or download the archive there with a browser and give its path as "
        "SOURCE; or try SOURCE=sample."
    )


def _is_whole(archive: Path) -> bool:
    # A zip file's directory stands at its end.
    try:
        return bool(inspect(archive))
    except (DataNotFound, BrokenArchive):
        return False


def _why_unreachable() -> str | None:
    """Ask within seconds whether Kaggle answers at all, also through a proxy."""
    reasons = [f"no answer within {PROBE_SECONDS} seconds"]

    def ask() -> None:
        try:
            # An opener of its own: the shared one remembers the proxies of its first use.
            opener = urllib.request.build_opener()
            opener.open(KAGGLE, timeout=PROBE_SECONDS).close()
        except urllib.error.HTTPError:
            reasons.clear()
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            # The client has certificates of its own.
            reasons[:] = [] if isinstance(reason, ssl.SSLError) else [str(reason)]
        else:
            reasons.clear()

    # Looking up a name has no time limit of its own.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(1.25 * PROBE_SECONDS)
    return reasons[0] if reasons else None


def _run_client(
    dataset: str, archive: Path, n_bytes: int, with_account: bool, progress: bool
) -> str | None:
    """Run Kaggle's client; None if it succeeded, else what it said last, without secrets."""
    with tempfile.TemporaryDirectory() as empty_home:
        process = subprocess.Popen(
            [*_CLIENT, "datasets", "download", dataset, str(archive.parent)],
            cwd=empty_home,
            env=_environment(None if with_account else empty_home),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        output = process.stdout or ()
        lines: list[str] = []
        listening = threading.Thread(target=lambda: lines.extend(output), daemon=True)
        listening.start()
        try:
            stalled = _wait(process, archive, n_bytes, progress)
        finally:
            process.kill()
            process.wait()
            listening.join(5)
            if process.stdout:
                process.stdout.close()
    if process.returncode == 0:
        return None
    if stalled:
        return f"no data came for {KAGGLE_STALL_SECONDS} seconds"
    return _last_line(lines, process.returncode)


def _wait(process: subprocess.Popen, archive: Path, n_bytes: int, progress: bool) -> bool:
    """Show the growing file until the client ends; True if it stopped growing instead."""
    changed = time.monotonic()
    with tqdm(
        total=n_bytes, desc="downloading", unit="B", unit_scale=True, disable=not progress
    ) as bar:
        size = 0
        while process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.5)
            now = archive.stat().st_size if archive.exists() else 0
            if now != size:
                bar.update(now - size)
                size, changed = now, time.monotonic()
            elif time.monotonic() - changed > KAGGLE_STALL_SECONDS:
                return True
    return False


def _environment(empty_home: str | None) -> dict[str, str]:
    """Environment of the client; with an empty home it finds no credentials."""
    # When asked to be verbose the client prints its headers, with the token in them.
    hidden = {"VERBOSE", "VERBOSE_OUTPUT"}
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment["PYTHONUTF8"] = "1"
    if empty_home is None:
        return environment
    environment = {
        name: value
        for name, value in environment.items()
        if name == "KAGGLE_API_ENVIRONMENT" or (not name.startswith("KAGGLE_") and name != "NETRC")
    }
    # Packages installed for this user stand below the real home.
    packages = {"PYTHONUSERBASE": site.getuserbase()}
    return (
        environment
        | packages
        | dict.fromkeys(("HOME", "USERPROFILE", "XDG_CONFIG_HOME"), empty_home)
    )


def _credentials() -> dict[str, list[str]]:
    """Where the user keeps credentials for Kaggle, and the secrets there, to be hidden."""
    secrets_by_place = {
        name: [value]
        for name, value in os.environ.items()
        if name in ("KAGGLE_API_TOKEN", "KAGGLE_KEY") and value
    }
    home = Path.home()
    settings = os.environ.get("XDG_CONFIG_HOME") or home / ".config"
    folders = [home / ".kaggle", Path(settings, "kaggle")]
    if os.environ.get("KAGGLE_CONFIG_DIR"):
        folders.append(Path(os.environ["KAGGLE_CONFIG_DIR"]))
    names = ("access_token", "access_token.txt", "kaggle.json", "credentials.json")
    files = [folder / name for folder in folders for name in names]
    # The variable may also hold the path of a file with the token.
    files += [Path(value) for value in secrets_by_place.get("KAGGLE_API_TOKEN", [])]
    for file in files:
        try:
            text = file.read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            continue
        if text:
            secrets = re.findall(r'"(?:key|access_token|refresh_token)"\s*:\s*"([^"]+)"', text)
            secrets_by_place[file.name] = secrets or [text]
    return secrets_by_place


def _last_line(lines: list[str], returncode: int) -> str:
    """Quote what the client printed last, without secrets."""
    printed = [line.strip() for line in lines if line.strip()]
    line = printed[-1] if printed else f"the client ended with code {returncode}"
    for secrets in _credentials().values():
        for secret in secrets:
            for form in (secret, urllib.parse.quote(secret, safe=""), json.dumps(secret)[1:-1]):
                line = line.replace(form, "[hidden]")
    line = re.sub(r"(?i)(bearer|basic)\s+\S+|KGAT_\w+", "[hidden]", line)
    # An address may carry a signature; the name of the Python error helps nobody.
    line = re.sub(r"( for url: \S+|\?\S+)", "", line)
    return re.sub(r"^[\w.]+(Error|Exception): ", "", line)[:300]
