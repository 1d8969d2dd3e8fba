"""A file imports from its own folder and from lower floors only."""

import ast
from pathlib import Path

import pytest

FLOORS = {"testing": 0, "lazy_names": 0, "processors": 0, "whole_files": 0}
FLOORS |= {"ops": 1, "attention": 2, "model": 3, "data": 3, "command_line": 3}
FLOORS |= {"training": 4, "interop": 4, "model_reader": 4, "bench": 5}
FLOORS |= {"sweeps": 5, "completion": 5, "budget_table": 5, "conversion": 5, "process_end": 5}
FLOORS |= {"command_help": 4, "function_options": 5, "training_help": 5}
FLOORS |= {"sweep_commands": 6, "cli": 7, "__main__": 8}
FILES = sorted(Path("lit_t6").rglob("*.py"))


def imported(path):
    """Modules of ours that a file imports anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            if node.module == "lit_t6":
                yield from (f"lit_t6.{alias.name}" for alias in node.names)
            else:
                yield node.module


@pytest.mark.parametrize("path", [p for p in FILES if p != Path("lit_t6/__init__.py")], ids=str)
def test_imports_go_down(path):
    room = path.relative_to("lit_t6").parts[0].removesuffix(".py")
    for module in imported(path):
        if module.split(".")[0] == "lit_t6":
            other = module.split(".")[1]
            allowed = other == room or FLOORS[other] < FLOORS[room]
            assert allowed, f"{path} (floor {FLOORS[room]}) imports {module} (floor {FLOORS[other]})"


@pytest.mark.parametrize("path", [p for p in FILES if p.parts[1] == "sweeps"], ids=str)
def test_sweeps_know_no_model(path):
    """They ask with options, and are told in plain values, by `training.planning` and `model_reader`."""
    rooms = {module.split(".")[1] for module in imported(path) if module.startswith("lit_t6.")}
    assert not rooms & {"model", "attention", "ops"}


@pytest.mark.parametrize("path", [p for p in FILES if p.name == "__init__.py" and p.parent.name != "lit_t6"], ids=str)
def test_init_files_only_hand_names_on(path):
    """At once, or when they are first used, by a table that says what the imports for type checkers say."""
    homes, typed = {}, {}
    for node in ast.parse(path.read_text()).body[1:]:
        if isinstance(node, ast.If) and node.test.id == "TYPE_CHECKING":
            typed = {alias.name: line.module for line in node.body for alias in line.names}
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_HOMES":
            homes = ast.literal_eval(node.value)
        else:
            is_all = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
            is_lazy = ast.unparse(node) == "__getattr__, __dir__ = lazy_names(__name__, _HOMES)"
            assert is_all or is_lazy or isinstance(node, ast.ImportFrom), f"{path}, line {node.lineno}"
    assert homes == typed
