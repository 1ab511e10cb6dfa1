"""The catalog: which images there are, one row each, and how they are split for training.

The layout is that of the Kaggle archive: `TRAIN/EOSINOPHIL/_0_1.jpeg` and so on, somewhere
below the folder that a user unpacked.
"""

from pathlib import Path

import pandas as pd

from wbc_helpers import cells
from wbc_helpers.errors import DataMismatch, DataNotFound

SPLITS = ("TRAIN", "TEST", "TEST_SIMPLE")
IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png")


# The archive nests its folders twice; people also unpack it once or copy only the inner part.
_IMAGE_FOLDERS = (".", "images", "dataset2-master/images", "dataset2-master/dataset2-master/images")
_PHOTOGRAPH_FOLDERS = (".", "dataset-master", "dataset-master/dataset-master")


def images_folder(folder: str | Path) -> Path:
    """Find the folder that holds `TRAIN` and `TEST`.

    Parameters
    ----------
    folder : path
        What a user unpacked: the folder itself, or up to three levels above it.

    Returns
    -------
    Path
        Absolute path of the folder with the split folders.

    Raises
    ------
    DataNotFound
        If there is no such folder, or no `TRAIN` and `TEST` at a known depth.
    """
    folder = Path(folder).expanduser().resolve()
    if not folder.is_dir():
        raise DataNotFound(
            f"There is no folder {folder}. Expected an unpacked copy of the blood-cells data; "
            "give source='sample' to try with drawn cells."
        )
    for below in _IMAGE_FOLDERS:
        candidate = (folder / below).resolve()
        if (candidate / "TRAIN").is_dir() and (candidate / "TEST").is_dir():
            return candidate
    found = ", ".join(sorted(entry.name for entry in folder.iterdir())[:8]) or "nothing"
    raise DataNotFound(
        f"{folder} holds no TRAIN and TEST folders (found: {found}). Expected them there, or in "
        "images/, dataset2-master/images/ or dataset2-master/dataset2-master/images/ below it. "
        "Point the source at the folder that was unpacked from the blood-cells archive."
    )


def photographs_folder(folder: str | Path) -> Path | None:
    """Find the folder that holds `JPEGImages` and `Annotations`.

    Parameters
    ----------
    folder : path
        What a user unpacked.

    Returns
    -------
    Path or None
        The folder, or None where the copy has class folders only.
    """
    folder = Path(folder).expanduser().resolve()
    for below in _PHOTOGRAPH_FOLDERS:
        candidate = (folder / below).resolve()
        if (candidate / "JPEGImages").is_dir():
            return candidate
    return None


def find_images(folder: str | Path) -> pd.DataFrame:
    """List every image of a data set.

    Parameters
    ----------
    folder : path
        What a user unpacked, see `images_folder`.

    Returns
    -------
    DataFrame
        One row an image, ordered by split (`SPLITS`), then file name. Columns: `path` (str,
        absolute), `file` (str, relative to the images folder), `split`, `cell_type`
        (categorical, one of `cells.NAMES`).

    Raises
    ------
    DataNotFound
        If the layout is not recognised.
    DataMismatch
        If a class folder is missing, empty or unknown; the message names them all.
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
    """Count the images by split and cell type.

    Parameters
    ----------
    catalog : DataFrame
        As `find_images` returns it.

    Returns
    -------
    DataFrame
        Rows are splits, columns cell types, values int; with row and column totals `all`.
    """
    return pd.crosstab(
        catalog["split"], catalog["cell_type"], margins=True, margins_name="all", dropna=False
    )
