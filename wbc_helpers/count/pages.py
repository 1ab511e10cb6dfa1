"""Counted smears as pages to browse without a network, the worst first.

`index.html` has the counts, the differential and the smears as cards, `PER_PAGE` a page, and the
gallery of their white cells, in which a person corrects the answers, see `templates/gallery.js`;
each smear has a page of its own with its cells drawn on the photograph. A page holds its pictures
and asks for no other file. Without its script it has all but the gallery.

The stand-alone page reads photographs itself, in the browser, and shows them in the same gallery.
"""

import base64
import functools
import gzip
import hashlib
import io
import itertools
import json
import os
import re
import tarfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup
from tqdm import tqdm

from wbc_helpers import cells, storage
from wbc_helpers.cells import BOX
from wbc_helpers.classify import teaching
from wbc_helpers.count import differential, fitness
from wbc_helpers.count.smears import SETTINGS, FolderCounts, read_counted
from wbc_helpers.data.archives import download
from wbc_helpers.errors import BrokenArchive, UnreadableImage
from wbc_helpers.evaluate.confidence import ADAPTED, FOREIGN, LEAST_TO_JUDGE, least_answered
from wbc_helpers.pixels.images import read_image
from wbc_helpers.report import pages
from wbc_helpers.runs.recipes import RECIPES

PER_PAGE = 48
"""Smears whose cards stand on one page."""

SMEARS = "smears"
"""Folder of the smears' own pages."""

RED_CELL_WIDTH = 7.5
"""Micrometres that a red cell is taken to be wide where a scale bar is drawn."""

MARKERS = {
    "o": '<circle r="1"/>',
    "s": '<path d="M-.9-.9H.9V.9H-.9Z"/>',
    "^": '<path d="M0-1.1 1.1.9H-1.1Z"/>',
    "v": '<path d="M0 1.1 1.1-.9H-1.1Z"/>',
    "D": '<path d="M0-1.2 1.2 0 0 1.2-1.2 0Z"/>',
    "*": '<path d="M0-1.3 .35-.4 1.2-.4 .55.15 .8 1 0 .5-.8 1-.55.15-1.2-.4-.35-.4Z"/>',
    "X": '<path d="M-1-.45-.45-1 0-.55 .45-1 1-.45 .55 0 1 .45 .45 1 0 .55-.45 1-1 .45-.55 0Z"/>',
    "P": '<path d="M-.4-1.1H.4V-.4H1.1V.4H.4V1.1H-.4V.4H-1.1V-.4H-.4Z"/>',
}
"""Matplotlib's markers that `cells` uses, as SVG shapes of about a unit's radius."""


def render_counts(counted: FolderCounts, drawn: bool = False, progress: bool = True) -> Path:
    """Write the pages of counted smears; the `index.html` to begin with.

    `counted` comes from `smears.count_folder`; where the smears are `drawn`, every page says so.

    Raises `PageExists` if a page of that name exists that was not written here; `ReadOnlyFolder` or
    `NoSpaceLeft` if a page cannot be written; those written before are complete.
    """
    out = counted.out
    storage.make_folder(out / SMEARS)
    order = counted.worst_first["file"].tolist()
    parts = [order[start : start + PER_PAGE] for start in range(0, len(order), PER_PAGE)] or [[]]
    names = ["index.html", *(f"index-{number}.html" for number in range(2, len(parts) + 1))]
    targets = {out / name for name in names} | {out / SMEARS / page_of(file) for file in order}
    pages.refuse_foreign(sorted(targets))
    environment = _environment()
    of_index, of_smear = (environment.get_template(f"{n}.html.j2") for n in ("counts", "smear"))
    shared = {"counted": counted, "drawn": drawn}
    smears = _placed(counted, order)
    about = _about_gallery(counted, drawn)
    known = {
        smear["file"]: {
            # Second guesses left out, without which pages were written before: corrections stay.
            "digest": _digest(
                [
                    *(smear[key] for key in ("file", "width", "height")),
                    smear["boxes"].drop(columns="probabilities").to_csv(),
                ]
            ),
            "width": smear["width"],
            "height": smear["height"],
        }
        for smear in read_counted(out, order)
    }
    about["result"] = _digest({file: one["digest"] for file, one in known.items()})
    with tqdm(
        total=len(order), desc="drawing", unit="page", disable=not progress, mininterval=0.5
    ) as bar:
        for number, part in enumerate(parts):
            cards = []
            gallery = {**about, "photographs": [], "cells": []}
            own = set(part)
            gallery["others"] = {file: known[file] for file in order if file not in own}
            for smear in itertools.islice(smears, len(part)):
                cards.append({**smear, "picture": None, "large": None, "boxes": None})
                _hang(gallery, smear, known[smear["file"]]["digest"])
                page = of_smear.render(shared, smear=smear, back=names[number])
                pages.write_page(out / SMEARS / smear["page"], page)
                bar.update()
            page = of_index.render(shared, cards=cards, names=names, number=number, gallery=gallery)
            pages.write_page(out / names[number], page)
    for old in {*out.glob("index-*.html"), *(out / SMEARS).glob("[!.]*.html")} - targets:
        # One of ours, to which nothing leads any more.
        if pages.is_ours(old):
            old.unlink(missing_ok=True)
    return out / names[0]


def framed(page: Path, height: int = 900) -> Any:
    """Show a page inside a notebook, wherever that runs: an `IPython.display.HTML`.

    The page lies in the notebook itself; `height` is in pixels.
    """
    from IPython.display import HTML

    text = Markup.escape(page.read_text(encoding="utf-8"))
    # Not the first thing in it: IPython would advise another class, which needs a server.
    return HTML(
        f'<div><iframe title="The cells" srcdoc="{text}" '
        f'style="width: 100%; height: {height}px; border: 0"></iframe>'
        f"<p>The same page is <code>{page.name}</code> in the folder of results.</p></div>"
    )


def take_away(counted: FolderCounts) -> Any:
    """Offer tables and pages as one ZIP archive, a link in a notebook: an `IPython.display.HTML`.

    The archive lies in the link, so that it needs no server; beyond `MOST_TO_EMBED` bytes the link
    would be too much for a notebook, and the folder is named instead.
    """
    from IPython.display import HTML

    files = [path for path in sorted(counted.out.rglob("*")) if path.suffix in (".csv", ".html")]
    if sum(path.stat().st_size for path in files) > MOST_TO_EMBED:
        return HTML(
            str(Markup("<p>Tables and pages lie in <code>{}</code>.</p>").format(counted.out))
        )
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in files:
            archive.write(path, path.relative_to(counted.out))
    content = base64.b64encode(packed.getvalue()).decode("ascii")
    link = Markup('<a download="{}.zip" href="data:application/zip;base64,{}">{}</a>')
    words = f"Download tables and pages ({len(packed.getvalue()) / 1e6:.1f} MB)"
    return HTML(str(link.format(counted.folder.name, content, words)))


MOST_TO_EMBED = 100_000_000
"""Bytes of tables and pages that a notebook offers in a link."""


def page_of(file: str) -> str:
    """Name the page of a photograph: readable, of bounded length, and its own."""
    readable = re.sub(r"[^\w.-]+", "-", Path(file).stem, flags=re.ASCII)[:48].strip("-.") or "smear"
    digest = hashlib.sha256(os.fsencode(file)).hexdigest()
    return f"{readable}-{digest[:8]}.html"


def _placed(counted: FolderCounts, order: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Everything that the pages show of each photograph, one photograph at a time."""
    rows = counted.counts.set_index("file")
    pages = [None, *map(page_of, order), None]
    for place, smear in enumerate(read_counted(counted.out, order), start=1):
        file, boxes = smear["file"], smear["boxes"]
        picture, thumb, large = _pictures(counted.folder / file, smear["red_cell"])
        yield {
            "file": file,
            "page": pages[place],
            "place": place,
            "before": pages[place - 1],
            "after": pages[place + 1],
            "width": smear["width"],
            "height": smear["height"],
            "row": rows.loc[file].to_dict(),
            "picture": picture,
            "thumb": thumb,
            "large": large,
            "boxes": boxes,
            "reasons": smear["reasons"],
            "red_cell": smear["red_cell"],
            "groups": _groups(boxes),
            "white": boxes[(boxes["kind"] == "WBC") & boxes["counted"]].to_dict("records"),
        }


def _about_gallery(counted: FolderCounts, drawn: bool) -> dict[str, Any]:
    """Put together what the gallery of every page holds, see `templates/gallery.js`."""
    named = counted.differential
    return {
        "key": f"wbc {_digest(str(counted.folder))}",
        "title": counted.folder.name,
        "drawn": drawn,
        "laboratory": (
            storage.read_json(counted.out / SETTINGS)["laboratory"][0] if named.taught else None
        ),
        **gallery_looks(named.taught),
        "confidence": named.confidence,
        "least": named.least_cells,
        "totals": {
            "types": {name: int(n) for name, n in named.table["count"].items()},
            "unanswered": named.n_abstained,
            **{
                tally: {kind: int(counted.fit[before + kind].sum()) for kind in cells.KIND_NAMES}
                for tally, before in (("kinds", ""), ("framed", "framed_"), ("cut", "cut_"))
            },
        },
    }


def gallery_looks(taught: bool = False) -> dict[str, Any]:
    """Put together what a gallery has to know whatever was counted, see `templates/gallery.js`.

    For `taught` see `confidence.looks_foreign`.
    """
    types = [
        _look(look, **_beside(*look.reference_percent, look.fewer, look.more))
        for look in cells.LEUKOCYTE_TYPES
    ]
    other = _look(cells.KIND_BY_NAME["WBC"], name=cells.OTHER, **_beside())
    return {
        "types": [*types, other],
        "ratios": [
            {
                "name": ":".join((first, second)),
                "first": first,
                "second": second,
                **_beside(*differential.reference_of((first, second))),
            }
            for first, second in differential.RATIOS
        ],
        "kinds": [_look(kind, title=kind.title, plural=kind.plural) for kind in cells.KINDS],
        "micrometres": RED_CELL_WIDTH,
        "foreign": {"cells": LEAST_TO_JUDGE, "share": least_answered(taught), "text": FOREIGN},
    }


def _look(look: cells.CellType | cells.Kind, **about: Any) -> dict[str, Any]:
    """Describe a type or kind; what `about` says goes before."""
    return {"name": look.name, "color": look.color, "marker": MARKERS[look.marker], **about}


def _beside(
    low: float | None = None, high: float | None = None,
    fewer: str | None = None, more: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Adult range, and what lies below and above it."""
    return {"low": low, "high": high, "fewer": fewer, "more": more}


def _digest(of: Any) -> str:
    """Make a short text that changes with what it is made of."""
    return hashlib.sha256(json.dumps(of).encode("ascii")).hexdigest()[:16]


def _hang(gallery: dict[str, Any], smear: Mapping[str, Any], digest: str) -> None:
    """Add a photograph and its cells to a gallery."""
    place, boxes = len(gallery["photographs"]), smear["boxes"]
    about = {key: smear[key] for key in ("file", "width", "height", "red_cell")}
    gallery["photographs"].append(
        {
            **about,
            "digest": digest,
            "fit": fitness.is_fit(smear["reasons"]),
            "named": not smear["reasons"],
            "picture": smear["large"],
            "page": f"{SMEARS}/{smear['page']}",
        }
    )
    for box in boxes.astype(object).where(boxes.notna(), None).to_dict("records"):
        cell = {
            "photograph": place,
            "kind": box["kind"],
            "box": [box[edge] for edge in BOX],
            "score": box["score"],
            "counted": box["counted"],
            "type": box["cell_type"],
            "probability": box["type_probability"],
            "answered": box["answered"],
            "probabilities": box["probabilities"],
        }
        # Most are red cells, and have none of the last.
        gallery["cells"].append({key: value for key, value in cell.items() if value is not None})


_LONGEST, _THUMB = 1280, 280  # pixels of a photograph's longer side, on its page and on its card
_RED_CELL_SHOWN = 64  # pixels of a red cell in the gallery, where the photograph has as many
_LARGEST = 1920  # pixels of its longer side there


def _pictures(path: Path, red_cell: float) -> tuple[str | None, str | None, str | None]:
    """Encode a photograph for its page, its card and the gallery; nothing where it is gone."""
    try:
        photograph = read_image(path)
    except UnreadableImage:
        return None, None, None
    wanted = max(photograph.shape[:2]) * _RED_CELL_SHOWN / max(red_cell, 1)
    sides = (_LONGEST, _THUMB, int(min(max(wanted, _LONGEST), _LARGEST)))
    picture, thumb = (pages.embedded(photograph, side) for side in sides[:2])
    is_same = max(photograph.shape[:2]) <= _LONGEST or sides[2] == _LONGEST
    return picture, thumb, picture if is_same else pages.embedded(photograph, sides[2])


def _groups(boxes: pd.DataFrame) -> list[dict[str, Any]]:
    """Boxes by what they are drawn as: kinds, types of white cells, and what is not counted."""
    plurals = {kind.name: kind.plural for kind in cells.KINDS}
    plurals["WBC"] = "white cells without an answer"
    groups: dict[str, dict[str, Any]] = {
        look.name: {
            "name": look.name, "color": look.color, "marker": look.marker,
            "plural": plurals.get(look.name, f"{look.name}s"), "boxes": [],
        }
        for look in (*cells.KINDS, *cells.LEUKOCYTE_TYPES)
    }  # fmt: skip
    others: dict[str, Any] = {"name": "uncounted", "color": "#777777", "marker": "", "boxes": []}
    others["plural"] = "unsure, not counted"
    for box in boxes.to_dict("records"):
        is_answered = pd.notna(box["answered"]) and box["answered"]
        drawn_as = box["cell_type"] if is_answered else box["kind"]
        group = groups[drawn_as] if box["counted"] else others
        group["boxes"].append({**box, "title": _title(box)})
    return [group for group in (*groups.values(), others) if group["boxes"]]


def _title(box: Mapping[Any, Any]) -> str:
    """Say of a box what it is and how surely."""
    title = f"{cells.KIND_BY_NAME[box['kind']].title}, score {box['score']:.2f}"
    if box["counted"] and box["kind"] == "WBC":
        probably = "" if box["answered"] else "no answer; most probably "
        title += f"; {probably}{box['cell_type']}, {box['type_probability']:.0%}"
    return title + ("" if box["counted"] else "; not counted")


_SCRIPTS = ("tables.js", "gallery.js")


def _text(name: str) -> str:
    return (pages.TEMPLATES / name).read_text(encoding="utf-8")


@functools.cache
def _environment() -> jinja2.Environment:
    environment = pages.environment()
    script = "\n".join(map(_text, _SCRIPTS))
    environment.filters["ratio"] = differential.short
    environment.globals.update(
        kinds=cells.KINDS,
        foreign=FOREIGN,
        adapted=ADAPTED,
        # What is none of the types looks like a white cell without one.
        types={**cells.BY_NAME, cells.OTHER: cells.KIND_BY_NAME["WBC"]},
        advice=fitness.ADVICE,
        micrometres=RED_CELL_WIDTH,
        gallery_style=Markup(_text("gallery.css")),
        script=Markup(script),
        # The page's policy lets in this script and no other.
        script_hash=Markup(_hash(script)),
        markers={name: Markup(shape) for name, shape in MARKERS.items()},
    )
    return environment


# The page that reads photographs in the browser, in one file that asks for nothing. The networks
# that ship, ONNX Runtime and OpenCV, both compiled to WebAssembly, lie inside it, packed. It opens
# from disk and without a network; what is dropped onto it stays on the machine, as its
# Content-Security-Policy has the browser see to. What it computes is what `smears` computes: see
# `templates/pixels.js` and `templates/reader.js`.


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

    @property
    def archive(self) -> str:
        """Name under which it is kept."""
        return f"{self.name.strip('@').replace('/', '-')}-{self.version}.tgz"


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

_READERS = ("pixels.js", "reader.js", "worker.js")


def write_reader(out: str | Path, data_dir: str | Path = "data", progress: bool = True) -> Path:
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
    target = storage.absolute(out)
    if target.is_dir() or target.suffix.lower() not in (".html", ".htm"):
        target /= "index.html"
    pages.refuse_foreign([target])
    parts = {
        name: content
        for library in LIBRARIES
        for name, content in fetch_library(library, Path(data_dir), progress).items()
    }
    about: dict[str, Any] = {
        "kinds": list(cells.KIND_NAMES),
        "other": cells.OTHER,
        "least_answered": {"shipped": least_answered(False), "taught": least_answered(True)},
    }
    for task, name in (("detector", "detector"), ("classifier", "broad")):
        folder = resources.files("wbc_helpers") / "weights"
        parts[task] = (folder / f"{name}.onnx").read_bytes()
        about[task] = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    learned = teaching.shipped("broad")
    assert learned is not None  # it ships
    numbers = np.concatenate([learned.centre[np.newaxis], learned.examples])
    parts["learned"] = numbers.astype("<f4").tobytes()
    about["classifier"]["features"] = len(learned.weights)
    about["answers"] = list(RECIPES[about["classifier"]["recipe"]].answers)
    work = "\n".join(map(_text, _READERS))
    parts["worker"] = f"(() => {{\n{work}}})();".encode()
    scripts = [_text(name) for name in (*_SCRIPTS, "page.js")]
    page = pages.environment().get_template("reader.html.j2").render(
        parts={name: _packed(content) for name, content in parts.items()},
        about=about,
        gallery={
            "key": "wbc page", "title": "my slide", "drawn": False,
            **gallery_looks(), "confidence": 0.95, "least": differential.LEAST_CELLS,
        },
        advice=fitness.ADVICE,
        gallery_style=Markup(_text("gallery.css")),
        scripts=[Markup(script) for script in scripts],
        script_hashes=Markup(" ".join(map(_hash, scripts))),
        libraries=LIBRARIES,
    )  # fmt: skip
    storage.make_folder(target.parent)
    return pages.write_page(target, page)


def fetch_library(library: Library, data_dir: Path, progress: bool = True) -> dict[str, bytes]:
    """Download a library, unless it is there, and give out the files that are taken.

    For the errors see `write_reader`.
    """
    there = data_dir / library.archive
    archive = download(
        library.address, there, library.largest,
        f"Connect once, or put the file at {there} yourself; the page needs no network.",
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
