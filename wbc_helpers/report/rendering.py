"""Executed notebooks and run folders as self-contained HTML pages.

A page needs no other file and no network: style, pictures and curves are inside it, it carries no
script, and its content-security policy forbids every request. The same input gives the same bytes.

What all HTML pages share: templates, the mark of a page of ours, numbers for people.

Foreign text and HTML made fit for a page that loads nothing and runs nothing.
"""

import copy
import functools
import math
import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import jinja2
import nbformat
import nh3
from bs4 import BeautifulSoup, Tag
from markupsafe import Markup
from nbconvert.exporters import HTMLExporter
from traitlets.config import Config

from wbc_helpers.cells import NAMES
from wbc_helpers.errors import BrokenRun, PageExists, RunNotFound
from wbc_helpers.report.curves import COLORS, DASHES, Line, draw_panel, line_style
from wbc_helpers.report.records import (
    STEPS,
    ExecutedNotebook,
    RunRecord,
    headings,
    look_up,
    number,
    read_run,
    readable_date,
)
from wbc_helpers.runs.folders import DETECTORS
from wbc_helpers.storage import write_text

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
    refuse_foreign([*targets, run.folder / "index.html"])
    environment = _environment()
    for position, (notebook, target) in enumerate(zip(run.notebooks, targets, strict=True)):
        before = run.notebooks[position - 1] if position else None
        after = run.notebooks[position + 1] if position + 1 < len(run.notebooks) else None
        write_page(
            target,
            environment.get_template("notebook_page.html.j2").render(
                run=run, notebook=notebook, before=before, after=after, body=_body(notebook, run)
            ),
        )
    files = ("settings.json", "history.csv", "split.csv", "evaluation.json", "model.keras")
    page = environment.get_template("run.html.j2").render(
        run=run, panels=_run_panels(run), files=[f for f in files if (run.folder / f).is_file()]
    )
    return write_page(run.folder / "index.html", page)


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
    refuse_foreign([target])
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
    return write_page(target, page)


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
        extra_template_basedirs=[str(TEMPLATES)],
        config=Config(NbConvertBase={"display_data_priority": _SHOWN}),
        embed_images=True,
    )
    linked = {other.name for other in run.notebooks}
    exporter.register_filter("self_contained", lambda markup: self_contained(markup, linked))
    exporter.register_filter("terminal_text", terminal_text)
    exporter.register_filter("duration", duration)
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
    own = environment()
    own.globals.update(
        number=number,
        has_page=lambda run: (run.folder / "index.html").is_file(),
        line_style=line_style,
        look_up=look_up,
        steps=STEPS,
        max_curves=MAX_CURVES,
    )
    return own


TEMPLATES = Path(__file__).parents[1] / "templates"
GENERATOR = '<meta name="generator" content="wbc_helpers">'
"""Marks a page as ours; a page without it is never replaced."""

ABSENT = "\N{EN DASH}"
"""Stands where a number was not recorded."""


def environment() -> jinja2.Environment:
    """Make an environment of the templates: everything is escaped, nothing undefined passes."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    made.filters.update(
        percent=percent, duration=duration, date=date, setting=setting, quoted=quote
    )
    made.globals.update(
        cell_types=NAMES,
        generator=Markup(GENERATOR),
        style=Markup((TEMPLATES / "style.css").read_text(encoding="utf-8")),
    )
    return made


def percent(fraction: float | None) -> str:
    """Write a fraction of 1 in per cent; a dash for None."""
    return ABSENT if fraction is None else f"{100 * fraction:.1f}\N{NARROW NO-BREAK SPACE}%"


def duration(seconds: float | None) -> str:
    """Write seconds as people say them; a dash for None."""
    if seconds is None:
        return ABSENT
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def date(stated: str, with_time: bool = False) -> str:
    """Write a moment in ISO 8601 for people; a dash for what is none."""
    moment = readable_date(stated)
    if moment is None:
        return ABSENT
    day = f"{moment.day} {moment:%b %Y}"
    return f"{day}, {moment:%H:%M} UTC" if with_time else day


def setting(value: Any) -> str:
    """Write the value of a setting for people."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: ABSENT}[value]
    if isinstance(value, list | tuple):
        return " \N{MULTIPLICATION SIGN} ".join(setting(part) for part in value)
    if isinstance(value, float):
        return f"{value:g}"
    return f"{value:,}" if isinstance(value, int) and abs(value) >= 10_000 else str(value)


def refuse_foreign(targets: Iterable[Path]) -> None:
    """Raise `PageExists` where a file of that name was not written by this package."""
    for target in targets:
        if target.exists() and not is_ours(target):
            raise PageExists(
                f"{target} exists, and this package did not write it, so it is left as it is. "
                "Move or rename it, then render again."
            )


def is_ours(page: Path) -> bool:
    """Tell whether a page was written by this package."""
    if not page.is_file():
        return False
    with page.open(encoding="utf-8", errors="replace") as opened:
        return GENERATOR in opened.read(2000)


def write_page(target: Path, page: str) -> Path:
    """Write a page atomically, whatever bytes the names in it hold."""
    # A file name may hold bytes that are no UTF-8.
    write_text(target, page.encode("utf-8", errors="replace").decode("utf-8"))
    return target


_TAGS = (
    nh3.ALLOWED_TAGS
    | {"div", "span", "table", "caption", "section", "figure", "figcaption", "details", "summary"}
) - {"map", "area"}
_DROPPED_WITH_CONTENT = {
    *("script", "style", "svg", "math", "title", "template", "noscript", "iframe", "frameset"),
    *("object", "embed", "applet", "audio", "video", "canvas", "select", "textarea", "button"),
}
_ATTRIBUTES = {
    "*": {"class", "id", "style", "title", "lang", "dir", "align"},
    "a": {"href"},
    "img": {"src", "alt", "width", "height"},
    "th": {"scope", "colspan", "rowspan"},
    "td": {"colspan", "rowspan"},
    "ol": {"start"},
    "details": {"open"},
}
# What styles text; anything that places an element could cover the banner.
_STYLES = {"color", "background-color", "font-style", "font-weight", "text-align", "white-space"}
_NUMBER = re.compile(
    r"[-+\u2212]?(\d[\d,]*\.?\d*|\.\d+)(e[-+]?\d+)?\s?%?|nan|<NA>|None|[-+]?inf", re.I
)


def terminal_text(text: str) -> str:
    r"""Text as a terminal would show it in the end, colour codes kept.

    Progress bars overwrite their line with `\r`, backspaces or a cursor moved up; only the last
    state of each line stays.

    Parameters
    ----------
    text : str
        What a program printed.

    Returns
    -------
    str
        Lines without trailing space, and without empty lines at both ends.
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


def self_contained(markup: str, pages: Collection[str] = ()) -> str:
    """Clean foreign HTML of everything that runs or loads, and make its tables readable.

    nh3 parses as browsers do, and lets through what is listed above. A picture that is not embedded
    is replaced by its description, a link that would lead nowhere by its text; links to `pages`,
    names of notebooks whose pages stand beside this one, are kept.
    """

    def checked(tag: str, attribute: str, content: str) -> str | None:
        if attribute == "href":
            return _kept_link(content.strip(), pages)
        return None if attribute == "src" and not content.startswith("data:image/") else content

    clean = nh3.clean(
        markup,
        tags=_TAGS,
        clean_content_tags=_DROPPED_WITH_CONTENT,
        attributes=_ATTRIBUTES,
        attribute_filter=checked,
        filter_style_properties=_STYLES,
        url_schemes={"http", "https", "mailto", "data"},
        link_rel=None,
    )
    soup = BeautifulSoup(clean, "html.parser")
    for styled in soup.select('[style=""]'):
        del styled["style"]
    for link in soup.select("a:not([href], [id])"):
        link.unwrap()
    for picture in soup.select("img"):
        if "src" not in picture.attrs:
            picture.replace_with(str(picture.get("alt") or "(picture not embedded)"))
        elif not picture.get("alt"):
            picture["alt"] = "Picture without a description"
    for table in soup.select("table"):
        _align_numbers(table)
        table.wrap(soup.new_tag("div", attrs={"class": "scroll", "tabindex": "0"}))
    return str(soup)


def _kept_link(link: str, pages: Collection[str]) -> str | None:
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
    rows = table.select("tbody tr")
    numeric = []
    for row in rows:
        cells = row.find_all(["td", "th"], recursive=False)
        found = [c.name == "td" and bool(_NUMBER.fullmatch(c.get_text(strip=True))) for c in cells]
        for cell, is_number in zip(cells, found, strict=True):
            if is_number:
                cell["class"] = [*cell.get("class", []), "number"]
        numeric.append(found)
    for heading_row in table.select("thead tr"):
        heading_row.attrs.pop("style", None)
        for position, cell in enumerate(heading_row.find_all("th", recursive=False)):
            column = [found[position] for found in numeric if position < len(found)]
            if column and all(column):
                cell["class"] = [*cell.get("class", []), "number"]
