"""The table in docs/security.md has one row per hostile file that is tested, and says what the tests check."""

from pathlib import Path

import test_file_safety_absurd
import test_file_safety_archives
import test_file_safety_files
import test_file_safety_keras
import test_file_safety_pickles

PAGE = Path(__file__).parents[1] / "docs" / "security.md"
TABLES = (
    test_file_safety_pickles.CASES,
    test_file_safety_absurd.CASES,
    test_file_safety_archives.CASES,
    test_file_safety_keras.CASES,
    test_file_safety_files.CASES,
)


def test_the_page_has_a_row_for_each_hostile_file_that_is_tested() -> None:
    expected = [
        f"| `{name}` | {hostile.what} | {hostile.says} | {hostile.exit_code} |"
        for cases in TABLES
        for name, hostile in cases.items()
    ]
    lines = PAGE.read_text().splitlines()
    rows = [line for line in lines if line.startswith("| `") and line.endswith(("| 1 |", "| 2 |"))]
    assert rows == expected
