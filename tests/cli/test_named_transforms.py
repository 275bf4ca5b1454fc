"""Transforms that options name: composed from conf/transform, or an error that lists the names."""

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig

from recon.cli.config_dir import conf_dir
from recon.cli.named_transforms import compose_named_transforms
from recon.data.transforms import RandomPointSample, RandomSO3Rotation


def compose_config(program: str, *options: str) -> DictConfig:
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        return compose(program, [*options])


@pytest.mark.parametrize(
    ("program", "options", "num_points"),
    [
        ("evaluate", ["checkpoint=x"], 1024),
        ("evaluate", ["checkpoint=x", "num_points=70"], 70),
        ("train", ["experiment=finetune_furniture", "num_points=80"], 80),
        ("train", ["experiment=partseg_furniture", "num_points=90"], 90),
    ],
)
def test_a_name_becomes_the_transform_with_the_number_of_points(
    program: str, options: list[str], num_points: int
) -> None:
    cfg = compose_config(program, *options, "data.test_transform=any_pose")
    compose_named_transforms(cfg, 1024)
    transform = instantiate(cfg.data.test_transform, _convert_="all")
    first, _, third, *_ = transform.transforms
    assert isinstance(first, RandomPointSample)
    assert first.num_points == num_points
    assert isinstance(third, RandomSO3Rotation)


def test_views_are_named_too_and_interpolations_follow() -> None:
    cfg = compose_config("train", "experiment=finetune_furniture", "view=any_pose")
    compose_named_transforms(cfg, 1024)
    assert cfg.task.view == cfg.view
    assert instantiate(cfg.task.view).transforms[2].__class__ is RandomSO3Rotation
    cfg = compose_config("evaluate", "checkpoint=x", "view=furniture", "train_view=any_pose")
    compose_named_transforms(cfg, 64)
    assert [len(cfg[name].transforms) for name in ("view", "train_view")] == [3, 5]


def test_published_results_of_a_view_are_no_transform() -> None:
    cfg = compose_config("train", "experiment=fewshot_modelnet40")
    before = cfg.published.view
    compose_named_transforms(cfg, 1024)
    assert cfg.published.view == before


def test_an_unknown_name_lists_the_names() -> None:
    cfg = compose_config("evaluate", "checkpoint=x", "data.test_transform=any_pse")
    with pytest.raises(ValueError, match=r"data.test_transform=any_pse: .* choose one of any_pose"):
        compose_named_transforms(cfg, 1024)
