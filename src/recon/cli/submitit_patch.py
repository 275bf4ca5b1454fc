"""Jobs that submitit runs: one that is killed fails, and the others are waited for."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hydra.core.utils import JobReturn, JobStatus


@contextmanager
def fail_lost_jobs(on_failure: Callable[[str, str, str], object]) -> Iterator[None]:
    """Let a job without a result be one that failed: `failed` gets its number, why, and its log.

    The launcher asks each job for its results, in which submitit raises where a job was killed or
    ran out of time: the multirun would end there, while the other jobs run.
    """
    from submitit.core.core import Job
    from submitit.core.utils import FailedJobError, UncompletedJobError

    jobs: Any = Job
    results = jobs.results

    def results_or_failure(job: Any) -> list[Any]:
        try:
            return results(job)
        except (FailedJobError, UncompletedJobError) as error:
            why = f"ended without a result, as a killed job does (job {job.job_id} of the launcher)"
            on_failure(str(job.submission().args[2]), why, str(error))
            return [JobReturn(status=JobStatus.COMPLETED, _return_value=None)]

    jobs.results = results_or_failure
    try:
        yield
    finally:
        jobs.results = results
