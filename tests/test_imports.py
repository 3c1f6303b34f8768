"""Imports run downwards only, and the public names are what __all__ says."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import goodnet

SOURCE = Path(goodnet.__file__).parent
FLOORS = (
    {"errors"},
    {"core"},
    {"data", "models", "triggers"},
    {"training"},
    {"attacks", "audit", "cleanse"},
    {"repair"},
    {"guard", "learn"},
    {"evaluation"},
    {"report"},
    {"bench", "serve"},
    {"cli"},
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
ANYWHERE = {"__init__", "testing"}  # the package itself (its version), and the public contract checks


def room_of(path: Path) -> str:
    """The room that a file below SOURCE lies in."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def rooms_imported(source: str, room: str) -> set[str]:
    """The rooms of goodnet that a file imports, anywhere in it: at the top, in functions, for types only."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where an arrow points"
            names |= (
                {f"{node.module}.{alias.name}" for alias in node.names} if node.module == "goodnet" else {node.module}
            )
    parts = [name.split(".") for name in names]
    return {part[1] for part in parts if part[0] == "goodnet" and len(part) > 1} - {room, "__version__"}


def upward_arrows(source: str, room: str) -> set[str]:
    """Rooms that a file in ``room`` imports and must not."""
    return {
        other for other in rooms_imported(source, room) if other not in FLOOR_OF or FLOOR_OF[other] >= FLOOR_OF[room]
    }


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_no_file_imports_from_a_room_above_or_beside_its_own(path: Path) -> None:
    room = room_of(path)
    if room in ANYWHERE:
        pytest.skip("may import from everywhere")
    assert room in FLOOR_OF, f"a new room {room!r}: say in FLOORS and docs/architecture.md where it stands"
    assert upward_arrows(path.read_text(), room) == set()


@pytest.mark.parametrize(
    "planted",
    [
        "from goodnet.report.html import write_report",
        "import goodnet.attacks.badnets",
        "from goodnet import cli",
        "def later():\n    from goodnet.evaluation import truth",
    ],
)
def test_the_checker_catches_a_planted_wrong_arrow(planted: str) -> None:
    assert upward_arrows(planted, "audit")
    assert not upward_arrows("import goodnet\nfrom goodnet.core.samples import Samples\nimport torch", "audit")


def test_all_lists_exactly_the_public_names() -> None:
    assert sorted(goodnet.__all__) == sorted({*goodnet._HOMES, "__version__"})
    for name in goodnet.__all__:
        assert getattr(goodnet, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = goodnet.nothing


def test_importing_goodnet_imports_no_torch() -> None:
    code = "import sys, goodnet; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
