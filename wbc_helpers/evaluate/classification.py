"""How good a classifier is: from true types and probabilities to scores and tables of answers.

NumPy, pandas and scikit-learn only, so that any model's probabilities can be judged.

Some scores are undefined: the recall of a type of which there is no image, the precision of a
type that was never predicted, the F1 of a type that is neither there nor predicted. They are
NaN in a DataFrame's float columns, None everywhere else, and left out of the averages; they are
never counted as zero.

TEST shows 71 photographs in 2,487 augmented images, 12 to 156 of each. A score per image weighs a
photograph by how often it was augmented; a score per photograph counts each once.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from wbc_helpers import cells, storage
from wbc_helpers.errors import (
    BrokenRun,
    DataMismatch,
    DataNotFound,
    InvalidParameter,
    check_choice,
    check_whole,
)

# Scores


@dataclass(frozen=True, eq=False)
class RocCurve:
    """One cell type against the rest, over all thresholds of its probability.

    `false_positive_rate` and `true_positive_rate`, (n_points,) float64, run from (0, 0) to (1, 1);
    `auc` is the area below, 0–1, 0.5 for guessing. Empty and None if all or no images are of the
    type.
    """

    false_positive_rate: np.ndarray
    true_positive_rate: np.ndarray
    auc: float | None


@dataclass(frozen=True, eq=False)
class PrecisionRecallCurve:
    """One cell type against the rest, over all thresholds of its probability.

    `precision` and `recall`, (n_points,) float64, by falling recall, ending at recall 0;
    `average_precision` is the mean over the steps in recall, 0–1, and `prevalence`, the part of
    the images that are of the type, what guessing gives. Empty and None if no image is of the type.
    """

    precision: np.ndarray
    recall: np.ndarray
    average_precision: float | None
    prevalence: float


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The scores of one classifier on one set of images, as `evaluate`, which see, makes it.

    `accuracy` is the part of the images whose most probable type is the true one,
    `balanced_accuracy` the mean recall of the types that are there, `macro_f1` the mean F1 of those
    that are there or were predicted; all 0–1. Rows of `per_class` are `cells.NAMES`, columns
    `precision`, `recall`, `f1` (0–1) and `n_images`; `confusion` counts, rows are true types,
    columns predicted ones.
    """

    n_images: int
    accuracy: float
    balanced_accuracy: float
    macro_f1: float
    per_class: pd.DataFrame
    confusion: pd.DataFrame
    true_types: np.ndarray
    probabilities: np.ndarray

    @property
    def true_codes(self) -> np.ndarray:
        """Places of the true types in `cells.NAMES`, (n_images,) int."""
        return pd.Categorical(self.true_types, categories=cells.NAMES).codes.astype(int)

    @property
    def predicted_codes(self) -> np.ndarray:
        """Places of the most probable types, of equally probable ones the first."""
        return self.probabilities.argmax(axis=1)

    @property
    def confusion_rates(self) -> pd.DataFrame:
        """Part of each true type's images that got each prediction, NaN for a type not there."""
        return self.confusion.div(self.confusion.sum(axis="columns"), axis="index")

    @property
    def accuracy_interval(self) -> tuple[float, float]:
        """Naive 95 % interval of the accuracy, see `wilson_interval`.

        It takes the images for independent; those of TEST are augmented from few photographs, which
        makes the honest interval wider.
        """
        return wilson_interval(int(np.trace(self.confusion)), self.n_images)

    def roc(self, cell_type: str) -> RocCurve:
        """Receiver operating characteristic of one of `cells.NAMES` against the rest."""
        is_type, probability = self._against_the_rest(cell_type)
        if is_type.all() or not is_type.any():
            return RocCurve(np.empty(0), np.empty(0), None)
        from sklearn import metrics

        false_positive_rate, true_positive_rate, _ = metrics.roc_curve(is_type, probability)
        area = float(metrics.auc(false_positive_rate, true_positive_rate))
        return RocCurve(false_positive_rate, true_positive_rate, area)

    def precision_recall(self, cell_type: str) -> PrecisionRecallCurve:
        """Precision against recall of one of `cells.NAMES` against the rest."""
        is_type, probability = self._against_the_rest(cell_type)
        if not is_type.any():
            return PrecisionRecallCurve(np.empty(0), np.empty(0), None, 0.0)
        from sklearn import metrics

        precision, recall, _ = metrics.precision_recall_curve(is_type, probability)
        average = float(metrics.average_precision_score(is_type, probability))
        return PrecisionRecallCurve(precision, recall, average, float(is_type.mean()))

    def _against_the_rest(self, cell_type: str) -> tuple[np.ndarray, np.ndarray]:
        """Whether each image is of the type, and how probable the type is."""
        check_choice("cell_type", cell_type, cells.NAMES)
        return self.true_types == cell_type, self.probabilities[:, cells.NAMES.index(cell_type)]

    def to_dict(self) -> dict[str, Any]:
        """All scores as plain Python numbers, ready for JSON; None where undefined."""
        return {
            "n_images": self.n_images,
            "accuracy": self.accuracy,
            "balanced_accuracy": self.balanced_accuracy,
            "macro_f1": self.macro_f1,
            "per_class": plain_rows(self.per_class),
            "confusion": self.confusion.to_numpy().tolist(),
        }


def plain_rows(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Rows of a table of numbers by their names, ready for JSON; None for NaN."""
    rows = table.astype(object).to_dict("index")
    return {
        str(name): {str(column): None if pd.isna(score) else score for column, score in row.items()}
        for name, row in rows.items()
    }


def evaluate(true_types: ArrayLike, probabilities: ArrayLike) -> Evaluation:
    """Compare a classifier's probabilities with the true cell types.

    Of `true_types`, (n_images,) str, each is one of `cells.NAMES`; `probabilities`, (n_images, 4),
    are 0–1, each row summing to 1, columns in the order of `cells.NAMES`. Raises `InvalidParameter`
    if there are no images, a type is unknown, or the rows do not fit or are no probabilities.

    Examples
    --------
    >>> test = evaluate(["monocyte", "neutrophil"], [[0, 0.1, 0.9, 0], [0, 0, 0.6, 0.4]])
    >>> test.accuracy
    0.5
    >>> int(test.confusion.loc["neutrophil", "monocyte"])
    1
    """
    # What only answers and counts does not wait for it.
    from sklearn import metrics

    true_types, probabilities = _checked(true_types, probabilities)
    predicted = np.array(cells.NAMES)[probabilities.argmax(axis=1)]
    precision, recall, f1, n_images = metrics.precision_recall_fscore_support(
        true_types, predicted, labels=cells.NAMES, zero_division=np.nan
    )
    return Evaluation(
        n_images=len(true_types),
        accuracy=float(np.mean(predicted == true_types)),
        balanced_accuracy=float(np.nanmean(recall)),
        macro_f1=float(np.nanmean(f1)),
        per_class=pd.DataFrame(
            {"precision": precision, "recall": recall, "f1": f1, "n_images": n_images},
            index=pd.Index(cells.NAMES, name="cell_type"),
        ),
        confusion=pd.DataFrame(
            metrics.confusion_matrix(true_types, predicted, labels=cells.NAMES),
            index=pd.Index(cells.NAMES, name="true"),
            columns=pd.Index(cells.NAMES, name="predicted"),
        ),
        true_types=true_types,
        probabilities=probabilities,
    )


def _checked(true_types: ArrayLike, probabilities: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Turn input into arrays, or say what is wrong with it."""
    true_types = np.asarray(true_types).astype(str)
    if true_types.ndim != 1 or not len(true_types):
        raise InvalidParameter(
            f"The true types have shape {true_types.shape}. Expected a list of at least one name."
        )
    unknown = sorted(set(true_types) - set(cells.NAMES))
    if unknown:
        raise InvalidParameter(
            f"Unknown cell types among the true ones: {', '.join(unknown[:5])}. Expected only "
            f"{', '.join(cells.NAMES)}."
        )
    n_images, shape = len(true_types), (len(true_types), len(cells.NAMES))
    try:
        probabilities = np.asarray(probabilities, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidParameter(
            f"The probabilities are not an array of numbers ({error}). Expected shape {shape}."
        ) from error
    if probabilities.shape != shape:
        raise InvalidParameter(
            f"The probabilities have shape {probabilities.shape} for {n_images} true types. "
            f"Expected {shape}: a row an image, columns {', '.join(cells.NAMES)}."
        )
    not_finite = ~np.isfinite(probabilities).all(axis=1)
    if not_finite.any():
        raise InvalidParameter(
            f"{not_finite.sum()} of {n_images} rows of probabilities hold NaN or infinity, first "
            f"row {not_finite.argmax()}. Training may have diverged: lower the learning rate."
        )
    # Wide enough for softmax in half precision, too narrow for logits or sigmoids.
    wrong = (np.abs(probabilities.sum(axis=1) - 1) > 0.01) | (probabilities < 0).any(axis=1)
    if wrong.any():
        first = wrong.argmax()
        raise InvalidParameter(
            f"{wrong.sum()} of {n_images} rows are no probabilities, first row {first}: "
            f"{probabilities[first].tolist()}. Expected 0–1 and a sum of 1: end the model in "
            "softmax."
        )
    return true_types, probabilities


def kappa(confusion: ArrayLike) -> np.ndarray:
    """Cohen's kappa [1]_, agreement beyond chance, of (..., 4, 4) counts or sums of weights.

    Rows are true types. Gives (...) float64: 1 for agreement in everything, 0 for that of chance,
    at least -1; NaN where only one type is there and predicted, so that chance agrees in everything
    too.

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
    """`Evaluation.to_dict` with `kappa`, `roc_auc` and `average_precision`, ready for JSON.

    The last two are means over the types for which they are defined; `per_class` has both for each
    type against the rest. None where undefined.
    """
    scores = evaluation.to_dict()
    agreement = float(kappa(evaluation.confusion))
    scores["kappa"] = None if np.isnan(agreement) else agreement
    for name, of_type in scores["per_class"].items():
        of_type["roc_auc"] = evaluation.roc(name).auc
        of_type["average_precision"] = evaluation.precision_recall(name).average_precision
    for key in ("roc_auc", "average_precision"):
        areas = [of_type[key] for of_type in scores["per_class"].values()]
        defined = [area for area in areas if area is not None]
        scores[key] = float(np.mean(defined)) if defined else None
    return scores


def wilson_interval(n_correct: int, n_images: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval (low, high) of a proportion of independent images, 0–1; it holds for few, too [1]_.

    Raises `InvalidParameter` if it is not 0 ≤ n_correct ≤ n_images in whole numbers with at least
    one image, or the confidence is not between 0 and 1.

    References
    ----------
    .. [1] E. B. Wilson, Journal of the American Statistical Association 22(158), 209–212 (1927).

    Examples
    --------
    >>> low, high = wilson_interval(8, 10)
    >>> print(f"{low:.2f} to {high:.2f}")
    0.49 to 0.94
    """
    from scipy.stats import binomtest

    whole = all(isinstance(n, int | np.integer) for n in (n_correct, n_images))
    if not (whole and n_images >= 1 and 0 <= n_correct <= n_images and 0 < confidence < 1):
        raise InvalidParameter(
            f"No interval for {n_correct} of {n_images} images at confidence {confidence}. "
            "Expected at least one image, no more correct than there are, and 0 < confidence < 1."
        )
    bounds = binomtest(n_correct, n_images).proportion_ci(confidence, method="wilson")
    return float(bounds.low), float(bounds.high)


# Photographs, and parts of the images


def codes_of(evaluation: Evaluation, photographs: ArrayLike) -> np.ndarray:
    """Give numbers (0, 1, … in the order of the names) to the photographs of the images.

    `photographs`, (n_images,) array_like of str: the photograph that each image was made from, or
    the group of overlapping ones, `source_id` or `group_id` of the catalog. Raises
    `InvalidParameter` if there is not exactly one name for each image.
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

    The result's `n_images` counts photographs. One whose images lie under two types counts once
    under each, with the images that lie there. Parameters and errors: see `codes_of`.
    """
    table = pd.DataFrame(evaluation.probabilities, columns=cells.NAMES)
    units = [codes_of(evaluation, photographs), evaluation.true_types]
    means = table.groupby(units).mean()
    return evaluate(means.index.get_level_values(1), means)


def part(evaluation: Evaluation, chosen: ArrayLike) -> Evaluation:
    """Evaluate the images for which `chosen`, (n_images,) array_like of bool, is True.

    Raises `InvalidParameter` if there is not one True or False for each image, or none is chosen.
    """
    choice = pd.array(np.asarray(chosen, dtype=object).ravel(), dtype="boolean")
    if len(choice) != evaluation.n_images or choice.isna().any():
        raise InvalidParameter(
            f"The choice holds {len(choice)} entries, {choice.isna().sum()} of them unknown, for "
            f"{evaluation.n_images} images. Expected one True or False an image."
        )
    rows = choice.to_numpy(bool)
    return evaluate(evaluation.true_types[rows], evaluation.probabilities[rows])


def views(
    evaluation: Evaluation, photographs: ArrayLike, cell_in_train: ArrayLike | None = None
) -> dict[str, Evaluation]:
    """Look at one set of answers by image and by photograph, with and without known cells.

    `images` and `photographs`; if `cell_in_train` (that column of the catalog) says that TRAIN
    shows some of the cells, but not all, also `images of unseen cells` and `photographs of unseen
    cells`. For `photographs` and errors see `codes_of`.
    """
    names = np.asarray(photographs, dtype=object).ravel()
    looks = {"images": evaluation, "photographs": by_photograph(evaluation, names)}
    if cell_in_train is None:
        return looks
    in_train = pd.array(np.asarray(cell_in_train, dtype=object).ravel(), dtype="boolean")
    if in_train.any() and not in_train.all():
        unseen = part(evaluation, ~in_train)
        looks["images of unseen cells"] = unseen
        looks["photographs of unseen cells"] = by_photograph(
            unseen, names[~in_train.to_numpy(bool)]
        )
    return looks


# Every image's answer, in a table that is kept with the run: from it every score, interval and
# figure can be worked out again without the network, and two runs be compared image by image.

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
    """Put the answers beside what is known of the images, in `COLUMNS`, numbered from 0.

    `catalog_rows` holds one row an image, with `file`, `split` and `cell_type`, and `source_id`,
    `group_id` and `cell_in_train` where known, see `splits.add_provenance`; `probabilities` are of
    the same images in the same order, see `evaluate`. Raises `InvalidParameter` if a column is
    missing, a file is listed twice, or the rows are no probabilities.
    """
    _check_catalog(catalog_rows, ("file", "split", "cell_type"))
    if catalog_rows["file"].duplicated().any():
        raise InvalidParameter(
            "The catalog lists a file twice. Expected one row an image, as catalog.find_images "
            "returns them."
        )
    judged = evaluate(catalog_rows["cell_type"], probabilities)
    table = catalog_rows.reset_index(drop=True).reindex(columns=list(COLUMNS))
    table[list(PROBABILITIES)] = judged.probabilities
    table["predicted"] = np.array(cells.NAMES)[judged.predicted_codes]
    return table.astype(COLUMNS)


def _check_catalog(catalog_rows: pd.DataFrame, columns: tuple[str, ...]) -> None:
    """Refuse a catalog that lacks a column."""
    if missing := [name for name in columns if name not in catalog_rows]:
        raise InvalidParameter(
            f"The catalog has no column {', '.join(missing)}. Expected one row an image, as "
            "catalog.find_images returns them."
        )


def evaluate_table(predictions: pd.DataFrame) -> Evaluation:
    """Evaluate the answers of a table as `tabulate` makes it, or of some rows of it."""
    return evaluate(predictions["cell_type"], predictions[list(PROBABILITIES)])


def most_confident_mistakes(
    catalog_rows: pd.DataFrame, probabilities: ArrayLike, n: int = 12
) -> pd.DataFrame:
    """Find the `n` (1 or more) wrong predictions, or fewer, that the classifier was surest of.

    `catalog_rows` holds one row an image, with `path` and `cell_type`; `probabilities` are of the
    same images in the same order, see `evaluate`, errors too. Gives columns `path`, `cell_type`
    (the true one), `predicted`, `probability` (of the predicted type) and `true_probability` (of
    the true type); surest first, with the catalog's index; empty where there is no mistake.
    """
    check_whole("the number of mistakes n", n, 1, 1_000_000)
    _check_catalog(catalog_rows, ("path", "cell_type"))
    judged = evaluate(catalog_rows["cell_type"], probabilities)
    true, predicted = judged.true_codes, judged.predicted_codes
    rows = np.arange(judged.n_images)
    answers = pd.DataFrame(
        {
            "path": catalog_rows["path"],
            "cell_type": judged.true_types,
            "predicted": np.array(cells.NAMES)[predicted],
            "probability": judged.probabilities[rows, predicted],
            "true_probability": judged.probabilities[rows, true],
        },
        index=catalog_rows.index,
    )
    mistakes = answers[predicted != true]
    return mistakes.sort_values("probability", ascending=False, kind="stable").head(n)


def write_predictions(folder: Path, predictions: pd.DataFrame) -> Path:
    """Write `predictions.csv` into the folder of a run or a cross-validation, whole or not at all.

    Its nine digits give single-precision probabilities back exactly. Errors: see
    `storage.write_text`.
    """
    path = folder / "predictions.csv"
    text = predictions[list(COLUMNS)].to_csv(index=False, float_format="%.9g", lineterminator="\n")
    storage.write_text(path, text)
    return path


def read_predictions(folder: Path) -> pd.DataFrame:
    """Read `predictions.csv` of a run or a cross-validation, see `tabulate`.

    Raises `DataNotFound` if it was not evaluated, `BrokenRun` if the file is damaged.
    """
    path = folder / "predictions.csv"
    try:
        table = pd.read_csv(path, dtype=COLUMNS)[list(COLUMNS)]
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
    """Bring the answers of two runs on one split into the order of the first table's rows.

    Raises `DataMismatch` if they are not of the same files and true types.
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
