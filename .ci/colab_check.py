"""Execute the notebooks as Colab would, and show that nothing of Colab's changes.

Makes environments of the versions that Colab ships (tests/colab-requirements.txt), and executes
every notebook from a folder that holds nothing else: its first cell has to bring the package,
from an archive like the one that GitHub serves. Then 03, 04 and 06 once more on JAX without
TensorFlow, as on Colab's TPU runtime. Environments and archive are made under build/colab-check/.
"""

import argparse
import ast
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "colab-check"
REQUIREMENTS = ROOT / "tests" / "colab-requirements.txt"
PYTHON = "3.13"

# Values that let a notebook finish in a minute; each notebook gets those that it has.
PARAMETERS = {"source": "sample", "epochs": 2, "epochs_if_untrained": 1}

# By the packages of the environment alone, so this cannot be a module of ours.
EXECUTE = """
import sys
import nbclient, nbformat
notebook = nbformat.read(sys.argv[1], as_version=4)
client = nbclient.NotebookClient(notebook, timeout=900, kernel_name="python3")
try:
    client.execute()
except nbclient.exceptions.CellExecutionError as error:
    sys.exit(str(error))
finally:
    nbformat.write(notebook, sys.argv[1])
"""


def find_python() -> str:
    """The Python to make environments with."""
    pyenv = sorted(Path.home().glob(f".pyenv/versions/{PYTHON}.*/bin/python"))
    candidates = [os.environ.get("PYTHON313"), f"python{PYTHON}", *map(str, pyenv)]
    for candidate in filter(None, candidates):
        command = [candidate, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        try:
            version = subprocess.run(command, capture_output=True, text=True).stdout.strip()
        except OSError:
            continue
        if version == PYTHON:
            return candidate
    sys.exit(
        f"No Python {PYTHON} was found, which is what Colab runs. Install it, or give its path: "
        f"make colab-check PYTHON313=/path/to/python{PYTHON}"
    )


def make_environment(name: str, without: str = "") -> Path:
    """Environment of Colab's versions; made once, and anew when they change."""
    pins = [line for line in REQUIREMENTS.read_text().splitlines() if line and line[0] != "#"]
    pins = [pin for pin in pins if not without or not pin.startswith(without)]
    folder, wanted = BUILD / name, hashlib.sha256("\n".join(pins).encode()).hexdigest()
    stamp = folder / "installed"
    python = folder / "bin" / "python"
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    print(f"Making an environment like Colab's ({name}) …", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([find_python(), "-m", "venv", str(folder)], check=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *pins], check=True)
    stamp.write_text(wanted)
    return python


def make_archive() -> Path:
    """Pack what git tracks, as it stands in the working tree, the way that GitHub packs it."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    files = [ROOT / name for name in listed.split("\0") if name]
    if not any(path.parent.name == "wbc_helpers" for path in files):
        sys.exit("git tracks no wbc_helpers here: commit or `git add` it first.")
    archive = BUILD / "main.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in files:
            if path.is_file():
                inside = path.relative_to(ROOT).as_posix()
                packed.write(path, f"white-blood-cells-main/{inside}")
    return archive


def prepare(notebook: Path, folder: Path) -> Path:
    """Lay a copy with small parameters alone into an empty folder."""
    folder.mkdir()
    content = json.loads(notebook.read_text(encoding="utf-8"))
    tagged = [
        position
        for position, cell in enumerate(content["cells"])
        if "parameters" in cell["metadata"].get("tags", [])
    ]
    if len(tagged) != 1:
        sys.exit(f"{notebook.name} has {len(tagged)} cells tagged `parameters`, not one.")
    statements = ast.parse("".join(content["cells"][tagged[0]]["source"])).body
    names = {node.target.id for node in statements if isinstance(node, ast.AnnAssign)}
    values = [f"{name} = {value!r}" for name, value in PARAMETERS.items() if name in names]
    injected = {
        "cell_type": "code",
        "id": "injected",
        "metadata": {},
        "outputs": [],
        "execution_count": None,
        "source": "\n".join(values),
    }
    content["cells"].insert(tagged[0] + 1, injected)
    copy = folder / notebook.name
    copy.write_text(json.dumps(content), encoding="utf-8")
    return copy


def execute(python: Path, copy: Path, archive: Path, backend: str) -> tuple[float, str]:
    """Seconds it took, and what stopped it if anything did."""
    kept = ("PATH", "LANG", "LC_ALL", "TMPDIR", "HTTPS_PROXY", "https_proxy", "PIP_")
    environment = {name: value for name, value in os.environ.items() if name.startswith(kept)}
    # A fresh home: no account, configuration or IPython start-up file of this machine's user.
    home = copy.parent.with_name("home")
    home.mkdir()
    environment |= {
        "HOME": str(home),
        "COLAB_RELEASE_TAG": "colab-check",
        "WBC_ARCHIVE": archive.as_uri(),
        "PYTHONWARNINGS": "ignore",
    }
    if backend == "jax":
        environment["KERAS_BACKEND"] = "jax"
    started = time.perf_counter()
    done = subprocess.run(
        [str(python), "-c", EXECUTE, copy.name],
        cwd=copy.parent,
        env=environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    failure = ""
    if done.returncode:
        # IPython colours its tracebacks.
        failure = re.sub(r"\x1b\[[0-9;]*m", "", done.stderr).strip()
        failure = failure or f"exit status {done.returncode}"
    if not failure and not (copy.parent / "white-blood-cells" / "wbc_helpers").is_dir():
        failure = "the first cell did not bring the package"
    return time.perf_counter() - started, failure


def installed(python: Path) -> set[str]:
    listed = subprocess.run(
        [str(python), "-m", "pip", "freeze", "--all", "--disable-pip-version-check"],
        check=True,
        capture_output=True,
        text=True,
    )
    return set(listed.stdout.splitlines())


def check(
    backend: str, python: Path, notebooks: list[Path], archive: Path
) -> list[tuple[str, str, str, str]]:
    """Rows of the table for one environment: notebook, backend, seconds, result."""
    before, rows = installed(python), []
    for notebook in notebooks:
        print(f"Executing {notebook.name} on {backend} …", flush=True)
        # Outside of the repository, or the first cell would find it by walking up.
        with tempfile.TemporaryDirectory(prefix="colab-check-") as folder:
            copy = prepare(notebook, Path(folder) / "content")
            seconds, failure = execute(python, copy, archive, backend)
        if failure:
            print(failure[-3000:], file=sys.stderr, flush=True)
        rows.append((notebook.stem, backend, f"{seconds:.0f}", "failed" if failure else "passed"))
    after = installed(python)
    for line in sorted(before - after):
        print(f"Changed or removed: {line}", file=sys.stderr)
    print(f"Packages added ({backend}): {', '.join(sorted(after - before)) or 'none'}")
    unchanged = "failed" if before - after else "passed"
    return [*rows, ("versions unchanged", backend, "", unchanged)]


def main() -> int:
    parser = argparse.ArgumentParser(description="Execute the notebooks as Colab would.")
    parser.add_argument("--only", default="", help="begin of a notebook's name, such as 03")
    parser.add_argument("--backend", choices=("tensorflow", "jax"), help="only this one")
    options = parser.parse_args()
    notebooks = sorted(ROOT.glob("notebooks/0*.ipynb"))
    chosen = [path for path in notebooks if path.name.startswith(options.only)]
    BUILD.mkdir(parents=True, exist_ok=True)
    archive = make_archive()
    rows = []
    if options.backend != "jax":
        python = make_environment("colab")
        rows += check("tensorflow", python, chosen, archive)
    if options.backend != "tensorflow":
        python = make_environment("colab-without-tensorflow", without="tensorflow")
        on_jax = [path for path in chosen if path.name.startswith(("03", "04", "06"))]
        rows += check("jax", python, on_jax, archive)
    print(f"\n{'notebook':20} {'backend':11} {'seconds':>7}  result")
    for notebook, backend, seconds, result in rows:
        print(f"{notebook:20} {backend:11} {seconds:>7}  {result}")
    return 1 if not chosen or any(row[-1] == "failed" for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
