"""Does the picture of where the network looks tell the truth? A test by occlusion.

If the network reads the white cell, its answer should go with the cell blanked, and stay with as
much of the background blanked.
"""

from dataclasses import dataclass

import cv2
import keras
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from wbc_helpers import cells, models
from wbc_helpers.errors import InvalidParameter
from wbc_helpers.explain import check_masks
from wbc_helpers.images import is_fill

CONDITIONS = ("untouched", "background blanked", "cell blanked")

_MOST_FILL = 0.05  # part of a background patch that may lie on the black fill of a rotated image


@dataclass(frozen=True, eq=False)
class Occluded:
    """Images of which once the cell is blanked, and once as much of the background.

    Attributes
    ----------
    rows : ndarray of int, (n_used,)
        Which of the images could be used.
    cell, background : ndarray, (n_used, height, width, 3) uint8
        Those images, blanked.
    n_images, n_without_cell, n_without_room : int
        Images given; those in which no white cell was found; and those whose cell leaves no
        room for a patch of its shape beside it.
    """

    rows: np.ndarray
    cell: np.ndarray
    background: np.ndarray
    n_images: int
    n_without_cell: int
    n_without_room: int


def occlude(pixels: np.ndarray, masks: np.ndarray, seed: int = 0) -> Occluded:
    """Blank the white cell, and for comparison a patch of the same shape beside it.

    Both are filled with the image's mean colour off the cell and off the black fill. The patch is
    the cell's mask, shifted at random to where it lies whole in the image, off every white cell,
    and at most 5 % on black fill. What no blanking hides is the outline: its size and shape remain.

    Parameters
    ----------
    pixels : ndarray, (n, height, width, 3) uint8
        RGB at the model's size.
    masks : ndarray, (n, height, width) bool
        See `white_cells.outlines`.
    seed : int
        Of the shifts.

    Returns
    -------
    Occluded

    Raises
    ------
    InvalidParameter
        If images and masks do not fit each other.
    """
    check_masks(pixels, masks)
    generator = np.random.default_rng(seed)
    rows, without_cell, blanked = [], 0, ([], [])
    for row, (image, mask) in enumerate(zip(pixels, masks, strict=True)):
        if not mask.any():
            without_cell += 1
            continue
        fill = is_fill(image)
        patch = _beside(mask, fill, generator)
        if patch is None:
            continue
        rows.append(row)
        color = image[~(mask | fill)].mean(axis=0).round().astype(np.uint8)
        for images, where in zip(blanked, (mask, patch), strict=True):
            images.append(np.where(where[..., np.newaxis], color, image))
    cell, background = (
        np.array(images, np.uint8).reshape(-1, *pixels.shape[1:]) for images in blanked
    )
    without_room = len(pixels) - without_cell - len(rows)
    return Occluded(np.array(rows, int), cell, background, len(pixels), without_cell, without_room)


def _beside(
    mask: np.ndarray, fill: np.ndarray, generator: np.random.Generator
) -> np.ndarray | None:
    """Shift a mask off itself, or return None where there is no room."""
    ys, xs = np.nonzero(mask)
    shape = mask[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]

    def covered(area: np.ndarray) -> np.ndarray:
        return cv2.matchTemplate(np.float32(area), np.float32(shape), cv2.TM_CCORR)

    # Sums of products of zeros and ones, up to rounding.
    free = (covered(mask) < 0.5) & (covered(fill) <= _MOST_FILL * shape.sum() + 0.5)
    places = np.argwhere(free)
    if not len(places):
        return None
    y, x = places[generator.integers(len(places))]
    patch = np.zeros_like(mask)
    patch[y : y + shape.shape[0], x : x + shape.shape[1]] = shape
    return patch


def answers_to(
    model: keras.Model,
    pixels: np.ndarray,
    true_types: ArrayLike,
    occluded: Occluded,
    batch_size: int = 128,
) -> pd.DataFrame:
    """Ask the network about the same images untouched and blanked.

    Parameters
    ----------
    model : keras.Model
        As `models.build` makes it.
    pixels : ndarray, (n, height, width, 3) uint8
        The images that were given to `occlude`.
    true_types : (n,) array_like of str
        One of `cells.NAMES` each.
    occluded : Occluded
        See `occlude`.
    batch_size : int
        Images at a time.

    Returns
    -------
    DataFrame
        One row for each usable image under each of `CONDITIONS`: `image` (int, its row in
        `pixels`), `condition` (categorical), `cell_type` (the true one), `original` (what the
        network says of the untouched image), `predicted`, `probability` (of `original`, 0–1).
    """
    names, true_types = np.array(cells.NAMES), np.asarray(true_types).astype(str)
    if len(true_types) != len(pixels) or occluded.n_images != len(pixels):
        raise InvalidParameter(
            f"There are {len(pixels)} images, {len(true_types)} true types, and "
            f"{occluded.n_images} images were blanked. Expected the same images in all three."
        )
    if not len(occluded.rows):
        raise InvalidParameter(
            f"None of {occluded.n_images} images can be used: in {occluded.n_without_cell} no "
            f"white cell was found, {occluded.n_without_room} leave no room beside it. Expected "
            "images as the data set has them; look at the masks of white_cells.outlines."
        )
    tables, original = [], None
    shown = (pixels[occluded.rows], occluded.background, occluded.cell)
    for condition, images in zip(CONDITIONS, shown, strict=True):
        probabilities = models.predict(model, images, batch_size)
        predicted = probabilities.argmax(axis=1)
        original = predicted if original is None else original
        answers = {
            "image": occluded.rows,
            "condition": condition,
            "cell_type": true_types[occluded.rows],
            "original": names[original],
            "predicted": names[predicted],
            "probability": probabilities[np.arange(len(images)), original],
        }
        tables.append(pd.DataFrame(answers))
    table = pd.concat(tables, ignore_index=True)
    table["condition"] = pd.Categorical(table["condition"], CONDITIONS, ordered=True)
    return table


def summarise(answers: pd.DataFrame) -> pd.DataFrame:
    """Sum up what blanking does to the answers.

    Parameters
    ----------
    answers : DataFrame
        See `answers_to`.

    Returns
    -------
    DataFrame
        Rows are `CONDITIONS`. `n_images`; `accuracy`; `kept`: part of the answers that are still
        those of the untouched image; `probability`: mean of that of the original answer. All
        0–1.
    """
    measured = answers.assign(
        accuracy=answers["predicted"] == answers["cell_type"],
        kept=answers["predicted"] == answers["original"],
    )
    summary = measured.groupby("condition", observed=False)[["accuracy", "kept", "probability"]]
    return summary.mean().assign(n_images=summary.size())[
        ["n_images", "accuracy", "kept", "probability"]
    ]
