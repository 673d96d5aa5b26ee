"""Who may import whom, for the three single modules that import-linter cannot look into (the rest is in `.importlinter`)."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EDGES = {"cli", "sandbox", "web"}
OURS = EDGES | {"activities", "adapters", "db", "domain", "engine", "settings", "starter", "worker", "workflows"}

MAY_IMPORT = {
    "settings": {"domain"},
    "starter": {"db", "domain", "engine", "settings", "workflows"},
    "worker": OURS - EDGES - {"starter", "worker"},
}


@pytest.mark.parametrize("module", MAY_IMPORT)
def test_the_single_modules_keep_to_the_layout_of_the_house(module: str) -> None:
    tree = ast.parse((ROOT / f"{module}.py").read_text(encoding="utf-8"))
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]

    imported = {name.partition(".")[0] for name in names}

    assert imported & OURS <= MAY_IMPORT[module]
    assert imported & OURS, "the check sees imports at all"
