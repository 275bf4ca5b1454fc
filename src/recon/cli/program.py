"""Start a program: commands to start with, options in other forms, errors of Hydra in one line."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from recon.cli.errors import fail
from recon.cli.overrides import normalize_arguments, remove_plus_signs
from recon.cli.renamed_options import check_renamed_options
from recon.cli.usage import PROGRAMS, format_start


class _ConfigError(Exception):
    """An error of Hydra before the program's own code runs; the error is the cause."""


def run_program(name: str, main: Callable[[], Any]) -> None:
    """Run a program's Hydra function with the options of the command line.

    Without options, it prints the commands to start with and exits with code 2. Options that Hydra
    does not accept are corrected where there is one meaning, else they end with one line.
    """
    arguments = sys.argv[1:]
    if not arguments and name in PROGRAMS:
        print(format_start(name))
        sys.exit(2)
    check_renamed_options(name, arguments)
    arguments, added = remove_plus_signs(normalize_arguments(name, arguments))
    for _ in range(len(arguments) + 1):  # each pass corrects one option
        sys.argv[1:] = arguments
        try:
            with _raise_config_errors():
                main()
            return
        except _ConfigError as error:
            cause = error.__cause__ or error
        from recon.cli.suggestions import correct_options

        arguments = correct_options(name, arguments, cause, added)
    fail(str(cause))


@contextmanager
def _raise_config_errors() -> Iterator[None]:
    """Raise `_ConfigError` where Hydra would print its error and exit."""
    import hydra._internal.utils
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    # Hydra has no public way to handle its errors.
    hydra_utils: Any = hydra._internal.utils
    report = hydra_utils.run_and_report

    def raise_or_report(function: Callable[[], Any]) -> Any:
        def run() -> Any:
            try:
                return function()
            except (HydraException, OmegaConfBaseException) as error:
                failures.append(error)
                sys.exit(1)  # Hydra does not report it

        return report(run)

    failures = list[Exception]()
    if os.environ.get("HYDRA_FULL_ERROR") != "1":
        hydra_utils.run_and_report = raise_or_report
    try:
        yield
    except SystemExit:
        if not failures:
            raise
        raise _ConfigError(str(failures[0])) from failures[0]
    finally:
        hydra_utils.run_and_report = report
