"""Log metrics to metrics.csv and to Weights & Biases."""

import logging
import multiprocessing
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from netrc import NetrcParseError, netrc
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from recon.utils.network import explain_unreachable
from recon.utils.run_log import run_log

WANDB_TIMEOUTS = {"init_timeout": 20.0, "login_timeout": 20.0, "finish_timeout": 60.0}
"""Maximum seconds to wait for W&B; data that were not uploaded stay in the run's folder."""


def build_csv_logger(save_dir: str | Path) -> CSVLogger:
    """Log to metrics.csv; rename the file of an earlier run to metrics_<number>.csv.

    The numbers count the runs in the order of time; no earlier file is overwritten.
    """
    path = Path(save_dir) / "metrics.csv"
    if path.is_file() and getattr(rank_zero_only, "rank", 0) == 0:
        names = (other.stem.removeprefix("metrics_") for other in path.parent.glob("metrics_*.csv"))
        number = 1 + max((int(name) for name in names if name.isdecimal()), default=0)
        path.rename(path.with_name(f"metrics_{number}.csv"))
    return CSVLogger(save_dir, name="", version="")


def add_csv_logger(loggers: Any, save_dir: str | Path) -> list[Logger]:
    """Return loggers with one that writes metrics.csv, unless they contain one.

    `loggers` is what a configuration gives: one logger, several (a list, or a dictionary by name),
    or None.
    """
    if isinstance(loggers, Mapping):
        loggers = list(loggers.values())
    chosen = [*loggers] if isinstance(loggers, Iterable) else [loggers] if loggers else []
    if any(isinstance(logger, CSVLogger) for logger in chosen):
        return chosen
    return [*chosen, build_csv_logger(save_dir)]


class SpawnedProcessLog(Callback):
    """Continue the log file of a run in the first of the processes that training spawns.

    They print for themselves: what they print does not pass through the process that spawned them.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if multiprocessing.parent_process() is None:
            return
        logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # as in the parent
        if trainer.is_global_zero:
            self._stack = ExitStack()
            self._stack.enter_context(run_log(self.folder, header=False))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if hasattr(self, "_stack"):
            self._stack.close()


class Wandb(WandbLogger):
    """Log to W&B, online or offline, with artifacts in both modes.

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
        if isinstance(tags := settings.get("tags"), str):  # W&B would split it into letters
            settings["tags"] = [tags]
        # Lightning's `offline` refuses artifacts, and makes later runs of the process offline too.
        mode: dict[str, Any] = {"mode": "offline"} if offline else {}
        super().__init__(**settings, **mode)
        self._wandb_init.pop("anonymous", None)  # W&B warns about it, set or not
        self.watched, self.watch_every = watch, watch_every

    def watch_model(self, model: Any) -> None:
        """Start to log the histograms that `watch` selects."""
        if self.watched is not None:
            self.watch(model, log=self.watched, log_freq=self.watch_every, log_graph=False)

    @rank_zero_only
    def close(self, *, failed: bool) -> None:
        """End the W&B run, so that the next job of a multirun starts a new one."""
        self.experiment.finish(exit_code=int(failed))


def build_wandb_logger(
    *, offline: bool | None = None, settings: Mapping[str, Any] | None = None, **logger: Any
) -> Wandb:
    """Log to W&B: online if an API key is available, else offline; never prompt for a key.

    If the server does not answer in time or rejects the key, a message is printed and the run is
    logged offline. `settings` are further fields of wandb.Settings. Raises ValueError for
    `offline=False` without a key.
    """
    import wandb

    wandb_settings = _build_wandb_settings({**WANDB_TIMEOUTS, **(settings or {})})
    has_key = _has_wandb_key()
    if offline is False and not has_key:
        raise ValueError(
            "logger.offline=false: no W&B API key found: run `wandb login`, or unset logger.offline"
        )
    mode = os.environ.get("WANDB_MODE")
    if offline is None:
        offline = mode == "offline" or (mode != "disabled" and not has_key)
    is_writer = getattr(rank_zero_only, "rank", 0) == 0
    if not offline and mode != "disabled" and is_writer:
        # W&B itself waits for `init_timeout`, which is for slow servers.
        server = (settings or {}).get("base_url") or os.environ.get("WANDB_BASE_URL")
        if reason := explain_unreachable(server or wandb_settings.base_url):
            _print_offline(reason)
            offline = True
    wandb_logger = Wandb(offline=offline, settings=wandb_settings, **logger)
    if not offline and is_writer:
        try:
            _ = wandb_logger.experiment
        except (wandb.Error, TimeoutError) as error:
            reason = str(error).strip().split("\n")[0]
            _print_offline(reason)
            wandb.teardown()
            wandb_logger = Wandb(offline=True, settings=wandb_settings, **logger)
    return wandb_logger


def _print_offline(reason: str) -> None:
    print(f"W&B cannot be reached ({reason}): logging offline; run `wandb sync` later")


def _build_wandb_settings(fields: Mapping[str, Any]) -> Any:
    """Return wandb.Settings; raise ValueError that names an unknown field or a wrong value."""
    import wandb
    from pydantic import ValidationError

    try:
        return wandb.Settings(**fields)
    except ValidationError as error:
        details = error.errors()[0]
        name = ".".join(map(str, details["loc"]))
        raise ValueError(
            f"logger.settings.{name}={details['input']}: not accepted by wandb.Settings: "
            f"{details['msg']}"
        ) from error


@contextmanager
def logger_session(trainer: Trainer, task: LightningModule, config: Any) -> Iterator[None]:
    """Log the configuration to dashboards, and close them at the end.

    metrics.csv needs no configuration: config.yaml is in the same folder.
    """
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


def _has_wandb_key() -> bool:
    """Tell whether `wandb login` or the environment provides an API key."""
    import wandb

    if os.environ.get("WANDB_API_KEY"):
        return True
    default_urls = ("https://api.wandb.ai", wandb.Settings().base_url)
    servers = [os.environ["WANDB_BASE_URL"]] if "WANDB_BASE_URL" in os.environ else default_urls
    hosts = [urlsplit(server).hostname or "" for server in servers]
    try:
        keys = netrc(os.environ.get("NETRC"))
        return any(keys.authenticators(host) is not None for host in hosts)
    except (FileNotFoundError, NetrcParseError):
        return False
