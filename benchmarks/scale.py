"""How fast photographs are counted by workers, whether a dead one matters, and what a million take.

    python benchmarks/scale.py --source bccd --photographs 1000

The folder's photographs are copied under other names until there are enough, counted in one process
and by `--workers`, and once more while one of two workers is killed half-way. Whatever the way, the
tables have to be the same to the byte.
"""

import argparse
import resource
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

import pandas as pd
import psutil

from wbc_helpers.count import detector, smears
from wbc_helpers.data import sources
from wbc_helpers.errors import WbcError
from wbc_helpers.pixels.images import find_photographs
from wbc_helpers.runs.backend import Workers

TABLES = (smears.CELLS, smears.COUNTS, smears.FAILURES)


def cpu_seconds() -> float:
    """Of this process and of its children that have ended."""
    used = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


def kill_half_way(journal: Path, n_photographs: int) -> None:
    """Kill a worker of this process as soon as half of the photographs are counted."""
    while not journal.is_file() or journal.read_bytes().count(b"\n") < n_photographs / 2:
        time.sleep(0.2)
    children = psutil.Process().children(recursive=True)
    next(child for child in children if "spawn_main" in " ".join(child.cmdline())).kill()


def count(folder: Path, out: Path, workers: Workers, n_killed: int = 0) -> dict[str, object]:
    """Count a folder; a row of the printed table."""
    reader = detector.load_reader()
    n_photographs = len(find_photographs(folder)[1])
    if n_killed:
        arguments = (out / smears.JOURNAL, n_photographs)
        threading.Thread(target=kill_half_way, args=arguments, daemon=True).start()
    started, cpu = time.perf_counter(), cpu_seconds()
    smears.count_folder(folder, out, reader, workers=workers)
    seconds = time.perf_counter() - started
    return {
        "workers": workers.n or "this process",
        "killed": n_killed,
        "seconds": round(seconds),
        "photographs/s": round(n_photographs / seconds, 2),
        "CPU s each": round((cpu_seconds() - cpu) / n_photographs, 3),
    }


def main() -> int:
    """Print the table, and what a million photographs take."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", default="bccd", help="bccd, an archive or a folder")
    parser.add_argument("--data-dir", default="data", type=Path)
    parser.add_argument("--photographs", default=1000, type=int)
    parser.add_argument("--workers", nargs="*", default=[0, 1, 2], type=int)
    parser.add_argument(
        "--price", default=0.05, type=float, help="of a core for an hour, in dollars"
    )
    options = parser.parse_args()
    try:
        place = sources.fetch(options.source, options.data_dir, holds="photographs")
        folder, names, _ = find_photographs(place)
        with tempfile.TemporaryDirectory() as scratch:
            copies = Path(scratch, "photographs")
            copies.mkdir()
            for number in range(options.photographs):
                original = folder / names[number % len(names)]
                shutil.copy(original, copies / f"{number:06}{Path(original).suffix}")
            ways = [*((n, 0) for n in options.workers), (2, 1)]
            rows, tables = [], []
            for number, (n, n_killed) in enumerate(ways):
                out = Path(scratch, f"counted-{number}")
                rows.append(count(copies, out, Workers(n=n or None), n_killed))
                tables.append([(out / name).read_bytes() for name in TABLES])
                print(rows[-1], flush=True)
                if tables[-1] != tables[0]:
                    raise SystemExit("The tables differ.")
    except WbcError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    print(pd.DataFrame(rows).to_string(index=False))
    hours = float(min(row["CPU s each"] for row in rows)) * 1e6 / 3600
    print(
        f"The tables are the same to the byte. A million take {hours:,.0f} core hours: "
        f"{hours / 64:,.1f} hours on 64 cores; {hours * options.price:,.0f} dollars at "
        f"{options.price} a core hour."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
