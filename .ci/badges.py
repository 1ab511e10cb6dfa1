"""Write the repository's address into every place that needs it.

    badges.py owner/name     write it everywhere
    badges.py --check        say where the places disagree with pyproject.toml
    badges.py --published    the same, and stop while they name no repository of anybody's

`[project.urls]` in pyproject.toml holds the address; the README's and notebooks' badges, the
notebooks' first cells and CITATION.cff repeat it.
"""

import argparse
import os
import re
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

PLACEHOLDER = "owner/white-blood-cells"
"""Stands in the repository until somebody publishes it."""

SLUG = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,38})/[A-Za-z0-9._-]*[A-Za-z0-9_-]"
BADGE_IMAGE = "https://colab.research.google.com/assets/colab-badge.svg"
COLAB = "https://colab.research.google.com/github/"

# What stands before the address in places that are always ours. Other mentions are known by
# holding the present address.
OWN_PLACES = (
    re.escape(COLAB),
    r"--no-deps https://github\.com/",
    r'(?m:^Repository = )"https://github\.com/',
    r'(?m:^repository-code:\s*)"?https://github\.com/',
)


def places() -> list[Path]:
    """All files that hold the address, pyproject.toml last: it tells the present one."""
    notebooks = sorted([*ROOT.glob("notebooks/*.py"), *ROOT.glob("notebooks/*.ipynb")])
    texts = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CITATION.cff"]
    return [path for path in (*texts, *notebooks) if path.exists()] + [ROOT / "pyproject.toml"]


def read(path: Path) -> str:
    with path.open(encoding="utf-8", newline="") as file:
        return file.read()


def present_address() -> str:
    found = re.search(
        rf'^Repository = "https://github\.com/({SLUG})"$', read(ROOT / "pyproject.toml"), re.M
    )
    if not found:
        sys.exit(
            'pyproject.toml holds no line Repository = "https://github.com/owner/name" under '
            "[project.urls]. Put it back, then run this again."
        )
    return found[1]


def readdress(text: str, present: str, wanted: str) -> str:
    for place in OWN_PLACES:
        text = re.sub(rf"({place})(?:{SLUG})(?=[/\"\\\s]|$)", rf"\g<1>{wanted}", text)
    # Not a longer name that begins like ours; `.git` and a closing full stop are no part of it.
    text = re.sub(
        rf"(github\.com/){re.escape(present)}(?![\w-]|\.(?!git\b)\w)", rf"\g<1>{wanted}", text
    )
    pages, wanted_pages = (
        f"{owner.lower()}.github.io/{name}"
        for owner, name in (address.split("/") for address in (present, wanted))
    )
    return re.sub(rf"{re.escape(pages)}(?![\w-])", wanted_pages, text)


def write(path: Path, text: str) -> None:
    handle, partial = tempfile.mkstemp(dir=path.parent)
    with open(handle, "w", encoding="utf-8", newline="") as file:
        file.write(text)
    os.chmod(partial, path.stat().st_mode)
    os.replace(partial, path)


def disagreements(address: str) -> list[str]:
    """What a reader would stumble over, a line each."""
    found = []
    for path in places():
        text, name = read(path), path.relative_to(ROOT).as_posix()
        if readdress(text, address, address) != text:
            found.append(f"{name} holds another address than {address}")
        for link in re.findall(rf"{re.escape(COLAB)}([^\s)\"\\]+)", text):
            notebook = link.removeprefix(f"{address}/blob/main/")
            if notebook == link or not (ROOT / notebook).is_file():
                found.append(f"{name} has a badge that opens no notebook: {COLAB}{link}")
    for script in sorted(ROOT.glob("notebooks/*.py")):
        own = badge(address, script.stem)
        for path in (script, script.with_suffix(".ipynb"), ROOT / "README.md"):
            if path.exists() and own not in read(path):
                found.append(f"{path.relative_to(ROOT).as_posix()} lacks the badge {own}")
    return found


def badge(address: str, notebook: str) -> str:
    return f"({BADGE_IMAGE})]({COLAB}{address}/blob/main/notebooks/{notebook}.ipynb)"


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the repository's address everywhere.")
    parser.add_argument("address", nargs="?", default="", metavar="owner/name")
    parser.add_argument("--check", action="store_true", help="only say where places disagree")
    parser.add_argument(
        "--published", action="store_true", help="as --check, and refuse an address of nobody's"
    )
    options = parser.parse_args()
    present = present_address()
    if options.published and present == PLACEHOLDER:
        print(
            f"Badges, set-up cells and CITATION.cff point at {PLACEHOLDER}, which is no "
            "repository, so that nobody could open a notebook. Nothing is published. Run the "
            "workflow `address`, or: make badges REPO=owner/name, and commit what it changes."
        )
        return 1
    if options.check or options.published:
        found = disagreements(present)
        print("\n".join(found) or f"All places agree on {present}.")
        return 1 if found else 0
    if not re.fullmatch(SLUG, options.address):
        parser.error(
            f"{options.address!r} is no repository. Expected owner/name, without https:// or "
            "github.com: make badges REPO=owner/name"
        )
    for path in places():
        text = read(path)
        readdressed = readdress(text, present, options.address)
        if readdressed != text:
            write(path, readdressed)
            print(f"{path.relative_to(ROOT)}: {options.address}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
