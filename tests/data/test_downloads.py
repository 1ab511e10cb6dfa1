"""Downloads: whole or not at all, continued or given up, telling what helps and no secret."""

import json
import os
import re
import sys
import threading
import time
import traceback
import urllib.parse
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from written_files import below, write_folder

from wbc_helpers import storage
from wbc_helpers.data import archives
from wbc_helpers.errors import DownloadFailed, NoSpaceLeft

CONTENT = bytes(range(256)) * 1000


class Server(BaseHTTPRequestHandler):
    """Answers by path, as GitHub does: moved elsewhere, and without saying how much will come."""

    asked: list[str]

    def do_GET(self):
        self.asked.append(self.path)
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/file")
            self.end_headers()
        elif self.path == "/file":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(CONTENT)
        elif self.path == "/cut":
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT[:1000])
        elif self.path == "/silent":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(CONTENT[:1000])
            self.wfile.flush()
            self.server.released.wait(10)
        else:
            self.send_error(404)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(Server, "asked", [], raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        server.released = threading.Event()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        server.address = f"http://127.0.0.1:{server.server_port}"
        yield server
        server.released.set()
        server.shutdown()


def download(address, target, largest=10**6):
    return archives.download(address, target, largest, "Or draw.", progress=False)


def test_file_is_downloaded_once(server, tmp_path):
    target = tmp_path / "new" / "archive.zip"
    assert download(f"{server.address}/moved", target) == target
    assert target.read_bytes() == CONTENT
    assert [path.name for path in target.parent.iterdir()] == ["archive.zip"]
    assert download(f"{server.address}/moved", target) == target
    assert Server.asked == ["/moved", "/file"]


@pytest.mark.parametrize(
    ("path", "reason"),
    [("/nothing", "answered 404"), ("/cut", "broke off"), ("/silent", "nothing more for 0.2")],
)
def test_failure_leaves_nothing_and_says_what_else(server, tmp_path, monkeypatch, path, reason):
    monkeypatch.setattr(archives, "STALL_SECONDS", 0.2)
    with pytest.raises(DownloadFailed, match=rf"{path} could.*{reason}.*Or draw\."):
        download(server.address + path, tmp_path / "archive.zip")
    assert list(tmp_path.iterdir()) == []


def test_too_much_is_given_up(server, tmp_path):
    with pytest.raises(DownloadFailed, match="more than 0 MB"):
        download(f"{server.address}/file", tmp_path / "archive.zip", largest=70_000)
    assert list(tmp_path.iterdir()) == []


def test_no_network_makes_no_folder(tmp_path, server):
    # Port 9 of this machine refuses connections.
    with pytest.raises(DownloadFailed, match="no connection"):
        download("http://127.0.0.1:9/x", tmp_path / "new" / "archive.zip")
    assert list(tmp_path.iterdir()) == []


def test_full_disk_has_its_own_name(server, tmp_path, monkeypatch):
    monkeypatch.setattr(storage.shutil, "disk_usage", lambda path: type("", (), {"free": 10}))
    with pytest.raises(NoSpaceLeft):
        download(f"{server.address}/cut", tmp_path / "archive.zip")
    assert list(tmp_path.iterdir()) == []


# Kaggle's client

DATASET = "somebody/cells"
TOKEN = "KGAT_0123456789abcdef/+=secret"


def download_dataset(folder, progress=False):
    return archives.download_from_kaggle(DATASET, folder, 1000, progress)


@pytest.fixture(autouse=True)
def home(tmp_path_factory, monkeypatch):
    """A user without credentials, and no network."""
    home = tmp_path_factory.mktemp("home")
    for name in list(os.environ):
        if name.startswith("KAGGLE_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    # Port 9 of this machine refuses connections.
    monkeypatch.setattr(archives, "KAGGLE", "http://127.0.0.1:9")
    return home


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "download folder"


@pytest.fixture
def archive(tmp_path):
    """What Kaggle has, about 3 kB."""
    with zipfile.ZipFile(tmp_path / "original.zip", "w") as zipped:
        for i in range(20):
            zipped.writestr(f"TRAIN/EOSINOPHIL/_{i}_{i}.jpeg", f"image {i}")
    return tmp_path / "original.zip"


class Silent(BaseHTTPRequestHandler):
    """Takes a request and never answers."""

    def do_GET(self):
        time.sleep(1)


class Kaggle(BaseHTTPRequestHandler):
    """As much of Kaggle as a download needs, reached as a proxy for http://localhost."""

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if "/files/" not in self.path:
            return self.answer(404)
        data, etag = self.server.archive.read_bytes(), '"one"'
        headers = {"Accept_Ranges": "bytes", "ETag": etag, "Content_Type": "application/zip"}
        self.server.ranges.append(self.headers.get("Range"))
        if self.headers.get("Range"):
            start = int(re.fullmatch(r"bytes=(\d+)-", self.headers["Range"])[1])
            return self.answer(206, data[start:], **headers)
        return self.answer(200, data, **headers)

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        authorization = self.headers.get("Authorization")
        if self.path.endswith("/IntrospectToken"):
            known = self.server.token == TOKEN
            body = json.dumps({"active": known, "username": "somebody" if known else ""}).encode()
            return self.answer(200, body, Content_Type="application/json")
        self.server.asked.append(authorization)
        if self.server.token is None or authorization == f"Bearer {self.server.token}":
            return self.answer(302, Location="http://localhost/files/cells.zip?sig=signature")
        body = json.dumps({"code": 401, "message": f"Unauthenticated: {authorization}"}).encode()
        return self.answer(401, body, Content_Type="application/json")


@pytest.fixture
def kaggle(archive, monkeypatch):
    """Kaggle on the loopback interface; `token` None means that everybody is let in."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Kaggle) as server:
        server.archive, server.token, server.asked, server.ranges = archive, None, [], []
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "LOCALHOST")
        monkeypatch.setattr(archives, "KAGGLE", "http://localhost")
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def use_client(monkeypatch, program):
    """Run `program` in place of Kaggle's client; `zip_file` is where it should write."""
    start = (
        "import os, pathlib, sys, time\n"
        f"assert sys.argv[1:4] == ['datasets', 'download', {DATASET!r}]\n"
        "zip_file = pathlib.Path(sys.argv[4], 'cells.zip')\n"
        "token = os.environ.get('KAGGLE_API_TOKEN')\n"
    )
    monkeypatch.setattr(archives, "_CLIENT", (sys.executable, "-S", "-c", start + program))


def give(archive):
    return f"zip_file.write_bytes(pathlib.Path({str(archive)!r}).read_bytes())\n"


# Kaggle that cannot be reached


def test_no_network_says_what_to_do(folder):
    started = time.monotonic()
    with pytest.raises(DownloadFailed, match=r"cannot be reached.*run it again.*token.*SOURCE"):
        download_dataset(folder)
    assert time.monotonic() - started < 3
    assert not folder.exists()


def test_network_that_never_answers_is_given_up(folder, monkeypatch):
    with ThreadingHTTPServer(("127.0.0.1", 0), Silent) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setattr(archives, "KAGGLE", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setattr(archives, "PROBE_SECONDS", 0.2)
        started = time.monotonic()
        with pytest.raises(DownloadFailed, match="cannot be reached"):
            download_dataset(folder)
        assert time.monotonic() - started < 2
        server.shutdown()


def test_name_look_up_that_hangs_is_given_up(folder, monkeypatch):
    monkeypatch.setattr(archives, "PROBE_SECONDS", 0.1)
    asking = threading.Event()

    def hang():
        asking.wait(5)
        raise OSError

    monkeypatch.setattr(archives.urllib.request, "build_opener", hang)
    started = time.monotonic()
    with pytest.raises(DownloadFailed, match=r"no answer within 0\.1 seconds"):
        download_dataset(folder)
    assert time.monotonic() - started < 2
    asking.set()


# A stand-in for the client


def test_archive_is_downloaded_once(kaggle, archive, folder, monkeypatch, capfd):
    use_client(monkeypatch, "print('chatter'); assert token is None\n" + give(archive))
    assert download_dataset(str(folder)) == folder / "cells.zip"
    assert below(folder) == {"cells.zip": archive.read_bytes()}
    assert capfd.readouterr() == ("", "")
    use_client(monkeypatch, "sys.exit('never asked again')")
    monkeypatch.setattr(archives, "_why_unreachable", lambda: "no network")
    assert download_dataset(folder) == folder / "cells.zip"


def test_progress_is_shown(kaggle, archive, folder, monkeypatch, capfd):
    use_client(monkeypatch, give(archive) + "time.sleep(0.6)")
    download_dataset(folder, progress=True)
    assert re.search(r"downloading: 2\.\d+kB ", capfd.readouterr().err)


def test_download_cut_off_is_continued_and_never_used(kaggle, archive, folder, monkeypatch):
    use_client(
        monkeypatch,
        give(archive) + "os.truncate(zip_file, 1000); sys.exit('Error: connection lost')",
    )
    with pytest.raises(DownloadFailed, match="connection lost"):
        download_dataset(folder)
    assert below(folder) == {"cells.zip": archive.read_bytes()[:1000]}
    use_client(
        monkeypatch,
        "assert zip_file.stat().st_size == 1000\n"
        f"zip_file.open('ab').write(pathlib.Path({str(archive)!r}).read_bytes()[1000:])",
    )
    assert download_dataset(folder).read_bytes() == archive.read_bytes()


def test_client_that_ends_well_with_half_an_archive(kaggle, archive, folder, monkeypatch):
    use_client(monkeypatch, give(archive) + "os.truncate(zip_file, 1000)")
    with pytest.raises(DownloadFailed):
        download_dataset(folder)


def test_stalled_download_is_given_up(kaggle, folder, monkeypatch):
    monkeypatch.setattr(archives, "KAGGLE_STALL_SECONDS", 0.1)
    use_client(monkeypatch, "time.sleep(60)")
    started = time.monotonic()
    with pytest.raises(DownloadFailed, match=r"no data came for 0\.1 seconds"):
        download_dataset(folder)
    assert time.monotonic() - started < 5


def test_interrupted_download_ends_the_client(kaggle, folder, tmp_path, monkeypatch):
    use_client(
        monkeypatch,
        f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid())); time.sleep(60)",
    )

    def interrupt(*_):
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            time.sleep(0.01)
        raise KeyboardInterrupt

    monkeypatch.setattr(archives, "_wait", interrupt)
    with pytest.raises(KeyboardInterrupt):
        download_dataset(folder)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_full_disk_during_the_download(kaggle, folder, monkeypatch):
    use_client(monkeypatch, "sys.exit('OSError: [Errno 28] No space left on device')")
    with pytest.raises(NoSpaceLeft, match="is continued"):
        download_dataset(folder)


def test_full_disk_before_the_download(kaggle, folder, monkeypatch):
    use_client(monkeypatch, "sys.exit('never started')")
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda path: type("", (), {"free": 1999}))
    with pytest.raises(NoSpaceLeft, match="somebody/cells needs"):
        download_dataset(folder)
    assert not folder.exists()


def test_client_that_is_not_installed(kaggle, folder, monkeypatch):
    monkeypatch.setattr(archives.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DownloadFailed, match="pip install kaggle"):
        download_dataset(folder)


PLACES = {
    "KAGGLE_API_TOKEN": lambda home, patch: patch.setenv("KAGGLE_API_TOKEN", TOKEN),
    "a file": lambda home, patch: (
        patch.setenv("KAGGLE_API_TOKEN", str(home / "token.txt")),
        write_folder(home, {"token.txt": TOKEN.encode()}),
    ),
    "KAGGLE_KEY": lambda home, patch: (
        patch.setenv("KAGGLE_USERNAME", "somebody"),
        patch.setenv("KAGGLE_KEY", TOKEN),
    ),
    "access_token": lambda home, patch: write_folder(
        home, {".kaggle/access_token": TOKEN.encode() + b"\n"}
    ),
    "kaggle.json": lambda home, patch: write_folder(
        home,
        {".config/kaggle/kaggle.json": json.dumps({"username": "me", "key": TOKEN}).encode()},
    ),
    "credentials.json": lambda home, patch: write_folder(
        home,
        {".kaggle/credentials.json": json.dumps({"refresh_token": TOKEN}, indent=1).encode()},
    ),
}


@pytest.mark.parametrize("place", PLACES)
def test_credentials_are_used_only_after_anonymous_access_failed(
    place, kaggle, archive, folder, home, monkeypatch
):
    PLACES[place](home, monkeypatch)
    use_client(
        monkeypatch,
        f"named = [n for n in os.environ if n.startswith('KAGGLE_')]\n"
        f"if os.environ['HOME'] != {str(home)!r}:\n"
        "    assert named == ['KAGGLE_API_ENVIRONMENT'], named\n"
        "    assert not any(pathlib.Path.home().iterdir())\n"
        "    sys.exit('HTTPError: 401 Client Error: Unauthorized')\n" + give(archive),
    )
    before = below(home)
    assert download_dataset(folder) == folder / "cells.zip"
    assert below(home) == before


@pytest.mark.parametrize("place", PLACES)
def test_refused_token_appears_nowhere(place, kaggle, folder, home, monkeypatch, capfd):
    PLACES[place](home, monkeypatch)
    forms = [TOKEN, urllib.parse.quote(TOKEN, safe=""), f"Bearer {TOKEN}", json.dumps(TOKEN)]
    use_client(monkeypatch, f"sys.exit('HTTPError: 401 Client Error: ' + ' '.join({forms!r}))")
    with pytest.raises(DownloadFailed, match="401 Client Error") as caught:
        download_dataset(folder, progress=True)
    told = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    frames = [
        frame.locals
        for frame in told.stack
        if Path(frame.filename).name == Path(archives.__file__).name
    ]
    assert "reasons" in frames[-1]
    everything = f"{frames} {caught.value.args} {capfd.readouterr()} {below(folder)}"
    # A part of it would be too much as well.
    for secret in (TOKEN, TOKEN[5:21], urllib.parse.quote(TOKEN, safe="")[10:]):
        assert secret not in everything


def test_refused_without_credentials_says_so(kaggle, folder, monkeypatch):
    use_client(
        monkeypatch, "sys.exit('HTTPError: 403 Client Error: Forbidden for url: http://x/y')"
    )
    with pytest.raises(DownloadFailed) as caught:
        download_dataset(folder)
    reason = "without an account: 403 Client Error: Forbidden; no credentials were found"
    assert reason in str(caught.value)
    assert "accept the terms" in str(caught.value)


def test_client_is_never_asked_to_be_verbose(monkeypatch):
    monkeypatch.setenv("VERBOSE", "1")
    monkeypatch.setenv("VERBOSE_OUTPUT", "true")
    for home in (None, "/nowhere"):
        assert not {"VERBOSE", "VERBOSE_OUTPUT"} & set(archives._environment(home))


# Kaggle's own client, against Kaggle on the loopback interface


@pytest.mark.slow
def test_real_client_downloads_without_an_account(kaggle, archive, folder, capfd):
    assert download_dataset(folder) == folder / "cells.zip"
    assert (folder / "cells.zip").read_bytes() == archive.read_bytes()
    assert kaggle.asked == [None]
    assert kaggle.ranges == [None]
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_real_client_continues_a_download(kaggle, archive, folder):
    data = archive.read_bytes()
    folder.mkdir()
    (folder / "cells.zip").write_bytes(data[:1000])
    marker = json.dumps({"validator": '"one"', "size": len(data)})
    (folder / "cells.zip.kaggle-partial").write_text(marker)
    assert download_dataset(folder).read_bytes() == data
    assert kaggle.ranges[-1] == "bytes=1000-"


@pytest.mark.slow
def test_real_client_uses_a_token_where_it_must(kaggle, archive, folder, monkeypatch):
    kaggle.token = TOKEN
    monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)
    assert download_dataset(folder).read_bytes() == archive.read_bytes()
    assert kaggle.asked == [None, f"Bearer {TOKEN}"]
    assert TOKEN.encode() not in b"".join(below(folder).values())


@pytest.mark.slow
def test_real_client_with_a_refused_token(kaggle, folder, monkeypatch, capfd):
    kaggle.token = "another"
    monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)
    with pytest.raises(DownloadFailed) as caught:
        download_dataset(folder, progress=True)
    assert f"Bearer {TOKEN}" in kaggle.asked
    assert "without an account: Unauthenticated: None" in str(caught.value)
    assert "with KAGGLE_API_TOKEN: Unauthenticated: [hidden]" in str(caught.value)
    output = capfd.readouterr()
    assert TOKEN not in str(caught.value) + output.out + output.err
    assert "Authentication required" not in output.out + output.err
