"""Pretrain a generative student, a contrastive student, or ReCon, which combines both."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from recon.checkpoints.loading import build_metadata
from recon.checkpoints.reader import METADATA_KEY
from recon.data.batch import Batch, global_batch_size
from recon.data.datamodule import PointCloudDataModule
from recon.models.recon import PretrainingNetwork, PretrainingOutput
from recon.ops.distributed import all_gather_with_grad, rescale_local_mean, synced_rng
from recon.tasks.optim import (
    OptimizerFactory,
    ScheduledTask,
    SchedulerFactory,
    build_optimizer_config,
    parameter_groups,
)
from recon.tasks.self_contrast import SelfContrast
from recon.teachers.base import Teacher

MaskSampler = Callable[[Float[Tensor, "b g 3"]], Bool[Tensor, "b g"]]


class EnsembleDistillation(nn.Module):
    """Distill the teacher of each modality into the projected query of the same name.

    Takes projected queries by modality, each (B, D), and a batch. Returns one loss per modality by
    name, and `self` for the self-contrast loss. Losses are computed over the clouds of all
    processes. A teacher that is None is left out.
    """

    def __init__(
        self,
        teachers: Mapping[str, Teacher | None],
        distillation: nn.Module,
        self_contrast: SelfContrast | None = None,
    ) -> None:
        super().__init__()
        chosen = {name: teacher for name, teacher in teachers.items() if teacher is not None}
        self.teachers: Any = nn.ModuleDict(chosen).eval().requires_grad_(requires_grad=False)
        # A loss may have parameters (the scale of SigLIP), so each modality has its own copy.
        self.losses = nn.ModuleDict({name: deepcopy(distillation) for name in chosen})
        self.self_contrast = self_contrast

    @property
    def keys(self) -> set[str]:
        """Batch entries that the teachers and the self-contrast read."""
        keys = {key for teacher in self.teachers.values() for key in teacher.keys}
        return keys | set(self.self_contrast.keys if self.self_contrast else ())

    def forward(
        self,
        queries: Mapping[str, Float[Tensor, "b _"]],
        batch: Batch,
        project: Callable[[Tensor], Tensor],
    ) -> dict[str, Float[Tensor, ""]]:
        losses = {
            name: self.losses[name](
                all_gather_with_grad(queries[name]), all_gather_with_grad(teacher(batch))
            )
            for name, teacher in self.teachers.items()
        }
        if self.self_contrast is not None:
            losses["self"] = self.self_contrast(queries["cls"], batch, project)
        return losses


class Pretraining(ScheduledTask, ABC):
    """Base class of pretraining: mask patches, run the network and sum the weighted losses.

    `mask` maps patch centers (B, G, 3) to a mask (B, G), True for masked patches; None masks
    nothing. `loss_weights` scales losses by name; the paper's total is the plain sum. Logs
    `train/<loss>` and `train/total` each step.
    """

    keys: frozenset[str] = frozenset()
    """Batch entries that the task reads besides points, ids and seeds."""

    def __init__(
        self,
        model: PretrainingNetwork,
        *,
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory | None = None,
        mask: MaskSampler | None = None,
        loss_weights: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        self.model, self.mask = model, mask
        self.optimizer, self.scheduler = optimizer, scheduler
        self.loss_weights = dict(loss_weights or {})

    @abstractmethod
    def compute_losses(self, out: PretrainingOutput, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """Return the losses of a step by name."""

    def forward(self, points: Float[Tensor, "b n 3"]) -> PretrainingOutput:
        patches = self.model.grouper(points)
        return self.model.forward_patches(
            patches, self.mask(patches.centers) if self.mask else None
        )

    def total_loss(self, losses: Mapping[str, Float[Tensor, ""]]) -> Float[Tensor, ""]:
        """Add the weighted losses; raise ValueError for a weight whose loss does not exist."""
        if unknown := self.loss_weights.keys() - losses.keys():
            raise ValueError(
                f"loss_weights has {sorted(unknown)}, but the losses are {sorted(losses)}"
            )
        return torch.stack(
            [self.loss_weights.get(name, 1.0) * x for name, x in losses.items()]
        ).sum()

    def training_step(self, batch: Batch, _: int) -> Float[Tensor, ""]:
        with synced_rng(global_batch_size(batch)):
            losses = self.compute_losses(self(batch["points"]), batch)
        total = self.total_loss(losses)
        options: Any = {"batch_size": len(batch["points"]), "sync_dist": True}
        self.log("train/total", total, prog_bar=True, **options)
        self.log_dict({f"train/{name}": loss for name, loss in losses.items()}, **options)
        return total

    def configure_optimizers(self) -> Any:
        return build_optimizer_config(self.optimizer(parameter_groups(self)), self.scheduler)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[METADATA_KEY] = build_metadata(self.model)


class GenerativeStudent(Pretraining):
    """Learn to reconstruct masked patches."""

    def __init__(
        self, model: PretrainingNetwork, *, reconstruction: nn.Module, **recipe: Any
    ) -> None:
        super().__init__(model, **recipe)
        self.reconstruction = reconstruction

    def compute_losses(self, out: PretrainingOutput, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        loss = self.reconstruction(out.predicted, out.target)
        return {"reconstruction": rescale_local_mean(loss, len(out.predicted))}


class ContrastiveStudent(Pretraining):
    """Learn to predict the features of teachers of other modalities.

    Raises ValueError if the width of a projected query differs from that of its teacher.
    """

    def __init__(
        self, model: PretrainingNetwork, *, ensemble: EnsembleDistillation, **recipe: Any
    ) -> None:
        super().__init__(model, **recipe)
        self.ensemble, self.keys = ensemble, frozenset(ensemble.keys)
        for name, teacher in ensemble.teachers.items():
            width = model.projections.dims.get(name)
            if width != teacher.dim:
                raise ValueError(
                    f"the {name} teacher has features of width {teacher.dim}, but the network "
                    f"projects its {name} query to width {width}: "
                    f"set projection_dims.{name}={teacher.dim}"
                )

    def on_fit_start(self) -> None:
        data = getattr(self.trainer, "datamodule", None)
        if isinstance(data, PointCloudDataModule):
            for teacher in self.ensemble.teachers.values():
                teacher.check_coverage(data.teacher_keys())

    def compute_losses(self, out: PretrainingOutput, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        return self.ensemble(
            out.projected_queries, batch, lambda points: self(points).projected_queries["cls"]
        )


class ReConStudent(ContrastiveStudent, GenerativeStudent):
    """Ensemble distillation: the generative student guides the contrastive one [1].

    Takes the arguments of both students.

    [1] Qi et al., arXiv:2302.02318, equation 6.
    """

    def compute_losses(self, out: PretrainingOutput, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        losses = GenerativeStudent.compute_losses(self, out, batch)
        return losses | ContrastiveStudent.compute_losses(self, out, batch)
