"""Where the images come from: the table of sources, fetching them, and telling what was fetched.

The digest of a data set is the SHA-256, in hexadecimal, of one line a file, sorted by path: the
path, a NUL character, the SHA-256 of the file in hexadecimal, a line feed; in UTF-8. For the
images, paths are relative to the folder that holds TRAIN and TEST, and every file in TRAIN, TEST
and TEST_SIMPLE counts; for the photographs, to the folder that holds `JPEGImages`, and every file
in `JPEGImages` and `Annotations` counts, and `labels.csv`. What operating systems leave behind
(hidden files, `__MACOSX`, `Thumbs.db`, `desktop.ini`) does not count.
"""

import argparse
import contextlib
import csv
import gzip
import hashlib
import http.client
import importlib.util
import json
import os
import re
import shutil
import site
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from wbc_helpers import archives, catalog, cells, sample, storage
from wbc_helpers.errors import (
    BrokenArchive,
    DataMismatch,
    DataNotFound,
    DownloadFailed,
    InvalidParameter,
    NoSpaceLeft,
    ReadOnlyFolder,
    UnreadableImage,
)


@dataclass(frozen=True, eq=False)
class Source:
    """A place where the data come from, and what is known about them.

    Attributes
    ----------
    name : str
        As given to `fetch`.
    title, address, licence, citation : str
        For people; empty where unknown.
    counts : mapping, optional
        Number of images by split, then cell type.
    digest, photographs_digest : str
        Digests of the images and of the photographs, see the module; empty where unknown.
    n_bytes : int
        Bytes when unpacked; 0 where unknown.
    kaggle : str
        `owner/name` on Kaggle; empty if it is not there.
    drawn : bool
        True if the cells are drawn: scores then say nothing about blood.
    """

    name: str
    title: str
    address: str = ""
    licence: str = ""
    citation: str = ""
    counts: Mapping[str, Mapping[str, int]] | None = None
    digest: str = ""
    photographs_digest: str = ""
    n_bytes: int = 0
    kaggle: str = ""
    drawn: bool = False


def _table(**splits: tuple[int, int, int, int]) -> dict[str, dict[str, int]]:
    return {split: dict(zip(cells.NAMES, row, strict=True)) for split, row in splits.items()}


SOURCES = {
    source.name: source
    for source in (
        Source(
            "kaggle",
            title="Blood Cell Images",
            address="https://www.kaggle.com/datasets/paultimothymooney/blood-cells",
            licence="MIT",
            citation=(
                "P. Mooney, Blood Cell Images, Kaggle (2018), made by augmentation from: "
                "Shenggan and Cosmicad, BCCD Dataset, https://github.com/Shenggan/BCCD_Dataset "
                "(MIT). The network: I. Singh, N. P. Singh, H. Singh, S. Bawankar, A. Ngom, Blood "
                "Cell Types Classification Using CNN, IWBBIO 2020, LNCS 12108, 727-738 (2020)."
            ),
            counts=_table(
                TRAIN=(2497, 2483, 2478, 2499),
                TEST=(623, 620, 620, 624),
                TEST_SIMPLE=(13, 6, 4, 48),
            ),
            digest="c610387f4840442e6846012358d604a5b8898d387f900a59a451ac9a7a5ba154",
            photographs_digest="60a6233eae9ac2771515fb26d0169305376b0b0650f40e2b41bad439861f99d5",
            n_bytes=113_567_876,
            kaggle="paultimothymooney/blood-cells",
        ),
        Source(
            "sample",
            title="Drawn sample",
            licence="MIT, as this project",
            citation="Drawn by wbc_helpers.sample; these are no photographs of blood.",
            counts=sample.COUNTS,
            drawn=True,
        ),
        Source("local", title="Own images"),
    )
}

SAMPLE_BANNER = "\n".join(
    (
        "=" * 78,
        "THESE CELLS ARE DRAWN. This is the embedded sample, not photographs of blood:",
        "the scores say nothing about blood cells, only that the notebooks run.",
        "For real images give SOURCE=kaggle, or SOURCE=<path of the archive downloaded",
        "from https://www.kaggle.com/datasets/paultimothymooney/blood-cells>.",
        "=" * 78,
    )
)
"""Shown by the terminal, every notebook and every page; see `banner`."""


@dataclass(frozen=True, eq=False)
class Identity:
    """What a folder of images turned out to be.

    Attributes
    ----------
    source : Source
        `SOURCES["kaggle"]` also for a copy that came another way, or is damaged.
    folder : Path
        As given.
    n_images : int
        Number of images.
    counts : DataFrame
        Number of images; rows are splits, columns cell types.
    digest, photographs_digest : str
        See the module; the latter is empty where the copy has no photographs.
    deviations : tuple of str
        Sentences that say what differs from the source; empty if nothing does.
    """

    source: Source
    folder: Path
    n_images: int
    counts: pd.DataFrame
    digest: str
    photographs_digest: str
    deviations: tuple[str, ...]

    @property
    def drawn(self) -> bool:
        """True if the cells are drawn."""
        return self.source.drawn

    def to_dict(self) -> dict[str, Any]:
        """Describe the data for a run's `settings.json`, in plain values."""
        return {
            "source": self.source.name,
            "title": self.source.title,
            "drawn": self.drawn,
            "digest": self.digest,
            "n_images": self.n_images,
            "folder": str(self.folder),
        }


def banner(identity: Identity) -> str:
    """Say that cells are drawn, in a way that cannot be overlooked; empty for photographs."""
    return SAMPLE_BANNER if identity.drawn else ""


def identify(folder: str | Path, progress: bool = False) -> Identity:
    """Find out what a folder of images is, by content.

    It is the data set from Kaggle if at least half of its images are, name and content, or if
    it was fetched from there; everything that differs is then named. Any other folder is somebody's
    own, about which nothing is known.

    Parameters
    ----------
    folder : path
        As `fetch` returns it.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Identity
        What it is.

    Raises
    ------
    DataNotFound
        If it holds no `TRAIN` and `TEST`, see `catalog.images_folder`.
    UnreadableImage
        If a file cannot be read.
    """
    folder = Path(folder).expanduser().absolute()
    root = catalog.images_folder(folder)
    images = _digests(root, catalog.SPLITS, progress)
    photographs_root = catalog.photographs_folder(folder)
    photographs = _digests(photographs_root, _PHOTOGRAPHS, progress) if photographs_root else {}
    counts = _count(images)
    known = _read_manifest()
    n_known = sum(known.get(file) == digest[:16] for file, digest in images.items())
    above = _folders_above(root)
    if any(sample.is_sample(candidate) for candidate in above):
        source, deviations = SOURCES["sample"], ()
    elif 2 * n_known >= max(1, len(images)) or any(_came_from_kaggle(place) for place in above):
        source = SOURCES["kaggle"]
        if not photographs:
            known = {file: known[file] for file in known if file.split("/")[0] in catalog.SPLITS}
        deviations = _compare(known, images | photographs)
        if not deviations and _digest(images) != source.digest:
            deviations = (f"The digest is {_digest(images)}, expected {source.digest}.",)
    else:
        source, deviations = SOURCES["local"], ()
    return Identity(
        source,
        folder,
        int(counts.to_numpy().sum()),
        counts,
        _digest(images),
        _digest(photographs) if photographs else "",
        _compare_counts(source, counts) + deviations,
    )


def verify(folder: str | Path, strict: bool = True, progress: bool = False) -> Identity:
    """Identify a folder, and refuse a copy of a known data set that is not as published.

    Parameters
    ----------
    folder : path
        As `fetch` returns it.
    strict : bool
        False returns the deviations instead of raising.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Identity
        What it is. A folder of one's own has no deviations.

    Raises
    ------
    DataMismatch
        If files of a known data set are missing, changed or extra; the message names them.
    """
    identity = identify(folder, progress)
    if strict and identity.deviations:
        raise DataMismatch(
            f"{identity.folder} is not {identity.source.title} as published: "
            f"{' '.join(identity.deviations)} Expected {_total(identity.source):,} images. Move "
            "the folder away and fetch it again, or put those files right."
        )
    return identity


_PHOTOGRAPHS = ("JPEGImages", "Annotations", "labels.csv")
_JUNK = ("__MACOSX", "Thumbs.db", "desktop.ini")
_MANIFEST = resources.files("wbc_helpers") / "manifests" / "blood-cells.csv.gz"


def _total(source: Source) -> int:
    return sum(sum(row.values()) for row in (source.counts or {}).values())


def _is_junk(name: str) -> bool:
    return name.startswith(".") or name in _JUNK


def _folders_above(root: Path) -> list[Path]:
    """Where marks of fetching or drawing may be, when given the innermost folder."""
    above = [root]
    while above[-1].name in ("images", "dataset2-master"):
        above.append(above[-1].parent)
    # The whole may be wrapped in one more folder, see `_with_images`.
    return [*above, above[-1].parent]


def _files(root: Path, names: Iterable[str]) -> Iterator[str]:
    """List the files in these folders of `root`, by relative path."""
    for name in names:
        if (root / name).is_file():
            yield name
        for folder, subfolders, files in os.walk(root / name, followlinks=True):
            subfolders[:] = [entry for entry in subfolders if not _is_junk(entry)]
            below = Path(folder).relative_to(root).as_posix()
            yield from (f"{below}/{file}" for file in files if not _is_junk(file))


def _digests(root: Path, names: Iterable[str], progress: bool) -> dict[str, str]:
    """SHA-256 of each file, by relative path, sorted."""

    def digest_one(file: str) -> str:
        try:
            return hashlib.sha256((root / file).read_bytes()).hexdigest()
        except OSError as error:
            raise UnreadableImage(
                f"{root / file} cannot be read ({error.strerror}). Restore the file, or take it "
                "out of the data."
            ) from error

    files = sorted(_files(root, names))
    with ThreadPoolExecutor(2) as pool:
        found = tqdm(
            pool.map(digest_one, files),
            total=len(files),
            desc="checking",
            unit="file",
            disable=not progress,
            mininterval=0.5,
        )
        return dict(zip(files, found, strict=True))


def _digest(digests: Mapping[str, str]) -> str:
    lines = "".join(f"{file}\0{digests[file]}\n" for file in sorted(digests))
    return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()


def _count(files: Iterable[str]) -> pd.DataFrame:
    parts = [file.split("/") for file in files if file.lower().endswith(catalog.IMAGE_SUFFIXES)]
    counted = Counter(tuple(part[:2]) for part in parts if len(part) == 3)
    return pd.DataFrame(
        [[counted[split, cell.folder] for cell in cells.CELL_TYPES] for split in catalog.SPLITS],
        index=catalog.SPLITS,
        columns=cells.NAMES,
    )


def _compare_counts(source: Source, counts: pd.DataFrame) -> tuple[str, ...]:
    return tuple(
        f"{split}/{cells.BY_NAME[name].folder} holds {counts.loc[split, name]:,} images, expected "
        f"{expected:,}."
        for split, row in (source.counts or {}).items()
        for name, expected in row.items()
        if counts.loc[split, name] != expected
    )


def _compare(known: Mapping[str, str], found: Mapping[str, str]) -> tuple[str, ...]:
    """Name the files that differ from the manifest."""
    both = known.keys() & found.keys()
    groups = {
        "missing": known.keys() - found.keys(),
        "no part of the data set": found.keys() - known.keys(),
        "changed": {file for file in both if known[file] != found[file][:16]},
    }
    return tuple(
        f"{len(files):,} {'file is' if len(files) == 1 else 'files are'} {what}: "
        f"{', '.join(sorted(files)[:10])}"
        f"{f' and {len(files) - 10:,} more' if len(files) > 10 else ''}."
        for what, files in groups.items()
        if files
    )


def _read_manifest() -> dict[str, str]:
    with _MANIFEST.open("rb") as packed, gzip.open(packed, "rt", encoding="utf-8") as lines:
        return {row["file"]: row["sha256"] for row in csv.DictReader(lines)}


def write_manifest(folder: str | Path, target: str | Path) -> None:
    """Write the manifest of a data set: `file` and the first 16 digits of its SHA-256.

    The same folder gives the same bytes.

    Parameters
    ----------
    folder : path
        The data set, complete.
    target : path
        The .csv.gz file to write.
    """
    images = _digests(catalog.images_folder(folder), catalog.SPLITS, progress=True)
    photographs_root = catalog.photographs_folder(folder)
    photographs = (
        _digests(photographs_root, _PHOTOGRAPHS, progress=True) if photographs_root else {}
    )
    rows = [f"{file},{digest[:16]}\n" for file, digest in (images | photographs).items()]
    text = "".join(["file,sha256\n", *rows])
    with storage.atomic_file(target) as partial:
        partial.write_bytes(gzip.compress(text.encode("utf-8"), mtime=0))
    print(f"digest={_digest(images)}\nphotographs_digest={_digest(photographs)}")


# Fetching

_MARKER = ".fetched.json"
_ARCHIVE_NAMES = re.compile(r"(blood-cells|archive)( ?\(\d+\))?\.zip")


def fetch(
    source: str | Path = "auto", data_dir: str | Path = "data", progress: bool = True
) -> Path:
    """Get the data, once: a second call finds what the first one fetched.

    Parameters
    ----------
    source : str or path
        `kaggle` downloads the real images; `sample` draws the embedded sample; a path is that of
        a downloaded archive, or of an unpacked folder, which is used where it is. `auto` takes
        what is in `data_dir` (the images from Kaggle before others, an archive lying there, the
        sample last), else Kaggle, else the sample, and then says so.
    data_dir : path
        Where data are kept; made if needed. Nothing in it is overwritten.
    progress : bool
        Show progress bars.

    Returns
    -------
    Path
        The folder of the data set, absolute, see `catalog.images_folder`.

    Raises
    ------
    InvalidParameter
        If the source is none of these.
    DataNotFound
        If there is nothing at the path, or no class folders in it.
    DownloadFailed
        If Kaggle was asked for by name and did not give the data.
    DataMismatch
        If files were removed from what was fetched.
    BrokenArchive, UnsafeArchive, NoSpaceLeft, ReadOnlyFolder
        See `archives.unpack`.
    """
    if not isinstance(source, str | Path) or not str(source).strip():
        raise InvalidParameter(f"source={source!r} is unknown. {_EXPECTED}")
    if not isinstance(data_dir, str | Path) or not str(data_dir).strip():
        raise InvalidParameter(f"data_dir={data_dir!r} is no folder. Expected its path.")
    data_dir = Path(data_dir).expanduser().absolute()
    path = Path(source).expanduser().absolute()
    if source == "auto":
        return _fetch_any(data_dir, progress)
    if source == "kaggle":
        return _fetch_kaggle(data_dir, progress)
    if source == "sample":
        return _fetch_sample(data_dir, progress)
    if path.is_dir():
        return _with_images(path)
    if path.is_file():
        return _fetch_archive(path, data_dir, "local", progress)
    if isinstance(source, str) and re.fullmatch(r"\w+", source):
        raise InvalidParameter(f"source={source!r} is unknown. {_EXPECTED}")
    raise DataNotFound(f"There is nothing at {path}. {_EXPECTED}")


_EXPECTED = (
    "Expected 'auto', 'kaggle', 'sample', or the path of a downloaded archive or of an unpacked "
    "folder."
)


def _fetch_any(data_dir: Path, progress: bool) -> Path:
    """Fetch what `auto` stands for."""
    entries = sorted(data_dir.iterdir()) if data_dir.is_dir() else []
    visible = [entry for entry in entries if not entry.name.startswith(".")]
    folders = [entry for entry in visible if entry.is_dir() and _has_images(entry)]
    real = [folder for folder in folders if not sample.is_sample(folder)]
    if real:
        return _complete(min(real, key=lambda folder: not _came_from_kaggle(folder)))
    if data_dir.is_dir() and _has_images(data_dir, below=False):
        return data_dir
    for file in visible:
        if _ARCHIVE_NAMES.fullmatch(file.name) and file.is_file() and _holds_classes(file):
            return _fetch_archive(file, data_dir, "local", progress)
    reason = f"{data_dir} holds the sample from an earlier call, and nothing else."
    if not folders:
        try:
            return _fetch_kaggle(data_dir, progress)
        except DownloadFailed as error:
            reason = str(error)
    folder = _fetch_sample(data_dir, progress)
    print(f"{SAMPLE_BANNER}\nWhy the sample: {reason}", file=sys.stderr, flush=True)
    return folder


def _has_images(folder: Path, below: bool = True) -> bool:
    try:
        _with_images(folder) if below else catalog.images_folder(folder)
    except (DataNotFound, PermissionError):
        return False
    return True


def _fetch_sample(data_dir: Path, progress: bool) -> Path:
    storage.make_folder(data_dir)
    try:
        return sample.draw_sample(data_dir / "sample", progress=progress)
    except DataMismatch:
        # Somebody's own folder has that name, or it is the sample of another version.
        return sample.draw_sample(data_dir / f"sample-{sample.VERSION}", progress=progress)


def _fetch_archive(archive: Path, data_dir: Path, origin: str, progress: bool) -> Path:
    """Unpack an archive below `data_dir`, unless that was done before."""
    remove_from_name = re.compile(r"\.(zip|tgz|tar\.gz)$", re.IGNORECASE)
    facts = archive.stat()
    described = {"name": archive.name, "size": facts.st_size, "mtime_ns": facts.st_mtime_ns}
    fetched = {folder: _marker(folder)["archive"] for folder in _fetched_folders(data_dir)}
    for folder, known in fetched.items():
        if described.items() <= known.items():
            return _complete(folder)
    with archive.open("rb") as stream:
        described["sha256"] = hashlib.file_digest(stream, "sha256").hexdigest()
    for folder, known in fetched.items():
        if known.get("sha256") == described["sha256"]:
            if origin == "kaggle":
                storage.write_json(folder / _MARKER, {**_marker(folder), "source": origin})
            return _complete(folder)
    if not _holds_classes(archive):
        raise DataNotFound(
            f"{archive} holds no TRAIN and TEST folders. Expected the blood-cells archive of "
            f"{SOURCES['kaggle'].address}; nothing was unpacked."
        )
    stem = remove_from_name.sub("", archive.name) or "archive"
    names = (stem, f"{stem}-{described['sha256'][:8]}", f"{stem}-{described['sha256']}")
    target = next(filter(archives.is_free, map(data_dir.joinpath, names)), data_dir / stem)
    try:
        with archives.atomic_folder(target) as partial:
            n_files = archives.unpack(archive, partial, progress)
            storage.write_json(
                partial / _MARKER,
                {
                    "format": 1,
                    "source": origin,
                    "archive": described,
                    "n_files": n_files,
                    "finished": datetime.now(UTC).isoformat(timespec="seconds"),
                },
            )
    except ReadOnlyFolder:
        # Another process may have unpacked the same archive in the meantime.
        if _marker(target).get("archive") != described:
            raise
    return _complete(target)


def _holds_classes(archive: Path) -> bool:
    names = [f"/{member.name}/" for member in archives.inspect(archive)]
    return all(any(f"/{split}/" in name for name in names) for split in ("TRAIN", "TEST"))


def _fetched_folders(data_dir: Path) -> list[Path]:
    if not data_dir.is_dir():
        return []
    return [folder for folder in sorted(data_dir.iterdir()) if _marker(folder)]


def _marker(folder: Path) -> dict:
    """Read what was noted when the folder was fetched; empty if we did not fetch it."""
    try:
        marker = json.loads((folder / _MARKER).read_text(encoding="utf-8"))
        return marker if marker["format"] == 1 and marker["archive"] and marker["n_files"] else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _came_from_kaggle(folder: Path) -> bool:
    return _marker(folder).get("source") == "kaggle"


def _complete(folder: Path) -> Path:
    """Refuse what was fetched once and is no longer whole."""
    marker = _marker(folder)
    n_files = sum(len(files) for _, _, files in os.walk(folder)) - 1
    if marker and n_files < marker["n_files"]:
        raise DataMismatch(
            f"{folder} holds {n_files:,} of the {marker['n_files']:,} files that were unpacked "
            "there; the others were removed since. Move the folder away and fetch again."
        )
    return _with_images(folder)


def _with_images(folder: Path) -> Path:
    """Find where the data set begins: the folder itself, or its only subfolder."""
    try:
        catalog.images_folder(folder)
    except DataNotFound:
        subfolders = [
            entry for entry in folder.iterdir() if entry.is_dir() and not _is_junk(entry.name)
        ]
        if len(subfolders) != 1:
            raise
        folder = subfolders[0]
        catalog.images_folder(folder)
    return folder


# Kaggle, through its own client in a process of its own: what it prints, and the credentials it
# reads, stay there.

KAGGLE_ADDRESS = "https://api.kaggle.com"
PROBE_SECONDS = 4
STALL_SECONDS = 120
"""The client itself waits up to a minute between its attempts."""

# The client allows access without an account only where it finds its own name and command.
_CLIENT = (
    sys.executable,
    "-P",
    "-c",
    "import sys; sys.argv[0] = 'kaggle'; import kaggle; "
    "kaggle.api.dataset_download_files(sys.argv[3], path=sys.argv[4], quiet=True)",
)


def _fetch_kaggle(data_dir: Path, progress: bool) -> Path:
    for folder in _fetched_folders(data_dir):
        if _came_from_kaggle(folder):
            return _complete(folder)
    source = SOURCES["kaggle"]
    # The client continues a download that it finds here.
    archive = data_dir / ".kaggle-download" / f"{source.kaggle.split('/')[1]}.zip"
    if not _is_whole(archive):
        _download(source, archive, progress)
    try:
        folder = _fetch_archive(archive, data_dir, "kaggle", progress)
    except BrokenArchive as error:
        shutil.rmtree(archive.parent, ignore_errors=True)
        raise _download_failed("the archive was damaged on its way and was removed") from error
    shutil.rmtree(archive.parent, ignore_errors=True)
    return folder


def _is_whole(archive: Path) -> bool:
    # A zip file's directory stands at its end.
    try:
        return bool(archives.inspect(archive))
    except (DataNotFound, BrokenArchive):
        return False


def _download(source: Source, archive: Path, progress: bool) -> None:
    """Let the client download the archive: anonymously, then as the user."""
    if reason := _why_unreachable():
        raise _download_failed(f"{KAGGLE_ADDRESS} cannot be reached ({reason})")
    if importlib.util.find_spec("kaggle") is None:
        raise _download_failed("its client is not installed (pip install kaggle)")
    archives.require_space(archive.parent, 2 * source.n_bytes, source.title)
    storage.make_folder(archive.parent)
    reasons = []
    for account in ("", ", ".join(_credentials())):
        if reasons and not account:
            reasons.append("no credentials were found")
            break
        answer = _run_client(source, archive, bool(account), progress)
        if answer is None and _is_whole(archive):
            return
        if "No space left" in (answer or ""):
            raise NoSpaceLeft(
                f"The disk filled up while {archive} was downloaded; the data need "
                f"{2 * source.n_bytes / 1e6:,.0f} MB until they are unpacked. Free some space and "
                "run again: the download is continued."
            )
        reasons.append(f"{f'with {account}' if account else 'without an account'}: {answer}")
    raise _download_failed("; ".join(reasons))


def _download_failed(reason: str) -> DownloadFailed:
    source = SOURCES["kaggle"]
    return DownloadFailed(
        f"{source.kaggle} could not be downloaded from Kaggle: {reason}. Expected access to a "
        "public data set. Either run it again (a download cut off is continued); or log in at "
        f"{source.address}, accept the terms if asked, make a token at "
        "https://www.kaggle.com/settings/api and save it as ~/.kaggle/access_token or in "
        "KAGGLE_API_TOKEN; or download the archive there with a browser and give its path as "
        "SOURCE; or try SOURCE=sample."
    )


def _why_unreachable() -> str | None:
    """Ask within seconds whether Kaggle answers at all, also through a proxy."""
    reasons = [f"no answer within {PROBE_SECONDS} seconds"]

    def ask() -> None:
        try:
            # An opener of its own: the shared one remembers the proxies of its first use.
            opener = urllib.request.build_opener()
            opener.open(KAGGLE_ADDRESS, timeout=PROBE_SECONDS).close()
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
    asking.join(PROBE_SECONDS + 1)
    return reasons[0] if reasons else None


def _run_client(source: Source, archive: Path, with_account: bool, progress: bool) -> str | None:
    """Run Kaggle's client; None if it succeeded, else what it said last, without secrets."""
    with tempfile.TemporaryDirectory() as empty_home:
        process = subprocess.Popen(
            [*_CLIENT, "datasets", "download", source.kaggle, str(archive.parent)],
            cwd=empty_home,
            env=_environment(None if with_account else empty_home),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        said: list[str] = []
        listening = threading.Thread(target=lambda: said.extend(process.stdout), daemon=True)
        listening.start()
        try:
            stalled = _wait(process, archive, source.n_bytes, progress)
        finally:
            process.kill()
            process.wait()
            listening.join(5)
            process.stdout.close()
    if process.returncode == 0:
        return None
    if stalled:
        return f"no data came for {STALL_SECONDS} seconds"
    return _last_line("".join(said), process.returncode)


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
            elif time.monotonic() - changed > STALL_SECONDS:
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
    found = {
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
    files += [Path(value) for value in found.get("KAGGLE_API_TOKEN", [])]
    for file in files:
        try:
            text = file.read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            continue
        if text:
            secrets = re.findall(r'"(?:key|access_token|refresh_token)"\s*:\s*"([^"]+)"', text)
            found[file.name] = secrets or [text]
    return found


def _last_line(said: str, returncode: int) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    line = lines[-1] if lines else f"the client ended with code {returncode}"
    for secrets in _credentials().values():
        for secret in secrets:
            for form in (secret, urllib.parse.quote(secret, safe=""), json.dumps(secret)[1:-1]):
                line = line.replace(form, "[hidden]")
    line = re.sub(r"(?i)(bearer|basic)\s+\S+|KGAT_\w+", "[hidden]", line)
    # An address may carry a signature; the name of the Python error helps nobody.
    line = re.sub(r"( for url: \S+|\?\S+)", "", line)
    return re.sub(r"^[\w.]+(Error|Exception): ", "", line)[:300]


def main() -> None:
    """Write the manifest of a known data set: `python -m wbc_helpers.sources --help`."""
    parser = argparse.ArgumentParser(description="Write the manifest of the blood-cells data set.")
    parser.add_argument("--write-manifest", metavar="FOLDER", required=True, type=Path)
    parser.add_argument("--target", type=Path, default=Path(str(_MANIFEST)))
    arguments = parser.parse_args()
    write_manifest(arguments.write_manifest, arguments.target)


if __name__ == "__main__":
    main()
