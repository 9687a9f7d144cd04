"""Every command and example of the README, run as it stands, in its order, in an empty folder with an empty home."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from esvector.local import Node
from esvector.local.ephemeral import guarded_home
from esvector.local.layout import default_downloads
from esvector.local.ports import free_port

README = Path(__file__).parents[2] / "README.md"
# What cannot be run here: the test suite inside itself.
NOT_RUN = {"uv run pytest"}
# What an earlier run has rejected, and somebody has mended since.
MENDED = {"id": "new", "place": "docs.jsonl:1", "number": 1, "reason": "no text", "record": {"_id": "new", "text": "x"}}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """What follows a prompt, up to the first blank line of a block: after one, the demo's output shows prompts, too."""
    found = []
    for block in blocks("console"):
        typed = block.split("\n\n")[0]
        found += [line.removeprefix("$ ") for line in typed.splitlines() if line.startswith("$ ")]
    return found


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with guarded_home() as home:
        # What would be fetched is here; the node and its data are this test's own.
        shutil.copytree(default_downloads(), home / "downloads", symlinks=True)
        Node(home, port=free_port())  # fetches nothing; the commands start it
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("ESVECTOR_")}
        binaries = f"{Path(sys.executable).parent}{os.pathsep}{inherited['PATH']}"
        yield inherited | {
            "ESVECTOR_HOME": str(home),
            "HOME": str(tmp_path_factory.mktemp("home")),
            "HF_HUB_OFFLINE": "1",
            "PATH": binaries,
        }


@pytest.mark.long
def test_the_commands_of_the_readme_run_as_they_stand(environment: dict[str, str], tmp_path: Path) -> None:
    typed = [command for command in commands() if command not in NOT_RUN]
    assert len(typed) >= 16
    (tmp_path / "docs.dead.jsonl").write_text(json.dumps(MENDED))
    said = {}
    for command in typed:
        plain = command.replace("pip install uv && uv run ", "")
        done = subprocess.run(
            plain, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900, check=False
        )
        assert done.returncode == 0, f"{plain}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        said[plain] = done
        if plain == "esvector demo":
            python_example(done.stderr, environment, tmp_path)
    demo = said["esvector demo"].stdout
    assert demo.count("$ esvector search") == 2
    assert "json.dump\n" in demo
    assert "esvector node stop" in demo
    assert int(re.findall(r"([\d,]+) documents encoded", said["esvector demo"].stderr)[0].replace(",", "")) > 2000
    assert '"id":"json.dump"' in said["esvector similar docs json.dumps -k 3"].stdout
    again(said)


def again(said: dict[str, subprocess.CompletedProcess[str]]) -> None:
    """What the section about running again promises."""
    first = json.loads(said["esvector index docs.jsonl --into docs --model all-MiniLM-L6-v2"].stdout)
    assert first["indexed"] == first["encoded"] > 500
    for more in ("", " --prune"):
        report = json.loads(said[f"esvector index docs.jsonl --into docs{more}"].stdout)
        assert (report["unchanged"], report["encoded"], report["pruned"]) == (first["indexed"], 0, 0)
    passages = json.loads(said["esvector index docs.jsonl --into docs --passages auto"].stdout)
    assert (passages["index"], passages["previous"]) == ("docs-000002", "docs-000001")
    assert passages["truncated"] == 0
    assert json.loads(said["esvector rollback docs"].stdout)["index"] == "docs-000001"
    retried = json.loads(said["esvector retry docs.dead.jsonl --into docs"].stdout)
    assert (retried["index"], retried["indexed"]) == ("docs-000001", 1)


def python_example(demo_said: str, environment: dict[str, str], folder: Path) -> None:
    url = re.findall(r"running at (\S+)\.\n", demo_said)[0]
    (example,) = blocks("python")
    code = example.replace("http://localhost:9200", url)
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "2 documents"
    assert done.stdout.splitlines()[1].startswith("car 0.")


def test_the_readme_is_short_and_its_links_lead_somewhere() -> None:
    text = README.read_text()
    assert len(text.splitlines()) < 250
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert (README.parent / link).exists(), link
