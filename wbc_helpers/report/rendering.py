"""The pages of a run, and the overview of all runs.

A page needs no other file and no network: style, pictures and curves are inside it, it carries no
script, and its content-security policy forbids every request. The same input gives the same bytes.
"""

import copy
import functools
import io
import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import quote, unquote, urlsplit

import jinja2
import matplotlib.style
import nbformat
import nh3
from bs4 import BeautifulSoup, Tag
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, PercentFormatter
from nbconvert.exporters import HTMLExporter
from traitlets.config import Config

from wbc_helpers import storage
from wbc_helpers.errors import BrokenRun, RunNotFound
from wbc_helpers.report.pages import (
    INK,
    LINE,
    TEMPLATES,
    duration,
    environment,
    in_both_schemes,
    in_page_colors,
    refuse_foreign,
    write_page,
)
from wbc_helpers.report.records import (
    FURTHER,
    ExecutedNotebook,
    RunRecord,
    counted_pages,
    further_pages,
    headings,
    look_up,
    number,
    read_examples,
    read_run,
)
from wbc_helpers.runs.folders import DETECTORS

_FILES = (
    "settings.json",
    "history.csv",
    "split.csv",
    "evaluation.json",
    "predictions.csv",
    "calibration.json",
    "model.keras",
)
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
    page = template.render(
        run=run,
        panels=_run_panels(run),
        files=files,
        examples=read_examples(run),
        further=_further(run.folder.parent),
        counted=counted_pages(run.folder.parent),
    )
    return write_page(index, page)


def render_overview(runs_dir: str | Path) -> Path:
    """Render `index.html` over all runs: scores, state and learning curves side by side.

    Runs on photographs, on drawn cells and on data of unknown origin stand in tables and figures of
    their own, newest first. Folders that are no runs are listed as such. Raises what `render_run`
    does, but for `BrokenRun`.
    """
    runs_dir = storage.absolute(runs_dir)
    if not runs_dir.is_dir():
        raise RunNotFound(f"There is no folder of runs {runs_dir}. `wbc run` makes one.")
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
        further=_further(runs_dir),
        counted=counted_pages(runs_dir),
        colab=next((run.colab for run in runs if run.colab), ""),
    )
    return write_page(target, page)


def _further(runs_dir: Path) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """Name, question and pages of each notebook that asks more than a run answers."""
    return [(name, title, further_pages(runs_dir, name)) for name, title in FURTHER.items()]


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
        "text.color": INK,
        "text.parse_math": False,
        "axes.edgecolor": LINE,
        "axes.labelcolor": INK,
        "axes.spines.left": False,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": LINE,
        "grid.linewidth": 0.7,
        "xtick.color": INK,
        "ytick.color": INK,
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
    element = in_page_colors(element)
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
        # Room above 100 % would ask for a number there.
        axes.set_ylim(top=min(axes.get_ylim()[1], 1.01))
        axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    if lines:
        axes.legend(ncols=math.ceil(len(lines) / 4), fontsize=10, framealpha=0, handlelength=3)


# The cells of an executed notebook, as HTML that loads nothing and runs nothing


_PICTURES = ("image/png", "image/jpeg", "image/svg+xml")
_SHOWN = ["text/html", "text/markdown", *_PICTURES, "text/latex", "text/plain"]
_WIDGET = "application/vnd.jupyter.widget-view+json"
_PREPARATION = (
    "Set-up",
    "Imports",
    "Parameters",
    "Data",
    "The images",
    "The run",
    "Which network, and on which data?",
)
"""Sections that a notebook begins with, or some of them; pages fold them together."""

_LAST_LINES = 12  # of what was printed stay in sight; those before are folded


def notebook_body(notebook: ExecutedNotebook, run: RunRecord) -> Markup:
    """Cells of a notebook as HTML; empty if the file is no notebook."""
    if notebook.content is None:
        return Markup("")
    exporter = _exporter()
    linked = {other.name for other in run.notebooks}
    exporter.register_filter("self_contained", lambda markup: self_contained(markup, linked))
    resources = {"metadata": {"name": notebook.name, "path": str(run.folder)}}
    markup, _ = exporter.from_notebook_node(_annotated(notebook, notebook.content), resources)
    return Markup(markup)


@functools.cache
def _exporter() -> HTMLExporter:
    """Make the exporter of all notebooks: compiling its templates takes half of a page's time."""
    exporter = HTMLExporter(
        template_name="notebook",
        extra_template_basedirs=[str(TEMPLATES)],
        config=Config(NbConvertBase={"display_data_priority": _SHOWN}),
        embed_images=True,
    )
    exporter.register_filter("terminal_text", terminal_text)
    exporter.register_filter("last_lines", last_lines)
    exporter.register_filter("in_both_schemes", in_both_schemes)
    exporter.register_filter("duration", duration)
    return exporter


def _annotated(notebook: ExecutedNotebook, content: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Copy of a notebook with what the template needs in each cell's `report` metadata."""
    content = copy.deepcopy(content)
    content.metadata.pop("widgets", None)
    folded, folded_sections = _preparation(content)
    heading, n_pictures, captions = "", 0, Counter[str]()
    for index, cell in enumerate(content.cells):
        report: dict[str, Any] = {
            "anchor": f"cell-{index}",
            "stopped": index == notebook.stopped_at,
        }
        if folded and index == folded.start:
            report["folds"] = " · ".join(folded_sections)
            report["unfolded"] = notebook.stopped_at in folded
        report["folded_until_here"] = bool(folded) and index == folded[-1]
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
                    description = look_up(output.metadata, pictured[0], "alt")
                    caption = str(description or heading)
                    captions[caption] += 1
                    if captions[caption] > 1:
                        caption = f"{caption} ({captions[caption]})"
                    output.metadata["report"] = {
                        "number": n_pictures,
                        "caption": caption,
                        "anchor": report["anchor"],
                        "alt": f"Figure {n_pictures}" + (caption and f": {caption}"),
                    }
        cell.metadata["report"] = report
    return content


def _preparation(content: nbformat.NotebookNode) -> tuple[range, list[str]]:
    """Cells that prepare a notebook's work, which pages fold together, and their headings."""
    start, names = None, []
    for index, cell in enumerate(content.cells):
        titles = [*headings(cell.source)] if cell.cell_type == "markdown" else []
        if titles and titles[0] in _PREPARATION and titles[0] not in names:
            start = index if start is None else start
            names.append(titles[0])
        elif titles and start is not None:
            return range(start, index), names
    return range(len(content.cells) if start is None else start, len(content.cells)), names


def _merged_streams(outputs: Iterable[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """Join what was printed in pieces, and leave out what is empty or only for a live page."""
    merged: list[nbformat.NotebookNode] = []
    for output in outputs:
        last = merged[-1] if merged else nbformat.NotebookNode()
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


def terminal_text(text: str) -> str:
    r"""Text as a terminal would show it in the end, colour codes kept.

    Progress bars overwrite their line with `\r`, backspaces or a cursor moved up; only the last
    state of each line stays, without empty lines at both ends.

    Examples
    --------
    >>> terminal_text("  0%|  | 0/2\r 50%|█ | 1/2\r100%|██| 2/2\n")
    '100%|██| 2/2'
    """
    text = re.sub(r"\x1b\].*?(\x07|\x1b\\)|[\x00-\x07\x0b\x0c\x0e-\x1a\x7f]", "", text)
    rows, row, overwrite = [""], 0, False
    for piece in re.findall(r"\r?\n|\r|\x08+|\x1b\[\d*[A-Z]|[^\r\n\x08\x1b]+|\x1b", text):
        if piece.endswith("\n"):
            row, overwrite = row + 1, True
            rows += [""] * (row == len(rows))
        elif piece[0] in "\r\x08":
            overwrite = True
        elif re.fullmatch(r"\x1b\[\d*A", piece):
            row, overwrite = max(row - int(piece[2:-1] or 1), 0), True
        elif not re.fullmatch(r"\x1b\[\d*[A-Z]", piece):
            if overwrite and piece.strip() and piece != "\x1b":
                rows[row], overwrite = piece, False
            elif not overwrite or piece == "\x1b":
                rows[row] = ("" if overwrite else rows[row]) + piece
                overwrite = False
    return "\n".join(line.rstrip() for line in rows).strip("\n")


def last_lines(text: str) -> tuple[str, str]:
    r"""Part what was printed: lines that may be folded away, often none, and the last ones.

    Examples
    --------
    >>> earlier, last = last_lines("\n".join(f"Epoch {n}" for n in range(1, 201)))
    >>> len(earlier.splitlines()), last.splitlines()[-1]
    (188, 'Epoch 200')
    """
    lines = text.splitlines()
    # A fold for a line or two would take their place.
    place = max(len(lines) - _LAST_LINES, 0) if len(lines) > _LAST_LINES + 4 else 0
    return "\n".join(lines[:place]), "\n".join(lines[place:])


def _words(text: str) -> set[str]:
    return set(text.split())


_TAGS = nh3.ALLOWED_TAGS | _words(
    "section svg g path rect circle ellipse line polyline polygon text tspan image use defs symbol "
    "marker clipPath mask pattern linearGradient radialGradient stop desc"
)
_REMOVED_WITH_CONTENT = _words(
    "script style iframe frame frameset object embed applet title template noscript audio video "
    "button select textarea"
)
_STYLE_PROPERTIES = _words(
    "color background-color text-align vertical-align font-size font-style font-weight font-family "
    "font text-decoration white-space border border-left border-right border-top border-bottom "
    "fill fill-opacity fill-rule stroke stroke-width stroke-opacity stroke-linecap stroke-linejoin "
    "stroke-dasharray stroke-dashoffset opacity stop-color stop-opacity text-anchor width height "
    "max-width"
)
_ATTRIBUTES = _STYLE_PROPERTIES | _words(
    "class id title alt lang dir style align valign colspan rowspan scope start value open href "
    "src xlink:href viewBox preserveAspectRatio d x y x1 x2 y1 y2 dx dy cx cy r rx ry fx fy points "
    "transform offset clip-path clip-rule mask marker-start marker-mid marker-end markerWidth "
    "markerHeight markerUnits refX refY orient gradientTransform gradientUnits spreadMethod "
    "patternUnits patternTransform clipPathUnits maskUnits dominant-baseline"
)
# pandas' tables, nbconvert's anchors and Pygments' one to three letters. Any other class might be
# one of this page's own, such as its banner's.
_OWN_CLASS = re.compile(r"dataframe|anchor-link|highlight|[a-z][a-z0-9]{0,2}")
# A backslash can hide any of the other words.
_LOADS = re.compile(r"url\s*\((?!\s*['\"]?#)|@import|image-set|image\s*\(|\\", re.I)
_NUMBER = re.compile(
    r"[-+\u2212]?(\d[\d,]*\.?\d*|\.\d+)(e[-+]?\d+)?\s?%?|nan|<NA>|None|[-+]?inf", re.I
)


def self_contained(markup: str, pages: Collection[str] = ()) -> str:
    """Clean foreign HTML of everything that runs or loads, and make its tables readable.

    It is parsed as browsers parse it, and only tags, attributes, classes and style properties that
    are known to be harmless stay; a `<style>`, which reaches the whole page, does not.

    Parameters
    ----------
    markup : str
        HTML of a notebook's output or text.
    pages : collection of str
        Names of the notebooks whose pages stand beside this one; links to them are kept.

    Returns
    -------
    str
        A picture that is not embedded is replaced by its description, and a link that would lead
        nowhere by its text.
    """
    clean = nh3.clean(
        markup,
        tags=_TAGS,
        clean_content_tags=_REMOVED_WITH_CONTENT,
        attributes={"*": _ATTRIBUTES},
        attribute_filter=lambda tag, name, value: _harmless(tag, name, value, pages),
        filter_style_properties=_STYLE_PROPERTIES,
        url_schemes={"http", "https", "mailto", "data"},
        link_rel=None,
    )
    soup = BeautifulSoup(clean, "html.parser")
    for link in soup.find_all("a"):
        if not link.attrs.keys() & {"href", "xlink:href", "id"}:
            link.unwrap()
    for picture in soup.find_all("img"):
        if not picture.get("src"):
            picture.replace_with(str(picture.get("alt") or "(picture not embedded)"))
        elif not picture.get("alt"):
            picture["alt"] = "Picture without a description"
    for preformatted in soup.find_all("pre"):
        preformatted["tabindex"] = "0"  # what is wider than the screen is moved by keys, too
    for table in soup.find_all("table"):
        _align_numbers(table)
        for corner in table.select("th:empty"):
            corner.name = "td"  # heads nothing
        table.wrap(soup.new_tag("div", attrs={"class": "scroll", "tabindex": "0"}))
    return str(soup)


def _harmless(tag: str, name: str, value: str, pages: Collection[str]) -> str | None:
    """Value that an attribute may keep; None to remove it."""
    if name in ("title", "alt"):
        return value
    if name == "class":
        return " ".join(filter(_OWN_CLASS.fullmatch, value.split())) or None
    if name.endswith("href") and tag == "a":
        return _link(value.strip(), pages)
    if name.endswith("href") and tag != "image":
        return value if value.startswith("#") else None
    if name.endswith(("src", "href")):
        return value if value.startswith("data:image/") else None
    return None if _LOADS.search(value) else value


def _link(link: str, pages: Collection[str]) -> str | None:
    """Where a link leads from a page: as it is, to a notebook's page, or None for nowhere."""
    if not link or re.match(r"https?://|mailto:|#", link, re.I):
        return link
    address = urlsplit(link)
    path = PurePosixPath(unquote(address.path))
    if address.scheme or address.netloc or path.stem not in pages:
        return None
    return quote(path.stem) + ".html" + (f"#{address.fragment}" if address.fragment else "")


def _align_numbers(table: Tag) -> None:
    """Mark numbers, and the headings above columns of numbers, to be aligned right."""
    table.attrs.pop("border", None)
    rows_of_numbers = []
    for row in table.select("tbody tr"):
        cells = row.find_all(["td", "th"], recursive=False)
        numeric = [
            c.name == "td" and bool(_NUMBER.fullmatch(c.get_text(strip=True))) for c in cells
        ]
        for cell, is_number in zip(cells, numeric, strict=True):
            if is_number:
                cell["class"] = " ".join([*(cell.get("class") or []), "number"])
        rows_of_numbers.append(numeric)
    for heading_row in table.select("thead tr"):
        heading_row.attrs.pop("style", None)
        for position, cell in enumerate(heading_row.find_all("th", recursive=False)):
            column = [numeric[position] for numeric in rows_of_numbers if position < len(numeric)]
            if column and all(column):
                cell["class"] = " ".join([*(cell.get("class") or []), "number"])
