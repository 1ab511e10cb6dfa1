"""A page that reads photographs in the browser, in one file that asks for nothing.

The networks that ship, ONNX Runtime and OpenCV, both compiled to WebAssembly, lie inside it,
packed. It opens from disk and without a network; what is dropped onto it stays on the machine, as
its Content-Security-Policy has the browser see to. What it computes is what `smears` computes: see
`templates/pixels.js` and `templates/reader.js`.
"""

import base64
import gzip
import hashlib
import json
import tarfile
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from wbc_helpers import cells
from wbc_helpers.classify import teaching
from wbc_helpers.count.differential import LEAST_CELLS
from wbc_helpers.count.fitness import ADVICE
from wbc_helpers.count.pages import gallery_looks
from wbc_helpers.data.archives import download
from wbc_helpers.errors import BrokenArchive
from wbc_helpers.report import pages
from wbc_helpers.runs.recipes import RECIPES
from wbc_helpers.storage import make_folder


@dataclass(frozen=True)
class Library:
    """A package of registry.npmjs.org, pinned.

    Attributes
    ----------
    name, version : str
    sha512 : str
        Of the archive, in base64, as the registry publishes it.
    files : dict
        Path in the archive of each file that is taken, by its name in the page.
    largest : int
        Bytes beyond which it is no such archive.
    """

    name: str
    version: str
    sha512: str
    files: dict[str, str]
    largest: int

    @property
    def address(self) -> str:
        """Where it is downloaded from."""
        last = self.name.rpartition("/")[2]
        return f"https://registry.npmjs.org/{self.name}/-/{last}-{self.version}.tgz"


LIBRARIES = (
    Library(
        "onnxruntime-web", "1.30.0",
        "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ==",
        {
            "ort-here": "package/dist/ort.wasm.bundle.min.mjs",
            "ort-here-wasm": "package/dist/ort-wasm-simd-threaded.wasm",
            "ort-gpu": "package/dist/ort.jspi.bundle.min.mjs",
            "ort-gpu-wasm": "package/dist/ort-wasm-simd-threaded.jspi.wasm",
        },
        40_000_000,
    ),
    # The version of OpenCV that Python uses, so that both see the same.
    Library(
        "@techstark/opencv-js", "5.0.0-release.1",
        "PIm+eB0MFtieXoNC2GRao0dv/02sehG+Nv2nSW5D6pQm6J/4WqvDHm0RyoqOmGYQm67jdGiaOdIeTShCY3PIUg==",
        {"opencv": "package/dist/opencv.js"},
        10_000_000,
    ),
)  # fmt: skip

_SCRIPTS = ("pixels.js", "reader.js", "worker.js")


def write_page(out: str | Path, data_dir: str | Path = "data", progress: bool = True) -> Path:
    """Write the page, to a file or as `index.html` into a folder; the file.

    The libraries are downloaded into `data_dir`, unless they are there.

    Raises
    ------
    DownloadFailed
        If they are not there and cannot be downloaded.
    BrokenArchive
        If one of them is not what was pinned.
    PageExists
        If there is a file of that name that this package did not write.
    ReadOnlyFolder, NoSpaceLeft
        If a file cannot be written.
    """
    target = Path(out).expanduser().absolute()
    if target.is_dir() or target.suffix.lower() not in (".html", ".htm"):
        target /= "index.html"
    pages.refuse_foreign([target])
    parts = {
        name: content
        for library in LIBRARIES
        for name, content in fetch(library, Path(data_dir), progress).items()
    }
    about: dict[str, Any] = {"kinds": list(cells.KIND_NAMES), "other": cells.OTHER}
    for task, name in (("detector", "detector"), ("classifier", "broad")):
        folder = resources.files("wbc_helpers") / "weights"
        parts[task] = (folder / f"{name}.onnx").read_bytes()
        about[task] = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    if (learned := teaching.shipped("broad")) is not None:
        numbers = np.concatenate([learned.centre[np.newaxis], learned.examples])
        parts["learned"] = numbers.astype("<f4").tobytes()
    about["answers"] = list(RECIPES[about["classifier"]["recipe"]].answers)
    texts = {
        name: (pages.TEMPLATES / name).read_text(encoding="utf-8")
        for name in (*_SCRIPTS, "tables.js", "gallery.js", "page.js", "gallery.css")
    }
    work = "\n".join(texts[name] for name in _SCRIPTS)
    parts["worker"] = f"(() => {{\n{work}}})();".encode()
    scripts = [texts["tables.js"], texts["gallery.js"], texts["page.js"]]
    page = pages.environment().get_template("reader.html.j2").render(
        parts={name: _packed(content) for name, content in parts.items()},
        about=about,
        gallery={
            **{"key": "wbc page", "title": "my slide", "drawn": False},
            **{**gallery_looks(), "confidence": 0.95, "least": LEAST_CELLS},
        },
        advice=ADVICE,
        gallery_style=Markup(texts["gallery.css"]),
        scripts=[Markup(script) for script in scripts],
        script_hashes=Markup(" ".join(map(_hash, scripts))),
        libraries=LIBRARIES,
    )  # fmt: skip
    make_folder(target.parent)
    return pages.write_page(target, page)


def fetch(library: Library, data_dir: Path, progress: bool = True) -> dict[str, bytes]:
    """Download a library, unless it is there, and give out the files that are taken.

    For the errors see `write_page`.
    """
    name = f"{library.name.strip('@').replace('/', '-')}-{library.version}.tgz"
    archive = download(
        library.address, data_dir / name, library.largest,
        f"Connect once, or put the file at {data_dir / name} yourself; the page needs no network.",
        progress,
    )  # fmt: skip
    with archive.open("rb") as stream:
        digest = base64.b64encode(hashlib.file_digest(stream, "sha512").digest()).decode("ascii")
    if digest != library.sha512:
        raise BrokenArchive(
            f"{archive} is not {library.name} {library.version}: its SHA-512 is {digest}. Expected "
            f"{library.sha512}. Move it away, then run this again to download it anew."
        )
    with tarfile.open(archive) as tar:
        files = {name: tar.extractfile(path) for name, path in library.files.items()}
        return {name: file.read() for name, file in files.items() if file is not None}


def _packed(content: bytes) -> str:
    """Compress and write as text; the same content gives the same text."""
    return base64.b64encode(gzip.compress(content, 9, mtime=0)).decode("ascii")


def _hash(script: str) -> str:
    """Say which script a page may run, as its Content-Security-Policy names it."""
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
