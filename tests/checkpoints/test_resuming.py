from pathlib import Path

import pytest
import torch

from recon.checkpoints.reader import METADATA_KEY
from recon.checkpoints.resuming import check_resumable
from recon.layers.grouping import PatchGrouper
from recon.models.decoder import Decoder
from recon.models.encoder import Encoder
from recon.models.recon import Projections, ReCon


@pytest.mark.parametrize("name", ["optimizer_states", "loops", "callbacks", "lr_schedulers"])
def test_checkpoints_with_incomplete_training_state_raise_value_error(
    name: str, tmp_path: Path
) -> None:
    model = ReCon(
        PatchGrouper(8, 6),
        Encoder(16, depth=2, heads=2, queries=(), patch_widths=(8, 16, 24)),
        Decoder(16, depth=1, heads=2, group_size=6),
        Projections(16, {}),
    )
    checkpoint = {
        METADATA_KEY: {},
        "state_dict": model.state_dict(),
        "loops": {},
        "callbacks": {},
        "optimizer_states": [],
        "lr_schedulers": [],
        "epoch": 1,
        "global_step": 2,
    }
    torch.save(checkpoint, tmp_path / "last.ckpt")
    check_resumable(tmp_path / "last.ckpt", model)
    torch.save(checkpoint | {name: 3}, tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match=rf"last\.ckpt: its `{name}` is not that of a training"):
        check_resumable(tmp_path / "last.ckpt", model)
