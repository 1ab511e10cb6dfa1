"""How far a score could be off, given how few photographs it rests on.

The augmented images of one photograph are right or wrong together, so that what is drawn again
has to be the photograph, with all its images [1]_. It is drawn within its cell type, since the
data set fixes how many images of each type there are.

With few photographs the plain bootstrap is too sure of itself: its variance is (n - 1) / n of the
unbiased one, three quarters for the four photographs of monocytes. Drawing n - 1 of n and
weighing each n / (n - 1) repairs that [2]_. It cannot repair everything: a type of which every
image is right gets an interval of no width, and percentiles of so few are rough.

References
----------
.. [1] A. C. Davison and D. V. Hinkley, *Bootstrap Methods and Their Application*, Cambridge
   University Press (1997), section 3.8.
.. [2] J. N. K. Rao and C. F. J. Wu, Journal of the American Statistical Association 83(401),
   231–241 (1988).
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from wbc_helpers import cells
from wbc_helpers.errors import InvalidParameter, is_whole
from wbc_helpers.evaluate.classification import Evaluation, codes_of, kappa

POOLED = ("accuracy", "balanced_accuracy", "macro_f1", "kappa", "roc_auc", "average_precision")
"""Scores of all types together; the last two are means over the types."""

SCORES = (*POOLED, *(f"recall of {name}" for name in cells.NAMES))
_CHUNK = 100  # resamples at a time: a chunk of weights stays in the processor's cache


def intervals(
    evaluation: Evaluation,
    photographs: ArrayLike,
    n_resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Interval of every score, by photograph and, for comparison, by image.

    `photographs`, (n_images,) array_like of str, names the photograph of each image (`source_id`)
    or, more careful, its group of photographs that overlap (`group_id`). A group that shows two
    types is drawn with those that show the one it has more images of. `n_resamples` says how often
    they are drawn again, `confidence` is between 0 and 1, and `seed` is that of the draws;
    `InvalidParameter` is raised if one is out of range, or a photograph is unknown.

    Returns
    -------
    DataFrame
        Rows are `SCORES`, columns `value`; `naive_low`, `naive_high`: percentile interval that
        takes the images for independent; `low`, `high`: that of drawing photographs; `widening`:
        width of the second over that of the first. NaN where a score is undefined, and for the
        interval by photograph where a type has only one: that says nothing of how photographs
        differ.
    """
    table, (by_image, by_photograph) = _resample(
        [evaluation], photographs, n_resamples, confidence, seed
    )
    table = table.rename(columns={0: "value"})
    table["naive_low"], table["naive_high"] = percentiles(by_image[0], confidence)
    table["low"], table["high"] = percentiles(by_photograph[0], confidence)
    naive_width = (table["naive_high"] - table["naive_low"]).replace(0, np.nan)
    table["widening"] = (table["high"] - table["low"]) / naive_width
    return table


def compare(
    first: Evaluation,
    second: Evaluation,
    photographs: ArrayLike,
    n_resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare two classifiers on the same images in the same order, in every resample.

    Photographs that are hard for both then cancel, which two intervals side by side do not show.
    Rows are `SCORES`, columns `first`, `second`; `difference`: second less first; `naive_low`,
    `naive_high`, `low`, `high`: intervals of the difference; `in_favour`: part of the resamples of
    photographs in which the second scores higher, ties counted half. It is no probability that the
    second is better. For parameters and errors see `intervals`.
    """
    if not np.array_equal(first.true_types, second.true_types):
        raise InvalidParameter(
            f"The two evaluations ({first.n_images} and {second.n_images} images) differ in their "
            "true types. Expected the same images in the same order."
        )
    table, resampled = _resample([first, second], photographs, n_resamples, confidence, seed)
    table = table.rename(columns={0: "first", 1: "second"})
    table["difference"] = table["second"] - table["first"]
    by_image, by_photograph = (scores[1] - scores[0] for scores in resampled)
    table["naive_low"], table["naive_high"] = percentiles(by_image, confidence)
    table["low"], table["high"] = percentiles(by_photograph, confidence)
    # Weighted sums of one and the same answers differ by rounding.
    wins = np.where(np.abs(by_photograph) < 1e-12, 0.5, by_photograph > 0)
    defined = np.isfinite(by_photograph)
    n_defined = np.where(defined.any(axis=0), defined.sum(axis=0), np.nan)
    table["in_favour"] = (wins * defined).sum(axis=0) / n_defined
    return table


def in_words(compared: pd.DataFrame, score: str, first: str, second: str) -> str:
    """Read one row of a comparison aloud, and say no more than it allows.

    It speaks of two trained networks, called `first` and `second`: how the same recipe would do
    with another seed is not in the interval. Raises `InvalidParameter` if there is no such score.

    Examples
    --------
    >>> row = {"first": 0.5, "second": 0.6, "difference": 0.1, "low": -0.02, "high": 0.22}
    >>> compared = pd.DataFrame([row], index=["accuracy"])
    >>> print(in_words(compared, "accuracy", "old", "new").split(". ")[-1])
    These photographs do not tell the two apart.
    """
    if score not in compared.index:
        raise InvalidParameter(
            f"There is no score {score!r} in the comparison. Expected one of "
            f"{', '.join(compared.index)}."
        )
    row = compared.loc[score]
    name = score.replace("_", " ")
    if np.isnan(row["difference"]):
        return f"The {name} is undefined for at least one of {first} and {second}."
    scored = (
        f"{second} scores {row['second']:.3f} in {name}, {first} {row['first']:.3f}: a difference "
        f"of {row['difference']:+.3f}"
    )
    if np.isnan(row["low"]):
        return f"{scored}. With one photograph of a type there is no interval to judge it by."
    scored += f", interval {row['low']:+.3f} to {row['high']:+.3f}"
    # Of equal answers weighted sums may differ by rounding.
    if row["low"] <= 1e-12 and row["high"] >= -1e-12:
        return f"{scored}. These photographs do not tell the two apart."
    better = second if row["difference"] > 0 else first
    return f"{scored}. On photographs like these, {better} is the better one."


def check_draws(n_resamples: int, confidence: float) -> None:
    """Refuse fewer than one whole resample, and a confidence that is not between 0 and 1."""
    if not (is_whole(n_resamples, 1) and 0 < confidence < 1):
        raise InvalidParameter(
            f"No interval from n_resamples={n_resamples!r} at confidence={confidence!r}. Expected "
            "at least 1 resample (1000 or 2000 are usual) and 0 < confidence < 1."
        )


def percentiles(scores: np.ndarray, confidence: float) -> np.ndarray:
    """Bounds of each column of resampled scores, (2, n_scores), of those that are defined."""
    bounds = np.full((2, scores.shape[1]), np.nan)
    defined = np.isfinite(scores).any(axis=0)
    if defined.any():
        levels = [(1 - confidence) / 2, (1 + confidence) / 2]
        bounds[:, defined] = np.nanquantile(scores[:, defined], levels, axis=0)
    return bounds


def mean_over_types(
    values: ArrayLike, types: ArrayLike, groups: ArrayLike, rng: np.random.Generator,
    n_draws: int = 1000,
) -> tuple[float, float]:  # fmt: skip
    """95 % interval of the mean over the types of their mean values, drawing whole groups.

    One value, type and group a cell; a draw without a type is the mean over the others.
    """
    table = pd.DataFrame({"value": values, "type": np.asarray(types), "group": np.asarray(groups)})
    by_group = table.groupby(["group", "type"])["value"].agg(["sum", "size"]).unstack(fill_value=0)
    sums, sizes = by_group["sum"].to_numpy(), by_group["size"].to_numpy()
    drawn = rng.integers(0, len(sums), (n_draws, len(sums)))
    with np.errstate(invalid="ignore"):
        means = np.nanmean(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1), axis=1)
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


def _resample(
    evaluations: Sequence[Evaluation],
    photographs: ArrayLike,
    n_resamples: int,
    confidence: float,
    seed: int,
) -> tuple[pd.DataFrame, list[list[np.ndarray]]]:
    """Scores of each evaluation; the same by image and by photograph, (n_resamples, n_scores)."""
    check_draws(n_resamples, confidence)
    types = evaluations[0].true_codes
    judges = [_Judge(evaluation, types) for evaluation in evaluations]
    table = pd.DataFrame(
        {i: judge.scores(np.ones((1, len(types))))[0] for i, judge in enumerate(judges)},
        index=pd.Index(SCORES, name="score"),
    )
    resampled = []
    clusterings = (np.arange(len(types)), codes_of(evaluations[0], photographs))
    for clusters, generator in zip(clusterings, np.random.default_rng(seed).spawn(2), strict=True):
        strata = _strata(clusters, types)
        chunks = [
            [judge.scores(weights[:, clusters]) for judge in judges]
            for weights in _weights(strata, n_resamples, generator)
        ]
        scores_by_judge = [np.concatenate(parts) for parts in zip(*chunks, strict=True)]
        single = np.bincount(strata, minlength=len(cells.NAMES)) == 1
        for scores in scores_by_judge:
            scores[:, len(POOLED) :][:, single] = np.nan
            if single.any():
                scores[:, : len(POOLED)] = np.nan
        resampled.append(scores_by_judge)
    return table, resampled


def _strata(clusters: np.ndarray, types: np.ndarray) -> np.ndarray:
    """Type that each cluster has most images of, (n_clusters,) int."""
    counts = np.zeros((clusters.max() + 1, len(cells.NAMES)), int)
    np.add.at(counts, (clusters, types), 1)
    return counts.argmax(axis=1)


def _weights(
    strata: np.ndarray, n_resamples: int, generator: np.random.Generator
) -> Iterator[np.ndarray]:
    """Yield weights of the clusters, (up to `_CHUNK`, n_clusters), in all `n_resamples` rows."""
    for start in range(0, n_resamples, _CHUNK):
        n_rows = min(_CHUNK, n_resamples - start)
        weights = np.ones((n_rows, len(strata)))
        for stratum in np.unique(strata):
            members = np.flatnonzero(strata == stratum)
            n = len(members)
            if n > 1:
                drawn = generator.integers(0, n, (n_rows, n - 1)) + n * np.arange(n_rows)[:, None]
                counts = np.bincount(drawn.ravel(), minlength=n_rows * n).reshape(n_rows, n)
                weights[:, members] = counts * (n / (n - 1))
        yield weights


class _Judge:
    """Scores of one classifier's answers under many weightings of the images."""

    def __init__(self, evaluation: Evaluation, types: np.ndarray) -> None:
        n_types = len(cells.NAMES)
        cell_of_matrix = types * n_types + evaluation.probabilities.argmax(axis=1)
        self._answers = np.eye(n_types**2)[cell_of_matrix]
        self._rankings = []
        for number in range(n_types):
            is_type = types == number
            if is_type.any() and not is_type.all():
                probability = evaluation.probabilities[:, number]
                self._rankings.append(_Ranking(probability, is_type))

    def scores(self, weights: np.ndarray) -> np.ndarray:
        """`SCORES` for each row of weights, (n_rows, n_scores)."""
        n_types = len(cells.NAMES)
        confusion = (weights @ self._answers).reshape(-1, n_types, n_types)
        right = np.diagonal(confusion, axis1=1, axis2=2)
        true, predicted = confusion.sum(axis=2), confusion.sum(axis=1)
        recall = _ratio(right, true)
        f1 = _ratio(2 * right, true + predicted)
        undefined = np.full((2, len(weights)), np.nan)
        areas = [np.stack(ranking.areas(weights)) for ranking in self._rankings] or [undefined]
        return np.column_stack(
            [
                right.sum(axis=1) / true.sum(axis=1),
                np.nanmean(recall, axis=1),
                np.nanmean(f1, axis=1),
                kappa(confusion),
                *np.mean(areas, axis=0),
                recall,
            ]
        )


class _Ranking:
    """Images by falling probability of one type, of which some are.

    Of the images of the type, each adds to the areas by how many images, and how many false
    alarms, come before it; images of equal probability come together.
    """

    def __init__(self, probability: np.ndarray, is_type: np.ndarray) -> None:
        self._order = np.argsort(-probability, kind="stable")
        is_type = is_type[self._order]
        self._hits = self._order[is_type]
        rising = -probability[self._order]
        # Of each image of the type: how many images come before its equals, and with them.
        self._before = np.searchsorted(rising, rising[is_type], side="left")
        self._through = np.searchsorted(rising, rising[is_type], side="right")
        n_hits = np.append(0, np.cumsum(is_type))
        self._hits_before, self._hits_through = n_hits[self._before], n_hits[self._through]

    def areas(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """ROC-AUC and average precision for each row of weights, (n_rows,) each."""
        called = _sums(weights[:, self._order])
        hit_weights = weights[:, self._hits]
        hits = _sums(hit_weights)
        called_through, hits_through = called[:, self._through], hits[:, self._hits_through]
        n_hits, n_others = hits[:, -1], called[:, -1] - hits[:, -1]
        alarms = called_through - hits_through
        alarms += called[:, self._before] - hits[:, self._hits_before]
        misordered = np.einsum("ij,ij->i", hit_weights, alarms) / 2
        undefined = np.zeros_like(hits_through)
        precision = np.divide(hits_through, called_through, undefined, where=called_through > 0)
        average = _ratio(np.einsum("ij,ij->i", hit_weights, precision), n_hits)
        return 1 - _ratio(misordered, n_hits * n_others), average


def _sums(weights: np.ndarray) -> np.ndarray:
    """Sum of the first 0, 1, … columns of each row."""
    sums = np.zeros((len(weights), weights.shape[1] + 1))
    np.cumsum(weights, axis=1, out=sums[:, 1:])
    return sums


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """`part` / `whole`, NaN where there is no whole."""
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)
