"""Photographs of one grey each, and a reader that knows by the grey which cells each shows.

No network is asked, so that every number is known beforehand: what a photograph shows is listed as
(kind, x, y, score), a box of 10×10 pixels; a white cell is named by where it lies.
"""

import numpy as np
import pandas as pd
from PIL import Image

from wbc_helpers import cells
from wbc_helpers.cells import BOX
from wbc_helpers.count import fitness
from wbc_helpers.count.detector import SmearReader

WIDTH, HEIGHT = 80, 60
RED_CELL = 20.0
SIDE = 10

THRESHOLDS = {"RBC": 0.5, "WBC": 0.6, "Platelets": 0.3}


def photograph(grey, size=(HEIGHT, WIDTH)):
    return np.full((*size, 3), grey, np.uint8)


def write(folder, **greys):
    """Write a photograph of each grey, `a=10` as `a.png`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, grey in greys.items():
        Image.fromarray(photograph(grey)).save(folder / f"{name}.png")
    return folder


def tables(out):
    """What a count wrote for people, to the byte."""
    return {name: (out / name).read_bytes() for name in ("cells.csv", "counts.csv", "failures.csv")}


def boxes_of(shown):
    table = pd.DataFrame(shown, columns=["kind", "x_min", "y_min", "score"])
    table["kind"] = pd.Categorical(table["kind"], categories=list(cells.KIND_NAMES))
    numbers = dict.fromkeys(("x_min", "y_min", "score"), float)
    table = table.astype(numbers).assign(photograph="0")
    table["x_max"], table["y_max"] = table["x_min"] + SIDE, table["y_min"] + SIDE
    return table[["photograph", "kind", *BOX, "score"]]


def take_for_fit(patch):
    """Photographs of one grey have no structure to be judged by; `test_fitness` judges.

    Nor have they red cells to measure, which is known here without looking for them at length.
    """
    patch.setattr(fitness, "judge", lambda looks: [])
    patch.setattr(fitness, "judge_reading", lambda looks, red_cell, boxes: [])
    measure = fitness.red_cell_diameter
    patch.setattr(fitness, "red_cell_diameter", lambda p: measure(p) if np.ptp(p) else np.nan)


class Knows:
    """A detector; notes the greys it was shown, and at which scale."""

    def __init__(self, known, **about):
        self.known, self.greys, self.scales = known, [], set()
        self.about = {"created": "2026-11-01", "thresholds": THRESHOLDS, **about}

    def detect_each(self, photographs, red_cell, lowest=0):
        for each in photographs:
            grey = int(each[0, 0, 0])
            self.greys.append(grey)
            self.scales.add(red_cell)
            yield boxes_of(self.known.get(grey, []))


class Names_by_place:
    """A classifier: every 20 pixels another type, surely in the upper half, hardly in the lower."""

    def __init__(self):
        self.about = {"created": "2026-10-01", "threshold": 0.7}
        self.laboratory, self.adapts = None, False

    def cut_boxed(self, photograph, boxes, red_cell):
        # A crop is a pixel that holds where it was cut.
        crops = np.zeros((len(boxes), 1, 1, 3), np.uint8)
        crops[:, 0, 0, :2] = boxes[:, :2]
        return crops

    def probabilities(self, crops):
        x, y = crops[:, 0, 0, :2].astype(int).T
        best = np.where(y < HEIGHT / 2, 0.91, 0.4)
        told = np.repeat((1 - best)[:, np.newaxis] / 3, len(cells.NAMES), axis=1)
        told[np.arange(len(crops)), x // 20] = best
        return told

    def name(self, crops):
        probabilities = self.probabilities(crops)
        best = probabilities.max(axis=1)
        types = np.array(cells.NAMES)[probabilities.argmax(axis=1)]
        # As the network that ships, of basophils and of none of the types, too.
        likely = dict(zip(cells.NAMES, probabilities.T, strict=True))
        columns = {f"p_{name}": likely.get(name, 0.0) for name in (*cells.LEUKOCYTES, cells.OTHER)}
        answered = best >= self.about["threshold"]
        return pd.DataFrame(
            {"cell_type": types, "probability": best, **columns, "answered": answered}
        )


def reader_of(known=None, **about):
    return SmearReader(Knows(known or {}, **about), Names_by_place())
