"""Find the directory of Hydra configurations."""

from pathlib import Path


def conf_dir() -> str:
    """Return the folder of configurations: inside the wheel, else at the root of the checkout."""
    package = Path(__file__).parents[1]
    shipped = package / "conf"
    return str(shipped if shipped.is_dir() else package.parents[1] / "conf")
