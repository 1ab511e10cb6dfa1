"""Executed notebooks and run folders as self-contained HTML pages.

A page needs no other file and no network: style, pictures and curves are inside it, it carries no
script, and its content-security policy forbids every request. The same input gives the same bytes.
"""

import copy
import functools
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jinja2
import nbformat
from markupsafe import Markup
from nbconvert.exporters import HTMLExporter
from traitlets.config import Config

from wbc_helpers import pages
from wbc_helpers.curves import COLORS, DASHES, Line, draw_panel, line_style
from wbc_helpers.errors import BrokenRun, RunNotFound
from wbc_helpers.markup import self_contained, terminal_text
from wbc_helpers.records import (
    STEPS,
    ExecutedNotebook,
    RunRecord,
    headings,
    look_up,
    number,
    read_run,
    readable_date,
)
from wbc_helpers.runs import DETECTORS

MAX_CURVES = 12
"""Runs drawn in one figure: as many as there are different lines."""
_KINDS = {False: "real", True: "drawn", None: "unknown"}
_MEASURES = (("accuracy", True), ("loss", False))
_PICTURES = ("image/png", "image/jpeg", "image/svg+xml")
_SHOWN = ["text/html", "text/markdown", *_PICTURES, "text/latex", "text/plain"]
_WIDGET = "application/vnd.jupyter.widget-view+json"


def render_run(run_folder: str | Path) -> Path:
    """Render a run folder: a page for each executed notebook, and `index.html`.

    Works for runs in any state, among them one whose last notebook failed; the pages say so and
    link to the cell. Render the overview afterwards, since the pages link back to it.

    Parameters
    ----------
    run_folder : path
        A run folder; its `0*.ipynb` become pages of the same names.

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
    targets = [run.folder / f"{notebook.name}.html" for notebook in run.notebooks]
    pages.refuse_foreign([*targets, run.folder / "index.html"])
    environment = _environment()
    for position, (notebook, target) in enumerate(zip(run.notebooks, targets, strict=True)):
        before = run.notebooks[position - 1] if position else None
        after = run.notebooks[position + 1] if position + 1 < len(run.notebooks) else None
        pages.write_page(
            target,
            environment.get_template("notebook_page.html.j2").render(
                run=run, notebook=notebook, before=before, after=after, body=_body(notebook, run)
            ),
        )
    files = ("settings.json", "history.csv", "split.csv", "evaluation.json", "model.keras")
    page = environment.get_template("run.html.j2").render(
        run=run, panels=_run_panels(run), files=[f for f in files if (run.folder / f).is_file()]
    )
    return pages.write_page(run.folder / "index.html", page)


def render_overview(runs_dir: str | Path) -> Path:
    """Render `index.html` over all runs: scores, state and learning curves side by side.

    Runs on photographs, on drawn cells and on data of unknown origin stand in tables and figures of
    their own, newest first. Folders that are no runs are listed as such.

    Parameters
    ----------
    runs_dir : path
        Folder that holds the run folders.

    Returns
    -------
    Path
        The overview's `index.html`.

    Raises
    ------
    RunNotFound
        If there is no such folder.
    PageExists
        If an `index.html` exists that was not written here.
    ReadOnlyFolder, NoSpaceLeft
        If the page cannot be written.
    """
    runs_dir = Path(runs_dir).expanduser().absolute()
    if not runs_dir.is_dir():
        raise RunNotFound(f"There is no folder of runs {runs_dir}. `make run` makes one.")
    target = runs_dir / "index.html"
    pages.refuse_foreign([target])
    runs: list[RunRecord] = []
    others: list[tuple[str, str]] = []
    for folder in sorted(runs_dir.iterdir()):
        # Runs of detectors have pages of their own kind.
        hidden = folder.name.startswith(".") or folder.name == DETECTORS
        if folder.is_dir() and not hidden:
            try:
                run = read_run(folder)
            except BrokenRun:
                others.append((folder.name, "neither executed notebooks nor records of a run"))
                continue
            except OSError as error:
                others.append((folder.name, f"cannot be read: {error.strerror or error}"))
                continue
            if run.state == "unreadable":
                others.append((folder.name, " ".join(run.problems)))
            else:
                runs.append(run)
    runs.sort(key=lambda run: run.created and str(readable_date(run.created)), reverse=True)
    groups = [_group(kind, [run for run in runs if run.drawn is kind]) for kind in _KINDS]
    page = (
        _environment()
        .get_template("overview.html.j2")
        .render(
            groups=[group for group in groups if group["runs"]],
            n_runs=len(runs),
            n_drawn=sum(run.drawn is True for run in runs),
            others=others,
        )
    )
    return pages.write_page(target, page)


def _group(drawn: bool | None, runs: Sequence[RunRecord]) -> dict[str, Any]:
    """Everything the overview shows of the runs on one kind of data."""
    orders = {
        "accuracy": lambda run: number(run.evaluation, "test", "accuracy"),
        "balanced": lambda run: number(run.evaluation, "test", "balanced_accuracy"),
        "f1": lambda run: number(run.evaluation, "test", "macro_f1"),
    }
    ranks = {run.name: {"newest": place} for place, run in enumerate(runs)}
    for place, run in enumerate(sorted(runs, key=lambda run: run.name.casefold())):
        ranks[run.name]["name"] = place
    for order, score in orders.items():
        known = {run.name: score(run) for run in runs}
        best_first = sorted(
            runs, key=lambda run: (known[run.name] is None, -(known[run.name] or 0))
        )
        for place, run in enumerate(best_first):
            ranks[run.name][order] = place
    trained = [run for run in runs if any(_finite(run, f"val_{key}") for key, _ in _MEASURES)]
    styles = {
        run.name: (index + 1, *line_style(index)) for index, run in enumerate(trained[:MAX_CURVES])
    }
    panels = []
    for key, percent in _MEASURES:
        lines = [
            Line(str(mark), run.history["epoch"], run.history[f"val_{key}"], color, dash)
            for run in trained[:MAX_CURVES]
            if _finite(run, f"val_{key}")
            for mark, color, dash in [styles[run.name]]
        ]
        if lines:
            name = f"{_KINDS[drawn]}-{key}"
            panels.append(Markup(draw_panel(lines, name, f"Validation {key}", percent)))
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
    parts = (("", "train", COLORS[1], DASHES[1]), ("val_", "val.", COLORS[0], DASHES[0]))
    panels = []
    for key, percent in _MEASURES:
        lines = [
            Line(label, run.history["epoch"], run.history[prefix + key], color, dash)
            for prefix, label, color, dash in parts
            if _finite(run, prefix + key)
        ]
        if lines:
            panels.append(Markup(draw_panel(lines, key, key.capitalize(), percent)))
    return panels


def _body(notebook: ExecutedNotebook, run: RunRecord) -> Markup:
    """Cells of a notebook as HTML that loads nothing."""
    if notebook.content is None:
        return Markup("")
    exporter = HTMLExporter(
        template_name="notebook",
        extra_template_basedirs=[str(pages.TEMPLATES)],
        config=Config(NbConvertBase={"display_data_priority": _SHOWN}),
        embed_images=True,
    )
    linked = {other.name for other in run.notebooks}
    exporter.register_filter("self_contained", lambda markup: self_contained(markup, linked))
    exporter.register_filter("terminal_text", terminal_text)
    exporter.register_filter("duration", pages.duration)
    resources = {"metadata": {"name": notebook.name, "path": str(run.folder)}}
    markup, _ = exporter.from_notebook_node(_annotated(notebook), resources)
    return Markup(markup)


def _annotated(notebook: ExecutedNotebook) -> nbformat.NotebookNode:
    """Copy of a notebook with what the template needs in each cell's `report` metadata."""
    content = copy.deepcopy(notebook.content)
    content.metadata.pop("widgets", None)
    heading, n_pictures = "", 0
    for index, cell in enumerate(content.cells):
        report = {"anchor": f"cell-{index}", "stopped": index == notebook.stopped_at}
        if cell.cell_type == "markdown":
            heading = next(iter([*headings(cell.source)][::-1]), heading)
        if cell.cell_type == "code":
            cell.outputs = _merged_streams(cell.outputs)
            report["seconds"] = number(cell.metadata, "papermill", "duration")
            report["n_lines"] = len(cell.source.strip().splitlines())
            if "injected-parameters" in cell.metadata.get("tags", []):
                report["parameters"] = notebook.parameters
            for output in cell.outputs:
                pictured = [kind for kind in _PICTURES if kind in output.get("data", {})]
                if pictured and not {"text/html", "text/markdown"} & set(output.data):
                    n_pictures += 1
                    described = look_up(output.metadata, pictured[0], "alt")
                    output.metadata["report"] = {
                        "number": n_pictures,
                        "caption": heading,
                        "alt": described or f"Figure {n_pictures}" + (heading and f": {heading}"),
                    }
        cell.metadata["report"] = report
    return content


def _merged_streams(outputs: Iterable[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """Join what was printed in pieces, and leave out what is empty or only for a live page."""
    merged: list[nbformat.NotebookNode] = []
    for output in outputs:
        last = merged[-1] if merged else {}
        if output.output_type == "stream" and last.get("name") == output.name:
            last.text += output.text
        else:
            merged.append(output)
    return [output for output in merged if _is_shown(output)]


def _is_shown(output: nbformat.NotebookNode) -> bool:
    if output.output_type == "stream":
        return bool(terminal_text(output.text))
    if output.output_type == "error":
        return True
    # A widget's text is that of its first moment: a finished bar would stand at 0 %.
    return _WIDGET not in output.data and any(kind in output.data for kind in _SHOWN)


@functools.cache
def _environment() -> jinja2.Environment:
    environment = pages.environment()
    environment.globals.update(
        number=number,
        has_page=lambda run: (run.folder / "index.html").is_file(),
        line_style=line_style,
        look_up=look_up,
        steps=STEPS,
        max_curves=MAX_CURVES,
    )
    return environment
