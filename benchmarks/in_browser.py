"""The page that reads in the browser: its size, its time to an answer, how like Python it is.

Writes the page of `wbc page`, opens it in Chromium from disk and without a network, and drops
photographs of 640 × 480 pixels on it: drawn ones, or those of --source. Every box is compared with
the same one that `wbc count` finds.
"""

import argparse
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Page, sync_playwright

from wbc_helpers.cells import BOX
from wbc_helpers.count import detector, pages, smears
from wbc_helpers.data import sources
from wbc_helpers.pixels import images

ROOT = Path(__file__).resolve().parents[1]


def read(tab: Page, files: list[Path]) -> tuple[dict[str, dict[str, Any]], float]:
    """Give what the page reads in files, and the seconds that it took."""
    started = time.perf_counter()
    before = tab.evaluate("window.wbcReadings.length")
    tab.set_input_files("#files", [str(file) for file in files])
    n_files = before + len(files)
    tab.wait_for_function(
        "n => window.wbcReadings.length === n", arg=n_files, polling=20, timeout=3_600_000
    )
    seconds = time.perf_counter() - started
    readings = tab.evaluate("n => window.wbcReadings.slice(n)", before)
    return {reading["file"]: reading for reading in readings}, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", default="sample", help="as for wbc run (default: drawn cells)")
    parser.add_argument("--data-dir", default=ROOT / "data", type=Path)
    parser.add_argument("--photographs", default=20, type=int, help="so many, spread evenly")
    parser.add_argument("--browser", default="/usr/bin/chromium", help="Chromium's path")
    options = parser.parse_args()
    folder = sources.fetch(options.source, options.data_dir, holds="photographs")
    usable = [
        folder / name
        for name in images.find_photographs(folder)[1]
        if images.size_of(folder / name) == (480, 640)
    ]
    places = np.linspace(0, len(usable) - 1, min(options.photographs, len(usable))).round()
    files = [usable[int(place)] for place in places]
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as driver:
        page = pages.write_reader(Path(scratch) / "page.html", options.data_dir)
        print(f"Size of the page: {page.stat().st_size / 1e6:.1f} MB")
        chromium = driver.chromium.launch(executable_path=options.browser, args=["--no-sandbox"])
        tab = chromium.new_context(offline=True).new_page()
        started = time.perf_counter()
        tab.goto(page.as_uri())
        tab.wait_for_function("document.body.dataset.networks", polling=20, timeout=600_000)
        print(f"Opened and ready after {time.perf_counter() - started:.1f} s")
        _, first = read(tab, files[:1])
        print(f"First answer, 640 × 480 pixels: {first:.1f} s after the drop")
        _, second = read(tab, files[1:2])
        print(f"The next one: {second:.1f} s")
        photographs = Path(scratch) / "photographs"
        photographs.mkdir()
        for file in files:
            shutil.copy(file, photographs)
        readings, seconds = read(tab, sorted(photographs.iterdir()))
        print(f"{len(files)} photographs together: {seconds / len(files):.1f} s each")
        chromium.close()
        out = Path(scratch) / "out"
        exact = detector.load_reader(exact=True)
        smears.count_folder(photographs, out, exact, progress=False, adapt=False)
        apart, scores, shares, n_types, n_white, n_other = [0.0], [0.0], [0.0], 0, 0, 0
        for ours in smears.read_counted(out, sorted(readings)):
            theirs = list(readings[ours["file"]]["boxes"])
            for row in ours["boxes"].to_dict("records"):
                corners = np.array([row[edge] for edge in BOX])
                alike = [box for box in theirs if box["kind"] == row["kind"]]
                off = [np.abs(np.array(box["box"]) - corners).max() for box in alike]
                if not off or min(off) > 5:
                    n_other += 1
                    continue
                box = alike[int(np.argmin(off))]
                theirs.remove(box)
                apart.append(min(off))
                scores.append(abs(box["score"] - row["score"]))
                if row["kind"] == "WBC" and row["counted"]:
                    n_white += 1
                    n_types += box["cell_type"] == row["cell_type"]
                    shares.append(abs(box["type_probability"] - row["type_probability"]))
            n_other += len(theirs)
        print(
            f"Beside Python in float32: {len(apart) - 1:,} boxes at most {max(apart):.1f} pixels "
            f"apart, their scores {max(scores):.4f}; {n_other} in one of both alone"
        )
        print(
            f"Types of {n_types} of {n_white} white cells equal, probabilities at most "
            f"{max(shares):.4f} apart"
        )


if __name__ == "__main__":
    main()
