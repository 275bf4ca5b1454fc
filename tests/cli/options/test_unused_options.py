"""Options of parts that a run does not use are refused; all others pass."""

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from recon.cli.config_dir import conf_dir
from recon.cli.options.unused_options import check_options_have_effect, find_used_keys


def check(*words: str) -> None:
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        cfg = compose("train", list(words))
    check_options_have_effect(cfg, words)


def test_references_are_followed() -> None:
    cfg = OmegaConf.create(
        {
            "task": {
                "a": "${model.encoder}",
                "b": "x${eval.${eval.chosen}.c}y",
                "d": [{"e": "${f:mask}"}],
            },
            "model": {
                "encoder": {"dim": "${model.dim}"},
                "decoder": "${model.depth}",
                "dim": 1,
                "depth": 2,
            },
            "eval": {"chosen": "val", "val": {"c": 1}, "test": {"c": 2}},
            "mask": None,
            "teacher": None,
        }
    )
    used = find_used_keys(cfg)
    assert {"model.encoder", "model.dim", "eval.chosen", "eval.val.c", "mask"} <= used
    assert not {"model.decoder", "model.depth", "eval.test.c", "teacher"} & used


@pytest.mark.parametrize(
    ("experiment", "option"),
    [
        ("finetune_furniture", "mask=block"),
        ("finetune_furniture", "loss/distillation=siglip"),
        ("finetune_furniture", "eval.test.vote_rounds=3"),
        ("partseg_furniture", "protocol=linear"),
        ("pretrain_furniture", "checkpoint=x.ckpt"),
        ("pretrain_folder", "teacher=clip"),
        ("pretrain_shapenet_contrastive", "model.decoder_depth=2"),
    ],
)
def test_options_without_effect_are_refused(experiment: str, option: str) -> None:
    with pytest.raises(ValueError, match=f"^{option}: has no effect on this run"):
        check(f"experiment={experiment}", option)


def test_options_with_effect_pass() -> None:
    check(
        "experiment=pretrain_furniture", "model=small", "mask=block", "mask.ratio=0.4", "seed=1",
        "loss/self_contrast=by_view", "optimizer.lr=1e-3", "num_points=512", "+note=x",
    )  # fmt: skip
    check(
        "experiment=finetune_furniture", "checkpoint=x", "protocol=linear", "eval.votes=3",
        "eval.val.val_share=0.2", "~callbacks.report",
    )  # fmt: skip
