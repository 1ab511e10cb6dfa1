"""Boxes around the cells of smears, read from VOC, YOLO or COCO; everything odd is named.

Annotations are drawn by hand, and a box that went wrong is neither silently used nor silently
dropped: `Annotations.problems` has a row for each.

=====================  ========================================================================
problem                what is done about it
=====================  ========================================================================
`no annotation`        a photograph without boxes' file: left out, for nobody says what it shows
`no photograph`        such a file, or an entry in it, without its photograph: left out
`broken photograph`    its size cannot be read: left out
`broken annotation`    no XML or text, or XML that defines entities (a way to harm the reader):
                       left out
`two photographs`      files that differ by their suffix alone, so that it is not known which of
                       them was boxed: left out
`other size`           the boxes are of a photograph of another size, so where they lie is not
                       known: left out. Where no size is given, the photograph's own is taken.
`unknown kind`         a box that is called something else: dropped
`no numbers`           a box without four finite numbers: dropped
`swapped corners`      left and right, or top and bottom, the wrong way round: exchanged
`no area`              both corners on one point or line, a click and not a box: dropped
`boxed twice`          a box that was there before, of the same kind and corners: dropped
`outside`              a box that leaves the photograph: clipped, or dropped if nothing is left
=====================  ========================================================================

Kinds are known by several names, see `kind_of`. In VOC each box has its name written to it, and one
that is misspelt is dropped alone; YOLO and COCO number the names of one list, and a number used
whose name is not known is refused.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import ParseError

import numpy as np
import pandas as pd
import yaml
from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring
from PIL import ExifTags, Image
from yaml import YAMLError

from wbc_helpers import cells, storage
from wbc_helpers.cells import BOX
from wbc_helpers.data.catalog import box_format, coco_files, name_photographs, smears_folder, twins
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


_NAMES = {
    "RBC": "rbc, red blood cell, red cell, erythrocyte",
    "WBC": "wbc, white blood cell, white cell, leukocyte, leucocyte",
    "Platelets": "platelet, plt, thrombocyte",
}


def kind_of(name: str, kinds: Sequence[str] = cells.KIND_NAMES) -> str:
    """Tell which of `kinds` a name stands for, whatever its case and number; or nothing.

    Examples
    --------
    >>> kind_of("Red_Blood_Cells"), kind_of("thrombocyte"), kind_of("parasite")
    ('RBC', 'Platelets', '')
    """
    if name in kinds:
        return name
    plain = " ".join(re.split(r"[\W_]+", name.lower())).strip()
    for kind in kinds:
        if plain.removesuffix("s") in [kind.lower(), *_NAMES.get(kind, "").split(", ")]:
            return kind
    return ""


@dataclass(frozen=True, eq=False)
class _Boxed:
    """What an annotation says of one photograph; corners as in the file.

    They are counted from `first`, or `in_parts` of the frame.
    """

    size: tuple[float, float] = (np.nan, np.nan)
    boxes: Sequence[tuple[str, Sequence[float], str]] = ()
    first: int = 1
    in_parts: bool = False
    broken: str = ""


def read_annotations(
    folder: str | Path,
    kinds: Sequence[str] = cells.KIND_NAMES,
    classes: Sequence[str] | None = None,
    must_occur: bool = True,
) -> Annotations:
    """Read the boxes of all photographs of a data set, in whichever of `catalog.BOX_FORMATS`.

    VOC counts pixels from 1 and includes both ends: a box from `xmin` to `xmax` becomes one from
    `x_min` = xmin − 1 to `x_max` = xmax. Photograph and annotation belong together by their file
    names. Photographs are in the order of their names (with their folder, where a name occurs
    twice), boxes in that of their file. Of YOLO's outlines, the box around each is taken.

    `classes` are the names of YOLO's numbers, in order; by default those of `data.yaml`,
    `classes.txt` or `notes.json` beside them. Unless `must_occur=False`, each of `kinds`, the names
    of the boxes to read, has to: a detector would learn that its cells are background.

    Raises `DataNotFound` if there is no photograph with an annotation, or YOLO's numbers have no
    names; `DataMismatch` if one of `kinds` never occurs, if a number stands for none of them, or if
    the file of names or COCO's is malformed.
    """
    root = smears_folder(folder)
    paths = name_photographs(root)
    written, alike = box_format(root), twins(paths.values())
    if written == "YOLO":
        annotated = _read_yolo(root, paths, kinds, classes)
    else:
        annotated = {"VOC": _read_voc, "COCO": _read_coco}[written](root, paths, kinds)
    boxes: list[tuple] = []
    problems: list[tuple] = []
    photographs: list[tuple] = []
    for name in sorted(paths | annotated):
        if written != "COCO" and paths.get(name) in alike:
            files = [
                path.name for path in alike if path.with_suffix("") == paths[name].with_suffix("")
            ]
            problems.append((name, None, "two photographs", ", ".join(sorted(files)), "left out"))
            continue
        smear = _read_one(name, paths.get(name), annotated.get(name), kinds, problems)
        if smear is not None:
            size, of_photograph = smear
            photographs.append((name, str(paths[name]), *size))
            boxes += [(name, *box, *size) for box in of_photograph]
    if not photographs:
        raise DataNotFound(
            f"{root} holds {len(paths)} photographs and {len(annotated)} annotations, but no "
            "photograph with a readable annotation. Expected an XML file in Annotations for each "
            f"file in JPEGImages, or the like in YOLO or COCO. {_first(problems)}"
        )
    table = pd.DataFrame(boxes, columns=_BOX_COLUMNS)
    counts = table["kind"].value_counts()
    absent = [kind for kind in kinds if kind not in counts]
    if absent and must_occur:
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


def _files_of(root: Path, paths: dict[str, Path], suffix: str, folders: dict[str, str]) -> dict:
    """Find the annotation of each photograph, and those that have none, by name.

    `folders` gives the folder of annotations for that of photographs.
    """
    files = {}
    for name, path in paths.items():
        parts = [folders.get(part, part) for part in path.relative_to(root).parent.parts]
        for place in (root.joinpath(*parts), path.parent):
            if (file := place / f"{path.stem}{suffix}").is_file():
                files[name] = file
                break
    others = [
        file
        for file in sorted(root.rglob("*"))
        if file.suffix.lower() == suffix
        and not file.name.startswith(".")
        and set(folders.values()) & {*file.relative_to(root).parts}
    ]
    known = set(files.values())
    return files | {file.stem: file for file in others if file not in known}


def _read_voc(root: Path, paths: dict[str, Path], kinds: Sequence[str]) -> dict[str, _Boxed]:
    folders = {"JPEGImages": "Annotations", "images": "Annotations"}
    files = _files_of(root, paths, ".xml", folders)
    return {name: _read_xml(file) for name, file in files.items()}


def _read_xml(file: Path) -> _Boxed:
    try:
        storage.check_regular(file)
        content = file.read_bytes()
        declared = _DECLARED.match(content)
        # The parser knows no letters of several bytes but those of Unicode.
        if declared and (code := declared[1].decode("ascii").lower()) in _EAST_ASIAN:
            content = content[declared.end() :].decode(code).encode()
        root = fromstring(content)
    except (ParseError, DefusedXmlException, OSError, ValueError, LookupError) as error:
        return _Boxed(broken=str(error) or type(error).__name__)
    boxes = []
    for element in root.findall("{*}object"):
        texts = [element.findtext(f"{{*}}bndbox/{{*}}{edge}") for edge in _VOC_EDGES]
        corners = [_number(text) for text in texts]
        called = (element.findtext("{*}name") or "").strip()
        boxes.append((called, corners, ", ".join(map(str, texts))))
    size = [_number(root.findtext(f"{{*}}size/{{*}}{side}")) for side in ("width", "height")]
    return _Boxed((size[0], size[1]), boxes)


_DECLARED = re.compile(rb"""\s*<\?xml[^>]*?encoding\s*=\s*["']([\w.-]+)["'][^>]*\?>""")
_EAST_ASIAN = (
    "gb2312", "gbk", "gb18030", "big5", "shift_jis", "cp932", "euc-jp", "iso-2022-jp", "euc-kr",
    "cp949",
)  # fmt: skip


def _read_one(
    name: str, path: Path | None, boxed: _Boxed | None, kinds: Sequence[str], problems: list[tuple]
) -> tuple[tuple[int, int], list[tuple]] | None:
    """Size and boxes of one photograph, None if it is left out; problems are appended."""

    def leave_out(problem: str, what: str) -> None:
        problems.append((name, None, problem, what, "left out"))

    if path is None or boxed is None:
        if path is not None:
            leave_out("no annotation", f"{path.name} without an annotation of that name")
        else:
            leave_out("no photograph", f"the annotation of {name} without an image of that name")
        return None
    try:
        with Image.open(path) as image:
            size = image.size
            # Turned upright, as people see it and box it; of TIFF Pillow does that itself.
            if (
                image.format != "TIFF"
                and image.getexif().get(ExifTags.Base.Orientation, 1) >= _TURNED
            ):
                size = size[::-1]
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        leave_out("broken photograph", str(error))
        return None
    if boxed.broken:
        leave_out("broken annotation", boxed.broken)
        return None
    if boxed.size != size and min(np.nan_to_num(boxed.size)) > 0:
        leave_out(
            "other size",
            f"annotated at {boxed.size[0]:g}×{boxed.size[1]:g} pixels, the photograph has "
            f"{size[0]}×{size[1]}",
        )
        return None
    boxes: dict[tuple, None] = {}
    for number, (called, corners, text) in enumerate(boxed.boxes, start=1):
        if boxed.in_parts:
            # Six decimals of a part are a hundredth of a pixel at best.
            corners = np.multiply(corners, [*size, *size]).round(2).tolist()
        for mended in _mend(called, corners, text, boxed.first, size, kinds, boxes):
            problems.append((name, number, *mended))
    return size, list(boxes)


def _read_yolo(
    root: Path, paths: dict[str, Path], kinds: Sequence[str], classes: Sequence[str] | None
) -> dict[str, _Boxed]:
    files = _files_of(root, paths, ".txt", {"images": "labels"})
    named = list(classes) if classes is not None else class_names(root)
    annotated = {name: _read_txt(file, named) for name, file in files.items() if name != "classes"}
    _refuse_unknown(root, annotated, named, kinds)
    return annotated


def _read_txt(file: Path, classes: Sequence[str]) -> _Boxed:
    """Read lines of a class number, then centre and size, or an outline, as parts of the frame."""
    try:
        lines = storage.read_text(file).splitlines()
    except (OSError, UnicodeError) as error:
        return _Boxed(broken=str(error))
    boxes = []
    for line in filter(str.strip, lines):
        number, *parts = line.split()
        x, y, *rest = [*map(_number, parts), np.nan, np.nan]
        # A fifth number is the confidence of a program that boxed them.
        if len(parts) in (4, 5):
            width, height = rest[:2]
            corners = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
        elif len(parts) >= 6 and len(parts) % 2 == 0:
            outline = np.array([*map(_number, parts)]).reshape(-1, 2)
            corners = [*outline.min(axis=0), *outline.max(axis=0)]
        else:
            corners = [np.nan] * 4
        known = number.isdecimal() and int(number) < len(classes)
        boxes.append((classes[int(number)] if known else f"number {number}", corners, line))
    return _Boxed(boxes=boxes, first=0, in_parts=True)


def class_names(root: str | Path) -> list[str]:
    """Read the names of YOLO's numbers: from `data.yaml`, `classes.txt` or `notes.json`.

    Raises `DataNotFound` if there is none of them in the folder or one below, `DataMismatch` if the
    first of them is malformed.
    """
    root = Path(root)
    places = [root, root / "labels", root / "labels" / "train", root / "train"]
    for name, read in _CLASS_FILES.items():
        for file in (place / name for place in places):
            if file.is_file():
                try:
                    return [str(called) for called in read(storage.read_text(file))]
                except (OSError, ValueError, LookupError, TypeError, AttributeError, YAMLError,
                        RecursionError) as error:  # fmt: skip
                    raise DataMismatch(
                        f"{file} gives no list of names ({error or type(error).__name__}). "
                        "Expected one as YOLO writes it, such as names: [RBC, WBC, Platelets]."
                    ) from error
    raise DataNotFound(
        f"{root} boxes cells by number, and no {', '.join(_CLASS_FILES)} says what the numbers "
        "mean. Add a classes.txt with a name a line, or give the names as classes."
    )


def _yaml_names(text: str) -> list:
    names = yaml.safe_load(text)["names"]
    return [names[number] for number in range(len(names))]


_CLASS_FILES: dict[str, Callable[[str], Sequence]] = {
    "data.yaml": _yaml_names,
    "classes.txt": lambda text: [line.strip() for line in text.split("\n") if line.strip()],
    "notes.json": lambda text: [row["name"] for row in json.loads(text)["categories"]],
}


def _read_coco(root: Path, paths: dict[str, Path], kinds: Sequence[str]) -> dict[str, _Boxed]:
    annotated: dict[str, _Boxed] = {}
    names: list[str] = []
    for file in coco_files(root):
        try:
            content = storage.read_json(file)
            named = {row["id"]: str(row["name"]) for row in content["categories"]}
            boxes: dict[object, list[tuple]] = {row["id"]: [] for row in content["images"]}
            times = Counter(row["id"] for row in content["images"])
            for row in content["annotations"]:
                x, y, width, height = corners = [_number(side) for side in row["bbox"]]
                corners = [x, y, x + width, y + height]
                called = named.get(row["category_id"], f"number {row['category_id']}")
                boxes[row["image_id"]].append((called, corners, str(row["bbox"])))
            for row in content["images"]:
                size = _number(row.get("width")), _number(row.get("height"))
                name = _name_of(root, paths, file, str(row["file_name"]))
                twice = name in annotated or times[row["id"]] > 1
                broken = f"listed twice, or with another's id, in {file.name}" if twice else ""
                annotated[name] = _Boxed(size, boxes[row["id"]], first=0, broken=broken)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataMismatch(
                f"{file} is malformed: {type(error).__name__} {error}. Expected COCO: images with "
                "id and file_name, categories with id and name, annotations with image_id, "
                "category_id and bbox [x, y, width, height]."
            ) from error
        names += named.values()
    _refuse_unknown(root, annotated, names, kinds)
    return annotated


def _name_of(root: Path, paths: dict[str, Path], file: Path, file_name: str) -> str:
    """Tell which photograph an entry of COCO's means: by its place, or only by its name."""
    # Label Studio writes the address it served the file from, perhaps with a prefix.
    last = re.split(r"[\\/]", file_name)[-1]
    for place in (file.parent / file_name, file.parent / last):
        for name, path in paths.items():
            if path == place:
                return name
    return Path(last).stem


def _refuse_unknown(
    root: Path, annotated: dict[str, _Boxed], named: Sequence[str], kinds: Sequence[str]
) -> None:
    used = dict.fromkeys(called for boxed in annotated.values() for called, *_ in boxed.boxes)
    if unknown := [called for called in used if not kind_of(called, kinds)]:
        known = "; ".join(f"{kind} ({_NAMES.get(kind, kind)})" for kind in kinds)
        raise DataMismatch(
            f"Boxes in {root} are called {', '.join(unknown)}, of the names "
            f"{', '.join(named) or 'that are not given'}. Expected {known}, in any case, singular "
            "or plural. Rename them, or leave those boxes out."
        )


def _number(text: object) -> float:
    """Make a finite number of a text or a number, NaN if it is none."""
    try:
        number = float(text)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return np.nan
    return number if np.isfinite(number) else np.nan


def _mend(
    called: str,
    corners: Sequence[float],
    text: str,
    first: int,
    size: tuple[int, int],
    kinds: Sequence[str],
    boxes: dict[tuple, None],
) -> Iterator[tuple[str, str, str]]:
    """Append one box to `boxes` if it is one, and yield what was wrong with it."""
    kind = kind_of(called, kinds)
    if not kind:
        yield "unknown kind", called or "no name", "dropped"
        return
    if np.isnan(corners).any():
        yield "no numbers", f"{kind} from {text}", "dropped"
        return
    start, end = np.split(np.array(corners), 2)
    low, high = np.minimum(start, end), np.maximum(start, end)
    box = f"{kind} from {start[0]:g}, {start[1]:g} to {end[0]:g}, {end[1]:g}"
    if (low == high).any():
        yield "no area", box, "dropped"
        return
    if (low != start).any():
        yield "swapped corners", box, "exchanged"
    inside_low, inside_high = np.maximum(low - first, 0), np.minimum(high, size)
    is_left = (inside_low < inside_high).all()
    outside = max((inside_low - low + first).max(), (high - inside_high).max())
    if outside > _ROUNDED:
        yield "outside", f"{box} of {size[0]}×{size[1]}", "clipped" if is_left else "dropped"
    mended = (kind, *inside_low.tolist(), *inside_high.tolist())
    if mended in boxes:
        yield "boxed twice", box, "dropped"
    elif is_left:
        boxes[mended] = None


_TURNED = 5  # from this orientation on, height and width are exchanged

_ROUNDED = 0.5
"""Pixels that a box may leave the photograph by; parts of a frame are rounded."""

_VOC_EDGES = ("xmin", "ymin", "xmax", "ymax")
