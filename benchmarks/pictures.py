"""Make the pictures of the README from drawn cells: a counted smear, a run's page, a count.

    python benchmarks/pictures.py

Draws the sample, counts its smears, trains `compact` on it (minutes), and takes the pages'
pictures in headless Chromium into `docs/images`. No photograph of a patient's blood is shown.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]

WIDTH = 1000  # pixels of a picture; the README's column is about as wide
LARGEST = 150_000  # bytes of a picture


def wbc(*arguments: str | Path) -> None:
    """Run a command of the package, and stop where it stops."""
    subprocess.run(
        [sys.executable, "-m", "wbc_helpers", *map(str, arguments)], cwd=ROOT, check=True
    )


def page_of_a_full_smear(counted: Path, drawn: Path) -> Path:
    """Page of the smear that shows most cells, of those whose white cells were named rightly."""
    boxes = pd.read_csv(counted / "cells.csv")
    white = boxes[boxes["kind"] == "WBC"].groupby("file").agg(
        cell_types=("cell_type", lambda names: ", ".join(sorted(names)).upper()),
        answered=("answered", "all"),
    )  # fmt: skip
    # In the order in which the photographs were drawn and are named.
    truth = pd.Series(
        pd.read_csv(drawn / "labels.csv")["Category"].to_numpy(),
        index=sorted(path.name for path in (drawn / "JPEGImages").iterdir()),
    )
    right = white.index[white["answered"] & (white["cell_types"] == truth[white.index])]
    fullest = boxes.loc[boxes["file"].isin(right), "file"].value_counts().index[0]
    return next((counted / "smears").glob(f"{Path(fullest).stem}-*.html"))


def take(browser, page: Path, picture: Path, height: int, part: str) -> None:
    """Take `height` pixels of a page, from the top of a part on, as a small file."""
    view = browser.new_page(viewport={"width": WIDTH, "height": height})
    view.goto(page.resolve().as_uri())
    view.evaluate("part => scrollTo(0, part && document.querySelector(part).offsetTop - 60)", part)
    view.wait_for_timeout(1000)  # until the gallery's pictures are cut out
    shot = picture.with_suffix(".png")
    view.screenshot(path=shot)
    view.close()
    with Image.open(shot) as pixels:
        pixels.convert("RGB").save(picture, "WEBP", quality=80, method=6)
    shot.unlink()
    if picture.stat().st_size > LARGEST:
        sys.exit(f"{picture} has {picture.stat().st_size:,} bytes, more than {LARGEST:,}.")
    print(f"{picture}: {picture.stat().st_size:,} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scratch", type=Path, default=ROOT / "build" / "pictures")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images")
    options = parser.parse_args()
    from playwright.sync_api import sync_playwright

    from wbc_helpers.data import sample

    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    chromium = next(filter(None, map(shutil.which, names)), None)
    if chromium is None:
        sys.exit("No Chromium was found. On Debian: apt-get install chromium")
    data, runs = options.scratch / "data", options.scratch / "runs"
    drawn = sample.draw_sample(data / "sample") / "dataset-master" / "dataset-master"
    counted = options.scratch / "report"
    wbc("count", drawn / "JPEGImages", "--out", counted)
    wbc("run", "--source", "sample", "--recipe", "compact", "--run", "drawn-cells",
        "--data-dir", data, "--runs-dir", runs)  # fmt: skip
    options.out.mkdir(parents=True, exist_ok=True)
    pages = {
        "smear": (page_of_a_full_smear(counted, drawn), 1000, ""),
        "count": (counted / "index.html", 700, ".work"),
        "run": (runs / "drawn-cells" / "index.html", 900, "h1"),
    }
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name, (page, height, part) in pages.items():
            take(browser, page, options.out / f"{name}.webp", height, part)
        browser.close()


if __name__ == "__main__":
    main()
