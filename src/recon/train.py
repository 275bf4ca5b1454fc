"""Train a network: python -m recon.train experiment=pretrain_shapenet data.root=<ShapeNet55-34>."""

import signal
import sys
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import hydra
from omegaconf import DictConfig, OmegaConf

from recon.cli.config_dir import conf_dir
from recon.cli.errors import format_error, one_line_errors
from recon.cli.named_transforms import compose_named_transforms
from recon.cli.options.unused_options import check_options_have_effect
from recon.cli.program import run_program
from recon.cli.run_summary import describe_training, print_config, print_summary
from recon.cli.runtime import configure_malloc, silence_known_warnings
from recon.cli.validation import check_devices, check_seeds, check_training
from recon.utils.atomic_write import write_atomic, write_lock
from recon.utils.run_log import run_log
from recon.utils.scheduler_env import (
    is_rank_zero,
    is_restarted,
    read_final_metrics,
    write_final_metrics,
)

if TYPE_CHECKING:
    from lightning import Trainer


class TrainingResult(NamedTuple):
    """Result of a training run."""

    trainer: "Trainer"
    metrics: dict[str, Any]
    """Last logged values of training metrics, before any test."""


def train(cfg: DictConfig) -> "Trainer":
    """Train from a composed configuration; return the trainer."""
    return fit(cfg).trainer


def fit(cfg: DictConfig) -> TrainingResult:
    """Build task, data and trainer from a composed configuration, and train.

    Raises ValueError if another program writes into the output folder.
    """
    path = Path(cfg.ckpt_path or ".")
    if cfg.ckpt_path and not path.is_file() and not any(path.parent.glob("*.ckpt")):
        raise FileNotFoundError(f"{path}: no such checkpoint to resume from")
    check_training(cfg)
    if not is_rank_zero():
        _check_output_dir(cfg)  # else it would wait for a first process that has exited
        return _train(cfg)
    folder = Path(cfg.output_dir)
    with write_lock(folder, "wait for it, or choose another folder, output_dir=<new>"):
        _check_output_dir(cfg)
        with run_log(folder, describe_error=format_error):
            return _train(cfg)


def _check_output_dir(cfg: DictConfig) -> None:
    """Raise ValueError if the folder has checkpoints of an earlier run that is not resumed."""
    last = Path(cfg.output_dir) / "checkpoints" / "last.ckpt"
    if last.is_file() and not cfg.ckpt_path and not is_restarted():
        raise ValueError(
            f"{last}: belongs to an earlier run: resume it with ckpt_path={last}, or choose "
            "another folder, output_dir=<new>"
        )


def _train(cfg: DictConfig) -> TrainingResult:
    _ = cfg.started  # resolves the start time now
    # Imported here, because they take seconds that --help and misspelled options should not cost.
    from hydra.utils import instantiate
    from lightning import seed_everything

    from recon.callbacks.loggers import logger_session
    from recon.checkpoints.resuming import check_resumable
    from recon.models.inference import compile_parts

    cfg.ckpt_path = _find_resume_checkpoint(cfg)
    silence_known_warnings()
    configure_malloc()
    seed_everything(cfg.seed, verbose=False)
    compose_named_transforms(cfg, cfg.num_points)
    data = instantiate(cfg.data, _convert_="all")
    data.setup("fit")  # reports missing data before teachers are downloaded
    if "eval" in cfg and data.test_split is None:
        raise ValueError(
            f"nothing to test on: set data.test_split to one of {', '.join(data.splits)}"
        )
    _set_num_classes(cfg, data.dataset)
    if not data.has_published_classes():
        cfg.published = None  # results of other classes
    OmegaConf.resolve(cfg)
    task = instantiate(cfg.task, _convert_="all")
    data.keys |= task.keys
    if cfg.ckpt_path:
        check_resumable(Path(cfg.ckpt_path), task, data, _to_plain(cfg))
    if cfg.compile:
        compile_parts(task.model)
    trainer = _build_trainer(cfg)
    if trainer.is_global_zero:
        _save_config(cfg)
        print_summary(str(cfg.name), describe_training(cfg, task, data, trainer))
    with logger_session(trainer, task, _to_plain(cfg)):
        result = TrainingResult(trainer, _fit_and_test(cfg, trainer, task, data))
    if trainer.is_global_zero:
        write_final_metrics(Path(cfg.output_dir), result.metrics)
    return result


def _to_plain(cfg: DictConfig) -> dict[str, Any]:
    """Return a resolved configuration as plain values."""
    return cast(dict[str, Any], OmegaConf.to_container(cfg))


def _set_num_classes(cfg: DictConfig, dataset: Any) -> None:
    """Set numbers of classes that the configuration leaves open to those of the data set."""
    if cfg.num_classes is None:
        is_per_point = cfg.label_level == "point"
        cfg.num_classes = len(dataset.point_classes if is_per_point else dataset.classes)
    if "num_object_classes" in cfg and cfg.num_object_classes is None:
        cfg.num_object_classes = len(dataset.classes)


def _find_resume_checkpoint(cfg: DictConfig) -> str | None:
    """Return the checkpoint to resume from: a restarted job's own, else that of `ckpt_path`."""
    from recon.callbacks.checkpoints import find_intact_checkpoint
    from recon.callbacks.requeue import find_requeue_checkpoint

    if checkpoint := find_requeue_checkpoint(Path(cfg.output_dir)):
        if is_rank_zero():
            print(f"started again by the cluster: resuming from {checkpoint}", flush=True)
        return str(checkpoint)
    return str(find_intact_checkpoint(Path(cfg.ckpt_path))) if cfg.ckpt_path else None


def _fit_and_test(cfg: DictConfig, trainer: "Trainer", task: Any, data: Any) -> dict[str, Any]:
    """Train, and test if the configuration has `eval`; return the metrics logged in training."""
    from lightning.pytorch.utilities.exceptions import SIGTERMException

    from recon.callbacks.checkpoints import print_resume_hint
    from recon.callbacks.graceful_stop import forward_signals

    try:
        with forward_signals(trainer):
            trainer.fit(task, data, ckpt_path=cfg.ckpt_path)
    except BaseException as error:
        print_resume_hint(trainer)
        if isinstance(error, SIGTERMException):  # it would exit with code 0, as if finished
            sys.exit(128 + signal.SIGTERM)
        raise
    metrics = dict(trainer.callback_metrics)
    if "eval" in cfg:
        # This is the first use of the test split.
        checkpoint = _choose_tested_checkpoint(trainer)
        trainer.test(task, data, ckpt_path=checkpoint, verbose=False)
    return metrics


def _choose_tested_checkpoint(trainer: "Trainer") -> str | None:
    """Return "best" for the checkpoint selected by validation, None for the last weights.

    If a limit ended training before its first validation, this is said, also in the results.
    """
    selection: Any = trainer.checkpoint_callback
    if getattr(selection, "monitor", None) is None:
        return None
    if selection.best_model_path:
        return "best"
    if trainer.is_global_zero:
        print("training ended before its first validation: testing the last weights", flush=True)
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if hasattr(callback, "selection"):
            callback.selection = "last"
    return None


def _build_trainer(cfg: DictConfig) -> "Trainer":
    """Build the trainer, with synchronized BatchNorm on CPUs too if it is enabled."""
    from hydra.utils import instantiate
    from lightning.pytorch.callbacks import Checkpoint, ProgressBar

    from recon.callbacks.loggers import SpawnedProcessLog, add_csv_logger
    from recon.callbacks.resuming import ExactResume
    from recon.callbacks.sync_batchnorm import SyncBatchNormPlugin

    check_devices(cfg.trainer)
    chosen = [item for item in cfg.callbacks.values() if item is not None]
    callbacks = [instantiate(item, _convert_="all") for item in chosen]
    options: dict[str, Any] = {
        "logger": add_csv_logger(instantiate(cfg.get("logger")), cfg.output_dir),
        "callbacks": [
            ExactResume(_to_plain(cfg)),
            *callbacks,
            SpawnedProcessLog(cfg.output_dir),
        ],
    }
    # Lightning adds its own checkpoints and progress bar if a run switches off those it has.
    for name, kind in (("enable_checkpointing", Checkpoint), ("enable_progress_bar", ProgressBar)):
        options[name] = cfg.trainer.get(name, any(isinstance(item, kind) for item in callbacks))
    if cfg.trainer.get("sync_batchnorm"):
        options["plugins"] = [*instantiate(cfg.trainer.get("plugins", [])), SyncBatchNormPlugin()]
    return instantiate(cfg.trainer, **options, _convert_="all")


def select_objective(cfg: DictConfig, metrics: Mapping[str, Any]) -> float | None:
    """Return the last logged value of the metric `objective`; None if no objective is set.

    Raises ValueError for a metric that was not logged.
    """
    if cfg.objective is None:
        return None
    if cfg.objective not in metrics:
        raise ValueError(
            f"objective={cfg.objective}: not logged, choose one of {', '.join(sorted(metrics))}"
        )
    return float(metrics[cfg.objective])


def _train_or_read_metrics(cfg: DictConfig) -> Mapping[str, Any]:
    """Train and return the final metrics; read them if a restarted job finished this run before."""
    metrics = read_final_metrics(Path(cfg.output_dir))
    return fit(cfg).metrics if metrics is None else metrics


def train_seeds(cfg: DictConfig) -> float | None:
    """Train once for each of `seeds`, each in its own folder; print mean and standard deviation.

    Returns the mean objective, None if no objective is set.
    """
    from recon.cli.multirun_results import collect_results, collect_seeds
    from recon.reports.comparison import report_comparison

    if cfg.ckpt_path:
        raise ValueError("ckpt_path resumes a single run: set seed instead of seeds")
    seeds = check_seeds(cfg.seeds)
    folder, objectives = Path(cfg.output_dir), []
    for seed in seeds:
        seed_cfg = deepcopy(cfg)
        seed_cfg.seed, seed_cfg.seeds = seed, None
        seed_cfg.output_dir = str(folder / f"seed_{seed}")
        objectives.append(select_objective(cfg, _train_or_read_metrics(seed_cfg)))
    runs = {"": [folder / f"seed_{seed}" for seed in seeds]}
    report_comparison(collect_results(runs), folder, collect_seeds(runs))
    if cfg.objective is None:
        return None
    return fmean(value for value in objectives if value is not None)


def _save_config(cfg: DictConfig) -> None:
    """Save the resolved configuration, hardware and versions in the run's folder."""
    from recon.checkpoints.provenance import write_environment

    folder = Path(cfg.output_dir)
    write_atomic(folder / "config.yaml", OmegaConf.to_yaml(cfg).encode())
    write_environment(folder)
    print_config(cfg)


@hydra.main(version_base="1.3", config_path=conf_dir(), config_name="train")
def main(cfg: DictConfig) -> float | None:
    """Train from the command line; wrong input exits with one line, or fails one multirun job.

    Returns the objective of a search.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from recon.cli.multirun import clear_failure, run_job

    def job() -> float | None:
        check_options_have_effect(cfg, HydraConfig.get().overrides.task)
        if cfg.seeds is not None:
            return train_seeds(cfg)
        return select_objective(cfg, _train_or_read_metrics(cfg))

    cfg.output_dir = HydraConfig.get().runtime.output_dir  # each job of a sweep has its own
    clear_failure(Path(cfg.output_dir))
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        return run_job(job, Path(cfg.output_dir))
    with one_line_errors():
        return job()


if __name__ == "__main__":
    try:
        run_program("train", main)
    except KeyboardInterrupt:  # between two jobs of a multirun
        sys.exit("stopped")
