"""Print a short summary of a run before it starts; the whole configuration is in config.yaml."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from recon.utils.printable import escape_control_chars, format_count

if TYPE_CHECKING:
    from lightning import Trainer

TASK_NAMES = {
    "ReConStudent": "ReCon, generative and contrastive students",
    "GenerativeStudent": "generative student",
    "ContrastiveStudent": "contrastive students",
    "Classification": "classifier",
    "PartSegmentation": "part segmenter",
    "SceneSegmentation": "scene segmenter",
}
"""What is trained, by the class of the task; other classes are named as they are."""


def print_summary(title: str, rows: Mapping[str, str | None]) -> None:
    """Print a title and one aligned line per row; rows without a text are left out."""
    from rich.console import Console

    console = Console(soft_wrap=True, highlight=False, markup=False)
    console.print(escape_control_chars(title), style="bold")
    shown = {name: text for name, text in rows.items() if text}
    width = max(map(len, shown), default=0)
    for name, text in shown.items():
        console.print(f"  {name:{width}}  {escape_control_chars(text)}")
    console.print()


def print_config(cfg: DictConfig) -> None:
    """Print the whole configuration if it asks for this, `print_config=true`."""
    if not cfg.get("print_config"):
        return
    from rich import print as rich_print
    from rich.syntax import Syntax

    rich_print(Syntax(OmegaConf.to_yaml(cfg), "yaml", background_color="default"))


def describe_training(cfg: DictConfig, task: Any, data: Any, trainer: "Trainer") -> dict[str, Any]:
    """Return the rows of the summary of a training run."""
    folder = shorten_path(cfg.output_dir)
    return {
        "train": _describe_task(cfg, task),
        "data": _describe_data(data, cfg.num_points),
        "network": describe_network(getattr(task, "model", task)),
        "weights": _describe_start(cfg),
        "length": _describe_length(data, trainer, cfg.trainer.get("max_time")),
        "batch": _describe_batch(data, trainer),
        "optimizer": _describe_optimizer(cfg),
        "device": _describe_device(trainer, cfg),
        "seed": str(cfg.seed),
        "output": folder,
        "options": f"{folder}/config.yaml has them all, print_config=true prints them",
        "stop": "Ctrl-C, at any step",
        "resume": f"the same command with ckpt_path={folder}/checkpoints/last.ckpt",
    }


def _describe_task(cfg: DictConfig, task: Any) -> str:
    name = type(task).__name__
    teachers = getattr(getattr(task, "ensemble", None), "teachers", {})
    names = ", ".join(f"{modality} ({type(t).__name__})" for modality, t in teachers.items())
    parts = [TASK_NAMES.get(name, name), f"teachers: {names}" if names else ""]
    if "eval" in cfg:
        parts.append(f"{cfg.num_classes} classes, eval.selection={cfg.eval.selection}")
    return "; ".join(part for part in parts if part)


def _describe_data(data: Any, num_points: int) -> str:
    """Return the data set, its splits with their numbers of samples, and the points per sample."""
    counts = [f"{format_count(len(data.dataset), 'sample')} of {_join(data.split)}"]
    if hasattr(data, "val_dataset"):
        split = data.val_split and _join(data.val_split)
        counts.append(f"{len(data.val_dataset):,} {f'of {split}' if split else 'held out'}")
    if data.test_split is not None:
        counts.append(f"tested on {_join(data.test_split)}")
    points = format_count(num_points, "point")
    return f"{describe_source(data)}: {', '.join(counts)}; {points} each"


def describe_source(data: Any) -> str:
    """Return the name of a data set, and its folder unless it is bundled."""
    name = type(data).__name__.removesuffix("DataModule")
    is_bundled = data.root.is_relative_to(Path(__file__).parents[1])
    return name if is_bundled else f"{name} in {shorten_path(data.root)}"


def _join(split: str | Sequence[str]) -> str:
    return split if isinstance(split, str) else "+".join(split)


def describe_network(network: Any) -> str:
    """Return the number of parameters, and the sizes that a network tells."""
    count = sum(parameter.numel() for parameter in network.parameters())
    parts = [f"{count / 1e6:.2f} M parameters"]
    if frozen := sum(p.numel() for p in network.parameters() if not p.requires_grad):
        parts.append(f"{frozen / 1e6:.2f} M of them frozen")
    encoder, grouper = getattr(network, "encoder", None), getattr(network, "grouper", None)
    blocks, width = getattr(encoder, "blocks", ()), getattr(encoder, "dim", None)
    if blocks and width:
        parts.append(f"{format_count(len(blocks), 'block')} of width {width}")
    if grouper is not None:
        parts.append(f"{grouper.groups} patches of {grouper.group_size} points")
    return ", ".join(parts)


def _describe_start(cfg: DictConfig) -> str:
    if cfg.ckpt_path:
        return f"resumed from {shorten_path(cfg.ckpt_path)}"
    return f"from {shorten_path(cfg.checkpoint)}" if cfg.checkpoint else "random initialization"


def count_steps(data: Any, trainer: "Trainer") -> tuple[int, int | None]:
    """Return the batches of an epoch and the optimizer steps of the run, None if unlimited."""
    from recon.data.sampler import compute_epoch_size

    size = compute_epoch_size(
        len(data.dataset), data.batch_size, trainer.world_size, drop_last=data.drop_last
    )
    batches = -(-size // (data.batch_size * trainer.world_size))
    limit: Any = trainer.limit_train_batches
    if isinstance(limit, int):
        batches = min(batches, limit)
    elif isinstance(limit, float) and limit < 1:
        batches = int(batches * limit)
    limits = [trainer.max_steps] if trainer.max_steps >= 0 else []
    if trainer.max_epochs is not None and trainer.max_epochs >= 0:
        limits.append(trainer.max_epochs * -(-batches // trainer.accumulate_grad_batches))
    return batches, min(limits, default=None)


def _describe_length(data: Any, trainer: "Trainer", max_time: Any) -> str:
    batches, steps = count_steps(data, trainer)
    per_epoch = format_count(-(-batches // trainer.accumulate_grad_batches), "step")
    epochs = trainer.max_epochs
    time = f", at most {max_time} (trainer.max_time)" if max_time else ""
    if steps is None:
        return f"epochs of {per_epoch}, without a limit{time}"
    if steps == trainer.max_steps:
        return f"{format_count(steps, 'step')} (trainer.max_steps), {per_epoch} an epoch{time}"
    return f"{format_count(epochs or 0, 'epoch')} of {per_epoch}, {steps:,} in all{time}"


def _describe_batch(data: Any, trainer: "Trainer") -> str:
    size, processes = data.batch_size, trainer.world_size
    windows, total = trainer.accumulate_grad_batches, data.batch_size
    text = format_count(size, "sample")
    if processes > 1:
        text, total = f"{text} x {processes} processes", total * processes
    if windows > 1:
        text, total = f"{text} x {windows} accumulated", total * windows
    return text if total == size else f"{text} = {total:,}"


def _describe_optimizer(cfg: DictConfig) -> str:
    def iter_parts() -> Iterator[str]:
        if not cfg.get("optimizer"):
            return
        yield str(cfg.optimizer.get("_target_", "")).rpartition(".")[2]
        for name, title in (("lr", "rate"), ("weight_decay", "weight decay")):
            if cfg.optimizer.get(name) is not None:
                yield f"{title} {cfg.optimizer[name]:g}"
        scheduler = OmegaConf.select(cfg, "task.scheduler")
        if scheduler:
            yield f"schedule {str(scheduler.get('_target_', '')).rpartition('.')[2]}"
            if scheduler.get("warmup_t"):
                yield format_count(scheduler.warmup_t, "warm-up epoch")

    return ", ".join(iter_parts())


def _describe_device(trainer: "Trainer", cfg: DictConfig) -> str:
    import torch

    device = trainer.strategy.root_device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type.upper()
    threads = format_count(torch.get_num_threads(), "thread")
    processes = f", {trainer.world_size} processes" if trainer.world_size > 1 else ""
    workers = format_count(int(cfg.data.get("num_workers") or 0), "data worker")
    cores = f" of {os.cpu_count()} cores" if device.type == "cpu" else ""
    return f"{name}{processes}, precision {trainer.precision}, {threads}{cores}, {workers}"


def shorten_path(path: str | Path) -> str:
    """Return a path relative to the working directory if it is inside it."""
    path = Path(path)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
