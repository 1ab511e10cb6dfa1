"""From data to report in one go: the notebooks in their order, executed into a run folder."""

import json
import logging
import sysconfig
import time
from pathlib import Path
from typing import Any

from wbc_helpers import storage
from wbc_helpers.data import sample, sources
from wbc_helpers.data.identity import identify
from wbc_helpers.errors import DataNotFound
from wbc_helpers.runs import folders
from wbc_helpers.runs.recipes import RECIPES, TrainingSettings, describe

ROOT = Path(__file__).resolve().parents[1]
"""Folder that holds `notebooks/`, `data/` and `runs/`."""

NOTEBOOKS = ("01_download", "02_explore", "03_train", "04_evaluate")


def notebooks_folder(root: Path = ROOT) -> Path:
    """Folder of the notebooks: the clone's, else the one that the package was installed with.

    Raises
    ------
    DataNotFound
        If neither is there.
    """
    installed = Path(sysconfig.get_path("data"), "share", "wbc_helpers", "notebooks")
    for folder in (root / "notebooks", installed):
        if (folder / f"{NOTEBOOKS[0]}.ipynb").is_file():
            return folder
    raise DataNotFound(
        f"No notebooks were found in {root / 'notebooks'} or {installed}. Install the package from "
        "its repository: pip install ."
    )


def default_name(settings: TrainingSettings, source: str) -> str:
    """Name a run after what makes it differ: recipe, data, epochs, and a seed other than 0."""
    seed = f"-seed{settings.seed}" if settings.seed else ""
    usual = RECIPES[settings.recipe].validation
    validation = "" if settings.validation == usual else f"-{settings.validation}"
    return f"{settings.recipe}-{source}-{settings.epochs}{validation}{seed}"


def execute(
    settings: TrainingSettings,
    source: str = "auto",
    run: str | None = None,
    data_dir: str | Path = "data",
    runs_dir: str | Path = "runs",
) -> bool:
    """Fetch the data, execute the notebooks, render the report, and say how it went.

    Settings and name are checked against an existing run before any work starts. Started again
    with the same name and settings, an interrupted run goes on where it was.

    Parameters
    ----------
    settings : TrainingSettings
        What to train.
    source : str
        As for `sources.fetch`.
    run : str, optional
        Name of the run; by default that of `default_name`.
    data_dir, runs_dir : path
        Relative ones are meant from the working folder.

    Returns
    -------
    bool
        Whether all of `NOTEBOOKS` went through. If one did not, the report shows where.

    Raises
    ------
    RunExists
        If the run exists with other settings or data.
    WbcError
        Whatever `sources.fetch` refuses.
    """
    data_dir, runs_dir = (Path(folder).expanduser().absolute() for folder in (data_dir, runs_dir))
    if run is not None:
        folders.folder_of(run, runs_dir)
    folder = sources.fetch(source, data_dir)
    identity = identify(folder)
    print(sources.banner(identity.source), flush=True)
    run = run or default_name(settings, identity.source.name)
    run_folder = folders.folder_of(run, runs_dir)
    wanted = describe(settings, {"digest": identity.digest}, runtime=None)
    existing = folders.find(run, runs_dir, wanted)
    if existing and existing.is_complete and _is_whole(run_folder):
        print(f"The run {run!r} is finished; nothing is done twice.", flush=True)
        went_through = True
    else:
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
    import papermill
    from papermill.exceptions import PapermillExecutionError

    _log_to_terminal()
    for number, notebook in enumerate(NOTEBOOKS, start=1):
        print(f"\n── {number} of {len(NOTEBOOKS)} · {notebook} {'─' * 40}", flush=True)
        started = time.perf_counter()
        try:
            papermill.execute_notebook(
                notebooks_folder() / f"{notebook}.ipynb",
                runs_dir / run / f"{notebook}.ipynb",
                _parameters(notebook, settings, folder, run, data_dir, runs_dir),
                kernel_name="python3",
                cwd=ROOT,
                log_output=True,
                progress_bar=False,
                # The kernel's word about local sockets is none that a newcomer can act on.
                extra_arguments=["--log-level=ERROR"],
            )
        except PapermillExecutionError as error:
            print(f"\n{notebook} stopped: {error.ename}: {error.evalue}", flush=True)
            return False
        print(f"   {time.perf_counter() - started:.0f} s", flush=True)
    return True


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
    parameters = {"source": source, "data_dir": str(data_dir)}
    if notebook == "02_explore":
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


def _log_to_terminal() -> None:
    """Let papermill's log, which carries what the notebooks print, through to the terminal."""
    logger = logging.getLogger("papermill")
    logger.setLevel(logging.INFO)
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("   %(message)s"))
        handler.addFilter(_is_output)
        logger.addHandler(handler)
        logger.propagate = False


def _is_output(record: logging.LogRecord) -> bool:
    """Pass what notebooks print, without papermill's word on every cell."""
    message = record.getMessage().strip()
    passing = ("Executing", "Ending Cell", "Input Notebook", "Output Notebook", "Working directory")
    return bool(message) and not message.startswith(passing) and not message.startswith("<")


def scores(run_folder: Path) -> str:
    """Put the scores of a run into a few lines for the terminal.

    Parameters
    ----------
    run_folder : Path
        With `evaluation.json`.

    Returns
    -------
    str
        Numbers of images, and the scores on the validation part and the official test sets.
    """
    evaluation = json.loads((run_folder / "evaluation.json").read_text(encoding="utf-8"))
    train, validation, test = (evaluation[part] for part in ("train", "validation", "test"))
    lines = [
        f"\nRun {evaluation['run']}: {evaluation['epochs']} epochs of recipe "
        f"{evaluation['recipe']}, {evaluation['parameters']:,} parameters, "
        f"{evaluation['seconds']['train']:.0f} s of training",
        f"  images      {train['n_images']:,} training / {validation['n_images']:,} validation / "
        f"{test['n_images']:,} test",
        f"  validation  accuracy {validation['accuracy']:.1%}, split {validation['split']}",
    ]
    for name, title in (("test", "TEST"), ("test_simple", "TEST_SIMPLE")):
        if found := evaluation.get(name):
            lines.append(
                f"  {title:11} accuracy {found['accuracy']:.1%}, balanced accuracy "
                f"{found['balanced_accuracy']:.1%}, macro-F1 {found['macro_f1']:.3f} "
                f"(n = {found['n_images']:,})"
            )
    low, high = test.get("interval_by_photograph") or (None, None)
    if (judged := test.get("photographs")) and None not in (low, high):
        lines.append(
            f"  {'':11} {judged['accuracy']:.1%} of its {judged['n_images']} photographs right; "
            f"95 % interval of the accuracy, drawn by photograph: {low:.1%}–{high:.1%}"
        )
    return "\n".join(lines)
