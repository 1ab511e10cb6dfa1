"""Every error a user can meet, by name.

Each message says what was found, what was expected and what to do about it. All of them are
`WbcError`, so that one `except` catches what this package refuses and nothing else.
"""


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

