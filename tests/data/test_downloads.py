"""Downloads: whole or not at all, and a sentence that helps where they fail."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from wbc_helpers import storage
from wbc_helpers.data import downloads
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
    return downloads.download(address, target, largest, "Or draw.", progress=False)


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
    monkeypatch.setattr(downloads, "STALL_SECONDS", 0.2)
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
