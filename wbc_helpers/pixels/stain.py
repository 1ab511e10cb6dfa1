"""Light and stain, brought to a common standard or changed as another laboratory would."""

import cv2
import numpy as np

WHITE = 235
"""Grey level to which the background is brought, in 0–255 units."""

RED_CELL_ABSORBANCE = (0.098, 0.238, 0.201)
"""Of red, green and blue light, to the base e, beyond that of the background: the median over the
366 photographs of the known data set, whose standard deviations are 0.019, 0.031 and 0.041. No
label has a part in it."""


def absorbance(levels: np.ndarray | float) -> np.ndarray:
    """Absorbance of grey levels, to the base e (Beer and Lambert), in their precision."""
    return -np.log((levels + 1) / 256)


ABSORBANCE = absorbance(np.arange(256, dtype=np.float32))
"""Of each grey level."""

_GAINS = (0.5, 2.0)  # beyond them, what was taken for red cells is something else
_USUAL_BACKGROUND = np.array((220, 215, 225), np.float32)  # where an image shows none
_FEWEST, _FEWEST_OF_RED_CELLS = 20, 150  # pixels whose median is worth anything


def is_fill(image: np.ndarray) -> np.ndarray:
    """Tell the black fill around a rotated image from the smear: bool, (...) for (..., 3) uint8.

    True where all three channels are below 16: JPEG leaves the fill not quite at zero, and no
    stain is that dark in every channel.

    Examples
    --------
    >>> is_fill(np.uint8([[[0, 15, 3], [0, 16, 3]]]))
    array([[ True, False]])
    """
    # OpenCV compares all three channels in one pass, several times as fast as NumPy.
    flat = np.ascontiguousarray(image).reshape(-1, 1, 3)
    return cv2.inRange(flat, (0, 0, 0), (15, 15, 15)).reshape(image.shape[:-1]) > 0


def background(image: np.ndarray) -> np.ndarray:
    """Estimate the colour of the empty background of an RGB image, in 0–255 units, (3,) float32.

    The median of what Otsu's threshold in green calls bright, black fill left out.
    """
    # Every third pixel of every third row tells as much.
    sampled = np.ascontiguousarray(image[::3, ::3])
    smear = sampled[~is_fill(sampled)]
    if len(smear) < _FEWEST:
        return _USUAL_BACKGROUND
    green = np.ascontiguousarray(smear[:, 1])
    otsu, _ = cv2.threshold(green.reshape(1, -1), 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    bright = smear[green > otsu]
    if len(bright) < _FEWEST:
        return _USUAL_BACKGROUND
    return np.median(bright, axis=0).astype(np.float32)


def balance(image: np.ndarray, gain: bool = True) -> np.ndarray:
    """Bring light and stain to a common standard, and give black fill the background's colour.

    Each channel's light is multiplied by one number, as a colour filter in front of the lamp would
    do, then its absorbance by another, as a longer or shorter bath in the dye would do. The result,
    RGB uint8 like the image, has the background at `WHITE` in all channels and red cells of
    `RED_CELL_ABSORBANCE`. Where no red cells are seen, or without `gain`, the stain is left as it
    is, and only the light is white.

    Examples
    --------
    >>> balance(np.full((48, 64, 3), (230, 200, 215), np.uint8))[0, 0].tolist()
    [235, 235, 235]
    """
    # Transmitted light, as a part of what the background transmits.
    light = np.outer(np.arange(256) + 1, 1 / (background(image) + 1))
    levels = _levels(light)
    red_cells = np.empty((0, 3), np.uint8)
    if gain:
        red_cells = _red_cells(cv2.LUT(np.ascontiguousarray(image[::2, ::2]), levels))
    if len(red_cells):
        # To the bit: gains move grey levels.
        strength = np.median(absorbance(red_cells.astype(float)), axis=0) - absorbance(WHITE)
        gains = np.clip(RED_CELL_ABSORBANCE / np.maximum(strength, 0.02), *_GAINS)
        levels = _levels(light**gains)
    balanced = cv2.LUT(image, levels)
    # JPEG speckles the smear along the fill's edge.
    fill = cv2.dilate(is_fill(image).astype(np.uint8), np.ones((7, 7)))
    balanced[fill > 0] = WHITE
    return balanced


def _levels(light: np.ndarray) -> np.ndarray:
    """Table from the grey levels of an image to balanced ones, for `cv2.LUT`."""
    levels = np.clip(np.rint((WHITE + 1) * light - 1), 0, 255).astype(np.uint8)
    return levels[:, np.newaxis]


def _red_cells(balanced: np.ndarray) -> np.ndarray:
    """Grey levels of the pixels of red cells, (n, 3) uint8; none where they are too few."""
    blurred = cv2.GaussianBlur(balanced, (0, 0), 1)
    red, green, blue = cv2.split(blurred)
    smear = ~is_fill(balanced)
    # Red cells are redder than blue, as a rule. Under another stain it takes a second look, at what
    # is not a nucleus, where blue far exceeds green and which may draw the threshold to itself.
    reddish = ~_grown(cv2.add(blue, np.full_like(blue, 5)) > red)
    no_nucleus = smear & ~_grown(cv2.subtract(blue, green) > 30)
    for compared, allowed in ((smear, smear & reddish), (no_nucleus, no_nucleus)):
        if allowed.sum() < _FEWEST_OF_RED_CELLS:
            continue
        levels = green[compared].reshape(1, -1)
        otsu, _ = cv2.threshold(levels, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
        red_cells = blurred[allowed & (green <= otsu) & (green < WHITE - 5)]
        if len(red_cells) >= _FEWEST_OF_RED_CELLS:
            return red_cells
    return blurred[:0, 0]


def _grown(mask: np.ndarray) -> np.ndarray:
    """Widen a mask by two pixels."""
    return cv2.dilate(mask.astype(np.uint8), np.ones((5, 5))) > 0


def vary_stain(view: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Mix the channels' absorbances as another dye, lamp or camera would.

    From (height, width, 3) uint8 RGB to float32, in 0–255 units. For the strength see
    `views.Views.stain`; the same state of `rng` gives the same colours.
    """
    if not strength:
        return view.astype(np.float32)
    gains = rng.normal(0, 0.175 * strength, 3) + rng.normal(0, 0.3 * strength)
    mixing = np.diag(np.exp(gains)) + rng.normal(0, 0.12 * strength, (3, 3))
    tint = np.abs(rng.normal(0, 0.12 * strength, 3)) * (rng.random() < 0.7)
    mixed = ABSORBANCE[view] @ mixing.astype(np.float32) + tint.astype(np.float32)
    return np.clip(256 * np.exp(-mixed) - 1, 0, 255)
