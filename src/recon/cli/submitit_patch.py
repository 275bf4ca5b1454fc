"""Patch submitit so that a killed job counts as failed and the launcher waits for the others."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hydra.core.utils import JobReturn, JobStatus


@contextmanager
def fail_lost_jobs(on_failure: Callable[[str, str, str], object]) -> Iterator[None]:
    """Treat jobs without a result as failed, and call `on_failure(number, reason, log)` for each.

    The launcher asks each job for its results, and submitit raises if the job was killed or ran
    out of time. Without this patch the multirun would end there while other jobs are running.
    """
    from submitit.core.core import Job
    from submitit.core.utils import FailedJobError, UncompletedJobError

    job_class: Any = Job
    original_results = job_class.results

    def results_or_failure(job: Any) -> list[Any]:
        try:
            return original_results(job)
        except (FailedJobError, UncompletedJobError) as error:
            reason = f"ended without a result, probably killed (job {job.job_id} of the launcher)"
            on_failure(str(job.submission().args[2]), reason, str(error))
            return [JobReturn(status=JobStatus.COMPLETED, _return_value=None)]

    job_class.results = results_or_failure
    try:
        yield
    finally:
        job_class.results = original_results
