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
from recon.data.dataset import Cloud, PointCloudDataset, resize
from recon.data.datasets.furniture import Furniture
from recon.data.render import render
from recon.data.transforms import FarthestSubset, UnitSphere, UpAxis
from recon.layers.attention import CrossAttention
from recon.ops.interpolation import interpolate, three_nearest
from recon.reports.html_page import Section, encode_image
from recon.reports.report_data import Attended, Plane, Rebuilt
from recon.tasks.linear_probe import nearest
from recon.tasks.pretrain import Pretraining

MOST = 1000
"""Shapes of a map of features."""
NEIGHBOURS = 6


def spread(labels: Int[np.ndarray, " n"], count: int) -> list[int]:
    """Choose some shapes, of different classes where there are some, the same ones every time."""
    present = np.unique(labels[labels >= 0])
    if not len(present):
        return np.unique(np.linspace(0, len(labels) - 1, count).round().astype(int)).tolist()
    some = present[np.unique(np.linspace(0, len(present) - 1, count).round().astype(int))]
    return [int(np.flatnonzero(labels == label)[0]) for label in some]


def clouds_of_rows(
    data: PointCloudDataModule, dataset: PointCloudDataset, rows: Sequence[int], points: int
) -> tuple[list[int], Float[Tensor, "n p 3"]]:
    """Read some shapes upright in the unit sphere, the farthest `points` of each, and their rows.

    Those that cannot be read are left out where the data skip such.
    """
    turn = UpAxis(dataset.up, data.up or dataset.up, mirror=dataset.mirrored)
    kept, found, subset = [], [], FarthestSubset(points)
    for row in rows:
        try:
            cloud = dataset.draw(row, row)
        except (ValueError, OSError):
            if data.on_error != "skip":
                raise
            continue
        cloud = resize(cloud, data.size or max(points, len(cloud.points)), row)
        whole = UnitSphere()(turn(torch.from_numpy(cloud.points)[None].float()))
        found.append(subset(whole) if whole.shape[1] > points else whole)
        kept.append(row)
    if not found:
        raise ValueError(f"none of {len(rows)} shapes to look at can be read")
    return kept, torch.cat(found)


@torch.no_grad()
def pooled_features(
    network: Any, clouds: Float[Tensor, "n p 3"], *, batch_size: int = 64
) -> Float[np.ndarray, "n e"]:
    """Encode whole clouds by a network in evaluation mode, for maps and neighbours."""
    device, training = next(network.parameters()).device, network.training
    network.eval()
    pooled = [network.encode(some.to(device)).pooled().cpu() for some in clouds.split(batch_size)]
    network.train(training)
    return torch.cat(pooled).float().numpy()


@torch.no_grad()
def rebuild(
    task: Pretraining, names: Sequence[str], clouds: Float[Tensor, "n p 3"], shown: Sequence[Cloud]
) -> list[Rebuilt]:
    """Hide patches of some shapes and rebuild them; none where the student rebuilds nothing."""
    if task.mask is None or not hasattr(task.model, "decoder"):
        return []
    network = task.model.eval()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        patches = network.grouper(clouds.to(task.device))
        mask = task.mask(patches.centers)
    out = network.rebuild(patches, mask)
    whole = patches.points + patches.centers.unsqueeze(2)
    made = (out.predicted + patches.centers[mask].unsqueeze(1)).view(len(clouds), -1, 3)
    return [
        Rebuilt(
            name=name,
            points=shown[row].points,
            colors=np.asarray(shown[row].colors, dtype=np.uint8),
            visible=whole[row][~mask[row]].flatten(0, 1).cpu().numpy(),
            rebuilt=made[row].cpu().numpy(),
        )
        for row, name in enumerate(names)
    ]


@torch.no_grad()
def attend(network: Any, names: Sequence[str], clouds: Float[Tensor, "n p 3"]) -> list[Attended]:
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
        lambda layer, given: asked.append(layer.weights(*given).mean(1))
    )
    training = network.training
    try:
        encoding = network.eval().encode(clouds.to(next(network.parameters()).device))
    finally:
        hook.remove()
        network.train(training)
    near = three_nearest(clouds.to(encoding.centers), encoding.centers)
    carried = interpolate(asked[0].mT.float(), near).cpu().numpy()
    return [
        Attended(
            name,
            clouds[row].numpy(),
            {query: carried[row, :, n] for n, query in enumerate(encoding.queries)},
        )
        for row, name in enumerate(names)
    ]


def lay_out(
    features: Float[np.ndarray, "n e"],
    labels: Int[np.ndarray, " n"],
    names: Sequence[str],
    classes: Sequence[str],
) -> Plane | None:
    """Lay out standardised features in a plane by t-SNE [1]; None for fewer than five shapes.

    Of many shapes, some are taken, evenly spaced.

    [1] van der Maaten and Hinton, JMLR 9, 2008 (as scikit-learn has it).
    """
    if len(features) < 5:
        return None
    rows = np.unique(np.linspace(0, len(features) - 1, MOST).round().astype(int))
    scaled = StandardScaler().fit_transform(features[rows])
    perplexity = min(30.0, (len(rows) - 1) / 3)
    places = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(scaled)
    places = (places - places.min(0)) / np.maximum(np.ptp(places, axis=0), 1e-9)
    known = labels[rows] if len(labels) else np.full(len(rows), -1)
    return Plane(places, known, [names[row] for row in rows], list(classes))


def neighbours(
    queries: Float[np.ndarray, "n e"],
    chosen: Sequence[int],
    gallery: Float[np.ndarray, "m e"],
    dataset: PointCloudDataset,
    rows: Sequence[int] | None = None,
    *,
    gallery_of: PointCloudDataset | None = None,
    note: str,
) -> Section:
    """Show the shapes of a gallery nearest to some of others, which begin the rows.

    `rows` are the places of both in the data set, all of them by default. Without another data set
    for it, the gallery is the queries, and each is left out of its own row.
    """
    found = nearest(queries[list(chosen)], gallery, NEIGHBOURS + 1).rows.tolist()
    places = range(len(queries)) if rows is None else rows
    shown = []
    for first, near in zip(chosen, found, strict=True):
        entries = [(dataset, places[first])]
        if gallery_of is None:
            entries += [(dataset, places[other]) for other in near if other != first]
        else:
            entries += [(gallery_of, other) for other in near]
        own = _label(dataset, places[first])
        shown.append(
            [
                (_told(source, row, own), encode_image(_picture(source, row)))
                for source, row in entries[: NEIGHBOURS + 1]
            ]
        )
    return Section("neighbours", "Nearest in feature space", note, {"rows": shown})


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
    cloud = resize(dataset.draw(row, row), 2048, row)
    return render(cloud, up=dataset.up, size=128)
