"""What a run folder holds, read without fail whatever state it is in.

Reports are made of runs that are complete, still training, killed or failed: a file may be missing,
half written or of another kind. What cannot be read stays empty and is named as a problem.
"""

import csv
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import nbformat
import pandas as pd

from wbc_helpers import storage
from wbc_helpers.audit.labels import crop_white_cells
from wbc_helpers.cells import NAMES
from wbc_helpers.data.catalog import images_folder
from wbc_helpers.errors import BrokenRun, FolderGone, RunNotFound, WbcError
from wbc_helpers.evaluate.classification import PROBABILITIES, read_predictions
from wbc_helpers.report.pages import embedded
from wbc_helpers.runs.folders import DETECTORS

NOTEBOOKS = ("01_download", "02_explore", "03_train", "04_evaluate")
"""The notebooks of a run, in order."""

FURTHER = {
    "05_audit": "Can the data, and the score, be believed?",
    "06_count": "How many cells of each kind does a smear show?",
}
"""Notebooks that ask more than a run answers; executed into a run's folder, they get pages, too."""

_PAPERMILL_ERROR_TAG = "papermill-error-cell-tag"


@dataclass(frozen=True, eq=False)
class ExecutedNotebook:
    """One executed notebook of a run, as far as it got.

    Attributes
    ----------
    name : str
        Stem of the file, such as "03_train".
    title : str
        Its first heading, or what its name says.
    state : str
        "complete", "failed" (a cell raised), "unfinished" (cells were not executed) or
        "unreadable" (the file is no notebook).
    stopped_at : int or None
        Index of the cell that failed or was not executed.
    error : str
        What went wrong, without colour codes; empty if nothing did.
    started, seconds
        When, in UTC, and how long; None if not recorded.
    parameters : dict
        What papermill was asked to set.
    content : NotebookNode or None
        The notebook, without papermill's own error cells.
    """

    name: str
    title: str
    state: str
    stopped_at: int | None = None
    error: str = ""
    started: datetime | None = None
    seconds: float | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    content: nbformat.NotebookNode | None = None

    @property
    def page(self) -> str:
        """Address of its page, relative to the run folder."""
        return quote(self.name) + ".html"

    @property
    def stopped_link(self) -> str:
        """Address of the cell it stopped at."""
        return self.page if self.stopped_at is None else f"{self.page}#cell-{self.stopped_at}"


@dataclass(frozen=True, eq=False)
class RunRecord:
    """What a run folder says about its run; whatever is missing or broken stays empty.

    `settings` and `evaluation` are the JSON files of those names, `history` the columns of
    `history.csv` (NaN where a number is missing), `notebooks` in reading order, and `problems` what
    could not be read, in plain words.
    """

    folder: Path
    settings: Mapping[str, Any]
    evaluation: Mapping[str, Any]
    history: Mapping[str, list[float]]
    notebooks: tuple[ExecutedNotebook, ...]
    problems: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name of the run: that of its folder."""
        return self.folder.name

    @property
    def drawn(self) -> bool | None:
        """Whether the cells are drawn; None if the run does not say."""
        stated = [look_up(record, "data", "drawn") for record in (self.settings, self.evaluation)]
        asked = [notebook.parameters.get("source") == "sample" for notebook in self.notebooks]
        return True if True in stated + asked else False if False in stated else None

    def setting(self, key: str) -> Any:
        """Value of a training setting, as recorded or else as the notebooks were given it."""
        given = [notebook.parameters.get(key) for notebook in self.notebooks]
        candidates = [look_up(self.settings, "training", key), *given]
        return next((value for value in candidates if value is not None), None)

    @property
    def created(self) -> datetime | None:
        """When the run was started; None if not recorded."""
        started = min((n.started for n in self.notebooks if n.started), default=None)
        return readable_date(self.settings.get("created")) or started

    @property
    def failure(self) -> ExecutedNotebook | None:
        """The notebook that failed, if one did."""
        bad = ("failed", "unreadable")
        return next((notebook for notebook in self.notebooks if notebook.state in bad), None)

    @property
    def steps(self) -> tuple[tuple[str, ExecutedNotebook | None], ...]:
        """Every notebook's name in reading order, with what was executed of it."""
        executed = {notebook.name: notebook for notebook in self.notebooks}
        return tuple((name, executed.get(name)) for name in sorted({*NOTEBOOKS, *executed}))

    @property
    def missing_steps(self) -> tuple[str, ...]:
        """Notebooks that were not executed."""
        return tuple(name for name, notebook in self.steps if notebook is None)

    @property
    def state(self) -> str:
        """One of "failed", "complete", "trained" (not evaluated), "training", "unreadable"."""
        if self.failure:
            return "failed"
        if number(self.evaluation, "test", "accuracy") is not None:
            return "complete"
        if not (self.settings or self.evaluation or self.notebooks or self.history["epoch"]):
            return "unreadable"
        planned = self.setting("epochs")
        enough = isinstance(planned, int) and len(self.history["epoch"]) >= planned > 0
        return "trained" if enough else "training"

    @property
    def data_title(self) -> str:
        """What data the run used, in words; empty if not recorded."""
        stated = [look_up(self.settings, "data", key) for key in ("title", "source")]
        stated += [look_up(self.evaluation, "data", "source"), self.setting("source")]
        return next((str(title) for title in stated if title), "")

    @property
    def validation_accuracy(self) -> float | None:
        """Validation accuracy as evaluated, else after the last epoch, else None."""
        evaluated = number(self.evaluation, "validation", "accuracy")
        each_epoch = self.history.get("val_accuracy", [])
        last = each_epoch[-1] if each_epoch and math.isfinite(each_epoch[-1]) else None
        return last if evaluated is None else evaluated

    @property
    def validation_split(self) -> str:
        """How validation images were chosen: "random (leaky)", "grouped", or empty."""
        stated = look_up(self.evaluation, "validation", "split") or self.setting("validation")
        return "random (leaky)" if stated == "random" else str(stated or "")

    @property
    def confusion(self) -> list[list[int]]:
        """Counts on TEST by true type (row) and predicted type (column); empty if not recorded."""
        counts = look_up(self.evaluation, "test", "confusion")
        sound = isinstance(counts, list) and all(
            isinstance(row, list)
            and len(row) == len(counts) == len(NAMES)
            and all(isinstance(count, int) and count >= 0 for count in row)
            for row in counts
        )
        return counts if sound else []

    @property
    def worst_confusion(self) -> tuple[str, str, int, int] | None:
        """Type most often mistaken on TEST, for which, how often, of how many; None if for none."""
        mistakes = [
            (count, sum(row), true, predicted)
            for true, row in zip(NAMES, self.confusion, strict=bool(self.confusion))
            for predicted, count in zip(NAMES, row, strict=True)
            if count and true != predicted
        ]
        if not mistakes:
            return None
        count, n_images, true, predicted = max(mistakes)
        return true, predicted, count, n_images

    def interval(self, part: str, score: str) -> tuple[float, float] | None:
        """Interval of a score by photograph, at 95 %; None if it was not recorded."""
        stated = look_up(self.evaluation, part, "intervals_by_photograph", score)
        if stated is None and score == "accuracy":
            stated = look_up(self.evaluation, part, "interval_by_photograph")
        if not isinstance(stated, list) or len(stated) != 2:
            return None
        low, high = (number({"end": end}, "end") for end in stated)
        return None if low is None or high is None else (low, high)

    @property
    def colab(self) -> str:
        """Address of the notebooks' folder in Colab, as their badges state it; else empty."""
        sources = [
            n.content.cells[0].source for n in self.notebooks if n.content and n.content.cells
        ]
        found = re.search(r"https://colab\.[^\s()]+/notebooks/", " ".join(sources))
        return found[0] if found else ""

    @property
    def epochs(self) -> str:
        """Epochs trained, and of how many unless all were; empty if nothing is recorded."""
        done, planned = len(self.history["epoch"]), self.setting("epochs")
        if planned in (done, None):
            return str(done or "")
        return f"{done} of {planned}"


def look_up(record: Any, *keys: str) -> Any:
    """Value at a path of keys in nested dicts, or None if there is none."""
    for key in keys:
        record = record.get(key) if isinstance(record, Mapping) else None
    return record


def number(record: Any, *keys: str) -> float | None:
    """Finite number at a path of keys, or None."""
    value = look_up(record, *keys)
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    return value if numeric and math.isfinite(value) else None


def read_run(folder: str | Path) -> RunRecord:
    """Read a run folder, whatever state it is in.

    Raises
    ------
    RunNotFound
        If there is no such folder.
    BrokenRun
        If it holds nothing of a run: no notebook and no readable record.
    """
    folder = storage.absolute(folder)
    if not folder.is_dir():
        raise RunNotFound(f"There is no run folder {folder}. `wbc run` makes one.")
    problems: list[str] = []
    settings = _read_json(folder / "settings.json", problems)
    evaluation = _read_json(folder / "evaluation.json", problems)
    history = _read_history(folder / "history.csv", problems)
    notebooks = tuple(_read_notebook(path) for path in sorted(folder.glob("0*.ipynb")))
    if not (settings or evaluation or history["epoch"] or notebooks or problems):
        raise BrokenRun(
            f"{folder} is not a run: it holds neither executed notebooks (0*.ipynb) nor "
            "settings.json, history.csv or evaluation.json. Give a folder that training made."
        )
    return RunRecord(folder, settings, evaluation, history, notebooks, tuple(problems))


def _read_json(path: Path, problems: list[str]) -> dict[str, Any]:
    try:
        return storage.read_json(path)
    except FileNotFoundError:
        return {}
    except (FolderGone, ValueError) as error:
        problems.append(f"{path.name} cannot be read; it may be half written ({error}).")
        return {}


def _read_history(path: Path, problems: list[str]) -> dict[str, list[float]]:
    columns: dict[str, list[float]] = {"epoch": []}
    try:
        rows = list(csv.DictReader(storage.read_text(path).splitlines()))
    except FileNotFoundError:
        return columns
    except (OSError, ValueError, csv.Error) as error:
        problems.append(f"{path.name} cannot be read: {error}")
        return columns
    names = [name for name in rows[0] if name] if rows else []
    if rows and "epoch" not in names:
        problems.append(f"{path.name} has no column named epoch and was left out.")
        return columns
    columns.update({name: [] for name in names})
    for line, row in enumerate(rows, start=2):
        try:
            numbers = [float(row[name]) for name in names]
        except (TypeError, ValueError):
            problems.append(f"{path.name}, line {line}, is not complete and was left out.")
            continue
        for name, value in zip(names, numbers, strict=True):
            columns[name].append(value)
    return columns


def _read_notebook(path: Path) -> ExecutedNotebook:
    title_of_name = path.stem.lstrip("0123456789_-").replace("_", " ").capitalize() or path.stem
    try:
        content = nbformat.reads(storage.read_text(path), as_version=4)
        nbformat.validate(content)
    # Whatever else than a notebook a file may hold, nbformat fails on it in one of these ways.
    except (
        OSError,
        ValueError,
        AttributeError,
        TypeError,
        KeyError,
        RecursionError,
        nbformat.ValidationError,
    ) as e:
        reason = str(e).strip().split("\n")[0]
        return ExecutedNotebook(
            path.stem, title_of_name, "unreadable", error=f"Not a notebook: {reason}"
        )
    content.cells = [
        c for c in content.cells if _PAPERMILL_ERROR_TAG not in c.metadata.get("tags", [])
    ]
    titles = [h for c in content.cells if c.cell_type == "markdown" for h in headings(c.source)]
    state, stopped_at, error = _outcome(content)
    parameters = look_up(content.metadata, "papermill", "parameters")
    return ExecutedNotebook(
        name=path.stem,
        title=titles[0] if titles else title_of_name,
        state=state,
        stopped_at=stopped_at,
        error=error,
        started=readable_date(look_up(content.metadata, "papermill", "start_time")),
        seconds=number(content.metadata, "papermill", "duration"),
        parameters=parameters if isinstance(parameters, Mapping) else {},
        content=content,
    )


def _outcome(content: nbformat.NotebookNode) -> tuple[str, int | None, str]:
    """State of a notebook, index of the cell it stopped at, and the error's text."""
    unfinished = None
    for index, cell in enumerate(content.cells):
        if cell.cell_type != "code":
            continue
        for output in cell.outputs:
            harmless = output.get("ename") == "SystemExit" and output.get("evalue") in ("", "0")
            if output.output_type == "error" and not harmless:
                message = f"{output.ename}: {output.evalue}".removesuffix(": ")
                return "failed", index, re.sub(r"\x1b\[[\d;]*[A-Za-z]", "", message).strip()
        if look_up(cell.metadata, "papermill", "exception") is True:
            return "failed", index, "The cell stopped without a message, as if its kernel died."
        if unfinished is None and cell.execution_count is None and cell.source.strip():
            unfinished = index
    return ("complete" if unfinished is None else "unfinished"), unfinished, ""


def headings(markdown: str) -> Iterator[str]:
    """Yield the `#` headings of a Markdown cell as plain text."""
    outside_code = re.sub(r"(?ms)^(```|~~~).*?^\1", "", markdown)
    for heading in re.findall(r"(?m)^#{1,6}[ \t]+(.+?)[ \t]*#*$", outside_code):
        yield re.sub(r"!?\[([^\]]*)\]\([^)]*\)|[*`]|<[^>]+>", r"\1", heading).strip()


def readable_date(stated: Any) -> datetime | None:
    """Point in time of an ISO 8601 text, in UTC; None if it is none."""
    try:
        moment = datetime.fromisoformat(stated)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, TypeError, OverflowError):
        return None


def further_pages(runs_dir: Path, name: str) -> list[tuple[str, str]]:
    """Pages of a notebook in the folders of runs: the run's name, and the address below."""
    pages = sorted(runs_dir.glob(f"*/{name}.html"))
    return [(page.parent.name, quote(page.relative_to(runs_dir).as_posix())) for page in pages]


def counted_pages(runs_dir: Path) -> list[tuple[str, str]]:
    """Pages of counted smears below a folder of runs: what to call each, and its address below."""
    pages = sorted((runs_dir / DETECTORS).glob("*/counts*/index.html"))
    return [
        (
            f"{page.parents[1].name}, {page.parent.name}",
            quote(page.relative_to(runs_dir).as_posix()),
        )
        for page in pages
    ]


# Cells that a run answered for

_SHOWN, _SIDE = 6, 144  # cells of each sort, and pixels of a crop's side


@dataclass(frozen=True)
class Example:
    """A cell that a run answered for: what it is, what it was called and how surely, its picture.

    `picture` is a data address; `probability`, 0–1, is that of `predicted`.
    """

    file: str
    cell_type: str
    predicted: str
    probability: float
    picture: str


def read_examples(run: RunRecord) -> dict[str, list[Example]]:
    """Choose cells of TEST that a run answered: "right", "wrong", "unsure", six of each at most.

    Right and wrong are those it was surest of, unsure those it was least sure of; right ones by
    turns of each type, and of each photograph one image. Empty where the run has no
    `predictions.csv`, or the images are no longer where they were.
    """
    try:
        answers = read_predictions(run.folder)
        folder = images_folder(str(look_up(run.settings, "data", "folder")))
        answers = answers[answers["split"] == "TEST"]
        chosen = {sort: rows for sort, rows in _choose(answers).items() if len(rows)}
        files = pd.concat(chosen.values())["file"].drop_duplicates()
        paths = pd.Series([folder / file for file in files], index=files)
        pictures = dict(zip(files, crop_white_cells(paths, _SIDE), strict=True))
    except (WbcError, OSError, ValueError):
        return {}
    return {
        sort: [
            Example(file, cell_type, predicted, probability, embedded(pictures[file], _SIDE))
            for file, cell_type, predicted, probability in zip(
                rows["file"], rows["cell_type"], rows["predicted"], rows["probability"], strict=True
            )
        ]
        for sort, rows in chosen.items()
    }


def _choose(answers: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Choose the rows of `read_examples`."""
    answers = answers.assign(
        probability=answers[list(PROBABILITIES)].max(axis=1),
        photograph=answers["source_id"].fillna(answers["file"]),
    ).sort_values(["probability", "file"], ascending=[False, True])
    right = answers["predicted"] == answers["cell_type"]
    surest = answers[right].drop_duplicates("photograph")
    # The second of each type comes after the first of all.
    turn = surest.groupby("cell_type", observed=True).cumcount()
    by_turns = surest.assign(turn=turn).sort_values(["turn", "cell_type"], kind="stable")
    return {
        "right": by_turns.head(_SHOWN),
        "wrong": answers[~right].drop_duplicates("photograph").head(_SHOWN),
        "unsure": answers[::-1].drop_duplicates("photograph").head(_SHOWN),
    }
