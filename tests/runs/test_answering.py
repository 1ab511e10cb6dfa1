"""Networks out of ONNX files: the same answers as Keras gives, and none of it loaded."""

import importlib.util
import json
import os
import subprocess
import sys
from importlib import resources
from pathlib import Path

import cv2
import numpy as np
import pytest

from wbc_helpers.__main__ import main
from wbc_helpers.cells import BOX
from wbc_helpers.classify import classifier, networks
from wbc_helpers.count import detector, training
from wbc_helpers.errors import BrokenRun, PackageMissing
from wbc_helpers.evaluate import detection
from wbc_helpers.runs import answering, backend, folders, recipes

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = Path(str(resources.files("wbc_helpers"))) / "weights"
NAMES = ("detector", "broad", "compact")


def smear() -> np.ndarray:
    """Red cells around a white one, (240, 320, 3)."""
    image = np.full((240, 320, 3), (228, 222, 230), np.uint8)
    for x, y in ((60, 60), (250, 50), (70, 180), (255, 185), (165, 30)):
        cv2.circle(image, (x, y), 26, (205, 170, 190), -1)
    cv2.circle(image, (160, 125), 42, (190, 160, 205), -1)
    cv2.circle(image, (155, 120), 28, (110, 70, 180), -1)
    return image


@pytest.mark.parametrize("name", NAMES)
def test_what_ships_as_onnx_is_of_the_weights_that_ship(name):
    """Weights that change without it fail here: write it anew with `.ci/ship.py onnx`."""
    shipped = answering.open_onnx(WEIGHTS / f"{name}.onnx")
    assert shipped.metadata["weights_sha256"] == answering.digest(WEIGHTS / f"{name}.weights.h5")
    assert (WEIGHTS / f"{name}.onnx").stat().st_size <= (8e6 if name == "detector" else 4e6)


@pytest.mark.parametrize("name", NAMES)
def test_what_ships_as_onnx_runs_in_browsers_too(name):
    """One set of operators, none of somebody's own."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load(WEIGHTS / f"{name}.onnx")
    sets = {operators.domain: operators.version for operators in model.opset_import}
    assert sets[""] == answering.OPSET
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}


@pytest.mark.parametrize("name", ["broad", "compact"])
def test_onnx_and_keras_name_alike(name):
    here, there = classifier.load(name), classifier.load(name, keras=True)
    size = here.about["image_size"][0]
    crops = np.random.default_rng(0).integers(0, 256, (9, size, size, 3), np.uint8)
    apart = np.abs(here.probabilities(crops) - there.probabilities(crops)).max()
    print(f"largest difference of probabilities, {name}: {apart:.2g}")
    assert apart < 1e-4
    tables = [asked.classify([smear()], red_cell=52) for asked in (here, there)]
    np.testing.assert_allclose(*(table["probability"] for table in tables), atol=1e-4)
    assert tables[0]["cell_type"].equals(tables[1]["cell_type"])
    assert tables[0][BOX].equals(tables[1][BOX])


def test_features_are_what_the_last_layer_goes_by():
    here, there = classifier.load(), classifier.load(keras=True)
    crops = np.random.default_rng(1).integers(0, 256, (3, 80, 80, 3), np.uint8)
    weights, bias = there.model.get_layer("cell_type").get_weights()
    logits = here.model.outputs(crops, "features") @ weights + bias
    told = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(here.model.predict_on_batch(crops), told, atol=1e-5)


def test_onnx_and_keras_find_the_same_boxes():
    here, there = detector.load(exact=True), detector.load(keras=True)
    wide = np.tile(smear(), (2, 3, 1))
    apart = 0.0
    for image, red_cell in ((smear(), 52), (smear(), 40), (wide, 60)):
        boxes = [asked.detect([image], red_cell) for asked in (here, there)]
        assert boxes[0]["kind"].equals(boxes[1]["kind"])
        numbers = [table[[*BOX, "score"]].to_numpy() for table in boxes]
        assert len(numbers[0]) > 5
        apart = max(apart, np.abs(numbers[0] - numbers[1]).max())
    print(f"largest difference of edges (pixels) and scores: {apart:.2g}")
    assert apart < 1e-2


def test_the_whole_numbered_detector_is_of_the_weights_that_ship_and_of_common_operators():
    """Weights that change without it fail here: write it anew with `.ci/ship.py int8`."""
    onnx = pytest.importorskip("onnx")
    shipped = detector.load().model
    assert shipped.metadata["weights_sha256"] == answering.digest(WEIGHTS / "detector.weights.h5")
    assert (WEIGHTS / "detector.int8.onnx").stat().st_size <= 2e6
    model = onnx.load(WEIGHTS / "detector.int8.onnx")
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
    # Of seven bits, so that no processor overflows.
    weights = [onnx.numpy_helper.to_array(one) for one in model.graph.initializer]
    whole = [one for one in weights if one.dtype == np.int8 and one.ndim == 4]
    assert len(whole) == 21 and max(abs(one.astype(int)).max() for one in whole) <= 64


def test_what_ships_answers_in_whole_numbers_unless_it_shall_be_exact():
    exact, whole = detector.load(exact=True), detector.load()
    assert whole.about == {**exact.about, "numbers": "int8"} and "numbers" not in exact.about
    shown = detector.show(smear(), 52, exact.about["gain"])[np.newaxis]
    apart = np.abs(exact.maps(shown) - whole.maps(shown))[..., : detector.N_KINDS]
    assert 1e-4 < apart.max() < 0.3


def test_the_whole_numbered_detector_finds_the_same_cells():
    exact, whole = detector.load(exact=True), detector.load()
    for image, red_cell in ((smear(), 52), (smear(), 40), (np.tile(smear(), (2, 3, 1)), 60)):
        boxes = [asked.counted(asked.detect([image], red_cell)) for asked in (exact, whole)]
        matches = detection.match_boxes(*(table.assign(photograph="0") for table in boxes), 0.8)
        assert (matches.counts[["false", "missed"]] == 0).to_numpy().all()
        assert len(boxes[0]) > 5


def test_the_whole_numbered_detector_is_written_the_same_every_time(tmp_path):
    pytest.importorskip("onnx")
    place = ROOT / ".ci" / "ship.py"
    spec = importlib.util.spec_from_file_location("ship", place)
    assert spec and spec.loader
    ship = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(ship)
    written = [tmp_path / "first.onnx", tmp_path / "second.onnx"]
    for path in written:
        ship.write_int8(WEIGHTS / "detector.onnx", path, [smear()[np.newaxis]])
    assert written[0].read_bytes() == written[1].read_bytes()
    facts = answering.open_onnx(written[0]).metadata
    assert facts["weights_sha256"] == answering.digest(WEIGHTS / "detector.weights.h5")


def test_answering_loads_no_keras(tmp_path):
    """Nor what takes a second to import and is needed elsewhere."""
    cv2.imwrite(str(tmp_path / "smear.png"), smear()[..., ::-1])
    told = f"""
import sys
from wbc_helpers.__main__ import main
from wbc_helpers.classify import classifier
main(["classify", {str(tmp_path / "smear.png")!r}, "--out", {str(tmp_path / "a.csv")!r}])
assert "scipy" not in sys.modules
main(["count", {str(tmp_path / "smear.png")!r}, "--out", {str(tmp_path / "counts")!r}])
classifier.load("compact").classify([{str(tmp_path / "smear.png")!r}], red_cell=52)
heavy = {{"keras", "tensorflow", "jax", "torch", "scipy.optimize", "scipy.stats", "sklearn",
         "nbconvert", "nbformat", "matplotlib", "cleanlab", "pycocotools"}}
print("loaded:", heavy & sys.modules.keys())
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", told], check=True, env=environment, capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1] == "loaded: set()"


def test_a_file_that_is_no_network_is_named(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"nothing")
    with pytest.raises(BrokenRun, match="wbc export"):
        answering.open_onnx(tmp_path / "model.onnx")


def test_threads_are_as_many_as_was_said(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert answering.n_threads() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "0")
    assert answering.n_threads() >= 1


# Runs of one's own


HERE = backend.Runtime("CPU", "tensorflow", 1, "a test.")


@pytest.fixture
def run(tmp_path):
    """A run of the compact recipe that was never trained, but is complete."""
    chosen = recipes.TrainingSettings(recipe="compact", epochs=1, image_size=(32, 32))
    run = folders.start("untrained", tmp_path, recipes.describe(chosen, {"digest": "-"}, HERE))
    networks.build("compact", (32, 32), None).save(run.folder / "model.keras")
    folders.write_history(run, run.history.reindex([0]))
    return run


@pytest.fixture
def finder(tmp_path):
    """The same of a detector."""
    chosen = training.DetectorSettings(epochs=1, filters=(4, 4, 8, 8))
    described = recipes.describe(chosen, {"digest": "-"}, HERE)
    run = folders.start("finder", tmp_path / folders.DETECTORS, described)
    detector.centre_network((4, 4, 8, 8)).save_weights(run.folder / "model.weights.h5")
    (run.folder / "model.keras").write_bytes(b"not asked for")
    folders.write_history(run, run.history.reindex([0]))
    return run


def test_a_run_is_exported_once_and_answers_through_its_export(run, capsys):
    told = ["export", "untrained", "--runs-dir", str(run.folder.parent)]
    assert main(told) == 0
    assert "model.onnx" in capsys.readouterr().out
    crops = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    here, there = classifier.of_run(run), classifier.of_run(run, keras=True)
    assert isinstance(here.model, answering.OnnxNetwork)
    np.testing.assert_allclose(here.probabilities(crops), there.probabilities(crops), atol=1e-5)
    assert json.loads(here.model.metadata["about"])["image_size"] == [32, 32]
    before = (run.folder / "model.onnx").read_bytes()
    assert main(told) == 2
    assert "RunExists" in capsys.readouterr().err
    assert (run.folder / "model.onnx").read_bytes() == before
    # What was trained on since then is asked itself.
    networks.build("compact", (32, 32), None).save(run.folder / "model.keras")
    assert not isinstance(classifier.of_run(run).model, answering.OnnxNetwork)


@pytest.mark.slow
def test_a_detectors_run_is_exported_for_any_size(finder):
    assert main(["export", "finder", "--runs-dir", str(finder.folder.parents[1])]) == 0
    here, there = detector.of_run(finder), detector.of_run(finder, keras=True)
    assert isinstance(here.model, answering.OnnxNetwork)
    for size in ((48, 64), (160, 96)):
        shown = np.random.default_rng(0).integers(0, 256, (1, *size, 3), np.uint8)
        np.testing.assert_allclose(here.maps(shown), there.maps(shown), atol=1e-5)


@pytest.mark.slow
def test_a_run_is_exported_for_litert(run, finder, capsys):
    for name in ("untrained", "finder"):
        told = ["export", name, "--format", "litert", "--runs-dir", str(run.folder.parent)]
        assert main(told) == 0, capsys.readouterr().err
    assert (run.folder / "model.tflite").stat().st_size > 10_000
    assert (finder.folder / "model.tflite").stat().st_size > 10_000


def test_an_export_that_answers_otherwise_is_not_written(run, monkeypatch):
    model = networks.load(run)
    monkeypatch.setattr(type(model), "predict_on_batch", lambda model, x: np.ones((len(x), 4)))
    with pytest.raises(BrokenRun, match="answers otherwise"):
        answering.export(model, run, "onnx", "model.keras", {})
    assert not (run.folder / "model.onnx").exists()


def test_what_is_missing_for_an_export_is_named(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(PackageMissing, match="pip install tf2onnx"):
        answering.export(networks.load(run), run, "onnx", "model.keras", {})
    assert list(run.folder.glob("*.onnx")) == []


@pytest.mark.parametrize("asked", [["nobody"], ["untrained", "--format", "tensorrt"]])
def test_what_cannot_be_exported_is_refused(run, asked, capsys):
    assert main(["export", *asked, "--runs-dir", str(run.folder.parent)]) == 2
    assert "Expected" in (told := capsys.readouterr().err) or "Give the name" in told
