"""What a run knows of the job it is: its processes, its name, and whether it was started again."""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import SupportsFloat

from omegaconf import OmegaConf

from recon.utils.atomic_write import write_whole

RESTARTS = ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT")
FINISHED = "finished.json"
"""What a finished run logged last: for sweeps, and its job, started again, need not train again."""


def is_first_process() -> bool:
    """Tell whether this is the only process of a run, or the first of its many."""
    ranks = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")
    return all(os.environ.get(name, "0") == "0" for name in ranks)


def job_name(otherwise: str) -> str:
    """Return the name that srun or torchrun gives to all processes of a run, and to its restarts.

    The job's number under srun, with the step's where it is not the first, as in an allocation that
    one works in; torchrun's id. `otherwise` where neither started this process.

    Ends the program where torchrun was given no id, whoever composes: Hydra shows all other errors
    at this point by their traceback.
    """
    job, step = os.environ.get("SLURM_JOB_ID"), os.environ.get("SLURM_STEP_ID")
    if job and step:
        return job if step == "0" else f"{job}.{step}"
    run = os.environ.get("TORCHELASTIC_RUN_ID", otherwise)
    if run == "none":
        sys.exit("error: torchrun gives its processes no common name: add --rdzv-id=<name>")
    return run


# Kept with a configuration, so that the jobs of a multirun stay in the folder that it was given.
OmegaConf.register_new_resolver("job_name", job_name, use_cache=True, replace=True)


def started_again() -> bool:
    """Tell whether the cluster started this job again."""
    return any(os.environ.get(name, "0") != "0" for name in RESTARTS)


def keep_finished(folder: Path, measured: Mapping[str, SupportsFloat]) -> None:
    """Write down what a finished run logged last."""
    values = {name: float(value) for name, value in measured.items()}
    write_whole(folder / FINISHED, json.dumps(values).encode())


def finished(folder: Path) -> dict[str, float] | None:
    """Return what a run measured that its job finished before it was started again, else None."""
    path = folder / FINISHED
    if not started_again() or not path.is_file():
        return None
    if is_first_process():
        print(f"started again by the cluster: {folder} is finished", flush=True)
    values: dict[str, float] = json.loads(path.read_text())
    return values
