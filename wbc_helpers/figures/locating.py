"""Figures of where white cells were found."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from wbc_helpers.errors import InvalidParameter
from wbc_helpers.figures.style import WIDTH, in_style, write_title
from wbc_helpers.images import read_image
from wbc_helpers.white_cells import WhiteCell

_WHOLE, _CUT = "#0072B2", "#D55E00"


@in_style
def located_cells(
    images: Sequence[str | Path | np.ndarray],
    found: Sequence[Sequence[WhiteCell]],
    n_columns: int = 4,
) -> Figure:
    """Images with a box around each white cell that was found.

    Parameters
    ----------
    images : sequence of path, or of (height, width, 3) ndarray of uint8
        A few dozen at most; files are read at their full size.
    found : sequence of sequence of WhiteCell
        Of each image, see `white_cells.locate`.
    n_columns : int
        Images in a row.

    Returns
    -------
    Figure
        Whole cells in a blue solid box, cells that the frame cuts in an orange dashed one; an image
        in which none was found says so.

    Raises
    ------
    InvalidParameter
        If there are no images, or not as many of both.
    UnreadableImage
        If a file is not a complete image.
    """
    if not len(images) or len(images) != len(found) or n_columns < 1:
        raise InvalidParameter(
            f"{len(images)} images and {len(found)} lists of cells in {n_columns} columns cannot "
            "be drawn. Expected at least one image, and a list of cells for each."
        )
    pictures = [read_image(each) if isinstance(each, str | Path) else each for each in images]
    n_rows = -(-len(pictures) // n_columns)
    height = n_rows * WIDTH / n_columns * pictures[0].shape[0] / pictures[0].shape[1]
    figure, axes = plt.subplots(
        n_rows, n_columns, figsize=(WIDTH, height + 0.2 * n_rows + 0.4), squeeze=False
    )
    for ax in axes.flat:
        ax.axis("off")
    for ax, picture, cells in zip(axes.flat, pictures, found, strict=False):
        ax.imshow(picture)
        for cell in cells:
            ax.add_patch(
                Rectangle(
                    (cell.x_min - 0.5, cell.y_min - 0.5),
                    cell.x_max - cell.x_min, cell.y_max - cell.y_min, fill=False,
                    edgecolor=_CUT if cell.cut else _WHOLE, linewidth=2,
                    linestyle="--" if cell.cut else "-",
                )
            )  # fmt: skip
        if not cells:
            ax.set_title("none found", fontsize=9)
        elif any(cell.cut for cell in cells):
            ax.set_title("cut", fontsize=9)
    n_cells = sum(map(len, found))
    write_title(figure, f"White cells found: {n_cells} (n = {len(pictures):,} images)")
    return figure
