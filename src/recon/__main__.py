"""Run a program, `recon train ...` or `python -m recon train ...`, or list the programs."""

import sys

from recon.cli.errors import fail
from recon.cli.options.suggestions import format_suggestion
from recon.cli.program import PROGRAMS, format_programs


def main() -> None:
    """Run the program named by the first argument as `python -m recon.<program>` does."""
    import runpy

    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help", "help"):
        print(format_programs())
        return
    if sys.argv[1] in ("-V", "--version", "version"):
        from recon import __version__

        print(f"recon {__version__}")
        return
    name = sys.argv[1].removeprefix("recon.")
    if name not in PROGRAMS:
        hint = format_suggestion(name, PROGRAMS) or f"choose among {', '.join(PROGRAMS)}"
        fail(f"{sys.argv[1]}: no such program: {hint}")
    del sys.argv[1]
    runpy.run_module(f"recon.{name}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
