"""What numbers of a configuration may be, so that a wrong one is named before anything starts."""

import os
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf


class NumberRange(NamedTuple):
    """A finite number within bounds; `below` is one that it does not reach."""

    low: float
    high: float = float("inf")
    is_integer: bool = True
    exclusive_high: float = float("inf")

    def __str__(self) -> str:
        kind = "a whole number" if self.is_integer else "a finite number"
        if self.high < float("inf"):
            return f"{kind} from {self.low} to {self.high}"
        less = f" and less than {self.exclusive_high}" if self.exclusive_high < float("inf") else ""
        return f"{kind} of at least {self.low}{less}"

    def contains(self, value: Any) -> bool:
        """Tell whether a value is such a number."""
        fits = isinstance(value, int if self.is_integer else int | float)
        fits = fits and not isinstance(value, bool)
        return fits and self.low <= value <= self.high and value < self.exclusive_high


SEED_RANGE = NumberRange(0, 2**32 - 1)
NUMBER_RANGES = {
    "seed": SEED_RANGE,
    "num_points": NumberRange(1),
    "data.batch_size": NumberRange(1),
    "data.num_workers": NumberRange(0),
    "mask.ratio": NumberRange(0, is_integer=False, exclusive_high=1),
    "model.drop_path": NumberRange(0, 1, is_integer=False),
    **{
        f"model.{name}": NumberRange(1)
        for name in ("dim", "depth", "heads", "decoder_depth", "groups", "group_size")
    },
    "optimizer.lr": NumberRange(0, is_integer=False),
    "optimizer.weight_decay": NumberRange(0, is_integer=False),
    "trainer.max_epochs": NumberRange(-1),
    "trainer.max_steps": NumberRange(-1),
    "task.scheduler.t_initial": NumberRange(1),
    "trainer.accumulate_grad_batches": NumberRange(1),
    "trainer.log_every_n_steps": NumberRange(0),
    "trainer.num_nodes": NumberRange(1),
    "callbacks.guard.max_consecutive": NumberRange(0),
    "callbacks.within.every_n_train_steps": NumberRange(0),
}
"""By the option; what a configuration does not have, or leaves open, is not looked at."""


def check_numbers(cfg: DictConfig) -> None:
    """Raise ValueError that names the first option which is no number as `NUMBERS` has it."""
    for name, number in NUMBER_RANGES.items():
        value = OmegaConf.select(cfg, name)
        if value is not None and not number.contains(value):
            raise ValueError(f"{name}={value}: must be {number}")


def check_seeds(seeds: Any) -> list[int]:
    """Return several seeds; raise ValueError where they are no list of different ones."""
    told = list(seeds) if OmegaConf.is_list(seeds) or isinstance(seeds, list | tuple) else []
    if not told or len(set(told)) < len(told) or not all(map(SEED_RANGE.contains, told)):
        raise ValueError(
            f"seeds={seeds}: must be a list of different whole numbers, as seeds=[0,1,2]"
        )
    return told


def check_compile_strategy(cfg: DictConfig) -> None:
    """Raise ValueError where compiled parts would not reach the processes that train."""
    strategy = str(cfg.trainer.get("strategy"))
    if cfg.compile and "spawn" in strategy:
        raise ValueError(
            f"compile=true: what is compiled does not reach processes that {strategy} starts: "
            "compile=false, or trainer=ddp"
        )


def check_devices(trainer: DictConfig) -> None:
    """Raise ValueError for an accelerator that is not there, or more processes than CPU cores."""
    import torch  # takes seconds, which a misspelt option need not wait for

    there_are = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    kinds = {kind for kind, there in there_are.items() if there}
    asked = trainer.get("accelerator", "auto")
    if "fsdp" in str(trainer.get("strategy")).lower() and asked == "auto":
        asked = "cuda"
    there = {"gpu": {"cuda", "mps"}, "cuda": {"cuda"}, "mps": {"mps"}}.get(asked)
    if there is not None and not there & kinds:
        raise ValueError(
            f"trainer.accelerator={asked}: this machine has none that torch can use; "
            "trainer=cpu runs on the CPU, trainer=ddp_spawn_debug as two processes on it"
        )
    devices, cores = trainer.get("devices", 1), os.cpu_count() or 1
    on_cpu = asked == "cpu" or (asked == "auto" and not kinds)
    if on_cpu and isinstance(devices, int) and devices > max(2, cores):
        raise ValueError(
            f"trainer.devices={devices}: as many processes on the CPU, which has {cores} cores: "
            f"set trainer.devices to {max(2, cores)} or less"
        )
