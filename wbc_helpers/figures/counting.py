"""Figures of cells that were found and counted."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, ScalarFormatter

from wbc_helpers import cells
from wbc_helpers.cells import BOX
from wbc_helpers.count.differential import Differential
from wbc_helpers.errors import InvalidParameter
from wbc_helpers.evaluate.detection import DetectionScores, count_agreement
from wbc_helpers.figures.style import (
    GREY,
    WIDTH,
    axes_of,
    in_lines,
    in_style,
    pixels_of,
    require,
    say_what_is_seen,
    training_and_validation,
    write_title,
)
from wbc_helpers.report.pages import INK

_HALO = [withStroke(linewidth=3.4, foreground="white")]


@in_style
def bland_altman(
    true_counts: pd.DataFrame, counts: pd.DataFrame, kind: str = "RBC", ax: Axes | None = None
) -> Figure:
    """Draw how far two counts of the same photographs differ, by how many cells there are.

    A marker for each pair of numbers, its area in proportion to the photographs it stands for;
    lines for the bias and the limits of agreement, dotted for no difference. The tables are those
    of `detection.count_agreement`; `kind` is the column to draw.

    Raises
    ------
    InvalidParameter
        If the kind is in neither table, or the tables are not of the same photographs.
    """
    if any(kind not in table for table in (true_counts, counts)):
        raise InvalidParameter(
            f"There is no count of {kind!r} to draw. Expected a column of that name in both "
            f"tables, such as {', '.join(map(str, true_counts.columns))}."
        )
    agreement = count_agreement(true_counts[[kind]], counts[[kind]]).T[kind].astype(float)
    true, counted = true_counts[kind], counts[kind].reindex(true_counts.index)
    places = pd.DataFrame({"x": (true + counted) / 2, "y": counted - true}).value_counts()
    x, y = (places.index.get_level_values(name) for name in ("x", "y"))
    look = cells.KIND_BY_NAME[kind]
    figure, ax = axes_of(ax, (WIDTH, WIDTH * 0.75))
    ax.axhline(0, color=GREY, linestyle=":", linewidth=1)
    ax.scatter(x, y, s=18 + 14 * places, color=_on_paper(look), marker=look.marker, alpha=0.75)
    names = {"bias": "bias", "lower": "lower limit", "upper": "upper limit"}
    heights = {name: agreement[name] for name in names if np.isfinite(agreement[name])}
    # Where the limits coincide with the bias, one line says it.
    for name in list(heights) if agreement["sd"] > 0 else ["bias"]:
        line = "-" if name == "bias" else "--"
        ax.axhline(heights[name], color=INK, linestyle=line, linewidth=1.3)
        ax.annotate(
            f"{names[name]} {heights[name]:+.2f}".replace("-", "−"),
            (1, heights[name]),
            (5, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="center",
        )
    reach = max(1.0, np.abs(y).max(), *map(abs, heights.values())) * 1.15
    ax.set_ylim(-reach, reach)
    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    ax.yaxis.set_major_locator(MaxNLocator(7, integer=True))
    ax.set(
        xlabel=f"Mean of both counts, {look.plural} a photograph;\nmarker area: photographs",
        ylabel="Counted less true",
        title=in_lines(
            f"{look.plural.capitalize()}: mean absolute error {agreement['mae']:.2f} "
            f"(n = {len(true):,} photographs)"
        ),
    )
    say_what_is_seen(
        figure,
        f"Above the dotted line more {look.plural} were counted than people boxed, below it fewer: "
        f"by {agreement['bias']:+.2f} a photograph on average.".replace("-", "−"),
    )
    ax.grid()
    return figure


@in_style
def detector_loss(history: pd.DataFrame, ax: Axes | None = None) -> Figure:
    """Draw a detector's loss by epoch, on a logarithmic scale.

    `history` has one row an epoch: `epoch` (from 1), `loss`, `val_loss`, NaN where it was not
    measured.
    """
    require(history, ("epoch", "loss", "val_loss"), "history")
    figure, ax = axes_of(ax, (WIDTH, 3.2))
    training_and_validation(ax, history, "loss", ("training, views", "validation"), 2)
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter(ScalarFormatter())
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.set(ylabel="Loss per cell", title=f"Loss by epoch (n = {len(history):,})")
    epochs = "1 epoch" if len(history) == 1 else f"{len(history):,} epochs"
    say_what_is_seen(
        figure,
        f"What the detector's loss fell to in {epochs}: "
        f"{history['loss'].iloc[-1]:.3g} on views of the photographs trained on.",
    )
    ax.legend()
    return figure


@in_style
def detection_curves(scores: DetectionScores, ax: Axes | None = None) -> Figure:
    """Draw precision against recall of each kind that there is, at an overlap of 0.5."""
    figure, ax = axes_of(ax, (WIDTH, WIDTH * 0.8))
    for evidence, (name, row) in zip(scores.evidence, scores.per_kind.iterrows(), strict=True):
        if not row["n_truth"]:
            continue
        look = cells.KIND_BY_NAME[str(name)]
        hits = np.cumsum(evidence.hits[0])
        recall = hits / row["n_truth"]
        precision = hits / np.arange(1, len(hits) + 1)
        label = f"{look.plural}: AP {row['ap_50']:.3f} (n = {row['n_truth']:,.0f})"
        ax.plot(
            recall, precision, color=_on_paper(look), marker=look.marker, label=label,
            markevery=max(len(hits) // 10, 1),
        )  # fmt: skip
    ax.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="Recall", ylabel="Precision")
    title = (
        f"mAP@0.5 {scores.map_50:.3f}, mAP@0.5:0.95 {scores.map_50_95:.3f} "
        f"(n = {scores.n_photographs:,} photographs)"
    )
    ax.set_title(in_lines(title))
    say_what_is_seen(
        figure,
        "From left to right boxes are taken that are less and less sure: more cells are found, and "
        "more of the boxes hold none.",
    )
    if ax.lines:
        ax.legend(loc="lower left")
    ax.grid()
    return figure


@in_style
def boxed_cells(
    photograph: str | Path | np.ndarray,
    boxes: pd.DataFrame,
    title: str | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Draw boxes on a photograph, each in the colour and with the marker of what it holds.

    Parameters
    ----------
    photograph : path, or (height, width, 3) ndarray of uint8
        RGB.
    boxes : DataFrame
        `kind` and `cells.BOX`; with `cell_type`, white cells are drawn as their types, and as
        white cells where it is NA, as where no answer was given. The legend counts them.
    title : str, optional
        Above; the number of boxes is added.

    Raises
    ------
    InvalidParameter
        If a column is missing.
    UnreadableImage
        If the file is not a complete image.
    """
    if missing := [name for name in ("kind", *BOX) if name not in boxes]:
        raise InvalidParameter(
            f"The boxes to draw have no column {', '.join(missing)}. Expected a row a box with "
            f"kind, {', '.join(BOX)}."
        )
    (pixels,) = pixels_of([photograph])
    height, width = pixels.shape[:2]
    figure, ax = axes_of(ax, (WIDTH, WIDTH * height / width + 0.7))
    # Pixels reach from edge to edge as boxes do, not from centre to centre.
    ax.imshow(pixels, extent=(0, width, height, 0))
    names = boxes["kind"].astype(str)
    if "cell_type" in boxes:
        is_typed = boxes["cell_type"].isin(cells.LEUKOCYTES)
        names = boxes["cell_type"].astype(object).where(is_typed, names)
    for name, look, label in _looks():
        chosen = boxes.loc[(names == name).to_numpy(), BOX].to_numpy(float)
        for x_min, y_min, x_max, y_max in chosen:
            frame = Rectangle((x_min, y_min), x_max - x_min, y_max - y_min, fill=False)
            frame.set(edgecolor=look.color, linewidth=1.8, path_effects=_HALO)
            ax.add_patch(frame)
        if len(chosen):
            x, y = _marker_places(chosen, width, height)
            label = f"{label} (n = {len(chosen):,})"
            points = ax.scatter(x, y, s=70, color=look.color, marker=look.marker, label=label)
            points.set(edgecolor="white", linewidth=1, zorder=3)
    ax.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    ax.set_title(in_lines(f"{title or 'Cells found'} (n = {len(boxes):,})"))
    say_what_is_seen(
        figure,
        f"{title or 'Cells found'}: {len(boxes):,} boxes, each in the colour of what it holds.",
    )
    if len(boxes):
        ax.legend(loc="upper left", bbox_to_anchor=(0, 0), ncols=2, handletextpad=0.2)
    return figure


def _on_paper(look: cells.Kind) -> str:
    """Colour of a kind where no photograph is behind it: black would not be seen on dark pages."""
    return INK if look.color == "#000000" else look.color


def _looks() -> list[tuple[str, cells.Kind | cells.CellType, str]]:
    """Name, look and label of everything that a box may hold, types after kinds."""
    kinds = [(kind.name, kind, kind.plural) for kind in cells.KINDS]
    return [*kinds, *((look.name, look, f"{look.name}s") for look in cells.LEUKOCYTE_TYPES)]


def _marker_places(boxes: np.ndarray, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Upper left corners of boxes, moved inside where the frame would cut a marker."""
    margin = 0.014 * width
    x = np.clip(boxes[:, 0], margin, width - margin)
    return x, np.clip(boxes[:, 1], margin, height - margin)


@in_style
def differential(counted: Differential, ax: Axes | None = None) -> Figure:
    """Draw a differential count, with intervals, beside the adult reference ranges (grey bars).

    A type whose interval lies wholly outside its range, of enough cells, is marked as something
    to look at.
    """
    require(counted.table, ("percent", "low", "high", "reference_low", "reference_high"), "count")
    figure, ax = axes_of(ax, (WIDTH, 3.8))
    labels = []
    for row, (name, values) in enumerate(counted.table.iterrows()):
        cell_type = cells.BY_NAME[str(name)]
        low, high = values["reference_low"], values["reference_high"]
        label = "adult reference range" if row == 0 else None
        ax.barh(row, high - low, 0.62, left=low, color=GREY, alpha=0.35, label=label)
        ax.hlines(row, values["low"], values["high"], cell_type.color, linewidth=2.5)
        ax.plot(values["percent"], row, cell_type.marker, color=cell_type.color, markersize=8)
        share = "–" if np.isnan(values["percent"]) else f"{values['percent']:.1f}%"
        if values["verdict"] in ("below", "above"):
            share += f"\n{values['verdict']} the range:\nto look at"
        place = (1.01, row)
        ax.annotate(share, place, xycoords=("axes fraction", "data"), va="center")
        labels.append(f"{name} (n = {values['count']:,})")
    ax.set_yticks(range(len(labels)), labels)
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(labels) - 0.5, -0.5)
    ax.set(
        xlim=(0, 100),
        xlabel=f"% of the white cells named;\nlines: {counted.confidence:.0%} interval",
    )
    more = f", {counted.n_abstained:,} without an answer" if counted.n_abstained else ""
    title = f"Differential count (n = {counted.n_cells:,} white cells{more}); not for diagnosis"
    write_title(figure, title)
    shares = ", ".join(
        f"{name}s {percent:.1f} %" for name, percent in counted.table["percent"].dropna().items()
    )
    say_what_is_seen(
        figure,
        f"Shares of the white cells beside the adult ranges (grey bars): {shares or 'none'}.",
    )
    ax.legend(loc="upper left", bbox_to_anchor=(0, 0), borderaxespad=4)
    ax.grid(axis="x")
    return figure
