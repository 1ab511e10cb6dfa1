"""How good a classifier is, as numbers: from true types and probabilities to scores.

NumPy, pandas and scikit-learn only, so that any model's probabilities can be judged.

Some scores are undefined: the recall of a type of which there is no image, the precision of a
type that was never predicted, the F1 of a type that is neither there nor predicted. They are
NaN in a DataFrame's float columns, None everywhere else, and left out of the averages; they are
never counted as zero.
"""

from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn import metrics

from wbc_helpers import cells
from wbc_helpers.errors import InvalidParameter


@dataclass(frozen=True, eq=False)
class RocCurve:
    """One cell type against the rest, over all thresholds of its probability.

    Attributes
    ----------
    false_positive_rate, true_positive_rate : ndarray, (n_points,) float64
        From (0, 0) to (1, 1); empty where the curve is undefined.
    auc : float or None
        Area under the curve, 0–1, 0.5 for guessing. None if the images are all, or none, of the
        type.
    """

    false_positive_rate: np.ndarray
    true_positive_rate: np.ndarray
    auc: float | None


@dataclass(frozen=True, eq=False)
class PrecisionRecallCurve:
    """One cell type against the rest, over all thresholds of its probability.

    Attributes
    ----------
    precision, recall : ndarray, (n_points,) float64
        By falling recall, ending at recall 0; empty where the curve is undefined.
    average_precision : float or None
        Precision averaged over the steps in recall, 0–1; guessing gives `prevalence`. None if
        there is no image of the type.
    prevalence : float
        Part of the images that are of the type.
    """

    precision: np.ndarray
    recall: np.ndarray
    average_precision: float | None
    prevalence: float


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The scores of one classifier on one set of images; `evaluate` makes it.

    Attributes
    ----------
    n_images : int
        Number of images.
    accuracy : float
        Part of the images whose most probable type is the true one, 0–1.
    balanced_accuracy : float
        Mean recall of the types that are there, 0–1.
    macro_f1 : float
        Mean F1 of the types that are there or were predicted, 0–1.
    per_class : DataFrame
        Rows are `cells.NAMES`; columns `precision`, `recall`, `f1` (float, 0–1, NaN where
        undefined) and `n_images` (int).
    confusion : DataFrame of int
        Counts; rows are true types, columns predicted ones, both in the order of `cells.NAMES`.
    true_types : ndarray, (n_images,) str
        One of `cells.NAMES` each.
    probabilities : ndarray, (n_images, 4) float64
        Rows sum to 1; columns are in the order of `cells.NAMES`.
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
    def confusion_rates(self) -> pd.DataFrame:
        """Part of each true type's images that got each prediction.

        Rows sum to 1; the row of a type that is not there is NaN.
        """
        return self.confusion.div(self.confusion.sum(axis="columns"), axis="index")

    @property
    def accuracy_interval(self) -> tuple[float, float]:
        """Naive 95 % interval of the accuracy, see `wilson_interval`.

        It takes the images for independent. The images of TEST are many augmented versions of a
        few photographs, so what it leaves out makes the honest interval wider.
        """
        return wilson_interval(int(np.trace(self.confusion)), self.n_images)

    def roc(self, cell_type: str) -> RocCurve:
        """Receiver operating characteristic of one cell type against the rest.

        Parameters
        ----------
        cell_type : str
            One of `cells.NAMES`.

        Returns
        -------
        RocCurve

        Raises
        ------
        InvalidParameter
            If there is no such cell type.
        """
        is_type, probability = self._against_the_rest(cell_type)
        if is_type.all() or not is_type.any():
            return RocCurve(np.empty(0), np.empty(0), None)
        false_positive_rate, true_positive_rate, _ = metrics.roc_curve(is_type, probability)
        area = float(metrics.auc(false_positive_rate, true_positive_rate))
        return RocCurve(false_positive_rate, true_positive_rate, area)

    def precision_recall(self, cell_type: str) -> PrecisionRecallCurve:
        """Precision against recall of one cell type against the rest.

        Parameters
        ----------
        cell_type : str
            One of `cells.NAMES`.

        Returns
        -------
        PrecisionRecallCurve

        Raises
        ------
        InvalidParameter
            If there is no such cell type.
        """
        is_type, probability = self._against_the_rest(cell_type)
        if not is_type.any():
            return PrecisionRecallCurve(np.empty(0), np.empty(0), None, 0.0)
        precision, recall, _ = metrics.precision_recall_curve(is_type, probability)
        average = float(metrics.average_precision_score(is_type, probability))
        return PrecisionRecallCurve(precision, recall, average, float(is_type.mean()))

    def _against_the_rest(self, cell_type: str) -> tuple[np.ndarray, np.ndarray]:
        if cell_type not in cells.NAMES:
            raise InvalidParameter(
                f"There is no cell type {cell_type!r}. Expected one of {', '.join(cells.NAMES)}."
            )
        return self.true_types == cell_type, self.probabilities[:, cells.NAMES.index(cell_type)]

    def to_dict(self) -> dict[str, Any]:
        """Scores as plain Python numbers, ready for JSON.

        Returns
        -------
        dict
            `n_images`, `accuracy`, `balanced_accuracy`, `macro_f1`; `per_class`, which holds
            `precision`, `recall`, `f1` (None where undefined, never NaN) and `n_images` under
            each of `cells.NAMES`; and `confusion`, four lists of four counts.
        """
        return {
            "n_images": self.n_images,
            "accuracy": self.accuracy,
            "balanced_accuracy": self.balanced_accuracy,
            "macro_f1": self.macro_f1,
            "per_class": {
                name: {
                    **{key: _number_or_none(scores[key]) for key in ("precision", "recall", "f1")},
                    "n_images": int(scores["n_images"]),
                }
                for name, scores in self.per_class.iterrows()
            },
            "confusion": self.confusion.to_numpy().tolist(),
        }


def _number_or_none(score: float) -> float | None:
    return None if np.isnan(score) else float(score)


def evaluate(true_types: ArrayLike, probabilities: ArrayLike) -> Evaluation:
    """Compare a classifier's probabilities with the true cell types.

    The prediction is the most probable type; of equally probable ones, the first.

    Parameters
    ----------
    true_types : (n_images,) array_like of str
        One of `cells.NAMES` each.
    probabilities : (n_images, 4) array_like of float
        0–1, each row summing to 1, columns in the order of `cells.NAMES`.

    Returns
    -------
    Evaluation

    Raises
    ------
    InvalidParameter
        If there are no images, a type is unknown, the shapes do not fit, or the rows are not
        probabilities.
    """
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


def most_confident_mistakes(
    catalog_rows: pd.DataFrame, probabilities: ArrayLike, n: int = 12
) -> pd.DataFrame:
    """Find the wrong predictions that the classifier was surest of.

    Parameters
    ----------
    catalog_rows : DataFrame
        One row an image, with `path` and `cell_type`.
    probabilities : (n_images, 4) array_like of float
        Of the same images in the same order, see `evaluate`.
    n : int
        How many mistakes to return at most.

    Returns
    -------
    DataFrame
        Columns `path`, `cell_type` (the true one), `predicted`, `probability` (of the predicted
        type) and `true_probability` (of the true type); surest first, with the catalog's index;
        empty where there is no mistake.

    Raises
    ------
    InvalidParameter
        See `evaluate`; or if `n` is not a positive whole number, or a column is missing.
    """
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
        raise InvalidParameter(f"n={n!r} mistakes cannot be chosen. Expected 1 or more.")
    missing = [name for name in ("path", "cell_type") if name not in catalog_rows]
    if missing:
        raise InvalidParameter(
            f"The catalog has no column {', '.join(missing)}. Expected one row an image, as "
            "catalog.find_images returns them."
        )
    true_types, probabilities = _checked(catalog_rows["cell_type"], probabilities)
    names = np.array(cells.NAMES)
    rows = np.arange(len(true_types))
    predicted = probabilities.argmax(axis=1)
    true = pd.Index(cells.NAMES).get_indexer(true_types)
    answers = pd.DataFrame(
        {
            "path": catalog_rows["path"],
            "cell_type": true_types,
            "predicted": names[predicted],
            "probability": probabilities[rows, predicted],
            "true_probability": probabilities[rows, true],
        },
        index=catalog_rows.index,
    )
    mistakes = answers[predicted != true]
    return mistakes.sort_values("probability", ascending=False, kind="stable").head(n)


def wilson_interval(n_correct: int, n_images: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of a proportion that stays within 0–1 and holds for few images [1]_.

    Parameters
    ----------
    n_correct, n_images : int
        How many of how many independent images.
    confidence : float
        Between 0 and 1.

    Returns
    -------
    (low, high) : float
        0–1.

    Raises
    ------
    InvalidParameter
        If it is not 0 ≤ n_correct ≤ n_images with at least one image, or the confidence is not
        between 0 and 1.

    References
    ----------
    .. [1] E. B. Wilson, Journal of the American Statistical Association 22(158), 209–212 (1927).
    """
    if not (n_images >= 1 and 0 <= n_correct <= n_images and 0 < confidence < 1):
        raise InvalidParameter(
            f"No interval for {n_correct} of {n_images} images at confidence {confidence}. "
            "Expected at least one image, no more correct than there are, and 0 < confidence < 1."
        )
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    rate = n_correct / n_images
    centre = rate + z**2 / (2 * n_images)
    half_width = z * np.sqrt(rate * (1 - rate) / n_images + z**2 / (4 * n_images**2))
    low, high = (centre + np.array([-half_width, half_width])) / (1 + z**2 / n_images)
    return max(0.0, float(low)), min(1.0, float(high))


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
    try:
        probabilities = np.asarray(probabilities, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidParameter(
            f"The probabilities are not an array of numbers ({error}). Expected shape "
            f"({len(true_types)}, {len(cells.NAMES)})."
        ) from error
    if probabilities.shape != (len(true_types), len(cells.NAMES)):
        raise InvalidParameter(
            f"The probabilities have shape {probabilities.shape} for {len(true_types)} true "
            f"types. Expected ({len(true_types)}, {len(cells.NAMES)}): a row an image, columns "
            f"{', '.join(cells.NAMES)}."
        )
    not_finite = ~np.isfinite(probabilities).all(axis=1)
    if not_finite.any():
        raise InvalidParameter(
            f"{not_finite.sum()} of {len(true_types)} rows of probabilities hold NaN or infinity, "
            f"first row {not_finite.argmax()}. Training may have diverged: lower the learning rate."
        )
    # Wide enough for softmax in half precision, too narrow for logits or sigmoids.
    wrong = (np.abs(probabilities.sum(axis=1) - 1) > 0.01) | (probabilities < 0).any(axis=1)
    if wrong.any():
        first = wrong.argmax()
        raise InvalidParameter(
            f"{wrong.sum()} of {len(true_types)} rows are no probabilities, first row {first}: "
            f"{probabilities[first].tolist()}. Expected 0–1 and a sum of 1: end the model in "
            "softmax."
        )
    return true_types, probabilities
