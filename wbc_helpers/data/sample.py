"""The embedded sample: smears of drawn cells in the layout of the real archive.

Everything about it is known by construction: the boxes of all cells, which photograph each
augmented image was made from and by which affine map, and which photographs overlap.
"""

import io
import itertools
import json
import os
import tempfile
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from wbc_helpers import cells, storage
from wbc_helpers.data import catalog
from wbc_helpers.data.drawing import HEIGHT, WIDTH, Box, Field, photograph, prepare_field
from wbc_helpers.errors import DataMismatch, DataNotFound, InvalidParameter

VERSION = 1
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
    folder = Path(folder).expanduser().absolute()
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
