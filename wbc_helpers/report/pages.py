"""What all pages share: templates, the mark of a page of ours, and numbers for people."""

import base64
import re
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import cv2
import jinja2
import numpy as np
from markupsafe import Markup

from wbc_helpers.cells import NAMES
from wbc_helpers.errors import PageExists
from wbc_helpers.pixels.images import resize, scaled_size
from wbc_helpers.storage import write_text

TEMPLATES = Path(__file__).parents[1] / "templates"
GENERATOR = '<meta name="generator" content="wbc_helpers">'
"""Marks a page as ours; a page without it is never replaced."""

_QUALITY = 85  # of embedded JPEGs

ABSENT = "\N{EN DASH}"
"""Stands where a number was not recorded."""


INK, PAPER, QUIET, LINE = "#1f1a29", "#fffffe", "#59595a", "#dcdcdd"
"""Colours that a drawing uses for text, ground, what stands back, and rules; on a page it takes the
page's own instead, see `in_both_schemes`. No photograph or marker has just these."""

_OWN_COLORS = {INK: "--ink", PAPER: "--paper", QUIET: "--quiet", LINE: "--line"}
_STYLE = (TEMPLATES / "style.css").read_text(encoding="utf-8")


def in_page_colors(drawing: str) -> str:
    """Let an SVG drawing take the colours of the page that it is a part of."""
    for color, name in _OWN_COLORS.items():
        drawing = drawing.replace(color, f"var({name})")
    return drawing


def in_both_schemes(drawing: str) -> str:
    """Let an SVG drawing that stands by itself follow the reader's light or dark scheme."""
    # The style sheet begins with the colours in both schemes.
    schemes = (
        _STYLE[: _STYLE.index("* {")] + "text { font-family: system-ui, sans-serif !important }"
    )
    return re.sub(
        r"(<svg\b[^>]*>)", rf"\g<1><style>{schemes}</style>", in_page_colors(drawing), count=1
    )


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
        style=Markup(_STYLE),
    )
    return made


def percent(fraction: float | None) -> str:
    """Write a fraction of 1 in per cent; a dash for None."""
    return ABSENT if fraction is None else f"{100 * fraction:.1f}\N{NARROW NO-BREAK SPACE}%"


def duration(seconds: float | None) -> str:
    """Write seconds as people say them; a dash for None.

    Examples
    --------
    >>> duration(7.26), duration(4000)
    ('7.3 s', '1 h 7 min')
    """
    if seconds is None:
        return ABSENT
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def date(moment: datetime | None, with_time: bool = False) -> str:
    """Write a moment, which is in UTC, for people; a dash for None."""
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


def embedded(image: np.ndarray, longest: int) -> str:
    """Encode an image, (height, width, 3) uint8 RGB, as a JPEG in a data address.

    It is made smaller where its longer side has more than `longest` pixels.
    """
    scale = longest / max(image.shape[:2])
    if scale < 1:
        image = resize(image, scaled_size(image.shape, scale))
    # Written anew, it carries nothing of what a camera notes beside the pixels.
    _, encoded = cv2.imencode(
        ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
    )
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode("ascii")


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
