"""Run folders, all that passes from training to evaluation."""

import io
import json
import math
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from wbc_helpers import storage
from wbc_helpers.errors import (
    BrokenRun,
    DataMismatch,
    InvalidParameter,
    RunExists,
    RunNotFound,
    is_whole,
)
from wbc_helpers.evaluate.classification import Evaluation

FORMAT = 1
"""Version of the run folder's layout."""

HISTORY_COLUMNS = (
    "epoch", "loss", "accuracy", "val_loss", "val_accuracy", "seconds", "peak_memory_bytes",
)  # fmt: skip
DETECTORS = "detectors"
"""Of a folder of runs, where those of detectors lie: `latest` shall not find them among those of
networks that name cell types."""


@dataclass(frozen=True)
class Run:
    """A run folder and what stands in its `settings.json`, see `recipes.describe`."""

    folder: Path
    settings: dict[str, Any]

    @property
    def name(self) -> str:
        """Name of the run, which is that of its folder."""
        return self.folder.name

    def _repr_markdown_(self) -> str:
        """Say in a notebook which run it is, or that it is none of the reader's."""
        if self.was_trained:
            return f"The run **{self.name}**, in `{self.folder.parent}`"
        training = self.settings["training"]
        return (
            "**No run of yours is judged here, but the network that ships with this project** "
            f"(recipe `{training['recipe']}`, of {training['shipped'][:10]}). Train one with "
            "`03_train`, or give the name of one as `run`."
        )

    @property
    def is_complete(self) -> bool:
        """Whether training went through to its last epoch and the model was saved."""
        n_epochs = self.settings["training"]["epochs"]
        return (self.folder / "model.keras").is_file() and len(self.history) == n_epochs

    @property
    def was_trained(self) -> bool:
        """Whether it is a training, and not the weights that ship, see `judging.open_run`."""
        return self.settings["training"]["epochs"] > 0

    @property
    def history(self) -> pd.DataFrame:
        """One row an epoch, columns `HISTORY_COLUMNS`; empty before the first has ended.

        Raises `BrokenRun` if it is damaged, as does `split`.
        """
        try:
            table = self._read_table("history.csv", ("epoch",))
        except FileNotFoundError:
            return pd.DataFrame(columns=HISTORY_COLUMNS)
        if table.empty:
            return pd.DataFrame(columns=HISTORY_COLUMNS)
        if len(table.columns) > len(table.select_dtypes("number").columns):
            raise BrokenRun(f"{self.folder / 'history.csv'} holds other than numbers. {_HINT}")
        return table if "seconds" in table else table.assign(seconds=float("nan"))

    @property
    def split(self) -> pd.Series:
        """The part, such as `train` or `validation`, of each training file."""
        return self._read_table("split.csv", ("file", "part")).set_index("file")["part"]

    def _read_table(self, name: str, columns: Sequence[str]) -> pd.DataFrame:
        path = self.folder / name
        try:
            table = pd.read_csv(io.StringIO(storage.read_text(path)))
            table[list(columns)]
        except pd.errors.EmptyDataError:
            return pd.DataFrame(columns=[*columns])
        except (ValueError, KeyError, OverflowError) as error:
            raise BrokenRun(f"{path} is damaged ({error}). {_HINT}") from error
        return table

    @property
    def validation_title(self) -> str:
        """Name of the validation split, see the function."""
        return validation_title(self.settings["training"])

    def of_training(self, name: str) -> Path:
        """Path of a file that training leaves at its end; `BrokenRun` if it is not through."""
        if not self.is_complete:
            raise BrokenRun(
                f"The run {self.name!r} has finished {len(self.history)} of "
                f"{self.settings['training']['epochs']} epochs, and only finished runs have a "
                "model. Train again under the same name to go on with it."
            )
        return self.folder / name


def check_name(name: Any) -> str:
    """Refuse a name of a run that could lead out of the folder or break on another system.

    Examples
    --------
    >>> check_name("paper-20")
    'paper-20'
    """
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", name):
        raise InvalidParameter(
            f"run={name!r} is no name for a folder. Expected up to 80 letters, digits, '.', '_' "
            "or '-', starting with a letter or digit."
        )
    if name.lower() in ("latest", DETECTORS) or name.lower().endswith(".html"):
        raise InvalidParameter(
            f"run={name!r} is taken: latest stands for the newest run, {DETECTORS} holds those of "
            "detectors, and .html ends the names of pages. Expected another name."
        )
    return name


def folder_of(name: str, runs_dir: str | Path) -> Path:
    """Absolute path of a run's folder, which need not exist, in the folder of all runs."""
    return storage.absolute(runs_dir) / check_name(name)


def open_run(name: str, runs_dir: str | Path) -> Run:
    """Read a run folder by its name, complete or not; `latest` is the newest complete one.

    `runs_dir` is the folder of all runs. Raises `RunNotFound` if there is none of this name (the
    message lists those there are), and `BrokenRun` if its settings are missing, half written, or of
    another version. Of other runs that are broken, `latest` says on stderr why it passes them over.
    """
    if name == "latest":
        runs, broken = _read_runs(runs_dir)
        for reason in broken:
            print(f"Passed over: {reason}", file=sys.stderr, flush=True)
        finished = [run for run in runs if run.is_complete and run.was_trained]
        if not finished:
            raise RunNotFound(f"{runs_dir} holds no finished run. Train one with 03_train first.")
        return max(finished, key=lambda run: run.settings["created"])
    folder = folder_of(name, runs_dir)
    if not folder.is_dir():
        names = ", ".join(run.name for run in list_runs(runs_dir)) or "none"
        raise RunNotFound(
            f"There is no run {name!r} in {folder.parent} (there: {names}). Give the name of one "
            "of them, or train it with 03_train."
        )
    return Run(folder, _read_settings(folder))


def list_runs(runs_dir: str | Path) -> list[Run]:
    """All readable runs of a folder, oldest first; what is broken is passed over."""
    return _read_runs(runs_dir)[0]


def _read_runs(runs_dir: str | Path) -> tuple[list[Run], list[str]]:
    """All readable runs of a folder, oldest first, and what is wrong with the others."""
    runs, broken = [], []
    for settings in sorted(storage.absolute(runs_dir).glob("*/settings.json")):
        try:
            run = Run(settings.parent, _read_settings(settings.parent))
            run.history  # noqa: B018 - refused here, a damaged one is in nobody's way
            runs.append(run)
        except BrokenRun as error:
            broken.append(str(error))
    return sorted(runs, key=lambda run: run.settings["created"]), broken


_HINT = "Train under another name, or move this folder away."


def _read_settings(folder: Path) -> dict[str, Any]:
    path = folder / "settings.json"
    try:
        settings = storage.read_record(path, _HINT)
    except FileNotFoundError as error:
        raise BrokenRun(f"{folder} has no settings.json, so it is no run. {_HINT}") from error
    if settings["format"] != FORMAT:
        versions = settings.get("versions")
        made_by = versions.get("wbc_helpers") if isinstance(versions, dict) else None
        raise BrokenRun(
            f"{path} has format {settings['format']!r}; this version of the project reads {FORMAT}."
            f" Use the version that made it ({made_by}). {_HINT}"
        )
    types = {"name": str, "created": str, "training": dict, "data": dict, "versions": dict}
    wrong = [key for key, kind in types.items() if not isinstance(settings[key], kind)]
    if wrong or not is_whole(settings["training"]["epochs"], 0):
        raise BrokenRun(
            f"{path} is damaged: {', '.join(wrong) or 'epochs'} is of another kind than what is "
            f"written there. {_HINT}"
        )
    settings["runtime"]
    return settings


def _check_same(run: Run, settings: dict[str, Any]) -> None:
    """Compare `training` and `data.digest` of a run with the settings, and name differences."""
    was, now = _flat(run.settings), _flat(settings)
    # What a recipe no longer does differently is missing from the new settings; what an older run
    # did not record yet, from its own.
    compared = [key for key in now | was if key.startswith("training.") or key == "data.digest"]
    differences = [
        f"{key} was {was.get(key)!r}, now {now.get(key)!r}"
        for key in compared
        if was.get(key) != now.get(key)
        and (not key.startswith("training.readings") or "readings" in run.settings["training"])
    ]
    if differences:
        raise RunExists(
            f"The run {run.name!r} exists in {run.folder.parent} with other settings: "
            f"{'; '.join(differences)}. Nothing was changed. Give this run another name, or "
            "repeat the settings to go on with the old one."
        )


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    """All values in `training` and `data`, by names such as `training.views.zoom`."""
    # Through JSON, so that tuples and lists compare equal.
    rest = [(key, json.loads(json.dumps(settings.get(key, {})))) for key in ("training", "data")]
    flat = {}
    while rest:
        name, value = rest.pop(0)
        if isinstance(value, dict) and value:
            rest += [(f"{name}.{key}", below) for key, below in value.items()]
        else:
            flat[name] = value
    return flat


def find(name: str, runs_dir: str | Path, settings: dict[str, Any]) -> Run | None:
    """Find the run of this name, if it is the one that is meant; None where the name is free.

    The run's `training` and `data.digest` must be those of `settings`, see `recipes.describe`.
    Raises `RunExists` if the folder holds a run with other settings, or something else, and
    `BrokenRun` if its settings cannot be read.
    """
    folder = folder_of(name, runs_dir)
    if (folder / "settings.json").exists():
        run = Run(folder, _read_settings(folder))
        _check_same(run, settings)
        return run
    # The notebooks that come before training may already lie there, executed.
    strangers = [
        entry.name
        for entry in (folder.iterdir() if folder.is_dir() else ())
        if entry.suffix not in (".ipynb", ".html") and not entry.name.startswith(".")
    ]
    if strangers:
        raise RunExists(
            f"{folder} exists and is no run of this project (it holds {', '.join(strangers[:5])}). "
            "Nothing was changed. Give the run another name."
        )
    return None


def start(name: str, runs_dir: str | Path, settings: dict[str, Any]) -> Run:
    """Begin a run, or find the one of this name to go on with.

    The folder is made if needed; it may be on a mounted drive. Raises `NoSpaceLeft` or
    `ReadOnlyFolder` if it cannot be written. For parameters and other errors see `find`.
    """
    if run := find(name, runs_dir, settings):
        return run
    folder = folder_of(name, runs_dir)
    storage.make_folder(folder)
    settings = {"format": FORMAT, "name": name, **settings}
    storage.write_json(folder / "settings.json", settings)
    return Run(folder, settings)


def check_data(run: Run, data: dict[str, Any]) -> None:
    """Raise `DataMismatch` unless `data`, see `Identity.to_dict`, are those of the run."""
    trained_on = run.settings["data"]
    if trained_on["digest"] != data["digest"]:
        raise DataMismatch(
            f"The run {run.name!r} was trained on {trained_on['title']} (digest "
            f"{trained_on['digest'][:12]}…); the data here are {data['title']} (digest "
            f"{data['digest'][:12]}…). Give source={trained_on['folder']!r}, or another run."
        )


def validation_title(training: dict[str, Any]) -> str:
    """Name a validation split so that a leaky one is never taken for an honest one."""
    return {"random": "random (leaky)"}.get(training["validation"], training["validation"])


def summarise(
    run: Run, evaluations: dict[str, Evaluation], n_parameters: int, seconds: float
) -> dict[str, Any]:
    """Put together what `evaluation.json` holds.

    `evaluations` are by split: `TEST` and, where there is one, `TEST_SIMPLE`; for `n_parameters`
    see `networks.count_trainable`; `seconds` is what predicting took, decoding included.

    Gives, nested, `recipe`, `data`, `train` and `validation` (`n_images`; of the latter also
    `accuracy` after the last epoch and `split`), `test` and `test_simple` (see
    `Evaluation.to_dict`), `epochs`, `parameters`, `seconds` (`train`, `evaluate`),
    `peak_memory_bytes` (of the training process).
    """
    history, parts = run.history, run.split.value_counts()
    training, data = run.settings["training"], run.settings["data"]
    return {
        "recipe": training["recipe"],
        "data": {key: data[key] for key in ("source", "drawn", "digest")},
        "train": {"n_images": int(parts["train"])},
        "validation": {
            "n_images": int(parts["validation"]),
            "accuracy": float(history["val_accuracy"].iloc[-1]) if len(history) else None,
            "split": validation_title(training),
        },
        **{split.lower(): judged.to_dict() for split, judged in evaluations.items()},
        "epochs": len(history),
        "parameters": n_parameters,
        "seconds": {"train": float(history["seconds"].sum()), "evaluate": seconds},
        "peak_memory_bytes": int(history["peak_memory_bytes"].max()) if len(history) else 0,
    }


def write_history(run: Run, history: pd.DataFrame) -> None:
    """Write `history.csv`, whole."""
    storage.write_text(run.folder / "history.csv", history.to_csv(index=False))


def write_split(run: Run, files: pd.Series, part: pd.Series) -> None:
    """Write `split.csv`: the part of each file."""
    split = pd.DataFrame({"file": files, "part": part})
    storage.write_text(run.folder / "split.csv", split.to_csv(index=False))


def write_evaluation(run: Run, evaluation: dict[str, Any]) -> Path:
    """Write `evaluation.json`, see `summarise`; what is not finite is written as null."""
    path = run.folder / "evaluation.json"
    storage.write_json(path, finite({"format": FORMAT, "run": run.name, **evaluation}))
    return path


def finite(content: Any) -> Any:
    """Replace numbers that JSON has no word for by None, in nested dictionaries and lists."""
    if isinstance(content, dict):
        return {key: finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
