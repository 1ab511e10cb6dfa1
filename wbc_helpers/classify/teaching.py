"""What stands on a network's features: how unlike a cell is, and what labels of one's own change.

Features, (n, n_features) float, are what the last layer of a network goes by, the mean over the
ways to look at a cell; answers are logits linear in them. What the laboratories that it learned
from look like there ships beside the weights (`Learned`). A few labelled cells of one's own
laboratory move that last layer (`teach`), and make a small file without any image (`Laboratory`).
"""

import base64
import json
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from wbc_helpers import storage
from wbc_helpers.cells import BOX, LEUKOCYTES, OTHER
from wbc_helpers.errors import (
    BrokenRun,
    DataMismatch,
    DataNotFound,
    InvalidParameter,
    NothingLearned,
    RunExists,
)
from wbc_helpers.evaluate import uncertainty
from wbc_helpers.evaluate.confidence import log_softmax
from wbc_helpers.runs import folders

ANSWERS = (*LEUKOCYTES, OTHER)
"""Of the networks that can be taught, in the order of their logits."""

EXAMPLES = 8
"""Cells of each type and laboratory that others are compared with."""

EASED = 0.1
"""Part of the mean variance that is added to every direction of the features."""

FEW, SECOND, THIRD, AWAY = 20, 0.2, 0.04, 0.13
"""From which on answers are moved to a folder, see `Learned.shift`: white cells; shares of the
second and third most frequent type; how unlike those learned from their median is, where the
network that ships begins to give no answers."""

HELD = 0.15
"""How strongly the last layer is held to where it was, in units of the loss of one label a type."""


@dataclass(frozen=True, eq=False)
class Learned:
    """What the laboratories that a network learned from look like in its features.

    `weights` (n_features, n_answers) and `bias` are the last layer. `examples`, (n, n_features), of
    length 1, are directions from `centre` to typical cells of the five types, `means` (n_answers,
    n_features) the means of the answers. `easy`, (n_features, n_features): directions as long as
    cells of one type vary little along them, within and between laboratories.
    """

    weights: np.ndarray
    bias: np.ndarray
    centre: np.ndarray
    examples: np.ndarray
    means: np.ndarray
    easy: np.ndarray

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """Probabilities of the answers, (n, n_answers) float64."""
        return np.exp(log_softmax(features @ self.weights + self.bias)).astype(np.float64)

    def unlike(self, features: np.ndarray) -> np.ndarray:
        """How unlike all examples a cell is, (n,) float64: 0 as one of them, 1 at right angles."""
        if not len(features):
            return np.zeros(0)
        likeness = _directions(features, self.centre) @ self.examples.T
        return np.clip(1 - likeness.max(axis=1), 0, 1).astype(np.float64)

    def shift(self, features: np.ndarray) -> np.ndarray | None:
        """How far cells of one folder lie beside those learned from, (n_features,): half the way.

        The mean over the five types of how far their means moved, types of which more cells are
        taken to be in the folder counting more, so that shares of types that differ from those
        learned are no shift. Found with the answers in turn, without labels. None where that is
        no ground to move on: of fewer cells than `FEW`, of a folder of hardly more than one type,
        whose shift looks like another type, and of cells most of which are like those learned from.
        """
        answers = self.probabilities(features).argmax(axis=1)
        of_types = np.bincount(answers, minlength=len(ANSWERS))[: len(LEUKOCYTES)]
        shares = np.sort(of_types / max(int(of_types.sum()), 1))
        if len(features) < FEW or shares[-2] < SECOND or shares[-3] < THIRD:
            return None
        if np.median(self.unlike(features)) < AWAY:
            return None
        moved = np.zeros(features.shape[1])
        means = self.means[: len(LEUKOCYTES)]
        for _ in range(10):
            likely = self.probabilities(features - moved)[:, : len(LEUKOCYTES)]
            counts = likely.sum(axis=0)
            middles = likely.T @ features / np.maximum(counts, 1e-6)[:, None]
            trust = counts / (counts + 30)
            moved = trust @ (middles - means) / max(trust.sum(), 1e-6)
        return moved / 2

    def moved(self, features: np.ndarray) -> np.ndarray:
        """Features of one folder, (n, n_features), less their `shift`."""
        shift = self.shift(features)
        return features if shift is None else features - shift


def _directions(features: np.ndarray, centre: np.ndarray) -> np.ndarray:
    away = features - centre
    return away / np.maximum(np.linalg.norm(away, axis=1, keepdims=True), 1e-6)


def learn(
    features: np.ndarray, table: pd.DataFrame, weights: np.ndarray, bias: np.ndarray
) -> Learned:
    """Describe the cells that a network learned from.

    `table` has their `cell_type`, `laboratory` and whether they are `nothing`, places without a
    cell; of each laboratory its types count alike.
    """
    from scipy.cluster.vq import kmeans2

    def of(answer: str) -> list[np.ndarray]:
        """Features of an answer's cells, by laboratory; of places, where there are no cells."""
        is_type = table["cell_type"].eq(answer)
        is_cell = is_type & ~table["nothing"]
        rows = table[is_cell if is_cell.any() else is_type]
        return [features[of_one] for of_one in rows.groupby("laboratory").groups.values()]

    means = np.stack(
        [np.mean([rows.mean(axis=0) for rows in of(name)], axis=0) for name in ANSWERS]
    )
    centre = means[: len(LEUKOCYTES)].mean(axis=0)
    examples = []
    for name in LEUKOCYTES:
        for rows in of(name):
            n = min(EXAMPLES, max(1, len(rows) // 4))
            middles, _ = kmeans2(_directions(rows, centre).astype(float), n, minit="++", seed=0)
            examples.append(_directions(middles, 0 * centre))
    varies = np.mean([np.cov(np.concatenate(of(name)).T) for name in ANSWERS], axis=0)
    for name in LEUKOCYTES:
        own = np.stack([rows.mean(axis=0) for rows in of(name)])
        if len(own) > 1:
            varies += np.cov(own.T) / len(LEUKOCYTES)
    size = np.trace(varies) / len(varies)
    inverse = np.linalg.inv(varies / size + EASED * np.eye(len(varies)))
    easy = np.linalg.cholesky(inverse)
    return Learned(weights, bias, centre, np.concatenate(examples), means, easy)


KINDS = {"weights": "<f4", "bias": "<f4", "centre": "<f4", "means": "<f4", "examples": "<f2",
         "easy": "<f2"}  # fmt: skip
"""Of numbers as `Learned` ships them: half precision where that is enough."""


def write_learned(learned: Learned, path: Path) -> None:
    """Write what ships beside a network's weights: JSON, each array in base64."""
    content = {}
    for name, kind in KINDS.items():
        values = getattr(learned, name).astype(kind)
        packed = base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()
        content[name] = {"kind": kind, "shape": values.shape, "base64": packed}
    storage.write_json(path, content)


def shipped(name: str) -> Learned | None:
    """Read what the network that ships under this name learned from; None where it is not kept."""
    file = resources.files("wbc_helpers") / "weights" / f"{name}.learned.json"
    if not file.is_file():
        return None
    arrays = {}
    for key, held in json.loads(file.read_text(encoding="utf-8")).items():
        values = np.frombuffer(base64.b64decode(held["base64"]), held["kind"])
        arrays[key] = values.reshape(held["shape"]).astype(np.float32)
    return Learned(**arrays)


# What a laboratory taught


@dataclass(frozen=True, eq=False)
class Laboratory:
    """A last layer moved by one laboratory's labels, and what that brought.

    Attributes
    ----------
    name, of : str
        Its own name; and when the weights were made on which it stands.
    weights, bias : ndarray
        (n_features, n_answers) and (n_answers,), see `Learned`.
    examples : ndarray
        (n, n_features), directions from `Learned.centre` to some of the labelled cells.
    threshold : float
        Probability from which on an answer may be taken, 0–1.
    judged : dict
        What cross-validation showed, see `Judgement.to_dict`.
    labels : dict
        Number of labelled cells of each type.
    """

    name: str
    of: str
    weights: np.ndarray
    bias: np.ndarray
    examples: np.ndarray
    threshold: float
    judged: dict[str, Any]
    labels: dict[str, int]

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """Probabilities of the answers, (n, n_answers) float64."""
        return np.exp(log_softmax(features @ self.weights + self.bias)).astype(np.float64)

    def unlike(self, features: np.ndarray, learned: Learned) -> np.ndarray:
        """How unlike a cell is to those learned from and those labelled, see `Learned.unlike`."""
        return replace(learned, examples=np.concatenate([learned.examples, self.examples])).unlike(
            features
        )


FORMAT = 1
"""Version of a laboratory's file."""

FOLDER = "laboratories"
"""Where the files of laboratories are written and looked for, from the working folder on."""

_ARRAYS = {"weights": 5, "bias": 5, "examples": 3}
"""Of a laboratory, with the decimals that are kept."""


def path_of(name: str | Path) -> Path:
    """Path of a laboratory's file: `laboratories/NAME.json`, or as given where it ends in .json."""
    if str(name).endswith(".json"):
        return storage.absolute(name)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", str(name)):
        raise InvalidParameter(
            f"{str(name)!r} is no name for a laboratory. Expected up to 80 letters, digits, '.', "
            "'_' or '-', starting with a letter or digit; or the path of its .json file."
        )
    return storage.absolute(FOLDER) / f"{name}.json"


def write_laboratory(laboratory: Laboratory, name: str | Path) -> Path:
    """Write a laboratory's file, see `path_of`; `RunExists` if there is one."""
    path = check_new(name)
    storage.make_folder(path.parent)
    arrays = {
        key: np.round(getattr(laboratory, key).astype(float), digits).tolist()
        for key, digits in _ARRAYS.items()
    }
    others = {key: getattr(laboratory, key) for key in ("of", "threshold", "judged", "labels")}
    facts = {"format": FORMAT, "name": laboratory.name, "answers": list(ANSWERS)}
    text = json.dumps(folders.finite(facts | others | arrays), ensure_ascii=False, allow_nan=False)
    storage.write_text(path, text.replace(', "', ',\n"') + "\n")
    return path


def check_new(name: str | Path) -> Path:
    """Path of a laboratory's file that is not there yet, or `RunExists`."""
    path = path_of(name)
    if path.exists():
        raise RunExists(
            f"{path} exists: a laboratory of this name was taught before. Nothing is overwritten; "
            "give a new --name, or move that file away."
        )
    return path


def open_laboratory(name: str | Path, network: str, about: Mapping[str, Any]) -> Laboratory:
    """Open what a laboratory taught, by its name or path, for the network of that name and facts.

    Raises `DataNotFound` if there is no such file, naming those that are there; `BrokenRun` if it
    is damaged or of another version; `DataMismatch` if it stands on other weights.
    """
    path = path_of(name)
    try:
        content = storage.read_json(path)
        if content["format"] != FORMAT or content["answers"] != list(ANSWERS):
            raise ValueError(f"format {content['format']!r} instead of {FORMAT}")
        arrays = {key: np.array(content[key], np.float64) for key in _ARRAYS}
        keys = ("name", "of", "threshold", "judged", "labels")
        others: dict[str, Any] = {key: content[key] for key in keys}
        laboratory = Laboratory(**others, **arrays)  # type: ignore[arg-type]
        n_features, n_answers = laboratory.weights.shape
        sizes = (laboratory.bias.shape, laboratory.examples.shape[1])
        if (n_answers, *sizes) != (len(ANSWERS), (len(ANSWERS),), n_features):
            raise ValueError("arrays of other sizes")
        if not all(np.isfinite(values).all() for values in arrays.values()):
            raise ValueError("numbers are missing")
    except FileNotFoundError as error:
        there = ", ".join(sorted(file.stem for file in path.parent.glob("*.json"))) or "none"
        raise DataNotFound(
            f"{path} does not exist. Of laboratories that were taught there: {there}. Teach one "
            "with `wbc teach corrections.csv --name NAME`."
        ) from error
    except (ValueError, KeyError, TypeError, IndexError, OSError) as error:
        raise BrokenRun(
            f"{path} is no laboratory's file, is damaged or of another version ({error!r}). Teach "
            "it anew under a new name."
        ) from error
    if laboratory.of != about["created"]:
        raise DataMismatch(
            f"{path} was taught to the weights of {laboratory.of}; these are {network}, of "
            f"{about['created']}. Teach it anew from the same labels, under a new name."
        )
    return laboratory


def fit(learned: Learned, features: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Move the last layer towards labels: weights and bias, see `Learned`.

    Multinomial logistic regression whose penalty is on the way from the layer that was learned,
    shorter along directions in which cells of one type vary little. Types count alike; one without
    a label is stood for by the mean of those learned from. `codes`: places in `ANSWERS`.
    """
    from scipy.optimize import minimize

    held = HELD * len(np.unique(codes)) / len(codes)
    lacking = np.setdiff1d(np.arange(len(ANSWERS)), codes)
    features = np.concatenate([features, learned.means[lacking]]).astype(np.float64)
    codes = np.concatenate([codes, lacking])
    weight = 1 / np.bincount(codes, minlength=len(ANSWERS))[codes] / len(ANSWERS)
    truth = np.eye(len(ANSWERS))[codes]
    at_first = features @ learned.weights + learned.bias
    eased = np.c_[(features - learned.centre) @ learned.easy, np.ones(len(features))]
    penalty = np.full((eased.shape[1], 1), held)
    penalty[-1] /= 10

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        way = flat.reshape(eased.shape[1], len(ANSWERS))
        logs = log_softmax(at_first + eased @ way)
        slope = eased.T @ (weight[:, None] * (np.exp(logs) - truth)) + 2 * penalty * way
        return float(-(weight * (logs * truth).sum(axis=1)).sum() + (penalty * way**2).sum()), (
            slope.ravel()
        )

    found = minimize(loss, np.zeros(eased.shape[1] * len(ANSWERS)), jac=True, method="L-BFGS-B")
    way = found.x.reshape(eased.shape[1], len(ANSWERS))
    moved = learned.easy @ way[:-1]
    return learned.weights + moved, learned.bias + way[-1] - learned.centre @ moved


LEAST_LABELS, LEAST_GROUPS = 10, 4
"""Labelled cells and photographs below which nothing can be judged."""

PROMISED = 0.1
"""Part of the answers that may be wrong, of which a promise is made, with 95 % certainty."""

AIMED = 0.05
"""Part of the answers that may be wrong by cross-validation, where nothing can be promised."""


@dataclass(frozen=True, eq=False)
class Judgement:
    """What cross-validation says of labels; photographs are undivided, and drawn for intervals.

    Attributes
    ----------
    before, after, half : float
        Balanced accuracy, 0–1: as it ships; taught with the labels; and with half of them.
    gain : (low, high)
        95 % interval of `after - before`.
    recalls : DataFrame
        By type: `labels`, and recall `before` and `after`.
    threshold : float
        Probability from which on an answer may be taken.
    error, coverage : float
        Of the labelled cells: part of those answers that is wrong, and part answered.
    promised : float or None
        Part of the answers that is wrong at most, where as much can be promised.
    needed : int or None
        Labels from which on that could be, if these are like them; None if it cannot be said.
    of_slides : bool
        Whether it is known which cells are of one slide, so that it holds of other slides, too.
    """

    before: float
    after: float
    half: float
    gain: tuple[float, float]
    recalls: pd.DataFrame
    threshold: float
    error: float
    coverage: float
    promised: float | None
    needed: int | None
    of_slides: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, ready for JSON."""
        names = ("before", "after", "half", "threshold", "error", "coverage", "promised", "needed",
                 "of_slides")  # fmt: skip
        return {name: getattr(self, name) for name in names} | {"gain": list(self.gain)}

    def __str__(self) -> str:
        """Say it, as the terminal shows it."""
        n = int(self.recalls["labels"].sum())
        low, high = self.gain
        lines = [
            f"{n} labelled cells; judged on {'slides' if self.of_slides else 'photographs'} that "
            "were left out in turn.",
            "", self.recalls.to_string(float_format="%.2f"), "",
            f"Balanced accuracy {self.before:.2f} before, {self.after:.2f} after "
            f"({self.after - self.before:+.2f}; 95 % interval {low:+.2f} to {high:+.2f}).",
        ]  # fmt: skip
        second = self.after - self.half
        if second > WORTH:
            lines.append(
                f"The second half of the labels brought {second:+.2f}: as many again are worth "
                "it, and may bring about as much."
            )
        else:
            lines.append("The second half of the labels brought nothing to speak of.")
        share = f"{self.coverage:.0%} of the cells are answered for"
        if self.coverage:
            share += f", {self.error:.0%} of them wrong"
        if self.promised is not None:
            lines.append(
                f"From a probability of {self.threshold:.2f} on {share}: at most "
                f"{self.promised:.0%} (95 % certain), "
                + (
                    "on other slides of this laboratory, too."
                    if self.of_slides
                    else "on these same slides. Of others it could be said with a column `slide`."
                )
            )
        else:
            needed = (
                "no number of labels like these would"
                if self.needed is None
                else f"about {self.needed} labels like these would"
            )
            lines.append(
                f"From a probability of {self.threshold:.2f} on {share}. So few cells carry no "
                f"promise; {needed} carry one of at most {PROMISED:.0%} wrong."
            )
        return "\n".join(lines)


WORTH = 0.01
"""Balanced accuracy that the second half of labels must have brought to be worth as many again."""


def judge(
    learned: Learned,
    features: np.ndarray,
    codes: np.ndarray,
    groups: Sequence[str],
    shipped_threshold: float,
    of_slides: bool = False,
    seed: int = 0,
) -> Judgement:
    """Judge by cross-validation what labels bring, groups undivided: slides, or else photographs.

    Before, answers are moved to the labelled cells as to a folder, where they would be.

    Raises `InvalidParameter` if there are too few labels, types or groups.
    """
    from wbc_helpers.data import splits

    table = pd.DataFrame({"cell_type": np.array(ANSWERS)[codes], "group_id": np.asarray(groups)})
    n_groups, types = table["group_id"].nunique(), table["cell_type"].value_counts()
    if len(table) < LEAST_LABELS or n_groups < LEAST_GROUPS or len(types) < 2:
        raise InvalidParameter(
            f"{len(table)} labelled cells of {len(types)} types in {n_groups} photographs are too "
            f"few to judge by. Expected at least {LEAST_LABELS} cells of two types in "
            f"{LEAST_GROUPS} photographs; five cells of each type are a good beginning."
        )
    n_folds = int(min(5, n_groups, types.max()))
    with warnings.catch_warnings():
        # That a type has fewer cells than there are folds is no news.
        warnings.simplefilter("ignore")
        folds = splits.grouped_folds(table, n_folds, seed).to_numpy()
    rng = np.random.default_rng(seed)
    before = learned.probabilities(learned.moved(features))
    after, half = np.zeros_like(before), np.zeros_like(before)
    for fold in range(n_folds):
        rest, out = np.flatnonzero(folds != fold), folds == fold
        mixed = rng.permutation(rest)
        place = pd.Series(codes[mixed]).groupby(codes[mixed]).cumcount().to_numpy()
        fewer = mixed[place < np.bincount(codes[rest], minlength=len(ANSWERS))[codes[mixed]] / 2]
        for answers, rows in ((after, rest), (half, fewer)):
            weights, bias = fit(learned, features[rows], codes[rows])
            moved = replace(learned, weights=weights, bias=bias)
            answers[out] = moved.probabilities(features[out])
    right = {name: given.argmax(axis=1) == codes for name, given in
             (("before", before), ("after", after), ("half", half))}  # fmt: skip
    recalls = pd.DataFrame(right).groupby(table["cell_type"]).mean()
    recalls.insert(0, "labels", types)
    scores = recalls.mean()
    gained = right["after"].astype(float) - right["before"]
    gain = uncertainty.mean_over_types(gained, table["cell_type"], table["group_id"], rng)
    order = [name for name in ANSWERS if name in recalls.index]
    threshold, promised, needed = _promise(after, codes, table["group_id"], shipped_threshold)
    answered = (after.max(axis=1) >= threshold) & (after.argmax(axis=1) != ANSWERS.index(OTHER))
    return Judgement(
        float(scores["before"]), float(scores["after"]), float(scores["half"]),
        gain, recalls.loc[order, ["labels", "before", "after"]],
        threshold, float((~right["after"])[answered].mean()) if answered.any() else 0.0,
        float(answered.mean()), promised, needed, of_slides,
    )  # fmt: skip


def _at_most(n_wrong: ArrayLike, n: ArrayLike) -> np.ndarray:
    """Part that is wrong at most, with 95 % certainty (Clopper and Pearson), 0–1."""
    from scipy.stats import beta

    wrong, right = np.asarray(n_wrong, float), np.subtract(n, n_wrong)
    return np.where(right > 0, beta.ppf(0.95, wrong + 1, np.maximum(right, 1)), 1.0)


def _promise(
    answers: np.ndarray, codes: np.ndarray, groups: pd.Series, shipped_threshold: float
) -> tuple[float, float | None, int | None]:
    """Threshold, what it promises, and from how many labels on it could; see `Judgement`.

    Photographs count once, wrong if one of their answers is. From the surest on, as many are
    answered for as the promise holds for; the first number tried is the least that can carry it.
    """
    best, sure = answers.argmax(axis=1), answers.max(axis=1)
    order = np.argsort(-sure, kind="stable")
    order = order[best[order] != ANSWERS.index(OTHER)]
    wrong = (best != codes)[order]
    first = ~groups.iloc[order].duplicated().to_numpy()
    n_groups = np.cumsum(first)
    n_wrong = np.cumsum(wrong & ~groups.iloc[order].where(wrong).duplicated().to_numpy())
    least = int(np.ceil(np.log(0.05) / np.log(1 - PROMISED)))
    carried, needed = None, []
    for place in range(len(order)):
        ends = place + 1 == len(order) or sure[order[place + 1]] < sure[order[place]]
        if n_groups[place] >= least and ends:
            if _at_most(n_wrong[place], n_groups[place]) > PROMISED:
                break
            carried = place
    if carried is not None:
        bound = float(_at_most(n_wrong[carried], n_groups[carried]))
        return float(sure[order[carried]]), bound, None
    numbers = np.arange(least, 1000)
    for place in np.flatnonzero(n_groups >= 0.2 * groups.nunique())[:: max(1, len(order) // 20)]:
        expected = np.ceil(n_wrong[place] / n_groups[place] * numbers)
        enough = numbers[_at_most(expected, numbers) <= PROMISED]
        if len(enough):
            needed.append(enough[0] * len(codes) / n_groups[place])
    error = np.cumsum(wrong) / np.arange(1, len(wrong) + 1)
    good = np.flatnonzero(error <= AIMED)
    threshold = float(sure[order[good[-1]]]) if len(good) else shipped_threshold
    return max(threshold, 0.5), None, round(min(needed)) if needed else None


# From a table of labels to a laboratory

DELETED = "none"
"""What a person says of a box that holds no white cell."""


def read_labels(path: str | Path, photographs: str | Path | None = None) -> pd.DataFrame:
    """Read labelled white cells: corrections of the page, or a table with `file` and `cell_type`.

    Corrections have `kind` and `person`; boxes of other kinds, and those of which the person named
    no type, are left out, and what was deleted is `other`. A row without a box stands for the
    largest white cell of its image. Of several rows for one box the last one holds.

    Parameters
    ----------
    path : str or Path
        CSV. A column `slide`, where there is one, says what must not be parted; else the file.
    photographs : str or Path, optional
        Folder of the files, by default that of the table.

    Returns
    -------
    DataFrame
        `path`, `cell_type` (one of `ANSWERS`), `group`, `of_slide`: whether that is a slide that
        the table names, `corrected`: whether the network was said to be wrong, and `cells.BOX`,
        which may be missing.

    Raises
    ------
    DataNotFound
        If the table or one of its files is not there.
    DataMismatch
        If columns are missing, or a type is unknown.
    """
    path = storage.absolute(path)
    try:
        table = pd.read_csv(path, dtype="string", keep_default_na=False, encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise DataNotFound(f"{path} does not exist. Expected a table of labels, CSV.") from error
    except (ValueError, OSError) as error:
        raise DataMismatch(f"{path} cannot be read as a table, CSV in UTF-8 ({error}).") from error
    said = next((name for name in ("person", "cell_type") if name in table), None)
    if "file" not in table or said is None:
        raise DataMismatch(
            f"{path} has the columns {', '.join(table.columns)}. Expected `file` and `person`, as "
            "the page of counted smears writes corrections, or `file` and `cell_type`."
        )
    if "kind" in table:
        table = table[table["kind"].isin(("WBC", ""))]
    types = table[said].str.strip().str.lower().replace(DELETED, OTHER)
    table = table.assign(cell_type=types)[types != ""]
    unknown = sorted(set(table["cell_type"]) - set(ANSWERS))
    if unknown:
        raise DataMismatch(
            f"{path} names {', '.join(map(repr, unknown[:5]))}. Expected in {said!r} any of "
            f"{', '.join(ANSWERS)}, or {DELETED}."
        )
    folder = path.parent if photographs is None else storage.absolute(photographs)
    files = [folder / file for file in table["file"]]
    absent = [file for file in files if not file.is_file()]
    if absent:
        raise DataNotFound(
            f"{len(absent)} of {len(files)} files of {path.name} are not there; the first is "
            f"{absent[0]}. Say with --photographs in which folder they lie."
        )
    labels = pd.DataFrame(
        {"path": [str(file) for file in files], "cell_type": list(types[table.index])}
    )
    slides = table["slide"] if "slide" in table else table["file"]
    labels["group"] = [slide or file for slide, file in zip(slides, table["file"], strict=True)]
    answered = table["machine"] if "machine" in table else pd.Series("", table.index)
    labels["corrected"] = ((answered != "") & (answered != table["cell_type"])).to_numpy()
    labels["of_slide"] = (slides != table["file"]).to_numpy() & (slides != "").to_numpy()
    for edge in BOX:
        given = table[edge] if edge in table else pd.Series("", table.index)
        labels[edge] = pd.to_numeric(given, errors="coerce").astype(float).to_numpy()
    return labels.drop_duplicates(["path", *BOX], keep="last").reset_index(drop=True)


def crops_of(
    network: Any, labels: pd.DataFrame, red_cell: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Cut labelled cells out as a `Classifier` learned to see them.

    Returns crops, (n_labels, size, size, 3) uint8, and which labels have one: in an image without a
    box no white cell may be found. Raises `UnreadableImage` if a file is not a complete image.
    """
    from wbc_helpers.pixels import images, scale, white_cells

    files = list(dict.fromkeys(labels["path"]))
    widths = scale.widths_of(files, red_cell)
    size = network.about["image_size"][0]
    crops, there = np.zeros((len(labels), size, size, 3), np.uint8), np.ones(len(labels), bool)
    for path, width in zip(files, widths, strict=True):
        rows = np.flatnonzero(labels["path"] == path)
        pixels = images.read_image(path)
        boxes = labels.iloc[rows][BOX].to_numpy(float)
        boxed = np.isfinite(boxes).all(axis=1)
        if not boxed.all():
            white = white_cells.locate(pixels, width)
            there[rows[~boxed]] = bool(white)
            if white:
                boxes[~boxed] = [getattr(white[0], edge) for edge in BOX]
        crops[rows] = network.cut_boxed(pixels, np.nan_to_num(boxes), width)
    return crops, there


@dataclass(frozen=True, eq=False)
class Lesson:
    """What labels taught: the laboratory, its judgement, where it was written, what to label next.

    `after` is a table of cells that are worth a label: `file` (from the folder on that all labelled
    photographs share), `x`, `y` (pixels), `cell_type` and `probability`; `without_cell` counts
    labels in whose image no white cell was found; `only_mistakes`: whether all labels are
    corrections.
    """

    laboratory: Laboratory
    judgement: Judgement
    path: Path
    after: pd.DataFrame
    without_cell: int
    only_mistakes: bool = False

    def __str__(self) -> str:
        """Say what was learned, as the terminal shows it."""
        lines = [str(self.judgement)]
        if self.without_cell:
            lines.append(f"In {self.without_cell} labelled images no white cell was found.")
        if self.only_mistakes:
            lines.append(
                "All labels correct the network: `before` is of its mistakes alone. Confirm right "
                "answers, too, to be told what teaching brings."
            )
        if len(self.after):
            lines += ["", "Worth a label next, the most doubtful first:",
                      self.after.to_string(index=False, float_format="%.2f")]  # fmt: skip
        lines += [
            "",
            f"Laboratory: {self.path}",
            f"Use it with --laboratory {self.laboratory.name}",
        ]
        return "\n".join(lines)


def learn_from(
    network: Any,
    features: np.ndarray,
    codes: np.ndarray,
    groups: Sequence[str],
    name: str,
    of_slides: bool = False,
) -> tuple[Laboratory, Judgement]:
    """Move the last layer of a `Classifier` to labels, and judge that: see `judge` and `fit`."""
    learned = network.learned
    judgement = judge(learned, features, codes, groups, network.about["threshold"], of_slides)
    weights, bias = fit(learned, features, codes)
    types = pd.Series(np.array(ANSWERS)[codes])
    some = (types.groupby(types).cumcount() < EXAMPLES) & types.ne(OTHER)
    examples = _directions(features[some.to_numpy()], learned.centre)
    counts = {str(key): int(n) for key, n in types.value_counts().items()}
    facts = (judgement.threshold, judgement.to_dict(), counts)
    return Laboratory(name, network.about["created"], weights, bias, examples, *facts), judgement


NEXT = 10
"""Cells that are named as worth a label."""


def teach(
    network: Any,
    table: str | Path,
    name: str,
    photographs: str | Path | None = None,
    red_cell: float | None = None,
) -> Lesson:
    """Teach a `Classifier` the labels of a table, see `read_labels`, and write what it learned.

    Raises what `read_labels`, `judge` and `check_new` do; `InvalidParameter` if the network cannot
    be taught; `NothingLearned` if the labels make the answers no better.
    """
    path, learned = check_new(name), network.learned
    if learned is None:
        raise InvalidParameter("Only the network `broad` can be taught. Leave --weights out.")
    labels = read_labels(table, photographs)
    crops, there = crops_of(network, labels, red_cell)
    labels, crops = labels[there].reset_index(drop=True), crops[there]
    codes = np.array([ANSWERS.index(cell_type) for cell_type in labels["cell_type"]], int)
    features = network.features(crops).mean(axis=0)
    of_slides = bool(labels["of_slide"].all())
    laboratory, judgement = learn_from(
        network, features, codes, list(labels["group"]), path.stem, of_slides
    )
    if judgement.after <= judgement.before:
        raise NothingLearned(
            f"Balanced accuracy, by cross-validation, is {judgement.before:.2f} as it ships and "
            f"{judgement.after:.2f} taught with these {len(labels)} labels, so that nothing was "
            "written. Label more cells, of several photographs, and of the types that are taken "
            "for others."
        )
    after = _worth_a_label(replace(network, laboratory=laboratory), labels, red_cell)
    written = write_laboratory(laboratory, name)
    only_mistakes = bool(labels["corrected"].all())
    return Lesson(laboratory, judgement, written, after, int((~there).sum()), only_mistakes)


def _worth_a_label(network: Any, labels: pd.DataFrame, red_cell: float | None) -> pd.DataFrame:
    """Name the most doubtful cells of the labelled photographs' folders, one a photograph first."""
    from wbc_helpers.pixels import images, scale

    folders_of = sorted({Path(path).parent for path in labels["path"]})
    files = [folder / name for folder in folders_of for name in images.find_photographs(folder)[1]]
    rng = np.random.default_rng(0)
    files = sorted(rng.permutation(np.array(files, object))[:LOOKED_AT].tolist())
    table, _ = network.classify_all(files, scale.widths_of(files, red_cell, skip=True))
    table = table[table["found"].astype(bool)]
    x, y = (table[BOX[place::2]].astype(float).mean(axis=1) for place in (0, 1))
    # Before any row is dropped: columns assigned to a table without rows would bring some.
    table = table.assign(x=x.round().astype(int), y=y.round().astype(int))
    by_file = labels.groupby("path")

    def is_labelled(row: int) -> bool:
        if table["file"][row] not in by_file.groups:
            return False
        boxes = by_file.get_group(table["file"][row])[BOX].to_numpy(float)
        inside = (boxes[:, 0] <= x[row]) & (x[row] <= boxes[:, 2])
        inside &= (boxes[:, 1] <= y[row]) & (y[row] <= boxes[:, 3])
        return bool(inside.any() or np.isnan(boxes).any())

    table = table[[not is_labelled(row) for row in table.index]]
    table = table.sort_values("probability")
    table = table.assign(again=table.groupby("file").cumcount())
    chosen = table.sort_values(["again", "probability"]).head(NEXT)
    shared = os.path.commonpath(folders_of)
    chosen["file"] = [os.path.relpath(file, shared) for file in chosen["file"]]
    return chosen[["file", "x", "y", "cell_type", "probability"]].reset_index(drop=True)


LOOKED_AT = 200
"""Photographs that are looked through for cells worth a label."""
