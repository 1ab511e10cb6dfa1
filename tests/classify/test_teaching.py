"""Teaching a laboratory: what labels bring is known by construction, and said as it is."""

import csv
import json
from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest
from drawn_fields import draw_field

from wbc_helpers import cells
from wbc_helpers.__main__ import main
from wbc_helpers.classify import classifier, teaching
from wbc_helpers.count import detector, smears
from wbc_helpers.errors import (
    BrokenRun,
    DataMismatch,
    DataNotFound,
    InvalidParameter,
    NothingLearned,
    RunExists,
)
from wbc_helpers.evaluate import confidence

N_FEATURES = 12


def drawn_features(n_each, moved=None, seed=0, spread=0.3):
    """Features that lie around one axis a type, all moved as another stain would: and codes."""
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(6), n_each)
    features = np.eye(6, N_FEATURES)[codes] * 2 + rng.normal(0, spread, (len(codes), N_FEATURES))
    return (features + (0 if moved is None else moved)).astype(np.float32), codes


@pytest.fixture(scope="module")
def learned():
    features, codes = drawn_features(40)
    table = pd.DataFrame({"cell_type": np.array(teaching.ANSWERS)[codes], "nothing": codes == 5})
    table["laboratory"] = np.where(np.arange(len(codes)) % 2, "a", "b")
    weights = 4 * np.eye(N_FEATURES, 6, dtype=np.float32)
    return teaching.learn(features, table, weights, np.zeros(6, np.float32))


ELSEWHERE = np.zeros(N_FEATURES)
ELSEWHERE[0] = 2.2  # Whatever it is, it looks like the first type.


def right(answers, codes):
    return (answers.argmax(axis=1) == codes).mean()


def test_what_is_unlike_all_examples_is_foreign(learned):
    known, _ = drawn_features(5, seed=1)
    assert learned.unlike(known[:25]).max() < 0.3
    nothing_like_it = learned.centre + 3 * np.eye(N_FEATURES)[[8, 9]]
    assert learned.unlike(nothing_like_it).min() > 0.7
    assert learned.unlike(known[:0]).shape == (0,)


def test_a_folder_that_lies_beside_is_moved_back_whatever_its_mixture(learned):
    moved = np.full(N_FEATURES, 0.5)
    features, codes = drawn_features(40, moved)
    for shares in ((1, 1, 1, 1, 1), (0.1, 1, 0.2, 1, 0)):
        rows = np.concatenate(
            [np.flatnonzero(codes == k)[: int(40 * s)] for k, s in enumerate(shares)]
        )
        shift = learned.shift(features[rows])
        assert np.abs(shift - moved / 2).max() < 0.15
    # Where cells lie as those learned from, the mixture alone moves nothing.
    assert learned.shift(drawn_features(40, seed=3)[0][40:160]) is None


def test_a_folder_of_one_type_or_of_few_cells_is_not_moved(learned):
    features, codes = drawn_features(40, np.full(N_FEATURES, 0.5))
    assert learned.shift(features[codes == 3]) is None
    assert learned.shift(features[:80]) is None, "two types alone"
    assert learned.shift(features[::13]) is None, "19 cells"
    assert learned.shift(features[::10]) is not None


def test_labels_of_another_stain_lift_the_answers(learned):
    features, codes = drawn_features(10, ELSEWHERE, seed=4)
    others, truth = drawn_features(40, ELSEWHERE, seed=5)
    assert right(learned.probabilities(others), truth) < 0.6
    weights, bias = teaching.fit(learned, features, codes)
    assert right(others @ weights + bias, truth) > 0.95


def test_a_type_without_labels_is_not_forgotten(learned):
    features, codes = drawn_features(10, seed=6)
    weights, bias = teaching.fit(learned, features[codes < 3], codes[codes < 3])
    assert right(features @ weights + bias, codes) > 0.95


def judged(learned, n_each, moved=ELSEWHERE, a_group=1, seed=7, spread=0.3):
    features, codes = drawn_features(n_each, moved, seed, spread)
    rng = np.random.default_rng(seed)
    groups = rng.permutation(len(codes)) // a_group
    return teaching.judge(learned, features, codes, [str(group) for group in groups], 0.75)


def test_cross_validation_says_what_labels_brought_and_what_they_carry(learned):
    few, many = judged(learned, 5), judged(learned, 40)
    assert few.before < 0.6 < 0.9 < few.after and few.gain[0] > 0
    assert few.promised is None and few.needed > 30 and "carry no promise" in str(few)
    assert many.promised <= teaching.PROMISED and many.error <= many.promised
    assert list(few.recalls["labels"]) == [5] * 6
    # A photograph counts once, however many of its cells are labelled: 240 cells, 24 photographs.
    assert judged(learned, 40, a_group=10).promised is None
    hopeless = judged(learned, 20, spread=6.0)
    assert hopeless.promised is None and hopeless.needed is None


def test_too_few_labels_are_not_judged(learned):
    features, codes = drawn_features(1, ELSEWHERE)
    with pytest.raises(InvalidParameter, match="too few to judge by"):
        teaching.judge(learned, features, codes, list("abcdef"), 0.75)
    features, codes = drawn_features(4, ELSEWHERE)
    with pytest.raises(InvalidParameter, match="in 1 photographs"):
        teaching.judge(learned, features, codes, ["a"] * len(codes), 0.75)


# Drawn cells in another stain, from photographs to the file and back

STAIN = {"lymphocyte": (96, 48, 150), "eosinophil": (40, 90, 60)}
"""Colours of nuclei, RGB, that no laboratory has: a colour a type."""


def draw_slides(folder, n_each=8, seed=0):
    """One cell a photograph, told apart by the colour of its nucleus; the truth by file."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    truth = {}
    for number in range(2 * n_each):
        name = list(STAIN)[number % 2]
        x, y = (int(value) for value in rng.integers(110, 150, 2))
        field = draw_field(52, [(x, y, 26)], 280, 260)
        is_nucleus = (field == (110, 70, 180)).all(axis=2)
        field[is_nucleus] = STAIN[name]
        field = np.clip(field + rng.normal(0, 3, field.shape), 0, 255).astype(np.uint8)
        file = f"{name[0]}{number:03d}.png"
        cv2.imwrite(str(folder / file), cv2.cvtColor(field, cv2.COLOR_RGB2BGR))
        truth[file] = (name, (x - 30, y - 30, x + 30, y + 30))
    return truth


def write_table(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerows(rows)
    return path


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own") / "slides"
    truth = draw_slides(folder)
    header = ["file", "kind", *cells.BOX, "machine", "probability", "person", "reader", "time"]
    rows = [
        [file, "WBC", *box, "monocyte", 0.4, name, "me", "2026-11-27T12:00"]
        for file, (name, box) in truth.items()
    ]
    rows.append(["none.png", "RBC", 1, 1, 50, 50, "", 0.9, "none", "me", "2026-11-27T12:00"])
    return write_table(folder / "corrections.csv", [header, *rows])


@pytest.fixture(scope="module")
def network():
    return classifier.load()


def test_teaching_lifts_drawn_cells_of_another_stain(slides, tmp_path, monkeypatch, capsys):
    """From the page's corrections, by command, to a file that names slides never labelled."""
    monkeypatch.chdir(tmp_path)
    assert main(["teach", str(slides), "--name", "my-lab", "--red-cell", "52"]) == 0
    printed = capsys.readouterr().out
    assert "16 labelled cells" in printed and "--laboratory my-lab" in printed
    assert "All labels correct the network" in printed
    assert "Worth a label" not in printed  # every cell has one
    path = tmp_path / "laboratories" / "my-lab.json"
    judged = json.loads(path.read_text(encoding="utf-8"))["judged"]
    assert judged["after"] > 0.9 > 0.7 > judged["before"]
    assert path.stat().st_size < 100_000
    truth = draw_slides(tmp_path / "new", 5, seed=1)
    scores = {}
    for name, options in (("before", []), ("after", ["--laboratory", "my-lab"])):
        out = tmp_path / f"{name}.csv"
        main(["classify", str(tmp_path / "new"), "--out", str(out), "--red-cell", "52", *options])
        rows = list(csv.DictReader(out.open(encoding="utf-8")))
        named = [row["cell_type"] == truth[row["file"].rpartition("/")[2]][0] for row in rows]
        scores[name] = np.mean(named)
    assert scores["after"] > 0.9 and scores["after"] > scores["before"] + 0.2
    # Never overwritten, and said before any work.
    before = path.read_bytes()
    assert main(["teach", str(slides), "--name", "my-lab"]) == 2
    assert "RunExists" in capsys.readouterr().err and path.read_bytes() == before


@pytest.mark.slow
def test_a_column_of_slides_says_what_is_judged_apart(slides, network, tmp_path):
    header, *rows = csv.reader(slides.open(encoding="utf-8"))
    rows = [[*row, f"slide {number // 4}"] for number, row in enumerate(rows)]
    table = write_table(tmp_path / "labels.csv", [[*header, "slide"], *rows])
    lesson = teaching.teach(network, table, str(tmp_path / "of-slides.json"), slides.parent, 52)
    assert lesson.judgement.of_slides and "judged on slides that" in str(lesson)
    lesson = teaching.teach(network, slides, str(tmp_path / "of-files.json"), None, 52)
    assert not lesson.judgement.of_slides and "judged on photographs that" in str(lesson)


def test_labels_that_make_it_worse_teach_nothing(slides, network, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = list(csv.reader(slides.open(encoding="utf-8")))
    # Types drawn by lot: there is nothing to be learned.
    rng = np.random.default_rng(3)
    mixed = [[*row[:8], rng.choice(["neutrophil", "monocyte"]), *row[9:]] for row in rows[1:-1]]
    table = write_table(tmp_path / "mixed.csv", [rows[0], *mixed])
    monkeypatch.setattr(teaching, "judge", lambda *given: replace(judge(*given), before=0.9))
    with pytest.raises(NothingLearned, match="nothing was written"):
        teaching.teach(network, table, "worse", slides.parent, 52)
    assert not (tmp_path / "laboratories").exists()


judge = teaching.judge


def test_labels_are_read_from_corrections_and_from_plain_tables(slides, tmp_path):
    labels = teaching.read_labels(slides)
    assert len(labels) == 16 and labels["group"].nunique() == 16
    assert set(labels["cell_type"]) == set(STAIN)
    (tmp_path / "a.png").touch()
    plain = write_table(
        tmp_path / "plain.csv",
        [["file", "cell_type", "slide"], ["a.png", "Monocyte ", "s1"], ["a.png", "none", "s1"]],
    )
    (row,) = teaching.read_labels(plain).to_dict("records")
    assert (row["cell_type"], row["group"]) == (cells.OTHER, "s1") and np.isnan(row["x_min"])


@pytest.mark.parametrize(
    ("rows", "error", "said"),
    [
        ([["name"], ["a.png"]], DataMismatch, "Expected `file` and `person`"),
        ([["file", "cell_type"], ["a.png", "blast"]], DataMismatch, "'blast'"),
        ([["file", "cell_type"], ["b.png", "monocyte"]], DataNotFound, "--photographs"),
    ],
)
def test_odd_tables_are_named(tmp_path, rows, error, said):
    (tmp_path / "a.png").touch()
    with pytest.raises(error, match=said):
        teaching.read_labels(write_table(tmp_path / "t.csv", rows))
    with pytest.raises(DataNotFound, match="nowhere"):
        teaching.read_labels(tmp_path / "nowhere.csv")


def test_a_laboratorys_file_is_checked(learned, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    about = {"created": "today"}
    own = teaching.Laboratory(
        "mine", "today", learned.weights, learned.bias, learned.examples, 0.7, {}, {"monocyte": 3}
    )
    path = teaching.write_laboratory(own, "mine")
    for name in ("mine", path):
        again = teaching.open_laboratory(name, "broad", about)
        assert again.threshold == 0.7 and np.allclose(again.weights, own.weights, atol=1e-5)
    with pytest.raises(RunExists, match="Nothing is overwritten"):
        teaching.write_laboratory(own, "mine")
    with pytest.raises(DataMismatch, match="Teach it anew"):
        teaching.open_laboratory("mine", "broad", {"created": "tomorrow"})
    with pytest.raises(DataNotFound, match="mine"):
        teaching.open_laboratory("yours", "broad", about)
    with pytest.raises(InvalidParameter, match="no name"):
        teaching.path_of("../mine")
    for text in ("{}", "no json", path.read_text().replace("0.7", '"x"', 1)[:-20]):
        path.write_text(text)
        with pytest.raises(BrokenRun, match="damaged"):
            teaching.open_laboratory("mine", "broad", about)


def test_the_last_layer_that_ships_is_that_of_the_weights(network):
    crops = np.random.default_rng(0).integers(0, 256, (3, 80, 80, 3), np.uint8)
    crops = np.stack([cv2.GaussianBlur(crop, (0, 0), 4) for crop in crops])
    plain = replace(network, learned=None)
    assert np.abs(plain.probabilities(crops) - network.probabilities(crops)).max() < 1e-5


def test_a_network_of_four_types_is_not_taught_nor_adapted(slides, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    compact = classifier.load("compact")
    with pytest.raises(InvalidParameter, match="broad"):
        teaching.teach(compact, slides, "mine")
    with pytest.raises(InvalidParameter, match="adapt"):
        classifier.classify_folder(compact, slides.parent, tmp_path / "a.csv", 52, False, True)


@pytest.fixture
def strange(network):
    """The network, as if all that it learned from had lain elsewhere, as far as types lie apart."""
    away = (
        0.8 * network.learned.means[:5].std(axis=0) * np.sign(network.learned.weights.sum(axis=1))
    )
    means = network.learned.means - away
    return replace(network, learned=replace(network.learned, means=means))


@pytest.mark.slow
def test_answers_are_moved_to_a_folder_by_itself(slides, strange, tmp_path, monkeypatch):
    monkeypatch.setattr(teaching, "FEW", 10)
    monkeypatch.setattr(teaching, "SECOND", 0)
    monkeypatch.setattr(teaching, "THIRD", 0)
    monkeypatch.setattr(teaching, "AWAY", 0)

    def named(network, name, **adapt):
        return classifier.classify_folder(
            network, slides.parent, tmp_path / name, 52, False, **adapt
        )

    moved = named(strange, "moved.csv")
    assert moved.is_adapted and "--no-adapt" in str(moved)
    # Adapted and named at once as in two passes over a folder too large to be held.
    monkeypatch.setattr(classifier, "AT_A_TIME", len(moved.table) - 1)
    in_two = named(strange, "passes.csv")
    assert in_two.is_adapted and len(in_two.table) == len(moved.table)
    left = named(strange, "left.csv", adapt=False)
    assert not left.is_adapted and "--no-adapt" not in str(left)
    columns = [f"p_{name}" for name in teaching.ANSWERS]
    assert (left.table[columns] - moved.table[columns]).abs().to_numpy().max() > 0.01
    # As the same by hand.
    crops = strange.crops_of(list(left.table["file"].unique()), np.full(16, 52.0))
    by_hand = replace(strange, moved=strange.learned.shift(strange.features(crops).mean(axis=0)))
    assert np.abs(by_hand.probabilities(crops) - moved.table[columns]).to_numpy().max() < 1e-5


def test_answers_are_moved_from_where_the_network_that_ships_gives_none(network):
    assert network.about["unlike"] == teaching.AWAY


def test_labels_are_judged_against_answers_moved_without_them(learned):
    moved = np.full(N_FEATURES, 0.5)
    features, codes = drawn_features(10, moved, seed=3)
    judgement = teaching.judge(learned, features, codes, [str(n) for n in range(60)], 0.75)
    by_hand = features - learned.shift(features)
    recalls = (
        pd.Series(learned.probabilities(by_hand).argmax(axis=1) == codes).groupby(codes).mean()
    )
    assert judgement.before == pytest.approx(recalls.mean())


def test_a_folder_without_a_white_cell_is_not_moved(network, tmp_path):
    for number in range(confidence.FEW_TO_ADAPT):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((90, 120, 3), 230, np.uint8))
    named = classifier.classify_folder(network, tmp_path, tmp_path / "a.csv", 52, False)
    assert not named.is_adapted and not named.table["found"].any()
    assert len(named.table) == confidence.FEW_TO_ADAPT


def test_the_command_may_leave_answers_as_they_are(slides, tmp_path):
    out = tmp_path / "left.csv"
    folder = str(slides.parent)
    assert main(["classify", folder, "--out", str(out), "--red-cell", "52", "--no-adapt"]) == 0
    assert len(list(csv.DictReader(out.open(encoding="utf-8")))) == 16


def test_nothing_is_answered_in_a_folder_that_looks_foreign(slides, network, tmp_path, monkeypatch):
    monkeypatch.setattr(confidence, "LEAST_TO_JUDGE", 10)
    picky = replace(network, about=network.about | {"unlike": 0.0})
    named = classifier.classify_folder(picky, slides.parent, tmp_path / "a.csv", 52, False)
    assert named.is_foreign and "look foreign" in str(named)
    assert not pd.read_csv(tmp_path / "a.csv")["answered"].any()
    # Taught, a laboratory is no longer foreign to itself.
    own, _ = teaching.learn_from(picky, *_of(network, slides), "own")
    taught = classifier.classify_folder(
        replace(picky, laboratory=own), slides.parent, tmp_path / "b.csv", 52, False
    )
    assert not taught.is_foreign


def _of(network, slides):
    labels = teaching.read_labels(slides)
    crops, _ = teaching.crops_of(network, labels, 52)
    codes = np.array([teaching.ANSWERS.index(name) for name in labels["cell_type"]])
    return network.features(crops).mean(axis=0), codes, list(labels["group"])


def test_a_count_is_named_as_a_laboratory_taught(slides, tmp_path, monkeypatch):
    """What was counted otherwise is not gone on with."""
    monkeypatch.chdir(tmp_path)
    network = detector.load_reader().classifier
    own, _ = teaching.learn_from(network, *_of(network, slides), "own")
    path = teaching.write_laboratory(own, "own")
    reader = detector.load_reader(1, path)
    assert reader.classifier.laboratory.name == "own"
    counted = smears.count_folder(slides.parent, tmp_path / "out", reader, 52.0, progress=False)
    assert counted.differential.taught
    white = pd.read_csv(tmp_path / "out" / "cells.csv").query("kind == 'WBC'")
    assert set(white["cell_type"].dropna()) <= set(STAIN) and len(white)
    with pytest.raises(RunExists):
        smears.count_folder(slides.parent, tmp_path / "out", detector.load_reader(1), 52.0)
