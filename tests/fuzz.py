"""Broken input of every kind, made up as long as is wanted: `make fuzz BUDGET=600`.

Sound files are changed at random (Hypothesis, which then looks for the smallest change that does
it): images, boxes, archives, tables, records, run folders, names and HTML. Whatever they are, only
errors with names may come, within `HANG` seconds and `MEMORY` bytes, nothing may be written beside
the folder that is meant, a broken file may not keep the sound one beside it from being read, and
cleaned HTML loads nothing.
"""

import argparse
import contextlib
import faulthandler
import io
import json
import os
import shutil
import signal
import sys
import tarfile
import tempfile
import time
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
from bs4 import BeautifulSoup
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image
from written_files import RUN_SETTINGS, begin_run

from wbc_helpers import pipeline, storage
from wbc_helpers.audit import origins
from wbc_helpers.classify import training
from wbc_helpers.count import smears
from wbc_helpers.data import annotations, archives
from wbc_helpers.errors import DataMismatch, DataNotFound, UnreadableImage, WbcError
from wbc_helpers.evaluate import classification, confidence
from wbc_helpers.pixels import images
from wbc_helpers.report import records, rendering
from wbc_helpers.runs import folders

HANG = 10
MEMORY = 6 * 2**30
A_ROUND = 20  # examples of one kind before the next kind has its turn

TOKENS = [
    b"", b"\0", b"\xff", b"\xff\xfe", b"9" * 400, b"-1", b"1e999", b"NaN", b"null", b"true", b"[]",
    b"{}", b"[" * 2000, b'{"a":' * 2000, b'"', b"'", b",", b";", b"\n", b"\r", b"..", b"../", b"/",
    b"\\", b"=1+1", b"<", b">", b"&#0;", b"&a;", b"<!DOCTYPE a [<!ENTITY a 'a'>]>", b"gbk", b"idna",
    b"utf-7", b"base64", b"\x1b[2J", "é白".encode(), b"PK\x01\x02", b"GNU.sparse.major=1",
    b"<script>", b" onload=a ", b"src=//a.b/c",
]  # fmt: skip
EDITS = st.lists(
    st.tuples(
        st.sampled_from(["put", "replace", "cut", "end", "double"]),
        st.floats(0, 1),
        st.sampled_from(TOKENS) | st.binary(min_size=1, max_size=8),
    ),
    min_size=1,
    max_size=6,
)


def changed(content, edits):
    for how, place, token in edits:
        at = int(place * len(content))
        if how == "put":
            content = content[:at] + token + content[at:]
        elif how == "replace":
            content = content[:at] + token + content[at + max(len(token), 1) :]
        elif how == "cut":
            content = content[:at] + content[at + 8 * len(token) :]
        elif how == "end":
            content = content[:at]
        else:
            content = content[:at] + content[at // 2 :]
    return content[:2_000_000]


# Sound files


def pictures():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8))
    turned = Image.Exif()
    turned[0x0112] = 6
    sorts = {
        "jpg": {}, "png": {}, "tif": {}, "bmp": {}, "webp": {}, "gif": {},
        "jpeg": {"exif": turned, "progressive": True}, "tiff": {"compression": "tiff_lzw"},
        "jp2": {},
    }  # fmt: skip
    for suffix, options in sorts.items():
        written = io.BytesIO()
        noise.save(written, images._FORMAT_OF_SUFFIX[f".{suffix}"], **options)
        yield f"a.{suffix}", written.getvalue()
    import cv2

    yield "deep.png", cv2.imencode(".png", np.full((24, 32, 3), 3000, np.uint16))[1].tobytes()


BOX = (
    "<object><name>WBC</name><bndbox><xmin>2</xmin><ymin>2</ymin><xmax>20</xmax><ymax>20</ymax>"
    "</bndbox></object>"
)
SIZE = "<size><width>32</width><height>24</height></size>"
XML = f'<?xml version="1.0" encoding="utf-8"?><annotation>{SIZE}{BOX}</annotation>'.encode()
COCO = {
    "images": [
        {"id": number, "file_name": f"{name}.png", "width": 32, "height": 24}
        for number, name in enumerate("ab")
    ],
    "categories": [{"id": 1, "name": "WBC"}],
    "annotations": [{"image_id": n, "category_id": 1, "bbox": [2, 2, 18, 18]} for n in (0, 1)],
}
YOLO = b"0 .5 .5 .2 .2\n"


def archived():
    files = {"d/TRAIN/a.jpeg": b"a" * 300, "d/TEST/b.jpeg": bytes(range(256)), "d/c/": b""}
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        written = io.BytesIO()
        with zipfile.ZipFile(written, "w", method) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        yield "a.zip", written.getvalue()
    pax, gnu = tarfile.PAX_FORMAT, tarfile.GNU_FORMAT
    for mode, form in (("w", pax), ("w", gnu), ("w:gz", pax)):
        written = io.BytesIO()
        with tarfile.open(fileobj=written, mode=mode, format=form) as archive:
            for name, content in files.items():
                member = tarfile.TarInfo(name + ("é" * 90 if content else ""))
                member.size, member.pax_headers = len(content), {"comment": "a"}
                archive.addfile(member, io.BytesIO(content))
        yield "a.tar.gz" if mode == "w:gz" else "a.tar", written.getvalue()


RUN = {**RUN_SETTINGS, "training": {**RUN_SETTINGS["training"], "epochs": 1}}
SCORE = {
    "n_images": 2, "accuracy": 0.5, "balanced_accuracy": 0.5, "interval_by_photograph": [0.1, 0.9],
}  # fmt: skip
EVALUATION = {
    "format": 1, "run": "damaged", "recipe": "paper", "epochs": 1, "parameters": 10,
    "seconds": {"train": 1.0}, "train": {"n_images": 2}, "validation": {**SCORE, "split": "random"},
    "test": {**SCORE, "confusion": [[1] * 4] * 4},
}  # fmt: skip
OUTPUT = {
    "output_type": "execute_result", "execution_count": 1, "metadata": {},
    "data": {"text/html": "<table><tr><td>1</td></tr></table>"},
}  # fmt: skip
NOTEBOOK = {
    "nbformat": 4, "nbformat_minor": 5,
    "metadata": {"papermill": {"duration": 1.0, "parameters": {"run": "a"}}},
    "cells": [
        {"cell_type": "markdown", "id": "a", "metadata": {},
         "source": "# Title\n<img src='https://a.b/c.png'>"},
        {"cell_type": "code", "id": "b", "metadata": {"tags": ["parameters"]}, "source": "1",
         "execution_count": 1, "outputs": [OUTPUT]},
    ],
}  # fmt: skip


def begin(runs_dir, name):
    """Write a run of one epoch, complete and evaluated; its files."""
    run = begin_run(runs_dir, name)
    storage.write_json(run.folder / "evaluation.json", EVALUATION)
    storage.write_json(run.folder / "03_train.ipynb", NOTEBOOK)
    storage.write_json(run.folder / "crossval.json", RUN)
    storage.write_json(run.folder / "calibration.json", {
        "format": confidence.FORMAT, **dict.fromkeys(confidence.Calibration.__annotations__, 1.0)
    })  # fmt: skip
    columns = {name: ["0.25", "0.25"] for name in classification.COLUMNS}
    columns |= {"file": ["a", "b"], "split": ["TEST"] * 2}
    columns |= dict.fromkeys(("cell_type", "predicted"), ["monocyte"] * 2)
    pd.DataFrame(columns).to_csv(run.folder / "predictions.csv", index=False)
    return run.folder


# What is asked of them


def ask(question, *of, expected=WbcError):
    """Ask; an error with a name is an answer."""
    try:
        return question(*of)
    except expected:
        return None


def fuzz_images(folder, name, content):
    (folder / name).write_bytes(content)
    ask(images.count_sizes, [folder / name], expected=UnreadableImage)
    for question in (images.read_photograph, images.size_of):
        ask(question, folder / name, expected=UnreadableImage)
    ask(images.read_photograph, folder / name, (12, 16), expected=UnreadableImage)
    ask(images.decode, [folder / name], (12, 16), folder / "cache", False, expected=UnreadableImage)
    assert not [path for path in (folder / "cache").iterdir() if path.name.startswith(".")]


def fuzz_boxes(folder, name, content):
    for part in {"xml": ("JPEGImages", "Annotations"), "txt": ("images", "labels")}.get(
        name, (".",)
    ):
        (folder / part).mkdir(exist_ok=True)
    place = {"xml": "JPEGImages", "txt": "images"}.get(name, ".")
    for photograph in "ab":
        Image.new("RGB", (32, 24)).save(folder / place / f"{photograph}.png")
    if name == "json":
        (folder / "boxes.json").write_bytes(content)
    elif name == "classes":
        write = {"a.txt": YOLO, "b.txt": YOLO, "classes.txt": content}
        for file, text in write.items():
            (folder / file).write_bytes(text)
    else:
        place = {"xml": "Annotations", "txt": "labels"}[name]
        (folder / place / f"a.{name}").write_bytes(content)
        (folder / place / f"b.{name}").write_bytes(XML if name == "xml" else YOLO)
    how = (("WBC",), ["WBC"] if name == "txt" else None, False)
    named = (DataMismatch, DataNotFound)
    read = ask(annotations.read_annotations, folder, *how, expected=named)
    if name == "xml":
        assert "b" in set(read.boxes["photograph"])
    if read is not None:
        str(read)


def fuzz_archives(folder, name, content):
    (folder / name).write_bytes(content)
    before = set(folder.iterdir())

    def unpack():
        with archives.atomic_folder(folder / "target") as partial:
            archives.unpack(folder / name, partial, progress=False)
        return True

    if ask(unpack):
        before.add(folder / "target")
    assert set(folder.iterdir()) == before, "something was left behind"
    place = ask(storage.elsewhere, folder / name)
    for file in (place and ask(place.files)) or ():
        ask(images.read_photograph, place / file)


def fuzz_tables(folder, name, content):
    (folder / name).write_bytes(content)
    ask(origins._read_labels if name == "labels.csv" else smears.read_list, folder / name)


def fuzz_runs(folder, name, content):
    begin(folder, "sound")
    (begin(folder, "damaged") / name).write_bytes(content)
    assert "sound" in [run.name for run in folders.list_runs(folder)]
    assert folders.open_run("latest", folder).name in ("sound", "damaged")
    for damaged in filter(None, [ask(folders.open_run, "damaged", folder)]):
        for question in ("history", "split", "is_complete", "validation_title"):
            ask(lambda q=question, run=damaged: getattr(run, q))
        ask(folders.find, "damaged", folder, RUN)
    ask(training.read, "damaged", folder)
    ask(confidence.read_calibration, folder / "damaged")
    ask(classification.read_predictions, folder / "damaged")
    ask(pipeline.scores, folder / "damaged")


def fuzz_reports(folder, name, content):
    begin(folder, "sound")
    (begin(folder, "damaged") / name).write_bytes(content)
    record = records.read_run(folder / "damaged")
    for attribute in dir(record):
        getattr(record, attribute)
    ask(rendering.render_run, folder / "damaged")
    assert "sound" in rendering.render_overview(folder).read_text(encoding="utf-8")


def fuzz_counts(folder, name, content):
    (folder / name).write_bytes(content)
    ask(smears._open_folder, folder, {"what": "a"})
    (folder / smears.JOURNAL).touch()
    smears._read_stamps(folder)
    archives.read_marker(folder)
    storage.plain(content.decode("utf-8", "surrogateescape"))


RUNS = ("script", "style", "iframe", "object", "embed", "link", "meta", "base", "form")
LOADED = ("src", "srcset", "poster", "background", "data", "action", "formaction", "ping")


def fuzz_pages(folder, name, content):
    clean = rendering.self_contained(content.decode("utf-8", "replace"), {"03_train"})
    for element in BeautifulSoup(clean, "html.parser").find_all(True):
        assert element.name not in RUNS, element
        for attribute, value in element.attrs.items():
            text = " ".join(value) if isinstance(value, list) else value
            assert not attribute.startswith("on"), element
            assert attribute not in LOADED or text.startswith("data:image/"), element
            if attribute.endswith("href") and element.name != "a":
                assert text.startswith(("#", "data:image/")), element
            assert "javascript:" not in text.lower() or attribute in ("title", "alt"), element
            if attribute in ("style", "fill", "clip-path", "mask"):
                assert "//" not in text and "@import" not in text.lower(), element


PAGE = (
    b"<h1 class='dataframe' style='color: red; background: url(https://a.b/c)'>A</h1>"
    b"<a href='03_train.ipynb'>b</a><img src='https://a.b/c.png' alt='d'>"
    b"<img src='data:image/png;base64,AAAA'><svg><use href='#e'/><image xlink:href='//a.b/f'/>"
    b"<style>@import 'https://a.b'</style></svg><table><tr><td onclick='g()'>1</td></tr></table>"
    b"<iframe srcdoc='<script>h()</script>'></iframe>"
    b"<math><mi xlink:href='javascript:i()'>j</mi></math>"
)
RUN_FILES = (
    "settings.json", "history.csv", "split.csv", "evaluation.json", "calibration.json",
    "crossval.json", "predictions.csv", "03_train.ipynb",
)  # fmt: skip


def kinds():
    """Question and sound files of each kind."""
    with tempfile.TemporaryDirectory() as made:
        run = begin(Path(made), "run")
        sound = [(name, (run / name).read_bytes()) for name in RUN_FILES]
    counted = {
        "file": "a.png", "stamp": [1, 2], "width": 8, "height": 8, "boxes": [], "red_cell": 9,
        "reasons": [],
    }  # fmt: skip
    marker = {"format": 1, "source": "kaggle", "archive": {"name": "a.zip"}, "n_files": 1}
    return {
        fuzz_images: list(pictures()),
        fuzz_boxes: [
            ("xml", XML), ("txt", YOLO + b"0 .1 .1 .2 .1 .2 .2 .1 .2\n"),
            ("json", json.dumps(COCO).encode()), ("classes", b"WBC\n"),
        ],
        fuzz_archives: list(archived()),
        fuzz_tables: [
            ("labels.csv", b',Image,Category\n0,1,NEUTROPHIL\n1,2,"EOSINOPHIL, MONOCYTE"\n'),
            ("labels.csv", ";Image;Category\n0;1;NEUTROPHIL\n".encode("utf-16")),
            ("list.txt", b"a\nb.png\n"),
        ],
        fuzz_runs: sound,
        fuzz_reports: [file for file in sound if file[0] not in ("split.csv", "crossval.json")],
        fuzz_counts: [
            (smears.JOURNAL, (json.dumps(counted) + "\n").encode() * 2),
            (smears.SETTINGS, b'{"what": "a"}'), (archives.MARKER, json.dumps(marker).encode()),
            ("name", "a smear é.png".encode()),
        ],
        fuzz_pages: [("page", PAGE)],
    }  # fmt: skip


def within_bounds(question, name, content, patience=HANG):
    """Ask in a folder of its own, within `HANG` seconds; nothing else may appear around it."""
    around = Path(tempfile.mkdtemp(prefix="fuzz-"))
    folder = around / "inside"
    folder.mkdir()

    def too_long(*_):
        raise TimeoutError(f"no answer within {HANG} s")

    # Its own time, since others may use the machine; and what waits uses none.
    signal.signal(signal.SIGPROF, too_long)
    signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_PROF, patience)
    signal.setitimer(signal.ITIMER_REAL, 6 * patience)
    faulthandler.dump_traceback_later(9 * patience, exit=True)  # where Python is not asked
    try:
        with contextlib.chdir(around), contextlib.redirect_stderr(io.StringIO()):
            question(folder, name, content)
        assert os.listdir(around) == ["inside"], "something was written outside"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()
        shutil.rmtree(around)


def fuzz(question, sound, n_examples):
    """Ask about sound files, changed; Hypothesis raises what it found at its smallest."""

    @settings(
        max_examples=n_examples, deadline=None, database=None,
        phases=[Phase.generate, Phase.shrink], suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.sampled_from(sound), EDITS)
    def ask_about(file, edits):
        within_bounds(question, file[0], changed(file[1], edits))

    ask_about()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", default=90, type=float)
    parser.add_argument("--kind", help="only this one, such as images")
    options = parser.parse_args()
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    warnings.simplefilter("ignore")
    asked = {
        question: sound for question, sound in kinds().items()
        if options.kind in (None, question.__name__.removeprefix("fuzz_"))
    }  # fmt: skip
    for question, sound in asked.items():
        for name, content in sound:  # as they are; the first has all to import
            within_bounds(question, name, content, 6 * HANG)
    begun, n_rounds = time.monotonic(), 0
    while time.monotonic() - begun < options.seconds:
        for question, sound in asked.items():
            if time.monotonic() - begun < options.seconds:
                fuzz(question, sound, A_ROUND)
        n_rounds += 1
    print(
        f"{n_rounds} rounds of up to {A_ROUND} changed files of {len(asked)} kinds in "
        f"{time.monotonic() - begun:.0f} s: only errors with names, nothing outside"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
