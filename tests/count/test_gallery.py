"""The gallery in Chromium: what a person says of cells is counted, kept, and taken away."""

import csv
import io
import json
import re
import zipfile
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import plain_smears
import pytest
from plain_smears import reader_of

from wbc_helpers import cells
from wbc_helpers.classify import teaching
from wbc_helpers.count import differential, pages
from wbc_helpers.count.smears import count_folder
from wbc_helpers.evaluate import detection

# Named by place, see `plain_smears`: every 20 pixels another type, surely in the upper half.
KNOWN = {
    10: [("WBC", 0, 0, 0.9), ("WBC", 20, 10, 0.95), ("WBC", 40, 40, 0.9), ("RBC", 60, 20, 0.9)],
    20: [("WBC", 60, 10, 0.8), ("Platelets", 30, 30, 0.8)],
}
COLUMNS = ["file", "kind", "x_min", "y_min", "x_max", "y_max", "machine", "probability",
           "person", "reader", "time"]  # fmt: skip
DESKTOP, PHONE = {"width": 1200, "height": 900}, {"width": 390, "height": 844}

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("plain_is_fit")]


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    root = tmp_path_factory.mktemp("gallery")
    plain_smears.write(root / "smears", one=10, two=20)
    return render(root)


def render(root, known=KNOWN):
    counted = count_folder(
        root / "smears", root / "out", reader_of(known), plain_smears.RED_CELL, progress=False
    )
    return pages.render_counts(counted, progress=False)


class Reader:
    """A person at a page: what they see and do."""

    def __init__(self, context, path):
        self.tab = context.new_page()
        self.complaints = []
        self.tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.tab.on("console", lambda message: self.complaints.append(message.text))
        self.tab.goto(path.as_uri())

    def press(self, *keys):
        for key in keys:
            self.tab.keyboard.press(key)

    def choose(self, words):
        # Not by second guesses.
        said = self.tab.locator(".words", has_text=re.compile(f"(?<!or ){words}"))
        self.tab.locator(".tile", has=said).first.click()

    def counts(self):
        """The column *Now*, of types and of kinds."""
        rows = self.tab.locator(".tallies table:not(.ratios) tbody tr").all()
        cells = [row.locator("th, td").all_inner_texts() for row in rows]
        return {row[0].strip(): int(row[2]) for row in cells}

    def groups(self):
        """Which cells stand in each group, by their photographs."""
        return {
            section.locator("h3").inner_text().strip().rpartition(" ")[0].strip():
                [words.rpartition("; ")[2] for words in section.locator(".words").all_inner_texts()]
            for section in self.tab.locator(".groups section:visible").all()
        }  # fmt: skip

    def take(self, name):
        """Download one of the files."""
        self.tab.locator("details.said").evaluate("one => { one.open = true; }")
        with self.tab.expect_download() as begun:
            self.tab.get_by_role("button", name=name, exact=True).click()
        return begun.value.path().read_bytes()

    def corrections(self):
        return list(csv.DictReader(io.StringIO(self.take("corrections.csv").decode())))


@pytest.fixture
def context(chromium):
    made = chromium.new_context(viewport=DESKTOP, accept_downloads=True)
    yield made
    made.close()


@pytest.fixture
def reader(context, index):
    at_the_page = Reader(context, index)
    yield at_the_page
    assert not at_the_page.complaints


UNTOUCHED = {
    "eosinophil": 1, "lymphocyte": 1, "monocyte": 0, "neutrophil": 1, "basophil": 0,
    "red cells": 1, "white cells": 4, "platelets": 1, "white, without an answer": 1,
    "white, none of the five types": 0,
}  # fmt: skip


def test_white_cells_stand_by_type_the_most_unsure_first(reader):
    assert reader.groups() == {
        "no answer": ["one.png"], "eosinophil": ["one.png"], "lymphocyte": ["one.png"],
        "neutrophil": ["two.png"],
    }  # fmt: skip
    assert reader.counts() == UNTOUCHED


def test_the_differential_follows_each_correction_and_undoing_it(reader):
    reader.choose("monocyte")
    reader.press("5")
    assert reader.counts() == {**UNTOUCHED, "basophil": 1, "white, without an answer": 0}
    low, high = differential.exact_interval(1, 4)
    row = reader.tab.locator(".tallies tbody tr", has_text="basophil").inner_text()
    assert row.split()[:7] == [
        "basophil",
        "0",
        "1",
        "25.0",
        *f"{100 * low:.1f} – {100 * high:.1f}".split(),
    ]
    reader.choose("lymphocyte")
    reader.press("Delete")
    changed = {**UNTOUCHED, "basophil": 1, "white, without an answer": 0, "lymphocyte": 0}
    assert reader.counts() == {**changed, "white cells": 3}
    assert reader.groups()["deleted"] == ["one.png"]
    reader.press("u")
    assert reader.counts() == changed | {"lymphocyte": 1}
    reader.press("Control+z", "u")
    assert reader.counts() == UNTOUCHED
    assert "nothing to take back" in reader.tab.locator(".gallery > .status").inner_text()


def test_ratios_remarks_and_the_numbers_above_follow_each_correction(reader):
    def words(selector):
        return [" ".join(text.split()) for text in reader.tab.locator(selector).all_inner_texts()]

    def above():
        return dict(zip(words(".lede dt"), words(".lede dd"), strict=True))

    # At the left edge one of the white cells, which the ratios leave out.
    assert words(".ratios tbody tr") == [
        "RBC:WBC 1 : 3 0.333 0.00635 – 4.15 355 – 1,625",
        "Platelets:RBC 1 : 1 1 0.0127 – 78.5 0.0231 – 0.103",
    ]
    assert above()["White cells"] == "4 1 cut by the frame"
    assert above()["White cells answered for"] == "3 of 4"
    reader.choose("eosinophil")
    reader.press("Delete")
    assert words(".ratios tbody tr")[0].startswith("RBC:WBC 1 : 3 ")
    assert above()["White cells"] == "3 0 cut by the frame"
    assert above()["White cells answered for"] == "2 of 3"
    reader.choose("lymphocyte")
    reader.press("Delete", "z", "0", "b")  # and one drawn in the middle instead
    assert words(".ratios tbody tr")[0].startswith("RBC:WBC 1 : 3 ")
    reader.press("Escape")
    (remark,) = [line for line in words(".remarks li") if line.startswith("neutrophils")]
    low, high = (100 * end for end in differential.exact_interval(1, 1))
    assert remark.startswith(f"neutrophils: 100.0% ({low:.1f}–{high:.1f}%), above the adult range")
    reader.tab.emulate_media(media="print")
    for shown in (".ratios", ".remarks li"):
        assert reader.tab.locator(shown).first.is_visible(), shown


def test_the_second_guess_stands_beside_the_first(reader):
    def words(text):
        tile = reader.tab.locator(".tile", has_text=text).first
        return " ".join(tile.locator(".was").inner_text().split())

    # Three other types share what remains, alike.
    assert words("neutrophil 91") == "or eosinophil 3 %"
    assert words("no answer") == "monocyte? or eosinophil 20 %"
    reader.choose("neutrophil 91")
    reader.press("2")
    assert words("✎ lymphocyte") == "network: neutrophil 91 %, or eosinophil 3 %"


def test_what_a_person_says_is_written_down_beside_the_answer(reader):
    reader.tab.get_by_label("Reader").fill("Dr. A")
    reader.choose("neutrophil 91")
    reader.press("c")
    reader.choose("monocyte")
    reader.press("6")
    assert reader.counts() == {
        **UNTOUCHED, "white, without an answer": 0, "white, none of the five types": 1,
    }  # fmt: skip
    rows = reader.corrections()
    assert list(rows[0]) == COLUMNS
    assert [list(row.values())[:10] for row in rows] == [
        ["two.png", "WBC", "60", "10", "70", "20", "neutrophil", "0.91", "neutrophil", "Dr. A"],
        ["one.png", "WBC", "40", "40", "50", "50", "monocyte", "0.4", "other", "Dr. A"],
    ]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", row["time"]) for row in rows)
    text = reader.tab.locator(".tile", has_text="other").inner_text()
    assert "network: monocyte 40" in re.sub(r"\s+", " ", text)


def test_corrections_survive_a_reload_and_are_brought_to_another_browser(
    reader, index, chromium, tmp_path
):
    reader.tab.get_by_label("Sample").fill("Slide 7")
    reader.choose("eosinophil")
    reader.press("3")
    reader.choose("lymphocyte")
    reader.press("Backspace")
    expected = {**UNTOUCHED, "eosinophil": 0, "monocyte": 1, "lymphocyte": 0, "white cells": 3}
    corrections = reader.take("corrections.csv")
    reader.tab.reload()
    assert reader.counts() == expected
    assert reader.tab.get_by_label("Sample").input_value() == "Slide 7"
    (tmp_path / "corrections.csv").write_bytes(corrections)
    elsewhere = chromium.new_context()
    other = Reader(elsewhere, index)
    assert other.counts() == UNTOUCHED
    other.tab.get_by_label("Bring back").set_input_files(tmp_path / "corrections.csv")
    other.tab.get_by_text("2 corrections of 2 brought back").wait_for(state="attached")
    assert other.counts() == expected
    assert other.take("corrections.csv") == corrections
    elsewhere.close()


def test_corrections_of_a_photograph_that_was_counted_anew_are_left_out(context, tmp_path):
    plain_smears.write(tmp_path / "smears", one=10, two=20)
    reader = Reader(context, render(tmp_path))
    for words in ("eosinophil", "neutrophil 91"):
        reader.choose(words)
        reader.press("5")
    assert reader.counts()["basophil"] == 2
    plain_smears.write(tmp_path / "smears", two=30)
    render(tmp_path, KNOWN | {30: [("WBC", 60, 20, 0.8)]})
    reader.tab.reload()
    assert reader.counts()["basophil"] == 1 and reader.counts()["neutrophil"] == 1


def test_the_count_is_of_all_pages_and_corrections_follow_from_one_to_the_next(
    context, tmp_path, monkeypatch
):
    monkeypatch.setattr(pages, "PER_PAGE", 1)
    plain_smears.write(tmp_path / "smears", one=10, two=20)
    index = render(tmp_path)
    reader = Reader(context, index)
    assert reader.counts() == UNTOUCHED
    reader.choose("eosinophil")
    reader.press("2")
    reader.tab.goto((tmp_path / "out" / "index-2.html").as_uri())
    assert reader.counts() == {**UNTOUCHED, "eosinophil": 0, "lymphocyte": 2}
    reader.choose("neutrophil")
    reader.press("2")
    assert reader.counts()["lymphocyte"] == 3
    assert [row["file"] for row in reader.corrections()] == ["one.png", "two.png"]
    reader.tab.goto(index.as_uri())
    reader.press("u", "u")
    reader.tab.locator(".tile").first.click()
    reader.press("u", "u")
    assert reader.counts() == UNTOUCHED


def test_corrections_on_other_pages_that_earlier_pages_kept_change_all_numbers(
    context, tmp_path, monkeypatch
):
    """They did not keep whether the frame cuts a cell."""
    monkeypatch.setattr(pages, "PER_PAGE", 1)
    plain_smears.write(tmp_path / "smears", one=10, two=20)
    reader = Reader(context, render(tmp_path))

    def ratio():
        return " ".join(reader.tab.locator(".ratios tbody tr").first.inner_text().split())

    for words in ("eosinophil", "lymphocyte"):  # of which the frame cuts the first
        reader.choose(words)
        reader.press("Delete")
    reader.tab.evaluate(
        """() => {
            const [key] = Object.keys(localStorage).filter((one) =>
                localStorage[one].includes("events"));
            const { events } = JSON.parse(localStorage[key]);
            for (const event of events) { delete event.framed; delete event.cut; }
            localStorage[key] = JSON.stringify({ events });
        }"""
    )
    reader.tab.goto((tmp_path / "out" / "index-2.html").as_uri())
    assert reader.counts()["white cells"] == 2
    assert ratio().startswith("RBC:WBC 1 : 2 ")
    reader.tab.goto((tmp_path / "out" / "index.html").as_uri())
    assert ratio().startswith("RBC:WBC 1 : 2 ")
    assert reader.tab.locator("[data-count='cut WBC']").inner_text() == "0"


def test_a_box_is_drawn_with_the_pointer_and_with_keys(reader):
    reader.choose("eosinophil")
    reader.press("z", "0", "d")
    stage = reader.tab.locator(".stage")
    area = stage.bounding_box()
    pixels = area["width"] / plain_smears.WIDTH
    mouse = reader.tab.mouse
    mouse.move(area["x"] + 50 * pixels, area["y"] + 20 * pixels)
    mouse.down()
    mouse.move(area["x"] + 55 * pixels, area["y"] + 25 * pixels)
    mouse.move(area["x"] + 62 * pixels, area["y"] + 34 * pixels)
    mouse.up()
    assert reader.counts() == {**UNTOUCHED, "white cells": 5, "white, without an answer": 2}
    reader.press("3")
    assert reader.counts() == {**UNTOUCHED, "white cells": 5, "monocyte": 1}
    reader.tab.locator("dialog select").select_option("Platelets")
    stage.focus()
    reader.press("b")
    assert reader.counts()["platelets"] == 2
    reader.press("Escape")
    drawn, platelet = reader.corrections()
    box = [float(drawn[edge]) for edge in COLUMNS[2:6]]
    assert box == pytest.approx([50, 20, 62, 34], abs=0.3)
    assert (drawn["machine"], drawn["probability"], drawn["person"]) == ("", "", "monocyte")
    assert platelet["kind"] == platelet["person"] == "Platelets"
    reader.tab.locator(".tile").first.click()
    reader.press("u", "u", "u")
    assert reader.counts() == UNTOUCHED and len(reader.tab.locator(".tile").all()) == 4


def test_the_field_shows_boxes_where_cells_lie_and_a_bar_of_their_scale(reader):
    reader.choose("lymphocyte")
    reader.press(" ", "0")
    boxes = [
        [float(box.get_attribute(name)) for name in ("x", "y", "width", "height")]
        for box in reader.tab.locator(".stage rect.box").all()
    ]
    assert boxes == [[0, 0, 10, 10], [20, 10, 10, 10], [40, 40, 10, 10]]
    stage, bar = (reader.tab.locator(name).bounding_box() for name in (".stage", ".scale-bar"))
    micrometres = int(reader.tab.locator(".scale-bar").inner_text().split()[0])
    shown = bar["width"] / stage["width"] * plain_smears.WIDTH
    assert shown == pytest.approx(micrometres / 7.5 * plain_smears.RED_CELL, rel=0.02)
    for marker in reader.tab.locator(".stage .marker").all():
        mark, box = (
            one.bounding_box() for one in (marker, marker.locator("xpath=..").locator(".box"))
        )
        is_above = mark["y"] + mark["height"] <= box["y"] + 1
        assert is_above or mark["y"] >= box["y"] + box["height"] - 1
    reader.tab.get_by_label("show all kinds").check()
    assert len(reader.tab.locator(".stage rect.box").all()) == 4
    # The next cell lies in the other photograph.
    reader.tab.locator(".stage").focus()
    reader.press("ArrowRight")
    assert reader.tab.locator("dialog h2").inner_text() == "two.png"


def test_cells_are_filtered_by_type_by_certainty_and_by_whether_they_were_judged(reader):
    reader.tab.locator(".filters select").first.select_option("lymphocyte")
    assert list(reader.groups()) == ["lymphocyte"]
    reader.tab.locator(".filters select").first.select_option("all")
    reader.tab.get_by_label("Certain at most to").fill("50")
    assert list(reader.groups()) == ["no answer"]
    reader.tab.get_by_label("Certain at most to").fill("100")
    reader.tab.get_by_label("not judged yet").check()
    reader.tab.locator(".tile:visible").first.click()
    reader.press("1", "1")
    assert list(reader.groups()) == ["lymphocyte", "neutrophil"]
    assert reader.tab.locator(".tile[aria-selected=true]").inner_text().startswith("lymphocyte")


def test_arrows_lead_from_cell_to_cell(reader):
    def chosen():
        return reader.tab.evaluate("document.activeElement.querySelector('.words').textContent")

    reader.choose("monocyte")
    reader.press("ArrowRight")
    assert chosen().startswith("eosinophil")
    reader.press("ArrowDown")
    assert chosen().startswith("lymphocyte")
    reader.press("End", "ArrowLeft")
    assert chosen().startswith("lymphocyte")
    reader.press("Home", "ArrowUp")
    assert chosen().startswith("no answer")


def test_intervals_are_those_of_python(reader):
    pairs = [
        (count, n)
        for n in (0, 1, 2, 7, 29, 100, 999, 12_345, 1_000_000)
        for count in sorted({0, min(1, n), n // 3, n // 2, max(n - 1, 0), n})
    ]
    for level in (0.95, 0.99):
        asked = "([pairs, level]) => pairs.map(([k, n]) => Tables.exactInterval(k, n, level))"
        answered = reader.tab.evaluate(asked, [pairs, level])
        for pair, interval in zip(pairs, answered, strict=True):
            assert interval == pytest.approx(differential.exact_interval(*pair, level), abs=1e-8)


def test_what_is_said_of_a_count_is_what_python_says(reader):
    rng = np.random.default_rng(0)
    slides = [[1, 0, 0, 0, 0], [0, 0, 0, 3, 0], [300, 0, 0, 0, 0], [3, 31, 7, 59, 1]]
    slides += [rng.multinomial(n, (0.04, 0.3, 0.07, 0.58, 0.01)).tolist() for n in (40, 170, 5000)]
    looks = pages.gallery_looks()
    for slide in slides:
        n = sum(slide)
        kinds = pd.DataFrame({"RBC": [9 * n], "WBC": [n], "Platelets": [slide[1]]})
        white = pd.DataFrame({"cell_type": np.repeat(cells.LEUKOCYTES, slide), "abstained": False})
        ours = differential.count_differential(white, kinds)
        theirs = reader.tab.evaluate(
            """([types, slide, n]) => types.slice(0, 5).map((type, place) =>
                Tables.judgeType(type, slide[place], n, 0.95, 100))""",
            [looks["types"], slide, n],
        )
        for row, expected in zip(theirs, ours.table.to_dict("records"), strict=True):
            assert (row["remark"], row["verdict"]) == (expected["remark"], expected["verdict"])
            assert row["percent"] == pytest.approx(expected["percent"])
        theirs = reader.tab.evaluate(
            """([ratios, counts]) => ratios.map((ratio) =>
                Tables.judgeRatio(ratio, counts[ratio.first], counts[ratio.second], 0.95, 100))""",
            [looks["ratios"], kinds.iloc[0].to_dict()],
        )
        for row, expected in zip(theirs, ours.ratios.to_dict("records"), strict=True):
            assert row["remark"] == expected["remark"]
            for key in ("first", "second", "ratio", "low", "high"):
                assert row[key] == pytest.approx(expected[key], rel=1e-6), key
            for key in ("low", "high"):
                assert row["reference"][key] == expected[f"reference_{key}"]


def test_a_cell_is_cut_where_python_says_so(reader):
    boxes = [[x, y, x + side, y + side] for side in (2, 40) for x in (0, 1.5, 1.6, 58.4, 58.5)
             for y in (1, 1.7, 38, 38.5, 58.4)]  # fmt: skip
    edges = detection.cut_edges(pd.DataFrame(boxes, columns=cells.BOX), 100, 80)
    expected = zip(edges.any(axis=1), detection.is_framed(edges), strict=True)
    asked = "boxes => boxes.map((box) => Tables.framing(box, { width: 100, height: 80 }))"
    theirs = [(one["cut"], one["framed"]) for one in reader.tab.evaluate(asked, boxes)]
    assert theirs == list(expected)


# Files


def test_corrections_are_labels_to_teach_with(reader, index, tmp_path):
    reader.choose("eosinophil")
    reader.press("4")
    reader.choose("lymphocyte")
    reader.press("Delete")
    (tmp_path / "corrections.csv").write_bytes(reader.take("corrections.csv"))
    labels = teaching.read_labels(tmp_path / "corrections.csv", index.parents[1] / "smears")
    boxes = labels[["cell_type", *cells.BOX]].to_numpy().tolist()
    assert boxes == [["neutrophil", 0, 0, 10, 10], ["other", 20, 10, 30, 20]]


def test_boxes_go_out_as_coco_and_voc(reader):
    reader.choose("eosinophil")
    reader.press("4")
    reader.choose("lymphocyte")
    reader.press("Delete")
    coco = json.loads(reader.take("boxes-coco.json"))
    names = {category["id"]: category["name"] for category in coco["categories"]}
    files = {image["id"]: image["file_name"] for image in coco["images"]}
    boxes = sorted(
        (files[one["image_id"]], names[one["category_id"]], *one["bbox"])
        for one in coco["annotations"]
    )
    assert boxes == [
        ("one.png", "RBC", 60, 20, 10, 10), ("one.png", "WBC", 40, 40, 10, 10),
        ("one.png", "neutrophil", 0, 0, 10, 10), ("two.png", "Platelets", 30, 30, 10, 10),
        ("two.png", "neutrophil", 60, 10, 10, 10),
    ]  # fmt: skip
    voc = []
    with zipfile.ZipFile(io.BytesIO(reader.take("boxes-voc.zip"))) as archive:
        assert archive.testzip() is None and sorted(archive.namelist()) == ["one.xml", "two.xml"]
        for name in archive.namelist():
            root = ElementTree.fromstring(archive.read(name))
            for one in root.iter("object"):
                edges = [float(edge.text) for edge in one.find("bndbox")]
                sides = edges[2] - edges[0], edges[3] - edges[1]
                voc.append((root.findtext("filename"), one.findtext("name"), *edges[:2], *sides))
    assert sorted(voc) == boxes


def test_the_workbook_holds_count_cells_and_corrections(reader):
    reader.choose("eosinophil")
    reader.press("4")
    with zipfile.ZipFile(io.BytesIO(reader.take("count.xlsx"))) as archive:
        assert archive.testzip() is None
        sheets = {}
        for name in ("count", "cells", "corrections"):
            root = ElementTree.fromstring(archive.read(f"{name}.xml"))
            sheets[name] = [["".join(cell.itertext()) for cell in row] for row in root[0]]
        for name in archive.namelist():
            ElementTree.fromstring(archive.read(name))
    (neutrophils,) = [row for row in sheets["count"] if row and row[0] == "neutrophil"]
    assert neutrophils[1:3] == ["1", "2"]
    assert len(sheets["cells"]) == 7 and sheets["corrections"][0] == COLUMNS
    assert sheets["corrections"][1][6:9] == ["eosinophil", "0.91", "neutrophil"]


def test_one_sheet_is_printed(reader):
    reader.tab.get_by_label("Reader").fill("Dr. A")
    reader.choose("eosinophil")
    reader.press("4")
    assert reader.tab.pdf().startswith(b"%PDF")
    reader.tab.locator("details:has(#differential)").evaluate("one => { one.open = true; }")
    assert reader.tab.locator("#differential").is_visible()
    reader.tab.emulate_media(media="print")
    for hidden in (".work", ".smear-cards", ".lede", "#differential", ".said .controls"):
        assert not reader.tab.locator(hidden).first.is_visible(), hidden
    for shown in (".tallies table", ".signature", ".corrected table", ".printed"):
        assert reader.tab.locator(shown).first.is_visible(), shown
    assert "Dr. A" in reader.tab.locator(".corrected").inner_text()


# Pages like any other


@pytest.mark.parametrize(
    ("size", "scheme"),
    [
        pytest.param(DESKTOP, "light", id="desktop-light"),
        pytest.param(DESKTOP, "dark", id="desktop-dark", marks=pytest.mark.slow),
        pytest.param(PHONE, "light", id="phone-light", marks=pytest.mark.slow),
        pytest.param(PHONE, "dark", id="phone-dark"),
    ],
)
def test_axe_finds_nothing_serious_and_the_page_fits(index, chromium, scheme, size):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    # What axe asks the page is a script, which the page's own policy does not let in.
    context = chromium.new_context(viewport=size, color_scheme=scheme, bypass_csp=True)
    reader = Reader(context, index)
    reader.choose("eosinophil")
    reader.press("4")
    for open_field in (False, True):
        if open_field:
            reader.press("z")
        judged = axe.run(reader.tab).response["violations"]
        assert not [one["id"] for one in judged if one["impact"] in ("serious", "critical")]
        assert reader.tab.evaluate("document.scrollingElement.scrollWidth") <= size["width"]
    context.close()


def test_names_of_files_are_text_and_nothing_is_asked_for(context, tmp_path):
    name = "<img src=x onerror=alert(1)>&amp;\"'"
    plain_smears.write(tmp_path / "smears", **{name: 10})
    context.set_offline(True)
    requests = []
    context.on("request", lambda request: requests.append(request.url))
    reader = Reader(context, render(tmp_path))
    reader.choose("eosinophil")
    reader.press("z")
    assert reader.tab.locator("dialog h2").inner_text() == f"{name}.png"
    title = reader.tab.locator(".stage title").first.text_content()
    assert title.endswith(f"{name}.png")
    reader.press("4", "Escape")
    assert reader.corrections()[0]["file"] == f"{name}.png"
    assert not reader.tab.locator(".gallery img[src]:not([src^='data:image/jpeg'])").all()
    assert [url for url in requests if not url.startswith(("data:", "blob:"))] == [
        (tmp_path / "out" / "index.html").as_uri()
    ]
    assert not reader.complaints
