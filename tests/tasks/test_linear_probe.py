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


def test_interval_is_the_percentiles_of_resampled_means() -> None:
    rng = np.random.default_rng(0)
    values = rng.random(141) < 0.6
    means = rng.choice(values, (20_000, 141)).mean(1)
    found = bootstrap_interval(values)
    assert found.mean == values.mean()
    assert (found.low, found.high) == pytest.approx(np.percentile(means, [2.5, 97.5]), abs=0.01)


def test_interval_of_equal_values_has_no_width() -> None:
    assert bootstrap_interval(np.ones(9)) == (1, 1, 1)


def test_clouds_are_reduced_by_farthest_point_sampling() -> None:
    data = Furniture(["test"])
    clouds = read_clouds(data, 64)
    assert clouds.shape == (141, 64, 3)
    assert_close(clouds[3, 0], torch.from_numpy(data.points(3)[0]))


def test_features_are_those_of_whole_clouds_in_evaluation_mode() -> None:
    encoder = Encoder(24, depth=2, heads=3, patch_widths=(8, 16, 16))
    model = ContrastiveNetwork(PatchGrouper(8, 6), encoder, Projections(24, {"text": 5})).train()
    clouds = torch.randn(5, 40, 3)
    features = encode_clouds(model, clouds, batch_size=2)
    assert model.training
    model.eval()
    encoding = model.encode(clouds)
    assert_close(torch.from_numpy(features.pooled), encoding.pooled())
    assert_close(features.queries["text"], model.projections(encoding.queries)["text"])


def test_batch_statistics_are_those_of_the_clouds_and_weights_stay() -> None:
    encoder = Encoder(24, depth=2, heads=3, patch_widths=(8, 16, 16))
    model = ContrastiveNetwork(PatchGrouper(8, 6), encoder, Projections(24, {"text": 5})).eval()
    clouds = torch.randn(6, 40, 3)
    copy = recalibrate_batch_norm(model, clouds, batch_size=6)
    points = model.encoder.embed.point_in(model.grouper(clouds).points.reshape(-1, 3))
    assert_close(copy.encoder.embed.point_norm.running_mean, points.mean(0))
    assert_close(copy.encoder.embed.point_norm.running_var, points.var(0))
    assert model.encoder.embed.point_norm.running_var.eq(1).all()
    for ours, theirs in zip(copy.parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_the_svm_learns_what_is_linear_and_keeps_families_together() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 20)
    features = np.eye(4)[labels] * 3 + rng.normal(size=(80, 4))
    assert fit_linear_svm(features, labels, np.arange(80)).score(features, labels) > 0.9
    # Features that only tell families apart are worthless across them.
    families = np.arange(80) // 2
    codes = rng.normal(size=(40, 50))[families]
    apart = fit_linear_svm(codes, labels, families).best_score_
    together = fit_linear_svm(codes, labels, np.arange(80)).best_score_
    assert apart < 0.45 < 0.8 < together


def test_the_descriptor_does_not_depend_on_where_points_are_but_for_the_box() -> None:
    cloud = torch.rand(1, 300, 3) * 0.5
    quarter = torch.stack([cloud[..., 2], cloud[..., 1], -cloud[..., 0]], -1)
    here, there = shape_descriptor(cloud), shape_descriptor(quarter)
    assert np.allclose(here[:, :-3], there[:, :-3], atol=0.05)
    assert here[0, -3:] == pytest.approx(np.ptp(cloud[0].numpy(), axis=0))


def test_zero_shot_takes_the_most_similar_direction() -> None:
    classes = torch.eye(3)
    queries = torch.tensor([[0.1, 5.0, 0.2], [0.3, 0.1, 0.2]])
    assert classify_zero_shot(queries, classes).tolist() == [1, 0]


def test_nearest_finds_a_shape_itself() -> None:
    gallery = np.random.default_rng(0).normal(size=(30, 8)) * np.logspace(0, 3, 8)
    assert nearest_neighbors(gallery[[4, 9]], gallery, 3).indices[:, 0].tolist() == [4, 9]
