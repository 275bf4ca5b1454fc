"""Find the directory of Hydra configurations."""

from pathlib import Path


def conf_dir() -> str:
    """Return the configuration folder: in an installed package, else at the checkout's root."""
    package = Path(__file__).parents[1]
    packaged = package / "conf"
    return str(packaged if packaged.is_dir() else package.parents[1] / "conf")
