"""Run the jobs of a multirun, report those that fail, and end with a table and a plot.

For an interrupted multirun or one on a cluster: python -m recon.cli.multirun <folder>.
"""

import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from shutil import which
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from recon.cli.errors import format_error, one_line_errors
from recon.cli.multirun_results import (
    collect_results,
    collect_seeds,
    group_runs,
    list_job_folders,
)
from recon.reports.comparison import report_comparison
from recon.utils.printable import escape_control_chars
from recon.utils.scheduler_env import FINISHED_FILE, is_rank_zero

FAILURE_FILENAME = "failed.txt"


def run_job(job: Callable[[], float | None], folder: Path) -> float | None:
    """Run one job of a multirun; if it fails, print and record the error and let the others run.

    The error is written to failed.txt. Returns None for a failed job, which a search skips.
    """
    try:
        return job()
    except Exception as error:
        _record_failure(folder, format_error(error), traceback.format_exc())
        return None
    except (KeyboardInterrupt, SystemExit):
        # Only the basic launcher runs jobs one after the other.
        if "BasicLauncher" in HydraConfig.get().launcher._target_:
            multirun = escape_control_chars(str(folder.parent))
            print(f"later jobs are not run; finished ones: python -m recon.cli.multirun {multirun}")
        raise


def clear_failure(folder: Path) -> None:
    """Delete the recorded failure of a job that starts again, in a multirun or alone."""
    if is_rank_zero():
        (folder / FAILURE_FILENAME).unlink(missing_ok=True)


def _record_failure(folder: Path, reason: str, details: str) -> None:
    """Write the error of a job to failed.txt, and print it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FAILURE_FILENAME).write_text(f"{reason}\n\n{details}")
    print(
        f"error: {reason}\n"
        f"(this job failed, see {folder / FAILURE_FILENAME}; the other jobs continue)",
        flush=True,
    )


def read_failures(folder: Path) -> dict[str, str]:
    """Return the reasons for the failed jobs of a multirun, by the names of their folders."""
    paths = sorted(
        folder.glob(f"*/{FAILURE_FILENAME}"), key=lambda path: (len(path.parts[-2]), path)
    )
    return {path.parent.name: path.read_text(errors="replace").split("\n")[0] for path in paths}


def report_multirun(folder: Path) -> int:
    """Print the results, the failed and the unfinished jobs; return the number of failed jobs."""
    runs = group_runs(folder)
    report_comparison(collect_results(runs), folder, collect_seeds(runs))
    failures = read_failures(folder)
    for number, reason in failures.items():
        print(f"job {number} failed: {escape_control_chars(reason)}")
    result_files = ("results.json", FINISHED_FILE)
    unfinished = [
        run.name
        for run in list_job_folders(folder)
        if not any([*run.rglob(name)] for name in result_files)
    ]
    if pending := [number for number in unfinished if number not in failures]:
        print(f"without results: job {', '.join(pending)}")
    return len(failures)


def _make_run_folder(folder: Path) -> None:
    """Make a run's folder before Hydra does, because Hydra fails with a traceback."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        sys.exit(
            f"error: {folder}: cannot be created ({error.strerror}): "
            "set output_dir=<another folder>"
        )


def count_stored_trials(storage: str | None, study: str) -> int:
    """Return the number of trials of a stored study, 0 if it does not exist or is not stored."""
    if storage is None:
        return 0
    import optuna

    try:
        return len(optuna.load_study(study_name=study, storage=storage).trials)
    except KeyError:
        return 0


# Seeds the sampler of a search: a continued search must not draw its first trials again.
OmegaConf.register_new_resolver("stored_trials", count_stored_trials, use_cache=True, replace=True)


class MultirunTable(Callback):
    """Print the results of a multirun; write sweep.json and sweep.png into its folder.

    A multirun with failed jobs ends with exit code 1.
    """

    def __init__(self) -> None:
        self._exit_stack = ExitStack()

    def __reduce__(self) -> tuple[type, tuple[()]]:  # pickled for each job, without open contexts
        return type(self), ()

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        _make_run_folder(Path(config.hydra.sweep.dir))
        if config.hydra.launcher._target_.endswith("SlurmLauncher") and not which("srun"):
            sys.exit(
                "error: hydra/launcher=slurm: srun not found: start it on a machine with SLURM"
            )
        if "submitit" in config.hydra.launcher._target_:
            from recon.cli.submitit_patch import fail_lost_jobs

            folder = Path(config.hydra.sweep.dir)
            self._exit_stack.enter_context(
                fail_lost_jobs(lambda job, *error: _record_failure(folder / job, *error))
            )

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        _make_run_folder(Path(config.hydra.run.dir))

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Report the failed jobs if all trials of a search failed, because Optuna then raises."""
        hydra = HydraConfig.get()
        trials = hydra.sweeper.get("n_trials")
        folder = Path(hydra.sweep.dir)
        if trials and hydra.job.num == trials - 1 and len(read_failures(folder)) == trials:
            report_multirun(folder)
            sys.exit("error: all trials failed")

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        self._exit_stack.close()
        if report_multirun(Path(config.hydra.sweep.dir)):
            sys.exit(1)


def main(arguments: Sequence[str]) -> None:
    """Print the table and write the plot of the multirun in a folder."""
    if len(arguments) != 1:
        sys.exit("usage: python -m recon.cli.multirun <folder of a multirun>")
    folder = Path(arguments[0])
    if not folder.is_dir():
        sys.exit(f"error: {folder}: no such folder")
    with one_line_errors():
        if not collect_results(group_runs(folder)) and not read_failures(folder):
            sys.exit(f"error: {folder}: holds no results of a multirun")
        num_failed = report_multirun(folder)
    sys.exit(1 if num_failed else 0)


if __name__ == "__main__":
    main(sys.argv[1:])
