"""Build parameter groups, optimizers and learning rate schedules."""

from collections.abc import Callable
from typing import Any

from lightning import LightningModule
from timm.scheduler.scheduler import Scheduler
from torch import nn
from torch.optim import Optimizer

HEAD_LR_FACTOR = 10.0
"""Factor on the learning rate of a new head, as released."""
OptimizerFactory = Callable[[list[dict[str, Any]]], Optimizer]
SchedulerFactory = Callable[[Optimizer], Scheduler]


def parameter_groups(module: nn.Module) -> list[dict[str, Any]]:
    """Split trainable parameters into a group without and a group with weight decay.

    Vectors, scalars, biases and names that contain `token` have no weight decay, as released.
    """
    not_decayed: list[nn.Parameter] = []
    decayed: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        exempt = parameter.ndim <= 1 or name.endswith(".bias") or "token" in name
        (not_decayed if exempt else decayed).append(parameter)
    return [{"params": not_decayed, "weight_decay": 0.0}, {"params": decayed}]


def build_optimizer_config(optimizer: Optimizer, scheduler: SchedulerFactory | None) -> Any:
    """Return the value for `configure_optimizers`: an optimizer and its schedule, if any."""
    if scheduler is None:
        return optimizer
    return [optimizer], [{"scheduler": scheduler(optimizer), "interval": "epoch"}]


def step_scheduler_by_epoch(module: LightningModule, scheduler: Scheduler, metric: Any) -> None:
    """Step a schedule at the end of an epoch with the number of that epoch, as released.

    Epoch e therefore runs at the rate scheduled for e - 1. Tasks use this as their
    `lr_scheduler_step`.
    """
    scheduler.step(epoch=module.current_epoch)


def build_finetune_optimizer(
    module: nn.Module, optimizer: OptimizerFactory, is_head: Callable[[str], bool]
) -> Optimizer:
    """Build an optimizer that trains the head at 10 times the learning rate.

    `is_head` takes the name of a parameter. All parameters of the head have weight decay. The
    other parameters are grouped by `parameter_groups`, as released.
    """
    named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    head = [p for name, p in named if is_head(name)]
    head_ids = set(map(id, head))
    other_groups = [
        {**group, "params": [p for p in group["params"] if id(p) not in head_ids]}
        for group in parameter_groups(module)
    ]
    groups = [{"params": head}, *(group for group in other_groups if group["params"])]
    result = optimizer([group for group in groups if group["params"]])
    if head:
        result.param_groups[0]["lr"] *= HEAD_LR_FACTOR
    return result
