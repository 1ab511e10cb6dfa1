"""Getting the images: downloaded, unpacked or drawn, once, and without touching what is there.

The table of sources and what tells one from another stand in `identity`; their names are reached
from here as well.
"""

import argparse
import re
import shutil
import sys
from pathlib import Path

from wbc_helpers import storage
from wbc_helpers.data import archives, catalog, downloads, sample
from wbc_helpers.data.identity import (
    MANIFEST,
    SOURCES,
    Identity,
    came_from_kaggle,
    is_junk,
    write_manifest,
)
from wbc_helpers.errors import (
    BrokenArchive,
    DataMismatch,
    DataNotFound,
    DownloadFailed,
    InvalidParameter,
)

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


def banner(identity: Identity, markdown: bool = False) -> str:
    """Say that cells are drawn, in a way that cannot be overlooked.

    Parameters
    ----------
    identity : Identity
        Of the data in use.
    markdown : bool
        For a notebook instead of a terminal.

    Returns
    -------
    str
        Empty for photographs.
    """
    if not identity.drawn:
        return ""
    if markdown:
        return (
            "> # ⚠️ These cells are drawn\n"
            "> This is the embedded sample, not photographs of blood: the scores say nothing about "
            "blood cells, only that the notebooks run. For real images give `source` as `kaggle`, "
            f"or as the path of the archive downloaded from <{SOURCES['kaggle'].address}>."
        )
    return SAMPLE_BANNER


_KAGGLE = SOURCES["kaggle"]
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
        the real images in `data_dir` (those from Kaggle before others, then an archive lying
        there), else downloads them, else takes the sample, and then says why. A sample drawn
        earlier does not keep it from trying Kaggle again.
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
    real = [folder for folder in folders if not sample.is_sample(_with_images(folder))]
    if real:
        return _complete(min(real, key=lambda folder: not came_from_kaggle(folder)))
    if data_dir.is_dir() and _has_images(data_dir, below=False):
        return data_dir
    for file in visible:
        named_so = _ARCHIVE_NAMES.fullmatch(file.name) and file.is_file()
        if named_so and archives.holds(file, _are_classes):
            return _fetch_archive(file, data_dir, "local", progress)
    try:
        return _fetch_kaggle(data_dir, progress)
    except DownloadFailed as error:
        folder = _fetch_sample(data_dir, progress)
        print(f"{SAMPLE_BANNER}\nWhy the sample: {error}", file=sys.stderr, flush=True)
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
    wanted = f"TRAIN and TEST folders. Expected the blood-cells archive of {_KAGGLE.address}"
    folder = archives.unpack_once(archive, data_dir, origin, _are_classes, wanted, progress)
    return _complete(folder)


def _are_classes(names: list[str]) -> bool:
    return all(any(f"/{split}/" in name for name in names) for split in ("TRAIN", "TEST"))


def _complete(folder: Path) -> Path:
    """Refuse what was fetched once and is no longer whole."""
    return _with_images(archives.require_whole(folder))


def _with_images(folder: Path) -> Path:
    """Find where the data set begins: the folder itself, or its only subfolder."""
    try:
        catalog.images_folder(folder)
    except DataNotFound:
        subfolders = [
            entry for entry in folder.iterdir() if entry.is_dir() and not is_junk(entry.name)
        ]
        if len(subfolders) != 1:
            raise
        folder = subfolders[0]
        catalog.images_folder(folder)
    return folder


def _fetch_kaggle(data_dir: Path, progress: bool) -> Path:
    for folder in archives.fetched_folders(data_dir):
        if came_from_kaggle(folder):
            return _complete(folder)
    source = _KAGGLE
    download_folder = data_dir / ".kaggle-download"
    archive = downloads.download_from_kaggle(
        source.kaggle, download_folder, source.n_bytes, progress
    )
    try:
        folder = _fetch_archive(archive, data_dir, "kaggle", progress)
    except BrokenArchive as error:
        shutil.rmtree(download_folder, ignore_errors=True)
        raise downloads.failure(
            source.kaggle, "the archive was damaged on its way and was removed"
        ) from error
    shutil.rmtree(download_folder, ignore_errors=True)
    return folder


def main() -> None:
    """Write the manifest of a known data set: `python -m wbc_helpers.data.sources --help`."""
    parser = argparse.ArgumentParser(description="Write the manifest of the blood-cells data set.")
    parser.add_argument("--write-manifest", metavar="FOLDER", required=True, type=Path)
    parser.add_argument("--target", type=Path, default=Path(str(MANIFEST)))
    arguments = parser.parse_args()
    write_manifest(arguments.write_manifest, arguments.target)


if __name__ == "__main__":
    main()
