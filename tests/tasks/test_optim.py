import pytest
import torch
from timm.scheduler import CosineLRScheduler
from torch import nn

from conftest import released_json
from recon.checkpoints.official_keys import from_official_state_dict
from recon.tasks.optim import parameter_groups


def build_released_module(names: list[str]) -> nn.Module:
    """Build a module with parameters of the released shapes under this library's names."""
    module = nn.Module()
    shapes = released_json("recon_base_keys.json")["pretrain_base_smc"]["params"]
    for name, tensor in from_official_state_dict(
        {n: torch.empty(shapes[n]) for n in names}
    ).items():
        *path, leaf = name.split(".")
        owner = module
        for part in path:
            if not hasattr(owner, part):
                owner.add_module(part, nn.Module())
            owner = getattr(owner, part)
        owner.register_parameter(leaf, nn.Parameter(tensor))
    return module


def test_parameter_groups_match_the_release() -> None:
    groups = {g["kind"]: g for g in released_json("param_groups.json")["pretrain_base_smc"]}
    names = groups["no_decay"]["names"] + groups["decay"]["names"]
    module = build_released_module(names)
    by_parameter = {parameter: name for name, parameter in module.named_parameters()}
    not_decayed, decayed = parameter_groups(module)
    assert not_decayed["weight_decay"] == 0
    assert "weight_decay" not in decayed  # set by the optimizer
    for group, kind in ((not_decayed, "no_decay"), (decayed, "decay")):
        expected = from_official_state_dict(
            {name: torch.empty(0) for name in groups[kind]["names"]}
        )
        assert {by_parameter[p] for p in group["params"]} == expected.keys()


def test_frozen_parameters_are_in_no_group() -> None:
    layer = nn.Linear(3, 3)
    layer.weight.requires_grad_(False)
    not_decayed, decayed = parameter_groups(layer)
    assert not_decayed["params"] == [layer.bias]
    assert decayed["params"] == []


@pytest.mark.parametrize(("kind", "rate"), [("pretrain_base", 5e-4), ("cls_full", 2e-5)])
def test_learning_rates_match_the_release_in_each_epoch(kind: str, rate: float) -> None:
    parameters = [nn.Parameter(torch.zeros(1)) for _ in range(2)]
    groups = [{"params": parameters[:1], "lr": 10 * rate}, {"params": parameters[1:]}]
    optimizer = torch.optim.AdamW(groups, lr=rate)
    scheduler = CosineLRScheduler(
        optimizer, t_initial=300, lr_min=1e-6, warmup_t=10, warmup_lr_init=1e-6
    )
    for epoch, rates in enumerate(released_json("lr_schedule.json")[kind]["lr_used_in_epoch"]):
        current = [group["lr"] for group in optimizer.param_groups]
        assert current == pytest.approx(rates[:2], rel=1e-9)
        scheduler.step(epoch=epoch)
