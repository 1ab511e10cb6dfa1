"""Files fetched from a plain web address, whole or not at all."""

from pathlib import Path

import requests
from tqdm import tqdm

from wbc_helpers import storage
from wbc_helpers.errors import DownloadFailed

CONNECT_SECONDS, STALL_SECONDS = 5, 60
"""After which no answer, or no further byte, means no network."""

_CHUNK = 2**16


def download(
    address: str, target: str | Path, largest: int, what_else: str, progress: bool = True
) -> Path:
    """Download a file, unless it is there already.

    A download that was cut off begins anew: GitHub packs its archives as they are asked for, says
    neither how long they are nor gives a part of one.

    Parameters
    ----------
    address : str
        `https://…`; a proxy named in the environment is used.
    target : path
        The file; its folder is made if needed. It gets its name when it is complete.
    largest : int
        Bytes beyond which the download is given up.
    what_else : str
        What a person can do instead, for the message.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Path
        The file, absolute.

    Raises
    ------
    DownloadFailed
        If there is no answer, a refusal, a silence of `STALL_SECONDS`, or too much.
    NoSpaceLeft, ReadOnlyFolder
        If it cannot be written.
    """
    target = Path(target).expanduser().absolute()
    if target.is_file():
        return target
    try:
        with requests.get(address, stream=True, timeout=(CONNECT_SECONDS, STALL_SECONDS)) as answer:
            answer.raise_for_status()
            # Only now: where nothing can be fetched, no folder is left behind.
            storage.make_folder(target.parent)
            _receive(answer, target, largest, progress)
    except (requests.RequestException, _TooMuch) as error:
        raise DownloadFailed(
            f"{address} could not be downloaded: {_reason(error)}. Expected a public file. "
            f"{what_else}"
        ) from error
    return target


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
        for chunk in answer.iter_content(_CHUNK):
            written.write(chunk)
            bar.update(len(chunk))
            if written.tell() > largest:
                raise _TooMuch(f"it sent more than {largest / 1e6:,.0f} MB")


def _reason(error: Exception) -> str:
    """Say in plain words why; the library's own name the addresses of its objects."""
    if isinstance(error, requests.HTTPError):
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
