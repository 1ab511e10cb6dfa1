"""What BCCD's own boxes leave out: `python benchmarks/complete_boxes.py`.

Counts its boxes beside TXL-PBC's of the same photographs, whole cells and cells cut by the frame
apart: of all photographs that both have, and of those in BCCD's test list. Then finds of which of
BCCD's photographs the square ones of TXL-PBC are copies.
"""

import argparse
from pathlib import Path

from wbc_helpers.audit import labels, overlaps
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
    copies = missing.complete.photographs.query("width == height == 416")
    copies = copies.set_index("photograph")["path"]
    photographs = overlaps.read_photographs(folders[options.boxed], progress=False)
    found = overlaps.find_originals(copies, photographs, progress=False)
    known = splits.originals()["original"].reindex(found.index)
    print(f"{len(found)} of {len(copies)} square photographs are copies; of "
          f"{(known == found).sum()} the package names the same original")  # fmt: skip


if __name__ == "__main__":
    main()
