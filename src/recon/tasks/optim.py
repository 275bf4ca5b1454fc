"""Parameter groups and schedules."""

from collections.abc import Callable
from typing import Any

from lightning import LightningModule
from timm.scheduler.scheduler import Scheduler
from torch import nn
from torch.optim import Optimizer

HEAD_LR_FACTOR = 10.0
"""How many times the learning rate a new head has, as released."""
OptimizerFactory = Callable[[list[dict[str, Any]]], Optimizer]
SchedulerFactory = Callable[[Optimizer], Scheduler]


def parameter_groups(module: nn.Module) -> list[dict[str, Any]]:
    """Part trainable parameters into those without weight decay and those with the optimizer's.

    No decay for vectors and scalars, biases, and names with `token`, as released.
    """
    plain: list[nn.Parameter] = []
    decayed: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        exempt = parameter.ndim <= 1 or name.endswith(".bias") or "token" in name
        (plain if exempt else decayed).append(parameter)
    return [{"params": plain, "weight_decay": 0.0}, {"params": decayed}]


def build_optimizer_config(optimizer: Optimizer, scheduler: SchedulerFactory | None) -> Any:
    """Return what a task's `configure_optimizers` does: an optimizer, and its schedule if any."""
    if scheduler is None:
        return optimizer
    return [optimizer], [{"scheduler": scheduler(optimizer), "interval": "epoch"}]


def step_scheduler_by_epoch(module: LightningModule, scheduler: Scheduler, metric: Any) -> None:
    """Step a schedule at the end of an epoch with its own number, as released.

    Epoch e runs at the rate of e - 1. This is what a task has for `lr_scheduler_step`.
    """
    scheduler.step(epoch=module.current_epoch)


def build_finetune_optimizer(
    module: nn.Module, optimizer: OptimizerFactory, is_head: Callable[[str], bool]
) -> Optimizer:
    """Build an optimizer that trains what `head` names at 10 times the rate, all of it decayed.

    The rest is grouped by `parameter_groups`, as released.
    """
    named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    new = [p for name, p in named if is_head(name)]
    chosen = set(map(id, new))
    rest = [
        {**group, "params": [p for p in group["params"] if id(p) not in chosen]}
        for group in parameter_groups(module)
    ]
    groups = [{"params": new}, *(group for group in rest if group["params"])]
    built = optimizer([group for group in groups if group["params"]])
    if new:
        built.param_groups[0]["lr"] *= HEAD_LR_FACTOR
    return built
