"""Ask whether a server answers before a library retries for a minute that cannot reach it."""

import logging
import os
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

PROBE_SECONDS = 5.0
"""Maximum time to wait for the first answer of a server."""


@lru_cache(maxsize=8)
def explain_unreachable(url: str, timeout: float = PROBE_SECONDS) -> str | None:
    """Return why a server cannot be reached, None if it answers, with whatever answer.

    Proxies of the environment are used. The name of the server is also looked up within `timeout`
    seconds.
    """
    reasons: list[str | None] = [f"no answer within {timeout:g} s"]

    def probe() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=timeout)
        except urllib.error.HTTPError:  # an answer
            reasons.append(None)
        except OSError as error:
            cause = error.reason if isinstance(error, urllib.error.URLError) else error
            is_answer = isinstance(cause, ssl.SSLError)  # clients may trust other certificates
            reason = getattr(cause, "strerror", None) or str(cause)
            reasons.append(None if is_answer else reason)
        except Exception as error:  # no HTTP, such as an answer that is none
            reasons.append(str(error) if isinstance(error, ValueError) else None)
        else:
            reasons.append(None)

    thread = threading.Thread(target=probe, daemon=True)
    thread.start()
    thread.join(timeout)
    return reasons[-1]


def explain_unreachable_hub() -> str | None:
    """Return why the Hugging Face Hub cannot be used, None if it answers."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        variables = [n for n in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if os.environ.get(n)]
        return f"{' and '.join(variables) or 'HF_HUB_OFFLINE'} is set"
    reason = explain_unreachable(constants.ENDPOINT)
    return reason and f"{constants.ENDPOINT} cannot be reached: {reason}"


@contextmanager
def cached_hub_files(*, only: bool) -> Iterator[None]:
    """Read files of the Hugging Face Hub from the local cache if `only`, and never ask its server.

    Libraries log each failed attempt; these messages are not shown, because the last error is
    raised.
    """
    from huggingface_hub import constants

    offline, disabled = constants.HF_HUB_OFFLINE, logging.root.manager.disable
    constants.HF_HUB_OFFLINE = offline or only
    logging.disable(max(disabled, logging.ERROR))
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = offline
        logging.disable(disabled)
