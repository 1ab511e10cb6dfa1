"""The notebooks: pairs agree, the anatomy holds, outputs are stripped, names are there."""

import ast
import json
import re
import statistics
from pathlib import Path

import jupytext
import nbformat
import numpy as np
import pandas as pd
import papermill
import pytest
from mypy import api as mypy
from papermill.exceptions import PapermillExecutionError
from run_notebooks import parameters

from wbc_helpers import pipeline
from wbc_helpers.data.sources import SOURCES
from wbc_helpers.runs.recipes import OF_ONE_DATA_SET, RECIPES

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = sorted((ROOT / "notebooks").glob("*.py"))
NAMES = [script.stem for script in SCRIPTS]
LONGEST_CELL, MEDIAN_CELL = 20, 6
MOST_NAMES = {"00_your_slide": 17, "01_download": 8, "02_explore": 25, "03_train": 20,
              "04_evaluate": 26, "05_audit": 29, "06_count": 37, "07_laboratories": 24}  # fmt: skip
"""Names of the package that a reader meets in each."""


@pytest.fixture(params=SCRIPTS, ids=NAMES)
def script(request) -> Path:
    return request.param


@pytest.fixture
def notebook(script) -> nbformat.NotebookNode:
    return nbformat.read(script.with_suffix(".ipynb"), as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tagged(notebook, tag):
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]


def test_the_notebooks_of_the_pipeline_are_there():
    assert set(pipeline.NOTEBOOKS) <= set(NAMES)
    assert sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb")) == NAMES


def test_a_pair_agrees(script, notebook):
    from_script = jupytext.read(script)
    assert [(cell.cell_type, cell.source) for cell in notebook.cells] == [
        (cell.cell_type, cell.source) for cell in from_script.cells
    ], f"{script.name} and its .ipynb differ: run `make notebooks`"
    tags = [cell.metadata.get("tags", []) for cell in notebook.cells]
    assert tags == [cell.metadata.get("tags", []) for cell in from_script.cells]


def test_outputs_are_stripped(notebook):
    for cell in code_cells(notebook):
        assert cell.outputs == [] and cell.execution_count is None


def test_it_names_its_runtime_for_colab(script, notebook):
    """Colab gives a GPU to whoever asks; to look at images none is needed."""
    trains = script.stem not in ("00_your_slide", "01_download", "02_explore", "07_laboratories")
    assert notebook.metadata.get("accelerator") == ("GPU" if trains else None)
    assert ("colab" in notebook.metadata) == trains
    said = re.search(r"\*\*Runtime:\*\*(.*)", notebook.cells[0].source, re.S)[1]
    assert all(word in said for word in ("T4 GPU", "TPU", "CPU")) or not trains
    assert notebook.metadata.kernelspec.name == "python3"


def test_it_opens_with_number_question_badge_outcome_and_time(script, notebook):
    opening = notebook.cells[0].source
    assert opening.startswith(f"# {int(script.stem[:2])} · ") and "?" in opening.splitlines()[0]
    assert f"notebooks/{script.name.removesuffix('.py')}.ipynb)" in opening
    assert "**At the end**" in opening and "**Time and hardware:**" in opening


def test_the_first_headings_are_the_same_everywhere(notebook):
    headings = re.findall(
        r"^## (.+)$", "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown"), re.M
    )
    assert headings[:3] == ["Set-up", "Imports", "Parameters"]


def test_the_set_up_cell_is_the_same_everywhere(notebook):
    first = nbformat.read(SCRIPTS[0].with_suffix(".ipynb"), as_version=4)
    assert [cell.source for cell in tagged(notebook, "set-up")] == [
        cell.source for cell in tagged(first, "set-up")
    ]
    (cell,) = tagged(notebook, "set-up")
    assert cell.source.startswith("# @title Set-up\n") and cell.metadata.cellView == "form"
    assert len(cell.source.splitlines()) <= 3


def test_parameters_are_typed_and_documented(notebook):
    (cell,) = tagged(notebook, "parameters")
    table = notebook.cells[notebook.cells.index(cell) - 1].source
    statements = ast.parse(cell.source).body
    assert statements
    for statement in statements:
        assert isinstance(statement, ast.AnnAssign), "a parameter without a type"
        assert f"`{statement.target.id}`" in table, f"{statement.target.id} is not explained"


def test_parameters_are_forms(script, notebook):
    """Each has a field; and where it is left empty, the form says what that stands for."""
    (cell,) = tagged(notebook, "parameters")
    title, *lines = cell.source.splitlines()
    assert title == "# @title Parameters"
    fields = {}
    for line in lines:
        if line.startswith("# @markdown"):
            said = line
            continue
        name, value, form = re.fullmatch(r"(\w+): \w+ = (.+?)  # @param (.+)", line).groups()
        fields[name] = form
        if value == "None":
            own = [
                f"{recipe} .*?{re.escape(str(getattr(values, name)).translate(BRACKETS))}"
                for recipe, values in RECIPES.items()
                if recipe in OF_ONE_DATA_SET
            ]
            assert f"`{name}`" in said and re.search(".*, ".join(own), said), said
    choices = {name: set(re.findall(r'"(\w+)"', form)) for name, form in fields.items()}
    holds = "photographs" if "photographs" in fields else "images"
    named = {name for kind, name in SOURCES if kind == holds} - {"local"}  # a folder, by its path
    if script.stem != "00_your_slide":  # which takes photographs, and no data set
        assert "allow-input" in fields["source"] and choices["source"] == {"auto"} | named
    assert choices.get("recipe", set(OF_ONE_DATA_SET)) == set(OF_ONE_DATA_SET)
    assert all(fields[name].startswith("[") for name in ("recipe", "split") if name in fields)
    if "epochs" in fields:
        assert json.loads(re.sub(r"(\w+):", r'"\1":', fields["epochs"]))["type"] in (
            "slider", "integer",
        )  # fmt: skip


BRACKETS = str.maketrans("()", "[]")  # a size is a tuple here, and a list in a notebook


def test_code_comes_in_small_announced_cells(notebook):
    announced = False
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            announced = True
            continue
        assert announced
    n_lines = [len(cell.source.splitlines()) for cell in code_cells(notebook)]
    assert max(n_lines) <= LONGEST_CELL and statistics.median(n_lines) <= MEDIAN_CELL


def imported(notebook) -> tuple[dict[str, str], list[str]]:
    """What is imported of the package, by name, and each import's room."""
    names, rooms = {}, []
    for cell in code_cells(notebook):
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("wbc_helpers"):
                names |= {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
                rooms.append(node.module)
    return names, rooms


def test_a_reader_meets_few_names_of_the_package(script, notebook):
    """Modules bring one import line a room; what is asked of them is counted."""
    names, rooms = imported(notebook)
    rooms.remove("wbc_helpers")  # the set-up cell's
    assert len(rooms) == len(set(rooms)), rooms
    met = set()
    for cell in code_cells(notebook):
        for node in ast.walk(ast.parse(cell.source)):
            owner = getattr(node, "value", None) if isinstance(node, ast.Attribute) else None
            if isinstance(owner, ast.Name) and owner.id in names:
                met.add(f"{names[owner.id]}.{node.attr}")
    met |= {name for name in names.values() if not any(n.startswith(f"{name}.") for n in met)}
    assert len(met) <= MOST_NAMES[script.stem], sorted(met)


def defined(notebook, name: str) -> str:
    """The cell that defines a function."""
    (cell,) = [c for c in code_cells(notebook) if c.source.startswith(f"def {name}(")]
    return cell.source


def test_the_network_that_03_shows_is_that_of_the_recipe():
    """Layer by layer, and with the same weights from the same seed."""
    from wbc_helpers.classify import networks
    from wbc_helpers.pixels.images import mean_and_std_image
    from wbc_helpers.runs.backend import keras

    notebook = nbformat.read(ROOT / "notebooks" / "03_train.ipynb", as_version=4)
    scope = {"keras": keras, "networks": networks}
    exec(defined(notebook, "paper_network"), scope)
    statistics = mean_and_std_image(np.random.default_rng(0).integers(0, 256, (4, 48, 64, 3)))
    models = []
    for build in (scope["paper_network"], lambda given: networks.build("paper", (48, 64), given)):
        keras.utils.set_random_seed(3)
        models.append(build(statistics))
    shown, own = models
    assert [type(layer) for layer in shown.layers] == [type(layer) for layer in own.layers]
    assert shown.layers[-1].name == own.layers[-1].name and shown.name == own.name
    for ours, recipes in zip(shown.get_weights(), own.get_weights(), strict=True):
        assert np.array_equal(ours, recipes)


@pytest.mark.slow
def test_what_is_asked_of_the_package_is_there():
    """By mypy: every name, and every call's arguments; running them shows the rest."""
    told, problems, _ = mypy.run(
        [*map(str, SCRIPTS), "--config-file", str(ROOT / "pyproject.toml")]
    )
    assert not problems
    assert re.findall(r".*\[(?:attr-defined|call-arg|import-not-found|syntax)\]", told) == []


def test_every_section_says_what_it_is_for(notebook):
    """To a reader of GitHub's preview, who sees no output."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and cell.source.startswith("#"):
            heading, *text = cell.source.splitlines()
            assert any(line.strip() for line in text), f"nothing stands below {heading!r}"


def test_it_ends_with_what_comes_next(notebook):
    assert notebook.cells[-1].cell_type == "markdown"
    assert "**Next:**" in notebook.cells[-1].source


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("01_download", {"source": "flickr"}),
        ("02_explore", {"sorce": "sample"}),
        ("03_train", {"epoch": 1}),
        ("01_download", {"data_dir": 5}),
        ("02_explore", {"image_size": 3}),
        ("03_train", {"epochs": 0}),
        ("03_train", {"epochs": "ten"}),
        ("03_train", {"recipe": "resnet"}),
        ("03_train", {"run": "../up"}),
        ("04_evaluate", {"drive": True}),
        ("04_evaluate", {"run": "no-such-run"}),
        ("04_evaluate", {"wanted_error": 2}),
        ("05_audit", {"epochs": 0}),
        ("00_your_slide", {"photograph": "slide.jpg"}),
        ("00_your_slide", {"photographs": "/no/such/folder"}),
        ("06_count", {"split": "random"}),
        ("06_count", {"epochs": -1}),
        ("06_count", {"photographs": "/no/such/folder"}),
        ("07_laboratories", {"cells_each": 3}),
        ("07_laboratories", {"other": "pbc"}),
    ],
)
@pytest.mark.slow
def test_a_wrong_parameter_stops_it_by_name(name, wrong, sample_folder, tmp_path):
    with pytest.raises(PapermillExecutionError) as stopped:
        papermill.execute_notebook(
            ROOT / "notebooks" / f"{name}.ipynb",
            tmp_path / "executed.ipynb",
            parameters(name, sample_folder, tmp_path) | wrong,
            cwd=ROOT,
            progress_bar=False,
        )
    assert stopped.value.ename in {"InvalidParameter", "DataNotFound", "RunNotFound"}
    ((name, value),) = wrong.items()
    misspelt = f"no parameter {name!r}; did you mean"
    assert misspelt in stopped.value.evalue or str(value) in stopped.value.evalue
    # Checked before any work: nothing was fetched, decoded or begun.
    assert not (tmp_path / "data" / "cache").exists()
    assert not list((tmp_path / "runs").glob("*/settings.json")) if wrong.get("run") else True


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["paper", "compact"])
def test_03_trains_as_the_package_does(recipe, sample_folder, tmp_path):
    """Same seed, same history, whether the notebook's cells train or `training.train_new`."""
    from wbc_helpers.classify import training
    from wbc_helpers.data.identity import identify
    from wbc_helpers.runs.recipes import TrainingSettings

    chosen = {"recipe": recipe, "epochs": 1, "seed": 4}
    given = parameters("03_train", sample_folder, tmp_path) | chosen
    given.pop("image_size")
    for _ in range(2):  # a run that is complete is left as it is
        papermill.execute_notebook(
            ROOT / "notebooks" / "03_train.ipynb", tmp_path / "executed.ipynb", given, cwd=ROOT,
            progress_bar=False,
        )  # fmt: skip
    run = training.train_new(
        TrainingSettings(**chosen), identify(sample_folder), "plain", tmp_path / "data",
        tmp_path / "runs", verbose=0,
    )  # fmt: skip
    columns = ["epoch", "loss", "accuracy", "val_loss", "val_accuracy"]
    by_notebook = pd.read_csv(tmp_path / "runs" / "tiny" / "history.csv")
    pd.testing.assert_frame_equal(by_notebook[columns], run.history[columns])


def test_the_scripts_are_what_a_reviewer_reads():
    """Nothing of Colab's own syntax in them: they are Python."""
    for path in SCRIPTS:
        compile(path.read_text(encoding="utf-8"), path.name, "exec")
        assert not re.search(r"^[!%]", path.read_text(encoding="utf-8"), re.M)
