"""Validate the numbers, seeds, strategy and devices of a configuration before training starts."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf


class NumberRange(NamedTuple):
    """Range of a finite number: `low` to `high`, both included, and less than `exclusive_high`."""

    low: float
    high: float = float("inf")
    is_integer: bool = True
    exclusive_high: float = float("inf")

    def __str__(self) -> str:
        kind = "a whole number" if self.is_integer else "a finite number"
        if self.high < float("inf"):
            return f"{kind} from {self.low} to {self.high}"
        bound = f"{kind} of at least {self.low}"
        if self.exclusive_high < float("inf"):
            return f"{bound} and less than {self.exclusive_high}"
        return bound

    def contains(self, value: Any) -> bool:
        """Tell whether a value is a number of the right type within the range."""
        is_number = isinstance(value, int if self.is_integer else int | float)
        is_number = is_number and not isinstance(value, bool)
        return is_number and self.low <= value <= self.high and value < self.exclusive_high


SEED_RANGE = NumberRange(0, 2**32 - 1)
BOOLEAN_OPTIONS = (
    *("compile", "data.drop_last", "model.embed_visible_only", "model.checkpoint_activations"),
    *("model.skip_near_origin", "model.encoder.stop_gradient", "protocol.freeze_encoder"),
    *("optimizer.fused", "trainer.sync_batchnorm", "trainer.enable_model_summary"),
)
"""Options that are true or false; options that a configuration lacks are not checked."""
PRECISIONS = (
    *("32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true"),
    *("32", "16", "64", "bf16", "transformer-engine", "transformer-engine-float16"),
)
"""Precisions of Lightning, by name."""
PRECISION_NAMES = {
    **dict.fromkeys(("fp16", "float16", "half", "amp", "mixed", "f16"), "16-mixed"),
    **dict.fromkeys(("bfloat16", "bf16-amp"), "bf16-mixed"),
    **dict.fromkeys(("fp32", "float32", "float", "full", "f32", "tf32"), "32-true"),
    **dict.fromkeys(("fp64", "float64", "double", "f64"), "64-true"),
}
"""Other names of precisions."""
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
    "trainer.gradient_clip_val": NumberRange(0, is_integer=False),
    "trainer.num_sanity_val_steps": NumberRange(-1),
    "eval.votes": NumberRange(0),
    "scheduler.warmup_t": NumberRange(0),
    "callbacks.guard.max_consecutive": NumberRange(0),
    "callbacks.within.every_n_train_steps": NumberRange(0),
}
"""Ranges by option; options that a configuration lacks or sets to null are not checked."""


def check_training(cfg: DictConfig) -> None:
    """Raise ValueError that names the first invalid option of a training run."""
    check_numbers(cfg)
    check_compile_strategy(cfg)
    check_batch_size(cfg)
    check_tested_task(cfg)
    check_trainer_choices(cfg.trainer)


def check_numbers(cfg: DictConfig) -> None:
    """Raise ValueError that names the first option that is no boolean, or outside its range.

    The options are `BOOLEAN_OPTIONS` and `NUMBER_RANGES`.
    """
    if "seed" in cfg and cfg.seed is None:
        raise ValueError(f"seed={cfg.seed}: must be {SEED_RANGE}")
    for name in BOOLEAN_OPTIONS:
        value = OmegaConf.select(cfg, name)
        if value is not None and not isinstance(value, bool):
            raise ValueError(f"{name}={value}: must be true or false")
    for name, number_range in NUMBER_RANGES.items():
        value = OmegaConf.select(cfg, name)
        if value is not None and not number_range.contains(value):
            raise ValueError(f"{name}={value}: must be {number_range}")


def check_seeds(seeds: Any) -> list[int]:
    """Return the seeds as a list; raise ValueError if they are not a list of distinct seeds."""
    values = list(seeds) if OmegaConf.is_list(seeds) or isinstance(seeds, list | tuple) else []
    if not values or len(set(values)) < len(values) or not all(map(SEED_RANGE.contains, values)):
        raise ValueError(
            f"seeds={seeds}: must be a list of distinct whole numbers, such as seeds=[0,1,2]"
        )
    return values


def check_compile_strategy(cfg: DictConfig) -> None:
    """Raise ValueError if compiled modules would not reach the training processes."""
    strategy = str(cfg.trainer.get("strategy"))
    if cfg.compile and "spawn" in strategy:
        raise ValueError(
            f"compile=true: compiled modules do not reach the processes that {strategy} starts: "
            "set compile=false, or trainer=ddp"
        )


def check_trainer_choices(trainer: DictConfig) -> None:
    """Raise ValueError for a precision, accelerator, strategy or devices that Lightning lacks."""
    # Imported here, because it takes seconds that a misspelled option should not cost.
    from lightning.pytorch.accelerators import AcceleratorRegistry
    from lightning.pytorch.strategies import StrategyRegistry

    accelerators = ("auto", "gpu", *sorted(AcceleratorRegistry.available_accelerators()))
    strategies = ("auto", *StrategyRegistry.available_strategies())
    _check_choice(
        "precision", str(trainer.get("precision", "32-true")), PRECISIONS, PRECISION_NAMES
    )
    _check_choice("accelerator", trainer.get("accelerator"), accelerators, {"cpus": "cpu"})
    if not OmegaConf.is_dict(trainer.get("strategy")):
        _check_choice("strategy", trainer.get("strategy"), strategies, {"dp": "ddp"})
    devices = trainer.get("devices", 1)
    is_number = isinstance(devices, int) and not isinstance(devices, bool)
    if is_number and (devices > 0 or devices == -1) or devices in (None, "auto"):
        return
    indices = devices.split(",") if isinstance(devices, str) else devices
    is_list = OmegaConf.is_list(devices) or isinstance(devices, str)
    if not is_list or not indices or not all(str(index).strip().isdigit() for index in indices):
        raise ValueError(
            f"trainer.devices={devices}: must be a number of devices of at least 1, auto, or a "
            "list of their indices, such as [0,1]"
        )


def _check_choice(
    name: str, value: Any, choices: Sequence[str], other_names: Mapping[str, str]
) -> None:
    """Raise ValueError that lists the choices if the value of a Trainer option is none of them."""
    if value is None or value in choices:
        return
    meant = other_names.get(str(value).lower())
    hint = f"did you mean trainer.{name}={meant}? " if meant in choices else ""
    raise ValueError(f"trainer.{name}={value}: {hint}choose among {', '.join(choices)}")


def check_batch_size(cfg: DictConfig) -> None:
    """Raise ValueError for batches of one sample if the head of a classifier has BatchNorm."""
    head = str(OmegaConf.select(cfg, "task.model.head._target_"))
    if head.endswith("mlp_head") and OmegaConf.select(cfg, "data.batch_size") == 1:
        raise ValueError(
            "data.batch_size=1: must be at least 2, because the head of the classifier has "
            "BatchNorm; trainer.accumulate_grad_batches adds up small batches"
        )


def check_tested_task(cfg: DictConfig) -> None:
    """Raise ValueError if a configuration tests (`eval`) a student that is only pretrained."""
    target = str(OmegaConf.select(cfg, "task._target_"))
    if "eval" in cfg and target.startswith("recon.tasks.pretrain."):
        raise ValueError(
            f"{target.rpartition('.')[2]} is pretrained and not tested, but the experiment sets "
            "eval: choose student=classifier, or an experiment of pretraining"
        )


def check_devices(trainer: DictConfig) -> None:
    """Raise ValueError for an unavailable accelerator or more processes than CPU cores."""
    import torch  # here, because it takes seconds that a misspelled option should not cost

    backends = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    available = {backend for backend, is_available in backends.items() if is_available}
    accelerator = trainer.get("accelerator", "auto")
    if "fsdp" in str(trainer.get("strategy")).lower() and accelerator == "auto":
        accelerator = "cuda"
    accepted = {"gpu": {"cuda", "mps"}, "cuda": {"cuda"}, "mps": {"mps"}}.get(accelerator)
    if accepted is not None and not accepted & available:
        raise ValueError(
            f"trainer.accelerator={accelerator}: unavailable, torch can use none on this machine: "
            "set trainer=cpu to run on the CPU, or trainer=ddp_spawn_debug for two CPU processes"
        )
    devices, cores = trainer.get("devices", 1), os.cpu_count() or 1
    on_cpu = accelerator == "cpu" or (accelerator == "auto" and not available)
    if on_cpu and isinstance(devices, int) and devices > max(2, cores):
        raise ValueError(
            f"trainer.devices={devices}: too many processes for the CPU, which has {cores} cores: "
            f"set trainer.devices to {max(2, cores)} or less"
        )
