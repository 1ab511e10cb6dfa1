"""Every image's answer, in a table that is kept with the run.

From it every score, interval and figure can be worked out again without the network, and two runs
can be compared on the same images.

Scores by photograph, and of a part of the images.

TEST shows 71 photographs in 2,487 augmented images, 12 to 156 of each. A score per image weighs a
photograph by how often it was augmented; a score per photograph counts each once.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from wbc_helpers import cells, storage
from wbc_helpers.errors import BrokenRun, DataMismatch, DataNotFound, InvalidParameter
from wbc_helpers.evaluate.classification import Evaluation, evaluate

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
        `cell_in_train` where known, see `splits.add_provenance`.
    probabilities : (n_images, 4) array_like of float
        Of the same images in the same order, see `classification.evaluate`.

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
        See `classification.evaluate`.
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


def codes_of(evaluation: Evaluation, photographs: ArrayLike) -> np.ndarray:
    """Give numbers to the photographs that the images were made from.

    Parameters
    ----------
    evaluation : Evaluation
        See `classification.evaluate`.
    photographs : (n_images,) array_like of str
        Photograph of each image, or group of overlapping ones: `source_id` or `group_id` of the
        catalog.

    Returns
    -------
    ndarray, (n_images,) int
        0, 1, … in the order of the names.

    Raises
    ------
    InvalidParameter
        If there is not exactly one name for each image.
    """
    names = pd.Series(np.asarray(photographs, dtype=object).ravel())
    if len(names) != evaluation.n_images:
        raise InvalidParameter(
            f"{len(names)} names of photographs were given for {evaluation.n_images} images. "
            "Expected one an image, in the same order: source_id or group_id of the catalog."
        )
    if names.isna().any():
        raise InvalidParameter(
            f"It is not known which photographs {names.isna().sum()} of {len(names)} images were "
            "made from. Leave these images out, or do without scores by photograph."
        )
    return pd.factorize(names.astype(str), sort=True)[0]


def by_photograph(evaluation: Evaluation, photographs: ArrayLike) -> Evaluation:
    """Judge photographs instead of images, each by the mean probability of its images.

    Parameters
    ----------
    evaluation : Evaluation
        Of images.
    photographs : (n_images,) array_like of str
        See `codes_of`.

    Returns
    -------
    Evaluation
        Its `n_images` counts photographs. One whose images lie under two types counts once under
        each, with the images that lie there.

    Raises
    ------
    InvalidParameter
        See `codes_of`.
    """
    table = pd.DataFrame(evaluation.probabilities, columns=cells.NAMES)
    units = [codes_of(evaluation, photographs), evaluation.true_types]
    means = table.groupby(units).mean()
    return evaluate(means.index.get_level_values(1), means)


def part(evaluation: Evaluation, chosen: ArrayLike) -> Evaluation:
    """Evaluate some of the images.

    Parameters
    ----------
    evaluation : Evaluation
        Of all images.
    chosen : (n_images,) array_like of bool
        Which to keep.

    Returns
    -------
    Evaluation

    Raises
    ------
    InvalidParameter
        If there is not one True or False for each image, or none is chosen.
    """
    chosen = pd.array(np.asarray(chosen, dtype=object).ravel(), dtype="boolean")
    if len(chosen) != evaluation.n_images or chosen.isna().any():
        raise InvalidParameter(
            f"The choice holds {len(chosen)} entries, {chosen.isna().sum()} of them unknown, for "
            f"{evaluation.n_images} images. Expected one True or False an image."
        )
    kept = chosen.to_numpy(bool)
    return evaluate(evaluation.true_types[kept], evaluation.probabilities[kept])


def views(
    evaluation: Evaluation, photographs: ArrayLike, cell_in_train: ArrayLike | None = None
) -> dict[str, Evaluation]:
    """Look at one set of answers by image and by photograph, with and without known cells.

    Parameters
    ----------
    evaluation : Evaluation
        Of images.
    photographs : (n_images,) array_like of str
        See `codes_of`.
    cell_in_train : (n_images,) array_like of bool, optional
        Whether TRAIN shows the same cell: that column of the catalog.

    Returns
    -------
    dict of str to Evaluation
        `images` and `photographs`; if TRAIN shows some of the cells, but not all, also
        `images of unseen cells` and `photographs of unseen cells`.

    Raises
    ------
    InvalidParameter
        See `codes_of` and `part`.
    """
    names = np.asarray(photographs, dtype=object).ravel()
    looks = {"images": evaluation, "photographs": by_photograph(evaluation, names)}
    if cell_in_train is None:
        return looks
    seen = pd.array(np.asarray(cell_in_train, dtype=object).ravel(), dtype="boolean")
    if seen.any() and not seen.all():
        unseen = part(evaluation, ~seen)
        looks["images of unseen cells"] = unseen
        looks["photographs of unseen cells"] = by_photograph(unseen, names[~seen.to_numpy(bool)])
    return looks


def kappa(confusion: ArrayLike) -> np.ndarray:
    """Cohen's kappa: agreement beyond that of chance [1]_.

    Parameters
    ----------
    confusion : (..., 4, 4) array_like
        Counts; rows are true types.

    Returns
    -------
    ndarray, (...) float64
        1 for agreement in everything, 0 for that of chance, at least -1; NaN where only one type
        is there and predicted, so that chance agrees in everything too.

    References
    ----------
    .. [1] J. Cohen, Educational and Psychological Measurement 20(1), 37–46 (1960).
    """
    rates = np.asarray(confusion, dtype=np.float64)
    rates = rates / rates.sum(axis=(-2, -1), keepdims=True)
    agreement = np.trace(rates, axis1=-2, axis2=-1)
    by_chance = (rates.sum(axis=-1) * rates.sum(axis=-2)).sum(axis=-1)
    possible = 1 - by_chance
    undefined = np.full_like(possible, np.nan)
    return np.divide(agreement - by_chance, possible, out=undefined, where=possible > 1e-12)


def summary(evaluation: Evaluation) -> dict[str, Any]:
    """Scores over all thresholds beside those of the most probable type, ready for JSON.

    Parameters
    ----------
    evaluation : Evaluation
        Of images or photographs.

    Returns
    -------
    dict
        That of `Evaluation.to_dict`, and `kappa`; `roc_auc` and `average_precision`, means over
        the types for which they are defined; in `per_class` both for each type against the rest.
        None where undefined.
    """
    scores = evaluation.to_dict()
    agreement = float(kappa(evaluation.confusion))
    scores["kappa"] = None if np.isnan(agreement) else agreement
    for name in cells.NAMES:
        of_type = scores["per_class"][name]
        of_type["roc_auc"] = evaluation.roc(name).auc
        of_type["average_precision"] = evaluation.precision_recall(name).average_precision
    for key in ("roc_auc", "average_precision"):
        defined = [each[key] for each in scores["per_class"].values() if each[key] is not None]
        scores[key] = float(np.mean(defined)) if defined else None
    return scores
