import platform
import subprocess
import sys

import pytest

from wbc_helpers.errors import InvalidParameter
from wbc_helpers.runs import backend
from wbc_helpers.runs.backend import Runtime, _choose_backend


@pytest.fixture
def machine(monkeypatch):
    """A machine with the given packages and GPUs, on which Keras was not imported yet."""

    def make(installed, n_gpus=0):
        monkeypatch.setattr(backend, "_installed", lambda name: name in installed)
        monkeypatch.setattr(backend, "count_gpus", lambda: n_gpus)
        monkeypatch.delitem(sys.modules, "keras", raising=False)

    return make


@pytest.mark.parametrize(
    ("environment", "installed", "n_gpus", "backend", "reason"),
    [
        ({}, {"tensorflow", "jax"}, 0, "tensorflow", "no TPU and no GPU"),
        ({}, {"tensorflow", "jax"}, 1, "tensorflow", "1 GPU"),
        ({}, {"jax"}, 0, "jax", "no TPU and no GPU"),
        ({"COLAB_TPU_1VM": "1"}, {"jax", "tensorflow"}, 0, "jax", "TPU is attached"),
        ({"TPU_ACCELERATOR_TYPE": "v5e-1"}, {"jax"}, 0, "jax", "TPU is attached"),
        ({"KERAS_BACKEND": "torch"}, {"tensorflow", "torch"}, 0, "torch", "was set"),
        ({}, {"tensorflow", "jax", "jax_plugins"}, 4, "jax", "4 GPUs"),
        ({}, {"tensorflow", "jax"}, 4, "tensorflow", "4 GPU"),
    ],
)
def test_the_backend_follows_from_the_machine(
    machine, environment, installed, n_gpus, backend, reason
):
    machine(installed, n_gpus)
    found, why = _choose_backend(environment)
    assert found == backend and reason in why


def test_no_backend_and_an_unknown_one_are_refused(machine):
    machine(set())
    with pytest.raises(InvalidParameter, match="none is installed"):
        _choose_backend({})
    machine({"jax"})
    with pytest.raises(InvalidParameter, match=r"theano.*jax"):
        _choose_backend({"KERAS_BACKEND": "theano"})


def test_it_says_what_it_picked():
    assert str(Runtime("GPU", "jax", 2, "asked for.")) == (
        "Running on 2 GPUs with Keras on jax: asked for."
    )


@pytest.mark.slow
def test_on_this_machine_it_is_quiet_and_sets_keras_up():
    script = (
        "from wbc_helpers.runs import backend; import os;"
        "print(backend.choose()); import keras; print(keras.config.backend())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.startswith("Running on") and done.stderr == ""


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="no GNU C library, whose allocator this is about"
)
def test_freed_memory_is_kept_for_the_next_step():
    # 30 MB, 7,300 pages, made and freed in a thread 40 times. The allocator by itself gives back a
    # part of them each time.
    script = """
import resource, sys, threading
import numpy as np
from wbc_helpers.runs import backend

def step():
    arrays = [np.ones(1_250_000, np.float32) for _ in range(6)]

def steps(n):
    thread = threading.Thread(target=lambda: [step() for _ in range(n)])
    thread.start()
    thread.join()

if sys.argv[1] == "keep":
    assert backend.keep_freed_memory()
steps(1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
steps(40)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    mapped = {
        how: int(subprocess.run([sys.executable, "-c", script, how], check=True,
                                capture_output=True, text=True).stdout)
        for how in ("keep", "give back")
    }  # fmt: skip
    assert mapped["keep"] < 2 * 7_300
    assert mapped["keep"] < mapped["give back"] / 3
