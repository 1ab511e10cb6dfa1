"""Figures of how far scores and answers can be relied on."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from wbc_helpers import calibration, cells
from wbc_helpers.abstention import Abstention, RiskCoverage
from wbc_helpers.errors import InvalidParameter
from wbc_helpers.evaluation import Evaluation
from wbc_helpers.figures.style import GREY, WIDTH, axes_of, in_style, require

# Not of cells: two that colour-blind readers tell apart, and a third.
_SERIES = (("#D55E00", "o", "-"), ("#0072B2", "s", "--"), ("#009E73", "^", "-."))
_SCORE_NAMES = {
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro-F1",
    "kappa": "Cohen's kappa",
    "roc_auc": "ROC-AUC",
    "average_precision": "average precision",
}
_NAIVE, _HONEST = _SERIES[0], _SERIES[1]


@in_style
def reliability_diagram(
    evaluations: Evaluation | Mapping[str, Evaluation], n_bins: int = 10, ax: Axes | None = None
) -> Figure:
    """Draw how often answers are right, by how sure they are.

    Parameters
    ----------
    evaluations : Evaluation, or mapping of str to Evaluation
        Up to three, such as before and after temperature scaling, under their names.
    n_bins : int
        See `calibration.reliability`.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Figure
        A marker for each bin that is not empty, its area in proportion to the images; the legend
        gives the expected calibration error (ECE).

    Raises
    ------
    InvalidParameter
        If there is none, or more than three.
    """
    evaluations = _by_name(evaluations, Evaluation)
    figure, ax = axes_of(ax, (WIDTH, WIDTH * 0.5))
    ax.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1, label="calibrated")
    for (name, evaluation), style in zip(evaluations.items(), _SERIES, strict=False):
        color, marker, line = style
        bins = calibration.reliability(evaluation, n_bins).dropna()
        error = calibration.expected_calibration_error(evaluation, n_bins)
        label = f"{name}\nECE {error:.3f} (n = {evaluation.n_images:,})"
        ax.plot(bins["confidence"], bins["accuracy"], color=color, linestyle=line, linewidth=1.2)
        ax.scatter(
            bins["confidence"],
            bins["accuracy"],
            s=12 + 240 * bins["n_images"] / evaluation.n_images,
            color=color,
            marker=marker,
            alpha=0.85,
        )
        ax.plot([], [], color=color, marker=marker, linestyle=line, label=label)
    ax.set(xlabel="Confidence: probability of the answer", ylabel="Accuracy")
    _finish(ax, "How sure, and how often right; marker area: images")
    return figure


@in_style
def risk_coverage(
    curves: RiskCoverage | Mapping[str, RiskCoverage],
    chosen: Abstention | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Draw the error rate among the surest images, for every number of them.

    Parameters
    ----------
    curves : RiskCoverage, or mapping of str to RiskCoverage
        Up to three, such as validation and TEST, under their names.
    chosen : Abstention, optional
        A threshold: marked on each curve, beside the wanted error rate.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Figure

    Raises
    ------
    InvalidParameter
        If there is no curve, or more than three.
    """
    curves = _by_name(curves, RiskCoverage)
    figure, ax = axes_of(ax, (WIDTH, WIDTH * 0.5))
    for (name, curve), (color, marker, line) in zip(curves.items(), _SERIES, strict=False):
        label = f"{name}\narea {curve.area:.3f} (n = {curve.n_images:,})"
        ax.plot(curve.coverage, curve.risk, color=color, linestyle=line, label=label)
        if chosen is not None:
            answered = np.flatnonzero(curve.threshold >= chosen.threshold)
            if answered.size:
                at = answered[-1]
                ax.plot(curve.coverage[at], curve.risk[at], marker, color=color, markersize=9)
    if chosen is not None:
        wanted = f"wanted error {chosen.wanted_error:.0%}"
        if not chosen.attainable:
            wanted += ": out of reach"
        ax.axhline(chosen.wanted_error, color=GREY, linestyle=":", linewidth=1, label=wanted)
        if chosen.attainable:
            label = f"threshold {chosen.threshold:.3f}"
            ax.plot([], [], "D", color=GREY, markersize=7, fillstyle="none", label=label)
    ax.set(xlabel="Coverage: part of the images answered", ylabel="Risk: part of answers wrong")
    _finish(ax, "What is gained by answering only when sure")
    highest = max(float(curve.risk.max()) for curve in curves.values())
    ax.set_ylim(-0.02, min(1.02, max(highest * 1.15, 0.1)))
    return figure


@in_style
def score_intervals(
    table: pd.DataFrame,
    n_images: int,
    n_photographs: int,
    confidence: float = 0.95,
    ax: Axes | None = None,
) -> Figure:
    """Draw each score with its interval by image and by photograph.

    Parameters
    ----------
    table : DataFrame
        As `uncertainty.intervals` returns it, or some rows of it.
    n_images, n_photographs : int
        That it rests on.
    confidence : float
        That the intervals were made for, 0–1.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Figure
        A row for each score; a score without an interval is a dot alone.
    """
    require(table, ("value", "naive_low", "naive_high", "low", "high"), "table of intervals")
    figure, ax = axes_of(ax, (WIDTH, 1.3 + 0.42 * len(table)))
    kinds = {
        f"taking images as independent (n = {n_images:,})": ("naive_", _NAIVE, -0.16),
        f"by photograph (n = {n_photographs:,})": ("", _HONEST, 0.16),
    }
    rows = np.arange(len(table))
    for label, (prefix, (color, marker, _), shift) in kinds.items():
        ax.hlines(rows + shift, table[f"{prefix}low"], table[f"{prefix}high"], color, linewidth=2.5)
        ax.plot(table["value"], rows + shift, marker, color=color, markersize=6)
        ax.plot([], [], color=color, marker=marker, linewidth=2.5, label=label)
    ax.set_yticks(rows, [_SCORE_NAMES.get(name, name) for name in table.index])
    ax.set_ylim(len(table) - 0.5, -0.5)
    lowest = np.nanmin(table[["value", "naive_low", "low"]].to_numpy(float), initial=0)
    ax.set_xlim(min(0.0, lowest) - 0.02, 1.02)
    ax.set_xlabel(f"Score with {confidence:.0%} interval")
    ax.set_title("How far a score could be off")
    ax.grid(axis="x")
    # Below the axis label, where it covers no interval.
    ax.legend(loc="upper left", bbox_to_anchor=(0, 0), borderaxespad=4, ncols=2)
    return figure


@in_style
def conformal_coverage(measured: pd.DataFrame) -> Figure:
    """Draw promised against measured coverage of conformal sets, and their size.

    Parameters
    ----------
    measured : DataFrame
        As `abstention.coverage_by_rate` returns it.

    Returns
    -------
    Figure
        Left coverage, right mean size; below the dotted line a promise is broken.
    """
    columns = ("wanted", "cell_type", "n_images", "coverage", "mean_size")
    require(measured, columns, "table of conformal sets")
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 4.2))
    for name in [*cells.NAMES, "all"]:
        rows = measured[measured["cell_type"] == name].dropna().sort_values("wanted")
        if rows.empty:
            continue
        color, marker = "black", "*"
        if name != "all":
            color, marker = cells.BY_NAME[name].color, cells.BY_NAME[name].marker
        style = {"color": color, "marker": marker, "linewidth": 2.4 if name == "all" else 1.2}
        label = f"{name} (n = {rows['n_images'].iloc[0]:,.0f})"
        left.plot(rows["wanted"], rows["coverage"], label=label, **style)
        right.plot(rows["wanted"], rows["mean_size"], **style)
    wanted = [measured["wanted"].min(), measured["wanted"].max()]
    left.plot(wanted, wanted, color=GREY, linestyle=":", linewidth=1.4, label="as promised")
    left.set(title="Sets that hold the true type", ylabel="Measured coverage")
    left.set_ylim(min(measured["coverage"].min(), wanted[0]) - 0.05, 1.02)
    left.yaxis.set_major_formatter(PercentFormatter(1))
    right.set(title="Size of the sets", ylabel="Mean number of types", ylim=(-0.1, 4.1))
    for ax in (left, right):
        ax.set_xlabel("Promised coverage")
        ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        ax.grid()
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def _by_name(results: object, kind: type) -> Mapping[str, object]:
    """Results by name, one to as many as there are styles."""
    by_name = {"this run": results} if isinstance(results, kind) else dict(results)
    if not 1 <= len(by_name) <= len(_SERIES):
        raise InvalidParameter(
            f"{len(by_name)} results cannot be drawn beside each other. Expected 1 to "
            f"{len(_SERIES)}."
        )
    return by_name


def _finish(ax: Axes, title: str) -> None:
    ax.set(title=title, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    ax.xaxis.set_major_formatter(PercentFormatter(1))
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    # Outside, for a curve can run anywhere inside; below where the axes has neighbours.
    alone = len(ax.figure.axes) == 1
    anchor, padding = ((1, 1), 1) if alone else ((0, 0), 4)
    ax.legend(loc="upper left", bbox_to_anchor=anchor, borderaxespad=padding)
    ax.grid()
