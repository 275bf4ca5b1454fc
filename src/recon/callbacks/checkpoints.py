"""Which checkpoints are kept where a measure selects one."""

from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint


class SelectedCheckpoint(ModelCheckpoint):
    """Keep the best by a measure, and know it again where a resumed run has another folder."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if Path(state_dict["best_model_path"]).is_file():
            super().load_state_dict({**state_dict, "dirpath": self.dirpath})


class LastCheckpoint(ModelCheckpoint):
    """Keep last.ckpt, the end of each epoch or where a run was stopped, whatever else is kept."""

    def __init__(self, dirpath: str | Path) -> None:
        super().__init__(
            dirpath,
            filename=self.CHECKPOINT_NAME_LAST,
            save_on_exception=True,
            enable_version_counter=False,
        )

    @property
    def state_key(self) -> str:
        return type(self).__name__
