"""Whether a network that says 80 % is right in 80 of 100 cases, and how to make it so.

Temperature scaling [1]_ divides the network's logits by one number, chosen on validation images,
and leaves every answer what it was. The images must be of photographs that training did not show,
a grouped split: on those of a random one a network is surer, and more often right, than it will
be.

References
----------
.. [1] C. Guo, G. Pleiss, Y. Sun and K. Q. Weinberger, On calibration of modern neural networks,
   ICML (2017).
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import log_softmax

from wbc_helpers import cells, storage
from wbc_helpers.errors import BrokenRun, DataNotFound, InvalidParameter, check_whole
from wbc_helpers.evaluate.classification import Evaluation, evaluate


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


def summary(evaluation: Evaluation, n_bins: int = 10) -> dict[str, float]:
    """All numbers on calibration, ready for JSON; for `n_bins` see `reliability`."""
    return {
        "n_images": evaluation.n_images,
        "accuracy": evaluation.accuracy,
        "mean_confidence": float(confidence_and_right(evaluation)[0].mean()),
        "expected_calibration_error": expected_calibration_error(evaluation, n_bins),
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

    @property
    def at_limit(self) -> bool:
        """Whether the search ended at one of `TEMPERATURES`, so that there is no best one."""
        return bool(np.isclose(self.temperature, TEMPERATURES, rtol=0.01).any())


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
    return np.exp(log_softmax(_logits(probabilities) / temperature, axis=1))


def with_temperature(evaluation: Evaluation, temperature: float) -> Evaluation:
    """Evaluate the same answers at another temperature, see `apply_temperature`."""
    scaled = apply_temperature(evaluation.probabilities, temperature)
    return evaluate(evaluation.true_types, scaled)


# The least that a softmax in single precision tells from nothing.
_LEAST_PROBABILITY = float(np.finfo(np.float32).tiny)


def _logits(probabilities: ArrayLike) -> np.ndarray:
    """Logarithms of probabilities, finite where these are 0."""
    return np.log(np.maximum(np.asarray(probabilities, np.float64), _LEAST_PROBABILITY))


def _log_loss(logits: np.ndarray, types: np.ndarray) -> float:
    """Mean negative log-likelihood of types given as numbers."""
    likelihood = log_softmax(logits, axis=1)[np.arange(len(types)), types]
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
        content = json.loads(path.read_text(encoding="utf-8"))
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
