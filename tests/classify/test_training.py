"""Training: what a run leaves, how it goes on, what it is shown, and how it is judged."""

import dataclasses
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from written_files import below

from wbc_helpers import cells
from wbc_helpers.classify import inputs, networks, training
from wbc_helpers.data import catalog
from wbc_helpers.data.identity import identify
from wbc_helpers.errors import BrokenRun, DataMismatch, DataNotFound, InvalidParameter, RunExists
from wbc_helpers.evaluate import classification
from wbc_helpers.pixels import images
from wbc_helpers.pixels.views import Views
from wbc_helpers.runs import answering, backend, folders, recipes, recorder

pytestmark = [
    pytest.mark.usefixtures("eager"),
    pytest.mark.filterwarnings("ignore:Even though the `tf.config"),
]

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


@pytest.fixture(scope="module")
def whole(noise, tmp_path_factory):
    """A run that nothing disturbed; tests only read it."""
    return train(noise, "whole", tmp_path_factory.mktemp("runs"))


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


def test_a_run_folder_holds_all_that_evaluation_needs(noise, whole):
    assert whole.is_complete
    names = {entry.name for entry in whole.folder.iterdir()}
    assert names == {
        "settings.json", "history.csv", "split.csv", "model.keras", "model.weights.h5"
    }  # fmt: skip
    assert whole.history.epoch.tolist() == [1, 2, 3]
    assert (whole.history.seconds > 0).all() and (whole.history.peak_memory_bytes > 10**8).all()
    assert whole.split.value_counts().to_dict() == {"train": 36, "validation": 4}
    table, pixels = noise
    model = networks.load(whole)
    assert answering.predict(model, pixels).shape == (40, 4)
    # The statistics in the model are those of the training part alone.
    layer = model.get_layer("mean_and_std_image")
    in_training = (whole.split[table.file] == "train").to_numpy()
    np.testing.assert_allclose(layer.get_weights()[0], pixels[in_training].mean(axis=0), rtol=1e-4)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_history_and_another_does_not(noise, whole, tmp_path):
    assert scores(whole).equals(scores(train(noise, "b", tmp_path)))
    other = dataclasses.replace(CHOSEN, seed=1)
    assert not scores(whole).equals(scores(train(noise, "c", tmp_path, other)))


@pytest.mark.parametrize(
    "where", ["on_epoch_begin", pytest.param("on_epoch_end", marks=pytest.mark.slow)]
)
def test_an_interrupted_run_ends_as_if_it_had_not_been(
    noise, whole, tmp_path, cut_off, monkeypatch, where
):
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
    assert scores(resumed).equals(scores(whole))


@pytest.mark.slow
def test_cut_off_between_weights_and_history_it_falls_back_an_epoch(
    noise, whole, tmp_path, monkeypatch
):
    def no_history(run, history):
        if len(history) == 2:
            raise KeyboardInterrupt
        return write(run, history)

    write = folders.write_history
    monkeypatch.setattr(folders, "write_history", no_history)
    with pytest.raises(KeyboardInterrupt):
        train(noise, "disturbed", tmp_path)
    monkeypatch.undo()
    assert scores(train(noise, "disturbed", tmp_path)).equals(scores(whole))


@pytest.mark.slow
def test_several_threads_give_out_the_batches_that_one_gives_out(
    noise, whole, tmp_path, monkeypatch
):
    monkeypatch.setattr(recorder, "n_workers", lambda: 1)
    pd.testing.assert_frame_equal(scores(whole), scores(train(noise, "one", tmp_path)))
    if platform.libc_ver()[0] != "glibc":
        return
    # Training leaves the GNU C library's allocator keeping memory.
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(40):
        _ = [np.ones(1_250_000, np.float32) for _ in range(6)]
    # 30 MB are 7,300 pages. TensorFlow on Python 3.11 would have them mapped 40 times.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 2 * 7_300


def test_a_finished_run_is_not_trained_again_nor_replaced_by_another(noise, whole, monkeypatch):
    before = below(whole.folder)
    monkeypatch.setattr(training, "compiled_model", None)
    assert train(noise, "whole", whole.folder.parent).is_complete
    with pytest.raises(RunExists, match="epochs"):
        train(noise, "whole", whole.folder.parent, dataclasses.replace(CHOSEN, epochs=9))
    assert below(whole.folder) == before


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
    chosen = dataclasses.replace(CHOSEN, epochs=1, validation_fraction=0.2)
    assert train((table, pixels), "x", tmp_path, chosen).is_complete


IN_ANOTHER_PROCESS = """
import sys
sys.path[:0] = [{tests!r}, {tests!r} + "/.."]
import numpy as np, pandas as pd
from test_training import LONG, train
from wbc_helpers import cells
pixels = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)
names = np.array(cells.NAMES)[np.arange(40) % 4]
table = pd.DataFrame(dict(file=names, cell_type=pd.Categorical(names, cells.NAMES)))
train((table, pixels), "killed", {folder!r}, LONG)
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_with_all_its_epochs(noise, compiled, tmp_path):
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
sys.path[:0] = [{tests!r}, {tests!r} + "/.."]
from wbc_helpers.runs import answering, backend
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
np.save({folder!r} + "/jax.npy", answering.predict(networks.load(run), pixels))
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
    here = answering.predict(networks.load(folders.open_run("jax", tmp_path)), noise[1])
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


# Batches: every image once, views of training photographs alone, no chance but the seed's


def test_batches_give_every_image_once_an_epoch_in_a_new_order(noise):
    _, pixels = noise
    given = training.Batches(pixels, np.arange(40), np.arange(40), 16, seed=5)

    def order():
        return np.concatenate([given[index][1] for index in range(len(given))])

    first = order()
    assert sorted(first) == list(range(40)) and first.tolist() != list(range(40))
    assert np.array_equal(order(), first)
    given.epoch = 1
    assert sorted(order()) == list(range(40)) and not np.array_equal(order(), first)


def test_batches_divide_evenly_among_devices(noise):
    _, pixels = noise
    given = training.Batches(pixels, np.arange(40), np.arange(39), 16, n_devices=4)
    assert [len(given[index][1]) for index in range(len(given))] == [16, 16, 4]


def views_of(drawn_from, rows, epoch=0):
    views = training.views_of(drawn_from[0], rows, VIEWED.to_dict())
    views.epoch = epoch
    return views


@pytest.fixture
def plain_views(monkeypatch):
    """Views that only turn: the grey level of the middle tells the photograph."""
    still = Views(zoom=0, shear=0, shift=0, cut=0, stain=0, blur=0, noise=0)
    recipe = dataclasses.replace(recipes.RECIPES["compact"], views=still, images_per_epoch=800)
    monkeypatch.setitem(recipes.RECIPES, "compact", recipe)


def test_views_come_from_training_photographs_alone_and_all_types_alike(drawn_from, plain_views):
    rows = drawn_from[1]
    allowed = rows.drop(index=5)  # one of two lymphocytes is held out
    views = views_of(drawn_from, allowed)
    assert len(views) == 100
    shown = [views[index] for index in range(len(views))]
    levels = np.concatenate([pixels[:, 8, 8, 0] for pixels, _ in shown])
    types = np.concatenate([told for _, told in shown])
    photograph = (levels.astype(int) - 40) // 20
    assert set(photograph) == set(allowed.index)
    # The label is that of the photograph.
    assert (types.argmax(axis=1) == photograph % 4).all()
    # 200 of each type expected, standard deviation 12; of a photograph 100 or, the one left, 200.
    assert types.sum(axis=0) == pytest.approx([200] * 4, abs=50)
    counts = np.bincount(photograph, minlength=8)
    assert counts[1] == pytest.approx(200, abs=50) and counts[0] == pytest.approx(100, abs=40)


def test_the_same_epoch_shows_the_same_views_and_another_others(drawn_from):
    first, again = (views_of(drawn_from, drawn_from[1])[3] for _ in range(2))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    other = views_of(drawn_from, drawn_from[1], epoch=1)[3]
    assert (other[0] != first[0]).any()


def test_an_image_that_stands_for_its_photograph_must_be_a_training_image(drawn_from, plain_views):
    patches, rows = drawn_from
    stand_ins = patches.table.assign(source_id="one photograph", file=rows["file"])
    views = views_of((inputs.Patches(patches.pixels, stand_ins), rows), rows.assign(
        source_id="one photograph"
    )[:4])  # fmt: skip
    assert len(views.patches) == 4


# Cross-validation on the drawn sample, and its summary on answers known by hand


def table_of(rows):
    """Answers of certainty: (photograph, true type, told type) for each image."""
    source, true, told = zip(*rows, strict=True)
    images = pd.DataFrame(
        {"file": [f"{i}.jpeg" for i in range(len(rows))], "split": "TRAIN", "cell_type": true,
         "source_id": source, "group_id": source}
    )  # fmt: skip
    certain = np.eye(4)[[cells.NAMES.index(name) for name in told]]
    return classification.tabulate(images, certain)


def test_photographs_are_judged_by_the_mean_of_their_images():
    table = table_of(
        [
            ("a", "monocyte", "monocyte"), ("a", "monocyte", "monocyte"),
            ("a", "monocyte", "neutrophil"), ("b", "neutrophil", "eosinophil"),
        ]
    )  # fmt: skip
    summary = training.summarise(table)
    assert summary["images"]["accuracy"] == 0.5 and summary["images"]["n_images"] == 4
    # Two of three images carry photograph a; b is lost.
    assert summary["photographs"]["accuracy"] == 0.5
    assert summary["photographs"]["n_images"] == 2
    assert summary["photographs"]["balanced_accuracy"] == 0.5


def test_the_report_gives_scores_with_their_intervals():
    rows = [(f"m{i}", "monocyte", "monocyte" if i else "neutrophil") for i in range(4)]
    rows += [(f"n{i}", "neutrophil", "eosinophil" if i else "neutrophil") for i in range(4)]
    scores = training.summarise(table_of(rows))["photographs"]
    low, high = scores["intervals"]["accuracy"]
    assert scores["accuracy"] == 0.5 and 0 <= low < 0.5 < high <= 1
    told = training.report(table_of(rows))
    assert f"photographs (n = 8): accuracy 50.0% ({low:.1%}–{high:.1%})" in told
    assert "monocyte 75%, neutrophil 25%" in told


@pytest.mark.slow
def test_every_photograph_is_judged_once_by_a_network_that_never_saw_it(
    sample_folder, compiled, tmp_path, monkeypatch
):
    identity = identify(sample_folder)
    chosen = recipes.TrainingSettings(recipe="compact", epochs=1, image_size=(16, 16))
    trained = []
    through = training.train

    def watched(prepared, *arguments):
        trained.append(set(prepared.catalog.loc[prepared.part == "train", "group_id"]))
        return through(prepared, *arguments)

    monkeypatch.setattr(training, "train", watched)
    arguments = (chosen, identity, "cv", tmp_path, tmp_path)
    table = training.cross_validate(*arguments, n_folds=2)
    assert not table["file"].duplicated().any() and (table["split"] == "TRAIN").all()
    for number, groups in enumerate(trained):
        split = pd.read_csv(tmp_path / "cv" / f"fold-{number}" / "split.csv", index_col="file")
        judged = table.set_index("file")["group_id"][split.index[split["part"] == "validation"]]
        assert not groups & set(judged)
    assert len(training.read("cv", tmp_path, identity.to_dict())) == len(table)
    with pytest.raises(DataMismatch):
        training.read("cv", tmp_path, {**identity.to_dict(), "digest": "other"})

    # Started again, nothing is trained twice, and the answers are the same.
    before = (tmp_path / "cv" / "fold-0" / "model.keras").stat().st_mtime_ns
    again = training.cross_validate(*arguments, n_folds=2)
    assert (tmp_path / "cv" / "fold-0" / "model.keras").stat().st_mtime_ns == before
    pd.testing.assert_frame_equal(again, table)
    scores = json.loads((tmp_path / "cv" / "crossval.json").read_text())
    assert scores["photographs"]["n_images"] == table["source_id"].nunique()


@pytest.mark.slow
def test_folds_are_shared_among_workers(sample_folder, compiled, tmp_path):
    pytest.importorskip("distributed")
    chosen = recipes.TrainingSettings(recipe="compact", epochs=1, image_size=(16, 16))
    arguments = (chosen, identify(sample_folder), "cv", tmp_path)
    options = {"n_folds": 2, "workers": backend.Workers(n=2)}
    alone = training.cross_validate(*arguments, tmp_path / "alone", n_folds=2)
    together = training.cross_validate(*arguments, tmp_path / "together", **options)
    # Threads decide in which order a training adds up: of the answers, their images are the same.
    asked = ["file", "split", "cell_type", "source_id", "group_id"]
    pd.testing.assert_frame_equal(together[asked], alone[asked])
    for fold in ("fold-0", "fold-1"):
        parts = [
            (tmp_path / who / "cv" / fold / "split.csv").read_bytes()
            for who in ("alone", "together")
        ]
        assert parts[0] == parts[1]


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "settings.json").write_text("{}")
    with pytest.raises(RunExists, match=r"settings\.json"):
        training.cross_validate(
            recipes.TrainingSettings(recipe="compact"), None, "run", tmp_path, tmp_path
        )
    assert [entry.name for entry in (tmp_path / "run").iterdir()] == ["settings.json"]


def test_a_damaged_cross_validation_is_named(tmp_path):
    (tmp_path / "cv").mkdir()
    (tmp_path / "cv" / "crossval.json").write_text("{")
    with pytest.raises(BrokenRun, match=r"crossval\.json is damaged"):
        training.read("cv", tmp_path)


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(DataNotFound, match="make crossval RUN=none"):
        training.read("none", tmp_path)
