"""Which process this is, of how many that share one training, and how they meet.

Every process runs the same program, with its own number in the environment:

- `WBC_COORDINATOR`: `host:port` at which process 0 waits for the others;
- `WBC_PROCESSES`: how many there are;
- `WBC_PROCESS`: the number of this one, from 0.

`runtime.choose` joins them, before any device is touched; `distributed` shares a training among
them. The port asks for no password, so it belongs into a private network.
"""

import atexit
import os
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from wbc_helpers.errors import InvalidParameter, ProcessesApart, WbcError

VARIABLES = ("WBC_COORDINATOR", "WBC_PROCESSES", "WBC_PROCESS")
"""The environment variables, in the order of the fields of `Processes`."""

MOST = 1024
"""Processes that may share one training; more is taken for a slip of the hand."""

PATIENCE = 600
"""Seconds that processes wait for each other to start."""


@dataclass(frozen=True)
class Processes:
    """The processes that share a training, seen from one of them.

    Attributes
    ----------
    coordinator : str
        `host:port` at which process 0 waits for the others.
    count : int
        How many there are.
    index : int
        Number of this one, from 0.
    """

    coordinator: str
    count: int
    index: int

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the coordinator."""
        host, _, port = self.coordinator.rpartition(":")
        return host.strip("[]"), int(port)

    @property
    def is_local(self) -> bool:
        """Whether they all must be on this machine."""
        return self.address[0] in ("localhost", "127.0.0.1", "::1")


def requested(environment: Mapping[str, str] = os.environ) -> Processes | None:
    """Read from the environment whether this process is one of several.

    Parameters
    ----------
    environment : mapping, optional
        The environment variables.

    Returns
    -------
    Processes or None
        None for a process that works alone.

    Raises
    ------
    InvalidParameter
        If only some of the variables are set, or one has a value that cannot be.
    """
    values = {name: environment.get(name, "").strip() for name in VARIABLES}
    if not any(values.values()):
        return None
    if missing := [name for name, value in values.items() if not value]:
        raise InvalidParameter(
            f"{' and '.join(missing)} not set, though {' and '.join(values.keys() - missing)} is. "
            "Expected all three or none: WBC_COORDINATOR=host:port, WBC_PROCESSES=2, WBC_PROCESS=0."
        )
    coordinator = values["WBC_COORDINATOR"]
    host, _, port = coordinator.rpartition(":")
    if not host or " " in host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise InvalidParameter(
            f"WBC_COORDINATOR={coordinator!r} is no address. Expected host:port of process 0, as "
            "in 10.0.0.1:9876, the same for all processes."
        )
    count = check_count("WBC_PROCESSES", values["WBC_PROCESSES"])
    index = check_count("WBC_PROCESS", values["WBC_PROCESS"], 0, count - 1)
    return Processes(coordinator, count, index) if count > 1 else None


def check_count(name: str, value: object, low: int = 1, high: int = MOST) -> int:
    """Check a number of processes, or the number of one.

    Parameters
    ----------
    name : str
        Of the parameter, for the message.
    value : object
        Expected: a whole number, as such or as text.
    low, high : int
        The range allowed.

    Returns
    -------
    int
        The number.

    Raises
    ------
    InvalidParameter
        If it is anything else.
    """
    if not str(value).isdecimal() or not low <= int(str(value)) <= high:
        raise InvalidParameter(
            f"{name}={value!r} is not usable. Expected a whole number from {low} to {high}."
        )
    return int(str(value))


def join(processes: Processes, backend: str) -> str:
    """Meet the other processes. To be called before JAX touches any device.

    Parameters
    ----------
    processes : Processes
        From `requested`.
    backend : str
        Keras's backend.

    Returns
    -------
    str
        What was done, as part of a sentence.

    Raises
    ------
    InvalidParameter
        If Keras does not run on JAX, or the coordinator's port is taken.
    ProcessesApart
        If process 0 cannot be reached, JAX is in use already, or the processes differ in their
        number of devices.
    """
    if backend != "jax":
        raise InvalidParameter(
            f"{processes.count} processes were asked for, but Keras runs on {backend}, where it "
            "shares no work among processes. Expected KERAS_BACKEND=jax, set before Keras is "
            f"imported; or unset {', '.join(VARIABLES)}."
        )
    import jax

    if not jax.distributed.is_initialized():
        _approach(processes)
        # What CPUs of several processes talk through; GPUs and TPUs have their own.
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        port = processes.address[1]
        try:
            jax.distributed.initialize(
                processes.coordinator,
                processes.count,
                processes.index,
                initialization_timeout=PATIENCE,
                # Otherwise a training on one machine would listen to the whole network.
                coordinator_bind_address=f"127.0.0.1:{port}" if processes.is_local else None,
            )
        except RuntimeError as error:
            raise ProcessesApart(
                f"Process {processes.index} could not join the others ({error}). Expected to be "
                "called first of all; start Python anew, and all processes with it."
            ) from error
        # The first exchange opens the connections and must find all of them within 30 seconds, so
        # it comes here, where they just met. Later ones may wait.
        devices = [int(count) for count in gather(str(jax.local_device_count()).encode())]
        if len(set(devices)) > 1:
            raise ProcessesApart(
                f"The processes have {', '.join(map(str, devices))} devices. Expected the same "
                "number in each, so that every batch divides evenly."
            )
    return f"process {processes.index} of {processes.count} that share the work"


def _approach(processes: Processes) -> None:
    """Make sure of what JAX would otherwise abort the whole process for, without a named error."""
    host, port = processes.address
    if processes.index == 0:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", port))
            except OSError as error:
                raise InvalidParameter(
                    f"WBC_COORDINATOR={processes.coordinator}: process 0 cannot wait there "
                    f"({error.strerror}). Expected a free port of this machine; choose another, "
                    "for all processes."
                ) from error
        print(f"Waiting at {processes.coordinator} for {processes.count - 1} more.", flush=True)
        return
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection((host, port), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise ProcessesApart(
                    f"Process {processes.index} found no process 0 at {processes.coordinator} for "
                    f"{PATIENCE} seconds ({error}). Start process 0 there, and let its firewall "
                    "pass the port."
                ) from error
            time.sleep(0.5)


def position() -> tuple[int, int]:
    """Tell which process this is, and of how many: (0, 1) for one that works alone."""
    jax = sys.modules.get("jax")
    if jax is None or not jax.distributed.is_initialized():
        return 0, 1
    return jax.process_index(), jax.process_count()


@contextmanager
def leaving_on_failure() -> Iterator[None]:
    """Let a process that fails end at once, after Python has said why.

    JAX would wait minutes at its exit for the others, and these for its part of a batch.
    """
    try:
        yield
    except BaseException as error:
        if position()[1] > 1:
            status = 2 if isinstance(error, WbcError) else 1
            # Runs before JAX's own, which was registered when JAX was imported.
            atexit.register(_leave, status)
        raise


def _leave(status: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def gather(content: bytes) -> list[bytes]:
    """Give what each process has to all of them; each must call it as often as the others.

    Parameters
    ----------
    content : bytes
        Of this process; up to 2 GB.

    Returns
    -------
    list of bytes
        Of every process, in their order.
    """
    if position()[1] == 1:
        return [content]
    from jax.experimental import multihost_utils

    # JAX gathers arrays of one shape, so the shorter ones are filled up.
    lengths = multihost_utils.process_allgather(np.array([len(content)], np.int32)).ravel()
    padded = np.zeros(max(1, lengths.max()), np.uint8)
    padded[: len(content)] = np.frombuffer(content, np.uint8)
    rows = multihost_utils.process_allgather(padded)
    return [row[:length].tobytes() for row, length in zip(rows, lengths, strict=True)]
