"""Parameter groups and schedules."""

from collections.abc import Callable
from typing import Any

from timm.scheduler.scheduler import Scheduler
from torch import nn
from torch.optim import Optimizer

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
