"""Save networks with a model card, and upload them to the Hugging Face Hub."""

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
    "pretrain": "`encoder.encode(points)` returns named features of clouds of any size, position "
    "and scale; `encoder.dense(points)` returns a feature for every point.",
    "classify": "`network(points)` returns class logits for clouds (B, N, 3), y up, prepared like "
    "its test clouds; `python -m recon.evaluate task=classify` classifies files.",
    "part_segment": "`python -m recon.segment` labels the points of files.",
    "scene_segment": "`python -m recon.segment` labels the points of files.",
}
"""How to use a network, in the model card."""


def save_pretrained(
    checkpoint: str | Path | Network,
    folder: str | Path,
    *,
    repo_id: str | None = None,
    license: str | None = None,  # noqa: A002
    **settings: Any,
) -> Path:
    """Write config.json, model.safetensors and a model card, README.md, into a folder.

    `checkpoint` is anything that `load` reads, or a network. For a file, the card describes the
    data, recipe, hardware and metrics with their protocols, from the run's folder around the file;
    unknown values are stated. `license` is the license of the weights, by the Hub's identifiers.
    `settings` are arguments of `load` that released files need. Returns the folder.

    Raises what `load` raises, and FileExistsError for a folder with other files.
    """
    target = Path(folder)
    written_names = {"config.json", "model.safetensors", "README.md", ".gitattributes"}
    if target.is_dir() and (
        other_names := {path.name for path in target.iterdir()} - written_names
    ):
        raise FileExistsError(
            f"{target}: holds other files, such as {sorted(other_names)[0]}: choose a new folder"
        )
    if isinstance(checkpoint, str | Path):
        task: Any = read_task(checkpoint)
        network: Network = load(checkpoint, task=task, **settings)
        provenance = read_provenance(checkpoint)
    else:
        network, provenance = checkpoint, {}
    write_pretrained_folder(network, target, provenance)
    card = _build_model_card(network, provenance, repo_id or target.resolve().name, license)
    card.save(target / "README.md")
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
    """Upload the files of `save_pretrained` to a Hub repository, which is created if needed.

    The repository is private by default. Returns its address. Raises ValueError for an invalid
    name, and ConnectionError with a one-line message if the Hub refuses or is unavailable.
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
        except Exception as error:  # from the Hub, the network, or the check of the card's header
            reason = " ".join(str(error).split("\n")[0].split())
            raise ConnectionError(
                f"{repo_id}: not uploaded ({reason}): log in by `hf auth login`, or save to a "
                "folder and upload it by other means"
            ) from error
    return f"https://huggingface.co/{repo_id}"


def _build_model_card(
    network: Network, provenance: dict[str, Any], repo_id: str, license_id: str | None
) -> Any:
    """Fill the model card; unknown values are absent in its header and stated in its text."""
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

    task, data = infer_network_task(network), _format_table(provenance.get("data"))
    name = repo_id.rpartition("/")[2]
    metrics = [row for row in provenance.get("metrics", []) if isinstance(row.get("value"), float)]
    results = [
        EvalResult(
            task_type="point-cloud",
            dataset_type="point-cloud",
            dataset_name=str(data.get("set", "unknown")),
            metric_type=row["measure"],
            metric_value=round(row["value"], 4),
            metric_args={"protocol": row["protocol"]},
        )
        for row in metrics
    ]
    header = ModelCardData(
        license=license_id,
        library_name="recon-pointcloud",
        tags=["point-cloud", "3d", "recon", task],
        model_name=name,
        eval_results=results or None,
    )
    return ModelCard.from_template(
        header,
        template_path=str(files("recon") / "assets" / "model_card.md.jinja"),
        name=name,
        repo_id=repo_id,
        task=task,
        summary=_summarize_origin(network, provenance),
        usage=USAGE_BY_TASK[task],
        architecture=summarize_network(network),
        data=data,
        recipe=_format_table(provenance.get("recipe")) | _select_progress(provenance),
        hardware=_format_table(provenance.get("hardware")),
        metrics=[format_metric(row) for row in metrics],
        license_id=license_id,
        config=provenance.get("config"),
    )


def _format_table(table: Any) -> dict[str, Any]:
    """Drop unknown values; format nested lists and tables as one line."""
    rows = table.items() if isinstance(table, dict) else ()
    lines = {name: format_value(value) for name, value in rows if value not in (None, "", [], {})}
    return {name: value for name, value in lines.items() if value}


def format_value(value: Any) -> str:
    """Format a value of a table: lists joined by commas, mappings as names with values."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {format_value(item)}" for name, item in value.items())
    return ", ".join(map(format_value, value)) if isinstance(value, list | tuple) else str(value)


def _select_progress(provenance: dict[str, Any]) -> dict[str, Any]:
    return {name: provenance[name] for name in ("epoch", "step") if name in provenance}


def format_metric(row: dict[str, Any]) -> dict[str, str]:
    """Format a metric for tables: values in [0, 1] as percentages, others unchanged."""
    value = row["value"]
    is_fraction = 0 <= value <= 1
    interval = " to ".join(f"{100 * end:.1f} %" for end in row.get("interval", ()))
    text = f"{100 * value:.1f} %" if is_fraction else f"{value:g}"
    return {"measure": row["measure"], "value": text, "interval": interval,
            "protocol": str(row["protocol"])}  # fmt: skip


def _summarize_origin(network: Network, provenance: dict[str, Any]) -> str:
    kind = {"Classifier": "classifier", "Segmenter": "segmenter"}.get(type(network).__name__)
    title = f"A {kind or 'pretrained encoder'} of point clouds ({type(network).__name__})"
    run = f", trained as `{provenance['name']}`" if provenance.get("name") else ""
    return f"{title}{run}. It was saved from: {provenance.get('format', 'a network in memory')}."


def summarize_network(network: Network) -> dict[str, Any]:
    """Return a network's properties for tables: sizes, patches, queries, classes."""
    metadata = build_metadata(network)
    encoder = next(m for m in network.modules() if hasattr(m, "modalities"))
    num_classes = getattr(network, "num_classes", None)
    names = metadata.pop("classes", [])
    rows = {
        "network": type(network).__name__,
        "task": infer_network_task(network),
        "parameters": f"{sum(p.numel() for p in network.parameters()):,}",
        "width": getattr(encoder, "dim", None),
        "blocks": len(getattr(encoder, "blocks", [])) or None,
        "heads": metadata["num_heads"],
        "patches": f"{metadata['num_groups']} of {metadata['group_size']} points",
        "queries": ", ".join(getattr(encoder, "modalities", [])) or "none",
        "classes": num_classes and f"{num_classes}{': ' + ', '.join(names) if names else ''}",
    }
    if isinstance(network, Segmenter):
        rows |= {"channels per point": network.channels, "up axis": network.up}
        if network.num_objects:
            objects = ", ".join(network.object_names)
            rows["object classes"] = ": ".join(filter(None, [str(network.num_objects), objects]))
    elif not isinstance(network, Classifier):
        widths = network.projections.dims
        rows["projection widths"] = ", ".join(f"{name} {width}" for name, width in widths.items())
    return {name: value for name, value in rows.items() if value not in (None, "")}
