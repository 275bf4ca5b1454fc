"""Compare pinned and installed versions with known vulnerabilities: python scripts/audit.py.

Runs pip-audit on constraints.txt and on the environment. Fails if an installed package has no pin
or another version than its pin, or if it has a known vulnerability that audit.txt does not accept
with a reason. If the vulnerability database is unreachable, or does not know some packages, it
prints SKIPPED and does not fail.
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
    if without_reason := [row[0] for row in rows if len(row) < 2]:
        raise ValueError(f"{ACCEPTED.name}: {without_reason[0]} is accepted without a reason")
    return {name: reason for name, reason in rows}


def list_vulnerabilities(report: Report, accepted_ids: dict[str, str]) -> list[str]:
    """Return a line for each vulnerability that is not accepted."""
    lines = []
    for package in report["dependencies"]:
        for vulnerability in package.get("vulns", ()):
            ids = {vulnerability["id"], *vulnerability.get("aliases", ())}
            if not ids & accepted_ids.keys():
                fixed = ", ".join(vulnerability["fix_versions"]) or "no version yet"
                name = f"{package['name']} {package['version']}"
                lines.append(f"{name}: {vulnerability['id']}, fixed in {fixed}")
    return lines


def normalize_name(name: str) -> str:
    """Normalize the name of a package, so that all of its spellings are equal."""
    return re.sub(r"[-_.]+", "-", name).lower()


def list_unpinned(constraints: str) -> list[str]:
    """Return a line for each installed package without a pin, or not in its pinned version."""
    lines, pins = [], dict(re.findall(r"^([\w.-]+)==(\S+)$", constraints, re.MULTILINE))
    pinned_names = {normalize_name(name) for name in (*pins, PACKAGE_NAME, "pip", "setuptools")}
    installed_names = {normalize_name(package.metadata["Name"]) for package in distributions()}
    if unpinned := sorted(installed_names - pinned_names):
        lines.append(f"{', '.join(unpinned)}: installed, but not pinned: make lock")
    for name, pin in pins.items():
        try:
            installed = version(name).partition("+")[0]
        except PackageNotFoundError:
            continue
        if installed != pin.partition("+")[0]:
            lines.append(f"{name} {installed} is installed, {pin} is pinned")
    return lines


def run_pip_audit(*options: str) -> Report:
    """Run pip-audit; raise ConnectionError if its database is unreachable."""
    command = [sys.executable, "-m", "pip_audit", "--progress-spinner=off", "--format=json"]
    completed = subprocess.run(
        [*command, *options], capture_output=True, text=True, check=False, timeout=900
    )
    try:
        return json.loads(completed.stdout)
    except json.JSONDecodeError as error:
        if not UNREACHABLE.search(completed.stderr):
            sys.exit(completed.stderr)
        raise ConnectionError(completed.stderr.strip().splitlines()[-1][:200]) from error


def main() -> None:
    """Audit the pinned and the installed packages, and print the result."""
    pins = ROOT / "constraints.txt"
    problems = {*list_unpinned(pins.read_text())}
    try:  # the database knows a CPU-only build of torch by its pinned version only
        reports = [
            run_pip_audit("--requirement", str(pins), "--no-deps", "--disable-pip"),
            run_pip_audit(),
        ]
    except ConnectionError as error:
        print(f"SKIPPED: NOTHING WAS AUDITED, the database is unreachable ({error})")
        print("\n".join(sorted(problems)))
        return
    accepted_ids = parse_accepted(ACCEPTED.read_text())
    problems |= {line for report in reports for line in list_vulnerabilities(report, accepted_ids)}
    audited_by_name = {
        p["name"]: "version" in p for report in reversed(reports) for p in report["dependencies"]
    }
    unknown = sorted(
        name for name, audited in audited_by_name.items() if not audited and name != PACKAGE_NAME
    )
    if unknown:
        examples = ", ".join(unknown[:5])
        print(
            f"SKIPPED: {len(unknown)} PACKAGES WERE NOT AUDITED, the database does not know "
            f"{examples}"
        )
    print(f"{sum(audited_by_name.values())} packages audited, {len(problems)} problems")
    if problems:
        sys.exit("\n".join(sorted(problems)))


if __name__ == "__main__":
    main()
