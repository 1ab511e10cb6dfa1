"""The repository itself: its Makefile, its address, its versions, and what it must not hold."""

import ast
import importlib.metadata
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path, PurePath

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
RUN_VARIABLES = ("SOURCE", "EPOCHS", "RECIPE", "RUN", "SEED", "DATA_DIR", "RUNS_DIR")
OUTER = {
    name: value
    for name, value in os.environ.items()
    if name not in (*RUN_VARIABLES, "PYTHON", "VENV", "MARKERS", "PYTEST_ARGS", "CI")
    # A `make` that started these tests would hand its own variables to the one under test.
    and not name.startswith(("MAKE", "MFLAGS"))
}

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="no make on this machine")


def make(*arguments: str, folder: Path = ROOT, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=folder,
        env=OUTER | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def tracked(pattern: str = "*") -> list[str]:
    """Files that git tracks; none where this is no clone."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("not a clone")
    command = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z", "--", pattern]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return [name for name in listed.stdout.split("\0") if name]


# --- The Makefile ---------------------------------------------------------------------------------


@needs_make
def test_help_names_every_target():
    targets = set(re.findall(r"^\.PHONY: (\S+)$", (ROOT / "Makefile").read_text(), re.M))
    assert {"run", "test", "lint", "clean", "badges", "colab-check", "bench"} <= targets
    for command in ((), ("help",)):
        described = re.findall(r"^  ([a-z-]+)  +\S", make(*command).stdout, re.M)
        assert set(described) == targets and len(described) == len(targets)


def words_of_run(*assignments: str, **environment: str) -> list[str]:
    """Words that the shell would get to see as the last command of `make run`."""
    done = make("-n", "run", *assignments, **environment)
    assert done.returncode == 0, done.stderr
    return shlex.split(done.stdout.splitlines()[-1])


@needs_make
def test_run_passes_only_what_was_given():
    start = [".venv/bin/python", "-m", "wbc_helpers", "run"]
    assert words_of_run() == start
    assert words_of_run("EPOCHS=") == start
    assert words_of_run("SOURCE=a b.zip", "RUN=x") == [*start, "--source=a b.zip", "--run=x"]
    assert words_of_run(SEED="3") == [*start, "--seed=3"]


def test_every_variable_of_the_makefile_may_be_given():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    known = re.search(r"^VARIABLES = ((?:.*\\\n)*.*)$", makefile, re.M)
    of_defaults = set(re.findall(r"^([A-Z_]+) \?=", makefile, re.M))
    assert len(of_defaults) > 5 and of_defaults <= set(known[1].split())


@needs_make
@pytest.mark.parametrize(
    ("misspelt", "meant"), [("EPOCH", "EPOCHS"), ("SORUCE", "SOURCE"), ("RUNDIR", "RUNS_DIR")]
)
def test_a_misspelt_variable_is_refused_with_the_nearest_name(misspelt, meant):
    done = make("-n", "run", f"{misspelt}=3")
    assert done.returncode == 2 and not done.stdout
    assert f"no variable {misspelt}; did you mean {meant}?" in done.stderr


@needs_make
def test_every_variable_that_is_read_can_be_given():
    makefile = (ROOT / "Makefile").read_text()
    given = re.search(r"^VARIABLES = ((?:.*\\\n)*.*)$", makefile, re.M)[1].replace("\\", "").split()
    options = re.findall(r"\$\(call (?:option,[a-z-]+|quoted),(\w+)\)", makefile)
    assert set(options) | set(RUN_VARIABLES) <= set(given)
    assert make("-n", "help", *(f"{name}=1" for name in given)).returncode == 0


@needs_make
@pytest.mark.parametrize(
    "awkward", ["a b.zip", "it's", '"', "$HOME", "$(date)", "a$(b", "`date`", "a;b#c", "*", "-x"]
)
def test_run_takes_any_path_as_it_is_typed(awkward):
    options = {"--source=": "SOURCE", "--data-dir=": "DATA_DIR", "--runs-dir=": "RUNS_DIR"}
    given = words_of_run(*(f"{name}={awkward}" for name in options.values()))
    assert given[4:] == [f"{option}{awkward}" for option in options]


@needs_make
def test_clean_leaves_data_and_runs(tmp_path):
    folder = tmp_path / "with a space"
    kept = [folder / name for name in ("data/build/a", "runs/x/__pycache__/b", ".venv/bin/c")]
    removed = [
        folder / name
        for name in ("build/d", "dist/e", "wbc_helpers/__pycache__/f", "tests/__pycache__/g")
    ]
    for path in (
        *kept,
        *removed,
        folder / ".ci/run",
        folder / "notebooks/h.py",
        folder / "benchmarks/i.py",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    shutil.copy(ROOT / "Makefile", folder)
    for _ in range(2):
        done = make("clean", folder=folder)
        assert done.returncode == 0, done.stderr
        assert all(path.exists() for path in kept)
        assert not any(path.exists() for path in removed)
    assert (folder / "notebooks/h.py").exists()


# A Python that makes environments by copying itself, and whose pip only notes that it was called.
FAKE_PYTHON = """#!/bin/sh
case "$*" in
"-m venv "*)
    mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && touch "$3/pyvenv.cfg"
    echo venv >> log ;;
*"-m pip install"*"[dev]") echo pip-dev >> log; exit "${PIP_STATUS:-0}" ;;
*"-m pip install"*) echo pip >> log; exit "${PIP_STATUS:-0}" ;;
*) exec "%s" "$@" ;;
esac
"""


@pytest.fixture
def checkout(tmp_path) -> Path:
    """Fresh checkout, as far as `make setup` is concerned, with a Python of its own."""
    folder = tmp_path / "a checkout"
    (folder / ".ci").mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "requirements.txt", ".ci/setup"):
        shutil.copy(ROOT / name, folder / name)
    python = tmp_path / "fake python"
    python.write_text(FAKE_PYTHON % sys.executable)
    python.chmod(0o755)
    return folder


def set_up(
    folder: Path, *arguments: str, target: str = "setup", **environment: str
) -> tuple[int, list[str], str]:
    """Exit status, what was done, and what was said."""
    log = folder / "log"
    log.unlink(missing_ok=True)
    python = str(folder.parent / "fake python")
    done = make(target, *(arguments or (f"PYTHON={python}",)), folder=folder, **environment)
    return done.returncode, log.read_text().split() if log.exists() else [], done.stderr


@needs_make
def test_setup_installs_once(checkout):
    assert set_up(checkout)[:2] == (0, ["venv", "pip"])
    assert set_up(checkout)[:2] == (0, [])
    # Without a word on which Python, the environment that is there will do.
    assert set_up(checkout, "VENV=.venv") == (0, [], "")


@needs_make
def test_setup_installs_again_when_the_requirements_change(checkout):
    set_up(checkout)
    settings = checkout / "pyproject.toml"
    settings.write_text(settings.read_text().replace("owner/white-blood-cells", "a/b"))
    assert set_up(checkout)[:2] == (0, [])
    settings.write_text(settings.read_text().replace("\nwbc = ", '\nw = "a:b"\nwbc = '))
    assert set_up(checkout)[:2] == (0, ["pip"])
    with (checkout / "requirements.txt").open("a") as requirements:
        requirements.write("one-more\n")
    assert set_up(checkout)[:2] == (0, ["pip"])
    assert set_up(checkout)[:2] == (0, [])


@needs_make
def test_setup_of_a_contributor_holds_that_of_a_user(checkout):
    assert set_up(checkout)[:2] == (0, ["venv", "pip"])
    assert set_up(checkout, target="setup-dev")[:2] == (0, ["pip-dev"])
    assert set_up(checkout)[:2] == set_up(checkout, target="setup-dev")[:2] == (0, [])
    settings = checkout / "pyproject.toml"
    settings.write_text(settings.read_text().replace('"pytest>=', '"tqdm",\n    "pytest>='))
    assert set_up(checkout)[:2] == (0, [])
    assert set_up(checkout, target="setup-dev")[:2] == (0, ["pip-dev"])


@needs_make
def test_a_user_gets_no_tools_of_tests(checkout):
    """`make run` sets up the package alone, `make test` the rest."""
    recipe = make("-n", "run", folder=checkout).stdout
    assert re.search(r"sh .ci/setup \S+ \S+$", recipe, re.M)
    assert re.search(r"sh .ci/setup \S+ \S+ dev$", make("-n", "lint", folder=checkout).stdout, re.M)
    names = {item.name for item in requirements(ROOT / "requirements.txt")}
    assert names.isdisjoint({"jax", "playwright", "pre-commit", "pytest", "ruff", "mypy"})


@needs_make
def test_setup_starts_anew_after_it_was_killed(checkout):
    status, done, _ = set_up(checkout, PIP_STATUS="137")
    assert status != 0 and done == ["venv", "pip"]
    (checkout / ".venv" / "half-written").touch()
    assert set_up(checkout)[:2] == (0, ["venv", "pip"])
    assert not (checkout / ".venv" / "half-written").exists()
    assert set_up(checkout)[:2] == (0, [])


@needs_make
def test_setup_goes_on_after_pip_failed(checkout):
    status, done, said = set_up(checkout, PIP_STATUS="1")
    assert status != 0 and done == ["venv", "pip"]
    assert "could not be installed" in said
    assert set_up(checkout)[:2] == (0, ["pip"])


@needs_make
def test_setup_makes_a_broken_environment_anew(checkout):
    set_up(checkout)
    (checkout / ".venv" / "bin" / "python").unlink()
    assert set_up(checkout)[:2] == (0, ["venv", "pip"])


@needs_make
def test_setup_says_what_is_wrong_with_python(checkout):
    status, done, said = set_up(checkout, "PYTHON=/no/such/python")
    assert (status != 0, done) == (True, [])
    assert "PYTHON=/no/such/python does not start" in said

    old = checkout.parent / "old"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.1 || exit 3\n')
    old.chmod(0o755)
    status, _, said = set_up(checkout, f"PYTHON={old}")
    assert status != 0 and "is Python 3.9.1; 3.11, 3.12 or 3.13 is needed" in said

    old.write_text("#!/bin/sh\nexit 4\n")
    status, _, said = set_up(checkout, f"PYTHON={old}")
    assert status != 0 and "apt-get install python3-venv" in said


@needs_make
def test_setup_finds_a_python_that_will_do(checkout):
    programs = checkout.parent / "programs"
    programs.mkdir()
    for name in ("sh", "make", "dirname", "cat", "cksum", "mkdir", "rm", "rmdir", "cp", "touch"):
        (programs / name).symlink_to(shutil.which(name))
    for status, name in ((3, "python3.13"), (4, "python3.12")):
        (programs / name).write_text(f"#!/bin/sh\nexit {status}\n")
        (programs / name).chmod(0o755)
    status, done, said = set_up(checkout, "VENV=.venv", PATH=str(programs))
    assert status != 0 and done == []
    assert "the venv module of python3.12 is missing" in said
    (programs / "python3.12").unlink()
    _, _, said = set_up(checkout, "VENV=.venv", PATH=str(programs))
    assert "No Python 3.11, 3.12 or 3.13 was found" in said
    shutil.copy(checkout.parent / "fake python", programs / "python3")
    assert set_up(checkout, "VENV=.venv", PATH=str(programs))[:2] == (0, ["venv", "pip"])


@needs_make
def test_setup_leaves_a_folder_that_is_no_environment(checkout):
    (checkout / ".venv").mkdir()
    (checkout / ".venv" / "notes.txt").touch()
    status, done, said = set_up(checkout)
    assert status != 0 and done == [] and "is no Python environment" in said
    assert (checkout / ".venv" / "notes.txt").exists()


# --- The address ----------------------------------------------------------------------------------


def badges(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(folder / ".ci" / "badges.py"), *arguments],
        capture_output=True,
        text=True,
    )


def test_all_places_agree_on_the_address():
    done = badges(ROOT, "--check")
    assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_is_published_under_the_placeholder(small_repository):
    done = badges(small_repository, "--published")
    assert done.returncode == 1 and "Nothing is published" in done.stdout
    badges(small_repository, "Robert-Hooke/micro.graphia")
    assert badges(small_repository, "--published").returncode == 0


def test_the_workflow_writes_the_address_before_the_pages_ask_for_it():
    workflows = {path.stem: path.read_text() for path in ROOT.glob(".github/workflows/*.yml")}
    assert 'badges.py "$GITHUB_REPOSITORY"' in workflows["address"]
    assert "workflows: [address]" in workflows["pages"]
    published = workflows["pages"].index("badges.py --published")
    assert published < workflows["pages"].index("make site")


NOTEBOOK = """# %% [markdown]
# # Toy
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/owner/white-blood-cells/blob/main/notebooks/01_toy.ipynb)

# %%
run("install --no-deps https://github.com/owner/white-blood-cells/archive/refs/heads/main.zip")
"""


@pytest.fixture
def small_repository(tmp_path) -> Path:
    (tmp_path / ".ci").mkdir()
    (tmp_path / "notebooks").mkdir()
    for name in (".ci/badges.py", "pyproject.toml", "CITATION.cff"):
        shutil.copy(ROOT / name, tmp_path / name)
    settings = (tmp_path / "pyproject.toml").read_text()
    (tmp_path / "pyproject.toml").write_text(
        re.sub(r"github\.com/[\w.-]+/[\w.-]+", "github.com/owner/white-blood-cells", settings)
    )
    citation = (tmp_path / "CITATION.cff").read_text()
    (tmp_path / "CITATION.cff").write_text(
        re.sub(r"(code: .*github\.com/)[\w.-]+/[\w.-]+", r"\1owner/white-blood-cells", citation)
    )
    badge = NOTEBOOK.splitlines()[2].removeprefix("# ")
    (tmp_path / "README.md").write_text(
        f"{badge}\nSee https://github.com/owner/white-blood-cells. Not "
        "https://github.com/owner/white-blood-cells-atlas, nor owner/white-blood-cells, but\n"
        "git clone https://github.com/owner/white-blood-cells.git and its pages on\n"
        "https://owner.github.io/white-blood-cells/ from https://github.com/Shenggan/BCCD_Dataset\n"
    )
    (tmp_path / "notebooks" / "01_toy.py").write_text(NOTEBOOK)
    cells = [
        {"cell_type": "markdown", "source": NOTEBOOK.splitlines()[2]},
        {"cell_type": "code", "source": [NOTEBOOK.splitlines()[-1] + "\n"]},
    ]
    (tmp_path / "notebooks" / "01_toy.ipynb").write_text(json.dumps({"cells": cells}, indent=1))
    return tmp_path


def texts(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_badges_writes_the_address_everywhere_and_nothing_else(small_repository):
    before = texts(small_repository)
    assert badges(small_repository, "--check").returncode == 0
    assert badges(small_repository, "Robert-Hooke/micro.graphia").returncode == 0
    after = texts(small_repository)
    assert badges(small_repository, "--check").returncode == 0
    assert {name for name in before if before[name] != after[name]} == {
        "README.md",
        "CITATION.cff",
        "pyproject.toml",
        "notebooks/01_toy.py",
        "notebooks/01_toy.ipynb",
    }
    settings = tomllib.loads(after["pyproject.toml"])
    address = "https://github.com/Robert-Hooke/micro.graphia"
    assert settings["project"]["urls"] == {"Repository": address}
    cells = json.loads(after["notebooks/01_toy.ipynb"])["cells"]
    archive = f"{address}/archive/refs/heads/main.zip"
    assert cells[1]["source"] == [f'run("install --no-deps {archive}")\n']
    assert "github/Robert-Hooke/micro.graphia/blob/main/notebooks/01_toy" in cells[0]["source"]
    readme = after["README.md"]
    for text in (
        "https://github.com/Robert-Hooke/micro.graphia. Not",
        "https://github.com/owner/white-blood-cells-atlas, nor owner/white-blood-cells,",
        "https://github.com/Robert-Hooke/micro.graphia.git",
        "https://robert-hooke.github.io/micro.graphia/",
        "https://github.com/Shenggan/BCCD_Dataset",
    ):
        assert text in readme
    # Twice is once, and back is as before.
    assert badges(small_repository, "Robert-Hooke/micro.graphia").stdout == ""
    assert badges(small_repository, "owner/white-blood-cells").returncode == 0
    assert texts(small_repository) == before


def test_badges_mends_a_place_that_disagrees(small_repository):
    notebook = small_repository / "notebooks" / "01_toy.py"
    notebook.write_text(NOTEBOOK.replace("owner/white", "other/white"))
    done = badges(small_repository, "--check")
    assert done.returncode == 1 and "notebooks/01_toy.py holds another address" in done.stdout
    badges(small_repository, "owner/white-blood-cells")
    assert notebook.read_text() == NOTEBOOK
    notebook.rename(notebook.with_name("02_toy.py"))
    done = badges(small_repository, "--check")
    assert "notebooks/02_toy.py lacks the badge" in done.stdout


@pytest.mark.parametrize("wrong", ["", "owner", "https://github.com/a/b", "a/b/c", "-a/b", "a b/c"])
def test_badges_refuses_what_is_no_repository(small_repository, wrong):
    before = texts(small_repository)
    done = badges(small_repository, "--", wrong)
    assert done.returncode == 2 and "Expected owner/name" in done.stderr
    assert texts(small_repository) == before


# --- What people read -----------------------------------------------------------------------------

PAGES = ("README.md", "CONTRIBUTING.md", "benchmarks/README.md")


def pages() -> list[Path]:
    return [*(ROOT / name for name in PAGES), *sorted((ROOT / "docs").glob("*.md"))]


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 900


def test_links_between_pages_lead_somewhere():
    links = [
        (page, link.partition("#")[0])
        for page in pages()
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
        if not link.startswith("http")
    ]
    assert len(links) > 30
    assert [
        f"{page.name}: {link}" for page, link in links if not (page.parent / link).exists()
    ] == []


def test_the_python_that_pages_show_imports_what_is_there():
    """Each imported name; a call would need weights and photographs."""
    shown = [
        block
        for page in pages()
        for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
    ]
    cards = (ROOT / "wbc_helpers" / "weights").glob("*.md")
    shown += [
        line.strip()
        for card in cards
        for line in card.read_text(encoding="utf-8").splitlines()
        if line.startswith("    from wbc_helpers")
    ]
    statements = [node for block in shown for node in ast.walk(ast.parse(block))]
    imported = [
        (node.module, alias.name)
        for node in statements
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]
    assert len(imported) >= 6
    for module, name in imported:
        assert importlib.util.find_spec(f"{module}.{name}"), f"{module} has no {name}"


# --- Versions and imports -------------------------------------------------------------------------


def requirements(path: Path) -> list[Requirement]:
    lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    return [Requirement(line) for line in lines if line]


def extras() -> dict[str, list[str]]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return settings["project"]["optional-dependencies"]


def test_contributors_have_what_a_cluster_takes():
    assert set(extras()["cluster"]) <= set(extras()["dev"])


def test_our_ranges_hold_what_colab_ships():
    shipped = {
        requirement.name.removesuffix("-cpu"): str(requirement.specifier).removeprefix("==")
        for requirement in requirements(ROOT / "tests" / "colab-requirements.txt")
    }
    ours = requirements(ROOT / "requirements.txt")
    outside = [
        f"{requirement} without {shipped[requirement.name]}"
        for requirement in ours
        if requirement.name in shipped and shipped[requirement.name] not in requirement.specifier
    ]
    assert outside == []
    assert len([requirement for requirement in ours if requirement.name in shipped]) >= 10


def test_everything_imported_is_required():
    """Also by way of another requirement, as SciPy by scikit-learn."""
    # Other backends, Colab's own package, the reader of HEIC: used where they are.
    optional = {"google", "jax", "pillow_heif", "torch"}
    reached, waiting = set(), [item.name for item in requirements(ROOT / "requirements.txt")]
    of_users = (lines for extra, lines in extras().items() if extra != "dev")
    waiting += [Requirement(line).name for lines in of_users for line in lines]
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in reached:
            continue
        reached.add(name)
        try:
            further = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        parsed = map(Requirement, further)
        waiting += [
            item.name for item in parsed if not item.marker or item.marker.evaluate({"extra": ""})
        ]
    homes = importlib.metadata.packages_distributions()
    missing = {}
    for path in sorted((ROOT / "wbc_helpers").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for name in {name.partition(".")[0] for name in imported_by(node)}:
                here = {"wbc_helpers", *optional, *sys.stdlib_module_names}
                found = {re.sub(r"[-_.]+", "-", home).lower() for home in homes.get(name, ())}
                if name not in here and not found & reached:
                    missing.setdefault(name, path.name)
    assert missing == {}


# Prints the seconds of the import alone, then every module that it loaded.
IMPORT = """
import sys, time
before = set(sys.modules)
started = time.perf_counter()
import wbc_helpers
print(time.perf_counter() - started)
print(*(set(sys.modules) - before))
"""


def test_importing_the_package_is_quick_and_loads_nothing(tmp_path):
    seconds = []
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", IMPORT],
            cwd=tmp_path,
            env=OUTER | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
            check=True,
            capture_output=True,
            text=True,
        )
        measured, loaded = done.stdout.splitlines()
        seconds.append(float(measured))
        heavy = {"keras", "tensorflow", "jax", "torch", "pandas", "numpy", "matplotlib", "sklearn"}
        assert heavy.isdisjoint(loaded.split())
    assert min(seconds) < 0.3
    assert list(tmp_path.iterdir()) == []


def imported_by(node: ast.AST) -> list[str]:
    """Modules of others that a statement imports, by their full names."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []


def test_no_module_imports_tensorflow_at_its_top():
    modules = sorted((ROOT / "wbc_helpers").rglob("*.py"))
    assert len(modules) > 40
    at_top = [
        path.relative_to(ROOT).as_posix()
        for path in modules
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        for name in imported_by(node)
        if name.partition(".")[0] == "tensorflow"
    ]
    assert at_top == []


# --- What must not be committed -------------------------------------------------------------------


def test_no_image_or_archive_is_committed():
    suffixes = {
        *(".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".npy", ".npz"),
        *(".zip", ".tar", ".gz", ".7z", ".keras", ".h5"),
    }
    # Tables of names and digests, which tell the data set again without holding any of it; and
    # weights of networks, a few numbers for each image that they were trained on.
    weights = ("wbc_helpers/weights/*.weights.h5", "wbc_helpers/weights/*.onnx")
    ours = ("wbc_helpers/manifests/*.csv.gz", *weights, "docs/images/*")
    others = [name for name in tracked() if not any(map(PurePath(name).match, ours))]
    assert [name for name in others if Path(name).suffix.lower() in suffixes] == []
    assert [name for name in others if (ROOT / name).stat().st_size > 300 * 1024] == []


def test_pictures_of_the_docs_are_small():
    """They show drawn cells alone: `make pictures` makes them from the sample."""
    for name in tracked("docs/images/*"):
        assert Path(name).suffix in {".webp", ".png", ".svg"}
        assert (ROOT / name).stat().st_size <= 150_000, name


def test_weights_that_ship_are_small_and_hold_no_optimizer():
    h5py = pytest.importorskip("h5py")
    for name in tracked("wbc_helpers/weights/*.weights.h5"):
        assert (ROOT / name).stat().st_size <= 8_000_000
        with h5py.File(ROOT / name) as weights:
            assert "optimizer" not in weights, name


def test_nothing_of_data_and_runs_is_committed():
    assert tracked("data") in ([], ["data/.gitkeep"])
    assert tracked("runs") == []


def test_no_notebook_holds_a_picture():
    for name in tracked("*.ipynb"):
        notebook = json.loads((ROOT / name).read_text(encoding="utf-8"))
        assert not any(cell.get("outputs") for cell in notebook["cells"]), name
        assert not any(cell.get("attachments") for cell in notebook["cells"]), name


# --- The site -------------------------------------------------------------------------------------


def test_every_text_has_a_page_and_every_link_of_it_leads_somewhere(tmp_path, monkeypatch):
    """Links to the executed notebooks apart, which are not executed here."""
    from wbc_helpers.report import rendering

    monkeypatch.syspath_prepend(ROOT / ".ci")
    import publish

    (tmp_path / "runs").mkdir()
    rendering.render_overview(tmp_path / "runs")
    notebook = tmp_path / "runs" / publish.RUN / "00_your_slide.html"
    gallery = tmp_path / publish.SLIDE / "index.html"
    for page, said in (
        (notebook, "<p>The same page is <code>index.html</code>.</p>"),
        (gallery, ""),
    ):
        page.parent.mkdir()
        page.write_text(said)
    publish.render(tmp_path)
    assert f'<a href="../../{publish.SLIDE}/index.html"><code>' in notebook.read_text()
    assert f'<a href="{publish.SLIDE}/index.html">' in (tmp_path / "index.html").read_text()
    for text, target in publish.TEXTS.items():
        page = (tmp_path / target).read_text()
        assert "<h1" in page, text
        assert not re.search(r"<(?:img|script|link)[^>]+(?:src|href)=\"(?!data:)", page), text
    dead = [line for line in publish.dead_links(tmp_path) if f"runs/{publish.RUN}/" not in line]
    assert dead == []
    assert '<a href="../index.html">Start</a>' in (tmp_path / "runs/index.html").read_text()
