"""What a notebook needs before its work: on Colab, packages, secrets, the user's Drive and uploads.

This is the first module that a notebook imports there, so it needs nothing but Python itself.
"""

import ast
import contextlib
import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from pathlib import Path

from wbc_helpers import storage
from wbc_helpers.errors import FolderGone, InstallationFailed, InvalidParameter, check_names

DISTRIBUTION = "white-blood-cells"
"""Name under which pip knows this package."""

WORKSHOP = ("papermill", "nbval", "nbconvert", "jupytext", "ipykernel")
"""Requirements that run notebooks from outside; no notebook imports them."""

KAGGLE_SECRETS = ("KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY")
"""Names under which Colab's Secrets may hold a Kaggle account: a token, or a name with its key."""


# A distribution's version as pip reads it in a constraint. Debian's own packages, which Colab
# also has, are numbered otherwise; pip refuses a whole file for one of those.
_VERSION = re.compile(
    r"(\d+!)?\d+(\.\d+)*((a|b|rc)\d+)?(\.post\d+)?(\.dev\d+)?(\+[a-z0-9]+([._-][a-z0-9]+)*)?"
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def in_colab(environment: Mapping[str, str] = os.environ) -> bool:
    """Tell whether this Python runs on a Colab machine, in a notebook opened or executed there."""
    return "COLAB_RELEASE_TAG" in environment or "google.colab" in sys.modules


def prepare() -> None:
    """Do what a notebook needs before its other imports.

    On Colab alone, missing packages are installed and secrets read, see `install_missing`. Tables
    show numbers as `in_digits` writes them.
    """
    clone = _clone()
    if clone and str(clone) not in sys.path:
        sys.path.insert(0, str(clone))  # the ".." of the first cell may lead there no longer
    if in_colab():
        install_missing(
            (clone / "requirements.txt").read_text(encoding="utf-8").splitlines()
            if clone
            else importlib.metadata.requires(DISTRIBUTION) or ()
        )
        kaggle_secrets()
    # Only now, for on Colab it could have been missing.
    import pandas as pd

    pd.options.display.float_format = in_digits


def in_digits(value: float) -> str:
    """Write a number of a table with as many digits as say something.

    Examples
    --------
    >>> [in_digits(value) for value in (0.891435, 2487.0, 12.345, 1.0, 0.00002)]
    ['0.891', '2,487', '12.3', '1.000', '2e-05']
    """
    size = abs(value)
    if 0 < size < 0.0005:
        return f"{value:.1g}"
    if size >= 1000 or (size >= 2 and value == round(value)):
        return f"{value:,.0f}"
    return f"{value:.3f}" if size < 10 else f"{value:.1f}"


def _clone() -> Path | None:
    """Find the clone, or unpacked archive, that this package lies in; None if pip brought it."""
    around = Path(__file__).resolve().parents[1]
    return around if (around / "pyproject.toml").is_file() else None


def folders(data_dir: str, runs_dir: str = "runs", drive: bool = False) -> tuple[Path, Path]:
    """Make the folders of data and of runs absolute; they need not exist.

    Relative paths begin in the clone, or unpacked archive, that this package lies in, else in the
    working folder. With `drive`, which works in Colab alone, that of the runs is on the user's
    Google Drive, in `white-blood-cells`, so that another notebook finds them on another machine.
    Raises `InvalidParameter`, see `storage.check_folder`, or if there is no Drive to be mounted.
    """
    root = _clone() or Path.cwd()
    data_folder = storage.check_folder("data_dir", data_dir, root)
    return data_folder, storage.check_folder(
        "runs_dir", runs_dir, _mount_drive() if drive else root
    )


def _mount_drive() -> Path:
    """Ask the user, once a machine, for access to Google Drive; the project's folder there."""
    if not in_colab():
        raise InvalidParameter(
            "drive=True works in Colab alone. Expected a path as runs_dir, which may be anywhere."
        )
    from google.colab import drive

    try:
        storage.absolute(_DRIVE)
        drive.mount(_DRIVE)
    except FolderGone:  # Colab believes that it is still mounted
        drive.mount(_DRIVE, force_remount=True)
    return Path(_DRIVE, "MyDrive", DISTRIBUTION)


_DRIVE = "/content/drive"


def check_parameters() -> None:
    """Refuse a parameter that papermill was given, and the notebook that runs here does not have.

    Papermill itself lets it pass with a warning, and the notebook would do its work without. Raises
    `InvalidParameter` with the nearest name.
    """
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    executed = [cell for cell in shell.user_ns["In"] if cell] if shell else []
    own = [cell for cell in executed if cell.startswith("# @title Parameters\n")]
    injected = [cell for cell in executed if cell.startswith("# Parameters\n")]
    if own and injected:
        check_names("parameter", _assigned(injected[-1]), _assigned(own[-1]))


def _assigned(cell: str) -> list[str]:
    """Names that a cell gives values to, with or without a type."""
    targets: list[ast.expr] = []
    for statement in ast.parse(cell).body:
        if isinstance(statement, ast.Assign):
            targets += statement.targets
        elif isinstance(statement, ast.AnnAssign):
            targets.append(statement.target)
    return [target.id for target in targets if isinstance(target, ast.Name)]


def install_missing(
    requirements: Iterable[str],
    skip: tuple[str, ...] = WORKSHOP,
    environment: Mapping[str, str] = os.environ,
) -> list[str]:
    """Install the requirements that are absent, and change no version that is there.

    Everything installed is handed to pip as a constraint: what is missing either fits to it, or is
    refused. A requirement that is there in another version than asked for is left alone. On Colab's
    TPU runtime, and wherever another backend than TensorFlow was chosen, TensorFlow is not
    installed, since Keras does without it.

    `requirements` are lines in pip's format, those of extras left out; those named in `skip` are
    not needed here. Returns the lines that were installed, often none. Raises `InstallationFailed`,
    with pip's words, without network or where they do not fit to what is there.
    """
    skipped = {_canonical(name) for name in skip}
    if not _needs_tensorflow(environment):
        skipped.add("tensorflow")
    installed = _installed_versions()
    missing = [
        requirement
        for name, requirement in _requirements(requirements)
        if name not in skipped and name not in installed and not _importable(name)
    ]
    if missing:
        _install(missing, installed)
    return missing


def _needs_tensorflow(environment: Mapping[str, str]) -> bool:
    if backend := environment.get("KERAS_BACKEND"):
        return backend == "tensorflow"
    on_tpu = environment.get("COLAB_TPU_1VM") == "1" or "TPU_ACCELERATOR_TYPE" in environment
    return not on_tpu


def _requirements(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield the canonical name and the whole of each requirement, but for those of an extra."""
    for line in lines:
        requirement = line.partition("#")[0].strip()
        if (name := _NAME.match(requirement)) and "extra ==" not in requirement:
            yield _canonical(name[0]), requirement


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _installed_versions() -> dict[str, str]:
    versions: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        # A damaged installation may have neither.
        name, version = distribution.metadata["Name"], distribution.metadata["Version"]
        if name and version:
            # Of two copies Python imports the one that comes first.
            versions.setdefault(_canonical(name), version)
    return versions


_MODULES = {"opencv-python-headless": "cv2", "scikit-learn": "sklearn", "pillow": "PIL"}


def _importable(name: str) -> bool:
    """Tell whether a package is there under another distribution's name, as in tensorflow-cpu."""
    spec = importlib.util.find_spec(_MODULES.get(name, name.replace("-", "_")))
    # A folder that an uninstalled package left behind has no origin.
    return spec is not None and spec.origin is not None


def _install(missing: list[str], installed: Mapping[str, str]) -> None:
    print(f"Installing {', '.join(missing)}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "installed.txt"
        constraints.write_text(
            "".join(
                f"{name}=={version}\n"
                for name, version in sorted(installed.items())
                if _VERSION.fullmatch(version)
            ),
            encoding="utf-8",
        )
        pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check"]
        done = subprocess.run(
            [*pip, "--constraint", str(constraints), *missing],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    if done.returncode:
        raise InstallationFailed(
            f"{', '.join(missing)} could not be installed beside what is there. pip says:\n"
            f"{done.stdout.strip()[-1500:]}\nCheck the network, or start from a fresh runtime "
            "(Runtime > Disconnect and delete runtime)."
        )
    importlib.invalidate_caches()


def kaggle_secrets(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let the Kaggle client use the account in Colab's Secrets, if there is one.

    Sets `KAGGLE_API_TOKEN`, or `KAGGLE_USERNAME` and `KAGGLE_KEY`; does nothing outside of the
    Colab page, nor where the environment names an account already. No value is printed, returned or
    kept elsewhere. No other place in this project reads Secrets.
    """
    token, *account = KAGGLE_SECRETS
    if environment.get(token) or all(environment.get(name) for name in account):
        return
    if not _page_answers():
        return
    from google.colab import userdata

    # Older runtimes have no such exception, and never time out either.
    timed_out = getattr(userdata, "TimeoutException", TimeoutError)
    for names in ((token,), account):
        try:
            values = {name: userdata.get(name) for name in names}
        except (userdata.SecretNotFoundError, userdata.NotebookAccessError):
            continue
        except timed_out:
            return
        if all(values.values()):
            environment.update(values)
            return


def _page_answers() -> bool:
    """Tell whether this cell was sent by Colab's page, which alone can answer for Secrets.

    Colab's own kernel has `google.colab` loaded, but programs start it too. The answer comes over
    the kernel's standard input, and papermill, nbconvert and nbclient say with every cell that
    they have none; asked all the same, they would hang until the request times out.
    """
    if "google.colab" not in sys.modules or "IPython" not in sys.modules:
        return False
    shell = sys.modules["IPython"].get_ipython()
    cell_message = getattr(shell, "parent_header", None) or {}
    return bool(cell_message.get("content", {}).get("allow_stdin", False))


def upload_photographs(folder: str | Path) -> Path:
    """Let a person choose photographs on their own computer, in Colab; the folder they went to.

    That is `upload-1`, `upload-2`, … in `folder`, a new one each time, so that nothing that was
    uploaded before is overwritten or counted with it. Raises `InvalidParameter` outside Colab,
    where photographs need no upload, or if nothing was chosen.
    """
    if not in_colab():
        raise InvalidParameter(
            "upload=True works in Colab alone. Expected the folder of your photographs as "
            "photographs, which needs no upload."
        )
    from google.colab import files

    folder, number = Path(folder), 1
    while (folder / f"upload-{number}").exists():
        number += 1
    target = folder / f"upload-{number}"
    target.mkdir(parents=True)
    # Colab also leaves each file in the working folder: there shall be no second copy of a slide.
    with contextlib.chdir(target):
        chosen = files.upload()
    if not chosen:
        target.rmdir()
        with contextlib.suppress(OSError):
            folder.rmdir()
        raise InvalidParameter("No photograph was chosen. Execute the cell again to choose some.")
    for name, content in chosen.items():
        (target / Path(name).name).write_bytes(content)
    return target
