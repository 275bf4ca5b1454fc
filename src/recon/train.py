"""Pretrain: python -m recon.train experiment=pretrain_shapenet data.root=<ShapeNet55-34>."""

import signal
import sys
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

import hydra
from omegaconf import DictConfig, OmegaConf

from recon.cli.config_dir import conf_dir
from recon.cli.errors import one_line_errors
from recon.cli.renamed_options import check_renamed_options
from recon.cli.runtime import configure_malloc, silence_known_warnings
from recon.cli.validation import check_compile_strategy, check_devices, check_numbers, check_seeds
from recon.utils.atomic_write import write_atomic, write_lock
from recon.utils.scheduler_env import (
    is_rank_zero,
    is_restarted,
    read_final_metrics,
    write_final_metrics,
)

if TYPE_CHECKING:
    from lightning import Trainer


class TrainingResult(NamedTuple):
    """What a run ended with."""

    trainer: "Trainer"
    metrics: dict[str, Any]
    """Measures as they were logged last in training, before any test."""


def train(cfg: DictConfig) -> "Trainer":
    """Train as a composed configuration says; return the trainer."""
    return fit(cfg).trainer


def fit(cfg: DictConfig) -> TrainingResult:
    """Build task, data and trainer from a composed configuration, and train.

    Raises ValueError where another program writes into the folder.
    """
    path = Path(cfg.ckpt_path or ".")
    if cfg.ckpt_path and not path.is_file() and not any(path.parent.glob("*.ckpt")):
        raise FileNotFoundError(f"{path}: no such checkpoint to resume from")
    check_numbers(cfg)
    check_compile_strategy(cfg)
    if not is_rank_zero():
        _check_unused(cfg)  # or it would wait for a first one that has ended
        return _train(cfg)
    with write_lock(
        Path(cfg.output_dir), "wait for it, or choose another folder, output_dir=<new>"
    ):
        _check_unused(cfg)
        return _train(cfg)


def _check_unused(cfg: DictConfig) -> None:
    """Raise ValueError for a folder with the checkpoints of a run that this one does not go on."""
    last = Path(cfg.output_dir) / "checkpoints" / "last.ckpt"
    if last.is_file() and not cfg.ckpt_path and not is_restarted():
        raise ValueError(
            f"{last}: is of an earlier run: go on with ckpt_path={last}, or choose another folder, "
            "output_dir=<new>"
        )


def _train(cfg: DictConfig) -> TrainingResult:
    _ = cfg.started  # its clock runs from here
    # Imported here: they take seconds, which --help and a misspelt option need not wait for.
    from hydra.utils import instantiate
    from lightning import seed_everything

    from recon.callbacks.loggers import logger_session
    from recon.checkpoints.resuming import check_resumable
    from recon.models.inference import compile_parts

    cfg.ckpt_path = _resumed_from(cfg)
    silence_known_warnings()
    configure_malloc()
    seed_everything(cfg.seed, verbose=False)
    data = instantiate(cfg.data, _convert_="all")
    data.setup("fit")  # what is missing is said before teachers are fetched
    if "eval" in cfg and data.test_split is None:
        raise ValueError(
            f"nothing to test on: set data.test_split to one of {', '.join(data.splits)}"
        )
    if cfg.num_classes is None:
        of_points = cfg.label_level == "point"
        cfg.num_classes = len(data.dataset.point_classes if of_points else data.dataset.classes)
    if "num_object_classes" in cfg and cfg.num_object_classes is None:
        cfg.num_object_classes = len(data.dataset.classes)
    OmegaConf.resolve(cfg)
    task = instantiate(cfg.task, _convert_="all")
    data.keys |= task.keys
    if cfg.ckpt_path:
        check_resumable(Path(cfg.ckpt_path), task)
    if cfg.compile:
        compile_parts(task.model)
    trainer = _trainer(cfg)
    if trainer.is_global_zero:
        _save(cfg)
    with logger_session(trainer, task, OmegaConf.to_container(cfg)):
        trained = TrainingResult(trainer, _run(cfg, trainer, task, data))
    if trainer.is_global_zero:
        write_final_metrics(Path(cfg.output_dir), trained.metrics)
    return trained


def _resumed_from(cfg: DictConfig) -> str | None:
    """Return the checkpoint to resume from: of a job started again its own, else the one told."""
    from recon.callbacks.checkpoints import find_intact_checkpoint
    from recon.callbacks.requeue import find_requeue_checkpoint

    if found := find_requeue_checkpoint(Path(cfg.output_dir)):
        if is_rank_zero():
            print(f"started again by the cluster: going on from {found}", flush=True)
        return str(found)
    return str(find_intact_checkpoint(Path(cfg.ckpt_path))) if cfg.ckpt_path else None


def _run(cfg: DictConfig, trainer: "Trainer", task: Any, data: Any) -> dict[str, Any]:
    """Train, and test where the configuration has a protocol of it; return what training logged."""
    from lightning.pytorch.utilities.exceptions import SIGTERMException

    from recon.callbacks.checkpoints import print_resume_hint
    from recon.callbacks.graceful_stop import forward_signals

    try:
        with forward_signals(trainer):
            trainer.fit(task, data, ckpt_path=cfg.ckpt_path)
    except BaseException as error:
        print_resume_hint(trainer)
        if isinstance(error, SIGTERMException):  # its own code is 0, as if all were done
            sys.exit(128 + signal.SIGTERM)
        raise
    measured = dict(trainer.callback_metrics)
    if "eval" in cfg:
        # The test split is read here for the first time, by the checkpoint that the validation
        # split selected, or the last one where nothing selects.
        selected = getattr(trainer.checkpoint_callback, "monitor", None) is not None
        trainer.test(task, data, ckpt_path="best" if selected else None, verbose=False)
    return measured


def _trainer(cfg: DictConfig) -> "Trainer":
    """Build the trainer, its batch statistics shared on CPUs too if they shall be."""
    from hydra.utils import instantiate

    from recon.callbacks.sync_batchnorm import SyncBatchNormPlugin

    check_devices(cfg.trainer)
    told: dict[str, Any] = {"logger": instantiate(cfg.logger)}
    told["callbacks"] = [instantiate(found, _convert_="all") for found in cfg.callbacks.values()]
    if cfg.trainer.get("sync_batchnorm"):
        told["plugins"] = [*instantiate(cfg.trainer.get("plugins", [])), SyncBatchNormPlugin()]
    return instantiate(cfg.trainer, **told, _convert_="all")


def select_objective(cfg: DictConfig, metrics: Mapping[str, Any]) -> float | None:
    """Return what a search optimizes, the last value logged as `objective`; None without one.

    Raises ValueError for a measure that was not logged.
    """
    if cfg.objective is None:
        return None
    if cfg.objective not in metrics:
        raise ValueError(f"objective={cfg.objective}: not logged, but {', '.join(sorted(metrics))}")
    return float(metrics[cfg.objective])


def _measured(cfg: DictConfig) -> Mapping[str, Any]:
    """Train, and return what was logged last; of a run that its job finished before, what was."""
    found = read_final_metrics(Path(cfg.output_dir))
    return fit(cfg).metrics if found is None else found


def train_seeds(cfg: DictConfig) -> float | None:
    """Train once for each of `seeds`, in folders of their own; print mean and deviation.

    Returns the mean objective, None without one.
    """
    from recon.cli.multirun import collect_results
    from recon.reports.comparison import report_comparison

    if cfg.ckpt_path:
        raise ValueError("one checkpoint resumes one run: set seed, not seeds")
    seeds = check_seeds(cfg.seeds)
    folder, reached = Path(cfg.output_dir), []
    for seed in seeds:
        one = deepcopy(cfg)
        one.seed, one.seeds, one.output_dir = seed, None, str(folder / f"seed_{seed}")
        reached.append(select_objective(cfg, _measured(one)))
    report_comparison(collect_results({"": [folder / f"seed_{seed}" for seed in seeds]}), folder)
    return None if cfg.objective is None else fmean(value for value in reached if value is not None)


def _save(cfg: DictConfig) -> None:
    """Print the resolved configuration; keep it, hardware and versions in the run's folder."""
    from rich import print as show
    from rich.syntax import Syntax

    from recon.checkpoints.provenance import write_environment

    text = OmegaConf.to_yaml(cfg)
    folder = Path(cfg.output_dir)
    write_atomic(folder / "config.yaml", text.encode())
    write_environment(folder)
    show(Syntax(text, "yaml", background_color="default"))


@hydra.main(version_base="1.3", config_path=conf_dir(), config_name="train")
def main(cfg: DictConfig) -> float | None:
    """Train as the command line says; wrong input ends in one line, of one job of a multirun too.

    Returns the objective that a search optimizes.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from recon.cli.multirun import clear_failure, run_job

    def job() -> float | None:
        return select_objective(cfg, _measured(cfg)) if cfg.seeds is None else train_seeds(cfg)

    cfg.output_dir = HydraConfig.get().runtime.output_dir  # each job of a sweep has its own
    clear_failure(Path(cfg.output_dir))
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        return run_job(job, Path(cfg.output_dir))
    with one_line_errors():
        return job()


if __name__ == "__main__":
    check_renamed_options("train", sys.argv[1:])
    try:
        main()
    except KeyboardInterrupt:  # between two jobs of a multirun
        sys.exit("stopped")
