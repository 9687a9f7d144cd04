"""Every example of docs/loading.md: its commands, and the roles that it says are enough."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from elasticsearch import ApiError, Elasticsearch, TransportError

from esvector.cli import app
from esvector.local import Node
from esvector.local.ephemeral import guarded_home
from esvector.local.layout import Layout, default_downloads
from esvector.local.ports import free_port
from tests.support import models
from tests.support.commands import as_lines, lines_of, run_command, until

PAGE = (Path(__file__).parents[2] / "docs" / "loading.md").read_text(encoding="utf-8")
ROLES: dict[str, Any] = json.loads(re.findall(r"^```json\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)[0])
COMMANDS = re.findall(r"^\$ esvector (.*)$", PAGE, re.MULTILINE)
PAPERS = [{"id": f"p{n}", "text": text} for n, text in enumerate(models.words(20, seed=2))]
MENDED = {"id": "new", "place": "papers.jsonl:9", "number": 9, "reason": "no text", "record": {"id": "n", "text": "x"}}
PASSWORD = "a-password"


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("papers.jsonl").write_text(as_lines(PAPERS))
    Path("papers.dead.jsonl").write_text(as_lines([MENDED]))


@pytest.fixture
def gone(es: Elasticsearch) -> Iterator[None]:
    yield
    for index in es.indices.get(index="papers-*"):
        es.indices.delete(index=index)


@pytest.mark.usefixtures("files", "gone")
def test_the_commands_of_the_page(server_url: str) -> None:
    assert len(COMMANDS) == 5
    done = [run_command(server_url, *command.split()) for command in COMMANDS]
    assert [result.exit_code for result in done] == [0] * 5, [result.output for result in done]
    reports = [lines_of(result)[0] for result in done]
    assert [(report["index"][-1], report["indexed"], report["unchanged"]) for report in reports] == [
        ("1", 20, 0),
        ("1", 0, 20),
        ("1", 0, 20),
        ("2", 20, 0),
        ("2", 1, 0),
    ]


def test_what_the_page_names_exists() -> None:
    said = CliRunner().invoke(app, ["index", "--help"]).output + CliRunner().invoke(app, ["prune", "--help"]).output
    for option in re.findall(r"(?<![\w-])(--[a-z][a-z-]+)", PAGE):
        assert option in said or option == "--json", option


@pytest.fixture(scope="module")
def secured() -> Iterator[str]:
    """The address of a node with a user for each role of the page, called as the role."""
    with guarded_home() as home:
        config = Layout(home).config
        config.mkdir(parents=True, exist_ok=True)
        roles = "".join(f"{name}: {json.dumps(role)}\n" for name, role in ROLES.items())
        (config / "roles.yml").write_text(roles)
        (config / "users").write_text("".join(f"{name}:{_hashed(PASSWORD)}\n" for name in ROLES))
        (config / "users_roles").write_text("".join(f"{name}:{name}\n" for name in ROLES))
        settings = {"xpack.security.enabled": "true"}
        node = Node(home, port=free_port(), heap_mb=512, settings=settings, downloads=default_downloads())
        node.start(wait=False)
        assert node.url is not None
        with Elasticsearch(node.url, basic_auth=("esvector_loader", PASSWORD)) as client:
            until(lambda: _answers(client), "the node answers")
        yield node.url


def _hashed(password: str) -> str:
    """As Elasticsearch's file of users has it."""
    salt, rounds = b"0123456789abcdef0123456789abcdef", 10_000
    key = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, rounds, 32)
    return f"{{PBKDF2}}{rounds}${base64.b64encode(salt).decode()}${base64.b64encode(key).decode()}"


def _answers(client: Elasticsearch) -> bool:
    try:
        return client.cluster.health()["status"] in ("yellow", "green")
    except (ApiError, TransportError):
        return False


@pytest.mark.usefixtures("files")
def test_the_roles_of_the_page_are_enough(secured: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESVECTOR_PASSWORD", PASSWORD)

    def as_user(name: str, *args: str) -> Result:
        monkeypatch.setenv("ESVECTOR_USERNAME", name)
        return run_command(secured, *args)

    more = [
        "versions papers",
        "reembed papers --element-type bfloat16",
        "rollback papers",
        "prune papers --keep 0 --yes",
    ]
    for command in [*COMMANDS, *more]:
        result = as_user("esvector_loader", *command.split())
        assert result.exit_code == 0, f"{command}: {result.output}"
    for command in (["search", "papers", "anything"], ["similar", "papers", "p3"]):
        result = as_user("esvector_searcher", *command)
        assert result.exit_code == 0, f"{command}: {result.output}"
        assert len(lines_of(result)) == 10
    refused = as_user("esvector_searcher", "index", "papers.jsonl", "--into", "papers")
    assert refused.exit_code == 4
    assert "refuses the action" in refused.stderr
