"""What is known about photographs of smears with boxed cells, and what a folder of them is.

The digest of such a data set is that of `identity`, over every file in `JPEGImages`,
`Annotations` and `ImageSets`, relative to the folder that holds these.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from wbc_helpers.data import identity, sample
from wbc_helpers.data.catalog import IMAGE_SUFFIXES
from wbc_helpers.errors import DataMismatch, DataNotFound


@dataclass(frozen=True, eq=False)
class SmearSource:
    """Where boxed photographs come from, and what is known about them.

    Attributes
    ----------
    name : str
        As given to `fetch_smears`.
    title, address, licence, citation : str
        For people; empty where unknown.
    archive : str
        Address of the archive; empty if there is none.
    n_photographs : int
        0 where unknown.
    boxes, lists : mapping
        Number of boxes of each kind as annotated, and of photographs in each published list;
        empty where unknown.
    digest : str
        See the module; empty where unknown.
    n_bytes : int
        Bytes when unpacked; 0 where unknown.
    drawn : bool
        True if the cells are drawn.
    """

    name: str
    title: str
    address: str = ""
    licence: str = ""
    citation: str = ""
    archive: str = ""
    n_photographs: int = 0
    boxes: Mapping[str, int] | None = None
    lists: Mapping[str, int] | None = None
    digest: str = ""
    n_bytes: int = 0
    drawn: bool = False


SMEAR_SOURCES = {
    source.name: source
    for source in (
        SmearSource(
            "bccd",
            title="BCCD Dataset",
            address="https://github.com/Shenggan/BCCD_Dataset",
            licence="MIT",
            citation=(
                "Shenggan, BCCD Dataset, https://github.com/Shenggan/BCCD_Dataset (2017), MIT "
                "licence; photographs and annotations by cosmicad and akshaylamba."
            ),
            archive="https://github.com/Shenggan/BCCD_Dataset/archive/refs/heads/master.zip",
            n_photographs=364,
            boxes={"RBC": 4155, "WBC": 372, "Platelets": 361},
            lists={"train": 205, "val": 87, "test": 72},
            digest="0bb479c7ed1c5f1e410e8e3c1b9a1565ee37feeb8e6375f6c93534deebf720c1",
            n_bytes=8_862_476,
        ),
        SmearSource(
            "sample",
            title="Drawn sample",
            licence="MIT, as this project",
            citation="Drawn by wbc_helpers.data.sample; these are no photographs of blood.",
            n_photographs=sample.N_PHOTOGRAPHS,
            drawn=True,
        ),
        SmearSource("local", title="Own photographs"),
    )
}
MANIFEST = resources.files("wbc_helpers") / "manifests" / "bccd.csv.gz"
"""Every file of the BCCD data set: its path and the first 16 digits of its SHA-256."""

_PARTS = ("JPEGImages", "Annotations", "ImageSets")
WANTED = (
    "folder with JPEGImages and Annotations in it. Expected photographs of smears with a VOC XML "
    f"file each, such as the archive of {SMEAR_SOURCES['bccd'].address}"
)
"""What to say of data without it."""

_DEEPEST = 3
"""Folders above JPEGImages that people and archives wrap it in, at most."""


def smears_folder(folder: str | Path) -> Path:
    """Find the folder that holds `JPEGImages` and `Annotations`.

    Parameters
    ----------
    folder : path
        What a user unpacked: the folder itself, or up to three levels above it.

    Returns
    -------
    Path
        Absolute.

    Raises
    ------
    DataNotFound
        If there is no such folder, or more than one at the same depth.
    """
    folder = Path(folder).expanduser().resolve()
    if not folder.is_dir():
        raise DataNotFound(f"There is no folder {folder}. Expected a {WANTED}.")
    for depth in range(_DEEPEST + 1):
        found = [
            images.parent
            for images in sorted(folder.glob("*/" * depth + "JPEGImages"))
            if images.is_dir() and (images.parent / "Annotations").is_dir()
        ]
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(str(place.relative_to(folder)) for place in found[:5])
            raise DataNotFound(
                f"{folder} holds {len(found)} sets of photographs ({names}). Give the path of the "
                "one that is meant."
            )
    found = ", ".join(sorted(entry.name for entry in folder.iterdir())[:8]) or "nothing"
    raise DataNotFound(f"{folder} (holding {found}) has no {WANTED}.")


@dataclass(frozen=True, eq=False)
class SmearIdentity:
    """What a folder of boxed photographs turned out to be.

    Attributes
    ----------
    source : SmearSource
        `SMEAR_SOURCES["bccd"]` also for a copy that came another way, or is damaged.
    folder : Path
        As given.
    n_photographs, n_annotations : int
        Number of files.
    digest : str
        See the module.
    deviations : tuple of str
        Sentences that say what differs from the source; empty if nothing does.
    """

    source: SmearSource
    folder: Path
    n_photographs: int
    n_annotations: int
    digest: str
    deviations: tuple[str, ...]

    @property
    def drawn(self) -> bool:
        """True if the cells are drawn."""
        return self.source.drawn

    def to_dict(self) -> dict[str, Any]:
        """Describe the data for a run's `settings.json`, in plain values."""
        return {
            "source": self.source.name,
            "title": self.source.title,
            "drawn": self.drawn,
            "digest": self.digest,
            "n_photographs": self.n_photographs,
            "folder": str(self.folder),
        }


def identify_smears(folder: str | Path, progress: bool = False) -> SmearIdentity:
    """Find out what a folder of boxed photographs is, by content.

    It is the BCCD data set if at least half of its annotations are, name and content, or if it
    was fetched as such: the same photographs come from Kaggle, but there only red cells are boxed.

    Parameters
    ----------
    folder : path
        As `fetch_smears` returns it.
    progress : bool
        Show a progress bar.

    Returns
    -------
    SmearIdentity

    Raises
    ------
    DataNotFound
        If it holds no photographs with annotations.
    UnreadableImage
        If a file cannot be read.
    """
    folder = Path(folder).expanduser().absolute()
    root = smears_folder(folder)
    digests = identity.digest_files(root, _PARTS, progress)
    annotations = [file for file in digests if file.startswith("Annotations/")]
    known = identity.read_manifest(MANIFEST)
    n_known = sum(known.get(file) == digests[file][:16] for file in annotations)
    above = [root, *root.parents][: _DEEPEST + 1]
    deviations: tuple[str, ...] = ()
    if any(sample.is_sample(place) for place in above):
        source = SMEAR_SOURCES["sample"]
    elif 2 * n_known >= max(1, len(annotations)) or any(
        identity.read_marker(place).get("source") == "bccd" for place in above
    ):
        source = SMEAR_SOURCES["bccd"]
        deviations = identity.name_differences(known, digests)
    else:
        source = SMEAR_SOURCES["local"]
    n_photographs = sum(
        file.startswith("JPEGImages/") and file.lower().endswith(IMAGE_SUFFIXES) for file in digests
    )
    return SmearIdentity(
        source,
        folder,
        n_photographs,
        sum(file.lower().endswith(".xml") for file in annotations),
        identity.digest_of(digests),
        deviations,
    )


def verify_smears(folder: str | Path, strict: bool = True, progress: bool = False) -> SmearIdentity:
    """Identify a folder, and refuse a copy of the BCCD data set that is not as published.

    Parameters
    ----------
    folder : path
        As `fetch_smears` returns it.
    strict : bool
        False returns the deviations instead of raising.
    progress : bool
        Show a progress bar.

    Returns
    -------
    SmearIdentity
        What it is. A folder of one's own has no deviations.

    Raises
    ------
    DataMismatch
        If files of the known data set are missing, changed or extra; the message names them.
    """
    found = identify_smears(folder, progress)
    if strict and found.deviations:
        raise DataMismatch(
            f"{found.folder} is not {found.source.title} as published: "
            f"{' '.join(found.deviations)} Expected {found.source.n_photographs:,} photographs "
            "with an annotation each. Move the folder away and fetch it again, or put those files "
            "right."
        )
    return found


def write_smear_manifest(folder: str | Path, target: str | Path) -> None:
    """Write the manifest of a data set, see `identity.write_manifest`.

    Parameters
    ----------
    folder : path
        The data set, complete.
    target : path
        The .csv.gz file to write.
    """
    root = smears_folder(folder)
    digests = identity.digest_files(root, _PARTS, progress=True)
    identity.pack_manifest(digests, target)
    print(f"digest={identity.digest_of(digests)}")
