"""Requeue a job on a local SLURM cluster, and compare its losses with an undisturbed job.

python scripts/cluster/requeue.py [--keep <folder>]

Starts a cluster of two nodes and stops it at the end. Needs SLURM and munge (Debian: apt install
slurm-wlm munge) and root, as slurmd does. If they are missing, it prints SKIPPED and exits with 0.
"""

import argparse
import csv
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel", "squeue")
OPTIONS = (
    "experiment=pretrain_furniture", "debug=tiny", "~callbacks.report", "trainer=multi_node",
    "trainer.accelerator=cpu", "trainer.devices=1", "trainer.sync_batchnorm=false",
    "trainer.limit_train_batches=80", "trainer.max_epochs=3",
)  # fmt: skip
CLUSTER = """
ClusterName=recon
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
AuthInfo=socket={folder}/munge/socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2
PartitionName=main Nodes=n1,n2 Default=YES State=UP
"""
TIMEOUT_SECONDS = 300.0
"""Maximum duration of one wait."""
FAILED_STATES = (
    "BOOT_FAIL",
    "CANCELLED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "TIMEOUT",
)
"""Final states of a job that did not complete."""


def free_ports(count: int) -> list[int]:
    """Return unused ports."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in sockets]
    for server in sockets:
        server.close()
    return ports


@contextmanager
def run_slurm(folder: Path) -> Iterator[None]:
    """Run munged, slurmctld and two slurmd with all files in a folder."""
    for name in ("munge", "state"):
        (folder / name).mkdir()
    key = folder / "munge" / "key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    text = CLUSTER.format(host=socket.gethostname(), ports=free_ports(3), folder=folder)
    (folder / "slurm.conf").write_text(text)
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    files = [("key-file", "key"), ("socket", "socket"), ("pid-file", "pid"), ("seed-file", "seed")]
    munged = ["munged", "--foreground", "--force"]
    munged += [f"--{option}={folder / 'munge' / name}" for option, name in files]
    commands = [munged, ["slurmctld", "-D"], *(["slurmd", "-D", "-N", n] for n in ("n1", "n2"))]
    running: list[subprocess.Popen[bytes]] = []
    try:
        for command in commands:
            log = (folder / f"{command[0]}{len(running)}.log").open("w")
            running.append(subprocess.Popen(command, stdout=log, stderr=log))
            time.sleep(1)
        yield
    finally:
        cancel_all()
        for program in reversed(running):
            terminate(program)


def cancel_all(timeout: float = 60) -> None:
    """Cancel all remaining jobs and wait until they are gone."""
    subprocess.run(["scancel", "--me"], check=False)
    deadline = time.monotonic() + timeout
    while subprocess.run(["squeue", "--noheader"], stdout=subprocess.PIPE, check=False).stdout:
        if time.monotonic() > deadline:
            return
        time.sleep(0.5)


def terminate(program: "subprocess.Popen[bytes]", timeout: float = 30) -> None:
    """Terminate a program; kill it after `timeout` seconds."""
    program.terminate()
    try:
        program.wait(timeout)
    except subprocess.TimeoutExpired:
        program.kill()
        program.wait()


def run_command(*command: str) -> str:
    """Return the output of a command; raise CalledProcessError if it fails."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def submit(folder: Path) -> str:
    """Submit a training with two tasks on two nodes; return the job id."""
    script = folder / "job.sh"
    python = f"{sys.executable} -m recon.train {' '.join(OPTIONS)}"
    # Both nodes are this machine, which may not resolve their names and has few cores.
    environment = "export MASTER_ADDR=127.0.0.1 OMP_NUM_THREADS=1"
    script.write_text(f"#!/bin/bash\n{environment}\nsrun {python}\n")
    log_options = [f"--chdir={folder}", f"--output={folder}/%j.log", "--open-mode=append"]
    size_options = ["--nodes=2", "--ntasks-per-node=1", "--time=10", "--requeue"]
    return run_command("sbatch", "--parsable", *size_options, *log_options, str(script)).strip()


def wait_for_log(folder: Path, job: str, text: str) -> None:
    """Wait until a job's log contains a text; raise TimeoutError with the log."""
    log, deadline = folder / f"{job}.log", time.monotonic() + TIMEOUT_SECONDS
    while not log.is_file() or text not in log.read_text():
        if time.monotonic() > deadline:
            raise TimeoutError(log.read_text() if log.is_file() else f"job {job} did not start")
        time.sleep(0.5)


def wait_for_state(state: str, job: str) -> None:
    """Wait until a job is in a state; raise RuntimeError if it ended in another one."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while f"JobState={state}" not in (output := run_command("scontrol", "show", "job", job)):
        current_state = output.partition("JobState=")[2].partition(" ")[0]
        if current_state in FAILED_STATES:
            raise RuntimeError(f"job {job} is {current_state}, and will not become {state}")
        if time.monotonic() > deadline:
            raise TimeoutError(f"job {job} is still {current_state}, not {state}")
        time.sleep(0.5)


def wait_for_requeue(job: str) -> None:
    """Wait until a job is requeued, and start it at once: SLURM would wait two minutes."""
    wait_for_state("PENDING", job)
    run_command("scontrol", "update", f"JobId={job}", "StartTime=now")


def read_losses(path: Path) -> dict[int, str]:
    """Return the total loss by step from a metrics.csv."""
    with path.open() as file:
        rows = [row for row in csv.DictReader(file) if row["train/total"]]
    return {int(row["step"]): row["train/total"] for row in rows}


def check_requeue(folder: Path) -> list[str]:
    """Run an undisturbed job and one requeued with and without a signal; return differences."""
    undisturbed, job = submit(folder), submit(folder)
    for number, command in enumerate((["scancel", "--signal=USR1"], ["scontrol", "requeue"]), 1):
        wait_for_log(folder, job, f"epoch {number}/")
        run_command(*command, job)
        wait_for_requeue(job)
        wait_for_log(folder, job, "started again by the cluster")
    for job_id in (undisturbed, job):
        wait_for_log(folder, job_id, "epoch 3/3: ")
        wait_for_state("COMPLETED", job_id)
    runs = folder / "outputs" / "pretrain_furniture"
    expected = read_losses(runs / undisturbed / "metrics.csv")
    differences, steps = list[str](), set[int]()
    for name in ("metrics_1", "metrics_2", "metrics"):
        part = read_losses(runs / job / f"{name}.csv")
        steps |= set(part)
        print(f"{name}.csv: steps {min(part)} to {max(part)}")
        differences += [f"step {step}" for step, loss in part.items() if expected[step] != loss]
    return differences + [f"no step {step}" for step in sorted(set(expected) - steps)]


def main() -> None:
    """Run the check and print the result; exit with 1 if losses differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=Path, help="a new folder that keeps logs and runs")
    keep = parser.parse_args().keep
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing or os.geteuid() != 0:
        reason = f"{', '.join(missing)} not installed" if missing else "this is not root"
        print(f"SKIPPED, nothing was checked: {reason}")
        return
    folder = keep or Path(tempfile.mkdtemp(prefix="slurm"))
    folder.mkdir(parents=True, exist_ok=True)
    signal.signal(
        signal.SIGTERM, lambda number, _: sys.exit(128 + number)
    )  # also stops the cluster
    with run_slurm(folder.resolve()):
        print(run_command("sinfo", "--version").strip())
        differences = check_requeue(folder.resolve())
    if not keep:
        shutil.rmtree(folder)
    print(
        "all losses equal those of the undisturbed job"
        if not differences
        else f"differ: {differences}"
    )
    sys.exit(bool(differences))


if __name__ == "__main__":
    main()
