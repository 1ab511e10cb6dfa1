"""What computes: the device and Keras backend of this machine, or several machines by Dask.

The device is a TPU, else a GPU, else the CPU. Keras asks for its backend when it is imported. `from
wbc_helpers.runs.backend import keras` has it chosen first, and is how every module of this package
comes by Keras. Work that falls into pieces goes through `Workers`, whoever does it.
"""

import ctypes
import functools
import importlib.util
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wbc_helpers.errors import InvalidParameter, NoWorkers, PackageMissing, check_whole

if TYPE_CHECKING:
    import keras as keras
else:

    def __getattr__(name: str) -> Any:
        """Import Keras on demand, its backend chosen."""
        if name != "keras":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        choose()
        return sys.modules["keras"]


BACKENDS = ("tensorflow", "jax", "torch")


@dataclass(frozen=True)
class Runtime:
    """What training runs on: `TPU`, `GPU` or `CPU`, one of `BACKENDS`, and why, in a sentence."""

    device: str
    backend: str
    n_devices: int
    reason: str

    def __str__(self) -> str:
        """Say it to people."""
        devices = self.device if self.n_devices == 1 else f"{self.n_devices} {self.device}s"
        return f"Running on {devices} with Keras on {self.backend}: {self.reason}"


@functools.cache
def choose() -> Runtime:
    """Pick the device and the backend, and set Keras up for them; called again, say the same.

    The environment variable `KERAS_BACKEND` is respected if set, and set if not. Raises
    `InvalidParameter` if no backend is installed, or `KERAS_BACKEND` names an unknown one.
    """
    backend, reason = _choose_backend(os.environ)
    os.environ["KERAS_BACKEND"] = backend
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    keep_freed_memory()
    with _quiet():
        import keras

        device, n_devices = _DEVICES_OF[backend]()
    if backend == "jax" and n_devices > 1:
        keras.distribution.set_distribution(
            keras.distribution.DataParallel(auto_shard_dataset=False)
        )
        reason += "; each batch is split among them by Keras's DataParallel"
    return Runtime(device, backend, n_devices, f"{reason}.")


def keep_freed_memory() -> bool:
    """Let this process keep the memory that it frees, for the arrays of the next step.

    A step of training on the CPU makes and frees some 100 MB. Left alone, the GNU C library gives
    most of it back to the system each time, which maps and zeroes it again page by page: two fifths
    of a step's time. On Python 3.11 TensorFlow 2.21 even asks for that, when it makes a data set of
    Python's (`ApplyPython311MemoryPatch`), so that it must be asked again afterwards. Other
    allocators, such as Colab's TCMalloc, keep memory anyway. Returns whether there was a GNU C
    library to ask.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    return all(mallopt(option, n_bytes) for option, n_bytes in _MALLOC_OPTIONS)


_MALLOC_OPTIONS = ((-1, 1 << 30), (-2, 64 << 20), (-3, 32 << 20))
"""M_TRIM_THRESHOLD, M_TOP_PAD and M_MMAP_THRESHOLD of `malloc.h`, in bytes, see `man mallopt`: the
padding is what threads other than the first go by."""


def _choose_backend(environment: Mapping[str, str]) -> tuple[str, str]:
    """Name the backend and the reason for it, importing none."""
    if "keras" in sys.modules:
        loaded = sys.modules["keras"].config.backend()
        return loaded, f"Keras was already running on {loaded}"
    requested = environment.get("KERAS_BACKEND")
    if requested:
        if requested not in BACKENDS or not _installed(requested):
            raise InvalidParameter(
                f"KERAS_BACKEND={requested!r} cannot be used here. Expected one of "
                f"{', '.join(filter(_installed, BACKENDS)) or 'none: no backend is installed'}."
            )
        return requested, f"KERAS_BACKEND={requested} was set"
    if (environment.get("COLAB_TPU_1VM") or environment.get("TPU_ACCELERATOR_TYPE")) and _installed(
        "jax"
    ):
        return "jax", "a TPU is attached, and Keras drives it through JAX"
    n_gpus = count_gpus()
    if n_gpus > 1 and _installed("jax") and _installed("jax_plugins"):
        return "jax", f"{n_gpus} GPUs are attached, and Keras shares work among them through JAX"
    installed = next(filter(_installed, BACKENDS), None)
    if installed is None:
        raise InvalidParameter(
            "Keras needs TensorFlow, JAX or PyTorch, and none is installed. Expected at least one; "
            "`pip install tensorflow` brings the usual one."
        )
    gpu = f"{n_gpus} GPU attached" if n_gpus else "no TPU and no GPU was found"
    return installed, gpu


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what TensorFlow's C++ says, past Python and any log level, of drivers it misses."""
    stderr = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


def count_gpus() -> int:
    """Count the NVIDIA GPUs of this machine without loading a framework."""
    if shutil.which("nvidia-smi") is None:
        return 0
    listed = subprocess.run(
        ["nvidia-smi", "-L"], capture_output=True, text=True, check=False, timeout=20
    )
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _tensorflow_devices() -> tuple[str, int]:
    import tensorflow

    gpus = tensorflow.config.list_physical_devices("GPU")
    for gpu in gpus:
        # Otherwise TensorFlow takes the whole GPU, and a second notebook finds none of it left.
        tensorflow.config.experimental.set_memory_growth(gpu, True)
    # Keras shares work among devices only on JAX; on TensorFlow it uses the first.
    return ("GPU" if gpus else "CPU"), 1


def _jax_devices() -> tuple[str, int]:
    import jax

    devices = jax.devices()
    return {"tpu": "TPU", "gpu": "GPU"}.get(devices[0].platform, "CPU"), len(devices)


def _torch_devices() -> tuple[str, int]:
    import torch

    return ("GPU" if torch.cuda.is_available() else "CPU"), 1


_DEVICES_OF = {
    "tensorflow": _tensorflow_devices,
    "jax": _jax_devices,
    "torch": _torch_devices,
}


# More than one process


@dataclass(frozen=True)
class Workers:
    """Who does work that falls into pieces: this process, unless others are named.

    Attributes
    ----------
    scheduler : str, optional
        Address of a Dask scheduler, such as `tcp://10.0.0.5:8786`. Its workers need this package
        and see the same files under the same names.
    n : int, optional
        Worker processes to start on this machine, which share its cores.
    """

    scheduler: str | None = None
    n: int | None = None

    def __post_init__(self) -> None:
        """Refuse what names nobody, or two at once, before any work."""
        if self.n is not None:
            check_whole("workers", self.n, 1, 1024)
        if self.scheduler is not None and (self.n or "://" not in self.scheduler):
            raise InvalidParameter(
                f"scheduler={self.scheduler!r} and workers={self.n} are not usable. Expected the "
                "address of a Dask scheduler, such as tcp://10.0.0.5:8786, or a number of workers."
            )

    def __bool__(self) -> bool:
        """Tell whether others than this process do the work."""
        return bool(self.scheduler or self.n)

    def share(self, work: Callable[[Any], Any], pieces: Sequence[Any]) -> Iterator[Any]:
        """Do the work, and give out what comes of each piece, in the order in which they are done.

        What a worker was doing when it died is done by another. `work` and pieces are pickled where
        others do it; a worker does one piece at a time.

        Raises
        ------
        PackageMissing
            If `distributed` is not installed.
        NoWorkers
            If the scheduler cannot be reached; and, after all other pieces, if one was given up
            since several workers had died of it.
        """
        if not self:
            yield from map(work, pieces)
            return
        with self._client() as client:
            from distributed import as_completed
            from distributed.scheduler import KilledWorker

            given_up = []
            futures = client.map(functools.partial(_do, work), pieces, pure=False)
            done = as_completed(futures, loop=client.loop)
            # What came of a piece is held until nobody refers to it.
            del futures
            for future in done:
                try:
                    result = future.result()
                except KilledWorker as error:
                    given_up.append(error)
                    continue
                del future
                yield result
        if given_up:
            raise NoWorkers(
                f"{len(given_up)} of {len(pieces)} pieces of work were given up, since several "
                f"workers died of each ({given_up[0]}). Expected workers with enough memory; what "
                "was done is kept, and the same command goes on from there."
            )

    @contextmanager
    def _client(self) -> Iterator[Any]:
        """Connect to the scheduler, or start the workers of this machine."""
        try:
            import distributed
        except ImportError as error:
            raise PackageMissing(
                "Sharing work among workers takes the package distributed, which is not installed "
                "here. Install it with: pip install '.[cluster]'"
            ) from error
        with ExitStack() as stack:
            address = self.scheduler
            if self.n:
                threads = str(max((os.cpu_count() or 1) // self.n, 1))
                cluster = distributed.LocalCluster(
                    n_workers=self.n, threads_per_worker=1, dashboard_address="127.0.0.1:0",
                    env={name: os.environ.get(name, threads) for name in _THREADS},
                )  # fmt: skip
                address = stack.enter_context(cluster).scheduler_address
            try:
                client = distributed.Client(address, timeout=_PATIENCE, set_as_default=False)
                stack.enter_context(client)
            except (OSError, ValueError) as error:
                raise NoWorkers(
                    f"The scheduler {address} cannot be reached ({error}). Expected one that runs "
                    "there: `dask scheduler` prints its address."
                ) from error
            if not client.scheduler_info(n_workers=-1)["workers"]:
                print(f"The scheduler {address} has no worker yet; waiting.", file=sys.stderr)
            yield client


_THREADS = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "OPENCV_FOR_THREADS_NUM")
"""Environment variables by which libraries learn how many cores are theirs."""

_PATIENCE = 20  # seconds for which a scheduler is tried
_ALONE = threading.Lock()


def _do(work: Callable[[Any], Any], piece: Any) -> Any:
    """Do a piece on a worker; one at a time, since a network takes all of a worker's cores."""
    with _ALONE:
        return work(piece)
