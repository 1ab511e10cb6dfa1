"""Grouped cross-validation: every photograph is judged by a network that never saw it.

TEST shows 71 photographs, four of monocytes. Dealt into folds, all photographs are judged once,
which says more, and leaves TEST alone while a recipe is chosen on TRAIN.
"""

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd

from wbc_helpers import (
    catalog,
    inputs,
    models,
    photographs,
    predictions,
    provenance,
    runs,
    runtime,
    storage,
    training,
    uncertainty,
)
from wbc_helpers.errors import BrokenRun, DataNotFound, RunExists
from wbc_helpers.evaluation import Evaluation
from wbc_helpers.settings import TrainingSettings, describe
from wbc_helpers.sources import Identity


def cross_validate(
    settings: TrainingSettings,
    identity: Identity,
    name: str,
    data_dir: str | Path,
    runs_dir: str | Path,
    n_folds: int = 5,
    splits: tuple[str, ...] = ("TRAIN",),
    verbose: int = 0,
) -> pd.DataFrame:
    """Train once a fold, and gather the answers to the images that were held out.

    The folder `runs_dir/name` receives `fold-0` …, each a run of its own with which an interrupted
    cross-validation goes on, then `predictions.csv` and `crossval.json`.

    Parameters
    ----------
    settings : TrainingSettings
        Its `validation` and `validation_fraction` are not used: each fold validates on what it
        holds out.
    identity : sources.Identity
        The data set; its photographs must be known.
    name : str
        Of the folder, see `runs.check_name`.
    data_dir, runs_dir : path
        Where decoded images are kept, and where the folder goes.
    n_folds : int
        At least 2.
    splits : tuple of str
        Whose images take part: `TRAIN` to choose a recipe; `TRAIN` and `TEST` to judge it by all
        photographs of one white cell.
    verbose : int
        As for `keras.Model.fit`.

    Returns
    -------
    DataFrame
        Out-of-fold answers, see `predictions.tabulate`.

    Raises
    ------
    InvalidParameter
        If the photographs are not known, or too few for so many folds.
    RunExists
        If a fold exists with other settings or data, or the folder holds something else.
    """
    folder = _folder_for(name, runs_dir)
    in_use = runtime.choose()
    everything = provenance.add_provenance(catalog.find_images(identity.folder))
    rows = everything[everything["split"].isin(splits)].reset_index(drop=True)
    fold = catalog.grouped_folds(rows, n_folds, settings.seed)
    seen = (settings.recipe, settings.image_size)
    kept = {"red_cell": inputs.red_cell_of(everything), "cache_folder": Path(data_dir) / "cache"}
    pixels = inputs.decode(seen[0], rows["path"], seen[1], **kept)
    patches = inputs.cut_patches(identity.folder, rows, *seen, **kept)
    described = describe_fold(settings, identity, in_use, n_folds, splits)
    answers = []
    for number in range(n_folds):
        held_out = fold == number
        part = held_out.map({True: "validation", False: "train"}).rename("part")
        run = runs.start(f"fold-{number}", folder, described)
        training.train(rows, pixels, part, run, patches, in_use.n_devices, verbose)
        judged = rows[held_out]
        told = models.answer(settings.recipe, models.load(run), pixels[held_out.to_numpy()])
        answers.append(predictions.tabulate(judged, told))
        accuracy = (answers[-1]["predicted"] == answers[-1]["cell_type"]).mean()
        print(
            f"fold {number}: {len(judged):,} images of {judged['source_id'].nunique()} "
            "photographs, "
            f"accuracy {accuracy:.1%}, {run.history['seconds'].sum():.0f} s",
            flush=True,
        )
    table = pd.concat(answers, ignore_index=True)
    predictions.write(folder, table)
    told = {"training": described["training"], "data": described["data"], **summarise(table)}
    storage.write_json(folder / "crossval.json", runs.finite(told))
    return table


def describe_fold(
    settings: TrainingSettings,
    identity: Identity,
    in_use: runtime.Runtime | None = None,
    n_folds: int = 5,
    splits: tuple[str, ...] = ("TRAIN",),
) -> dict[str, Any]:
    """Put together what each fold's `settings.json` records, as `settings.describe` does of a run.

    Parameters
    ----------
    settings, identity, n_folds, splits
        See `cross_validate`.
    in_use : runtime.Runtime, optional
        What it runs on.

    Returns
    -------
    dict
        For `runs.start`, and for `runs.find`, which tells whether a fold was made by the same.
    """
    described = describe(settings, identity.to_dict(), in_use)
    described["training"] |= {"validation": "grouped", "splits": list(splits), "folds": n_folds}
    del described["training"]["validation_fraction"]
    return described


def _folder_for(name: str, runs_dir: str | Path) -> Path:
    """Find the folder of a cross-validation, and refuse one that holds something else."""
    folder = runs.folder_of(name, runs_dir)
    entries = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    own = re.compile(r"fold-\d+|predictions\.csv|crossval\.json|\..*")
    strangers = [entry for entry in entries if not own.fullmatch(entry)]
    if strangers:
        raise RunExists(
            f"{folder} exists and is no cross-validation (it holds {', '.join(strangers[:5])}). "
            "Nothing was changed. Give the cross-validation another name."
        )
    return folder


def summarise(table: pd.DataFrame) -> dict[str, Any]:
    """Score out-of-fold answers by image and by photograph.

    Parameters
    ----------
    table : DataFrame
        See `cross_validate`.

    Returns
    -------
    dict
        `images` and `photographs`, each see `photographs.summary`, with `intervals`: 95 %, drawn
        by photograph.
    """
    by_image = predictions.evaluate_table(table)
    looks = {
        "images": (by_image, table["source_id"]),
        "photographs": _by_photograph(by_image, table["source_id"]),
    }
    summary = {}
    for look, (judged, units) in looks.items():
        interval = uncertainty.intervals(judged, units)
        summary[look] = photographs.summary(judged) | {
            "intervals": {
                score: interval.loc[score, ["low", "high"]].tolist()
                for score in ("accuracy", "balanced_accuracy", "macro_f1")
            }
        }
    return summary


def _by_photograph(evaluation: Evaluation, source_ids: pd.Series) -> tuple[Evaluation, list[str]]:
    """Judge photographs, each a unit of its own."""
    judged = photographs.by_photograph(evaluation, source_ids)
    return judged, [str(number) for number in range(judged.n_images)]


def report(table: pd.DataFrame) -> str:
    """Put the scores of a cross-validation into a few lines.

    Parameters
    ----------
    table : DataFrame
        See `cross_validate`.

    Returns
    -------
    str
        Accuracy and balanced accuracy by image and by photograph, each with its interval.
    """
    lines = []
    for look, scores in summarise(table).items():
        told = ", ".join(
            f"{score.replace('_', ' ')} {scores[score]:.1%} "
            f"({scores['intervals'][score][0]:.1%}–{scores['intervals'][score][1]:.1%})"
            for score in ("accuracy", "balanced_accuracy")
        )
        recalls = ", ".join(
            f"{name} {each['recall']:.0%}"
            for name, each in scores["per_class"].items()
            if each["recall"] is not None
        )
        lines.append(f"{look} (n = {scores['n_images']:,}): {told}; recall: {recalls}")
    return "\n".join(lines)


def read(name: str, runs_dir: str | Path, data: dict[str, Any] | None = None) -> pd.DataFrame:
    """Read the out-of-fold answers of a finished cross-validation.

    Parameters
    ----------
    name : str
        Of its folder.
    runs_dir : path
        Folder of all runs.
    data : dict, optional
        The data at hand, as `Identity.to_dict` gives them, which must be those it was made from.

    Returns
    -------
    DataFrame
        See `cross_validate`.

    Raises
    ------
    DataNotFound
        If there is none of this name, or it has not finished.
    DataMismatch
        If it was made from other data.
    BrokenRun
        If one of its files is damaged.
    """
    folder = runs.folder_of(name, runs_dir)
    if not (folder / "crossval.json").is_file():
        raise DataNotFound(
            f"{folder} holds no finished cross-validation. Make one: `make crossval RUN={name}`."
        )
    try:
        made = json.loads((folder / "crossval.json").read_text(encoding="utf-8"))
        made["data"]["digest"]
    except (ValueError, KeyError, TypeError) as error:
        raise BrokenRun(
            f"{folder / 'crossval.json'} is damaged ({error!r}). Start the cross-validation again "
            "under the same name: folds that are finished are not trained again."
        ) from error
    if data is not None:
        runs.check_data(runs.Run(folder, made), data)
    return predictions.read(folder)
