"""Pixels: reading images, decoding a whole catalog once, and statistics over pixels."""

import hashlib
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from wbc_helpers import storage
from wbc_helpers.errors import InvalidParameter, UnreadableImage
from wbc_helpers.pixels.stain import is_fill

MAX_PIXELS = 50_000_000
"""Largest image that is decoded. A microscope camera has up to about 25 megapixels; a file that
claims hundreds is a decompression bomb or a mistake, and would fill the memory."""

SMALLEST_SIDE, LARGEST_SIDE = 16, 1024
"""Pixels. Recipes halve an image up to four times; larger ones fit no memory by the thousand."""

_FORMAT_OF_SUFFIX = {".jpeg": "JPEG", ".jpg": "JPEG", ".png": "PNG"}
_WHAT_TO_DO = "Expected a complete colour JPEG or PNG; restore the file or take it out of the data."
_AT_A_TIME = 64  # that a thread takes; handing out single images costs as much as decoding them


@dataclass(frozen=True, eq=False)
class PixelStatistics:
    """Mean and standard deviation of every pixel over `n_images` images.

    Both are (height, width, 3) float32, in the images' 0–255 units. `std` divides by the number of
    images, like `numpy.std`.
    """

    mean: np.ndarray
    std: np.ndarray
    n_images: int


def read_image(path: str | Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """Read one colour image, whole or not at all: RGB, (height, width, 3) uint8.

    The file is a JPEG or PNG whose content is what its name says. With `size`, (height, width), it
    is resampled, averaging over areas. For JPEG files the decoder's own 1/2, 1/4 or 1/8 scaling
    does most of that, which saves most of the decoding.

    Raises
    ------
    UnreadableImage
        If the file is missing, empty, truncated, not what its suffix says, not in colour, or
        larger than `MAX_PIXELS`.
    """
    path = Path(path)
    expected = _FORMAT_OF_SUFFIX.get(path.suffix.lower())
    try:
        with Image.open(path) as image:
            _check_header(path, image, expected)
            if size is not None:
                # Pillow knows sizes as (width, height).
                image.draft("RGB", (size[1], size[0]))
            pixels = image.convert("RGB")
            if size is not None and pixels.size != (size[1], size[0]):
                pixels = pixels.resize((size[1], size[0]), Image.Resampling.BOX)
    except Image.DecompressionBombError as error:
        raise UnreadableImage(f"{path} is too large: {error}. {_WHAT_TO_DO}") from error
    except FileNotFoundError as error:
        raise UnreadableImage(f"{path} does not exist. {_WHAT_TO_DO}") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise UnreadableImage(f"{path} {_describe(path, error)}. {_WHAT_TO_DO}") from error
    return np.asarray(pixels)


def check_size(size: object) -> tuple[int, int]:
    """Check an image size that a person gave, and return it as a tuple.

    InvalidParameter is raised unless it is (height, width) from `SMALLEST_SIDE` to `LARGEST_SIDE`.

    Examples
    --------
    >>> check_size([60, 80])
    (60, 80)
    """
    if isinstance(size, list | tuple) and len(size) == 2:
        height, width = size
        if all(type(side) is int and SMALLEST_SIDE <= side <= LARGEST_SIDE for side in size):
            return height, width
    raise InvalidParameter(
        f"image_size={size!r} is not usable. Expected (height, width) in pixels, two whole numbers "
        f"from {SMALLEST_SIDE} to {LARGEST_SIDE:,}, such as (60, 80)."
    )


def _check_header(path: Path, image: Image.Image, expected: str | None) -> None:
    """Refuse, before any pixel is decoded, what is not a colour image of the expected kind."""
    width, height = image.size
    if image.format not in ("JPEG", "PNG") or (expected and image.format != expected):
        raise UnreadableImage(
            f"{path} is a {image.format} file by content, not the {expected or 'JPEG'} that its "
            f"name says. {_WHAT_TO_DO}"
        )
    if width * height > MAX_PIXELS:
        raise UnreadableImage(
            f"{path} claims {width:,} × {height:,} pixels, more than the {MAX_PIXELS:,} that "
            f"are read. {_WHAT_TO_DO}"
        )
    if image.mode not in ("RGB", "RGBA", "P"):
        kind = {"L": "greyscale", "CMYK": "CMYK"}.get(image.mode, f"of mode {image.mode}")
        raise UnreadableImage(
            f"{path} is {kind}; the stain's colours cannot be told from it. {_WHAT_TO_DO}"
        )


def _describe(path: Path, error: Exception) -> str:
    """Say in plain words why a file could not be decoded."""
    if path.is_dir():
        return "is a folder"
    if path.stat().st_size == 0:
        return "is empty (0 bytes)"
    if isinstance(error, Image.UnidentifiedImageError):
        return "is not an image"
    return f"is damaged or cut off ({error})"


def decode(
    paths: Iterable[str | Path],
    size: tuple[int, int],
    cache_folder: str | Path | None = None,
    progress: bool = True,
    read: Callable[[Path, tuple[int, int]], np.ndarray] = read_image,
    kind: str = "",
) -> np.ndarray:
    """Decode images once into one array of RGB, (n_images, height, width, 3) uint8.

    With a cache folder, made if needed, the array is kept on disk and memory-mapped (read-only), so
    that it is decoded once for all runs and takes no more memory than the pages in use. It is found
    again by what the files contain, not by their names or dates.

    Parameters
    ----------
    paths, size
        See `read_image`; the array has the order of the paths.
    read : callable
        Takes a path and a size, returns the pixels; by default the whole image, resampled.
    kind : str
        Stands for `read` in the name of the cached file; whatever changes its result must be in it.

    Raises
    ------
    UnreadableImage
        If any file is not a complete colour image; the message names the first ten.
    InvalidParameter
        If there are no paths or the size is not positive.
    NoSpaceLeft, ReadOnlyFolder
        If the cache cannot be written.
    """
    files = [Path(path) for path in paths]
    if not files or min(size) < 1:
        raise InvalidParameter(
            f"Cannot decode {len(files)} images to {size[0]}×{size[1]} pixels. Expected at least "
            "one image and a positive size."
        )
    shape = (len(files), *size, 3)
    if cache_folder is None:
        pixels = np.empty(shape, np.uint8)
        _decode_into(pixels, files, size, progress, read)
        return pixels
    cache_folder = storage.make_folder(cache_folder)
    cached = cache_folder / f"{_content_key(files)}-{size[0]}x{size[1]}{kind}.npy"
    if not cached.exists():
        with storage.atomic_file(cached, n_bytes=int(np.prod(shape))) as partial:
            pixels = np.lib.format.open_memmap(partial, "w+", np.uint8, shape)
            _decode_into(pixels, files, size, progress, read)
            pixels.flush()
            del pixels
    return np.load(cached, mmap_mode="r")


def _content_key(paths: list[Path]) -> str:
    """Twenty hexadecimal digits that stand for the content of these files in this order."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        digests = pool.map(_file_digest, paths, chunksize=256)
        return hashlib.sha256(b"".join(digests)).hexdigest()[:20]


def _file_digest(path: Path) -> bytes:
    """SHA-256 of a file."""
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError as error:
        raise UnreadableImage(f"{path} cannot be read ({error}). {_WHAT_TO_DO}") from error


def _decode_into(
    pixels: np.ndarray,
    paths: list[Path],
    size: tuple[int, int],
    progress: bool,
    read: Callable[[Path, tuple[int, int]], np.ndarray],
) -> None:
    """Fill an array with images, on all cores, and name every file that cannot be read."""

    def decode_from(start: int) -> list[str]:
        messages = []
        for index in range(start, min(start + _AT_A_TIME, len(paths))):
            try:
                pixels[index] = read(paths[index], size)
            except UnreadableImage as error:
                messages.append(str(error))
        return messages

    failures = []
    # Pillow releases Python's lock while it decodes, so threads are enough.
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        tqdm(
            total=len(paths), desc="decoding", unit="image", disable=not progress, mininterval=0.5
        ) as bar,
    ):
        starts = range(0, len(paths), _AT_A_TIME)
        for start, messages in zip(starts, pool.map(decode_from, starts), strict=True):
            failures += messages
            bar.update(min(_AT_A_TIME, len(paths) - start))
    if failures:
        named = "\n".join(failures[:10])
        more = f"\n… and {len(failures) - 10} more" if len(failures) > 10 else ""
        raise UnreadableImage(f"{len(failures)} of {len(paths)} images: \n{named}{more}")


def mean_and_std_image(
    images: Iterable[np.ndarray] | Iterable[str | Path], size: tuple[int, int] | None = None
) -> PixelStatistics:
    """Mean and standard deviation of every pixel over RGB images of one size, or image files.

    Files are resampled to `size`, (height, width), if given. Welford's one-pass update [1]_ keeps a
    single image in memory at a time.

    Raises
    ------
    UnreadableImage
        If a file is not a complete image; the message names the file.
    InvalidParameter
        If there are no images, or their sizes differ.

    References
    ----------
    .. [1] B. P. Welford, Technometrics 4(3), 419–420 (1962).

    Examples
    --------
    >>> black, white = np.zeros((2, 2, 3)), np.full((2, 2, 3), 255.0)
    >>> float(mean_and_std_image([black, white]).mean[0, 0, 0])
    127.5
    """
    n_images = 0
    mean, squares = np.zeros(()), np.zeros(())
    for image in images:
        if isinstance(image, str | Path):
            image = read_image(image, size)
        if n_images and image.shape != mean.shape:
            raise InvalidParameter(
                f"Image {n_images} has shape {image.shape}, those before it {mean.shape}. Expected "
                "one shape for all; give `size` to resample them."
            )
        n_images += 1
        difference = image - mean
        mean = mean + difference / n_images
        squares = squares + difference * (image - mean)
    if not n_images:
        raise InvalidParameter("There are no images to average; at least one was expected.")
    std = np.sqrt(squares / n_images)
    return PixelStatistics(mean.astype(np.float32), std.astype(np.float32), n_images)


def summarise(catalog: pd.DataFrame, pixels: np.ndarray) -> pd.DataFrame:
    """Brightness and colour of every image of a catalog, whose pixels come in the same order.

    To `file`, `split` and `cell_type` it adds, in 0–255 units, averaged over the pixels that are
    not black fill, `red`, `green`, `blue` and `brightness` (mean of the three); and `fill`
    (fraction of black pixels, 0–1).
    """
    measured = []
    for image in pixels:
        filled = is_fill(image)
        stained = image[~filled] if not filled.all() else image.reshape(-1, 3)
        measured.append((*stained.mean(axis=0), filled.mean()))
    red, green, blue, fill = np.array(measured).T
    return catalog[["file", "split", "cell_type"]].assign(
        red=red, green=green, blue=blue, brightness=(red + green + blue) / 3, fill=fill
    )


def count_sizes(paths: Iterable[str | Path]) -> pd.DataFrame:
    """Count the sizes and colour modes that image files have, reading their headers only.

    Columns `width`, `height` (pixels), `mode` (Pillow's, `RGB` for colour) and `n_images`, most
    frequent first.
    """
    sizes = []
    for path in paths:
        try:
            with Image.open(path) as image:
                sizes.append((*image.size, image.mode))
        except OSError as error:
            raise UnreadableImage(
                f"{path} {_describe(Path(path), error)}. {_WHAT_TO_DO}"
            ) from error
    return (
        pd.DataFrame(sizes, columns=["width", "height", "mode"])
        .value_counts()
        .reset_index(name="n_images")
    )


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resample an image to (height, width): over areas to shrink it, linearly to enlarge it."""
    smaller = size[0] * size[1] < image.shape[0] * image.shape[1]
    return cv2.resize(
        image, size[::-1], interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    )


def scaled_size(size: tuple[int, ...], scale: float) -> tuple[int, int]:
    """(height, width), or an image's shape, times a factor: whole pixels, at least one."""
    return max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)


def resample(image: np.ndarray, scale: float) -> np.ndarray:
    """Resample an image by a factor; one within 1 % of 1 leaves it alone."""
    return image if abs(scale - 1) < 0.01 else resize(image, scaled_size(image.shape, scale))


def warp(image: np.ndarray, affine: np.ndarray, size: tuple[int, int], beyond: int) -> np.ndarray:
    """Map an image by an affine map, (2, 3), to (height, width); `beyond` it lies one grey."""
    return cv2.warpAffine(
        image, affine, size[::-1], flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT, borderValue=(beyond,) * 3,
    )  # fmt: skip


def pixels_of(image: str | Path | np.ndarray) -> np.ndarray:
    """Pixels of an image that is given as such or by its path."""
    return read_image(image) if isinstance(image, str | Path) else image
