"""Counted smears as pages to browse without a network, the worst first.

`index.html` has the counts, the differential and the smears as cards, `PER_PAGE` a page; each smear
has a page of its own with its cells drawn on the photograph. A page holds its pictures, asks for no
other file, and carries no script.
"""

import base64
import functools
import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup
from tqdm import tqdm

from wbc_helpers import cells, storage
from wbc_helpers.count import differential
from wbc_helpers.count.smears import FolderCounts, read_counted
from wbc_helpers.errors import UnreadableImage
from wbc_helpers.pixels.images import read_image, resize, scaled_size
from wbc_helpers.report import rendering

PER_PAGE = 48
"""Smears whose cards stand on one page."""

SMEARS = "smears"
"""Folder of the smears' own pages."""

_LONGEST, _THUMB = 1280, 280  # pixels of a photograph's longer side, on its page and on its card
_QUALITY = 85
MARKERS = {
    "o": '<circle r="1"/>',
    "s": '<path d="M-.9-.9H.9V.9H-.9Z"/>',
    "^": '<path d="M0-1.1 1.1.9H-1.1Z"/>',
    "v": '<path d="M0 1.1 1.1-.9H-1.1Z"/>',
    "D": '<path d="M0-1.2 1.2 0 0 1.2-1.2 0Z"/>',
    "*": '<path d="M0-1.3 .35-.4 1.2-.4 .55.15 .8 1 0 .5-.8 1-.55.15-1.2-.4-.35-.4Z"/>',
    "X": '<path d="M-1-.45-.45-1 0-.55 .45-1 1-.45 .55 0 1 .45 .45 1 0 .55-.45 1-1 .45-.55 0Z"/>',
}
"""Matplotlib's markers that `cells` uses, as SVG shapes of about a unit's radius."""


def render_counts(found: FolderCounts, drawn: bool = False, progress: bool = True) -> Path:
    """Write the pages of counted smears.

    Parameters
    ----------
    found : FolderCounts
        See `smears.count_folder`.
    drawn : bool
        Whether the smears are drawn: every page then says so.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Path
        The `index.html` to begin with.

    Raises
    ------
    PageExists
        If a page of that name exists that was not written here.
    ReadOnlyFolder, NoSpaceLeft
        If a page cannot be written; those written before are complete.
    """
    storage.make_folder(found.out / SMEARS)
    order = found.worst_first["file"].tolist()
    parts = [order[start : start + PER_PAGE] for start in range(0, len(order), PER_PAGE)] or [[]]
    names = ["index.html", *(f"index-{number}.html" for number in range(2, len(parts) + 1))]
    smears = {page_of(file) for file in order}
    rendering.refuse_foreign(
        [*(found.out / name for name in names), *(found.out / SMEARS / page for page in smears)]
    )
    environment = _environment()
    bar = tqdm(total=len(order), desc="drawing", unit="page", disable=not progress, mininterval=0.5)
    counted = _placed(found, order)
    with bar:
        for number, part in enumerate(parts):
            cards = []
            for _ in part:
                smear = next(counted)
                cards.append({**smear, "picture": None})
                page = environment.get_template("smear.html.j2").render(
                    smear=smear, found=found, drawn=drawn, back=names[number]
                )
                rendering.write_page(found.out / SMEARS / smear["page"], page)
                bar.update()
            page = environment.get_template("counts.html.j2").render(
                found=found, drawn=drawn, cards=cards, names=names, number=number
            )
            rendering.write_page(found.out / names[number], page)
    _remove_old(found.out, {*names}, smears)
    return found.out / names[0]


def page_of(file: str) -> str:
    """Name the page of a photograph: readable, of bounded length, and its own."""
    readable = re.sub(r"[^\w.-]+", "-", Path(file).stem, flags=re.ASCII)[:48].strip("-.") or "smear"
    digest = hashlib.sha256(file.encode("utf-8", "surrogateescape")).hexdigest()
    return f"{readable}-{digest[:8]}.html"


def _placed(found: FolderCounts, order: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Everything that the pages show of each photograph, one photograph at a time."""
    rows = found.counts.set_index("file")
    for place, counted in enumerate(read_counted(found.out, order)):
        file, boxes = counted["file"], counted["boxes"]
        picture, thumb = _pictures(found.folder / file)
        yield {
            "file": file,
            "page": page_of(file),
            "place": place + 1,
            "before": page_of(order[place - 1]) if place else None,
            "after": page_of(order[place + 1]) if place + 1 < len(order) else None,
            "width": counted["width"],
            "height": counted["height"],
            "row": rows.loc[file].to_dict(),
            "picture": picture,
            "thumb": thumb,
            "groups": _groups(boxes),
            "white": boxes[(boxes["kind"] == "WBC") & boxes["counted"]].to_dict("records"),
        }


def _pictures(path: Path) -> tuple[str | None, str | None]:
    """Encode a photograph for its page and for its card; nothing where it is gone."""
    try:
        photograph = read_image(path)
    except UnreadableImage:
        return None, None
    return _encode(photograph, _LONGEST), _encode(photograph, _THUMB)


def _encode(photograph: np.ndarray, longest: int) -> str:
    scale = longest / max(photograph.shape[:2])
    if scale < 1:
        photograph = resize(photograph, scaled_size(photograph.shape, scale))
    # Written anew, it carries nothing of what a camera notes beside the pixels.
    _, encoded = cv2.imencode(
        ".jpg", cv2.cvtColor(photograph, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
    )
    return "data:image/jpeg;base64," + base64.b64encode(encoded).decode("ascii")


def _groups(boxes: pd.DataFrame) -> list[dict[str, Any]]:
    """Boxes by what they are drawn as: kinds, types of white cells, and what is not counted."""
    answered = boxes["answered"].fillna(False).astype(bool)
    drawn_as = boxes["cell_type"].where(answered, boxes["kind"]).astype(str)
    looks = [(kind.name, kind, kind.plural) for kind in cells.KINDS]
    looks += [(each.name, each, f"{each.name}s") for each in cells.CELL_TYPES]
    groups = []
    for name, look, plural in looks:
        chosen = boxes[boxes["counted"] & drawn_as.eq(name)]
        if name == "WBC":
            plural = "white cells without an answer"
        if len(chosen):
            groups.append(_group(name, look.color, look.marker, plural, chosen))
    if len(others := boxes[~boxes["counted"]]):
        groups.append(_group("uncounted", "#777777", "", "unsure, not counted", others))
    return groups


def _group(name: str, color: str, marker: str, plural: str, boxes: pd.DataFrame) -> dict[str, Any]:
    rows = boxes.to_dict("records")
    for row in rows:
        row["title"] = _title(row)
    return {"name": name, "color": color, "marker": marker, "plural": plural, "boxes": rows}


def _title(box: dict[str, Any]) -> str:
    """Say of a box what it is and how surely."""
    told = f"{cells.KIND_BY_NAME[box['kind']].title}, score {box['score']:.2f}"
    if box["counted"] and box["kind"] == "WBC":
        probably = "" if box["answered"] else "no answer; most probably "
        told += f"; {probably}{box['cell_type']}, {box['type_probability']:.0%}"
    return told + ("" if box["counted"] else "; not counted")


def _remove_old(out: Path, names: set[str], smears: set[str]) -> None:
    """Remove pages of ours that nothing leads to any more."""
    for page in [*out.glob("index-*.html"), *(out / SMEARS).glob("*.html")]:
        kept = names if page.parent == out else smears
        if page.name not in kept and rendering.is_ours(page):
            page.unlink()


@functools.cache
def _environment() -> jinja2.Environment:
    environment = rendering.environment()
    environment.filters["ratio"] = differential.short
    environment.globals.update(
        kinds=cells.KINDS,
        types=cells.BY_NAME,
        markers={name: Markup(shape) for name, shape in MARKERS.items()},
    )
    return environment
