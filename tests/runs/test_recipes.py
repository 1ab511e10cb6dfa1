import dataclasses
import json
from pathlib import Path

import pytest

from wbc_helpers import errors, storage
from wbc_helpers.errors import InvalidParameter
from wbc_helpers.runs import recipes
from wbc_helpers.runs.backend import Runtime


def test_the_papers_recipe_fills_in_what_the_paper_says():
    paper = recipes.TrainingSettings(recipe="paper")
    assert (paper.epochs, paper.batch_size, paper.validation) == (200, 128, "random")
    assert paper.validation_fraction == 0.1


def test_given_values_win_over_the_recipes():
    given = recipes.TrainingSettings(epochs=3, image_size=[32, 48], seed=7)
    assert (given.epochs, given.image_size, given.seed) == (3, (32, 48), 7)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("recipe", "resnet"),
        ("epochs", 0),
        ("epochs", "ten"),
        ("epochs", 2.5),
        ("epochs", True),
        ("batch_size", -1),
        ("image_size", 3),
        ("image_size", (8, 80)),
        ("image_size", "60x80"),
        ("learning_rate", 0),
        ("learning_rate", "fast"),
        ("learning_rate", float("nan")),
        ("validation", "none"),
        ("validation_fraction", 1),
        ("seed", -1),
        ("seed", 2**32),
    ],
)
def test_a_wrong_value_is_refused_with_its_name_and_the_range(name, value):
    with pytest.raises(InvalidParameter) as refusal:
        recipes.TrainingSettings(**{name: value})
    assert name in str(refusal.value) and repr(value) in str(refusal.value)
    assert "Expected" in str(refusal.value)


@pytest.mark.parametrize("value", ["", "rand", "Random", None, 0, ["random"], "random, grouped"])
def test_what_is_no_choice_is_refused_with_all_there_are(value):
    with pytest.raises(InvalidParameter) as refusal:
        errors.check_choice("split", value, ("random", "grouped"))
    assert f"split={value!r}" in str(refusal.value)
    assert "Expected one of random, grouped" in str(refusal.value)


def test_each_choice_is_taken():
    for value in ("random", "grouped"):
        assert errors.check_choice("split", value, ("random", "grouped")) is None
    errors.check_choice("ways", 2, (1, 2, 4))
    with pytest.raises(InvalidParameter, match="Expected one of 1, 2, 4"):
        errors.check_choice("ways", 3, (1, 2, 4))


@pytest.mark.parametrize("value", [5, None, "", "  ", ["data"]])
def test_what_is_no_folder_is_refused(value, tmp_path):
    with pytest.raises(InvalidParameter, match="data_dir"):
        storage.check_folder("data_dir", value, tmp_path)


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "notes").write_text("")
    with pytest.raises(InvalidParameter, match="is a file"):
        storage.check_folder("runs_dir", "notes", tmp_path)


def test_a_relative_folder_is_meant_from_the_project(tmp_path):
    assert storage.check_folder("data_dir", "data", tmp_path) == tmp_path / "data"
    assert storage.check_folder("data_dir", "/mnt/drive", tmp_path) == Path("/mnt/drive")


def test_what_is_recorded_is_json_and_complete():
    runtime = Runtime("CPU", "tensorflow", 1, "no GPU.")
    recorded = recipes.describe(recipes.TrainingSettings(), {"digest": "0"}, runtime)
    assert json.loads(json.dumps(recorded)) == recorded
    assert recorded["training"]["optimizer"] == "rmsprop"
    assert {"python", "keras", "numpy", "wbc_helpers"} <= set(recorded["versions"])


def test_a_recipe_says_what_images_it_can_be_shown():
    for recipe, size in (("compact", (48, 64)), ("pretrained", (31, 31)), ("lenet", (21, 40))):
        with pytest.raises(InvalidParameter, match=f"recipe='{recipe}'"):
            recipes.TrainingSettings(recipe=recipe, image_size=size)
    recipes.TrainingSettings(recipe="lenet", image_size=(22, 40))


def test_a_changed_recipe_makes_another_run(monkeypatch):
    chosen = recipes.TrainingSettings(recipe="compact")
    before = chosen.to_dict()
    assert before["views"]["zoom"] == recipes.RECIPES["compact"].views.zoom
    assert before["schedule"] == "cosine" and before["optimizer"] == "adamw"
    other = dataclasses.replace(recipes.RECIPES["compact"], label_smoothing=0.2)
    monkeypatch.setitem(recipes.RECIPES, "compact", other)
    assert chosen.to_dict() != before
    readings = recipes.RECIPES["compact"].readings | {"dropout": 0.4}
    other = dataclasses.replace(recipes.RECIPES["compact"], readings=readings)
    monkeypatch.setitem(recipes.RECIPES, "compact", other)
    assert chosen.to_dict()["readings"]["dropout"] == 0.4
    # A recipe without special ways adds nothing, so that its older runs are still known.
    assert set(recipes.TrainingSettings().to_dict()) == {
        *(setting.name for setting in dataclasses.fields(recipes.TrainingSettings)),
        "optimizer", "readings",
    }  # fmt: skip
