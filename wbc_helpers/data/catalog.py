"""What a folder of data holds: where it begins, which files there are, and their digests.

Images of cells lie as in the Kaggle archive (`TRAIN/EOSINOPHIL/_0_1.jpeg`), labelled cells of other
laboratories in a folder a class or as boxes in fields, photographs of smears in one of the
`BOX_FORMATS`, each somewhere below the folder that a user unpacked.

The digest of a data set is the SHA-256, in hexadecimal, of one line a file, sorted by path: the
path relative to where the data begin, a NUL character, the SHA-256 of the file in hexadecimal, a
line feed; in UTF-8. What operating systems leave behind does not count, see `is_junk`.
"""

import csv
import gzip
import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.resources.abc import Traversable
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from wbc_helpers import cells, storage
from wbc_helpers.errors import DataMismatch, DataNotFound, UnreadableImage

SPLITS = ("TRAIN", "TEST", "TEST_SIMPLE")
IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png")
PHOTOGRAPH_SUFFIXES = (*IMAGE_SUFFIXES, ".bmp", ".tif", ".tiff", ".webp")
"""Of photographs that people boxed themselves."""

# The archive nests its folders twice; people also unpack it once or copy only the inner part.
_IMAGE_FOLDERS = (".", "images", "dataset2-master/images", "dataset2-master/dataset2-master/images")
_PHOTOGRAPH_FOLDERS = (".", "dataset-master", "dataset-master/dataset-master")


def images_folder(folder: str | Path) -> Path:
    """Find the folder that holds `TRAIN` and `TEST`: the one given, or up to three levels below.

    Raises `DataNotFound` if there is no such folder, or no `TRAIN` and `TEST` at a known depth.
    """
    folder = storage.absolute(folder).resolve()
    if not folder.is_dir():
        raise DataNotFound(
            f"There is no folder {folder}. Expected an unpacked copy of the blood-cells data; "
            "give source='sample' to try with drawn cells."
        )
    for below in _IMAGE_FOLDERS:
        candidate = (folder / below).resolve()
        if (candidate / "TRAIN").is_dir() and (candidate / "TEST").is_dir():
            return candidate
    entries = ", ".join(sorted(entry.name for entry in folder.iterdir())[:8]) or "nothing"
    raise DataNotFound(
        f"{folder} holds no TRAIN and TEST folders (found: {entries}). Expected them there, or in "
        "images/, dataset2-master/images/ or dataset2-master/dataset2-master/images/ below it. "
        "Point the source at the folder that was unpacked from the blood-cells archive."
    )


def find_images(folder: str | Path) -> pd.DataFrame:
    """List every image of a data set, wherever `images_folder` finds it.

    One row an image, ordered by split (`SPLITS`), then file name. Columns: `path` (str, absolute),
    `file` (str, relative to the images folder), `split`, `cell_type` (categorical, one of
    `cells.NAMES`).

    Raises `DataNotFound` if the layout is not recognised; `DataMismatch` if class folders are
    missing, empty or unknown, naming them all.
    """
    root = images_folder(folder)
    problems, rows = [], []
    for split in SPLITS:
        split_folder = root / split
        # TEST_SIMPLE is an extra of the archive; a user's own data need not have it.
        if not split_folder.is_dir():
            continue
        class_folders = {entry.name: entry for entry in split_folder.iterdir() if entry.is_dir()}
        unknown = sorted(set(class_folders) - set(cells.BY_FOLDER))
        problems += [f"{split}/{name} is no known cell type" for name in unknown]
        for name, cell_type in cells.BY_FOLDER.items():
            files = sorted(
                path
                for path in class_folders.get(name, Path("nowhere")).glob("*")
                if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
            )
            if not files and split != "TEST_SIMPLE":
                state = "is empty" if name in class_folders else "is missing"
                problems.append(f"{split}/{name} {state}")
            rows += [
                (str(path), path.relative_to(root).as_posix(), split, cell_type.name)
                for path in files
            ]
    if problems:
        raise DataMismatch(
            f"{root} is not complete: {'; '.join(problems)}. Expected in TRAIN and TEST exactly "
            f"the folders {', '.join(cells.BY_FOLDER)}, each with JPEG images. Unpack the archive "
            "again, or move what does not belong there."
        )
    catalog = pd.DataFrame(rows, columns=["path", "file", "split", "cell_type"])
    catalog["split"] = pd.Categorical(catalog["split"], categories=SPLITS)
    catalog["cell_type"] = pd.Categorical(catalog["cell_type"], categories=cells.NAMES)
    return catalog


def count_images(catalog: pd.DataFrame) -> pd.DataFrame:
    """Count images by split (rows) and cell type (columns), with totals `all`.

    Examples
    --------
    >>> images = pd.DataFrame({"split": ["TRAIN", "TRAIN"], "cell_type": ["monocyte", "monocyte"]})
    >>> int(count_images(images).loc["TRAIN", "monocyte"])
    2
    """
    return pd.crosstab(
        catalog["split"], catalog["cell_type"], margins=True, margins_name="all", dropna=False
    )


def photographs_folder(folder: str | Path) -> Path | None:
    """Find the `JPEGImages` that come with images of cells: the folder around it, or None."""
    folder = storage.absolute(folder).resolve()
    for below in _PHOTOGRAPH_FOLDERS:
        candidate = (folder / below).resolve()
        if (candidate / "JPEGImages").is_dir():
            return candidate
    return None


BOX_FORMATS = {
    "VOC": "folders JPEGImages and Annotations with an XML file each, or XML beside the images",
    "YOLO": "folders images and labels with a .txt file each, or .txt beside the images",
    "COCO": "one JSON file with images, annotations and categories",
}
"""How boxes are written, and where their files lie."""

SMEARS = (
    "boxed photographs of smears. Expected them in one of these layouts: "
    + "; ".join(f"{name}, {what}" for name, what in BOX_FORMATS.items())
    + "; such as the archive of https://github.com/Shenggan/BCCD_Dataset"
)
"""What to say of data without it."""

_DEEPEST = 3
"""Folders above the data that people and archives wrap them in, at most."""

PART_FOLDERS = ("train", "valid", "val", "test")


def smears_folder(folder: str | Path) -> Path:
    """Find the folder that holds boxed photographs, in one of `BOX_FORMATS`.

    It is the one given, or up to three levels below. Raises `DataNotFound` if there is no such
    folder, or more than one at the same depth.
    """
    return _only_place(
        folder, box_format, f"There must be {SMEARS}.", f"no {SMEARS}", "sets of photographs"
    )


def _only_place(
    folder: str | Path, is_one: Callable[[Path], object], expected: str, lacks: str, things: str
) -> Path:
    """Find the one folder of a kind: the one given, or up to three levels below."""
    folder = storage.absolute(folder).resolve()
    if not folder.is_dir():
        raise DataNotFound(f"There is no folder {folder}. {expected}")
    places = [folder]
    for _ in range(_DEEPEST + 1):
        candidates = [place for place in places if is_one(place)]
        if len(candidates) == 1:
            return candidates[0]
        if candidates:
            names = ", ".join(str(place.relative_to(folder)) for place in candidates[:5])
            raise DataNotFound(
                f"{folder} holds {len(candidates)} {things} ({names}). Give the path of the one "
                "that is meant."
            )
        places = [
            entry
            for place in places
            for entry in sorted(place.iterdir())
            if entry.is_dir() and not is_junk(entry.name)
        ]
    entries = ", ".join(sorted(entry.name for entry in folder.iterdir())[:8]) or "nothing"
    raise DataNotFound(f"{folder} (holding {entries}) has {lacks}.")


def box_format(root: str | Path) -> str:
    """Tell in which of `BOX_FORMATS` the photographs of this very folder are boxed, or nothing."""
    root = Path(root)
    parts = [root, *(root / part for part in PART_FOLDERS)]
    if (root / "JPEGImages").is_dir() and (root / "Annotations").is_dir():
        return "VOC"
    if coco_files(root):
        return "COCO"
    if any((part / "images").is_dir() and (part / "labels").is_dir() for part in parts):
        return "YOLO"
    if (root / "images").is_dir() and (root / "Annotations").is_dir():
        return "VOC"
    for part in filter(Path.is_dir, parts):
        names = [Path(name) for name in os.listdir(part) if not is_junk(name)]
        photographs = {name.stem for name in names if name.suffix.lower() in PHOTOGRAPH_SUFFIXES}
        for name, suffix in (("VOC", ".xml"), ("YOLO", ".txt")):
            if photographs & {file.stem for file in names if file.suffix.lower() == suffix}:
                return name
    return ""


def coco_files(root: str | Path) -> list[Path]:
    """List the files in a folder, its `annotations` and its parts that are COCO's JSON."""
    root = Path(root)
    places = [root, root / "annotations", *(root / part for part in PART_FOLDERS)]
    files = [
        file
        for place in filter(Path.is_dir, places)
        for file in sorted(place.glob("*.json"))
        if not is_junk(file.name)
    ]
    return [file for file in files if _is_coco(file)]


def _is_coco(file: Path) -> bool:
    try:
        return {"images", "annotations", "categories"} <= storage.read_json(file).keys()
    except (OSError, ValueError):
        return False


def find_photographs(root: str | Path) -> list[Path]:
    """List the photographs of a folder, by name; none if there is none.

    They are those in its `JPEGImages`, where there is one, else all below it.
    """
    voc = Path(root) / "JPEGImages"
    return sorted(
        path
        for path in (voc.glob("*") if voc.is_dir() else storage.walk(root, _refuse_folder))
        if path.suffix.lower() in PHOTOGRAPH_SUFFIXES and not path.name.startswith(".")
    )


def _refuse_folder(error: OSError) -> None:
    raise UnreadableImage(
        f"{error.filename} may not be read ({error.strerror}), so what it holds is not known. "
        "Change its permissions, or take it out of the data."
    ) from error


def name_photographs(root: str | Path) -> dict[str, Path]:
    """Name the photographs of a folder, see `find_photographs`, by their files, without suffix.

    Those of which there are two have their folder before the name, and their suffix after it if
    they lie in one folder, see `twins`.
    """
    paths = find_photographs(root)
    counts, alike = Counter(path.stem for path in paths), twins(paths)

    def name(path: Path) -> str:
        if counts[path.stem] == 1:
            return path.stem
        below = path.relative_to(root)
        return (below if path in alike else below.with_suffix("")).as_posix()

    return {name(path): path for path in paths}


def twins(paths: Iterable[Path]) -> set[Path]:
    """Those of several files that differ from another one by their suffix alone."""
    paths = list(paths)
    counts = Counter(path.with_suffix("") for path in paths)
    return {path for path in paths if counts[path.with_suffix("")] > 1}


CELL_FOLDERS = {
    **{cell_type.name: cell_type.name for cell_type in cells.CELL_TYPES},
    "basophil": "basophil",
    "ig": "other",
    "erythroblast": "other",
    "platelet": "other",
}
"""Class folders of labelled cells, and the cell type of what is in them."""

CELLS = (
    "labelled cells. Expected a folder for each class "
    f"({', '.join(CELL_FOLDERS)}), such as https://doi.org/10.17632/snkd93bnjr.1, or fields with "
    "boxes (train/images, train/labels), such as https://github.com/singgihbekti/WBC_Dataset"
)
"""What to say of data without them."""


def cells_folder(folder: str | Path) -> Path:
    """Find the folder that holds labelled cells: class folders, or fields with boxes.

    It is the one given, or up to three levels below. Raises as `smears_folder`.
    """
    return _only_place(
        folder, _holds_cells, f"There must be {CELLS}.", f"no {CELLS}", "sets of cells"
    )


def class_folders(root: str | Path) -> list[Path]:
    """List the folders of a folder that are named in `CELL_FOLDERS`, whatever the case."""
    return sorted(
        entry
        for entry in Path(root).iterdir()
        if entry.is_dir() and entry.name.lower() in CELL_FOLDERS
    )


def _holds_cells(root: Path) -> bool:
    parts = [root / part for part in PART_FOLDERS]
    is_boxed = any((part / "images").is_dir() and (part / "labels").is_dir() for part in parts)
    return is_boxed or len(class_folders(root)) > 1


def folders_above(folder: str | Path) -> list[Path]:
    """Where marks of fetching and drawing may lie: the folder, and the four around it.

    So deep do archives nest the images, wrapped in one more folder.
    """
    folder = storage.absolute(folder)
    return [folder, *folder.parents][:5]


def is_junk(name: str) -> bool:
    """Tell whether a file or folder of this name is what operating systems leave behind."""
    return name.startswith(".") or name in ("__MACOSX", "Thumbs.db", "desktop.ini")


def digest_files(root: Path, names: Iterable[str], progress: bool = False) -> dict[str, str]:
    """SHA-256 of each file in these files and folders of `root`, by relative path, sorted.

    Raises `UnreadableImage`, with its name, if a file cannot be read.
    """
    files = sorted(_files(root, names))
    digests = digest_paths([root / file for file in files], progress)
    return dict(zip(files, digests, strict=True))


def digest_paths(paths: Sequence[str | Path], progress: bool = False) -> list[str]:
    """SHA-256 of each file, in hexadecimal; raises as `digest_files`."""
    with ThreadPoolExecutor(2) as pool:
        digests = pool.map(_digest, paths)
        return list(
            tqdm(
                digests,
                total=len(paths),
                desc="checking",
                unit="file",
                disable=not progress,
                mininterval=0.5,
            )
        )


def _digest(path: str | Path) -> str:
    try:
        storage.check_regular(path)
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise UnreadableImage(
            f"{path} cannot be read ({error.strerror}). Restore the file, or take it out of the "
            "data."
        ) from error


def _files(root: Path, names: Iterable[str]) -> Iterator[str]:
    """List the files in these files and folders of `root`, by relative path."""
    for name in names:
        if (root / name).is_file():
            yield name
        if (root / name).is_dir():
            for file in storage.walk(root / name, _refuse_folder, is_junk):
                yield file.relative_to(root).as_posix()


def digest_of(digests: Mapping[str, str]) -> str:
    """Digest of a data set, see the module, from those of its files."""
    lines = "".join(f"{file}\0{digests[file]}\n" for file in sorted(digests))
    return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()


def read_manifest(manifest: Traversable) -> dict[str, str]:
    """Read the first 16 digits of the SHA-256 of each file of a data set, by relative path."""
    with manifest.open("rb") as packed, gzip.open(packed, "rt", encoding="utf-8") as lines:
        return {row["file"]: row["sha256"] for row in csv.DictReader(lines)}
