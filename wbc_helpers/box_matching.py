"""Which predicted box stands for which cell, at one overlap: for counts, and for looking at."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from wbc_helpers.annotations import BOX
from wbc_helpers.errors import InvalidParameter


@dataclass(frozen=True, eq=False)
class BoxMatches:
    """Boxes paired off.

    Attributes
    ----------
    predictions : DataFrame
        As given, in the same order, with `match`: the index of the true box that each stands for,
        -1 for none; and `iou`: the overlap with it, 0 for none.
    truth : DataFrame
        As given, with `match`: the index of the prediction, -1 where the cell was missed.
    iou : float
        Overlap from which on a box counts as found.
    """

    predictions: pd.DataFrame
    truth: pd.DataFrame
    iou: float

    @property
    def counts(self) -> pd.DataFrame:
        """By kind: `found`, `false` (boxes without a cell), `missed`, `precision`, `recall`, `f1`.

        NaN where there is nothing to divide by.
        """
        kinds = pd.unique(
            pd.concat([self.truth["kind"].astype(str), self.predictions["kind"].astype(str)])
        )
        named = self.predictions["kind"].astype(str), self.truth["kind"].astype(str)
        is_found, is_missed = self.predictions["match"] >= 0, self.truth["match"] < 0
        table = pd.DataFrame(
            {
                "found": named[0][is_found].value_counts(),
                "false": named[0][~is_found].value_counts(),
                "missed": named[1][is_missed].value_counts(),
            },
            index=pd.Index(kinds, name="kind"),
        )
        table = table.fillna(0).astype(int)
        found = table["found"].astype(float)
        # A division by zero is NaN in pandas, as it should be.
        table["precision"] = found / (found + table["false"])
        table["recall"] = found / (found + table["missed"])
        table["f1"] = 2 * found / (2 * found + table["false"] + table["missed"])
        return table


def overlap(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union of every box with every other.

    Parameters
    ----------
    first, second : ndarray, (n, 4) and (m, 4) float
        Columns `annotations.BOX`.

    Returns
    -------
    ndarray, (n, m) float64
        0–1; 0 where both have no area.
    """
    first, second = np.asarray(first, float), np.asarray(second, float)
    low = np.maximum(first[:, np.newaxis, :2], second[:, :2])
    high = np.minimum(first[:, np.newaxis, 2:], second[:, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (first, second)]
    union = areas[0][:, np.newaxis] + areas[1] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def match_boxes(truth: pd.DataFrame, predictions: pd.DataFrame, iou: float = 0.5) -> BoxMatches:
    """Pair off predicted and true boxes, the surest first.

    As COCO does: in each photograph, and for each kind, boxes choose in the order of their
    scores, each the true box that it overlaps most of those still free. So each cell is found
    once; a second box on it is false.

    Parameters
    ----------
    truth : DataFrame
        One row a box: `photograph`, `kind` and `annotations.BOX`; its index whole numbers.
    predictions : DataFrame
        The same, and `score`.
    iou : float
        Least overlap, above 0 and up to 1.

    Returns
    -------
    BoxMatches

    Raises
    ------
    InvalidParameter
        If the overlap is out of range, or an index holds a number twice or something else.
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
    partner = np.full(len(predictions), -1), np.full(len(truth), -1)
    shares = np.zeros(len(predictions))
    true_rows = truth.groupby(keys, observed=True).indices
    for key, rows in predictions.groupby(keys, observed=True).indices.items():
        if key not in true_rows:
            continue
        rows, free = rows[np.argsort(-scores[rows], kind="stable")], true_rows[key]
        overlaps = overlap(corners[1][rows], corners[0][free])
        for row, shared in zip(rows, overlaps, strict=True):
            # Of equal overlaps COCO takes the last.
            best = len(shared) - 1 - int(shared[::-1].argmax())
            # Its tolerance for an overlap that is exact but for rounding.
            if shared[best] >= min(iou, 1 - 1e-10):
                partner[0][row], shares[row] = truth.index[free[best]], shared[best]
                partner[1][free[best]] = predictions.index[row]
                overlaps[:, best] = -1
    return BoxMatches(
        predictions.assign(match=partner[0], iou=shares), truth.assign(match=partner[1]), iou
    )


def fair_thresholds(matches: BoxMatches) -> pd.Series:
    """Score from which on as many boxes are taken as there are cells, by kind.

    Then cells that are missed and boxes that are false balance each other, so that counts are
    neither too high nor too low on average. Choose it on validation photographs.

    Parameters
    ----------
    matches : BoxMatches
        Of all boxes, the unsure ones too.

    Returns
    -------
    Series of float
        By kind, the score of the box that is as many-th as there are cells, the surest first; that
        of the last one where there are fewer boxes; infinity where no box is right.
    """
    thresholds = {}
    for kind, boxes in matches.predictions.groupby("kind", observed=True):
        scores = np.sort(boxes["score"].to_numpy(float))[::-1]
        n_cells = int((matches.truth["kind"] == kind).sum())
        any_right = (boxes["match"] >= 0).any()
        thresholds[str(kind)] = scores[min(n_cells, len(scores)) - 1] if any_right else np.inf
    return pd.Series(thresholds, dtype=float, name="threshold").rename_axis("kind")
