"""How many cells of each kind, and how far two counts of the same photographs agree.

Two ways of counting can rank photographs alike and still disagree in every number, so that a
correlation says little. What is asked here is what Bland and Altman ask [1]_: how much higher is
one count than the other on average (bias), and between which limits do 95 % of the differences
lie?

References
----------
.. [1] J. M. Bland and D. G. Altman, The Lancet 327(8476), 307–310 (1986).
"""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from wbc_helpers import cells
from wbc_helpers.errors import InvalidParameter

LIMITS = 1.96
"""Standard deviations between which 95 % of normally distributed differences lie."""


def count_cells(
    boxes: pd.DataFrame, photographs: Iterable[str], kinds: Sequence[str] = cells.KIND_NAMES
) -> pd.DataFrame:
    """Count the boxes of each kind in each photograph.

    Parameters
    ----------
    boxes : DataFrame
        One row a box: `photograph` and `kind`. Of a detector, only those that it is sure of.
    photographs : iterable of str
        All that were looked at, also those without any box.
    kinds : sequence of str
        Kinds to count.

    Returns
    -------
    DataFrame of int
        Rows are photographs in the order given, columns kinds.

    Raises
    ------
    InvalidParameter
        If a photograph is listed twice, or boxes lie in others or are of other kinds.
    """
    names = pd.Index(photographs, name="photograph")
    of_kind, of_photograph = boxes["kind"].astype(str), boxes["photograph"].astype(str)
    others = sorted({*of_photograph} - {*names} | {*of_kind} - {*kinds})
    if others or not names.is_unique:
        raise InvalidParameter(
            f"Boxes cannot be counted in {len(names)} photographs, {names.duplicated().sum()} of "
            f"them listed twice; unknown: {', '.join(others[:5]) or 'nothing'}. Expected each "
            f"photograph once, and boxes in these only, of the kinds {', '.join(kinds)}."
        )
    counts = pd.crosstab(of_photograph, of_kind)
    return counts.reindex(index=names, columns=pd.Index(kinds, name="kind"), fill_value=0)


def count_agreement(
    true_counts: pd.DataFrame, counts: pd.DataFrame, confidence: float = 0.95
) -> pd.DataFrame:
    """Compare the counts of each kind with the true ones, photograph by photograph.

    Parameters
    ----------
    true_counts, counts : DataFrame of int
        Rows are the same photographs, columns kinds, see `count_cells`.
    confidence : float
        Of the interval of the bias, between 0 and 1.

    Returns
    -------
    DataFrame
        Rows are kinds. `n`: photographs. `true`, `counted`: cells in all of them. `mae`: mean
        absolute error, cells a photograph. `bias`: mean of counted less true; `bias_low`,
        `bias_high`: its interval by Student's t, photographs taken as independent. `sd`: standard
        deviation of the differences (n − 1). `lower`, `upper`: limits of agreement, bias ± 1.96
        sd. NaN where a single photograph says nothing of the spread.

    Raises
    ------
    InvalidParameter
        If there is no photograph, the tables are not of the same photographs and kinds, or the
        confidence is out of range.
    """
    from scipy.stats import t as students_t

    same = set(true_counts.index) == set(counts.index) and set(true_counts) == set(counts)
    if not same or true_counts.empty or not 0 < confidence < 1:
        raise InvalidParameter(
            f"Counts of {len(true_counts)} and {len(counts)} photographs cannot be compared at "
            f"confidence={confidence!r}. Expected the same photographs and kinds in both, at "
            "least one of each, and 0 < confidence < 1."
        )
    counts = counts.reindex_like(true_counts)
    difference = (counts - true_counts).astype(float)
    n = len(difference)
    bias, spread = difference.mean(), difference.std(ddof=1)
    reach = students_t.ppf((1 + confidence) / 2, n - 1) * spread / np.sqrt(n)
    return pd.DataFrame(
        {
            "n": n,
            "true": true_counts.sum(),
            "counted": counts.sum(),
            "mae": difference.abs().mean(),
            "bias": bias,
            "bias_low": bias - reach,
            "bias_high": bias + reach,
            "sd": spread,
            "lower": bias - LIMITS * spread,
            "upper": bias + LIMITS * spread,
        }
    ).rename_axis("kind")
