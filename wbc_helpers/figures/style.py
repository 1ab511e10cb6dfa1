"""The one style of all figures, and the pieces that several of them share."""

from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from pathlib import Path
from typing import ParamSpec, cast

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.ticker import MaxNLocator

from wbc_helpers import cells
from wbc_helpers.errors import InvalidParameter
from wbc_helpers.pixels.images import read_image

WIDTH = 8.0
"""Inches. A page shows figures about 800 pixels wide, so that 10 points are some 14 pixels."""

STYLE = {
    "figure.dpi": 120,
    "figure.constrained_layout.use": True,
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 6,
    "image.cmap": "viridis",
}
GREY = "#595959"
UNDEFINED = "#D9D9D9"


Given = ParamSpec("Given")


def in_style(draw: Callable[Given, Figure]) -> Callable[Given, Figure]:
    """Let a function draw in `STYLE` without changing anyone else's settings."""

    @wraps(draw)
    def drawn_in_style(*args: Given.args, **kwargs: Given.kwargs) -> Figure:
        with plt.style.context(["default", STYLE]):
            figure = draw(*args, **kwargs)
            interactive = mpl.is_interactive()
        # A notebook's backend is loaded by the first figure and then switches interaction on;
        # undoing that with the style would leave every later figure of the notebook unseen.
        mpl.interactive(interactive)
        return figure

    return drawn_in_style


def axes_of(ax: Axes | None, size: tuple[float, float]) -> tuple[Figure, Axes]:
    """Make a figure of `size` inches, or find the one that `ax` is in."""
    if ax is None:
        return plt.subplots(figsize=size)
    return cast(Figure, ax.get_figure(root=True)), ax


def say(text: str) -> Figure:
    """Make a figure of a line of text, where there is nothing to draw."""
    figure, ax = axes_of(None, (WIDTH, 1.0))
    ax.axis("off")
    ax.text(0.5, 0.5, text, ha="center", va="center", fontsize=12)
    return figure


def pixels_of(images: Iterable[str | Path | np.ndarray]) -> list[np.ndarray]:
    """Read those images that are given as paths."""
    return [read_image(image) if isinstance(image, str | Path) else image for image in images]


def write_title(figure: FigureBase, text: str, size: int = 12) -> None:
    """Write a title over the whole figure, at its left edge."""
    figure.suptitle(text, x=0.005, ha="left", fontsize=size)


def require(table: pd.DataFrame, columns: Sequence[str], what: str) -> None:
    """Refuse a table without rows, or without the columns that a figure draws."""
    missing = [name for name in columns if name not in table]
    if missing or table.empty:
        problem = f"no column {', '.join(missing)}" if missing else "no rows"
        raise InvalidParameter(
            f"The {what} to draw has {problem}. Expected at least one row, and the columns "
            f"{', '.join(columns)}."
        )


def training_and_validation(
    ax: Axes, history: pd.DataFrame, measure: str, labels: tuple[str, str], marked: int
) -> None:
    """Draw a measure by epoch, with markers for up to so many epochs, or where some lack."""
    lines = {measure: (labels[0], GREY, "--"), f"val_{measure}": (labels[1], "black", "-")}
    for column, (label, color, line) in lines.items():
        measured = history.dropna(subset=[column])
        marker = "o" if len(history) <= marked or len(measured) < len(history) else ""
        ax.plot(
            measured["epoch"], measured[column], color=color, linestyle=line, label=label,
            marker=marker, markersize=4,
        )  # fmt: skip
    ax.set_xlabel("Epoch")
    ax.xaxis.set_major_locator(MaxNLocator(7, integer=True, min_n_ticks=1))
    ax.grid()


def bars_by_type(ax: Axes, values: pd.Series, labels: Sequence[str]) -> None:
    """Horizontal bars, one a cell type, with a label at the end of each."""
    colors = [cells.BY_NAME[name].color for name in values.index]
    bars = ax.barh(range(len(values)), values.fillna(0), color=colors)
    ax.bar_label(bars, labels, padding=3)
    ax.set_yticks(range(len(values)), values.index)
    if not ax.yaxis_inverted():
        ax.invert_yaxis()
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x")


def readable_on(background: Sequence[float]) -> str:
    """Black or white, whichever contrasts more by WCAG's relative luminance."""
    linear = [
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
        for value in background[:3]
    ]
    luminance = np.dot(linear, (0.2126, 0.7152, 0.0722))
    # Both contrast alike where (1 + 0.05) / (L + 0.05) = (L + 0.05) / 0.05.
    return "black" if luminance > 0.179 else "white"
