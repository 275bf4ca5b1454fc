"""Features of clouds of any container, size, position, scale and up axis."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

import recon
from conftest import assert_near, released_arrays, released_path
from recon.checkpoints.loading import load
from recon.data.transforms import AlignUpAxis
from recon.ops.neighbors import pairwise_distances
from recon.point_encoder import Features, PointEncoder

PATH = released_path("recon_pretrain_small.pth")
SETTINGS = {"num_heads": 3, "num_groups": 64}


@pytest.fixture(scope="module")
def encoder() -> PointEncoder:
    return recon.PointEncoder(PATH, **SETTINGS)


def draw_cloud(num_points: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(num_points, 3, generator=generator)
    return points / points.norm(dim=1, keepdim=True) * torch.tensor([1.0, 0.6, 0.3])


def assert_close(a: Features, b: Features, tolerance: float = 1e-4) -> None:
    for name, x, y in zip(Features._fields, a, b, strict=True):
        assert (x is None) == (y is None), name
        assert x is None or torch.allclose(x.float(), y.float(), atol=tolerance, rtol=1e-3), name


def test_features_equal_the_released_ones() -> None:
    arrays = released_arrays("recon_svm_zeroshot_small.npz")
    points = arrays("points")
    model = load(PATH, **SETTINGS)
    encoder = PointEncoder(model)
    assert_near(model.encode(points).pooled(), arrays("svm_feature"))
    centered = points - points.mean(1, keepdim=True)
    centered = centered / centered.norm(dim=2).amax(1)[:, None, None]
    with torch.no_grad():
        expected = model.encode(centered)
    features = encoder.encode(points)
    assert torch.allclose(features.pooled, expected.pooled(), atol=1e-5)
    assert torch.allclose(
        features.text_projected, model.projections(expected.queries)["text"], atol=1e-5
    )


def test_clouds_of_different_sizes_keep_their_order(encoder: PointEncoder) -> None:
    clouds = [draw_cloud(count, seed) for seed, count in enumerate((3000, 200, 1024, 200, 5000))]
    features = encoder.encode(clouds, batch_size=2)
    assert features.pooled.shape[0] == 5
    for number, points in enumerate(clouds):
        row = Features(*(None if f is None else f[number] for f in features))
        assert_close(row, encoder.encode(points))


def test_features_do_not_depend_on_the_container(encoder: PointEncoder) -> None:
    points = draw_cloud(1500)
    expected = encoder.encode(points)
    assert_close(encoder.encode(points.numpy()), expected)
    assert_close(encoder.encode(points.numpy().astype(np.float64)), expected)
    colored = torch.cat([points, torch.rand(1500, 3)], 1)
    assert_close(encoder.encode(colored), expected)
    batch = encoder.encode(points[None])
    assert batch.pooled.shape == (1, expected.pooled.shape[0])


def test_features_do_not_depend_on_position_and_scale(encoder: PointEncoder) -> None:
    points = draw_cloud(1500).double()
    moved = points * 4000 + torch.tensor([1e5, -3e4, 7.0], dtype=torch.double)
    features, moved_features = encoder.encode(points), encoder.encode(moved)
    assert torch.allclose(features.pooled, moved_features.pooled, atol=1e-3)
    moved_centers = features.centers * 4000 + moved.mean(0) - 4000 * points.mean(0)
    assert torch.allclose(moved_centers, moved_features.centers, atol=1.0)


@pytest.mark.parametrize("up", ["x", "z"])
def test_features_do_not_depend_on_the_up_axis(encoder: PointEncoder, up: str) -> None:
    points = draw_cloud(1500)
    align = AlignUpAxis("y", up)
    rotated = align(points[None])[0]
    features, rotated_features = encoder.encode(points), encoder.encode(rotated, up=up)
    assert torch.allclose(features.pooled, rotated_features.pooled, atol=1e-4)
    rotated_centers = align(features.centers[None])[0]
    assert torch.allclose(rotated_centers, rotated_features.centers, atol=1e-4)


def test_centers_are_points_of_the_cloud(encoder: PointEncoder) -> None:
    points = draw_cloud(900) * 3 + 5
    centers = encoder.encode(points).centers
    assert pairwise_distances(centers, points).amin(1).max() < 1e-4


def test_dense_features_follow_the_order_of_the_points(encoder: PointEncoder) -> None:
    points = draw_cloud(2500)
    dense = encoder.dense(points)
    assert dense.shape == (2500, 96)
    features = encoder.encode(points)
    nearest = pairwise_distances(features.centers, points).argmin(1)
    assert torch.allclose(dense[nearest], features.tokens, atol=1e-2)
    shuffled = torch.randperm(2500)
    shuffled[shuffled == 0], shuffled[0] = shuffled[0].clone(), 0  # sampling starts at point 0
    assert torch.allclose(encoder.dense(points[shuffled]), dense[shuffled], atol=1e-3)


def test_features_hardly_depend_on_density(encoder: PointEncoder) -> None:
    generator = np.random.default_rng(0)
    reference = None
    for count in (1024, 2048, 8192):
        points = generator.normal(size=(count, 3))
        points = points / np.linalg.norm(points, axis=1, keepdims=True) * [1.0, 0.6, 0.3]
        pooled = encoder.encode(points).pooled
        reference = pooled if reference is None else reference
        assert torch.nn.functional.cosine_similarity(pooled, reference, dim=0) > 0.9


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (
            torch.rand(40, 3),
            "cloud 0: has 40 points, the network cuts 64 patches of 32",
        ),
        ([torch.rand(99, 3), torch.rand(0, 3)], r"cloud 1: expected \(N, 3\), got \(0, 3\)"),
        ([torch.rand(99, 3), torch.rand(99, 2)], r"cloud 1: expected \(N, 3\), got \(99, 2\)"),
        (torch.full((99, 3), torch.nan), "cloud 0: has a NaN or infinite coordinate at point 0"),
        ([], "expected a cloud, a batch or a list of clouds, got list"),
        ("a.ply", "expected a cloud, a batch or a list of clouds, got str"),
    ],
)
def test_invalid_clouds_raise_value_error(
    encoder: PointEncoder, points: object, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        encoder.encode(points)


def test_invalid_options_raise_value_error(encoder: PointEncoder) -> None:
    with pytest.raises(ValueError, match="axis must be x, y or z, got 'up'"):
        PointEncoder(encoder.network, up="up")
    with pytest.raises(ValueError, match="dense features are of one cloud"):
        encoder.dense(torch.rand(2, 99, 3))


def test_stream_reads_one_batch_at_a_time_and_equals_encode(encoder: PointEncoder) -> None:
    clouds = [draw_cloud(count, seed) for seed, count in enumerate((3000, 200, 1024, 77, 5000))]
    numbers_read = []

    def read_clouds() -> Iterator[torch.Tensor]:
        for number, points in enumerate(clouds):
            numbers_read.append(number)
            yield points

    stream = encoder.stream(read_clouds(), batch_size=2)
    first = next(stream)
    assert numbers_read == [0, 1]
    expected = encoder.encode(clouds)
    for number, row in enumerate([first, *stream]):
        assert_close(row, Features(*(None if f is None else f[number] for f in expected)))


def test_an_unavailable_device_is_refused_before_the_file_is_read() -> None:
    with pytest.raises(ValueError, match="device=gpu: unknown device, a GPU is device=cuda"):
        PointEncoder("missing.pth", device="gpu")
    assert PointEncoder(PATH, device="auto", **SETTINGS).device.type in ("cpu", "cuda")


def test_bfloat16_features_are_close_and_float32(encoder: PointEncoder) -> None:
    points = draw_cloud(1500)
    features = PointEncoder(PATH, precision="bf16", **SETTINGS).encode(points)
    expected = encoder.encode(points)
    assert features.pooled.dtype == torch.float32
    assert torch.cosine_similarity(features.pooled, expected.pooled, dim=0) > 0.999
    with pytest.raises(ValueError, match="precision must be one of 32, bf16, got 'half'"):
        PointEncoder(PATH, precision="half", **SETTINGS)
