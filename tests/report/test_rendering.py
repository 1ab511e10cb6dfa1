"""Pages of runs in every state: what they say, that they load nothing, that they read well."""

import base64
import io
import itertools
import json
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import numpy as np
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from wbc_helpers import cells, figures
from wbc_helpers.data import catalog, splits
from wbc_helpers.errors import BrokenRun, PageExists, RunNotFound
from wbc_helpers.evaluate import classification
from wbc_helpers.report import records, rendering

BADGE = "[![Open In Colab](https://colab.example/badge.svg)](https://colab.example/open)"
TABLE = (
    "<div><style scoped>.dataframe td {color: red}</style><table border='1' class='dataframe'>"
    "<thead><tr style='text-align: right;'><th></th><th>file</th><th>n</th></tr></thead>"
    "<tbody><tr><th>0</th><td>_0_1.jpeg</td><td>1,203</td></tr>"
    "<tr><th>1</th><td>12</td><td>-0.5</td></tr></tbody></table></div>"
)
HOSTILE = "<script>alert(1)</script>&amp; \"quoted\" 'name'"
SECTIONS = {
    "01_download": "Download",
    "02_explore": "Explore",
    "03_train": "Train",
    "04_evaluate": "Evaluate",
}


def picture(width=900, height=60):
    """A PNG of plain colour, as a notebook keeps it."""
    stored = io.BytesIO()
    Image.new("RGB", (width, height), "plum").save(stored, "png")
    return base64.b64encode(stored.getvalue()).decode()


def shown(data, kind="display_data"):
    return new_output(kind, data)


def printed(text, name="stdout"):
    return new_output("stream", name=name, text=text)


def executed(name, cells=(), **parameters):
    """A notebook as papermill leaves it, with injected parameters, a table and a picture."""
    notebook = new_notebook(
        metadata={
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
            "papermill": {
                "parameters": parameters,
                "start_time": "2026-11-23T14:03:11.5",
                "duration": 75.0,
            },
        }
    )
    assigned = "# Parameters\n" + "\n".join(f"{k} = {v!r}" for k, v in parameters.items())
    notebook.cells = [
        new_markdown_cell(f"# {SECTIONS.get(name, name)}\n\n{BADGE}\n\n[next](02_explore.ipynb)"),
        new_code_cell(
            assigned, execution_count=1, metadata={"tags": ["injected-parameters"]}, outputs=[]
        ),
        new_markdown_cell("## What do the cells look like?\n\nA sentence announces the cell."),
        new_code_cell(
            "figures.montage(catalog)",
            execution_count=2,
            outputs=[
                shown({"text/html": TABLE, "text/plain": "table"}),
                shown({"image/png": picture(), "text/plain": "<Figure size 900x60>"}),
            ],
        ),
        *cells,
    ]
    return notebook


def failing(name="InvalidParameter", message="epochs is <0>", **parameters):
    """A notebook whose fifth own cell failed, with the marks papermill leaves."""
    traceback = ["\x1b[31m----\x1b[39m", f"\x1b[31m{name}\x1b[39m: {message}"]
    notebook = executed(
        "03_train",
        [
            new_code_cell(
                "training.train(settings)",
                execution_count=3,
                outputs=[new_output("error", ename=name, evalue=message, traceback=traceback)],
                metadata={"papermill": {"exception": True, "duration": 2.0}},
            ),
            new_code_cell("never_reached()"),
        ],
        **parameters,
    )
    mark = {"tags": ["papermill-error-cell-tag"]}
    notebook.cells.insert(
        4, new_markdown_cell('<span id="papermill-error-cell">stopped here:</span>', metadata=mark)
    )
    notebook.cells.insert(0, new_markdown_cell("<span>An Exception was seen</span>", metadata=mark))
    return notebook


def write_notebook(folder, name, notebook):
    nbformat.write(notebook, folder / f"{name}.ipynb")


def scores(accuracy, n_images):
    types = ("eosinophil", "lymphocyte", "monocyte", "neutrophil")
    each = {"precision": accuracy, "recall": accuracy, "f1": accuracy, "n_images": n_images // 4}
    return {
        "n_images": n_images,
        "accuracy": accuracy,
        "balanced_accuracy": accuracy - 0.01,
        "macro_f1": accuracy - 0.02,
        "per_class": dict.fromkeys(types, each),
        "confusion": [[600 if i == j else 7 for j in range(4)] for i in range(4)],
    }


def make_run(
    runs_dir,
    name,
    *,
    accuracy=0.8731,
    epochs=5,
    planned=None,
    drawn=False,
    created="2026-11-23T14:00:00+00:00",
    split="random (leaky)",
    notebooks=tuple(SECTIONS),
    evaluated=True,
):
    """A run folder with known contents."""
    folder = runs_dir / name
    folder.mkdir(parents=True)
    source = "sample" if drawn else "kaggle"
    settings = {
        "format": 1,
        "name": name,
        "created": created,
        "training": {
            "recipe": "paper",
            "epochs": planned or epochs,
            "image_size": [60, 80],
            "seed": 7,
            "validation": split.split()[0],
        },
        "data": {
            "source": source,
            "title": f"Cells of {source}",
            "drawn": drawn,
            "n_images": 12444,
        },
        "versions": {"python": "3.11.2"},
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    rows = [f"{e},{2 / e},{1 - 0.6 / e},{2.2 / e},{1 - 0.7 / e},3.0" for e in range(1, epochs + 1)]
    header = "epoch,loss,accuracy,val_loss,val_accuracy,seconds"
    (folder / "history.csv").write_text("\n".join([header, *rows]) + "\n")
    if evaluated:
        evaluation = {
            "format": 1,
            "data": {"source": source, "drawn": drawn},
            "validation": {"n_images": 996, "accuracy": 0.9512, "split": split},
            "test": scores(accuracy, 2487),
            "test_simple": scores(accuracy - 0.1, 71),
            "seconds": {"train": 61.0, "evaluate": 2.0},
            "parameters": 20836,
            "peak_memory_bytes": 1.31e9,
        }
        (folder / "evaluation.json").write_text(json.dumps(evaluation))
    for notebook in notebooks:
        write_notebook(folder, notebook, executed(notebook, source=source, epochs=epochs))
    return folder


def page_of(path):
    return BeautifulSoup(Path(path).read_text(encoding="utf-8"), "html.parser")


def text_of(path):
    return re.sub(r"\s+", " ", page_of(path).body.get_text(" "))


@pytest.fixture
def run_folder(tmp_path):
    return make_run(tmp_path / "runs", "paper-20")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Rendered runs: complete, training, failed, drawn; and folders that are none."""
    runs_dir = tmp_path_factory.mktemp("white cells") / "runs"
    make_run(runs_dir, "paper-20")
    make_run(runs_dir, "drawn 5", drawn=True, accuracy=0.99)
    make_run(
        runs_dir,
        "half & half",
        epochs=3,
        planned=20,
        evaluated=False,
        notebooks=("01_download", "02_explore"),
    )
    failed = make_run(
        runs_dir, "failed", evaluated=False, notebooks=("01_download", "02_explore"), epochs=1
    )
    long_line = "a_very_long_word_" * 20
    write_notebook(failed, "03_train", failing(message=long_line, source="kaggle"))
    for name in ("paper-20", "drawn 5"):
        wide = new_code_cell(
            "long = " + " + ".join(["number"] * 60),
            execution_count=5,
            outputs=[printed("wide " * 80), shown({"text/plain": "value " * 80})],
        )
        write_notebook(runs_dir / name, "02_explore", executed("02_explore", [wide]))
    (runs_dir / "notes").mkdir()
    (runs_dir / "broken").mkdir()
    (runs_dir / "broken" / "settings.json").write_text('{"format": 1, "na')
    for folder in ("paper-20", "drawn 5", "half & half", "failed"):
        rendering.render_run(runs_dir / folder)
    rendering.render_overview(runs_dir)
    return runs_dir


# The pages of one run


def test_a_run_gets_its_summary_and_a_page_for_each_notebook(run_folder):
    index = rendering.render_run(run_folder)
    assert index == run_folder / "index.html"
    assert {page.stem for page in run_folder.glob("*.html")} == {*SECTIONS, "index"}
    assert not list(run_folder.glob(".*"))


def test_the_summary_states_settings_and_scores(run_folder):
    stated = text_of(rendering.render_run(run_folder)).replace("\N{NARROW NO-BREAK SPACE}", " ")
    for fact in (
        "paper-20",
        "complete",
        "Cells of kaggle",
        "23 Nov 2026, 14:00 UTC",
        "60 \N{MULTIPLICATION SIGN} 80",
    ):
        assert fact in stated
    for score in ("2,487 87.3 % 86.3 % 85.3 %", "71 77.3 %", "random (leaky) 996 95.1 %"):
        assert score in stated
    assert "20,836" in stated and "1.31 GB" in stated and "drawn cells" not in stated.lower()


def test_the_summary_draws_accuracy_and_loss(run_folder):
    panels = page_of(rendering.render_run(run_folder)).select("figure.curves svg.curve")
    assert [panel["aria-label"] for panel in panels] == [
        "Accuracy against epoch",
        "Loss against epoch",
    ]
    assert all({"train", "val."} <= {t.get_text() for t in p.find_all("text")} for p in panels)


def test_code_is_folded_but_there_and_pictures_are_described(run_folder):
    rendering.render_run(run_folder)
    page = page_of(run_folder / "02_explore.html")
    blocks = page.select("details.code")
    assert len(blocks) == 2 and not page.select("details[open]")
    assert "figures.montage" in blocks[1].get_text()
    (image,) = page.find_all("img")
    assert image["src"].startswith("data:image/png;base64,")
    assert image["alt"] == "Figure 1: What do the cells look like?"
    caption = page.figure.figcaption
    assert caption.get_text().startswith("Figure 1 · What do the cells look like?")
    assert caption.a["href"] == f"#{page.figure['id']}"


def test_injected_parameters_are_a_table(run_folder):
    rendering.render_run(run_folder)
    facts = page_of(run_folder / "01_download.html").select_one("table.facts")
    assert [cell.get_text() for cell in facts.find_all(["th", "td"])] == [
        "epochs",
        "5",
        "source",
        "kaggle",
    ]


def test_pages_lead_to_each_other(run_folder):
    rendering.render_run(run_folder)
    page = page_of(run_folder / "02_explore.html")
    assert page.find("a", rel="prev")["href"] == "01_download.html"
    assert page.find("a", rel="next")["href"] == "03_train.html"
    assert page.select_one("[aria-current=page]").get_text() == "02 explore"
    assert page.select_one(".crumbs a")["href"] == "../index.html"
    assert page.html["lang"] == "en" and page.title.get_text() == "Explore · paper-20"


def test_rendering_twice_gives_the_same_bytes(run_folder):
    def render():
        rendering.render_run(run_folder)
        rendering.render_overview(run_folder.parent)
        return [page.read_bytes() for page in sorted(run_folder.parent.rglob("*.html"))]

    assert render() == render()


def test_a_page_of_the_users_own_is_left_alone(run_folder):
    own = run_folder / "02_explore.html"
    own.write_text("my notes")
    with pytest.raises(PageExists, match=re.escape(str(own))):
        rendering.render_run(run_folder)
    assert own.read_text() == "my notes"
    assert not (run_folder / "01_download.html").exists()


def test_scores_by_photograph_stand_below_those_by_image(run_folder):
    path = run_folder / "evaluation.json"
    evaluation = json.loads(path.read_text())
    rendering.render_run(run_folder)
    assert "by photograph" not in page_of(run_folder / "index.html").get_text()
    evaluation["test"]["photographs"] = scores(0.75, 71)
    path.write_text(json.dumps(evaluation))
    rendering.render_run(run_folder)
    rows = page_of(run_folder / "index.html").find("table").find_all("tr")
    headings = [row.find("th").get_text(" ", strip=True) for row in rows]
    (place,) = [i for i, heading in enumerate(headings) if heading == "TEST by photograph"]
    assert headings[place - 1].startswith("TEST")
    assert [cell.get_text() for cell in rows[place].find_all("td")][:2] == [
        "71",
        "75.0\N{NARROW NO-BREAK SPACE}%",
    ]


def prepared(name="04_evaluate"):
    """A notebook with the sections that every one begins with, and a score in the next."""
    notebook = executed(name)
    sections = [
        cell
        for heading in ("Set-up", "Imports", "Parameters", "Data", "The run")
        for cell in (
            new_markdown_cell(f"## {heading}\n\nA sentence."),
            new_code_cell("prepare()", execution_count=1, outputs=[shown({"text/html": TABLE})]),
        )
    ]
    notebook.cells[1:2] = sections
    return notebook


def test_what_prepares_the_work_is_folded_together(run_folder):
    write_notebook(run_folder, "04_evaluate", prepared())
    rendering.render_run(run_folder)
    page = page_of(run_folder / "04_evaluate.html")
    (fold,) = page.select("details.preparation")
    assert fold.summary.get_text() == "Set-up · Imports · Parameters · Data · The run"
    assert len(fold.select("section.cell")) == 10 and not fold.has_attr("open")
    assert "What do the cells look like?" not in fold.get_text()
    after = fold.find_next_sibling("section")
    assert after.h2.get_text(strip=True).startswith("What do the cells look like?")


def test_a_fold_in_which_a_cell_failed_is_open(run_folder):
    notebook = prepared()
    error = new_output("error", ename="DataNotFound", evalue="no data", traceback=[])
    notebook.cells[8].outputs = [error]
    write_notebook(run_folder, "04_evaluate", notebook)
    rendering.render_run(run_folder)
    (fold,) = page_of(run_folder / "04_evaluate.html").select("details.preparation")
    assert fold.has_attr("open")


def test_a_fold_ends_with_a_notebook_that_has_nothing_else():
    cells = [new_markdown_cell("## Set-up"), new_code_cell("prepare()")]
    assert rendering._preparation(new_notebook(cells=cells)) == (range(0, 2), ["Set-up"])


def test_the_answer_stands_above_the_evaluation(run_folder):
    path = run_folder / "evaluation.json"
    evaluation = json.loads(path.read_text())
    evaluation["test"]["interval_by_photograph"] = [0.7, 0.95]
    evaluation["test"]["intervals_by_photograph"] = {"macro_f1": [0.6, 0.9], "accuracy": None}
    evaluation["test"]["confusion"][2][3] = 155
    path.write_text(json.dumps(evaluation))
    rendering.render_run(run_folder)
    for name in ("index", "04_evaluate"):
        page = page_of(run_folder / f"{name}.html")
        stated = page.select_one(".answer").get_text(" ", strip=True).replace("\u202f", " ")
        assert stated == (
            "TEST accuracy 87.3 % 70.0 % – 95.0 % Balanced accuracy 86.3 % "
            "Macro-F1 85.3 % 60.0 % – 90.0 %"
        )
        assert "155 of 769 monocytes were called neutrophils" in page.get_text()
    assert not page_of(run_folder / "03_train.html").select(".answer")


@pytest.mark.parametrize("stated", [None, 3, [0.1], ["a", "b"], [None, 0.3], [float("nan"), 1.0]])
def test_intervals_of_wrong_types_do_no_harm(run_folder, stated):
    path = run_folder / "evaluation.json"
    evaluation = json.loads(path.read_text())
    evaluation["test"]["interval_by_photograph"] = stated
    path.write_text(json.dumps(evaluation))
    assert records.read_run(run_folder).interval("test", "accuracy") is None


def test_all_files_of_a_run_are_named(run_folder):
    for name in ("predictions.csv", "calibration.json"):
        (run_folder / name).write_text("")
    page = page_of(rendering.render_run(run_folder))
    links = {link["href"] for link in page.find_all("a", href=True)}
    assert {"settings.json", "evaluation.json", "predictions.csv", "calibration.json"} <= links


def write_answers(run_folder, sample_folder, wrong):
    """Say that a run answered for the drawn TEST images; of `wrong` ones, by a wrong type."""
    images = splits.add_provenance(catalog.find_images(sample_folder))
    images = images[images.split == "TEST"]
    codes = images.cell_type.map({name: i for i, name in enumerate(cells.NAMES)}).to_numpy(int)
    codes[:wrong] = (codes[:wrong] + 1) % 4
    sure = np.linspace(0.5, 0.9, len(images))[:, np.newaxis]
    probabilities = np.where(np.eye(4)[codes] == 1, sure, (1 - sure) / 3)
    classification.write_predictions(run_folder, classification.tabulate(images, probabilities))
    settings = json.loads((run_folder / "settings.json").read_text())
    settings["data"]["folder"] = str(sample_folder)
    (run_folder / "settings.json").write_text(json.dumps(settings))
    return images


def test_cells_right_wrong_and_unsure_are_shown(run_folder, sample_folder):
    images = write_answers(run_folder, sample_folder, wrong=5)
    shown = records.read_examples(records.read_run(run_folder))
    assert list(shown) == ["right", "wrong", "unsure"]
    right, wrong, unsure = shown.values()
    assert {cell.cell_type for cell in right} == set(cells.NAMES)
    assert all(cell.cell_type == cell.predicted for cell in right)
    assert wrong and all(cell.cell_type != cell.predicted for cell in wrong)
    assert {cell.file for cell in wrong} <= set(images.file[:5])
    probable = [cell.probability for cell in unsure]
    assert probable == sorted(probable) and probable[0] == pytest.approx(0.5)
    photographs = images.set_index("file").source_id
    for cell_sort in shown.values():
        assert len(cell_sort) <= 6
        assert len({photographs[cell.file] for cell in cell_sort}) == len(cell_sort)
    page = page_of(rendering.render_run(run_folder))
    pictures = page.select(".examples img")
    assert len(pictures) == sum(map(len, shown.values()))
    assert all(picture["src"].startswith("data:image/jpeg") for picture in pictures)
    assert rendering.render_run(run_folder).stat().st_size < 400_000


def test_cells_that_are_gone_are_not_shown(run_folder, sample_folder, tmp_path):
    write_answers(run_folder, sample_folder, wrong=0)
    settings = json.loads((run_folder / "settings.json").read_text())
    settings["data"]["folder"] = str(tmp_path / "moved")
    (run_folder / "settings.json").write_text(json.dumps(settings))
    page = page_of(rendering.render_run(run_folder))
    assert not page.select(".examples") and str(tmp_path / "moved") in page.get_text()


def test_audit_and_count_are_linked_from_the_run_and_the_overview(run_folder):
    runs_dir = run_folder.parent
    other = make_run(runs_dir, "other 1", notebooks=("05_audit",))
    counts = runs_dir / "detectors" / "mine" / "counts"
    counts.mkdir(parents=True)
    (counts / "index.html").write_text("counted")
    rendering.render_run(other)
    for page, up in (
        (rendering.render_run(run_folder), "../"),
        (rendering.render_overview(runs_dir), ""),
    ):
        links = {link["href"] for link in page_of(page).find_all("a", href=True)}
        assert {up + "other%201/05_audit.html", up + "detectors/mine/counts/index.html"} <= links
        assert "06 count" in text_of(page) and "not executed here" in text_of(page)


def test_an_audit_in_its_own_run_is_named_once(run_folder):
    write_notebook(run_folder, "05_audit", executed("05_audit"))
    titles = page_of(rendering.render_run(run_folder)).select(".cards .name")
    assert [title.get_text() for title in titles] == [
        "01 download", "02 explore", "03 train", "04 evaluate", "05 audit", "06 count",
    ]  # fmt: skip


def test_notebooks_that_were_not_executed_lead_to_colab(run_folder):
    badge = "[![Colab](https://x.example/b.svg)](https://colab.example.com/github/a/b/notebooks/"
    notebook = executed("01_download")
    notebook.cells[0].source = f"# Download\n\n{badge}01_download.ipynb)"
    write_notebook(run_folder, "01_download", notebook)
    page = page_of(rendering.render_run(run_folder))
    assert page.find("a", href="https://colab.example.com/github/a/b/notebooks/05_audit.ipynb")


def test_of_long_output_the_last_lines_stay_in_sight(run_folder):
    printed_lines = printed("\n".join(f"Epoch {n}/200" for n in range(1, 201)))
    cell = new_code_cell("train()", execution_count=3, outputs=[printed_lines])
    write_notebook(run_folder, "03_train", executed("03_train", [cell]))
    rendering.render_run(run_folder)
    output = page_of(run_folder / "03_train.html").find(id="cell-4").select_one(".output")
    earlier, last = output.find_all("pre")
    assert earlier.find_parent("details") and not last.find_parent("details")
    assert output.summary.get_text() == "188 lines before"
    assert last.get_text().splitlines()[-1] == "Epoch 200/200"
    assert earlier.get_text().splitlines()[0] == "Epoch 1/200"


def test_no_two_figures_share_a_caption(run_folder):
    pictures = [shown({"image/png": picture()}) for _ in range(2)]
    described = shown({"image/png": picture()})
    described.metadata["image/png"] = {"alt": "Twelve cells, two of them blue"}
    cell = new_code_cell("draw()", execution_count=3, outputs=[*pictures, described])
    write_notebook(run_folder, "03_train", executed("03_train", [cell]))
    rendering.render_run(run_folder)
    captions = [c.get_text() for c in page_of(run_folder / "03_train.html").select("figcaption")]
    stated = [caption.partition(" · ")[2] for caption in captions]
    assert len(captions) == 4 and len(set(stated)) == 4
    assert stated[3].startswith("Twelve cells, two of them blue")


def test_no_such_run_and_no_run_at_all(tmp_path):
    with pytest.raises(RunNotFound, match="nowhere"):
        rendering.render_run(tmp_path / "nowhere")
    with pytest.raises(RunNotFound, match="nowhere"):
        rendering.render_overview(tmp_path / "nowhere")
    with pytest.raises(BrokenRun, match="neither executed notebooks"):
        rendering.render_run(tmp_path)


# Drawn cells


def test_drawn_cells_are_announced_on_every_page(tmp_path):
    folder = make_run(tmp_path / "runs", "quick", drawn=True)
    rendering.render_run(folder)
    rendering.render_overview(tmp_path / "runs")
    pages = sorted((tmp_path / "runs").rglob("*.html"))
    assert len(pages) == 6
    for path in pages:
        page = page_of(path)
        banner = page.body.find(True)
        assert banner["class"] == ["banner"], path
        assert "scores say nothing about blood" in banner.get_text()
        assert page.title.get_text().startswith("[drawn cells]")


def test_drawn_is_known_from_any_record(tmp_path):
    folder = make_run(tmp_path / "runs", "quick", drawn=True)
    (folder / "settings.json").unlink()
    assert records.read_run(folder).drawn is True
    (folder / "evaluation.json").unlink()
    assert records.read_run(folder).drawn is True
    for notebook in folder.glob("*.ipynb"):
        notebook.unlink()
    assert records.read_run(folder).drawn is None


# Runs that went wrong


def test_a_failed_run_says_so_first_and_leads_to_the_cell(tmp_path):
    folder = make_run(
        tmp_path / "runs", "failed", evaluated=False, notebooks=("01_download", "02_explore")
    )
    write_notebook(folder, "03_train", failing(source="kaggle"))
    summary = page_of(rendering.render_run(folder))
    notice = summary.main.find(True)
    assert "This run failed in 03_train." in notice.get_text()
    assert "Not executed after it: 04_evaluate." in notice.get_text()
    assert "InvalidParameter: epochs is <0>" in notice.get_text()
    assert notice.a["href"] == "03_train.html#cell-4"
    page = page_of(folder / "03_train.html")
    cell = page.find(id="cell-4")
    assert page.main.find(True).a["href"] == "#cell-4"
    assert "training.train(settings)" in cell.find("details", open=True).get_text()
    assert cell.select_one(".error-message").get_text() == "InvalidParameter: epochs is <0>"
    assert "\x1b" not in page.get_text() and "An Exception was seen" not in page.get_text()
    assert "not executed" in summary.select_one(".cards .absent").get_text()
    (folder / "01_download.ipynb").unlink()
    notice = page_of(rendering.render_run(folder)).main.find(True)
    assert "Not executed after it: 04_evaluate." in notice.get_text()


def test_a_kernel_that_died_counts_as_failed(run_folder):
    notebook = executed("04_evaluate")
    notebook.cells[3].metadata["papermill"] = {"exception": True}
    write_notebook(run_folder, "04_evaluate", notebook)
    run = records.read_run(run_folder)
    assert run.state == "failed" and run.failure.stopped_at == 3


def test_leaving_on_purpose_is_no_failure(run_folder):
    leave = new_output("error", ename="SystemExit", evalue="0", traceback=[])
    cell = new_code_cell("sys.exit(0)", execution_count=3, outputs=[leave])
    write_notebook(run_folder, "04_evaluate", executed("04_evaluate", [cell]))
    assert records.read_run(run_folder).state == "complete"


def test_a_notebook_cut_short_is_unfinished(run_folder):
    write_notebook(run_folder, "04_evaluate", executed("04_evaluate", [new_code_cell("later()")]))
    notice = page_of(rendering.render_run(run_folder)).main.find(True)
    assert "04_evaluate was not executed to its end" in notice.get_text()
    assert notice.a["href"] == "04_evaluate.html#cell-4"


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '{"cells": [}', '{"nbformat": 4}', "\x00"]
)
def test_a_file_that_is_no_notebook_still_gets_a_page(run_folder, content):
    (run_folder / "04_evaluate.ipynb").write_text(content)
    notice = page_of(rendering.render_run(run_folder)).main.find(True)
    assert "04_evaluate.ipynb cannot be shown" in notice.get_text()
    assert "Evaluate" in page_of(run_folder / "04_evaluate.html").h1.get_text()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        '{"test": {"accuracy": 0.8',
        "[1, 2]",
        '"text"',
        "\ud800".encode("utf-8", "surrogatepass"),
    ],
)
@pytest.mark.parametrize("name", ["settings.json", "evaluation.json"])
def test_half_written_records_are_named(run_folder, name, content):
    (run_folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    notice = page_of(rendering.render_run(run_folder)).main.find(True)
    assert "Not everything of this run can be read" in notice.get_text()
    assert name in notice.get_text()


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        "text",
        {},
        float("nan"),
        *(pytest.param(wrong, marks=pytest.mark.slow) for wrong in (3, [], True, float("inf"))),
    ],
)
def test_records_of_wrong_types_do_no_harm(tmp_path, wrong):
    folder = make_run(tmp_path, "run", notebooks=(), epochs=0)
    for name in ("settings.json", "evaluation.json"):
        record = json.loads((folder / name).read_text())
        changed = [{**record, key: wrong} for key in record]
        for key, part in record.items():
            if isinstance(part, dict):
                changed += [{**record, key: {**part, inner: wrong}} for inner in part]
        for content in changed:
            (folder / name).write_text(json.dumps(content))
            rendering.render_overview(tmp_path)
            assert page_of(rendering.render_run(folder)).h1.get_text().startswith("run")
        (folder / name).write_text(json.dumps(record))


def test_the_history_is_read_as_far_as_it_is_complete(run_folder):
    with (run_folder / "history.csv").open("a") as history:
        history.write("6,0.3,nan,0.4,0.9,3.0\n7,0.3,0.9")
    run = records.read_run(run_folder)
    assert run.history["epoch"] == [1, 2, 3, 4, 5, 6]
    assert run.history["val_accuracy"][-1] == 0.9
    assert run.problems == ("history.csv, line 8, is not complete and was left out.",)
    rendering.render_run(run_folder)


def test_a_history_of_another_kind_is_named(run_folder):
    (run_folder / "history.csv").write_text("step,value\n1,2\n")
    assert "no column named epoch" in records.read_run(run_folder).problems[0]


@pytest.mark.parametrize(
    ("epochs", "planned", "evaluated", "state", "stated"),
    [
        (5, 5, True, "complete", "5"),
        (5, 5, False, "trained", "5"),
        (3, 20, False, "training", "3 of 20"),
    ],
)
def test_state_and_epochs(tmp_path, epochs, planned, evaluated, state, stated):
    run = records.read_run(
        make_run(tmp_path, "run", epochs=epochs, planned=planned, evaluated=evaluated)
    )
    assert (run.state, run.epochs) == (state, stated)


# The overview


def test_an_empty_folder_of_runs_says_how_to_make_one(tmp_path):
    assert "There are no runs yet. wbc run makes one." in text_of(
        rendering.render_overview(tmp_path)
    )


def test_the_overview_lists_runs_by_kind_of_data(site):
    page = page_of(site / "index.html")
    rows = {
        section["class"][1]: [row.th.a.get_text() for row in section.select("tbody tr")]
        for section in page.select("section.group")
    }
    assert rows == {"real": ["failed", "half & half", "paper-20"], "drawn": ["drawn 5"]}
    assert "1 of 4 runs used drawn cells" in page.select_one(".banner").get_text()
    assert [len(section.select("svg.curve")) for section in page.select("section.group")] == [2, 2]


def test_the_overview_states_scores_and_states(site):
    rows = {
        row.th.a.get_text(): [cell.get_text(" ", strip=True) for cell in row.find_all("td")]
        for row in page_of(site / "index.html").select("tbody tr")
    }
    percent = "\N{NARROW NO-BREAK SPACE}%"
    assert rows["paper-20"] == [
        "complete",
        *(f"{value}{percent}" for value in ("87.3", "86.3", "85.3")),
        f"95.1{percent} random (leaky)",
        "5",
        "paper",
        "Cells of kaggle",
        "23 Nov 2026",
    ]
    assert rows["half & half"][0] == "training" and rows["half & half"][5] == "3 of 20"
    assert rows["half & half"][4] == f"76.7{percent} random (leaky)"
    assert rows["failed"][0] == "failed in 03_train"


def test_folders_that_are_no_runs_are_listed_as_such(site):
    listed = [item.get_text(" ") for item in page_of(site / "index.html").select(".others li")]
    assert [line.split()[0] for line in listed] == ["broken", "notes"]
    assert "half written" in listed[0]


def test_each_row_carries_its_place_in_every_order(tmp_path):
    for day, (name, accuracy) in enumerate({"b": 0.7, "c": 0.9, "a": 0.8}.items(), start=1):
        make_run(
            tmp_path, name, accuracy=accuracy, created=f"2026-11-0{day}T00:00:00Z", notebooks=()
        )
    make_run(tmp_path, "d", created="", evaluated=False, notebooks=())
    rows = page_of(rendering.render_overview(tmp_path)).select("tbody tr")
    order = {
        key: "".join(
            row.th.contents[0].get_text().strip()
            for row in sorted(rows, key=lambda r: int(re.search(rf"--{key}: (\d+)", r["style"])[1]))
        )
        for key in ("newest", "accuracy", "name")
    }
    assert order == {"newest": "acbd", "accuracy": "cabd", "name": "abcd"}


def test_no_more_curves_than_can_be_told_apart(tmp_path):
    for number in range(14):
        make_run(tmp_path, f"run-{number:02}", notebooks=())
    page = page_of(rendering.render_overview(tmp_path))
    assert len(page.select(".legend > span")) == rendering.MAX_CURVES == 12
    assert "the 12 newest of 14 runs" in page.figcaption.get_text()
    swatches = page.select(".legend .swatch")
    looks = {(s["style"], s.line.get("stroke-dasharray")) for s in swatches}
    assert len(looks) == 12


# What a page must never do


def test_nothing_a_user_named_becomes_markup(tmp_path):
    name = "<img src=x onerror=alert(1)> & co"
    folder = make_run(tmp_path / "runs", name, notebooks=("01_download",), evaluated=False)
    settings = json.loads((folder / "settings.json").read_text())
    settings["training"]["recipe"] = settings["data"]["title"] = HOSTILE
    settings["versions"] = {HOSTILE: HOSTILE}
    (folder / "settings.json").write_text(json.dumps(settings))
    notebook = failing(HOSTILE, HOSTILE, source=HOSTILE)
    notebook.cells.append(
        new_code_cell(
            HOSTILE, execution_count=9, outputs=[printed(HOSTILE), printed(HOSTILE, "stderr")]
        )
    )
    write_notebook(folder, "03_train", notebook)
    write_notebook(folder, "02_<b>bold</b>".replace("/", ""), executed("02"))
    rendering.render_run(folder)
    rendering.render_overview(tmp_path / "runs")
    for path in (tmp_path / "runs").rglob("*.html"):
        page = page_of(path)
        assert not page.select("script, [onerror], b:not(.swatch b), img[src=x]"), path
        if path.name == "03_train.html":
            assert page.get_text().count(HOSTILE) >= 5


@pytest.mark.parametrize(
    ("hostile", "left"),
    [
        ("<script src='https://x.example/a.js'></script>", ""),
        ("<p onclick='go()'>text</p>", "<p>text</p>"),
        ("<a href='javascript:go()'>text</a>", "text"),
        ("<a href='java\nscript:go()'>text</a>", "text"),
        ("<a href='../README.md'>text</a>", "text"),
        ("<a href='//x.example/03_train.ipynb'>text</a>", "text"),
        ("<a href='03_train.ipynb#end'>text</a>", '<a href="03_train.html#end">text</a>'),
        ("<a href='https://doi.org/1'>text</a>", '<a href="https://doi.org/1">text</a>'),
        ("<img src='https://x.example/a.png' alt='a cell'>", "a cell"),
        ("<img src='a.png'>", "(picture not embedded)"),
        ("<img src='data:image/png;base64,AA==' srcset='https://x.example/a.png 2x' alt='a'>",
         '<img alt="a" src="data:image/png;base64,AA=="/>'),
        ("<p style='background: url(https://x.example)'>text</p>", "<p>text</p>"),
        ("<p style='background: u\\72l(https://x.example)'>text</p>", "<p>text</p>"),
        ("<style>@import 'https://x.example/a.css';</style>", ""),
        ("<svg><image xlink:href='https://x.example/a.png'></image></svg>",
         "<svg><image/></svg>"),
        ("<svg><a xlink:href='javascript:go()'><text>go</text></a></svg>text",
         "<svg><text>go</text></svg>text"),
        ("<svg><path fill='url(#a)' stroke='url(https://x.example)'></path></svg>",
         '<svg><path fill="url(#a)"></path></svg>'),
        ("<p class='banner number'>text</p>", "<p>text</p>"),
        ("<math><a xlink:href='javascript:go()'>go</a></math>text", "text"),
        ("<style>.banner { display: none }</style>text", "text"),
        ("<p style='position: fixed; inset: 0; color: red'>text</p>",
         '<p style="color:red">text</p>'),
        ("<!-- --!><meta http-equiv=refresh content='0;url=https://x.example'><!-- -->text",
         "text"),
        ("<!--><meta http-equiv=refresh content='0;url=https://x.example'>-->text", "--&gt;text"),
        ("<a href='data:text/html,x'>text</a>", "text"),
        ("<iframe src='https://x.example'></iframe><object data='x'></object><base href='/'>", ""),
        ("<form action='https://x.example'><input><p>text</p></form>", "<p>text</p>"),
        ("<video poster='https://x.example/a.png'></video><link rel='stylesheet' href='x'>", ""),
    ],
)  # fmt: skip
def test_foreign_html_neither_runs_nor_loads(hostile, left):
    assert rendering.self_contained(hostile, pages={"03_train"}) == left


def test_columns_of_numbers_are_aligned_right():
    table = BeautifulSoup(rendering.self_contained(TABLE), "html.parser")
    assert not table.select("style, [border], tr[style]")
    assert table.div.div["class"] == ["scroll"]
    assert [cell.get_text() for cell in table.select("thead .number")] == ["n"]
    assert [cell.get_text() for cell in table.select("tbody .number")] == ["1,203", "12", "-0.5"]


@pytest.mark.parametrize(
    ("raw", "final"),
    [
        ("  0%|  | 0/2\r 50%|█ | 1/2\r100%|██| 2/2\n", "100%|██| 2/2"),
        ("1/9\x08\x08\x08\r9/9 done\nnext\r\n", "9/9 done\nnext"),
        ("bar\r     \r", "bar"),
        ("\router 1\n\rinner 1\x1b[A\router 2\n\rinner 2\x1b[A\n", "outer 2\ninner 2"),
        ("\x1b[2K\r\x1b[1mbold\x1b[0m", "\x1b[1mbold\x1b[0m"),
        ("a\x00\x07b\x1b]8;;https://x.example\x07c", "abc"),
        ("\n\nkept  \n\n  indented\n\n", "kept\n\n  indented"),
    ],
)
def test_progress_is_shown_as_it_ended(raw, final):
    assert rendering.terminal_text(raw) == final


def test_progress_in_pieces_is_joined_and_coloured(run_folder):
    pieces = [printed("\r 10%|█", "stderr"), printed("\r\x1b[32m100%|███\x1b[0m<", "stderr")]
    ticks = new_code_cell("train()", execution_count=3, outputs=pieces)
    write_notebook(run_folder, "03_train", executed("03_train", [ticks]))
    rendering.render_run(run_folder)
    (bar,) = page_of(run_folder / "03_train.html").select("pre.aside")
    assert bar.get_text() == "100%|███<"
    assert bar.span["class"] == ["ansi-green-fg"]


def test_what_needs_a_live_page_is_left_out(run_folder):
    outputs = [
        shown({"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "0%"}),
        shown({"application/javascript": "alert(1)"}),
    ]
    cell = new_code_cell("show()", execution_count=3, outputs=outputs)
    notebook = executed("03_train", [cell])
    notebook.metadata["widgets"] = {"broken": 1}
    write_notebook(run_folder, "03_train", notebook)
    rendering.render_run(run_folder)
    page = page_of(run_folder / "03_train.html")
    assert not page.find(id="cell-4").select(".output") and "alert" not in page.get_text()


def test_no_page_refers_outside(site):
    for path in site.rglob("*.html"):
        page = page_of(path)
        assert not page.find_all(["script", "iframe", "object", "embed"]), path
        for tag in page.find_all(["link", "img", "source", "image", "use"]):
            for attribute in ("src", "href", "srcset", "xlink:href"):
                assert str(tag.get(attribute, "data:")).startswith(("data:", "#")), (path, tag)
        styles = " ".join(style.get_text() for style in page.find_all("style"))
        assert "url(" not in styles and "@import" not in styles


def test_every_internal_link_resolves(site):
    pages = list(site.rglob("*.html"))
    identifiers = {p: {tag["id"] for tag in page_of(p).find_all(id=True)} for p in pages}
    for path in pages:
        links = [a["href"] for a in page_of(path).find_all("a", href=True)]
        assert links
        for link in links:
            address = urlsplit(link)
            if address.scheme:
                continue
            target = (path.parent / unquote(address.path)).resolve() if address.path else path
            assert target.is_file(), (path, link)
            if address.fragment:
                assert unquote(address.fragment) in identifiers[target], (path, link)


def test_ids_are_unique(site):
    for path in site.rglob("*.html"):
        stated = [tag["id"] for tag in page_of(path).find_all(id=True)]
        assert len(stated) == len(set(stated)), path


# Curves


def test_the_first_twelve_lines_all_differ_and_neighbours_in_both():
    looks = [rendering.line_style(index) for index in range(12)]
    assert len(set(looks)) == 12
    assert all(a != c and b != d for (a, b), (c, d) in itertools.pairwise(looks))


def test_a_panel_takes_the_pages_colours_and_names_nothing_outside():
    line = rendering.Line("$1$", [1, 2, 3], [0.2, float("nan"), 0.9], "#0072B2")
    drawn = rendering.draw_panel([line], "here", "Accuracy")
    assert drawn == rendering.draw_panel([line], "here", "Accuracy")
    assert "var(--ink)" in drawn and "var(--line)" in drawn and "$1$" in drawn
    assert "<metadata" not in drawn and drawn.startswith("<svg")
    assert set(re.findall(r'https?://[^"\s]*', drawn)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert all(name.startswith("here-") for name in re.findall(r'\bid="([^"]+)', drawn))


@pytest.mark.parametrize("values", [[0.5], [float("nan")], [900.0, 0.5], [0.0, 0.0], [1e30, 1.0]])
def test_odd_curves_are_drawn_without_complaint(values):
    line = rendering.Line("1", list(range(1, len(values) + 1)), values, "#0072B2")
    drawn = rendering.draw_panel([line], "odd", "Loss")
    assert "</svg>" in drawn and "$" not in drawn


def test_runs_of_detectors_are_not_called_strangers(tmp_path):
    for name in ("detectors", "photographs"):
        (tmp_path / name).mkdir()
    page = page_of(rendering.render_overview(tmp_path))
    assert [each.text for each in page.select(".others code")] == ["photographs"]


# In a browser

PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 900}


@pytest.mark.browser
@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_pages_load_quietly_and_fit_the_screen(site, chromium, size):
    context = chromium.new_context(viewport=size)
    tab = context.new_page()
    requests, complaints = [], []
    tab.on("request", lambda request: requests.append(request.url))
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    n_pictures = 0
    for path in sorted(site.rglob("*.html")):
        requests.clear()
        tab.goto(path.as_uri())
        assert [url for url in requests if not url.startswith("data:")] == [path.as_uri()]
        assert not complaints, (path, complaints)
        widths = tab.eval_on_selector_all("img", "all => all.map(one => one.naturalWidth)")
        assert all(width > 0 for width in widths), path
        n_pictures += len(widths)
        assert tab.evaluate("document.scrollingElement.scrollWidth") <= size["width"], path
    assert n_pictures > 8
    context.close()


@pytest.mark.browser
def test_a_hostile_output_loads_nothing_and_leaves_the_banner(tmp_path, chromium):
    refresh = "<meta http-equiv=refresh content='0;url=https://x.example/'>"
    hostile = (
        f"<!-- --!>{refresh}<!-- --><!-->{refresh}-->"
        "<style>.banner { display: none }</style><img src=https://x.example/a.png>"
        "<div style='position:fixed;inset:0;background-color:white;z-index:9'>over</div>"
        "<svg><a xlink:href='javascript:document.title=1'><text>go</text></a>"
        "<image href='https://x.example/b.png'/></svg>"
    )
    folder = make_run(tmp_path / "runs", "drawn", drawn=True)
    outputs = [shown({"text/html": hostile}), shown({"text/markdown": hostile})]
    cell = new_code_cell("show()", execution_count=3, outputs=outputs)
    write_notebook(folder, "03_train", executed("03_train", [cell]))
    rendering.render_run(folder)
    tab = chromium.new_page(viewport=PHONE)
    requests = []
    tab.on("request", lambda request: requests.append(request.url))
    address = (folder / "03_train.html").as_uri()
    tab.goto(address)
    tab.wait_for_timeout(300)
    assert requests == [address] and tab.url == address
    top = "one => { const b = one.getBoundingClientRect();"
    top += " return document.elementFromPoint(b.x + 5, b.y + 5).closest('.banner') === one }"
    banners = tab.locator(".banner")
    assert banners.count()
    assert all(banners.nth(n).evaluate(top) for n in range(banners.count()))
    assert tab.get_by_text("over").first.is_visible()
    tab.close()


@pytest.mark.browser
def test_code_unfolds_one_by_one_and_all_at_once(site, chromium):
    tab = chromium.new_page(viewport=DESKTOP)
    tab.goto((site / "paper-20" / "02_explore.html").as_uri())
    code = tab.locator("details.code pre")
    assert code.count() == 3
    visible = "one => one.checkVisibility({contentVisibilityAuto: true})"
    assert [code.nth(n).evaluate(visible) for n in range(3)] == [False] * 3
    tab.locator("details.code summary").nth(1).click()
    assert [code.nth(n).evaluate(visible) for n in range(3)] == [False, True, False]
    tab.get_by_label("Show all code").check()
    assert [code.nth(n).evaluate(visible) for n in range(3)] == [True] * 3
    assert tab.locator("details.code pre").nth(2).bounding_box()["height"] > 10
    tab.close()


@pytest.mark.browser
def test_runs_are_sorted_without_a_script(chromium, tmp_path):
    runs_dir = tmp_path / "runs"
    for day, accuracy in enumerate((0.7, 0.9, 0.8), start=1):
        make_run(
            runs_dir,
            f"run-{accuracy}",
            accuracy=accuracy,
            created=f"2026-11-0{day}T00:00:00Z",
            notebooks=(),
        )
    tab = chromium.new_page(viewport=DESKTOP)
    tab.goto(rendering.render_overview(runs_dir).as_uri())
    seen = """rows => rows.map(row => [row.getBoundingClientRect().top, row.cells[0].innerText])
        .sort((a, b) => a[0] - b[0]).map(pair => pair[1].split(/\\s/)[0])"""
    rows = "table.runs tbody tr"
    assert tab.eval_on_selector_all(rows, seen) == ["run-0.8", "run-0.9", "run-0.7"]
    tab.get_by_text("TEST accuracy", exact=True).first.click()
    assert tab.eval_on_selector_all(rows, seen) == ["run-0.9", "run-0.8", "run-0.7"]
    tab.close()


@pytest.mark.browser
def test_the_banner_stays_in_sight(site, chromium):
    tab = chromium.new_page(viewport=PHONE)
    tab.goto((site / "drawn 5" / "index.html").as_uri())
    tab.evaluate("scrollTo(0, document.scrollingElement.scrollHeight)")
    box = tab.locator(".banner").bounding_box()
    assert box["y"] >= 0 and box["height"] > 40 and box["width"] == PHONE["width"]
    tab.close()


@pytest.mark.browser
def test_the_failing_cell_is_reached_from_the_overview(site, chromium):
    tab = chromium.new_page(viewport=DESKTOP)
    tab.goto((site / "index.html").as_uri())
    tab.get_by_role("link", name="03_train").click()
    assert tab.url.endswith("/failed/03_train.html#cell-4")
    assert tab.locator("#cell-4").evaluate("one => one.getBoundingClientRect().top") < 900
    tab.close()


@pytest.mark.browser
def test_pages_print(site, chromium):
    tab = chromium.new_page()
    for path in (site / "index.html", site / "drawn 5" / "02_explore.html"):
        tab.goto(path.as_uri())
        assert tab.pdf(format="A4").startswith(b"%PDF")
    tab.emulate_media(media="print")
    assert not tab.locator("details.code").first.is_visible()
    tab.close()


@pytest.mark.browser
@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_the_first_score_stands_on_the_first_screen(run_folder, chromium, size):
    write_notebook(run_folder, "04_evaluate", prepared())
    rendering.render_run(run_folder)
    tab = chromium.new_page(viewport=size)
    for name in ("index", "04_evaluate"):
        tab.goto((run_folder / f"{name}.html").as_uri())
        box = tab.locator(".answer dd").first.bounding_box()
        assert box["y"] + box["height"] < size["height"], name
    tab.close()


@pytest.mark.browser
def test_a_figure_opens_in_full_size_and_closes_without_a_script(site, chromium):
    tab = chromium.new_page(viewport=PHONE)
    tab.goto((site / "paper-20" / "01_download.html").as_uri())
    image = tab.locator("figure img").first
    small = image.bounding_box()["width"]
    assert small <= PHONE["width"]
    tab.get_by_role("link", name="Full size").first.focus()
    tab.keyboard.press("Enter")
    assert image.bounding_box()["width"] > 2 * small
    tab.get_by_role("link", name="Back to the page").click()
    assert image.bounding_box()["width"] == small
    tab.close()


@pytest.mark.browser
@pytest.mark.parametrize(("scheme", "ground"), [("light", (253, 252, 254)), ("dark", (22, 18, 28))])
def test_a_figure_is_no_card_of_another_colour(run_folder, chromium, monkeypatch, scheme, ground):
    displayed = {}
    monkeypatch.setattr("IPython.display.display", lambda data, **_: displayed.update(data))
    figures.confusion(classification.evaluate(cells.NAMES, np.eye(4)))._ipython_display_()
    cell = new_code_cell("figures.confusion()", execution_count=3, outputs=[shown(displayed)])
    write_notebook(run_folder, "03_train", executed("03_train", [cell]))
    rendering.render_run(run_folder)
    context = chromium.new_context(viewport=PHONE, color_scheme=scheme)
    tab = context.new_page()
    tab.goto((run_folder / "03_train.html").as_uri())
    picture = Image.open(io.BytesIO(tab.locator("figure img").last.screenshot())).convert("RGB")
    assert picture.getpixel((picture.width - 12, 4)) == ground
    assert picture.width <= PHONE["width"]
    context.close()
