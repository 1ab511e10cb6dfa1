"""The pages of a run, and the overview of all runs.

A page needs no other file and no network: style, pictures and curves are inside it, it carries no
script, and its content-security policy forbids every request. The same input gives the same bytes.
"""

import functools
import io
import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import matplotlib.style
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, PercentFormatter

from wbc_helpers.errors import BrokenRun, RunNotFound
from wbc_helpers.report.notebooks import notebook_body
from wbc_helpers.report.pages import environment, refuse_foreign, write_page
from wbc_helpers.report.records import RunRecord, look_up, number, read_run
from wbc_helpers.runs.folders import DETECTORS

_FILES = ("settings.json", "history.csv", "split.csv", "evaluation.json", "model.keras")
_KINDS = {False: "real", True: "drawn", None: "unknown"}
_MEASURES = ("accuracy", "loss")


def render_run(run_folder: str | Path) -> Path:
    """Render a run folder: a page for each executed notebook, and `index.html`.

    Works for runs in any state, among them one whose last notebook failed; the pages say so and
    link to the cell. Render the overview afterwards, since the pages link back to it.

    Parameters
    ----------
    run_folder : path
        Its `0*.ipynb` become pages of the same names.

    Returns
    -------
    Path
        The run's `index.html`.

    Raises
    ------
    RunNotFound
        If there is no such folder.
    BrokenRun
        If the folder holds nothing of a run.
    PageExists
        If a page of that name exists that was not written here.
    ReadOnlyFolder, NoSpaceLeft
        If a page cannot be written; those written before are complete.
    """
    run = read_run(run_folder)
    index = run.folder / "index.html"
    targets = [run.folder / f"{notebook.name}.html" for notebook in run.notebooks]
    refuse_foreign([*targets, index])
    neighbours = (None, *run.notebooks, None)
    template = _environment().get_template("notebook_page.html.j2")
    for position, (notebook, target) in enumerate(zip(run.notebooks, targets, strict=True)):
        page = template.render(
            run=run,
            notebook=notebook,
            before=neighbours[position],
            after=neighbours[position + 2],
            body=notebook_body(notebook, run),
        )
        write_page(target, page)
    files = [name for name in _FILES if (run.folder / name).is_file()]
    template = _environment().get_template("run.html.j2")
    return write_page(index, template.render(run=run, panels=_run_panels(run), files=files))


def render_overview(runs_dir: str | Path) -> Path:
    """Render `index.html` over all runs: scores, state and learning curves side by side.

    Runs on photographs, on drawn cells and on data of unknown origin stand in tables and figures of
    their own, newest first. Folders that are no runs are listed as such. Raises what `render_run`
    does, but for `BrokenRun`.
    """
    runs_dir = Path(runs_dir).expanduser().absolute()
    if not runs_dir.is_dir():
        raise RunNotFound(f"There is no folder of runs {runs_dir}. `make run` makes one.")
    target = runs_dir / "index.html"
    refuse_foreign([target])
    runs: list[RunRecord] = []
    others: list[tuple[str, str]] = []
    for folder in sorted(runs_dir.iterdir()):
        # Runs of detectors have pages of their own kind.
        if not folder.is_dir() or folder.name.startswith(".") or folder.name == DETECTORS:
            continue
        try:
            run = read_run(folder)
        except BrokenRun:
            others.append((folder.name, "neither executed notebooks nor records of a run"))
        except OSError as error:
            others.append((folder.name, f"cannot be read: {error.strerror or error}"))
        else:
            if run.state == "unreadable":
                others.append((folder.name, " ".join(run.problems)))
            else:
                runs.append(run)
    runs.sort(key=lambda run: run.created or datetime.min.replace(tzinfo=UTC), reverse=True)
    groups = [_group(kind, [run for run in runs if run.drawn is kind]) for kind in _KINDS]
    template = _environment().get_template("overview.html.j2")
    page = template.render(
        groups=[group for group in groups if group["runs"]],
        n_runs=len(runs),
        n_drawn=sum(run.drawn is True for run in runs),
        others=others,
    )
    return write_page(target, page)


def _group(drawn: bool | None, runs: Sequence[RunRecord]) -> dict[str, Any]:
    """Everything the overview shows of the runs on one kind of data."""

    def best_first(score: str) -> list[RunRecord]:
        scores = {run.name: number(run.evaluation, "test", score) for run in runs}
        # Without a score last, after a score of 0.
        return sorted(runs, key=lambda run: (scores[run.name] is None, -(scores[run.name] or 0)))

    orders = {
        "newest": runs,
        "name": sorted(runs, key=lambda run: run.name.casefold()),
        "accuracy": best_first("accuracy"),
        "balanced": best_first("balanced_accuracy"),
        "f1": best_first("macro_f1"),
    }
    ranks: dict[str, dict[str, int]] = {run.name: {} for run in runs}
    for order, ordered in orders.items():
        for place, run in enumerate(ordered):
            ranks[run.name][order] = place
    trained = [run for run in runs if any(_finite(run, f"val_{key}") for key in _MEASURES)]
    styles = {
        run.name: (index + 1, *line_style(index)) for index, run in enumerate(trained[:MAX_CURVES])
    }
    panels = []
    for key in _MEASURES:
        lines = [
            Line(str(mark), run.history["epoch"], run.history[f"val_{key}"], color, dash)
            for run in trained[:MAX_CURVES]
            if _finite(run, f"val_{key}")
            for mark, color, dash in [styles[run.name]]
        ]
        if lines:
            panels.append(draw_panel(lines, f"{_KINDS[drawn]}-{key}", f"Validation {key}"))
    return {
        "kind": _KINDS[drawn],
        "runs": runs,
        "ranks": ranks,
        "styles": styles,
        "panels": panels,
        "n_trained": len(trained),
    }


def _finite(run: RunRecord, column: str) -> bool:
    return any(math.isfinite(value) for value in run.history.get(column, ()))


def _run_panels(run: RunRecord) -> list[Markup]:
    panels = []
    for key in _MEASURES:
        lines = [
            Line(label, run.history["epoch"], run.history[prefix + key], *line_style(style))
            for prefix, label, style in (("", "train", 1), ("val_", "val.", 0))
            if _finite(run, prefix + key)
        ]
        if lines:
            panels.append(draw_panel(lines, key, key.capitalize()))
    return panels


@functools.cache
def _environment() -> jinja2.Environment:
    own = environment()
    own.globals.update(
        number=number,
        has_page=lambda run: (run.folder / "index.html").is_file(),
        line_style=line_style,
        look_up=look_up,
        max_curves=MAX_CURVES,
    )
    return own


# Learning curves

# Readable on white and on near-black, and told apart by colour-blind readers.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#B5508F", "#9A7400", "#3A9BDC")
# Strokes and gaps in points; 4 dashes and 6 colours make 12 different lines.
_DASHES = ("", "6 2.5", "1.8 1.8", "8 2 2 2")
MAX_CURVES = 12
"""Runs drawn in one figure: as many as there are different lines."""

_INK, _GRID = "#010203", "#040506"


class Line(NamedTuple):
    """One curve: a short label, a value for each epoch (NaN leaves a gap), and how to draw it."""

    label: str
    epochs: Sequence[float]
    values: Sequence[float]
    color: str
    dash: str = ""


def line_style(index: int) -> tuple[str, str]:
    """Colour and dash of the line at an index; the first 12 all differ.

    Neighbours differ in both, so that colour is never the only difference.
    """
    return _COLORS[index % len(_COLORS)], _DASHES[index % len(_DASHES)]


def draw_panel(lines: Sequence[Line], name: str, title: str) -> Markup:
    """Draw values against epoch as an SVG element to put into a page.

    Text stays text and takes the page's font; ink and grid take the page's colours (the custom
    properties `--ink` and `--line`). The same lines give the same bytes.

    Parameters
    ----------
    lines : sequence of Line
        At least one. Lines without a finite value are left out.
    name : str
        Prefix of the element's ids, unique in the page.
    title : str
        What the values are; written above the panel. Those of an accuracy are shown in per cent.
    """
    lines = [line for line in lines if any(math.isfinite(value) for value in line.values)]
    style = {
        "svg.fonttype": "none",
        "svg.hashsalt": "wbc_helpers",
        "font.family": "sans-serif",
        "text.color": _INK,
        "text.parse_math": False,
        "axes.edgecolor": _GRID,
        "axes.labelcolor": _INK,
        "axes.spines.left": False,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": _GRID,
        "grid.linewidth": 0.7,
        "xtick.color": _INK,
        "ytick.color": _INK,
        "xtick.major.size": 0,
        "ytick.major.size": 0,
    }
    with matplotlib.style.context(["default", style]):
        figure = Figure(figsize=(5.2, 3.5))
        _draw(figure.add_axes((0.115, 0.145, 0.865, 0.745)), lines, "accuracy" in title.lower())
        figure.axes[0].set_title(title, loc="left", fontsize=11, fontweight="bold", pad=9)
        drawing = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(drawing, format="svg", transparent=True, metadata=nothing)
    element = drawing.getvalue()
    element = element[element.index("<svg") :]
    element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
    # Panels share a page: each has ids of its own.
    element = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", element)
    element = element.replace(_INK, "var(--ink)").replace(_GRID, "var(--line)")
    opening = f'<svg class="curve" role="img" aria-label="{escape(title)} against epoch"'
    return Markup(element.replace("<svg", opening, 1))


def _draw(axes: Axes, lines: Sequence[Line], percent: bool) -> None:
    finite = [value for line in lines for value in line.values if math.isfinite(value)]
    # A loss that starts in the hundreds would flatten everything after it.
    if not percent and finite and min(finite) > 0 and max(finite) > 20 * min(finite):
        axes.set_yscale("log")
        # Its own labels are written in TeX.
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    for line in lines:
        strokes = tuple(float(length) / 1.8 for length in line.dash.split())
        axes.plot(
            line.epochs,
            line.values,
            color=line.color,
            linewidth=1.8,
            linestyle=(0, strokes) if strokes else "solid",
            # A single epoch is a point, which a line would not show.
            marker="o" if len(line.epochs) == 1 else None,
            label=line.label,
        )
    axes.margins(x=0.02, y=0.06)
    axes.xaxis.set_major_locator(
        MaxNLocator(nbins=7, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1)
    )
    axes.set_xlabel("epoch")
    if percent:
        axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    if lines:
        axes.legend(ncols=math.ceil(len(lines) / 4), fontsize=9, framealpha=0, handlelength=3)
