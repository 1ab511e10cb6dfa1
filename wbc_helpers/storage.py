"""Files written whole or not at all, with errors that say what to do."""

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wbc_helpers.errors import NoSpaceLeft, ReadOnlyFolder


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
