"""Archives unpacked once, each into a folder that says what it was made from."""

import hashlib
import os
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from wbc_helpers import archives, storage
from wbc_helpers.errors import DataMismatch, DataNotFound, ReadOnlyFolder
from wbc_helpers.identity import MARKER, read_marker

_ARCHIVE_SUFFIX = re.compile(r"\.(zip|tgz|tar\.gz)$", re.IGNORECASE)


def unpack_once(
    archive: Path,
    data_dir: Path,
    origin: str,
    is_wanted: Callable[[list[str]], bool],
    wanted: str,
    progress: bool = True,
) -> Path:
    """Unpack an archive below a folder, unless that was done before.

    Parameters
    ----------
    archive : Path
        A .zip, .tar.gz or .tgz file.
    data_dir : Path
        Made if needed. A folder named like the archive is made in it; if something else has that
        name, digits of the archive's SHA-256 are added.
    origin : str
        Name of the source, noted in the folder; `local` if the archive came from the user.
    is_wanted : callable
        Tells from the paths of an archive's files and folders, each with `/` at both ends, whether
        it holds the data; if not, nothing is unpacked.
    wanted : str
        What the data look like, for the message.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Path
        The folder, perhaps unpacked long ago; see `require_whole`.

    Raises
    ------
    DataNotFound
        If the archive does not hold the data.
    BrokenArchive, UnsafeArchive, NoSpaceLeft, ReadOnlyFolder
        See `archives.unpack`.
    """
    facts = archive.stat()
    described = {"name": archive.name, "size": facts.st_size, "mtime_ns": facts.st_mtime_ns}
    earlier = {folder: read_marker(folder)["archive"] for folder in fetched_folders(data_dir)}
    for folder, known in earlier.items():
        if described.items() <= known.items():
            return folder
    with archive.open("rb") as stream:
        described["sha256"] = hashlib.file_digest(stream, "sha256").hexdigest()
    for folder, known in earlier.items():
        if known.get("sha256") == described["sha256"]:
            if origin != "local":
                storage.write_json(folder / MARKER, {**read_marker(folder), "source": origin})
            return folder
    if not holds(archive, is_wanted):
        raise DataNotFound(f"{archive} holds no {wanted}; nothing was unpacked.")
    stem = _ARCHIVE_SUFFIX.sub("", archive.name) or "archive"
    names = (stem, f"{stem}-{described['sha256'][:8]}", f"{stem}-{described['sha256']}")
    target = next(filter(archives.is_free, map(data_dir.joinpath, names)), data_dir / stem)
    try:
        with archives.atomic_folder(target) as partial:
            n_files = archives.unpack(archive, partial, progress)
            storage.write_json(
                partial / MARKER,
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
        if read_marker(target).get("archive") != described:
            raise
    return target


def holds(archive: Path, is_wanted: Callable[[list[str]], bool]) -> bool:
    """Tell whether an archive holds the data that are looked for, see `unpack_once`."""
    return is_wanted([f"/{member.name}/" for member in archives.inspect(archive)])


def fetched_folders(data_dir: Path) -> list[Path]:
    """List the folders in `data_dir` that archives were unpacked into."""
    if not data_dir.is_dir():
        return []
    return [folder for folder in sorted(data_dir.iterdir()) if read_marker(folder)]


def require_whole(folder: Path) -> Path:
    """Refuse what was fetched once and has lost files since.

    Parameters
    ----------
    folder : Path
        Any; one that was not fetched is nobody's business here.

    Returns
    -------
    Path
        The folder as given.

    Raises
    ------
    DataMismatch
        If it holds fewer files than were unpacked there.
    """
    marker = read_marker(folder)
    n_files = sum(len(files) for _, _, files in os.walk(folder)) - 1
    if marker and n_files < marker["n_files"]:
        raise DataMismatch(
            f"{folder} holds {n_files:,} of the {marker['n_files']:,} files that were unpacked "
            "there; the others were removed since. Move the folder away and fetch again."
        )
    return folder
