"""The order of the rooms, read from the imports: those inside functions, too."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "wbc_helpers"
BELOW_ALL = ("errors", "cells", "storage", "colab")
ALIKE = ("data", "pixels", "evaluate")  # they do not know one another
ABOVE = ("runs", "audit", "report", "classify", "count", "figures", "pipeline", "__main__")
FLOOR = dict.fromkeys(BELOW_ALL, 0) | dict.fromkeys(ALIKE, 1)
FLOOR |= {room: floor for floor, room in enumerate(ABOVE, start=2)}
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def imports(module: str, at_top: bool = False) -> set[str]:
    """Modules of the package that a module imports; of its top level, or anywhere."""
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    named = set()
    for node in tree.body if at_top else ast.walk(tree):
        if isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} imports by dots"
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            named |= {name if name in MODULES else node.module for name in inside}
    return (named & MODULES.keys()) - {"wbc_helpers", module}


def room(module: str) -> str:
    return module.split(".")[1]


def test_a_room_imports_only_rooms_below_it():
    upward = [
        f"{module} imports {other}"
        for module in MODULES.keys() - {"wbc_helpers"}
        for other in imports(module)
        if room(module) != room(other)
        and room(other) not in BELOW_ALL
        and FLOOR[room(other)] >= FLOOR[room(module)]
    ]
    assert sorted(upward) == []


def test_imports_go_in_no_circle_and_are_at_most_eight_floors_high():
    """A module that imports none of ours is one floor high."""
    heights: dict[str, int] = {}

    def height(module: str, way: tuple[str, ...] = ()) -> int:
        assert module not in way, f"A circle: {' → '.join([*way, module])}"
        if module not in heights:
            below = (height(other, (*way, module)) for other in imports(module, at_top=True))
            heights[module] = 1 + max(below, default=0)
        return heights[module]

    floors = {module: height(module) for module in MODULES}
    highest = max(floors, key=floors.__getitem__)
    assert floors[highest] <= 8, f"{highest} stands on {floors[highest] - 1} floors"


def test_the_house_stays_small():
    assert len(MODULES) <= 60
