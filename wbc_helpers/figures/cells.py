"""Figures of single white cells: located, looked at by a network, or of a doubtful label."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter

from wbc_helpers import cells
from wbc_helpers.errors import InvalidParameter
from wbc_helpers.figures.data import montage
from wbc_helpers.figures.style import (
    GREY,
    WIDTH,
    axes_of,
    in_style,
    pixels_of,
    require,
    say,
    write_title,
)
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
        See `montage`, errors too.
    cams : ndarray, (n, height, width) float
        0–1, see `explain.grad_cam`; stretched to the images' size.
    answers : DataFrame
        One row an image, in the same order: `cell_type` (the true one), `predicted` and
        `probability` (of the predicted type, 0–1). How many are right here says nothing of the
        accuracy.
    masks : ndarray, (n, height, width) bool, optional
        White cells, see `white_cells.outlines`; drawn as outlines.
    """
    require(answers, ("cell_type", "predicted", "probability"), "answers")
    pictures = pixels_of(images)
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
            title = f"{answer['predicted']} {answer['probability']:.0%}"
            truth = "" if is_right[row] else f"\nis {answer['cell_type']}"
            ax.set_title(title + truth, fontsize=9)
        part.colorbar(heat, ax=list(axes), label="Grad-CAM", ticks=(0, 0.5, 1), aspect=12 * n)
    write_title(figure, f"Where it looks; each map is 1 at its maximum (n = {len(pictures):,})")
    return figure


def _overlay(
    ax: Axes, picture: np.ndarray, cam: np.ndarray, mask: np.ndarray | None
) -> ScalarMappable:
    """Lay a map and the outline of a mask over an image; return the scale of its colours."""
    height, width = picture.shape[:2]
    frame = (-0.5, width - 0.5, height - 0.5, -0.5)
    ax.imshow(picture)
    # A map is weak where it says nothing: there the image itself is to be seen.
    opacity = _FAINTEST + (_STRONGEST - _FAINTEST) * np.clip(cam, 0, 1)
    ax.imshow(cam, "viridis", vmin=0, vmax=1, alpha=opacity, extent=frame, interpolation="bilinear")
    if mask is not None and mask.any() and not mask.all():
        x = (np.arange(mask.shape[1]) + 0.5) * width / mask.shape[1] - 0.5
        y = (np.arange(mask.shape[0]) + 0.5) * height / mask.shape[0] - 0.5
        ax.contour(x, y, mask.astype(float), levels=[0.5], colors="black", linewidths=1.2)
    return ScalarMappable(Normalize(0, 1), "viridis")


@in_style
def occlusion(summary: pd.DataFrame, ax: Axes | None = None) -> Figure:
    """Draw what blanking the cell, or the background, does to the answers.

    Bars of the accuracy and of the mean probability of the original answer, beside a line for
    guessing. For the table see `explain.summarise`.
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

    Above each crop its photograph, the published label or labels, and with a question mark what
    the network suggests; in brackets the probabilities that the network gives. Where no label is
    doubtful, a figure that says so.

    Parameters
    ----------
    judged : DataFrame
        As `labels.judge` returns it.
    crops : sequence of (height, width, 3) ndarray of uint8
        RGB, of the photographs whose label is doubtful, in the order of the table: of all of
        them, or of the first `MOST_DOUBTFUL`, which are shown.

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
        return say(f"No doubtful label ({of_all})")
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


@in_style
def located_cells(
    images: Sequence[str | Path | np.ndarray],
    located: Sequence[Sequence[WhiteCell]],
    n_columns: int = 4,
) -> Figure:
    """Images with a box around each white cell that `white_cells.locate` found.

    Whole cells in a blue solid box, cells that the frame cuts in an orange dashed one; an image in
    which none was found says so. Of more or fewer lists of cells than images, InvalidParameter;
    for `images` see `montage`.
    """
    if not len(images) or len(images) != len(located) or n_columns < 1:
        raise InvalidParameter(
            f"{len(images)} images and {len(located)} lists of cells in {n_columns} columns cannot "
            "be drawn. Expected at least one image, and a list of cells for each."
        )
    titles = [
        "none found" if not white else "cut" if any(cell.cut for cell in white) else ""
        for white in located
    ]
    figure = montage(images, titles, n_columns)
    for ax, white in zip(figure.axes, located, strict=False):
        for cell in white:
            corner = cell.x_min - 0.5, cell.y_min - 0.5
            color, line = ("#D55E00", "--") if cell.cut else ("#0072B2", "-")
            frame = Rectangle(corner, cell.x_max - cell.x_min, cell.y_max - cell.y_min, fill=False)
            frame.set(edgecolor=color, linestyle=line, linewidth=2)
            ax.add_patch(frame)
    n_cells = sum(map(len, located))
    write_title(figure, f"White cells found: {n_cells} (n = {len(images):,} images)")
    return figure
