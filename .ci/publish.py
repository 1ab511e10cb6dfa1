"""Build the site that is published: start page, executed notebooks, docs, and the overview of runs.

    python .ci/publish.py            into build/site
    python .ci/publish.py --text     texts alone, around notebooks that were executed before

The notebooks are executed on drawn cells, and every page of theirs says so. Pages ask no other
machine for anything; one of them, which `wbc page` writes, reads photographs. What a notebook's
page may not run, the gallery of 00_your_slide, has a page of its own, to which it links.
"""

import argparse
import base64
import mimetypes
import posixpath
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import mistune
from bs4 import BeautifulSoup
from markupsafe import Markup

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from wbc_helpers.count.pages import write_reader
from wbc_helpers.errors import DownloadFailed
from wbc_helpers.report import pages, rendering

RUN = "drawn-cells"
# Epochs that show what happens, not what comes out: the cells are drawn anyway. What 05 trains is
# no run to browse.
SCRATCH = ROOT / "build" / "site-data"
BESIDE = {
    "00_your_slide": {"runs_dir": str(SCRATCH / "runs")},
    "05_audit": {"epochs": 4, "runs_dir": str(SCRATCH / "runs")},
    "06_count": {"epochs": 3},
    "07_laboratories": {"cells_each": 10, "draws": 3},
}
READER = "page.html"
SLIDE = "your-slide"  # what 00_your_slide counted, with its gallery
# Whoever takes photographs needs no data set, and what trains nothing leaves no run.
LACKING = {"00_your_slide": "source", "07_laboratories": "runs_dir"}
TEXTS = {
    "README.md": "index.html",
    "CONTRIBUTING.md": "contributing.html",
    "CHANGELOG.md": "changelog.html",
    **{f"docs/{page.name}": f"docs/{page.stem}.html" for page in sorted(ROOT.glob("docs/*.md"))},
    **{
        f"wbc_helpers/weights/{card.name}": f"weights/{card.stem}.html"
        for card in sorted(ROOT.glob("wbc_helpers/weights/*.md"))
    },
}

PAGE = """{% extends "page.html.j2" %}
{% set drawn = false %}
{% block title %}{{ title }}{% endblock %}
{% block crumbs %}{% if home %}
<a href="{{ home }}">Start</a> <span aria-hidden="true">&rsaquo;</span>
{% endif %}{{ title }}{% endblock %}
{% block navigation %}<nav class="steps" aria-label="Pages"><ul>
{% for link, name, here in links %}<li><a href="{{ link }}"{% if here %} aria-current="page"{% endif
%}>{{ name }}</a></li>
{% endfor %}</ul></nav>{% endblock %}
{% block content %}<article class="prose">{{ body }}</article>{% endblock %}
"""


def execute(site: Path) -> None:
    """Execute all notebooks on drawn cells, each into the folder of one run, and render it."""
    import papermill

    runs, data = site / "runs", SCRATCH
    wbc = [sys.executable, "-m", "wbc_helpers", "run", "--source", "sample", "--run", RUN]
    subprocess.run([*wbc, "--data-dir", data, "--runs-dir", runs], cwd=ROOT, check=True)
    common = {"source": "sample", "data_dir": str(data), "runs_dir": str(runs)}
    for name, own in BESIDE.items():
        given = common | own
        papermill.execute_notebook(
            ROOT / "notebooks" / f"{name}.ipynb",
            runs / RUN / f"{name}.ipynb",
            {key: value for key, value in given.items() if key != LACKING.get(name)},
            cwd=ROOT,
            progress_bar=False,
        )
    (slide,) = (SCRATCH / "runs" / "slides").iterdir()
    shutil.copytree(slide, site / SLIDE, ignore=shutil.ignore_patterns("*.json*"))
    # A page needs no weights.
    for pattern in ("*.keras", "*.h5"):
        for weights in runs.rglob(pattern):
            weights.unlink()
    rendering.render_run(runs / RUN)
    rendering.render_overview(runs)


def target_of(link: str, page: str) -> str:
    """Where a link of a text leads on the site; what the site lacks, in the repository."""
    address = urlsplit(link)
    if address.scheme or address.netloc or not address.path:
        return link
    path = posixpath.normpath(posixpath.join(posixpath.dirname(page), address.path))
    anchor = f"#{address.fragment}" if address.fragment else ""
    if path in TEXTS:
        there = TEXTS[path]
    elif path.startswith("notebooks/"):
        there = f"runs/{RUN}/{Path(path).stem}.html"
    else:
        return f"{repository()}/blob/main/{path}{anchor}"
    return posixpath.relpath(there, posixpath.dirname(TEXTS[page]) or ".") + anchor


def repository() -> str:
    from badges import present_address

    return f"https://github.com/{present_address()}"


def text_of(page: str) -> tuple[str, Markup]:
    """Title and body of a text, its pictures inside it."""
    markdown = mistune.create_markdown(escape=False, plugins=["table", "strikethrough"])
    soup = BeautifulSoup(markdown((ROOT / page).read_text(encoding="utf-8")), "html.parser")
    for heading in soup.find_all(["h1", "h2", "h3"]):
        words = "".join(c for c in heading.get_text().lower() if c.isalnum() or c in " -")
        heading["id"] = words.strip().replace(" ", "-")
    for picture in soup.find_all("img"):
        file = ROOT / posixpath.join(posixpath.dirname(page), picture["src"])
        if picture["src"].startswith("http"):
            picture.replace_with(picture["alt"])
        else:
            kind, content = mimetypes.guess_type(file.name)[0], file.read_bytes()
            encoded = base64.b64encode(content).decode("ascii")
            picture["src"] = f"data:{kind or 'image/webp'};base64,{encoded}"
    for link in soup.find_all("a", href=True):
        link["href"] = target_of(link["href"], page)
    for code in soup.find_all("pre"):
        code["tabindex"] = "0"  # a keyboard scrolls what has the focus
    for table in soup.find_all("table"):
        table.wrap(soup.new_tag("div", attrs={"class": "scroll", "tabindex": "0"}))
    return soup.h1.get_text(), Markup(str(soup))


def add_reader(site: Path) -> None:
    """Write the page that reads photographs; without a network the site is built without it."""
    site.mkdir(parents=True, exist_ok=True)
    try:
        write_reader(site / READER, SCRATCH)
    except DownloadFailed as error:
        print(f"The site goes without the page that reads photographs: {error}")


def render(site: Path) -> None:
    """Write the page of each text, and link the overview of runs to the start page."""
    template = pages.environment().from_string(PAGE)
    for page, target in TEXTS.items():
        title, body = text_of(page)

        def to(there: str, here: str = target) -> str:
            return posixpath.relpath(there, posixpath.dirname(here) or ".")

        links = [(to(f"runs/{RUN}/01_download.html"), "Notebooks, executed", False)]
        links.append((to("runs/index.html"), "Runs", False))
        if (site / SLIDE / "index.html").is_file():
            links.append((to(f"{SLIDE}/index.html"), "Gallery of drawn cells", False))
        if (site / READER).is_file():
            links.append((to(READER), "What is on my slide?", False))
        links += [
            (to(there), Path(text).stem.replace("-", " ").capitalize(), there == target)
            for text, there in TEXTS.items()
            if text.startswith("docs/")
        ]
        home = "" if target == "index.html" else to("index.html")
        (site / target).parent.mkdir(parents=True, exist_ok=True)
        pages.write_page(
            site / target, template.render(title=title, body=body, home=home, links=links)
        )
    link_gallery(site)
    overview = site / "runs" / "index.html"
    soup = BeautifulSoup(overview.read_text(encoding="utf-8"), "html.parser")
    crumbs = soup.find("p", class_="crumbs")
    if not crumbs.find("a"):
        start = soup.new_tag("a", href="../index.html")
        start.string = "Start"
        crumbs.svg.insert_after(start, " \N{SINGLE RIGHT-POINTING ANGLE QUOTATION MARK} ")
        overview.write_text(str(soup), encoding="utf-8")


def link_gallery(site: Path) -> None:
    """Have the page of 00_your_slide lead to the gallery that it names."""
    page, gallery = site / "runs" / RUN / "00_your_slide.html", site / SLIDE / "index.html"
    if not (page.is_file() and gallery.is_file()):
        return
    soup = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
    for name in soup.find_all("code", string=gallery.name):
        if not name.find_parent("a"):
            name.wrap(soup.new_tag("a", href=posixpath.join("..", "..", SLIDE, gallery.name)))
    page.write_text(str(soup), encoding="utf-8")


def dead_links(site: Path) -> list[str]:
    """Links that lead to no page of the site, nor to a place in one."""
    dead, soups = [], {}
    # The page that reads photographs leads nowhere, and is a hundred times as large as another.
    for page in sorted({*site.rglob("*.html")} - {site / READER}):
        soups[page.resolve()] = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
    for page, soup in soups.items():
        for link in soup.find_all("a", href=True):
            address = urlsplit(link["href"])
            if address.scheme:
                continue
            there = (page.parent / unquote(address.path)).resolve() if address.path else page
            is_there = there.is_file()
            if is_there and address.fragment and there in soups:
                is_there = soups[there].find(id=address.fragment) is not None
            if not is_there:
                dead.append(f"{page.relative_to(site.resolve())}: {link['href']}")
    return dead


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "site")
    parser.add_argument("--text", action="store_true", help="execute no notebook again")
    options = parser.parse_args()
    site = options.out.absolute()
    if not options.text:
        shutil.rmtree(site, ignore_errors=True)
        execute(site)
    add_reader(site)
    render(site)
    dead = dead_links(site)
    print("\n".join([*dead, f"{len(list(site.rglob('*.html')))} pages: {site / 'index.html'}"]))
    return 1 if dead else 0


if __name__ == "__main__":
    sys.exit(main())
