"""Networks for others: folders with a model card, and the Hugging Face Hub."""

import re
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import Any

from recon.checkpoints.factory import Network
from recon.checkpoints.loading import build_metadata, load, read_task
from recon.checkpoints.provenance import read_provenance
from recon.checkpoints.writer import infer_network_task, write_pretrained_folder
from recon.models.classifier import Classifier
from recon.models.segmenter import Segmenter

USAGE_BY_TASK = {
    "pretrain": "`encoder.encode(points)` returns named features of clouds of any size, place and "
    "scale; `encoder.dense(points)` a feature for every point.",
    "classify": "`network(points)` returns scores of classes for clouds (B, N, 3), y up, as its "
    "tests saw them; `python -m recon.evaluate task=classify` does it for files.",
    "part_segment": "`python -m recon.segment` labels the points of files.",
    "scene_segment": "`python -m recon.segment` labels the points of files.",
}


def save_pretrained(
    checkpoint: str | Path | Network,
    folder: str | Path,
    *,
    repo_id: str | None = None,
    license: str | None = None,  # noqa: A002
    **settings: Any,
) -> Path:
    """Write config.json, model.safetensors and a model card, README.md, into a folder.

    `source` is whatever `load` reads, or a network. Of a file, the card is filled from the run's
    folder that it lies in: data, recipe, hardware, and figures with their protocols; what is not
    there is said to be unknown. `license` is that of the weights, by the Hub's short names.
    `told` are settings that released files do not tell, see `load`. Returns the folder.

    Raises what `load` raises, and FileExistsError for a folder that holds something else.
    """
    target = Path(folder)
    known = {"config.json", "model.safetensors", "README.md", ".gitattributes"}
    if target.is_dir() and (others := {path.name for path in target.iterdir()} - known):
        raise FileExistsError(
            f"{target}: holds other files, such as {sorted(others)[0]}: choose a new folder"
        )
    if isinstance(checkpoint, str | Path):
        task: Any = read_task(checkpoint)
        network: Network = load(checkpoint, task=task, **settings)
        origin = read_provenance(checkpoint)
    else:
        network, origin = checkpoint, {}
    write_pretrained_folder(network, target, origin)
    _card(network, origin, repo_id or target.resolve().name, license).save(target / "README.md")
    return target


def push_to_hub(
    checkpoint: str | Path | Network,
    repo_id: str,
    *,
    license: str | None = None,  # noqa: A002
    private: bool = True,
    token: str | None = None,
    **settings: Any,
) -> str:
    """Upload what `save_pretrained` writes to a repository of the Hub, made if need be.

    The repository is private unless told otherwise. Returns its address. Raises ValueError for a
    name that is none and ConnectionError in one line where the Hub refuses or cannot be reached.
    """
    from huggingface_hub import HfApi

    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", repo_id):
        raise ValueError(f"repo_id={repo_id}: must be <owner>/<name>")
    with tempfile.TemporaryDirectory() as scratch:
        saved = save_pretrained(
            checkpoint, Path(scratch) / "saved", repo_id=repo_id, license=license, **settings
        )
        api = HfApi(token=token)
        try:
            api.create_repo(repo_id, private=private, exist_ok=True)
            api.upload_folder(repo_id=repo_id, folder_path=saved, commit_message="Upload weights")
        except Exception as error:  # of the Hub, of the network, or of the card's head
            reason = " ".join(str(error).split("\n")[0].split())
            raise ConnectionError(
                f"{repo_id}: not uploaded ({reason}): log in by `hf auth login`, or save to a "
                "folder and upload that elsewhere"
            ) from error
    return f"https://huggingface.co/{repo_id}"


def _card(network: Network, origin: dict[str, Any], repo_id: str, licence: str | None) -> Any:
    """Fill the model card; what is unknown is left out of its head and said in its text."""
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

    task, data = infer_network_task(network), _known(origin.get("data"))
    name = repo_id.rpartition("/")[2]
    figures = [row for row in origin.get("metrics", []) if isinstance(row.get("value"), float)]
    results = [
        EvalResult(
            task_type="point-cloud",
            dataset_type="point-cloud",
            dataset_name=str(data.get("set", "unknown")),
            metric_type=row["measure"],
            metric_value=round(row["value"], 4),
            metric_args={"protocol": row["protocol"]},
        )
        for row in figures
    ]
    head = ModelCardData(
        license=licence,
        library_name="recon-pointcloud",
        tags=["point-cloud", "3d", "recon", task],
        model_name=name,
        eval_results=results or None,
    )
    return ModelCard.from_template(
        head,
        template_path=str(files("recon") / "assets" / "model_card.md.jinja"),
        name=name,
        repo_id=repo_id,
        task=task,
        what=_what(network, origin),
        use=USAGE_BY_TASK[task],
        facts=summarize_network(network),
        data=data,
        recipe=_known(origin.get("recipe")) | _trained(origin),
        hardware=_known(origin.get("hardware")),
        metrics=[format_metric(row) for row in figures],
        licence=licence,
        config=origin.get("config"),
    )


def _known(table: Any) -> dict[str, Any]:
    """Leave out what is unknown, and write lists and tables within in one line."""
    held = table.items() if isinstance(table, dict) else ()
    lines = {name: format_value(value) for name, value in held if value not in (None, "", [], {})}
    return {name: value for name, value in lines.items() if value}


def format_value(value: Any) -> str:
    """Write a value of a table: lists by commas, names with their values."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {format_value(item)}" for name, item in value.items())
    return ", ".join(map(format_value, value)) if isinstance(value, list | tuple) else str(value)


def _trained(origin: dict[str, Any]) -> dict[str, Any]:
    return {name: origin[name] for name in ("epoch", "step") if name in origin}


def format_metric(row: dict[str, Any]) -> dict[str, str]:
    """Return a figure as tables have it: fractions in %, what is none of them as it is."""
    value = row["value"]
    fraction = 0 <= value <= 1
    between = " to ".join(f"{100 * end:.1f} %" for end in row.get("interval", ()))
    written = f"{100 * value:.1f} %" if fraction else f"{value:g}"
    return {"measure": row["measure"], "value": written, "interval": between,
            "protocol": str(row["protocol"])}  # fmt: skip


def _what(network: Network, origin: dict[str, Any]) -> str:
    kind = {"Classifier": "classifier", "Segmenter": "segmenter"}.get(type(network).__name__)
    of = f"A {kind or 'pretrained encoder'} of point clouds ({type(network).__name__})"
    made = f", trained as `{origin['name']}`" if origin.get("name") else ""
    return f"{of}{made}. It was saved from: {origin.get('format', 'a network in memory')}."


def summarize_network(network: Network) -> dict[str, Any]:
    """Return what a network is, for tables: sizes, patches, queries, classes."""
    told = build_metadata(network)
    encoder = next(m for m in network.modules() if hasattr(m, "modalities"))
    classes = getattr(network, "num_classes", None)
    names = told.pop("classes", [])
    rows = {
        "network": type(network).__name__,
        "for": infer_network_task(network),
        "parameters": f"{sum(p.numel() for p in network.parameters()):,}",
        "width": getattr(encoder, "dim", None),
        "blocks": len(getattr(encoder, "blocks", [])) or None,
        "heads": told["num_heads"],
        "patches": f"{told['num_groups']} of {told['group_size']} points",
        "queries": ", ".join(getattr(encoder, "modalities", [])) or "none",
        "classes": classes and f"{classes}{': ' + ', '.join(names) if names else ''}",
    }
    if isinstance(network, Segmenter):
        rows |= {"channels of a point": network.channels, "axis up": network.up}
    elif not isinstance(network, Classifier):
        widths = network.projections.dims
        rows["projected to"] = ", ".join(f"{name} {width}" for name, width in widths.items())
    return {name: value for name, value in rows.items() if value not in (None, "")}
