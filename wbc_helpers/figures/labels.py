"""Figures of doubtful labels."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from wbc_helpers.errors import InvalidParameter
from wbc_helpers.figures.data import montage
from wbc_helpers.figures.style import WIDTH, axes_of, in_style, require, write_title

MOST_DOUBTFUL = 24
"""As many crops as `doubtful_labels` shows."""

_LETTERS = 22  # that fit above a crop, four in a row, even if they are capitals


@in_style
def doubtful_labels(judged: pd.DataFrame, crops: Sequence[np.ndarray]) -> Figure:
    """White cells with a doubtful label, for a haematologist to judge.

    Parameters
    ----------
    judged : DataFrame
        As `labels.judge` returns it.
    crops : sequence of (height, width, 3) ndarray of uint8
        RGB, of the photographs whose label is doubtful, in the order of the table: of all of
        them, or of the first `MOST_DOUBTFUL`, which are shown.

    Returns
    -------
    Figure
        Above each crop its photograph, the published label or labels, and with a question mark
        what the network suggests; in brackets the probabilities that the network gives. Where no
        label is doubtful, a figure that says so.

    Raises
    ------
    InvalidParameter
        If there are not as many crops as doubtful labels, or one is no RGB image.
    """
    columns = (
        "source_id",
        "cell_type",
        "also_under",
        "suggested",
        "self_confidence",
        "p_suggested",
        "doubtful",
    )
    require(judged, columns, "table of labels")
    doubtful = judged[judged["doubtful"]]
    shown = doubtful.head(MOST_DOUBTFUL)
    if len(crops) not in (len(doubtful), len(shown)):
        raise InvalidParameter(
            f"Cannot show {len(crops)} crops for {len(doubtful)} doubtful labels. Expected one for "
            f"each, or for the first {MOST_DOUBTFUL}, in the order of the table."
        )
    crops = [np.asarray(crop) for crop in crops[: len(shown)]]
    wrong = [crop for crop in crops if crop.shape[2:] != (3,) or crop.dtype != np.uint8]
    if wrong:
        raise InvalidParameter(
            f"A crop has shape {wrong[0].shape} and type {wrong[0].dtype}. Expected (height, "
            "width, 3) and uint8, see labels.crop_white_cell."
        )
    of_all = f"n = {len(doubtful):,} of {len(judged):,} photographs"
    if doubtful.empty:
        figure, ax = axes_of(None, (WIDTH, 1.0))
        ax.axis("off")
        ax.text(0.5, 0.5, f"No doubtful label ({of_all})", ha="center", va="center", fontsize=12)
        return figure
    titles = [_title(label) for _, label in shown.iterrows()]
    figure = montage(crops, titles, n_columns=4)
    more = len(doubtful) - len(shown)
    rest = f": the {len(shown)} most doubtful, and {more:,} more in the table" if more else ""
    write_title(figure, f"Doubtful labels ({of_all}){rest}")
    return figure


def _title(label: pd.Series) -> str:
    """Photograph, published and suggested types, in lines that fit above a crop."""
    name = label["source_id"]
    if len(name) > 2 * _LETTERS:
        name = name[: 2 * _LETTERS - 1] + "…"
    # Names of files: broken anywhere, for they have no words.
    names = [part for part in (name[:_LETTERS], name[_LETTERS:]) if part]
    types = [f"label {label['cell_type']} ({label['self_confidence']:.0%})"]
    others = [] if pd.isna(label["also_under"]) else label["also_under"].split(", ")
    suggestion = f"{label['suggested']}? ({label['p_suggested']:.0%})"
    types += [f"and {suggestion if other == label['suggested'] else other}" for other in others]
    if label["suggested"] not in others:
        types.append(f"or {suggestion}")
    return "\n".join([*names, *types])
