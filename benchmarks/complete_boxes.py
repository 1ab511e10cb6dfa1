"""What BCCD's own boxes leave out: `python benchmarks/complete_boxes.py`.

Counts its boxes beside TXL-PBC's of the same photographs, whole cells and cells cut by the frame
apart: of all photographs that both have, and of those in BCCD's test list.
"""

import argparse
from pathlib import Path

from wbc_helpers.audit import labels
from wbc_helpers.data import sources, splits

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--boxed", default="bccd", help="source of photographs")
    parser.add_argument("--complete", default="txl", help="source of the same, completely boxed")
    parser.add_argument("--data-dir", default=ROOT / "data", type=Path)
    options = parser.parse_args()
    folders = {
        source: sources.fetch(source, options.data_dir, holds="photographs")
        for source in (options.boxed, options.complete)
    }
    missing = labels.missing_boxes(*folders.values())
    parts = splits.read_lists(folders[options.boxed])
    test = missing.twins.index[missing.twins.index.map(parts) == "test"]
    for title, names in (
        ("Photographs that both have", missing.twins.index),
        ("In the test list", test),
    ):
        print(f"{title}: {len(names)}\n{missing.total(names).round(3).to_string()}\n")


if __name__ == "__main__":
    main()
