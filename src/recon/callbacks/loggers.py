"""Where metrics go beside the run's own folder."""

from typing import Any

import wandb
from lightning.pytorch.loggers import WandbLogger


def wandb_logger(*, offline: bool | None = None, **settings: Any) -> WandbLogger:
    """Log to W&B: online where a key is known, else offline, never asking."""
    if offline is None:
        offline = not wandb.api.api_key
    return WandbLogger(offline=offline, **settings)
