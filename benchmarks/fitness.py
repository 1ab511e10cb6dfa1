"""Which photographs count as fit to be read: `benchmarks/fitness.py FOLDER ...`.

A folder is what one or more laboratories took; photographs of one size count as one laboratory's.
Prints of each how many are called unfit, and of some how often they are once they are spoiled:
blurred, over- or under-exposed. By their pixels alone: whether cells are found is not asked.

    python benchmarks/fitness.py --brought txl

counts photographs of which every cell is boxed as people bring them: through an eyepiece, spoiled,
of two magnifications, many in one picture, in each format; and what is no smear.
"""

import argparse
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from wbc_helpers import cells
from wbc_helpers.cells import BOX
from wbc_helpers.count import detector, fitness, smears
from wbc_helpers.count.training import deal
from wbc_helpers.data import sources, splits
from wbc_helpers.pixels import scale
from wbc_helpers.pixels.images import find_photographs, read_image, resize, scaled_size

BLURS = (0.03, 0.05, 0.08, 0.1, 0.12, 0.16)  # standard deviation, in red cells
BLURS_BROUGHT = (0.03, 0.05, 0.1)
GAINS = (1.2, 1.35, 1.5, 1.8, 0.3, 0.2)
ROOT = Path(__file__).resolve().parents[1]
ONE_CELL = pd.DataFrame({"kind": ["RBC"], "counted": [True]})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER")
    parser.add_argument("--at-least", default=100, type=int, help="photographs of a laboratory")
    parser.add_argument("--spoiled", default=30, type=int, help="photographs to spoil, of each")
    parser.add_argument("--brought", metavar="SOURCE", help="count these as people bring them")
    parser.add_argument("--data-dir", default=ROOT / "data", type=Path)
    options = parser.parse_args()
    if options.brought:
        count_brought(options.brought, options.data_dir)
    if options.folders:
        judge_folders(options)


def judge_folders(options: argparse.Namespace) -> None:
    print("laboratory | photographs | red cell | unfit | why")
    for name, paths in laboratories_in(options.folders):
        if len(paths) < options.at_least:
            continue
        red_cell, _ = scale.estimate_scale(paths)
        verdicts = [
            judge(read_image(path), red_cell) for path in tqdm(paths, desc=name, mininterval=1)
        ]
        why = Counter(reason for reasons in verdicts for reason in reasons)
        unfit = sum(map(bool, verdicts))
        print(
            f"{name} | {len(paths):,} | {red_cell:.0f} | {unfit} ({unfit / len(paths):.1%}) | "
            f"{', '.join(f'{reason} {n}' for reason, n in why.items())}"
        )
        some = [
            paths[place] for place in np.linspace(0, len(paths) - 1, options.spoiled).astype(int)
        ]
        for title, spoil in spoilings(red_cell):
            named = Counter(
                reason for path in some for reason in judge(spoil(read_image(path)), red_cell)
            )
            print(f"  {title}: {', '.join(f'{r} {n / len(some):.0%}' for r, n in named.items())}")


def laboratories_in(folders: list[Path]):
    """Photographs by folder and size."""
    by_size = defaultdict(list)
    for folder in folders:
        root, names, _ = find_photographs(folder)
        for path in (root / name for name in names):
            with Image.open(path) as image:
                by_size[folder.name, image.size].append(path)
    return [(f"{name} {w}×{h}", paths) for (name, (w, h)), paths in by_size.items()]


def judge(photograph: np.ndarray, red_cell: float) -> list[str]:
    filled, _ = fitness.fill_surround(photograph)
    looks = fitness.measure(filled, red_cell)
    return fitness.judge(looks) or fitness.judge_reading(looks, red_cell, ONE_CELL)


def spoilings(red_cell: float, blurs: tuple[float, ...] = BLURS):
    for blur in blurs:
        yield (
            f"blurred by {blur:g} red cells",
            lambda image, sigma=blur * red_cell: cv2.GaussianBlur(image, (0, 0), sigma),
        )
    for gain in GAINS:
        yield (
            f"light × {gain:g}",
            lambda image, gain=gain: np.clip(image * gain, 0, 255).astype(np.uint8),
        )


# What people bring


@dataclass(frozen=True, eq=False)
class Boxed:
    """A photograph, RGB uint8, and the boxes of all of its cells."""

    pixels: np.ndarray
    boxes: pd.DataFrame


@dataclass(frozen=True, eq=False)
class Brought:
    """Photographs as one folder, by the names of their files; the boxes that count, if any do.

    `region` tells of each pixel whether a cell whose centre lies there counts, (height, width)
    bool; by default all do. `options` are Pillow's, to save with.
    """

    title: str
    photographs: dict[str, np.ndarray]
    truth: list[pd.DataFrame]
    region: np.ndarray | None = None
    options: dict | None = None


def count_brought(source: str, data_dir: Path, n_photographs: int = 36) -> None:
    """Count photographs of BCCD's test as people bring them; print boxed and counted cells."""
    folder = sources.fetch(source, data_dir, holds="photographs")
    boxed = splits.read_boxed(folder)
    parts = deal(folder, boxed)
    shown = boxed.photographs.query("laboratory == 'BCCD' and width == 640")
    shown = shown[shown["photograph"].map(parts).eq("test")].head(n_photographs)
    of_each = dict(list(boxed.boxes.groupby("photograph")))
    taken = [
        Boxed(read_image(path), of_each[name].reset_index(drop=True))
        for name, path in zip(shown["photograph"], shown["path"], strict=True)
    ]
    reader = detector.load_reader()
    print(f"{len(taken)} photographs; of red cells, white cells and platelets: boxed / counted")
    print(
        "| brought | files | red cells | white cells | platelets | not fit | said |\n"
        + "|---" * 7
        + "|"
    )
    for brought in everything_brought(taken):
        with tempfile.TemporaryDirectory() as scratch:
            print(counted(brought, Path(scratch), reader), flush=True)


def counted(brought: Brought, scratch: Path, reader: detector.SmearReader) -> str:
    """Count a folder; return its row."""
    photographs, out = scratch / "photographs", scratch / "out"
    photographs.mkdir()
    for name, pixels in brought.photographs.items():
        save(pixels, photographs / name, brought.options or {})
    result = smears.count_folder(photographs, out, reader, progress=False)
    table = pd.read_csv(out / smears.CELLS)
    table = table[table["file"].isin(result.fit["file"])]
    pairs = []
    for kind in cells.KIND_NAMES:
        n_boxed, n_counted = (
            sum(in_region(boxes[boxes["kind"] == kind], brought.region) for boxes in tables)
            for tables in (brought.truth, [table])
        )
        pairs.append(f"{n_boxed:,} / {n_counted:,}")
    why = Counter(reason for reasons in result.counts["reasons"] for reason in reasons.split("; "))
    why.update(result.counts["note"])
    why.update(problem.split(":")[0] for _, problem in result.failures)
    said = ", ".join(f"{words} ({n})" for words, n in why.items() if words)
    unfit = len(result.counts) - len(result.fit)
    return (
        f"| {brought.title} | {len(brought.photographs)} | {' | '.join(pairs)} | {unfit} | {said} |"
    )


def in_region(boxes: pd.DataFrame, region: np.ndarray | None) -> int:
    if region is None:
        return len(boxes)
    height, width = region.shape
    x = ((boxes["x_min"] + boxes["x_max"]) / 2).astype(int).clip(0, width - 1)
    y = ((boxes["y_min"] + boxes["y_max"]) / 2).astype(int).clip(0, height - 1)
    return int(region[y, x].sum())


def save(pixels: np.ndarray, path: Path, options: dict) -> None:
    """Write a photograph in the format of its name or of `options`; uint16 by OpenCV."""
    if pixels.dtype == np.uint16:
        cv2.imwrite(str(path), pixels[..., ::-1])
    else:
        Image.fromarray(pixels).save(path, **options)


def everything_brought(taken: list[Boxed]) -> Iterator[Brought]:
    truth = [photograph.boxes for photograph in taken]

    def folder(title, change=lambda pixels: pixels, suffix=".png", region=None, **options):
        files = {
            f"{place:03}{suffix}": change(photograph.pixels)
            for place, photograph in enumerate(taken)
        }
        return Brought(title, files, truth, region, options)

    yield folder("as they are")
    red_cell, _ = scale.estimate_scale([photograph.pixels for photograph in taken])
    height, width = taken[0].pixels.shape[:2]
    down, across = np.mgrid[:height, :width]
    field = np.hypot(across - width / 2, down - height / 2) < 0.49 * height
    yield folder("as they are, a circle of them", region=field)
    yield folder("as they are, inside of each", region=inside_of(taken[0].pixels, red_cell))
    for title, grey in (("black", 0), ("grey 12", 12), ("grey 30", 30)):
        yield folder(
            f"that circle through an eyepiece, around it {title}",
            lambda pixels, grey=grey: through_eyepiece(pixels, field, grey), region=field,
        )  # fmt: skip
    for title, spoil in spoilings(red_cell, BLURS_BROUGHT):
        yield folder(title, spoil)
    for factor in (0.6, 0.4, 1.5):
        files = {
            f"{place:03}.png": scaled(photograph.pixels, factor if place % 2 else 1)
            for place, photograph in enumerate(taken)
        }
        yield Brought(f"every second one at {factor:g} of its size", files, truth)
    yield from in_one_picture(taken, red_cell)
    yield folder("TIFF, 8 bits, LZW", suffix=".tif", compression="tiff_lzw")
    yield folder("TIFF, 16 bits", lambda pixels: pixels.astype(np.uint16) * 257, suffix=".tif")
    yield folder("TIFF, 12 bits in 16", lambda pixels: (pixels.astype(np.uint16) * 257) >> 4,
                 suffix=".tif")  # fmt: skip
    yield folder("PNG, 12 bits in 16", lambda pixels: (pixels.astype(np.uint16) * 257) >> 4)
    yield folder("BMP", suffix=".bmp")
    yield folder("WebP", suffix=".webp", quality=90)
    yield folder("JPEG", suffix=".jpg", quality=90)
    yield folder("MPO, two pictures a file", suffix=".mpo", quality=90, save_all=True,
                 append_images=[Image.new("RGB", (64, 48))])  # fmt: skip
    yield folder("PNG named .jpg", suffix=".jpg", format="PNG")
    for title, pixels in no_smears():
        yield Brought(title, {"picture.png": pixels}, [truth[0].head(0)])


def inside_of(pixels: np.ndarray, red_cell: float) -> np.ndarray:
    """Pixels at least as far from the frame as a red cell is wide, bool."""
    margin = round(red_cell)
    return np.pad(np.ones_like(pixels[margin:-margin, margin:-margin, 0], bool), margin)


def in_one_picture(taken: list[Boxed], red_cell: float) -> Iterator[Brought]:
    """A square of photographs side by side, as large as it is and smaller.

    Of cells that are cut where two photographs meet nobody can say what counts: cells whose centre
    lies as near to that as they are wide are left out.
    """
    side = int(np.sqrt(len(taken)))
    height, width = taken[0].pixels.shape[:2]
    inner = inside_of(taken[0].pixels, red_cell)
    places = [divmod(place, side) for place in range(side * side)]
    wide = np.zeros((side * height, side * width, 3), np.uint8)
    boxes = []
    for photograph, (down, across) in zip(taken, places, strict=False):
        top, left = down * height, across * width
        wide[top : top + height, left : left + width] = photograph.pixels
        boxes.append(photograph.boxes.assign(**{
            edge: photograph.boxes[edge] + (left if edge.startswith("x") else top) for edge in BOX
        }))  # fmt: skip
    for factor in (1, 0.4, 0.2):
        smaller = [table.assign(**{edge: table[edge] * factor for edge in BOX}) for table in boxes]
        picture = scaled(wide, factor)
        region = cv2.resize(np.tile(inner, (side, side)).astype(np.uint8), picture.shape[1::-1],
                            interpolation=cv2.INTER_NEAREST) > 0  # fmt: skip
        yield Brought(f"{side * side} in one picture, at {factor:g} of its size; inside of each",
                      {"wide.png": picture}, smaller, region)  # fmt: skip


def through_eyepiece(pixels: np.ndarray, field: np.ndarray, grey: int) -> np.ndarray:
    """Show a round field; its rim is blurred, as a diaphragm's out of focus is."""
    light = cv2.GaussianBlur(field.astype(np.float32), (0, 0), 1.5)[..., np.newaxis]
    return np.rint(light * pixels + (1 - light) * grey).astype(np.uint8)


def scaled(pixels: np.ndarray, factor: float) -> np.ndarray:
    return pixels if factor == 1 else resize(pixels, scaled_size(pixels.shape, factor))


def no_smears() -> Iterator[tuple[str, np.ndarray]]:
    """A building and a flower (photographs of scikit-learn), an empty field, a page, noise."""
    from sklearn.datasets import load_sample_image

    rng = np.random.default_rng(0)
    yield "a building", load_sample_image("china.jpg")
    yield "a flower", load_sample_image("flower.jpg")
    empty = np.full((480, 640, 3), (228, 220, 226), np.float32) + rng.normal(0, 2, (480, 640, 3))
    yield "an empty field", np.clip(empty, 0, 255).astype(np.uint8)
    page = np.full((480, 640, 3), 250, np.uint8)
    for line in range(40, 470, 24):
        cv2.putText(page, "The quick brown fox jumps over the lazy dog", (20, line),
                    cv2.FONT_HERSHEY_SIMPLEX, 0.7, (20, 20, 20), 1, cv2.LINE_AA)  # fmt: skip
    yield "a page of text", page
    yield "noise", rng.integers(0, 256, (480, 640, 3), np.uint8)


if __name__ == "__main__":
    main()
