"""Figures of a network's learning and evaluation, and of counts.

Which types are told apart, how far that can be relied on, and how it came about; how well cells are
found and counted, and what a differential says.
"""

from collections.abc import Mapping
from itertools import cycle
from typing import TypeVar, cast

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import (
    LogLocator,
    MaxNLocator,
    NullFormatter,
    PercentFormatter,
    ScalarFormatter,
)

from wbc_helpers import cells
from wbc_helpers.count.differential import Differential
from wbc_helpers.errors import InvalidParameter
from wbc_helpers.evaluate import confidence
from wbc_helpers.evaluate.classification import Evaluation
from wbc_helpers.evaluate.confidence import Abstention, RiskCoverage
from wbc_helpers.evaluate.detection import DetectionScores, count_agreement
from wbc_helpers.figures.images import montage
from wbc_helpers.figures.style import (
    GREY,
    UNDEFINED,
    WIDTH,
    axes_of,
    bars_by_type,
    in_lines,
    in_style,
    require,
    say,
    say_what_is_seen,
    training_and_validation,
    write_title,
)
from wbc_helpers.report.pages import INK, PAPER

_SCORES = {"precision": "Precision", "recall": "Recall", "f1": "F1"}


_PURPLE = "#5f3b97"
_DARK = 0.7  # share from which white is easier to read on that purple than the page's ink


@in_style
def confusion(evaluation: Evaluation, ax: Axes | None = None) -> Figure:
    """Confusion matrix: images by true type (row) and answer (column), and per cent of the row.

    From the colour of the page to purple, by that share.
    """
    figure, ax = axes_of(ax, (WIDTH, WIDTH * 0.8))
    counts, rates = (
        matrix.to_numpy(float) for matrix in (evaluation.confusion, evaluation.confusion_rates)
    )
    for (row, column), rate in np.ndenumerate(rates):
        defined = not np.isnan(rate)
        square = Rectangle((column - 0.5, row - 0.5), 1, 1, edgecolor=PAPER, linewidth=2)
        square.set_facecolor((_PURPLE, rate) if defined else UNDEFINED)
        ax.add_patch(square)
        share = f"{rate:.0%}" if defined else "–"
        color = "white" if defined and rate >= _DARK else INK
        text = f"{counts[row, column]:,.0f}\n{share}"
        ax.text(column, row, text, ha="center", va="center", color=color)
    n_types = len(cells.NAMES)
    ax.set(xlim=(-0.5, n_types - 0.5), ylim=(n_types - 0.5, -0.5))
    ax.set_xticks(range(n_types), cells.NAMES)
    ax.set_yticks(range(n_types), cells.NAMES)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    title = f"Images, and per cent of the true type (n = {evaluation.n_images:,})"
    ax.set(xlabel="Predicted", ylabel="True", title=title)
    wrong = np.where(np.eye(n_types, dtype=bool), 0, counts)
    true, predicted = np.unravel_index(wrong.argmax(), wrong.shape)
    mistaken = (
        f"Most often mistaken: {wrong[true, predicted]:,.0f} of {counts[true].sum():,.0f} "
        f"{cells.NAMES[true]}s were called {cells.NAMES[predicted]}s."
        if wrong.any()
        else "None was mistaken."
    )
    say_what_is_seen(figure, f"Right answers on the diagonal, mistakes beside it. {mistaken}")
    return figure


@in_style
def roc_curves(evaluation: Evaluation, ax: Axes | None = None) -> Figure:
    """Receiver operating characteristic of each cell type against the rest."""
    figure, ax = axes_of(ax, (WIDTH, WIDTH))
    for name in cells.NAMES:
        curve = evaluation.roc(name)
        score = "undefined" if curve.auc is None else f"AUC {curve.auc:.3f}"
        _curve(ax, name, curve.false_positive_rate, curve.true_positive_rate, score, evaluation)
    ax.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1, label="guessing")
    ax.set(xlabel="False positive rate", ylabel="True positive rate (recall)")
    _finish(ax, f"ROC, each type against the rest (n = {evaluation.n_images:,})", in_percent=False)
    areas = {name: evaluation.roc(name).auc for name in cells.NAMES}
    _say_worst(figure, areas, "The nearer a curve comes to the upper left corner, the better")
    return figure


@in_style
def precision_recall_curves(evaluation: Evaluation, ax: Axes | None = None) -> Figure:
    """Precision against recall of each type against the rest; dotted, that of guessing."""
    figure, ax = axes_of(ax, (WIDTH, WIDTH))
    for cell_type in cells.CELL_TYPES:
        curve = evaluation.precision_recall(cell_type.name)
        if curve.average_precision is None:
            score = "undefined"
        else:
            score = f"AP {curve.average_precision:.3f}"
            ax.axhline(curve.prevalence, color=cell_type.color, linestyle=":", linewidth=1)
        # scikit-learn orders by falling recall, which would begin the markers at the right.
        _curve(ax, cell_type.name, curve.recall[::-1], curve.precision[::-1], score, evaluation)
    ax.plot([], [], color=GREY, linestyle=":", linewidth=1, label="guessing")
    ax.set(xlabel="Recall", ylabel="Precision")
    _finish(ax, f"Precision and recall (n = {evaluation.n_images:,})", in_percent=False)
    averages = {name: evaluation.precision_recall(name).average_precision for name in cells.NAMES}
    _say_worst(figure, averages, "The longer a curve stays at the top, the better")
    return figure


def _say_worst(figure: Figure, scores: Mapping[str, float | None], reading: str) -> None:
    """Caption curves by how to read them, and which is the worst."""
    defined = {name: score for name, score in scores.items() if score is not None}
    worst = min(defined, key=defined.__getitem__, default=None)
    told = "" if worst is None else f"; lowest is that of {worst}s, {defined[worst]:.3f}"
    say_what_is_seen(figure, f"{reading}{told}.")


def _curve(
    ax: Axes, name: str, x: np.ndarray, y: np.ndarray, score: str, evaluation: Evaluation
) -> None:
    """One cell type's curve, with a few markers at places of its own."""
    cell_type = cells.BY_NAME[name]
    n_images = evaluation.per_class["n_images"][name]
    ax.plot(
        x,
        y,
        color=cell_type.color,
        marker=cell_type.marker,
        markevery=(0.03 + 0.04 * cells.NAMES.index(name), 0.16),
        label=f"{name}, {score} (n = {n_images:,})",
    )


def _finish(ax: Axes, title: str, in_percent: bool = True) -> None:
    """Frame curves between 0 and 1, with the legend where it hides none."""
    ax.set(title=in_lines(title), xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    if in_percent:
        ax.xaxis.set_major_formatter(PercentFormatter(1))
        ax.yaxis.set_major_formatter(PercentFormatter(1))
    # Below the axes, for a curve can run anywhere inside, with room for the axis label.
    ax.legend(loc="upper left", bbox_to_anchor=(0, 0), borderaxespad=4)
    ax.grid()


@in_style
def per_class_scores(evaluation: Evaluation) -> Figure:
    """Precision, recall and F1 of each cell type."""
    scores = evaluation.per_class
    figure, panels = plt.subplots(len(_SCORES), 1, figsize=(WIDTH, 5), sharex=True)
    for ax, (score, name) in zip(panels, _SCORES.items(), strict=True):
        labels = ["undefined" if np.isnan(value) else f"{value:.2f}" for value in scores[score]]
        bars_by_type(ax, scores[score], labels)
        ax.set(title=name, xlim=(0, 1.15), xticks=(0, 0.5, 1))
        named = [f"{name} (n = {n:,})" for name, n in scores["n_images"].items()]
        ax.set_yticks(range(len(scores)), named)
    write_title(figure, f"Scores by cell type (n = {evaluation.n_images:,})")
    lowest = scores["recall"].dropna()
    told = f": of {lowest.idxmin()}s, {lowest.min():.0%}" if len(lowest) else ""
    say_what_is_seen(
        figure,
        "How many answers of a type are right (precision), and how many of its cells are found "
        f"(recall{told} at worst).",
    )
    return figure


@in_style
def mistakes(wrong: pd.DataFrame) -> Figure:
    """Montage of `classification.most_confident_mistakes`; without any, a figure that says so."""
    columns = ("path", "cell_type", "predicted", "probability", "true_probability")
    if wrong.empty:
        return say("No mistakes (n = 0)")
    require(wrong, columns, "mistakes")
    titles = [
        f"called {row.predicted} {row.probability:.0%}\n"
        f"is {row.cell_type} {row.true_probability:.0%}"
        for row in wrong.itertuples()
    ]
    figure = montage(wrong["path"], titles, 3, title="Most confident mistakes")
    surest = wrong.iloc[0]
    say_what_is_seen(
        figure,
        f"Wrong answers, the surest first: a {surest['cell_type']} called {surest['predicted']} "
        f"with {surest['probability']:.0%}. Behind each type its probability.",
    )
    return figure


@in_style
def paper_beside_ours(
    evaluations: Evaluation | Mapping[str, Evaluation],
    paper_claim: float = 0.90,
    ax: Axes | None = None,
    intervals: Mapping[str, pd.DataFrame] | None = None,
) -> Figure:
    """Accuracy that the paper says it exceeds, beside that of evaluations under their names.

    Dots with 95 % intervals, by photograph where `intervals` has them under the same names, see
    `uncertainty.intervals`; else naive, see `Evaluation.accuracy_interval`.
    """
    if isinstance(evaluations, Evaluation):
        evaluations = {"ours": evaluations}
    figure, ax = axes_of(ax, (WIDTH, 1.9 + 0.5 * len(evaluations)))
    ax.barh(0, 1 - paper_claim, left=paper_claim, height=0.5, color=GREY, alpha=0.5)
    ax.text(paper_claim - 0.015, 0, f"over {paper_claim:.0%}", ha="right", va="center")
    for row, (name, ours) in enumerate(evaluations.items(), start=1):
        low, high = ours.accuracy_interval
        if intervals is not None:
            low, high = intervals[name].loc[["accuracy"], ["low", "high"]].to_numpy()[0]
        ax.plot([low, high], [row, row], color=INK, solid_capstyle="butt")
        ax.plot(ours.accuracy, row, "o", color=INK, markersize=8)
        ax.annotate(
            f"{ours.accuracy:.1%}",
            (ours.accuracy, row),
            (0, 9),
            textcoords="offset points",
            ha="center",
        )
    chance = 1 / len(cells.NAMES)
    ax.axvline(chance, color=GREY, linestyle=":")
    ax.text(chance + 0.01, 0, "guessing", color=GREY, va="center")
    labels = [f"{name} (n = {ours.n_images:,})" for name, ours in evaluations.items()]
    ax.set_yticks(range(len(labels) + 1), ["the paper", *labels])
    ax.set_ylim(len(labels) + 0.5, -0.5)
    ax.set_xlim(0, 1)
    ax.xaxis.set_major_formatter(PercentFormatter(1))
    naive = "naive 95% interval,\nimages taken as independent"
    lines = naive if intervals is None else "95% interval,\nphotographs drawn anew"
    ax.set_xlabel(f"Accuracy; lines: {lines}")
    ax.set_title("The paper's test accuracy beside ours")
    ours_in_words = ", ".join(f"{name} {one.accuracy:.1%}" for name, one in evaluations.items())
    say_what_is_seen(figure, f"The paper says over {paper_claim:.0%}; here {ours_in_words}.")
    ax.grid(axis="x")
    return figure


@in_style
def validation_beside_test(results: pd.DataFrame, paper_claim: float = 0.90) -> Figure:
    """Accuracy on validation images beside that on TEST, a row for each kind of run.

    A kind is a recipe, a number of epochs and a split; each seed has a dot.

    Parameters
    ----------
    results : DataFrame
        One row a run: `recipe`, `epochs`, `split` (how validation images were chosen), `seed`,
        `n` (TEST images), `validation` and `accuracy` (on TEST), both 0–1.
    paper_claim : float
        The accuracy that the paper says it exceeds, 0–1.
    """
    require(results, ("recipe", "epochs", "split", "seed", "n", "validation", "accuracy"), "table")
    groups = list(results.groupby(["recipe", "epochs", "split"]))
    figure, ax = axes_of(None, (WIDTH, 1.7 + 0.85 * len(groups)))
    ax.axvspan(paper_claim, 1, color=GREY, alpha=0.3)
    ax.text(0.995, -0.62, f"the paper: over {paper_claim:.0%}", ha="right", va="center")
    shades = {"validation": ("#0072B2", "s", -0.14), "accuracy": ("#D55E00", "o", 0.14)}
    names = {"validation": "validation images", "accuracy": f"TEST (n = {results['n'].max():,})"}
    for row, (_, group) in enumerate(groups):
        for column, (color, marker, shift) in shades.items():
            values = group[column]
            label = names[column] if row == 0 else None
            heights = [row + shift] * len(values)
            ax.plot(values, heights, marker, color=color, label=label, markersize=8, alpha=0.75)
            ax.annotate(
                f"{values.mean():.0%}",
                (values.min(), row + shift),
                (-9, 0),
                textcoords="offset points",
                ha="right",
                va="center",
                color=color,
            )
    ax.axvline(1 / len(cells.NAMES), color=GREY, linestyle=":")
    ax.text(1 / len(cells.NAMES) + 0.008, -0.62, "guessing", color=GREY, va="center")
    ax.set_yticks(
        range(len(groups)),
        [
            f"{recipe}, {epochs} epochs\nvalidation: {split}\n"
            f"n = {len(group)} seed{'s' if len(group) > 1 else ''}"
            for (recipe, epochs, split), group in groups
        ],
    )
    ax.set(xlim=(0.2, 1), ylim=(len(groups) - 0.4, -0.9), xlabel="Accuracy; a dot for each seed")
    ax.xaxis.set_major_formatter(PercentFormatter(1))
    write_title(figure, "What validation promises, and what TEST shows")
    gaps = results.groupby("split")[["validation", "accuracy"]].mean()
    say_what_is_seen(
        figure,
        "; ".join(
            f"validation, {split}: promised {row['validation']:.0%}, on TEST {row['accuracy']:.0%}"
            for split, row in gaps.iterrows()
        )
        + ".",
    )
    figure.legend(loc="outside lower center", ncols=2)
    ax.grid(axis="x")
    return figure


Result = TypeVar("Result", Evaluation, RiskCoverage)
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
    evaluations: Evaluation | Mapping[str, Evaluation], ax: Axes | None = None
) -> Figure:
    """Draw how often answers are right, by how sure they are, in ten bins.

    A marker for each bin that is not empty, its area in proportion to the images; the legend
    gives the expected calibration error (ECE). Up to three evaluations, such as before and after
    temperature scaling, under their names; of more or none, InvalidParameter.
    """
    by_name = _by_name(evaluations, Evaluation)
    figure, ax = axes_of(ax, (WIDTH, WIDTH))
    ax.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1, label="calibrated")
    for (name, evaluation), style in zip(by_name.items(), _SERIES, strict=False):
        color, marker, line = style
        bins = confidence.reliability(evaluation).dropna()
        error = confidence.expected_calibration_error(evaluation)
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
    errors = ", ".join(
        f"{name}: {confidence.expected_calibration_error(evaluation):.3f}"
        for name, evaluation in by_name.items()
    )
    say_what_is_seen(
        figure,
        "Below the diagonal a network is surer than it is right, above it less sure. Mean "
        f"distance, {errors}.",
    )
    return figure


@in_style
def risk_coverage(
    curves: RiskCoverage | Mapping[str, RiskCoverage],
    chosen: Abstention | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Draw the error rate among the surest images, for every number of them.

    Up to three curves, such as validation and TEST, under their names; of more or none,
    InvalidParameter. A `chosen` threshold is marked on each, beside the wanted error rate.
    """
    by_name = _by_name(curves, RiskCoverage)
    figure, ax = axes_of(ax, (WIDTH, WIDTH * 0.95))
    for (name, curve), (color, marker, line) in zip(by_name.items(), _SERIES, strict=False):
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
    highest = max(float(curve.risk.max()) for curve in by_name.values())
    ax.set_ylim(-0.02, min(1.02, max(highest * 1.15, 0.1)))
    in_words = ", ".join(f"{name} {float(curve.risk[-1]):.0%}" for name, curve in by_name.items())
    say_what_is_seen(
        figure,
        f"Wrong answers if all are answered: {in_words}; the further left, the fewer are answered.",
    )
    return figure


@in_style
def score_intervals(
    table: pd.DataFrame, n_images: int, n_photographs: int, ax: Axes | None = None
) -> Figure:
    """Draw each score with its 95 % interval by image and by photograph.

    `table` is as `uncertainty.intervals` returns it, or some rows of it; a score without an
    interval is a dot alone.
    """
    require(table, ("value", "naive_low", "naive_high", "low", "high"), "table of intervals")
    figure, ax = axes_of(ax, (WIDTH, 1.6 + 0.42 * len(table)))
    kinds = {
        f"by image, as if independent (n = {n_images:,})": ("naive_", _NAIVE, -0.16),
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
    ax.set_xlabel("Score with 95% interval")
    ax.set_title("How far a score could be off")
    ax.grid(axis="x")
    # Below the axis label, where it covers no interval; to the left, for names of scores are long.
    ax.legend(loc="upper right", bbox_to_anchor=(1, 0), borderaxespad=4)
    first = table.iloc[0]
    say_what_is_seen(
        figure,
        f"{_SCORE_NAMES.get(str(table.index[0]), str(table.index[0])).capitalize()}, for one, is "
        f"{first['value']:.1%}: by photograph it could be {first['low']:.1%} to "
        f"{first['high']:.1%}, the wider bar.",
    )
    return figure


@in_style
def conformal_coverage(measured: pd.DataFrame) -> Figure:
    """Draw promised against measured coverage of conformal sets (left), and their size (right).

    Below the dotted line a promise is broken. For the table see `confidence.coverage_by_rate`.
    """
    columns = ("wanted", "cell_type", "n_images", "coverage", "mean_size")
    require(measured, columns, "table of conformal sets")
    figure, (left, right) = plt.subplots(2, 1, figsize=(WIDTH, 7.2))
    for name in [*cells.NAMES, "all"]:
        rows = measured[measured["cell_type"] == name].dropna().sort_values("wanted")
        if rows.empty:
            continue
        color, marker = INK, "*"
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
    left.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    right.set(title="Size of the sets", ylabel="Mean number of types", ylim=(-0.1, 4.1))
    for ax in (left, right):
        ax.set_xlabel("Promised coverage")
        ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        ax.grid()
    figure.legend(loc="outside lower center", ncols=2)
    of_all = measured[measured["cell_type"] == "all"].sort_values("wanted")
    if len(of_all):
        promise = of_all.iloc[-1]
        say_what_is_seen(
            figure,
            f"Below the dotted line a promise is broken. Of sets that promise "
            f"{promise['wanted']:.0%}, {promise['coverage']:.0%} hold the true type, with "
            f"{promise['mean_size']:.1f} types each.",
        )
    return figure


def _by_name(results: Result | Mapping[str, Result], kind: type[Result]) -> dict[str, Result]:
    """Results by name, one to as many as there are styles."""
    by_name = {"this run": results} if isinstance(results, kind) else dict(cast(Mapping, results))
    if not 1 <= len(by_name) <= len(_SERIES):
        raise InvalidParameter(
            f"{len(by_name)} results cannot be drawn beside each other. Expected 1 to "
            f"{len(_SERIES)}."
        )
    return by_name


# How a network learned


@in_style
def accuracy_by_seconds(
    curves: Mapping[str, pd.Series], n_images: int, ax: Axes | None = None
) -> Figure:
    """Draw how fast recipes learn: accuracy on `n_images` validation images by seconds.

    Parameters
    ----------
    curves : mapping of str to Series of float
        By name of the recipe: accuracy (0–1) after each epoch, by seconds since the start.

    Raises
    ------
    InvalidParameter
        If there is no curve, or one is empty.
    """
    if not curves or any(curve.empty for curve in curves.values()):
        raise InvalidParameter(
            f"There are {len(curves)} curves to draw, and not every one has a point. Expected at "
            "least one epoch of at least one recipe."
        )
    figure, ax = axes_of(ax, (WIDTH, 4))
    styles = cycle(zip(("#0072B2", "#D55E00", "#595959", "#009E73"), "o^sD", strict=True))
    for (name, curve), (color, marker) in zip(curves.items(), styles, strict=False):
        ax.plot(curve.index, curve, color=color, marker=marker, markersize=4, label=name)
    title = f"How fast recipes learn (n = {n_images:,} images of other photographs)"
    ax.set_title(in_lines(title))
    ax.set_xlabel("seconds of training")
    ax.set_ylabel("accuracy")
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.set_xlim(left=0)
    ends = ", ".join(f"{name} {curve.iloc[-1]:.0%}" for name, curve in curves.items())
    say_what_is_seen(figure, f"Accuracy on photographs not trained on, at the end: {ends}.")
    ax.grid()
    ax.legend(loc="lower right")
    return figure


@in_style
def learning_curves(history: pd.DataFrame, validation_name: str = "validation") -> Figure:
    """Loss and accuracy by epoch; a loss that diverged is left out.

    Parameters
    ----------
    history : DataFrame
        One row an epoch: `epoch` (from 1), `loss`, `accuracy`, `val_loss`, `val_accuracy`.
    validation_name : str
        What the validation part is, for the legend.
    """
    require(history, ("epoch", "loss", "accuracy", "val_loss", "val_accuracy"), "history")
    figure, panels = plt.subplots(2, 1, figsize=(WIDTH, 5.6))
    for ax, measure in zip(panels, ("loss", "accuracy"), strict=True):
        training_and_validation(ax, history, measure, ("training", validation_name), 30)
        ax.set_title(measure.capitalize())
    # A loss that diverged is NaN or infinite, which is no limit for an axis.
    losses = history[["loss", "val_loss"]].to_numpy(float)
    panels[0].set_ylim(0, 1.08 * max(losses[np.isfinite(losses)], default=1.0))
    panels[1].set_ylim(0, 1.02)
    panels[1].yaxis.set_major_formatter(PercentFormatter(1))
    panels[1].axhline(1 / len(cells.NAMES), color=GREY, linestyle=":", label="guessing")
    figure.legend(*panels[1].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    epochs = "1 epoch" if len(history) == 1 else f"{len(history):,} epochs"
    last = history["val_accuracy"].iloc[-1]
    write_title(figure, f"Learning curves (n = {epochs}; last validation accuracy {last:.1%})")
    say_what_is_seen(
        figure,
        f"Loss above, accuracy below. After {epochs}: {history['accuracy'].iloc[-1]:.1%} on the "
        f"images trained on, {last:.1%} on {validation_name}.",
    )
    return figure


# Of a detector, and of what was counted


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


def _on_paper(look: cells.Kind) -> str:
    """Colour of a kind where no photograph is behind it: black would not be seen on dark pages."""
    return INK if look.color == "#000000" else look.color


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
