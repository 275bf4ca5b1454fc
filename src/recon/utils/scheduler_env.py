"""What a run knows of the job it is: its processes, its name, and whether it was started again."""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import SupportsFloat

from omegaconf import OmegaConf

from recon.utils.atomic_write import write_atomic

RESTART_VARIABLES = ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT")
FINISHED_FILE = "finished.json"
"""What a finished run logged last: for sweeps, and its job, started again, need not train again."""


def is_rank_zero() -> bool:
    """Tell whether this is the only process of a run, or the first of its many."""
    ranks = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")
    return all(os.environ.get(name, "0") == "0" for name in ranks)


def job_name(default: str) -> str:
    """Return the name that srun or torchrun gives to all processes of a run, and to its restarts.

    The job's number under srun, with the step's where it is not the first, as in an allocation that
    one works in; torchrun's id. `otherwise` where neither started this process.

    Ends the program where torchrun was given no id, whoever composes: Hydra shows all other errors
    at this point by their traceback.
    """
    job, step = os.environ.get("SLURM_JOB_ID"), os.environ.get("SLURM_STEP_ID")
    if job and step:
        return job if step == "0" else f"{job}.{step}"
    run = os.environ.get("TORCHELASTIC_RUN_ID", default)
    if run == "none":
        sys.exit("error: torchrun gives its processes no common name: add --rdzv-id=<name>")
    return run


# Kept with a configuration, so that the jobs of a multirun stay in the folder that it was given.
OmegaConf.register_new_resolver("job_name", job_name, use_cache=True, replace=True)


def is_restarted() -> bool:
    """Tell whether the cluster started this job again."""
    return any(os.environ.get(name, "0") != "0" for name in RESTART_VARIABLES)


def write_final_metrics(folder: Path, metrics: Mapping[str, SupportsFloat]) -> None:
    """Write down what a finished run logged last."""
    values = {name: float(value) for name, value in metrics.items()}
    write_atomic(folder / FINISHED_FILE, json.dumps(values).encode())


def read_final_metrics(folder: Path) -> dict[str, float] | None:
    """Return what a run measured that its job finished before it was started again, else None."""
    path = folder / FINISHED_FILE
    if not is_restarted() or not path.is_file():
        return None
    if is_rank_zero():
        print(f"started again by the cluster: {folder} is finished", flush=True)
    values: dict[str, float] = json.loads(path.read_text())
    return values
