"""Names of torch-pointcloud's Point-MAE are those of the released networks, one to one."""

from pathlib import Path

import pytest
import torch

from recon.checkpoints.contents.torch_pointcloud import (
    from_torch_pointcloud_names,
    has_torch_pointcloud_names,
)

PAIRS = {
    "MAE_encoder.encoder.local_mlp.lins.0.weight": "MAE_encoder.encoder.first_conv.0.weight",
    "MAE_encoder.encoder.local_mlp.lins.1.bias": "MAE_encoder.encoder.first_conv.3.bias",
    "MAE_encoder.encoder.local_mlp.norms.0.module.running_var":
        "MAE_encoder.encoder.first_conv.1.running_var",
    "MAE_encoder.encoder.global_mlp.lins.0.weight": "MAE_encoder.encoder.second_conv.0.weight",
    "MAE_encoder.encoder.global_mlp.lins.1.weight": "MAE_encoder.encoder.second_conv.3.weight",
    "MAE_encoder.encoder.global_mlp.norms.0.module.bias": "MAE_encoder.encoder.second_conv.1.bias",
    "MAE_encoder.pos_embed.lins.0.weight": "MAE_encoder.pos_embed.0.weight",
    "MAE_encoder.pos_embed.lins.1.weight": "MAE_encoder.pos_embed.2.weight",
    "MAE_encoder.blocks.blocks.3.mlp.lins.0.bias": "MAE_encoder.blocks.blocks.3.mlp.fc1.bias",
    "MAE_encoder.blocks.blocks.3.mlp.lins.1.bias": "MAE_encoder.blocks.blocks.3.mlp.fc2.bias",
    "MAE_encoder.blocks.blocks.3.attn.qkv.weight": "MAE_encoder.blocks.blocks.3.attn.qkv.weight",
    "MAE_decoder.blocks.0.mlp.lins.1.weight": "MAE_decoder.blocks.0.mlp.fc2.weight",
    "decoder_pos_embed.lins.1.weight": "decoder_pos_embed.2.weight",
    "increase_dim.lins.0.weight": "increase_dim.0.weight",
    "norm_f.weight": "norm.weight",
    "head.lins.0.weight": "cls_head_finetune.0.weight",
    "head.norms.0.module.weight": "cls_head_finetune.1.weight",
    "head.lins.1.weight": "cls_head_finetune.4.weight",
    "head.norms.1.module.running_mean": "cls_head_finetune.5.running_mean",
    "head.lins.2.bias": "cls_head_finetune.8.bias",
    "mask_token": "mask_token",
}  # fmt: skip


def test_names_are_translated() -> None:
    state = {name: torch.tensor(number) for number, name in enumerate(PAIRS)}
    assert has_torch_pointcloud_names(state)
    assert not has_torch_pointcloud_names({name: state["mask_token"] for name in PAIRS.values()})
    translated = from_torch_pointcloud_names(Path("x"), state)
    assert {name: translated[released] for name, released in PAIRS.items()} == state


def test_part_segmenters_are_refused() -> None:
    state = {"propagation_0.mlp.lins.0.weight": torch.zeros(1)}
    with pytest.raises(ValueError, match=r"x\.safetensors: a part segmenter of Point-MAE"):
        from_torch_pointcloud_names(Path("x.safetensors"), state)
