"""The cells of an executed notebook as HTML that loads nothing and runs nothing."""

import copy
import re
from collections.abc import Collection, Iterable
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import nbformat
import nh3
from bs4 import BeautifulSoup, Tag
from markupsafe import Markup
from nbconvert.exporters import HTMLExporter
from traitlets.config import Config

from wbc_helpers.report.pages import TEMPLATES, duration
from wbc_helpers.report.records import ExecutedNotebook, RunRecord, headings, look_up, number

_PICTURES = ("image/png", "image/jpeg", "image/svg+xml")
_SHOWN = ["text/html", "text/markdown", *_PICTURES, "text/latex", "text/plain"]
_WIDGET = "application/vnd.jupyter.widget-view+json"


def notebook_body(notebook: ExecutedNotebook, run: RunRecord) -> Markup:
    """Cells of a notebook as HTML; empty if the file is no notebook."""
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
    markup, _ = exporter.from_notebook_node(_annotated(notebook, notebook.content), resources)
    return Markup(markup)


def _annotated(notebook: ExecutedNotebook, content: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Copy of a notebook with what the template needs in each cell's `report` metadata."""
    content = copy.deepcopy(content)
    content.metadata.pop("widgets", None)
    heading, n_pictures = "", 0
    for index, cell in enumerate(content.cells):
        report: dict[str, Any] = {
            "anchor": f"cell-{index}",
            "stopped": index == notebook.stopped_at,
        }
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
                    output.metadata["report"] = {
                        "number": n_pictures,
                        "caption": heading,
                        "alt": description or f"Figure {n_pictures}" + (heading and f": {heading}"),
                    }
        cell.metadata["report"] = report
    return content


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
    for table in soup.find_all("table"):
        _align_numbers(table)
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
