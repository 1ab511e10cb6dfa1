"""The types of white cell, four of them in the data set, and the three kinds of cell in a smear."""

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
    fewer, more : str
        What haematology calls a share below and above that range; for shares, with *relative*
        before it.
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
    fewer: str
    more: str
    color: str
    marker: str


CELL_TYPES = (
    CellType("eosinophil", "EOSINOPHIL", "two lobes, red granules",
             (1, 6), "eosinopenia", "eosinophilia", "#D55E00", "o"),
    CellType("lymphocyte", "LYMPHOCYTE", "round, fills the cell",
             (20, 40), "lymphopenia", "lymphocytosis", "#0072B2", "s"),
    CellType("monocyte", "MONOCYTE", "large, kidney-shaped",
             (2, 10), "monocytopenia", "monocytosis", "#009E73", "^"),
    CellType("neutrophil", "NEUTROPHIL", "three to five lobes",
             (40, 80), "neutropenia", "neutrophilia", "#CC79A7", "D"),
)  # fmt: skip
"""In the alphabetical order of the class folders, which is that of a model's outputs too."""

BASOPHIL = CellType("basophil", "BASOPHIL", "hidden by dark granules",
                    (0, 2), "basopenia", "basophilia", "#F0E442", "P")  # fmt: skip
"""The fifth type, which the published data set leaves out."""

LEUKOCYTE_TYPES = (*CELL_TYPES, BASOPHIL)

NAMES = tuple(cell_type.name for cell_type in CELL_TYPES)
OTHER = "other"
"""What is none of the five types of leukocyte: immature, a platelet, debris, no cell at all."""

LEUKOCYTES = (*NAMES, "basophil")
"""The five types of normal blood; the published set of four has no basophils."""

BY_NAME = {cell_type.name: cell_type for cell_type in LEUKOCYTE_TYPES}
BY_FOLDER = {cell_type.folder: cell_type for cell_type in CELL_TYPES}


@dataclass(frozen=True)
class Kind:
    """One kind of cell that is found and counted in a smear.

    Attributes
    ----------
    name : str
        As the BCCD data set's annotations call it.
    title, plural : str
        For people.
    reference : (low, high)
        Adult reference range, women's and men's together, in 10⁹ a litre of blood [1]_.
    color, marker : str
        As in `CellType`; none is a cell type's.

    References
    ----------
    .. [1] A. V. Hoffbrand and P. A. H. Moss, *Essential Haematology*, 6th ed., Wiley-Blackwell
       (2011), appendix 1.
    """

    name: str
    title: str
    plural: str
    reference: tuple[float, float]
    color: str
    marker: str


KINDS = (
    Kind("RBC", "red cell", "red cells", (3900, 6500), "#E69F00", "v"),
    Kind("WBC", "white cell", "white cells", (4, 11), "#000000", "*"),
    Kind("Platelets", "platelet", "platelets", (150, 400), "#56B4E9", "X"),
)
"""In the order of a detector's outputs."""

KIND_NAMES = tuple(kind.name for kind in KINDS)
KIND_BY_NAME = {kind.name: kind for kind in KINDS}

BOX = ["x_min", "y_min", "x_max", "y_max"]
"""Columns of a box, in pixels from the photograph's upper left corner, x to the right, y down. The
pixel in that corner reaches from 0 to 1, so that `x_max - x_min` is a number of pixels."""
