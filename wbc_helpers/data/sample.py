"""The embedded sample: smears of drawn cells in the layout of the real archive.

Everything about it is known by construction: the boxes of all cells, which photograph each
augmented image was made from and by which affine map, and which photographs overlap.

Light is absorbed as in a stained smear (Beer and Lambert): each cell adds absorbance to the field,
the lamp shines through, the camera blurs and adds noise. Cells that overlap are darker for free.
"""

import cmath
import io
import itertools
import json
import os
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageFilter
from tqdm import tqdm

from wbc_helpers import cells, storage
from wbc_helpers.data import catalog
from wbc_helpers.errors import DataMismatch, DataNotFound, InvalidParameter

VERSION = 2
"""Raised whenever the same seed would draw other pixels."""

PHOTOGRAPHS = {
    "TRAIN": {"eosinophil": 8, "lymphocyte": 8, "monocyte": 7, "neutrophil": 9},
    "TEST": {"eosinophil": 4, "lymphocyte": 4, "monocyte": 3, "neutrophil": 5},
}
"""Photographs with one white cell, split before any augmentation as in the real set."""

COUNTS = {
    "TRAIN": {"eosinophil": 49, "lymphocyte": 48, "monocyte": 47, "neutrophil": 50},
    "TEST": {"eosinophil": 24, "lymphocyte": 24, "monocyte": 23, "neutrophil": 25},
    "TEST_SIMPLE": PHOTOGRAPHS["TEST"],
}
"""Images in the class folders, by split and cell type."""

TWO_WHITE_CELLS = (("neutrophil", "eosinophil"), ("neutrophil", "lymphocyte"))
"""Photographs that are annotated and labelled, but in no class folder."""

OVERLAPPING = ("eosinophil", "neutrophil")
"""Cell types of which one TRAIN field is photographed twice, the stage moved in between."""

N_PHOTOGRAPHS = sum(sum(n.values()) for n in PHOTOGRAPHS.values()) + len(TWO_WHITE_CELLS)
N_IMAGES = sum(sum(numbers.values()) for numbers in COUNTS.values())
AFFINE = ["m00", "m01", "m02", "m10", "m11", "m12"]
"""Columns of the affine map from the photograph at half size to the image: an image's
x = m00 · X + m01 · Y + m02 and y = m10 · X + m11 · Y + m12, in pixels, (0, 0) the centre of
the upper left pixel."""

_MARKER, _PROVENANCE = "sample.json", "provenance.csv"
_DATASET = Path("dataset-master/dataset-master")
_IMAGES = Path("dataset2-master/dataset2-master/images")


def draw_sample(folder: str | Path, seed: int = 0, progress: bool = False) -> Path:
    """Draw the embedded sample, or leave it as it is where it was drawn before; its absolute path.

    A drawing cut off leaves no sample. Nothing that exists is ever changed or deleted. The same
    seed, 0 or more, gives the same bytes on the same machine with the same packages.

    The folder holds `dataset-master/dataset-master` (`JPEGImages` 640×480, `Annotations` in VOC
    XML, `labels.csv`), `dataset2-master/dataset2-master/images` (`TRAIN`, `TEST`, `TEST_SIMPLE`,
    320×240), `provenance.csv` (see `truth`) and `sample.json`: version, seed, the photographs of
    each split, and `overlaps`, pairs of photographs of one field with their shift (x, y): what the
    first shows at (x, y) of its 640×480 pixels, the second shows at (x, y) minus the shift.

    Raises `InvalidParameter` if the seed is no integer of 0 or more; `DataMismatch` if `folder`
    exists and is something else: a user's own, another version or seed, or a sample of which files
    are missing; `NoSpaceLeft` or `ReadOnlyFolder` if it cannot be written; nothing is left behind.
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise InvalidParameter(f"seed={seed!r}: expected an integer of 0 or more, such as seed=0.")
    folder = storage.absolute(folder)
    if os.path.lexists(folder):
        _check_drawn(folder, seed)
        return folder
    storage.make_folder(folder.parent)
    with (
        storage.named_errors(folder),
        tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as beside,
    ):
        drawing = Path(beside) / folder.name
        _draw(drawing, int(seed), progress)
        try:
            os.rename(drawing, folder)
        except OSError:
            # Another process may have been faster; what it drew is as good.
            if not os.path.lexists(folder):
                raise
            _check_drawn(folder, seed)
    return folder


def is_sample(folder: str | Path) -> bool:
    """Whether a folder carries the marker of a drawn sample, of whatever version."""
    return (Path(folder).expanduser() / _MARKER).is_file()


def enclosing(folder: str | Path) -> Path | None:
    """Find the drawn sample that a folder is, or lies in; None if the cells are photographed."""
    return next(filter(is_sample, catalog.folders_above(folder)), None)


def overlaps(folder: str | Path) -> pd.DataFrame:
    """Pairs of photographs (`first`, `second`) of one field, of a drawn sample."""
    about = json.loads((Path(folder) / _MARKER).read_text(encoding="utf-8"))
    pairs = [pair["photographs"] for pair in about["overlaps"]]
    return pd.DataFrame(pairs, columns=["first", "second"])


def truth(folder: str | Path) -> pd.DataFrame:
    """Which photograph each image of a drawn sample was made from, and how.

    One row an image. `file`: relative to the folder of the splits, such as
    `TRAIN/EOSINOPHIL/_0_1.jpeg`; `source_id`: name of the photograph; `AFFINE`: float64. Raises
    `DataNotFound` if the folder is no drawn sample.
    """
    path = Path(folder).expanduser() / _PROVENANCE
    if not is_sample(folder) or not path.is_file():
        raise DataNotFound(
            f"{folder} is no drawn sample: it holds no {_MARKER} with {_PROVENANCE}. The truth is "
            "known of drawn cells only; give the folder that draw_sample returned."
        )
    # Python's float reads back every digit, whatever pandas' default precision is.
    return pd.read_csv(path, converters=dict.fromkeys(AFFINE, float))


def _check_drawn(folder: Path, seed: int) -> None:
    """Raise `DataMismatch` unless `folder` is the whole sample of this version and seed."""
    if not is_sample(folder):
        raise DataMismatch(
            f"{folder} exists and was not drawn by this package: it holds no {_MARKER}. Nothing "
            "is overwritten; choose a folder that does not exist yet."
        )
    try:
        about = json.loads((folder / _MARKER).read_text(encoding="utf-8"))
        drawn = (about["version"], about["seed"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataMismatch(
            f"{folder / _MARKER} is damaged ({error}). Move the folder away, and draw it again."
        ) from error
    if drawn != (VERSION, seed):
        raise DataMismatch(
            f"{folder} holds the sample of version {drawn[0]} and seed {drawn[1]}; asked for was "
            f"version {VERSION}, seed {seed}. Choose another folder, or move this one away."
        )
    names = [f"BloodImage_{number:05d}" for number in range(N_PHOTOGRAPHS)]
    expected = [Path(_PROVENANCE), _DATASET / "labels.csv"]
    expected += [_DATASET / "JPEGImages" / f"{name}.jpg" for name in names]
    expected += [_DATASET / "Annotations" / f"{name}.xml" for name in names]
    if (folder / _PROVENANCE).is_file():
        expected += [_IMAGES / file for file in truth(folder)["file"]]
    missing = [path.as_posix() for path in expected if not (folder / path).is_file()]
    if missing:
        raise DataMismatch(
            f"{folder} is an incomplete sample: {len(missing)} of {len(expected)} files are "
            f"missing, such as {missing[0]}. Move the folder away, and draw it again."
        )


WIDTH, HEIGHT = 640, 480
"""Of a photograph, in pixels."""

LEAST_VISIBLE = 8
"""Pixels of width and height below which a cell at the frame's edge gets no box."""


# The field: which cells lie where, under which stain


Stain = dict[str, np.ndarray]
"""Absorbance (3,) of red, green and blue light by each dye, float32, to the base e."""

Painted = tuple[np.ndarray, np.ndarray]
"""Cover (height, width), 0 to 1, and absorbance (height, width, 3) of one cell."""


@dataclass(frozen=True)
class Cell:
    """One cell: what it is, its centre and radius in pixels, and the seed of its looks."""

    kind: str
    x: float
    y: float
    radius: float
    seed: int

    def distance(self, x: float, y: float) -> float:
        """From this cell's centre, in pixels."""
        return float(np.hypot(self.x - x, self.y - y))


@dataclass(frozen=True, eq=False)
class Field:
    """Cells in drawing order, and their stain."""

    cells: tuple[Cell, ...]
    stain: Stain


@dataclass(frozen=True)
class Box:
    """What was drawn where: pixels counted from 1, both ends included, cut at the frame (VOC)."""

    name: str
    xmin: int
    ymin: int
    xmax: int
    ymax: int

    @property
    def truncated(self) -> bool:
        """Whether the box touches the frame."""
        return 1 in (self.xmin, self.ymin) or self.xmax == WIDTH or self.ymax == HEIGHT


def prepare_field(
    kinds: tuple[str, ...], rng: np.random.Generator, shift: tuple[int, int] = (0, 0)
) -> Field:
    """Spread and stain a field with white cells of the given types.

    It fills the photograph taken at stage (0, 0) and the one at `shift`, in pixels; every white
    cell is in both.
    """
    return Field(spread_cells(kinds, rng, shift), mix_stain(rng))


def mix_stain(rng: np.random.Generator) -> Stain:
    """Absorbance (3,) of each dye: how strong and how blue differs from slide to slide."""
    azure = np.array([rng.uniform(0.72, 1.15), 1.4, rng.uniform(0.12, 0.38)])
    dyes = {
        "haemoglobin": np.array([0.19, 0.40, rng.uniform(0.30, 0.42)]) * rng.uniform(0.7, 1.25),
        "azure": azure * rng.uniform(0.75, 1.15),
        "eosin": np.array([0.13, 0.78, rng.uniform(0.55, 0.75)]) * rng.uniform(0.8, 1.2),
    }
    return {dye: absorbance.astype(np.float32) for dye, absorbance in dyes.items()}


def spread_cells(
    kinds: tuple[str, ...], rng: np.random.Generator, shift: tuple[int, int]
) -> tuple[Cell, ...]:
    """Place white cells, red cells around them, some in rouleaux, and platelets."""

    def lay(kind: str, x: float, y: float, radius: float) -> Cell:
        return Cell(kind, float(x), float(y), float(radius), int(rng.integers(2**32)))

    white: list[Cell] = []
    while len(white) < len(kinds):
        radius = rng.uniform(*WHITE_CELLS[kinds[len(white)]].radius)
        # Far enough inside that augmentation seldom moves it out of the image.
        x = rng.uniform(0.20 * WIDTH + max(0, shift[0]), 0.80 * WIDTH + min(0, shift[0]))
        y = rng.uniform(0.22 * HEIGHT + max(0, shift[1]), 0.78 * HEIGHT + min(0, shift[1]))
        if all(cell.distance(x, y) > 1.1 * (cell.radius + radius) for cell in white):
            white.append(lay(kinds[len(white)], x, y, radius))

    low = np.minimum(0, shift) - 40
    high = np.maximum(0, shift) + np.array([WIDTH + 40, HEIGHT + 40])
    area = np.prod(high - low) / ((WIDTH + 80) * (HEIGHT + 80))
    usual = rng.uniform(44, 55)
    red: list[Cell] = []
    for _ in range(int(rng.uniform(18, 46) * area)):
        radius = usual * rng.normal(1, 0.07)
        x, y = rng.uniform(low, high)
        if red and rng.random() < 0.45:
            neighbour = red[rng.integers(len(red))]
            angle, step = rng.uniform(0, 2 * np.pi), rng.uniform(0.65, 0.95) * 2 * radius
            x, y = neighbour.x + step * np.cos(angle), neighbour.y + step * np.sin(angle)
        clear_of_white = all(c.distance(x, y) > 0.97 * (c.radius + radius) for c in white)
        if clear_of_white and all(c.distance(x, y) > 0.6 * (c.radius + radius) for c in red):
            red.append(lay("red", x, y, radius))

    platelets = [
        lay(
            "platelet",
            rng.uniform(low[0], high[0]),
            rng.uniform(low[1], high[1]),
            rng.uniform(8, 16),
        )
        for _ in range(int(rng.integers(1, 7) * area))
    ]
    platelets = [p for p in platelets if all(c.distance(p.x, p.y) > c.radius + 20 for c in white)]
    return (*red, *platelets, *white)


# Shapes, as distances in units of the cell's radius: negative inside. `z` is x + iy from its centre


def turn(z: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Turn a shape to a random side."""
    return z * cmath.rect(1, rng.uniform(0, 2 * np.pi))


def outline(z: np.ndarray, wobble: float, rng: np.random.Generator) -> np.ndarray:
    """Distance from a round outline that bulges at random."""
    length = np.maximum(np.abs(z), 1e-6)
    direction = z / length
    swell, around = 0, direction
    for finer in (1.0, 1.6, 2.5):
        around = around * direction
        swell = swell + (complex(*rng.normal(0, wobble / finer, 2)) * around).real
    return length / (1 + np.clip(swell, -0.25, 0.25)) - 1


def ellipse(
    z: np.ndarray, centre: complex, along: float, across: float, angle: float
) -> np.ndarray:
    """Distance from an ellipse, exact on its outline."""
    turned = (z - centre) * np.exp(-1j * angle)
    return (np.hypot(turned.real / along, turned.imag / across) - 1) * min(along, across)


def strand(z: np.ndarray, start: complex, end: complex, width: float) -> np.ndarray:
    """Distance from the thread of chromatin between two lobes."""
    step = end - start
    along = np.clip(((z - start) * np.conj(step)).real / abs(step) ** 2, 0, 1)
    return np.abs(z - start - along * step) - width


def merge(distances: list[np.ndarray], rounding: float = 0.04) -> np.ndarray:
    """Union of shapes, its inner corners rounded (negative `rounding`: their intersection)."""
    return -rounding * np.logaddexp.reduce([-d / rounding for d in distances])


def round_nucleus(z: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Lymphocyte: round, fills the cell."""
    size = rng.uniform(0.80, 0.92)
    centre = (0.97 - size) * rng.random() * np.exp(1j * rng.uniform(0, 2 * np.pi))
    return outline((z - centre) / size, 0.025, rng) * size


def kidney_nucleus(z: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Monocyte: a broad kidney, dented from one side."""
    body = ellipse(z, -0.08j, rng.uniform(0.72, 0.82), rng.uniform(0.50, 0.62), 0)
    depth = rng.uniform(0.52, 0.70)
    dent = ellipse(z, rng.uniform(-0.15, 0.15) + depth * 1j, 0.30, rng.uniform(0.36, 0.48), 0)
    return merge([body, -dent], -0.05)


def bilobed_nucleus(z: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Eosinophil: two large lobes like a pair of spectacles."""
    apart, low = rng.uniform(0.42, 0.48), rng.uniform(0.05, 0.20)
    centres = (-apart - low * 1j, apart - low * 1j)
    lobes = [
        ellipse(z, c, rng.uniform(0.44, 0.52), rng.uniform(0.34, 0.40), rng.normal(np.pi / 2, 0.4))
        for c in centres
    ]
    return merge([*lobes, strand(z, *centres, 0.06)])


def segmented_nucleus(z: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Neutrophil: three to five lobes on an open, uneven bow, threads between them."""
    lobes = int(rng.integers(3, 6))
    span = {3: 3.1, 4: 3.9, 5: 4.3}[lobes] * rng.uniform(0.85, 1.1)
    turn = np.linspace(-span / 2, span / 2, lobes) + rng.normal(0, 0.12, lobes)
    centres = rng.uniform(0.38, 0.60, lobes) * np.exp(1j * turn) - 0.06
    size = {3: 0.31, 4: 0.265, 5: 0.235}[lobes] * rng.uniform(0.88, 1.18, lobes)
    shapes = [
        ellipse(z, c, s * rng.uniform(1.0, 1.35), s * 0.9, rng.normal(np.angle(c) + 1.57, 0.5))
        for c, s in zip(centres, size, strict=True)
    ]
    threads = [strand(z, a, b, 0.055) for a, b in pairwise(centres)]
    return merge(shapes + threads)


@dataclass(frozen=True)
class WhiteCell:
    """How one type of white cell is drawn.

    `radius` in pixels, `nucleus` its shape, `chromatin` its density and the density's
    unevenness; `cytoplasm` is the share of each dye, `granules` their grain (pixels) and contrast.
    """

    radius: tuple[float, float]
    nucleus: Callable[[np.ndarray, np.random.Generator], np.ndarray]
    chromatin: tuple[float, float]
    cytoplasm: dict[str, float]
    granules: tuple[float, float]
    wobble: float = 0.03


WHITE_CELLS = {
    "eosinophil": WhiteCell(
        (58, 80), bilobed_nucleus, (0.95, 0.22), {"eosin": 0.62, "azure": 0.05}, (5, 0.75)
    ),
    "lymphocyte": WhiteCell((44, 64), round_nucleus, (1.15, 0.22), {"azure": 0.36}, (6, 0.15)),
    "monocyte": WhiteCell(
        (72, 100), kidney_nucleus, (0.78, 0.3), {"azure": 0.17, "haemoglobin": 0.2}, (9, 0.4), 0.06
    ),
    "neutrophil": WhiteCell(
        (58, 80), segmented_nucleus, (1.0, 0.22), {"eosin": 0.15, "azure": 0.08}, (4, 0.5)
    ),
}


# Painting


def soft(distance: np.ndarray, edge: float) -> np.ndarray:
    """Cover of a shape: 1 inside, 0 outside, falling over `edge`."""
    return np.clip(0.5 - distance / edge, 0, 1)


def speckle(shape: tuple[int, int], grain: float, rng: np.random.Generator) -> np.ndarray:
    """Random texture about zero, within about ±1, with grains of so many pixels."""
    texture = np.zeros(shape, np.float32)
    for size in (grain, 1.7 * grain):  # a single size would show its grid
        coarse = rng.uniform(-1, 1, [int(side / size) + 2 for side in shape]).astype(np.float32)
        fine = Image.fromarray(coarse).resize(shape[::-1], Image.Resampling.BICUBIC)
        texture += np.asarray(fine)
    return 0.7 * texture


def paint_red_cell(z: np.ndarray, radius: float, stain: Stain, rng: np.random.Generator) -> Painted:
    """Biconcave disc, its thickness after Evans and Fung, Microvascular Research 4, 335 (1972)."""
    stretch = 1 + rng.exponential(0.10)
    z = turn(z, rng)
    distance = outline(z.real * stretch + 1j * z.imag, 0.04, rng)
    square = np.clip(1 + distance, 0, 1) ** 2
    biconcave = np.sqrt(1 - square) * (0.81 + 7.83 * square - 4.39 * square**2) / 2.58
    pallor = rng.uniform(0.3, 1.3)
    thickness = pallor * biconcave + (1 - pallor) * (1 - square) ** 0.25
    dye = rng.uniform(0.75, 1.15) * stain["haemoglobin"]
    return soft(distance, 2 / radius), thickness[..., None] * dye


def paint_platelet(z: np.ndarray, radius: float, stain: Stain, rng: np.random.Generator) -> Painted:
    """Small, granular, without a nucleus."""
    distance = outline(z, 0.10, rng)
    cover = soft(distance, 6 / radius)
    granules = 1 + 0.35 * speckle(z.shape, 4, rng)
    dye = 0.33 * stain["azure"] + rng.uniform(0, 0.12) * stain["eosin"]
    return cover, (cover * granules)[..., None] * dye


def paint_white_cell(
    cell_type: str, z: np.ndarray, radius: float, stain: Stain, rng: np.random.Generator
) -> Painted:
    """Cytoplasm with its granules, and over it the nucleus with clumped chromatin."""
    look = WHITE_CELLS[cell_type]
    z = turn(z, rng)
    z = z.real * rng.uniform(1.0, 1.12) + 1j * z.imag
    distance = outline(z, look.wobble, rng)
    cover = soft(distance, 4 / radius)
    nucleus = soft(merge([look.nucleus(z, rng), distance + 0.03], -0.02), 4 / radius)
    grain, contrast = look.granules
    granules = np.maximum(1 + contrast * speckle(z.shape, grain, rng), 0.1)
    density, clumps = look.chromatin
    chromatin = density * rng.uniform(0.85, 1.1) * (1 + clumps * speckle(z.shape, 9, rng))
    dye = sum(share * stain[name] for name, share in look.cytoplasm.items())
    absorbance = (cover * granules * (1 - nucleus))[..., None] * dye
    return cover, absorbance + (nucleus * chromatin)[..., None] * stain["azure"]


def paint(cell: Cell, stain: Stain) -> tuple[int, int, np.ndarray, np.ndarray]:
    """Paint one cell: its left and top pixel in the field, cover and absorbance."""
    reach = int(np.ceil(1.35 * cell.radius))
    left, top = int(cell.x) - reach, int(cell.y) - reach
    side = np.arange(2 * reach + 2, dtype=np.float32)
    z = ((side + left - cell.x) + 1j * (side + top - cell.y)[:, None]) / cell.radius
    rng = np.random.default_rng(cell.seed)
    if cell.kind == "red":
        return left, top, *paint_red_cell(z, cell.radius, stain, rng)
    if cell.kind == "platelet":
        return left, top, *paint_platelet(z, cell.radius, stain, rng)
    return left, top, *paint_white_cell(cell.kind, z, cell.radius, stain, rng)


def light(rng: np.random.Generator) -> np.ndarray:
    """Light an empty slide, (480, 640, 3) float32 in 0–255: tinted, darker to the rim."""
    x = np.linspace(-1, 1, WIDTH, dtype=np.float32)
    y = np.linspace(-0.75, 0.75, HEIGHT, dtype=np.float32)[:, None]
    centre_x, centre_y = rng.uniform(-0.4, 0.4), rng.uniform(-0.4, 0.4)
    falloff = 1 - rng.uniform(0, 0.16) * ((x - centre_x) ** 2 + (y - centre_y) ** 2)
    tint = np.array([206, 207, 206]) * rng.uniform(0.90, 1.12) * rng.uniform(0.97, 1.03, 3)
    return falloff[..., None] * tint.astype(np.float32)


def cut(start: int, length: int, limit: int) -> tuple[slice, slice]:
    """Part of a stretch that lies between 0 and `limit`: in the frame, and in the stretch."""
    first = max(start, 0)
    last = max(min(start + length, limit), first)
    return slice(first, last), slice(first - start, last - start)


def photograph(
    field: Field, rng: np.random.Generator, stage: tuple[int, int] = (0, 0)
) -> tuple[np.ndarray, list[Box]]:
    """Photograph a field with the frame's corner at `stage`: (480, 640, 3) uint8 RGB, and boxes.

    Boxes are named RBC, WBC and Platelets, of cells that show at least `LEAST_VISIBLE` pixels.
    """
    absorbance, boxes = np.zeros((HEIGHT, WIDTH, 3), np.float32), []
    for cell in field.cells:
        left, top, cover, added = paint(cell, field.stain)
        rows, patch_rows = cut(top - stage[1], cover.shape[0], HEIGHT)
        columns, patch_columns = cut(left - stage[0], cover.shape[1], WIDTH)
        cover, added = cover[patch_rows, patch_columns], added[patch_rows, patch_columns]
        # White cells are thick and push aside what lies below; red cells let light through twice.
        opacity = 0.35 if cell.kind == "red" else 0.9
        absorbance[rows, columns] *= (1 - opacity * cover)[..., None]
        absorbance[rows, columns] += added
        y, x = (np.flatnonzero((cover > 0.5).any(axis)) + 1 for axis in (1, 0))
        if min(len(x), len(y)) >= LEAST_VISIBLE:
            name = {"red": "RBC", "platelet": "Platelets"}.get(cell.kind, "WBC")
            x, y = x + columns.start, y + rows.start
            boxes.append(Box(name, int(x[0]), int(y[0]), int(x[-1]), int(y[-1])))
    np.exp(-absorbance, out=absorbance)
    sharp = Image.fromarray((light(rng) * absorbance).astype(np.uint8))
    pixels = rng.standard_normal((HEIGHT, WIDTH, 1), np.float32) * rng.uniform(1, 3.5) + 0.5
    pixels = pixels + np.asarray(sharp.filter(ImageFilter.GaussianBlur(rng.uniform(0.8, 1.8))))
    return np.clip(pixels, 0, 255, out=pixels).astype(np.uint8), boxes


# Photographs: the folder dataset-master


@dataclass(frozen=True, eq=False)
class Shot:
    """A photograph to be taken: for which split (or none), of which field, and where in it."""

    split: str | None
    cell_types: tuple[str, ...]
    field: Field
    stage: tuple[int, int] = (0, 0)


def _plan_shots(rng: np.random.Generator) -> dict[str, Shot]:
    """Every photograph of the sample by name, the cell types mixed as on a working day."""
    shots = []
    for split, numbers in PHOTOGRAPHS.items():
        for cell_type, number in numbers.items():
            kinds = (cell_type,)
            if split == "TRAIN" and cell_type in OVERLAPPING:
                shift = (int(rng.integers(60, 180)), int(rng.integers(40, 120)))
                field = prepare_field(kinds, rng, shift)
                shots += [Shot(split, kinds, field), Shot(split, kinds, field, shift)]
                number -= 2
            shots += [Shot(split, kinds, prepare_field(kinds, rng)) for _ in range(number)]
    shots += [Shot(None, kinds, prepare_field(kinds, rng)) for kinds in TWO_WHITE_CELLS]
    order = rng.permutation(len(shots))
    return {f"BloodImage_{number:05d}": shots[i] for number, i in enumerate(order)}


def _annotation(name: str, boxes: list[Box]) -> bytes:
    """VOC XML with the fields of the real annotations."""
    root = ElementTree.Element("annotation", verified="no")
    size = {"width": WIDTH, "height": HEIGHT, "depth": 3}
    _fill(root, {"folder": "JPEGImages", "filename": name, "path": f"JPEGImages/{name}.jpg"})
    _fill(root, {"source": {"database": "Unknown"}, "size": size, "segmented": 0})
    for box in boxes:
        edges = {"xmin": box.xmin, "ymin": box.ymin, "xmax": box.xmax, "ymax": box.ymax}
        flags = {"pose": "Unspecified", "truncated": int(box.truncated), "difficult": 0}
        _fill(root, {"object": {"name": box.name, **flags, "bndbox": edges}})
    ElementTree.indent(root)
    return ElementTree.tostring(root) + b"\n"


def _fill(parent: ElementTree.Element, fields: dict) -> None:
    """Append fields to an element; a dictionary becomes an element with fields of its own."""
    for tag, content in fields.items():
        element = ElementTree.SubElement(parent, tag)
        if isinstance(content, dict):
            _fill(element, content)
        else:
            element.text = str(content)


def _write_jpeg(path: Path, picture: Image.Image, quality: int) -> None:
    # Pillow, writing to a path itself, loses the reason why the disk refuses.
    encoded = io.BytesIO()
    picture.save(encoded, "JPEG", quality=quality)
    path.write_bytes(encoded.getvalue())


def _draw_photographs(folder: Path, shots: dict[str, Shot], rng: np.random.Generator, bar: tqdm):
    """Write photographs, annotations and labels; the half-size photographs by name."""
    for part in ("JPEGImages", "Annotations"):
        (folder / part).mkdir(parents=True)
    halves, lines = {}, [",Image,Category"]
    for number, (name, shot) in enumerate(shots.items()):
        pixels, boxes = photograph(shot.field, rng, shot.stage)
        path = folder / "JPEGImages" / f"{name}.jpg"
        _write_jpeg(path, Image.fromarray(pixels), quality=92)
        (folder / "Annotations" / f"{name}.xml").write_bytes(_annotation(name, boxes))
        with Image.open(path) as saved:
            halves[name] = saved.reduce(2)
        label = ", ".join(cells.BY_NAME[kind].folder for kind in shot.cell_types)
        lines.append(f",{number}," + (f'"{label}"' if "," in label else label))
        bar.update()
    (folder / "labels.csv").write_bytes("\r\n".join([*lines, ""]).encode())
    return halves


# Augmented images: the folder dataset2-master


def random_affine(rng: np.random.Generator) -> np.ndarray:
    """Draw a map from half-size photograph to image: (3, 3), homogeneous, see `truth`.

    With the real set's settings in Keras: rotated up to 20°, shifted up to 10 %, sheared up to
    0.2 rad, flipped both ways.
    """
    size = np.array([WIDTH // 2, HEIGHT // 2])
    angle, shear = np.radians(rng.uniform(-20, 20)), rng.uniform(-0.2, 0.2)
    across, down = rng.uniform(-0.1, 0.1, 2) * size
    cos, sin = np.cos(angle), np.sin(angle)
    rotated = np.array([[cos, -sin, across], [sin, cos, down], [0, 0, 1]])
    sheared = np.array([[1, -np.sin(shear), 0], [0, np.cos(shear), 0], [0, 0, 1]])
    flipped = np.diag([*rng.choice([-1, 1], 2), 1])
    from_centre = np.eye(3)
    from_centre[:2, 2] = (size - 1) / 2
    return from_centre @ flipped @ rotated @ sheared @ np.linalg.inv(from_centre)


def augment(half: Image.Image, affine: np.ndarray) -> Image.Image:
    """Map a half-size photograph by a (3, 3) `affine`; black where it does not reach."""
    # Pillow wants the way back, and counts from the corner of a pixel instead of its centre.
    to_corner = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    back = to_corner @ np.linalg.inv(affine) @ np.linalg.inv(to_corner)
    return half.transform(
        half.size, Image.Transform.AFFINE, tuple(back[:2].ravel()), Image.Resampling.BILINEAR
    )


def _draw_class_folders(
    folder: Path,
    shots: dict[str, Shot],
    halves: dict[str, Image.Image],
    rng: np.random.Generator,
    bar: tqdm,
) -> pd.DataFrame:
    """Write the images of all splits; their truth."""
    rows = []
    for split, numbers in COUNTS.items():
        photographed_for = "TEST" if split == "TEST_SIMPLE" else split
        for cell_type, count in numbers.items():
            key = (photographed_for, (cell_type,))
            names = [name for name, s in shots.items() if (s.split, s.cell_types) == key]
            # As in the real set, the first number in a file's name is not its photograph's.
            rounds = [rng.permutation(names) for _ in range(-(-count // len(names)))]
            endings = rng.choice(10_000, count, replace=False)
            class_folder = Path(split, cells.BY_NAME[cell_type].folder)
            (folder / class_folder).mkdir(parents=True)
            for i, source_id in enumerate(np.concatenate(rounds)[:count]):
                file = class_folder / f"_{i % len(names)}_{endings[i]}.jpeg"
                affine = np.eye(3) if split == "TEST_SIMPLE" else random_affine(rng)
                _write_jpeg(folder / file, augment(halves[source_id], affine), quality=75)
                rows.append((file.as_posix(), source_id, *affine[:2].ravel()))
                bar.update()
    return pd.DataFrame(rows, columns=["file", "source_id", *AFFINE])


def _draw(folder: Path, seed: int, progress: bool) -> None:
    """Write the whole sample into a new folder, its marker last."""
    rng = np.random.default_rng(seed)
    shots = _plan_shots(rng)
    with tqdm(
        total=N_PHOTOGRAPHS + N_IMAGES, desc="Drawing cells", unit="image", disable=not progress
    ) as bar:
        halves = _draw_photographs(folder / _DATASET, shots, rng, bar)
        provenance = _draw_class_folders(folder / _IMAGES, shots, halves, rng, bar)
    (folder / _PROVENANCE).write_bytes(provenance.to_csv(index=False).encode())
    about = {
        "version": VERSION,
        "seed": seed,
        "note": "These cells are drawn; scores on them say nothing about blood.",
        "photographs": {
            split: [name for name, shot in shots.items() if shot.split == split]
            for split in PHOTOGRAPHS
        },
        "overlaps": _overlaps(shots),
    }
    (folder / _MARKER).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def _overlaps(shots: dict[str, Shot]) -> list[dict]:
    """Pairs of photographs of one field, and how far the stage moved in between."""
    return [
        {
            "photographs": [first, second],
            "shift": [b - a for a, b in zip(shot.stage, other.stage, strict=True)],
        }
        for (first, shot), (second, other) in itertools.combinations(shots.items(), 2)
        if shot.field is other.field
    ]
