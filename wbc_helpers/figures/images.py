"""Figures of images and of the cells in them, and of where a network looks in an image."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import PercentFormatter

from wbc_helpers import cells
from wbc_helpers.cells import BOX
from wbc_helpers.errors import InvalidParameter
from wbc_helpers.figures.style import (
    GREY,
    WIDTH,
    axes_of,
    bars_by_type,
    in_lines,
    in_style,
    pixels_of,
    require,
    say,
    say_what_is_seen,
    write_title,
)
from wbc_helpers.pixels.images import PixelStatistics, read_image
from wbc_helpers.pixels.white_cells import WhiteCell
from wbc_helpers.report.pages import INK, PAPER


@in_style
def class_balance(catalog: pd.DataFrame) -> Figure:
    """Count the images (rows with `split` and `cell_type`) of each type, a panel for each split."""
    require(catalog, ("split", "cell_type"), "catalog")
    counts = pd.crosstab(catalog["split"].astype(str), catalog["cell_type"].astype(str))
    counts = counts.reindex(columns=cells.NAMES, fill_value=0)
    splits = list(pd.unique(catalog["split"].astype(str)))
    size = (WIDTH, 0.5 + 1.45 * len(splits))
    figure, panels = plt.subplots(len(splits), 1, figsize=size, sharex=True, squeeze=False)
    for ax, split in zip(panels[:, 0], splits, strict=True):
        bars_by_type(ax, counts.loc[split], [f"{count:,}" for count in counts.loc[split]])
        ax.set(title=f"{split} (n = {counts.loc[split].sum():,})", xticks=[])
    # One scale for all, so that lengths may be compared between panels.
    panels[0, 0].set_xlim(0, counts.to_numpy().max() * 1.2)
    write_title(figure, f"Images by split and cell type (n = {len(catalog):,})")
    in_words = [
        f"in {split} {counts.loc[split].min():,} to {counts.loc[split].max():,} images of each type"
        for split in splits
    ]
    say_what_is_seen(figure, f"How long the bars are, on one scale: {'; '.join(in_words)}.")
    return figure


@in_style
def montage(
    images: Iterable[str | Path | np.ndarray],
    titles: Sequence[str] | None = None,
    n_columns: int = 4,
    title: str | None = None,
) -> Figure:
    """Images side by side, `n_columns` in a row.

    Parameters
    ----------
    images : iterable of path, or of (height, width, 3) ndarray of uint8
        A few dozen at most; files are read at their full size.
    titles : sequence of str, optional
        One line or two above each image.
    title : str, optional
        Above all; the number of images is added.

    Raises
    ------
    InvalidParameter
        If there are no images, or not as many titles as images.
    UnreadableImage
        If a file is not a complete image.
    """
    pictures = pixels_of(images)
    if not pictures or n_columns < 1 or len(titles or pictures) != len(pictures):
        raise InvalidParameter(
            f"Cannot show {len(pictures)} images in {n_columns} columns with "
            f"{len(titles or [])} titles. Expected at least one image and one column, and a "
            "title for each image or none."
        )
    # A few images are no smaller than many.
    n_columns = min(n_columns, max(len(pictures), 2))
    n_rows = -(-len(pictures) // n_columns)
    width = WIDTH / n_columns
    height, pixels_wide = pictures[0].shape[:2]
    n_lines = max((line.count("\n") + 1 for line in titles or []), default=0)
    row_height = width * height / pixels_wide + 0.2 * n_lines
    size = (WIDTH, n_rows * row_height + 0.4)
    figure, panels = plt.subplots(n_rows, n_columns, figsize=size, squeeze=False)
    for ax in panels.flat:
        ax.axis("off")
    for index, (ax, picture) in enumerate(zip(panels.flat, pictures, strict=False)):
        ax.imshow(picture)
        if titles is not None:
            ax.set_title(titles[index], fontsize=10)
    write_title(figure, f"{title or 'Images'} (n = {len(pictures):,})")
    above = ", each under what it is called" if titles is not None else ""
    say_what_is_seen(figure, f"{title or 'Images'}: {len(pictures):,} of them{above}.")
    return figure


@in_style
def montage_by_type(catalog: pd.DataFrame, n_each: int = 4, seed: int = 0) -> Figure:
    """Draw images (rows with `path` and `cell_type`) of each type at random, a row for each.

    `n_each` of each, fewer where there are not so many; the same seed draws the same images.
    """
    require(catalog, ("path", "cell_type"), "catalog")
    generator = np.random.default_rng(seed)
    row_height = WIDTH / n_each * 0.75 + 0.35
    figure = plt.figure(figsize=(WIDTH, len(cells.NAMES) * row_height + 0.35))
    # Rows of their own, so that a row's heading may be wider than its first image.
    rows = figure.subfigures(len(cells.NAMES), 1, squeeze=False)[:, 0]
    for row, cell_type in zip(rows, cells.CELL_TYPES, strict=True):
        paths = catalog.loc[catalog["cell_type"] == cell_type.name, "path"].to_numpy()
        shown = generator.permutation(paths)[:n_each]
        write_title(
            row, f"{cell_type.name}: {cell_type.nucleus} ({len(shown)} of {len(paths):,})", 11
        )
        for ax in (panels := row.subplots(1, n_each, squeeze=False)[0]):
            ax.axis("off")
        for ax, path in zip(panels, shown, strict=False):
            ax.imshow(read_image(path))
    write_title(figure, f"Drawn at random from n = {len(catalog):,} images")
    say_what_is_seen(
        figure, f"A row of {n_each} images for each type, under what its nucleus looks like."
    )
    return figure


@in_style
def mean_and_std(statistics: PixelStatistics, title: str | None = None) -> Figure:
    """Mean image and standard-deviation image side by side, as in the paper's figure 5.

    The mean in its own colours; the standard deviation brightened until its largest value is
    white; and the same averaged over red, green and blue, on a scale of numbers. `title` says
    what the images are; their number is added.
    """
    largest = max(float(statistics.std.max()), 1e-6)
    height, width = statistics.mean.shape[:2]
    size = (WIDTH, WIDTH * height / width + 0.9)
    figure, grid = plt.subplots(2, 2, figsize=size)
    *panels, empty = grid.flat
    empty.remove()
    panels[0].imshow(statistics.mean / 255)
    panels[1].imshow(statistics.std / largest)
    spread = panels[2].imshow(statistics.std.mean(axis=-1))
    figure.colorbar(spread, ax=panels[2], location="right", aspect=15, shrink=0.8)
    panels[0].set_title("Mean")
    panels[1].set_title(f"Std, brightened × {255 / largest:.1f}")
    panels[2].set_title("Std, mean of R, G, B")
    for ax in panels:
        ax.axis("off")
    title = title or "Mean and standard deviation of each pixel"
    write_title(figure, f"{title} (n = {statistics.n_images:,}; units 0–255)")
    say_what_is_seen(
        figure,
        f"Pixels differ most from image to image where the second and third picture are bright: "
        f"by {float(statistics.std.max()):.0f} of 255 at most, by "
        f"{float(np.median(statistics.std)):.0f} at the median pixel.",
    )
    return figure


@in_style
def mean_and_std_by_type(statistics: Mapping[str, PixelStatistics]) -> Figure:
    """Mean and standard-deviation images, a column for each cell type, all brightened alike."""
    largest = max(*(float(of_type.std.max()) for of_type in statistics.values()), 1e-6)
    height, width = next(iter(statistics.values())).mean.shape[:2]
    n_types = len(statistics)
    size = (WIDTH, 2 * WIDTH / n_types * height / width + 0.8)
    figure, panels = plt.subplots(2, n_types, figsize=size, squeeze=False, layout="compressed")
    for column, (name, of_type) in zip(panels.T, statistics.items(), strict=True):
        column[0].imshow(of_type.mean / 255)
        column[1].imshow(of_type.std / largest)
        column[0].set_title(f"{name}\nn = {of_type.n_images:,}")
        for ax in column:
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
    panels[0, 0].set_ylabel("Mean")
    panels[1, 0].set_ylabel(f"Std × {255 / largest:.1f}")
    n_images = sum(of_type.n_images for of_type in statistics.values())
    write_title(figure, f"Mean and standard deviation by cell type (n = {n_images:,})")
    say_what_is_seen(
        figure,
        f"For each of {n_types} types, above what its images have in common, below where they "
        "differ.",
    )
    return figure


@in_style
def brightness_and_colour(summary: pd.DataFrame) -> Figure:
    """Brightness of the images by cell type and split, and their colour by cell type.

    Left, boxes from quartile to quartile with the median, whiskers from the 5th to the 95th
    percentile. Right, medians and quartiles. `summary` is as `images.summarise` returns it.
    """
    channels = ("red", "green", "blue")
    require(summary, ("cell_type", "split", "brightness", *channels), "summary")
    splits = list(pd.unique(summary["split"].astype(str)))
    height = 0.9 + len(cells.NAMES) * (0.25 + 0.22 * len(splits))
    size = (WIDTH, height + 3.2)
    figure, (left, right) = plt.subplots(2, 1, figsize=size, height_ratios=(height, 2.4))
    positions, labels = [], []
    for row, cell_type in enumerate(cells.CELL_TYPES):
        of_type = summary[summary["cell_type"] == cell_type.name]
        for place, split in enumerate(splits):
            brightness = of_type.loc[of_type["split"] == split, "brightness"]
            positions.append(row * (len(splits) + 0.8) + place)
            name = cell_type.name if place == 0 else ""
            labels.append(f"{name} {split} (n = {len(brightness):,})")
            left.boxplot(
                brightness,
                positions=positions[-1:],
                orientation="horizontal",
                widths=0.7,
                whis=(5, 95),
                showfliers=False,
                patch_artist=True,
                boxprops={"facecolor": cell_type.color, "alpha": 0.75},
                medianprops={"color": INK, "linewidth": 2},
                **{name: {"color": INK} for name in ("whiskerprops", "capprops")},
            )
        quartiles = of_type[list(channels)].quantile([0.25, 0.5, 0.75]).to_numpy()
        right.errorbar(
            np.arange(3) + (row - 1.5) * 0.18,
            quartiles[1],
            yerr=np.abs(quartiles[[0, 2]] - quartiles[1]),
            linestyle="none",
            color=cell_type.color,
            marker=cell_type.marker,
            label=cell_type.name,
        )
    left.set_yticks(positions, labels)
    left.set(title="Brightness", xlabel="Mean of an image, 0–255")
    left.invert_yaxis()
    left.grid(axis="x")
    right.set_xticks(range(3), channels)
    right.set(title="Colour", ylabel="Mean of an image, 0–255")
    right.grid(axis="y")
    legend = right.get_legend_handles_labels()
    figure.legend(*legend, loc="outside lower center", ncols=2)
    write_title(figure, f"Brightness and colour by cell type (n = {len(summary):,})")
    medians = summary.groupby(summary["cell_type"].astype(str))["brightness"].median()
    say_what_is_seen(
        figure,
        f"Above, how bright the images of each type are: brightest {medians.idxmax()}s, with a "
        f"median of {medians.max():.0f}, darkest {medians.idxmin()}s, {medians.min():.0f}. Below, "
        "how red, green and blue they are.",
    )
    return figure


@in_style
def black_corners(fraction: np.ndarray, n_images: int, ax: Axes | None = None) -> Figure:
    """Map of how often each pixel is black fill.

    `fraction`, (height, width) float: part of `n_images` images in which it is, 0–1.
    """
    figure, ax = axes_of(ax, (WIDTH, WIDTH * 0.7))
    shown = ax.imshow(100 * np.asarray(fraction), vmin=0)
    ax.axis("off")
    figure.colorbar(shown, ax=ax, label="% of the images", shrink=0.8)
    ax.set_title(f"How often a pixel is black fill (n = {n_images:,})")
    share = 100 * np.asarray(fraction)
    say_what_is_seen(
        figure,
        f"Black in {share.max():.0f} % of the images at the pixel where it is most often, in "
        f"{share.min():.0f} % where it is least.",
    )
    return figure


# Single white cells

_FAINTEST, _STRONGEST = 0.1, 0.65  # opacity of the heat: the cell stays visible below it


@in_style
def where_it_looks(
    images: Iterable[str | Path | np.ndarray],
    cams: np.ndarray,
    answers: pd.DataFrame,
    masks: np.ndarray | None = None,
    n_columns: int = 3,
) -> Figure:
    """Images with their Grad-CAM maps laid over them, right answers above, wrong ones below.

    Parameters
    ----------
    images : iterable of path, or of (height, width, 3) ndarray of uint8
        See `montage`, errors too.
    cams : ndarray, (n, height, width) float
        0–1, see `judging.grad_cam`; stretched to the images' size.
    answers : DataFrame
        One row an image, in the same order: `cell_type` (the true one), `predicted` and
        `probability` (of the predicted type, 0–1). How many are right here says nothing of the
        accuracy.
    masks : ndarray, (n, height, width) bool, optional
        White cells, see `white_cells.outlines`; drawn as outlines.
    """
    require(answers, ("cell_type", "predicted", "probability"), "answers")
    pictures = pixels_of(images)
    counts = {len(pictures), len(cams), len(answers), len(cams if masks is None else masks)}
    if len(counts) > 1 or n_columns < 1:
        raise InvalidParameter(
            f"Cannot lay {len(cams)} maps over {len(pictures)} images with {len(answers)} answers "
            f"in {n_columns} columns. Expected one map, one answer (and one mask) for each image."
        )
    is_right = (answers["cell_type"].astype(str) == answers["predicted"].astype(str)).to_numpy()
    groups = [("Right", np.flatnonzero(is_right)), ("Wrong", np.flatnonzero(~is_right))]
    groups = [(name, rows) for name, rows in groups if len(rows)]
    n_rows = [-(-len(rows) // n_columns) for _, rows in groups]
    height, width = pictures[0].shape[:2]
    row_height = 0.85 * WIDTH / n_columns * height / width + 0.45
    figure = plt.figure(figsize=(WIDTH, sum(n_rows) * row_height + 0.3 * len(groups) + 0.4))
    parts = figure.subfigures(len(groups), 1, height_ratios=n_rows, squeeze=False)[:, 0]
    for part, (name, rows), n in zip(parts, groups, n_rows, strict=True):
        write_title(part, f"{name} (n = {len(rows):,})", 11)
        axes = part.subplots(n, n_columns, squeeze=False).ravel()
        for ax in axes:
            ax.axis("off")
        for ax, row in zip(axes, rows, strict=False):
            heat = _overlay(ax, pictures[row], cams[row], None if masks is None else masks[row])
            answer = answers.iloc[row]
            title = f"{answer['predicted']} {answer['probability']:.0%}"
            truth = "" if is_right[row] else f"\nis {answer['cell_type']}"
            ax.set_title(title + truth, fontsize=10)
        part.colorbar(heat, ax=list(axes), label="Grad-CAM", ticks=(0, 0.5, 1), aspect=12 * n)
    write_title(figure, f"Where it looks; each map is 1 at its maximum (n = {len(pictures):,})")
    outlined = "" if masks is None else "; the line is the cell's outline"
    say_what_is_seen(
        figure,
        f"Yellow speaks most for the answer, blue little{outlined}: {is_right.sum():,} right and "
        f"{(~is_right).sum():,} wrong answers.",
    )
    return figure


def _overlay(
    ax: Axes, picture: np.ndarray, cam: np.ndarray, mask: np.ndarray | None
) -> ScalarMappable:
    """Lay a map and the outline of a mask over an image; return the scale of its colours."""
    height, width = picture.shape[:2]
    frame = (-0.5, width - 0.5, height - 0.5, -0.5)
    ax.imshow(picture)
    # A map is weak where it says nothing: there the image itself is to be seen.
    opacity = _FAINTEST + (_STRONGEST - _FAINTEST) * np.clip(cam, 0, 1)
    ax.imshow(cam, "viridis", vmin=0, vmax=1, alpha=opacity, extent=frame, interpolation="bilinear")
    if mask is not None and mask.any() and not mask.all():
        x = (np.arange(mask.shape[1]) + 0.5) * width / mask.shape[1] - 0.5
        y = (np.arange(mask.shape[0]) + 0.5) * height / mask.shape[0] - 0.5
        ax.contour(x, y, mask.astype(float), levels=[0.5], colors="black", linewidths=1.2)
    return ScalarMappable(Normalize(0, 1), "viridis")


@in_style
def occlusion(summary: pd.DataFrame, ax: Axes | None = None) -> Figure:
    """Draw what blanking the cell, or the background, does to the answers.

    Bars of the accuracy and of the mean probability of the original answer, beside a line for
    guessing. For the table see `judging.summarise_occluded`.
    """
    require(summary, ("n_images", "accuracy", "probability"), "summary")
    figure, ax = axes_of(ax, (WIDTH, 3.2))
    measures = {
        "accuracy": ("accuracy", "#0072B2", None),
        "probability": ("probability of the original answer", "#E69F00", "//"),
    }
    places = np.arange(len(summary))
    for shift, (column, (label, color, hatch)) in zip((-0.2, 0.2), measures.items(), strict=True):
        bars = ax.barh(
            places + shift, summary[column], 0.38, label=label, color=color, hatch=hatch,
            edgecolor=PAPER,
        )  # fmt: skip
        ax.bar_label(bars, [f"{value:.1%}" for value in summary[column]], padding=3)
    guessing = 1 / len(cells.NAMES)
    ax.axvline(guessing, color=GREY, linestyle=":", label=f"guessing, {guessing:.0%}")
    ax.set_yticks(places, [str(condition) for condition in summary.index])
    ax.invert_yaxis()
    ax.set_xlim(0, 1.12)
    ax.set_xticks(np.arange(0, 1.01, 0.25))
    ax.xaxis.set_major_formatter(PercentFormatter(1))
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x")
    ax.set_title(f"What blanking does to the answers (n = {summary['n_images'].max():,})")
    figure.legend(loc="outside lower left")
    say_what_is_seen(
        figure,
        "Bars that stay long keep their answers: "
        + "; ".join(f"{name}, {row['accuracy']:.1%} right" for name, row in summary.iterrows())
        + ".",
    )
    return figure


MOST_DOUBTFUL = 24
"""As many crops as `doubtful_labels` shows."""

_LETTERS = 16  # that fit above a crop, three in a row, even if they are capitals


@in_style
def doubtful_labels(judged: pd.DataFrame, crops: Sequence[np.ndarray]) -> Figure:
    """White cells with a doubtful label, for a haematologist to judge.

    Above each crop its photograph, the published label or labels, and with a question mark what
    the network suggests; in brackets the probabilities that the network gives. Where no label is
    doubtful, a figure that says so.

    Parameters
    ----------
    judged : DataFrame
        As `labels.judge` returns it.
    crops : sequence of (height, width, 3) ndarray of uint8
        RGB, of the photographs whose label is doubtful, in the order of the table: of all of
        them, or of the first `MOST_DOUBTFUL`, which are shown.

    Raises
    ------
    InvalidParameter
        If there are not as many crops as doubtful labels, or one is no RGB image.
    """
    columns = (
        "source_id",
        "cell_type",
        "also_under",
        "suggested",
        "self_confidence",
        "p_suggested",
        "doubtful",
    )
    require(judged, columns, "table of labels")
    doubtful = judged[judged["doubtful"]]
    shown = doubtful.head(MOST_DOUBTFUL)
    if len(crops) not in (len(doubtful), len(shown)):
        raise InvalidParameter(
            f"Cannot show {len(crops)} crops for {len(doubtful)} doubtful labels. Expected one for "
            f"each, or for the first {MOST_DOUBTFUL}, in the order of the table."
        )
    crops = [np.asarray(crop) for crop in crops[: len(shown)]]
    wrong = [crop for crop in crops if crop.shape[2:] != (3,) or crop.dtype != np.uint8]
    if wrong:
        raise InvalidParameter(
            f"A crop has shape {wrong[0].shape} and type {wrong[0].dtype}. Expected (height, "
            "width, 3) and uint8, see labels.crop_white_cell."
        )
    of_all = f"n = {len(doubtful):,} of {len(judged):,} photographs"
    if doubtful.empty:
        return say(f"No doubtful label ({of_all})")
    titles = [_title(label) for _, label in shown.iterrows()]
    figure = montage(crops, titles, n_columns=3)
    more = len(doubtful) - len(shown)
    rest = f": the {len(shown)} most doubtful, and {more:,} more in the table" if more else ""
    write_title(figure, f"Doubtful labels ({of_all}){rest}")
    say_what_is_seen(
        figure,
        "White cells under their published label and, with a question mark, what the network "
        "suggests; in brackets how probable it holds either.",
    )
    return figure


def _title(label: pd.Series) -> str:
    """Photograph, published and suggested types, in lines that fit above a crop."""
    name = label["source_id"]
    if len(name) > 2 * _LETTERS:
        name = name[: 2 * _LETTERS - 1] + "…"
    # Names of files: broken anywhere, for they have no words.
    names = [part for part in (name[:_LETTERS], name[_LETTERS:]) if part]
    types = [f"label {label['cell_type']} ({label['self_confidence']:.0%})"]
    others = [] if pd.isna(label["also_under"]) else label["also_under"].split(", ")
    suggestion = f"{label['suggested']}? ({label['p_suggested']:.0%})"
    types += [f"and {suggestion if other == label['suggested'] else other}" for other in others]
    if label["suggested"] not in others:
        types.append(f"or {suggestion}")
    return "\n".join([*names, *types])


@in_style
def located_cells(
    images: Sequence[str | Path | np.ndarray],
    located: Sequence[Sequence[WhiteCell]],
    n_columns: int = 3,
) -> Figure:
    """Images with a box around each white cell that `white_cells.locate` found.

    Whole cells in a blue solid box, cells that the frame cuts in an orange dashed one; an image in
    which none was found says so. Of more or fewer lists of cells than images, InvalidParameter;
    for `images` see `montage`.
    """
    if not len(images) or len(images) != len(located) or n_columns < 1:
        raise InvalidParameter(
            f"{len(images)} images and {len(located)} lists of cells in {n_columns} columns cannot "
            "be drawn. Expected at least one image, and a list of cells for each."
        )
    titles = [
        "none found" if not white else "cut" if any(cell.cut for cell in white) else ""
        for white in located
    ]
    figure = montage(images, titles, n_columns)
    for ax, white in zip(figure.axes, located, strict=False):
        for cell in white:
            corner = cell.x_min - 0.5, cell.y_min - 0.5
            color, line = ("#D55E00", "--") if cell.cut else ("#0072B2", "-")
            frame = Rectangle(corner, cell.x_max - cell.x_min, cell.y_max - cell.y_min, fill=False)
            frame.set(edgecolor=color, linestyle=line, linewidth=2)
            ax.add_patch(frame)
    n_cells = sum(map(len, located))
    write_title(figure, f"White cells found: {n_cells} (n = {len(images):,} images)")
    n_none = sum(not white for white in located)
    say_what_is_seen(
        figure,
        f"A box around each of {n_cells} white cells, dashed where the frame cuts it"
        + (f"; in {n_none} of {len(images):,} images none was found." if n_none else "."),
    )
    return figure


_HALO = [withStroke(linewidth=3.4, foreground="white")]


@in_style
def boxed_cells(
    photograph: str | Path | np.ndarray,
    boxes: pd.DataFrame,
    title: str | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Draw boxes on a photograph, each in the colour and with the marker of what it holds.

    Parameters
    ----------
    photograph : path, or (height, width, 3) ndarray of uint8
        RGB.
    boxes : DataFrame
        `kind` and `cells.BOX`; with `cell_type`, white cells are drawn as their types, and as
        white cells where it is NA, as where no answer was given. The legend counts them.
    title : str, optional
        Above; the number of boxes is added.

    Raises
    ------
    InvalidParameter
        If a column is missing.
    UnreadableImage
        If the file is not a complete image.
    """
    if missing := [name for name in ("kind", *BOX) if name not in boxes]:
        raise InvalidParameter(
            f"The boxes to draw have no column {', '.join(missing)}. Expected a row a box with "
            f"kind, {', '.join(BOX)}."
        )
    (pixels,) = pixels_of([photograph])
    height, width = pixels.shape[:2]
    figure, ax = axes_of(ax, (WIDTH, WIDTH * height / width + 0.7))
    # Pixels reach from edge to edge as boxes do, not from centre to centre.
    ax.imshow(pixels, extent=(0, width, height, 0))
    names = boxes["kind"].astype(str)
    if "cell_type" in boxes:
        is_typed = boxes["cell_type"].isin(cells.LEUKOCYTES)
        names = boxes["cell_type"].astype(object).where(is_typed, names)
    for name, look, label in _looks():
        chosen = boxes.loc[(names == name).to_numpy(), BOX].to_numpy(float)
        for x_min, y_min, x_max, y_max in chosen:
            frame = Rectangle((x_min, y_min), x_max - x_min, y_max - y_min, fill=False)
            frame.set(edgecolor=look.color, linewidth=1.8, path_effects=_HALO)
            ax.add_patch(frame)
        if len(chosen):
            x, y = _marker_places(chosen, width, height)
            label = f"{label} (n = {len(chosen):,})"
            points = ax.scatter(x, y, s=70, color=look.color, marker=look.marker, label=label)
            points.set(edgecolor="white", linewidth=1, zorder=3)
    ax.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    ax.set_title(in_lines(f"{title or 'Cells found'} (n = {len(boxes):,})"))
    say_what_is_seen(
        figure,
        f"{title or 'Cells found'}: {len(boxes):,} boxes, each in the colour of what it holds.",
    )
    if len(boxes):
        ax.legend(loc="upper left", bbox_to_anchor=(0, 0), ncols=2, handletextpad=0.2)
    return figure


def _looks() -> list[tuple[str, cells.Kind | cells.CellType, str]]:
    """Name, look and label of everything that a box may hold, types after kinds."""
    kinds = [(kind.name, kind, kind.plural) for kind in cells.KINDS]
    return [*kinds, *((look.name, look, f"{look.name}s") for look in cells.LEUKOCYTE_TYPES)]


def _marker_places(boxes: np.ndarray, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Upper left corners of boxes, moved inside where the frame would cut a marker."""
    margin = 0.014 * width
    x = np.clip(boxes[:, 0], margin, width - margin)
    return x, np.clip(boxes[:, 1], margin, height - margin)
