"""The house keeps its own rules: arrows between rooms, sizes, docstrings, examples."""

import ast
import subprocess
import sys

import pytest

from rlplatform.experiments.config import load_config
from tests.conftest import REPOSITORY

SOURCES = sorted(path for room in ("envs", "rlplatform") for path in (REPOSITORY / room).rglob("*.py"))
LONGEST = 350


def name_of(path):
    return str(path.relative_to(REPOSITORY))


def test_imports_follow_the_arrows_of_design():
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as main; main()", "--no-cache"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 broken." in done.stdout


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_file_is_too_long(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_every_module_says_what_it_is(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree) or (path.name == "__init__.py" and not tree.body)


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_module_hides_what_went_wrong(path):
    """No bare `except`, and no `except Exception` that goes on."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ExceptHandler):
            caught = ast.unparse(node.type) if node.type else "everything"
            raises = any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
            assert raises or caught not in ("everything", "Exception", "BaseException"), f"line {node.lineno}"


def test_there_are_no_utils():
    assert [name_of(path) for path in SOURCES if path.stem in ("utils", "util", "helpers", "common")] == []


@pytest.mark.parametrize("path", sorted((REPOSITORY / "tune_configs").glob("*.yaml")), ids=lambda path: path.name)
def test_every_example_loads_strictly_and_says_its_name(path):
    assert load_config(path).name == path.stem
    assert path.read_text(encoding="utf-8").startswith("# ")
