"""What a run answers about images that it did not learn from, how good that is, and where it looks.

A run comes in, by name, or the network that ships where there is none; its answers go out, with the
scores, intervals and tables that `evaluate` makes of them, and with maps of where the network looks
(Grad-CAM). Such maps can look convincing and say little. If the network reads the white cell, its
answer should go with the cell blanked, and stay with as much of the background blanked.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from wbc_helpers import cells, storage
from wbc_helpers.classify import classifier, inputs, networks
from wbc_helpers.data import catalog, splits
from wbc_helpers.data.identity import Identity
from wbc_helpers.errors import InvalidParameter
from wbc_helpers.evaluate import classification, confidence, uncertainty
from wbc_helpers.evaluate.classification import Evaluation
from wbc_helpers.pixels.stain import is_fill
from wbc_helpers.runs import answering, backend, folders, recorder
from wbc_helpers.runs.backend import keras
from wbc_helpers.runs.recipes import RECIPES, TrainingSettings, describe

SHIPPED = "shipped"
"""Name, instead of a run's, for the network whose weights ship with the package."""


def check(run: str, compare_with: str, runs_dir: str | Path) -> None:
    """Refuse runs that are not there, before any work; `compare_with` may be empty.

    Raises what `folders.open_run` and `classification.read_predictions` do.
    """
    if run not in ("latest", SHIPPED):
        folders.open_run(run, runs_dir)
    if compare_with:
        classification.read_predictions(folders.open_run(compare_with, runs_dir).folder)


def open_run(name: str, identity: Identity, runs_dir: str | Path) -> folders.Run:
    """Open the run that is to be judged, on the data that it was trained on.

    `latest` is the newest finished one. `shipped`, or `latest` where none is finished, is the
    network that ships: it gets a run folder of its own, with no history, and the images that it did
    not learn from as `validation`. Raises what `folders.open_run` and
    `folders.check_data` do.
    """
    trained = [run for run in folders.list_runs(runs_dir) if run.is_complete and run.was_trained]
    if name == SHIPPED or (name == "latest" and not trained):
        return _shipped(identity, runs_dir)
    run = folders.open_run(name, runs_dir)
    folders.check_data(run, identity.to_dict())
    return run


def _shipped(identity: Identity, runs_dir: str | Path) -> folders.Run:
    network = classifier.load("compact", keras=True)
    facts = network.about
    known = {field.name for field in fields(TrainingSettings)} & facts["training"].keys()
    settings = TrainingSettings(
        facts["recipe"],
        image_size=tuple(facts["image_size"]),
        **{name: facts["training"][name] for name in known - {"recipe", "image_size"}},
    )
    record = describe(settings, identity.to_dict(), backend.choose())
    # Nothing is trained here.
    record["training"] |= {"epochs": 0, SHIPPED: facts["created"]}
    name = f"{SHIPPED}-{facts['created'][:10]}-{identity.source.name}"
    run = folders.start(name, runs_dir, record)
    if not run.is_complete:
        images = splits.add_provenance(catalog.find_images(identity.folder))
        training_images = images[images["split"] == "TRAIN"].reset_index(drop=True)
        folders.write_split(run, training_images["file"], inputs.split(training_images, settings))
        with storage.atomic_file(run.folder / "model.keras") as partial:
            network.model.save(partial, overwrite=True)
    return run


def judge(run: folders.Run, identity: Identity, data_dir: str | Path) -> "Judged":
    """Ask the network of a run about its validation images and the official test images.

    Decoded images are kept in `data_dir`. Raises what `networks.load` and `images.decode` do.
    """
    model, cache = networks.load(run), Path(data_dir) / "cache"
    every = splits.add_provenance(catalog.find_images(identity.folder))
    red_cell = inputs.red_cell_of(every)
    started = time.perf_counter()
    images = {split: every[every["split"] == split] for split in ("TEST", "TEST_SIMPLE")}
    images["validation"] = every[every["file"].map(run.split) == "validation"]
    images = {split: rows for split, rows in images.items() if len(rows)}
    recipe, size = (run.settings["training"][key] for key in ("recipe", "image_size"))
    answers = {}
    for split, rows in images.items():
        pixels = inputs.decode(recipe, rows["path"], size, red_cell, cache)
        probabilities = answering.answer(model, pixels, RECIPES[recipe].turned)
        answers[split] = classification.evaluate(rows["cell_type"], probabilities)
    seconds = time.perf_counter() - started
    return Judged(run, model, images, answers, red_cell, seconds, cache)


@dataclass(frozen=True, eq=False)
class Judged:
    """The answers of a run, and what follows from them; see `judge`.

    `images` are rows of the catalog, see `splits.add_provenance`, and `answers` the evaluations of
    the same rows, by `TEST`, `TEST_SIMPLE` (where there is one) and `validation`; `red_cell` is the
    diameter of the images' red cells in pixels; to decode and to answer took `seconds`.
    """

    run: folders.Run
    model: Any
    images: dict[str, pd.DataFrame]
    answers: dict[str, Evaluation]
    red_cell: float
    seconds: float
    cache: Path

    @property
    def test(self) -> Evaluation:
        """Answers for the images of the official TEST."""
        return self.answers["TEST"]

    @property
    def validation(self) -> Evaluation:
        """Answers for the images that the run had set aside."""
        return self.answers["validation"]

    @property
    def tested(self) -> dict[str, Evaluation]:
        """Answers for official test images, by split."""
        return {split: each for split, each in self.answers.items() if split != "validation"}

    def photographs(self, split: str = "TEST") -> pd.Series:
        """Name the photograph of each image; one that is not known counts as a photograph."""
        return inputs.source_ids(self.images[split])

    def scores(self) -> pd.DataFrame:
        """Tabulate the scores, 0–1, of each official split, a column each."""
        rows = ["n_images", "accuracy", "balanced_accuracy", "macro_f1"]
        return pd.DataFrame({split: each.to_dict() for split, each in self.tested.items()}).loc[
            rows
        ]

    @cached_property
    def intervals(self) -> dict[str, pd.DataFrame]:
        """Intervals of the scores of each official split, see `uncertainty.intervals`."""
        return {
            split: uncertainty.intervals(each, self.photographs(split))
            for split, each in self.tested.items()
        }

    def views(self) -> dict[str, Evaluation]:
        """Look at TEST by image and by photograph, see `classification.views`."""
        in_train = self.images["TEST"]["cell_in_train"].fillna(False)
        return classification.views(self.test, self.photographs(), in_train)

    def by_photograph(self) -> pd.DataFrame:
        """Tabulate the scores of `views`, a column each."""
        rows = ["n_images", "accuracy", "balanced_accuracy", "macro_f1", "kappa"]
        table = {name: classification.summary(each) for name, each in self.views().items()}
        return pd.DataFrame(table).loc[rows]

    def mistakes(self, n: int = 12) -> pd.DataFrame:
        """Find wrong answers on TEST, see `classification.most_confident_mistakes`."""
        return classification.most_confident_mistakes(
            self.images["TEST"], self.test.probabilities, n
        )

    @cached_property
    def shown(self) -> tuple[np.ndarray, np.ndarray]:
        """What the network was shown of TEST, see `inputs.decode`, and its cells' masks."""
        recipe, size = (self.run.settings["training"][key] for key in ("recipe", "image_size"))
        images = (recipe, self.images["TEST"]["path"], size, self.red_cell)
        return inputs.decode(*images, self.cache), inputs.mask_cells(*images, progress=False)

    def looks(self, n_each: int = 3) -> tuple[Any, ...]:
        """Map where the network looks in some right and some wrong answers on TEST.

        Gives what `figures.where_it_looks` takes: images, Grad-CAM maps, answers and masks.
        """
        right, generator = self._right(), np.random.default_rng(0)
        rows = np.concatenate(
            [generator.permutation(np.flatnonzero(group))[:n_each] for group in (right, ~right)]
        )
        (pixels, masks), codes = self.shown, self.test.predicted_codes[rows]
        answers = pd.DataFrame(
            {
                "cell_type": self.test.true_types[rows],
                "predicted": np.array(cells.NAMES)[codes],
                "probability": self.test.probabilities[rows, codes],
            }
        )
        heat = grad_cam(self.model, pixels[rows], codes)
        return pixels[rows], heat, answers, masks[rows]

    def weight_on_cell(self) -> pd.DataFrame:
        """Average `weight_on_cell` over the right and over the wrong answers on TEST."""
        pixels, masks = self.shown
        heat = grad_cam(self.model, pixels, self.test.predicted_codes)
        on_cell = weight_on_cell(heat, masks)
        return on_cell.groupby(np.where(self._right(), "right", "wrong")).mean()

    def _right(self) -> np.ndarray:
        return self.test.predicted_codes == self.test.true_codes

    @cached_property
    def occluded(self) -> pd.DataFrame:
        """Answers on TEST with the cell, and with background blanked, see `answers_to`."""
        pixels, masks = self.shown
        types = self.images["TEST"]["cell_type"].to_numpy()
        return answers_to(self.model, pixels, types, occlude(pixels, masks))

    def occluded_by_type(self) -> pd.DataFrame:
        """Accuracy under each of `CONDITIONS`, of each type.

        `images` counts those of TEST, `tested` those of which the cell and as much background could
        be blanked; the accuracies, 0–1, are of these, missing where there are none.
        """
        answers = self.occluded.assign(
            right=self.occluded["predicted"] == self.occluded["cell_type"]
        )
        rates = answers.pivot_table("right", "cell_type", "condition", observed=False)
        tested = answers["cell_type"][answers["condition"] == CONDITIONS[0]].value_counts()
        counts = pd.DataFrame(
            {"images": self.images["TEST"]["cell_type"].value_counts(), "tested": tested}
        )
        counts = counts.reindex(list(cells.NAMES)).fillna(0).astype(int)
        return counts.join(rates.reindex(columns=list(CONDITIONS)))

    def calibrate(self) -> tuple[dict[str, Evaluation], pd.DataFrame]:
        """Fit a temperature on the validation images, and write it into the run folder.

        Gives TEST as it is and at that temperature, by name, and what it changed, in a table.
        """
        fitted = confidence.fit_temperature(self.validation, self.run.validation_title)
        scaled = confidence.with_temperature(self.test, fitted.temperature)
        summaries = {
            "before": confidence.summary(self.test),
            "after": confidence.summary(scaled),
        }
        confidence.write_calibration(self.run.folder, fitted, test=summaries)
        named = {
            "TEST as it is": self.test,
            f"TEST at temperature {fitted.temperature:.2f}": scaled,
        }
        return named, pd.DataFrame(summaries)

    def abstain(
        self, wanted_error: float
    ) -> tuple[dict[str, confidence.RiskCoverage], confidence.Abstention, pd.DataFrame]:
        """Choose on validation images below which probability no answer is given.

        Gives the error rate by part answered, of validation and TEST, by name; the threshold; and
        what it does on TEST, in a table. See `confidence.choose_threshold`.
        """
        chosen = confidence.choose_threshold(self.validation, wanted_error)
        curves = {
            f"validation, {self.run.validation_title}": confidence.risk_coverage(self.validation),
            "TEST": confidence.risk_coverage(self.test),
        }
        return curves, chosen, confidence.answer(self.test, chosen.threshold)

    def coverage(self) -> pd.DataFrame:
        """Compare promised with measured coverage, see `confidence.coverage_by_rate`."""
        return confidence.coverage_by_rate(
            self.validation,
            self.test,
            validation_photographs=self.photographs("validation"),
            photographs=self.photographs(),
        )

    def write(self) -> Path:
        """Write `predictions.csv`, then `evaluation.json`: a run that has it was evaluated."""
        n_parameters = networks.count_trainable(self.model)
        summary = folders.summarise(self.run, self.tested, n_parameters, self.seconds)
        by_score = self.intervals["TEST"][["low", "high"]].T.to_dict("list")
        summary["test"]["interval_by_photograph"] = by_score["accuracy"]
        summary["test"]["intervals_by_photograph"] = by_score
        if self.images["TEST"]["source_id"].notna().all():
            of_photographs = self.views()["photographs"]
            summary["test"]["photographs"] = classification.summary(of_photographs)
        peak = max(summary["peak_memory_bytes"], recorder.peak_memory_bytes())
        summary["peak_memory_bytes"] = peak
        order = ["validation", *self.tested]
        tables = [
            classification.tabulate(self.images[split], self.answers[split].probabilities)
            for split in order
        ]
        classification.write_predictions(self.run.folder, pd.concat(tables))
        return folders.write_evaluation(self.run, summary)


def compare(other: str, judged: Judged, runs_dir: str | Path) -> tuple[pd.DataFrame, list[str]]:
    """Compare a run with another that was evaluated, on the same photographs of TEST.

    Gives the table of `uncertainty.compare`, the other run first, and what it says of each score.
    """
    runs = (folders.open_run(other, runs_dir), judged.run)
    tables = [classification.read_predictions(run.folder) for run in runs]
    images, first, second = classification.align(
        *(table[table["split"] == "TEST"] for table in tables)
    )
    compared = uncertainty.compare(first, second, images["source_id"].fillna(images["file"]))
    words = [
        uncertainty.in_words(compared, score, runs[0].name, runs[1].name)
        for score in ("accuracy", "balanced_accuracy", "macro_f1")
    ]
    return compared.drop(columns=["naive_low", "naive_high"]), words


# Where the network looks

layers, ops = keras.layers, keras.ops

_CONVOLUTIONS = (
    layers.Conv2D, layers.DepthwiseConv2D, layers.SeparableConv2D, layers.Conv2DTranspose,
)  # fmt: skip
_ACTIVATIONS = (layers.Activation, layers.ReLU, layers.LeakyReLU, layers.PReLU, layers.ELU)


def grad_cam(
    model: keras.Model,
    pixels: np.ndarray,
    class_indices: ArrayLike | None = None,
    layer: str | None = None,
    batch_size: int = 128,
) -> np.ndarray:
    """Map what in an image raised the network's score of a cell type (Grad-CAM [1]_).

    The score is the logit, not the probability: where the network is sure, softmax is flat and its
    gradient vanishes. A network that ends in something else than softmax or logits is followed by a
    logarithm. Raises `InvalidParameter` if there is no such layer, it gives no maps, a path leads
    past it, a class is unknown, or Keras runs on a backend without gradients.

    Parameters
    ----------
    model, pixels
        Functional or sequential, channels last, on TensorFlow, JAX or PyTorch; and RGB, (n, height,
        width, 3) uint8, at the model's size.
    class_indices : (n,) array_like of int, or int, optional
        Whose score, as an index into `cells.NAMES`; the most probable type of each by default.
    layer : str, optional
        Name of the layer whose output is mapped. By default the last convolution, after its
        activation; where a shortcut leads past it, the first layer after it at which all paths have
        met.

    Returns
    -------
    ndarray, (n, height, width) float32
        0–1, each map divided by its maximum, resized bilinearly from the layer's own, coarser grid;
        for the `paper` recipe at 48×64 that has 6×8 fields. All zero where nothing in the layer
        spoke for the type.

    References
    ----------
    .. [1] R. R. Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via
       Gradient-Based Localization", ICCV 2017, 618–626.
    """
    stem, head = _cut(model, layer)
    n_types = model.output_shape[-1]
    if class_indices is None:
        class_indices = answering.predict(model, pixels, batch_size).argmax(axis=1)
    class_indices = np.broadcast_to(np.asarray(class_indices), len(pixels))
    if (
        class_indices.dtype.kind not in "iu"
        or ((class_indices < 0) | (class_indices >= n_types)).any()
    ):
        raise InvalidParameter(
            f"class_indices holds {np.unique(class_indices)[:5].tolist()}. Expected whole numbers "
            f"from 0 to {n_types - 1}, one an image or one for all."
        )
    of_types = np.eye(n_types, dtype=np.float32)[class_indices]
    height, width = pixels.shape[1:3]
    cams = np.zeros((len(pixels), height, width), np.float32)
    for start in range(0, len(pixels), batch_size):
        batch = slice(start, start + batch_size)
        features = stem(ops.convert_to_tensor(np.ascontiguousarray(pixels[batch])), training=False)
        chosen = ops.convert_to_tensor(of_types[batch])

        def score(maps: Any, of: Any = chosen) -> Any:
            return ops.sum(head(maps) * of)

        slope = _gradient(score, features)
        maps = ops.convert_to_numpy(features).astype(np.float32)
        # The paper's equations 1 and 2: average the gradient over the map, weigh, keep what
        # speaks for the type.
        weights = slope.mean(axis=(1, 2), keepdims=True)
        for i, coarse in enumerate(np.maximum((weights * maps).sum(axis=-1), 0), start=start):
            cam = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
            cams[i] = cam / cam.max() if cam.max() > 0 else 0
    return cams


def _gradient(score: Callable[[Any], Any], features: Any) -> np.ndarray:
    """Gradient of a number by features, on whatever backend Keras runs."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(features)
            value = score(features)
        slope = tape.gradient(value, features)
    elif backend == "jax":
        import jax

        slope = jax.grad(score)(features)
    elif backend == "torch":
        import torch

        features = features.detach().requires_grad_(True)
        (slope,) = torch.autograd.grad(score(features), features)
    else:
        raise InvalidParameter(
            f"Keras runs on {backend!r}, which has no gradients. Expected tensorflow, jax or "
            "torch; set KERAS_BACKEND before Python starts."
        )
    return ops.convert_to_numpy(slope).astype(np.float32)


def _cut(model: keras.Model, name: str | None) -> tuple[keras.Model, Callable[[Any], Any]]:
    """Cut a model in two: from pixels to a layer's maps, and from there to the logits."""
    if name is not None:
        candidates = [layer for layer in model.layers if layer.name == name]
    else:
        candidates = _candidates(model)
    candidates = [layer for layer in candidates if len(getattr(layer.output, "shape", ())) == 4]
    output, to_logits = _logits(model)
    for layer in candidates:
        try:
            rest = keras.Model(layer.output, output)
        except ValueError:  # a shortcut leads past this layer
            continue
        return (
            keras.Model(model.inputs, layer.output),
            lambda maps, rest=rest: to_logits(rest(maps, training=False)),
        )
    maps = [layer.name for layer in model.layers if len(getattr(layer.output, "shape", ())) == 4]
    raise InvalidParameter(
        f"{model.name} cannot be mapped at {'its last convolution' if name is None else repr(name)}"
        ": there is no such layer, or not all paths lead through it. Expected the name of a layer "
        f"that gives maps and that every path passes; those that give maps: {', '.join(maps)}."
    )


def _candidates(model: keras.Model) -> list[keras.layers.Layer]:
    """List the last convolution's activation, itself, then what follows it at the same size."""

    def convolves(layer: keras.layers.Layer) -> bool:
        return isinstance(layer, _CONVOLUTIONS) or any(map(convolves, getattr(layer, "layers", ())))

    places = [place for place, layer in enumerate(model.layers) if convolves(layer)]
    if not places:
        return []
    last, *after = model.layers[places[-1] :]
    size = last.output.shape[1:3]
    after = [layer for layer in after if layer.output.shape[1:3] == size]
    # A map before its ReLU is negative where the unit is silent, and a negative weight would
    # turn that silence into heat.
    if getattr(last, "activation", None) not in (None, keras.activations.linear):
        return [last, *after]
    activations = [layer for layer in after if isinstance(layer, _ACTIVATIONS)]
    return [*activations, last, *after]


def _logits(model: keras.Model) -> tuple[Any, Callable[[Any], Any]]:
    """Find the tensor from which a function makes the logits, without touching the model."""
    last = model.layers[-1]
    activation = getattr(last, "activation", None)
    softmax = activation is keras.activations.softmax
    if isinstance(last, layers.Softmax) or (isinstance(last, layers.Activation) and softmax):
        return last.input, lambda scores: scores
    if isinstance(last, layers.Dense) and softmax:
        bias = last.bias if last.use_bias else 0.0
        return last.input, lambda hidden: ops.matmul(hidden, last.kernel) + bias
    if activation is keras.activations.linear:
        return model.output, lambda scores: scores
    return model.output, lambda probabilities: ops.log(probabilities + 1e-7)


def weight_on_cell(cams: np.ndarray, masks: np.ndarray) -> pd.DataFrame:
    """Measure how much of each map, see `grad_cam`, lies on the white cell.

    Masks are (n, height, width) bool, see `white_cells.outlines`; `InvalidParameter` is raised if
    maps differ from them in shape. One row a map: `weight`, part of the map's sum on the cell, 0–1;
    `area`, part of the image that the cell takes, what a map spread evenly would reach; `peak`
    (boolean), whether the map is highest on the cell. Missing where no cell was found; `weight` and
    `peak` where the map is all zero, too.

    Examples
    --------
    >>> cams, masks = np.eye(4)[np.newaxis], np.zeros((1, 4, 4), bool)
    >>> masks[:, :2] = True
    >>> weight_on_cell(cams, masks)["weight"].tolist()
    [0.5]
    """
    check_masks(cams, masks)
    has_cell = masks.any(axis=(1, 2))
    total = cams.sum(axis=(1, 2), dtype=np.float64)
    mapped = has_cell & (total > 0)
    on_cell = (cams * masks).sum(axis=(1, 2), dtype=np.float64)
    weight = np.divide(on_cell, total, out=np.full(len(cams), np.nan), where=mapped)
    highest = cams.reshape(len(cams), -1).argmax(axis=1)
    peak = pd.array(masks.reshape(len(masks), -1)[np.arange(len(masks)), highest], dtype="boolean")
    peak[~mapped] = pd.NA
    area = np.where(has_cell, masks.mean(axis=(1, 2)), np.nan)
    return pd.DataFrame({"weight": weight, "area": area, "peak": peak})


def check_masks(images: np.ndarray, masks: np.ndarray) -> None:
    """Raise `InvalidParameter` unless there is a mask of the right size for each image."""
    if masks.shape != images.shape[:3] or masks.dtype != bool:
        raise InvalidParameter(
            f"The masks have shape {masks.shape} and type {masks.dtype}; expected "
            f"{images.shape[:3]} and bool, as white_cells.outlines gives them for these images."
        )


CONDITIONS = ("untouched", "background blanked", "cell blanked")
_MOST_FILL = 0.05  # part of a background patch that may lie on the black fill of a rotated image


@dataclass(frozen=True, eq=False)
class Occluded:
    """Images of which once the cell is blanked, and once as much of the background.

    Of `n_images` given, `rows`, (n_used,) int, could be used; `cell` and `background`, (n_used,
    height, width, 3) uint8, are those, blanked. In `n_without_cell` no white cell was found; in
    `n_without_room` there is less background than cell.
    """

    rows: np.ndarray
    cell: np.ndarray
    background: np.ndarray
    n_images: int
    n_without_cell: int
    n_without_room: int


def occlude(pixels: np.ndarray, masks: np.ndarray, seed: int = 0) -> Occluded:
    """Blank the white cell, and for comparison as many pixels of the background.

    Both are filled with the image's mean colour off the cell and off the black fill. The patch is
    the cell's mask, shifted at random (`seed`) to where it lies whole in the image, off every white
    cell, and at most 5 % on black fill. Where a cell leaves no room for its own shape, as large
    ones do in a crop, the patch is the background that is nearest to a pixel drawn at random. What
    no blanking hides is the outline: its size and shape remain. For `pixels` see `grad_cam`, for
    `masks` and errors `weight_on_cell`.
    """
    check_masks(pixels, masks)
    generator = np.random.default_rng(seed)
    rows, without_cell = [], 0
    blanked: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for row, (image, mask) in enumerate(zip(pixels, masks, strict=True)):
        if not mask.any():
            without_cell += 1
            continue
        fill = is_fill(image)
        patch = _beside(mask, fill, generator)
        if patch is None:
            patch = _around(~(mask | fill), int(mask.sum()), generator)
        if patch is None:
            continue
        rows.append(row)
        color = image[~(mask | fill)].mean(axis=0).round().astype(np.uint8)
        for images, where in zip(blanked, (mask, patch), strict=True):
            images.append(np.where(where[..., np.newaxis], color, image))
    cell, background = (
        np.array(images, np.uint8).reshape(-1, *pixels.shape[1:]) for images in blanked
    )
    without_room = len(pixels) - without_cell - len(rows)
    return Occluded(np.array(rows, int), cell, background, len(pixels), without_cell, without_room)


def _beside(
    mask: np.ndarray, fill: np.ndarray, generator: np.random.Generator
) -> np.ndarray | None:
    """Shift a mask off itself, or return None where there is no room."""
    ys, xs = np.nonzero(mask)
    shape = mask[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
    template = shape.astype(np.float32)

    def covered(area: np.ndarray) -> np.ndarray:
        return cv2.matchTemplate(area.astype(np.float32), template, cv2.TM_CCORR)

    # Sums of products of zeros and ones, up to rounding.
    free = (covered(mask) < 0.5) & (covered(fill) <= _MOST_FILL * shape.sum() + 0.5)
    places = np.argwhere(free)
    if not len(places):
        return None
    y, x = places[generator.integers(len(places))]
    patch = np.zeros_like(mask)
    patch[y : y + shape.shape[0], x : x + shape.shape[1]] = shape
    return patch


def _around(
    background: np.ndarray, n_pixels: int, generator: np.random.Generator
) -> np.ndarray | None:
    """Take background around a pixel of it, or return None where there is not so much."""
    ys, xs = np.nonzero(background)
    if len(ys) < n_pixels:
        return None
    middle = generator.integers(len(ys))
    distance = (ys - ys[middle]) ** 2 + (xs - xs[middle]) ** 2
    nearest = np.argsort(distance, kind="stable")[:n_pixels]
    patch = np.zeros_like(background)
    patch[ys[nearest], xs[nearest]] = True
    return patch


def answers_to(
    model: keras.Model, pixels: np.ndarray, true_types: ArrayLike, occluded: Occluded
) -> pd.DataFrame:
    """Ask the network about the same images untouched and blanked.

    `model` and `pixels` are those of `grad_cam`, the images those given to `occlude`; of
    `true_types`, (n,) array_like of str, each is one of `cells.NAMES`.

    One row for each usable image under each of `CONDITIONS`: `image` (int, its row in `pixels`),
    `condition` (categorical), `cell_type` (the true one), `original` (what the network says of the
    untouched image), `predicted`, `probability` (of `original`, 0–1). Raises `InvalidParameter` if
    these do not belong together, or no image is usable.
    """
    names, true_types = np.array(cells.NAMES), np.asarray(true_types).astype(str)
    if len(true_types) != len(pixels) or occluded.n_images != len(pixels):
        raise InvalidParameter(
            f"There are {len(pixels)} images, {len(true_types)} true types, and "
            f"{occluded.n_images} images were blanked. Expected the same images in all three."
        )
    if not len(occluded.rows):
        raise InvalidParameter(
            f"None of {occluded.n_images} images can be used: in {occluded.n_without_cell} no "
            f"white cell was found, {occluded.n_without_room} leave no room beside it. Expected "
            "images as the data set has them; look at the masks of white_cells.outlines."
        )
    tables, original = [], None
    by_condition = (pixels[occluded.rows], occluded.background, occluded.cell)
    for condition, images in zip(CONDITIONS, by_condition, strict=True):
        probabilities = answering.predict(model, images)
        predicted = probabilities.argmax(axis=1)
        original = predicted if original is None else original
        answers = {
            "image": occluded.rows,
            "condition": condition,
            "cell_type": true_types[occluded.rows],
            "original": names[original],
            "predicted": names[predicted],
            "probability": probabilities[np.arange(len(images)), original],
        }
        tables.append(pd.DataFrame(answers))
    table = pd.concat(tables, ignore_index=True)
    table["condition"] = pd.Categorical(table["condition"], CONDITIONS, ordered=True)
    return table


def summarise_occluded(answers: pd.DataFrame) -> pd.DataFrame:
    """Sum up what blanking does to the answers, see `answers_to`.

    Rows are `CONDITIONS`. `n_images`; `accuracy`; `kept`: part of the answers that are still those
    of the untouched image; `probability`: mean of that of the original answer. All 0–1.
    """
    measured = answers.assign(
        accuracy=answers["predicted"] == answers["cell_type"],
        kept=answers["predicted"] == answers["original"],
    )
    summary = measured.groupby("condition", observed=False)[["accuracy", "kept", "probability"]]
    return summary.mean().assign(n_images=summary.size())[
        ["n_images", "accuracy", "kept", "probability"]
    ]
