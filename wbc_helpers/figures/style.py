"""The one style of all figures, and the pieces that several of them share."""

import base64
import io
import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from functools import partial, wraps
from pathlib import Path
from typing import ParamSpec, cast

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.ticker import MaxNLocator
from PIL import Image

from wbc_helpers import cells
from wbc_helpers.errors import InvalidParameter
from wbc_helpers.pixels.images import read_image
from wbc_helpers.report.pages import INK, LINE, PAPER, QUIET, embedded

WIDTH = 5.4
"""Inches. A telephone shows a figure about 358 pixels wide, so that 10 points, the smallest text,
are 9 pixels there; panels stand below one another."""

LINE_LENGTH = 54
"""Letters of a title that fit into a line."""

STYLE = {
    "figure.dpi": 120,
    "figure.facecolor": PAPER,
    "axes.facecolor": "none",
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "figure.constrained_layout.use": True,
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 6,
    "image.cmap": "viridis",
    "svg.fonttype": "none",
    "svg.hashsalt": "wbc_helpers",
}
GREY, UNDEFINED = QUIET, LINE
_PHOTOGRAPH_DPI = 160  # of photographs inside an SVG: sharp at twice the width of a telephone


Given = ParamSpec("Given")


def in_style(draw: Callable[Given, Figure]) -> Callable[Given, Figure]:
    """Let a function draw in `STYLE` without changing anyone else's settings.

    A notebook shows the figure as SVG, whose text stays sharp and which pages bring to the
    reader's light or dark scheme, with its caption (see `say_what_is_seen`) as its description.
    """

    @wraps(draw)
    def drawn_in_style(*args: Given.args, **kwargs: Given.kwargs) -> Figure:
        with plt.style.context(["default", STYLE]):
            figure = draw(*args, **kwargs)
            interactive = mpl.is_interactive()
        # IPython calls this in place of making a PNG.
        vars(figure)["_ipython_display_"] = partial(_show, figure)
        # A notebook's backend is loaded by the first figure and then switches interaction on;
        # undoing that with the style would leave every later figure of the notebook unseen.
        mpl.interactive(interactive)
        return figure

    return drawn_in_style


def say_what_is_seen(figure: Figure, caption: str) -> None:
    """Give a figure its caption: in words, what a reader sees there."""
    vars(figure)["caption"] = caption


def caption_of(figure: Figure) -> str:
    """Find what `say_what_is_seen` was told; empty without."""
    return vars(figure).get("caption", "")


def _show(figure: Figure) -> None:
    """Display a figure in a notebook."""
    from IPython.display import display

    written = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with plt.style.context(["default", STYLE]):
        figure.savefig(written, format="svg", dpi=_PHOTOGRAPH_DPI, metadata=nothing)
    drawing = _EMBEDDED.sub(_as_jpeg, written.getvalue())
    drawing = drawing[drawing.index("<svg") :]
    shown = {"image/svg+xml": drawing, "text/plain": repr(figure)}
    display(shown, metadata={"image/svg+xml": {"alt": caption_of(figure)}}, raw=True)


_EMBEDDED = re.compile(r"data:image/png;base64,([A-Za-z0-9+/=\s]{20000,})")


def _as_jpeg(png: re.Match[str]) -> str:
    """Write a photograph inside an SVG anew, at a tenth of its size; one with holes stays."""
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(png[1]))).convert("RGBA"))
    if image[..., 3].min() < 255:
        return png[0]
    return embedded(image[..., :3], max(image.shape))


def axes_of(ax: Axes | None, size: tuple[float, float]) -> tuple[Figure, Axes]:
    """Make a figure of `size` inches, or find the one that `ax` is in."""
    if ax is None:
        return plt.subplots(figsize=size)
    return cast(Figure, ax.get_figure(root=True)), ax


def say(text: str) -> Figure:
    """Make a figure of a line of text, where there is nothing to draw."""
    figure, ax = axes_of(None, (WIDTH, 1.0))
    say_what_is_seen(figure, f"{text}.")
    ax.axis("off")
    ax.text(0.5, 0.5, text, ha="center", va="center", fontsize=11)
    return figure


def pixels_of(images: Iterable[str | Path | np.ndarray]) -> list[np.ndarray]:
    """Read those images that are given as paths."""
    return [read_image(image) if isinstance(image, str | Path) else image for image in images]


def write_title(figure: FigureBase, text: str, size: int = 11) -> None:
    """Write a title over the whole figure, at its left edge."""
    figure.suptitle(in_lines(text), x=0.005, ha="left", fontsize=size)


def in_lines(text: str) -> str:
    """Break a title into lines that fit."""
    return "\n".join(textwrap.wrap(text, LINE_LENGTH))


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
    lines = {measure: (labels[0], GREY, "--"), f"val_{measure}": (labels[1], INK, "-")}
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
