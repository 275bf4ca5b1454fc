"""Where metrics go beside the run's own folder."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from netrc import NetrcParseError, netrc
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lightning import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

WANDB_TIMEOUTS = {"init_timeout": 20.0, "login_timeout": 20.0, "finish_timeout": 60.0}
"""Seconds that W&B may take to answer; what it did not take by then stays in the run's folder."""


def build_csv_logger(save_dir: str | Path) -> CSVLogger:
    """Log to metrics.csv; that of an earlier run in this folder is kept as metrics_<number>.csv."""
    earlier = Path(save_dir) / "metrics.csv"
    if earlier.is_file() and getattr(rank_zero_only, "rank", 0) == 0:
        number = len([*earlier.parent.glob("metrics_*.csv")]) + 1
        earlier.rename(earlier.with_name(f"metrics_{number}.csv"))
    return CSVLogger(save_dir, name="", version="")


class Wandb(WandbLogger):
    """Log to W&B, online or offline; artifacts are kept by both.

    `watch` logs histograms of `gradients`, `parameters` or `all`, every `watch_every` steps.
    """

    def __init__(
        self,
        *,
        offline: bool = False,
        watch: str | None = None,
        watch_every: int = 100,
        **settings: Any,
    ) -> None:
        if watch not in (None, "gradients", "parameters", "all"):
            raise ValueError(f"watch must be gradients, parameters or all, got {watch!r}")
        if settings.get("log_model", False) not in (True, False, "all"):
            raise ValueError(f"log_model must be true, false or all, got {settings['log_model']!r}")
        if isinstance(tags := settings.get("tags"), str):  # W&B would take its letters
            settings["tags"] = [tags]
        # Its own `offline` refuses artifacts, and turns later runs of the process offline as well.
        mode: dict[str, Any] = {"mode": "offline"} if offline else {}
        super().__init__(**settings, **mode)
        self._wandb_init.pop("anonymous", None)  # W&B warns of it, set or not
        self.watched, self.watch_every = watch, watch_every

    def watch_model(self, model: Any) -> None:
        """Start to log what `watch` asks for."""
        if self.watched is not None:
            self.watch(model, log=self.watched, log_freq=self.watch_every, log_graph=False)

    @rank_zero_only
    def close(self, *, failed: bool) -> None:
        """End the run, so that the next one of a multirun has its own."""
        self.experiment.finish(exit_code=int(failed))


def build_wandb_logger(
    *, offline: bool | None = None, settings: Mapping[str, Any] | None = None, **logger: Any
) -> Wandb:
    """Log to W&B: online where a key is known, else offline; it never asks for one, nor waits long.

    Where the server does not answer or refuses the key, the run is logged offline, and this is
    said. `settings` are further ones of wandb.Settings. Raises ValueError for `offline=False`
    without a key.
    """
    import wandb

    chosen = _settings({**WANDB_TIMEOUTS, **(settings or {})})
    known = _knows_key()
    if offline is False and not known:
        raise ValueError("logger.offline=false: no W&B key is known: `wandb login`, or unset it")
    asked = os.environ.get("WANDB_MODE")
    if offline is None:
        offline = asked == "offline" or (asked != "disabled" and not known)
    found = Wandb(offline=offline, settings=chosen, **logger)
    if not offline and getattr(rank_zero_only, "rank", 0) == 0:
        try:
            _ = found.experiment
        except (wandb.Error, TimeoutError) as error:
            reason = str(error).strip().split("\n")[0]
            print(f"W&B cannot be reached ({reason}): logging offline, `wandb sync` later")
            wandb.teardown()
            found = Wandb(offline=True, settings=chosen, **logger)
    return found


def _settings(told: Mapping[str, Any]) -> Any:
    """Return W&B's settings; raise ValueError that names one that it does not have or take."""
    import wandb
    from pydantic import ValidationError

    try:
        return wandb.Settings(**told)
    except ValidationError as error:
        wrong = error.errors()[0]
        name = ".".join(map(str, wrong["loc"]))
        raise ValueError(
            f"logger.settings.{name}={wrong['input']}: not one of wandb.Settings: {wrong['msg']}"
        ) from error


@contextmanager
def logger_session(trainer: Trainer, task: LightningModule, config: Any) -> Iterator[None]:
    """Hand the configuration to dashboards (files have config.yaml), and end their runs with it."""
    for logger in trainer.loggers:
        if not isinstance(logger, CSVLogger):
            logger.log_hyperparams(config)
        if isinstance(logger, Wandb):
            logger.watch_model(task)
    failed = True
    try:
        yield
        failed = False
    finally:
        for logger in trainer.loggers:
            if isinstance(logger, Wandb):
                logger.close(failed=failed)


def _knows_key() -> bool:
    """Tell whether `wandb login` or the environment left a key."""
    import wandb

    if os.environ.get("WANDB_API_KEY"):
        return True
    default = ("https://api.wandb.ai", wandb.Settings().base_url)
    servers = [os.environ["WANDB_BASE_URL"]] if "WANDB_BASE_URL" in os.environ else default
    hosts = [urlsplit(server).hostname or "" for server in servers]
    try:
        keys = netrc(os.environ.get("NETRC"))
        return any(keys.authenticators(host) is not None for host in hosts)
    except (FileNotFoundError, NetrcParseError):
        return False
