"""Batch statistics of all processes, on whatever device they run."""

from lightning import LightningModule
from lightning.pytorch.plugins import TorchSyncBatchNorm
from torch import nn

from recon.layers.batch_norm import SyncBatchNorm1d


class SyncBatchNormPlugin(TorchSyncBatchNorm):
    """What `sync_batchnorm` does on GPUs by torch, done on CPUs by `SharedBatchNorm`."""

    def apply(self, model: nn.Module) -> nn.Module:
        """Share the statistics of all batch norms of a model, in place on a CPU.

        Raises ValueError for parts compiled there: gathering does not compile without breaks.
        """
        assert isinstance(model, LightningModule)
        if model.trainer.strategy.root_device.type != "cpu":
            return super().apply(model)
        compiled = any(module._compiled_call_impl is not None for module in model.modules())
        if compiled and model.trainer.world_size > 1:
            raise ValueError(
                "compile=true, trainer.sync_batchnorm=true: batch statistics of several processes "
                "on CPUs cannot be compiled; set one of them to false"
            )
        _renamed(model, nn.BatchNorm1d, SyncBatchNorm1d)
        return model

    def revert(self, model: nn.Module) -> nn.Module:
        """Undo `apply`."""
        _renamed(model, SyncBatchNorm1d, nn.BatchNorm1d)
        return super().revert(model)


def _renamed(model: nn.Module, old: type[nn.Module], new: type[nn.Module]) -> None:
    """Change the class of modules: parameters, buffers and their names stay."""
    for module in model.modules():
        if type(module) is old:
            module.__class__ = new
