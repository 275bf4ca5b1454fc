"""Features of one's own clouds: any container, size, place, scale and axis."""

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
TOLD = {"num_heads": 3, "num_groups": 64}


@pytest.fixture(scope="module")
def encoder() -> PointEncoder:
    return recon.PointEncoder(PATH, **TOLD)


def cloud(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(count, 3, generator=generator)
    return points / points.norm(dim=1, keepdim=True) * torch.tensor([1.0, 0.6, 0.3])


def close(a: Features, b: Features, tolerance: float = 1e-4) -> None:
    for name, x, y in zip(Features._fields, a, b, strict=True):
        assert (x is None) == (y is None), name
        assert x is None or torch.allclose(x.float(), y.float(), atol=tolerance, rtol=1e-3), name


def test_released_features_come_out() -> None:
    arrays = released_arrays("recon_svm_zeroshot_small.npz")
    points = arrays("points")
    model = load(PATH, **TOLD)
    encoder = PointEncoder(model)
    known = model.encode(points)
    assert_near(known.pooled(), arrays("svm_feature"))
    centred = points - points.mean(1, keepdim=True)
    centred = centred / centred.norm(dim=2).amax(1)[:, None, None]
    with torch.no_grad():
        expected = model.encode(centred)
    found = encoder.encode(points)
    assert torch.allclose(found.pooled, expected.pooled(), atol=1e-5)
    assert torch.allclose(
        found.text_projected, model.projections(expected.queries)["text"], atol=1e-5
    )


def test_lists_of_different_sizes_keep_their_order(encoder: PointEncoder) -> None:
    clouds = [cloud(count, seed) for seed, count in enumerate((3000, 200, 1024, 200, 5000))]
    found = encoder.encode(clouds, batch_size=2)
    assert found.pooled.shape[0] == 5
    for number, one in enumerate(clouds):
        alone = encoder.encode(one)
        close(Features(*(None if f is None else f[number] for f in found)), alone)


def test_containers_do_not_matter(encoder: PointEncoder) -> None:
    points = cloud(1500)
    known = encoder.encode(points)
    close(encoder.encode(points.numpy()), known)
    close(encoder.encode(points.numpy().astype(np.float64)), known)
    close(encoder.encode(torch.cat([points, torch.rand(1500, 3)], 1)), known)  # with colours
    batch = encoder.encode(points[None])
    assert batch.pooled.shape == (1, known.pooled.shape[0])


def test_place_and_scale_do_not_matter(encoder: PointEncoder) -> None:
    points = cloud(1500).double()
    moved = points * 4000 + torch.tensor([1e5, -3e4, 7.0], dtype=torch.double)
    ours, theirs = encoder.encode(points), encoder.encode(moved)
    assert torch.allclose(ours.pooled, theirs.pooled, atol=1e-3)
    assert torch.allclose(
        ours.centers * 4000 + moved.mean(0) - 4000 * points.mean(0), theirs.centers, atol=1.0
    )


@pytest.mark.parametrize("up", ["x", "z"])
def test_axes_are_turned(encoder: PointEncoder, up: str) -> None:
    points = cloud(1500)
    turned = AlignUpAxis("y", up)(points[None])[0]
    ours, theirs = encoder.encode(points), encoder.encode(turned, up=up)
    assert torch.allclose(ours.pooled, theirs.pooled, atol=1e-4)
    assert torch.allclose(AlignUpAxis("y", up)(ours.centers[None])[0], theirs.centers, atol=1e-4)


def test_centers_are_points_of_the_cloud(encoder: PointEncoder) -> None:
    points = cloud(900) * 3 + 5
    centers = encoder.encode(points).centers
    assert pairwise_distances(centers, points).amin(1).max() < 1e-4


def test_dense_features_belong_to_the_points(encoder: PointEncoder) -> None:
    points = cloud(2500)
    dense = encoder.dense(points)
    assert dense.shape == (2500, 96)
    found = encoder.encode(points)
    nearest = pairwise_distances(found.centers, points).argmin(1)
    assert torch.allclose(dense[nearest], found.tokens, atol=1e-2)
    shuffled = torch.randperm(2500)
    shuffled[shuffled == 0], shuffled[0] = shuffled[0].clone(), 0  # sampling starts at the first
    assert torch.allclose(encoder.dense(points[shuffled]), dense[shuffled], atol=1e-3)


def test_density_hardly_matters(encoder: PointEncoder) -> None:
    generator = np.random.default_rng(0)
    reference = None
    for count in (1024, 2048, 8192):
        points = generator.normal(size=(count, 3))
        points = points / np.linalg.norm(points, axis=1, keepdims=True) * [1.0, 0.6, 0.3]
        pooled = encoder.encode(points).pooled
        reference = pooled if reference is None else reference
        assert torch.nn.functional.cosine_similarity(pooled, reference, dim=0) > 0.9


@pytest.mark.parametrize(
    ("points", "why"),
    [
        (
            torch.rand(40, 3),
            "cloud 0: has 40 points, the network cuts 64 patches of 32",
        ),
        ([torch.rand(99, 3), torch.rand(0, 3)], r"cloud 1: expected \(N, 3\), got \(0, 3\)"),
        ([torch.rand(99, 3), torch.rand(99, 2)], r"cloud 1: expected \(N, 3\), got \(99, 2\)"),
        (torch.full((99, 3), torch.nan), "cloud 0: a NaN or infinite coordinate at point 0"),
        ([], "expected a cloud, a batch or clouds, got list"),
        ("a.ply", "expected a cloud, a batch or clouds, got str"),
    ],
)
def test_wrong_clouds_are_numbered(encoder: PointEncoder, points: object, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        encoder.encode(points)


def test_wrong_settings_are_named(encoder: PointEncoder) -> None:
    with pytest.raises(ValueError, match="axis must be x, y or z, got 'up'"):
        PointEncoder(encoder.network, up="up")
    with pytest.raises(ValueError, match="dense features are of one cloud"):
        encoder.dense(torch.rand(2, 99, 3))


def test_a_stream_gives_what_a_list_gives_and_holds_a_batch_at_most(encoder: PointEncoder) -> None:
    clouds = [cloud(count, seed) for seed, count in enumerate((3000, 200, 1024, 77, 5000))]
    read = []

    def source() -> Iterator[torch.Tensor]:
        for number, points in enumerate(clouds):
            read.append(number)
            yield points

    stream = encoder.stream(source(), batch_size=2)
    first = next(stream)
    assert read == [0, 1]
    known = encoder.encode(clouds)
    for number, row in enumerate([first, *stream]):
        close(row, Features(*(None if f is None else f[number] for f in known)))


def test_bfloat16_gives_nearly_the_same_in_float32(encoder: PointEncoder) -> None:
    points = cloud(1500)
    fast = PointEncoder(PATH, precision="bf16", **TOLD).encode(points)
    known = encoder.encode(points)
    assert fast.pooled.dtype == torch.float32
    assert torch.cosine_similarity(fast.pooled, known.pooled, dim=0) > 0.999
    with pytest.raises(ValueError, match="precision must be one of 32, bf16, got 'half'"):
        PointEncoder(PATH, precision="half", **TOLD)
