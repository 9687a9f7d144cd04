"""A job's folder: inside the folder of state, whatever the server says and whatever the alias is called."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from esvector.client import connect
from esvector.errors import ConfigError, ConnectError, NotElasticsearchError
from esvector.index.checkpoint import JobFolder
from esvector.index.job import job
from esvector.index.lease import Lease
from tests.support.http import stub_server

HEADERS = {"content-type": "application/json", "x-elastic-product": "Elasticsearch"}


@pytest.fixture(autouse=True)
def no_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stub answers every request alike, so it keeps no lease."""
    monkeypatch.setattr(Lease, "__enter__", lambda self: self)
    monkeypatch.setattr(Lease, "__exit__", lambda *_: None)


def hold(answer: Any, alias: str, state: Path) -> JobFolder:
    with (
        stub_server(200, answer, HEADERS) as url,
        connect(url, {}) as client,
        job(client, alias, state, threading.Event()) as folder,
    ):
        return folder


@pytest.mark.parametrize("uuid", ["kOqCPzzvT8yVLfnvWq_9-g", "_na_"])
def test_an_ordinary_cluster_has_the_folder_it_always_had(uuid: str, tmp_path: Path) -> None:
    assert hold({"cluster_uuid": uuid}, "papers", tmp_path).path == tmp_path / f"{uuid}-papers"


@pytest.mark.parametrize(
    "answer",
    [
        *(
            {"cluster_uuid": uuid}
            for uuid in (
                "../../outside/x", "/tmp/outside", "..", ".", "", "a/b", "a\\b", "a\0b", "x" * 300, "C:x", "ünïcode",
                "\uff0e\uff0e\uff0fx", "a\nb", "a ", None, 7, ["a"], {"a": "b"},
            )
        ),
        {},
        [],
        [{"cluster_uuid": "abc"}],
    ],
    ids=ascii,
)  # fmt: skip
def test_what_is_no_id_of_a_cluster_writes_nothing(answer: Any, tmp_path: Path) -> None:
    state = tmp_path / "inner" / "state"
    with pytest.raises(NotElasticsearchError):
        hold(answer, "papers", state)
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.parametrize("alias", ["../../outside", "/tmp/outside", "..", "", "a/b", "a\0b", "A", "x" * 201])
def test_what_is_no_alias_writes_nothing_either(alias: str, tmp_path: Path) -> None:
    with pytest.raises((ConfigError, ConnectError)):
        hold({"cluster_uuid": "abc"}, alias, tmp_path / "state")
    assert list(tmp_path.rglob("*")) == []
