"""The page that reads photographs in the browser, against what Python reads in the same ones."""

import base64
import hashlib
import itertools
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import requests
from drawn_fields import draw_field
from PIL import Image
from written_files import write_tar

from wbc_helpers.__main__ import main
from wbc_helpers.cells import BOX
from wbc_helpers.classify import classifier, teaching
from wbc_helpers.count import detector, fitness, pages, smears
from wbc_helpers.errors import BrokenArchive, DownloadFailed, PageExists
from wbc_helpers.evaluate import confidence, detection
from wbc_helpers.pixels import images, scale, stain, white_cells
from wbc_helpers.report.pages import TEMPLATES


@pytest.fixture
def libraries(tmp_path, monkeypatch):
    """Libraries of a few bytes, as if they had been downloaded before."""
    (tmp_path / "data").mkdir()
    small = []
    for library in pages.LIBRARIES:
        archive = tmp_path / "data" / library.archive
        write_tar(archive, {path: path.encode() for path in library.files.values()})
        content = archive.read_bytes()
        digest = base64.b64encode(hashlib.sha512(content).digest()).decode()
        small.append(replace(library, sha512=digest))
    monkeypatch.setattr(pages, "LIBRARIES", tuple(small))
    return tmp_path / "data"


def test_the_page_is_one_file_that_may_ask_for_nothing(libraries, tmp_path):
    page = pages.write_reader(tmp_path / "page.html", libraries, progress=False)
    text = page.read_text("utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    assert "default-src 'none'" in policy and "connect-src 'none'" in policy
    assert "form-action 'none'" in policy and "http" not in policy
    assert not re.search(r'(?:src|href)="(?!data:|#)', text)
    again = pages.write_reader(tmp_path / "folder", libraries, progress=False)
    assert again == tmp_path / "folder" / "index.html" and again.read_text("utf-8") == text


def test_the_command_prints_where_the_page_is(libraries, tmp_path, capsys):
    out = ["--out", str(tmp_path / "page.html"), "--data-dir", str(libraries)]
    assert main(["page", *out]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "page.html")
    next(libraries.glob("onnx*")).write_bytes(b"")
    assert main(["page", *out]) == 2
    assert "BrokenArchive" in capsys.readouterr().err


def test_a_page_of_somebody_else_stays(libraries, tmp_path):
    (tmp_path / "index.html").write_text("mine")
    with pytest.raises(PageExists, match=r"index\.html"):
        pages.write_reader(tmp_path, libraries, progress=False)
    assert (tmp_path / "index.html").read_text() == "mine"


def test_a_library_that_is_not_the_pinned_one_is_refused(libraries, tmp_path):
    altered = next(libraries.glob("onnx*"))
    altered.write_bytes(altered.read_bytes() + b" ")
    with pytest.raises(BrokenArchive, match="SHA-512"):
        pages.write_reader(tmp_path / "page.html", libraries, progress=False)
    assert not (tmp_path / "page.html").exists()


def test_without_a_network_it_says_what_to_do(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise requests.ConnectionError("no network")

    monkeypatch.setattr(requests, "get", refuse)
    with pytest.raises(DownloadFailed, match=r"registry\.npmjs\.org.*put the file at"):
        pages.write_reader(tmp_path / "page.html", tmp_path / "data", progress=False)
    assert not list(tmp_path.iterdir())


def test_the_constants_of_the_scripts_are_those_of_python():
    """Each number, text or list that a script has under a name, Python has under the same."""
    ours: dict[str, list] = {"SMALLEST_PLATELET": [detector.SMALLEST]}
    modules = (images, stain, scale, white_cells, detector, fitness, detection, smears)
    modules += (confidence, teaching)
    for name, value in itertools.chain(*(vars(module).items() for module in modules)):
        if isinstance(value, int | float | str | tuple | np.ndarray):
            ours.setdefault(name.strip("_"), []).append(np.array(value, object).tolist())
    n_constants = 0
    for script in ("pixels.js", "reader.js"):
        text = (TEMPLATES / script).read_text("utf-8")
        for statement in re.findall(r"^const ([A-Z][A-Z_]+ = .*);$", text, re.M):
            for constant in re.split(r", (?=[A-Z])", statement):
                name, literal = constant.split(" = ", 1)
                if name in ("WHAT_TO_DO", "CROPS_AT_A_TIME", "FLIPS", "ABSORBANCE"):
                    continue
                assert json.loads(re.sub(r"(?<=\d)_(?=\d)", "", literal)) in ours[name], name
                n_constants += 1
    assert n_constants > 35


@pytest.fixture
def taught(tmp_path, monkeypatch) -> Path:
    """The file of a laboratory: answers that differ from those that ship, drawn at random."""
    learned, rng = teaching.shipped("broad"), np.random.default_rng(0)
    weights = learned.weights + rng.normal(0, 0.3 * learned.weights.std(), learned.weights.shape)
    facts = (classifier.load().about["created"], weights, learned.bias, learned.examples[:3] * -1)
    path = tmp_path / "laboratories" / "my-lab.json"
    teaching.write_laboratory(teaching.Laboratory("my-lab", *facts, 0.3, {}, {"other": 40}), path)
    return path


def test_a_file_that_is_no_laboratory_says_what_was_expected(taught, chromium):
    tab = chromium.new_page()
    tab.add_script_tag(content="\n".join((TEMPLATES / f"{n}.js").read_text() for n in
                                         ("pixels", "reader")))  # fmt: skip
    content = json.loads(taught.read_text())
    created, n_features = content["of"], len(content["weights"])
    about = {"answers": content["answers"], "classifier": {"created": created,
                                                           "features": n_features}}  # fmt: skip
    tab.evaluate("given => { about = given; shipped = new Float32Array(2); }", about)

    def open_(text):
        return tab.evaluate(
            """text => {
                try { return useLaboratory(text); } catch (error) { return `! ${error.message}`; }
            }""",
            text,
        )

    assert open_(taught.read_text()) == "my-lab" and open_(None) is None
    for wrong in ("", "Dear haematologist", "5", "null", "[]", '{"weights": [null]}',
                  json.dumps(content | {"format": 2}), json.dumps(content | {"bias": [1]}),
                  json.dumps(content | {"examples": [[None] * n_features]})):  # fmt: skip
        assert open_(wrong).startswith("! is no laboratory's file"), wrong
        assert "Expected what `wbc teach` writes" in open_(wrong)
    other = open_(json.dumps(content | {"of": "2020-01-01"}))
    assert f"of 2020-01-01; in this page are those of {created}. Teach it anew" in other
    tab.close()


# In Chromium, from disk and without a network


STANDS_IN = """answers => {
    window.asked = [];
    window.Worker = class {
        answer(...all) {
            for (const data of all) setTimeout(() => this.onmessage({ data }));
        }
        postMessage({ parts, laboratory }) {
            const about = parts ? "opened" : laboratory === undefined ? "asked"
                : laboratory?.name ?? "shipped";
            window.asked.push(about);
            this.answer(...answers[about]);
        }
    };
}"""
DROP = """files => {
    for (const [name, content] of files) {
        const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
        const dataTransfer = new DataTransfer();
        dataTransfer.items.add(new File([bytes], name));
        document.getElementById("drop").dispatchEvent(
            new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
    }
}"""


def drop(tab, *files):
    """Drop files onto the page, one by one but at once, before any of them is answered."""
    tab.evaluate(DROP, [(file.name, base64.b64encode(file.read_bytes()).decode())
                        for file in files])  # fmt: skip


# As the worker gives it; without the last column, with `cut`, it is what it gave before.
CELL = {
    "kind": "WBC", "score": 0.9, "counted": True, "unsure": False, "box": [0, 20, 60, 80],
    "cell_type": "neutrophil", "type_probability": 0.8, "answered": True,
}  # fmt: skip
FIELD = {
    "file": "field.png", "width": 320, "height": 240, "red_cell": 60, "reasons": [], "note": "",
    "fit": True, "boxes": [{**CELL, "probabilities": [0.1, 0.1, 0, 0.8, 0, 0]}],
}  # fmt: skip
READ = [{"photograph": FIELD, "place": 0}, {"done": True}]


@pytest.fixture
def stand_in(libraries, tmp_path, chromium):
    """Open the page in a tab whose worker gives the answers that are listed."""
    page = pages.write_reader(tmp_path / "page.html", libraries, progress=False)
    context = chromium.new_context()
    complaints = []

    def open_(answers):
        tab = context.new_page()
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.add_init_script(
            f"({STANDS_IN})({json.dumps({'opened': [{'ready': 'here'}], **answers})})"
        )
        tab.goto(page.as_uri())
        return tab

    yield open_
    context.close()
    assert not complaints


@pytest.fixture
def field(tmp_path):
    Image.fromarray(draw_field(60, [(30, 50, 30)], 320, 240)).save(tmp_path / "field.png")
    return tmp_path / "field.png"


@pytest.mark.slow
def test_what_failed_stands_there_until_something_else_is_asked(stand_in, field):
    tab = stand_in({"asked": [{"failed": "out of memory"}]})
    status = tab.locator("#status")
    status.get_by_text("Ready.").wait_for()
    tab.set_input_files("#files", field)
    status.get_by_text("cannot read here: out of memory").wait_for()
    tab.wait_for_timeout(100)
    assert "out of memory" in status.inner_text() and not tab.locator("#progress").is_visible()
    broken = stand_in({"opened": [{"failed": "too old"}]})
    broken.locator("#status").get_by_text("too old").wait_for()
    broken.set_input_files("#files", field)
    field.with_name("my-lab.json").write_text("never asked for")
    broken.set_input_files("#laboratory", field.with_name("my-lab.json"))
    assert "too old" in broken.locator("#status").inner_text()
    assert broken.evaluate("window.asked") == ["opened"]


@pytest.mark.slow
@pytest.mark.parametrize("second", [{"taught": "second"}, {"refused": "is no laboratory's file"}])
def test_laboratories_that_are_chosen_while_photographs_are_read_wait_in_line(
    stand_in, field, second
):
    files = [field.with_name("first.json"), field.with_name("second.json")]
    for file in files:
        file.write_text("stood in for")
    tab = stand_in({"asked": READ, "first.json": [{"taught": "first"}], "second.json": [second]})
    tab.locator("#status").get_by_text("Ready.").wait_for()
    says = tab.evaluate(
        f"files => {{ ({DROP})(files); return document.getElementById('taught').textContent; }}",
        [(file.name, "") for file in (field, *files)],
    )
    assert says == "second.json is opened after this photograph …"
    tab.wait_for_function("window.asked.length === 5")
    tab.locator("#status").get_by_text("Done: 1 photograph.").wait_for()
    tab.wait_for_timeout(100)
    assert tab.evaluate("window.asked") == ["opened", "asked", "first.json", "second.json", "asked"]
    assert tab.locator("#status").inner_text() == "Done: 1 photograph."
    assert tab.locator("#photographs tr").count() == tab.locator("#gallery .tile").count() == 1
    said = tab.locator("#taught").inner_text()
    if "refused" in second:
        assert said == "second.json is no laboratory's file"
    else:
        assert said == "Answers as the laboratory second taught."


def test_a_laboratory_file_that_is_gone_is_refused(chromium, tmp_path):
    tab = chromium.new_page()
    tab.set_content("<input type='file'>")
    scripts = [(TEMPLATES / f"{name}.js").read_text() for name in ("pixels", "reader", "worker")]
    tab.add_script_tag(content="\n".join(scripts))
    (tmp_path / "my-lab.json").write_text("{}")
    tab.set_input_files("input", tmp_path / "my-lab.json")
    (tmp_path / "my-lab.json").unlink()
    answer = tab.evaluate(
        """() => new Promise((resolve) => {
            window.postMessage = resolve;
            const [laboratory] = document.querySelector("input").files;
            onmessage({ data: { laboratory } });
        })"""
    )
    assert answer["refused"].startswith("could not be read here (")
    tab.close()


def test_a_laboratory_leaves_the_sample_its_name(stand_in, field):
    other = {**CELL, "cell_type": "monocyte", "probabilities": [0.1, 0.1, 0.8, 0, 0, 0]}
    tab = stand_in({"asked": READ, "my-lab.json": [{"taught": "my-lab"}]})
    tab.locator("#status").get_by_text("Ready.").wait_for()
    drop(tab, field)
    tab.get_by_label("Sample").fill("Slide 7")
    tab.get_by_label("Sample").blur()
    tab = stand_in({"asked": [{"photograph": {**FIELD, "boxes": [other]}, "place": 0},
                              {"done": True}], "my-lab.json": [{"taught": "my-lab"}]})  # fmt: skip
    tab.locator("#status").get_by_text("Ready.").wait_for()
    field.with_name("my-lab.json").write_text("stood in for")
    drop(tab, field.with_name("my-lab.json"), field)
    tab.locator(".tile", has_text="monocyte").wait_for(state="attached")
    assert tab.get_by_label("Sample").input_value() == "Slide 7"


@pytest.mark.slow
def test_what_the_networks_hardly_answer_for_is_foreign_to_them_but_to_no_laboratory(
    stand_in, field
):
    boxes = [{**CELL, "box": [x, 20, x + 9, 29], "answered": False}
             for x in range(0, 10 * confidence.LEAST_TO_JUDGE, 10)]  # fmt: skip
    reading = [{"photograph": {**FIELD, "boxes": boxes}, "place": 0}, {"done": True}]
    tab = stand_in({"asked": reading, "my-lab.json": [{"taught": "my-lab"}]})
    tab.locator("#status").get_by_text("Ready.").wait_for()
    drop(tab, field)
    tab.get_by_text(confidence.FOREIGN).wait_for()
    field.with_name("my-lab.json").write_text("stood in for")
    drop(tab, field.with_name("my-lab.json"))
    tab.wait_for_function("window.asked.length === 4")
    tab.locator("#status").get_by_text("Done: 1 photograph.").wait_for()
    tab.locator(".tile").first.wait_for(state="attached")
    assert not tab.get_by_text(confidence.FOREIGN).count()


def test_what_an_earlier_page_kept_is_taken_up(stand_in, field):
    """It named a photograph by its JSON, of which boxes had `cut` and no second guesses."""
    written = json.dumps({**FIELD, "boxes": [{**CELL, "cut": True}]}, separators=(",", ":"))
    digest = 0x811C9DC5
    for sign in written.encode():
        digest = (digest ^ sign) * 0x01000193 % 2**32
    event = {
        "id": f"field.png|{digest:08x}|WBC|0|20|60|80", "file": "field.png",
        "digest": f"{digest:08x}", "kind": "WBC", "box": CELL["box"], "drawn": False,
        "person": "basophil", "machine": "neutrophil", "probability": 0.8, "reader": "",
        "time": "2026-11-01T00:00:00.000Z", "kindCounted": True, "typeCounted": "neutrophil",
    }  # fmt: skip
    tab = stand_in({"asked": READ})
    tab.evaluate("event => localStorage.setItem('wbc page', JSON.stringify({ events: [event] }))",
                 event)  # fmt: skip
    tab.locator("#status").get_by_text("Ready.").wait_for()
    drop(tab, field)
    tab.locator(".tile.touched", has_text="basophil").wait_for(state="attached")


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    try:
        return pages.write_reader(folder / "page.html", folder, progress=False)
    except DownloadFailed as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def read_here(page, chromium):
    """Drop files onto the page: gives what it read, in a tab that may not reach anything."""
    contexts = []

    def read(files, viewport=None):
        context = chromium.new_context(offline=True, viewport=viewport)
        contexts.append(context)
        tab = context.new_page()
        outside, errors = [], []
        tab.on("request", lambda request: outside.append(request.url))
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.goto(page.as_uri())
        tab.set_input_files("#files", [str(file) for file in files])
        tab.wait_for_function(
            "n => window.wbcReadings.length === n", arg=len(files), timeout=600_000
        )
        outside = [url for url in outside if not url.startswith(("file:", "blob:", "data:"))]
        assert (outside, errors) == ([], [])
        return {reading["file"]: reading for reading in tab.evaluate("window.wbcReadings")}, tab

    yield read
    for context in contexts:
        context.close()


def compare(folder: Path, out: Path, readings: dict, laboratory: Path | None = None) -> int:
    """Check what the page read against what `wbc count` writes; the number of white cells."""
    reader = detector.load_reader(laboratory=laboratory, exact=True)
    counted = smears.count_folder(folder, out, reader, progress=False, adapt=False)
    assert not counted.failures
    n_white = 0
    for ours in smears.read_counted(out, sorted(readings)):
        theirs = readings[ours["file"]]
        assert theirs["reasons"] == ours["reasons"] and theirs["note"] == ours["note"]
        assert theirs["red_cell"] == pytest.approx(ours["red_cell"], rel=0.002)
        boxes = ours["boxes"]
        assert len(theirs["boxes"]) == len(boxes)
        for row in boxes.to_dict("records"):
            corners = np.array([row[edge] for edge in BOX])
            alike = [box for box in theirs["boxes"] if box["kind"] == row["kind"]]
            box = min(alike, key=lambda box: np.abs(np.array(box["box"]) - corners).max())
            assert np.abs(np.array(box["box"]) - corners).max() <= 1, ours["file"]
            assert box["score"] == pytest.approx(row["score"], abs=0.01)
            assert box["counted"] == row["counted"] and box["unsure"] == row["unsure"]
            if row["kind"] == "WBC" and row["counted"]:
                n_white += 1
                assert box["cell_type"] == row["cell_type"] and box["answered"] == row["answered"]
                assert box["type_probability"] == pytest.approx(row["type_probability"], abs=0.01)
                assert box["probabilities"] == pytest.approx(row["probabilities"], abs=0.01)
    return n_white


@pytest.mark.slow
def test_drawn_photographs_read_in_the_browser_as_in_python(sample_folder, read_here, tmp_path):
    folder = tmp_path / "photographs"
    folder.mkdir()
    drawn = [path for path in sorted(sample_folder.rglob("*.jp*g"))
             if images.size_of(path) == (480, 640)]  # fmt: skip
    shutil.copy(drawn[0], folder)  # JPEG
    Image.open(drawn[1]).save(folder / "drawn.png")
    Image.fromarray(draw_field(104, [(300, 200, 60)])).save(folder / "lattice.bmp")
    # An eyepiece: its dark surround is left out.
    across, down = np.meshgrid(np.arange(640) - 320, np.arange(480) - 240)
    eyepiece = np.where(np.hypot(across, down)[..., None] < 235, Image.open(drawn[2]), 4)
    Image.fromarray(eyepiece.astype(np.uint8)).save(folder / "eyepiece.png")
    readings, tab = read_here(sorted(folder.iterdir()))
    assert "surround" in readings["eyepiece.png"]["note"]
    assert compare(folder, tmp_path / "out", readings) >= 3
    # The gallery has a tile a white cell, and the table a line a photograph.
    assert tab.locator("#gallery .tile").count() >= 3
    assert tab.locator("#photographs tr").count() == 4


@pytest.mark.slow
def test_a_laboratory_answers_in_the_browser_as_in_python(
    sample_folder, read_here, taught, tmp_path
):
    folder = tmp_path / "photographs"
    folder.mkdir()
    drawn = [path for path in sorted(sample_folder.rglob("*.jp*g"))
             if images.size_of(path) == (480, 640)]  # fmt: skip
    for path in drawn[:2]:
        shutil.copy(path, folder)
    before, tab = read_here(sorted(folder.iterdir()))
    tab.set_input_files("#laboratory", taught)
    says = tab.locator("#taught")
    says.get_by_text("Answers as the laboratory my-lab taught.").wait_for(timeout=600_000)
    # What was read before is read anew.
    tab.wait_for_function("window.wbcReadings.length === 2", timeout=600_000)
    after = {reading["file"]: reading for reading in tab.evaluate("window.wbcReadings")}
    assert after != before
    assert compare(folder, tmp_path / "out", after, taught) >= 2
    assert tab.locator("#photographs tr").count() == 2
    assert "my-lab" in tab.locator(".printed").evaluate(
        "place => { dispatchEvent(new Event('beforeprint')); return place.textContent; }"
    )
    letter = tmp_path / "letter.json"
    letter.write_text("Dear haematologist")
    tab.set_input_files("#files", letter)
    says.get_by_text("letter.json is no laboratory's file").wait_for()
    assert len(tab.evaluate("window.wbcReadings")) == 2


@pytest.mark.slow
def test_files_that_cannot_be_read_say_why_on_a_phone(read_here, tmp_path):
    field = Image.fromarray(draw_field(60, [(150, 100, 35)], 320, 240))
    field.save(tmp_path / "field.png")
    field.convert("L").save(tmp_path / "grey.png")
    field.save(tmp_path / "whole.jpg")
    content = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(content[: len(content) // 2])
    (tmp_path / "whole.jpg").unlink()
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "letter.png").write_text("Dear haematologist")
    readings, tab = read_here(sorted(tmp_path.iterdir()), {"width": 390, "height": 844})
    problems = {file: reading.get("problem", "") for file, reading in readings.items()}
    assert problems["field.png"] == "" and readings["field.png"]["boxes"]
    for file, words in {
        "grey.png": "greyscale", "cut.jpg": "cut off", "empty.png": "empty", "letter.png": "damaged"
    }.items():  # fmt: skip
        assert words in problems[file]
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.slow
def test_a_correction_stays_when_the_page_is_opened_again(read_here, tmp_path):
    file = tmp_path / "field.png"
    Image.fromarray(draw_field(104, [(300, 200, 60)])).save(file)
    _, tab = read_here([file])
    tab.locator("#gallery .tile").first.click()
    tab.keyboard.press("3")
    tab.reload()
    # Dropped, this time, and not chosen.
    drop(tab, file)
    tab.wait_for_function("window.wbcReadings.length === 1", timeout=600_000)
    assert "monocyte" in tab.locator("#gallery .tile.touched").text_content()
    assert tab.pdf().startswith(b"%PDF")


@pytest.mark.slow
def test_real_photographs_read_in_the_browser_as_in_python(real_bccd, read_here, tmp_path):
    folder = tmp_path / "photographs"
    folder.mkdir()
    for path in sorted(real_bccd.rglob("*.jpg"))[::90]:
        shutil.copy(path, folder)
    readings, _ = read_here(sorted(folder.iterdir()))
    assert compare(folder, tmp_path / "out", readings) >= 4
