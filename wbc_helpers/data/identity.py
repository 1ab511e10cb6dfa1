"""What a folder of data turns out to be: which source, how much of it, and what deviates.

Digests are those of `catalog`. Of images every file in TRAIN, TEST and TEST_SIMPLE counts, and
apart from them, of photographs that come with images, every file in `JPEGImages` and `Annotations`
and `labels.csv`; of smears and labelled cells every file in their folders (`sources.LAYOUTS`).
"""

import argparse
import gzip
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from wbc_helpers import cells, storage
from wbc_helpers.data import catalog
from wbc_helpers.data.sources import LAYOUTS, Holds, Source, banner, fetch, recognise


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
    n_published, n_verified, n_unknown : int
        Number of files as published, of those that are here, name and content, and of files that
        are here and no part of it; 0 where nothing was published.
    pixels : (width, height)
        Of an image that is not as published, if that is all that is known of those; else None.
    """

    source: Source
    folder: Path
    counts: pd.DataFrame
    n_photographs: int
    n_annotations: int
    digest: str
    photographs_digest: str
    deviations: tuple[str, ...]
    n_published: int = 0
    n_verified: int = 0
    n_unknown: int = 0
    pixels: tuple[int, int] | None = None

    def __str__(self) -> str:
        """Title, licence and credit, and how much of it is here and as published."""
        source = self.source
        lines = [
            banner(source),
            ". ".join(
                filter(None, (source.title, source.licence and f"Licence: {source.licence}"))
            ),
            source.citation,
        ]
        if self.n_published:
            lines.append(
                f"{self.n_verified:,} of the {self.n_published:,} files published are here and "
                f"verified; {self.n_unknown:,} are unknown."
            )
        if source.in_part and self.n_verified + self.n_unknown < self.n_published:
            lines.append("This is a part of what was published.")
        if self.pixels and source.size:
            share = self.pixels[0] / source.size[0]
            lines.append(
                f"The images are {share:.3g} times the size of those published: "
                f"{self.pixels[0]}×{self.pixels[1]} of {source.size[0]}×{source.size[1]} pixels."
            )
        return "\n".join(filter(None, [*lines, *self.deviations]))

    @property
    def drawn(self) -> bool:
        """True if the cells are drawn."""
        return self.source.drawn

    @property
    def n_images(self) -> int:
        """Number of images of cells."""
        return int(self.counts.to_numpy().sum())

    def _repr_markdown_(self) -> str:
        """Say in a notebook what the data are and whose, and loudly if they are drawn."""
        things = "images" if self.source.holds == "images" else "photographs"
        number = f"{getattr(self, f'n_{things}'):,} {things}"
        said = f"**{self.source.title}**: {number}, in `{self.folder}`"
        credit = " ".join(filter(None, (f"{self.source.licence}.", self.source.citation)))
        shown = (banner(self.source, markdown=True), said, credit if self.source.citation else "")
        return "\n\n".join(filter(None, shown))

    def to_dict(self) -> dict[str, Any]:
        """Describe the data for a run's `settings.json`, in plain values."""
        number = "n_images" if self.source.holds == "images" else "n_photographs"
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


def identify(folder: str | Path, holds: Holds = "images") -> Identity:
    """Find out what a folder is, by content, see `sources.recognise` and, for `holds`, `Source`.

    Everything in which it differs from published data is named; of a folder that is somebody's own
    nothing is known. `folder` is as `sources.fetch` returns it.

    Raises `DataNotFound` if it holds no such data, see `catalog.images_folder`, `smears_folder` and
    `cells_folder`; `UnreadableImage` if a file cannot be read.
    """
    folder = storage.absolute(folder)
    digests, beside = _digest(folder, holds, progress=False)
    source = recognise(folder, holds, digests)
    counts = _count(digests)
    deviations = _compare_counts(source, counts)
    published: dict[str, str] = {}
    if source.manifest:
        published = catalog.read_manifest(source.manifest)
        if holds == "images" and not beside:
            published = {
                file: digest
                for file, digest in published.items()
                if file.split("/")[0] in catalog.SPLITS
            }
        deviations += _deviations(source, published, digests, beside)
    files = digests | beside
    n_verified = sum(published.get(file) == digest[:16] for file, digest in files.items())
    return Identity(
        source,
        folder,
        counts,
        sum(_is_photograph(file, holds) for file in files),
        sum(_is_annotation(file, holds) for file in files),
        catalog.digest_of(digests),
        catalog.digest_of(beside) if beside else "",
        deviations,
        len(published),
        n_verified,
        len(files) - n_verified if published else 0,
        _other_size(source, LAYOUTS[holds].root(folder), published, digests),
    )


def _deviations(
    source: Source,
    published: Mapping[str, str],
    digests: dict[str, str],
    beside: dict[str, str],
) -> tuple[str, ...]:
    """Name what differs; of data that may be a part, only what is no part of them."""
    if source.in_part:
        expected = {file: published[file] for file in published if file in digests}
        # The same images at another size have other digests; `_other_size` speaks of them.
        resized = {
            file: digests[file][:16]
            for file in expected
            if source.size and file.lower().endswith(catalog.IMAGE_SUFFIXES)
        }
        return name_differences(expected | resized, digests)
    differences = name_differences(published, digests | beside)
    if not differences and catalog.digest_of(digests) != source.digest:
        return (f"The digest is {catalog.digest_of(digests)}, expected {source.digest}.",)
    return differences


def _other_size(
    source: Source, root: Path, published: Mapping[str, str], digests: Mapping[str, str]
) -> tuple[int, int] | None:
    """Size of the first image that is not as published, where all published have one size."""
    for file, digest in digests.items():
        is_image = file.lower().endswith(catalog.IMAGE_SUFFIXES)
        if source.size and is_image and published.get(file, digest[:16]) != digest[:16]:
            with Image.open(root / file) as image:
                return None if image.size == source.size else image.size
    return None


def _is_photograph(file: str, holds: Holds) -> bool:
    is_beside = file.lower().startswith("jpegimages/")
    return file.lower().endswith(catalog.IMAGE_SUFFIXES) and (is_beside or holds != "images")


def _is_annotation(file: str, holds: Holds) -> bool:
    is_text = file.lower().endswith(".txt") and not file.startswith("ImageSets/")
    return file.lower().endswith(".xml") or (
        holds != "images" and is_text and not file.endswith("classes.txt")
    )


def _digest(folder: Path, holds: Holds, progress: bool) -> tuple[dict[str, str], dict[str, str]]:
    """Digests of the data's files, and of photographs that come beside images."""
    layout = LAYOUTS[holds]
    digests = layout.digest(folder, progress)
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
