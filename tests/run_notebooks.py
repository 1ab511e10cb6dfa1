"""Notebooks executed as they are, with parameters for a run in seconds."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import papermill

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"


def parameters(name: str, sample_folder: Path, folder: Path) -> dict:
    """Small parameters for a run in seconds."""
    common = {"source": str(sample_folder), "data_dir": str(folder / "data")}
    if name == "00_your_slide":
        return {"data_dir": str(folder / "data"), "runs_dir": str(folder / "runs")}
    return common | {
        "02_explore": {"image_size": [30, 40]},
        "03_train": {
            "epochs": 1,
            "image_size": [30, 40],
            "runs_dir": str(folder / "runs"),
            "run": "tiny",
        },
        "05_audit": {"runs_dir": str(folder / "runs"), "epochs": 1},
        "06_count": {"runs_dir": str(folder / "runs"), "epochs": 1},
        "04_evaluate": {"runs_dir": str(folder / "runs")},
        "07_laboratories": {"cells_each": 6, "draws": 2},
    }.get(name, {})


def check_that_it_runs(name: str, sample_folder: Path, folder: Path) -> None:
    """Run it under nbval from a fresh folder: no notebook needs another to have run before."""
    build = ROOT / "build" / "nbval" / name
    build.mkdir(parents=True, exist_ok=True)
    prepared = build / f"{name}.ipynb"
    papermill.execute_notebook(
        NOTEBOOKS / f"{name}.ipynb",
        prepared,
        parameters(name, sample_folder, folder),
        prepare_only=True,
        progress_bar=False,
    )
    options = ["--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout", "300"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, str(prepared)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    shutil.rmtree(build, ignore_errors=True)
