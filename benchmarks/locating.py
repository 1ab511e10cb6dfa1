"""How many white cells are found: `make locate SOURCE=...` with boxed photographs.

Every box of a white cell is hit, if the centre of a cell that was found lies in it, or missed; each
found cell hits one box. Prints the rate with its exact 95 % interval, and every miss by name.
"""

import argparse
from pathlib import Path

from scipy.stats import binomtest

from wbc_helpers.data import annotations, sources
from wbc_helpers.pixels import (
    images,
    scale,
    white_cells,
)

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", default="auto")
    parser.add_argument("--data-dir", default=ROOT / "data", type=Path)
    options = parser.parse_args()
    boxed = annotations.read_annotations(
        sources.fetch(options.source, options.data_dir, holds="photographs")
    )
    red_cell = scale.red_cell_diameter_of(boxed.photographs["path"])
    white = boxed.boxes[boxed.boxes["kind"] == "WBC"]
    n_extra, missed = 0, []
    for photograph in boxed.photographs.itertuples():
        found = white_cells.locate(images.read_image(photograph.path), red_cell)
        for box in white[white["photograph"] == photograph.photograph].itertuples():
            inside = [
                cell
                for cell in found
                if box.x_min <= cell.x + 0.5 <= box.x_max and box.y_min <= cell.y + 0.5 <= box.y_max
            ]
            if inside:
                found.remove(inside[0])
            else:
                missed.append(photograph.photograph)
        n_extra += len(found)
    n_hit = len(white) - len(missed)
    low, high = binomtest(n_hit, len(white)).proportion_ci(method="exact")
    print(f"A red cell is about {red_cell:.1f} pixels wide")
    print(
        f"{n_hit} of {len(white)} white cells found: {n_hit / len(white):.1%} "
        f"(95 % interval {low:.1%}–{high:.1%})"
    )
    print(f"Missed, in: {', '.join(missed) or 'none'}")
    print(f"{n_extra} more found where no box is, in {len(boxed.photographs)} photographs")


if __name__ == "__main__":
    main()
