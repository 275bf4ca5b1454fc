"""Synchronize BatchNorm statistics across processes, on GPUs and on CPUs."""

from lightning import LightningModule
from lightning.pytorch.plugins import TorchSyncBatchNorm
from torch import nn

from recon.layers.batch_norm import SyncBatchNorm1d


class SyncBatchNormPlugin(TorchSyncBatchNorm):
    """Use torch's synchronized BatchNorm on GPUs, and `SyncBatchNorm1d` on CPUs."""

    def apply(self, model: nn.Module) -> nn.Module:
        """Synchronize all BatchNorm layers of a model; on CPUs in place.

        Raises ValueError for compiled parts on CPUs: the collective breaks the compiled graph.
        """
        assert isinstance(model, LightningModule)
        if model.trainer.strategy.root_device.type != "cpu":
            return super().apply(model)
        is_compiled = any(module._compiled_call_impl is not None for module in model.modules())
        if is_compiled and model.trainer.world_size > 1:
            raise ValueError(
                "compile=true, trainer.sync_batchnorm=true: synchronized BatchNorm on CPUs cannot "
                "be compiled; set one of them to false"
            )
        _replace_class(model, nn.BatchNorm1d, SyncBatchNorm1d)
        return model

    def revert(self, model: nn.Module) -> nn.Module:
        """Undo `apply`."""
        _replace_class(model, SyncBatchNorm1d, nn.BatchNorm1d)
        return super().revert(model)


def _replace_class(model: nn.Module, old: type[nn.Module], new: type[nn.Module]) -> None:
    """Change the class of modules in place, keeping parameters, buffers and their names."""
    for module in model.modules():
        if type(module) is old:
            module.__class__ = new
