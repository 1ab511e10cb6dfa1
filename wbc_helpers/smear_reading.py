"""From photographs of smears to all of their cells, the white ones named.

from wbc_helpers import smear_reading
smear_reading.load().read([photograph], red_cell=104)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from wbc_helpers import cells, settings, white_cells
from wbc_helpers.annotations import BOX
from wbc_helpers.classifier import LARGEST_RED_CELL, SMALLEST_RED_CELL, Classifier
from wbc_helpers.detector import Detector
from wbc_helpers.errors import InvalidParameter, UnreadableImage
from wbc_helpers.images import read_image

UNSURE = 0.05
"""A box whose score is no further than this from the threshold of its kind is unsure: it is worth a
look whether it was rightly counted, or rightly not."""

N_FOR_SCALE = 24
"""Photographs from which the diameter of the red cells is estimated: that of so many is known to
2 or 3 % (standard deviation; 12 % by one alone)."""

COLUMNS = ["kind", "cell_type", *BOX, "score", "type_probability", "answered", "counted", "unsure"]


@dataclass(frozen=True, eq=False)
class SmearReader:
    """A detector and a classifier that work together.

    Attributes
    ----------
    detector : Detector
        Finds the cells.
    classifier : Classifier
        Names the white ones.
    """

    detector: Detector
    classifier: Classifier

    def read(self, photographs: Sequence[np.ndarray], red_cell: float) -> list[pd.DataFrame]:
        """Find the cells of some photographs, and name the white ones.

        Parameters
        ----------
        photographs : sequence of (height, width, 3) ndarray of uint8
            RGB, of one magnification; all are held in memory.
        red_cell : float
            Diameter of the red cells in pixels, see `estimate_scale`.

        Returns
        -------
        list of DataFrame
            For each photograph one row a box: `kind`; `annotations.BOX` in pixels; `score`, 0–1;
            `counted`: whether that reaches the detector's threshold; `unsure`: whether it is
            within `UNSURE` of it, or a white cell is not answered for; what is neither counted nor
            unsure is left out. Of white cells that are counted also `cell_type`, the most
            probable; `type_probability`, 0–1; `answered`: whether that reaches the classifier's
            threshold, below which the cell is better left to a haematologist. NA for others.

        Raises
        ------
        InvalidParameter, UnreadableImage
            See `Detector.detect_each`.
        """
        tables = [self._judge(boxes) for boxes in self.detector.detect_each(photographs, red_cell)]
        white = [(table["kind"] == "WBC") & table["counted"] for table in tables]
        crops = [
            self.classifier.cut_boxed(photograph, table.loc[rows, BOX].to_numpy(), red_cell)
            for photograph, table, rows in zip(photographs, tables, white, strict=True)
        ]
        if not any(map(len, crops)):
            return tables
        probabilities = self.classifier.probabilities(np.concatenate(crops))
        ends = np.cumsum([len(each) for each in crops])[:-1]
        for table, rows, of_table in zip(tables, white, np.split(probabilities, ends), strict=True):
            best = of_table.max(axis=1)
            table.loc[rows, "cell_type"] = np.array(cells.NAMES)[of_table.argmax(axis=1)]
            table.loc[rows, "type_probability"] = best
            answered = best >= self.classifier.about["threshold"]
            table.loc[rows, "answered"] = answered
            table.loc[rows, "unsure"] |= ~answered
        return tables

    def _judge(self, boxes: pd.DataFrame) -> pd.DataFrame:
        """Tell which boxes are counted and which unsure; leave out those that are neither."""
        threshold = boxes["kind"].astype(str).map(self.detector.about["thresholds"]).astype(float)
        over = boxes["score"] - threshold
        boxes = boxes.assign(counted=over >= 0, unsure=over.abs() < UNSURE)
        boxes = boxes[boxes["counted"] | boxes["unsure"]].reset_index(drop=True)
        return boxes.assign(
            cell_type=pd.array([pd.NA] * len(boxes), dtype="string"),
            type_probability=np.nan,
            answered=pd.array([pd.NA] * len(boxes), dtype="boolean"),
        )[COLUMNS]


def load(ways: int | None = None) -> SmearReader:
    """Load the detector and the classifier whose weights ship with the package.

    Parameters
    ----------
    ways : int, optional
        In how many ways the detector looks at each photograph: 1, 2 or 4, see `Detector`; fewer
        are faster and a little less accurate. By default as was chosen for it.

    Returns
    -------
    SmearReader

    Raises
    ------
    InvalidParameter
        If `ways` is something else.
    """
    if ways is not None:
        settings.check_choice("ways", ways, (1, 2, 4))
    from wbc_helpers import classifier, detector

    found = detector.load()
    if ways is not None:
        found = Detector(found.model, {**found.about, "ways": ways})
    return SmearReader(found, classifier.load())


def estimate_scale(
    paths: Sequence[str | Path], n_photographs: int = N_FOR_SCALE
) -> tuple[float | None, int]:
    """Estimate how many pixels wide the red cells are, from photographs of one microscope.

    Parameters
    ----------
    paths : sequence of path
        Files that cannot be read, or show too few red cells, tell nothing and are passed over.
    n_photographs : int
        So many of them, spread evenly, are looked at.

    Returns
    -------
    red_cell : float or None
        The median over the photographs, in pixels; None where none tells anything.
    n_seen : int
        Photographs that told something.
    """
    estimates = []
    chosen = np.linspace(0, len(paths) - 1, min(n_photographs, len(paths))).round().astype(int)
    for place in chosen:
        try:
            estimates.append(white_cells.red_cell_diameter(read_image(paths[place])))
        except UnreadableImage:
            continue
    known = [each for each in estimates if SMALLEST_RED_CELL <= each <= LARGEST_RED_CELL]
    return (float(np.median(known)), len(known)) if known else (None, 0)


def check_photograph(photograph: np.ndarray, red_cell: float | None) -> None:
    """Refuse a photograph in which no cell could be told.

    Parameters
    ----------
    photograph : ndarray, (height, width, 3) uint8
        RGB.
    red_cell : float or None
        Diameter of the red cells in pixels; None where it is not known.

    Raises
    ------
    UnreadableImage
        If it is smaller than a red cell.
    InvalidParameter
        If the scale is not known.
    """
    height, width = photograph.shape[:2]
    if min(height, width) < (red_cell or SMALLEST_RED_CELL):
        raise UnreadableImage(
            f"{width}×{height} pixels are less than a red cell"
            + (f", which is {red_cell:.0f} pixels wide here" if red_cell else "")
            + ". Expected a photograph of a smear."
        )
    if red_cell is None:
        raise InvalidParameter(
            "Too few red cells are seen to tell the scale. Expected at least three in one of the "
            "photographs; else give their diameter in pixels as red_cell, such as 104 for those of "
            "the BCCD data set."
        )
