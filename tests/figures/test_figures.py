"""Figures: what is drawn is what was given, in the fixed colours, legible and not cut off."""

import io
import re
from inspect import isfunction
from itertools import pairwise

import matplotlib as mpl

mpl.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import same_color, to_rgb
from matplotlib.text import Text
from PIL import Image

from wbc_helpers import cells, figures
from wbc_helpers.count import differential
from wbc_helpers.errors import InvalidParameter, UnreadableImage
from wbc_helpers.evaluate import confidence, uncertainty
from wbc_helpers.evaluate.classification import evaluate, most_confident_mistakes
from wbc_helpers.evaluate.detection import score_detections
from wbc_helpers.figures import style
from wbc_helpers.pixels.images import PixelStatistics
from wbc_helpers.pixels.white_cells import WhiteCell
from wbc_helpers.report.pages import INK, LINE, PAPER, in_both_schemes

N_OF_SPLIT = {"TRAIN": (5, 4, 3, 2), "TEST": (1, 2, 3, 4)}
COLOR_OF_TYPE = dict(zip(cells.NAMES, (60, 120, 180, 240), strict=True))


@pytest.fixture(autouse=True)
def _close_figures_and_never_show(monkeypatch):
    monkeypatch.setattr(plt, "show", lambda *_, **__: pytest.fail("a figure was shown"))
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    """24 one-colour images; red tells the cell type, blue the image."""
    folder = tmp_path_factory.mktemp("images")
    rows = []
    for split, counts in N_OF_SPLIT.items():
        for name, count in zip(cells.NAMES, counts, strict=True):
            for _ in range(count):
                path = folder / f"{len(rows)}.png"
                Image.new("RGB", (32, 24), (COLOR_OF_TYPE[name], 0, len(rows))).save(path)
                rows.append((str(path), split, name))
    catalog = pd.DataFrame(rows, columns=["path", "split", "cell_type"])
    catalog["cell_type"] = pd.Categorical(catalog["cell_type"], categories=cells.NAMES)
    catalog["split"] = pd.Categorical(catalog["split"], categories=("TRAIN", "TEST", "TEST_SIMPLE"))
    return catalog


@pytest.fixture(scope="module")
def probabilities(catalog):
    """Seeded answers, about two thirds of them right."""
    generator = np.random.default_rng(0)
    scores = generator.exponential(size=(len(catalog), 4))
    scores[np.arange(len(catalog)), catalog["cell_type"].cat.codes] += 1.2
    return scores / scores.sum(axis=1, keepdims=True)


@pytest.fixture(scope="module")
def evaluation(catalog, probabilities):
    return evaluate(catalog["cell_type"], probabilities)


@pytest.fixture(scope="module")
def without_neutrophils():
    return evaluate(cells.NAMES[:3], np.eye(4)[:3])


@pytest.fixture(scope="module")
def always_wrong():
    return evaluate(cells.NAMES, np.roll(np.eye(4), 1, axis=1))


@pytest.fixture(scope="module")
def intervals(evaluation):
    pairs = np.arange(evaluation.n_images) // 2
    return uncertainty.intervals(evaluation, pairs, n_resamples=200)


@pytest.fixture(scope="module")
def statistics():
    mean = np.full((24, 32, 3), 204, np.float32)
    std = np.full((24, 32, 3), 10, np.float32)
    std[0, 0] = (51, 30, 30)
    return PixelStatistics(mean, std, n_images=1234)


@pytest.fixture(scope="module")
def summary(catalog):
    colors = pd.DataFrame({"red": 180.0, "green": 150.0, "blue": 210.0}, index=catalog.index)
    colors["red"] += np.arange(len(catalog))
    return catalog[["split", "cell_type"]].join(colors).assign(brightness=colors.mean(axis=1))


def history_of(n_epochs):
    epochs = np.arange(1, n_epochs + 1)
    return pd.DataFrame(
        {
            "epoch": epochs,
            "loss": 1.4 / epochs,
            "accuracy": 1 - 0.7 / epochs,
            "val_loss": 1.5 / epochs,
            "val_accuracy": 1 - 0.75 / epochs,
        }
    )


# Every public figure once or more, with what makes it.
RESULTS = pd.DataFrame(
    {
        "recipe": "paper",
        "epochs": [200, 200, 200, 20],
        "split": ["random (leaky)"] * 3 + ["grouped"],
        "seed": [0, 1, 2, 0],
        "n": 2487,
        "validation": [0.97, 0.98, 0.99, 0.5],
        "accuracy": [0.51, 0.55, 0.53, 0.45],
    }
)

OCCLUSION = pd.DataFrame(
    {"n_images": 2450, "accuracy": [0.7, 0.71, 0.26], "probability": [1.0, 0.88, 0.47]},
    index=["untouched", "background blanked", "cell blanked"],
)


def looks_of(n_right, n_wrong):
    """Maps with one hot field each, answers, and masks of which the first is empty."""
    n_images = n_right + n_wrong
    cams, masks = np.zeros((n_images, 6, 8)), np.zeros((n_images, 6, 8), bool)
    cams[:, 1, 6], masks[1:, 2:5, 3:6] = 1, True
    predicted = ["eosinophil"] * n_right + ["neutrophil"] * n_wrong
    answers = {"cell_type": "eosinophil", "predicted": predicted, "probability": 0.75}
    return cams, pd.DataFrame(answers), masks


def judged_labels(n_doubtful, n_photographs=40):
    """As `labels.judge` returns them; the longest names that there are."""
    table = pd.DataFrame({"source_id": [f"BloodImage_{i:05d}" for i in range(n_photographs)]})
    table["cell_type"], table["suggested"] = "eosinophil", "lymphocyte"
    table["self_confidence"] = 0.002 * np.arange(n_photographs)
    table["p_suggested"] = 1 - table["self_confidence"]
    table["margin"] = table["self_confidence"] - table["p_suggested"]
    return table.assign(also_under=pd.NA, n_images=36, doubtful=table.index < n_doubtful)


def crops_of(n_crops, side=16):
    """One-colour crops; red tells which."""
    return [np.full((side, side, 3), (number, 0, 0), np.uint8) for number in range(n_crops)]


RED = [5, 8, 8, 11, 14, 20]
TRUE_COUNTS = pd.DataFrame({"RBC": RED, "WBC": 1, "Platelets": [0, 0, 2, 1, 0, 3]})
# Differences 2, 2, 2, -1, 0, 1 of red cells.
COUNTS = TRUE_COUNTS.assign(RBC=[7, 10, 10, 10, 14, 21])

BOXES = pd.DataFrame(
    [
        ("RBC", 0, 0, 30, 40, None),
        ("RBC", 40, 10, 70, 50, None),
        ("WBC", 20, 60, 60, 100, "monocyte"),
        ("WBC", 100, 60, 150, 110, None),
        ("Platelets", 120, 10, 130, 20, None),
    ],
    columns=["kind", "x_min", "y_min", "x_max", "y_max", "cell_type"],
)
SMEAR = np.full((120, 160, 3), 200, np.uint8)


def differential_of(n_abstained=0, **numbers):
    """Counted cells of each type."""
    named = [name for name, number in numbers.items() for _ in range(number)]
    table = pd.DataFrame({"cell_type": named + ["monocyte"] * n_abstained, "abstained": False})
    table.loc[len(named) :, "abstained"] = True
    return differential.count_differential(table)


def detector_history(n_epochs, every=1):
    """A loss that falls, validated every so many epochs and after the last."""
    epochs = np.arange(1, n_epochs + 1)
    table = pd.DataFrame({"epoch": epochs, "loss": 3 / epochs, "val_loss": 4 / epochs})
    validated = (epochs % every == 0) | (epochs == n_epochs)
    return table.assign(val_loss=table["val_loss"].where(validated))


def found_boxes(*rows):
    """Boxes of 10x10 pixels, given as (photograph, kind, x, score)."""
    table = pd.DataFrame(rows, columns=["photograph", "kind", "x_min", "score"])
    return table.assign(y_min=0, x_max=table["x_min"] + 10, y_max=10)


def detection_scores_of(truth, boxes):
    return score_detections(found_boxes(*truth), found_boxes(*boxes), "ab")


# Of three red cells two are found, between them something else; the platelet is not.
DETECTED = detection_scores_of(
    [("a", "RBC", 0, 1), ("a", "RBC", 20, 1), ("b", "RBC", 0, 1), ("b", "Platelets", 60, 1)],
    [("a", "RBC", 0, 0.9), ("a", "RBC", 40, 0.8), ("b", "RBC", 0, 0.7), ("a", "WBC", 60, 0.9)],
)
NOTHING_DETECTED = detection_scores_of([("a", "RBC", 0, 1)], [])
NOTHING_THERE = detection_scores_of([], [("a", "RBC", 0, 0.9)])

DRAWINGS = {
    "bland_altman": lambda get: figures.bland_altman(TRUE_COUNTS, COUNTS),
    "bland_altman, no difference": lambda get: figures.bland_altman(TRUE_COUNTS, COUNTS, "WBC"),
    "bland_altman, one photograph": lambda get: figures.bland_altman(TRUE_COUNTS[:1], COUNTS[:1]),
    "boxed_cells": lambda get: figures.boxed_cells(SMEAR, BOXES, "Found by a network"),
    "boxed_cells, none": lambda get: figures.boxed_cells(SMEAR, BOXES[:0]),
    "detection_curves": lambda get: figures.detection_curves(DETECTED),
    "detection_curves, nothing found": lambda get: figures.detection_curves(NOTHING_DETECTED),
    "detection_curves, nothing there": lambda get: figures.detection_curves(NOTHING_THERE),
    "detector_loss": lambda get: figures.detector_loss(detector_history(120, every=4)),
    "detector_loss, one epoch": lambda get: figures.detector_loss(detector_history(1)),
    "differential": lambda get: figures.differential(
        differential_of(9, neutrophil=130, lymphocyte=18, monocyte=5, eosinophil=28)
    ),
    "differential, no cell": lambda get: figures.differential(differential_of()),
    "class_balance": lambda get: figures.class_balance(get("catalog")),
    "montage": lambda get: figures.montage(get("catalog")["path"][:7], list("abcdefg")),
    "montage_by_type": lambda get: figures.montage_by_type(get("catalog"), n_each=6),
    "mean_and_std": lambda get: figures.mean_and_std(get("statistics"), "All of TRAIN"),
    "mean_and_std_by_type": lambda get: figures.mean_and_std_by_type(
        dict.fromkeys(cells.NAMES, get("statistics"))
    ),
    "brightness_and_colour": lambda get: figures.brightness_and_colour(get("summary")),
    "black_corners": lambda get: figures.black_corners(np.eye(24, 32), 24),
    "accuracy_by_seconds": lambda get: figures.accuracy_by_seconds(
        {name: pd.Series([0.4, 0.8], index=[3.0, 60.0]) for name in ("compact", "lenet", "paper")},
        2_063,
    ),
    "located_cells": lambda get: figures.located_cells(
        [np.full((60, 80, 3), 200, np.uint8)] * 3,
        [[WhiteCell(30, 30, 10, 20, 50, 40, 300.0, True)], [], []],
    ),
    "learning_curves": lambda get: figures.learning_curves(history_of(200), "grouped validation"),
    "learning_curves, one epoch": lambda get: figures.learning_curves(history_of(1)),
    "confusion": lambda get: figures.confusion(get("evaluation")),
    "confusion, a type missing": lambda get: figures.confusion(get("without_neutrophils")),
    "roc_curves": lambda get: figures.roc_curves(get("evaluation")),
    "precision_recall_curves": lambda get: figures.precision_recall_curves(get("evaluation")),
    "per_class_scores": lambda get: figures.per_class_scores(get("evaluation")),
    "mistakes": lambda get: figures.mistakes(
        most_confident_mistakes(get("catalog"), get("probabilities"))
    ),
    "paper_beside_ours": lambda get: figures.paper_beside_ours(
        {"paper-200, seed 0": get("evaluation"), "another run": get("without_neutrophils")}
    ),
    "reliability_diagram": lambda get: figures.reliability_diagram(
        {
            "as the network says": get("evaluation"),
            "temperature 2.53": confidence.with_temperature(get("evaluation"), 2.53),
        }
    ),
    "risk_coverage": lambda get: figures.risk_coverage(
        {
            "validation by photograph": confidence.risk_coverage(get("evaluation")),
            "TEST": confidence.risk_coverage(get("without_neutrophils")),
        },
        confidence.choose_threshold(get("evaluation"), 0.3),
    ),
    "risk_coverage, out of reach": lambda get: figures.risk_coverage(
        confidence.risk_coverage(get("always_wrong")),
        confidence.choose_threshold(get("always_wrong"), 0.05),
    ),
    "score_intervals": lambda get: figures.score_intervals(get("intervals"), 24, 12),
    "score_intervals, one score": lambda get: figures.score_intervals(
        get("intervals").loc[["kappa"]], 2487, 71
    ),
    "conformal_coverage": lambda get: figures.conformal_coverage(
        confidence.coverage_by_rate(get("evaluation"), get("evaluation"))
    ),
    "conformal_coverage, a type missing": lambda get: figures.conformal_coverage(
        confidence.coverage_by_rate(get("evaluation"), get("without_neutrophils"))
    ),
    "where_it_looks": lambda get: figures.where_it_looks(
        get("catalog")["path"][:10], *looks_of(5, 5)
    ),
    "where_it_looks, one right": lambda get: figures.where_it_looks(
        get("catalog")["path"][:1], *looks_of(1, 0)
    ),
    "doubtful_labels": lambda get: figures.doubtful_labels(judged_labels(31), crops_of(31)),
    "doubtful_labels, one": lambda get: figures.doubtful_labels(judged_labels(1), crops_of(1)),
    "doubtful_labels, none": lambda get: figures.doubtful_labels(judged_labels(0), []),
    "occlusion": lambda get: figures.occlusion(OCCLUSION),
    "validation_beside_test": lambda get: figures.validation_beside_test(RESULTS),
}


def texts_of(figure):
    figure.draw_without_rendering()
    return [text for text in figure.findobj(Text) if text.get_visible() and text.get_text()]


def all_text(figure):
    return "\n".join(written(texts_of(figure)))


def written(texts):
    return [text.get_text() for text in texts]


def legend_of(ax):
    return written(ax.get_legend().get_texts())


def titles_of(figure):
    return [ax.get_title(loc="left") for ax in figure.axes]


def contrast(first, second):
    """WCAG contrast ratio, 1 to 21."""

    def luminance(color):
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(to_rgb(first)), luminance(to_rgb(second))))
    return (light + 0.05) / (dark + 0.05)


def test_every_public_figure_is_checked_below():
    public = {name for name, value in vars(figures).items() if isfunction(value)}
    assert public == {name.split(",")[0] for name in DRAWINGS}


@pytest.mark.parametrize("drawing", DRAWINGS)
@pytest.mark.filterwarnings("error")
def test_figure_is_whole_legible_and_leaves_settings_alone(drawing, request):
    mpl.rcParams["font.size"] = 31
    before = dict(mpl.rcParams)
    figure = DRAWINGS[drawing](request.getfixturevalue)
    assert dict(mpl.rcParams) == before
    mpl.rcdefaults()
    mpl.use("agg")

    file = io.BytesIO()
    figure.savefig(file)
    assert file.getbuffer().nbytes > 5_000
    assert Image.open(file).width <= 960
    # What is measured below is what was saved, and laid out once.
    figure.set_layout_engine("none")
    # Nothing beyond the canvas, to a hundredth of an inch.
    width, height = figure.get_size_inches()
    box = figure.get_tightbbox()
    assert min(box.x0, box.y0, width - box.x1, height - box.y1) > -0.01
    # A telephone shows it 358 pixels wide.
    texts = texts_of(figure)
    shown = 358 / (width * 72)
    assert all(9 <= text.get_fontsize() * shown <= 12 for text in texts)
    assert any("n = " in text.get_text() for text in texts)
    assert same_color(figure.get_facecolor(), PAPER)
    # Its caption says more than its title does.
    caption, title = style.caption_of(figure), figure.get_suptitle()
    assert caption.endswith(".") and caption not in (title, *titles_of(figure))


@pytest.mark.parametrize(
    "draw",
    [
        figures.confusion,
        figures.roc_curves,
        figures.precision_recall_curves,
        figures.paper_beside_ours,
        figures.reliability_diagram,
        lambda evaluation, ax: figures.risk_coverage(confidence.risk_coverage(evaluation), ax=ax),
        lambda evaluation, ax: figures.score_intervals(
            uncertainty.intervals(evaluation, range(evaluation.n_images), 10), 24, 24, ax=ax
        ),
        lambda evaluation, ax: figures.black_corners(np.eye(4), 1, ax=ax),
        lambda evaluation, ax: figures.bland_altman(TRUE_COUNTS, COUNTS, ax=ax),
        lambda evaluation, ax: figures.boxed_cells(SMEAR, BOXES, ax=ax),
        lambda evaluation, ax: figures.detection_curves(DETECTED, ax=ax),
        lambda evaluation, ax: figures.detector_loss(detector_history(5), ax=ax),
        lambda evaluation, ax: figures.differential(differential_of(neutrophil=9), ax=ax),
    ],
)
def test_draws_on_a_lent_axes(draw, evaluation):
    figure, (lent, other) = plt.subplots(1, 2, figsize=(9, 5), layout="constrained")
    assert draw(evaluation, ax=lent) is figure
    assert plt.get_fignums() == [figure.number]
    assert lent.has_data()
    assert not other.has_data()
    figure.draw_without_rendering()
    assert figure.get_tightbbox().y0 > -0.01
    part = plt.figure(layout="constrained").subfigures(1, 2)[0]
    assert draw(evaluation, ax=part.subplots()) is part.figure


def test_class_balance_has_a_bar_for_each_count(catalog):
    figure = figures.class_balance(catalog)
    assert titles_of(figure) == ["TRAIN (n = 14)", "TEST (n = 10)"]
    assert "n = 24" in figure.get_suptitle()
    for ax, counts in zip(figure.axes, N_OF_SPLIT.values(), strict=True):
        assert [bar.get_width() for bar in ax.patches] == list(counts)
        assert written(ax.texts) == [str(count) for count in counts]
        for bar, cell_type in zip(ax.patches, cells.CELL_TYPES, strict=True):
            assert same_color(bar.get_facecolor(), cell_type.color)
        assert ax.yaxis_inverted()
    assert written(figure.axes[0].get_yticklabels()) == list(cells.NAMES)


def test_class_balance_without_one_type(catalog):
    figure = figures.class_balance(catalog[catalog["cell_type"] != "monocyte"])
    assert [bar.get_width() for bar in figure.axes[0].patches] == [5, 4, 0, 2]


def test_montage_shows_files_and_arrays(catalog):
    pictures = [catalog["path"][0], np.full((24, 32, 3), 7, np.uint8), catalog["path"][23]]
    figure = figures.montage(pictures, ["one", "two\nlines", "three"], n_columns=2, title="Cells")
    shown = [ax.images[0].get_array()[0, 0].tolist() for ax in figure.axes if ax.images]
    assert shown == [[60, 0, 0], [7, 7, 7], [240, 0, 23]]
    assert titles_of(figure) == ["one", "two\nlines", "three", ""]
    assert figure.get_suptitle() == "Cells (n = 3)"
    assert not any(ax.axison for ax in figure.axes)


@pytest.mark.parametrize(
    ("n_images", "titles", "n_columns"), [(0, None, 4), (2, ["one"], 4), (2, None, 0)]
)
def test_montage_refuses_what_does_not_fit(catalog, n_images, titles, n_columns):
    with pytest.raises(InvalidParameter, match="Cannot show"):
        figures.montage(catalog["path"][:n_images], titles, n_columns)


def test_montage_names_an_unreadable_file(tmp_path):
    broken = tmp_path / "broken.jpeg"
    broken.write_bytes(b"no image")
    with pytest.raises(UnreadableImage, match=r"broken\.jpeg"):
        figures.montage([broken])


def test_montage_by_type_draws_each_type_in_its_row(catalog):
    def shown(seed):
        figure = figures.montage_by_type(catalog, n_each=3, seed=seed)
        rows = [
            [ax.images[0].get_array()[0, 0] for ax in row.axes if ax.images]
            for row in figure.subfigs
        ]
        for row, part, name in zip(rows, figure.subfigs, cells.NAMES, strict=True):
            assert {color[0] for color in row} == {COLOR_OF_TYPE[name]}
            assert part.get_suptitle().startswith(f"{name}: {cells.BY_NAME[name].nucleus}")
            assert part.get_suptitle().endswith("(3 of 6)")
        images = [int(color[2]) for row in rows for color in row]
        assert len(set(images)) == 12
        return images

    assert shown(seed=0) == shown(seed=0) != shown(seed=1)


def test_montage_by_type_shows_fewer_where_there_are_fewer(catalog):
    figure = figures.montage_by_type(catalog[catalog["split"] == "TEST"], n_each=3)
    n_shown = [sum(bool(ax.images) for ax in row.axes) for row in figure.subfigs]
    assert n_shown == [1, 2, 3, 3]
    assert "(1 of 1)" in figure.subfigs[0].get_suptitle()


def test_mean_and_std_says_how_it_was_brightened(statistics):
    figure = figures.mean_and_std(statistics, "All of TRAIN")
    assert "All of TRAIN (n = 1,234" in figure.get_suptitle()
    mean, std, spread = (ax.images[0].get_array() for ax in figure.axes[:3])
    np.testing.assert_allclose(mean, 0.8)
    # The largest value, 51, becomes white: five times as bright.
    assert (std.max(), std.min()) == (pytest.approx(1), pytest.approx(10 / 51))
    assert titles_of(figure)[1] == "Std, brightened × 5.0"
    # The third stays in units of the images.
    assert spread[0, 0] == pytest.approx((51 + 30 + 30) / 3)
    assert figure.axes[2].images[0].cmap.name == "viridis"


def test_std_of_one_image_is_black_not_an_error(statistics):
    alone = PixelStatistics(statistics.mean, np.zeros_like(statistics.std), 1)
    assert figures.mean_and_std(alone).axes[1].images[0].get_array().max() == 0


def test_types_std_images_are_brightened_alike(statistics):
    dull = PixelStatistics(statistics.mean, statistics.std / 2, 1000)
    figure = figures.mean_and_std_by_type({"monocyte": statistics, "neutrophil": dull})
    assert titles_of(figure) == ["monocyte\nn = 1,234", "neutrophil\nn = 1,000", "", ""]
    assert "n = 2,234" in figure.get_suptitle()
    brightest = [ax.images[0].get_array().max() for ax in figure.axes[2:]]
    assert brightest == [pytest.approx(1), pytest.approx(0.5)]
    assert figure.axes[2].get_ylabel() == "Std × 5.0"


def test_brightness_and_colour_by_type(summary):
    figure = figures.brightness_and_colour(summary)
    left, right = figure.axes
    labels = written(left.get_yticklabels())
    assert labels[:3] == ["eosinophil TRAIN (n = 5)", " TEST (n = 1)", "lymphocyte TRAIN (n = 4)"]
    boxes = left.patches
    assert len(boxes) == 8
    for box, cell_type in zip(boxes[::2], cells.CELL_TYPES, strict=True):
        assert same_color(box.get_facecolor()[:3], cell_type.color)
    for container, cell_type in zip(right.containers, cells.CELL_TYPES, strict=True):
        points = container[0]
        assert points.get_marker() == cell_type.marker
        assert same_color(points.get_color(), cell_type.color)
        of_type = summary[summary["cell_type"] == cell_type.name]
        assert points.get_ydata().tolist() == of_type[["red", "green", "blue"]].median().tolist()


@pytest.mark.filterwarnings("error")
def test_brightness_with_a_type_missing(summary):
    figure = figures.brightness_and_colour(summary[summary["cell_type"] != "neutrophil"])
    figure.draw_without_rendering()
    assert "neutrophil TRAIN (n = 0)" in all_text(figure)


def test_black_corners_in_per_cent():
    figure = figures.black_corners(np.array([[0.8, 0.0], [0.1, 0.4]]), n_images=2487)
    shown = figure.axes[0].images[0]
    np.testing.assert_allclose(shown.get_array(), [[80, 0], [10, 40]])
    assert shown.get_clim() == (0, 80)
    assert "n = 2,487" in titles_of(figure)[0]
    assert "%" in figure.axes[1].get_ylabel()


def test_learning_curves_hold_the_history():
    history = history_of(5)
    figure = figures.learning_curves(history, "validation (random split)")
    for ax, measure in zip(figure.axes, ("loss", "accuracy"), strict=True):
        training, validation = ax.lines[:2]
        assert training.get_xdata().tolist() == [1, 2, 3, 4, 5]
        assert training.get_ydata().tolist() == history[measure].tolist()
        assert validation.get_ydata().tolist() == history[f"val_{measure}"].tolist()
        # Told apart without colour.
        assert training.get_linestyle() != validation.get_linestyle()
        # Nothing is clipped.
        assert ax.get_ylim()[1] > history[[measure, f"val_{measure}"]].max(axis=None)
        assert ax.get_ylim()[0] == 0
    assert "n = 5 epochs; last validation accuracy 85.0%" in figure.get_suptitle().replace(
        "\n", " "
    )
    assert "validation (random split)" in all_text(figure)


def test_one_epoch_is_seen():
    figure = figures.learning_curves(history_of(1))
    assert "n = 1 epoch;" in figure.get_suptitle()
    assert all(line.get_marker() == "o" for ax in figure.axes for line in ax.lines[:2])


def test_diverged_training_is_drawn():
    history = history_of(3).astype(float)
    history.loc[1:, ["loss", "val_loss"]] = np.nan
    figures.learning_curves(history).draw_without_rendering()
    history["loss"], history["val_loss"] = np.nan, np.inf
    figures.learning_curves(history).draw_without_rendering()


@pytest.mark.parametrize(
    ("draw", "table", "complaint"),
    [
        (figures.learning_curves, history_of(0), "no rows"),
        (figures.learning_curves, history_of(2).drop(columns="val_loss"), "no column val_loss"),
        (figures.detector_loss, detector_history(0), "no rows"),
        (figures.detector_loss, history_of(2)[["epoch", "loss"]], "no column val_loss"),
        (figures.class_balance, pd.DataFrame({"split": ["TRAIN"]}), "no column cell_type"),
        (figures.montage_by_type, pd.DataFrame({"path": ["a"]}), "no column cell_type"),
        (figures.brightness_and_colour, pd.DataFrame({"split": ["TRAIN"]}), "brightness, red"),
        (figures.mistakes, pd.DataFrame({"path": ["a"]}), "no column cell_type, predicted"),
        (
            lambda table: figures.doubtful_labels(table, []),
            judged_labels(1).drop(columns=["also_under", "doubtful"]),
            "no column also_under, doubtful",
        ),
        (lambda table: figures.doubtful_labels(table, []), judged_labels(0, 0), "no rows"),
    ],
)
def test_tables_that_lack_something_are_named(draw, table, complaint):
    with pytest.raises(InvalidParameter, match=complaint):
        draw(table)


def test_confusion_states_counts_and_shares(evaluation):
    figure = figures.confusion(evaluation)
    (ax,) = figure.axes
    assert f"n = {evaluation.n_images}" in titles_of(figure)[0]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Predicted", "True")
    counts, rates = evaluation.confusion.to_numpy(), evaluation.confusion_rates.to_numpy()
    assert written(ax.texts) == [
        f"{count}\n{rate:.0%}" for count, rate in zip(counts.flat, rates.flat, strict=True)
    ]
    assert [square.get_facecolor()[3] for square in ax.patches] == pytest.approx(rates.ravel())


@pytest.mark.parametrize(("page", "ink"), [("#fdfcfe", "#231b2e"), ("#16121c", "#ece6f2")])
def test_confusion_can_be_read_in_both_schemes(page, ink):
    """The ground shows through a square by as much as its share leaves."""
    for share in np.linspace(0, 1, 21):
        answers = np.zeros((100, 4))
        right = round(100 * share)
        answers[:right, 0] = answers[right:, 1] = 1
        (ax,) = figures.confusion(evaluate(["eosinophil"] * 100, answers)).axes
        plt.close("all")
        square, text = ax.patches[0], ax.texts[0]
        assert square.get_facecolor()[3] == pytest.approx(share)
        mixed = share * np.array(square.get_facecolor()[:3]) + (1 - share) * np.array(to_rgb(page))
        color = ink if text.get_color() == INK else text.get_color()
        assert contrast(color, mixed) >= 3.9


def test_confusion_of_an_absent_type_is_a_dash(without_neutrophils):
    (ax,) = figures.confusion(without_neutrophils).axes
    assert written(ax.texts[-4:]) == ["0\n–"] * 4
    assert "None was mistaken" in style.caption_of(ax.figure)


def test_a_notebook_shows_svg_in_the_readers_scheme_and_says_what_is_seen(evaluation, monkeypatch):
    displayed = {}
    monkeypatch.setattr(
        "IPython.display.display",
        lambda data, metadata, raw: displayed.update(data=data, metadata=metadata),
    )
    figure = figures.confusion(evaluation)
    figure._ipython_display_()
    drawing = displayed["data"]["image/svg+xml"]
    assert drawing.startswith("<svg") and ">eosinophil</text>" in drawing
    assert displayed["metadata"]["image/svg+xml"]["alt"] == style.caption_of(figure)
    page = in_both_schemes(drawing)
    assert "prefers-color-scheme: dark" in page
    assert not any(color in page for color in (INK, PAPER, LINE))
    assert "http" not in re.sub(r'xmlns(:xlink)?="[^"]*"', "", page)


def test_photographs_in_a_figure_are_small(catalog, monkeypatch):
    displayed = {}
    monkeypatch.setattr("IPython.display.display", lambda data, **_: displayed.update(data))
    noise = np.random.default_rng(0).integers(0, 255, (240, 320, 3)).astype(np.uint8)
    figures.montage([noise] * 2)._ipython_display_()
    drawing = displayed["image/svg+xml"]
    assert drawing.count("data:image/jpeg;base64,") == 2 and "data:image/png" not in drawing


@pytest.mark.parametrize(
    ("draw", "score", "value"),
    [
        (figures.roc_curves, "AUC", lambda ours, name: ours.roc(name).auc),
        (
            figures.precision_recall_curves,
            "AP",
            lambda ours, name: ours.precision_recall(name).average_precision,
        ),
    ],
)
def test_curves_have_fixed_colours_markers_and_scores(
    draw, score, value, evaluation, without_neutrophils
):
    figure = draw(evaluation)
    (ax,) = figure.axes
    assert f"n = {evaluation.n_images}" in titles_of(figure)[0]
    by_label = {line.get_label(): line for line in ax.lines}
    for cell_type in cells.CELL_TYPES:
        label = f"{cell_type.name}, {score} {value(evaluation, cell_type.name):.3f} (n = 6)"
        assert same_color(by_label[label].get_color(), cell_type.color)
        assert by_label[label].get_marker() == cell_type.marker
    legend = legend_of(ax)
    assert len(legend) == 5
    assert "guessing" in legend
    # The legend hides no curve.
    figure.draw_without_rendering()
    assert not ax.get_legend().get_window_extent().overlaps(ax.get_window_extent())

    absent = all_text(draw(without_neutrophils))
    assert "neutrophil, undefined (n = 0)" in absent
    assert f"monocyte, {score} 1.000 (n = 1)" in absent


def test_curves_have_the_right_axes(evaluation):
    roc, ours = evaluation.roc("lymphocyte"), figures.roc_curves(evaluation).axes[0]
    assert ours.lines[1].get_xdata().tolist() == roc.false_positive_rate.tolist()
    assert ours.lines[1].get_ydata().tolist() == roc.true_positive_rate.tolist()
    assert ours.get_xlabel() == "False positive rate"
    curve = evaluation.precision_recall("eosinophil")
    ours = figures.precision_recall_curves(evaluation).axes[0]
    (drawn,) = [line for line in ours.lines if line.get_label().startswith("eosinophil")]
    assert drawn.get_xdata().tolist() == curve.recall[::-1].tolist()
    assert drawn.get_ydata().tolist() == curve.precision[::-1].tolist()
    assert (ours.get_xlabel(), ours.get_ylabel()) == ("Recall", "Precision")


def test_scores_are_bars_with_numbers(evaluation):
    figure = figures.per_class_scores(evaluation)
    assert titles_of(figure) == ["Precision", "Recall", "F1"]
    for ax, score in zip(figure.axes, ("precision", "recall", "f1"), strict=True):
        values = evaluation.per_class[score]
        assert [bar.get_width() for bar in ax.patches] == values.tolist()
        assert written(ax.texts) == [f"{value:.2f}" for value in values]
        for bar, cell_type in zip(ax.patches, cells.CELL_TYPES, strict=True):
            assert same_color(bar.get_facecolor(), cell_type.color)
    assert "monocyte (n = 6)" in all_text(figure)


def test_undefined_scores_are_not_zero(without_neutrophils):
    figure = figures.per_class_scores(without_neutrophils)
    for ax in figure.axes:
        assert written(ax.texts) == ["1.00"] * 3 + ["undefined"]


def test_mistakes_name_both_types(catalog, probabilities):
    wrong = most_confident_mistakes(catalog, probabilities, n=5)
    figure = figures.mistakes(wrong)
    first = wrong.iloc[0]
    assert titles_of(figure)[0] == (
        f"called {first.predicted} {first.probability:.0%}\n"
        f"is {first.cell_type} {first.true_probability:.0%}"
    )
    assert figure.get_suptitle() == f"Most confident mistakes (n = {len(wrong)})"
    assert sum(bool(ax.images) for ax in figure.axes) == len(wrong)


def test_longest_titles_of_mistakes_do_not_collide(catalog):
    catalog = catalog[catalog["cell_type"] == "eosinophil"]
    lymphocytes = np.tile([0.0, 1.0, 0.0, 0.0], (len(catalog), 1))
    figure = figures.mistakes(most_confident_mistakes(catalog, lymphocytes))
    figure.draw_without_rendering()
    # The title on the left is not the axes' central `title`.
    boxes = [ax._left_title.get_window_extent() for ax in figure.axes[:3]]
    for left, right in pairwise(boxes):
        assert left.x1 < right.x0


def test_no_mistake_is_said():
    none = most_confident_mistakes(
        pd.DataFrame({"path": ["a"], "cell_type": ["monocyte"]}), [[0, 0, 1, 0]]
    )
    assert all_text(figures.mistakes(none)) == "No mistakes (n = 0)"


def test_paper_beside_ours(evaluation, without_neutrophils):
    figure = figures.paper_beside_ours({"first": evaluation, "second": without_neutrophils})
    (ax,) = figure.axes
    claim = ax.patches[0]
    assert claim.get_x() == pytest.approx(0.9)
    assert claim.get_x() + claim.get_width() == pytest.approx(1)
    assert written(ax.get_yticklabels()) == ["the paper", "first (n = 24)", "second (n = 3)"]
    for row, each in enumerate((evaluation, without_neutrophils)):
        interval, dot = ax.lines[2 * row : 2 * row + 2]
        assert tuple(interval.get_xdata()) == each.accuracy_interval
        assert dot.get_xdata()[0] == each.accuracy
        assert f"{each.accuracy:.1%}" in all_text(figure)
    assert "naive 95% interval" in ax.get_xlabel()
    assert "over 90%" in all_text(figure)


def test_the_papers_figure_takes_intervals_by_photograph():
    ours = evaluate(["neutrophil", "monocyte"], np.eye(4)[[3, 3]])
    table = pd.DataFrame({"low": [0.1], "high": [0.8]}, index=["accuracy"])
    ax = figures.paper_beside_ours({"mine": ours}, intervals={"mine": table}).axes[0]
    drawn = [line for line in ax.lines if list(line.get_ydata()) == [1, 1]]
    assert list(drawn[0].get_xdata()) == [0.1, 0.8]
    assert "photographs drawn anew" in ax.get_xlabel()


def test_paper_beside_one(evaluation):
    figure = figures.paper_beside_ours(evaluation, paper_claim=0.75)
    assert "ours (n = 24)" in all_text(figure)
    assert "over 75%" in all_text(figure)


def test_validation_and_test_stand_side_by_side_with_a_dot_for_each_seed():
    figure = figures.validation_beside_test(RESULTS)
    (ax,) = figure.axes
    dots = [line.get_xdata().tolist() for line in ax.lines if line.get_marker() in "so"]
    assert dots == [[0.5], [0.45], [0.97, 0.98, 0.99], [0.51, 0.55, 0.53]]
    shown = set(written(ax.texts))
    assert {"98%", "53%", "50%", "45%", "the paper: over 90%"} <= shown
    labels = written(ax.get_yticklabels())
    assert "validation: random (leaky)" in labels[1] and "n = 3 seeds" in labels[1]


def test_reliability_diagram_draws_the_bins_that_hold_images():
    # Four of 80 % and three right; one of 100 %, right.
    probabilities = np.array([[0.8, 0.2, 0, 0]] * 4 + [[1, 0, 0, 0]])
    names = ["eosinophil"] * 3 + ["lymphocyte", "eosinophil"]
    figure = figures.reliability_diagram(evaluate(names, probabilities))
    (points,) = figure.axes[0].collections
    np.testing.assert_allclose(points.get_offsets(), [(0.8, 0.75), (1, 1)])
    small, large = sorted(points.get_sizes())
    assert large > 2 * small
    assert "ECE 0.040 (n = 5)" in all_text(figure)


def test_risk_coverage_marks_the_threshold_on_each_curve(evaluation, always_wrong):
    chosen = confidence.choose_threshold(evaluation, 0.3)
    figure = figures.risk_coverage(confidence.risk_coverage(evaluation), chosen)
    marks = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 1]
    assert (marks[0].get_xdata()[0], marks[0].get_ydata()[0]) == (chosen.coverage, chosen.error)
    nothing = confidence.choose_threshold(always_wrong, 0.05)
    figure = figures.risk_coverage(confidence.risk_coverage(always_wrong), nothing)
    assert "out of reach" in all_text(figure)


def test_score_intervals_are_those_of_the_table(intervals):
    figure = figures.score_intervals(intervals, 24, 12)
    naive, honest = (lines.get_segments() for lines in figure.axes[0].collections)
    for row, (_, score) in enumerate(intervals.iterrows()):
        assert naive[row][:, 0].tolist() == [score["naive_low"], score["naive_high"]]
        assert honest[row][:, 0].tolist() == [score["low"], score["high"]]
    labels = written(figure.axes[0].get_yticklabels())
    assert labels[:2] == ["accuracy", "balanced accuracy"]


def test_conformal_coverage_in_the_colours_of_the_types(evaluation):
    measured = confidence.coverage_by_rate(evaluation, evaluation, [0.1, 0.4])
    left, right = figures.conformal_coverage(measured).axes
    for line, cell_type in zip(left.lines, cells.CELL_TYPES, strict=False):
        assert same_color(line.get_color(), cell_type.color)
        of_type = measured[measured["cell_type"] == cell_type.name].sort_values("wanted")
        assert line.get_ydata().tolist() == of_type["coverage"].tolist()
    assert left.lines[-1].get_xdata().tolist() == pytest.approx([0.6, 0.9])
    assert len(right.lines) == 5


@pytest.mark.parametrize("number", [0, 4])
def test_more_results_than_styles_are_refused(evaluation, number):
    with pytest.raises(InvalidParameter, match=f"{number} results"):
        figures.reliability_diagram(dict.fromkeys("abcd"[:number], evaluation))


def test_where_it_looks_sorts_right_from_wrong_and_lays_each_map_over_its_image(catalog):
    cams, answers, masks = looks_of(2, 3)
    mixed = [3, 0, 4, 1, 2]
    figure = figures.where_it_looks(
        catalog["path"][:5], cams[mixed], answers.iloc[mixed], masks[mixed]
    )
    right, wrong = figure.subfigs
    assert (right.get_suptitle(), wrong.get_suptitle()) == ("Right (n = 2)", "Wrong (n = 3)")
    assert [int(ax.images[0].get_array()[0, 0, 2]) for ax in right.axes[:2]] == [1, 3]
    assert [int(ax.images[0].get_array()[0, 0, 2]) for ax in wrong.axes[:3]] == [0, 2, 4]
    assert titles_of(right)[0] == "eosinophil 75%"
    assert titles_of(wrong)[0] == "neutrophil 75%\nis eosinophil"
    picture, heat = right.axes[0].images
    # The coarse map covers the whole image, and hides it only where it is hot.
    assert heat.get_extent() == list(picture.get_extent())
    assert heat.get_alpha().argmax() == heat.get_array().argmax() == 1 * 8 + 6
    assert heat.get_alpha().min() < 0.2
    # The first image's mask is empty: no outline.
    assert [len(ax.collections) for ax in right.axes[:2]] == [0, 1]


def test_where_it_looks_needs_one_map_an_image(catalog):
    cams, answers, _ = looks_of(2, 1)
    with pytest.raises(InvalidParameter, match="2 maps over 3 images"):
        figures.where_it_looks(catalog["path"][:3], cams[:2], answers)


def test_occlusion_shows_both_measures_of_each_condition():
    figure = figures.occlusion(OCCLUSION)
    ax = figure.axes[0]
    widths = [bar.get_width() for bar in ax.patches]
    assert widths == [*OCCLUSION["accuracy"], *OCCLUSION["probability"]]
    assert written(ax.get_yticklabels()) == list(OCCLUSION.index)
    assert "n = 2,450" in all_text(figure) and "guessing, 25%" in all_text(figure)


def test_doubtful_labels_name_photograph_label_and_suggestion():
    judged = judged_labels(3)
    judged.loc[1, ["cell_type", "suggested", "self_confidence"]] = ["monocyte", "neutrophil", 0.25]
    judged.loc[1, "p_suggested"] = 0.6
    figure = figures.doubtful_labels(judged, crops_of(3))
    assert figure.get_suptitle() == "Doubtful labels (n = 3 of 40 photographs)"
    assert titles_of(figure)[:2] == [
        "BloodImage_00000\nlabel eosinophil (0%)\nor lymphocyte? (100%)",
        "BloodImage_00001\nlabel monocyte (25%)\nor neutrophil? (60%)",
    ]
    shown = [int(ax.images[0].get_array()[0, 0, 0]) for ax in figure.axes if ax.images]
    assert shown == [0, 1, 2]


def test_two_labels_of_a_photograph_are_both_named():
    judged = judged_labels(2)
    judged["also_under"] = ["lymphocyte", "monocyte, neutrophil"] + [pd.NA] * 38
    titles = titles_of(figures.doubtful_labels(judged, crops_of(2)))
    assert titles[0].splitlines()[1:] == ["label eosinophil (0%)", "and lymphocyte? (100%)"]
    assert titles[1].splitlines()[1:] == [
        "label eosinophil (0%)",
        "and monocyte",
        "and neutrophil",
        "or lymphocyte? (100%)",
    ]


@pytest.mark.parametrize("n_crops", [pytest.param(24, marks=pytest.mark.slow), 31])
def test_no_more_than_24_doubtful_labels_are_shown_and_the_rest_is_counted(n_crops):
    figure = figures.doubtful_labels(judged_labels(31), crops_of(n_crops))
    assert figure.get_suptitle() == (
        "Doubtful labels (n = 31 of 40 photographs): the 24\nmost doubtful, and 7 more in the table"
    )
    shown = [int(ax.images[0].get_array()[0, 0, 0]) for ax in figure.axes if ax.images]
    assert shown == list(range(24)) and figures.MOST_DOUBTFUL == 24
    assert "more" not in figures.doubtful_labels(judged_labels(24), crops_of(24)).get_suptitle()


def test_long_names_of_photographs_do_not_collide():
    judged = judged_labels(8)
    judged["source_id"] = [f"{i:02} {'HAEMATOLOGY, WARD 17 ' * 3}" for i in range(40)]
    # Rounded to the longest numbers.
    judged[["self_confidence", "p_suggested"]] = 1.0
    figure = figures.doubtful_labels(judged, crops_of(8))
    figure.draw_without_rendering()
    for row in (figure.axes[:3], figure.axes[3:6]):
        boxes = [ax._left_title.get_window_extent() for ax in row]
        for left, right in pairwise(boxes):
            assert left.x1 < right.x0
        assert boxes[-1].x1 < figure.bbox.x1
    # Nor do titles reach into the crops above them.
    above = min(ax.get_window_extent().y0 for ax in figure.axes[:3])
    assert max(ax._left_title.get_window_extent().y1 for ax in figure.axes[3:6]) < above
    assert titles_of(figure)[0].splitlines()[:2] == [
        "00 HAEMATOLOGY, ",
        "WARD 17 HAEMATO…",
    ]


def test_no_doubtful_label_is_said():
    figure = figures.doubtful_labels(judged_labels(0), [])
    assert all_text(figure) == "No doubtful label (n = 0 of 40 photographs)"


@pytest.mark.parametrize(
    ("crops", "complaint"),
    [
        (crops_of(2), "2 crops for 3 doubtful labels"),
        ([np.zeros((8, 8), np.uint8)] * 3, r"shape \(8, 8\) and type uint8"),
        ([np.zeros((8, 8, 3))] * 3, "type float64"),
    ],
)
def test_crops_that_do_not_fit_the_table_are_refused(crops, complaint):
    with pytest.raises(InvalidParameter, match=complaint):
        figures.doubtful_labels(judged_labels(3), crops)


# Where cells were found, and how fast recipes learn


def test_every_cell_that_was_found_has_its_box(tmp_path):
    pictures = [np.full((60, 80, 3), 200, np.uint8)] * 3
    whole = WhiteCell(30, 30, 10, 20, 50, 40, 300.0, False)
    cut = WhiteCell(70, 10, 60, 0, 80, 25, 100.0, True)
    figure = figures.located_cells(pictures, [[whole, cut], [], [whole]], n_columns=2)
    boxes = [[patch.get_bbox() for patch in ax.patches] for ax in figure.axes]
    assert [len(each) for each in boxes] == [2, 0, 1, 0]
    # Pixel edges: the upper left pixel's centre is (0, 0).
    assert boxes[0][0].bounds == (9.5, 19.5, 40, 20)
    styles = [(p.get_linestyle(), p.get_edgecolor()) for p in figure.axes[0].patches]
    assert styles[0][0] == "-" and styles[1][0] == "--" and styles[0][1] != styles[1][1]
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["cut", "none found", "", ""]
    assert "found: 3 (n = 3 images)" in figure.get_suptitle()
    figure.savefig(tmp_path / "located.png")


def test_cells_and_images_must_match():
    picture = np.zeros((4, 4, 3), np.uint8)
    for images, found in (([], []), ([picture], []), ([picture], [[], []])):
        with pytest.raises(InvalidParameter, match="list of cells for each"):
            figures.located_cells(images, found)


def test_learning_is_drawn_by_seconds(tmp_path):
    curves = {
        "quick": pd.Series([0.5, 0.8], index=[3.0, 6.0]),
        "slow": pd.Series([0.4, 0.6], index=[30.0, 60.0]),
    }
    figure = figures.accuracy_by_seconds(curves, 2)
    (ax,) = figure.axes
    assert [line.get_xydata().tolist() for line in ax.lines] == [
        [[3, 0.5], [6, 0.8]],
        [[30, 0.4], [60, 0.6]],
    ]
    assert legend_of(ax) == ["quick", "slow"]
    assert len({line.get_marker() for line in ax.lines}) == 2
    with pytest.raises(InvalidParameter, match="at least one epoch"):
        figures.accuracy_by_seconds({"none": pd.Series(dtype=float)}, 0)


# Cells found and counted


def test_bland_altman_draws_every_photograph_once():
    figure = figures.bland_altman(TRUE_COUNTS, COUNTS.iloc[::-1])
    (ax,) = figure.axes
    points = ax.collections[0]
    drawn = sorted(map(tuple, points.get_offsets().tolist()))
    assert drawn == [(6, 2), (9, 2), (10.5, -1), (14, 0), (20.5, 1)]
    # Two photographs show 8 cells of which 10 were counted.
    sizes = dict(zip(map(tuple, points.get_offsets().tolist()), points.get_sizes(), strict=True))
    assert sizes[9, 2] > sizes[6, 2] == sizes[14, 0]
    assert same_color(points.get_facecolor()[0][:3], cells.KIND_BY_NAME["RBC"].color)
    # Mean 1; squares about it 1, 1, 1, 4, 1, 0: 8 / 5.
    spread = 1.96 * np.sqrt(8 / 5)
    heights = sorted(line.get_ydata()[0] for line in ax.lines)
    assert heights == pytest.approx([1 - spread, 0, 1, 1 + spread])
    assert set(written(ax.texts)) == {
        "bias +1.00",
        f"lower limit −{spread - 1:.2f}",
        f"upper limit +{spread + 1:.2f}",
    }
    assert titles_of(figure) == ["Red cells: mean absolute error 1.33 (n = 6\nphotographs)"]
    low, high = ax.get_ylim()
    assert low < 1 - spread and high > 1 + spread


def test_bland_altman_without_spread_has_one_line():
    (ax,) = figures.bland_altman(TRUE_COUNTS, COUNTS, "WBC").axes
    assert written(ax.texts) == ["bias +0.00"]
    (ax,) = figures.bland_altman(TRUE_COUNTS[:1], COUNTS[:1]).axes
    assert written(ax.texts) == ["bias +2.00"]


def test_bland_altman_of_what_was_not_counted():
    with pytest.raises(InvalidParameter, match="no count of 'basophil'"):
        figures.bland_altman(TRUE_COUNTS, COUNTS, "basophil")


def test_a_detectors_loss_is_drawn_where_it_was_measured():
    history = detector_history(6, every=4)
    (ax,) = figures.detector_loss(history).axes
    training, validation = ax.lines
    assert training.get_xdata().tolist() == [1, 2, 3, 4, 5, 6]
    assert training.get_ydata().tolist() == pytest.approx([3, 1.5, 1, 0.75, 0.6, 0.5])
    # One line, although two epochs between were not validated.
    assert validation.get_xdata().tolist() == [4, 6]
    assert validation.get_ydata().tolist() == pytest.approx([1, 2 / 3])
    assert ax.get_yscale() == "log"
    assert training.get_linestyle() != validation.get_linestyle()
    assert legend_of(ax) == ["training, views", "validation"]
    low, high = ax.get_ylim()
    assert low < 0.5 and high > 3


def test_a_detectors_loss_can_be_read_off_its_axis():
    figure = figures.detector_loss(detector_history(6))
    figure.draw_without_rendering()
    (ax,) = figure.axes
    low, high = ax.get_ylim()
    numbers = [
        label.get_text()
        for label, place in zip(ax.get_yticklabels(), ax.get_yticks(), strict=True)
        if low <= place <= high and label.get_text()
    ]
    # As plain numbers, not as powers of ten.
    assert len(numbers) >= 2 and all(float(text) > 0 for text in numbers)


def test_one_epoch_of_a_detector_is_seen():
    (ax,) = figures.detector_loss(detector_history(1)).axes
    assert all(line.get_marker() == "o" for line in ax.lines)


def test_a_detector_that_was_never_validated_or_diverged_is_drawn():
    history = detector_history(3)
    figures.detector_loss(history.assign(val_loss=np.nan)).draw_without_rendering()
    figures.detector_loss(history.assign(loss=np.nan, val_loss=np.inf)).draw_without_rendering()


def test_detection_curves_are_those_worked_out_by_hand():
    figure = figures.detection_curves(DETECTED)
    (ax,) = figure.axes
    curves = {line.get_label().split(":")[0]: line for line in ax.lines}
    # There are no white cells, whatever was taken for one.
    assert set(curves) == {"red cells", "platelets"}
    red = curves["red cells"]
    assert red.get_xdata().tolist() == pytest.approx([1 / 3, 1 / 3, 2 / 3])
    assert red.get_ydata().tolist() == pytest.approx([1, 1 / 2, 2 / 3])
    assert same_color(red.get_color(), cells.KIND_BY_NAME["RBC"].color)
    assert red.get_marker() == cells.KIND_BY_NAME["RBC"].marker
    assert len(curves["platelets"].get_xdata()) == 0
    # Precision 1 up to a recall of 0.33 (34 points of 101), then 2/3 up to 0.66 (33 points).
    average = (34 + 33 * 2 / 3) / 101
    assert legend_of(ax) == [f"red cells: AP {average:.3f} (n = 3)", "platelets: AP 0.000 (n = 1)"]
    # Where a box is found at all, it is found to the pixel.
    mean = f"{average / 2:.3f}"
    assert titles_of(figure) == [f"mAP@0.5 {mean}, mAP@0.5:0.95 {mean} (n = 2 photographs)"]
    assert ax.get_xlim()[0] == ax.get_ylim()[0] == 0
    assert min(ax.get_xlim()[1], ax.get_ylim()[1]) > 1


def test_detection_curves_of_nothing_to_find():
    (ax,) = figures.detection_curves(NOTHING_THERE).axes
    assert not ax.lines and ax.get_legend() is None


def test_boxes_are_drawn_where_they_are_and_as_what_they_hold():
    figure = figures.boxed_cells(SMEAR, BOXES, "Found")
    (ax,) = figure.axes
    looks = [cells.KIND_BY_NAME[kind] for kind in ("RBC", "RBC", "WBC", "Platelets")]
    looks.append(cells.BY_NAME["monocyte"])
    frames = [(patch.get_x(), patch.get_y(), patch.get_width(), patch.get_height())
              for patch in ax.patches]  # fmt: skip
    assert frames == [
        (0, 0, 30, 40), (40, 10, 30, 40), (100, 60, 50, 50), (120, 10, 10, 10), (20, 60, 40, 40),
    ]  # fmt: skip
    for patch, look in zip(ax.patches, looks, strict=True):
        assert same_color(patch.get_edgecolor()[:3], look.color)
    assert legend_of(ax) == [
        "red cells (n = 2)", "white cells (n = 1)", "platelets (n = 1)", "monocytes (n = 1)",
    ]  # fmt: skip
    # The pixel in the corner reaches from 0 to 1.
    assert ax.images[0].get_extent() == [0, 160, 120, 0]
    assert titles_of(figure) == ["Found (n = 5)"]
    # A marker at the corner of the photograph is not cut off.
    assert ax.collections[0].get_offsets()[0].min() > 0
    markers = {tuple(map(tuple, each.get_paths()[0].vertices)) for each in ax.collections}
    assert len(markers) == 4


def test_boxes_without_types_and_from_a_file(tmp_path):
    Image.fromarray(SMEAR).save(tmp_path / "smear.png")
    figure = figures.boxed_cells(tmp_path / "smear.png", BOXES.drop(columns="cell_type"))
    labels = legend_of(figure.axes[0])
    assert "white cells (n = 2)" in labels
    assert figures.boxed_cells(SMEAR, BOXES[:0]).axes[0].get_legend() is None
    with pytest.raises(InvalidParameter, match="no column y_max"):
        figures.boxed_cells(SMEAR, BOXES.drop(columns="y_max"))


def test_no_look_is_used_twice():
    looks = [*cells.KINDS, *cells.CELL_TYPES]
    assert len({look.color for look in looks}) == len({look.marker for look in looks}) == 7


def test_differential_beside_its_ranges():
    counted = differential_of(9, neutrophil=130, lymphocyte=18, monocyte=5, eosinophil=28)
    figure = figures.differential(counted)
    (ax,) = figure.axes
    ranges = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in ax.patches]
    assert ranges == [cell_type.reference_percent for cell_type in cells.LEUKOCYTE_TYPES]
    for line, cell_type in zip(ax.lines, cells.LEUKOCYTE_TYPES, strict=True):
        assert same_color(line.get_color(), cell_type.color)
        assert line.get_marker() == cell_type.marker
        assert line.get_xdata()[0] == counted.table.loc[cell_type.name, "percent"]
    for interval, name in zip(ax.collections, cells.LEUKOCYTES, strict=True):
        assert interval.get_segments()[0][:, 0].tolist() == pytest.approx(
            counted.table.loc[name, ["low", "high"]].tolist()
        )
    shares = written(ax.texts)
    assert shares[0] == "15.5%\nabove the range:\nto look at"
    assert shares[3] == "71.8%"
    assert figure.get_suptitle().replace("\n", " ") == (
        "Differential count (n = 181 white cells, 9 without an answer); not for diagnosis"
    )


def test_differential_of_few_cells_points_at_nothing():
    (ax,) = figures.differential(differential_of(lymphocyte=10)).axes
    assert written(ax.texts) == ["0.0%", "100.0%", "0.0%", "0.0%", "0.0%"]
