"""Boxes around the cells of smears, read from VOC XML; everything odd about them is named.

Annotations are drawn by hand, and a box that went wrong is neither silently used nor silently
dropped: `Annotations.problems` has a row for each.

=====================  ========================================================================
problem                what is done about it
=====================  ========================================================================
`no annotation`        a photograph without XML: left out, for nobody says what it shows
`no photograph`        an XML file without its photograph: left out
`broken photograph`    its size cannot be read: left out
`broken annotation`    no XML, or XML that defines entities (a way to harm the reader): left out
`other size`           the XML is of a photograph of another size, so where its boxes lie is not
                       known: left out. Where it gives no size, the photograph's own is taken.
`unknown kind`         a box that is called something else: dropped
`no numbers`           a box without four finite numbers: dropped
`swapped corners`      left and right, or top and bottom, the wrong way round: exchanged
`no area`              both corners on one point or line, a click and not a box: dropped
`outside`              a box that leaves the photograph: clipped, or dropped if nothing is left
=====================  ========================================================================
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

import numpy as np
import pandas as pd
from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import parse
from PIL import Image

from wbc_helpers import cells
from wbc_helpers.cells import BOX
from wbc_helpers.data.catalog import find_photographs, smears_folder
from wbc_helpers.errors import DataMismatch, DataNotFound

_BOX_COLUMNS = ["photograph", "kind", *BOX, "width", "height"]
_PROBLEM_COLUMNS = ["photograph", "box", "problem", "found", "handled"]


@dataclass(frozen=True, eq=False)
class Annotations:
    """Boxes of a set of photographs.

    Attributes
    ----------
    boxes : DataFrame
        One row a box. `photograph`: its name, without suffix; `kind`: categorical, one of those
        asked for; `BOX`: float64, see there; `width`, `height` of the photograph, in pixels.
    problems : DataFrame
        One row a problem. `photograph`; `box`: its number in the file, from 1, NA where the whole
        file is meant; `problem`, `handled`: see the module; `found`: what was there.
    photographs : DataFrame
        One row for each photograph whose cells are known, also where it shows none: `photograph`,
        `path`, `width`, `height`.
    """

    boxes: pd.DataFrame
    problems: pd.DataFrame
    photographs: pd.DataFrame

    def __str__(self) -> str:
        """Numbers of photographs, boxes and problems, and every problem."""
        counts = self.boxes["kind"].value_counts(sort=False)
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in counts.items())
        lines = [
            f"{len(self.photographs):,} photographs with {len(self.boxes):,} boxes: {kinds}",
            f"{len(self.problems):,} problems" + (":" if len(self.problems) else ""),
        ]
        for row in self.problems.to_dict("records"):
            box = "" if pd.isna(row["box"]) else f", box {row['box']}"
            what = f"{row['problem']} ({row['found']}); {row['handled']}"
            lines.append(f"  {row['photograph']}{box}: {what}")
        return "\n".join(lines)


def read_annotations(folder: str | Path, kinds: Sequence[str] = cells.KIND_NAMES) -> Annotations:
    """Read the boxes of all photographs of a data set.

    VOC counts pixels from 1 and includes both ends: a box from `xmin` to `xmax` becomes one from
    `x_min` = xmin − 1 to `x_max` = xmax. Photograph and XML belong together by their file names.
    Photographs are in the order of their names, boxes in that of their file.

    Raises `DataNotFound` if there is no photograph with an annotation; `DataMismatch` if one of
    `kinds`, the names of the boxes to read, never occurs: a detector would learn that its cells are
    background.
    """
    root = smears_folder(folder)
    paths = {path.stem: path for path in find_photographs(root)}
    files = {
        path.stem: path
        for path in sorted((root / "Annotations").iterdir())
        if path.suffix.lower() == ".xml" and not path.name.startswith(".")
    }
    boxes: list[tuple] = []
    problems: list[tuple] = []
    photographs: list[tuple] = []
    for name in sorted(paths | files):
        smear = _read_one(name, paths.get(name), files.get(name), kinds, problems)
        if smear is not None:
            size, of_photograph = smear
            photographs.append((name, str(paths[name]), *size))
            boxes += [(name, *box, *size) for box in of_photograph]
    if not photographs:
        raise DataNotFound(
            f"{root} holds {len(paths)} photographs and {len(files)} annotations, but no "
            "photograph with a readable annotation. Expected an XML file in Annotations for each "
            f"file in JPEGImages. {_first(problems)}"
        )
    table = pd.DataFrame(boxes, columns=_BOX_COLUMNS)
    counts = table["kind"].value_counts()
    if absent := [kind for kind in kinds if kind not in counts]:
        others = [row[3] for row in problems if row[2] == "unknown kind"]
        raise DataMismatch(
            f"The {len(photographs)} annotations in {root} box no {', '.join(absent)} (found: "
            f"{', '.join(map(str, [*counts.index, *dict.fromkeys(others)])) or 'no box'}). "
            "Expected each of "
            f"{', '.join(kinds)}, as in the BCCD data set; the copy of its photographs on Kaggle "
            "boxes red cells only. Take SOURCE=bccd, or ask for those kinds that there are."
        )
    table["kind"] = pd.Categorical(table["kind"], categories=list(kinds))
    return Annotations(
        table.astype(dict.fromkeys(BOX, float)),
        pd.DataFrame(problems, columns=_PROBLEM_COLUMNS).astype({"box": "Int64"}),
        pd.DataFrame(photographs, columns=["photograph", "path", "width", "height"]),
    )


def _first(problems: list[tuple]) -> str:
    if not problems:
        return ""
    name, _, problem, what, _ = problems[0]
    return f"The first problem: {name}, {problem} ({what})."


def _read_one(
    name: str, path: Path | None, file: Path | None, kinds: Sequence[str], problems: list[tuple]
) -> tuple[tuple[int, int], list[tuple]] | None:
    """Size and boxes of one photograph, None if it is left out; problems are appended."""

    def leave_out(problem: str, what: str) -> None:
        problems.append((name, None, problem, what, "left out"))

    if path is None or file is None:
        if path is not None:
            leave_out("no annotation", f"{path.name} without {name}.xml")
        elif file is not None:
            leave_out("no photograph", f"{file.name} without an image of that name")
        return None
    try:
        with Image.open(path) as image:
            size = image.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        leave_out("broken photograph", str(error))
        return None
    try:
        root = parse(file).getroot()
    except (ParseError, DefusedXmlException, OSError, UnicodeError) as error:
        leave_out("broken annotation", str(error) or type(error).__name__)
        return None
    stated = tuple(_numbers(root, ("size/width", "size/height")))
    if stated != size and min(np.nan_to_num(stated)) > 0:
        leave_out(
            "other size",
            f"annotated at {stated[0]:g}×{stated[1]:g} pixels, the photograph has "
            f"{size[0]}×{size[1]}",
        )
        return None
    boxes: list[tuple] = []
    for number, element in enumerate(root.findall("object"), start=1):
        for mended in _mend(element, size, kinds, boxes):
            problems.append((name, number, *mended))
    return size, boxes


def _numbers(element: Element, places: Sequence[str]) -> Iterator[float]:
    """Read numbers below an element, NaN where there is none."""
    for place in places:
        try:
            number = float(element.findtext(place) or "nan")
        except ValueError:
            number = np.nan
        yield number if np.isfinite(number) else np.nan


def _mend(
    element: Element, size: tuple[int, int], kinds: Sequence[str], boxes: list[tuple]
) -> Iterator[tuple[str, str, str]]:
    """Append one box to `boxes` if it is one, and yield what was wrong with it."""
    kind = (element.findtext("name") or "").strip()
    if kind not in kinds:
        yield "unknown kind", kind or "no name", "dropped"
        return
    corners = np.array([*_numbers(element, [f"bndbox/{edge}" for edge in _VOC_EDGES])])
    if np.isnan(corners).any():
        texts = [element.findtext(f"bndbox/{edge}") for edge in _VOC_EDGES]
        yield "no numbers", f"{kind} from {', '.join(map(str, texts))}", "dropped"
        return
    low, high = np.minimum(corners[:2], corners[2:]), np.maximum(corners[:2], corners[2:])
    box = f"{kind} from {corners[0]:g}, {corners[1]:g} to {corners[2]:g}, {corners[3]:g}"
    if (low == high).any():
        yield "no area", box, "dropped"
        return
    if (low != corners[:2]).any():
        yield "swapped corners", box, "exchanged"
    inside_low, inside_high = np.maximum(low - 1, 0), np.minimum(high, size)
    is_left = (inside_low < inside_high).all()
    if (inside_low != low - 1).any() or (inside_high != high).any():
        yield "outside", f"{box} of {size[0]}×{size[1]}", "clipped" if is_left else "dropped"
    if is_left:
        boxes.append((kind, *inside_low, *inside_high))


_VOC_EDGES = ("xmin", "ymin", "xmax", "ymax")
