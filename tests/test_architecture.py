import ast
from collections import Counter
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src" / "recon"
FLOORS = (
    "utils ops", "layers", "losses teachers", "models data", "checkpoints", "tasks point_encoder",
    "callbacks", "reports", "cli",
    "train prepare evaluate segment convert embed search figures export info", "__main__",
)  # fmt: skip
FLOOR = {name: i for i, names in enumerate(FLOORS) for name in names.split()}
FILES = sorted(path for path in SRC.rglob("*.py") if path != SRC / "__init__.py")


def imported(path: Path) -> set[str]:
    """Every module of this library that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            pytest.fail(f"{path}: relative import")
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("recon"):
            found.add(node.module or "")
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("recon")}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SRC)))
def test_imports_go_down(path: Path) -> None:
    home = path.relative_to(SRC).parts[0].removesuffix(".py")
    for module in imported(path) - {"recon"}:
        target = module.split(".")[1]
        assert target == home or FLOOR[target] < FLOOR[home], f"{home} imports {target}"


def test_modules_of_a_floor_form_no_circle() -> None:
    graph = {
        ".".join(("recon", *path.relative_to(SRC).with_suffix("").parts)): imported(path)
        for path in FILES
    }

    def walk(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join((*trail, module))
        for target in graph.get(module, ()):
            walk(target, (*trail, module))

    for module in graph:
        walk(module, ())


def test_package_files_are_empty() -> None:
    packages = [path for path in SRC.rglob("__init__.py") if path.parent != SRC]
    assert len(packages) == 26
    assert not any(path.read_text() for path in packages)


@pytest.mark.parametrize("tree", [SRC, Path(__file__).parent], ids=["src", "tests"])
def test_no_folder_has_more_than_15_modules(tree: Path) -> None:
    counts = Counter(path.parent for path in tree.rglob("*.py") if path.name != "__init__.py")
    assert max(counts.values()) <= 15, counts.most_common(1)
