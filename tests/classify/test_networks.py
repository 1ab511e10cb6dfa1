"""The networks of the recipes: what they answer, hold, save, and load without network."""

import hashlib
import sys

import h5py
import keras
import numpy as np
import pytest
from keras.src.legacy.saving import legacy_h5_format

from wbc_helpers.classify import judging, networks
from wbc_helpers.errors import BrokenRun, DownloadFailed, InvalidParameter
from wbc_helpers.pixels import images
from wbc_helpers.runs import answering, folders, recipes


@pytest.fixture(scope="module")
def statistics():
    rng = np.random.default_rng(0)
    mean = rng.uniform(100, 200, (16, 16, 3)).astype("float32")
    std = rng.uniform(20, 60, (16, 16, 3)).astype("float32")
    return images.PixelStatistics(mean, std, 10)


@pytest.fixture(scope="module")
def network(statistics):
    return networks.build("paper", (16, 16), statistics)


def test_the_papers_layers_stand_in_the_papers_order(network):
    kinds = [type(layer).__name__ for layer in network.layers]
    block = ["Conv2D", "ReLU", "BatchNormalization", "Dropout", "MaxPooling2D"]
    assert kinds == ["InputLayer", "Normalization", *block * 4, "Flatten", *["Dense"] * 4]
    filters = [layer.filters for layer in network.layers if isinstance(layer, keras.layers.Conv2D)]
    assert len(filters) == 4 and set(filters) == {16, 8, 4}
    units = [layer.units for layer in network.layers if isinstance(layer, keras.layers.Dense)]
    assert units == [32, 16, 8, 4]


def test_the_mean_image_is_subtracted_and_the_std_image_divides(statistics):
    layer = networks.standardization(statistics)
    pixels = np.random.default_rng(1).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    expected = (pixels - statistics.mean) / statistics.std
    found = keras.ops.convert_to_numpy(layer(pixels))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_a_pixel_that_never_varies_is_not_blown_up():
    flat = images.PixelStatistics(np.full((16, 16, 3), 9.0), np.zeros((16, 16, 3)), 5)
    layer = networks.standardization(flat)
    found = keras.ops.convert_to_numpy(layer(np.full((1, 16, 16, 3), 12, np.uint8)))
    assert found.max() == 3


def test_probabilities_sum_to_one_whatever_the_batches(network):
    pixels = np.random.default_rng(2).integers(0, 256, (7, 16, 16, 3), dtype=np.uint8)
    whole, parts = (
        answering.predict(network, pixels),
        answering.predict(network, pixels, batch_size=3),
    )
    assert whole.shape == (7, 4)
    np.testing.assert_allclose(whole.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(whole, parts, rtol=1e-4)


def test_an_unknown_recipe_is_refused(statistics):
    with pytest.raises(InvalidParameter, match="paper"):
        networks.build("resnet", (16, 16), statistics)


@pytest.fixture
def run(tmp_path, network):
    """A finished run of one epoch, with a model."""
    training = {"recipe": "compact", "epochs": 1, "image_size": [16, 16]}
    settings = {"created": "", "training": training, "data": {}, "runtime": None, "versions": {}}
    run = folders.start("mine", tmp_path, settings)
    (run.folder / "history.csv").write_text("epoch\n1\n")
    network.save(run.folder / "model.keras")
    return run


def test_a_saved_model_predicts_as_before(run, network):
    pixels = np.random.default_rng(4).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
    before, after = (
        answering.predict(network, pixels),
        answering.predict(networks.load(run), pixels),
    )
    np.testing.assert_allclose(before, after, rtol=1e-5)


def test_a_saved_model_needs_no_class_of_this_package(run):
    import zipfile

    config = zipfile.ZipFile(run.folder / "model.keras").read("config.json").decode()
    assert "wbc_helpers" not in config


def test_a_model_that_carries_code_is_not_executed(run):
    code = keras.Sequential([keras.Input((16, 16, 3)), keras.layers.Lambda(lambda x: x + 1)])
    code.save(run.folder / "model.keras")
    with pytest.raises(BrokenRun, match="cannot be loaded"):
        networks.load(run)


def test_a_model_of_another_shape_is_refused(run):
    other = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
    other.save(run.folder / "model.keras")
    with pytest.raises(BrokenRun, match="not this run's model"):
        networks.load(run)


def test_a_file_that_is_no_model_and_a_run_without_one_are_refused(run):
    (run.folder / "model.keras").write_bytes(b"PK\x03\x04 torn")
    with pytest.raises(BrokenRun, match="cannot be loaded"):
        networks.load(run)
    (run.folder / "model.keras").unlink()
    with pytest.raises(BrokenRun, match="finished runs have a model"):
        networks.load(run)


def statistics_of(height, width):
    shape = (height, width, 3)
    return images.PixelStatistics(np.full(shape, 128.0), np.full(shape, 32.0), 10)


def test_lenet_has_the_parameters_that_its_layers_add_up_to():
    # Without padding, halved: 120×160 → 59×79 → 28×38 → 13×18 pixels of 64 filters.
    convolutions = (3 * 9 + 1) * 16 + (16 * 9 + 1) * 32 + (32 * 9 + 1) * 64
    dense = (13 * 18 * 64 + 1) * 64 + (64 + 1) * 4
    network = networks.build("lenet", (120, 160), statistics_of(120, 160))
    assert networks.count_trainable(network) == convolutions + dense == 982_372
    assert network.input_shape == (None, 120, 160, 3) and network.output_shape == (None, 4)


def test_lenet_takes_bytes_and_its_probabilities_sum_to_one():
    network = networks.build("lenet", (24, 32), statistics_of(24, 32))
    pixels = np.random.default_rng(5).integers(0, 256, (6, 24, 32, 3), dtype=np.uint8)
    found = answering.predict(network, pixels)
    assert found.shape == (6, 4)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
    # The first layer takes the mean, 128, off and divides by the standard deviation, 32.
    scaled = keras.ops.convert_to_numpy(network.layers[1](np.full((1, 24, 32, 3), 160, np.uint8)))
    np.testing.assert_allclose(scaled, 1, rtol=1e-5)


def test_lenet_says_how_large_its_images_must_be():
    with pytest.raises(InvalidParameter, match=r"21×40.*22"):
        networks.build("lenet", (21, 40), statistics_of(21, 40))
    assert networks.build("lenet", (22, 40), statistics_of(22, 40)).output_shape == (None, 4)


def test_turned_answers_are_the_mean_over_the_eight_ways():
    network = networks.build("compact", (16, 16), None)
    crop = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    upright = [np.rot90(crop, quarter, (1, 2)) for quarter in range(4)]
    mirrored = [np.rot90(crop.transpose(0, 2, 1, 3), quarter, (1, 2)) for quarter in range(4)]
    told = answering.answer(network, crop, turned=True)
    expected = np.mean([answering.predict(network, way) for way in (*upright, *mirrored)], axis=0)
    np.testing.assert_allclose(told, expected, atol=1e-6)
    # So that it does not matter how the cell lies.
    np.testing.assert_allclose(answering.answer(network, upright[1], turned=True), told, atol=1e-6)
    assert not np.allclose(answering.predict(network, crop), told, atol=1e-6)
    # Other recipes answer to what they are shown.
    np.testing.assert_array_equal(
        answering.answer(network, crop, turned=False), answering.predict(network, crop)
    )


# The pretrained recipe


SIZE = (32, 48)
KERAS_FILE = "weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5"


def smears(size=SIZE):
    return keras.Input((*size, 3), dtype="uint8")


@pytest.fixture(scope="module")
def learned():
    """A backbone whose every weight was moved from where Keras begins."""
    rng = np.random.default_rng(0)
    features = networks.backbone(smears(), weights=None)
    features.set_weights([w + rng.uniform(-0.05, 0.05, w.shape) for w in features.get_weights()])
    return features


@pytest.fixture(scope="module")
def published(learned, tmp_path_factory):
    """The file in the format in which Keras publishes weights, laid out as in its own cache."""
    folder = tmp_path_factory.mktemp("keras home")
    (folder / "models").mkdir()
    with h5py.File(folder / "models" / KERAS_FILE, "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, learned)
    return folder / "models" / KERAS_FILE


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    """Keep Keras from the network and from this user's own weights."""

    def refuse(url, *args):
        raise OSError(f"no network to reach {url}")

    monkeypatch.setattr("keras.src.utils.file_utils.urlretrieve", refuse)
    monkeypatch.setattr("keras.src.utils.file_utils.config.keras_home", lambda: str(tmp_path))
    monkeypatch.delenv(networks.WEIGHTS_VARIABLE, raising=False)


def assert_learned(network, learned):
    """Every layer of the backbone holds what was saved, whatever the head holds."""
    expected = {layer.name: layer.get_weights() for layer in learned.layers if layer.weights}
    assert len(expected) > 60
    for name, weights in expected.items():
        for found, wanted in zip(network.get_layer(name).get_weights(), weights, strict=True):
            np.testing.assert_array_equal(found, wanted)


def test_weights_in_keras_own_cache_are_loaded_by_keras_own_loader(learned, published, monkeypatch):
    digest = hashlib.md5(published.read_bytes()).hexdigest()
    hashes = sys.modules["keras.src.applications.mobilenet_v3"].WEIGHTS_HASHES
    with_top, _ = hashes["small_224_1.0_float"]
    monkeypatch.setitem(hashes, "small_224_1.0_float", (with_top, digest))
    home = str(published.parents[1])
    monkeypatch.setattr("keras.src.utils.file_utils.config.keras_home", lambda: home)
    assert_learned(networks.pretrained_cnn(SIZE, None), learned)


@pytest.mark.parametrize(
    "name", ["kept.h5", pytest.param("kept.weights.h5", marks=pytest.mark.slow)]
)
def test_a_file_that_the_variable_names_is_loaded_without_network(
    learned, published, monkeypatch, tmp_path, name
):
    kept = tmp_path / name
    if name.endswith(".weights.h5"):
        learned.save_weights(kept)
    else:
        kept.write_bytes(published.read_bytes())
    monkeypatch.setenv(networks.WEIGHTS_VARIABLE, str(kept))
    # At another size than it was saved: convolutions do not mind.
    assert_learned(networks.build("pretrained", (64, 32), None), learned)


def test_without_network_it_says_what_to_do():
    with pytest.raises(DownloadFailed, match=rf"{KERAS_FILE}.*WBC_BACKBONE_WEIGHTS"):
        networks.pretrained_cnn(SIZE, None)


def test_a_file_that_is_missing_or_holds_something_else_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv(networks.WEIGHTS_VARIABLE, str(tmp_path / "none.h5"))
    with pytest.raises(InvalidParameter, match=r"none\.h5 is no file"):
        networks.pretrained_cnn(SIZE, None)
    torn = tmp_path / "torn.h5"
    torn.write_bytes(b"\x89HDF torn")
    with pytest.raises(InvalidParameter, match=r"torn\.h5 does not fit"):
        networks.pretrained_cnn(SIZE, None, weights=torn)
    other = tmp_path / "other.weights.h5"
    keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)]).save_weights(other)
    with pytest.raises(InvalidParameter, match="does not fit"):
        networks.pretrained_cnn(SIZE, None, weights=other)


def test_small_images_are_refused():
    with pytest.raises(InvalidParameter, match=r"31×48.*32"):
        networks.pretrained_cnn((31, 48), None, weights=None)


@pytest.fixture(scope="module")
def pretrained(learned):
    built = networks.pretrained_cnn(SIZE, None, weights=None)
    for layer in learned.layers:
        if layer.weights:
            built.get_layer(layer.name).set_weights(layer.get_weights())
    return built


PIXELS = np.random.default_rng(1).integers(0, 256, (8, *SIZE, 3), dtype=np.uint8)


def test_it_has_the_parameters_of_mobilenet_and_a_head_of_four(pretrained):
    normalised = [w for w in pretrained.weights if w.path.split("/")[0].endswith("bn")]
    assert pretrained.count_params() == 939_120 + (576 + 1) * 4
    frozen = sum(int(np.prod(w.shape)) for w in normalised)
    assert len(normalised) == 4 * 34
    assert networks.count_trainable(pretrained) == pretrained.count_params() - frozen
    assert pretrained.output_shape == (None, 4)


def test_probabilities_sum_to_one(pretrained):
    found = answering.predict(pretrained, PIXELS)
    assert found.shape == (8, 4)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)


@pytest.mark.slow
def test_batch_normalisation_is_frozen_and_convolutions_are_not(learned):
    tuned = networks.pretrained_cnn(SIZE, None, weights=None)
    tuned.compile("adam", loss="sparse_categorical_crossentropy", run_eagerly=True)
    before = {w.path: keras.ops.convert_to_numpy(w).copy() for w in tuned.weights}
    tuned.train_on_batch(PIXELS, np.zeros(8))
    changed = {
        weights.path
        for weights in tuned.weights
        if not np.array_equal(before[weights.path], keras.ops.convert_to_numpy(weights))
    }
    assert not any("bn/" in path for path in changed)
    # From random weights, the gates of squeeze and excitation get no gradient yet.
    convolutions = {w.path for w in tuned.weights if "bn/" not in w.path and "excite" not in w.path}
    assert len(convolutions) == 34 + 2 and convolutions <= changed


@pytest.mark.slow
def test_a_saved_model_needs_neither_network_nor_file_and_stays_frozen(pretrained, tmp_path):
    training = {"recipe": "pretrained", "epochs": 1, "image_size": list(SIZE)}
    run = folders.start(
        "mine",
        tmp_path,
        {"created": "", "training": training, "data": {}, "runtime": None, "versions": {}},
    )
    (run.folder / "history.csv").write_text("epoch\n1\n")
    pretrained.save(run.folder / "model.keras")
    loaded = networks.load(run)
    np.testing.assert_allclose(
        answering.predict(loaded, PIXELS), answering.predict(pretrained, PIXELS), rtol=1e-5
    )
    assert networks.count_trainable(loaded) == networks.count_trainable(pretrained)


@pytest.mark.slow
def test_grad_cam_finds_its_last_convolution(pretrained):
    assert judging.grad_cam(pretrained, PIXELS[:2]).shape == (2, *SIZE)


def test_the_recipe_fine_tunes_slowly():
    chosen = recipes.TrainingSettings(recipe="pretrained")
    assert chosen.learning_rate == recipes.TrainingSettings(recipe="lenet").learning_rate / 10
    assert chosen.validation == "grouped" and chosen.image_size == (128, 128)
