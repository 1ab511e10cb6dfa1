"""Counting a whole folder of smears: tables of every cell, and on from where it was cut off.

What has been counted so far, a line a photograph: counting goes on where it was cut off.

What was found in a photograph is written down before the next ones are looked at, a line each in
`counted.jsonl`; tables and pages are made of these lines at the end. So memory does not grow with
the folder, an interruption costs a few photographs, and one that was added later is counted alone.
"""

import csv
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from wbc_helpers import cells, storage
from wbc_helpers.cells import BOX
from wbc_helpers.count import detector, differential
from wbc_helpers.count.detector import AT_A_TIME, SmearReader
from wbc_helpers.count.differential import Differential
from wbc_helpers.data.catalog import IMAGE_SUFFIXES
from wbc_helpers.errors import DataNotFound, InvalidParameter, RunExists, WbcError
from wbc_helpers.pixels.images import read_image
from wbc_helpers.pixels.scale import check_red_cell, estimate_scale

CELLS, COUNTS, FAILURES = "cells.csv", "counts.csv", "failures.csv"
CELL_COLUMNS = ["file", "kind", "cell_type", *BOX, "score", "type_probability", "answered"]
"""Of `cells.csv`, a row a cell that is counted."""

COUNT_COLUMNS = ["file", *cells.KIND_NAMES, *cells.NAMES, "unanswered", "unsure", "width", "height"]
"""Of `counts.csv`, a row a photograph. The types hold the cells that are answered for, `unanswered`
the other white ones, `unsure` the boxes worth a look, see `detector.UNSURE`."""

_MOST_PIXELS = 24_000_000  # that are held at once: 24 photographs of 1,000,000, one of a camera


@dataclass(frozen=True, eq=False)
class FolderCounts:
    """What was counted in a folder.

    Attributes
    ----------
    folder, out : Path
        Of the photographs, and of what was written.
    counts : DataFrame
        `COUNT_COLUMNS`, in the order of files.
    failures : list of (str, str)
        Files that could not be counted, and why.
    passed_over : list of str
        Files that are no images by their names.
    red_cell : float or None
        Diameter of the red cells in pixels at which was counted.
    differential : Differential
        Of all white cells that are answered for.
    most_probable : Series of int
        All white cells by their most probable type, whether or not they are answered for.
    """

    folder: Path
    out: Path
    counts: pd.DataFrame
    failures: list[tuple[str, str]]
    passed_over: list[str]
    red_cell: float | None
    differential: Differential
    most_probable: pd.Series

    @property
    def worst_first(self) -> pd.DataFrame:
        """`counts`, the photographs with most unsure boxes first."""
        return self.counts.sort_values(["unsure", "file"], ascending=[False, True])

    def boxes_of(self, file: str) -> pd.DataFrame:
        """Read the cells that were counted in one photograph.

        Parameters
        ----------
        file : str
            As in `counts`.

        Returns
        -------
        DataFrame
            `detector.READ_COLUMNS`; `cell_type` is NA where the network does not answer, as
            `figures.boxed_cells` takes it.
        """
        boxes = next(read_counted(self.out, [file]))["boxes"]
        boxes = boxes[boxes["counted"]].reset_index(drop=True)
        answered = boxes["answered"].fillna(False).astype(bool)
        return boxes.assign(cell_type=boxes["cell_type"].where(answered))

    def __str__(self) -> str:
        """Say for a terminal what was counted and what went wrong."""
        totals = [
            _number(self.counts[each.name].sum(), each.title, each.plural) for each in cells.KINDS
        ]
        photographs = _number(len(self.counts), "photograph", "photographs")
        lines = [f"{photographs}: {', '.join(totals)}", "", str(self.differential)]
        if self.passed_over:
            read = ", ".join(IMAGE_SUFFIXES)
            n_files = _number(len(self.passed_over), "file", "files")
            what = f"{n_files} passed over (only {read} are read)"
            lines += ["", _listed(what, self.passed_over)]
        if self.failures:
            lines += ["", f"{_number(len(self.failures), 'file', 'files')} could not be counted:"]
            lines += [f"- {file}: {why}" for file, why in self.failures[:20]]
            if len(self.failures) > 20:
                lines.append(f"- and {len(self.failures) - 20:,} more, see {self.out / FAILURES}")
        # A file name may hold bytes that are no UTF-8.
        return "\n".join(lines).encode("utf-8", "replace").decode("utf-8")


def _number(n: int, one: str, more: str) -> str:
    return f"{n:,} {one if n == 1 else more}"


def _listed(what: str, names: Sequence[str]) -> str:
    more = ", …" if len(names) > 10 else ""
    return f"{what}: {', '.join(names[:10])}{more}"


def find_photographs(
    folder: str | Path, out: str | Path | None = None
) -> tuple[list[str], list[str]]:
    """Find the images of a folder and of those in it.

    Parameters
    ----------
    folder : path
        Hidden files and folders in it are left alone.
    out : path, optional
        A folder to leave alone, too.

    Returns
    -------
    images, others : list of str
        Paths from the folder on, `/` between their parts, sorted; those with a suffix of
        `catalog.IMAGE_SUFFIXES`, and the others.

    Raises
    ------
    DataNotFound
        If there is no such folder, or no image in it.
    """
    folder = Path(folder).expanduser().absolute()
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise DataNotFound(f"{folder} {what}. Expected a folder with photographs of smears.")
    out = Path(out).expanduser().absolute() if out is not None else None
    if out is not None and folder not in out.parents:
        out = None
    images, others = [], []
    for path in folder.rglob("*"):
        parts = path.relative_to(folder).parts
        hidden = any(part.startswith(".") for part in parts)
        # A link to nowhere is a file that is missing, and shall be listed as such.
        is_file = path.is_file() or (path.is_symlink() and not path.exists())
        if hidden or (out is not None and out in [path, *path.parents]) or not is_file:
            continue
        (images if path.suffix.lower() in IMAGE_SUFFIXES else others).append("/".join(parts))
    if not images:
        raise DataNotFound(
            f"{folder} holds no image among {len(others)} files. Expected photographs of smears "
            f"as {', '.join(sorted(IMAGE_SUFFIXES))}."
        )
    return sorted(images), sorted(others)


def read_list(path: str | Path) -> list[str]:
    """Read names of photographs from a text file, a name a line, such as BCCD's own lists.

    Parameters
    ----------
    path : path
        UTF-8.

    Returns
    -------
    list of str
        For `count_folder`.

    Raises
    ------
    DataNotFound
        If there is no such file, or it is no text.
    """
    path = Path(path).expanduser()
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeError) as error:
        raise DataNotFound(
            f"The list {path} cannot be read ({error}). Expected a text file, a name a line."
        ) from error
    return [line.strip() for line in lines if line.strip()]


def _choose(images: Sequence[str], only: Iterable[str]) -> list[str]:
    """Choose the images that are named, with folder and suffix or without."""
    wanted = set(only)
    known = {}
    for image in images:
        path = PurePosixPath(image)
        known[image] = {image, path.name, path.stem, str(path.with_suffix(""))}
    chosen = [image for image, names in known.items() if names & wanted]
    absent = sorted(wanted.difference(*known.values()))
    if absent or not chosen:
        raise InvalidParameter(
            f"Of {len(wanted)} photographs that were asked for, {len(absent)} are not in the "
            f"folder ({', '.join(absent[:5]) or 'none'}). Expected names of photographs in it."
        )
    return chosen


def count_folder(
    folder: str | Path,
    out: str | Path,
    reader: SmearReader,
    red_cell: float | None = None,
    only: Iterable[str] | None = None,
    progress: bool = True,
) -> FolderCounts:
    """Count the cells of every photograph in a folder, and write tables.

    A file that cannot be read is left out and listed; it is tried again the next time. What was
    counted before into the same folder is not counted again, unless the file has changed.

    Parameters
    ----------
    folder : path
        See `find_photographs`; of one microscope and magnification.
    out : path
        Folder for the results; made if needed.
    reader : SmearReader
        See `detector.load_reader`.
    red_cell : float, optional
        Diameter of the red cells in pixels; by default estimated from `scale.N_FOR_SCALE`
        of the photographs.
    only : iterable of str, optional
        Names of the photographs to count, with or without suffix; by default all.
    progress : bool
        Show a progress bar.

    Returns
    -------
    FolderCounts
        `out` then holds `cells.csv`, `counts.csv`, `failures.csv` and what it takes to go on.

    Raises
    ------
    DataNotFound, InvalidParameter
        See `find_photographs`; if `red_cell` is no usable number, or a name in `only` unknown.
    RunExists
        If `out` holds something else, or counts made of another folder or in another way.
    ReadOnlyFolder, NoSpaceLeft
        If the results cannot be written.
    """
    if red_cell is not None:
        check_red_cell(red_cell)
    folder = Path(folder).expanduser().absolute()
    images, passed_over = find_photographs(folder, out)
    if only is not None:
        images, passed_over = _choose(images, only), []
    out = Path(out).expanduser().absolute()
    kept = open_folder(out, _described(folder, reader, red_cell))
    if red_cell is None and kept["estimated_red_cell"] is None:
        paths = [folder / image for image in images]
        kept["estimated_red_cell"], kept["photographs_for_scale"] = estimate_scale(paths)
        storage.write_json(out / SETTINGS, kept)
    scale = red_cell or kept["estimated_red_cell"]
    done = read_stamps(out)
    remaining = [
        image for image in images if image not in done or stamp_of(folder / image) != done[image]
    ]
    failures = []
    with (
        storage.named_errors(out),
        (out / JOURNAL).open("a", encoding="utf-8") as journal,
        tqdm(total=len(images), initial=len(images) - len(remaining), desc="counting",
             unit="photograph", disable=not progress, mininterval=0.5) as bar,
    ):  # fmt: skip
        for line, failure in _count(folder, remaining, reader, scale):
            if failure:
                failures.append(failure)
            else:
                journal.write(json.dumps(line, ensure_ascii=True) + "\n")
                journal.flush()
            bar.update()
    failed = {file for file, _ in failures}
    counts, named = _write_tables(out, [image for image in images if image not in failed])
    _write_rows(out / FAILURES, ["file", "problem"], failures)
    found = differential.count_differential(named, counts.set_index("file")[list(cells.KIND_NAMES)])
    most_probable = named["cell_type"].value_counts().reindex(cells.NAMES, fill_value=0)
    return FolderCounts(folder, out, counts, failures, passed_over, scale, found, most_probable)


def _described(folder: Path, reader: SmearReader, red_cell: float | None) -> dict[str, Any]:
    """Put together what decides the counts: going on in another way would mix two of them."""
    return {
        "what": "cells counted in photographs of smears",
        "folder": os.fsencode(folder.resolve()).decode("utf-8", "backslashreplace"),
        "red_cell": red_cell,
        "detector": {key: reader.detector.about.get(key) for key in _DECIDES_FINDING},
        "classifier": {key: reader.classifier.about.get(key) for key in _DECIDES_NAMING},
    }


_DECIDES_FINDING = ("created", "filters", "ways", "iou", "thresholds")
_DECIDES_NAMING = ("created", "recipe", "image_size", "temperature", "threshold")


def _count(
    folder: Path, images: Sequence[str], reader: SmearReader, red_cell: float | None
) -> Iterator[tuple[dict[str, Any] | None, tuple[str, str] | None]]:
    """Count photographs: of each what is to be written down, or its name and what failed."""

    def look_at(image: str) -> tuple[list[int] | None, np.ndarray | WbcError]:
        stamp = stamp_of(folder / image)
        try:
            photograph = read_image(folder / image)
            detector.check_photograph(photograph, red_cell)
        except WbcError as error:
            return stamp, error
        return stamp, photograph

    waiting: list[tuple[str, list[int], np.ndarray]] = []
    # The next ones are read while the networks look at these.
    with ThreadPoolExecutor(2) as pool:
        for image, (stamp, photograph) in _ahead(pool, look_at, images):
            if isinstance(photograph, WbcError):
                yield None, (image, f"{type(photograph).__name__}: {photograph}")
                continue
            waiting.append((image, stamp, photograph))
            if len(waiting) == AT_A_TIME or sum(
                each.shape[0] * each.shape[1] for _, _, each in waiting
            ) >= _MOST_PIXELS:  # fmt: skip
                yield from _read_waiting(reader, waiting, red_cell)
                waiting = []
        yield from _read_waiting(reader, waiting, red_cell)


def _ahead(pool: ThreadPoolExecutor, work: Any, items: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Work on items in a pool, so many ahead of what is asked for and no more."""
    begun: list[tuple[str, Future]] = []
    for item in items:
        begun.append((item, pool.submit(work, item)))
        if len(begun) > AT_A_TIME:
            done, result = begun.pop(0)
            yield done, result.result()
    for done, result in begun:
        yield done, result.result()


def _read_waiting(
    reader: SmearReader, waiting: list[tuple[str, list[int], np.ndarray]], red_cell: float | None
) -> Iterator[tuple[dict[str, Any], None]]:
    if not waiting:
        return
    tables = reader.read([photograph for _, _, photograph in waiting], red_cell)
    for (image, stamp, photograph), boxes in zip(waiting, tables, strict=True):
        boxes = boxes.round({**dict.fromkeys(BOX, 1), "score": 4, "type_probability": 4})
        boxes = boxes.assign(kind=boxes["kind"].astype(str)).astype(object)
        boxes = boxes.where(boxes.notna(), None)
        height, width = photograph.shape[:2]
        yield (
            {"file": image, "stamp": stamp, "width": width, "height": height,
             "boxes": boxes.to_numpy().tolist()},
            None,
        )  # fmt: skip


def _write_tables(out: Path, images: Sequence[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Write `cells.csv` and `counts.csv` from the journal; return counts and white cells."""
    counts, named = [], []
    with (
        storage.atomic_file(out / CELLS) as partial,
        partial.open("w", encoding="utf-8", errors="surrogateescape", newline="") as rows,
    ):
        table = csv.DictWriter(rows, CELL_COLUMNS, extrasaction="ignore")
        table.writeheader()
        for counted in read_counted(out, images):
            boxes = counted["boxes"][counted["boxes"]["counted"]]
            plain = boxes.astype(object).where(boxes.notna(), "")
            for row in plain.to_dict("records"):
                table.writerow({**row, "file": counted["file"]})
            counts.append(_count_boxes(counted))
            white = boxes[boxes["kind"] == "WBC"]
            named += [(cell_type, not answered) for cell_type, answered in zip(
                white["cell_type"], white["answered"], strict=True)]  # fmt: skip
    _write_rows(out / COUNTS, COUNT_COLUMNS, [list(each.values()) for each in counts])
    return (
        pd.DataFrame(counts, columns=COUNT_COLUMNS),
        pd.DataFrame(named, columns=["cell_type", "abstained"]),
    )


def _count_boxes(counted: dict[str, Any]) -> dict[str, Any]:
    """One row of `counts.csv`."""
    boxes = counted["boxes"]
    sure = boxes[boxes["counted"]]
    answered = sure["answered"].fillna(False).astype(bool)
    row = {"file": counted["file"]}
    row |= {kind: int((sure["kind"] == kind).sum()) for kind in cells.KIND_NAMES}
    row |= {name: int((sure["cell_type"].eq(name) & answered).sum()) for name in cells.NAMES}
    row["unanswered"] = int(((sure["kind"] == "WBC") & ~answered).sum())
    row["unsure"] = int(boxes["unsure"].sum())
    return row | {"width": counted["width"], "height": counted["height"]}


def _write_rows(target: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with (
        storage.atomic_file(target) as partial,
        partial.open("w", encoding="utf-8", errors="surrogateescape", newline="") as lines,
    ):
        table = csv.writer(lines)
        table.writerow(columns)
        table.writerows(rows)


JOURNAL, SETTINGS = "counted.jsonl", "settings.json"


# Said, since a table without rows would have none.
_DTYPES = {
    **dict.fromkeys(("kind", "cell_type"), "string"),
    **dict.fromkeys((*BOX, "score", "type_probability"), float),
    **dict.fromkeys(("counted", "unsure"), bool),
    "answered": "boolean",
}


def open_folder(out: Path, described: dict[str, Any]) -> dict[str, Any]:
    """Begin in a new folder, or go on in one that holds the same counts; return its settings."""
    # As they come back from JSON.
    described = json.loads(json.dumps(described))
    settings = out / SETTINGS
    if settings.is_file():
        try:
            kept = json.loads(settings.read_text(encoding="utf-8"))
        except (ValueError, OSError):
            kept = {}
        differing = [key for key, value in described.items() if kept.get(key) != value]
        if not differing:
            return kept
        raise RunExists(
            f"{out} holds results that differ in {', '.join(differing)}. Nothing is overwritten: "
            "choose another folder, or the same photographs and settings to go on with it."
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunExists(
            f"{out} exists and holds something else. Nothing is overwritten: choose a new folder."
        )
    kept = {**described, "estimated_red_cell": None, "photographs_for_scale": 0}
    storage.make_folder(out)
    storage.write_json(settings, kept)
    return kept


def stamp_of(path: Path) -> list[int] | None:
    """Tell what changes with a file: its size and when it was written; None without a file."""
    try:
        about = path.stat()
    except OSError:
        return None
    return [about.st_size, about.st_mtime_ns]


def read_stamps(out: Path) -> dict[str, list[int]]:
    """Read the stamps of what is counted; cut off what an interruption left half written."""
    journal = out / JOURNAL
    if not journal.is_file():
        return {}
    done, whole = {}, 0
    with journal.open("rb") as lines:
        for line in lines:
            try:
                counted = json.loads(line)
                file, stamp = counted["file"], counted["stamp"]
            except (ValueError, TypeError, KeyError):
                break
            if not line.endswith(b"\n"):
                break
            done[file] = stamp
            whole += len(line)
    if whole < journal.stat().st_size:
        with journal.open("r+b") as lines:
            lines.truncate(whole)
    return done


def read_counted(out: Path, images: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Read what was found in photographs, one after the other, in the order asked for.

    Parameters
    ----------
    out : Path
        See `count_folder`.
    images : iterable of str
        Files that are counted.

    Yields
    ------
    dict
        `file`, `width` and `height` in pixels, and `boxes`, a DataFrame of
        `detector.READ_COLUMNS`.
    """
    places, place = {}, 0
    with (out / JOURNAL).open("rb") as lines:
        for line in lines:
            # The last one counts: a file that changed was counted again.
            places[json.loads(line)["file"]] = place
            place += len(line)
        for image in images:
            lines.seek(places[image])
            counted = json.loads(lines.readline())
            boxes = pd.DataFrame(counted["boxes"], columns=detector.READ_COLUMNS)
            yield {**counted, "boxes": boxes.astype(_DTYPES)}
