"""What a folder of data turns out to be: which source, how much of it, and what deviates.

Digests are those of `catalog`. Of images every file in TRAIN, TEST and TEST_SIMPLE counts, and
apart from them, of photographs that come with images, every file in `JPEGImages` and `Annotations`
and `labels.csv`; of smears every file in `JPEGImages`, `Annotations` and `ImageSets`.
"""

import argparse
import gzip
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from wbc_helpers import cells, storage
from wbc_helpers.data import catalog
from wbc_helpers.data.sources import LAYOUTS, Holds, Source, banner, fetch, recognise
from wbc_helpers.errors import DataMismatch


@dataclass(frozen=True, eq=False)
class Identity:
    """What a folder turned out to be.

    Attributes
    ----------
    source : Source
        That of published data also for a copy that came another way, or is damaged.
    folder : Path
        As given.
    counts : DataFrame
        Number of images; rows are splits, columns cell types. Zeros for photographs.
    n_photographs, n_annotations : int
        Number of files; 0 where the folder holds images only.
    digest, photographs_digest : str
        See the module; the latter is empty without photographs beside the images.
    deviations : tuple of str
        Sentences that say what differs from the source; empty if nothing does.
    """

    source: Source
    folder: Path
    counts: pd.DataFrame
    n_photographs: int
    n_annotations: int
    digest: str
    photographs_digest: str
    deviations: tuple[str, ...]

    @property
    def drawn(self) -> bool:
        """True if the cells are drawn."""
        return self.source.drawn

    @property
    def n_images(self) -> int:
        """Number of images of cells."""
        return int(self.counts.to_numpy().sum())

    def _repr_markdown_(self) -> str:
        """Say in a notebook what the data are, and loudly if they are drawn."""
        number = f"{getattr(self, f'n_{self.source.holds}'):,} {self.source.holds}"
        said = f"**{self.source.title}**: {number}, in `{self.folder}`"
        return "\n\n".join(filter(None, (banner(self.source, markdown=True), said)))

    def to_dict(self) -> dict[str, Any]:
        """Describe the data for a run's `settings.json`, in plain values."""
        number = f"n_{self.source.holds}"
        return {
            "source": self.source.name,
            "title": self.source.title,
            "drawn": self.drawn,
            "digest": self.digest,
            number: getattr(self, number),
            "folder": str(self.folder),
        }


def bring(source: str | Path, data_dir: str | Path, holds: Holds = "images") -> Identity:
    """Find data, or fetch them, see `sources.fetch`, and say what they are, see `identify`."""
    return identify(fetch(source, data_dir, holds=holds), holds=holds)


def identify(folder: str | Path, progress: bool = False, holds: Holds = "images") -> Identity:
    """Find out what a folder is, by content, see `sources.recognise` and, for `holds`, `Source`.

    Everything in which it differs from published data is named; of a folder that is somebody's own
    nothing is known. `folder` is as `sources.fetch` returns it.

    Raises `DataNotFound` if it holds no such data, see `catalog.images_folder` and `smears_folder`;
    `UnreadableImage` if a file cannot be read.
    """
    folder = Path(folder).expanduser().absolute()
    digests, beside = _digest(folder, holds, progress)
    source = recognise(folder, holds, digests)
    counts = _count(digests)
    deviations = _compare_counts(source, counts)
    if source.manifest:
        published = catalog.read_manifest(source.manifest)
        if holds == "images" and not beside:
            published = {
                file: digest
                for file, digest in published.items()
                if file.split("/")[0] in catalog.SPLITS
            }
        differences = name_differences(published, digests | beside)
        if not differences and catalog.digest_of(digests) != source.digest:
            differences = (
                f"The digest is {catalog.digest_of(digests)}, expected {source.digest}.",
            )
        deviations += differences
    files = [file.lower() for file in digests | beside]
    return Identity(
        source,
        folder,
        counts,
        sum(_is_in("jpegimages", file, catalog.IMAGE_SUFFIXES) for file in files),
        sum(_is_in("annotations", file, (".xml",)) for file in files),
        catalog.digest_of(digests),
        catalog.digest_of(beside) if beside else "",
        deviations,
    )


def _is_in(part: str, file: str, suffixes: tuple[str, ...]) -> bool:
    return file.startswith(f"{part}/") and file.endswith(suffixes)


def _digest(folder: Path, holds: Holds, progress: bool) -> tuple[dict[str, str], dict[str, str]]:
    """Digests of the data's files, and of photographs that come beside images."""
    layout = LAYOUTS[holds]
    digests = catalog.digest_files(layout.root(folder), layout.digested, progress)
    photographs = catalog.photographs_folder(folder) if holds == "images" else None
    if photographs is None:
        return digests, {}
    parts = ("JPEGImages", "Annotations", "labels.csv")
    return digests, catalog.digest_files(photographs, parts, progress)


def _count(files: Iterable[str]) -> pd.DataFrame:
    parts = [file.split("/") for file in files if file.lower().endswith(catalog.IMAGE_SUFFIXES)]
    counted = Counter(tuple(part[:2]) for part in parts if len(part) == 3)
    return pd.DataFrame(
        [[counted[split, cell.folder] for cell in cells.CELL_TYPES] for split in catalog.SPLITS],
        index=catalog.SPLITS,
        columns=cells.NAMES,
    )


def _compare_counts(source: Source, counts: pd.DataFrame) -> tuple[str, ...]:
    counted = counts.T.to_dict()
    return tuple(
        f"{split}/{cells.BY_NAME[name].folder} holds {counted[split][name]:,} images, expected "
        f"{expected:,}."
        for split, row in (source.counts or {}).items()
        for name, expected in row.items()
        if counted[split][name] != expected
    )


def name_differences(published: Mapping[str, str], digests: Mapping[str, str]) -> tuple[str, ...]:
    """Say in sentences which files differ from the manifest; nothing if none does."""
    both = published.keys() & digests.keys()
    groups = {
        "missing": published.keys() - digests.keys(),
        "no part of the data set": digests.keys() - published.keys(),
        "changed": {file for file in both if published[file] != digests[file][:16]},
    }
    return tuple(
        f"{len(files):,} {'file is' if len(files) == 1 else 'files are'} {what}: "
        f"{', '.join(sorted(files)[:10])}"
        f"{f' and {len(files) - 10:,} more' if len(files) > 10 else ''}."
        for what, files in groups.items()
        if files
    )


def verify(
    folder: str | Path, strict: bool = True, progress: bool = False, holds: Holds = "images"
) -> Identity:
    """Identify a folder, and refuse a copy of published data that is not as published.

    Raises as `identify`; unless `strict=False`, also `DataMismatch` if files of a published data
    set are missing, changed or extra, naming them.
    """
    identity = identify(folder, progress, holds)
    if strict and identity.deviations:
        source = identity.source
        n_images = sum(sum(row.values()) for row in (source.counts or {}).values())
        expected = (
            f"{n_images:,} images"
            if holds == "images"
            else f"{source.n_photographs:,} photographs with an annotation each"
        )
        raise DataMismatch(
            f"{identity.folder} is not {source.title} as published: "
            f"{' '.join(identity.deviations)} Expected {expected}. Move the folder away and fetch "
            "it again, or put those files right."
        )
    return identity


def write_manifest(folder: str | Path, target: str | Path, holds: Holds = "images") -> None:
    """Write the manifest of a complete data set, and print its digests.

    It has a row a file: `file` and the first 16 digits of its SHA-256. The same folder gives the
    same bytes, a .csv.gz file.
    """
    digests, beside = _digest(Path(folder).expanduser(), holds, progress=True)
    rows = [f"{file},{digest[:16]}\n" for file, digest in (digests | beside).items()]
    text = "".join(["file,sha256\n", *rows])
    with storage.atomic_file(target) as partial:
        partial.write_bytes(gzip.compress(text.encode("utf-8"), mtime=0))
    print(f"digest={catalog.digest_of(digests)}\nphotographs_digest={catalog.digest_of(beside)}")


def main() -> None:
    """Write the manifest of a data set: `python -m wbc_helpers.data.identity --help`."""
    parser = argparse.ArgumentParser(description="Write the manifest of a data set.")
    parser.add_argument("--write-manifest", metavar="FOLDER", required=True, type=Path)
    parser.add_argument("--target", metavar="FILE.csv.gz", required=True, type=Path)
    parser.add_argument("--holds", choices=list(LAYOUTS), default="images")
    arguments = parser.parse_args()
    write_manifest(arguments.write_manifest, arguments.target, arguments.holds)


if __name__ == "__main__":
    main()
