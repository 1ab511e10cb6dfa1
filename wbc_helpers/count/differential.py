"""The differential count: which part of the white cells is of which type, and how sure that is.

A differential is a sample, of a hundred or a few of the billions of white cells in a litre of
blood [1]_, and its interval is that of a proportion. The exact one by Clopper and Pearson [2]_
holds at least what it promises for every number of cells. It knows nothing of a classifier's
mistakes, of cells that were seen twice in overlapping photographs, nor of how a smear drives large
cells to its edges: these are in no interval here.

**Nothing here is a diagnosis.** Where an interval lies wholly outside the adult reference range,
that is called something to look at, and nothing more. A share is relative, too: one type falls
when another rises.

References
----------
.. [1] CLSI, *Reference Leukocyte (WBC) Differential Count (Proportional) and Evaluation of
   Instrumental Methods*, H20-A2 (2007).
.. [2] C. J. Clopper and E. S. Pearson, Biometrika 26(4), 404–413 (1934).
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from wbc_helpers import cells
from wbc_helpers.errors import InvalidParameter
from wbc_helpers.evaluate.confidence import FOREIGN, looks_foreign

LEAST_CELLS = 100
"""White cells that a routine differential counts at the least; of fewer, nothing is remarked."""

MOST_CELLS = 1_000_000
"""Where the search for the number of cells needed is given up: the proportion lies at the edge of
the range itself."""

RATIOS = (("RBC", "WBC"), ("Platelets", "RBC"))
REMARKED = "Platelets:RBC"
"""The only ratio on which something is remarked: photographs are chosen for their white cells,
whose number beside others then says nothing."""

_FEWER_PLATELETS = "few platelets beside the red cells, as in thrombocytopenia (after dengue, say)"
_MORE_PLATELETS = "many platelets beside the red cells, as in thrombocytosis"


@dataclass(frozen=True, eq=False)
class Differential:
    """A differential count; printed, it is a page of text.

    Attributes
    ----------
    table : DataFrame
        Rows are the cell types. `count`; `percent` of the named cells, `low` and `high`: exact
        interval; `reference_low`, `reference_high`: adult range, per cent; `verdict`: `within`,
        `below` or `above` for the interval that lies wholly there, `unclear` for one that reaches
        across an edge of the range, or where fewer than `least_cells` were named; `needed`:
        white cells from which on the interval would lie outside the range at the proportion
        found, 0 where that lies within the range; `remark`: a sentence.
    ratios : DataFrame
        Rows such as `RBC:WBC`. `first`, `second`: counts; `ratio`, `low`, `high`;
        `reference_low`, `reference_high`; NaN where the second count is 0. `remark`: a sentence
        where photographs can tell something, see `REMARKED`.
    n_cells, n_abstained : int
        White cells that were named, and those without an answer, which are in no percentage.
    n_photographs : int
        Photographs that were counted; 0 where unknown.
    confidence, least_cells, taught
        See `count_differential`.
    """

    table: pd.DataFrame
    ratios: pd.DataFrame
    n_cells: int
    n_abstained: int
    n_photographs: int
    confidence: float
    least_cells: int
    taught: bool

    @property
    def is_foreign(self) -> bool:
        """Whether so few cells are answered for that the slides look foreign to the network."""
        return looks_foreign(self.n_cells, self.n_cells + self.n_abstained, self.taught)

    def __str__(self) -> str:
        """All numbers and remarks, on a page."""
        lines = [
            f"Differential of {self.n_cells:,} white cells"
            + (f" in {self.n_photographs:,} photographs" if self.n_photographs else "")
            + f"; {self.n_abstained:,} more without an answer",
        ]
        if self.is_foreign:
            lines.append(FOREIGN)
        elif not self.n_cells:
            lines.append("There is no differential count: no white cell was named.")
        else:
            heads = f"{'cells':>6} {'per cent':>9}   {self.confidence:.0%} interval   adult range"
            lines.append(f"{'':12} {heads}")
        for name, row in self.table.iterrows():
            if self.is_foreign or not self.n_cells:
                break
            percent = f"{row['percent']:.1f}%"
            lines.append(
                f"{name:12} {row['count']:6,} {percent:>9}   "
                f"{row['low']:5.1f} – {row['high']:5.1f}   "
                f"{row['reference_low']:3g} – {row['reference_high']:3g}"
            )
        if self.n_cells and not self.is_foreign:
            lines += [f"- {remark}" for remark in self.table["remark"]]
        for name, row in self.ratios.iterrows():
            if np.isnan(row["ratio"]):
                lines.append(f"{name}: {row['first']:,} to {row['second']:,}, no ratio")
                continue
            lines.append(
                f"{name} = {short(row['ratio'])} ({short(row['low'])} – {short(row['high'])}); "
                f"in adult blood {short(row['reference_low'])} – {short(row['reference_high'])}. "
                + (row["remark"] or "Photographs chosen for their white cells do not show it.")
            )
        lines.append(
            "Not for diagnosis. Shares are relative: one type falls when another rises. The "
            "intervals are those of chance alone, without the classifier's mistakes."
        )
        return "\n".join(lines)


def count_differential(
    white_cells: pd.DataFrame,
    counts: pd.DataFrame | None = None,
    confidence: float = 0.95,
    least_cells: int = LEAST_CELLS,
    taught: bool = False,
) -> Differential:
    """Make the differential count of a slide from its photographs.

    Parameters
    ----------
    white_cells : DataFrame
        One row a white cell: `cell_type`, one of `cells.LEUKOCYTES`; `abstained` (bool), for cells
        on which no answer is given, whatever their type says. Cells that two overlapping
        photographs show must be in it once.
    counts : DataFrame, optional
        Cells of each kind by photograph, see `detection.count_cells`.
    confidence : float
        Of each interval by itself, between 0 and 1.
    least_cells : int
        Named cells below which nothing is remarked.
    taught : bool
        Whether the laboratory taught the network that named them, see `confidence.looks_foreign`.

    Raises
    ------
    InvalidParameter
        If a column is missing, a type is unknown, or a number is out of range.

    Examples
    --------
    >>> import pandas as pd
    >>> white_cells = pd.DataFrame({"cell_type": ["lymphocyte"] * 90 + ["monocyte"] * 10})
    >>> differential = count_differential(white_cells.assign(abstained=False))
    >>> differential.table.loc["lymphocyte", ["percent", "low", "high"]].round(1).tolist()
    [90.0, 82.4, 95.1]
    >>> print(differential.table.loc["lymphocyte", "remark"])
    lymphocytes: 90.0% (82.4–95.1%), above the adult range of 20–40%: relative lymphocytosis, \
something to look at.
    """
    missing = [name for name in ("cell_type", "abstained") if name not in white_cells]
    if missing or not 0 < confidence < 1 or least_cells < 1:
        raise InvalidParameter(
            f"No differential count at confidence={confidence!r} of least_cells={least_cells!r} "
            f"from a table without {', '.join(missing) or 'any column missing'}. Expected a row a "
            "white cell with cell_type and abstained, 0 < confidence < 1, and at least 1 cell."
        )
    named = white_cells.loc[~white_cells["abstained"].astype(bool), "cell_type"].astype(str)
    if unknown := sorted(set(named) - set(cells.LEUKOCYTES)):
        raise InvalidParameter(
            f"The cells named include {', '.join(unknown[:5])}. Expected "
            f"{', '.join(cells.LEUKOCYTES)}."
        )
    by_type = named.value_counts()
    rows = [
        _judge_type(look, int(by_type.get(look.name, 0)), len(named), confidence, least_cells)
        for look in cells.LEUKOCYTE_TYPES
    ]
    if counts is None:
        counts = pd.DataFrame()
        n_photographs = white_cells.get("photograph", pd.Series()).nunique()
    else:
        n_photographs = len(counts)
    return Differential(
        pd.DataFrame(rows, index=pd.Index(cells.LEUKOCYTES, name="cell_type")),
        _ratios(counts, confidence, least_cells),
        len(named), len(white_cells) - len(named), n_photographs, confidence, least_cells, taught,
    )  # fmt: skip


def short(ratio: float) -> str:
    """Write a ratio with three digits that count."""
    return f"{ratio:,.0f}" if ratio >= 100 else f"{ratio:.3g}"


def _judge_type(
    cell_type: cells.CellType, count: int, n_cells: int, confidence: float, least_cells: int
) -> dict[str, Any]:
    """One type's row of `Differential.table`."""
    low, high = (100 * bound for bound in exact_interval(count, n_cells, confidence))
    percent = 100 * count / n_cells if n_cells else math.nan
    least, most = cell_type.reference_percent
    needed = cells_needed(count, n_cells, (least, most), confidence) if n_cells else 0
    side = "below" if percent < least else "above"
    verdict = "unclear"
    if n_cells >= least_cells:
        if high < least or low > most:
            verdict = side
        elif low >= least and high <= most:
            verdict = "within"
    needed = max(needed, least_cells) if needed else 0
    edges = f"the adult range of {least:g}–{most:g}%"
    share = f"{cell_type.name}s: {percent:.1f}% ({low:.1f}–{high:.1f}%)"
    if not n_cells:
        remark = f"{cell_type.name}s: no white cell was named."
    elif verdict == side:
        called = cell_type.fewer if side == "below" else cell_type.more
        remark = f"{share}, {side} {edges}: relative {called}, something to look at."
    elif verdict == "within":
        remark = f"{share}, within {edges}."
    elif needed == 0:
        remark = f"{share}; {n_cells:,} cells agree with {edges}, and with others."
    elif needed > MOST_CELLS:
        remark = f"{share}, at the edge of {edges}: no count would decide."
    else:
        remark = (
            f"{share}, {side} {edges}, but {n_cells:,} cells are too few to say so: at this "
            f"proportion it would take {needed:,}."
        )
    return {
        "count": count, "percent": percent, "low": low, "high": high,
        "reference_low": least, "reference_high": most,
        "verdict": verdict, "needed": needed, "remark": remark,
    }  # fmt: skip


def exact_interval(count: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Exact interval of a proportion, 0–1, after Clopper and Pearson; see the module.

    `count` of `n` may be a fraction of a cell, which `scipy.stats.binomtest` does not take:
    `cells_needed` asks for one. Of no cell the interval is all of 0–1.

    Examples
    --------
    >>> low, high = exact_interval(23, 100)
    >>> print(f"{low:.3f} {high:.3f}")
    0.152 0.325
    """
    from scipy.special import betaincinv

    tail = (1 - confidence) / 2
    low = float(betaincinv(count, n - count + 1, tail)) if count > 0 else 0.0
    high = float(betaincinv(count + 1, n - count, 1 - tail)) if count < n else 1.0
    return low, high


def cells_needed(
    count: int, n: int, reference_percent: tuple[float, float], confidence: float = 0.95
) -> int:
    """Find how many cells it would take for the interval to leave the reference range.

    `count` of a type, among `n`, at least 1, white cells in all; the range is in per cent, low and
    high. Returns the least number of white cells with which, the proportion unchanged, the interval
    lies wholly outside; 0 if the proportion lies within the range, `MOST_CELLS` + 1 if not even so
    many would do.
    """
    proportion = count / n
    low, high = (percent / 100 for percent in reference_percent)
    if low <= proportion <= high:
        return 0

    def is_outside(n_cells: int) -> bool:
        bounds = exact_interval(proportion * n_cells, n_cells, confidence)
        return bounds[1] < low if proportion < low else bounds[0] > high

    # The interval narrows steadily about an unchanged proportion.
    few, many = 0, 1
    while not is_outside(many):
        if many > MOST_CELLS:
            return MOST_CELLS + 1
        few, many = many, 2 * many
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if is_outside(middle) else (middle, many)
    return many


def reference_of(pair: tuple[str, str]) -> tuple[float, float, str | None, str | None]:
    """Adult range of a ratio of two kinds, and what is said below and above it, see `REMARKED`."""
    (least, most), others = (cells.KIND_BY_NAME[kind].reference for kind in pair)
    called = (_FEWER_PLATELETS, _MORE_PLATELETS) if ":".join(pair) == REMARKED else (None, None)
    return least / others[1], most / others[0], *called


def _ratios(counts: pd.DataFrame, confidence: float, least_cells: int) -> pd.DataFrame:
    """Ratios between kinds, each with the interval that its share of both gives [2]_."""
    rows = {}
    for pair in RATIOS:
        if any(kind not in counts for kind in pair):
            continue
        first, second = (int(counts[kind].sum()) for kind in pair)
        low, high = exact_interval(first, first + second, confidence)
        reference = reference_of(pair)[:2]
        name = ":".join(pair)
        remark = ""
        if name == REMARKED and first + second:
            remark = _remark_on_platelets(first, first + second, reference, confidence, least_cells)
        bounds = (first / second, low / (1 - low), high / (1 - high)) if second else [math.nan] * 3
        rows[name] = [first, second, *bounds, *reference, remark]
    columns = ["first", "second", "ratio", "low", "high", "reference_low", "reference_high"]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=[*columns, "remark"])
    return table.rename_axis("ratio_of")


def _remark_on_platelets(
    count: int, n: int, reference: tuple[float, float], confidence: float, least_cells: int
) -> str:
    """Say where platelets beside red cells lie outside what their reference ranges allow."""
    # Of platelets and red cells together, the part that are platelets.
    least, most = (100 * ratio / (1 + ratio) for ratio in reference)
    low, high = (100 * bound for bound in exact_interval(count, n, confidence))
    needed = cells_needed(count, n, (least, most), confidence)
    if needed == 0:
        if low >= least and high <= most:
            return "Within what the adult ranges allow."
        return f"{n:,} red cells and platelets agree with the adult ranges, and with others."
    called = _FEWER_PLATELETS if 100 * count / n < least else _MORE_PLATELETS
    if n >= least_cells and (high < least or low > most):
        return f"That is {called}: something to look at."
    if needed > MOST_CELLS:
        return "At the edge of what the adult ranges allow: no count would decide."
    return (
        f"Outside what the adult ranges allow, but {n:,} red cells and platelets are too few to "
        f"say so: at this ratio it would take {max(needed, least_cells):,}."
    )
