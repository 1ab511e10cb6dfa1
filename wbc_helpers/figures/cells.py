"""Figures of where the network looks.

Figures of doubtful labels.

Figures of where white cells were found.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter

from wbc_helpers import cells
from wbc_helpers.errors import InvalidParameter
from wbc_helpers.figures.data import montage
from wbc_helpers.figures.style import GREY, WIDTH, axes_of, in_style, require, write_title
from wbc_helpers.pixels.images import read_image
from wbc_helpers.pixels.white_cells import WhiteCell

_FAINTEST, _STRONGEST = 0.1, 0.65  # opacity of the heat: the cell stays visible below it


@in_style
def where_it_looks(
    images: Iterable[str | Path | np.ndarray],
    cams: np.ndarray,
    answers: pd.DataFrame,
    masks: np.ndarray | None = None,
    n_columns: int = 4,
) -> Figure:
    """Images with their Grad-CAM maps laid over them, right answers above, wrong ones below.

    Parameters
    ----------
    images : iterable of path, or of (height, width, 3) ndarray of uint8
        A few dozen at most; files are read at their full size.
    cams : ndarray, (n, height, width) float
        0–1, see `explain.grad_cam`; stretched to the images' size.
    answers : DataFrame
        One row an image, in the same order: `cell_type` (the true one), `predicted` and
        `probability` (of the predicted type, 0–1).
    masks : ndarray, (n, height, width) bool, optional
        White cells, see `white_cells.outlines`; drawn as outlines.
    n_columns : int
        Images in a row.

    Returns
    -------
    Figure
        With the numbers of right and wrong answers shown, which say nothing of the accuracy.

    Raises
    ------
    InvalidParameter
        If there are no images, or not as many of each.
    UnreadableImage
        If a file is not a complete image.
    """
    require(answers, ("cell_type", "predicted", "probability"), "answers")
    pictures = [read_image(image) if isinstance(image, str | Path) else image for image in images]
    counts = {len(pictures), len(cams), len(answers), len(cams if masks is None else masks)}
    if len(counts) > 1 or n_columns < 1:
        raise InvalidParameter(
            f"Cannot lay {len(cams)} maps over {len(pictures)} images with {len(answers)} answers "
            f"in {n_columns} columns. Expected one map, one answer (and one mask) for each image."
        )
    is_right = (answers["cell_type"].astype(str) == answers["predicted"].astype(str)).to_numpy()
    groups = [("Right", np.flatnonzero(is_right)), ("Wrong", np.flatnonzero(~is_right))]
    groups = [(name, rows) for name, rows in groups if len(rows)]
    n_rows = [-(-len(rows) // n_columns) for _, rows in groups]
    height, width = pictures[0].shape[:2]
    row_height = 0.87 * WIDTH / n_columns * height / width + 0.45
    figure = plt.figure(figsize=(WIDTH, sum(n_rows) * row_height + 0.3 * len(groups) + 0.4))
    parts = figure.subfigures(len(groups), 1, height_ratios=n_rows, squeeze=False)[:, 0]
    for part, (name, rows), n in zip(parts, groups, n_rows, strict=True):
        write_title(part, f"{name} (n = {len(rows):,})", 11)
        axes = part.subplots(n, n_columns, squeeze=False).ravel()
        for ax in axes:
            ax.axis("off")
        for ax, row in zip(axes, rows, strict=False):
            heat = _overlay(ax, pictures[row], cams[row], None if masks is None else masks[row])
            answer = answers.iloc[row]
            said = f"{answer['predicted']} {answer['probability']:.0%}"
            ax.set_title(said if is_right[row] else f"{said}\nis {answer['cell_type']}", fontsize=9)
        part.colorbar(heat, ax=list(axes), label="Grad-CAM", ticks=(0, 0.5, 1), aspect=12 * n)
    write_title(figure, f"Where it looks; each map is 1 at its maximum (n = {len(pictures):,})")
    return figure


def _overlay(ax: Axes, picture: np.ndarray, cam: np.ndarray, mask: np.ndarray | None):
    height, width = picture.shape[:2]
    frame = {"extent": (-0.5, width - 0.5, height - 0.5, -0.5), "interpolation": "bilinear"}
    ax.imshow(picture)
    # A map is weak where it says nothing: there the image itself is to be seen.
    opacity = _FAINTEST + (_STRONGEST - _FAINTEST) * np.clip(cam, 0, 1)
    ax.imshow(cam, cmap="viridis", vmin=0, vmax=1, alpha=opacity, **frame)
    if mask is not None and mask.any() and not mask.all():
        x = (np.arange(mask.shape[1]) + 0.5) * width / mask.shape[1] - 0.5
        y = (np.arange(mask.shape[0]) + 0.5) * height / mask.shape[0] - 0.5
        ax.contour(x, y, mask.astype(float), levels=[0.5], colors="black", linewidths=1.2)
    return plt.cm.ScalarMappable(plt.Normalize(0, 1), "viridis")


@in_style
def occlusion(summary: pd.DataFrame, ax: Axes | None = None) -> Figure:
    """Draw what blanking the cell, or the background, does to the answers.

    Parameters
    ----------
    summary : DataFrame
        See `explain.summarise`.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Figure
        Bars of the accuracy and of the mean probability of the original answer, beside a line
        for guessing.
    """
    require(summary, ("n_images", "accuracy", "probability"), "summary")
    figure, ax = axes_of(ax, (WIDTH, 2.8))
    measures = {
        "accuracy": ("accuracy", "#0072B2", None),
        "probability": ("probability of the original answer", "#E69F00", "//"),
    }
    places = np.arange(len(summary))
    for shift, (column, (label, color, hatch)) in zip((-0.2, 0.2), measures.items(), strict=True):
        bars = ax.barh(
            places + shift, summary[column], 0.38, label=label, color=color, hatch=hatch,
            edgecolor="white",
        )  # fmt: skip
        ax.bar_label(bars, [f"{value:.1%}" for value in summary[column]], padding=3)
    guessing = 1 / len(cells.NAMES)
    ax.axvline(guessing, color=GREY, linestyle=":", label=f"guessing, {guessing:.0%}")
    ax.set_yticks(places, [str(condition) for condition in summary.index])
    ax.invert_yaxis()
    ax.set_xlim(0, 1.12)
    ax.set_xticks(np.arange(0, 1.01, 0.25))
    ax.xaxis.set_major_formatter(PercentFormatter(1))
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x")
    ax.set_title(f"What blanking does to the answers (n = {summary['n_images'].max():,})")
    figure.legend(loc="outside lower center", ncols=3)
    return figure


MOST_DOUBTFUL = 24
"""As many crops as `doubtful_labels` shows."""

_LETTERS = 22  # that fit above a crop, four in a row, even if they are capitals


@in_style
def doubtful_labels(judged: pd.DataFrame, crops: Sequence[np.ndarray]) -> Figure:
    """White cells with a doubtful label, for a haematologist to judge.

    Parameters
    ----------
    judged : DataFrame
        As `labels.judge` returns it.
    crops : sequence of (height, width, 3) ndarray of uint8
        RGB, of the photographs whose label is doubtful, in the order of the table: of all of
        them, or of the first `MOST_DOUBTFUL`, which are shown.

    Returns
    -------
    Figure
        Above each crop its photograph, the published label or labels, and with a question mark
        what the network suggests; in brackets the probabilities that the network gives. Where no
        label is doubtful, a figure that says so.

    Raises
    ------
    InvalidParameter
        If there are not as many crops as doubtful labels, or one is no RGB image.
    """
    columns = (
        "source_id",
        "cell_type",
        "also_under",
        "suggested",
        "self_confidence",
        "p_suggested",
        "doubtful",
    )
    require(judged, columns, "table of labels")
    doubtful = judged[judged["doubtful"]]
    shown = doubtful.head(MOST_DOUBTFUL)
    if len(crops) not in (len(doubtful), len(shown)):
        raise InvalidParameter(
            f"Cannot show {len(crops)} crops for {len(doubtful)} doubtful labels. Expected one for "
            f"each, or for the first {MOST_DOUBTFUL}, in the order of the table."
        )
    crops = [np.asarray(crop) for crop in crops[: len(shown)]]
    wrong = [crop for crop in crops if crop.shape[2:] != (3,) or crop.dtype != np.uint8]
    if wrong:
        raise InvalidParameter(
            f"A crop has shape {wrong[0].shape} and type {wrong[0].dtype}. Expected (height, "
            "width, 3) and uint8, see labels.crop_white_cell."
        )
    of_all = f"n = {len(doubtful):,} of {len(judged):,} photographs"
    if doubtful.empty:
        figure, ax = axes_of(None, (WIDTH, 1.0))
        ax.axis("off")
        ax.text(0.5, 0.5, f"No doubtful label ({of_all})", ha="center", va="center", fontsize=12)
        return figure
    titles = [_title(label) for _, label in shown.iterrows()]
    figure = montage(crops, titles, n_columns=4)
    more = len(doubtful) - len(shown)
    rest = f": the {len(shown)} most doubtful, and {more:,} more in the table" if more else ""
    write_title(figure, f"Doubtful labels ({of_all}){rest}")
    return figure


def _title(label: pd.Series) -> str:
    """Photograph, published and suggested types, in lines that fit above a crop."""
    name = label["source_id"]
    if len(name) > 2 * _LETTERS:
        name = name[: 2 * _LETTERS - 1] + "…"
    # Names of files: broken anywhere, for they have no words.
    names = [part for part in (name[:_LETTERS], name[_LETTERS:]) if part]
    types = [f"label {label['cell_type']} ({label['self_confidence']:.0%})"]
    others = [] if pd.isna(label["also_under"]) else label["also_under"].split(", ")
    suggestion = f"{label['suggested']}? ({label['p_suggested']:.0%})"
    types += [f"and {suggestion if other == label['suggested'] else other}" for other in others]
    if label["suggested"] not in others:
        types.append(f"or {suggestion}")
    return "\n".join([*names, *types])


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
    for ax, picture, white in zip(axes.flat, pictures, found, strict=False):
        ax.imshow(picture)
        for cell in white:
            ax.add_patch(
                Rectangle(
                    (cell.x_min - 0.5, cell.y_min - 0.5),
                    cell.x_max - cell.x_min, cell.y_max - cell.y_min, fill=False,
                    edgecolor=_CUT if cell.cut else _WHOLE, linewidth=2,
                    linestyle="--" if cell.cut else "-",
                )
            )  # fmt: skip
        if not white:
            ax.set_title("none found", fontsize=9)
        elif any(cell.cut for cell in white):
            ax.set_title("cut", fontsize=9)
    n_cells = sum(map(len, found))
    write_title(figure, f"White cells found: {n_cells} (n = {len(pictures):,} images)")
    return figure
