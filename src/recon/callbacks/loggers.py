"""Where metrics go beside the run's own folder."""

import os
from netrc import NetrcParseError, netrc
from typing import Any
from urllib.parse import urlsplit

from lightning.pytorch.loggers import WandbLogger


def wandb_logger(*, offline: bool | None = None, **settings: Any) -> WandbLogger:
    """Log to W&B: online where a key is known, else offline; it never asks for one."""
    if offline is None:
        offline = os.environ.get("WANDB_MODE") == "offline" or not _knows_key()
    return WandbLogger(offline=offline, **settings)


def _knows_key() -> bool:
    """Tell whether `wandb login` or the environment left a key."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (FileNotFoundError, NetrcParseError):
        return False
