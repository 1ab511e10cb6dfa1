"""Pages of plain photographs whose cells are known: what they say, that they link."""

import base64
import hashlib
import io
import itertools
import os
import re
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

import numpy as np
import plain_smears
import pytest
from bs4 import BeautifulSoup
from PIL import Image
from plain_smears import photograph, reader_of

from wbc_helpers import cells
from wbc_helpers.__main__ import main
from wbc_helpers.count import detector, fitness, pages
from wbc_helpers.count.smears import count_folder
from wbc_helpers.data import sample
from wbc_helpers.errors import PageExists
from wbc_helpers.report.pages import is_ours

pytestmark = pytest.mark.usefixtures("plain_is_fit")

KNOWN = {
    # By how many boxes are unsure: 2, 1, 0, 3.
    10: [
        ("RBC", 0, 0, 0.9),
        ("WBC", 20, 10, 0.95),
        ("WBC", 40, 40, 0.9),
        ("Platelets", 70, 0, 0.26),
    ],
    20: [("RBC", 0, 0, 0.9), ("RBC", 30, 0, 0.54)],
    30: [("WBC", 60, 0, 0.8), ("Platelets", 0, 30, 0.8), ("WBC", 0, 0, 0.8)],
    40: [("RBC", 10 * place, 0, 0.52) for place in range(3)],
    50: [],
}
GREYS = {"two": 10, "one": 20, "none": 30, "three": 40, "empty": 50}
WORST_FIRST = ["three.png", "two.png", "one.png", "empty.png", "none.png"]

# `/` ends the name of a folder.
ODD_NAMES = [
    "a b.png",
    "100% #1?.png",
    "%2e%2e%2fup.png",
    "\"quoted\" 'name'.png",
    "<script>alert(1)</script>.png",
    "&amp;{{ 7 * 7 }}.png",
    "血液 é.png",
    "left/a b.png",
    "a b.jpg",
    "-.png",
    "x" * 200 + ".png",
]


def count(folder, out, known=KNOWN):
    return count_folder(
        folder, out, reader_of(known), red_cell=plain_smears.RED_CELL, progress=False
    )


def render(found, **options):
    return pages.render_counts(found, progress=False, **options)


def page_of(path):
    return BeautifulSoup(Path(path).read_text(encoding="utf-8"), "html.parser")


def text_of(tag):
    return re.sub(r"\s+", " ", tag.get_text(" ")).strip()


def titles_of(path):
    return [text_of(title) for title in page_of(path).select(".smear-cards .title")]


def follow(path, link):
    """The file that a link leads to."""
    address = urlsplit(link)
    assert not address.scheme and not address.netloc, link
    return (path.parent / unquote(address.path)).resolve() if address.path else path


def smear_pages(index):
    """Pages of the smears, in the order of their cards."""
    return [follow(index, a["href"]) for a in page_of(index).select(".smear-cards a[href]")]


@pytest.fixture
def folder(tmp_path):
    return plain_smears.write(tmp_path / "smears", **GREYS)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "counted"


@pytest.fixture
def index(folder, out):
    return render(count(folder, out))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Pages of photographs with odd names, on several index pages, and of files that failed."""
    root = tmp_path_factory.mktemp("odd names")
    for place, name in enumerate(ODD_NAMES):
        path = root / "smears <b>" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photograph(10 * (place % 5 + 1))).save(path)
    (root / "smears <b>" / "<i>broken</i>.png").parent.mkdir()
    (root / "smears <b>" / "<i>broken</i>.png").touch()
    (root / "smears <b>" / "<i>notes.txt").touch()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pages, "PER_PAGE", 4)
        render(count(root / "smears <b>", root / "counted"), drawn=True)
    return root / "counted"


# What they say


def test_the_worst_smears_come_first(index):
    assert titles_of(index) == WORST_FIRST
    cards = [text_of(card) for card in page_of(index).select(".smear-cards .name")]
    assert cards == [
        "3 unsure · 3 RBC, 0 WBC, 0 Platelets",
        "2 unsure · 1 RBC, 2 WBC, 0 Platelets · 1 lymphocyte · 1 without an answer",
        "1 unsure · 2 RBC, 0 WBC, 0 Platelets",
        "0 unsure · 0 RBC, 0 WBC, 0 Platelets",
        "0 unsure · 0 RBC, 2 WBC, 1 Platelets · 1 eosinophil · 1 neutrophil",
    ]


def test_the_index_sums_up_the_counts(index):
    page = page_of(index)
    told = {text_of(each.dt): text_of(each.dd) for each in page.select("dl.lede div")}
    assert told == {
        "Photographs": "5", "Red cells": "6 6 cut by the frame",
        "White cells": "4 2 cut by the frame", "Platelets": "1 1 cut by the frame",
        "White cells answered for": "3 of 4", "Unsure boxes": "6", "Red cell": "20 pixels",
    }  # fmt: skip
    rows = [
        [text_of(cell) for cell in row.select("th, td")]
        for row in page.select("table.differential tbody tr")
    ]
    assert [(row[0], row[1], row[2]) for row in rows] == [
        ("eosinophil", "1", "33.3"), ("lymphocyte", "1", "33.3"), ("monocyte", "0", "0.0"),
        ("neutrophil", "1", "33.3"), ("basophil", "0", "0.0"),
    ]  # fmt: skip
    # Where every cell has its most probable type, the monocyte is one of four.
    assert [row[-1] for row in rows] == ["1 (25.0 %)"] * 4 + ["0 (0.0 %)"]
    assert "Not for diagnosis" in text_of(page)


def test_one_smear_leads_to_the_next_and_back(index):
    smears = smear_pages(index)
    assert len(set(smears)) == 5
    for place, path in enumerate(smears):
        page = page_of(path)
        assert text_of(page.h1) == WORST_FIRST[place]
        # Above and below the photograph.
        for which, expected in (("prev", smears[place - 1 : place]), ("next", smears[place + 1 :])):
            links = [follow(path, a["href"]) for a in page.select(f"a[rel={which}]")]
            assert links == expected[:1] * 2
        assert index in [follow(path, a["href"]) for a in page.select("a[href]:not([rel])")]
        assert f"{place + 1} of 5, most unsure first" in text_of(page)


def test_every_box_is_drawn_where_it_is_and_says_what_it_was_taken_for(index):
    (two,) = (page for page in map(page_of, smear_pages(index)) if text_of(page.h1) == "two.png")
    drawn = {}
    for layer in two.select("figure.smear g[class^=layer-]"):
        (name,) = (each.removeprefix("layer-") for each in layer["class"])
        boxes = layer.select("rect.box")
        titles = [title.get_text() for title in layer.select("title")]
        drawn[name] = [
            (*(float(box[side]) for side in ("x", "y", "width", "height")),
             "unsure" in box["class"], title)
            for box, title in zip(boxes, titles, strict=True)
        ]  # fmt: skip
    assert drawn == {
        "RBC": [(0, 0, 10, 10, False, "red cell, score 0.90")],
        "lymphocyte": [
            (20, 10, 10, 10, False, "white cell, score 0.95; lymphocyte, 91%"),
        ],
        "WBC": [
            (40, 40, 10, 10, True,
             "white cell, score 0.90; no answer; most probably monocyte, 40%"),
        ],
        "uncounted": [(70, 0, 10, 10, True, "platelet, score 0.26; not counted")],
    }  # fmt: skip
    labels = [text_of(label) for label in two.select("fieldset label")]
    assert sorted(labels) == [
        "lymphocytes (1)", "red cells (1)", "unsure, not counted (1)",
        "white cells without an answer (1)",
    ]  # fmt: skip
    colors = {look.name: look.color for look in (*cells.KINDS, *cells.CELL_TYPES)}
    for name in ("RBC", "lymphocyte", "WBC"):
        assert two.select_one(f"g.layer-{name}")["stroke"] == colors[name]
    rows = [text_of(row) for row in two.select("table.white-cells tbody tr")]
    assert [row.split()[0] for row in rows] == ["lymphocyte", "monocyte"]
    assert "no answer" not in rows[0] and "no answer" in rows[1]


def test_every_box_is_listed_for_those_who_have_no_pointer(index):
    for path in smear_pages(index):
        page = page_of(path)
        titles = [title.get_text() for title in page.select("figure.smear title")]
        rows = page.select("h2#boxes + details tbody tr")
        assert sorted(row.td.get_text() for row in rows) == sorted(titles)
        assert bool(titles) == bool(page.select('figcaption a[href="#boxes"]'))


def test_the_photograph_on_the_page_is_the_one_that_was_counted(index):
    for path in smear_pages(index):
        image = page_of(path).select_one("figure.smear image")
        assert (image["width"], image["height"]) == ("80", "60")
        stored = base64.b64decode(image["href"].partition("base64,")[2])
        with Image.open(io.BytesIO(stored)) as picture:
            assert picture.size == (80, 60)
            grey = GREYS[text_of(page_of(path).h1).removesuffix(".png")]
            assert all(abs(level - grey) <= 2 for level in picture.getpixel((40, 30)))


def test_large_photographs_are_shown_smaller_and_boxes_stay_in_place(tmp_path, out):
    (tmp_path / "smears").mkdir()
    Image.fromarray(photograph(10, (1500, 3000))).save(tmp_path / "smears" / "a.png")
    (path,) = smear_pages(render(count(tmp_path / "smears", out)))
    drawn = page_of(path).select_one("figure.smear svg")
    assert drawn["viewbox"] == "0 0 3000 1500"
    stored = base64.b64decode(drawn.image["href"].partition("base64,")[2])
    assert Image.open(io.BytesIO(stored)).size == (1280, 640)
    assert (drawn.image["width"], drawn.image["height"]) == ("3000", "1500")
    assert drawn.select_one(".layer-RBC rect.box")["width"] == "10.0"


def test_nothing_that_a_camera_notes_goes_onto_a_page(tmp_path, out):
    (tmp_path / "smears").mkdir()
    about = Image.Exif()
    about[0x010E] = "patient 1674"
    Image.fromarray(photograph(10)).save(tmp_path / "smears" / "a.jpg", exif=about)
    index = render(count(tmp_path / "smears", out))
    for path in (index, *smear_pages(index)):
        for image in page_of(path).select("image"):
            stored = base64.b64decode(image["href"].partition("base64,")[2])
            assert b"patient 1674" not in stored and not Image.open(io.BytesIO(stored)).getexif()


def test_a_photograph_that_is_gone_by_now_is_said(folder, out):
    found = count(folder, out)
    (folder / "two.png").unlink()
    index = render(found)
    for path, title in zip(smear_pages(index), WORST_FIRST, strict=True):
        is_gone = "no longer where it was counted" in text_of(page_of(path))
        assert is_gone == (title == "two.png")
    assert len(page_of(smear_pages(index)[1]).select("rect.box")) == 4


def test_files_that_failed_are_listed(folder, out):
    assert not page_of(render(count(folder, out))).select(".notice.bad")
    (folder / "empty.jpg").touch()
    (folder / "notes.txt").touch()
    page = page_of(render(count(folder, out)))
    (notice,) = page.select(".notice.bad")
    assert "1 file was not counted" in text_of(notice)
    (listed,) = notice.select("li")
    assert listed.code.get_text() == "empty.jpg" and "is empty (0 bytes)" in text_of(listed)
    (folder / "text.jpg").write_text("no picture")
    page = page_of(render(count(folder, out)))
    assert "2 files were not counted" in text_of(page.select_one(".notice.bad"))
    assert "1 file was passed over" in text_of(page) and "notes.txt" in text_of(page)


def test_a_folder_of_which_nothing_could_be_counted_has_a_page(tmp_path, out):
    (tmp_path / "smears").mkdir()
    (tmp_path / "smears" / "a.png").touch()
    index = render(count(tmp_path / "smears", out))
    assert "1 file was not counted" in text_of(page_of(index))
    assert "no differential count" in text_of(page_of(index)) and titles_of(index) == []


def test_drawn_smears_are_said_on_every_page(folder, out):
    found = count(folder, out)
    for drawn in (True, False):
        render(found, drawn=drawn)
        for path in out.rglob("*.html"):
            page = page_of(path)
            assert bool(page.select(".banner")) == drawn
            assert page.title.get_text().startswith("[drawn cells]") == drawn


@pytest.mark.parametrize("place", [".", "TRAIN/EOSINOPHIL", None])
def test_the_command_tells_drawn_smears_by_the_folder_they_are_in(
    out, tmp_path, monkeypatch, place
):
    monkeypatch.setattr(detector, "load_reader", lambda *_: reader_of())
    folder = plain_smears.write(tmp_path / "drawn" / (place or "."), a=10)
    if place:
        (tmp_path / "drawn" / sample._MARKER).touch()
    assert main(["count", str(folder), "--out", str(out), "--red-cell", "20"]) == 0
    assert bool(page_of(out / "index.html").select(".banner")) == bool(place)


# Several index pages


def test_reasons_stand_beside_each_photograph(folder, out, monkeypatch):
    reasons = [fitness.OUT_OF_FOCUS, fitness.OVER_EXPOSED]
    monkeypatch.setattr(fitness, "measure", lambda photograph, red_cell: photograph[0, 0, 0])
    monkeypatch.setattr(
        fitness, "judge_reading", lambda grey, red_cell, boxes: reasons if grey == 10 else []
    )
    index = render(count(folder, out))
    (notice,) = page_of(index).select(".notice")
    assert "4 of 5 photographs are fit to be counted" in text_of(notice)
    assert all(fitness.ADVICE[reason] in text_of(notice) for reason in reasons)
    cards = page_of(index).select(".smear-cards li")
    said = {text_of(card.select_one(".title")): text_of(card) for card in cards}
    assert "out of focus; over-exposed" in said["two.png"]
    assert not any("focus" in words for name, words in said.items() if name != "two.png")
    own = smear_pages(index)[WORST_FIRST.index("two.png")]
    assert "Not fit to be counted" in text_of(page_of(own).select_one(".notice"))


def test_smears_stand_on_several_index_pages(folder, out, monkeypatch):
    monkeypatch.setattr(pages, "PER_PAGE", 2)
    index = render(count(folder, out))
    parts = [out / name for name in ("index.html", "index-2.html", "index-3.html")]
    assert index == parts[0] and sorted(out.glob("*.html")) == sorted(parts)
    assert [titles_of(part) for part in parts] == [
        WORST_FIRST[:2], WORST_FIRST[2:4], WORST_FIRST[4:]
    ]  # fmt: skip
    for part in parts:
        for turn in page_of(part).select("nav.steps"):
            assert [follow(part, a["href"]) for a in turn.select("a")] == parts
            (current,) = turn.select("[aria-current=page]")
            assert follow(part, current["href"]) == part
        # Back to the page on which its card stands.
        for smear in smear_pages(part):
            backs = [
                follow(smear, a["href"]) for a in page_of(smear).select("a:not([rel], [href^='#'])")
            ]
            assert set(backs) == {part}
    # From one page's last smear to the next page's first.
    smears = [smear for part in parts for smear in smear_pages(part)]
    for path, after in itertools.pairwise(smears):
        assert follow(path, page_of(path).select_one("a[rel=next]")["href"]) == after


def test_numbers_and_failures_stand_on_the_first_page_alone(site):
    first, second = (page_of(site / name) for name in ("index.html", "index-2.html"))
    assert first.select(".notice.bad") and first.select("dl.lede")
    assert not second.select(".notice.bad, dl.lede, table")
    assert first.select(".smear-cards li") and second.select(".smear-cards li")


def test_many_index_pages_are_turned_through_a_few_links(tmp_path, out, monkeypatch):
    monkeypatch.setattr(pages, "PER_PAGE", 1)
    names = {f"p{place:02}": 50 for place in range(20)}
    render(count(plain_smears.write(tmp_path / "smears", **names), out))
    turn = page_of(out / "index-10.html").select_one("nav.steps")
    assert text_of(turn) == "1 … 7 8 9 10 11 12 13 … 20"


# Names of files


def test_every_name_is_shown_as_it_is(site):
    shown = [title for part in sorted(site.glob("index*.html")) for title in titles_of(part)]
    assert sorted(shown) == sorted(ODD_NAMES)
    for part in site.glob("index*.html"):
        for path, title in zip(smear_pages(part), titles_of(part), strict=True):
            page = page_of(path)
            assert page.h1.get_text() == title and title in page.title.get_text()
            assert page.select_one("figure.smear svg")["aria-label"].startswith(title)
    first = page_of(site / "index.html")
    assert text_of(first.h1) == "Cells of smears <b>"
    assert first.select_one(".notice code").get_text() == "<i>broken</i>.png"
    assert first.select_one("details code").get_text() == "<i>notes.txt"


def test_every_smear_has_a_page_of_its_own_with_a_plain_name(site):
    paths = [path for part in site.glob("index*.html") for path in smear_pages(part)]
    assert len(set(paths)) == len(ODD_NAMES)
    assert set(paths) == set((site / "smears").iterdir())
    assert all(re.fullmatch(r"[\w.-]{1,80}\.html", path.name, re.ASCII) for path in paths)


def test_a_name_that_is_no_text_has_a_page(folder, out):
    os.rename(folder / "two.png", os.fsencode(folder) + b"/caf\xe9.png")
    index = render(count(folder, out))
    assert titles_of(index)[1] == "caf?.png"
    assert len({path for path in smear_pages(index) if path.is_file()}) == 5


def test_every_link_leads_to_a_file(site):
    n_links = 0
    for path in site.rglob("*.html"):
        page = page_of(path)
        for link in [a["href"] for a in page.find_all("a", href=True)]:
            target = follow(path, link)
            assert target.is_file() and site.resolve() in target.parents, (path, link)
            if fragment := urlsplit(link).fragment:
                assert page_of(target).find(id=unquote(fragment)), (path, link)
            n_links += 1
    assert n_links > 50


def test_no_page_asks_for_anything_else(site):
    for path in site.rglob("*.html"):
        page = page_of(path)
        scripts = page.find_all("script")
        # The gallery's, which stand on the page itself and are named by their digest.
        assert [script.get("id") for script in scripts] == (
            ["cells", None] if path.parent == site else []
        )
        assert not any(script.get("src") for script in scripts)
        policy = page.find("meta", attrs={"http-equiv": True})["content"]
        for script in [script for script in scripts if not script.get("type")]:
            digest = hashlib.sha256(script.string.encode()).digest()
            assert f"script-src 'sha256-{base64.b64encode(digest).decode()}';" in policy
        assert "default-src 'none'" in policy
        assert not page.find_all(["iframe", "object", "embed", "img", "form"]), path
        assert not page.find_all(lambda tag: any(name.startswith("on") for name in tag.attrs))
        for tag in page.find_all(["link", "source", "image", "use"]):
            for attribute in ("src", "href", "srcset", "xlink:href"):
                assert str(tag.get(attribute, "data:")).startswith(("data:", "#")), (path, tag)
        styles = " ".join(style.get_text() for style in page.find_all("style"))
        assert "url(" not in styles and "@import" not in styles
        # The icon alone, in itself, names SVG by its address.
        page.find("link", rel="icon").decompose()
        assert not re.search("https?://", str(page)), path


def test_ids_are_unique_and_layers_can_be_switched(site):
    for path in site.rglob("*.html"):
        page = page_of(path)
        stated = [tag["id"] for tag in page.find_all(id=True)]
        assert len(stated) == len(set(stated)), path
        for box in page.select("fieldset input"):
            layer = box["id"].replace("show-", "layer-")
            assert page.select(f"figure.smear .{layer}")
            assert f".{layer} {{ display: none; }}" in path.read_text(encoding="utf-8")


# Whose pages are replaced


@pytest.mark.parametrize("name", ["index.html", "index-3.html", "smears/one"])
def test_a_foreign_page_is_refused_and_nothing_is_written(folder, out, monkeypatch, name):
    monkeypatch.setattr(pages, "PER_PAGE", 2)
    found = count(folder, out)
    foreign = out / (f"smears/{pages.page_of('one.png')}" if "/" in name else name)
    foreign.parent.mkdir(exist_ok=True)
    foreign.write_text("<p>my own notes</p>")
    with pytest.raises(PageExists, match=re.escape(str(foreign))):
        render(found)
    assert list(out.rglob("*.html")) == [foreign]
    assert foreign.read_text() == "<p>my own notes</p>"


def test_rendering_again_gives_the_same_pages(folder, out, index):
    before = {path: path.read_bytes() for path in out.rglob("*.html")}
    render(count(folder, out))
    assert {path: path.read_bytes() for path in out.rglob("*.html")} == before


def test_pages_that_nothing_leads_to_are_removed_if_they_are_ours(folder, out, monkeypatch):
    monkeypatch.setattr(pages, "PER_PAGE", 2)
    render(count(folder, out))
    theirs = [out / "index-9.html", out / "smears" / "notes.html"]
    for page in theirs:
        page.write_text("<p>my own notes</p>")
    gone = out / "smears" / pages.page_of("one.png")
    assert gone.is_file()
    (folder / "one.png").unlink()
    monkeypatch.undo()
    index = render(count(folder, out))
    assert titles_of(index) == [name for name in WORST_FIRST if name != "one.png"]
    assert set(out.rglob("*.html")) == {index, *smear_pages(index), *theirs}
    assert all(page.read_text() == "<p>my own notes</p>" for page in theirs)
    assert is_ours(index) and not gone.exists()


# In a browser

PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1100, "height": 900}


@pytest.mark.browser
@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_pages_load_quietly_and_fit_the_screen(site, chromium, size):
    context = chromium.new_context(viewport=size)
    tab = context.new_page()
    requests, complaints = [], []
    tab.on("request", lambda request: requests.append(request.url))
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    # The page with the longest name among those of smears.
    smears = sorted((site / "smears").iterdir(), key=lambda path: len(path.name))
    for path in (site / "index.html", site / "index-3.html", smears[0], smears[-1]):
        requests.clear()
        tab.goto(path.as_uri())
        assert [url for url in requests if not url.startswith("data:")] == [path.as_uri()]
        assert not complaints, (path, complaints)
        assert tab.evaluate("document.scrollingElement.scrollWidth") <= size["width"], path
        assert tab.locator("svg image").first.evaluate("one => one.getBoundingClientRect().width")
    context.close()


@pytest.mark.browser
def test_smears_are_gone_through_and_layers_switched_without_a_script(index, chromium):
    tab = chromium.new_page(viewport=DESKTOP)
    tab.goto(index.as_uri())
    tab.get_by_text("three.png").click()
    assert tab.locator("h1").inner_text() == "three.png"
    tab.locator("a[rel=next]").first.click()
    assert tab.locator("h1").inner_text() == "two.png"
    is_seen = [
        tab.locator(f"figure .layer-{name} rect.box").is_visible() for name in ("RBC", "uncounted")
    ]
    tab.get_by_label("red cells (1)").uncheck()
    is_seen += [
        tab.locator(f"figure .layer-{name} rect.box").is_visible() for name in ("RBC", "uncounted")
    ]
    assert is_seen == [True, True, False, True]
    tab.close()


def test_the_page_of_a_laboratory_that_taught_calls_no_slide_foreign(tmp_path, out):
    reader = reader_of({10: [("WBC", 3 * place, 40, 0.9) for place in range(20)]})
    reader.classifier.laboratory = SimpleNamespace(name="own", of="2026", bias=np.zeros(5))
    folder = plain_smears.write(tmp_path / "own", one=10)
    counted = count_folder(folder, out, reader, red_cell=plain_smears.RED_CELL, progress=False)
    assert counted.differential.n_abstained == 20 and not counted.differential.is_foreign
    assert "look foreign" not in text_of(page_of(render(counted)).main)
    assert pages.gallery_looks(taught=True)["foreign"]["share"] == 0
