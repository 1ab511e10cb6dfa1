"""Foreign text and HTML made fit for a page that loads nothing and runs nothing."""

import re
from collections.abc import Collection
from pathlib import PurePosixPath
from urllib.parse import quote, unquote, urlsplit

from bs4 import BeautifulSoup, Tag

_REMOVED_TAGS = (
    "script, iframe, frame, frameset, object, embed, applet, link, meta, base, title, template, "
    "noscript, audio, video, source, track, button, input, select, textarea"
)
_LOADING_ATTRIBUTES = {"srcset", "poster", "background", "ping", "action", "formaction", "data"}
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

    Parameters
    ----------
    markup : str
        HTML of a notebook's output or text.
    pages : collection of str
        Names of the notebooks whose pages stand beside this one; links to them are kept.

    Returns
    -------
    str
        HTML without scripts and form controls. A picture that is not embedded is replaced by its
        description, and a link that would lead nowhere by its text.
    """
    soup = BeautifulSoup(markup, "html.parser")
    for tag in soup.select(_REMOVED_TAGS):
        tag.decompose()
    for style in soup.find_all("style"):
        # pandas' own rules, `scoped` in a way no browser follows, would reach every other table.
        if style.has_attr("scoped") or _css_loads(style.get_text()):
            style.decompose()
    for tag in soup.find_all(True):
        _clean_attributes(tag, pages)
    for table in soup.find_all("table"):
        _align_numbers(table)
        table.wrap(soup.new_tag("div", attrs={"class": "scroll", "tabindex": "0"}))
    return str(soup)


def _css_loads(css: str) -> bool:
    # A backslash can hide any of the other words.
    return bool(re.search(r"url\s*\(|@import|image-set|image\s*\(|\\", css, re.I))


def _clean_attributes(tag: Tag, pages: Collection[str]) -> None:
    for name in list(tag.attrs):
        loads = name == "style" and _css_loads(str(tag[name]))
        if name.startswith("on") or name in _LOADING_ATTRIBUTES or loads:
            del tag[name]
    if tag.name == "a":
        link = _kept_link(str(tag.get("href", "")).strip(), pages)
        if link is None:
            tag.unwrap()
        elif link:
            tag["href"] = link
    elif tag.name == "img":
        if not str(tag.get("src", "")).startswith("data:image/"):
            tag.replace_with(tag.get("alt") or "(picture not embedded)")
        elif not tag.get("alt"):
            tag["alt"] = "Picture without a description"
    else:
        for name in ("href", "xlink:href", "src"):
            if not str(tag.get(name, "#")).startswith(("#", "data:image/")):
                del tag[name]


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
    table.attrs.pop("border", None)
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
