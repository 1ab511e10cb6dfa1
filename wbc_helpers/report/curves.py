"""Learning curves as inline SVG, for pages that may be dark or light, on a phone or on paper."""

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

COLORS = ("#0072B2", "#D55E00", "#009E73", "#B5508F", "#9A7400", "#3A9BDC")
"""Readable on white and on near-black, and told apart by colour-blind readers."""

DASHES = ("", "6 2.5", "1.8 1.8", "8 2 2 2")
"""Lengths of strokes and gaps in points; 4 dashes and 6 colours make 12 different lines."""

_INK, _GRID = "#010203", "#040506"
_LABEL_GAP = 0.062


@dataclass(frozen=True)
class Line:
    """One curve of a panel.

    Attributes
    ----------
    label : str
        Short text written at its end.
    epochs, values : sequence of float
        Epochs from 1, and a value for each; NaN leaves a gap.
    color : str
        Any Matplotlib colour.
    dash : str
        Strokes and gaps in points, as in `DASHES`; empty for a solid line.
    """

    label: str
    epochs: Sequence[float]
    values: Sequence[float]
    color: str
    dash: str = ""


def line_style(index: int) -> tuple[str, str]:
    """Colour and dash of the line at an index; the first 12 all differ.

    Neighbours differ in both, so that colour is never the only difference.
    """
    return COLORS[index % len(COLORS)], DASHES[index % len(DASHES)]


def draw_panel(lines: Sequence[Line], name: str, title: str, percent: bool = False) -> str:
    """Draw values against epoch as an SVG element to put into a page.

    Text stays text and takes the page's font; ink and grid take the page's colours (the custom
    properties `--ink` and `--line`). The same lines give the same bytes.

    Parameters
    ----------
    lines : sequence of Line
        At least one. Lines without a finite value are left out.
    name : str
        Prefix of the element's ids: letters, digits and hyphens, unique in the page.
    title : str
        What the values are; written above the panel.
    percent : bool
        Whether values are fractions, to be written as per cent.

    Returns
    -------
    str
        An `<svg>` element, 5.2 by 3.5 inches unless the page scales it.
    """
    lines = [line for line in lines if any(math.isfinite(value) for value in line.values)]
    style = {
        "svg.fonttype": "none",
        "svg.hashsalt": "wbc_helpers",
        "font.family": "sans-serif",
        "font.size": 10,
        "text.color": _INK,
        "text.parse_math": False,
        "axes.edgecolor": _GRID,
        "axes.labelcolor": _INK,
        "xtick.color": _INK,
        "ytick.color": _INK,
    }
    with matplotlib.style.context(["default", style]):
        figure = Figure(figsize=(5.2, 3.5))
        axes = figure.add_axes((0.115, 0.145, 0.745, 0.745))
        _draw(axes, lines, percent)
        axes.set_title(title, loc="left", fontsize=11, fontweight="bold", pad=9)
        drawing = io.StringIO()
        figure.savefig(
            drawing,
            format="svg",
            transparent=True,
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    return _for_page(drawing.getvalue(), name, title)


def _draw(axes: Axes, lines: Sequence[Line], percent: bool) -> None:
    finite = [value for line in lines for value in line.values if math.isfinite(value)]
    # A loss that starts in the hundreds would flatten everything after it.
    if not percent and finite and min(finite) > 0 and max(finite) > 20 * min(finite):
        axes.set_yscale("log")
    for line in lines:
        dash = tuple(float(length) for length in line.dash.split())
        axes.plot(
            line.epochs,
            line.values,
            color=line.color,
            linewidth=1.8,
            linestyle=(0, tuple(length / 1.8 for length in dash)) if dash else "solid",
            solid_capstyle="round",
        )
    axes.margins(x=0.02, y=0.06)
    last = max((line.epochs[-1] for line in lines), default=1)
    if last == min((line.epochs[0] for line in lines), default=1):
        axes.set_xlim(last - 1, last + 1)
    axes.xaxis.set_major_locator(
        MaxNLocator(nbins=7, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1)
    )
    axes.set_xlabel("epoch")
    if percent:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g} %"))
    axes.grid(True, color=_GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(length=0, pad=5, labelsize=9.5)
    _label_ends(axes, lines)


def _label_ends(axes: Axes, lines: Sequence[Line]) -> None:
    """Write each label beside the end of its line, moved apart where they would overlap."""
    # Frozen, since ends are placed by the limits and must not move them.
    axes.set(xlim=axes.get_xlim(), ylim=axes.get_ylim())
    ends = []
    for line in lines:
        pairs = zip(line.epochs, line.values, strict=True)
        epoch, value = [pair for pair in pairs if math.isfinite(pair[1])][-1]
        x, y = axes.transAxes.inverted().transform(axes.transData.transform((epoch, value)))
        axes.plot([epoch], [value], "o", color=line.color, markersize=4.5, clip_on=False)
        ends.append((y, x, line))
    ends.sort(key=lambda end: (end[0], end[2].label))
    heights = spread([y for y, _, _ in ends], _LABEL_GAP)
    for height, (y, x, line) in zip(heights, ends, strict=True):
        axes.plot(
            [x + 0.012, 1.02, 1.035],
            [y, y, height],
            transform=axes.transAxes,
            color=line.color,
            linewidth=0.6,
            alpha=0.45,
            clip_on=False,
        )
        axes.text(
            1.042,
            height,
            line.label,
            transform=axes.transAxes,
            color=line.color,
            fontsize=9.5,
            fontweight="bold",
            verticalalignment="center",
        )


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Move ascending heights apart to at least `gap`, staying near them and within 0 to 1.

    Parameters
    ----------
    heights : sequence of float
        Ascending.
    gap : float
        Smallest distance allowed; made smaller where all would not fit.

    Returns
    -------
    list of float
        Ascending, as many as `heights`.
    """
    if not heights:
        return []
    gap = min(gap, 1 / max(len(heights) - 1, 1))
    # Pooled neighbours share their mean offset, so that a bunch of labels stays centred.
    pools: list[tuple[float, int]] = []
    for index, height in enumerate(heights):
        offset, size = height - index * gap, 1
        while pools and pools[-1][0] > offset:
            before, n_before = pools.pop()
            offset = (offset * size + before * n_before) / (size + n_before)
            size += n_before
        pools.append((offset, size))
    ceiling = 1 - (len(heights) - 1) * gap
    offsets = [min(max(offset, 0.0), ceiling) for offset, size in pools for _ in range(size)]
    return [offset + index * gap for index, offset in enumerate(offsets)]


def _for_page(document: str, name: str, title: str) -> str:
    """Make an SVG document an element: own ids, the page's colours, no outside name in it."""
    element = document[document.index("<svg") :]
    element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
    element = re.sub(r'\bid="', f'id="{name}-', element)
    element = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", element)
    element = element.replace(_INK, "var(--ink)").replace(_GRID, "var(--line)")
    opening = f'<svg class="curve" role="img" aria-label="{escape(title)} against epoch"'
    return element.replace("<svg", opening, 1)
