"""Cells that a run answered for, to look at: right ones, wrong ones, and those it was unsure of."""

from dataclasses import dataclass

import pandas as pd

from wbc_helpers.audit.labels import crop_white_cells
from wbc_helpers.data.catalog import images_folder
from wbc_helpers.errors import WbcError
from wbc_helpers.evaluate.classification import PROBABILITIES, read_predictions
from wbc_helpers.report.pages import embedded
from wbc_helpers.report.records import RunRecord, look_up

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
