"""Every error a user can meet, by name.

Each message says what was found, what was expected and what to do about it. All of them are
`WbcError`, so that one `except` catches what this package refuses and nothing else.
"""

import difflib
import math
from collections.abc import Iterable, Sequence
from numbers import Integral
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


class FolderGone(WbcError):
    """A drive or network folder has gone away while it was in use; what was finished is there."""


class FolderInUse(WbcError):
    """Another process is writing into the same folder."""


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


class NothingLearned(WbcError):
    """Labels of a laboratory made the answers no better. Nothing was written."""


class InstallationFailed(WbcError):
    """A package that the notebooks need is missing and could not be installed."""


class PackageMissing(WbcError, ImportError):
    """What was asked for takes a package that is an extra; the message says how to install it."""


class NoWorkers(WbcError, ConnectionError):
    """The workers that were to share the work cannot be reached, or died of it."""


def is_whole(value: object, low: int, high: float = math.inf) -> bool:
    """Tell whether this is a whole number, Python's or NumPy's, from `low` to `high`."""
    return isinstance(value, Integral) and not isinstance(value, bool) and low <= int(value) <= high


def check_whole(name: str, value: Any, low: int, high: float = math.inf) -> int:
    """Return a whole number from `low` to `high` as an int, or raise `InvalidParameter`.

    `value` may be Python's or NumPy's; both ends are included; `name` is for the message.
    """
    if not is_whole(value, low, high):
        extent = f"from {low:,} to {high:,}" if high < math.inf else f"of at least {low:,}"
        raise InvalidParameter(f"{name}={value!r} is not usable. Expected a whole number {extent}.")
    return int(value)


def check_fraction(name: str, value: Any, includes_one: bool = False) -> None:
    """Raise `InvalidParameter` unless a number lies above 0 and below 1, or is 1 where that counts.

    `name` is the parameter's, for the message.
    """
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else -1
    if not (0 < number < 1 or (includes_one and number == 1)):
        raise InvalidParameter(
            f"{name}={value!r} is not usable. Expected a number above 0 and "
            f"{'at most' if includes_one else 'below'} 1."
        )


def check_choice(name: str, value: object, choices: Sequence[Any]) -> None:
    """Raise `InvalidParameter` if `value` is none of `choices`; `name` is for the message."""
    if value not in choices:
        raise InvalidParameter(
            f"{name}={value!r} is not usable. Expected one of {', '.join(map(str, choices))}."
        )


def check_names(what: str, given: Iterable[str], known: Sequence[str]) -> None:
    """Raise `InvalidParameter` unless all names given are known; the message names the nearest.

    `what` they are, such as `parameter`, is for the message.
    """
    unknown = [name for name in given if name not in known]
    if unknown:
        nearest = difflib.get_close_matches(unknown[0], known, n=1, cutoff=0.5)
        question = f"; did you mean {nearest[0]!r}?" if nearest else "."
        raise InvalidParameter(
            f"There is no {what} {unknown[0]!r}{question} Expected any of {', '.join(known)}. "
            "Nothing was begun."
        )
