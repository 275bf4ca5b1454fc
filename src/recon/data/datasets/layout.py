"""How a data set is expected to lie on disk, and what to say where it does not."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class ExpectedLayout(NamedTuple):
    """The files of a data set, drawn for people, and where to get them."""

    name: str
    tree: str
    """Lines of a tree, `{root}` standing for its folder."""
    url: str

    def require(self, path: Path, root: Path) -> Path:
        """Return the path; raise FileNotFoundError that draws the tree where nothing is there."""
        if not path.exists():
            raise FileNotFoundError(
                f"{path}: not found. {self.name} is expected as\n"
                f"{self.tree.format(root=root)}\n"
                f"Get it as {self.url} says, then set data.root=<folder>"
            )
        return path

    def find_root(self, root: Path, mark: str, below: Sequence[str]) -> Path:
        """Return the folder that holds `mark`: `root` or one of the usual folders below it."""
        for folder in (root, *(root / name for name in below)):
            if (folder / mark).exists():
                return folder
        self.require(root / mark, root)
        raise AssertionError("unreachable")
