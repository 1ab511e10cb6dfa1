"""Every image's answer, in a table that is kept with the run.

From it every score, interval and figure can be worked out again without the network, and two runs
can be compared on the same images.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from wbc_helpers import cells, storage
from wbc_helpers.errors import BrokenRun, DataMismatch, DataNotFound, InvalidParameter
from wbc_helpers.evaluation import Evaluation, evaluate

PROBABILITIES = tuple(f"p_{name}" for name in cells.NAMES)

COLUMNS = {
    "file": "string",
    "split": "string",
    "cell_type": "string",
    "source_id": "string",
    "group_id": "string",
    "cell_in_train": "boolean",
    **dict.fromkeys(PROBABILITIES, "float64"),
    "predicted": "string",
}
"""Columns of `predictions.csv` and their types. `file` as in the catalog; `source_id`,
`group_id` and `cell_in_train` are NA where provenance is unknown."""


def tabulate(catalog_rows: pd.DataFrame, probabilities: ArrayLike) -> pd.DataFrame:
    """Put the answers beside what is known of the images.

    Parameters
    ----------
    catalog_rows : DataFrame
        One row an image, with `file`, `split` and `cell_type`, and `source_id`, `group_id` and
        `cell_in_train` where known, see `provenance.add_provenance`.
    probabilities : (n_images, 4) array_like of float
        Of the same images in the same order, see `evaluation.evaluate`.

    Returns
    -------
    DataFrame
        Columns `COLUMNS`, numbered from 0.

    Raises
    ------
    InvalidParameter
        If a column is missing, a file is listed twice, or the rows are no probabilities.
    """
    missing = [name for name in ("file", "split", "cell_type") if name not in catalog_rows]
    if missing or catalog_rows["file"].duplicated().any():
        found = f"lacks the columns {', '.join(missing)}" if missing else "lists a file twice"
        raise InvalidParameter(
            f"The catalog {found}. Expected one row an image, as catalog.find_images returns them."
        )
    judged = evaluate(catalog_rows["cell_type"], probabilities)
    table = catalog_rows.reset_index(drop=True).reindex(columns=list(COLUMNS))
    table[list(PROBABILITIES)] = judged.probabilities
    table["predicted"] = np.array(cells.NAMES)[judged.probabilities.argmax(axis=1)]
    return table.astype(COLUMNS)


def evaluate_table(predictions: pd.DataFrame) -> Evaluation:
    """Evaluate the answers of a table, or of some rows of it.

    Parameters
    ----------
    predictions : DataFrame
        As `tabulate` or `read` returns it.

    Returns
    -------
    Evaluation

    Raises
    ------
    InvalidParameter
        See `evaluation.evaluate`.
    """
    return evaluate(predictions["cell_type"], predictions[list(PROBABILITIES)])


def write(folder: Path, predictions: pd.DataFrame) -> Path:
    """Write `predictions.csv` into the folder of a run or a cross-validation, whole or not at all.

    Parameters
    ----------
    folder : Path
        Of the run or the cross-validation whose answers they are.
    predictions : DataFrame
        See `tabulate`.

    Returns
    -------
    Path
        The file. Its nine digits give single-precision probabilities back exactly.

    Raises
    ------
    NoSpaceLeft, ReadOnlyFolder
        If it cannot be written.
    """
    path = folder / "predictions.csv"
    text = predictions[list(COLUMNS)].to_csv(index=False, float_format="%.9g", lineterminator="\n")
    storage.write_text(path, text)
    return path


def read(folder: Path) -> pd.DataFrame:
    """Read `predictions.csv` of a run or a cross-validation.

    Parameters
    ----------
    folder : Path
        Of a run that was evaluated, or of a cross-validation.

    Returns
    -------
    DataFrame
        See `tabulate`.

    Raises
    ------
    DataNotFound
        If it was not evaluated.
    BrokenRun
        If the file is damaged.
    """
    path = folder / "predictions.csv"
    try:
        table = pd.read_csv(path, dtype=COLUMNS)
        table = table[list(COLUMNS)]
        evaluate_table(table)
    except FileNotFoundError as error:
        raise DataNotFound(
            f"{folder} has no predictions.csv. Evaluate the run with 04_evaluate first; a "
            "cross-validation writes it itself, at its end."
        ) from error
    except (ValueError, KeyError) as error:
        raise BrokenRun(
            f"{path} is damaged ({error}). Expected the columns {', '.join(COLUMNS)} and a row an "
            "image. Evaluate the run with 04_evaluate again."
        ) from error
    return table


def align(first: pd.DataFrame, second: pd.DataFrame) -> tuple[pd.DataFrame, Evaluation, Evaluation]:
    """Bring the answers of two runs into one order, to compare them image by image.

    Parameters
    ----------
    first, second : DataFrame
        As `read` returns them, of the same split or splits.

    Returns
    -------
    images : DataFrame
        The rows of `first`.
    first, second : Evaluation
        In the order of these rows.

    Raises
    ------
    DataMismatch
        If they are not of the same files and true types.
    """
    reordered = second.set_index("file").reindex(first["file"])
    same = len(first) == len(second) and reordered["cell_type"].notna().all()
    if not same or (reordered["cell_type"].to_numpy() != first["cell_type"].to_numpy()).any():
        raise DataMismatch(
            f"The two runs' predictions ({len(first)} and {len(second)} images) are not of the "
            "same files and types. Expected runs that were evaluated on one data set; choose "
            "the same split of both."
        )
    return first, evaluate_table(first), evaluate_table(reordered)
