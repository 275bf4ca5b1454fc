"""Build parameter groups, optimizers and learning rate schedules."""

from collections.abc import Callable
from typing import Any

import torch
from timm.scheduler.scheduler import Scheduler
from torch import nn
from torch.optim import Optimizer

from recon.tasks.training_mode import TrainingTask

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
    """Return the value for `configure_optimizers`: an optimizer and its schedule, if any.

    On resuming, the optimizer gets its moments from the checkpoint, and keeps its own learning
    rates, weight decay and other options.
    """
    optimizer.register_load_state_dict_pre_hook(_keep_optimizer_options)
    if scheduler is None:
        return optimizer
    return [optimizer], [{"scheduler": scheduler(optimizer), "interval": "epoch"}]


def _keep_optimizer_options(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """Replace the options in a stored state of an optimizer by those of the optimizer.

    Raises ValueError if the stored parameter groups have other sizes.
    """
    stored, asked = state["param_groups"], optimizer.param_groups
    sizes = [[len(group["params"]) for group in groups] for groups in (stored, asked)]
    if sizes[0] != sizes[1]:
        raise ValueError(
            f"the checkpoint trains groups of {sizes[0]} weights, this run of {sizes[1]}: resume "
            "with the same student, protocol and trained weights"
        )
    groups = [{**new, "params": old["params"]} for old, new in zip(stored, asked, strict=True)]
    return {**state, "param_groups": groups}


class ScheduledTask(TrainingTask):
    """Base class of tasks: one optimizer, a schedule by epoch, gradients of accumulated batches.

    The schedule depends on the options and the epoch alone, so that a resumed run with another
    `trainer.max_epochs` has the rates of the longer run. The gradient of a step is the mean over
    its batches, also if the last step of an epoch has fewer than `accumulate_grad_batches`.
    """

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["lr_schedulers"] = []  # they store the options of the earlier run

    def on_train_start(self) -> None:
        super().on_train_start()
        if self.current_epoch:
            for config in self.trainer.lr_scheduler_configs:
                scheduler: Any = config.scheduler
                scheduler.step(epoch=self.current_epoch - 1)

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Step a schedule at the end of an epoch with the number of that epoch, as released.

        Epoch e therefore runs at the rate scheduled for e - 1.
        """
        scheduler.step(epoch=self.current_epoch)

    def on_after_backward(self) -> None:
        loop, full = self.trainer.fit_loop.epoch_loop, self.trainer.accumulate_grad_batches
        if loop._should_accumulate():
            return
        # Lightning divides each loss by the full number of batches.
        count = (loop.batch_progress.current.ready - 1) % full + 1
        if count < full:
            gradients = [p.grad for p in self.parameters() if p.grad is not None]
            if gradients:
                torch._foreach_mul_(gradients, full / count)


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
