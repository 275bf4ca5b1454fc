"""Nearest shapes: python -m recon.search features=features.parquet query="a chair with wheels".

Prints a table, and writes a page of the shapes that were found.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import hydra
from omegaconf import DictConfig

from recon.cli.config_dir import conf_dir
from recon.cli.errors import one_line_errors
from recon.cli.overrides import quote_override
from recon.cli.renamed_options import check_renamed_options
from recon.cli.runtime import resolve_device, silence_known_warnings

if TYPE_CHECKING:
    import numpy as np

    from recon.data.io.feature_table import FeatureTable
    from recon.reports.html_page import GalleryItem
    from recon.tasks.linear_probe import Neighbors
    from recon.teachers.base import Teacher

ALLOWED_TARGETS = (
    "recon.teachers.text.OpenClipTextTeacher",
    "recon.teachers.cached.CachedTextTeacher",
    "recon.data.datasets.furniture.asset_path",
)
"""What the configuration of a run may have built; the last finds files inside the package."""
CLOUD_COLORS = {"query": (232, 116, 59), "found": (120, 140, 170)}
"""Of clouds that have none of their own."""


class Query(NamedTuple):
    """What is looked for, as the table's column `column` has it."""

    column: str
    feature: "np.ndarray"
    standardize: bool
    description: str
    """In a sentence, what it was compared by."""
    views: "list[GalleryItem]"
    """The cloud, where it is one."""


def search(cfg: DictConfig) -> "Neighbors":
    """Find the shapes of a table nearest to a query, print and draw them."""
    # Imported here: they take seconds, which --help and a misspelt option need not wait for.
    from recon.data.io.feature_table import read_table_metadata
    from recon.tasks.linear_probe import nearest_neighbors

    silence_known_warnings()
    if not isinstance(cfg.top, int) or cfg.top < 1:
        raise ValueError(f"top must be a number from 1 on, got {cfg.top!r}")
    path = Path(cfg.features).expanduser()
    told = read_table_metadata(path)
    query = _cloud_query(cfg, told) if _is_file(cfg.query) else _sentence_query(cfg, told, path)
    table = _read(path, query)
    gallery = table.columns[query.column]
    hits = nearest_neighbors(query.feature[None], gallery, cfg.top, standardize=query.standardize)
    _show(cfg, table, query, hits)
    return hits


def _is_file(query: str) -> bool:
    """Tell a file from a sentence; raise FileNotFoundError for one that is not there."""
    from recon.data.io.shape import READERS

    path = Path(str(query)).expanduser()
    if path.suffix.lower() in READERS and not path.is_file():
        raise FileNotFoundError(f"query={query}: no such file, and no sentence ends so")
    if path.is_dir():
        raise ValueError(f"{query}: a folder: name one file, or write a sentence")
    return path.is_file()


def _read(path: Path, query: Query) -> "FeatureTable":
    """Read the column to compare with; raise ValueError where it is of another width."""
    from recon.data.io.feature_table import read_feature_table

    table = read_feature_table(path, [query.column])
    width = table.columns[query.column].shape[1]
    if width != len(query.feature):
        raise ValueError(
            f"{path}: its {query.column} has {width} features, the query {len(query.feature)}: "
            "choose the checkpoint, or the text teacher (teacher=...), that it was made with"
        )
    return table


def _checkpoint(cfg: DictConfig, told: dict[str, Any]) -> Path:
    """Return the checkpoint of the features, a file, a folder or a repository of the Hub.

    Raises FileNotFoundError for a path that is not there.
    """
    path = Path(cfg.checkpoint or told["source"]["checkpoint"]).expanduser()
    named = path.is_absolute() or path.suffix in (".ckpt", ".pth", ".pt", ".safetensors")
    if named and not path.exists():
        raise FileNotFoundError(
            f"{path}: the checkpoint of these features is not there: say where, checkpoint=<file>"
        )
    return path


def _cloud_query(cfg: DictConfig, told: dict[str, Any]) -> Query:
    """Encode a file as the table's shapes were; raise ValueError for other weights."""
    from torch import from_numpy

    from recon.checkpoints.reader import hash_weights
    from recon.data.io.feature_table import FEATURE_COLUMNS, build_preview
    from recon.data.io.shape import read_shape
    from recon.data.transforms import AlignUpAxis
    from recon.point_encoder import PointEncoder
    from recon.reports.html_page import GalleryItem

    if cfg.by not in FEATURE_COLUMNS:
        raise ValueError(f"by={cfg.by}: choose among {', '.join(FEATURE_COLUMNS)}")
    about, source = told["about"], told["source"]
    path = _checkpoint(cfg, told)
    device = resolve_device(cfg.device)
    encoder = PointEncoder(
        str(path), num_points=about["num_points"], device=device, **source["network"]
    )
    found = hash_weights(encoder.network.state_dict())
    if found != about["weights"]:
        raise ValueError(
            f"{path}: holds other weights ({found}) than made {cfg.features} "
            f"({about['weights']}): embed again, or name the right checkpoint="
        )
    cloud = read_shape(Path(cfg.query).expanduser(), about["num_surface_points"])
    upright = AlignUpAxis(cfg.up, "y")(from_numpy(cloud.points)[None])[0]
    feature = getattr(encoder.encode(upright, up="y"), cfg.by)
    if feature is None:
        raise ValueError(f"by={cfg.by}: {path} gives no such feature: by=pooled is always there")
    points, colors = build_preview(upright, cloud.colors, str(cfg.query))
    shown = GalleryItem(
        Path(cfg.query).name, _encoded(points.astype("f4") / 127, colors, "query"), "query"
    )
    how = f"cosine of {cfg.by} features, standardised over the table's shapes"
    return Query(cfg.by, feature.cpu().numpy(), True, how, [shown])


def _sentence_query(cfg: DictConfig, told: dict[str, Any], path: Path) -> Query:
    """Ask the text teacher that the network learned from about a sentence."""
    from recon.teachers.tfidf_fallback import encode_sentence

    sentence = str(cfg.query).strip()
    if not sentence:
        raise ValueError("query= is empty: write a sentence, or name a file of a shape")
    if "text_projected" not in told["columns"]:
        raise ValueError(
            f"{path}: its network projects no text query, so no sentence can be compared: embed "
            "with a network that learned from a text teacher"
        )
    asked = encode_sentence(_build_text_teacher(cfg, told), sentence)
    how = "cosine of the projected text query to the text teacher's feature of the sentence"
    if asked.neighbor_weights:
        told_of = ", ".join(f"{name!r}" for name in [*asked.neighbor_weights][:3])
        how += (
            ". The teacher is a cache that lacks this sentence; cached ones of like wording stood "
            f"for it: {told_of}"
        )
    return Query("text_projected", asked.feature.float().numpy(), False, how, [])


def _build_text_teacher(cfg: DictConfig, told: dict[str, Any]) -> "Teacher":
    """Build the text teacher that is chosen, or that the run of the checkpoint learned from.

    Of the run's config.yaml only teachers of this library are built, by names of open_clip's own
    list: those of a repository would bring code along.
    """
    from hydra.utils import instantiate

    from recon.checkpoints.run_config import get_nested, instantiate_allowed, read_config

    if cfg.get("teacher") is not None:
        return instantiate(cfg.teacher.text, _convert_="all")
    source = _checkpoint(cfg, told)
    folder = source if source.is_dir() else source.absolute().parent.parent
    run = folder / "config.yaml"
    cure = "choose the one that the network learned from, e.g. teacher=clip"
    node = get_nested(read_config(run), "teacher", "text") if run.is_file() else None
    if node is None or ":" in str(get_nested(node, "name")):
        raise ValueError(f"{run}: tells no text teacher: {cure}")
    return instantiate_allowed(node, ALLOWED_TARGETS, run, cure)


def _encoded(points: Any, colors: Any, kind: str) -> Any:
    import numpy as np

    from recon.reports.html_page import encode_cloud

    if colors is None:
        colors = np.tile(np.array(CLOUD_COLORS[kind], dtype=np.uint8), (len(points), 1))
    return encode_cloud(points, colors)


def _show(cfg: DictConfig, table: "FeatureTable", query: Query, hits: "Neighbors") -> None:
    """Print what was found, and write the page."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from recon.reports.html_page import GalleryItem, build_gallery, write_page

    rows, cosines = hits.indices[0].tolist(), hits.similarity[0].tolist()
    console = Console()
    shown = Table("", "cosine", "class", "path", box=SIMPLE)
    views = [*query.views]
    for place, (row, cosine, (points, colors)) in enumerate(
        zip(rows, cosines, table.read_previews(rows), strict=True), start=1
    ):
        label, name = table.labels[row] or "", table.paths[row]
        shown.add_row(str(place), f"{cosine:.3f}", escape(label), escape(name))
        caption = f"{place}. {name}{f' ({label})' if label else ''}, {cosine:.3f}"
        views.append(GalleryItem(caption, _encoded(points, colors, "found")))
    console.print(f"Nearest to {cfg.query}:", soft_wrap=True, highlight=False, markup=False)
    console.print(shown)
    console.print(query.description, soft_wrap=True, highlight=False, markup=False)
    out = Path(cfg.out).expanduser()
    out.parent.mkdir(parents=True, exist_ok=True)
    lead = f"{len(rows)} of {len(table.paths):,} shapes of {cfg.features}, by {query.description}."
    section = build_gallery("Found", "Drag to turn.", [views], columns=4, pixels=260)
    write_page(out, f"Nearest to {cfg.query}", lead, [section])
    console.print(f"written to {out}", soft_wrap=True, highlight=False)


@hydra.main(version_base="1.3", config_path=conf_dir(), config_name="search")
def main(cfg: DictConfig) -> None:
    """Search as the command line says; wrong input ends in one line."""
    with one_line_errors():
        search(cfg)


if __name__ == "__main__":
    check_renamed_options("search", sys.argv[1:])
    sys.argv[1:] = [quote_override(word, "query") for word in sys.argv[1:]]
    main()
