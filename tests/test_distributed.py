import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from wbc_helpers import __main__ as command_line
from wbc_helpers import batches, distributed, models, processes, runs
from wbc_helpers.errors import InvalidParameter

HERE = Path(__file__).parent


def test_the_parts_of_all_processes_are_the_batch(noise, monkeypatch):
    _, pixels = noise
    given = batches.Batches(pixels, np.arange(40), np.arange(39), 16, n_devices=4, seed=3)
    whole = [given[index][1] for index in range(len(given))]
    parts = []
    for number in range(4):
        monkeypatch.setattr(distributed, "position", lambda number=number: (number, 4))
        parts.append([given[index][1] for index in range(len(given))])
    assert [len(part) for part in parts[0]] == [4, 4, 1]
    for index, batch in enumerate(whole):
        assert np.array_equal(np.concatenate([part[index] for part in parts]), batch)


def test_batches_that_some_devices_would_get_more_of_are_refused():
    distributed.check_batch_size(128, 4)
    with pytest.raises(InvalidParameter, match=r"batch_size=128.*3 devices.*129"):
        distributed.check_batch_size(128, 3)


def test_a_process_that_works_alone_writes_its_run_folder_itself(tmp_path):
    settings = {"training": {}, "data": {"digest": "noise"}, "created": "", "runtime": None}
    with distributed.run_folder("mine", tmp_path, settings | {"versions": {}}) as run:
        assert run.folder == tmp_path / "mine"
    assert runs.open_run("mine", tmp_path).settings["data"] == {"digest": "noise"}


def say(text):
    return [
        sys.executable,
        "-c",
        f"import os, sys, time; number = os.environ['WBC_PROCESS']; {text}",
    ]


def test_launched_processes_are_numbered_and_meet_at_one_place(tmp_path):
    names = ", ".join(f"os.environ[{name!r}]" for name in processes.VARIABLES)
    write = f"open({str(tmp_path)!r} + '/' + number, 'w').write(' '.join([{names}]))"
    assert distributed.launch(say(write), 3) == 0
    told = [(tmp_path / str(number)).read_text().split() for number in range(3)]
    assert len({coordinator for coordinator, _, _ in told}) == 1
    assert [each[1:] for each in told] == [["3", "0"], ["3", "1"], ["3", "2"]]
    assert processes.Processes(told[0][0], 3, 0).is_local


def test_when_one_process_fails_the_others_are_ended():
    # The other one would sleep for an hour.
    assert distributed.launch(say("sys.exit(7) if number == '1' else time.sleep(3600)"), 2) == 7


@pytest.mark.parametrize("wrong", [["--processes", "0"], ["--processes", "two"], ["--epochs", "0"]])
def test_a_wrong_argument_of_train_is_refused_before_any_work(wrong, tmp_path, capsys):
    folders = ["--data-dir", str(tmp_path / "data"), "--runs-dir", str(tmp_path / "runs")]
    assert command_line.main(["train", "--source", "sample", *folders, *wrong]) == 2
    assert wrong[1] in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_option_and_the_variables_are_not_mixed(tmp_path, monkeypatch, capsys):
    for name, value in zip(processes.VARIABLES, ("127.0.0.1:9876", "2", "0"), strict=True):
        monkeypatch.setenv(name, value)
    folders = ["--data-dir", str(tmp_path / "data"), "--runs-dir", str(tmp_path / "runs")]
    assert command_line.main(["train", "--source", "sample", *folders, "--processes", "2"]) == 2
    assert "both given" in capsys.readouterr().err


# Trains a network undisturbed, then one that Ctrl-C stops after its first epoch and that goes on.
# Each process gets a runs folder of its own, as if it were another machine.
TRAIN = """
import os, sys
from pathlib import Path
from wbc_helpers import runtime
in_use = runtime.choose()
import numpy as np, pandas as pd
from wbc_helpers import cells, distributed, errors, processes, settings, training

folder = Path(sys.argv[1])
number, count = processes.position()
chosen = settings.TrainingSettings(
    epochs=3, image_size=(16, 16), batch_size=12, validation_fraction=0.25,
    seed=number if sys.argv[2] == "apart" else 0,
)
pixels = np.random.default_rng(0).integers(0, 256, (48, 16, 16, 3), dtype=np.uint8)
names = np.array(cells.NAMES)[np.arange(48) % 4]
table = pd.DataFrame(dict(file=np.arange(48), cell_type=pd.Categorical(names, cells.NAMES)))
part = training.split(table, chosen)
described = settings.describe(chosen, {"digest": "noise"}, in_use)

def train(name):
    with distributed.run_folder(name, folder / f"runs-{number}", described) as run:
        (folder / f"{name}-{number}.txt").write_text(str(run.folder))
        training.train(table, pixels, part, run, None, in_use.n_devices, 0)

def interrupted(self, epoch, logs=None):
    begin(self, epoch, logs)
    if epoch == 1:
        raise KeyboardInterrupt

with processes.leaving_on_failure():
    try:
        train("whole")
    except errors.ProcessesApart as refusal:
        (folder / f"refused-{number}.txt").write_text(str(refusal))
        raise
    if count > 1:
        begin = training.Recorder.on_epoch_begin
        training.Recorder.on_epoch_begin = interrupted
        try:
            train("resumed")
        except KeyboardInterrupt:
            training.Recorder.on_epoch_begin = begin
        train("resumed")
"""


def environment(folder, n_devices=1):
    flags = {
        # Compiling takes nearly all of the time here, and so half of it.
        "xla_backend_optimization_level": 0,
        "xla_force_host_platform_device_count": n_devices,
    }
    return {
        **os.environ,
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(HERE.parent),
        "XLA_FLAGS": " ".join(f"--{name}={value}" for name, value in flags.items()),
        # The resumed training need not compile again what the whole one did.
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


def train(folder, n_devices=1):
    pytest.importorskip("jax")
    script = [sys.executable, "-c", TRAIN, str(folder), "together"]
    subprocess.run(script, env=environment(folder, n_devices), check=True, timeout=600)
    return runs.open_run("whole", folder / "runs-0")


def launched(folder, how, monkeypatch):
    pytest.importorskip("jax")
    with monkeypatch.context() as set_here:
        for name, value in environment(folder).items():
            set_here.setenv(name, value)
        return distributed.launch([sys.executable, "-c", TRAIN, str(folder), how], 2)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The history of one process with one device, and what its network answers."""
    return train(tmp_path_factory.mktemp("alone"))


def assert_same_history(found: pd.DataFrame, expected: pd.DataFrame):
    assert found.epoch.tolist() == expected.epoch.tolist() == [1, 2, 3]
    scores = ["loss", "accuracy", "val_loss", "val_accuracy"]
    # Sums of floating-point numbers depend on their order; nothing else may differ.
    np.testing.assert_allclose(found[scores], expected[scores], rtol=0, atol=1e-4)


@pytest.mark.slow
def test_two_devices_of_one_process_learn_what_one_device_does(alone, tmp_path):
    found = train(tmp_path, n_devices=2)
    assert found.settings["runtime"]["n_devices"] == 2
    assert_same_history(found.history, alone.history)


@pytest.mark.slow
def test_two_processes_learn_what_one_does_and_only_the_first_writes(alone, tmp_path, monkeypatch):
    assert launched(tmp_path, "together", monkeypatch) == 0
    whole, resumed = (runs.open_run(name, tmp_path / "runs-0") for name in ("whole", "resumed"))
    assert whole.settings["runtime"]["n_devices"] == 2
    assert "process 0 of 2" in whole.settings["runtime"]["reason"]
    assert_same_history(whole.history, alone.history)
    assert_same_history(resumed.history, alone.history)
    pixels = np.random.default_rng(1).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
    here, there = (models.predict(models.load(run), pixels) for run in (whole, alone))
    np.testing.assert_allclose(here, there, atol=1e-4)
    # The second process had a private copy, and took it away.
    assert not (tmp_path / "runs-1").exists()
    private = Path((tmp_path / "whole-1.txt").read_text())
    assert tmp_path not in private.parents and not private.exists()


@pytest.mark.slow
def test_processes_started_with_different_settings_all_stop(tmp_path, monkeypatch):
    assert launched(tmp_path, "apart", monkeypatch)
    # Not read from what they print: both do so at once, perhaps letter by letter. Whoever is the
    # first to fail has the other ended, perhaps before that one has written its file.
    refusals = [path.read_text() for path in tmp_path.glob("refused-*.txt")]
    assert any("seed is 1 in process 1 and 0 in process 0" in refusal for refusal in refusals)
    assert not list(tmp_path.glob("runs-*/whole/history.csv"))


@pytest.mark.slow
def test_the_train_command_shares_the_work_and_run_would_go_on_from_it(sample_folder, tmp_path):
    pytest.importorskip("jax")
    folders = ["--data-dir", str(tmp_path / "data"), "--runs-dir", str(tmp_path / "runs")]
    command = [sys.executable, "-m", "wbc_helpers", "train", "--source", str(sample_folder)]
    done = subprocess.run(
        [*command, *folders, "--epochs", "1", "--processes", "2"],
        cwd=HERE.parent, env=environment(tmp_path), capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "THESE CELLS ARE DRAWN" in done.stdout and "Trained:" in done.stdout
    # `run` takes this name, too.
    assert runs.open_run("paper-sample-1", tmp_path / "runs").is_complete
