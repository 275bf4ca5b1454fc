"""Compare the installed versions with known vulnerabilities, where the network allows.

python scripts/audit.py

All that constraints.txt pins and all that is installed, by pip-audit. Fails where something is
installed in another version than is pinned, or has no pin, and where a vulnerability is known that
no line of audit.txt accepts with its reason. Where the database of vulnerabilities cannot be
reached, or knows nothing of some packages, it says SKIPPED, loudly, and fails nothing.
"""

import json
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PACKAGE_NAME = "recon-pointcloud"
ACCEPTED = ROOT / "scripts" / "audit.txt"
UNREACHABLE = re.compile(
    r"Connection|Max retries|Name or service not known|name resolution|NameResolutionError|"
    r"resolve (?:host|proxy)|nodename nor servname|timed out|Timeout|ServiceError|Forbidden|"
    r"\b(?:403|404|407|502|503)\b",
    re.IGNORECASE,
)

Report = dict[str, list[dict[str, Any]]]


def parse_accepted(text: str) -> dict[str, str]:
    """Read lines `<id>  <reason>`; raise ValueError for one without a reason."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    rows = [line.split(maxsplit=1) for line in lines]
    if bare := [row[0] for row in rows if len(row) < 2]:
        raise ValueError(f"{ACCEPTED.name}: {bare[0]} is accepted without a reason")
    return {name: reason for name, reason in rows}


def list_vulnerabilities(report: Report, accepted_ids: dict[str, str]) -> list[str]:
    """Return a line for each vulnerability that is not accepted."""
    found = []
    for package in report["dependencies"]:
        for flaw in package.get("vulns", ()):
            names = {flaw["id"], *flaw.get("aliases", ())}
            if not names & accepted_ids.keys():
                fixed = ", ".join(flaw["fix_versions"]) or "no version yet"
                name = f"{package['name']} {package['version']}"
                found.append(f"{name}: {flaw['id']}, mended in {fixed}")
    return found


def normalize_name(name: str) -> str:
    """Return a package's name as its other spellings have it too."""
    return re.sub(r"[-_.]+", "-", name).lower()


def list_unpinned(constraints: str) -> list[str]:
    """Return a line for each package installed in another version than is pinned, or in any."""
    found, pins = [], dict(re.findall(r"^([\w.-]+)==(\S+)$", constraints, re.MULTILINE))
    known = {normalize_name(name) for name in (*pins, PACKAGE_NAME, "pip", "setuptools")}
    there_are = {normalize_name(one.metadata["Name"]) for one in distributions()}
    if new := sorted(there_are - known):
        found.append(f"{', '.join(new)}: installed, but not pinned: make lock")
    for name, pin in pins.items():
        try:
            there = version(name).partition("+")[0]
        except PackageNotFoundError:
            continue
        if there != pin.partition("+")[0]:
            found.append(f"{name} {there} is installed, {pin} is pinned")
    return found


def run_pip_audit(*options: str) -> Report:
    """Ask the database; raise ConnectionError where it cannot be reached."""
    command = [sys.executable, "-m", "pip_audit", "--progress-spinner=off", "--format=json"]
    done = subprocess.run(
        [*command, *options], capture_output=True, text=True, check=False, timeout=900
    )
    try:
        return json.loads(done.stdout)
    except json.JSONDecodeError as error:
        if not UNREACHABLE.search(done.stderr):
            sys.exit(done.stderr)
        raise ConnectionError(done.stderr.strip().splitlines()[-1][:200]) from error


def main() -> None:
    """Audit what is pinned and what is installed, and say what came of it."""
    pins = ROOT / "constraints.txt"
    wrong = {*list_unpinned(pins.read_text())}
    try:  # a build of torch for one device alone is known by its pin only
        reports = [
            run_pip_audit("--requirement", str(pins), "--no-deps", "--disable-pip"),
            run_pip_audit(),
        ]
    except ConnectionError as error:
        print(f"SKIPPED: NOTHING WAS AUDITED, the database cannot be reached ({error})")
        print("\n".join(sorted(wrong)))
        return
    known = parse_accepted(ACCEPTED.read_text())
    wrong |= {line for report in reports for line in list_vulnerabilities(report, known)}
    told = {
        p["name"]: "version" in p for report in reversed(reports) for p in report["dependencies"]
    }
    unknown = sorted(name for name, audited in told.items() if not audited and name != PACKAGE_NAME)
    if unknown:
        few = ", ".join(unknown[:5])
        print(f"SKIPPED: {len(unknown)} PACKAGES WERE NOT AUDITED, the database is silent on {few}")
    print(f"{sum(told.values())} packages audited, {len(wrong)} things wrong")
    if wrong:
        sys.exit("\n".join(sorted(wrong)))


if __name__ == "__main__":
    main()
