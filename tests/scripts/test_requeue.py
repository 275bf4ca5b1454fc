"""The check on a local cluster ends, whatever happens to its jobs and programs."""

import runpy
import signal
import subprocess
import sys
from pathlib import Path

import pytest

REQUEUE = runpy.run_path(str(Path(__file__).parents[2] / "scripts/cluster/requeue.py"))


@pytest.mark.parametrize(
    ("there", "error", "why"),
    [
        ("FAILED", RuntimeError, "job 7 is FAILED, and will not become COMPLETED"),
        ("RUNNING", TimeoutError, "job 7 is still RUNNING, not COMPLETED"),
    ],
)
def test_waiting_for_a_job_has_a_timeout(
    there: str, error: type[Exception], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_to_be = REQUEUE["wait_for_state"]
    shown = f"JobId=7 JobName=job.sh\n   JobState={there} Reason=None\n"
    monkeypatch.setitem(wait_to_be.__globals__, "run_command", lambda *_: shown)
    monkeypatch.setitem(wait_to_be.__globals__, "TIMEOUT_SECONDS", 0)
    wait_to_be(there, "7")
    with pytest.raises(error, match=why):
        wait_to_be("COMPLETED", "7")


@pytest.mark.parametrize(
    ("first", "ended"), [("", signal.SIGTERM), ("signal(SIGTERM, SIG_IGN)", signal.SIGKILL)]
)
def test_programs_that_ignore_sigterm_are_killed(first: str, ended: signal.Signals) -> None:
    program = f"from signal import *\n{first}\nprint(flush=True)\npause()"
    running = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert running.stdout is not None
    running.stdout.readline()
    REQUEUE["terminate"](running, timeout=2)
    assert running.returncode == -ended
