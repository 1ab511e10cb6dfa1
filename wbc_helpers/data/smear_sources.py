"""Getting photographs of smears in which every cell is boxed: downloaded, unpacked or drawn, once.

The table of sources and what tells one from another stand in `smear_identity`; their names are
reached from here as well.
"""

import argparse
import re
import shutil
import sys
from pathlib import Path

from wbc_helpers.data import archives, downloads, identity, sources
from wbc_helpers.data.smear_identity import (
    MANIFEST,
    SMEAR_SOURCES,
    WANTED,
    SmearIdentity,
    identify_smears,
    smears_folder,
    write_smear_manifest,
)
from wbc_helpers.errors import BrokenArchive, DataNotFound, DownloadFailed, InvalidParameter

SMEAR_BANNER = "\n".join(
    (
        "=" * 78,
        "THESE SMEARS ARE DRAWN. This is the embedded sample, not photographs of blood:",
        "counts and scores say nothing about blood, only that the notebooks run.",
        "For real photographs give SOURCE=bccd, or SOURCE=<path of the archive downloaded",
        "from https://github.com/Shenggan/BCCD_Dataset>.",
        "=" * 78,
    )
)
"""Shown wherever results on drawn smears are."""

_EXPECTED = (
    "Expected 'auto', 'bccd', 'sample', or the path of a downloaded archive or of a folder with "
    "JPEGImages and Annotations."
)
_ARCHIVE_NAMES = re.compile(r"BCCD_Dataset-\w+( ?\(\d+\))?\.(zip|tgz|tar\.gz)", re.IGNORECASE)


def fetch_smears(
    source: str | Path = "auto", data_dir: str | Path = "data", progress: bool = True
) -> Path:
    """Get boxed photographs, once: a second call finds what the first one fetched.

    Parameters
    ----------
    source : str or path
        `bccd` downloads the BCCD data set from GitHub; `sample` draws the embedded sample; a path
        is that of an archive, or of a folder, which is used where it is. `auto` takes the BCCD
        data set in `data_dir`, be it a folder or an archive, else downloads it, else takes the
        sample, and then says why.
    data_dir : path
        Where data are kept; made if needed. Nothing in it is overwritten.
    progress : bool
        Show progress bars.

    Returns
    -------
    Path
        The folder of the data set, absolute; `smears_folder` finds the photographs in it.

    Raises
    ------
    InvalidParameter
        If the source is none of these.
    DataNotFound
        If there is nothing at the path, or no photographs with annotations in it.
    DownloadFailed
        If GitHub was asked for by name and did not give the data.
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
    if source == "bccd":
        return _fetch_bccd(data_dir, progress)
    if source == "sample":
        return sources.fetch("sample", data_dir, progress)
    if path.is_dir():
        smears_folder(path)
        return path
    if path.is_file():
        return _fetch_archive(path, data_dir, "local", progress)
    if isinstance(source, str) and re.fullmatch(r"\w+", source):
        raise InvalidParameter(f"source={source!r} is unknown. {_EXPECTED}")
    raise DataNotFound(f"There is nothing at {path}. {_EXPECTED}")


def _fetch_any(data_dir: Path, progress: bool) -> Path:
    """Fetch what `auto` stands for."""
    entries = sorted(data_dir.iterdir()) if data_dir.is_dir() else []
    visible = [entry for entry in entries if not entry.name.startswith(".")]
    for folder in filter(Path.is_dir, visible):
        if _is_bccd(folder):
            return _complete(folder)
    for file in filter(Path.is_file, visible):
        if _ARCHIVE_NAMES.fullmatch(file.name) and archives.holds(file, _are_smears):
            return _fetch_archive(file, data_dir, "local", progress)
    try:
        return _fetch_bccd(data_dir, progress)
    except DownloadFailed as error:
        folder = sources.fetch("sample", data_dir, progress)
        print(f"{SMEAR_BANNER}\nWhy the sample: {error}", file=sys.stderr, flush=True)
        return folder


def _is_bccd(folder: Path) -> bool:
    try:
        return identify_smears(folder).source.name == "bccd"
    except (DataNotFound, PermissionError):
        return False


def _fetch_archive(archive: Path, data_dir: Path, origin: str, progress: bool) -> Path:
    return _complete(archives.unpack_once(archive, data_dir, origin, _are_smears, WANTED, progress))


def _are_smears(names: list[str]) -> bool:
    """Tell whether some folder of an archive holds both photographs and annotations."""
    images = {name.partition("/JPEGImages/")[0] for name in names if "/JPEGImages/" in name}
    return any(f"{name.partition('/Annotations/')[0]}" in images
               for name in names if "/Annotations/" in name)  # fmt: skip


def _complete(folder: Path) -> Path:
    """Refuse what was fetched once and is no longer whole, or holds no smears."""
    smears_folder(archives.require_whole(folder))
    return folder


def _fetch_bccd(data_dir: Path, progress: bool) -> Path:
    source = SMEAR_SOURCES["bccd"]
    for folder in archives.fetched_folders(data_dir):
        if identity.read_marker(folder)["source"] == "bccd":
            return _complete(folder)
    what_else = (
        "Either run it again; or download it with a browser and give its path as SOURCE; or try "
        "SOURCE=sample."
    )
    download_folder = data_dir / ".bccd-download"
    archive = download_folder / "BCCD_Dataset-master.zip"
    downloads.download(source.archive, archive, 10 * source.n_bytes, what_else, progress)
    try:
        folder = _fetch_archive(archive, data_dir, "bccd", progress)
    except (BrokenArchive, DataNotFound) as error:
        shutil.rmtree(download_folder, ignore_errors=True)
        raise DownloadFailed(
            f"{source.archive} gave something else than the data, or was damaged on its way, and "
            f"what came was removed ({error}). {what_else}"
        ) from error
    shutil.rmtree(download_folder, ignore_errors=True)
    return folder


def smear_banner(found: SmearIdentity, markdown: bool = False) -> str:
    """Say that smears are drawn, in a way that cannot be overlooked.

    Parameters
    ----------
    found : SmearIdentity
        Of the data in use.
    markdown : bool
        For a notebook instead of a terminal.

    Returns
    -------
    str
        Empty for photographs.
    """
    if not found.drawn:
        return ""
    if markdown:
        return (
            "> # ⚠️ These smears are drawn\n"
            "> This is the embedded sample, not photographs of blood: counts and scores say "
            "nothing about blood, only that the notebooks run. For real photographs give `source` "
            f"as `bccd`, or as the path of the archive of <{SMEAR_SOURCES['bccd'].address}>."
        )
    return SMEAR_BANNER


def main() -> None:
    """Write the manifest of a known data set: `python -m wbc_helpers.data.smear_sources --help`."""
    parser = argparse.ArgumentParser(description="Write the manifest of the BCCD data set.")
    parser.add_argument("--write-manifest", metavar="FOLDER", required=True, type=Path)
    parser.add_argument("--target", type=Path, default=Path(str(MANIFEST)))
    arguments = parser.parse_args()
    write_smear_manifest(arguments.write_manifest, arguments.target)


if __name__ == "__main__":
    main()
