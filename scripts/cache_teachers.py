"""Cache the features of frozen teachers, for training with teacher=cached.

python scripts/cache_teachers.py experiment=pretrain_shapenet data.root=<folder> cache.views=4
python -m recon.train experiment=pretrain_shapenet data.root=<folder> teacher=cached
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import hydra
import torch
from hydra.utils import instantiate
from jaxtyping import Float, UInt8
from lightning import seed_everything
from omegaconf import DictConfig
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from recon.cli.config_dir import conf_dir
from recon.cli.errors import one_line_errors
from recon.cli.program import run_program
from recon.data.datamodule import PointCloudDataModule
from recon.data.sample_dataset import image_view_seed
from recon.teachers.base import Teacher
from recon.teachers.cached import FeatureCache, write_cache


class ImageViews(Dataset[UInt8[Tensor, "3 h w"]]):
    """Fixed augmented views of all images of a data set, shape by shape."""

    def __init__(self, data: PointCloudDataModule, views: int) -> None:
        self.data, self.views = data, views

    def __len__(self) -> int:
        return len(self.data.dataset) * self.views

    def __getitem__(self, index: int) -> UInt8[Tensor, "3 h w"]:
        row, view = divmod(index, self.views)
        dataset = self.data.dataset
        return self.data.augment_image(dataset.image(row), image_view_seed(dataset.ids[row], view))


def image_features(
    teacher: Teacher, data: PointCloudDataModule, views: int, device: str
) -> Iterator[Float[Tensor, "b d"]]:
    """Encode all images in batches."""
    loader = DataLoader(
        ImageViews(data, views), batch_size=data.batch_size, num_workers=data.num_workers
    )
    for images in track(loader, "images"):
        yield teacher({"image": images.to(device)}).cpu()


def text_features(
    teacher: Teacher, texts: Sequence[str], batch_size: int
) -> Iterator[Float[Tensor, "b d"]]:
    """Encode all sentences in batches."""
    for start in track(range(0, len(texts), batch_size), "sentences"):
        yield teacher({"text": texts[start : start + batch_size]}).cpu()


def build_cache(
    names: Sequence[str],
    features: Float[Tensor, "n d"],
    views: int,
    description: str,
    *,
    half: bool,
) -> FeatureCache:
    """Arrange features by name, with their mean and their overall standard deviation."""
    mean = features.mean(0)
    deviation = (features - mean).square().mean().sqrt()
    rows = features.view(len(names), views, -1)
    return FeatureCache(names, rows.half() if half else rows, mean, deviation, description)


def cache_teachers(cfg: DictConfig) -> None:
    """Write one cache file per modality of the configured teachers."""
    if not cfg.teacher:
        raise ValueError("this experiment has no teachers to cache: choose another student")
    seed_everything(cfg.seed, verbose=False)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    data: PointCloudDataModule = instantiate(cfg.data, keys=["text"], _convert_="all")
    data.setup("fit")
    folder, views = Path(cfg.cache.folder), cfg.cache.views
    folder.mkdir(parents=True, exist_ok=True)
    for modality, settings in cfg.teacher.items():
        teacher: Teacher = instantiate(settings, _convert_="all").to(device)
        if modality == "image":
            names, parts = data.dataset.ids, image_features(teacher, data, views, device)
        else:
            names = list(data.teacher_keys()["text"])
            parts = text_features(teacher, names, data.batch_size)
        features = torch.cat([*parts])
        description = f"{settings.get('name', modality)} ({settings.get('weights', 'own weights')})"
        count = views if modality == "image" else 1
        path = folder / f"{modality}.safetensors"
        write_cache(path, build_cache(names, features, count, description, half=cfg.cache.half))
        print(f"{path}: {count} x {len(names)} features of width {features.shape[1]}")


@hydra.main(version_base="1.3", config_path=conf_dir(), config_name="cache_teachers")
def main(cfg: DictConfig) -> None:
    """Cache features with command-line options; input errors are printed in one line."""
    with one_line_errors():
        cache_teachers(cfg)


if __name__ == "__main__":
    run_program("cache_teachers", main)
