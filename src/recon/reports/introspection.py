"""Look into a network: what it rebuilds, what its queries attend to, how its features lie."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
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

MAX_TSNE_SHAPES = 1000
"""Shapes of a map of features."""
NUM_NEIGHBORS = 6


def pick_example_rows(labels: Int[np.ndarray, " n"], count: int) -> list[int]:
    """Choose some shapes, of different classes where there are some, the same ones every time."""
    present = np.unique(labels[labels >= 0])
    if not len(present):
        return np.unique(np.linspace(0, len(labels) - 1, count).round().astype(int)).tolist()
    some = present[np.unique(np.linspace(0, len(present) - 1, count).round().astype(int))]
    return [int(np.flatnonzero(labels == label)[0]) for label in some]


def read_upright_clouds(
    data: PointCloudDataModule, dataset: PointCloudDataset, rows: Sequence[int], num_points: int
) -> tuple[list[int], Float[Tensor, "n p 3"]]:
    """Read some shapes upright in the unit sphere, the farthest `points` of each, and their rows.

    Those that cannot be read are left out where the data skip such.
    """
    turn = AlignUpAxis(dataset.up, data.target_up or dataset.up, mirror=dataset.mirrored)
    kept, found, subset = [], [], FarthestPointSample(num_points)
    for row in rows:
        try:
            cloud = dataset.sample_cloud(row, row)
        except (ValueError, OSError):
            if data.on_error != "skip":
                raise
            continue
        cloud = resample_cloud(cloud, data.num_points or max(num_points, len(cloud.points)), row)
        whole = UnitSphere()(turn(torch.from_numpy(cloud.points)[None].float()))
        found.append(subset(whole) if whole.shape[1] > num_points else whole)
        kept.append(row)
    if not found:
        raise ValueError(f"none of {len(rows)} shapes to look at can be read")
    return kept, torch.cat(found)


@torch.no_grad()
def compute_pooled_features(
    network: Any, clouds: Float[Tensor, "n p 3"], *, batch_size: int = 64
) -> Float[np.ndarray, "n e"]:
    """Encode whole clouds by a network in evaluation mode, for maps and neighbours."""
    device, training = next(network.parameters()).device, network.training
    network.eval()
    pooled = [network.encode(some.to(device)).pooled().cpu() for some in clouds.split(batch_size)]
    network.train(training)
    return torch.cat(pooled).float().numpy()


@torch.no_grad()
def reconstruct_shapes(
    task: Pretraining, names: Sequence[str], clouds: Float[Tensor, "n p 3"], shown: Sequence[Cloud]
) -> list[ReconstructedShape]:
    """Hide patches of some shapes and rebuild them; none where the student rebuilds nothing."""
    if task.mask is None or not hasattr(task.model, "decoder"):
        return []
    network = task.model.eval()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        patches = network.grouper(clouds.to(task.device))
        mask = task.mask(patches.centers)
    out = network.forward_patches(patches, mask)
    whole = patches.points + patches.centers.unsqueeze(2)
    made = (out.predicted + patches.centers[mask].unsqueeze(1)).view(len(clouds), -1, 3)
    return [
        ReconstructedShape(
            name=name,
            points=shown[row].points,
            colors=np.asarray(shown[row].colors, dtype=np.uint8),
            visible=whole[row][~mask[row]].flatten(0, 1).cpu().numpy(),
            reconstructed=made[row].cpu().numpy(),
        )
        for row, name in enumerate(names)
    ]


@torch.no_grad()
def attention_maps(
    network: Any, names: Sequence[str], clouds: Float[Tensor, "n p 3"]
) -> list[AttentionMap]:
    """Tell what each query attends to in the last block, by the mean of its heads.

    Weights of patches are carried to the points by three-nearest interpolation. Nothing for
    networks without queries that attend to tokens.
    """
    stream: Any = getattr(getattr(network, "encoder", None), "queries", None)
    if not isinstance(stream, nn.Module):
        return []
    blocks: Any = stream.get_submodule("blocks")
    attention = blocks[-1].attn
    assert isinstance(attention, CrossAttention)
    asked: list[Tensor] = []
    hook = attention.register_forward_pre_hook(
        lambda layer, given: asked.append(layer.attention_maps(*given).mean(1))
    )
    training = network.training
    try:
        encoding = network.eval().encode(clouds.to(next(network.parameters()).device))
    finally:
        hook.remove()
        network.train(training)
    near = three_nn(clouds.to(encoding.centers), encoding.centers)
    carried = three_interpolate(asked[0].mT.float(), near).cpu().numpy()
    return [
        AttentionMap(
            name,
            clouds[row].numpy(),
            {query: carried[row, :, n] for n, query in enumerate(encoding.queries)},
        )
        for row, name in enumerate(names)
    ]


def tsne(
    features: Float[np.ndarray, "n e"],
    labels: Int[np.ndarray, " n"],
    names: Sequence[str],
    classes: Sequence[str],
) -> TSNEEmbedding | None:
    """Lay out standardised features in a plane by t-SNE [1]; None for fewer than five shapes.

    Of many shapes, some are taken, evenly spaced.

    [1] van der Maaten and Hinton, JMLR 9, 2008 (as scikit-learn has it).
    """
    if len(features) < 5:
        return None
    rows = np.unique(np.linspace(0, len(features) - 1, MAX_TSNE_SHAPES).round().astype(int))
    scaled = StandardScaler().fit_transform(features[rows])
    perplexity = min(30.0, (len(rows) - 1) / 3)
    places = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(scaled)
    places = (places - places.min(0)) / np.maximum(np.ptp(places, axis=0), 1e-9)
    known = labels[rows] if len(labels) else np.full(len(rows), -1)
    return TSNEEmbedding(places, known, [names[row] for row in rows], list(classes))


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
    """Show the shapes of a gallery nearest to some of others, which begin the rows.

    `rows` are the places of both in the data set, all of them by default. Without another data set
    for it, the gallery is the queries, and each is left out of its own row.
    """
    found = nearest_neighbors(
        queries[list(query_rows)], gallery, NUM_NEIGHBORS + 1
    ).indices.tolist()
    places = range(len(queries)) if rows is None else rows
    shown = []
    for first, near in zip(query_rows, found, strict=True):
        entries = [(dataset, places[first])]
        if gallery_dataset is None:
            entries += [(dataset, places[other]) for other in near if other != first]
        else:
            entries += [(gallery_dataset, other) for other in near]
        own = _label(dataset, places[first])
        shown.append(
            [
                (_told(source, row, own), encode_image(_picture(source, row)))
                for source, row in entries[: NUM_NEIGHBORS + 1]
            ]
        )
    return Section("neighbors", "Nearest in feature space", note, {"rows": shown})


def _told(dataset: PointCloudDataset, row: int, own: str) -> dict[str, Any]:
    label = _label(dataset, row)
    name = getattr(dataset, "names", dataset.ids)[row]
    return {"name": name, "label": label, "same": bool(label) and label == own}


def _label(dataset: PointCloudDataset, row: int) -> str:
    known = len(dataset.labels) and dataset.labels[row] >= 0
    return dataset.classes[dataset.labels[row]] if known else ""


def _picture(dataset: PointCloudDataset, row: int) -> Any:
    if isinstance(dataset, Furniture):
        return dataset.image(row)
    cloud = resample_cloud(dataset.sample_cloud(row, row), 2048, row)
    return render_cloud(cloud, up=dataset.up, size=128)
