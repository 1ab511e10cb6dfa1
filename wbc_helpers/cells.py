"""The four white-cell types of the data set, in one table."""

from dataclasses import dataclass


@dataclass(frozen=True)
class CellType:
    """What the project knows about one type of white blood cell.

    Attributes
    ----------
    name : str
        Lower-case singular, as used in catalogs and results.
    folder : str
        Name of its class folder in the data set.
    nucleus : str
        What to look for under the microscope.
    reference_percent : (low, high)
        Adult reference range, per cent of all leukocytes [1]_.
    color : str
        Its colour in every figure (Okabe and Ito's palette, safe for colour-blind readers).
    marker : str
        Its Matplotlib marker in every figure, so that colour is never the only difference.

    References
    ----------
    .. [1] B. J. Bain, *Blood Cells: A Practical Guide*, 5th ed., Wiley-Blackwell (2015).
    """

    name: str
    folder: str
    nucleus: str
    reference_percent: tuple[float, float]
    color: str
    marker: str


CELL_TYPES = (
    CellType("eosinophil", "EOSINOPHIL", "two lobes, red granules", (1, 6), "#D55E00", "o"),
    CellType("lymphocyte", "LYMPHOCYTE", "round, fills the cell", (20, 40), "#0072B2", "s"),
    CellType("monocyte", "MONOCYTE", "large, kidney-shaped", (2, 10), "#009E73", "^"),
    CellType("neutrophil", "NEUTROPHIL", "three to five lobes", (40, 80), "#CC79A7", "D"),
)
"""In the alphabetical order of the class folders, which is that of a model's outputs too."""

NAMES = tuple(cell_type.name for cell_type in CELL_TYPES)
BY_NAME = {cell_type.name: cell_type for cell_type in CELL_TYPES}
BY_FOLDER = {cell_type.folder: cell_type for cell_type in CELL_TYPES}
