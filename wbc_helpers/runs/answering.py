"""Networks asked: out of an ONNX file, for which no Keras is needed, or as Keras holds them.

What an ONNX file holds, whichever network it was made of, takes `(n, height, width, 3)` uint8 RGB
and does its own scaling. Of a network that names white cells: `crops`, at `image_size` of its
facts, see `pixels.white_cells.cut_out`, to `probabilities`, (n, n_answers) float32 of one way to
look, before any temperature, see `look` for the eight; of `broad` also to `features`, (n,
n_features) float32, what the last layer goes by. Of a detector: `smears`, both sides divisible by
16, see `count.detector.show`, to `maps`, (n, height / 2, width / 2, 7) float32 of one way to look,
see `count.detector.find_boxes`. All is of operator set `OPSET` without operators of its own, which
ONNX Runtime knows in Python and in the browser. The file's metadata say of which weights it is.

What ships lies in `wbc_helpers/weights/`: `<name>.json` with the facts of a network, `<name>.onnx`
to ask, `<name>.weights.h5` to train on, and a model card. The detector is asked in whole numbers of
8 bits, `detector.int8.onnx`, on a CPU more than twice as fast; in the browser, whose graphics cards
have none, as `detector.onnx`.
"""

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from wbc_helpers import storage
from wbc_helpers.errors import (
    BrokenRun,
    InvalidParameter,
    PackageMissing,
    RunExists,
    WbcError,
    check_choice,
)

if TYPE_CHECKING:
    from wbc_helpers.runs.folders import Run

OPSET = 17
"""Of ONNX: ONNX Runtime reads it since 1.12 (2022), ONNX Runtime Web, OpenVINO and others, too."""

AS_ONE = 1e-4
"""How far the answers of a network may lie from those of its export."""


class Network(Protocol):
    """What can be asked: a `keras.Model`, or an `OnnxNetwork`."""

    def predict_on_batch(self, x: np.ndarray) -> np.ndarray:
        """Answer for (n, height, width, 3) uint8."""


@dataclass(frozen=True, eq=False)
class OnnxNetwork:
    """A network out of an ONNX file, in a session of ONNX Runtime."""

    session: Any

    def predict_on_batch(self, x: np.ndarray) -> np.ndarray:
        """Answer for (n, height, width, 3) uint8 as the file's first output does."""
        return self.outputs(x, self.session.get_outputs()[0].name)

    def outputs(self, x: np.ndarray, name: str) -> np.ndarray:
        """Answer with the output of this name, such as `features`."""
        (asked,) = self.session.get_inputs()
        return self.session.run([name], {asked.name: x})[0]

    @property
    def metadata(self) -> dict[str, str]:
        """What the file says of itself: `weights_sha256`, if it was made of a file of weights."""
        return self.session.get_modelmeta().custom_metadata_map


@dataclass(frozen=True, eq=False)
class Featured:
    """A network asked for what its last layer goes by; see `featured`."""

    network: OnnxNetwork

    def predict_on_batch(self, x: np.ndarray) -> np.ndarray:
        """Answer for (n, height, width, 3) uint8 with (n, n_features) float32."""
        return self.network.outputs(x, "features")


def featured(network: Any) -> Network:
    """Make of a network that names white cells one that answers with its `features`."""
    if isinstance(network, OnnxNetwork):
        return Featured(network)
    from wbc_helpers.runs.backend import keras

    return keras.Model(network.input, network.get_layer("features").output)


def open_onnx(path: str | Path) -> OnnxNetwork:
    """Open an ONNX file to ask it; `BrokenRun` if it is none."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = n_threads()
    # Threads that wait would burn the time of those that decode and draw.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors have no common base
        raise BrokenRun(
            f"{path} is no network in ONNX's format ({type(error).__name__}: "
            f"{str(error).splitlines()[0]}). Write it anew with `wbc export`."
        ) from error
    return OnnxNetwork(session)


def n_threads() -> int:
    """How many threads a network may use: `OMP_NUM_THREADS`, or else this process's cores."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    if given.isdigit() and int(given):
        return int(given)
    has_affinity = hasattr(os, "sched_getaffinity")  # macOS and Windows have not
    return len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1


def predict(network: Network, pixels: np.ndarray, batch_size: int = 128) -> np.ndarray:
    """Probabilities of a network's answers, (n, n_answers) float32.

    `pixels`, (n, height, width, 3) uint8, are RGB at its size and may be memory-mapped;
    `batch_size` images are asked about at a time.
    """
    starts = range(0, len(pixels), batch_size)
    batches = (np.ascontiguousarray(pixels[start : start + batch_size]) for start in starts)
    return np.concatenate([network.predict_on_batch(batch) for batch in batches])


def answer(network: Network, pixels: np.ndarray, turned: bool, batch_size: int = 128) -> np.ndarray:
    """Probabilities of a network's answers, the mean over the ways to `look`, (n, n_answers)."""
    return look(network, pixels, turned, batch_size).mean(axis=0)


def look(network: Network, pixels: np.ndarray, turned: bool, batch_size: int = 128) -> np.ndarray:
    """Probabilities of each way to look at images, (n_ways, n, n_answers) float32, see `predict`.

    The one way, or, if the recipe's images are `turned`, the eight ways to turn and flip an image,
    since a cell can lie in any direction.
    """
    if not turned:
        return predict(network, pixels, batch_size)[np.newaxis]
    probabilities = []
    # The eight ways of a few images make one batch: for a single image, eight times the calls would
    # take longer than the network.
    at_once = max(batch_size // 8, 1)
    for start in range(0, len(pixels), at_once):
        batch = pixels[start : start + at_once]
        ways = [
            np.rot90(batch[:, :, ::step], turns, (1, 2)) for turns in range(4) for step in (1, -1)
        ]
        of_ways = predict(network, np.concatenate(ways), batch_size)
        probabilities.append(of_ways.reshape(8, len(batch), -1))
    return np.concatenate(probabilities, axis=1)


# Out of Keras

EXPORTS = {"onnx": "model.onnx", "litert": "model.tflite"}
"""Formats, by Keras's names, and the file of each in a run folder."""


def export(model: Any, run: "Run", form: str, of: str, facts: dict[str, Any]) -> Path:
    """Write the model of a run, as Keras holds it, into the run's folder in one of `EXPORTS`.

    `of` is the run's file that holds the model, by which `exported` knows whether the export is
    still of it; `facts` go into an ONNX file's metadata, as `about`, in JSON. Raises `RunExists` if
    the file is there; `PackageMissing`, `InvalidParameter` and `BrokenRun` if it cannot be
    written, or would answer otherwise than the model.
    """
    check_choice("format", form, tuple(EXPORTS))
    path = run.folder / EXPORTS[form]
    if path.exists():
        raise RunExists(
            f"{path} exists. Nothing was changed; move it away to have it written again."
        )
    about = {"weights_sha256": digest(run.folder / of), "about": json.dumps(facts)}
    if form == "onnx":
        write_onnx(model, path, about)
    else:
        _write_litert(model, path)
    return path


def exported(run: "Run", of: str) -> OnnxNetwork | None:
    """Open the ONNX file of a run, if it has one that was made of the file `of` as it is."""
    path = run.folder / EXPORTS["onnx"]
    if not path.is_file():
        return None
    network = open_onnx(path)
    is_current = network.metadata.get("weights_sha256") == digest(run.folder / of)
    return network if is_current else None


def write_onnx(model: Any, path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write a Keras model as ONNX, see the module; `path` is replaced. Raises as `export` does."""
    from wbc_helpers.runs.backend import keras

    outputs = {model.output_names[0]: model.output}
    if any(layer.name == "features" for layer in model.layers):
        outputs["features"] = model.get_layer("features").output
    name = {"cell_type": "probabilities"}.get(model.output_names[0], model.output_names[0])
    names = [name, *list(outputs)[1:]]
    written = keras.Model(model.input, list(outputs.values()))
    probes = list(_probes(model))
    written(probes[0])  # Keras exports only what was called.
    with _named(model), storage.atomic_file(path) as partial:
        import onnx

        written.export(partial, format="onnx", verbose=False, opset_version=OPSET)
        graph = onnx.load(partial)
        _rename(graph.graph, names)
        onnx.helper.set_model_props(graph, metadata or {})
        onnx.checker.check_model(graph)
        onnx.save(graph, partial)
        again = open_onnx(partial)
        for probe in probes:
            _check_alike(model, probe, again.predict_on_batch(probe))


def _write_litert(model: Any, path: Path) -> None:
    """Write a Keras model for LiteRT, formerly TensorFlow Lite."""
    from wbc_helpers.runs.backend import keras

    if keras.config.backend() != "tensorflow":
        raise InvalidParameter(
            f"Keras runs on {keras.config.backend()}, and writes for LiteRT on TensorFlow only. "
            "Set KERAS_BACKEND=tensorflow."
        )
    probes = list(_probes(model))
    model(probes[0])
    with _named(model), storage.atomic_file(path) as partial:
        import tensorflow

        model.export(str(partial), format="litert", verbose=False)
        interpreter = tensorflow.lite.Interpreter(str(partial))
        (asked,), (told,) = interpreter.get_input_details(), interpreter.get_output_details()
        for probe in probes:
            interpreter.resize_tensor_input(asked["index"], probe.shape)
            interpreter.allocate_tensors()
            interpreter.set_tensor(asked["index"], probe)
            interpreter.invoke()
            _check_alike(model, probe, interpreter.get_tensor(told["index"]))


@contextmanager
def _named(model: Any) -> Iterator[None]:
    """Name what exporting raises, and keep its many lines off the terminal."""
    try:
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), warnings.catch_warnings():
            # Of names that NumPy and LiteRT's interpreter will have elsewhere some day.
            warnings.simplefilter("ignore")
            yield
    except (WbcError, OSError):
        raise
    except ImportError as error:
        raise PackageMissing(
            f"Something is not installed through which Keras exports ({error}). Expected what "
            "`wbc export` needs beside the rest: pip install tf2onnx."
        ) from error
    except Exception as error:  # exporters raise whatever a layer makes them meet
        raise BrokenRun(
            f"{model.name!r} cannot be exported ({type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else ''}). Nothing was written. Keras "
            "exports most soundly from TensorFlow: set KERAS_BACKEND=tensorflow."
        ) from error


def _check_alike(model: Any, probe: np.ndarray, answers: np.ndarray) -> None:
    apart = float(np.abs(model.predict_on_batch(probe) - answers).max())
    if not apart <= AS_ONE:
        raise BrokenRun(
            f"Exported, {model.name!r} answers otherwise than as Keras holds it (by {apart:.2g}; "
            f"expected at most {AS_ONE:g}), so that nothing was written. Keras exports most "
            "soundly from TensorFlow: set KERAS_BACKEND=tensorflow."
        )


def _probes(model: Any) -> Iterator[np.ndarray]:
    """Noise to ask a model about, at its size; of several sizes and numbers where they are free."""
    rng = np.random.default_rng(0)
    for n, free in ((1, (64, 96)), (3, (48, 32)), (2, (240, 320))):
        sides = (side or other for side, other in zip(model.input_shape[1:3], free, strict=True))
        yield rng.integers(0, 256, (n, *sides, 3), np.uint8)


def _rename(graph: Any, names: list[str]) -> None:
    """Give outputs their names, and sizes that are free the same ones in all files."""
    new = dict(zip((output.name for output in graph.output), names, strict=True))
    for node in graph.node:
        node.output[:] = [new.get(tensor, tensor) for tensor in node.output]
        node.input[:] = [new.get(tensor, tensor) for tensor in node.input]
    free = ("n", "height", "width")
    for place, tensor in enumerate([*graph.input, *graph.output]):
        tensor.name = new.get(tensor.name, tensor.name)
        for axis, side in enumerate(tensor.type.tensor_type.shape.dim):
            if not side.dim_value:
                halved = " / 2" if place and axis else ""
                side.dim_param = f"{free[axis]}{halved}"


# Weights that ship with the package

Build = Callable[[dict[str, Any]], Any]
"""Makes, of the facts, the network that takes the weights."""


def load_shipped(
    name: str, task: str, build: Build | None = None, exact: bool = False
) -> tuple[Any, dict[str, Any]]:
    """Load a network that ships with the package under this name, and its facts.

    It comes as an `OnnxNetwork`; unless it shall be `exact`, in whole numbers of 8 bits where such
    a file ships, and its facts then say `numbers`. Where it is said how to `build` it, it comes as
    Keras's model. `task` is a key that the facts of such a network have, and those of others have
    not. Raises `InvalidParameter` if no such network ships; the message names those that do.
    """
    folder = Path(str(resources.files("wbc_helpers"))) / "weights"
    shipped = {}
    for file in folder.glob("*.json"):
        about = json.loads(file.read_text(encoding="utf-8"))
        if task in about:
            shipped[file.stem] = about
    if not isinstance(name, str) or name not in shipped:
        raise InvalidParameter(
            f"No weights {name!r} for this ship with the package. Expected one of those that do: "
            f"{', '.join(sorted(shipped)) or 'none'}; or ask a run of your own, see of_run."
        )
    about, in_whole_numbers = shipped[name], folder / f"{name}.int8.onnx"
    if build is not None:
        model = build(about)
        model.load_weights(folder / f"{name}.weights.h5")
        return model, about
    if in_whole_numbers.is_file() and not exact:
        return open_onnx(in_whole_numbers), {**about, "numbers": "int8"}
    return open_onnx(folder / f"{name}.onnx"), about


def ship(model: Any, about: dict[str, Any], build: Build, folder: Path, name: str) -> None:
    """Write a network without the optimizer, as weights and as ONNX, and its facts.

    `load_shipped` finds them. Raises `BrokenRun` if the saved weights, in the network that the
    facts build, or the ONNX file do not give the same answers.
    """
    probe = next(_probes(model))
    with storage.atomic_file(folder / f"{name}.weights.h5") as partial:
        model.save_weights(partial, overwrite=True)
        again = build(about)
        again.load_weights(partial)
        before, after = (asked.predict_on_batch(probe) for asked in (model, again))
        if not np.allclose(before, after, atol=1e-5):
            raise BrokenRun(
                f"The weights of {name!r} give other answers after saving, so that nothing was "
                "shipped. Expected a run of this version's recipe; train it again."
            )
        write_onnx(again, folder / f"{name}.onnx", {"weights_sha256": digest(partial)})
    # Of the weights before, and to be made of these.
    (folder / f"{name}.int8.onnx").unlink(missing_ok=True)
    storage.write_json(folder / f"{name}.json", about)


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
