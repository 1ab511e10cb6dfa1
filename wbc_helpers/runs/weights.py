"""Weights that ship with the package: `<name>.json` with their facts, and `<name>.weights.h5`.

Their model cards stand beside them in `wbc_helpers/weights/`.
"""

import json
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from wbc_helpers import storage
from wbc_helpers.errors import BrokenRun, InvalidParameter

Build = Callable[[dict[str, Any]], Any]
"""Makes, of the facts, the network that takes the weights."""


def load(name: str, task: str, build: Build) -> tuple[Any, dict[str, Any]]:
    """Load a network whose weights ship with the package under this name, and its facts.

    `task` is a key that the facts of such a network have, and those of others have not. Raises
    `InvalidParameter` if no such weights ship; the message names those that do.
    """
    folder = resources.files("wbc_helpers") / "weights"
    shipped = {}
    for file in folder.iterdir() if folder.is_dir() else ():
        if file.name.endswith(".json"):
            about = json.loads(file.read_text(encoding="utf-8"))
            if task in about:
                shipped[file.name.removesuffix(".json")] = about
    if not isinstance(name, str) or name not in shipped:
        raise InvalidParameter(
            f"No weights {name!r} for this ship with the package. Expected one of those that do: "
            f"{', '.join(sorted(shipped)) or 'none'}; or ask a run of your own, see of_run."
        )
    model = build(shipped[name])
    with resources.as_file(folder / f"{name}.weights.h5") as path:
        model.load_weights(path)
    return model, shipped[name]


def ship(model: Any, about: dict[str, Any], build: Build, folder: Path, name: str) -> None:
    """Write a network's weights without the optimizer, and its facts, for `load` to find.

    Raises `BrokenRun` if the saved weights, in the network that the facts build, do not give the
    same answers.
    """
    sides = (side or 64 for side in model.input_shape[1:3])
    probe = np.random.default_rng(0).integers(0, 256, (4, *sides, 3), np.uint8)
    with storage.atomic_file(folder / f"{name}.weights.h5") as partial:
        model.save_weights(partial, overwrite=True)
        again = build(about)
        again.load_weights(partial)
        before, after = (np.asarray(asked.predict_on_batch(probe)) for asked in (model, again))
        if not np.allclose(before, after, atol=1e-5):
            raise BrokenRun(
                f"The weights of {name!r} give other answers after saving, so that nothing was "
                "shipped. Expected a run of this version's recipe; train it again."
            )
    storage.write_json(folder / f"{name}.json", about)
