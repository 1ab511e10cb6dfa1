"""Small broken inputs, each for its kind: what is odd is named, and the rest is read."""

import errno
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from written_files import begin_run, write_tar, write_zip

from wbc_helpers import pipeline, storage
from wbc_helpers.__main__ import main
from wbc_helpers.audit import origins
from wbc_helpers.data import annotations, archives, catalog
from wbc_helpers.errors import (
    BrokenArchive,
    BrokenRun,
    DataMismatch,
    FolderGone,
    FolderInUse,
    InvalidParameter,
    NoSpaceLeft,
    UnreadableImage,
    UnsafeArchive,
    WbcError,
)
from wbc_helpers.pixels import images
from wbc_helpers.runs import folders
from wbc_helpers.runs.recipes import TrainingSettings

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def cases():
    """Folder of collected broken files; tests that need it are skipped without."""
    beside = Path(os.environ.get("WBC_REAL_DATA") or "nowhere").parent / "cases"
    place = Path(os.environ.get("WBC_CASES") or beside)
    if not (place / "annotations").is_dir():
        pytest.skip("neither WBC_CASES nor a folder beside WBC_REAL_DATA has the broken files")
    return place


# Paths, folders and what is no file


@pytest.mark.parametrize("path", ["a\0b", "x" * 5000, "~nobody-of-this-name/data"])
def test_a_path_that_no_file_can_have_is_named(path):
    for ask in (storage.absolute, images.find_photographs, catalog.images_folder):
        with pytest.raises(InvalidParameter, match="is no usable path"):
            ask(path)


def test_a_path_in_a_circle_is_named_and_others_are_read(tmp_path):
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "fine.png")
    with pytest.raises(InvalidParameter, match="is no usable path"):
        storage.absolute(tmp_path / "loop.png")
    assert images.find_photographs(tmp_path)[1] == ["fine.png", "loop.png"]
    for name in ("loop.png", "n" * 300 + ".png", "nul\0.png"):
        with pytest.raises(UnreadableImage, match="cannot be read"):
            images.read_image(tmp_path / name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_and_a_device_are_named_and_never_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "endless.png").symlink_to("/dev/zero")
    assert images.find_photographs(tmp_path)[1] == ["endless.png", "pipe.png"]
    for name in ("pipe.png", "endless.png"):
        with pytest.raises(UnreadableImage, match="pipe or device"):
            images.read_image(tmp_path / name)
        with pytest.raises(UnreadableImage, match=r"png cannot be read"):
            catalog.digest_paths([tmp_path / name])
        with pytest.raises(UnreadableImage, match=r"png cannot be read"):
            images.decode([tmp_path / name], (4, 4), tmp_path / "cache", progress=False)


def test_links_back_up_the_tree_are_followed_once(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "linked.txt").write_text("")
    (tmp_path / "a" / "b" / "deep.txt").write_text("")
    for number in range(3):
        (tmp_path / "a" / "b" / f"up-{number}").symlink_to(tmp_path / "a")
        (tmp_path / "a" / f"out-{number}").symlink_to(tmp_path / "elsewhere")
    digests = catalog.digest_files(tmp_path, ["a"])
    assert list(digests) == ["a/b/deep.txt", "a/out-0/linked.txt"]


def test_a_folder_that_may_not_be_listed_is_named(tmp_path, monkeypatch):
    for name in ("open/a.png", "closed/b.png"):
        (tmp_path / name).parent.mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    scandir = os.scandir

    def refuse(path):
        if Path(path).name == "closed":
            raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert images.find_photographs(tmp_path)[1] == ["closed/", "open/a.png"]
    for ask in (
        lambda: catalog.digest_files(tmp_path, ["."]),
        lambda: catalog.find_photographs(tmp_path),
    ):
        with pytest.raises(UnreadableImage, match=r"closed may not be read"):
            ask()


def test_a_drive_that_has_gone_is_told_from_a_damaged_file(tmp_path, monkeypatch, capsys):
    gone = OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    def refuse(*_, **__):
        raise gone

    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "settings.json").write_text("{}")
    monkeypatch.setattr(Path, "read_bytes", refuse)
    for ask in (
        lambda: folders.open_run("run", tmp_path),
        lambda: folders.list_runs(tmp_path),
    ):
        with pytest.raises(FolderGone, match=r"Mount it again .* what was finished is there"):
            ask()
    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(FolderGone):
        storage.write_text(tmp_path / "a.txt", "a")
    monkeypatch.setattr("wbc_helpers.pixels.images.find_photographs", refuse)
    assert main(["count", str(tmp_path)]) == 2
    assert "FolderGone: " in capsys.readouterr().err


# Tables and records


@pytest.mark.parametrize(
    "content",
    [
        b",Image,Category\n0,7,NEUTROPHIL\n",
        ",Image,Category\r\n0,7,NEUTROPHIL\r\n".encode("utf-8-sig"),
        ",Image,Category\n0,7,NEUTROPHIL\n".encode("utf-16"),
        b";Image;Category\n0;7;NEUTROPHIL\n",
        ",Image,Bär\n0,7,NEUTROPHIL\n".encode("cp1252"),
    ],
)
def test_labels_are_read_as_other_programs_save_them(tmp_path, content):
    (tmp_path / "labels.csv").write_bytes(content)
    assert origins._read_labels(tmp_path / "labels.csv") == {"BloodImage_00007": ("neutrophil",)}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"Image|Category\n7|NEUTROPHIL\n", "labels nothing"),
        (b"\x81\x8d,7,\x00", "cannot be read as a table"),
        (b",Image,Category\n0,7,NEUTROPHIL\n1,7,MONOCYTE\n", "photograph 7 more than once"),
    ],
)
def test_labels_that_say_nothing_or_two_things_are_named(tmp_path, content, words):
    (tmp_path / "labels.csv").write_bytes(content)
    with pytest.raises(DataMismatch, match=words):
        origins._read_labels(tmp_path / "labels.csv")


DAMAGE = {
    "half": b'{"format": 1, "na',
    "nested": b'{"a":' * 50_000,
    "digits": b'{"format": 1, "training": {"epochs": ' + b"9" * 400 + b"}}",
    "list": b"[]",
    "kind": b'{"format": 1, "name": 5, "created": 5, "training": [], "data": [], "versions": 3}',
    "binary": bytes(range(256)),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("file", ["settings.json", "history.csv"])
def test_a_damaged_run_is_in_no_other_runs_way(tmp_path, capsys, file, damage):
    begin_run(tmp_path, "sound")
    damaged = begin_run(tmp_path, "damaged", created="2026-02-01T00:00:00+00:00")
    (damaged.folder / file).write_bytes(damage)
    assert [run.name for run in folders.list_runs(tmp_path)] == ["sound"]
    assert folders.open_run("latest", tmp_path).name == "sound"
    assert str(tmp_path / "damaged" / file) in capsys.readouterr().err
    with pytest.raises(BrokenRun, match=file):
        folders.open_run("damaged", tmp_path).is_complete  # noqa: B018


def test_a_damaged_split_is_named(tmp_path):
    run = begin_run(tmp_path, "run")
    (run.folder / "split.csv").write_bytes(b"file,share\na,train\n")
    with pytest.raises(BrokenRun, match=r"split\.csv"):
        run.split  # noqa: B018


def test_what_a_record_lacks_is_named_when_it_is_asked_for(tmp_path):
    storage.write_json(tmp_path / "evaluation.json", {"test": {"accuracy": 0.5}})
    record = storage.read_record(tmp_path / "evaluation.json", "Do it again.")
    assert record["test"]["accuracy"] == 0.5 and record.get("train") is None
    with pytest.raises(BrokenRun, match=r"evaluation\.json .* 'n_images'. Do it again\."):
        record["test"]["n_images"]


@pytest.mark.parametrize("name", ["latest", "Latest", "index.html", "detectors"])
def test_names_that_mean_something_else_are_refused(name):
    with pytest.raises(InvalidParameter, match="is taken"):
        folders.check_name(name)


# Boxes


def voc(text, encoding="utf-8", more="", namespace=""):
    box = (
        f"<object><name>WBC</name><!--{text}--><bndbox><xmin>1</xmin><ymin>1</ymin>"
        "<xmax>20</xmax><ymax>20</ymax></bndbox></object>"
    )
    declared = f'<?xml version="1.0" encoding="{encoding}"?>'
    return f"{declared}<annotation{namespace}>{box}{more}</annotation>"


def boxed(folder, **annotated):
    """Write photographs and their XML, as bytes."""
    for part in ("JPEGImages", "Annotations"):
        (folder / part).mkdir(exist_ok=True)
    for name, content in annotated.items():
        Image.new("RGB", (64, 48)).save(folder / "JPEGImages" / f"{name}.png")
        (folder / "Annotations" / f"{name}.xml").write_bytes(content)
    return folder


def read(folder):
    return annotations.read_annotations(folder, must_occur=False)


@pytest.mark.parametrize(
    ("encoding", "text"),
    [("gbk", "白细胞"), ("gb2312", "白细胞"), ("shift_jis", "白血球"), ("euc-kr", "백혈구")],
)
def test_boxes_in_east_asian_encodings_are_read(tmp_path, encoding, text):
    found = read(boxed(tmp_path, a=voc(text, encoding).encode(encoding), b=voc("").encode()))
    assert len(found.boxes) == 2 and found.problems.empty


@pytest.mark.parametrize("encoding", ["foo-8", "base64", "punycode"])
def test_an_unknown_encoding_costs_its_own_file_alone(tmp_path, encoding):
    found = read(boxed(tmp_path, a=voc("", encoding).encode(), b=voc("").encode()))
    assert found.boxes["photograph"].tolist() == ["b"]
    assert found.problems["problem"].tolist() == ["broken annotation"]


def test_boxes_in_a_namespace_are_boxes(tmp_path):
    found = read(boxed(tmp_path, a=voc("", namespace=' xmlns="http://x.org/voc"').encode()))
    assert len(found.boxes) == 1 and found.problems.empty


def test_a_box_that_is_there_twice_is_counted_once_and_said(tmp_path):
    content = voc("")
    box = content[content.index("<object>") : content.index("</annotation>")]
    found = read(boxed(tmp_path, a=voc("", more=box).encode()))
    assert len(found.boxes) == 1
    assert found.problems[["box", "problem", "handled"]].to_numpy().tolist() == [
        [2, "boxed twice", "dropped"]
    ]


def test_of_two_photographs_of_one_stem_neither_is_chosen(tmp_path):
    boxed(tmp_path, a=voc("").encode(), b=voc("").encode())
    Image.new("RGB", (64, 48)).save(tmp_path / "JPEGImages" / "a.jpg")
    found = read(tmp_path)
    assert found.boxes["photograph"].tolist() == ["b"]
    assert found.problems["found"].tolist() == ["a.jpg, a.png"] * 2


def test_an_image_that_coco_lists_twice_is_left_out_and_said(tmp_path):
    for name in ("a.png", "b.png"):
        Image.new("RGB", (64, 48)).save(tmp_path / name)
    box = {"category_id": 1, "bbox": [0, 0, 20, 20]}
    listed = [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}]
    content = {
        "images": [*listed, {"id": 3, "file_name": "a.png"}],
        "categories": [{"id": 1, "name": "WBC"}],
        "annotations": [{"image_id": number, **box} for number in (1, 2, 3)],
    }
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    found = read(tmp_path)
    assert found.boxes["photograph"].tolist() == ["b"]
    assert "listed twice" in found.problems["found"].item()


# Archives


def damaged_members(folder):
    """Archives whose names are in order and whose contents are not."""
    noise = np.random.default_rng(0).bytes(3000)
    for name, method in (("bzip2", 12), ("lzma", 14)):
        path = write_zip(folder / f"{name}.zip", {"d/TRAIN/a.jpeg": noise}, method)
        content = bytearray(path.read_bytes())
        content[200:260] = bytes(60)
        path.write_bytes(content)
        yield path
    sparse = folder / "sparse.tar.gz"
    write_tar(sparse, {"a": b"x"}, pax_headers={"GNU.sparse.major": "1", "GNU.sparse.minor": "0"})
    yield sparse


def test_damaged_members_and_sparse_headers_are_named(tmp_path):
    for number, path in enumerate(damaged_members(tmp_path)):
        with pytest.raises((BrokenArchive, UnsafeArchive), match=path.name):
            archives.unpack(path, tmp_path / str(number), progress=False)


def test_a_tar_of_headers_alone_is_named(tmp_path):
    header = tarfile.TarInfo("x").create_pax_global_header({"comment": "a"})
    extended = tarfile.TarInfo("a")._create_pax_generic_header({"a": "b"}, tarfile.XHDTYPE, "utf-8")
    (tmp_path / "deep.tar").write_bytes(header + extended * 3000 + bytes(1024))
    with pytest.raises(BrokenArchive, match=r"deep\.tar"):
        archives.inspect(tmp_path / "deep.tar")


@pytest.mark.parametrize("name", ["a/" * 2500 + "a.txt", "b" * 200 + "/" + "c" * 900])
def test_names_that_no_disk_takes_are_refused(tmp_path, name):
    with pytest.raises(UnsafeArchive, match="no usable file name"):
        archives.inspect(write_zip(tmp_path / "long.zip", {name: b""}))


# A full disk, leftovers, two at once


def test_a_mapped_file_has_its_space_before_it_is_filled(tmp_path, monkeypatch):
    asked = []

    def refuse(_, start, n_bytes):
        asked.append((start, n_bytes))
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", refuse, raising=False)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(NoSpaceLeft):
        images.decode([tmp_path / "a.png"], (4, 4), tmp_path / "cache", progress=False)
    assert asked and list((tmp_path / "cache").iterdir()) == []


def test_where_the_system_cannot_reserve_zeros_are_written(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    (tmp_path / "a").write_bytes(b"abc")
    storage.reserve(tmp_path / "a", 2_500_000)
    assert (tmp_path / "a").read_bytes() == b"abc" + bytes(2_499_997)


def test_what_hdf5_says_of_a_full_disk_is_understood(tmp_path):
    with pytest.raises(NoSpaceLeft), storage.named_errors(tmp_path):
        raise OSError("Can't write data (file write failed: errno = 28, error message = '…')")


def test_what_a_killed_process_was_writing_is_removed_by_the_next(tmp_path):
    write = (
        "import os, sys\nfrom wbc_helpers import storage\n"
        "with storage.atomic_file(sys.argv[1]) as partial:\n"
        "    partial.write_bytes(bytes(1000))\n    os._exit(9)\n"
    )
    target = tmp_path / "pixels-4x4.npy"
    subprocess.run([sys.executable, "-c", write, str(target)], cwd=ROOT, check=False)
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".pixels-4x4.") and left.name.endswith(".partial.npy")
    storage._sweep_once.cache_clear()
    storage.write_text(tmp_path / "other.txt", "")
    assert [path.name for path in tmp_path.iterdir()] == ["other.txt"]


@pytest.mark.skipif(storage.fcntl is None, reason="no locks here")
def test_a_folder_is_written_by_one_process_at_a_time(tmp_path):
    hold = (
        "import sys\nfrom wbc_helpers import storage\n"
        "with storage.only_one(sys.argv[1]):\n    print('held', flush=True)\n    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path)],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as other:  # fmt: skip
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(FolderInUse, match="Nothing was changed"), storage.only_one(tmp_path):
            pytest.fail("both are at work")
        other.communicate(b"")
    with storage.only_one(tmp_path), storage.only_one(tmp_path):
        assert list(tmp_path.iterdir()) == []


# Papermill


def test_braces_in_a_path_stay_braces():
    from papermill.parameterize import parameterize_path

    for path in ("/runs/a{b}c/{}/x.ipynb", "/runs/plain.ipynb"):
        assert parameterize_path(pipeline._literal(Path(path)), {"b": "no"}) == path


def test_a_kernel_that_died_is_named_and_how_to_go_on(tmp_path, monkeypatch, capsys):
    import papermill
    from nbclient.exceptions import DeadKernelError

    def die(*_, **__):
        raise DeadKernelError("Kernel died")

    monkeypatch.setattr(papermill, "execute_notebook", die)
    given = (TrainingSettings("paper"), tmp_path, "run", tmp_path, tmp_path)
    assert pipeline._execute_notebooks(*given) is False
    assert "the same command goes on" in capsys.readouterr().out


# Names for tables and terminals


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("smear 1.png", "smear 1.png"),
        ("=HYPERLINK(A1).png", "./=HYPERLINK(A1).png"),
        ("+1.png", "./+1.png"),
        ("-1.png", "./-1.png"),
        ("@SUM(1).png", "./@SUM(1).png"),
        ("a\x1b]8;;http://x\x07.png", r"a\x1b]8;;http://x\x07.png"),
        ("a\nb\r.png", r"a\nb\r.png"),
        ("gnp.\u202eexe", r"gnp.\u202eexe"),
    ],
)
def test_names_in_tables_are_no_formulas_and_hold_no_codes(name, written):
    assert storage.plain(name) == written
    assert storage.plain(written) == written


def test_a_terminal_that_knows_only_ascii_is_written_to():
    done = subprocess.run(
        [sys.executable, "-m", "wbc_helpers", "count", "no-\u00e9-such-folder"],
        cwd=ROOT, capture_output=True, check=False,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
    )  # fmt: skip
    assert done.returncode == 2 and b"DataNotFound" in done.stderr
    assert b"Traceback" not in done.stderr


# Collected cases


def test_collected_annotations_stop_nothing(cases):
    for folder in filter(Path.is_dir, (cases / "annotations").iterdir()):
        found = read(folder)
        assert "good" in set(found.boxes["photograph"]), folder
    for name, problem in (("dup", "boxed twice"), ("two_same_stem", "two photographs")):
        assert problem in set(read(cases / "annotations" / name).problems["problem"])


def test_collected_archives_are_named_and_leave_nothing(cases, tmp_path):
    for archive in (cases / "archives").iterdir():
        with (
            pytest.raises(WbcError, match=archive.name),
            archives.atomic_folder(tmp_path / "target") as partial,
        ):
            archives.unpack(archive, partial, progress=False)
        assert list(tmp_path.iterdir()) == []


def test_collected_images_are_read_or_named(cases):
    for image in (cases / "images").iterdir():
        for ask in (images.read_photograph, lambda path: images.count_sizes([path])):
            try:
                ask(image)
            except UnreadableImage as error:
                assert image.name in str(error)


def test_collected_labels_are_read(cases):
    for table in (cases / "labels").iterdir():
        assert list(origins._read_labels(table)) == ["BloodImage_00000"]
