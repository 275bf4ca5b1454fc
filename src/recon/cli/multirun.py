"""One table and one plot at the end of many runs: mean and deviation over seeds and folds.

Of a multirun that was cut short, or ran on a cluster: python -m recon.cli.multirun <its folder>.
"""

import math
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from shutil import which
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from recon.checkpoints.run_config import get_nested, read_config
from recon.cli.errors import format_error, one_line_errors
from recon.data.io.arrays import read_json
from recon.data.io.file_checks import wrap_read_errors
from recon.reports.comparison import LOGGED_SUFFIX, RunMetrics, report_comparison
from recon.utils.printable import escape_control_chars
from recon.utils.scheduler_env import FINISHED_FILE, is_rank_zero

FAILURE_FILENAME = "failed.txt"
REPEAT_OPTIONS = ("seed", "seeds", "data.fold", "data.episode_seed", "data.test_area")
"""Options that repeat a measurement rather than change it."""


def _accuracies(results: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield what a run's results.json measured, by name."""
    if "overall_accuracy" in results:
        yield "overall accuracy", results["overall_accuracy"]["mean"]
    if "svm" in results:  # of pretraining on the embedded data
        yield "linear SVM", results["svm"]["pretrained"][0]
    if results.get("zero_shot") is not None:
        yield "zero-shot", results["zero_shot"]
    for name in ("instance_miou", "class_miou"):
        if name in results:
            yield f"{name}, selection={results['selection']}", results[name]
    for name, row in results.get("results", {}).items():
        if "miou" in row:
            yield f"mIoU, {name}, selection={results['selection']}", row["miou"]
        yield f"accuracy, {name}, selection={results['selection']}", row["overall_accuracy"]["mean"]


def collect_results(runs: Mapping[str, Sequence[Path]]) -> RunMetrics:
    """Read the results of runs, by what they measured; those without results are left out."""
    table: RunMetrics = {}
    for told, folders in runs.items():
        paths = [folder / "results.json" for folder in folders]
        there = [path for path in paths if path.is_file()]
        found = [read_json(path) for path in there]
        for path, results in zip(there, found, strict=True):
            rows = table.setdefault(told, {})
            with wrap_read_errors(path, "file of a run's results"):
                for name, value in _accuracies(results):
                    if not math.isfinite(value):
                        raise ValueError(f"its {name} is {value}")
                    rows.setdefault(name, []).append(100.0 * value)
        with wrap_read_errors(there[0] if there else told, "file of a run's results"):
            for name, value in _together(found):
                table[told][name] = [100 * value]
        for name, value in (logged for folder in folders for logged in _logged(folder)):
            table.setdefault(told, {}).setdefault(f"{name}{LOGGED_SUFFIX}", []).append(value)
    return table


def _logged(folder: Path) -> Iterator[tuple[str, float]]:
    """Yield what a search chose a run by, and the loss of a run without accuracies."""
    if not (folder / FINISHED_FILE).is_file():
        return
    measured = read_json(folder / FINISHED_FILE)
    with wrap_read_errors(folder / FINISHED_FILE, "file of what a run logged"):
        chosen = get_nested(read_config(folder / "config.yaml"), "objective")
        loss = None if (folder / "results.json").is_file() else "train/total"
        for name in dict.fromkeys((chosen, loss)):
            if name in measured and math.isfinite(measured[name]):
                yield name, float(measured[name])


def _together(found: Sequence[dict[str, Any]]) -> Iterator[tuple[str, float]]:
    """Yield the mIoU of the rooms of several runs together, where each tested other rooms."""
    rooms = [name for results in found for name in results.get("ids", ())]
    kinds = found[0].get("results", {}) if len(found) > 1 and "rooms" in found[0] else {}
    if not kinds or len(set(rooms)) < len(rooms):
        return
    import torch

    from recon.tasks.iou import scene_scores

    for kind in kinds:
        counts = torch.tensor([results["results"][kind]["confusion"] for results in found]).sum(0)
        yield (
            f"mIoU, {kind}, selection={found[0]['selection']}, rooms of all runs",
            scene_scores(counts).miou,
        )


def _numbered(folder: Path) -> list[Path]:
    """Return the folders of the jobs of a multirun, in their order."""
    found = (path.parent.parent for path in folder.glob("*/.hydra/overrides.yaml"))
    return sorted(found, key=lambda path: (len(path.name), path.name))


def group_runs(folder: Path) -> dict[str, list[Path]]:
    """Return the runs of a multirun by the options in which they differ, repeats left out."""
    told = {
        run: [str(word) for word in read_config(run / ".hydra" / "overrides.yaml")]
        for run in _numbered(folder)
    }
    kept = {
        run: [w for w in words if w.split("=")[0] not in REPEAT_OPTIONS]
        for run, words in told.items()
    }
    common = set.intersection(*map(set, kept.values())) if kept else set()
    found: dict[str, list[Path]] = {}
    for run, words in kept.items():
        name = " ".join(word for word in words if len(kept) == 1 or word not in common)
        found.setdefault(name, []).extend([run, *sorted(run.glob("seed_*"))])
    return found


def run_job(job: Callable[[], float | None], folder: Path) -> float | None:
    """Run one job of a multirun; where it fails, say so, and let the others run.

    Why it failed is kept in failed.txt. Returns None of a failed job: a search leaves it out.
    """
    try:
        return job()
    except Exception as error:
        _fail(folder, format_error(error), traceback.format_exc())
        return None
    except (KeyboardInterrupt, SystemExit):
        if "BasicLauncher" in HydraConfig.get().launcher._target_:  # else jobs do not wait for it
            shown = escape_control_chars(str(folder.parent))
            print(f"later jobs are not run; finished ones: python -m recon.cli.multirun {shown}")
        raise


def clear_failure(folder: Path) -> None:
    """Drop why a job failed, as it starts again, in a multirun or alone."""
    if is_rank_zero():
        (folder / FAILURE_FILENAME).unlink(missing_ok=True)


def _fail(folder: Path, why: str, told: str) -> None:
    """Keep why a job failed, and say so."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FAILURE_FILENAME).write_text(f"{why}\n\n{told}")
    print(
        f"error: {why}\n(this job failed, see {folder / FAILURE_FILENAME}; the others go on)",
        flush=True,
    )


def read_failures(folder: Path) -> dict[str, str]:
    """Return why jobs of a multirun failed, by their folders' names."""
    paths = sorted(
        folder.glob(f"*/{FAILURE_FILENAME}"), key=lambda path: (len(path.parts[-2]), path)
    )
    return {path.parent.name: path.read_text(errors="replace").split("\n")[0] for path in paths}


def report_multirun(folder: Path) -> int:
    """Show what a multirun measured and which of its jobs failed; return how many did."""
    report_comparison(collect_results(group_runs(folder)), folder)
    failed = read_failures(folder)
    for number, why in failed.items():
        print(f"job {number} failed: {escape_control_chars(why)}")
    ended = ("results.json", FINISHED_FILE)
    without = [
        run.name for run in _numbered(folder) if not any([*run.rglob(name)] for name in ended)
    ]
    if waiting := [number for number in without if number not in failed]:
        print(f"without results: job {', '.join(waiting)}")
    return len(failed)


def _make(folder: Path) -> None:
    """Make a run's folder before Hydra does, which ends in a traceback where it cannot."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        sys.exit(f"error: {folder}: cannot be made ({error.strerror}): output_dir=<another folder>")


def count_stored_trials(storage: str | None, study: str) -> int:
    """Return how many trials a stored study has, 0 of one that is not there or is not stored."""
    if storage is None:
        return 0
    import optuna

    try:
        return len(optuna.load_study(study_name=study, storage=storage).trials)
    except KeyError:
        return 0


# The seed of a search: one that goes on draws other trials than it drew first.
OmegaConf.register_new_resolver("stored_trials", count_stored_trials, use_cache=True, replace=True)


class MultirunTable(Callback):
    """Print what the jobs of a multirun measured, write sweep.json and sweep.png into its folder.

    A multirun with failed jobs ends with exit code 1.
    """

    def __init__(self) -> None:
        self._during = ExitStack()

    def __reduce__(self) -> tuple[type, tuple[()]]:  # it is sent to each job, where nothing is open
        return type(self), ()

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        _make(Path(config.hydra.sweep.dir))
        if config.hydra.launcher._target_.endswith("SlurmLauncher") and not which("srun"):
            sys.exit("error: hydra/launcher=slurm: there is no srun here: start it where SLURM is")
        if "submitit" in config.hydra.launcher._target_:
            from recon.cli.submitit_patch import fail_lost_jobs

            folder = Path(config.hydra.sweep.dir)
            self._during.enter_context(fail_lost_jobs(lambda job, *why: _fail(folder / job, *why)))

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        _make(Path(config.hydra.run.dir))

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Show which jobs failed where all trials of a search did: Optuna then raises."""
        hydra = HydraConfig.get()
        trials = hydra.sweeper.get("n_trials")
        folder = Path(hydra.sweep.dir)
        if trials and hydra.job.num == trials - 1 and len(read_failures(folder)) == trials:
            report_multirun(folder)
            sys.exit("error: all trials failed")

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        self._during.close()
        if report_multirun(Path(config.hydra.sweep.dir)):
            sys.exit(1)


def main(arguments: Sequence[str]) -> None:
    """Show the table and the plot of the multirun in a folder."""
    if len(arguments) != 1:
        sys.exit("usage: python -m recon.cli.multirun <folder of a multirun>")
    folder = Path(arguments[0])
    if not folder.is_dir():
        sys.exit(f"error: {folder}: no such folder")
    with one_line_errors():
        if not collect_results(group_runs(folder)) and not read_failures(folder):
            sys.exit(f"error: {folder}: holds no results of a multirun")
        failed = report_multirun(folder)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main(sys.argv[1:])
