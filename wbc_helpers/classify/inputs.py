"""What a recipe's network is shown: whole images, or white cells cut out of them.

Training, evaluation and whoever asks a trained network come here, so that all see the same.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from wbc_helpers.data import splits
from wbc_helpers.data.catalog import find_images, find_photographs, photographs_folder
from wbc_helpers.errors import check_choice
from wbc_helpers.pixels import images, stain, views, white_cells
from wbc_helpers.pixels.scale import RED_CELL, red_cell_diameter_of
from wbc_helpers.runs.recipes import OF_ONE_DATA_SET, RECIPES, TrainingSettings


@dataclass(frozen=True, eq=False)
class Patches:
    """White cells in their surroundings, from which training draws views.

    `pixels`, (n_patches, side, side, 3) uint8, are RGB, balanced, the cell in the middle, see
    `views.patch_size`. `table` has one row a patch: `source_id`, the photograph; `cell_type`; and
    `file` of the image that stands for a photograph which is not at hand, else NA.
    """

    pixels: np.ndarray
    table: pd.DataFrame


@dataclass(frozen=True, eq=False)
class Prepared:
    """All that a recipe's network learns from and is validated on, see `prepare`.

    One row of `catalog`, see `splits.add_provenance`, of `pixels`, (n_images, height, width, 3)
    uint8, see `decode`, and of `part` (`train` or `validation`) for each image, in the same order;
    `patches`, see `cut_patches`; `red_cell`, the diameter of the images' red cells in pixels, see
    `red_cell_of`.
    """

    catalog: pd.DataFrame
    pixels: np.ndarray
    part: pd.Series
    patches: Patches | None = None
    red_cell: float = RED_CELL

    def statistics(self) -> images.PixelStatistics:
        """Mean and standard deviation of each pixel over the images to train on, and no others."""
        return images.mean_and_std_image(
            self.pixels[row] for row in np.flatnonzero(self.part == "train")
        )


def split(training_images: pd.DataFrame, settings: TrainingSettings) -> pd.Series:
    """Set validation images aside as `validation`, `validation_fraction` and `seed` say.

    Returns `train` or `validation` for each row of the TRAIN images.
    """
    if settings.validation == "grouped" and "group_id" not in training_images:
        training_images = splits.add_provenance(training_images)
    return splits.split_validation(
        training_images, settings.validation, settings.validation_fraction, settings.seed
    )


def prepare(
    folder: str | Path,
    settings: TrainingSettings,
    cache_folder: str | Path | None = None,
    of_splits: Sequence[str] = ("TRAIN",),
    deal: Callable[[pd.DataFrame, TrainingSettings], pd.Series] = split,
) -> Prepared:
    """Find the images of a data set, deal them into parts, and decode what a network is shown.

    The settings' `recipe` and `image_size` decide what is shown, `of_splits` whose images take
    part; `deal` leads from those images' rows and the settings to the part of each. For
    `cache_folder` and errors see `images.decode`; `InvalidParameter` is also raised if the images
    cannot be dealt.
    """
    check_choice("recipe", settings.recipe, OF_ONE_DATA_SET)
    everything = splits.add_provenance(find_images(folder))
    rows = everything[everything["split"].isin(of_splits)].reset_index(drop=True)
    part = deal(rows, settings)
    red_cell = red_cell_of(everything)
    recipe, size = settings.recipe, settings.image_size
    return Prepared(
        rows,
        decode(recipe, rows["path"], size, red_cell, cache_folder),
        part,
        cut_patches(folder, rows, recipe, size, red_cell, cache_folder),
        red_cell,
    )


def red_cell_of(catalog_rows: pd.DataFrame) -> float:
    """Estimate the diameter in pixels of the red cells of a data set, once for all its images.

    Where there are images of TRAIN, they alone are looked at, so that training and evaluation see
    the same. Raises `UnreadableImage` if a file is not a complete image.
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
    """Decode images once into what a recipe's network is shown, (n, height, width, 3) uint8.

    In the order of `paths`. `recipe` is a key of `recipes.RECIPES`; `red_cell`, the diameter of the
    red cells in pixels, see `red_cell_of`, is needed where cells are cut out. For the other
    parameters and errors see `images.decode`.
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
    """Mark the white cells in what a recipe's network is shown, see `decode`.

    Returns (n_images, height, width) bool, see `white_cells.outlines`.
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

    Where a photograph is not at hand, or not known, its images stand for it. None for a recipe that
    draws no views. `training_images` are rows of the catalog, see `splits.add_provenance`; without
    `source_id` each image counts as a photograph of its own. A view is square; `red_cell` is the
    diameter of the images' red cells in pixels, that of the photographs is estimated. For the other
    parameters see `decode`. Raises `UnreadableImage` if a file is not a complete image.
    """
    if RECIPES[recipe].views is None:
        return None
    table = training_images[["path", "file", "cell_type"]].assign(
        source_id=source_ids(training_images)
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

    Returns paths by `source_id`, of rows as `splits.add_provenance` gives them.
    """
    paths = catalog_rows.drop_duplicates("source_id").set_index("source_id")["path"]
    at_hand = _photographs_at_hand(folder)
    return pd.Series({name: at_hand.get(str(name), path) for name, path in paths.items()})


def source_ids(catalog_rows: pd.DataFrame) -> pd.Series:
    """Name the photograph of each image; one that is not known counts as a photograph itself."""
    sources = catalog_rows.get("source_id", catalog_rows["file"])
    return sources.fillna(catalog_rows["file"])


def _photographs_at_hand(folder: str | Path) -> dict[str, str]:
    photographs = photographs_folder(folder)
    if photographs is None:
        return {}
    return {path.stem: str(path) for path in find_photographs(photographs)}


def balanced_weights(table: pd.DataFrame) -> np.ndarray:
    """Weigh the patches of a `Patches` table: all types count alike, all photographs of a type too.

    Returns (n_patches,) float64 that sum to 1.
    """
    patches_of = table.groupby(["cell_type", "source_id"], observed=True)["source_id"]
    photographs_of = table.groupby("cell_type", observed=True)["source_id"].transform("nunique")
    n_types = table["cell_type"].nunique()
    weights = 1.0 / (patches_of.transform("size") * photographs_of * n_types)
    return weights.to_numpy(np.float64)
