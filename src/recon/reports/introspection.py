"""Compute reconstructions, attention maps, t-SNE and nearest neighbors for reports."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from sklearn.manifold import TSNE
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from recon.data.datamodule import PointCloudDataModule
from recon.data.dataset import Cloud, PointCloudDataset, resample_cloud
from recon.data.datasets.furniture import Furniture
from recon.data.render import render_cloud
from recon.data.transforms import AlignUpAxis, FarthestPointSample, UnitSphere
from recon.layers.attention import CrossAttention
from recon.ops.interpolation import three_interpolate, three_nn
from recon.reports.html_page import Section, encode_image
from recon.reports.report_data import AttentionMap, ReconstructedShape, TSNEEmbedding
from recon.tasks.linear_probe import nearest_neighbors
from recon.tasks.pretrain import Pretraining
from recon.tasks.training_mode import evaluation_mode

MAX_TSNE_SHAPES = 1000
"""Maximum number of shapes in a t-SNE embedding."""
MIN_TSNE_SHAPES = 5
"""Minimum number of shapes for a t-SNE embedding."""
NUM_NEIGHBORS = 6
"""Number of nearest neighbors shown per query shape."""
NUM_RENDERED_POINTS = 2048
"""Number of points of a shape in a rendered thumbnail."""


def pick_example_rows(labels: Int[np.ndarray, " n"], count: int) -> list[int]:
    """Choose up to `count` rows deterministically: one per class, or evenly spaced if unlabeled."""
    classes = np.unique(labels[labels >= 0])
    if not len(classes):
        return np.unique(np.linspace(0, len(labels) - 1, count).round().astype(int)).tolist()
    selected = classes[np.unique(np.linspace(0, len(classes) - 1, count).round().astype(int))]
    return [int(np.flatnonzero(labels == label)[0]) for label in selected]


def read_upright_clouds(
    data: PointCloudDataModule, dataset: PointCloudDataset, rows: Sequence[int], num_points: int
) -> tuple[list[int], Float[Tensor, "n p 3"]]:
    """Read shapes as upright clouds in the unit sphere, reduced by farthest point sampling.

    Returns the rows that were read and their clouds. Unreadable shapes are skipped if the data
    module has `on_error=skip`. Raises ValueError if none can be read.
    """
    align = AlignUpAxis(dataset.up, data.target_up or dataset.up, mirror=dataset.mirrored)
    normalize, subsample = UnitSphere(), FarthestPointSample(num_points)
    read_rows, clouds = [], []
    for row in rows:
        try:
            cloud = dataset.sample_cloud(row, row)
        except (ValueError, OSError):
            if data.on_error != "skip":
                raise
            continue
        cloud = resample_cloud(cloud, data.num_points or max(num_points, len(cloud.points)), row)
        points = normalize(align(torch.from_numpy(cloud.points)[None].float()))
        clouds.append(subsample(points) if points.shape[1] > num_points else points)
        read_rows.append(row)
    if not clouds:
        raise ValueError(f"none of the {len(rows)} shapes chosen for the report can be read")
    return read_rows, torch.cat(clouds)


@torch.no_grad()
def compute_pooled_features(
    network: Any, clouds: Float[Tensor, "n p 3"], *, batch_size: int = 64
) -> Float[np.ndarray, "n e"]:
    """Encode unmasked clouds by a network in evaluation mode; return the pooled features."""
    device, batches = next(network.parameters()).device, clouds.split(batch_size)
    with evaluation_mode(network):
        pooled = [network.encode(batch.to(device)).pooled().cpu() for batch in batches]
    return torch.cat(pooled).float().numpy()


@torch.no_grad()
def reconstruct_shapes(
    task: Pretraining,
    names: Sequence[str],
    clouds: Float[Tensor, "n p 3"],
    originals: Sequence[Cloud],
) -> list[ReconstructedShape]:
    """Mask patches of shapes and reconstruct them; empty if the student has no decoder."""
    if task.mask is None or not hasattr(task.model, "decoder"):
        return []
    network = task.model
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        patches = network.grouper(clouds.to(task.device))
        mask = task.mask(patches.centers)
    with evaluation_mode(network):
        out = network.forward_patches(patches, mask)
    absolute = patches.points + patches.centers.unsqueeze(2)
    reconstructed = out.predicted + patches.centers[mask].unsqueeze(1)
    reconstructed = reconstructed.view(len(clouds), -1, 3)
    return [
        ReconstructedShape(
            name=name,
            points=originals[row].points,
            colors=np.asarray(originals[row].colors, dtype=np.uint8),
            visible=absolute[row][~mask[row]].flatten(0, 1).cpu().numpy(),
            reconstructed=reconstructed[row].cpu().numpy(),
        )
        for row, name in enumerate(names)
    ]


@torch.no_grad()
def attention_maps(
    network: Any, names: Sequence[str], clouds: Float[Tensor, "n p 3"]
) -> list[AttentionMap]:
    """Return the attention of each query to the points in the last block, averaged over heads.

    Attention weights of patches are upsampled to points by 3-NN interpolation. Empty for networks
    without queries that attend to tokens.
    """
    stream: Any = getattr(getattr(network, "encoder", None), "queries", None)
    if not isinstance(stream, nn.Module):
        return []
    blocks: Any = stream.get_submodule("blocks")
    attention = blocks[-1].attn
    assert isinstance(attention, CrossAttention)
    recorded: list[Tensor] = []
    hook = attention.register_forward_pre_hook(
        lambda layer, inputs: recorded.append(layer.attention_maps(*inputs).mean(1))
    )
    try:
        with evaluation_mode(network):
            encoding = network.encode(clouds.to(next(network.parameters()).device))
    finally:
        hook.remove()
    nearest = three_nn(clouds.to(encoding.centers), encoding.centers)
    weights = three_interpolate(recorded[0].mT.float(), nearest).cpu().numpy()
    return [
        AttentionMap(
            name,
            clouds[row].numpy(),
            {query: weights[row, :, n] for n, query in enumerate(encoding.queries)},
        )
        for row, name in enumerate(names)
    ]


def tsne(
    features: Float[np.ndarray, "n e"],
    labels: Int[np.ndarray, " n"],
    names: Sequence[str],
    classes: Sequence[str],
) -> TSNEEmbedding | None:
    """Embed standardized features in two dimensions by t-SNE [1].

    At most `MAX_TSNE_SHAPES` evenly spaced shapes are embedded. None for fewer than
    `MIN_TSNE_SHAPES` shapes.

    [1] van der Maaten and Hinton, JMLR 9, 2008 (implementation of scikit-learn).
    """
    if len(features) < MIN_TSNE_SHAPES:
        return None
    rows = np.unique(np.linspace(0, len(features) - 1, MAX_TSNE_SHAPES).round().astype(int))
    scaled = StandardScaler().fit_transform(features[rows])
    perplexity = min(30.0, (len(rows) - 1) / 3)
    coordinates = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(scaled)
    extent = np.maximum(np.ptp(coordinates, axis=0), 1e-9)
    coordinates = (coordinates - coordinates.min(0)) / extent
    row_labels = labels[rows] if len(labels) else np.full(len(rows), -1)
    return TSNEEmbedding(coordinates, row_labels, [names[row] for row in rows], list(classes))


def build_neighbor_section(
    queries: Float[np.ndarray, "n e"],
    query_rows: Sequence[int],
    gallery: Float[np.ndarray, "m e"],
    dataset: PointCloudDataset,
    rows: Sequence[int] | None = None,
    *,
    gallery_dataset: PointCloudDataset | None = None,
    note: str,
) -> Section:
    """Build a section of query shapes, each followed by its nearest neighbors in the gallery.

    `rows` are the dataset rows of `queries`, by default all rows of `dataset`. Without
    `gallery_dataset` the gallery is `queries` itself, and a query is not its own neighbor.
    """
    nearest = nearest_neighbors(
        queries[list(query_rows)], gallery, NUM_NEIGHBORS + 1
    ).indices.tolist()
    dataset_rows = range(len(queries)) if rows is None else rows
    neighbor_rows = []
    for query, neighbors in zip(query_rows, nearest, strict=True):
        entries = [(dataset, dataset_rows[query])]
        if gallery_dataset is None:
            entries += [(dataset, dataset_rows[other]) for other in neighbors if other != query]
        else:
            entries += [(gallery_dataset, other) for other in neighbors]
        query_label = _get_class_name(dataset, dataset_rows[query])
        neighbor_rows.append(
            [
                (_describe_shape(source, row, query_label), encode_image(_render_row(source, row)))
                for source, row in entries[: NUM_NEIGHBORS + 1]
            ]
        )
    return Section("neighbors", "Nearest neighbors", note, {"rows": neighbor_rows})


def _describe_shape(dataset: PointCloudDataset, row: int, query_label: str) -> dict[str, Any]:
    label = _get_class_name(dataset, row)
    name = getattr(dataset, "names", dataset.ids)[row]
    return {"name": name, "label": label, "same": bool(label) and label == query_label}


def _get_class_name(dataset: PointCloudDataset, row: int) -> str:
    labeled = len(dataset.labels) and dataset.labels[row] >= 0
    return dataset.classes[dataset.labels[row]] if labeled else ""


def _render_row(dataset: PointCloudDataset, row: int) -> Image.Image:
    if isinstance(dataset, Furniture):
        return dataset.image(row)
    cloud = resample_cloud(dataset.sample_cloud(row, row), NUM_RENDERED_POINTS, row)
    return render_cloud(cloud, up=dataset.up, size=128)
