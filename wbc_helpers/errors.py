"""Every error a user can meet, by name.

Each message says what was found, what was expected and what to do about it. All of them are
`WbcError`, so that one `except` catches what this package refuses and nothing else.
"""

import math
from collections.abc import Sequence
from numbers import Integral
from pathlib import Path
from typing import Any


class WbcError(Exception):
    """Base of all errors that this package raises on purpose."""


class InvalidParameter(WbcError, ValueError):
    """A parameter has a wrong type or a value outside its range."""


class DataNotFound(WbcError, FileNotFoundError):
    """A folder or archive is missing, or holds no data set in the expected layout."""


class DataMismatch(WbcError):
    """The data are not those expected: counts, content or class folders deviate."""


class BrokenArchive(WbcError):
    """An archive is truncated, damaged or not an archive."""


class UnsafeArchive(WbcError):
    """An archive would write outside its folder, or unpack to an absurd size."""


class DownloadFailed(WbcError):
    """The data could not be downloaded: no network, no access, or a refused token."""


class NoSpaceLeft(WbcError, OSError):
    """The disk is too full for what would be written."""


class ReadOnlyFolder(WbcError, PermissionError):
    """A folder that must be written to cannot be."""


class UnreadableImage(WbcError):
    """One or more files are not complete images of the expected kind; the message names them."""


class RunExists(WbcError, FileExistsError):
    """A run of this name exists with other settings or other data. Nothing is overwritten."""


class RunNotFound(WbcError, FileNotFoundError):
    """There is no run folder of this name."""


class BrokenRun(WbcError):
    """A run folder is incomplete, of another format, or holds a model that is not ours."""


class PageExists(WbcError, FileExistsError):
    """A page of this name exists that this package did not write. It is not replaced."""


class InstallationFailed(WbcError):
    """A package that the notebooks need is missing and could not be installed."""


def is_whole(value: object, low: int, high: float = math.inf) -> bool:
    """Tell whether this is a whole number, Python's or NumPy's, from `low` to `high`."""
    return isinstance(value, Integral) and not isinstance(value, bool) and low <= int(value) <= high


def check_whole(name: str, value: Any, low: int, high: float = math.inf) -> int:
    """Refuse what is no whole number from `low` to `high`, both included; return it as an int.

    Parameters
    ----------
    name : str
        Of the parameter, for the message.
    value : object
        Expected: a whole number, Python's or NumPy's.

    Raises
    ------
    InvalidParameter
        If it is anything else.
    """
    if not is_whole(value, low, high):
        extent = f"from {low:,} to {high:,}" if high < math.inf else f"of at least {low:,}"
        raise InvalidParameter(f"{name}={value!r} is not usable. Expected a whole number {extent}.")
    return int(value)


def check_fraction(name: str, value: Any, includes_one: bool = False) -> None:
    """Refuse what is no number between 0 and 1.

    Parameters
    ----------
    name : str
        Of the parameter, for the message.
    value : object
        Expected: a number above 0 and below 1.
    includes_one : bool
        Allow 1, too.

    Raises
    ------
    InvalidParameter
        If it is anything else.
    """
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else -1
    if not (0 < number < 1 or (includes_one and number == 1)):
        raise InvalidParameter(
            f"{name}={value!r} is not usable. Expected a number above 0 and "
            f"{'at most' if includes_one else 'below'} 1."
        )


def check_choice(name: str, value: object, choices: Sequence[Any]) -> None:
    """Refuse what is none of the choices.

    Parameters
    ----------
    name : str
        Of the parameter, for the message.
    value : object
        Expected: one of `choices`.
    choices : sequence
        What there is to choose from.

    Raises
    ------
    InvalidParameter
        If it is anything else.
    """
    if value not in choices:
        raise InvalidParameter(
            f"{name}={value!r} is not usable. Expected one of {', '.join(map(str, choices))}."
        )


def check_folder(name: str, value: object, root: Path) -> Path:
    """Check the name of a folder that a person gave.

    Parameters
    ----------
    name : str
        Of the parameter, for the message.
    value : object
        Expected: a path; `~` stands for the home folder.
    root : Path
        Folder from which a relative path is meant.

    Returns
    -------
    Path
        Absolute. The folder need not exist.

    Raises
    ------
    InvalidParameter
        If it is no path, or a file stands there.
    """
    if not isinstance(value, str | Path) or not str(value).strip():
        raise InvalidParameter(
            f"{name}={value!r} is no folder. Expected a path, absolute or from the project's."
        )
    folder = (root / Path(value).expanduser()).absolute()
    if folder.exists() and not folder.is_dir():
        raise InvalidParameter(f"{name}={value!r} is a file. Expected a folder, or a new name.")
    return folder
