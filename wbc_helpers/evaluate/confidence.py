"""How sure a network is: whether that is worth its number, and when it had better not answer.

Temperature scaling [1]_ divides the network's logits by one number and leaves every answer what it
was. A threshold on confidence [2]_ leaves unsure images without an answer; a conformal set [3]_
names all types that are probable enough.

All are chosen on validation images, which neither trained the network nor will be tested on, and
then measured on others. These must be of photographs that training did not show, a grouped split:
on those of a random one a network is surer, and more often right, than it will be. What is promised
holds for images drawn like those of validation; TEST comes from other photographs, and what is
measured there is the number to report. An empty promise is worse than none: promises here count
photographs, where these are given, not their augmented images.

References
----------
.. [1] C. Guo, G. Pleiss, Y. Sun and K. Q. Weinberger, On calibration of modern neural networks,
   ICML (2017).
.. [2] Y. Geifman and R. El-Yaniv, Selective classification for deep neural networks, NeurIPS
   (2017).
.. [3] M. Sadinle, J. Lei and L. Wasserman, Least ambiguous set-valued classifiers with bounded
   error levels, Journal of the American Statistical Association 114(525), 223–234 (2019).
.. [4] Y. Lee, R. F. Barber and R. Willett, Distribution-free inference with hierarchical data,
   arXiv:2306.06342 (2023).
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from wbc_helpers import cells, storage
from wbc_helpers.errors import (
    BrokenRun,
    DataNotFound,
    InvalidParameter,
    check_fraction,
    check_whole,
)
from wbc_helpers.evaluate.classification import Evaluation, codes_of, evaluate

# Slides that look foreign

LEAST_ANSWERED, LEAST_TO_JUDGE = 1 / 3, 20
"""Part of the white cells that has to be answered for, where there are so many. Of three
laboratories, each left out of training in turn, one stays below it, and there the answers are
wrong too often."""

FOREIGN = (
    "These slides look foreign to the network: it is sure of fewer than a third of their white "
    "cells, and where it is, it may be wrong. No types are counted."
)

FEW_TO_ADAPT = 5
"""Images of a folder from which on answers are moved to it unasked, see `ADAPTED`."""

ADAPTED = (
    "These white cells look otherwise than those learned from, all in one way: the answers were "
    "moved to them (--no-adapt leaves that out)."
)


def least_answered(taught: bool) -> float:
    """Part of the white cells that has to be answered for: none where the laboratory taught."""
    return 0.0 if taught else LEAST_ANSWERED


def looks_foreign(n_answered: int, n_cells: int, taught: bool = False) -> bool:
    """Whether so few of the white cells are answered for that no answer is to be believed.

    A laboratory by which the network was `taught` is never foreign to it.

    Examples
    --------
    >>> looks_foreign(6, 20), looks_foreign(7, 20), looks_foreign(0, 19)
    (True, False, False)
    >>> looks_foreign(6, 20, taught=True)
    False
    """
    return n_cells >= LEAST_TO_JUDGE and n_answered < least_answered(taught) * n_cells


# Calibration


def confidence_and_right(evaluation: Evaluation) -> tuple[np.ndarray, np.ndarray]:
    """How sure each answer is, (n_images,) float64, 0–1, and whether it is right, bool."""
    confidence = np.minimum(evaluation.probabilities.max(axis=1), 1.0)
    return confidence, evaluation.predicted_codes == evaluation.true_codes


def reliability(evaluation: Evaluation, n_bins: int = 10) -> pd.DataFrame:
    """How often answers are right, by how sure they are, in 1–10,000 bins of equal width.

    One row a bin: `low` (excluded) and `high` (included), `n_images`, `confidence` (mean
    probability of the predicted type) and `accuracy`, both 0–1, NaN in an empty bin. Raises
    `InvalidParameter` for another `n_bins`.
    """
    check_whole("n_bins", n_bins, 1, 10_000)
    confidence, right = confidence_and_right(evaluation)
    edges = np.linspace(0, 1, n_bins + 1)
    bins = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, n_bins - 1)
    table = pd.DataFrame({"confidence": confidence, "accuracy": right.astype(float)})
    means = table.groupby(bins).mean().reindex(range(n_bins))
    counts = np.bincount(bins, minlength=n_bins)
    bounds = pd.DataFrame({"low": edges[:-1], "high": edges[1:], "n_images": counts})
    return bounds.join(means).rename_axis("bin")


def expected_calibration_error(evaluation: Evaluation, n_bins: int = 10) -> float:
    """Mean distance, 0–1, between confidence and accuracy over the bins, weighed by images.

    It depends on the bins (see `reliability`), and for few images it is above zero even of a
    calibrated network.

    Examples
    --------
    >>> wrong_once_in_two = evaluate(["monocyte", "neutrophil"], [[0, 0, 0.9, 0.1]] * 2)
    >>> round(expected_calibration_error(wrong_once_in_two), 3)
    0.4
    """
    bins = reliability(evaluation, n_bins).dropna()
    distance = (bins["accuracy"] - bins["confidence"]).abs()
    return float(np.average(distance, weights=bins["n_images"]))


def brier(evaluation: Evaluation) -> float:
    """Mean squared distance of the probabilities from the truth, summed over the types [1]_.

    0 for certainty that is right, 2 for certainty that is wrong, 0.75 for a quarter each.

    References
    ----------
    .. [1] G. W. Brier, Monthly Weather Review 78(1), 1–3 (1950).
    """
    truth = np.eye(len(cells.NAMES))[evaluation.true_codes]
    return float(((evaluation.probabilities - truth) ** 2).sum(axis=1).mean())


def log_loss(evaluation: Evaluation) -> float:
    """Mean negative log-likelihood of the true types in nats: log 4 = 1.386 for a quarter each."""
    return _log_loss(_logits(evaluation.probabilities), evaluation.true_codes)


def summary(evaluation: Evaluation) -> dict[str, float]:
    """All numbers on calibration, ready for JSON."""
    return {
        "n_images": evaluation.n_images,
        "accuracy": evaluation.accuracy,
        "mean_confidence": float(confidence_and_right(evaluation)[0].mean()),
        "expected_calibration_error": expected_calibration_error(evaluation),
        "brier": brier(evaluation),
        "log_loss": log_loss(evaluation),
    }


TEMPERATURES = (0.05, 20.0)
"""Limits of the search. Validation images that are all answered rightly have no best temperature:
the lower, the better; the search then ends at the limit."""


@dataclass(frozen=True)
class Calibration:
    """A temperature, and what it was fitted on; `fit_temperature` makes it.

    Above 1, the network was too sure of itself; below 1, not sure enough. It was fitted on
    `n_images` of validation, set aside as `split` says, such as `grouped` or `random (leaky)`; the
    losses are those of `log_loss`.
    """

    temperature: float
    n_images: int
    split: str
    loss_before: float
    loss_after: float


def fit_temperature(validation: Evaluation, split: str = "grouped") -> Calibration:
    """Find the temperature, within `TEMPERATURES`, at which validation images are most likely.

    These neither trained the network nor will be tested on; `split`, how they were set aside, is
    kept with the temperature, see `folders.validation_title`.
    """
    from scipy.optimize import minimize_scalar

    logits, types = _logits(validation.probabilities), validation.true_codes
    # The loss is convex in 1 / temperature, so that one search finds its only minimum.
    best = minimize_scalar(
        lambda logarithm: _log_loss(logits / np.exp(logarithm), types),
        bounds=np.log(TEMPERATURES),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return Calibration(
        temperature=float(np.exp(best.x)),
        n_images=validation.n_images,
        split=split,
        loss_before=_log_loss(logits, types),
        loss_after=float(best.fun),
    )


def apply_temperature(probabilities: ArrayLike, temperature: float) -> np.ndarray:
    """Soften (above 1) or sharpen (below 1) probabilities; the order in each row is kept.

    Of `probabilities`, (n_images, n_types), 0–1, rows summing to 1, the logarithms serve as logits,
    equal to the network's own but for a constant in each row. Raises `InvalidParameter` if the
    temperature is not a positive number.
    """
    if not (np.isfinite(temperature) and temperature > 0):
        raise InvalidParameter(
            f"A temperature of {temperature!r} cannot be applied. Expected a number above 0, as "
            "fit_temperature finds it."
        )
    return np.exp(log_softmax(_logits(probabilities) / temperature))


def with_temperature(evaluation: Evaluation, temperature: float) -> Evaluation:
    """Evaluate the same answers at another temperature, see `apply_temperature`."""
    scaled = apply_temperature(evaluation.probabilities, temperature)
    return evaluate(evaluation.true_types, scaled)


# The least that a softmax in single precision tells from nothing.
_LEAST_PROBABILITY = float(np.finfo(np.float32).tiny)


def _logits(probabilities: ArrayLike) -> np.ndarray:
    """Logarithms of probabilities, finite where these are 0."""
    return np.log(np.maximum(np.asarray(probabilities, np.float64), _LEAST_PROBABILITY))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Logarithms of the probabilities, which are in the last axis, as SciPy has it.

    SciPy takes a quarter of a second to import, and the rest of an answer needs none of it.
    """
    logits = logits - logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def _log_loss(logits: np.ndarray, types: np.ndarray) -> float:
    """Mean negative log-likelihood of types given as numbers."""
    likelihood = log_softmax(logits)[np.arange(len(types)), types]
    # Not -0.0 where all are certain and right.
    return float(np.abs(likelihood.mean()))


FORMAT = 1
"""Version of `calibration.json`."""


def write_calibration(folder: Path, calibration: Calibration, **summaries: Any) -> Path:
    """Write `calibration.json` into a run folder.

    `summaries` of plain numbers are kept beside it, such as `test={"before": summary(…)}`. Errors:
    see `storage.write_json`.
    """
    path = folder / "calibration.json"
    content = {"format": FORMAT, "run": folder.name, **asdict(calibration), **summaries}
    storage.write_json(path, content)
    return path


def read_calibration(folder: Path) -> Calibration:
    """Read `calibration.json` of a run folder.

    Raises `DataNotFound` if the run was not calibrated, `BrokenRun` if the file is damaged or of
    another version.
    """
    path = folder / "calibration.json"
    try:
        content = storage.read_json(path)
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']!r} instead of {FORMAT}")
        calibration = Calibration(**{key: content[key] for key in Calibration.__annotations__})
        if not calibration.temperature > 0:
            raise ValueError(f"temperature {calibration.temperature!r}")
    except FileNotFoundError as error:
        raise DataNotFound(
            f"The run {folder.name!r} has no calibration.json. Evaluate it with 04_evaluate first."
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise BrokenRun(
            f"{path} is damaged or of another version ({error!r}). Evaluate the run with "
            "04_evaluate again."
        ) from error
    return calibration


# A threshold below which nothing is answered


@dataclass(frozen=True, eq=False)
class RiskCoverage:
    """What is gained by answering only where the network is sure [2]_; see the module.

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

    The least ambiguous sets [3]_ take in every type that is probable enough; on average none are
    smaller. They promise that on average over all images the set lacks the true type in at most
    `error_rate` of them, not that it does so for each cell type, and may be empty for an image that
    is like nothing seen before.

    The promise holds if validation and later units come from the same source in no particular
    order. Images of one photograph do not. With `photographs` (see `classification.codes_of`), each
    counts as one unit, whatever the number of its images, and the promise is about an image of a
    new photograph [4]_; without, it is one for more images of these photographs. Raises
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
