"""Labels that are doubtful and boxes that are missing, and what that means for the scores.

Confident learning [1]_ compares each label with the answer of a network that did not train on the
photograph. A network is sometimes wrong and a haematologist sometimes disagrees with another: what
is found here is a list for a person to look through. No label is ever changed.

Boxes that people left out are found where others boxed the same photographs completely.

References
----------
.. [1] C. G. Northcutt, L. Jiang and I. L. Chuang, Confident learning: estimating uncertainty in
   dataset labels, Journal of Artificial Intelligence Research 70, 1373–1411 (2021).
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from wbc_helpers import cells
from wbc_helpers.data.annotations import Annotations, read_annotations
from wbc_helpers.errors import DataMismatch, DataNotFound, InvalidParameter
from wbc_helpers.evaluate.classification import (
    PROBABILITIES,
    Evaluation,
    by_photograph,
    codes_of,
    evaluate_table,
    part,
    summary,
)
from wbc_helpers.pixels import images, scale, white_cells

COLUMNS = {
    "source_id": "string",
    "cell_type": "string",
    "also_under": "string",
    "n_images": "int64",
    "suggested": "string",
    "self_confidence": "float64",
    "p_suggested": "float64",
    "margin": "float64",
    "doubtful": "bool",
}
"""Columns of `judge` and their types."""

SCORES = ("accuracy", "balanced_accuracy", "macro_f1", "kappa")


def judge(out_of_fold: pd.DataFrame) -> pd.DataFrame:
    """Compare the published label of each photograph with what a network says that never saw it.

    A photograph is judged once, by the mean probability of its images, however many there are. Its
    label is doubtful if the network is more sure of another type than it usually is of that type's
    own photographs (off the diagonal of the confident joint [1]_, see the module), or if its images
    lie under more than one type, which one white cell cannot be, whatever a network says. The
    latter have no part in what is usual.

    `out_of_fold` has a row an image, columns `classification.COLUMNS`; each answer from a network
    that was trained on no image of this photograph, nor of one that overlaps it: it would only
    repeat the labels.

    Returns one row a photograph, columns `COLUMNS`: the doubtful ones first, then by rising margin.
    `cell_type` is the published label, where there are several the least probable of them, and
    `also_under` names the others (NA as a rule); `suggested` is the most probable other type;
    `self_confidence` and `p_suggested` are their probabilities, 0–1, and `margin`, from -1 to 1, is
    the first less the second.

    Raises `InvalidParameter` if a column, a photograph's name or a probability is missing, a file
    is listed twice, or fewer than two types are published.
    """
    # It takes two seconds, which no other use of this module should pay.
    from cleanlab.filter import find_label_issues

    names = np.array(cells.NAMES)
    evaluation, codes = _checked(out_of_fold)
    means = pd.DataFrame(evaluation.probabilities).groupby(codes).mean().to_numpy()
    # Rows may sum to 1.01, and cleanlab refuses what exceeds 1.
    means = means / means.sum(axis=1, keepdims=True)
    n_under = pd.crosstab(codes, evaluation.true_types).reindex(columns=cells.NAMES, fill_value=0)
    under = n_under.to_numpy() > 0
    published = np.where(under, means, np.inf).argmin(axis=1)
    rows = np.arange(len(means))
    others = means.copy()
    others[rows, published] = -1
    suggested = others.argmax(axis=1)

    in_one = under.sum(axis=1) == 1
    types = names[under[in_one].any(axis=0)]
    if len(types) < 2:
        raise InvalidParameter(
            f"Of {len(means)} photographs, those with one label are of {len(types)} types "
            f"({', '.join(types) or 'none'}). Expected at least two: a label is doubtful only "
            "where another would fit better. Give the answers of a whole cross-validation."
        )
    doubtful = ~in_one
    doubtful[in_one] = find_label_issues(
        published[in_one], means[in_one], filter_by="confident_learning", n_jobs=1
    )
    under[rows, published] = False
    judged = pd.DataFrame(
        {
            "source_id": out_of_fold["source_id"].astype(str).groupby(codes).first().to_numpy(),
            "cell_type": names[published],
            "also_under": [", ".join(names[also]) or pd.NA for also in under],
            "n_images": n_under.sum(axis=1).to_numpy(),
            "suggested": names[suggested],
            "self_confidence": means[rows, published],
            "p_suggested": means[rows, suggested],
            "margin": means[rows, published] - means[rows, suggested],
            "doubtful": doubtful,
        }
    ).astype(COLUMNS)
    order = ["doubtful", "margin", "source_id"]
    return judged.sort_values(order, ascending=[False, True, True], ignore_index=True)


def scores_with_and_without(predictions: pd.DataFrame, judged: pd.DataFrame) -> pd.DataFrame:
    """Score as published, and beside that without the photographs whose label is doubtful.

    **The second is no better measurement.** Where the answers are those that cast the doubt, it
    leaves out mistakes of the same network, and rises even if every label is right. It says how
    much hangs on these labels, and is no score to report alone.

    The predictions are those that were judged, see `judge`, or another run's on the same
    photographs. Rows are `images` and `photographs` (level `unit`), each `as published` and
    `without doubtful` (level `labels`); columns `n` and `SCORES`, NaN where undefined. A photograph
    under two types counts under each, see `classification.by_photograph`.

    Raises as `judge`; `InvalidParameter` also if nothing would be left, `DataMismatch` if a
    photograph was not judged.
    """
    evaluation, _ = _checked(predictions)
    photograph = predictions["source_id"].astype(str).to_numpy()
    doubtful = judged.set_index("source_id")["doubtful"].reindex(photograph)
    n_unknown = len(set(photograph[doubtful.isna()]))
    if n_unknown:
        raise DataMismatch(
            f"{n_unknown} of {len(set(photograph))} photographs were not judged. Expected answers "
            "for photographs of the cross-validation; choose the same split of the same data."
        )
    beyond_doubt = ~doubtful.to_numpy(bool)
    if not beyond_doubt.any():
        raise InvalidParameter(
            f"The labels of all {len(set(photograph))} photographs are doubtful, so that nothing "
            "is left to score. Look at the table of doubtful labels instead."
        )
    without = part(evaluation, beyond_doubt)
    views = {
        ("images", "as published"): evaluation,
        ("images", "without doubtful"): without,
        ("photographs", "as published"): by_photograph(evaluation, photograph),
        ("photographs", "without doubtful"): by_photograph(without, photograph[beyond_doubt]),
    }
    scores = pd.DataFrame(
        [{"n": view.n_images, **summary(view)} for view in views.values()],
        index=pd.MultiIndex.from_tuples(views, names=["unit", "labels"]),
    )
    return scores[["n", *SCORES]].astype(dict.fromkeys(SCORES, "float64"))


def crop_white_cells(paths: pd.Series, size: int = 192) -> list[np.ndarray]:
    """Cut the white cells out of photographs, or images made from them, to look at (`read_crop`).

    `paths` are one file each, `size` is the side of a crop in pixels.
    """
    # Photographs and the images made from them differ in size, and so in scale.
    shapes = pd.Series([images.read_image(path).shape for path in paths], index=paths.index)
    red_cells = {shape: scale.red_cell_diameter_of(alike) for shape, alike in paths.groupby(shapes)}
    return [
        white_cells.read_crop(path, (size, size), red_cells[shape])
        for path, shape in zip(paths, shapes, strict=True)
    ]


def _checked(predictions: pd.DataFrame) -> tuple[Evaluation, np.ndarray]:
    """Evaluate the images, and number their photographs."""
    missing = [
        name
        for name in ("file", "cell_type", "source_id", *PROBABILITIES)
        if name not in predictions
    ]
    twice = 0 if missing else int(predictions["file"].duplicated().sum())
    if missing or twice:
        fault = f"lacks the columns {', '.join(missing)}" if missing else f"repeats {twice} files"
        raise InvalidParameter(
            f"The table of predictions {fault}. Expected one row an image, as "
            "classification.tabulate and read_predictions return them; of several "
            "cross-validations choose one."
        )
    evaluation = evaluate_table(predictions)
    return evaluation, codes_of(evaluation, predictions["source_id"])


# Boxes that are missing

FRAME = 4.0
"""Pixels between a box and an edge of its photograph, up to which the frame cuts the cell."""

_THUMBNAIL = (24, 32)
_ALIKE = 2.0  # grey levels on the average; of BCCD's photographs no two come nearer than 3.3


def is_cut(boxes: pd.DataFrame) -> pd.Series:
    """Tell of each box (columns `cells.BOX`, `width`, `height`) whether the frame cuts its cell."""
    return (
        (boxes[["x_min", "y_min"]].min(axis=1) <= FRAME)
        | (boxes["x_max"] >= boxes["width"] - FRAME)
        | (boxes["y_max"] >= boxes["height"] - FRAME)
    )


def same_photographs(first: pd.DataFrame, second: pd.DataFrame) -> pd.Series:
    """Find the photographs that two data sets share, by their pixels, whatever they are called.

    Both are `Annotations.photographs`. Returns the name in the second by that in the first, only
    for those that it has; photographs of another size are other photographs.
    """
    twins = {}
    for (width, height), of_first in first.groupby(["width", "height"]):
        of_second = second[(second["width"] == width) & (second["height"] == height)]
        if of_second.empty:
            continue
        thumbnails = [
            np.array([images.read_image(path, _THUMBNAIL) for path in table["path"]], np.float32)
            for table in (of_first, of_second)
        ]
        for name, thumbnail in zip(of_first["photograph"], thumbnails[0], strict=True):
            apart = np.abs(thumbnails[1] - thumbnail).mean(axis=(1, 2, 3))
            if apart.min() <= _ALIKE:
                twins[name] = of_second["photograph"].iloc[int(apart.argmin())]
    return pd.Series(twins, name="twin", dtype=object).rename_axis("photograph")


@dataclass(frozen=True, eq=False)
class MissingBoxes:
    """Photographs that were boxed twice, partly and completely.

    Attributes
    ----------
    boxed, complete : Annotations
        As read.
    twins : Series
        See `same_photographs`.
    counts : DataFrame
        One row a photograph, kind and place: `photograph` (its name in `boxed`), `kind`, `place`
        (`whole`, or `cut` by the frame, see `FRAME`), `boxed` and `complete`, numbers of boxes.
    """

    boxed: Annotations
    complete: Annotations
    twins: pd.Series
    counts: pd.DataFrame

    def total(self, photographs: Iterable[str] | None = None) -> pd.DataFrame:
        """Sum the counts, by default of all photographs; `share` is that of boxes that are there.

        A row a kind and place, none where no box is known.
        """
        counts = self.counts
        if photographs is not None:
            counts = counts[counts["photograph"].isin(list(photographs))]
        grouped = counts.groupby(["kind", "place"], sort=False, observed=True)
        total = grouped[["boxed", "complete"]].sum()
        return total.assign(share=total["boxed"] / total["complete"].where(total["complete"] > 0))

    def worst(self) -> tuple[str, pd.DataFrame, pd.DataFrame]:
        """Path of the photograph that lacks most red cells, its boxes, and its complete boxes."""
        red = self.counts[self.counts["kind"] == "RBC"]
        name = str((red["complete"] - red["boxed"]).groupby(red["photograph"]).sum().idxmax())
        paths = self.boxed.photographs.set_index("photograph")["path"]
        first, second = self.boxed.boxes, self.complete.boxes
        return (
            paths[name],
            first[first["photograph"] == name],
            second[second["photograph"] == self.twins[name]],
        )


def missing_boxes(folder: str | Path, complete: str | Path = "") -> MissingBoxes:
    """Count the boxes of photographs beside complete ones of the same, whole and cut cells apart.

    Both are folders as `sources.fetch` gives them; photographs that only one has are passed over.
    Without `complete`, the boxes of the folder are taken for complete, and those that the frame
    cuts for missing.

    Raises `DataNotFound` if they share no photograph, and as `annotations.read_annotations`.
    """
    boxed = read_annotations(folder)
    whole = read_annotations(complete) if complete else boxed
    if not complete:
        boxed = replace(boxed, boxes=boxed.boxes[~is_cut(boxed.boxes)])
    twins = same_photographs(boxed.photographs, whole.photographs)
    if twins.empty:
        raise DataNotFound(
            f"None of {len(boxed.photographs)} boxed photographs is among the "
            f"{len(whole.photographs)} completely boxed ones. Expected the same photographs, "
            "such as BCCD's and TXL-PBC's."
        )
    names = pd.Series(twins.index, index=twins.array)
    index = pd.MultiIndex.from_product(
        [twins.index, boxed.boxes["kind"].cat.categories, ["whole", "cut"]],
        names=["photograph", "kind", "place"],
    )
    counts = {}
    for title, table in (("boxed", boxed.boxes), ("complete", whole.boxes)):
        called = table["photograph"] if title == "boxed" else table["photograph"].map(names)
        place = pd.Series(np.where(is_cut(table), "cut", "whole"), table.index)
        keys = [called.rename("photograph"), table["kind"], place]
        counts[title] = table.groupby(keys, observed=True).size().reindex(index, fill_value=0)
    return MissingBoxes(boxed, whole, twins, pd.DataFrame(counts).reset_index())
