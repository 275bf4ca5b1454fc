"""Other published networks are recognized by names that their released code gives to weights."""

import argparse
from pathlib import Path

import pytest
import torch

from conftest import released_path
from recon.checkpoints.contents.families import FAMILIES, recognize_family
from recon.checkpoints.loading import load

KEYS = {
    "ReCon++": "module.model.encoder.blocks.local_blocks.0.norm1.weight",
    "ULIP-2": "module.open_clip_model.visual.conv1.weight",
    "ULIP": "module.pc_projection",
    "Uni3D": "point_encoder.encoder2trans.weight",
    "OpenShape": "module.ppat.sa.mlp_convs.0.weight",
    "I2P-MAE": "module.rec_head_2d.weight",
    "Point-M2AE": "module.h_encoder.encoder_blocks.0.blocks.0.norm1.weight",
    "PointGPT": "module.GPT_Transformer.blocks.layers.0.ln_1.weight",
    "PointMamba": "module.MAE_encoder.blocks.layers.0.mixer.A_log",
    "Point-BERT": "module.transformer_q.encoder.first_conv.0.weight",
    "PCP-MAE": "module.MAE_encoder.mask_pos_token",
    "Point-FEMAE": "MAE_encoder.blocks.blocks.11.cls.bn1.weight",
    "DAPT": "blocks.blocks.0.Adapter_MLP.down_proj.weight",
    "PointGST": "blocks.blocks.0.gft_adapter.down.weight",
    "PPT": "blocks.prompt_all_mlp.0.weight",
    "VPT-deep": "cls_prompt_list.0",
    "IDPT": "blocks.cls.conv1.0.weight",
    "a Point Transformer V3, such as Sonata": "module.backbone.embedding.stem.conv.weight",
    "CLIP": "visual.transformer.resblocks.0.ln_1.weight",
}
PATCH_NAME = "encoder.first_conv.0.weight"


def test_each_family_is_recognized_by_its_own_name() -> None:
    assert list(KEYS) == [family.name for family in FAMILIES]
    for name, key in KEYS.items():
        family = recognize_family([PATCH_NAME, key])
        assert family is not None
        assert family.name == name


@pytest.mark.parametrize(
    ("shapes", "name"),
    [
        ({"pc_projection": (768, 1280), "point_encoder.reduce_dim.weight": (2,)}, "ULIP-2"),
        ({"pc_projection": (768, 512), "point_encoder.reduce_dim.weight": (2,)}, "ULIP"),
        ({PATCH_NAME: (128, 3, 1), "pos_embed.0.weight": (384, 384)}, "PCP-MAE"),
        ({PATCH_NAME: (128, 3, 1), "pos_embed.0.weight": (128, 3)}, None),
        ({"pos_embed.0.weight": (384, 384)}, None),
    ],
)
def test_some_families_differ_by_shapes(shapes: dict[str, tuple[int, ...]], name: str) -> None:
    family = recognize_family(shapes, shapes)
    assert (family and family.name) == name


@pytest.mark.parametrize("name", ["recon_pretrain_small", "recon_cls_small", "recon_seg_small",
                                  "twotower_pretrain_small"])  # fmt: skip
def test_released_networks_are_no_other_family(name: str) -> None:
    content = torch.load(released_path(f"{name}.pth"), weights_only=True)
    state = content.get("base_model", content.get("model_state_dict", content))
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    assert recognize_family(shapes, shapes) is None
    # Frozen parts of released files are other networks.
    frozen = ["module.text_encoder.visual.conv1.weight", "dvae_tokenizer.dgcnn_1.0.weight"]
    assert recognize_family(frozen) is None


def test_files_are_refused_by_the_name_of_their_network(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    for extra in ({}, {"args": argparse.Namespace(lr=1)}):  # the second needs code to be read
        torch.save({"state_dict": {"module.pc_projection": torch.zeros(3, 5)}, **extra}, path)
        with pytest.raises(ValueError, match=r"x\.pth: these are weights of ULIP, which") as caught:
            load(path)
        assert "github.com/salesforce/ULIP" in str(caught.value)
        assert str(caught.value).isprintable()
