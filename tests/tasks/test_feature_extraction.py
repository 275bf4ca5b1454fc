"""Frozen features: released zero-shot cosines, prompted class features, a linear SVM."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.svm import LinearSVC
from torch import Tensor

from conftest import assert_near, released_arrays
from recon.data.dataset import DatasetView
from recon.data.datasets.furniture import FurnitureDataModule
from recon.data.transforms import FarthestPointSample, RandomSO3Rotation
from recon.layers.grouping import PatchGrouper
from recon.models.encoder import Encoder
from recon.models.recon import ContrastiveNetwork, Projections
from recon.tasks.feature_extraction import (
    CachedClassFeatures,
    ExtractedFeatures,
    LinearProbe,
    PromptedClassFeatures,
    ZeroShotClassifier,
    extract_features,
)
from recon.teachers.base import Teacher
from recon.teachers.cached import FeatureCache, write_cache
from recon.teachers.prompts import build_prompts

ARRAYS = released_arrays("recon_svm_zeroshot_small.npz")
NO_FAMILIES = np.empty(0, dtype=np.int64)


def build_features(queries: dict[str, Tensor]) -> ExtractedFeatures:
    count = len(next(iter(queries.values())))
    return ExtractedFeatures(
        torch.zeros(count, 1), queries, torch.zeros(count).long(), ["x"] * count, NO_FAMILIES
    )


@pytest.mark.parametrize(
    ("query", "released"), [("text", "text"), ("image", "image"), ("both", "full")]
)
def test_zero_shot_cosines_match_the_release(query: str, released: str) -> None:
    features = {name: ARRAYS(f"zeroshot_feature_{name}") for name in ("text", "image")}
    task = ZeroShotClassifier(
        lambda classes: ARRAYS("class_text_features"), query=query, ratio=0.25
    )
    cosines = task({"test": build_features(features)}, ["c"] * 40)
    assert_near(cosines, ARRAYS(f"zeroshot_cosine_{released}"))
    assert torch.equal(cosines.argmax(1), ARRAYS(f"zeroshot_pred_{released}"))


def test_test_transforms_act_on_test_shapes_alone() -> None:
    """The shapes that a probe is fitted to are transformed by their own view only."""
    encoder = Encoder(24, depth=1, heads=2, patch_widths=(8, 16, 16))
    network = ContrastiveNetwork(PatchGrouper(8, 8), encoder, Projections(24, {})).train()
    view, pooled = FarthestPointSample(64), []
    for transform in (None, RandomSO3Rotation()):
        data = FurnitureDataModule(split="train", test_split="test", test_transform=transform)
        data.setup("test")
        data.test_dataset = DatasetView([data.test_dataset], [(0, row) for row in range(20)])
        for is_test in (False, True):
            loader = data.test_dataloader()
            pooled.append(extract_features(network, data, loader, view, is_test=is_test).pooled)
    assert torch.equal(pooled[0], pooled[1])
    assert torch.equal(pooled[0], pooled[2])
    assert not torch.allclose(pooled[0], pooled[3], atol=1e-3)
    assert network.training  # as before


class LetterCounts(Teacher):
    """Return how often four letters occur in each text."""

    keys = ("text",)

    def forward(self, batch: Mapping[str, Any]) -> Tensor:
        return torch.tensor([[text.count(x) for x in "aehr"] for text in batch["text"]]).float()


def test_class_features_are_summed_over_prompts() -> None:
    teacher = LetterCounts(4)
    features = PromptedClassFeatures(teacher)(["easy_chair"])
    assert torch.equal(features[0], teacher({"text": build_prompts("easy chair")}).sum(0))
    features = PromptedClassFeatures(teacher, ["a {}", "the {} there"])(["chair", "table"])
    assert torch.equal(features[0], teacher({"text": ["a chair", "the chair there"]}).sum(0))
    with pytest.raises(ValueError, match="each template needs {}"):
        PromptedClassFeatures(teacher, ["a chair"])


def test_cached_class_features_are_looked_up_by_name(tmp_path: Path) -> None:
    features = torch.randn(3, 1, 4)
    mean, deviation = features.mean((0, 1)), torch.tensor(2.0)
    path = tmp_path / "text.safetensors"
    write_cache(path, FeatureCache(["a", "b", "c"], features, mean, deviation, "someone"))
    assert torch.equal(CachedClassFeatures(path)(["c", "a"]), features[[2, 0], 0])
    scaled = CachedClassFeatures(path, standardize=True)(["b"])
    assert torch.allclose(scaled, (features[1] - mean) / 2)
    with pytest.raises(ValueError, match="lacks the features of 1 of 2 classes, for example 'd'"):
        CachedClassFeatures(path)(["a", "d"])


def test_missing_queries_and_wrong_widths_raise_value_error() -> None:
    task = ZeroShotClassifier(lambda classes: torch.zeros(2, 5), query="text")
    with pytest.raises(ValueError, match=r"has no projected text query, only \['image'\]"):
        task({"test": build_features({"image": torch.zeros(3, 5)})}, ["a", "b"])
    with pytest.raises(
        ValueError, match="class features have width 5, projected queries have width 4"
    ):
        task({"test": build_features({"text": torch.zeros(3, 4)})}, ["a", "b"])
    with pytest.raises(ValueError, match="query must be text, image or both, got 'smell'"):
        ZeroShotClassifier(lambda classes: torch.zeros(2, 5), query="smell")


@pytest.mark.parametrize("classes", [2, 4])
def test_linear_probe_matches_scikit_learn(classes: int) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(80) % classes
    features = rng.normal(size=(80, 6)).astype(np.float32) + 4 * np.eye(6, dtype=np.float32)[labels]
    shapes = {
        name: ExtractedFeatures(
            torch.from_numpy(features[rows]), {}, torch.from_numpy(labels[rows]), [], NO_FAMILIES
        )
        for name, rows in (("train", slice(0, 60)), ("test", slice(60, 80)))
    }
    expected = LinearSVC(C=0.075, dual=False).fit(features[:60], labels[:60]).predict(features[60:])
    names = [*map(str, range(classes)), "absent"]
    scores = LinearProbe()(shapes, names)
    assert np.array_equal(scores.argmax(1).numpy(), expected)
    assert scores[:, classes].max() == -torch.inf
    predicted = LinearProbe(cost=None)(shapes, names).argmax(1)
    assert (predicted == shapes["test"].labels).float().mean() > 0.8


def test_fingerprint_fields_differ_between_caches_and_templates(tmp_path: Path) -> None:
    fields = []
    for seed in range(2):
        torch.manual_seed(seed)
        features = torch.randn(2, 1, 4)
        cache = FeatureCache(
            ["a", "b"], features, features.mean((0, 1)), torch.tensor(1.0), "someone"
        )
        write_cache(tmp_path / f"{seed}.safetensors", cache)
        fields.append(CachedClassFeatures(tmp_path / f"{seed}.safetensors").fingerprint_fields())
    assert fields[0] != fields[1]
    assert (
        PromptedClassFeatures(LetterCounts(4)).fingerprint_fields()["templates"] == "the paper's 60"
    )
    assert (
        PromptedClassFeatures(LetterCounts(4), 64).fingerprint_fields()["templates"] == "ULIP's 64"
    )
