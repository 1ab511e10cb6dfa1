"""Counted smears as pages to browse without a network, the worst first.

`index.html` has the counts, the differential and the smears as cards, `PER_PAGE` a page; each smear
has a page of its own with its cells drawn on the photograph. A page holds its pictures, asks for no
other file, and carries no script.
"""

import functools
import hashlib
import itertools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup
from tqdm import tqdm

from wbc_helpers import cells, storage
from wbc_helpers.count import differential, fitness
from wbc_helpers.count.smears import FolderCounts, read_counted
from wbc_helpers.errors import UnreadableImage
from wbc_helpers.evaluate.confidence import FOREIGN
from wbc_helpers.pixels.images import read_image
from wbc_helpers.report import pages

PER_PAGE = 48
"""Smears whose cards stand on one page."""

SMEARS = "smears"
"""Folder of the smears' own pages."""

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
    with tqdm(
        total=len(order), desc="drawing", unit="page", disable=not progress, mininterval=0.5
    ) as bar:
        for number, part in enumerate(parts):
            cards = []
            for smear in itertools.islice(smears, len(part)):
                cards.append({**smear, "picture": None})
                page = of_smear.render(shared, smear=smear, back=names[number])
                pages.write_page(out / SMEARS / smear["page"], page)
                bar.update()
            page = of_index.render(shared, cards=cards, names=names, number=number)
            pages.write_page(out / names[number], page)
    for old in {*out.glob("index-*.html"), *(out / SMEARS).glob("*.html")} - targets:
        # One of ours, to which nothing leads any more.
        if pages.is_ours(old):
            old.unlink()
    return out / names[0]


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
        picture, thumb = _pictures(counted.folder / file)
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
            "groups": _groups(boxes),
            "white": boxes[(boxes["kind"] == "WBC") & boxes["counted"]].to_dict("records"),
        }


_LONGEST, _THUMB = 1280, 280  # pixels of a photograph's longer side, on its page and on its card


def _pictures(path: Path) -> tuple[str | None, str | None]:
    """Encode a photograph for its page and for its card; nothing where it is gone."""
    try:
        photograph = read_image(path)
    except UnreadableImage:
        return None, None
    return pages.embedded(photograph, _LONGEST), pages.embedded(photograph, _THUMB)


def _groups(boxes: pd.DataFrame) -> list[dict[str, Any]]:
    """Boxes by what they are drawn as: kinds, types of white cells, and what is not counted."""
    answered = boxes["answered"].fillna(False).astype(bool)
    drawn_as = boxes["cell_type"].where(answered, boxes["kind"]).astype(str)
    plurals = {kind.name: kind.plural for kind in cells.KINDS}
    plurals["WBC"] = "white cells without an answer"
    groups = []
    for look in (*cells.KINDS, *cells.LEUKOCYTE_TYPES):
        chosen = boxes[boxes["counted"] & drawn_as.eq(look.name)]
        plural = plurals.get(look.name, f"{look.name}s")
        groups.append(_group(look.name, look.color, look.marker, plural, chosen))
    others = boxes[~boxes["counted"]]
    groups.append(_group("uncounted", "#777777", "", "unsure, not counted", others))
    return [group for group in groups if group["boxes"]]


def _group(name: str, color: str, marker: str, plural: str, boxes: pd.DataFrame) -> dict[str, Any]:
    rows = [{**box, "title": _title(box)} for box in boxes.to_dict("records")]
    return {"name": name, "color": color, "marker": marker, "plural": plural, "boxes": rows}


def _title(box: Mapping[Any, Any]) -> str:
    """Say of a box what it is and how surely."""
    title = f"{cells.KIND_BY_NAME[box['kind']].title}, score {box['score']:.2f}"
    if box["counted"] and box["kind"] == "WBC":
        probably = "" if box["answered"] else "no answer; most probably "
        title += f"; {probably}{box['cell_type']}, {box['type_probability']:.0%}"
    return title + ("" if box["counted"] else "; not counted")


@functools.cache
def _environment() -> jinja2.Environment:
    environment = pages.environment()
    environment.filters["ratio"] = differential.short
    environment.globals.update(
        kinds=cells.KINDS,
        foreign=FOREIGN,
        # What is none of the types looks like a white cell without one.
        types={**cells.BY_NAME, cells.OTHER: cells.KIND_BY_NAME["WBC"]},
        advice=fitness.ADVICE,
        markers={name: Markup(shape) for name, shape in MARKERS.items()},
    )
    return environment
