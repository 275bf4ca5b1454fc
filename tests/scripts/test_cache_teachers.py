import runpy
from pathlib import Path

import open_clip
import pytest
import timm
import torch
from hydra import compose, initialize_config_dir
from lightning import seed_everything
from omegaconf import DictConfig

from recon.cli.config_dir import conf_dir
from recon.data.sample_dataset import SampleDataset
from recon.teachers.cached import read_cache
from recon.train import train

SCRIPT = Path(__file__).parents[2] / "scripts" / "cache_teachers.py"


def config(name: str, *options: str) -> DictConfig:
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        return compose(name, ["experiment=pretrain_shapenet", "debug=tiny", *options])


@pytest.fixture
def live(shapenet_root: Path, tmp_path: Path) -> list[str]:
    """Options that teach by two live teachers, their weights in local files."""
    seed_everything(1, verbose=False)
    torch.save(timm.create_model("vit_tiny_patch16_224").state_dict(), tmp_path / "vit.pth")
    torch.save(open_clip.create_model("ViT-S-32-alt").state_dict(), tmp_path / "clip.pt")
    return [
        f"data.root={shapenet_root}",
        "teacher=untrained",
        "+teacher.image.weights=" + str(tmp_path / "vit.pth"),
        "teacher.image.pretrained=true",
        "teacher.text.weights=" + str(tmp_path / "clip.pt"),
    ]


def final_loss(cfg: DictConfig) -> dict[str, float]:
    return {k: v.item() for k, v in train(cfg).callback_metrics.items() if k.startswith("train/")}


@pytest.mark.slow
def test_cached_teachers_give_the_losses_of_live_ones(
    live: list[str], shapenet_root: Path, tmp_path: Path
) -> None:
    runpy.run_path(str(SCRIPT))["cache_teachers"](config("cache_teachers", *live, "cache.views=3"))
    images = read_cache(shapenet_root / "teachers" / "image.safetensors")
    texts = read_cache(shapenet_root / "teachers" / "text.safetensors")
    assert images.features.shape == (8, 3, 192)
    assert len(texts.names) == 2 * (60 + 1)  # category x prompt, and the bare name
    short = ["trainer.max_epochs=2", "trainer.limit_train_batches=2", "data.image_views=3"]
    cached = [
        f"data.root={shapenet_root}", "teacher=cached",
        "projection_dims.image=192", "projection_dims.text=256",
    ]  # fmt: skip
    expected = final_loss(config("train", *live, *short, f"output_dir={tmp_path / 'live'}"))
    found = final_loss(config("train", *cached, *short, f"output_dir={tmp_path / 'cached'}"))
    assert expected.keys() == {f"train/{k}" for k in ("total", "reconstruction", "image", "text")}
    assert found == pytest.approx(expected, rel=1e-5)


def test_number_of_cached_views(shapenet_root: Path) -> None:
    from recon.data.batch import SeededIndex
    from recon.data.datasets.shapenet import ShapeNet
    from recon.data.image_augmentation import ImageAugmentation

    data = ShapeNet(shapenet_root)
    augment = ImageAugmentation(32)
    fixed = SampleDataset(data, keys=["image"], augment_image=augment, image_views=2)
    fresh = SampleDataset(data, keys=["image"], augment_image=augment)
    few, many = (
        torch.stack([samples[SeededIndex(0, seed)]["image"] for seed in range(12)]).flatten(1)
        for samples in (fixed, fresh)
    )
    assert len(few.unique(dim=0)) == 2
    assert len(many.unique(dim=0)) == 12
    assert torch.equal(few[0], few[2])
