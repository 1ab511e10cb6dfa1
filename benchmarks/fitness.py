"""Which photographs count as fit to be read: `benchmarks/fitness.py FOLDER ...`.

A folder is what one or more laboratories took; photographs of one size count as one laboratory's.
Prints of each how many are called unfit, and of some how often they are once they are spoiled:
blurred, over- or under-exposed. By their pixels alone: whether cells are found is not asked.
"""

import argparse
from collections import Counter, defaultdict
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from wbc_helpers.count import fitness
from wbc_helpers.pixels import scale
from wbc_helpers.pixels.images import find_photographs, read_image

BLURS = (0.03, 0.05, 0.08, 0.1, 0.12, 0.16)  # standard deviation, in red cells
GAINS = (1.2, 1.35, 1.5, 1.8, 0.3, 0.2)
ONE_CELL = pd.DataFrame({"kind": ["RBC"], "counted": [True]})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--at-least", default=100, type=int, help="photographs of a laboratory")
    parser.add_argument("--spoiled", default=30, type=int, help="photographs to spoil, of each")
    options = parser.parse_args()
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


def spoilings(red_cell: float):
    for blur in BLURS:
        yield (
            f"blurred by {blur:g} red cells",
            lambda image, sigma=blur * red_cell: cv2.GaussianBlur(image, (0, 0), sigma),
        )
    for gain in GAINS:
        yield (
            f"light × {gain:g}",
            lambda image, gain=gain: np.clip(image * gain, 0, 255).astype(np.uint8),
        )


if __name__ == "__main__":
    main()
