"""Fixtures shared by all tests: drawn cells, the real archive where there is one, a browser."""

import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

# Must stand before anything imports Matplotlib: test machines have no screen.
os.environ.setdefault("MPLBACKEND", "Agg")
if "PYTEST_XDIST_WORKER" in os.environ:
    # Processes that share the cores would wait for each other's threads.
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
    os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")

from wbc_helpers import cells
from wbc_helpers.classify import inputs
from wbc_helpers.data import catalog, sample, sources
from wbc_helpers.pixels import views

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def sample_folder(tmp_path_factory) -> Path:
    """Draw the sample once, for all processes that share the tests; tests only read it."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    return sample.draw_sample(folder / "drawn-sample")


@pytest.fixture(scope="session")
def sample_catalog(sample_folder) -> pd.DataFrame:
    return catalog.find_images(sample_folder)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder that holds the real `blood-cells.zip`; tests that need it are skipped without."""
    folder = os.environ.get("WBC_REAL_DATA")
    if not folder or not (Path(folder) / "blood-cells.zip").is_file():
        pytest.skip("WBC_REAL_DATA names no folder with blood-cells.zip")
    return Path(folder).resolve()


@pytest.fixture(scope="session")
def real_folder(real_data, tmp_path_factory) -> Path:
    """Unpack the real archive once."""
    return sources.fetch(
        str(real_data / "blood-cells.zip"), tmp_path_factory.mktemp("real"), progress=False
    )


@pytest.fixture(scope="session")
def real_bccd(tmp_path_factory) -> Path:
    """Unpack the real archive of boxed photographs once; tests are skipped without."""
    folder = Path(os.environ.get("WBC_REAL_DATA") or "nowhere")
    archives = sorted(folder.glob("BCCD_Dataset-*"))
    if not archives:
        pytest.skip("WBC_REAL_DATA names no folder with the archive of BCCD_Dataset")
    return sources.fetch(archives[0], tmp_path_factory.mktemp("bccd"), False, "photographs")


@pytest.fixture(scope="session")
def real_txl(tmp_path_factory) -> Path:
    """Unpack the real archive of TXL-PBC once; tests are skipped without."""
    folder = Path(os.environ.get("WBC_REAL_DATA") or "nowhere")
    archives = sorted(folder.glob("TXL-PBC_Dataset-*"))
    if not archives:
        pytest.skip("WBC_REAL_DATA names no folder with the archive of TXL-PBC")
    return sources.fetch(archives[0], tmp_path_factory.mktemp("txl"), False, "photographs")


@pytest.fixture(scope="session")
def browser_path() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome", "chrome"):
        if path := shutil.which(name):
            return path
    pytest.skip("no Chromium on this machine")


@pytest.fixture(scope="module")
def chromium(browser_path):
    playwright = pytest.importorskip("playwright.sync_api")
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(browser_path), args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def eager():
    """Train without compiling, which takes several times as long as so small a training."""
    _run_eagerly(True)
    yield
    _run_eagerly(False)


@pytest.fixture
def compiled(eager):
    """Compile after all."""
    _run_eagerly(False)
    yield
    _run_eagerly(True)


def _run_eagerly(eagerly):
    from wbc_helpers.runs.backend import keras

    if keras.config.backend() == "tensorflow":
        import tensorflow

        tensorflow.config.run_functions_eagerly(eagerly)


@pytest.fixture
def tiny_folder(tmp_path) -> Path:
    """Class folders with five plain 32x48 images each: one colour a type, easy to learn."""
    colors = {"EOSINOPHIL": "red", "LYMPHOCYTE": "blue", "MONOCYTE": "lime", "NEUTROPHIL": "white"}
    root = tmp_path / "tiny"
    for split in ("TRAIN", "TEST"):
        for name in cells.BY_FOLDER:
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(5):
                Image.new("RGB", (48, 32), colors[name]).save(folder / f"_0_{number}.jpeg")
    return root


@pytest.fixture(scope="session")
def noise() -> tuple[pd.DataFrame, np.ndarray]:
    """Forty 16x16 images of noise with a catalog: nothing to learn, everything to count."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)
    names = np.array(cells.NAMES)[np.arange(40) % 4]
    table = pd.DataFrame({"file": [f"TRAIN/{name}/{i}.jpeg" for i, name in enumerate(names)]})
    table["cell_type"] = pd.Categorical(names, categories=cells.NAMES)
    return table, pixels


@pytest.fixture
def drawn_from():
    """Eight photographs, two a type, each a patch of its own grey level; and their images."""
    names = np.array(cells.NAMES)[np.arange(8) % 4]
    sources = [f"photograph-{number}" for number in range(8)]
    side = views.patch_size(16)
    levels = np.arange(8, dtype=np.uint8)[:, None, None, None] * 20 + 40
    pixels = np.broadcast_to(levels, (8, side, side, 3)).copy()
    known = pd.DataFrame({"source_id": sources, "cell_type": names, "file": pd.NA})
    patches = inputs.Patches(pixels, known)
    rows = pd.DataFrame({"file": [f"{number}.jpeg" for number in range(8)]})
    rows["source_id"], rows["cell_type"] = sources, names
    return patches, rows
