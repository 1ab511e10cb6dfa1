"""Folders and archives that tests write, and what lies below a folder afterwards."""

import io
import tarfile
import zipfile
from pathlib import Path

RUN_SETTINGS = {
    "created": "2026-01-01T00:00:00+00:00",
    "training": {"recipe": "paper", "epochs": 2, "image_size": [60, 80], "validation": "random"},
    "data": {"source": "sample", "title": "drawn", "drawn": True, "digest": "aa", "folder": "d"},
    "runtime": None,
    "versions": {"wbc_helpers": "0.1.0"},
}


def begin_run(runs_dir, name, **settings):
    """Write a run of one epoch that is complete."""
    import pandas as pd

    from wbc_helpers.runs import folders

    training = RUN_SETTINGS["training"] | {"epochs": 1}
    run = folders.start(name, runs_dir, RUN_SETTINGS | {"training": training} | settings)
    row = dict.fromkeys(folders.HISTORY_COLUMNS, 0.5) | {"epoch": 1}
    folders.write_history(run, pd.DataFrame([row]))
    folders.write_split(run, pd.Series(["a", "b"]), pd.Series(["train", "validation"]))
    (run.folder / "model.keras").write_bytes(b"")
    return run


def write_folder(folder, files):
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def write_zip(path, files, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def write_tar(path, files, **changes):
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for field, value in changes.items():
                setattr(info, field, value)
            archive.addfile(info, io.BytesIO(data))
    return path


def below(folder, with_times=False):
    """Contents of all files, by relative path; with the times at which they were written."""
    return {
        path.relative_to(folder).as_posix(): (
            (path.read_bytes(), path.stat().st_mtime_ns) if with_times else path.read_bytes()
        )
        for path in Path(folder).rglob("*")
        if path.is_file()
    }
