"""ReCon: pretrained point-cloud encoders from contrastive learning and reconstruction."""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recon.checkpoints.hub import push_to_hub, save_pretrained
    from recon.checkpoints.loading import load
    from recon.point_encoder import PointEncoder

__version__ = version("recon-pointcloud")
__all__ = ["PointEncoder", "__version__", "load", "push_to_hub", "save_pretrained"]

_LAZY_IMPORTS = {
    "PointEncoder": "recon.point_encoder",
    "load": "recon.checkpoints.loading",
    "push_to_hub": "recon.checkpoints.hub",
    "save_pretrained": "recon.checkpoints.hub",
}


def __getattr__(name: str) -> Any:
    """Import on first use: importing torch takes seconds, which --help does not need."""
    if name not in _LAZY_IMPORTS:
        raise AttributeError(f"module 'recon' has no attribute {name!r}")
    return getattr(import_module(_LAZY_IMPORTS[name]), name)
