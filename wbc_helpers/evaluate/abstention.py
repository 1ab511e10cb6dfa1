"""Knowing when not to answer: by a threshold on confidence, or by a set of types.

Both are chosen on validation images, which neither trained the network nor will be tested on, and
then measured on others. What they promise holds for images drawn like those of validation; TEST
comes from other photographs, and what is measured there is the number to report. An empty promise
is worse than none: promises here count photographs, where these are given, not their augmented
images.

References
----------
.. [1] Y. Geifman and R. El-Yaniv, Selective classification for deep neural networks, NeurIPS
   (2017).
.. [2] M. Sadinle, J. Lei and L. Wasserman, Least ambiguous set-valued classifiers with bounded
   error levels, Journal of the American Statistical Association 114(525), 223–234 (2019).
.. [3] Y. Lee, R. F. Barber and R. Willett, Distribution-free inference with hierarchical data,
   arXiv:2306.06342 (2023).
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from wbc_helpers import cells
from wbc_helpers.errors import InvalidParameter, check_fraction
from wbc_helpers.evaluate.calibration import confidence_and_right
from wbc_helpers.evaluate.classification import Evaluation, codes_of

# A threshold


@dataclass(frozen=True, eq=False)
class RiskCoverage:
    """What is gained by answering only where the network is sure [1]_; see the module.

    By falling `threshold`, a confidence that occurs: `coverage`, the part of the images that are at
    least as sure and answered, rising to 1, and `risk`, the part of the answers that are wrong; all
    (n_points,) float64, 0–1. `area` is risk averaged over coverage (AURC), 0–1; the error rate for
    a confidence that says nothing.
    """

    threshold: np.ndarray
    coverage: np.ndarray
    risk: np.ndarray
    area: float
    n_images: int


def risk_coverage(evaluation: Evaluation) -> RiskCoverage:
    """Error rate among the surest images, for every number of them; equally sure ones together."""
    confidence, right = confidence_and_right(evaluation)
    order = np.argsort(-confidence, kind="stable")
    confidence = confidence[order]
    last = np.flatnonzero(np.diff(confidence, append=-1) != 0)
    n_answered = last + 1
    risk = np.cumsum(~right[order])[last] / n_answered
    coverage = n_answered / evaluation.n_images
    area = float((np.diff(coverage, prepend=0) * risk).sum())
    return RiskCoverage(confidence[last], coverage, risk, area, evaluation.n_images)


@dataclass(frozen=True)
class Abstention:
    """A threshold on confidence below which no answer is given.

    Attributes
    ----------
    threshold : float
        Least probability of the predicted type, 0–1; infinity, so that nothing is answered, where
        `wanted_error`, the part of the answers that may be wrong, 0–1, is out of reach.
    error, coverage : float
        Of the `n_images` of validation: part of the answers that is wrong, None where nothing is
        answered; and part that is answered, 0–1.
    """

    threshold: float
    wanted_error: float
    error: float | None
    coverage: float
    n_images: int

    @property
    def attainable(self) -> bool:
        """Whether some threshold reached the wanted error rate on validation."""
        return math.isfinite(self.threshold)


def choose_threshold(validation: Evaluation, wanted_error: float) -> Abstention:
    """Find the threshold that answers most images at the wanted error rate, 0 to below 1.

    The rate holds on these images. It was sought out among many thresholds and rests on few
    photographs, so that others will show a somewhat higher one; measure it with `answer`. Where
    even the surest images are wrong too often, nothing is answered: see `Abstention.attainable`.
    Raises `InvalidParameter` for an error rate out of range.
    """
    if not 0 <= wanted_error < 1:
        raise InvalidParameter(
            f"wanted_error={wanted_error!r} is no error rate. Expected a part of the answers, from "
            "0 to below 1, such as 0.05."
        )
    curve = risk_coverage(validation)
    # A rate of 2 in 20 must meet a wanted 0.1.
    good = np.flatnonzero(curve.risk <= wanted_error + 1e-12)
    if not good.size:
        return Abstention(math.inf, wanted_error, None, 0.0, validation.n_images)
    threshold, risk, coverage = (
        float(values[good[-1]]) for values in (curve.threshold, curve.risk, curve.coverage)
    )
    return Abstention(threshold, wanted_error, risk, coverage, validation.n_images)


def answer(evaluation: Evaluation, threshold: float) -> pd.DataFrame:
    """Count what a threshold (0–1, or infinity) answers, and how much of that is wrong.

    Rows are `cells.NAMES` (true types) and `all`; columns `n_images`, `n_answered`, `coverage`
    (part answered) and `error` (part of the answers that is wrong), NaN where there are no images
    or answers. A threshold that spares the errors by refusing one type shows here. Raises
    `InvalidParameter` if the threshold is NaN.
    """
    if math.isnan(threshold):
        raise InvalidParameter("The threshold is NaN. Expected a confidence, 0–1, or infinity.")
    confidence, right = confidence_and_right(evaluation)
    answered = confidence >= threshold
    counts = _by_type(
        evaluation,
        {"n_images": np.ones_like(right), "n_answered": answered, "wrong": answered & ~right},
    ).astype(int)
    counts["coverage"] = counts["n_answered"] / counts["n_images"]
    counts["error"] = counts.pop("wrong") / counts["n_answered"]
    return counts


def _by_type(evaluation: Evaluation, columns: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Sum columns over the images of each true type, and over all."""
    table = pd.DataFrame(columns).astype(float)
    sums = table.groupby(evaluation.true_types).sum().reindex(cells.NAMES, fill_value=0)
    sums.loc["all"] = table.sum()
    return sums.rename_axis("cell_type")


# A set of types


@dataclass(frozen=True)
class ConformalSets:
    """A rule that gives each image a set of types; `fit_sets` makes it.

    Types at least as probable as `least_probability`, 0–1, are in the set; 0 puts all in.
    `error_rate` is the wanted part of the sets that lack the true type, 0–1; the rule rests on
    `n_units` photographs, or images where these are unknown.
    """

    least_probability: float
    error_rate: float
    n_units: int

    @property
    def attainable(self) -> bool:
        """Whether there are enough units for sets that are not simply everything.

        It takes 1 / error_rate - 1 of them: 9 photographs for an error rate of 10 %.
        """
        return self.least_probability > 0


def fit_sets(
    validation: Evaluation, error_rate: float = 0.1, photographs: ArrayLike | None = None
) -> ConformalSets:
    """Choose how probable a type must be to be in an image's set, by split conformal prediction.

    The least ambiguous sets [2]_ take in every type that is probable enough; on average none are
    smaller. They promise that on average over all images the set lacks the true type in at most
    `error_rate` of them, not that it does so for each cell type, and may be empty for an image that
    is like nothing seen before.

    The promise holds if validation and later units come from the same source in no particular
    order. Images of one photograph do not. With `photographs` (see `classification.codes_of`), each
    counts as one unit, whatever the number of its images, and the promise is about an image of a
    new photograph [3]_; without, it is one for more images of these photographs. Raises
    `InvalidParameter` if the error rate is not between 0 and 1 or a photograph is unknown.
    """
    check_fraction("error_rate", error_rate)
    weight = _weights(validation, photographs)
    probability = _of_true_types(validation, validation.probabilities)
    n_units = round(weight.sum())
    order = np.argsort(-probability, kind="stable")
    # The new image is one unit more, which could be of any probability.
    reached = np.cumsum(weight[order]) / (n_units + 1)
    enough = np.flatnonzero(reached >= 1 - error_rate - 1e-12)
    least = float(probability[order[enough[0]]]) if enough.size else 0.0
    return ConformalSets(least, error_rate, n_units)


def _weights(evaluation: Evaluation, photographs: ArrayLike | None) -> np.ndarray:
    """Of each image, so that each photograph, where these are given, counts once."""
    if photographs is None:
        return np.ones(evaluation.n_images)
    units = codes_of(evaluation, photographs)
    return 1 / np.bincount(units)[units]


def _of_true_types(evaluation: Evaluation, values: np.ndarray) -> np.ndarray:
    """Of (n_images, 4) values those of each image's true type, (n_images,)."""
    return values[np.arange(evaluation.n_images), evaluation.true_codes]


def sets(evaluation: Evaluation, rule: ConformalSets) -> np.ndarray:
    """Whether each of `cells.NAMES` is in the set of each image, (n_images, 4) bool."""
    return evaluation.probabilities >= rule.least_probability


def measure_sets(
    evaluation: Evaluation, rule: ConformalSets, photographs: ArrayLike | None = None
) -> pd.DataFrame:
    """Measure, on images that the rule was not fitted on, how large sets are and what they hold.

    With `photographs`, each counts once, as in the promise of `fit_sets`. Rows are `cells.NAMES`
    (true types) and `all`; columns `n_images`, `coverage` (part of the sets that hold the true
    type, 0–1), `mean_size` (0–4), and `empty` and `single` (part of the sets with no and with one
    type); NaN for a type without images.
    """
    weight = _weights(evaluation, photographs)
    chosen = sets(evaluation, rule)
    size = chosen.sum(axis=1)
    table = _by_type(
        evaluation,
        {
            "n_images": np.ones_like(weight),
            "weight": weight,
            "coverage": weight * _of_true_types(evaluation, chosen),
            "mean_size": weight * size,
            "empty": weight * (size == 0),
            "single": weight * (size == 1),
        },
    )
    weights = table.pop("weight").replace(0, np.nan)
    means = table.drop(columns="n_images").div(weights, axis="index")
    return pd.concat([table["n_images"].astype(int), means], axis="columns")


def coverage_by_rate(
    validation: Evaluation,
    evaluation: Evaluation,
    error_rates: Iterable[float] = (0.02, 0.05, 0.1, 0.2, 0.3),
    validation_photographs: ArrayLike | None = None,
    photographs: ArrayLike | None = None,
) -> pd.DataFrame:
    """Compare promised with measured coverage of conformal sets.

    Each rule is fitted on `validation` and measured on `evaluation`, with the photographs of each,
    see `fit_sets` and `measure_sets`. One row a rate and true type (and `all`): `wanted` (1 less
    the rate), `cell_type`, `attainable`, and the columns of `measure_sets`.
    """
    parts = []
    for error_rate in error_rates:
        rule = fit_sets(validation, error_rate, validation_photographs)
        measured = measure_sets(evaluation, rule, photographs).reset_index()
        measured.insert(0, "wanted", 1 - error_rate)
        measured.insert(2, "attainable", rule.attainable)
        parts.append(measured)
    return pd.concat(parts, ignore_index=True)
