import socket
import subprocess
import sys
import types

import pytest

from wbc_helpers import processes, runtime
from wbc_helpers.errors import InvalidParameter, ProcessesApart

SET = {"WBC_COORDINATOR": "10.0.0.1:9876", "WBC_PROCESSES": "4", "WBC_PROCESS": "3"}


def test_a_process_learns_from_the_environment_which_it_is():
    found = processes.requested(SET)
    assert found == processes.Processes("10.0.0.1:9876", 4, 3)
    assert found.address == ("10.0.0.1", 9876) and not found.is_local
    here = processes.requested(SET | {"WBC_COORDINATOR": "[::1]:80"})
    assert here.address == ("::1", 80) and here.is_local


def test_without_the_variables_or_as_one_of_one_it_works_alone():
    assert processes.requested({}) is None
    assert processes.requested({**SET, "WBC_PROCESSES": "1", "WBC_PROCESS": "0"}) is None
    assert processes.position() == (0, 1)
    assert processes.gather(b"mine") == [b"mine"]


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"WBC_COORDINATOR": "10.0.0.1"}, "10.0.0.1"),
        ({"WBC_COORDINATOR": ":9876"}, ":9876"),
        ({"WBC_COORDINATOR": "host:port"}, "host:port"),
        ({"WBC_COORDINATOR": "host:65536"}, "65536"),
        ({"WBC_COORDINATOR": ""}, "WBC_COORDINATOR not set"),
        ({"WBC_PROCESSES": "two"}, "WBC_PROCESSES='two'"),
        ({"WBC_PROCESSES": "0"}, "from 1 to 1024"),
        ({"WBC_PROCESSES": "99999"}, "99999"),
        ({"WBC_PROCESS": "4"}, "from 0 to 3"),
        ({"WBC_PROCESS": "-1"}, "-1"),
        ({"WBC_PROCESS": ""}, "WBC_PROCESS not set"),
    ],
)
def test_a_wrong_variable_is_named(wrong, named):
    with pytest.raises(InvalidParameter) as refused:
        processes.requested({**SET, **wrong})
    assert named in str(refused.value)


def test_a_backend_that_cannot_share_is_refused():
    with pytest.raises(InvalidParameter, match=r"tensorflow.*KERAS_BACKEND=jax"):
        processes.join(processes.requested(SET), "tensorflow")


def test_several_processes_ask_for_jax(monkeypatch):
    joined = []
    monkeypatch.setattr(processes, "join", lambda *asked: joined.append(asked) or "shared")
    monkeypatch.setattr(runtime, "_choose_backend", lambda asked: (asked["KERAS_BACKEND"], ""))
    monkeypatch.setattr(runtime, "_DEVICES_OF", {"jax": lambda: ("CPU", 1)})
    # Keras itself takes seconds to load, and has no part in this.
    monkeypatch.setitem(sys.modules, "keras", types.ModuleType("keras"))
    found = runtime.choose(dict(SET))
    assert (found.backend, found.reason) == ("jax", "shared.")
    assert joined == [(processes.requested(SET), "jax")]


def test_a_taken_port_and_an_absent_process_0_are_named(monkeypatch):
    monkeypatch.setattr(processes, "PATIENCE", 0.1)
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InvalidParameter, match=rf"127\.0\.0\.1:{port}.*free port"):
            processes._approach(processes.Processes(f"127.0.0.1:{port}", 2, 0))
    # Nobody listens there any more.
    with pytest.raises(ProcessesApart, match=r"Process 1 found no process 0.*firewall"):
        processes._approach(processes.Processes(f"127.0.0.1:{port}", 2, 1))


LATE = """
import jax
jax.devices()
from wbc_helpers import processes
processes.join(processes.Processes("127.0.0.1:{port}", 2, 0), "jax")
"""


@pytest.mark.slow
def test_joining_after_jax_was_used_is_refused():
    pytest.importorskip("jax")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    done = subprocess.run(
        [sys.executable, "-c", LATE.format(port=port)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode and "ProcessesApart: Process 0 could not join" in done.stderr
