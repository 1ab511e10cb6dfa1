import hashlib
import sys

import h5py
import keras
import numpy as np
import pytest
from keras.src.legacy.saving import legacy_h5_format

from wbc_helpers.classify import explain, networks
from wbc_helpers.errors import DownloadFailed, InvalidParameter
from wbc_helpers.runs import folders, recipes

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


@pytest.mark.parametrize("name", ["kept.h5", "kept.weights.h5"])
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
def network(learned):
    built = networks.pretrained_cnn(SIZE, None, weights=None)
    for layer in learned.layers:
        if layer.weights:
            built.get_layer(layer.name).set_weights(layer.get_weights())
    return built


PIXELS = np.random.default_rng(1).integers(0, 256, (8, *SIZE, 3), dtype=np.uint8)


def test_it_has_the_parameters_of_mobilenet_and_a_head_of_four(network):
    normalised = [w for w in network.weights if w.path.split("/")[0].endswith("bn")]
    assert network.count_params() == 939_120 + (576 + 1) * 4
    frozen = sum(int(np.prod(w.shape)) for w in normalised)
    assert len(normalised) == 4 * 34
    assert networks.count_trainable(network) == network.count_params() - frozen
    assert network.output_shape == (None, 4)


def test_probabilities_sum_to_one(network):
    found = networks.predict(network, PIXELS)
    assert found.shape == (8, 4)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)


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


def test_a_saved_model_needs_neither_network_nor_file_and_stays_frozen(network, tmp_path):
    training = {"epochs": 1, "image_size": list(SIZE)}
    run = folders.start(
        "mine",
        tmp_path,
        {"created": "", "training": training, "data": {}, "runtime": None, "versions": {}},
    )
    (run.folder / "history.csv").write_text("epoch\n1\n")
    network.save(run.folder / "model.keras")
    loaded = networks.load(run)
    np.testing.assert_allclose(
        networks.predict(loaded, PIXELS), networks.predict(network, PIXELS), rtol=1e-5
    )
    assert networks.count_trainable(loaded) == networks.count_trainable(network)


def test_grad_cam_finds_its_last_convolution(network):
    assert explain.grad_cam(network, PIXELS[:2]).shape == (2, *SIZE)


def test_the_recipe_fine_tunes_slowly():
    chosen = recipes.TrainingSettings(recipe="pretrained")
    assert chosen.learning_rate == recipes.TrainingSettings(recipe="lenet").learning_rate / 10
    assert chosen.validation == "grouped" and chosen.image_size == (128, 128)
