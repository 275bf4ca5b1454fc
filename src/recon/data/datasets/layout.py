"""Expected directory layout of a data set, shown in errors about missing files."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class ExpectedLayout(NamedTuple):
    """Directory tree of a data set and the page to get it from."""

    name: str
    tree: str
    """Lines of the directory tree; `{root}` stands for its folder."""
    url: str

    def require(self, path: Path, root: Path) -> Path:
        """Return an existing path; raise FileNotFoundError with the expected tree otherwise."""
        if not path.exists():
            raise FileNotFoundError(
                f"{path}: not found. {self.name} is expected as\n"
                f"{self.tree.format(root=root)}\n"
                f"Download it as described on {self.url}, then set data.root=<folder>"
            )
        return path

    def find_root(self, root: Path, marker: str, subfolders: Sequence[str]) -> Path:
        """Return the folder that contains `marker`: `root` or one of the common subfolders."""
        for folder in (root, *(root / name for name in subfolders)):
            if (folder / marker).exists():
                return folder
        self.require(root / marker, root)
        raise AssertionError("unreachable")
