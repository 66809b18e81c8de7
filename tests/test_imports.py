"""What import-linter can not say: contracts on parts of the namespace package `google`."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def test_the_trainer_knows_no_cloud():
    found = {name for path in (ROOT / "trainer").rglob("*.py") for name in imported(path)}
    assert not [name for name in found if name.startswith("google.cloud")]
    assert "google.protobuf.message" in found  # the search does find imports


def test_no_module_reads_the_environment_when_it_is_imported():
    for package in ("trainer", "components", "pipeline"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.parse(path.read_text()).body:
                if not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.If):
                    assert "os.environ" not in ast.unparse(node), path
