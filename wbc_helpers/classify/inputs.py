"""What a recipe's network is shown: whole images, or white cells cut out of them.

Training, evaluation and whoever asks a trained network come here, so that all see the same.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from wbc_helpers.data.catalog import find_photographs, photographs_folder
from wbc_helpers.pixels import images, stain, views, white_cells
from wbc_helpers.pixels.scale import RED_CELL, red_cell_diameter_of
from wbc_helpers.runs.recipes import RECIPES


def red_cell_of(catalog_rows: pd.DataFrame) -> float:
    """Estimate the diameter of the red cells of a data set, once for all its images.

    Parameters
    ----------
    catalog_rows : DataFrame
        With `path` and `split`. Where there are images of TRAIN, they alone are looked at, so that
        training and evaluation see the same.

    Returns
    -------
    float
        Pixels.

    Raises
    ------
    UnreadableImage
        If a file is not a complete image.
    """
    training = catalog_rows[catalog_rows["split"] == "TRAIN"]
    rows = training if len(training) else catalog_rows
    return red_cell_diameter_of(rows["path"])


def decode(
    recipe: str,
    paths: pd.Series,
    image_size: tuple[int, int],
    red_cell: float = RED_CELL,
    cache_folder: str | Path | None = None,
    progress: bool = True,
) -> np.ndarray:
    """Decode images once into what a recipe's network is shown.

    Parameters
    ----------
    recipe : str
        Key of `recipes.RECIPES`.
    paths : Series of str
        Image files.
    image_size : (height, width)
        Pixels.
    red_cell : float
        Diameter of their red cells in pixels, see `red_cell_of`; needed where cells are cut out.
    cache_folder : path, optional
        See `images.decode`.
    progress : bool
        Show a progress bar.

    Returns
    -------
    ndarray, (n_images, height, width, 3) uint8
        In the order of `paths`.

    Raises
    ------
    UnreadableImage, InvalidParameter, NoSpaceLeft, ReadOnlyFolder
        See `images.decode`.
    """
    if RECIPES[recipe].sees == "image":
        return images.decode(paths, image_size, cache_folder, progress)
    return images.decode(
        paths, image_size, cache_folder, progress,
        read=partial(white_cells.read_crop, red_cell=red_cell),
        kind=f"-cell-{white_cells.VERSION}-{red_cell:.1f}",
    )  # fmt: skip


def mask_cells(
    recipe: str,
    paths: pd.Series,
    image_size: tuple[int, int],
    red_cell: float = RED_CELL,
    progress: bool = True,
) -> np.ndarray:
    """Mark the white cells in what a recipe's network is shown.

    Parameters
    ----------
    recipe, paths, image_size, red_cell, progress
        See `decode`.

    Returns
    -------
    ndarray, (n_images, height, width) bool
        See `white_cells.outlines`.
    """
    if RECIPES[recipe].sees == "image":
        return white_cells.outlines(paths, image_size, progress, red_cell)
    masks = np.zeros((len(paths), *image_size), bool)
    for row, path in enumerate(tqdm(paths, desc="white cells", disable=not progress)):
        image = images.read_image(path)
        cell, _ = white_cells.locate_one(image, red_cell)
        # Dark on the cell, for a crop's margin is white.
        around = ~white_cells.outline(image, red_cell) * np.uint8(stain.WHITE)
        crop = white_cells.cut_out(np.dstack([around] * 3), cell, image_size[0], red_cell)
        masks[row] = crop[..., 0] < stain.WHITE // 2
    return masks


@dataclass(frozen=True, eq=False)
class Patches:
    """White cells in their surroundings, from which training draws views.

    Attributes
    ----------
    pixels : ndarray, (n_patches, side, side, 3) uint8
        RGB, balanced, the cell in the middle, see `views.patch_size`.
    table : DataFrame
        One row a patch: `source_id`, the photograph; `cell_type`; and `file` of the image that
        stands for a photograph which is not at hand, else NA.
    """

    pixels: np.ndarray
    table: pd.DataFrame


def cut_patches(
    folder: str | Path,
    training_images: pd.DataFrame,
    recipe: str,
    image_size: tuple[int, int],
    red_cell: float = RED_CELL,
    cache_folder: str | Path | None = None,
    progress: bool = True,
) -> Patches | None:
    """Cut the white cells out of the photographs from which training images were made.

    Where a photograph is not at hand, or not known, its images stand for it.

    Parameters
    ----------
    folder : path
        Of the data set.
    training_images : DataFrame
        Rows of the catalog, see `splits.add_provenance`; without `source_id` each image
        counts as a photograph of its own.
    recipe : str
        Key of `recipes.RECIPES`.
    image_size : (height, width)
        Pixels of a view, both alike.
    red_cell : float
        Diameter of the images' red cells in pixels, see `red_cell_of`; that of the photographs is
        estimated.
    cache_folder : path, optional
        See `images.decode`.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Patches or None
        None for a recipe that draws no views.

    Raises
    ------
    UnreadableImage
        If a file is not a complete image.
    """
    if RECIPES[recipe].views is None:
        return None
    known = training_images.get("source_id", pd.Series(pd.NA, index=training_images.index))
    table = training_images[["path", "file", "cell_type"]].assign(
        source_id=known.fillna(training_images["file"])
    )
    at_hand = _photographs_at_hand(folder)
    photographs = [at_hand.get(name) for name in table["source_id"]]
    stands_in = np.array([photograph is None for photograph in photographs])
    table["file"] = table["file"].where(stands_in)
    table["path"] = [
        photograph or path for photograph, path in zip(photographs, table["path"], strict=True)
    ]
    table = table.drop_duplicates(["path", "cell_type"]).reset_index(drop=True)
    taken = table.loc[table["file"].isna(), "path"]
    of_photographs = red_cell_diameter_of(taken, default=red_cell)
    scale = dict.fromkeys(table["path"], red_cell) | dict.fromkeys(taken, of_photographs)

    def read(path: Path, size: tuple[int, int]) -> np.ndarray:
        return white_cells.read_crop(path, size, scale[str(path)], white_cells.SIDE * views.MARGIN)

    side = views.patch_size(image_size[0])
    pixels = images.decode(
        table["path"], (side, side), cache_folder, progress, read,
        kind=f"-patch-{white_cells.VERSION}-{red_cell:.1f}-{of_photographs:.1f}",
    )  # fmt: skip
    return Patches(pixels, table[["source_id", "cell_type", "file"]])


def photographs_of(folder: str | Path, catalog_rows: pd.DataFrame) -> pd.Series:
    """Find the photograph behind each `source_id`; where it is missing, an image made from it.

    Parameters
    ----------
    folder : path
        Of the data set.
    catalog_rows : DataFrame
        See `splits.add_provenance`.

    Returns
    -------
    Series of str
        Paths, by `source_id`.
    """
    paths = catalog_rows.drop_duplicates("source_id").set_index("source_id")["path"]
    at_hand = _photographs_at_hand(folder)
    return pd.Series({name: at_hand.get(name, path) for name, path in paths.items()}, dtype=object)


def _photographs_at_hand(folder: str | Path) -> dict[str, str]:
    photographs = photographs_folder(folder)
    if photographs is None:
        return {}
    return {path.stem: str(path) for path in find_photographs(photographs)}


def balanced_weights(table: pd.DataFrame) -> np.ndarray:
    """Weigh patches so that all cell types count alike, and all photographs of a type.

    Parameters
    ----------
    table : DataFrame
        See `Patches`.

    Returns
    -------
    ndarray, (n_patches,) float64
        Sums to 1.
    """
    patches_of = table.groupby(["cell_type", "source_id"], observed=True)["source_id"]
    photographs_of = table.groupby("cell_type", observed=True)["source_id"].transform("nunique")
    n_types = table["cell_type"].nunique()
    weights = 1.0 / (patches_of.transform("size") * photographs_of * n_types)
    return weights.to_numpy(np.float64)
