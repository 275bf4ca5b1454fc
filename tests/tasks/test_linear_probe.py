import numpy as np
import pytest
import torch
from torch.testing import assert_close

from recon.data.datasets.furniture import Furniture
from recon.layers.grouping import PatchGrouper
from recon.models.encoder import Encoder
from recon.models.recon import ContrastiveNetwork, Projections
from recon.tasks.linear_probe import (
    bootstrap_interval,
    classify_zero_shot,
    encode_clouds,
    fit_linear_svm,
    nearest_neighbors,
    read_clouds,
    recalibrate_batch_norm,
    shape_descriptor,
)


def test_bootstrap_interval_has_the_percentiles_of_resampled_means() -> None:
    rng = np.random.default_rng(0)
    values = rng.random(141) < 0.6
    means = rng.choice(values, (20_000, 141)).mean(1)
    interval = bootstrap_interval(values)
    assert interval.mean == values.mean()
    assert (interval.low, interval.high) == pytest.approx(
        np.percentile(means, [2.5, 97.5]), abs=0.01
    )


def test_bootstrap_interval_of_equal_values_has_width_zero() -> None:
    assert bootstrap_interval(np.ones(9)) == (1, 1, 1)


def test_clouds_are_sampled_by_farthest_point_sampling() -> None:
    data = Furniture(["test"])
    clouds = read_clouds(data, 64)
    assert clouds.shape == (141, 64, 3)
    assert_close(clouds[3, 0], torch.from_numpy(data.points(3)[0]))


def test_encode_clouds_uses_whole_clouds_in_evaluation_mode() -> None:
    encoder = Encoder(24, depth=2, heads=3, patch_widths=(8, 16, 16))
    model = ContrastiveNetwork(PatchGrouper(8, 6), encoder, Projections(24, {"text": 5})).train()
    clouds = torch.randn(5, 40, 3)
    features = encode_clouds(model, clouds, batch_size=2)
    assert model.training
    model.eval()
    encoding = model.encode(clouds)
    assert_close(torch.from_numpy(features.pooled), encoding.pooled())
    assert_close(features.queries["text"], model.projections(encoding.queries)["text"])


def test_recalibrated_batch_norm_matches_the_clouds_and_keeps_weights() -> None:
    encoder = Encoder(24, depth=2, heads=3, patch_widths=(8, 16, 16))
    model = ContrastiveNetwork(PatchGrouper(8, 6), encoder, Projections(24, {"text": 5})).eval()
    clouds = torch.randn(6, 40, 3)
    copy = recalibrate_batch_norm(model, clouds, batch_size=6)
    points = model.encoder.embed.point_in(model.grouper(clouds).points.reshape(-1, 3))
    assert_close(copy.encoder.embed.point_norm.running_mean, points.mean(0))
    assert_close(copy.encoder.embed.point_norm.running_var, points.var(0))
    assert model.encoder.embed.point_norm.running_var.eq(1).all()
    for copied, original in zip(copy.parameters(), model.parameters(), strict=True):
        assert torch.equal(copied, original)


def test_svm_separates_linear_classes_and_groups_families_in_folds() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 20)
    features = np.eye(4)[labels] * 3 + rng.normal(size=(80, 4))
    assert fit_linear_svm(features, labels, np.arange(80)).score(features, labels) > 0.9
    # Features that identify families only do not generalize across families.
    families = np.arange(80) // 2
    codes = rng.normal(size=(40, 50))[families]
    grouped = fit_linear_svm(codes, labels, families).best_score_
    ungrouped = fit_linear_svm(codes, labels, np.arange(80)).best_score_
    assert grouped < 0.45 < 0.8 < ungrouped


def test_descriptor_is_rotation_invariant_except_for_the_bounding_box() -> None:
    cloud = torch.rand(1, 300, 3) * 0.5
    rotated = torch.stack([cloud[..., 2], cloud[..., 1], -cloud[..., 0]], -1)
    original, turned = shape_descriptor(cloud), shape_descriptor(rotated)
    assert np.allclose(original[:, :-3], turned[:, :-3], atol=0.05)
    assert original[0, -3:] == pytest.approx(np.ptp(cloud[0].numpy(), axis=0))


def test_zero_shot_predicts_the_class_of_largest_cosine() -> None:
    classes = torch.eye(3)
    queries = torch.tensor([[0.1, 5.0, 0.2], [0.3, 0.1, 0.2]])
    assert classify_zero_shot(queries, classes).tolist() == [1, 0]


def test_nearest_neighbor_of_a_gallery_row_is_the_row_itself() -> None:
    gallery = np.random.default_rng(0).normal(size=(30, 8)) * np.logspace(0, 3, 8)
    assert nearest_neighbors(gallery[[4, 9]], gallery, 3).indices[:, 0].tolist() == [4, 9]
