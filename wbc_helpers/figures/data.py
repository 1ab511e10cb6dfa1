"""Figures of the images themselves, and of how a network learned from them."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from wbc_helpers import cells
from wbc_helpers.errors import InvalidParameter
from wbc_helpers.figures.style import (
    GREY,
    WIDTH,
    axes_of,
    bars_by_type,
    in_style,
    pixels_of,
    require,
    training_and_validation,
    write_title,
)
from wbc_helpers.pixels.images import PixelStatistics, read_image


@in_style
def class_balance(catalog: pd.DataFrame) -> Figure:
    """Count the images (rows with `split` and `cell_type`) of each type, a panel for each split."""
    require(catalog, ("split", "cell_type"), "catalog")
    counts = pd.crosstab(catalog["split"].astype(str), catalog["cell_type"].astype(str))
    counts = counts.reindex(columns=cells.NAMES, fill_value=0)
    splits = list(pd.unique(catalog["split"].astype(str)))
    figure, panels = plt.subplots(1, len(splits), figsize=(WIDTH, 2.6), sharey=True, squeeze=False)
    for ax, split in zip(panels[0], splits, strict=True):
        bars_by_type(ax, counts.loc[split], [f"{count:,}" for count in counts.loc[split]])
        ax.set_xlim(0, counts.loc[split].max() * 1.3)
        ax.set(title=f"{split} (n = {counts.loc[split].sum():,})", xlabel="Images", xticks=[])
    write_title(figure, f"Images by split and cell type (n = {len(catalog):,})")
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
    n_rows = -(-len(pictures) // n_columns)
    width = WIDTH / n_columns
    height, pixels_wide = pictures[0].shape[:2]
    n_lines = max((line.count("\n") + 1 for line in titles or []), default=0)
    row_height = width * height / pixels_wide + 0.18 * n_lines
    size = (WIDTH, n_rows * row_height + 0.4)
    figure, panels = plt.subplots(n_rows, n_columns, figsize=size, squeeze=False)
    for ax in panels.flat:
        ax.axis("off")
    for index, (ax, picture) in enumerate(zip(panels.flat, pictures, strict=False)):
        ax.imshow(picture)
        if titles is not None:
            ax.set_title(titles[index], fontsize=9)
    write_title(figure, f"{title or 'Images'} (n = {len(pictures):,})")
    return figure


@in_style
def montage_by_type(catalog: pd.DataFrame, n_each: int = 6, seed: int = 0) -> Figure:
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
    size = (WIDTH, WIDTH / 3.4 * height / width + 0.6)
    figure, panels = plt.subplots(1, 3, figsize=size, layout="compressed")
    panels[0].imshow(statistics.mean / 255)
    panels[1].imshow(statistics.std / largest)
    spread = panels[2].imshow(statistics.std.mean(axis=-1))
    figure.colorbar(spread, ax=panels, shrink=0.9, aspect=15, pad=0.01)
    panels[0].set_title("Mean")
    panels[1].set_title(f"Std, brightened × {255 / largest:.1f}")
    panels[2].set_title("Std, mean of R, G, B")
    for ax in panels:
        ax.axis("off")
    title = title or "Mean and standard deviation of each pixel"
    write_title(figure, f"{title} (n = {statistics.n_images:,}; units 0–255)")
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
    height = 1.4 + len(cells.NAMES) * (0.25 + 0.22 * len(splits))
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, height), width_ratios=(1.5, 1))
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
                medianprops={"color": "black", "linewidth": 2},
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
    left.set_yticks(positions, labels, fontsize=9)
    left.set(title="Brightness", xlabel="Mean of an image, 0–255")
    left.invert_yaxis()
    left.grid(axis="x")
    right.set_xticks(range(3), channels)
    right.set(title="Colour", ylabel="Mean of an image, 0–255")
    right.grid(axis="y")
    legend = right.get_legend_handles_labels()
    figure.legend(*legend, loc="outside lower center", ncols=len(cells.NAMES))
    write_title(figure, f"Brightness and colour by cell type (n = {len(summary):,})")
    return figure


@in_style
def black_corners(fraction: np.ndarray, n_images: int, ax: Axes | None = None) -> Figure:
    """Map of how often each pixel is black fill.

    `fraction`, (height, width) float: part of `n_images` images in which it is, 0–1.
    """
    figure, ax = axes_of(ax, (WIDTH * 0.7, WIDTH * 0.5))
    shown = ax.imshow(100 * np.asarray(fraction), vmin=0)
    ax.axis("off")
    figure.colorbar(shown, ax=ax, label="% of the images", shrink=0.8)
    ax.set_title(f"How often a pixel is black fill (n = {n_images:,})")
    return figure


@in_style
def accuracy_by_seconds(
    curves: Mapping[str, pd.Series], n_images: int, ax: Axes | None = None
) -> Figure:
    """Draw how fast recipes learn: accuracy on `n_images` validation images by seconds.

    Parameters
    ----------
    curves : mapping of str to Series of float
        By name of the recipe: accuracy (0–1) after each epoch, by seconds since the start.

    Raises
    ------
    InvalidParameter
        If there is no curve, or one is empty.
    """
    if not curves or any(curve.empty for curve in curves.values()):
        raise InvalidParameter(
            f"There are {len(curves)} curves to draw, and not every one has a point. Expected at "
            "least one epoch of at least one recipe."
        )
    figure, ax = axes_of(ax, (WIDTH, 4))
    styles = cycle(zip(("#0072B2", "#D55E00", "#595959", "#009E73"), "o^sD", strict=True))
    for (name, curve), (color, marker) in zip(curves.items(), styles, strict=False):
        ax.plot(curve.index, curve, color=color, marker=marker, markersize=4, label=name)
    ax.set_title(f"How fast recipes learn (n = {n_images:,} images of other photographs)")
    ax.set_xlabel("seconds of training")
    ax.set_ylabel("accuracy")
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    ax.set_xlim(left=0)
    ax.grid()
    ax.legend(loc="lower right")
    return figure


@in_style
def learning_curves(history: pd.DataFrame, validation_name: str = "validation") -> Figure:
    """Loss and accuracy by epoch; a loss that diverged is left out.

    Parameters
    ----------
    history : DataFrame
        One row an epoch: `epoch` (from 1), `loss`, `accuracy`, `val_loss`, `val_accuracy`.
    validation_name : str
        What the validation part is, for the legend.
    """
    require(history, ("epoch", "loss", "accuracy", "val_loss", "val_accuracy"), "history")
    figure, panels = plt.subplots(1, 2, figsize=(WIDTH, 3.4))
    for ax, measure in zip(panels, ("loss", "accuracy"), strict=True):
        training_and_validation(ax, history, measure, ("training", validation_name), 30)
        ax.set_title(measure.capitalize())
    # A loss that diverged is NaN or infinite, which is no limit for an axis.
    losses = history[["loss", "val_loss"]].to_numpy(float)
    panels[0].set_ylim(0, 1.08 * max(losses[np.isfinite(losses)], default=1.0))
    panels[1].set_ylim(0, 1.02)
    panels[1].yaxis.set_major_formatter(PercentFormatter(1))
    panels[1].axhline(1 / len(cells.NAMES), color=GREY, linestyle=":", label="guessing")
    figure.legend(*panels[1].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    epochs = "1 epoch" if len(history) == 1 else f"{len(history):,} epochs"
    last = history["val_accuracy"].iloc[-1]
    write_title(figure, f"Learning curves (n = {epochs}; last validation accuracy {last:.1%})")
    return figure
