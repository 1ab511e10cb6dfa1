"""The sample's photographs and its audit, and a drawn field: made once for all tests here."""

import json
import shutil

import numpy as np
import pytest

from wbc_helpers.audit import origins, overlaps
from wbc_helpers.data import catalog, sample


@pytest.fixture(scope="session")
def photographs(sample_folder) -> dict[str, np.ndarray]:
    folder = catalog.photographs_folder(sample_folder)
    return overlaps.read_photographs(folder, progress=False)


@pytest.fixture(scope="session")
def report(sample_folder, tmp_path_factory) -> origins.AuditReport:
    """The audit of two images a photograph and split, which are enough to find everything."""
    folder = tmp_path_factory.mktemp("audited") / "sample"
    truth = sample.truth(shutil.copytree(sample_folder, folder))
    surplus = truth.groupby([truth["file"].str.split("/").str[0], "source_id"]).cumcount() >= 2
    for file in truth.loc[surplus, "file"]:
        (catalog.images_folder(folder) / file).unlink()
    return origins.audit(folder, progress=False)


@pytest.fixture(scope="session")
def true_pairs(sample_folder) -> list[dict]:
    return json.loads((sample_folder / "sample.json").read_text())["overlaps"]


@pytest.fixture(scope="session")
def field() -> np.ndarray:
    """A field of 700×500 half-size pixels: red cells at random, one white cell at 400, 250."""
    random = np.random.default_rng(4)
    y, x = np.mgrid[:500, :700]
    pixels = np.full((500, 700, 3), (215, 210, 215), float)
    for _ in range(260):
        cx, cy, radius = random.uniform(0, 700), random.uniform(0, 500), random.uniform(10, 26)
        stretch, tone = random.uniform(0.6, 1.6), random.uniform(0.75, 1.05)
        inside = ((x - cx) * stretch) ** 2 + (y - cy) ** 2 < radius**2
        pixels[inside] = np.array([205, 150, 150]) * tone
    pixels[(x - 400) ** 2 + (y - 250) ** 2 < 26**2] = (110, 70, 180)
    return np.clip(pixels + random.normal(0, 4, pixels.shape), 0, 255).astype(np.uint8)
