"""The fault injection program, and the audit of dependencies."""

import ast
import json
import os
import runpy
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from workloads import read_steps

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))


@pytest.mark.slow
def test_injected_faults_lose_nothing(tmp_path: Path) -> None:
    command = [sys.executable, ROOT / "scripts/stress/faults.py", "--short", "--out"]
    done = subprocess.run(
        [*command, tmp_path / "stress.json"], capture_output=True, text=True, check=False,
        timeout=900,
    )  # fmt: skip
    assert not done.returncode, done.stdout + done.stderr
    rows = json.loads((tmp_path / "stress.json").read_text())
    assert len(rows) >= 12
    assert all(row["survived"] == row["injected"] > 0 for row in rows)
    assert rows[-1]["fault"] == "all"
    assert rows[-1]["lost"] == 0


def test_steps_that_differ_are_an_error(tmp_path: Path) -> None:
    lines = [{"step": 1, "loss": "a"}, {"step": 2, "loss": "b"}, {"step": 1, "loss": "a"}]
    path = tmp_path / "steps.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    assert [*read_steps(tmp_path)] == [1, 2]
    path.write_text("\n".join(map(json.dumps, [*lines, {"step": 2, "loss": "c"}])))
    with pytest.raises(ValueError, match="step 2 differs in loss"):
        read_steps(tmp_path)


FORBIDDEN = {
    "time.time": "orders by a clock that may jump",
    "os.system": "starts a shell",
    "os.popen": "starts a shell",
    "pickle.load": "runs what a file holds",
    "pickle.loads": "runs what a file holds",
    "eval": "runs text",
    "exec": "runs text",
    "torch.jit.load": "runs what a file holds",
    "np.loadtxt.converters": "runs text",
    "yaml.load": "runs what a file holds",
    "shutil.unpack_archive": "writes where an archive says",
    "zipfile.ZipFile.extractall": "writes where an archive says",
    "tarfile.open": "writes where an archive says",
}


def problems(path: Path) -> list[str]:
    """List calls in a source that a downloaded file could exploit."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        given = {word.arg: ast.unparse(word.value) for word in node.keywords}
        why = FORBIDDEN.get(name)
        if name.endswith((".extractall", ".extract")):
            why = "writes where an archive says"
        if name == "torch.load" and given.get("weights_only") != "True":
            why = "runs what a file holds"
        if name == "np.load" and given.get("allow_pickle") != "False":
            why = "may run what a file holds"
        if given.get("shell") == "True":
            why = "starts a shell"
        if why:
            found.append(f"{path.name}:{node.lineno}: {name} {why}")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT / "src" / "recon")))
def test_sources_execute_no_file_content_and_order_nothing_by_time(path: Path) -> None:
    assert not problems(path)


def test_the_source_check_finds_violations(tmp_path: Path) -> None:
    path = tmp_path / "bad.py"
    path.write_text(
        "torch.load(x)\nsubprocess.run(x, shell=True)\narchive.extractall(y)\ntime.time()\n"
        "eval(x)\n"
        "torch.load(x, weights_only=True)\nnp.load(x, allow_pickle=False)\nsubprocess.run([x])\n"
    )
    assert [line.split(":")[1] for line in problems(path)] == ["1", "2", "3", "4", "5"]


def flawed(name: str, version: str, *flaws: str) -> dict[str, object]:
    found = [{"id": flaw, "aliases": [f"CVE-{flaw}"], "fix_versions": ["9.9"]} for flaw in flaws]
    return {"name": name, "version": version, "vulns": found}


def test_audit_lists_vulnerabilities_and_unpinned_packages() -> None:
    audit = runpy.run_path(str(ROOT / "scripts" / "audit.py"))
    ours = {"name": "recon-pointcloud", "skip_reason": "not on PyPI"}
    report = {"dependencies": [flawed("torch", "2.0"), flawed("timm", "1.0", "A", "B"), ours]}
    assert audit["list_vulnerabilities"](report, {"CVE-A": "a test"}) == [
        "timm 1.0: B, fixed in 9.9"
    ]
    there = version("numpy")
    pins = f"numpy==0.1\nno-such-package==3\npytest=={version('pytest')}\n"
    unpinned, other = audit["list_unpinned"](pins)
    assert "torchmetrics" in unpinned
    assert "pytest," not in unpinned
    assert unpinned.endswith(": installed, but not pinned: make lock")
    assert other == f"numpy {there} is installed, 0.1 is pinned"
    assert audit["parse_accepted"]("# why\nCVE-1  never reached\n") == {"CVE-1": "never reached"}
    with pytest.raises(ValueError, match="CVE-1 is accepted without a reason"):
        audit["parse_accepted"]("CVE-1\n")


@pytest.mark.parametrize(("there", "pin"), [("2.9.1+cpu", "2.9.1"), ("2.9.1", "2.9.1+cpu"),
                                            ("2.9.1+cpu", "2.9.1+cpu")])  # fmt: skip
def test_local_builds_match_their_pinned_version(there: str, pin: str) -> None:
    unpinned = runpy.run_path(str(ROOT / "scripts" / "audit.py"))["list_unpinned"]
    unpinned.__globals__["version"] = lambda name: there
    assert not [line for line in unpinned(f"torch=={pin}\n") if line.startswith("torch ")]
    (line,) = (x for x in unpinned("torch==2.9.0+cpu\n") if x.startswith("torch "))
    assert line == "torch 2.9.1 is installed, 2.9.0+cpu is pinned"


UNREACHED = [
    "Max retries exceeded with url: /pypi (Caused by NewConnectionError: refused)",
    "NameResolutionError: Failed to resolve 'pypi.org' ([Errno -2] Name or service not known)",
    "[Errno -3] Temporary failure in name resolution",
    "[Errno 8] nodename nor servname provided, or not known",
    "curl: (6) Could not resolve host: pypi.org",
    "503 Server Error: Service Unavailable",
]
REACHED = [
    "ResolutionImpossible: for help visit https://pip.pypa.io/en/latest/topics/"
    "dependency-resolution/#dealing-with-dependency-conflicts",
    "ResolutionImpossible, could not resolve a==1, b==2: conflicting dependencies",
]


@pytest.mark.parametrize("told", [*UNREACHED, *REACHED])
def test_only_an_unreachable_database_is_skipped(
    told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = runpy.run_path(str(ROOT / "scripts" / "audit.py"))["run_pip_audit"]
    ended = subprocess.CompletedProcess([], 1, stdout="", stderr=f"ERROR: {told}\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: ended)
    with pytest.raises(ConnectionError if told in UNREACHED else SystemExit, match=r"ERROR: "):
        ask()


def test_audit_without_a_network_prints_skipped() -> None:
    nowhere = {name: "http://127.0.0.1:9" for name in ("https_proxy", "HTTPS_PROXY")}
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "audit.py"], env=os.environ | nowhere,
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert not done.returncode, done.stderr
    assert done.stdout.startswith("SKIPPED: NOTHING WAS AUDITED")
