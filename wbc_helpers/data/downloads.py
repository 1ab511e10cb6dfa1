"""Archives downloaded from a web address or from Kaggle, whole or not at all.

Kaggle's own client runs in a process of its own. What it prints, and the credentials it reads,
stay there: of both, no secret reaches a message.
"""

import contextlib
import http.client
import importlib.util
import json
import os
import re
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
from pathlib import Path

import requests
from tqdm import tqdm

from wbc_helpers import storage
from wbc_helpers.data import archives
from wbc_helpers.errors import BrokenArchive, DataNotFound, DownloadFailed, NoSpaceLeft

CONNECT_SECONDS, STALL_SECONDS = 5, 60
"""After which no answer, or no further byte, means no network."""

_CHUNK = 2**16


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
        raise failure(address, _reason(error), what_else) from error
    return target


def failure(address: str, reason: str, what_else: str) -> DownloadFailed:
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
        for chunk in answer.iter_content(_CHUNK):
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


ADDRESS = "https://api.kaggle.com"
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
    archive = Path(folder).expanduser().absolute() / f"{dataset.split('/')[1]}.zip"
    if _is_whole(archive):
        return archive
    if reason := _why_unreachable():
        raise kaggle_failure(dataset, f"{ADDRESS} cannot be reached ({reason})")
    if importlib.util.find_spec("kaggle") is None:
        raise kaggle_failure(dataset, "its client is not installed (pip install kaggle)")
    archives.require_space(archive.parent, 2 * n_bytes, dataset)
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
    """`failure` of a data set on Kaggle."""
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
        return bool(archives.inspect(archive))
    except (DataNotFound, BrokenArchive):
        return False


def _why_unreachable() -> str | None:
    """Ask within seconds whether Kaggle answers at all, also through a proxy."""
    reasons = [f"no answer within {PROBE_SECONDS} seconds"]

    def ask() -> None:
        try:
            # An opener of its own: the shared one remembers the proxies of its first use.
            opener = urllib.request.build_opener()
            opener.open(ADDRESS, timeout=PROBE_SECONDS).close()
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
