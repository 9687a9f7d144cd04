"""What the server refuses, and that the roles of docs/loading.md are enough: on a node that asks who you are."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result
from elasticsearch import ApiError, Elasticsearch, TransportError

from esvector.local import Node
from esvector.local.ephemeral import guarded_home
from esvector.local.layout import Layout, default_downloads
from esvector.local.ports import free_port
from esvector.local.state import State, write_state
from tests.server.test_loading_page import COMMANDS, MENDED, PAPERS, ROLES
from tests.support.commands import as_lines, lines_of, run_command, until
from tests.support.jvm import QUICK

PASSWORD = "a-password"
LOOKER = "looker"  # may see that there is a cluster
USERS = ROLES | {LOOKER: {"cluster": ["monitor"], "indices": [{"names": ["*"], "privileges": ["view_index_metadata"]}]}}

AsUser = Callable[..., Result]


@pytest.fixture(scope="module")
def secured() -> Iterator[str]:
    """The address of a node with a user for each role, called as the role."""
    with guarded_home() as home:
        config = Layout(home).config
        write_state(Layout(home), State(pid=None, port=9200, version="9.5.3", heap_mb=512, launched=0.0))  # it is ours
        config.mkdir(parents=True, exist_ok=True)
        roles = "".join(f"{name}: {json.dumps(role)}\n" for name, role in USERS.items())
        (config / "roles.yml").write_text(roles)
        (config / "users").write_text("".join(f"{name}:{_hashed(PASSWORD)}\n" for name in USERS))
        (config / "users_roles").write_text("".join(f"{name}:{name}\n" for name in USERS))
        settings = {"xpack.security.enabled": "true"}
        node = Node(
            home, port=free_port(), heap_mb=512, settings=settings, jvm_options=QUICK, downloads=default_downloads()
        )
        node.start(wait=False)
        assert node.url is not None
        with Elasticsearch(node.url, basic_auth=(LOOKER, PASSWORD)) as client:
            until(lambda: _answers(client), "the node answers")
        yield node.url


@pytest.fixture
def as_user(secured: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsUser:
    monkeypatch.chdir(tmp_path)
    Path("papers.jsonl").write_text(as_lines(PAPERS))
    Path("papers.dead.jsonl").write_text(as_lines([MENDED]))

    def run(name: str, *args: str, password: str = PASSWORD) -> Result:
        monkeypatch.setenv("ESVECTOR_USERNAME", name)
        monkeypatch.setenv("ESVECTOR_PASSWORD", password)
        return run_command(secured, *args)

    return run


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


def test_wrong_credentials_are_said_without_the_secret(as_user: AsUser) -> None:
    wrong = as_user(LOOKER, *COMMANDS[0].split(), password="canary-4711")
    assert wrong.exit_code == 4
    assert "refuses the credentials (401)" in wrong.stderr
    assert "ESVECTOR_PASSWORD" in wrong.stderr
    assert "canary-4711" not in wrong.output


def test_missing_rights_are_said_before_anything_is_loaded(as_user: AsUser) -> None:
    unlucky = as_user(LOOKER, *COMMANDS[0].split())
    assert unlucky.exit_code == 4
    assert "refuses the action" in unlucky.stderr
    assert "privilege" in unlucky.stderr


def test_the_roles_of_the_page_are_enough(as_user: AsUser) -> None:
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
