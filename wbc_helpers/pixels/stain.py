"""Light and stain: brought to a common standard, changed as another laboratory would, and read.

Nuclei of white cells show by what they absorb: of red light as much as red cells let through.
"""

from collections.abc import Iterator

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


_ABSORBANCE = absorbance(np.arange(256, dtype=np.float32))


def absorbances(levels: np.ndarray) -> np.ndarray:
    """Absorbances of grey levels, uint8 of two or three dimensions: float32, by a table."""
    return cv2.LUT(levels, _ABSORBANCE)


_GAINS = (0.5, 2.0)  # beyond them, what was taken for red cells is something else
_USUAL_BACKGROUND = np.array((220, 215, 225), np.float32)  # where an image shows none
_FEWEST, _FEWEST_OF_RED_CELLS = 20, 150  # pixels whose median is worth anything


SMALLEST_NUCLEUS = 800
"""Pixels, where a red cell is 52 wide. What platelets leave there is smaller."""

WIDEST_FIELD = 2.5
"""Red cells, beside 52 pixels each: the neighbourhood whose lightest place counts as empty."""

_CHROMATIN = (0.38, 0.9)
"""Between what the palest nuclei absorb and what red cells may. Between them Otsu's choice holds;
in a field without a white cell it would split the background."""


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


def whiten(image: np.ndarray) -> np.ndarray:
    """Make the empty background of an RGB image white, `WHITE` in all channels, and nothing else.

    By this nuclei are found, red cells measured and `broad` learned; of `balance`, which takes the
    light for one colour all over, the recipes that are `balanced` and the detector learned.
    Light that differs over a wide field is evened out: its logarithm is fitted by a polynomial of
    second degree wherever that explains the background clearly better than one colour does. Black
    fill becomes background. Returns uint8 like the image.

    Examples
    --------
    >>> whiten(np.full((48, 64, 3), (230, 200, 215), np.uint8))[0, 0].tolist()
    [235, 235, 235]
    """
    field = _light_field(image)
    if np.any(field[1:]):
        light = (image.astype(np.float32) + 1) * np.exp(-_terms(*image.shape[:2]) @ field)
        white = np.clip(np.rint((WHITE + 1) * light - 1), 0, 255).astype(np.uint8)
    else:
        white = cv2.LUT(image, _levels(np.outer(np.arange(256) + 1, np.exp(-field[0]))))
    return _without_fill(image, white)


def _without_fill(image: np.ndarray, white: np.ndarray) -> np.ndarray:
    """Give black fill the background's colour; JPEG speckles the smear along its edge."""
    fill = cv2.dilate(is_fill(image).astype(np.uint8), np.ones((7, 7)))
    white[fill > 0] = WHITE
    return white


def _terms(height: int, width: int) -> np.ndarray:
    """Terms of a polynomial of second degree over an image, (height, width, 6) float32."""
    down, across = np.meshgrid(
        np.linspace(-1, 1, height, dtype=np.float32),
        np.linspace(-1, 1, width, dtype=np.float32),
        indexing="ij",
    )
    ones = np.ones_like(down)
    return np.stack([ones, across, down, across**2, across * down, down**2], axis=-1)


def _light_field(image: np.ndarray) -> np.ndarray:
    """Fit the logarithm of the background's light, plus one: coefficients of `_terms`, (6, 3).

    All but the first are 0 where one colour does as well.
    """
    longest = max(image.shape[:2])
    small = image
    if longest > 96:
        size = [max(round(side * 96 / longest), 8) for side in image.shape[1::-1]]
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    smear = ~is_fill(small)
    one_colour = np.zeros((6, 3), np.float32)
    if smear.sum() < _FEWEST:
        one_colour[0] = np.log(_USUAL_BACKGROUND + 1)
        return one_colour
    light = np.log(small[smear].astype(np.float32) + 1)
    terms = _terms(*small.shape[:2])[smear]
    bright = _brighter(light[:, 1])
    one_colour[0] = np.median(light[bright], axis=0)
    misses = np.abs(light[bright] - one_colour[0]).mean()
    for _ in range(6):
        field = _fitted(terms[bright], light[bright])
        brighter = _brighter(light[:, 1] - terms @ field[:, 1])
        if brighter.sum() < max(_FEWEST, 0.02 * len(light)):
            break
        if np.array_equal(brighter, bright):
            break  # nothing would change any more
        bright = brighter
    field = _fitted(terms[bright], light[bright])
    left = np.abs(light[bright] - terms[bright] @ field).mean()
    return field if left < 0.7 * misses else one_colour


def _fitted(terms: np.ndarray, light: np.ndarray) -> np.ndarray:
    """Least squares, the curved terms held back a little: (6, 3) float32."""
    ridge = 0.02 * len(terms) * np.diag([0, 1, 1, 1, 1, 1])
    return np.linalg.solve(terms.T @ terms + ridge, terms.T @ light).astype(np.float32)


def _brighter(light: np.ndarray) -> np.ndarray:
    """Tell what Otsu's threshold calls bright, bool; the brighter half where that is too little."""
    low, high = np.percentile(light, (1, 99))
    levels = np.clip((light - low) / max(high - low, 1e-3) * 255, 0, 255).astype(np.uint8)
    otsu, _ = cv2.threshold(levels.reshape(1, -1), 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    bright = levels > otsu
    return bright if bright.sum() >= _FEWEST else light >= np.median(light)


def balance(image: np.ndarray, gain: bool = True) -> np.ndarray:
    """Bring light and stain to a common standard, and give black fill the background's colour.

    Each channel's light is multiplied by one number, as a colour filter in front of the lamp would
    do, then its absorbance by another, as a longer or shorter bath in the dye would do. The result,
    RGB uint8 like the image, has the background at `WHITE` in all channels and red cells of
    `RED_CELL_ABSORBANCE`. Where no red cells are seen, or without `gain`, the stain is left as it
    is, and only the light is white. For light that differs over the field see `whiten`.

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
    return _without_fill(image, cv2.LUT(image, levels))


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


def vary_stain(
    view: np.ndarray,
    strength: float,
    rng: np.random.Generator,
    recoloring: np.ndarray | None = None,
) -> np.ndarray:
    """Mix the channels' absorbances as another dye, lamp or camera would.

    From (height, width, 3) uint8 RGB to float32, in 0–255 units. For the strength see
    `views.Views.stain`; `recoloring`, (3, 3), mixes the absorbances before. The same state of `rng`
    gives the same colours.
    """
    if not strength and recoloring is None:
        return view.astype(np.float32)
    gains = rng.normal(0, 0.175 * strength, 3) + rng.normal(0, 0.3 * strength)
    mixing = np.diag(np.exp(gains)) + rng.normal(0, 0.12 * strength, (3, 3))
    tint = np.abs(rng.normal(0, 0.12 * strength, 3)) * (rng.random() < 0.7)
    if recoloring is not None:
        mixing = recoloring.T @ mixing
    mixed = cv2.transform(-absorbances(view), np.column_stack([mixing.T, -tint]))
    return np.clip(256 * cv2.exp(mixed) - 1, 0, 255)


_STAINED = 0.15  # absorbance of green light from which on a pixel belongs to a cell


def statistics(crop: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the absorbances of stained pixels, twice (3,) float32.

    Of an RGB crop whose background is white.
    """
    absorbed = absorbances(crop)
    # Without a stained pixel both are 0.
    mean, spread = cv2.meanStdDev(absorbed, mask=(absorbed[..., 1] > _STAINED).astype(np.uint8))
    return mean[:, 0].astype(np.float32), (spread[:, 0] + 0.03).astype(np.float32)


def transfer_stain(
    view: np.ndarray, mean: np.ndarray, spread: np.ndarray, part: float
) -> np.ndarray:
    """Give a cell the stain of another, see `statistics`: uint8 RGB again.

    Absorbances are brought to that mean and spread, as Reinhard et al. (IEEE CG&A 21(5), 2001) do
    with colours, `part` of the way, 0–1; the background stays.
    """
    absorbed = absorbances(view)
    own_mean, own_spread = statistics(view)
    moved = np.clip((absorbed - own_mean) * (spread / own_spread) + mean, 0, 5)
    on_cell = np.clip((absorbed[..., 1:2] - 0.1) / 0.1, 0, 1)
    mixed = absorbed + np.float32(part) * on_cell * (moved - absorbed)
    return np.clip(np.rint(256 * cv2.exp(-mixed) - 1), 0, 255).astype(np.uint8)


def azure(white: np.ndarray, blur: float = 1.5) -> np.ndarray:
    """Measure how much azure dye, which chromatin takes up, lies in each pixel.

    Absorbance (base e) of red light, and of green beyond that of blue: (height, width) float32, 0
    in the background. Red cells absorb hardly any red, and of green no more than of blue.
    `white` is RGB uint8, see `whiten`; `blur` is in pixels.
    """
    light = cv2.GaussianBlur(white, (0, 0), blur) if blur else white
    red, green, blue = cv2.split(absorbances(light) - np.float32(absorbance(WHITE)))
    return red + green - blue


def chromatin(
    white: np.ndarray, widest: float = WIDEST_FIELD * 52, blur: float = 1.5
) -> np.ndarray:
    """Tell chromatin from all else, (height, width) bool, of a white-balanced RGB image.

    What absorbs clearly more azure than the lightest place within `widest` pixels, so that a field
    tinted unevenly counts as empty.
    """
    dye = azure(white, blur)
    dye -= np.maximum(_opened(dye, widest), 0)
    upper_half = dye[dye > np.median(dye)]
    if not upper_half.size:
        return np.zeros(dye.shape, bool)
    levels = np.rint(100 * np.clip(upper_half, 0, 2.5)).astype(np.uint8).reshape(1, -1)
    otsu, _ = cv2.threshold(levels, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    # Nuclei that the frame cuts are paler than others.
    return dye > np.clip(0.95 * otsu / 100, *_CHROMATIN)


def _opened(dye: np.ndarray, widest: float) -> np.ndarray:
    """Take away what is narrower than so many pixels, at a quarter of the resolution."""
    height, width = dye.shape
    coarse = cv2.resize(
        dye, (max(width // 4, 1), max(height // 4, 1)), interpolation=cv2.INTER_AREA
    )
    side = max(round(widest / 4), 1)
    opened = cv2.morphologyEx(
        coarse, cv2.MORPH_OPEN, np.ones((side, side)), borderType=cv2.BORDER_REPLICATE
    )
    return cv2.resize(opened, (width, height))


def find_nuclei(
    image: np.ndarray, smallest: int = SMALLEST_NUCLEUS, thinnest: int = 9
) -> np.ndarray:
    """Find the nuclei of white cells by their colour: numbered from 1, (height, width) int32.

    Of an RGB image, uint8, whose red cells are about 52 pixels wide, under any usual stain and
    light: the background is made white first. Lobes of one nucleus are counted together; what is
    thinner than `thinnest` pixels, such as a dark edge of a red cell, or has fewer pixels than
    `smallest`, is none. On the 364 photographs that the BCCD set annotates see `make locate`.
    """
    return _numbered(whiten(image), smallest, thinnest)


def _numbered(white: np.ndarray, smallest: int, thinnest: int) -> np.ndarray:
    """Give each nucleus of a white-balanced image a number."""
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (thinnest, thinnest))
    marked = cv2.morphologyEx(chromatin(white).astype(np.uint8), cv2.MORPH_OPEN, disc)
    _, parts = cv2.connectedComponents(cv2.dilate(marked, np.ones((9, 9))))
    parts = np.where(marked > 0, parts, 0)
    large = np.bincount(parts.ravel()) >= smallest
    large[0] = False
    return np.where(large, np.cumsum(large), 0).astype(np.int32)[parts]


def hulls(nuclei: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Of each numbered nucleus where it is, (height, width) bool, and its convex hull."""
    for number in range(1, int(nuclei.max(initial=0)) + 1):
        nucleus = nuclei == number
        yield nucleus, cv2.convexHull(cv2.findNonZero(nucleus.astype(np.uint8)))


def largest_width(white: np.ndarray) -> float:
    """Width of the largest nucleus of a white-balanced image of any scale: that of a disc as large.

    In pixels; NaN where none is seen, or only what is too small or too large to be one.
    """
    nuclei = _numbered(white, 60, 3)
    if not nuclei.max():
        return float("nan")
    areas = np.bincount(nuclei.ravel())
    areas[0] = 0
    order = np.argsort(-areas)[: int(nuclei.max())]
    for number in order:
        hull = cv2.convexHull(cv2.findNonZero((nuclei == number).astype(np.uint8)))
        width = float(np.sqrt(4 / np.pi * max(cv2.contourArea(hull), 1)))
        if 14 <= width <= 0.95 * min(nuclei.shape):
            return width
    return float("nan")
