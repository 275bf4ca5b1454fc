from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from recon.teachers.cached import CachedImageTeacher, CachedTextTeacher, FeatureCache, write_cache

FEATURES = torch.randn(3, 4, 6)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    mean, deviation = FEATURES.mean((0, 1)), FEATURES.std()
    write_cache(
        tmp_path / "x", FeatureCache(["a", "b", "c"], FEATURES, mean, deviation, "somebody")
    )
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
    return tmp_path / "x"


def test_seed_chooses_the_image_view(path: Path) -> None:
    teacher = CachedImageTeacher(path, 6)
    batch = {"id": ["c", "a"], "seed": torch.tensor([6, 8])}
    assert torch.equal(teacher(batch), torch.stack([FEATURES[2, 2], FEATURES[0, 0]]))


def test_text_features_are_looked_up_by_sentence(path: Path) -> None:
    assert torch.equal(CachedTextTeacher(path, 6)({"text": ["b"]}), FEATURES[1:2, 0])


def test_standardized_features_are_centered_and_scaled(path: Path) -> None:
    teacher = CachedImageTeacher(path, 6, standardize=True)
    batches = [{"id": ["a", "b", "c"], "seed": torch.full((3,), k)} for k in range(4)]
    features = torch.cat([teacher(batch) for batch in batches])
    assert_close(features.mean(0), torch.zeros(6), atol=1e-6, rtol=0)
    assert_close(
        features,
        (FEATURES.transpose(0, 1).flatten(0, 1) - FEATURES.mean((0, 1))) / FEATURES.std(),
    )


def test_half_precision_caches_return_float32(tmp_path: Path) -> None:
    write_cache(
        tmp_path / "x", FeatureCache(["a"], FEATURES[:1].half(), torch.zeros(6), torch.ones(()), "")
    )
    assert CachedTextTeacher(tmp_path / "x", 6)({"text": ["a"]}).dtype == torch.float32


def test_cached_features_are_not_in_the_state_dict(path: Path) -> None:
    assert CachedImageTeacher(path, 6).state_dict() == {}


def test_missing_damaged_or_wrong_caches_raise(path: Path) -> None:
    with pytest.raises(ValueError, match="of somebody have width 6, but dim is set to 512"):
        CachedTextTeacher(path, 512)
    with pytest.raises(ValueError, match="made for other data: it lacks 1 of 2 entries.*'z'"):
        CachedImageTeacher(path, 6).check_coverage({"id": ["a", "z"], "text": []})
    with pytest.raises(FileNotFoundError, match="no such teacher cache: create it with"):
        CachedTextTeacher(path.parent / "gone", 6)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ValueError, match="not a teacher cache"):
        CachedTextTeacher(path, 6)
