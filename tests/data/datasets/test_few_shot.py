"""Few-shot folds and episodes: protocol, seeds and errors."""

from pathlib import Path

import numpy as np
import pytest

from recon.data.dataset import DatasetView
from recon.data.datasets.few_shot import FewShotDataModule, FewShotFold, sample_episode
from recon.data.datasets.furniture import Furniture, FurnitureDataModule
from recon.data.datasets.modelnet import ModelNetDataModule
from trees import write_few_shot_fold, write_modelnet


def test_fold_round_trip(tmp_path: Path) -> None:
    samples = write_few_shot_fold(tmp_path)
    for split in ("train", "test"):
        data = FewShotFold(tmp_path, split, way=5, shot=2, fold=0)
        assert len(data) == len(samples[split])
        for row, (points, label, _) in enumerate(samples[split]):
            assert np.array_equal(data.cloud(row).points, points[:, :3])
            assert data.labels[row] == label


def test_missing_and_mismatched_folds_raise_errors(tmp_path: Path) -> None:
    write_few_shot_fold(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"5way_2shot/1.pkl: not found"):
        FewShotFold(tmp_path, way=5, shot=2, fold=1)
    (tmp_path / "ModelNetFewshot" / "5way_2shot").rename(tmp_path / "ModelNetFewshot" / "2way2shot")
    with pytest.raises(ValueError, match=r"0.pkl: label 2 .* is none of the 2 classes"):
        FewShotFold(tmp_path, way=2, shot=2, fold=0)


def draw_episode(**options: int) -> tuple[DatasetView, DatasetView]:
    options = {"way": 3, "shot": 5, "fold": 0, "query": 4, **options}
    return sample_episode(Furniture(["train"]), Furniture(["test"]), **options)


def test_episodes_follow_the_protocol() -> None:
    supports, queries = draw_episode()
    assert np.bincount(supports.labels).tolist() == [5, 5, 5]
    assert np.bincount(queries.labels).tolist() == [4, 4, 4]
    assert len(set(supports.ids)) == 15
    assert not set(supports.ids) & set(queries.ids)
    train, test = Furniture(["train"]), Furniture(["test"])
    for view, source in ((supports, train), (queries, test)):
        for ident, label in zip(view.ids, view.labels, strict=True):
            name = source.classes[source.labels[source.ids.index(ident)]]
            assert name == view.classes[label]


def test_episodes_depend_on_fold_and_seed_only() -> None:
    assert draw_episode()[0].ids == draw_episode()[0].ids
    assert draw_episode(fold=1)[0].ids != draw_episode()[0].ids
    assert draw_episode(seed=1)[0].ids != draw_episode()[0].ids


def test_too_few_shapes_raise_value_error() -> None:
    with pytest.raises(
        ValueError, match=r"3-way 500-shot needs 3 classes .* but only 0 have enough: lower"
    ):
        draw_episode(shot=500)


def test_episodes_can_be_drawn_from_any_data_module(tmp_path: Path) -> None:
    write_modelnet(tmp_path)
    data = FewShotDataModule(datamodule=ModelNetDataModule(tmp_path), way=2, shot=3, query=1)
    assert len(data.open_split("train")) == 6
    assert len(data.open_split("test")) == 2
    with pytest.raises(ValueError, match=r"set either data\.root to released folds, or"):
        FewShotDataModule()
    furniture = FewShotDataModule(
        datamodule=FurnitureDataModule(), way=2, shot=3, query=2, keys=["label"], batch_size=3
    )
    furniture.setup("fit")
    assert set(next(iter(furniture.train_dataloader()))["label"].tolist()) <= {0, 1}
