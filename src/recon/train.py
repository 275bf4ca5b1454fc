"""Pretrain: python -m recon.train experiment=pretrain_shapenet data.root=<ShapeNet55-34>."""

import ctypes
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from omegaconf import DictConfig, OmegaConf

if TYPE_CHECKING:
    from lightning import Trainer


def conf_dir() -> str:
    """Return the folder of configurations: inside the wheel, else at the root of the checkout."""
    package = Path(__file__).parent
    shipped = package / "conf"
    return str(shipped if shipped.is_dir() else package.parents[1] / "conf")


def train(cfg: DictConfig) -> "Trainer":
    """Build task, data and trainer from a composed configuration, and train."""
    if cfg.ckpt_path and not Path(cfg.ckpt_path).is_file():
        raise FileNotFoundError(f"{cfg.ckpt_path}: no such checkpoint to resume from")
    OmegaConf.resolve(cfg)  # the clock of `started` runs from here
    # Imported here: they take seconds, which --help and a misspelt option need not wait for.
    from hydra.utils import instantiate
    from lightning import seed_everything

    from recon.models.checkpoint import check_resumable

    _quiet()
    keep_large_blocks()
    seed_everything(cfg.seed, verbose=False)
    data = instantiate(cfg.data, _convert_="all")
    data.setup("fit")  # what is missing is said before teachers are fetched
    task = instantiate(cfg.task, _convert_="all")
    data.keys = task.keys
    if cfg.ckpt_path:
        check_resumable(Path(cfg.ckpt_path), task)
    callbacks = [instantiate(callback, _convert_="all") for callback in cfg.callbacks.values()]
    trainer = instantiate(
        cfg.trainer, callbacks=callbacks, logger=instantiate(cfg.logger), _convert_="all"
    )
    _save(cfg)
    trainer.fit(task, data, ckpt_path=cfg.ckpt_path)
    return trainer


def _save(cfg: DictConfig) -> None:
    """Print the resolved configuration and keep it in the run's folder."""
    from rich import print as show
    from rich.syntax import Syntax

    text = OmegaConf.to_yaml(cfg)
    folder = Path(cfg.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(text)
    show(Syntax(text, "yaml", background_color="default"))


def _quiet() -> None:
    """Hide what is no news: hardware found, and advice that does not fit."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("timm.scheduler").setLevel(logging.ERROR)  # of schedules of one epoch
    for message in (
        ".*does not have many workers.*",
        ".*module.*in eval mode.*",
        ".*logs directory.*exists and is not empty.*",
        ".*LeafSpec.*",
        ".*dataloader is not resumable.*",  # it is: see PointCloudDataModule
        ".*The dirpath has changed from.*",
        ".*when using `ckpt_path`.*callbacks.*",
    ):
        warnings.filterwarnings("ignore", message)


def keep_large_blocks() -> None:
    """Let glibc reuse large freed blocks: each step allocates the same ones.

    Returning them to the system and faulting them in again costs 5-20 % of a step on a CPU.
    """
    trim_threshold, mmap_max = -1, -4
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            libc.mallopt(mmap_max, 0)
            libc.mallopt(trim_threshold, 2**31 - 1)


def _one_line(error: BaseException) -> str:
    """Return the message of the error that started it all, without its traceback."""
    from hydra.errors import InstantiationException

    if isinstance(error, InstantiationException) and error.__cause__ is not None:
        error = error.__cause__
    # A data-loading worker sends its error as text, after the traceback.
    found = re.search(r"Original Traceback.*\n\w+: (.*)\Z", str(error), re.DOTALL)
    return found[1].strip() if found else str(error)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """End the program with one line where its input was wrong."""
    from hydra.errors import InstantiationException

    try:
        yield
    except (ValueError, OSError, InstantiationException) as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        sys.exit(f"error: {_one_line(error)}\n(HYDRA_FULL_ERROR=1 shows where it was raised)")


@hydra.main(version_base="1.3", config_path=conf_dir(), config_name="train")
def main(cfg: DictConfig) -> None:
    """Train as the command line says; wrong input ends in one line."""
    from hydra.core.hydra_config import HydraConfig

    cfg.output_dir = HydraConfig.get().runtime.output_dir  # each job of a sweep has its own
    with one_line_errors():
        train(cfg)


if __name__ == "__main__":
    main()
