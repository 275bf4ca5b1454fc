import pytest
from lightning import LightningModule, Trainer

from recon.callbacks.sync_batchnorm import SyncBatchNormPlugin
from recon.layers.batch_norm import SyncBatchNorm1d
from recon.layers.patch_embed import PatchEmbed
from recon.models.inference import compile_parts


class Task(LightningModule):
    def __init__(self, processes: int) -> None:
        super().__init__()
        self.encoder = PatchEmbed(8, widths=(4, 4, 4))
        self.trainer = Trainer(accelerator="cpu", devices=processes, strategy="ddp", logger=False)


def test_batch_norms_are_synchronized_and_reverted() -> None:
    task, sync = Task(2), SyncBatchNormPlugin()
    assert type(sync.apply(task).encoder.joint_norm) is SyncBatchNorm1d
    assert type(sync.revert(task).encoder.joint_norm) is not SyncBatchNorm1d


def test_compiled_parts_raise_value_error_for_several_processes() -> None:
    two_processes, one_process = Task(2), Task(1)
    for task in (two_processes, one_process):
        compile_parts(task, backend="eager")
    with pytest.raises(ValueError, match="compile=true, trainer.sync_batchnorm=true: "):
        SyncBatchNormPlugin().apply(two_processes)
    SyncBatchNormPlugin().apply(one_process)
