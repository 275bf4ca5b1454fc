"""Every stage and the gradients of every loss, against the released implementation."""

import pytest
import torch
from timm.layers import DropPath
from torch import Tensor

from conftest import assert_near, released_arrays, released_json, released_path
from recon.checkpoints.loading import load
from recon.checkpoints.official_keys import from_official_key, from_official_state_dict
from recon.losses.contrastive import CategoryContrast
from recon.losses.distillation import SmoothL1
from recon.losses.reconstruction import ChamferL1, ChamferL2
from recon.models.recon import PretrainingOutput, ReCon
from recon.ops.masking import split_by_mask
from recon.tasks.optim import parameter_groups

ARRAYS = released_arrays("recon_pretrain_small.npz")
CATEGORY = torch.tensor([0, 1, 0, 2])  # airplane, chair, airplane, table


@pytest.fixture
def model() -> ReCon:
    return load(released_path("recon_pretrain_small.pth"), num_heads=3, num_groups=64)


def released_losses(out: PretrainingOutput, arrays=ARRAYS) -> dict[str, Tensor]:  # noqa: ANN001
    return {
        "mdm": ChamferL2()(out.predicted, out.target),
        "mdm_cdl1": ChamferL1()(out.predicted, out.target),
        "csc_img": SmoothL1()(out.projected_queries["image"], arrays("img_feature")),
        "csc_text": SmoothL1()(out.projected_queries["text"], arrays("text_feature")),
        "smc": CategoryContrast()(out.projected_queries["cls"], CATEGORY),
    }


@torch.no_grad()
def test_encoding(model: ReCon) -> None:
    patches = model.grouper(ARRAYS("points"))
    encoding = model.encoder(patches, split_by_mask(ARRAYS("mask"), 64).visible)
    assert_near(encoding.tokens, ARRAYS("x_vis"))
    for name, released_name in (("cls", "cls"), ("image", "img"), ("text", "text")):
        assert_near(encoding.queries[name], ARRAYS(f"{released_name}_token"))


@torch.no_grad()
def test_predicted_points_and_projections(model: ReCon) -> None:
    out = model(ARRAYS("points"), ARRAYS("mask"))
    assert_near(out.predicted, ARRAYS("rebuild_points"))
    assert_near(out.target.sort(1).values, ARRAYS("gt_points_sorted").sort(1).values)
    for name, released_name in (("image", "img_pred"), ("text", "text_pred"), ("cls", "cls_proj")):
        assert_near(out.projected_queries[name], ARRAYS(released_name))


@torch.no_grad()
def test_losses(model: ReCon) -> None:
    losses = released_losses(model(ARRAYS("points"), ARRAYS("mask")))
    for name, loss in losses.items():
        key = "loss_mdm_cdl1" if name == "mdm_cdl1" else f"loss_{name}"
        assert_near(loss, ARRAYS("loss_mdm_cdl2" if name == "mdm" else key))
    total = sum(loss for name, loss in losses.items() if name != "mdm_cdl1")
    assert_near(total, ARRAYS("loss_total_cdl2"))


@pytest.mark.parametrize("term", ["mdm", "mdm_cdl1", "csc_img", "csc_text", "smc"])
def test_gradients_of_each_loss_match_the_released_ones(model: ReCon, term: str) -> None:
    released_losses(model(ARRAYS("points"), ARRAYS("mask")))[term].backward()
    norms = released_json("recon_pretrain_small_gradnorms.json")[term]
    parameters = dict(model.named_parameters())
    assert {from_official_key(name) for name in norms} == parameters.keys()
    for name, norm in norms.items():
        gradient = parameters[from_official_key(name)].grad
        if not norm:  # blocked by stop-gradient, or not in the graph
            assert gradient is None or gradient.abs().max() == 0, name
        else:
            assert gradient is not None, name
            assert abs(gradient.norm().item() - norm) <= 1e-4 * max(norm, 1e-3), name


def test_four_training_steps(model: ReCon) -> None:
    arrays = released_arrays("recon_train_small.npz")
    model.train()
    for module in model.modules():
        if isinstance(module, DropPath):
            module.drop_prob = 0.0
    optimizer = torch.optim.AdamW(parameter_groups(model), lr=1e-3, weight_decay=0.05)
    for step in range(4):
        for group in optimizer.param_groups:
            group["lr"] = arrays("lr")[step].item()
        losses = released_losses(model(arrays("points"), arrays("masks")[step]), arrays)
        losses.pop("mdm_cdl1")
        for name, loss in losses.items():
            assert_near(loss, arrays(f"loss_{name}")[step], 1e-4)
        optimizer.zero_grad()
        torch.stack([*losses.values()]).sum().backward()
        optimizer.step()
    after = dict(model.named_parameters())
    for name in ("mask_token", "MAE_encoder.norm.weight", "img_proj.bias"):
        assert_near(after[from_official_key(name)].detach(), arrays(f"param_after/{name}"), 1e-3)


def test_two_towers() -> None:
    arrays = released_arrays("twotower_small.npz")
    model = load(released_path("twotower_pretrain_small.pth"), num_heads=3, num_groups=64)
    patches = model.grouper(arrays("points"))
    queries = model.contrastive(patches).queries
    assert_near(
        model.generative(patches, split_by_mask(arrays("mask"), 64).visible).tokens, arrays("x_vis")
    )
    assert_near(queries["image"], arrays("img_token"))
    assert_near(queries["text"], arrays("text_token"))
    out = model(arrays("points"), arrays("mask"))
    assert_near(out.predicted, arrays("rebuild_points"))
    total = (
        ChamferL2()(out.predicted, out.target)
        + SmoothL1()(out.projected_queries["image"], arrays("img_feature"))
        + SmoothL1()(out.projected_queries["text"], arrays("text_feature"))
    )
    assert_near(total, arrays("loss_total"))
    total.backward()
    norms = released_json("twotower_small_gradnorms.json")
    state = from_official_state_dict({name: torch.zeros(1) for name in norms})
    parameters = dict(model.named_parameters())
    assert state.keys() == parameters.keys()
    for name, norm in zip(state, norms.values(), strict=True):
        gradient = parameters[name].grad
        grad_norm = gradient.norm().item() if gradient is not None else 0.0
        assert abs(grad_norm - (norm or 0)) <= 1e-4 * max(norm or 0, 1e-3), name
