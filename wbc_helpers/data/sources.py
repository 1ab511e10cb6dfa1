"""Where data come from: one table of sources, and fetching any of them once.

A new source is a further row of `SOURCES`. What it holds, images of cells, photographs of smears
with every cell boxed, or labelled cells of another laboratory, decides how a folder or an archive
of it is looked at (`LAYOUTS`).
"""

import re
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Literal

from wbc_helpers import cells, storage
from wbc_helpers.data import archives, catalog, sample
from wbc_helpers.errors import (
    BrokenArchive,
    DataMismatch,
    DataNotFound,
    DownloadFailed,
    InvalidParameter,
)

Holds = Literal["images", "photographs", "cells"]


@dataclass(frozen=True, eq=False)
class Source:
    """A place where data come from, and what is known about them; empty or 0 where unknown.

    Attributes
    ----------
    name : str
        As given to `fetch`.
    holds : str
        `images` of single cells in the Kaggle archive's folders, `photographs` of smears with boxes
        of every cell, or `cells`: white cells with a label each, see `splits.find_cells`.
    title, address, licence, citation : str
        For people.
    kaggle : str
        `owner/name` on Kaggle.
    archive, archive_name : str
        Address of an archive elsewhere, and what to call it; asked if Kaggle gives nothing.
    archive_names : str
        Regular expression of the names under which people save the archive.
    counts : mapping
        Number of images by split, then cell type.
    n_photographs : int
    boxes, lists : mapping
        Number of boxes of each kind as annotated, and of photographs in each published list.
    digest, photographs_digest : str
        See `catalog`; the second is of photographs that come with images.
    manifest : file
        Of all its files, see `identity.write_manifest`.
    n_bytes : int
        When unpacked.
    drawn : bool
        True if the cells are drawn: scores then say nothing about blood.
    laboratory : str
        Where the smears were stained and photographed; empty if in several places.
    size : (width, height)
        Of its images in pixels, if all have the same.
    in_part : bool
        True if a part of it, or its images at another size, will do as well: such data deviate in
        nothing from what was published, and `Identity` says what they are.
    """

    name: str
    holds: Holds
    title: str
    address: str = ""
    licence: str = ""
    citation: str = ""
    kaggle: str = ""
    archive: str = ""
    archive_name: str = ""
    archive_names: str = ""
    counts: Mapping[str, Mapping[str, int]] | None = None
    n_photographs: int = 0
    boxes: Mapping[str, int] | None = None
    lists: Mapping[str, int] | None = None
    digest: str = ""
    photographs_digest: str = ""
    manifest: Traversable | None = None
    n_bytes: int = 0
    drawn: bool = False
    laboratory: str = ""
    size: tuple[int, int] | None = None
    in_part: bool = False


def _by_split(**splits: tuple[int, int, int, int]) -> dict[str, dict[str, int]]:
    return {split: dict(zip(cells.NAMES, row, strict=True)) for split, row in splits.items()}


_MANIFESTS = resources.files("wbc_helpers") / "manifests"
_DRAWN = Source(
    "sample",
    "images",
    title="Drawn sample",
    licence="MIT, as this project",
    citation="Drawn by wbc_helpers.data.sample; these are no photographs of blood.",
    drawn=True,
)

SOURCES: dict[tuple[str, str], Source] = {
    (source.holds, source.name): source
    for source in (
        Source(
            "kaggle",
            "images",
            title="Blood Cell Images",
            address="https://www.kaggle.com/datasets/paultimothymooney/blood-cells",
            licence="MIT",
            citation=(
                "P. Mooney, Blood Cell Images, Kaggle (2018), made by augmentation from: "
                "Shenggan and Cosmicad, BCCD Dataset, https://github.com/Shenggan/BCCD_Dataset "
                "(MIT). The network: I. Singh, N. P. Singh, H. Singh, S. Bawankar, A. Ngom, Blood "
                "Cell Types Classification Using CNN, IWBBIO 2020, LNCS 12108, 727-738 (2020)."
            ),
            kaggle="paultimothymooney/blood-cells",
            archive_names=r"(blood-cells|archive)( ?\(\d+\))?\.zip",
            counts=_by_split(
                TRAIN=(2497, 2483, 2478, 2499),
                TEST=(623, 620, 620, 624),
                TEST_SIMPLE=(13, 6, 4, 48),
            ),
            digest="c610387f4840442e6846012358d604a5b8898d387f900a59a451ac9a7a5ba154",
            photographs_digest="60a6233eae9ac2771515fb26d0169305376b0b0650f40e2b41bad439861f99d5",
            manifest=_MANIFESTS / "blood-cells.csv.gz",
            n_bytes=113_567_876,
            laboratory="BCCD",
        ),
        replace(_DRAWN, counts=sample.COUNTS),
        Source("local", "images", title="Own images"),
        Source(
            "bccd",
            "photographs",
            title="BCCD Dataset",
            address="https://github.com/Shenggan/BCCD_Dataset",
            licence="MIT",
            citation=(
                "Shenggan, BCCD Dataset, https://github.com/Shenggan/BCCD_Dataset (2017), MIT "
                "licence; photographs and annotations by cosmicad and akshaylamba."
            ),
            archive="https://github.com/Shenggan/BCCD_Dataset/archive/refs/heads/master.zip",
            archive_name="BCCD_Dataset-master.zip",
            archive_names=r"(?i)BCCD_Dataset-\w+( ?\(\d+\))?\.(zip|tgz|tar\.gz)",
            n_photographs=364,
            boxes={"RBC": 4155, "WBC": 372, "Platelets": 361},
            lists={"train": 205, "val": 87, "test": 72},
            digest="0bb479c7ed1c5f1e410e8e3c1b9a1565ee37feeb8e6375f6c93534deebf720c1",
            manifest=_MANIFESTS / "bccd.csv.gz",
            n_bytes=8_862_476,
            laboratory="BCCD",
        ),
        Source(
            "txl",
            "photographs",
            title="TXL-PBC Dataset",
            address="https://github.com/lugan113/TXL-PBC_Dataset",
            licence="MIT",
            citation=(
                "L. Gan, X. Li, TXL-PBC: a freely accessible labeled peripheral blood cell "
                "dataset, arXiv 2407.13214 (2024), MIT licence; photographs of BCCD, of Acevedo et "
                "al. (Barcelona) and of Raabin-WBC, boxed anew."
            ),
            archive="https://github.com/lugan113/TXL-PBC_Dataset/archive/refs/heads/main.zip",
            archive_name="TXL-PBC_Dataset-main.zip",
            archive_names=r"(?i)TXL-PBC_Dataset-\w+( ?\(\d+\))?\.(zip|tgz|tar|tar\.gz)",
            n_photographs=1440,
            boxes={"RBC": 24_271, "WBC": 1515, "Platelets": 851},
            lists={"train": 1008, "val": 288, "test": 144},
            digest="fcfee50c52abe55825ba9ac3753639014d8a19d8f42ce175b5d9ad9ab54830d2",
            manifest=_MANIFESTS / "txl.csv.gz",
            n_bytes=36_549_278,
        ),
        replace(_DRAWN, holds="photographs", n_photographs=sample.N_PHOTOGRAPHS),
        Source("local", "photographs", title="Own photographs"),
        Source(
            "pbc",
            "cells",
            title="Peripheral blood cells, Barcelona",
            address="https://doi.org/10.17632/snkd93bnjr.1",
            licence="CC BY 4.0",
            citation=(
                "A. Acevedo, A. Merino, S. Alférez, Á. Molina, L. Boldú, J. Rodellar, A dataset of "
                "microscopic peripheral blood cell images for development of automatic recognition "
                "systems, Data in Brief 30, 105474 (2020); Mendeley Data, snkd93bnjr, version 1."
            ),
            kaggle="unclesamulus/blood-cells-image-dataset",
            archive=(
                "https://data.mendeley.com/public-files/datasets/snkd93bnjr/files/"
                "2fc38728-2ae7-4a62-a857-032af82334c3/file_downloaded"
            ),
            archive_name="PBC_dataset_normal_DIB.zip",
            archive_names=r"(?i)(PBC|blood-cells-image)[\w-]*( ?\(\d+\))?\.(zip|tgz|tar|tar\.gz)",
            n_photographs=17_092,
            digest="1acb9fba5ed069ccda2e36d34a45eb18ea9e20e2ba481fb8ab35491b4f16eff9",
            manifest=_MANIFESTS / "pbc.csv.gz",
            n_bytes=281_000_000,
            laboratory="Barcelona",
            in_part=True,
        ),
        Source(
            "chula",
            "cells",
            title="WBC_Dataset, Chulalongkorn University",
            address="https://github.com/singgihbekti/WBC_Dataset",
            licence="MIT",
            citation=(
                "S. Bekti, WBC_Dataset, https://github.com/singgihbekti/WBC_Dataset, MIT licence; "
                "Embedded System and Integrated Circuit Design Laboratory, Faculty of Engineering, "
                "with the Faculty of Medicine, Chulalongkorn University, Bangkok."
            ),
            archive="https://github.com/singgihbekti/WBC_Dataset/archive/HEAD.zip",
            archive_name="WBC_Dataset.zip",
            archive_names=r"(?i)WBC_Dataset[\w-]*( ?\(\d+\))?\.(zip|tgz|tar|tar\.gz)",
            n_photographs=500,
            digest="b4f2c0d1f9395beb623a261d89e13da627f08039199674c69b344f440f620185",
            manifest=_MANIFESTS / "chula.csv.gz",
            n_bytes=100_000_000,
            laboratory="Chula",
            size=(1440, 900),
            in_part=True,
        ),
        Source("local", "cells", title="Own labelled cells"),
    )
}
"""Every source, by what it holds and its name. The first row of a kind is what `auto` downloads."""


def fetch(
    source: str | Path = "auto",
    data_dir: str | Path = "data",
    progress: bool = True,
    holds: Holds = "images",
) -> Path:
    """Get data, once: a second call finds what the first one fetched. Returns the absolute folder.

    See `catalog.images_folder`, `smears_folder` and `cells_folder` for what is in it.

    Parameters
    ----------
    source : str or path
        Name of a row of `SOURCES`: `kaggle`, `bccd`, `txl`, `pbc` or `chula` downloads the real
        data, `sample` draws the embedded sample. A path is that of a downloaded archive, or of an
        unpacked folder, which is used where it is. `auto` takes the real data in `data_dir` (of
        images first those from Kaggle, then others; of photographs only the published ones; then an
        archive lying there), else downloads them, else takes the sample, and then says why. A
        sample drawn earlier does not keep it from trying the download again. Of `cells` there are
        several laboratories and no sample: one has to be named.
    data_dir : path
        Where data are kept; made if needed. Nothing in it is overwritten.
    holds : str
        `images`, `photographs` or `cells`, see `Source`.

    Raises
    ------
    InvalidParameter, DataNotFound
        If the source is none of these; if there is nothing at the path, or no such data in it.
    DownloadFailed
        If a source was asked for by name and did not give the data.
    DataMismatch
        If files were removed from what was fetched.
    BrokenArchive, UnsafeArchive, NoSpaceLeft, ReadOnlyFolder
        See `archives.unpack`.
    """
    if holds not in LAYOUTS:
        raise InvalidParameter(f"holds={holds!r} is unknown. Expected one of {list(LAYOUTS)}.")
    layout = LAYOUTS[holds]
    names = [name for kind, name in SOURCES if kind == holds and name != "local"]
    if layout.has_sample:
        names = ["auto", *names]
    expected = (
        f"Expected {', '.join(map(repr, names))}, or the path of a downloaded archive or of "
        f"{layout.folder}."
    )
    if not isinstance(source, str | Path) or not str(source).strip():
        raise InvalidParameter(f"source={source!r} is unknown. {expected}")
    if not isinstance(data_dir, str | Path) or not str(data_dir).strip():
        raise InvalidParameter(f"data_dir={data_dir!r} is no folder. Expected its path.")
    data_dir, path = storage.absolute(data_dir), storage.absolute(source)
    if source == "auto" and source in names:
        return _fetch_any(layout, data_dir, progress)
    if source == "sample" and source in names:
        return _draw(data_dir, progress)
    if source in names:
        return _download(SOURCES[holds, str(source)], data_dir, progress)
    if path.is_dir():
        return layout.locate(path)
    if path.is_file():
        return _unpack(path, data_dir, "local", layout, progress)
    if isinstance(source, str) and re.fullmatch(r"\w+", source):
        raise InvalidParameter(f"source={source!r} is unknown. {expected}")
    raise DataNotFound(f"There is nothing at {path}. {expected}")


@dataclass(frozen=True)
class Layout:
    """How data of one kind look, in a folder and in an archive.

    `locate` gives the folder to hand out, `root` where the data begin in it, and both raise
    `DataNotFound`; `is_real` tells whether `auto` may take it; `is_archive` gets the names of an
    archive's members, a slash around each; `digested` are the parts that make the digest, all where
    there is none of them; `telling` how the paths begin by which the data are known.
    """

    holds: Holds
    folder: str
    wanted: str
    locate: Callable[[Path], Path]
    root: Callable[[Path], Path]
    is_real: Callable[[Path], bool]
    is_archive: Callable[[list[str]], bool]
    digested: tuple[str, ...]
    telling: tuple[str, ...]
    has_sample: bool = True

    @property
    def published(self) -> list[Source]:
        """Sources of this kind that can be told by their content, the first one first."""
        return [row for row in SOURCES.values() if row.holds == self.holds and row.manifest]

    def digest(self, folder: Path, progress: bool = False) -> dict[str, str]:
        """SHA-256 of each file that counts, by its path from the root."""
        root = self.root(folder)
        parts = [part for part in self.digested if (root / part).exists()]
        return catalog.digest_files(root, parts or ["."], progress)

    def is_at(self, folder: Path) -> bool:
        """Tell whether such data are in a folder; one that may not be read counts as without."""
        try:
            self.locate(folder)
        except (DataNotFound, PermissionError):
            return False
        return True


def _with_images(folder: Path) -> Path:
    """Find where the data set begins: the folder itself, or its only subfolder."""
    try:
        catalog.images_folder(folder)
    except DataNotFound:
        subfolders = [
            entry
            for entry in folder.iterdir()
            if entry.is_dir() and not catalog.is_junk(entry.name)
        ]
        if len(subfolders) != 1:
            raise
        folder = subfolders[0]
        catalog.images_folder(folder)
    return folder


def _with_smears(folder: Path) -> Path:
    catalog.smears_folder(folder)
    return folder


def _with_cells(folder: Path) -> Path:
    catalog.cells_folder(folder)
    return folder


def _is_photographed(folder: Path) -> bool:
    return sample.enclosing(_with_images(folder)) is None


def _is_published(folder: Path) -> bool:
    """Tell published photographs from other boxed ones, such as Kaggle's, with red cells only."""
    return bool(recognise(folder, "photographs", LAYOUTS["photographs"].digest(folder)).manifest)


def _are_classes(names: list[str]) -> bool:
    return all(any(f"/{split}/" in name for name in names) for split in ("TRAIN", "TEST"))


def _are_smears(names: list[str]) -> bool:
    """Tell whether an archive holds photographs with annotations, in folders or beside them."""
    for folders in _BOXED_IN:
        around = [{name.partition(part)[0] for name in names if part in name} for part in folders]
        if around[0] & around[1]:
            return True
    paths = [Path(name) for name in names]
    photographs = {
        path.with_suffix("") for path in paths if path.suffix.lower() in catalog.PHOTOGRAPH_SUFFIXES
    }
    beside = {path.with_suffix("") for path in paths if path.suffix in (".xml", ".txt")}
    return bool(photographs and (photographs & beside or any(p.suffix == ".json" for p in paths)))


_BOXED_IN = (
    ("/JPEGImages/", "/Annotations/"),
    ("/images/", "/labels/"),
    ("/images/", "/Annotations/"),
)


def _are_cells(names: list[str]) -> bool:
    """Tell whether an archive holds class folders of cells, or fields with boxes in parts."""
    parts = [{part.lower() for part in name.split("/")[:-2]} for name in names]
    classes = set().union(*parts) & set(catalog.CELL_FOLDERS)
    return len(classes) > 1 or any("/train/labels/" in name for name in names)


LAYOUTS: dict[str, Layout] = {
    "images": Layout(
        "images",
        folder="an unpacked folder",
        wanted=(
            "TRAIN and TEST folders. Expected the blood-cells archive of "
            f"{SOURCES['images', 'kaggle'].address}"
        ),
        locate=_with_images,
        root=catalog.images_folder,
        is_real=_is_photographed,
        is_archive=_are_classes,
        digested=catalog.SPLITS,
        telling=("",),
    ),
    "photographs": Layout(
        "photographs",
        folder="a folder of boxed photographs",
        wanted=catalog.SMEARS,
        locate=_with_smears,
        root=catalog.smears_folder,
        is_real=_is_published,
        is_archive=_are_smears,
        digested=("JPEGImages", "Annotations", "ImageSets", "images", "labels"),
        telling=("Annotations/", "labels/"),
    ),
    "cells": Layout(
        "cells",
        folder="a folder of labelled cells",
        wanted=catalog.CELLS,
        locate=_with_cells,
        root=catalog.cells_folder,
        is_real=lambda folder: True,
        is_archive=_are_cells,
        digested=(*catalog.CELL_FOLDERS, *catalog.PART_FOLDERS),
        telling=(*catalog.CELL_FOLDERS, *(f"{part}/labels/" for part in catalog.PART_FOLDERS)),
        has_sample=False,
    ),
}


def recognise(folder: str | Path, holds: Holds, digests: Mapping[str, str]) -> Source:
    """Tell which source a folder, as `fetch` returns it, is of, by `digests` of what counts.

    It is a published one if at least half of its images (of boxed ones: of their annotations,
    because the same photographs come from Kaggle with only red cells boxed) are, name and content;
    or if it was fetched as such. Otherwise it is somebody's own.
    """
    layout = LAYOUTS[holds]
    root = layout.root(Path(folder))
    if sample.enclosing(root) is not None:
        return SOURCES[holds, "sample"]
    telling = [file for file in digests if file.startswith(layout.telling)]
    marks = [archives.source_of(place) for place in catalog.folders_above(root)]
    for source in layout.published:
        published = catalog.read_manifest(source.manifest) if source.manifest else {}
        n_published = sum(published.get(file) == digests[file][:16] for file in telling)
        if 2 * n_published >= max(1, len(telling)) or source.name in marks:
            return source
    return SOURCES[holds, "local"]


def _fetch_any(layout: Layout, data_dir: Path, progress: bool) -> Path:
    """Fetch what `auto` stands for."""
    entries = sorted(data_dir.iterdir()) if data_dir.is_dir() else []
    visible = [entry for entry in entries if not entry.name.startswith(".")]
    folders = [entry for entry in visible if entry.is_dir() and layout.is_at(entry)]
    if real := [folder for folder in folders if layout.is_real(folder)]:
        best = min(real, key=lambda folder: archives.source_of(folder) != layout.published[0].name)
        return layout.locate(archives.require_whole(best))
    if layout.holds == "images" and data_dir.is_dir():
        try:
            catalog.images_folder(data_dir)
            return data_dir
        except DataNotFound:
            pass
    published = layout.published
    for file in filter(Path.is_file, visible):
        is_named_so = any(re.fullmatch(row.archive_names, file.name) for row in published)
        if is_named_so and archives.holds(file, layout.is_archive):
            return _unpack(file, data_dir, "local", layout, progress)
    try:
        return _download(published[0], data_dir, progress)
    except DownloadFailed as error:
        folder = _draw(data_dir, progress)
        drawn = banner(SOURCES[layout.holds, "sample"])
        print(f"{drawn}\nWhy the sample: {error}", file=sys.stderr, flush=True)
        return folder


def _draw(data_dir: Path, progress: bool) -> Path:
    storage.make_folder(data_dir)
    try:
        return sample.draw_sample(data_dir / "sample", progress=progress)
    except DataMismatch:
        # Somebody's own folder has that name, or it is the sample of another version.
        return sample.draw_sample(data_dir / f"sample-{sample.VERSION}", progress=progress)


def _unpack(archive: Path, data_dir: Path, origin: str, layout: Layout, progress: bool) -> Path:
    """Unpack an archive below `data_dir`, unless that was done; refuse what lost files since."""
    folder = archives.unpack_once(
        archive, data_dir, origin, layout.is_archive, layout.wanted, progress
    )
    return layout.locate(archives.require_whole(folder))


def _download(source: Source, data_dir: Path, progress: bool) -> Path:
    """Download and unpack a source, unless that was done before."""
    layout = LAYOUTS[source.holds]
    for folder in archives.fetched_folders(data_dir):
        if archives.source_of(folder) == source.name:
            return layout.locate(archives.require_whole(folder))
    place = data_dir / f".{source.name}-download"
    archive = _download_archive(source, place, progress)
    try:
        folder = _unpack(archive, data_dir, source.name, layout, progress)
    except (BrokenArchive, DataNotFound) as error:
        shutil.rmtree(place, ignore_errors=True)
        reason = (
            "what came is something else than the data, or was damaged on its way, and was "
            f"removed ({error})"
        )
        raise (
            archives.kaggle_failure(source.kaggle, reason)
            if source.kaggle
            else archives.download_failure(source.archive, reason, _ELSE)
        ) from error
    shutil.rmtree(place, ignore_errors=True)
    return folder


def _download_archive(source: Source, place: Path, progress: bool) -> Path:
    """Download a source's archive: from Kaggle, else from its other address."""
    reason = ""
    if source.kaggle:
        try:
            return archives.download_from_kaggle(source.kaggle, place, source.n_bytes, progress)
        except DownloadFailed as error:
            if not source.archive:
                raise
            reason = f" Before: {error}"
    # GitHub packs its archives as they are asked for and does not say how long they are.
    return archives.download(
        source.archive, place / source.archive_name, 10 * source.n_bytes, _ELSE + reason, progress
    )


_ELSE = (
    "Either run it again; or download it with a browser and give its path as SOURCE; or try "
    "SOURCE=sample."
)


def banner(source: Source, markdown: bool = False) -> str:
    """Say that cells are drawn, in a way that cannot be overlooked; nothing of photographs.

    With `markdown` it is for a notebook instead of a terminal.

    Examples
    --------
    >>> banner(SOURCES["photographs", "bccd"])
    ''
    >>> print(banner(SOURCES["images", "sample"], markdown=True).splitlines()[0])
    > # ⚠️ These cells are drawn
    """
    if not source.drawn:
        return ""
    published = LAYOUTS[source.holds].published[0]
    things, warning = {
        "images": ("cells", "the scores say nothing about blood cells"),
        "photographs": ("smears", "counts and scores say nothing about blood"),
    }[source.holds]
    if markdown:
        return (
            f"> # ⚠️ These {things} are drawn\n"
            f"> This is the embedded sample, not photographs of blood: {warning}, only that the "
            f"notebooks run. For real {source.holds} give `source` as `{published.name}`, or as "
            f"the path of the archive downloaded from <{published.address}>."
        )
    return "\n".join(
        (
            "=" * 78,
            f"THESE {things.upper()} ARE DRAWN. This is the embedded sample, not photographs of "
            "blood:",
            f"{warning}, only that the notebooks run.",
            f"For real {source.holds} give SOURCE={published.name}, or SOURCE=<path of the archive "
            "downloaded",
            f"from {published.address}>.",
            "=" * 78,
        )
    )
