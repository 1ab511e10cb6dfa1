import dataclasses
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from wbc_helpers.classify import inputs, networks, training
from wbc_helpers.data import catalog
from wbc_helpers.errors import BrokenRun, InvalidParameter, RunExists
from wbc_helpers.pixels import images
from wbc_helpers.runs import backend, folders, recipes, recorder

LONG = recipes.TrainingSettings(epochs=60, image_size=(16, 16), batch_size=8)
CHOSEN = recipes.TrainingSettings(epochs=3, image_size=(16, 16), batch_size=8)


def begin(name, folder, chosen=CHOSEN):
    here = backend.Runtime("CPU", "tensorflow", 1, "a test.")
    return folders.start(name, folder, recipes.describe(chosen, {"digest": "noise"}, here))


def prepared(noise, chosen=CHOSEN, **others):
    """The images with their parts."""
    table, pixels = noise
    return inputs.Prepared(table, pixels, inputs.split(table, chosen), **others)


def train(noise, name, folder, chosen=CHOSEN):
    return training.train(prepared(noise, chosen), begin(name, folder, chosen), verbose=0)


def scores(run):
    return run.history.drop(columns=["seconds", "peak_memory_bytes"])


@pytest.fixture
def cut_off(monkeypatch):
    """Make training stop, as by Ctrl-C, when the given epoch begins or just after it ended."""

    def make(epoch, where="on_epoch_begin"):
        through = getattr(recorder.Recorder, where)

        def interrupted(self, current, logs=None):
            if where == "on_epoch_end":
                through(self, current, logs)
            if current == epoch:
                raise KeyboardInterrupt
            if where == "on_epoch_begin":
                through(self, current, logs)

        monkeypatch.setattr(recorder.Recorder, where, interrupted)

    yield make


def test_a_run_folder_holds_all_that_evaluation_needs(noise, tmp_path):
    run = train(noise, "whole", tmp_path)
    assert run.is_complete
    names = {entry.name for entry in run.folder.iterdir()}
    assert names == {
        "settings.json", "history.csv", "split.csv", "model.keras", "model.weights.h5"
    }  # fmt: skip
    assert run.history.epoch.tolist() == [1, 2, 3]
    assert (run.history.seconds > 0).all() and (run.history.peak_memory_bytes > 10**8).all()
    assert run.split.value_counts().to_dict() == {"train": 36, "validation": 4}
    assert networks.predict(networks.load(run), noise[1]).shape == (40, 4)


def test_the_statistics_in_the_model_are_those_of_the_training_part_alone(noise, tmp_path):
    table, pixels = noise
    run = train(noise, "statistics", tmp_path)
    layer = networks.load(run).get_layer("mean_and_std_image")
    in_training = (run.split[table.file] == "train").to_numpy()
    np.testing.assert_allclose(layer.get_weights()[0], pixels[in_training].mean(axis=0), rtol=1e-4)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_history_and_another_does_not(noise, tmp_path):
    first, second = train(noise, "a", tmp_path), train(noise, "b", tmp_path)
    assert scores(first).equals(scores(second))
    other = recipes.TrainingSettings(epochs=3, image_size=(16, 16), batch_size=8, seed=1)
    assert not scores(first).equals(scores(train(noise, "c", tmp_path, other)))


@pytest.mark.parametrize(
    "where", ["on_epoch_begin", pytest.param("on_epoch_end", marks=pytest.mark.slow)]
)
def test_an_interrupted_run_ends_as_if_it_had_not_been(
    noise, tmp_path, cut_off, monkeypatch, where
):
    undisturbed = train(noise, "undisturbed", tmp_path)
    with monkeypatch.context():
        cut_off(1, where)
        with pytest.raises(KeyboardInterrupt):
            train(noise, "disturbed", tmp_path)
        monkeypatch.undo()
    halfway = folders.open_run("disturbed", tmp_path)
    assert not halfway.is_complete
    assert len(halfway.history) == (1 if where == "on_epoch_begin" else 2)
    resumed = train(noise, "disturbed", tmp_path)
    assert resumed.is_complete
    assert scores(resumed).equals(scores(undisturbed))


@pytest.mark.slow
def test_cut_off_between_weights_and_history_it_falls_back_an_epoch(noise, tmp_path, monkeypatch):
    undisturbed = train(noise, "undisturbed", tmp_path)

    def no_history(run, history):
        if len(history) == 2:
            raise KeyboardInterrupt
        return write(run, history)

    write = folders.write_history
    monkeypatch.setattr(folders, "write_history", no_history)
    with pytest.raises(KeyboardInterrupt):
        train(noise, "disturbed", tmp_path)
    monkeypatch.undo()
    assert scores(train(noise, "disturbed", tmp_path)).equals(scores(undisturbed))


def test_several_threads_give_out_the_batches_that_one_gives_out(noise, tmp_path, monkeypatch):
    several = train(noise, "several", tmp_path)
    monkeypatch.setattr(recorder, "n_workers", lambda: 1)
    pd.testing.assert_frame_equal(scores(several), scores(train(noise, "one", tmp_path)))


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="no GNU C library, whose allocator this is about"
)
def test_training_leaves_the_allocator_keeping_memory(noise, tmp_path):
    import resource

    train(noise, "whole", tmp_path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(40):
        _ = [np.ones(1_250_000, np.float32) for _ in range(6)]
    # 30 MB are 7,300 pages. TensorFlow on Python 3.11 would have them mapped 40 times.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 2 * 7_300


def test_a_finished_run_is_not_trained_again(noise, tmp_path, monkeypatch):
    run = train(noise, "done", tmp_path)
    before = (run.folder / "model.keras").read_bytes()
    monkeypatch.setattr(training, "compiled_model", None)
    assert train(noise, "done", tmp_path).is_complete
    assert (run.folder / "model.keras").read_bytes() == before


def test_another_run_of_the_name_is_refused_and_nothing_lost(noise, tmp_path):
    run = train(noise, "mine", tmp_path)
    before = {entry.name: entry.read_bytes() for entry in run.folder.iterdir()}
    with pytest.raises(RunExists, match="epochs"):
        train(noise, "mine", tmp_path, recipes.TrainingSettings(epochs=9, image_size=(16, 16)))
    assert {entry.name: entry.read_bytes() for entry in run.folder.iterdir()} == before


@pytest.mark.slow
def test_a_damaged_checkpoint_is_named(noise, tmp_path, cut_off, monkeypatch):
    cut_off(1)
    with pytest.raises(KeyboardInterrupt):
        train(noise, "torn", tmp_path)
    monkeypatch.undo()
    checkpoint = next((tmp_path / "torn").glob("checkpoint-*"))
    checkpoint.write_bytes(b"torn")
    with pytest.raises(BrokenRun, match=checkpoint.name):
        train(noise, "torn", tmp_path)


def test_images_that_do_not_belong_to_the_catalog_are_refused(noise, tmp_path):
    table, pixels = noise
    part = inputs.split(table, CHOSEN)
    for wrong, message in (
        (inputs.Prepared(table, pixels[:-1], part), "shape"),
        (inputs.Prepared(table, pixels, part.replace("validation", "train")), "left for training"),
    ):
        with pytest.raises(InvalidParameter, match=message):
            training.train(wrong, begin("x", tmp_path), verbose=0)


def test_no_epoch_reads_a_file(tiny_folder, tmp_path, monkeypatch):
    table = catalog.find_images(tiny_folder)
    table = table[table.split == "TRAIN"].reset_index(drop=True)
    pixels = images.decode(table.path, (16, 16), tmp_path / "cache", progress=False)
    for path in table.path:
        Path(path).unlink()
    chosen = recipes.TrainingSettings(
        epochs=2, image_size=(16, 16), batch_size=8, validation_fraction=0.2
    )
    assert train((table, pixels), "x", tmp_path, chosen).is_complete


IN_ANOTHER_PROCESS = """
import sys
sys.path.insert(0, {tests!r})
import numpy as np, pandas as pd
from test_training import LONG, train
from wbc_helpers import cells
pixels = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)
names = np.array(cells.NAMES)[np.arange(40) % 4]
table = pd.DataFrame(dict(file=names, cell_type=pd.Categorical(names, cells.NAMES)))
train((table, pixels), "killed", {folder!r}, LONG)
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_with_all_its_epochs(noise, tmp_path):
    script = IN_ANOTHER_PROCESS.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    job = subprocess.Popen([sys.executable, "-c", script], env=environment)
    written = tmp_path / "killed" / "history.csv"
    deadline = time.monotonic() + 120
    while not (written.exists() and len(written.read_text().splitlines()) > 3):
        assert job.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    job.kill()
    job.wait()
    before = folders.open_run("killed", tmp_path).history
    assert 2 <= len(before) < LONG.epochs
    run = train(noise, "killed", tmp_path, LONG)
    assert run.is_complete and run.history.epoch.tolist() == list(range(1, LONG.epochs + 1))
    # The finished epochs are kept, not trained again; but for the last, should it have been cut
    # off between weights and history.
    kept = len(before) - 1
    assert run.history.seconds[:kept].equals(before.seconds[:kept])


ON_JAX = """
import sys

class NoTensorFlow:  # as on Colab's TPU machines
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "tensorflow":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, NoTensorFlow())
sys.path.insert(0, {tests!r})
from wbc_helpers.runs import backend
in_use = backend.choose()
assert (in_use.backend, in_use.n_devices) == ("jax", 2), in_use
import numpy as np, pandas as pd
from test_training import begin, prepared
from wbc_helpers import cells
from wbc_helpers.classify import networks, training
pixels = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)
names = np.array(cells.NAMES)[np.arange(40) % 4]
table = pd.DataFrame(dict(file=names, cell_type=pd.Categorical(names, cells.NAMES)))
run = training.train(
    prepared((table, pixels)), begin("jax", {folder!r}), in_use.n_devices, verbose=0
)
np.save({folder!r} + "/jax.npy", networks.predict(networks.load(run), pixels))
"""


@pytest.mark.slow
def test_two_devices_share_the_work_on_jax_and_the_model_loads_anywhere(noise, tmp_path):
    pytest.importorskip("jax")
    environment = {
        **os.environ,
        "KERAS_BACKEND": "jax",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    script = ON_JAX.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    subprocess.run([sys.executable, "-c", script], env=environment, check=True, timeout=300)
    here = networks.predict(networks.load(folders.open_run("jax", tmp_path)), noise[1])
    np.testing.assert_allclose(here, np.load(tmp_path / "jax.npy"), atol=1e-4)


# Views drawn while training


VIEWED = recipes.TrainingSettings(recipe="compact", epochs=2, image_size=(16, 16), batch_size=8)


def test_patches_belong_to_recipes_that_draw_views(noise, drawn_from, tmp_path):
    with pytest.raises(InvalidParameter, match="'compact' was given no patches"):
        training.train(prepared(noise), begin("a", tmp_path, VIEWED))
    with pytest.raises(InvalidParameter, match="'paper' was given patches"):
        training.train(prepared(noise, patches=drawn_from[0]), begin("b", tmp_path))


def test_the_learning_rate_warms_up_and_ends_near_zero(noise):
    chosen = dataclasses.replace(VIEWED, epochs=10).to_dict()
    model = training.compiled_model(chosen, prepared(noise), n_steps=10)
    rate = model.optimizer._learning_rate
    highest = float(rate(10))
    assert highest == pytest.approx(0.003, rel=1e-3)
    assert float(rate(0)) == pytest.approx(highest / 20, rel=1e-3)
    # Half of the way down after half of what is left, a hundredth at the end.
    assert float(rate(55)) == pytest.approx(highest * 0.505, rel=0.01)
    assert float(rate(100)) == pytest.approx(highest / 100, rel=0.01)


def test_labels_are_softened_as_the_recipe_says(noise):
    model = training.compiled_model(VIEWED.to_dict(), prepared(noise))
    told, true = np.array([[0.7, 0.1, 0.1, 0.1]]), np.eye(4)[:1]
    # 0.1 spread over four types: 0.925 for the true one, 0.025 for each other.
    expected = -(0.925 * np.log(0.7) + 0.075 * np.log(0.1))
    assert float(model.loss(true, told)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_a_run_of_drawn_views_goes_on_as_if_never_interrupted(
    drawn_from, tmp_path, cut_off, monkeypatch
):
    patches, rows = drawn_from
    pixels = patches.pixels[:, :16, :16].copy()
    part = pd.Series(["train"] * 4 + ["validation"] * 4)
    learned_from = inputs.Prepared(rows, pixels, part, patches)

    def go(name):
        return training.train(learned_from, begin(name, tmp_path, VIEWED), verbose=0)

    whole = go("whole")
    with monkeypatch.context():
        cut_off(1)
        with pytest.raises(KeyboardInterrupt):
            go("parts")
        monkeypatch.undo()
    assert scores(go("parts")).equals(scores(whole))
