import io
import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

from wbc_helpers import __main__, pipeline
from wbc_helpers.errors import DataNotFound
from wbc_helpers.runs import recipes

ROOT = Path(__file__).resolve().parents[1]


def test_a_run_is_named_after_what_makes_it_differ():
    chosen = recipes.TrainingSettings(epochs=20)
    assert chosen.default_name("sample") == "paper-sample-20"
    assert recipes.TrainingSettings(epochs=20, seed=3).default_name("kaggle") == (
        "paper-kaggle-20-seed3"
    )
    grouped = recipes.TrainingSettings(epochs=20, validation="grouped")
    assert grouped.default_name("kaggle") == "paper-kaggle-20-grouped"


@pytest.mark.parametrize(
    "wrong",
    [
        ["--epochs", "0"],
        ["--epochs", "ten"],
        ["--recipe", "resnet"],
        ["--seed", "-1"],
        ["--validation", "none"],
        ["--source", "no-such-archive.zip"],
        ["--run", "../elsewhere"],
        ["--epocs", "'--epochs'"],
    ],
)
def test_a_wrong_argument_is_refused_before_any_work(wrong, tmp_path, capsys):
    folders = ["--data-dir", str(tmp_path / "data"), "--runs-dir", str(tmp_path / "runs")]
    assert __main__.main(["run", "--source", "sample", *folders, *wrong]) == 2
    said = capsys.readouterr()
    assert wrong[1] in said.err and "Traceback" not in said.err
    assert not (tmp_path / "runs").exists() and not (tmp_path / "data").exists()


@pytest.mark.parametrize("folds", ["1", "five"])
def test_a_wrong_number_of_folds_is_refused_before_any_work(folds, tmp_path, capsys):
    folders = ["--data-dir", str(tmp_path / "data"), "--runs-dir", str(tmp_path / "runs")]
    assert __main__.main(["crossval", "--source", "sample", *folders, "--folds", folds]) == 2
    assert "folds=" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_tilde_stands_for_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine").mkdir()
    assert __main__.main(["report", "--runs-dir", "~/mine"]) == 0
    assert (tmp_path / "mine" / "index.html").is_file()


@pytest.fixture(scope="module")
def finished(sample_folder, tmp_path_factory):
    """One whole run of the main job, two epochs on the sample, from a folder with a space."""
    folder = tmp_path_factory.mktemp("a folder")
    return folder, main_job(folder, sample_folder)


def main_job(folder, source, *more):
    command = [sys.executable, "-m", "wbc_helpers", "run", "--source", str(source), "--run", "two"]
    folders = ["--data-dir", str(folder / "data"), "--runs-dir", str(folder / "runs")]
    return subprocess.run(
        [*command, *folders, "--epochs", "2", "--recipe", "paper", *more],
        cwd=ROOT,
        # Notebooks choose their own way to show figures.
        env={name: value for name, value in os.environ.items() if name != "MPLBACKEND"},
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.mark.slow
@pytest.mark.parametrize(("name", "n_figures"), [("01_download", 1), ("02_explore", 8)])
def test_every_figure_is_in_the_executed_notebook_once(finished, name, n_figures):
    folder, _ = finished
    executed = json.loads((folder / "runs" / "two" / f"{name}.ipynb").read_text())
    outputs = [output for cell in executed["cells"] for output in cell.get("outputs", ())]
    drawn = [output for output in outputs if "image/svg+xml" in output.get("data", ())]
    assert len(drawn) == n_figures
    assert not [output for output in outputs if "image/png" in output.get("data", ())]
    assert all(output["metadata"]["image/svg+xml"]["alt"] for output in drawn)


@pytest.mark.slow
def test_no_table_of_the_notebooks_has_raw_digits_and_no_two_figures_share_a_caption(finished):
    folder, _ = finished
    for page in sorted((folder / "runs" / "two").glob("0*.html")):
        soup = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
        shown = [cell.get_text(strip=True) for cell in soup.select("table.dataframe td")]
        raw = [text for text in shown if re.fullmatch(r"-?\d+\.\d{4,}|\d{2,}\.0{2,}", text)]
        assert not raw, (page.name, raw)
        captions = [
            caption.get_text().partition(" · ")[2] for caption in soup.find_all("figcaption")
        ]
        assert len(captions) == len(set(captions)), page.name
        headings = {heading.get_text(strip=True) for heading in soup.find_all(["h1", "h2", "h3"])}
        assert not headings & {caption.removesuffix(" Full size") for caption in captions}
        assert len(soup.select("details.preparation")) == 1, page.name


@pytest.mark.slow
def test_the_main_job_ends_with_scores_and_the_report(finished, sample_catalog):
    folder, done = finished
    assert done.returncode == 0, done.stderr[-3000:]
    run = folder / "runs" / "two"
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert evaluation["test"]["n_images"] == (sample_catalog.split == "TEST").sum()
    assert evaluation["data"]["drawn"] is True and evaluation["epochs"] == 2
    assert f"{evaluation['test']['accuracy']:.1%}" in done.stdout
    assert str(run / "index.html") in done.stdout and (run / "index.html").is_file()
    assert (folder / "runs" / "index.html").is_file()
    for name in pipeline.NOTEBOOKS:
        assert (run / f"{name}.ipynb").is_file() and (run / f"{name}.html").is_file()


@pytest.mark.slow
def test_progress_and_the_banner_are_seen_in_the_terminal(finished):
    _, done = finished
    assert "drawn" in done.stdout.lower()
    for words in ("1 of 4", "4 of 4"):
        assert words in done.stdout
    assert "epoch 2 of 2" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_done_again_it_trains_nothing_and_changes_no_result(finished, sample_folder):
    folder, _ = finished
    run = folder / "runs" / "two"
    kept = ("model.keras", "history.csv", "settings.json", "evaluation.json", "03_train.ipynb")
    before = [(run / name).read_bytes() for name in kept]
    again = main_job(folder, sample_folder)
    assert again.returncode == 0 and "1 of 4" not in again.stdout
    assert f"Report of this run:  {run / 'index.html'}" in again.stdout
    assert [(run / name).read_bytes() for name in kept] == before


@pytest.mark.slow
def test_other_settings_under_the_name_are_refused_at_once(finished, sample_folder):
    folder, _ = finished
    executed = folder / "runs" / "two" / "03_train.ipynb"
    before = executed.read_bytes()
    refused = main_job(folder, sample_folder, "--seed", "5")
    assert refused.returncode == 2 and "RunExists" in refused.stderr
    assert executed.read_bytes() == before


@pytest.mark.slow
def test_a_folder_of_somebody_elses_is_left_alone(sample_folder, tmp_path):
    (tmp_path / "runs" / "two").mkdir(parents=True)
    (tmp_path / "runs" / "two" / "thesis.tex").write_text("years of work")
    refused = main_job(tmp_path, sample_folder)
    assert refused.returncode == 2 and "thesis.tex" in refused.stderr
    assert [entry.name for entry in (tmp_path / "runs" / "two").iterdir()] == ["thesis.tex"]


@pytest.mark.slow
def test_a_notebook_that_stops_is_reported_with_its_place(finished, sample_folder, tmp_path):
    # A truncated test image lets three notebooks through and stops the fourth.
    import shutil

    broken = shutil.copytree(sample_folder, tmp_path / "broken")
    image = next((broken / "dataset2-master").rglob("TEST/*/*.jpeg"))
    image.write_bytes(image.read_bytes()[: image.stat().st_size // 2])
    done = main_job(tmp_path, broken)
    assert done.returncode == 1
    assert "04_evaluate stopped: UnreadableImage" in done.stdout and image.name in done.stdout
    page = (tmp_path / "runs" / "two" / "index.html").read_text()
    assert "UnreadableImage" in page


def test_notebooks_are_found_in_the_clone_and_beside_an_installed_package(tmp_path, monkeypatch):
    assert pipeline.notebooks_folder() == ROOT / "notebooks"
    monkeypatch.setattr(pipeline.sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(DataNotFound, match="pip install"):
        pipeline.notebooks_folder(tmp_path)
    installed = tmp_path / "share" / "wbc_helpers" / "notebooks"
    installed.mkdir(parents=True)
    (installed / "01_download.ipynb").touch()
    assert pipeline.notebooks_folder(tmp_path) == installed


class Terminal(io.StringIO):
    def isatty(self):
        return True


def told(*messages, stream=None):
    stream = stream or io.StringIO()
    progress = pipeline.Progress("3 of 4 · 03_train", 15, stream, pause=0.0)
    progress.pause = 0.0
    for message in messages:
        progress.emit(logging.LogRecord("papermill", logging.INFO, "", 0, message, None, None))
    return progress, stream


def test_progress_names_the_cell_the_work_and_the_time_left():
    _, stream = told(
        "Executing Cell 7---------",
        "patches:  50%|#####     | 5/10 [00:02<00:03,  2.00image/s]",
        "Epoch 1/3\n75/75 - 10s - 133ms/step - accuracy: 0.5000 - loss: 1.1",
        "a table\nthat nobody asked for",
    )
    lines = [" ".join(line.split()) for line in stream.getvalue().splitlines()]
    assert lines[0] == "3 of 4 · 03_train cell 1 of 15"
    assert lines[1] == "3 of 4 · 03_train cell 7 of 15, patches 50%, 00:03 left"
    assert lines[-1] == (
        "3 of 4 · 03_train cell 7 of 15, training, epoch 1 of 3, accuracy 50%, about 20 s left"
    )
    assert "table" not in stream.getvalue()


def test_the_last_epoch_is_told_however_soon_it_comes():
    progress, stream = told("Executing Cell 7-----", "Epoch 1/2")
    progress.pause = 60.0
    for line in (
        "7/7 - 0s - 3ms/step - accuracy: 0.5",
        "Epoch 2/2",
        "7/7 - 0s - 3ms/step - accuracy: 0.75",
    ):
        progress.emit(logging.LogRecord("papermill", logging.INFO, "", 0, line, None, None))
    assert stream.getvalue().splitlines()[-1].endswith("epoch 2 of 2, accuracy 75%")
    assert "50%" not in stream.getvalue()


def test_on_a_terminal_one_line_is_written_over():
    progress, stream = told("Executing Cell 2-----", "Executing Cell 3-----", stream=Terminal())
    progress.end("done, 15 cells")
    assert stream.getvalue().count("\n") == 1 and stream.getvalue().count("\r") == 4


def test_no_score_can_be_taken_for_anothers(tmp_path):
    score = {"n_images": 2487, "accuracy": 0.9, "balanced_accuracy": 0.8}
    evaluation = {
        "run": "a", "recipe": "compact", "epochs": 3, "parameters": 80340,
        "seconds": {"train": 60.0}, "train": {"n_images": 8961},
        "validation": {"n_images": 996, "accuracy": 0.7, "split": "grouped"},
        "test": {**score, "interval_by_photograph": [0.75, 0.95],
                 "photographs": {"n_images": 71, "accuracy": 0.5, "balanced_accuracy": 0.4}},
        "test_simple": {"n_images": 71, "accuracy": 0.6, "balanced_accuracy": 0.3},
    }  # fmt: skip
    (tmp_path / "evaluation.json").write_text(json.dumps(evaluation))
    rows = [line.split() for line in pipeline.scores(tmp_path).splitlines()]
    assert ["TEST", "images", "2,487", "90.0%", "75.0%", "–", "95.0%", "80.0%"] in rows
    assert ["TEST", "photographs", "71", "50.0%", "40.0%"] in rows
    assert ["TEST_SIMPLE", "images", "71", "60.0%", "30.0%"] in rows
    assert ["validation", "images,", "grouped", "996", "70.0%"] in rows


def test_a_long_training_says_its_time_before_it_starts():
    paper = recipes.TrainingSettings(recipe="paper")
    assert "200 epochs takes about 40 min" in pipeline.time_ahead(paper, 9_957)
    assert pipeline.time_ahead(recipes.TrainingSettings(recipe="pretrained"), 9_957) == ""
