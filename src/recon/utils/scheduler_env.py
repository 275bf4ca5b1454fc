"""Read a run's job name, rank and restarts from environment variables of Slurm and torchrun."""

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
"""Name of the file with a finished run's final metrics, read by sweeps and restarted jobs."""


def is_rank_zero() -> bool:
    """Return whether this process is the only one of a run, or the one of rank 0."""
    ranks = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")
    return all(os.environ.get(name, "0") == "0" for name in ranks)


def job_name(default: str) -> str:
    """Return the job name that all processes of a run share, restarts included.

    Under srun it is the job id, followed by the step id except in step 0 (an interactive
    allocation runs several steps). Under torchrun it is the run id. Without either it is `default`.

    Exits if torchrun was started without a run id. It exits instead of raising because Hydra prints
    exceptions with a traceback while it composes a configuration.
    """
    job, step = os.environ.get("SLURM_JOB_ID"), os.environ.get("SLURM_STEP_ID")
    if job and step:
        return job if step == "0" else f"{job}.{step}"
    run = os.environ.get("TORCHELASTIC_RUN_ID", default)
    if run == "none":
        sys.exit(
            "error: torchrun was started without a run id, so its processes share no name: "
            "add --rdzv-id=<name>"
        )
    return run


# The value is cached in the configuration: the jobs of a multirun stay in the multirun's folder.
OmegaConf.register_new_resolver("job_name", job_name, use_cache=True, replace=True)


def is_restarted() -> bool:
    """Return whether the scheduler restarted this job."""
    return any(os.environ.get(name, "0") != "0" for name in RESTART_VARIABLES)


def write_final_metrics(folder: Path, metrics: Mapping[str, SupportsFloat]) -> None:
    """Write the final metrics of a finished run."""
    values = {name: float(value) for name, value in metrics.items()}
    write_atomic(folder / FINISHED_FILE, json.dumps(values).encode())


def read_final_metrics(folder: Path) -> dict[str, float] | None:
    """Return a finished run's final metrics if its job was restarted, else None."""
    path = folder / FINISHED_FILE
    if not is_restarted() or not path.is_file():
        return None
    if is_rank_zero():
        print(f"started again by the cluster: the run in {folder} is finished", flush=True)
    values: dict[str, float] = json.loads(path.read_text())
    return values
