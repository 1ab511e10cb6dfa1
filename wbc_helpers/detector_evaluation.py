"""Choosing how a detector's maps are read, and judging what it finds and counts."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from wbc_helpers import box_matching, cells, counting, detection_scores
from wbc_helpers.annotations import Annotations
from wbc_helpers.box_matching import BoxMatches
from wbc_helpers.detection_scores import DetectionScores
from wbc_helpers.detector import Detector


@dataclass(frozen=True, eq=False)
class Judged:
    """How well boxes stand for the cells of some photographs.

    Attributes
    ----------
    scores : DetectionScores
        Of all boxes, see `detection_scores.intervals` for how far they could be off.
    matches : BoxMatches
        Of the boxes that are counted.
    true_counts, counts : DataFrame of int
        Rows are photographs, columns kinds: cells that people boxed, and boxes that are counted;
        see `counting.count_agreement`.
    """

    scores: DetectionScores
    matches: BoxMatches
    true_counts: pd.DataFrame
    counts: pd.DataFrame

    @property
    def table(self) -> pd.DataFrame:
        """By kind, `BoxMatches.counts` and `counting.count_agreement` side by side."""
        found = self.matches.counts.reindex(cells.KIND_NAMES)
        return found.join(counting.count_agreement(self.true_counts, self.counts))

    @property
    def mistakes(self) -> pd.Series:
        """False boxes and missed cells of each photograph."""
        wrong = [
            table.loc[table["match"] < 0, "photograph"]
            for table in (self.matches.predictions, self.matches.truth)
        ]
        return pd.concat(wrong).value_counts().reindex(self.counts.index, fill_value=0)


def choose_reading(
    found: Detector,
    boxed: Annotations,
    photographs: Sequence[str],
    ious: Sequence[float] = (0.45, 0.55, 0.65),
    ways: Sequence[int] = (1, 2, 4),
    worth: float = 0.005,
) -> tuple[Detector, pd.DataFrame]:
    """Choose, on validation photographs, how a network is asked and how its maps are read.

    Parameters
    ----------
    found : Detector
        Trained.
    boxed : Annotations
        The truth.
    photographs : sequence of str
        Names of the validation photographs.
    ious : sequence of float
        Overlaps to choose from, see `centre_maps.drop_doubles`: that of the highest mAP@0.5 is
        taken, looking in the first of `ways`.
    ways : sequence of int
        In how many ways to look at each photograph, see `Detector`: what to choose from, rising.
    worth : float
        By how much looking in more ways has to raise mAP@0.5 above that of fewer, since each way
        takes its time.

    Returns
    -------
    chosen : Detector
        With `iou`, `ways`, and for each kind the threshold at which counts are right on average.
    tried : DataFrame
        A row each that was tried: `ways`, `iou`, `map_50`.
    """
    tried = []

    def look(n_ways: int, iou: float) -> tuple[float, dict, pd.DataFrame]:
        about = {**found.about, "ways": n_ways, "iou": iou}
        boxes = _detect(Detector(found.model, about), boxed, photographs)
        tried.append((n_ways, iou, _score(boxed, boxes, photographs).map_50))
        return tried[-1][2], about, boxes

    # Of equal scores the first counts.
    best = max((look(ways[0], iou) for iou in ious), key=lambda looked: looked[0])
    for n_ways in ways[1:]:
        looked = look(n_ways, best[1]["iou"])
        if looked[0] >= best[0] + worth:
            best = looked
    matches = box_matching.match_boxes(_truth(boxed, photographs), best[2])
    thresholds = box_matching.fair_thresholds(matches).reindex(cells.KIND_NAMES)
    # A kind of which no box was right is not counted; JSON knows no infinity.
    thresholds = thresholds.fillna(1.1).clip(upper=1.1).to_dict()
    chosen = Detector(found.model, {**best[1], "thresholds": thresholds})
    return chosen, pd.DataFrame(tried, columns=["ways", "iou", "map_50"])


def judge(found: Detector, boxed: Annotations, photographs: Sequence[str]) -> Judged:
    """Judge a detector on photographs that it did not learn from.

    Parameters
    ----------
    found : Detector
        With its reading chosen, see `choose_reading`.
    boxed : Annotations
        The truth.
    photographs : sequence of str
        Names.

    Returns
    -------
    Judged
    """
    boxes = _detect(found, boxed, photographs)
    return judge_boxes(boxed, photographs, boxes, found.counted(boxes))


def judge_boxes(
    boxed: Annotations,
    photographs: Sequence[str],
    boxes: pd.DataFrame,
    counted: pd.DataFrame | None = None,
) -> Judged:
    """Judge boxes, however they were found.

    Parameters
    ----------
    boxed : Annotations
        The truth.
    photographs : sequence of str
        Names.
    boxes : DataFrame
        All boxes in these photographs, the unsure ones too, see `Detector.detect`.
    counted : DataFrame, optional
        Those that are sure enough to be counted; by default all.

    Returns
    -------
    Judged
    """
    truth = _truth(boxed, photographs)
    counted = boxes if counted is None else counted
    return Judged(
        _score(boxed, boxes, photographs),
        box_matching.match_boxes(truth, counted.reset_index(drop=True)),
        counting.count_cells(truth, photographs),
        counting.count_cells(counted, photographs),
    )


def _detect(found: Detector, boxed: Annotations, photographs: Sequence[str]) -> pd.DataFrame:
    paths = boxed.photographs.set_index("photograph")["path"]
    return found.detect([paths[name] for name in photographs])


def _truth(boxed: Annotations, photographs: Sequence[str]) -> pd.DataFrame:
    return boxed.boxes[boxed.boxes["photograph"].isin(set(photographs))].reset_index(drop=True)


def _score(boxed: Annotations, boxes: pd.DataFrame, names: Sequence[str]) -> DetectionScores:
    return detection_scores.score_detections(_truth(boxed, names), boxes, names)
