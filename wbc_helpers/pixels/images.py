"""Pixels: reading images, decoding a whole catalog once, and statistics over pixels."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

import cv2
import numpy as np
import pandas as pd
from PIL import Image, ImageOps
from tqdm import tqdm

from wbc_helpers import storage
from wbc_helpers.errors import (
    BrokenArchive,
    DataNotFound,
    DownloadFailed,
    InvalidParameter,
    UnreadableImage,
)
from wbc_helpers.pixels.stain import is_fill

MAX_PIXELS = 50_000_000
"""Largest image that is decoded. A microscope camera has up to about 25 megapixels; a file that
claims hundreds is a decompression bomb or a mistake, and would fill the memory."""

SMALLEST_SIDE, LARGEST_SIDE = 16, 1024
"""Pixels. Recipes halve an image up to four times; larger ones fit no memory by the thousand."""

_FORMAT_OF_SUFFIX = {
    ".jpeg": "JPEG", ".jpg": "JPEG", ".jpe": "JPEG", ".jfif": "JPEG", ".mpo": "JPEG",
    ".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF", ".bmp": "BMP", ".webp": "WEBP",
    ".gif": "GIF", ".jp2": "JPEG2000", ".avif": "AVIF", ".heic": "HEIF", ".heif": "HEIF",
}  # fmt: skip
PHOTOGRAPH_SUFFIXES = tuple(_FORMAT_OF_SUFFIX)
"""In lower case, of the formats that `read_photograph` reads."""

_FORMATS = ["JPEG", "PNG", "TIFF", "BMP", "WEBP", "GIF", "JPEG2000", "AVIF"]
"""By Pillow's names, the most frequent first. Others are not opened: some of them run programs."""

_FIRST_BYTES = (
    b"\xff\xd8\xff", b"\x89PNG\r\n", b"II*\0", b"MM\0*", b"GIF8", b"\0\0\0\x0cjP  "
)  # fmt: skip
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_WHAT_TO_DO = (
    "Expected a complete colour photograph (JPEG, PNG, TIFF, BMP or WebP); restore the file or "
    "take it out of the data."
)
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


@dataclass(frozen=True, eq=False)
class Photograph:
    """What was read of an image file.

    Attributes
    ----------
    pixels : ndarray, (height, width, 3) uint8
        RGB, upright, as a viewer shows it.
    note : str
        What was adapted to read it, such as "12 bits a channel brought to 8"; mostly empty.
    """

    pixels: np.ndarray
    note: str


def read_image(path: str | Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """Read one colour image, whole or not at all: the pixels of `read_photograph`."""
    return read_photograph(path, size).pixels


def read_photograph(path: str | Path, size: tuple[int, int] | None = None) -> Photograph:
    """Read one colour image, whole or not at all, upright, whatever its name.

    A file is what its content says: JPEG (phones' MPO, too), PNG, TIFF, BMP, WebP, GIF, JPEG 2000
    or AVIF; HEIC where the package pillow-heif is installed. Of several pages the first is read;
    what is transparent becomes white; of more than 8 bits a channel, those in use are brought to 8;
    inks and palettes become RGB.

    With `size`, (height, width), it is resampled to the mean over areas: exactly, but for JPEG
    files, of which the decoder's own 1/2, 1/4 or 1/8 scaling does as much as it can. That saves
    most of the decoding; the published images come out within 0.6 grey levels of the exact mean on
    average at 60 × 80, which divides their sides, and within 1.5 at 48 × 64.

    Raises
    ------
    UnreadableImage
        If the file is missing, empty, truncated, of no such format, not in colour, or larger than
        `MAX_PIXELS`; or lies elsewhere and cannot be fetched.
    """
    if isinstance(path, storage.Elsewhere):
        return _read_elsewhere(path, size)
    path = Path(path)
    if size is not None and (reduced := _read_reduced(path, size)) is not None:
        return Photograph(reduced, "")
    with _opened(path) as opened:
        _check_header(path, opened)
        notes = _remarks(path, opened)
        is_turned = opened.format not in ("JPEG", "PNG") or "exif" in opened.info
        if size is not None:
            lies = is_turned and opened.getexif().get(_ORIENTATION, 1) > 4
            # Pillow knows sizes as (width, height). Formats without a scale of their own stay.
            opened.draft("RGB", size if lies else (size[1], size[0]))
        image: Image.Image = opened
        if _is_deep(opened):
            image, note = _read_deep(path, opened)
            notes.append(note)
        if is_turned:
            image = ImageOps.exif_transpose(image)
        if image.has_transparency_data:
            image = image.convert("RGBA")
            if np.asarray(image)[..., 3].min() < 255:
                notes.append("transparent parts read as white")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        pixels = np.asarray(image.convert("RGB"))
        if size is not None and pixels.shape[:2] != size:
            pixels = resize(pixels, size)
    return Photograph(pixels, "; ".join(notes))


_REDUCED = {
    8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4, 2: cv2.IMREAD_REDUCED_COLOR_2,
}  # fmt: skip


def _read_reduced(path: Path, size: tuple[int, int]) -> np.ndarray | None:
    """Read a plain JPEG file at least so much smaller than it is, by OpenCV.

    That takes a third of Pillow's time. None for all that is not plain, or not sound at first
    sight: a file of another kind or in other colours, turned by its EXIF, or cut off.
    """
    if path.suffix.lower() not in (".jpeg", ".jpg"):
        return None
    try:
        storage.check_regular(path)
        content = path.read_bytes()
    except (OSError, ValueError):  # of which the careful way says what it is
        return None
    whole = _plain_jpeg_size(content)
    if whole is None or whole[0] * whole[1] > MAX_PIXELS:
        return None
    shrinks = min(whole[0] / size[0], whole[1] / size[1])
    divisor = next((divisor for divisor in _REDUCED if divisor <= shrinks), None)
    if divisor is None:
        return None
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), _REDUCED[divisor])
    if pixels is None:
        return None
    if pixels.shape[:2] != size:
        pixels = resize(pixels, size)
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def _plain_jpeg_size(content: bytes) -> tuple[int, int] | None:
    """Height and width of a JPEG file in YCbCr that ends as it should; None if it is another."""
    if not content.startswith(b"\xff\xd8\xff") or not content.endswith(b"\xff\xd9"):
        return None
    place = 2
    while place + 9 < len(content) and content[place] == 0xFF:
        marker, length = content[place + 1], int.from_bytes(content[place + 2 : place + 4])
        if marker in (0xC0, 0xC2):  # baseline or progressive: precision, height, width, channels
            depth, channels = content[place + 4], content[place + 9]
            height = int.from_bytes(content[place + 5 : place + 7])
            width = int.from_bytes(content[place + 7 : place + 9])
            return (height, width) if (depth, channels) == (8, 3) and height and width else None
        # JFIF's head, tables, remarks. Of what else there is, EXIF turns, Adobe mixes colours.
        if marker not in (0xE0, 0xDB, 0xC4, 0xFE, 0xDD):
            return None
        place += 2 + length
    return None


def _read_elsewhere(file: storage.Elsewhere, size: tuple[int, int] | None) -> Photograph:
    """Bring a file here and read it, as `read_photograph`."""
    local = None
    try:
        with file.at_hand() as local:
            return read_photograph(local, size)
    except (UnreadableImage, DataNotFound, DownloadFailed, BrokenArchive) as error:
        said = str(error) if local is None else str(error).replace(str(local), str(file))
        raise UnreadableImage(said) from error


def find_photographs(
    path: str | Path, out: str | Path | None = None
) -> tuple[Path | storage.Elsewhere, list[str], list[str]]:
    """Find the photographs of a folder and of those in it, or take the one that is given.

    `path` may also be an archive, or an address such as `s3://bucket/folder`, of which the files'
    names alone are looked at. Hidden files and those in `out` are left alone. Returns the folder,
    its photographs, see `is_photograph`, and its other files: paths from the folder on, `/` between
    their parts, sorted. Raises `DataNotFound` if there is no such folder or file, or no photograph
    in it, and as `storage.Elsewhere.files`.
    """
    if place := storage.elsewhere(path):
        by_kind: dict[bool, list[str]] = {True: [], False: []}
        for name in place.files():
            if not _is_hidden(name.split("/")):
                by_kind[_is_named_as_photograph(PurePosixPath(name))].append(name)
        return _some_photographs(place, by_kind[True], by_kind[False])
    folder = storage.absolute(path)
    if folder.is_file() and is_photograph(folder):
        return folder.parent, [folder.name], []
    if not folder.is_dir():
        what = "is no photograph, by its name and content" if folder.exists() else "does not exist"
        raise DataNotFound(f"{folder} {what}. Expected a photograph of a smear, or their folder.")
    results = None if out is None else storage.absolute(out)
    if results is not None and folder not in results.parents:
        results = None
    images: list[str] = []
    others: list[str] = []
    closed: list[Path] = []
    # What links to nowhere is a file that is missing, and shall be listed as such, as shall be a
    # folder that may not be looked into.
    for file in storage.walk(folder, lambda error: closed.append(Path(error.filename))):
        parts = file.relative_to(folder).parts
        if not _is_hidden(parts) and results not in [file, *file.parents]:
            (images if is_photograph(file) else others).append("/".join(parts))
    images += [f"{place.relative_to(folder).as_posix()}/" for place in closed]
    return _some_photographs(folder, images, others)


def _some_photographs(folder: Any, images: list[str], others: list[str]) -> tuple[Any, list, list]:
    """Sort what `find_photographs` gives, if there is something."""
    if not images:
        raise DataNotFound(
            f"{folder} holds no photograph among {len(others)} files. Expected photographs of "
            f"smears as {', '.join(PHOTOGRAPH_SUFFIXES)}, or whose content is such."
        )
    return folder, sorted(images), sorted(others)


def _is_hidden(parts: Iterable[str]) -> bool:
    return any(part.startswith(".") for part in parts)


def is_photograph(path: Path) -> bool:
    """Tell by its name, or else by its first bytes, whether a file may be a photograph."""
    return _is_named_as_photograph(path) or _begins_as_image(path)


def _is_named_as_photograph(path: PurePath) -> bool:
    return path.suffix.lower() in PHOTOGRAPH_SUFFIXES


def _begins_as_image(path: Path) -> bool:
    """Tell by its first bytes whether a file is in a format that is read."""
    try:
        storage.check_regular(path)
        with path.open("rb") as file:
            head = file.read(12)
    except (OSError, ValueError):
        return False
    return head.startswith(_FIRST_BYTES) or (head[4:8] == b"ftyp" and head[8:] in _HEIF_BRANDS)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open an image file; whatever goes wrong with it in the block bears its name."""
    try:
        with _open(path) as image:
            yield image
    except UnreadableImage:
        raise
    except Image.DecompressionBombError as error:
        raise UnreadableImage(f"{path} is too large: {error} {_WHAT_TO_DO}") from error
    except FileNotFoundError as error:
        raise UnreadableImage(f"{path} does not exist. {_WHAT_TO_DO}") from error
    except Exception as error:  # there is none that no decoder raises on damaged bytes
        if storage.is_gone(error):
            raise storage.gone(error, path) from error
        raise UnreadableImage(f"{path} {_describe(path, error)}. {_WHAT_TO_DO}") from error


def _open(path: Path) -> Image.Image:
    """Open an image file of `_FORMATS`, or a phone's HEIC."""
    storage.check_regular(path)
    try:
        return Image.open(path, formats=_FORMATS)
    except Image.UnidentifiedImageError:
        with path.open("rb") as file:
            head = file.read(12)
        if head[4:8] != b"ftyp" or head[8:] not in _HEIF_BRANDS:
            raise
    try:
        import pillow_heif
    except ImportError as error:
        raise UnreadableImage(
            f"{path} is in HEIC, which the package pillow-heif reads. Install it (pip install "
            "pillow-heif), or have the phone save JPEG (iPhone: Settings, Camera, Formats, Most "
            "Compatible)."
        ) from error
    pillow_heif.register_heif_opener()
    return Image.open(path, formats=["HEIF"])


_ORIENTATION = 0x0112  # EXIF's tag


def _remarks(path: Path, image: Image.Image) -> list[str]:
    """Say what has to be adapted to read an opened file, as far as its header tells."""
    remarks = []
    content = "JPEG" if image.format == "MPO" else image.format
    if content != _FORMAT_OF_SUFFIX.get(path.suffix.lower(), content):
        remarks.append(f"{content} by content")
    if (n_pages := getattr(image, "n_frames", 1)) > 1:
        remarks.append(f"the first of {n_pages} pictures")
    if image.mode not in ("RGB", "RGBA", "P"):
        remarks.append(f"{image.mode} brought to RGB")
    return remarks


def _is_deep(image: Any) -> bool:
    """Tell of an opened file in colour whether it has more than 8 bits a channel."""
    if image.format == "TIFF":
        return max(image.tag_v2.get(258, (8,))) > 8
    return image.format == "PNG" and "16" in str(image.tile[0][3])


def _read_deep(path: Path, opened: Image.Image) -> tuple[Image.Image, str]:
    """Read a file of more than 8 bits a channel; a camera's 10, 12 or 14 bits come in 16."""
    opened.load()  # it refuses what is cut off, which OpenCV fills up
    content = np.frombuffer(path.read_bytes(), np.uint8)
    pixels = cv2.imdecode(content, cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16 or pixels.ndim != 3:
        raise ValueError("its kind of numbers is not read")
    most = int(pixels[..., :3].max())
    n_bits = next(bits for bits in (8, 10, 12, 14, 16) if most < 1 << bits)
    levels = np.rint(np.arange(1 << 16) * (255 / ((1 << n_bits) - 1))).clip(0, 255)
    pixels = levels.astype(np.uint8)[pixels]
    code = cv2.COLOR_BGRA2RGBA if pixels.shape[2] == 4 else cv2.COLOR_BGR2RGB
    image = Image.fromarray(cv2.cvtColor(pixels, code))
    # Both decoders turn a TIFF, neither a PNG.
    image.getexif()[_ORIENTATION] = opened.getexif().get(_ORIENTATION, 1)
    return image, f"{n_bits} bits a channel brought to 8"


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


def _check_header(path: Path, image: Image.Image) -> None:
    """Refuse, before any pixel is decoded, what is too large or not in colour."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise UnreadableImage(
            f"{path} claims {width:,} × {height:,} pixels, more than the {MAX_PIXELS:,} that "
            f"are read. {_WHAT_TO_DO}"
        )
    if image.mode not in ("RGB", "RGBA", "RGBX", "RGBa", "P", "PA", "CMYK", "YCbCr"):
        is_grey = image.mode.startswith(("1", "L", "I", "F")) and image.mode != "LAB"
        kind = "greyscale" if is_grey else f"of mode {image.mode}"
        raise UnreadableImage(
            f"{path} is {kind}; the stain's colours cannot be told from it. {_WHAT_TO_DO}"
        )


def _describe(path: Path, error: Exception) -> str:
    """Say in plain words why a file could not be decoded."""
    try:
        if path.is_dir():
            return "is a folder"
        storage.check_regular(path)
        if path.stat().st_size == 0:
            return "is empty (0 bytes)"
    except (OSError, ValueError) as reason:
        return f"cannot be read ({getattr(reason, 'strerror', reason)})"
    if isinstance(error, Image.UnidentifiedImageError):
        is_image = _begins_as_image(path)
        return "is not an image" + (" of a kind that is read" if is_image else "")
    return f"is damaged or cut off ({error})"


def decode(
    paths: Iterable[str | Path],
    size: tuple[int, int],
    cache_folder: str | Path | None = None,
    progress: bool = True,
    read: Callable[[Path, tuple[int, int]], np.ndarray] = read_image,
    kind: str = "-2",
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
        with storage.atomic_file(cached) as partial:
            pixels = np.lib.format.open_memmap(partial, "w+", np.uint8, shape)
            storage.reserve(partial, partial.stat().st_size)
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
        storage.check_regular(path)
        return hashlib.sha256(path.read_bytes()).digest()
    except (OSError, ValueError) as error:
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


def size_of(path: str | Path) -> tuple[int, int]:
    """Height and width of an image file, by its header; `UnreadableImage` if it has none."""
    with _opened(Path(path)) as image:
        return image.height, image.width


def count_sizes(paths: Iterable[str | Path]) -> pd.DataFrame:
    """Count the sizes and colour modes that image files have, reading their headers only.

    Columns `width`, `height` (pixels), `mode` (Pillow's, `RGB` for colour) and `n_images`, most
    frequent first.
    """
    sizes = []
    for path in paths:
        with _opened(Path(path)) as image:
            sizes.append((*image.size, image.mode))
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
