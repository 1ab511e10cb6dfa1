"""Counting a whole folder of smears: tables of every cell, and on from where it was cut off.

The boxes of a photograph are written down before the next ones are looked at, a line each in
`counted.jsonl`; tables and pages are made of these lines at the end. So memory does not grow with
the folder, an interruption costs a few photographs, and one that was added later is counted alone.
"""

import csv
import functools
import itertools
import json
import os
import socket
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from wbc_helpers import cells, storage
from wbc_helpers.cells import BOX
from wbc_helpers.count import differential, fitness
from wbc_helpers.count.differential import Differential
from wbc_helpers.errors import (
    DataMismatch,
    DataNotFound,
    DownloadFailed,
    InvalidParameter,
    RunExists,
    WbcError,
)
from wbc_helpers.evaluate import confidence, detection
from wbc_helpers.pixels.images import find_photographs, read_photograph
from wbc_helpers.pixels.scale import (
    SMALLEST_RED_CELL,
    check_photograph,
    check_red_cell,
    estimate_scale,
    red_cell_diameter_of,
)
from wbc_helpers.runs.backend import Workers
from wbc_helpers.storage import Elsewhere

if TYPE_CHECKING:
    from wbc_helpers.count.detector import SmearReader

_AT_A_TIME = 8  # photographs that are held in memory and looked at together
_PIECE = 32  # that a worker is given at a time, and loses when it dies

CELLS, COUNTS, FAILURES = "cells.csv", "counts.csv", "failures.csv"
JOURNAL, SETTINGS = "counted.jsonl", "settings.json"
CELL_COLUMNS = [
    "file", "kind", "cell_type", *BOX, "score", "type_probability", "answered", "cut"
]  # fmt: skip
"""Of `cells.csv`, a row a cell that is counted. `cut` names the edges of the frame that it reaches,
see `detection.cut_edges`; it is empty for a whole cell."""

WHOLE, CUT, FRAMED = ([f"{what}_{kind}" for kind in cells.KIND_NAMES]
                      for what in ("whole", "cut", "framed"))  # fmt: skip
JUDGED = ["red_cell", "fit", "fit_to_name", "reasons", "note"]

COUNT_COLUMNS = [
    "file", *cells.KIND_NAMES, *cells.NAMES, "unanswered", "unsure", "width", "height",
    *WHOLE, *CUT, *FRAMED, *JUDGED, cells.BASOPHIL.name,
]  # fmt: skip
"""Of `counts.csv`, a row a photograph. The types hold the cells that are answered for, `unanswered`
the other white ones, `unsure` the boxes worth a look, see `detector.UNSURE`. Of each kind, `whole`
and `cut` add up to all that is visible; `framed` is the unbiased count of the field, of which
ratios and densities are made, see `detection.cut_edges`. `red_cell` is the width of a red cell in
pixels at which it was read; `fit`, whether its cells may be counted, `fit_to_name`, whether its
white cells may be named, and `reasons` why not, see `fitness.ADVICE`; `note`, what was adapted or
is unsure."""


@dataclass(frozen=True, eq=False)
class FolderCounts:
    """What was counted in a folder.

    Attributes
    ----------
    folder, out : Path
        Of the photographs, where `folder / file` is one, and of what was written.
    counts : DataFrame
        `COUNT_COLUMNS`, in the order of files.
    failures : list of (str, str)
        Files that could not be counted, and why.
    passed_over : list of str
        Files that are no images by their names.
    red_cell : float or None
        Diameter of the red cells in pixels, as given or as estimated of the folder; for that of
        each photograph see `counts`.
    differential : Differential
        Of the white cells that are answered for, in photographs that are fit, see `fitness`.
    most_probable : Series of int
        All white cells of fit photographs by their most probable type, whether or not they are
        answered for.
    is_adapted : bool
        Whether the types' answers were moved to the folder, see `count_folder`.
    """

    folder: Path | Elsewhere
    out: Path
    counts: pd.DataFrame
    failures: list[tuple[str, str]]
    passed_over: list[str]
    red_cell: float | None
    differential: Differential
    most_probable: pd.Series
    is_adapted: bool = False

    @property
    def fit(self) -> pd.DataFrame:
        """`counts` of the photographs whose cells may be counted."""
        return self.counts[self.counts["fit"].astype(bool)]

    @property
    def unfit(self) -> dict[str, list[str]]:
        """Files by the reason for which they are not fit, see `fitness.ADVICE`."""
        reasons = self.counts.assign(reason=self.counts["reasons"].str.split("; "))
        return _files_by("reason", reasons.explode("reason"))

    @property
    def went_well(self) -> bool:
        """Whether every file could be counted, and each showed a smear."""
        return not self.failures and fitness.NO_SMEAR not in self.unfit and len(self.fit) > 0

    @property
    def worst_first(self) -> pd.DataFrame:
        """`counts`, the photographs with most unsure boxes first."""
        return self.counts.sort_values(["unsure", "file"], ascending=[False, True])

    def boxes_of(self, file: str) -> pd.DataFrame:
        """Read the cells that were counted in one photograph, as `figures.boxed_cells` takes them.

        They have `detector.READ_COLUMNS`; `cell_type` is NA where the network does not answer.
        """
        boxes = next(read_counted(self.out, [file]))["boxes"]
        boxes = boxes[boxes["counted"]].reset_index(drop=True)
        return boxes.assign(cell_type=boxes["cell_type"].where(boxes["answered"].fillna(False)))

    def __str__(self) -> str:
        """Say for a terminal what was counted and what went wrong."""
        totals = [
            _number(self.fit[kind.name].sum(), kind.title, kind.plural) for kind in cells.KINDS
        ]
        photographs = _number(len(self.counts), "photograph", "photographs")
        if len(self.fit) < len(self.counts):
            photographs += f", {len(self.fit):,} of them fit to be counted"
        framed = [
            f"{self.fit[column].sum():,} {kind.plural}"
            for column, kind in zip(FRAMED, cells.KINDS, strict=True)
        ]
        n_cut = self.fit[CUT].to_numpy().sum()
        lines = [
            f"{photographs}: {', '.join(totals)}",
            f"Cut by the frame: {n_cut:,} of them. Without those at its left and upper edge: "
            f"{', '.join(framed)}; of these are the ratios.",
        ]
        for reason, files in self.unfit.items():
            lines.append(f"- {reason}, {_number(len(files), 'photograph', 'photographs')}: "
                         f"{_some(files, 5)}. {fitness.ADVICE.get(reason, '')}")  # fmt: skip
        for note, files in _files_by("note", self.counts).items():
            lines.append(f"- {note}: {_some(files, 5)}")
        if self.is_adapted:
            lines.append(confidence.ADAPTED)
        may_say = len(self.fit) > 0
        lines += ["", str(self.differential) if may_say else "No photograph is fit to be counted."]
        if self.passed_over:
            n_files = _number(len(self.passed_over), "file", "files")
            names = _some(self.passed_over, 10)
            lines += ["", f"{n_files} passed over, no images by name and content: {names}"]
        if self.failures:
            lines += ["", f"{_number(len(self.failures), 'file', 'files')} could not be counted:"]
            lines += [storage.visible(f"- {file}: {why}") for file, why in self.failures[:20]]
            if len(self.failures) > 20:
                lines.append(f"- and {len(self.failures) - 20:,} more, see {self.out / FAILURES}")
        # A file name may hold bytes that are no UTF-8.
        return "\n".join(lines).encode("utf-8", "replace").decode("utf-8")


def _files_by(column: str, counts: pd.DataFrame) -> dict[str, list[str]]:
    """Files by what a column says of them, where it says something."""
    remarked = counts[counts[column].astype(bool)]
    return {
        str(remark): rows["file"].tolist() for remark, rows in remarked.groupby(column, sort=False)
    }


def _some(files: Sequence[str], n_files: int) -> str:
    return ", ".join(map(storage.plain, files[:n_files])) + (", …" if len(files) > n_files else "")


def _number(n: float, one: str, more: str) -> str:
    return f"{n:,} {one if n == 1 else more}"


def read_list(path: str | Path) -> list[str]:
    """Read names of photographs from a text file, a name a line, such as BCCD's own lists.

    Raises `DataNotFound` if there is no such file, or it is no text.
    """
    path = Path(path).expanduser()
    try:
        names = [line.strip() for line in storage.read_text(path).splitlines() if line.strip()]
        if not names:
            raise ValueError("it holds no name")
    except (OSError, ValueError) as error:
        raise DataNotFound(
            f"The list {path} cannot be read ({error}). Expected a text file, a name a line."
        ) from error
    return names


def _choose(images: Sequence[str], only: Iterable[str]) -> list[str]:
    """Choose the images that are named, with folder and suffix or without."""
    asked = set(only)
    names_of = {}
    for image in images:
        path = PurePosixPath(image)
        names_of[image] = {image, path.name, path.stem, str(path.with_suffix(""))}
    chosen = [image for image, names in names_of.items() if names & asked]
    absent = sorted(asked.difference(*names_of.values()))
    if absent or not chosen:
        raise InvalidParameter(
            f"Of {len(asked)} photographs that were asked for, {len(absent)} are not in the "
            f"folder ({', '.join(absent[:5]) or 'none'}). Expected names of photographs in it."
        )
    return chosen


def count_folder(
    path: str | Path,
    out: str | Path,
    reader: "SmearReader",
    red_cell: float | None = None,
    only: Iterable[str] | None = None,
    progress: bool = True,
    workers: Workers = Workers(),  # noqa: B008 (a frozen value)
    adapt: bool | None = None,
) -> FolderCounts:
    """Count the cells of a photograph, or of every one in a folder, and write tables.

    A file that cannot be read is left out and listed; it is tried again the next time. What was
    counted before into the same folder is not counted again, unless the file has changed.

    Parameters
    ----------
    path : path
        See `find_photographs`.
    out : path
        Folder for `cells.csv`, `counts.csv`, `failures.csv` and what it takes to go on; made if
        needed.
    reader : SmearReader
        See `detector.load_reader`.
    red_cell : float, optional
        Diameter of the red cells in pixels; by default estimated from `scale.N_FOR_SCALE`
        of the photographs.
    only : iterable of str, optional
        Names of the photographs to count, with or without suffix; by default all.
    progress : bool
        Show a progress bar.
    workers : Workers
        Who counts; the tables are the same. Others need the same weights, and load their own.
    adapt : bool, optional
        Move the types' answers to where the white cells of up to `N_TO_ADAPT` photographs lie, as
        when the counting was begun, see `Classifier.adapted`; by default where it can, of
        `confidence.FEW_TO_ADAPT` photographs or more.

    Raises
    ------
    DataNotFound, InvalidParameter, DownloadFailed, PackageMissing
        See `find_photographs`; if `red_cell` is no usable number, or a name in `only` unknown; if
        workers shall load a reader that `load_reader` did not make.
    RunExists
        If `out` holds something else, or counts made of another folder or in another way.
    FolderInUse
        If another process counts into `out`.
    ReadOnlyFolder, NoSpaceLeft
        If the results cannot be written.
    DataMismatch, NoWorkers
        If a worker has other weights, or does not see the folder; see `Workers.share`.
    """
    if red_cell is not None:
        check_red_cell(red_cell)
    if adapt:
        reader.classifier.check_adapts()
    folder, images, passed_over = find_photographs(path, out)
    if only is not None:
        images, passed_over = _choose(images, only), []
    out = storage.absolute(out)
    settings = _open_folder(out, _describe(folder, reader, red_cell, adapt))
    with storage.only_one(out):
        return _go_on(
            folder, images, passed_over, out, settings, reader, red_cell, progress, workers
        )


def _go_on(
    folder: Path | Elsewhere,
    images: list[str],
    passed_over: list[str],
    out: Path,
    settings: dict[str, Any],
    reader: "SmearReader",
    red_cell: float | None,
    progress: bool,
    workers: Workers,
) -> FolderCounts:
    """Count what is not counted yet, and make the tables of all."""
    if red_cell is None and settings["estimated_red_cell"] is None:
        estimate = _folder_scale(folder, images, reader)
        settings["estimated_red_cell"], settings["photographs_for_scale"] = estimate
        storage.write_json(out / SETTINGS, settings)
    scale = red_cell or settings["estimated_red_cell"]
    adapt = settings.get("adapted")
    if adapt is None:
        adapt = reader.classifier.adapts and len(images) >= confidence.FEW_TO_ADAPT
    if adapt and "moved" not in settings:
        settings["moved"] = _folder_shift(folder, images, reader, scale)
        storage.write_json(out / SETTINGS, settings)
    stamps = _read_stamps(out)
    remaining = [
        image for image in images
        if image not in stamps or _stamp_of(folder / image) != stamps[image]
    ]  # fmt: skip
    failures = []
    with (
        storage.named_errors(out),
        (out / JOURNAL).open("a", encoding="utf-8", newline="\n") as journal,
        tqdm(total=len(images), initial=len(images) - len(remaining), desc="counting",
             unit="photograph", disable=not progress, mininterval=0.5) as bar,
    ):  # fmt: skip
        asked = {"folder": folder, "red_cell": scale, "given": red_cell is not None}
        asked |= {"several": len(images) > 1, "moved": settings.get("moved")}
        for line in _share(workers, remaining, reader, **asked):
            if isinstance(line, tuple):
                failures.append(line)
            else:
                journal.write(json.dumps(line, ensure_ascii=True) + "\n")
                journal.flush()
            bar.update()
    failed = dict(failures)
    failures = [(image, failed[image]) for image in images if image in failed]
    counts, white = _write_tables(out, [image for image in images if image not in failed])
    with _csv(out / FAILURES, ["file", "problem"]) as table:
        table.writerows((storage.plain(file), storage.visible(why)) for file, why in failures)
    fit = counts[counts["fit"].astype(bool)]
    by_kind = fit.set_index("file")[FRAMED].set_axis(list(cells.KIND_NAMES), axis=1)
    return FolderCounts(
        folder, out, counts, failures, passed_over, scale,
        differential.count_differential(
            white, by_kind, taught=reader.classifier.laboratory is not None
        ),
        white["cell_type"].value_counts().reindex(cells.LEUKOCYTES, fill_value=0),
        settings.get("moved") is not None,
    )  # fmt: skip


def _folder_scale(
    folder: Path | Elsewhere, images: Sequence[str], reader: "SmearReader"
) -> tuple[float | None, int]:
    """Estimate the red cells' width over a folder, and have the boxes of a few check it."""
    estimate, n_photographs = estimate_scale(
        [folder / image for image in images], read=lambda path: _look_at(path)[0]
    )
    if estimate is None or len(images) <= _N_TO_CHECK:
        return estimate, n_photographs
    measured = []
    for image in _spread(images, _N_TO_CHECK):
        photograph = _fit_at(folder / image, estimate)
        if photograph is None:
            continue
        (boxes,) = reader.read([photograph], estimate)
        measured.append(fitness.read_at_own_scale(reader, photograph, boxes, estimate).measured)
    usable = sorted(width for width in measured if np.isfinite(width))
    if usable and min(abs(np.log(np.array(usable) / estimate))) > fitness.AGREES:
        # One of them: between two magnifications there is none.
        estimate = usable[len(usable) // 2]
    return estimate, n_photographs


_N_TO_CHECK = 4  # photographs of a folder

N_TO_ADAPT = 32
"""Photographs to whose white cells answers are moved, at most, see `count_folder`."""


def _spread(images: Sequence[str], most: int) -> list[str]:
    """Choose so many of the images, evenly spread."""
    places = np.linspace(0, len(images) - 1, min(len(images), most)).astype(int)
    return [images[place] for place in places]


def _fit_at(path: Path | Elsewhere, red_cell: float) -> np.ndarray | None:
    """Read a photograph, if it is fit to be counted where red cells are so wide."""
    try:
        photograph, _ = _look_at(path)
        check_photograph(photograph, red_cell)
    except WbcError:
        return None
    return None if fitness.judge(fitness.measure(photograph, red_cell)) else photograph


def _folder_shift(
    folder: Path | Elsewhere, images: Sequence[str], reader: "SmearReader", red_cell: float | None
) -> list[float] | None:
    """How far the white cells of a folder lie beside those learned from, see `Classifier.adapted`.

    None where they do not, or too few are seen to tell.
    """
    network = reader.classifier
    if red_cell is None:
        return None

    def look_at(image: str) -> np.ndarray:
        photograph = _fit_at(folder / image, red_cell)
        if photograph is None:
            return nothing
        # Of another magnification, cells would be cut out as what they are not.
        own = red_cell_diameter_of([photograph], default=red_cell)
        is_alike = abs(np.log(own / red_cell)) <= fitness.CONTRADICTS
        return network.crops_of([photograph], np.array([red_cell])) if is_alike else nothing

    nothing = network.crops_of([], np.zeros(0))
    with ThreadPoolExecutor(2) as pool:
        crops = np.concatenate(list(pool.map(look_at, _spread(images, N_TO_ADAPT))))
    moved = network.adapted(network.features(crops)).moved
    return None if moved is None else moved.tolist()


def _look_at(path: Path | Elsewhere) -> tuple[np.ndarray, str]:
    """Read a photograph, the surround of an eyepiece filled; and say what was adapted."""
    photograph = read_photograph(path)
    pixels, surround = fitness.fill_surround(photograph.pixels)
    notes = [photograph.note] if photograph.note else []
    if surround:
        notes.append("dark surround left out")
    return pixels, "; ".join(notes)


_MOST_PIXELS = 24_000_000  # that are held at once: 24 photographs of 1,000,000, one of a camera


def _share(
    workers: Workers, images: Sequence[str], reader: "SmearReader", **asked: Any
) -> Iterator[dict[str, Any] | tuple[str, str]]:
    """Count photographs as `_count` does, here or piece by piece on workers, as they are done."""
    if not workers:
        yield from _count(images, reader, **asked)
        return
    if reader.loaded_by is None:
        raise InvalidParameter(
            "Workers load networks of their own, and this reader was not made by "
            "detector.load_reader. Count in this process instead, without workers."
        )
    work = functools.partial(
        _count_piece, loaded_by=reader.loaded_by, weights=_describe_weights(reader), **asked
    )
    pieces = [images[start : start + _PIECE] for start in range(0, len(images), _PIECE)]
    yield from itertools.chain.from_iterable(workers.share(work, pieces))


def _count_piece(
    images: Sequence[str], loaded_by: dict[str, Any], weights: dict[str, Any], **asked: Any
) -> list[dict[str, Any] | tuple[str, str]]:
    """Count photographs on a worker, by networks that it loads once."""
    reader, folder = _loaded(**loaded_by), asked["folder"]
    if _describe_weights(reader) != weights:
        raise DataMismatch(
            f"The worker on {socket.gethostname()} has other weights than the command that was "
            "given. Expected the same version of this package on all machines."
        )
    if isinstance(folder, Path) and not folder.is_dir():
        raise DataMismatch(
            f"The worker on {socket.gethostname()} sees no folder {folder}. Expected a disk that "
            "all machines share under one name, or an address such as s3://bucket/folder."
        )
    return list(_count(images, reader, **asked))


@functools.cache
def _loaded(**loaded_by: Any) -> "SmearReader":
    from wbc_helpers.count import detector

    return detector.load_reader(**loaded_by)


def _count(
    images: Sequence[str],
    reader: "SmearReader",
    folder: Path | Elsewhere,
    red_cell: float | None,
    given: bool,
    several: bool,
    moved: list[float] | None,
) -> Iterator[dict[str, Any] | tuple[str, str]]:
    """Count photographs: of each its line of the journal, or its name and what failed."""
    if moved is not None:
        reader = replace(reader, classifier=replace(reader.classifier, moved=np.array(moved)))

    def look_at(image: str) -> _Waiting | tuple[str, str]:
        stamp = _stamp_of(folder / image)
        try:
            photograph, note = _look_at(folder / image)
            check_photograph(photograph, red_cell or SMALLEST_RED_CELL)
        except WbcError as error:
            return image, f"{type(error).__name__}: {error}"
        return _Waiting(image, stamp, photograph, note)

    batch: list[_Waiting] = []
    # The next ones are read while the networks look at these.
    with ThreadPoolExecutor(2) as pool:
        for waiting in _ahead(pool, look_at, images):
            if isinstance(waiting, tuple):
                yield waiting
                continue
            batch.append(waiting)
            n_pixels = sum(one.photograph.shape[0] * one.photograph.shape[1] for one in batch)
            if red_cell is None or len(batch) == _AT_A_TIME or n_pixels >= _MOST_PIXELS:
                yield from _read_batch(reader, batch, red_cell, given, several)
                batch = []
        yield from _read_batch(reader, batch, red_cell, given, several)


@dataclass(frozen=True, eq=False)
class _Waiting:
    """A photograph that was read and not counted yet."""

    image: str
    stamp: list[Any] | None
    photograph: np.ndarray
    note: str


def _ahead(pool: ThreadPoolExecutor, work: Callable, items: Iterable) -> Iterator[Any]:
    """Work on items in a pool, so many ahead of what is asked for and no more."""
    begun: deque = deque()
    for item in items:
        begun.append(pool.submit(work, item))
        if len(begun) > _AT_A_TIME:
            yield begun.popleft().result()
    while begun:
        yield begun.popleft().result()


def _read_batch(
    reader: "SmearReader",
    batch: Sequence[_Waiting],
    red_cell: float | None,
    given: bool,
    several: bool,
) -> Iterator[dict[str, Any]]:
    """Have the networks look at photographs: a line of the journal each."""
    if not batch:
        return
    # Where nothing tells the scale of the folder, the only photograph of the batch may.
    start = red_cell or fitness.first_guess(batch[0].photograph)
    looks = [fitness.measure(waiting.photograph, start) for waiting in batch]
    reasons = [fitness.judge(of_one) for of_one in looks]
    # What shows no smear is not read.
    worth = [w.photograph for w, of_one in zip(batch, reasons, strict=True) if not of_one]
    tables = iter(reader.read(worth, start) if worth else [])
    for waiting, of_one, hopeless in zip(batch, looks, reasons, strict=True):
        notes = [waiting.note] if waiting.note else []
        if hopeless:
            yield _line(waiting, None, start, hopeless, notes)
            continue
        boxes = next(tables)
        reading = fitness.read_at_own_scale(reader, waiting.photograph, boxes, start)
        at = start
        differs = abs(np.log(reading.red_cell / start)) > fitness.CONTRADICTS
        if not given and reading.red_cell != start:
            boxes, at = reading.boxes, reading.red_cell
            of_one = fitness.measure(waiting.photograph, at)
        # At its own scale, another part of it is its middle.
        unfit = fitness.judge(of_one) or fitness.judge_reading(of_one, at, boxes)
        if differs and given:
            unfit.insert(0, fitness.WRONG_WIDTH)
            notes.append(f"red cells about {reading.red_cell:.0f} pixels wide, not {at:.0f}")
        elif differs and red_cell and several:
            notes.append("red cells of another width than in the folder")
        elif not red_cell and np.isnan(reading.measured):
            notes.append("scale unsure: too few red cells; give their width as red_cell")
        yield _line(waiting, boxes, at, unfit, notes)


def _line(
    waiting: _Waiting, boxes: pd.DataFrame | None, red_cell: float, reasons: Sequence[str],
    notes: Sequence[str],
) -> dict[str, Any]:  # fmt: skip
    """Put together what the journal holds of a photograph."""
    rows = []
    if boxes is not None:
        columns = []
        for name, column in boxes.items():
            values = column.round(_DIGITS[name]) if name in _DIGITS else column
            missing = column.isna().to_numpy()
            columns.append(np.where(missing, np.array(None), values.astype(object)).tolist())
        rows = list(map(list, zip(*columns, strict=True)))
    height, width = waiting.photograph.shape[:2]
    return {
        "file": waiting.image, "stamp": waiting.stamp, "width": width, "height": height,
        "boxes": rows, "red_cell": round(red_cell, 1), "reasons": list(reasons),
        "note": "; ".join(notes),
    }  # fmt: skip


_DIGITS = {**dict.fromkeys(BOX, 1), "score": 4, "type_probability": 4}


def _write_tables(out: Path, images: Sequence[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Write `cells.csv` and `counts.csv` from the journal; return counts, and fit white cells."""
    counts: list[list[Any]] = []
    white_cells: list[tuple[Any, Any]] = []
    journal = _read_journal(out, images)
    with _csv(out / CELLS, CELL_COLUMNS) as table:
        while photographs := list(itertools.islice(journal, _ROWS_AT_A_TIME)):
            boxes = _boxes_of(photographs)
            n_unsure = _tally(boxes["unsure"], boxes, len(photographs))
            boxes = boxes[boxes["counted"]]
            width, height, is_fit = (
                np.array(column)[boxes.index]
                for column in zip(
                    *((p["width"], p["height"], not p["reasons"]) for p in photographs),
                    strict=True,
                )
            )
            edges = detection.cut_edges(boxes, width, height)
            cut = [" ".join(edges.columns[row]) for row in edges.to_numpy()]
            files = np.array([storage.plain(p["file"]) for p in photographs], object)[boxes.index]
            rows = boxes.assign(file=files, cut=cut)[CELL_COLUMNS].astype(object)
            table.writerows(rows.where(rows.notna(), "").to_numpy().tolist())
            counts += _count_boxes(photographs, boxes, edges, n_unsure)
            white = boxes[boxes["kind"].eq("WBC") & is_fit]
            white_cells += zip(white["cell_type"], ~white["answered"], strict=True)
    with _csv(out / COUNTS, COUNT_COLUMNS) as table:
        table.writerows([storage.plain(file), *numbers] for file, *numbers in counts)
    return (
        pd.DataFrame(counts, columns=COUNT_COLUMNS),
        pd.DataFrame(white_cells, columns=["cell_type", "abstained"]),
    )


_ROWS_AT_A_TIME = 16  # photographs; tables of a single one's boxes cost ten times as much each


def _tally(chosen: pd.Series, boxes: pd.DataFrame, n_photographs: int) -> list[int]:
    """Count the chosen boxes of each photograph; the index of `boxes` is the photograph's place."""
    return np.bincount(boxes.index[chosen.to_numpy(bool)], minlength=n_photographs).tolist()


def _count_boxes(
    photographs: Sequence[dict[str, Any]],
    boxes: pd.DataFrame,
    cut: pd.DataFrame,
    n_unsure: list[int],
) -> list[list[Any]]:
    """Rows of `counts.csv`, of photographs and their counted boxes."""
    answered = boxes["answered"].fillna(False).astype(bool)
    is_white, is_cut = boxes["kind"].eq("WBC"), cut.any(axis=1)

    def tally(chosen: pd.Series) -> list[int]:
        return _tally(chosen, boxes, len(photographs))

    def of_types(names: Iterable[str]) -> list[list[int]]:
        return [tally(boxes["cell_type"].eq(name).fillna(False) & answered) for name in names]

    def of_kinds(chosen: pd.Series | bool) -> list[list[int]]:
        return [tally(boxes["kind"].eq(kind) & chosen) for kind in cells.KIND_NAMES]

    columns = [
        [p["file"] for p in photographs],
        *of_kinds(True),
        *of_types(cells.NAMES),
        tally(is_white & ~answered),
        n_unsure,
        [p["width"] for p in photographs],
        [p["height"] for p in photographs],
        *of_kinds(~is_cut),
        *of_kinds(is_cut),
        *of_kinds(detection.is_framed(cut)),
        [p["red_cell"] for p in photographs],
        [fitness.is_fit(p["reasons"]) for p in photographs],
        [not p["reasons"] for p in photographs],
        ["; ".join(p["reasons"]) for p in photographs],
        [p["note"] for p in photographs],
        *of_types([cells.BASOPHIL.name]),
    ]
    return [list(row) for row in zip(*columns, strict=True)]


@contextmanager
def _csv(target: Path, columns: Sequence[str]) -> Iterator[Any]:
    # Names of files may be no text; the system says how Python reads its own.
    errors = sys.getfilesystemencodeerrors()
    with (
        storage.atomic_file(target) as partial,
        partial.open("w", encoding="utf-8", errors=errors, newline="") as lines,
    ):
        table = csv.writer(lines)
        table.writerow(columns)
        yield table


# What has been counted so far


_DECIDES_FINDING = ("created", "filters", "ways", "iou", "thresholds")
_DECIDES_NAMING = ("created", "recipe", "image_size", "temperature", "threshold", "unlike")


def _describe(
    folder: Path | Elsewhere, reader: "SmearReader", red_cell: float | None, adapt: bool | None
) -> dict[str, Any]:
    """Put together what decides the counts: going on in another way would mix two of them."""
    place = folder.resolve() if isinstance(folder, Path) else str(folder)
    return {
        "what": "cells counted in photographs of smears, each judged",
        "folder": os.fsencode(place).decode("utf-8", "backslashreplace"),
        "red_cell": red_cell,
        "adapted": adapt,
        **_describe_weights(reader),
    }


def _describe_weights(reader: "SmearReader") -> dict[str, Any]:
    taught, finding = reader.classifier.laboratory, reader.detector.about
    return {
        "detector": {
            **{key: finding.get(key) for key in _DECIDES_FINDING},
            **({"numbers": finding["numbers"]} if "numbers" in finding else {}),
        },
        "classifier": {key: reader.classifier.about.get(key) for key in _DECIDES_NAMING},
        "laboratory": taught and [taught.name, taught.of, round(float(taught.bias.sum()), 6)],
    }


def _open_folder(out: Path, description: dict[str, Any]) -> dict[str, Any]:
    """Begin in a new folder, or go on in one that holds the same counts; return its settings."""
    # As it comes back from JSON.
    description = json.loads(json.dumps(description))
    settings_file = out / SETTINGS
    if settings_file.is_file():
        try:
            settings = storage.read_json(settings_file)
        except ValueError:
            settings = {}
        differing = [key for key, value in description.items() if settings.get(key) != value]
        if not differing:
            return settings
        raise RunExists(
            f"{out} holds results that differ in {', '.join(differing)}. Nothing is overwritten: "
            "choose another folder, or the same photographs and settings to go on with it."
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunExists(
            f"{out} exists and holds something else. Nothing is overwritten: choose a new folder."
        )
    settings = {**description, "estimated_red_cell": None, "photographs_for_scale": 0}
    storage.make_folder(out)
    storage.write_json(settings_file, settings)
    return settings


def _stamp_of(path: Path | Elsewhere) -> list[Any] | None:
    """Tell what changes with a file: its size and when it was written; None without a file."""
    try:
        if isinstance(path, Elsewhere):
            return path.stamp()
        status = path.stat()
    except (OSError, ValueError, DownloadFailed):
        return None
    return [status.st_size, status.st_mtime_ns]


def _read_stamps(out: Path) -> dict[str, list[Any]]:
    """Read the stamps of what is counted; cut off what an interruption left half written."""
    journal = out / JOURNAL
    if not journal.is_file():
        return {}
    stamps, n_bytes = {}, 0
    with journal.open("rb") as lines:
        for line in lines:
            try:
                photograph = json.loads(line)
                file, stamp = photograph["file"], photograph["stamp"]
            except (ValueError, TypeError, KeyError, RecursionError):
                break
            if not line.endswith(b"\n"):
                break
            stamps[file] = stamp
            n_bytes += len(line)
    if n_bytes < journal.stat().st_size:
        os.truncate(journal, n_bytes)
    return stamps


# Said, since a table without rows would have none.
_DTYPES: dict[str, Any] = {
    **dict.fromkeys(("kind", "cell_type"), "string"),
    **dict.fromkeys((*BOX, "score", "type_probability"), float),
    **dict.fromkeys(("counted", "unsure"), bool),
    "answered": "boolean",
}


def read_counted(out: Path, images: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Read what was counted in photographs, one after the other, in the order asked for.

    Yields `file`, `width` and `height` in pixels, `red_cell`, `reasons` and `note` as in
    `COUNT_COLUMNS`, and `boxes`, a DataFrame of `detector.READ_COLUMNS`; where there are reasons,
    no white cell is answered for.
    """
    for photograph in _read_journal(out, images):
        yield {**photograph, "boxes": _boxes_of([photograph]).reset_index(drop=True)}


def _read_journal(out: Path, images: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Read the lines of photographs, in the order asked for."""
    places, place = {}, 0
    with (out / JOURNAL).open("rb") as lines:
        for line in lines:
            # The last one counts: a file that changed was counted again.
            places[json.loads(line)["file"]] = place
            place += len(line)
        for image in images:
            lines.seek(places[image])
            yield json.loads(lines.readline())


def _boxes_of(photographs: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Put the boxes of journal's lines into one table; its index is the place of their line."""
    from wbc_helpers.count.detector import READ_COLUMNS

    rows = [row for photograph in photographs for row in photograph["boxes"]]
    lacks = len(READ_COLUMNS) - min(map(len, rows), default=0)
    if rows and lacks:  # A journal of an earlier version.
        rows = [(row + lacks * [None])[: len(READ_COLUMNS)] for row in rows]
    places = np.repeat(range(len(photographs)), [len(p["boxes"]) for p in photographs])
    boxes = pd.DataFrame(rows, index=places, columns=READ_COLUMNS).astype(_DTYPES)
    # On what is not fit there is no answer.
    boxes["answered"] &= np.array([not p["reasons"] for p in photographs], bool)[places]
    return boxes
