import json

import pandas as pd
import pytest
from written_files import RUN_SETTINGS

from wbc_helpers.errors import BrokenRun, DataMismatch, InvalidParameter, RunExists, RunNotFound
from wbc_helpers.evaluate import classification
from wbc_helpers.runs import folders


def changed(**training):
    return {**RUN_SETTINGS, "training": {**RUN_SETTINGS["training"], **training}}


def finish(run):
    history = {name: [0.5, 0.6] for name in folders.HISTORY_COLUMNS} | {"epoch": [1, 2]}
    folders.write_history(run, pd.DataFrame(history))
    (run.folder / "split.csv").write_text("file,part\na,train\nb,train\nc,validation\n")
    (run.folder / "model.keras").write_bytes(b"")
    return run


def test_a_run_is_begun_and_found_again(tmp_path):
    run = folders.start("first", tmp_path / "runs", RUN_SETTINGS)
    assert run.settings["name"] == "first" and not run.is_complete
    assert folders.start("first", tmp_path / "runs", RUN_SETTINGS) == run
    assert folders.open_run("first", tmp_path / "runs").settings == run.settings


def test_other_settings_under_the_same_name_are_refused_and_nothing_changes(tmp_path):
    run = folders.start("mine", tmp_path, RUN_SETTINGS)
    before = (run.folder / "settings.json").read_bytes()
    with pytest.raises(RunExists, match=r"training\.epochs was 2, now 3"):
        folders.start("mine", tmp_path, changed(epochs=3))
    with pytest.raises(RunExists, match=r"data\.digest"):
        folders.start("mine", tmp_path, {**RUN_SETTINGS, "data": {"digest": "bb"}})
    assert (run.folder / "settings.json").read_bytes() == before


def test_what_a_recipe_no_longer_does_makes_another_run(tmp_path):
    folders.start("mine", tmp_path, changed(label_smoothing=0.1))
    with pytest.raises(RunExists, match=r"training\.label_smoothing was 0\.1, now None"):
        folders.start("mine", tmp_path, RUN_SETTINGS)


def test_readings_are_compared_unless_the_run_is_older_than_their_record(tmp_path):
    folders.start("older", tmp_path, RUN_SETTINGS)
    folders.start("older", tmp_path, changed(readings={"dropout": 0.3}))
    folders.start("newer", tmp_path, changed(readings={"dropout": 0.3, "filters": (8, 8)}))
    folders.start("newer", tmp_path, changed(readings={"dropout": 0.3, "filters": [8, 8]}))
    with pytest.raises(RunExists, match=r": training\.readings\.dropout was 0\.3, now 0\.4\."):
        folders.start("newer", tmp_path, changed(readings={"dropout": 0.4, "filters": [8, 8]}))


def test_a_size_is_the_same_as_tuple_and_as_list(tmp_path):
    folders.start("mine", tmp_path, RUN_SETTINGS)
    folders.start("mine", tmp_path, changed(image_size=(60, 80)))


def test_a_folder_of_somebody_elses_is_left_alone(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    with pytest.raises(RunExists, match=r"chapter\.tex"):
        folders.start("thesis", tmp_path, RUN_SETTINGS)
    assert [entry.name for entry in (tmp_path / "thesis").iterdir()] == ["chapter.tex"]


def test_notebooks_executed_before_training_do_not_count_as_strangers(tmp_path):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "01_download.ipynb").write_text("{}")
    assert folders.start("new", tmp_path, RUN_SETTINGS).name == "new"


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "x" * 81, 7, "white cell"])
def test_names_that_are_no_folder_names_are_refused(tmp_path, name):
    with pytest.raises(InvalidParameter, match="no name for a folder"):
        folders.folder_of(name, tmp_path)


def test_a_missing_run_is_refused_and_the_others_listed(tmp_path):
    folders.start("here", tmp_path, RUN_SETTINGS)
    with pytest.raises(RunNotFound, match="here"):
        folders.open_run("there", tmp_path)
    with pytest.raises(RunNotFound, match="no finished run"):
        folders.open_run("latest", tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"format": 1, "na', "half written"),
        ('{"format": 99, "versions": {"wbc_helpers": "9.0"}}', "format 99.*9.0"),
        ('{"format": 1}', "half written"),
        ("[]", "half written"),
    ],
)
def test_a_run_of_another_version_or_half_written_is_named(tmp_path, content, words):
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "settings.json").write_text(content)
    with pytest.raises(BrokenRun, match=words):
        folders.open_run("odd", tmp_path)
    with pytest.raises(BrokenRun):
        folders.start("odd", tmp_path, RUN_SETTINGS)
    assert (tmp_path / "odd" / "settings.json").read_text() == content
    assert folders.list_runs(tmp_path) == []


def test_the_latest_is_the_newest_that_finished(tmp_path):
    finish(folders.start("old", tmp_path, RUN_SETTINGS))
    newer = {**RUN_SETTINGS, "created": "2026-01-02T00:00:00+00:00"}
    finish(folders.start("newer", tmp_path, newer))
    folders.start("unfinished", tmp_path, {**RUN_SETTINGS, "created": "2026-01-03T00:00:00+00:00"})
    assert folders.open_run("latest", tmp_path).name == "newer"


def test_other_data_than_those_trained_on_are_refused(tmp_path):
    run = folders.start("mine", tmp_path, RUN_SETTINGS)
    folders.check_data(run, {"digest": "aa", "title": "drawn"})
    with pytest.raises(DataMismatch, match="source='d'"):
        folders.check_data(run, {"digest": "bb", "title": "others"})


def test_the_evaluation_file_holds_the_documented_keys(tmp_path):
    run = finish(folders.start("mine", tmp_path, RUN_SETTINGS))
    test = classification.evaluate(["monocyte", "neutrophil"], [[0, 0, 1, 0], [0.9, 0, 0, 0.1]])
    folders.write_evaluation(run, folders.summarise(run, {"TEST": test}, 1234, 1.5))
    written = json.loads((run.folder / "evaluation.json").read_text())
    assert written["test"]["n_images"] == 2 and written["test"]["accuracy"] == 0.5
    assert written["test"]["per_class"]["monocyte"]["recall"] == 1
    assert written["test"]["per_class"]["lymphocyte"]["recall"] is None
    assert written["train"]["n_images"] == 2 and written["validation"]["n_images"] == 1
    assert written["validation"]["split"] == "random (leaky)"
    assert written["validation"]["accuracy"] == 0.6
    assert written["seconds"] == {"train": 1.1, "evaluate": 1.5}
    assert written["parameters"] == 1234 and written["epochs"] == 2
    assert written["format"] == 1 and "test_simple" not in written
