"""How well cells of a smear are boxed, and how well they are counted.

Three questions, of a table of true boxes and one of predicted ones: which box stands for which
cell (`match_boxes`), how good the boxes are at all score thresholds at once (`score_detections`),
and how far two counts of the same photographs agree (`count_agreement`).

Average precision is the mean, over the recalls 0, 0.01, …, 1, of the highest precision reached at
that recall or a higher one [1]_. pycocotools computes it. What its matching tells of each
photograph is kept, so that drawing photographs anew for an interval only counts again.

Two ways of counting can rank photographs alike and still disagree in every number, so that a
correlation says little. Bland and Altman ask instead [2]_: how much higher is one count than the
other on average (bias), and between which limits do 95 % of the differences lie?

References
----------
.. [1] T.-Y. Lin et al., Microsoft COCO: common objects in context, ECCV (2014);
   https://cocodataset.org/#detection-eval.
.. [2] J. M. Bland and D. G. Altman, The Lancet 327(8476), 307–310 (1986).
"""

import contextlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from wbc_helpers import cells
from wbc_helpers.cells import BOX
from wbc_helpers.errors import InvalidParameter
from wbc_helpers.evaluate.classification import plain_rows
from wbc_helpers.evaluate.uncertainty import check_draws, percentiles

# Which box stands for which cell


@dataclass(frozen=True, eq=False)
class BoxMatches:
    """Boxes paired off at an overlap of `iou` or more.

    Both tables are as given, in the same order, with `match`: of `predictions`, the index of the
    true box that each stands for, and of `truth`, that of the prediction; -1 for none.
    `predictions` also have `iou`, the overlap with it, 0 for none.
    """

    predictions: pd.DataFrame
    truth: pd.DataFrame
    iou: float

    @property
    def counts(self) -> pd.DataFrame:
        """By kind: `found`, `false` (boxes without a cell), `missed`, `precision`, `recall`, `f1`.

        NaN where there is nothing to divide by.
        """
        true_kinds = self.truth["kind"].astype(str)
        box_kinds = self.predictions["kind"].astype(str)
        is_right, is_missed = self.predictions["match"] >= 0, self.truth["match"] < 0
        table = pd.DataFrame(
            {
                "found": box_kinds[is_right].value_counts(),
                "false": box_kinds[~is_right].value_counts(),
                "missed": true_kinds[is_missed].value_counts(),
            },
            index=pd.Index(pd.unique(pd.concat([true_kinds, box_kinds])), name="kind"),
        )
        table = table.fillna(0).astype(int)
        right = table["found"].astype(float)
        # A division by zero is NaN in pandas, as it should be.
        table["precision"] = right / (right + table["false"])
        table["recall"] = right / (right + table["missed"])
        table["f1"] = 2 * right / (2 * right + table["false"] + table["missed"])
        return table


def overlap(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union of every box with every other, as COCO's evaluation computes it.

    Of (n, 4) and (m, 4) boxes, columns `cells.BOX`, gives (n, m) float64, 0–1; 0 where both have no
    area.
    """
    from pycocotools import mask

    if not (len(first) and len(second)):
        return np.zeros((len(first), len(second)))
    # COCO's boxes are corner and size.
    with_sizes = [
        np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]])
        for boxes in (np.asarray(first, float), np.asarray(second, float))
    ]
    return mask.iou(*with_sizes, np.zeros(len(second), np.uint8))


def match_boxes(truth: pd.DataFrame, predictions: pd.DataFrame, iou: float = 0.5) -> BoxMatches:
    """Pair off predicted and true boxes at an overlap of `iou` or more, the surest first.

    As COCO does: in each photograph, and for each kind, boxes choose in the order of their scores,
    each the true box that it overlaps most of those still free. So each cell is found once; a
    second box on it is false. For the tables see `score_detections`. Raises `InvalidParameter` if
    the overlap is not above 0 and up to 1, or an index repeats itself or is not of whole numbers.
    """
    if not 0 < iou <= 1:
        raise InvalidParameter(f"iou={iou!r} is no overlap. Expected 0 < iou <= 1; 0.5 is usual.")
    for what, boxes in (("truth", truth), ("predictions", predictions)):
        if not (boxes.index.is_unique and pd.api.types.is_integer_dtype(boxes.index)):
            raise InvalidParameter(
                f"The index of the {what} repeats itself or is no number. Expected a whole number "
                "for each box, as reset_index(drop=True) gives."
            )
    keys = ["photograph", "kind"]
    corners = [boxes[BOX].to_numpy(float) for boxes in (truth, predictions)]
    scores = predictions["score"].to_numpy(float)
    cell_of_box, box_of_cell = np.full(len(predictions), -1), np.full(len(truth), -1)
    true_index, predicted_index = truth.index.to_numpy(), predictions.index.to_numpy()
    shares = np.zeros(len(predictions))
    true_rows = truth.groupby(keys, observed=True).indices
    for key, rows in predictions.groupby(keys, observed=True).indices.items():
        if key not in true_rows:
            continue
        free = true_rows[key]
        rows = np.asarray(rows)[np.argsort(-scores[rows], kind="stable")]
        overlaps = overlap(corners[1][rows], corners[0][free])
        for row, shared in zip(rows, overlaps, strict=True):
            # Of equal overlaps COCO takes the last.
            best = len(shared) - 1 - int(shared[::-1].argmax())
            # Its tolerance for an overlap that is exact but for rounding.
            if shared[best] >= min(iou, 1 - 1e-10):
                cell_of_box[row], shares[row] = true_index[free[best]], shared[best]
                box_of_cell[free[best]] = predicted_index[row]
                overlaps[:, best] = -1
    return BoxMatches(
        predictions.assign(match=cell_of_box, iou=shares), truth.assign(match=box_of_cell), iou
    )


def fair_thresholds(matches: BoxMatches) -> pd.Series:
    """Score from which on as many boxes are taken as there are cells, by kind.

    Then cells that are missed and boxes that are false balance each other, so that counts are
    neither too high nor too low on average. Choose it on validation photographs, from the matches
    of all boxes, the unsure ones too. With fewer boxes than cells it is the score of the last one;
    where no box is right, infinity.
    """
    thresholds = {}
    for kind, boxes in matches.predictions.groupby("kind", observed=True):
        scores = np.sort(boxes["score"].to_numpy(float))[::-1]
        n_cells = int((matches.truth["kind"] == kind).sum())
        any_right = (boxes["match"] >= 0).any()
        thresholds[str(kind)] = scores[min(n_cells, len(scores)) - 1] if any_right else np.inf
    return pd.Series(thresholds, dtype=float, name="threshold").rename_axis("kind")


def even_thresholds(matches: BoxMatches) -> pd.Series:
    """Score from which on most boxes are right, by kind: below, more are wrong than right.

    Of the matches of all boxes, like `fair_thresholds`; where most are wrong from the surest on,
    it is the score of that one.
    """
    thresholds = {}
    for kind, boxes in matches.predictions.groupby("kind", observed=True):
        boxes = boxes.sort_values("score", ascending=False, kind="stable")
        ahead = np.cumsum(np.where(boxes["match"] >= 0, 1, -1))
        thresholds[str(kind)] = boxes["score"].iloc[int(ahead.argmax())]
    return pd.Series(thresholds, dtype=float, name="threshold").rename_axis("kind")


# Which cells the frame cuts

EDGES = ("left", "upper", "right", "lower")
TOUCHES = 0.04
"""How near to an edge of the frame a box reaches it, in its own longer sides; at least 1.5 pixels.
Of a red cell of 104 pixels that is 4."""


def cut_edges(boxes: pd.DataFrame, width: Any, height: Any) -> pd.DataFrame:
    """Tell which of `EDGES` of the frame each box reaches, so that the cell may be cut: bool.

    `boxes` have the columns `cells.BOX`, in pixels; `width` and `height` are those of the
    photograph, a number or one for each box.

    Whole cells are those that reach none. A field as such shows too many cells, since each that it
    cuts is in the next field, too. Counted without bias are those that reach neither the left edge
    nor the upper one [1]_, `is_framed`.

    References
    ----------
    .. [1] H. J. G. Gundersen, J. Microsc. 111(2), 219–223 (1977).
    """
    sides = np.maximum(boxes["x_max"] - boxes["x_min"], boxes["y_max"] - boxes["y_min"])
    near = np.maximum(TOUCHES * sides, 1.5)
    reached = {
        "left": boxes["x_min"] <= near,
        "upper": boxes["y_min"] <= near,
        "right": boxes["x_max"] >= width - near,
        "lower": boxes["y_max"] >= height - near,
    }
    return pd.DataFrame(reached, index=boxes.index, columns=list(EDGES)).astype(bool)


def is_framed(cut: pd.DataFrame) -> pd.Series:
    """Tell which cells a counting frame counts, of `cut_edges`: bool.

    Examples
    --------
    >>> boxes = pd.DataFrame([[0, 40, 9, 50], [95, 40, 100, 50]], columns=BOX)
    >>> is_framed(cut_edges(boxes, 100, 100)).tolist()
    [False, True]
    """
    return ~(cut["left"] | cut["upper"])


# How good boxes are at all score thresholds

IOUS = np.linspace(0.5, 0.95, 10)
"""Overlaps from which on a box counts as found: intersection over union (IoU)."""

MOST_BOXES = 100
"""Boxes of one kind in a photograph that count, the surest first, as COCO has it. The BCCD
photographs show at most 30 red cells."""

_RECALLS = np.linspace(0, 1, 101)


@dataclass(frozen=True, eq=False)
class Evidence:
    """What the matching tells of one kind: `n_truth`, (n_photographs,) int, are its true boxes.

    Of the predicted boxes, by falling score: `scores`, (n_boxes,) float64; `hits`, (n_ious,
    n_boxes) bool, whether each stands for a cell at each of `IOUS`; and `photograph`, (n_boxes,)
    int, the number of the one it lies in.
    """

    scores: np.ndarray
    hits: np.ndarray
    photograph: np.ndarray
    n_truth: np.ndarray


@dataclass(frozen=True, eq=False)
class DetectionScores:
    """Average precision of a detector on a set of photographs, whose names are sorted.

    `average_precision` has a row a kind and columns `IOUS`; 0–1, NaN for a kind of which there is
    no true box. `n_truth` and `n_predicted` count boxes by kind; `evidence` is by kind, too.
    """

    average_precision: pd.DataFrame
    n_truth: pd.Series
    n_predicted: pd.Series
    photographs: tuple[str, ...]
    evidence: tuple[Evidence, ...]

    @property
    def n_photographs(self) -> int:
        """Number of photographs."""
        return len(self.photographs)

    @property
    def map_50(self) -> float:
        """Mean over the kinds at an IoU of 0.5."""
        return float(self.average_precision[IOUS[0]].mean())

    @property
    def map_50_95(self) -> float:
        """Mean over the kinds and over `IOUS`."""
        return float(self.average_precision.mean(axis=1).mean())

    @property
    def per_kind(self) -> pd.DataFrame:
        """`ap_50`, `ap_50_95`, `n_truth` and `n_predicted` of each kind."""
        return pd.DataFrame(
            {
                "ap_50": self.average_precision[IOUS[0]],
                "ap_50_95": self.average_precision.mean(axis=1),
                "n_truth": self.n_truth,
                "n_predicted": self.n_predicted,
            }
        )

    def to_dict(self) -> dict[str, Any]:
        """All scores in plain values, ready for JSON; None where undefined."""
        means = pd.DataFrame({"map_50": self.map_50, "map_50_95": self.map_50_95}, index=["all"])
        return {
            "n_photographs": self.n_photographs,
            **plain_rows(means)["all"],
            "per_kind": plain_rows(self.per_kind),
        }


def score_detections(
    truth: pd.DataFrame,
    predictions: pd.DataFrame,
    photographs: Iterable[str],
    kinds: Sequence[str] = cells.KIND_NAMES,
) -> DetectionScores:
    """Score boxes against the truth.

    Both tables have one row a box: `photograph`, `kind` and `cells.BOX`; predictions also `score`:
    how sure the detector is, the more the higher. Do not leave out the unsure ones: average
    precision asks for them. `photographs` are all that were looked at, also those without any box,
    and `kinds` those that are scored: boxes in or of others are refused. Raises `InvalidParameter`
    for such a box, and if there is no photograph, a column is missing, a number is not finite, or a
    box is turned inside out.
    """
    names = sorted(set(photographs))
    if not names:
        raise InvalidParameter("There is no photograph to score; at least one was expected.")
    _check(truth, [*BOX], names, kinds, "truth")
    _check(predictions, [*BOX, "score"], names, kinds, "predictions")
    evaluator = _evaluate(truth, predictions, names, kinds)
    # By IoU, recall, kind, area and most boxes; -1 where there is nothing to find.
    precision = evaluator.eval["precision"][..., 0, 0]
    average = np.where(precision[:, 0] < 0, np.nan, precision.mean(axis=1))
    index = pd.Index(kinds, name="kind")
    return DetectionScores(
        pd.DataFrame(average.T, index=index, columns=IOUS),
        truth["kind"].value_counts().reindex(index, fill_value=0),
        predictions["kind"].value_counts().reindex(index, fill_value=0),
        tuple(names),
        tuple(_gather(evaluator, number, len(names)) for number in range(len(kinds))),
    )


def _check(
    boxes: pd.DataFrame,
    numbers: Sequence[str],
    photographs: Sequence[str],
    kinds: Sequence[str],
    what: str,
) -> None:
    """Refuse boxes that cannot be scored, and say why."""
    columns = ["photograph", "kind", *numbers]
    if missing := [name for name in columns if name not in boxes]:
        problem = f"have no column {', '.join(missing)}"
    elif not np.isfinite(boxes[numbers].to_numpy(float)).all():
        problem = "hold numbers that are not finite"
    elif ((boxes["x_max"] < boxes["x_min"]) | (boxes["y_max"] < boxes["y_min"])).any():
        problem = "hold boxes that end before they begin"
    elif other := sorted(set(boxes["kind"].astype(str)) - set(kinds)):
        problem = f"hold other kinds: {', '.join(other[:5])}"
    elif other := sorted(set(boxes["photograph"].astype(str)) - set(photographs)):
        problem = f"hold boxes in {len(other)} other photographs: {', '.join(other[:5])}"
    else:
        return
    raise InvalidParameter(
        f"The {what} {problem}. Expected a row a box with {', '.join(columns)}, of the kinds "
        f"{', '.join(kinds)}, in the {len(photographs)} photographs that were looked at."
    )


def _evaluate(
    truth: pd.DataFrame,
    predictions: pd.DataFrame,
    photographs: Sequence[str],
    kinds: Sequence[str],
) -> Any:
    """Run COCO's evaluation over all sizes of box."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def as_coco(boxes: pd.DataFrame) -> COCO:
        corners = boxes[BOX].to_numpy(float)
        sizes = corners[:, 2:] - corners[:, :2]
        columns = zip(
            boxes["photograph"].astype(str),
            boxes["kind"].astype(str),
            np.hstack([corners[:, :2], sizes]).tolist(),
            sizes.prod(axis=1).tolist(),
            boxes["score"].tolist() if "score" in boxes else np.ones(len(boxes)),
            strict=True,
        )
        coco = COCO()
        coco.dataset = {
            "images": [{"id": number} for number in range(len(photographs))],
            "categories": [{"id": number} for number in range(len(kinds))],
            # Numbered from 1: the evaluation takes a match with box 0 for none.
            "annotations": [
                {
                    "id": number,
                    "image_id": places[name],
                    "category_id": codes[kind],
                    "bbox": box,
                    "area": area,
                    "score": score,
                    "iscrowd": 0,
                }
                for number, (name, kind, box, area, score) in enumerate(columns, start=1)
            ],
        }
        coco.createIndex()
        return coco

    places = {name: number for number, name in enumerate(photographs)}
    codes = {kind: number for number, kind in enumerate(kinds)}
    # It reports every step.
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator = COCOeval(as_coco(truth), as_coco(predictions), "bbox")
        evaluator.params.iouThrs = IOUS
        evaluator.params.recThrs = _RECALLS
        evaluator.params.maxDets = [MOST_BOXES]
        evaluator.params.areaRng, evaluator.params.areaRngLbl = [[0, np.inf]], ["all"]
        evaluator.evaluate()
        evaluator.accumulate()
    return evaluator


def _gather(evaluator: Any, kind: int, n_photographs: int) -> Evidence:
    """Collect what the matching tells of one kind."""
    matched = evaluator.evalImgs[kind * n_photographs : (kind + 1) * n_photographs]
    nothing = {"gtIds": [], "dtIds": [], "dtScores": [], "dtMatches": np.empty((len(IOUS), 0))}
    matched = [matches or nothing for matches in matched]
    n_truth = np.array([len(matches["gtIds"]) for matches in matched])
    n_boxes = [len(matches["dtIds"]) for matches in matched]
    photograph = np.repeat(np.arange(n_photographs), n_boxes)
    scores = np.concatenate([matches["dtScores"] for matches in matched])
    hits = np.concatenate([matches["dtMatches"] > 0 for matches in matched], axis=1)
    order = np.argsort(-scores, kind="stable")
    return Evidence(scores[order], hits[:, order], photograph[order], n_truth)


_CHUNK = 50  # resamples at a time: their cumulative sums stay in the processor's cache


def intervals(
    scores: DetectionScores,
    groups: pd.Series | None = None,
    n_resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Percentile intervals of every score, drawing photographs, at best some dozens, anew.

    Boxes of one photograph share its stain and its focus, and are found or missed together, so that
    what is drawn has to be the photograph, see `uncertainty`; and, if `groups` names the group of
    each by its name, see `splits.group_sources`, photographs that overlap are drawn together. For
    the other parameters see `uncertainty.intervals`.

    Rows are `mAP@0.5`, `mAP@0.5:0.95`, and `AP@0.5 of RBC` and so on; columns `value`, `low`,
    `high`. NaN where there is nothing to find, and for the interval of a single photograph. Raises
    `InvalidParameter` if a number is out of range, or a photograph is in no group.
    """
    check_draws(n_resamples, confidence)
    named = scores.photographs if groups is None else groups.reindex(scores.photographs)
    codes = pd.factorize(np.asarray(named, dtype=object))[0]
    if (codes < 0).any():
        raise InvalidParameter(
            f"No interval with {(codes < 0).sum()} of {scores.n_photographs} photographs in no "
            "group. Expected a group for each photograph."
        )
    kinds = scores.average_precision.index
    names = [
        "mAP@0.5",
        "mAP@0.5:0.95",
        *(f"AP@0.5 of {kind}" for kind in kinds),
        *(f"AP@0.5:0.95 of {kind}" for kind in kinds),
    ]
    table = pd.DataFrame(index=pd.Index(names, name="score"))
    table["value"] = _summarise(scores.average_precision.to_numpy()[np.newaxis])[0]
    table[["low", "high"]] = np.nan
    n_groups = codes.max() + 1
    if n_groups < 2:
        return table
    drawn = np.random.default_rng(seed).integers(0, n_groups, (n_resamples, n_groups))
    resampled = []
    for chunk in np.array_split(drawn, range(_CHUNK, n_resamples, _CHUNK)):
        slots = chunk + n_groups * np.arange(len(chunk))[:, np.newaxis]
        counts = np.bincount(slots.ravel(), minlength=len(chunk) * n_groups)
        weights = counts.reshape(len(chunk), n_groups)[:, codes]
        average = [average_precisions(evidence, weights) for evidence in scores.evidence]
        resampled.append(_summarise(np.stack(average, axis=1)))
    # A rare kind may be in no drawn photograph.
    table["low"], table["high"] = percentiles(np.concatenate(resampled), confidence)
    return table


def average_precisions(evidence: Evidence, weights: np.ndarray) -> np.ndarray:
    """Average precision of one kind where photographs count more than once, or not at all.

    `weights`, (n_resamples, n_photographs) int: how often each was drawn. Gives, as
    (n_resamples, n_ious) float64, the very numbers that COCO's evaluation gives for photographs
    copied so often; NaN where none of those drawn shows the kind.
    """
    n_truth = (weights @ evidence.n_truth).astype(float)
    average = np.zeros((len(weights), len(IOUS)))
    average[n_truth == 0] = np.nan
    if not evidence.scores.size:
        return average
    counted = weights[:, evidence.photograph]
    n_boxes = np.cumsum(counted, axis=1)
    for column, hits in enumerate(evidence.hits):
        n_right = np.cumsum(counted * hits, axis=1)
        precision = n_right / (n_boxes + np.spacing(1))
        # The highest precision at this recall or a higher one.
        best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        for row in np.flatnonzero(n_truth):
            reached = np.searchsorted(n_right[row] / n_truth[row], _RECALLS)
            within = reached < best.shape[1]
            average[row, column] = best[row, reached[within]].sum() / len(_RECALLS)
    return average


def _summarise(average: np.ndarray) -> np.ndarray:
    """From (n_resamples, n_kinds, n_ious) to the rows of `intervals`, (n_resamples, n_scores)."""
    at_50, over_all = average[:, :, 0], average.mean(axis=2)
    columns = []
    for by_kind in (at_50, over_all):
        defined = np.isfinite(by_kind)
        n_defined = defined.sum(axis=1)
        total = np.where(defined, by_kind, 0).sum(axis=1)
        columns.append(np.where(n_defined, total / np.maximum(n_defined, 1), np.nan)[:, np.newaxis])
    return np.concatenate([*columns, at_50, over_all], axis=1)


# How many cells there are, and how far two counts agree


def count_cells(boxes: pd.DataFrame, photographs: Iterable[str]) -> pd.DataFrame:
    """Count boxes (`photograph` and `kind`; only those that a detector is sure of) of each kind.

    Rows are the photographs in the order given, also those without any box, columns the kinds.
    Raises `InvalidParameter` if a photograph is listed twice, or boxes lie in others or are of
    other kinds.

    Examples
    --------
    >>> boxes = pd.DataFrame({"photograph": ["a", "a"], "kind": ["RBC", "WBC"]})
    >>> count_cells(boxes, ["a", "b"]).loc["b"].tolist()
    [0, 0, 0]
    """
    names = pd.Index(photographs, name="photograph")
    of_kind, of_photograph = boxes["kind"].astype(str), boxes["photograph"].astype(str)
    others = sorted({*of_photograph} - {*names} | {*of_kind} - {*cells.KIND_NAMES})
    if others or not names.is_unique:
        raise InvalidParameter(
            f"Boxes cannot be counted in {len(names)} photographs, {names.duplicated().sum()} of "
            f"them listed twice; unknown: {', '.join(others[:5]) or 'nothing'}. Expected each "
            f"photograph once, and boxes in these only, of the kinds "
            f"{', '.join(cells.KIND_NAMES)}."
        )
    counts = pd.crosstab(of_photograph, of_kind)
    kinds = pd.Index(cells.KIND_NAMES, name="kind")
    return counts.reindex(index=names, columns=kinds, fill_value=0)


LIMITS = 1.96
"""Standard deviations between which 95 % of normally distributed differences lie."""


def count_agreement(
    true_counts: pd.DataFrame, counts: pd.DataFrame, confidence: float = 0.95
) -> pd.DataFrame:
    """Compare the counts of each kind with the true ones, photograph by photograph.

    Both tables are as `count_cells` makes them, of the same photographs and kinds. Rows are kinds.
    `n`: photographs. `true`, `counted`: cells in all of them. `mae`: mean absolute error, cells a
    photograph. `bias`: mean of counted less true; `bias_low`, `bias_high`: its interval at that
    confidence by Student's t, photographs taken as independent. `sd`: standard deviation of the
    differences (n − 1). `lower`, `upper`: limits of agreement, bias ± 1.96 sd. NaN where a single
    photograph says nothing of the spread. Raises `InvalidParameter` if there is no photograph, the
    tables do not fit, or the confidence is not between 0 and 1.
    """
    from scipy.stats import t as students_t

    same = set(true_counts.index) == set(counts.index) and set(true_counts) == set(counts)
    if not same or true_counts.empty or not 0 < confidence < 1:
        raise InvalidParameter(
            f"Counts of {len(true_counts)} and {len(counts)} photographs cannot be compared at "
            f"confidence={confidence!r}. Expected the same photographs and kinds in both, at "
            "least one of each, and 0 < confidence < 1."
        )
    counts = counts.reindex_like(true_counts)
    difference = (counts - true_counts).astype(float)
    n = len(difference)
    bias, spread = difference.mean(), difference.std(ddof=1)
    reach = students_t.ppf((1 + confidence) / 2, n - 1) * spread / np.sqrt(n)
    return pd.DataFrame(
        {
            "n": n,
            "true": true_counts.sum(),
            "counted": counts.sum(),
            "mae": difference.abs().mean(),
            "bias": bias,
            "bias_low": bias - reach,
            "bias_high": bias + reach,
            "sd": spread,
            "lower": bias - LIMITS * spread,
            "upper": bias + LIMITS * spread,
        }
    ).rename_axis("kind")
