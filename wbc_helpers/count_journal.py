"""What has been counted so far, a line a photograph: counting goes on where it was cut off.

What was found in a photograph is written down before the next ones are looked at, a line each in
`counted.jsonl`; tables and pages are made of these lines at the end. So memory does not grow with
the folder, an interruption costs a few photographs, and one that was added later is counted alone.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from wbc_helpers import smear_reading, storage
from wbc_helpers.annotations import BOX
from wbc_helpers.errors import RunExists

JOURNAL, SETTINGS = "counted.jsonl", "settings.json"

# Said, since a table without rows would have none.
_DTYPES = {
    **dict.fromkeys(("kind", "cell_type"), "string"),
    **dict.fromkeys((*BOX, "score", "type_probability"), float),
    **dict.fromkeys(("counted", "unsure"), bool),
    "answered": "boolean",
}


def open_folder(out: Path, described: dict[str, Any]) -> dict[str, Any]:
    """Begin in a new folder, or go on in one that holds the same counts; return its settings."""
    # As they come back from JSON.
    described = json.loads(json.dumps(described))
    settings = out / SETTINGS
    if settings.is_file():
        try:
            kept = json.loads(settings.read_text(encoding="utf-8"))
        except (ValueError, OSError):
            kept = {}
        differing = [key for key, value in described.items() if kept.get(key) != value]
        if not differing:
            return kept
        raise RunExists(
            f"{out} holds results that differ in {', '.join(differing)}. Nothing is overwritten: "
            "choose another folder, or the same photographs and settings to go on with it."
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunExists(
            f"{out} exists and holds something else. Nothing is overwritten: choose a new folder."
        )
    kept = {**described, "estimated_red_cell": None, "photographs_for_scale": 0}
    storage.make_folder(out)
    storage.write_json(settings, kept)
    return kept


def stamp_of(path: Path) -> list[int] | None:
    """Tell what changes with a file: its size and when it was written; None without a file."""
    try:
        about = path.stat()
    except OSError:
        return None
    return [about.st_size, about.st_mtime_ns]


def read_stamps(out: Path) -> dict[str, list[int]]:
    """Read the stamps of what is counted; cut off what an interruption left half written."""
    journal = out / JOURNAL
    if not journal.is_file():
        return {}
    done, whole = {}, 0
    with journal.open("rb") as lines:
        for line in lines:
            try:
                counted = json.loads(line)
                file, stamp = counted["file"], counted["stamp"]
            except (ValueError, TypeError, KeyError):
                break
            if not line.endswith(b"\n"):
                break
            done[file] = stamp
            whole += len(line)
    if whole < journal.stat().st_size:
        with journal.open("r+b") as lines:
            lines.truncate(whole)
    return done


def read_counted(out: Path, images: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Read what was found in photographs, one after the other, in the order asked for.

    Parameters
    ----------
    out : Path
        See `count_folder`.
    images : iterable of str
        Files that are counted.

    Yields
    ------
    dict
        `file`, `width` and `height` in pixels, and `boxes`, a DataFrame of
        `smear_reading.COLUMNS`.
    """
    places, place = {}, 0
    with (out / JOURNAL).open("rb") as lines:
        for line in lines:
            # The last one counts: a file that changed was counted again.
            places[json.loads(line)["file"]] = place
            place += len(line)
        for image in images:
            lines.seek(places[image])
            counted = json.loads(lines.readline())
            boxes = pd.DataFrame(counted["boxes"], columns=smear_reading.COLUMNS)
            yield {**counted, "boxes": boxes.astype(_DTYPES)}
