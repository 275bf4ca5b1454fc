"""Find the shapes of a table nearest to a shape or a sentence, and show them on an HTML page.

python -m recon.search features=features.parquet query="a chair with wheels"
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import hydra
from omegaconf import DictConfig

from recon.cli.config_dir import conf_dir
from recon.cli.errors import one_line_errors
from recon.cli.program import run_program
from recon.cli.run_summary import print_config
from recon.cli.runtime import silence_known_warnings
from recon.utils.device import resolve_device

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
"""Classes and functions that the configuration of a run may instantiate."""
CLOUD_COLORS = {"query": (232, 116, 59), "neighbor": (120, 140, 170)}
"""Colors of clouds without colors of their own, RGB."""


class Query(NamedTuple):
    """A feature to search for, comparable with a column of the table."""

    column: str
    feature: "np.ndarray"
    """(D,)."""
    standardize: bool
    """Whether features are standardized over the table before they are compared."""
    description: str
    """Description of the comparison, for the output."""
    views: "list[GalleryItem]"
    """The query's cloud; empty for a sentence."""


def search(cfg: DictConfig) -> "Neighbors":
    """Find the `top` shapes of a table nearest to a query, print them and write the page.

    Raises ValueError or FileNotFoundError for invalid options and files.
    """
    # Imported here since it takes seconds: --help and errors in options appear at once.
    from recon.data.io.feature_table import read_table_metadata
    from recon.tasks.linear_probe import nearest_neighbors
    from recon.utils.progress import show_status

    silence_known_warnings()
    if not isinstance(cfg.top, int) or cfg.top < 1:
        raise ValueError(f"top must be an integer of at least 1, got {cfg.top!r}")
    path = Path(cfg.features).expanduser()
    if not path.exists():
        raise FileNotFoundError(
            f"features={cfg.features}: there is no such table: write it first, python -m "
            f"recon.embed checkpoint=<checkpoint> files=<your shapes> out={cfg.features}"
        )
    metadata = read_table_metadata(path)
    print_config(cfg)
    is_file = _is_file(cfg.query)
    with show_status("encoding the query"):
        if is_file:
            query = _build_cloud_query(cfg, metadata)
        else:
            query = _build_sentence_query(cfg, metadata, path)
    with show_status(f"comparing it with {path}"):
        table = _read_column(path, query)
        gallery = table.columns[query.column]
        neighbors = nearest_neighbors(
            query.feature[None], gallery, cfg.top, standardize=query.standardize
        )
    _show_neighbors(cfg, table, query, neighbors)
    return neighbors


def _is_file(query: str) -> bool:
    """Return whether a query is a file, not a sentence; raise FileNotFoundError if missing."""
    from recon.data.io.shape import READERS

    path = Path(str(query)).expanduser()
    if path.suffix.lower() in READERS and not path.is_file():
        raise FileNotFoundError(f"query={query}: file not found: check the path")
    if path.is_dir():
        raise ValueError(f"query={query}: is a folder: choose one file, or write a sentence")
    return path.is_file()


def _read_column(path: Path, query: Query) -> "FeatureTable":
    """Read the query's column of the table; raise ValueError if its width differs."""
    from recon.data.io.feature_table import read_feature_table

    table = read_feature_table(path, [query.column])
    width = table.columns[query.column].shape[1]
    if width != len(query.feature):
        raise ValueError(
            f"{path}: its {query.column} has {width} features, the query {len(query.feature)}: "
            "choose the checkpoint (checkpoint=...) or text teacher (teacher=...) of this table"
        )
    return table


def _find_checkpoint(cfg: DictConfig, metadata: dict[str, Any]) -> Path:
    """Return the checkpoint of the features: a file, a folder or a repository of the Hub.

    Raises FileNotFoundError for a missing file.
    """
    path = Path(cfg.checkpoint or metadata["source"]["checkpoint"]).expanduser()
    is_local = path.is_absolute() or path.suffix in (".ckpt", ".pth", ".pt", ".safetensors")
    if is_local and not path.exists():
        raise FileNotFoundError(
            f"{path}: the checkpoint of these features is not found: set checkpoint=<file>"
        )
    return path


def _build_cloud_query(cfg: DictConfig, metadata: dict[str, Any]) -> Query:
    """Encode a file like the table's shapes; raise ValueError if the weights differ."""
    from torch import from_numpy

    from recon.checkpoints.reader import hash_weights
    from recon.data.datasets.shape_reader import ShapeReader
    from recon.data.io.feature_table import FEATURE_COLUMNS
    from recon.data.io.feature_writer import build_preview
    from recon.data.orientation import turn_cloud
    from recon.point_encoder import PointEncoder
    from recon.reports.html_page import GalleryItem

    if cfg.by not in FEATURE_COLUMNS:
        raise ValueError(f"by={cfg.by}: choose among {', '.join(FEATURE_COLUMNS)}")
    provenance, checkpoint_info = metadata["about"], metadata["source"]
    path = _find_checkpoint(cfg, metadata)
    device = resolve_device(cfg.device)
    encoder = PointEncoder(
        str(path),
        num_points=provenance["num_points"],
        device=device,
        **checkpoint_info["network"],
    )
    weights = hash_weights(encoder.network.state_dict())
    if weights != provenance["weights"]:
        raise ValueError(
            f"{path}: has other weights (hash {weights}) than the checkpoint of {cfg.features} "
            f"(hash {provenance['weights']}): set checkpoint= to that checkpoint, or embed again"
        )
    # Tables of earlier versions have no up axis: it was y.
    reading = {"up": "y", **provenance, **({"up": cfg.up} if cfg.up else {})}
    reader = ShapeReader.from_options(reading)
    cloud = turn_cloud(reader.read(Path(cfg.query).expanduser()), reader.cloud_up, "y")
    upright = from_numpy(cloud.points)
    feature = getattr(encoder.encode(upright, up="y"), cfg.by)
    if feature is None:
        raise ValueError(f"by={cfg.by}: {path} does not provide this feature: choose by=pooled")
    points, colors = build_preview(upright, cloud.colors, str(cfg.query))
    encoded = _encode_preview(points.astype("f4") / 127, colors, "query")
    view = GalleryItem(Path(cfg.query).name, encoded, "query")
    description = f"cosine similarity of {cfg.by} features, standardized over the table"
    return Query(cfg.by, feature.cpu().numpy(), True, description, [view])


def _build_sentence_query(cfg: DictConfig, metadata: dict[str, Any], path: Path) -> Query:
    """Encode a sentence by the text teacher that the network was trained with."""
    from recon.teachers.tfidf_fallback import encode_sentence

    sentence = str(cfg.query).strip()
    if not sentence:
        raise ValueError("query= is empty: write a sentence, or choose a file of a shape")
    if "text_projected" not in metadata["columns"]:
        raise ValueError(
            f"{path}: has no column text_projected, so sentences cannot be compared: embed with a "
            "network that was trained with a text teacher"
        )
    encoded = encode_sentence(_build_text_teacher(cfg, metadata), sentence)
    description = (
        "cosine similarity of projected text queries and the text teacher's feature of the sentence"
    )
    if encoded.neighbor_weights:
        names = ", ".join(f"{name!r}" for name in [*encoded.neighbor_weights][:3])
        description += (
            ". The teacher is a cache without this sentence; its feature is the weighted mean of "
            f"cached sentences with similar words: {names}"
        )
    return Query("text_projected", encoded.feature.float().numpy(), False, description, [])


def _build_text_teacher(cfg: DictConfig, metadata: dict[str, Any]) -> "Teacher":
    """Build the text teacher chosen by `teacher=`, or else that of the checkpoint's run.

    From a run's config.yaml, only teachers of this library are built, and only with model names of
    open_clip's own list: models of a repository could run its code.
    """
    from hydra.utils import instantiate

    from recon.checkpoints.run_config import get_nested, instantiate_allowed, read_config

    if cfg.get("teacher") is not None:
        return instantiate(cfg.teacher.text, _convert_="all")
    checkpoint = _find_checkpoint(cfg, metadata)
    folder = checkpoint if checkpoint.is_dir() else checkpoint.absolute().parent.parent
    config = folder / "config.yaml"
    hint = "choose the one that the network was trained with, e.g. teacher=clip"
    node = get_nested(read_config(config), "teacher", "text") if config.is_file() else None
    if node is None or ":" in str(get_nested(node, "name")):
        raise ValueError(f"{config}: specifies no text teacher: {hint}")
    return instantiate_allowed(node, ALLOWED_TARGETS, config, hint)


def _encode_preview(points: Any, colors: Any, kind: str) -> Any:
    import numpy as np

    from recon.reports.html_page import encode_cloud

    if colors is None:
        colors = np.tile(np.array(CLOUD_COLORS[kind], dtype=np.uint8), (len(points), 1))
    return encode_cloud(points, colors)


def _show_neighbors(
    cfg: DictConfig, table: "FeatureTable", query: Query, neighbors: "Neighbors"
) -> None:
    """Print a table of the nearest shapes, and write the page."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from recon.reports.html_page import GalleryItem, build_gallery, write_page

    rows, cosines = neighbors.indices[0].tolist(), neighbors.similarity[0].tolist()
    console = Console()
    printed_table = Table("rank", "cosine", "class", "path", box=SIMPLE)
    views = [*query.views]
    for rank, (row, cosine, (points, colors)) in enumerate(
        zip(rows, cosines, table.read_previews(rows), strict=True), start=1
    ):
        label, name = table.labels[row] or "", table.paths[row]
        printed_table.add_row(str(rank), f"{cosine:.3f}", escape(label), escape(name))
        caption = f"{rank}. {name}{f' ({label})' if label else ''}, {cosine:.3f}"
        views.append(GalleryItem(caption, _encode_preview(points, colors, "neighbor")))
    title = f"Nearest shapes to {cfg.query}"
    console.print(f"{title}:", soft_wrap=True, highlight=False, markup=False)
    console.print(printed_table)
    console.print(query.description, soft_wrap=True, highlight=False, markup=False)
    out = Path(cfg.out).expanduser()
    out.parent.mkdir(parents=True, exist_ok=True)
    lead = f"{len(rows)} of {len(table.paths):,} shapes of {cfg.features}, by {query.description}."
    section = build_gallery("Nearest shapes", "Drag to rotate.", [views], columns=4, pixels=260)
    write_page(out, title, lead, [section])
    console.print(f"written to {out}", soft_wrap=True, highlight=False)


@hydra.main(version_base="1.3", config_path=conf_dir(), config_name="search")
def main(cfg: DictConfig) -> None:
    """Search by command line options; errors are printed in one line."""
    with one_line_errors():
        search(cfg)


if __name__ == "__main__":
    run_program("search", main)
