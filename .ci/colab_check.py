"""Execute the notebooks as Colab would, and show that nothing of Colab's changes.

Makes environments of the versions that Colab ships (tests/colab-requirements.txt), and executes
every notebook from a folder that holds nothing else: its first cell has to bring the package,
from an archive like the one that GitHub serves. The first one also runs where that archive was
unpacked by hand, without network. Then 03, 04 and 06 once more on JAX without
TensorFlow, as on Colab's TPU runtime. Before, each notebook's parameters are read as Colab reads
them, as a form, and a misspelt one has to be refused. Environments and archive are made under
build/colab-check/.
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

# Stands in each notebook's first cell.
ADDRESS = re.compile(r"https://github\.com/[^/]+/[^/]+/archive/refs/heads/main\.zip")
DISTRIBUTION = "white-blood-cells"

# Values that let a notebook finish in a minute; each notebook gets those that it has.
PARAMETERS = {"source": "sample", "epochs": 2}

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


def parameters_of(content: dict) -> tuple[int, str]:
    """Place and text of the cell tagged `parameters`."""
    tagged = [
        (position, "".join(cell["source"]))
        for position, cell in enumerate(content["cells"])
        if "parameters" in cell["metadata"].get("tags", [])
    ]
    if len(tagged) != 1:
        sys.exit(f"A notebook has {len(tagged)} cells tagged `parameters`, not one.")
    return tagged[0]


def read_form(cell: str) -> tuple[dict[str, object], list[str]]:
    """Each parameter's field as Colab's form shows it, and what is wrong with the form."""
    fields, wrong = {}, []
    if not cell.startswith("# @title "):
        wrong.append("no title")
    lines = cell.splitlines()
    for node in ast.parse(cell).body:
        name, value = node.target.id, ast.literal_eval(node.value)
        line = lines[node.lineno - 1]
        form = re.search(r"# @param (\[.*?\])? ?(\{.*\})?$", line)
        if not form or node.lineno != node.end_lineno:
            wrong.append(f"{name} has no field")
            continue
        choices = ast.literal_eval(form[1] or "[]")
        options = json.loads(re.sub(r"([\w-]+):", r'"\1":', form[2] or "{}").replace("true", "1"))
        kind = options.get("type", "drop-down")
        # A raw one stands in the code as it is.
        if choices and (repr(value) if kind == "raw" else value) not in choices:
            wrong.append(f"{name}={value!r} is none of its choices")
        if kind == "slider" and not options["min"] <= value <= options["max"]:
            wrong.append(f"{name}={value!r} lies beside its slider")
        if value is None and not re.search(rf"# @markdown .*`{name}`", cell):
            wrong.append(f"{name} does not say what None takes")
        fields[name] = choices or kind
    return fields, wrong


def prepare(notebook: Path, folder: Path, archive: Path, misspelt: bool = False) -> Path:
    """Lay a copy with small parameters into a folder; `archive` stands for GitHub's."""
    folder.mkdir(exist_ok=True)
    text = notebook.read_text(encoding="utf-8")
    if len(ADDRESS.findall(text)) != 1:
        sys.exit(f"{notebook.name} does not name the repository's archive once.")
    content = json.loads(ADDRESS.sub(archive.as_uri(), text))
    position, cell = parameters_of(content)
    names = read_form(cell)[0]
    values = [f"{name} = {value!r}" for name, value in PARAMETERS.items() if name in names]
    if misspelt:
        values = [f"{list(names)[-1][:-1]} = 1"]
    injected = {
        "cell_type": "code",
        "id": "injected",
        "metadata": {},
        "outputs": [],
        "execution_count": None,
        # As papermill writes it.
        "source": "\n".join(["# Parameters", *values]),
    }
    content["cells"].insert(position + 1, injected)
    copy = folder / notebook.name
    copy.write_text(json.dumps(content), encoding="utf-8")
    return copy


def execute(python: Path, copy: Path, backend: str, offline: bool = False) -> tuple[float, str]:
    """Seconds it took, and what stopped it if anything did."""
    kept = ("PATH", "LANG", "LC_ALL", "TMPDIR", "HTTPS_PROXY", "https_proxy", "PIP_")
    environment = {name: value for name, value in os.environ.items() if name.startswith(kept)}
    # A fresh home: no account, configuration or IPython start-up file of this machine's user.
    home = copy.parent.with_name("home")
    home.mkdir()
    environment |= {
        "HOME": str(home),
        "COLAB_RELEASE_TAG": "colab-check",
        "PYTHONWARNINGS": "ignore",
    }
    if backend == "jax":
        environment["KERAS_BACKEND"] = "jax"
    if offline:
        environment |= {"PIP_NO_INDEX": "1", "HTTPS_PROXY": "http://localhost:9"}
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
    seconds = time.perf_counter() - started
    removed = subprocess.run(
        [str(python), "-m", "pip", "uninstall", "--yes", DISTRIBUTION],
        capture_output=True,
        text=True,
    )
    if not failure and ("Successfully uninstalled" in removed.stdout) == offline:
        failure = f"the first cell {'brought' if offline else 'did not bring'} the package"
    return seconds, failure


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
            copy = prepare(notebook, Path(folder) / "content", archive)
            seconds, failure = execute(python, copy, backend)
        if failure:
            print(failure[-3000:], file=sys.stderr, flush=True)
        rows.append((notebook.stem, backend, f"{seconds:.0f}", "failed" if failure else "passed"))
    after = installed(python)
    for line in sorted(before - after):
        print(f"Changed or removed: {line}", file=sys.stderr)
    print(f"Packages added ({backend}): {', '.join(sorted(after - before)) or 'none'}")
    unchanged = "failed" if before - after else "passed"
    return [*rows, ("versions unchanged", backend, "", unchanged)]


def check_forms(notebooks: list[Path]) -> list[tuple[str, str, str, str]]:
    rows = []
    for notebook in notebooks:
        fields, wrong = read_form(parameters_of(json.loads(notebook.read_text("utf-8")))[1])
        print(f"{notebook.stem}: {fields}")
        print("\n".join(wrong), file=sys.stderr)
        rows.append((f"{notebook.stem} form", "", "", "failed" if wrong else "passed"))
    return rows


def check_misspelt(
    python: Path, notebooks: list[Path], archive: Path
) -> list[tuple[str, str, str, str]]:
    rows = []
    for notebook in notebooks:
        with tempfile.TemporaryDirectory(prefix="colab-check-") as folder:
            copy = prepare(notebook, Path(folder) / "content", archive, misspelt=True)
            seconds, failure = execute(python, copy, "tensorflow")
        refused = "InvalidParameter: There is no parameter" in failure and "did you mean" in failure
        result = "refused" if refused else "failed"
        rows.append((f"{notebook.stem} misspelt", "tensorflow", f"{seconds:.0f}", result))
    return rows


def check_unpacked(python: Path, notebook: Path, archive: Path) -> tuple[str, str, str, str]:
    """Execute a notebook beside the package, in an unpacked archive that git knows nothing of."""
    with tempfile.TemporaryDirectory(prefix="colab-check-") as folder:
        zipfile.ZipFile(archive).extractall(folder)
        inside = next(Path(folder).glob("*/notebooks"))
        copy = prepare(notebook, inside, archive)
        seconds, failure = execute(python, copy, "tensorflow", offline=True)
    print(failure[-3000:], file=sys.stderr, flush=True)
    result = "failed" if failure else "passed"
    return f"{notebook.stem} unpacked", "tensorflow", f"{seconds:.0f}", result


def main() -> int:
    parser = argparse.ArgumentParser(description="Execute the notebooks as Colab would.")
    parser.add_argument("--only", default="", help="begin of a notebook's name, such as 03")
    parser.add_argument("--backend", choices=("tensorflow", "jax"), help="only this one")
    options = parser.parse_args()
    notebooks = sorted(ROOT.glob("notebooks/0*.ipynb"))
    chosen = [path for path in notebooks if path.name.startswith(options.only)]
    BUILD.mkdir(parents=True, exist_ok=True)
    archive = make_archive()
    rows = check_forms(chosen)
    if options.backend != "jax":
        python = make_environment("colab")
        rows += check("tensorflow", python, chosen, archive)
        rows += check_misspelt(python, chosen, archive)
        rows.append(check_unpacked(python, notebooks[0], archive))
    if options.backend != "tensorflow":
        python = make_environment("colab-without-tensorflow", without="tensorflow")
        on_jax = [path for path in chosen if path.name.startswith(("03", "04", "06"))]
        rows += check("jax", python, on_jax, archive)
    print(f"\n{'notebook':22} {'backend':11} {'seconds':>7}  result")
    for notebook, backend, seconds, result in rows:
        print(f"{notebook:22} {backend:11} {seconds:>7}  {result}")
    return 1 if not chosen or any(row[-1] == "failed" for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
