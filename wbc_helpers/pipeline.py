"""From data to report in one go: the notebooks in their order, executed into a run folder."""

import logging
import math
import re
import shutil
import sys
import sysconfig
import time
from collections import deque
from pathlib import Path
from typing import Any, TextIO

from wbc_helpers import storage
from wbc_helpers.data import sample, sources
from wbc_helpers.data.identity import identify
from wbc_helpers.errors import BrokenRun, DataNotFound
from wbc_helpers.report.records import NOTEBOOKS
from wbc_helpers.runs import folders
from wbc_helpers.runs.recipes import RECIPES, TrainingSettings, describe

ROOT = Path(__file__).resolve().parents[1]
"""Of a clone: holds `notebooks/`, `data/` and `runs/`."""


_CPU_SECONDS = {"paper": 0.0012, "lenet": 0.009, "compact": 0.0018}
"""Of training, for an image or view, on two cores, by the `history.csv` of runs."""

_EPOCH = re.compile(r"Epoch (\d+)/(\d+)")
_EPOCH_ENDED = re.compile(r"- (\d+)s -.*?- accuracy: ([\d.]+)")
_BAR = re.compile(r"([\w ]+):\s+(\d+%).*?\[.*?<([\d:]+|\?)")


def notebooks_folder(root: Path = ROOT) -> Path:
    """Folder of the notebooks: the clone's, else the package's; else raise `DataNotFound`."""
    installed = Path(sysconfig.get_path("data"), "share", "wbc_helpers", "notebooks")
    for folder in (root / "notebooks", installed):
        if (folder / f"{NOTEBOOKS[0]}.ipynb").is_file():
            return folder
    raise DataNotFound(
        f"No notebooks were found in {root / 'notebooks'} or {installed}. Install the package from "
        "its repository: pip install ."
    )


def execute(
    settings: TrainingSettings,
    source: str = "auto",
    run: str | None = None,
    data_dir: str | Path = "data",
    runs_dir: str | Path = "runs",
) -> bool:
    """Fetch the data, execute `NOTEBOOKS`, render the report; whether all went through.

    If one did not, the report shows where. Settings and name are checked against an existing run
    before any work starts. Started again with the same name and settings, an interrupted run goes
    on where it was. `source` is that of `sources.fetch`, `run` the name, by default that of
    `TrainingSettings.default_name`; relative folders are meant from the working folder.

    Raises `RunExists` if the run exists with other settings or data, and what `sources.fetch`
    raises.
    """
    data_dir, runs_dir = map(storage.absolute, (data_dir, runs_dir))
    if run is not None:
        folders.folder_of(run, runs_dir)
    folder = sources.fetch(source, data_dir)
    identity = identify(folder)
    print(sources.banner(identity.source), flush=True)
    run = run or settings.default_name(identity.source.name)
    run_folder = folders.folder_of(run, runs_dir)
    record = describe(settings, {"digest": identity.digest}, runtime=None)
    existing = folders.find(run, runs_dir, record)
    if existing and existing.is_complete and _is_whole(run_folder):
        print(f"The run {run!r} is finished; nothing is done twice.", flush=True)
        went_through = True
    else:
        if ahead := time_ahead(settings, int(identity.counts.loc["TRAIN"].to_numpy().sum())):
            print(ahead, flush=True)
        storage.make_folder(run_folder)
        with storage.named_errors(run_folder):
            went_through = _execute_notebooks(settings, folder, run, data_dir, runs_dir)

    # Only now: what renders pages would otherwise take its memory beside the training's.
    from wbc_helpers.report import rendering

    report = rendering.render_run(run_folder)
    overview = rendering.render_overview(runs_dir)
    print(sources.banner(identity.source))
    if went_through:
        print(scores(run_folder))
    print(f"\nReport of this run:  {report}\nAll runs:            {overview}", flush=True)
    return went_through


def _is_whole(run_folder: Path) -> bool:
    """Tell whether all notebooks were executed, the last one to its end."""
    executed = [(run_folder / f"{notebook}.ipynb").is_file() for notebook in NOTEBOOKS]
    return all(executed) and (run_folder / "evaluation.json").is_file()


def _execute_notebooks(
    settings: TrainingSettings, folder: Path, run: str, data_dir: Path, runs_dir: Path
) -> bool:
    """Execute the notebooks into the run folder; stop at the first that fails, and say so."""
    # These imports take a second that a wrong parameter need not wait for.
    import nbformat
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    logger = logging.getLogger("papermill")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    for number, notebook in enumerate(NOTEBOOKS, start=1):
        source = notebooks_folder() / f"{notebook}.ipynb"
        # Papermill adds a cell with the parameters.
        n_cells = len(nbformat.read(source, as_version=4).cells) + 1
        shown = Progress(f"{number} of {len(NOTEBOOKS)} · {notebook}", n_cells)
        logger.handlers = [shown]
        try:
            papermill.execute_notebook(
                _literal(source),
                _literal(runs_dir / run / f"{notebook}.ipynb"),
                _parameters(notebook, settings, folder, run, data_dir, runs_dir),
                kernel_name="python3",
                cwd=ROOT,
                log_output=True,
                progress_bar=False,
                # The kernel's word about local sockets is none that a newcomer can act on, nor is
                # the traceback that it writes when Ctrl-C takes them away.
                extra_arguments=["--log-level=CRITICAL"],
            )
        except PapermillExecutionError as error:
            shown.end("stopped")
            print(f"\n{notebook} stopped: {error.ename}: {error.evalue}", flush=True)
            return False
        except DeadKernelError:
            shown.end("stopped")
            print(
                f"\n{notebook} stopped: the process that executed it was ended by the system, most "
                "often because the memory was full. Close other programs, or choose a smaller "
                "recipe; the same command goes on from the last epoch that was finished.",
                flush=True,
            )
            return False
        shown.end(f"done, {n_cells} cells")
    return True


def _literal(path: Path) -> str:
    """Write a path so that papermill, which formats paths, leaves braces in it as they are."""
    return re.sub(r"([{}])", r"\1\1", str(path))


class Progress(logging.Handler):
    """A line for a notebook while papermill executes it: the cell, and how far its work is.

    On a terminal the line is written over; elsewhere a new one appears when the work has a new name
    or an epoch ended, at most every few seconds.
    """

    def __init__(self, title: str, n_cells: int, stream: TextIO | None = None, pause: float = 5.0):
        super().__init__()
        self.title, self.n_cells, self.stream = title, n_cells, stream or sys.stdout
        self.cell, self.work, self.left = 1, "", ""
        self.epoch, self.n_epochs, self.epoch_seconds = 0, 0, deque[float](maxlen=5)
        self.started, self.last = time.monotonic(), -math.inf
        self.live = self.stream.isatty()
        self.pause = 0.1 if self.live else pause
        self._write(self._line())

    def emit(self, record: logging.LogRecord) -> None:
        """Take what concerns progress from papermill's log, which carries the cells' output."""
        for message in re.split(r"[\r\n]+", record.getMessage()):
            self._take(message.strip())

    def _take(self, message: str) -> None:
        trained = False  # the last epoch is worth a line, however soon it comes
        if began := re.match(r"Executing Cell (\d+)", message):
            self.cell, self.work, self.left = int(began[1]), "", ""
        elif began := _EPOCH.match(message):
            self.epoch, self.n_epochs = int(began[1]), int(began[2])
            self.work = self.work or f"training, epoch {self.epoch} of {self.n_epochs}"
        elif (ended := _EPOCH_ENDED.search(message)) and self.epoch:
            self.epoch_seconds.append(float(ended[1]))
            seconds = sum(self.epoch_seconds) / len(self.epoch_seconds)
            remaining = seconds * (self.n_epochs - self.epoch)
            self.work = f"training, epoch {self.epoch} of {self.n_epochs}, accuracy "
            self.work += f"{float(ended[2]):.0%}"
            self.left = f"about {_spoken(remaining)} left" if remaining else ""
            trained = self.epoch == self.n_epochs
        elif bar := _BAR.search(message):
            self.work, self.left = f"{bar[1].strip()} {bar[2]}", f"{bar[3]} left"
        elif message.startswith("Going on with run"):
            self._write(f"   {message}", keep=True)
            return
        else:
            return
        if trained or (time.monotonic() - self.last >= self.pause and (self.live or self.work)):
            self._write(self._line())

    def _line(self) -> str:
        parts = [f"cell {min(self.cell, self.n_cells)} of {self.n_cells}", self.work, self.left]
        return f"{self.title:24} {', '.join(part for part in parts if part)}"

    def end(self, how: str) -> None:
        """Write the line that stays."""
        took = _spoken(time.monotonic() - self.started)
        self._write(f"{self.title:24} {how}, {took}", keep=True)

    def _write(self, line: str, keep: bool = False) -> None:
        self.last = time.monotonic()
        if self.live:
            width = shutil.get_terminal_size().columns - 1
            line = f"\r{line[:width]:{width}}" + ("\n" if keep else "")
        else:
            line += "\n"
        self.stream.write(line)
        self.stream.flush()


def _spoken(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def time_ahead(settings: TrainingSettings, n_images: int) -> str:
    """Say how long a training on so many images takes without a GPU; empty where not measured."""
    per_image = _CPU_SECONDS.get(settings.recipe)
    if per_image is None:
        return ""
    n_shown = RECIPES[settings.recipe].images_per_epoch or n_images
    seconds = per_image * n_shown * settings.epochs
    return (
        f"Training {settings.recipe!r} for {settings.epochs} epochs takes about "
        f"{_spoken(seconds)} on two cores of a CPU, less on a GPU; interrupted, it goes on."
    )


def _parameters(
    notebook: str,
    settings: TrainingSettings,
    folder: Path,
    run: str,
    data_dir: Path,
    runs_dir: Path,
) -> dict[str, Any]:
    """Give each notebook the parameters that it has."""
    # What was fetched stands for the source, so that all notebooks see the same data.
    source = "sample" if sample.is_sample(folder) and folder.parent == data_dir else str(folder)
    parameters: dict[str, Any] = {"source": source, "data_dir": str(data_dir)}
    # Whole frames are looked at there, which a crop's square would squash.
    if notebook == "02_explore" and RECIPES[settings.recipe].sees == "image":
        parameters |= {"image_size": list(settings.image_size)}
    if notebook == "03_train":
        parameters |= {
            "recipe": settings.recipe,
            "epochs": settings.epochs,
            "image_size": list(settings.image_size),
            "batch_size": settings.batch_size,
            "learning_rate": settings.learning_rate,
            "validation": settings.validation,
            "validation_fraction": settings.validation_fraction,
            "seed": settings.seed,
        }
    if notebook in ("03_train", "04_evaluate"):
        parameters |= {"run": run, "runs_dir": str(runs_dir)}
    return parameters


def scores(run_folder: Path) -> str:
    """Put the scores of a run (its `evaluation.json`) into a table for the terminal."""
    hint = "Evaluate the run with 04_evaluate again."
    path = run_folder / "evaluation.json"
    try:
        return _table_of(storage.read_record(path, hint))
    except (TypeError, ValueError, AttributeError) as error:
        raise BrokenRun(f"{path} is damaged ({error}). {hint}") from error


def _table_of(evaluation: dict[str, Any]) -> str:
    validation, test = evaluation["validation"], evaluation["test"]
    rows = [(f"validation images, {validation['split']}", validation, None)]
    rows.append(("TEST images", test, test.get("interval_by_photograph")))
    if test.get("photographs"):
        rows.append(("TEST photographs", test["photographs"], None))
    if evaluation.get("test_simple"):
        rows.append(("TEST_SIMPLE images", evaluation["test_simple"], None))
    lines = [
        f"\nRun {evaluation['run']}: recipe {evaluation['recipe']}, {evaluation['epochs']} epochs, "
        f"{evaluation['parameters']:,} parameters, {_spoken(evaluation['seconds']['train'])} of "
        f"training on {evaluation['train']['n_images']:,} images\n",
        f"{'judged on':34}{'n':>7}{'right':>9}{'95 % interval':>18}{'balanced':>11}",
    ]
    for title, score, interval in rows:
        between = "" if not interval or None in interval else "{:.1%} – {:.1%}".format(*interval)
        balanced = score.get("balanced_accuracy")
        lines.append(
            f"{title:<34}{score['n_images']:>7,}{score['accuracy']:>9.1%}{between:>18}"
            + ("" if balanced is None else f"{balanced:>11.1%}")
        )
    lines.append(
        "right: of the row's n. Interval: photographs drawn anew. balanced: mean over the types."
    )
    return "\n".join(lines)
