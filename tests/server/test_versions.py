"""Versions behind an alias: the swap under a race, going back, pruning, and names that never come back."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from elasticsearch import Elasticsearch

from esvector import Indexer, Searcher
from esvector.cli import app
from esvector.errors import ConfigError, IndexingError, IndexNotFoundError
from esvector.index.graph import loading_body
from esvector.index.history import prune, rollback, versions
from esvector.index.reembed import reembed
from esvector.index.versions import create_version, delete_version, list_versions, live_index, move_alias
from tests.support.encoders import HashEncoder

Build = Callable[[str], str]


@pytest.fixture
def build(es: Elasticsearch, alias: str, tmp_path: Path) -> Build:
    """Index one document, whose text is given, into the next version."""

    def run(text: str) -> str:
        indexer = Indexer(es, alias, encoder=HashEncoder(), rebuild=True, dead_letters=tmp_path / "dead.jsonl")
        return indexer.run([{"id": text, "text": text}]).index

    return run


def unfinished(es: Elasticsearch, alias: str) -> str:
    """A version as a killed run leaves it: with a passport that says so."""
    mapping = next(iter(es.indices.get_mapping(index=alias).values()))["mappings"]
    mapping["_meta"]["esvector"]["state"] = "building"
    return create_version(es, alias, {"settings": {"index": {"number_of_replicas": 0}}, "mappings": mapping})


def seen(es: Elasticsearch, alias: str) -> str:
    (hit,) = Searcher(es, alias, encoder=HashEncoder()).search("anything", k=1)
    return hit.id


def test_rollbacks_go_back_to_the_first_version_and_no_further(es: Elasticsearch, alias: str, build: Build) -> None:
    one, two, three = build("one"), build("two"), build("three")
    done = rollback(es, alias)
    assert (done.index, done.left, done.documents) == (two, three, 1)
    assert seen(es, alias) == "two"
    assert rollback(es, alias).index == one
    assert seen(es, alias) == "one"
    with pytest.raises(IndexingError, match="was live before"):
        rollback(es, alias)
    assert rollback(es, alias, to=three).index == three
    assert seen(es, alias) == "three"


def test_a_version_made_after_a_rollback_leads_back_to_what_was_live_then(
    es: Elasticsearch, alias: str, build: Build
) -> None:
    one, two = build("one"), build("two")
    rollback(es, alias)
    three = build("three")
    assert [version.previous for version in versions(es, alias)] == [None, one, one]
    assert rollback(es, alias).index == one
    assert rollback(es, alias, to=two).left == one
    assert rollback(es, alias, to=three).left == two


def test_a_version_that_was_never_verified_is_refused(es: Elasticsearch, alias: str, build: Build) -> None:
    one = build("one")
    two = unfinished(es, alias)
    with pytest.raises(IndexingError, match="never verified"):
        rollback(es, alias, to=two)
    assert live_index(es, alias) == one


def test_a_rollback_to_what_cannot_be_searched_is_refused(es: Elasticsearch, alias: str, build: Build) -> None:
    one, two = build("one"), build("two")
    es.indices.create(index=f"{alias}x-000001", mappings=es.indices.get_mapping(index=one)[one]["mappings"])
    for to in (f"{alias}x-000001", f"{alias}-000009", alias, f"{alias}-*"):
        with pytest.raises(IndexingError):
            rollback(es, alias, to=to)
    es.indices.close(index=one)
    with pytest.raises(IndexingError):
        rollback(es, alias)
    es.indices.delete(index=one)
    with pytest.raises(IndexingError, match="is gone"):
        rollback(es, alias)
    assert live_index(es, alias) == two


def test_a_rollback_to_a_version_without_all_its_shards_is_refused(es: Elasticsearch, alias: str, build: Build) -> None:
    one = build("one")
    body = es.indices.get_mapping(index=one)[one]["mappings"]
    red = {"routing.allocation.require._name": "nowhere"}
    es.indices.create(index=f"{alias}-000002", mappings=body, settings=red, wait_for_active_shards=0)
    with pytest.raises(IndexingError):
        rollback(es, alias, to=f"{alias}-000002")
    assert live_index(es, alias) == one


def test_what_an_alias_hides_stays_hidden_at_each_swap_and_rollback(
    es: Elasticsearch, alias: str, tmp_path: Path
) -> None:
    def indexer() -> Indexer:
        return Indexer(es, alias, encoder=HashEncoder(), rebuild=True, dead_letters=tmp_path / "dead.jsonl")

    def visible() -> tuple[list[str], dict[str, Any]]:
        index = live_index(es, alias)
        assert index is not None
        found = Searcher(es, alias, encoder=HashEncoder()).search("about 3", k=20)
        return sorted(hit.id for hit in found), es.indices.get_alias(name=alias)[index]["aliases"][alias]

    records = [{"id": str(n), "text": f"about {n}", "public": n % 2 == 0} for n in range(10)]
    first = indexer().run(records).index
    hides = {"filter": {"term": {"public": True}}, "search_routing": "1,2", "index_routing": "1", "is_hidden": True}
    es.indices.update_aliases(actions=[{"add": {"index": first, "alias": alias, "is_write_index": True, **hides}}])
    public = [str(n) for n in range(0, 10, 2)]
    before = visible()
    assert before == (public, {**hides, "is_write_index": True})
    second = indexer().run(records).index
    assert visible() == before
    assert rollback(es, alias).index == first
    assert visible() == before
    assert reembed(indexer()).load.index not in (first, second)
    assert visible() == before
    assert es.count(index=live_index(es, alias))["count"] == 10


def test_an_index_of_somebody_else_is_not_taken_from_its_readers_unasked(
    es: Elasticsearch, alias: str, tmp_path: Path
) -> None:
    theirs = f"{alias}_v1"
    es.indices.create(index=theirs, aliases={alias: {"filter": {"exists": {"field": "text"}}}})
    es.index(index=theirs, id="their own", document={"text": "x"}, refresh=True)
    options: dict[str, Any] = {"encoder": HashEncoder(), "dead_letters": tmp_path / "dead.jsonl"}
    records = [{"id": "1", "text": "x"}]
    with pytest.raises(IndexingError, match="--take-over"):
        Indexer(es, alias, **options).run(records)
    assert live_index(es, alias) == theirs
    assert list_versions(es, alias) == []
    report = Indexer(es, alias, **options, take_over=True).run(records)
    assert (report.previous, live_index(es, alias)) == (theirs, report.index)
    assert Indexer(es, alias, **options).run(records).unchanged == 1
    done = rollback(es, alias)
    assert (done.index, done.left, done.documents) == (theirs, report.index, 1)
    assert es.search(index=alias)["hits"]["hits"][0]["_id"] == "their own"
    with pytest.raises(IndexingError, match="--take-over"):
        Indexer(es, alias, **options).run(records)
    assert rollback(es, alias, to=report.index).left == theirs
    assert rollback(es, alias, to=theirs).left == report.index
    assert "filter" in es.indices.get_alias(name=alias)[theirs]["aliases"][alias]


def test_a_version_that_another_alias_leads_to_is_named_and_not_deleted(
    es: Elasticsearch, alias: str, build: Build, caplog: pytest.LogCaptureFixture
) -> None:
    one = build("one")
    es.indices.put_alias(index=one, name=f"{alias}-for-others")
    build("two")
    assert [record.args for record in caplog.records if record.levelname == "WARNING"] == [(one, f"{alias}-for-others")]
    build("three")
    with pytest.raises(IndexingError, match=f"{alias}-for-others"):
        prune(es, alias, 0)
    assert len(list_versions(es, alias)) == 3
    assert es.count(index=f"{alias}-for-others")["count"] == 1


def few(n: int) -> list[dict[str, str]]:
    return [{"id": str(i), "text": f"about {i}"} for i in range(n)]


@pytest.mark.parametrize("live", [False, True])
def test_a_template_that_shows_every_new_index_to_readers_is_refused(
    es: Elasticsearch, alias: str, tmp_path: Path, live: bool
) -> None:
    indexer = Indexer(es, alias, encoder=HashEncoder(), rebuild=True, dead_letters=tmp_path / "dead.jsonl")
    served = [indexer.run(few(3)).index] if live else []
    es.indices.put_index_template(
        name=alias, index_patterns=[f"{alias}-*"], template={"aliases": {alias: {}}}, priority=500
    )
    try:
        with pytest.raises(ConfigError, match="template"):
            indexer.run(few(3))
    finally:
        es.indices.delete_index_template(name=alias)
    assert [version.index for version in list_versions(es, alias)] == served
    assert indexer.run(few(3)).indexed == 3


@pytest.mark.parametrize("name", ["000001", "202401"])
def test_indices_of_others_that_are_named_like_versions_are_in_the_way(
    es: Elasticsearch, alias: str, tmp_path: Path, name: str
) -> None:
    """Such as those of a rollover, or a logger's of every month: the next one would be ours."""
    es.indices.create(index=f"{alias}-{name}")
    with pytest.raises(ConfigError, match=f"{alias}-{name}"):
        Indexer(es, alias, encoder=HashEncoder(), dead_letters=tmp_path / "dead.jsonl").run(few(3))
    assert list(es.indices.get(index=f"{alias}*")) == [f"{alias}-{name}"]


def test_a_copy_of_a_version_that_the_cluster_made_is_not_replaced_by_a_part_of_it(
    es: Elasticsearch, alias: str, tmp_path: Path
) -> None:
    indexer = Indexer(es, alias, encoder=HashEncoder(), dead_letters=tmp_path / "dead.jsonl")
    one, copy = indexer.run(few(20)).index, f"{alias}-shrunk"
    es.indices.create(index=copy, mappings=es.indices.get_mapping(index=one)[one]["mappings"])
    es.indices.update_aliases(actions=[{"add": {"index": copy, "alias": alias}}, {"remove_index": {"index": one}}])
    with pytest.raises(IndexingError, match=copy):
        indexer.run(few(21)[20:])
    assert live_index(es, alias) == copy


def test_a_version_whose_alias_is_gone_is_not_forgotten(es: Elasticsearch, alias: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"encoder": HashEncoder(), "dead_letters": tmp_path / "dead.jsonl"}
    one = Indexer(es, alias, **options).run(few(20)).index
    es.indices.delete_alias(index=one, name=alias)
    with pytest.raises(IndexingError, match=f"--to {one}"):
        Indexer(es, alias, **options).run(few(21)[20:])
    rollback(es, alias, to=one)
    assert Indexer(es, alias, **options).run(few(21)[20:]).index == one
    es.indices.delete_alias(index=one, name=alias)
    assert Indexer(es, alias, **options, take_over=True).run(few(1)).index == f"{alias}-000002"


def test_a_new_version_with_far_fewer_documents_than_readers_see_is_not_served_unasked(
    es: Elasticsearch, alias: str, tmp_path: Path
) -> None:
    """Such as a small file to try another model with, under the name that is used."""
    dead = tmp_path / "dead.jsonl"
    one = Indexer(es, alias, encoder=HashEncoder(), dead_letters=dead).run(few(20)).index
    other: dict[str, Any] = {"encoder": HashEncoder(32), "dead_letters": dead}
    with pytest.raises(IndexingError, match="--force"):
        Indexer(es, alias, **other).run(few(17))
    assert live_index(es, alias) == one
    assert Indexer(es, alias, **other).run(few(18)).previous == one
    report = Indexer(es, alias, encoder=HashEncoder(), dead_letters=dead, most_pruned=1).run(few(2))
    assert (report.indexed, es.count(index=alias)["count"]) == (2, 2)


def test_pruning_deletes_what_it_says(es: Elasticsearch, alias: str, build: Build) -> None:
    one, two, three = build("one"), build("two"), build("three")
    four = unfinished(es, alias)
    assert [version.index for version in prune(es, alias, 0, only={one})] == [one]
    assert [version.index for version in prune(es, alias, 0)] == [two]
    assert [version.index for version in list_versions(es, alias)] == [three, four]
    assert [version.index for version in prune(es, alias, 0, unfinished=True)] == [four]
    assert seen(es, alias) == "three"
    with pytest.raises(IndexingError, match=f"{two} is gone"):
        rollback(es, alias)


def test_the_live_version_cannot_be_deleted(es: Elasticsearch, alias: str, build: Build) -> None:
    one = build("one")
    with pytest.raises(IndexingError, match="readers"):
        delete_version(es, one)
    assert seen(es, alias) == "one"


def test_a_name_is_not_used_again(es: Elasticsearch, alias: str, build: Build) -> None:
    build("one")
    two = build("two")
    rollback(es, alias)
    prune(es, alias, 0)
    assert not es.indices.exists(index=two)
    assert build("three") == f"{alias}-000003"
    prune(es, alias, 0)
    assert build("four") == f"{alias}-000004"


def test_an_unknown_alias_has_no_versions(es: Elasticsearch, alias: str) -> None:
    with pytest.raises(IndexNotFoundError):
        versions(es, alias)
    with pytest.raises(IndexNotFoundError):
        rollback(es, alias)


def test_a_mapping_that_cannot_be_the_final_one_is_refused_before_the_load(es: Elasticsearch, alias: str) -> None:
    vector = {"type": "dense_vector", "dims": 33, "index_options": {"type": "int4_hnsw"}}
    body = {"mappings": {"properties": {"vector": vector}}}
    with pytest.raises(ConfigError, match="only supports even dimensions"):
        create_version(es, alias, loading_body(body, "vector"), in_the_end=body)
    assert list_versions(es, alias) == []


@pytest.mark.parametrize("first", [True, False], ids=["no-version-before", "a-version-before"])
def test_of_two_swaps_at_once_one_wins_and_the_alias_is_always_on_one_index(
    es: Elasticsearch, alias: str, first: bool
) -> None:
    ours: dict[str, Any] = {"_meta": {"esvector": {}}}
    indices = [
        create_version(es, alias, {"settings": {"index": {"number_of_replicas": 0}}, "mappings": ours})
        for _ in range(3)
    ]
    watching = threading.Event()
    wrong: list[Any] = []

    def watch() -> None:
        while not watching.is_set():
            answer = es.options(ignore_status=404).indices.get_alias(name=alias)
            there = [index for index in answer if index in indices]
            if len(there) > 1 or (not first and len(there) != 1):
                wrong.append(answer)

    def swap(start: threading.Barrier, previous: str | None, index: str) -> bool:
        start.wait()
        try:
            move_alias(es, alias, previous, index)
        except IndexingError as error:
            return "another run moved it" not in error.message
        return True

    if not first:
        move_alias(es, alias, None, indices[0])
    watcher = threading.Thread(target=watch)
    watcher.start()
    with ThreadPoolExecutor(2) as pool:
        for _ in range(30):
            live = live_index(es, alias)
            if first and live is not None:
                es.indices.delete_alias(index=live, name=alias)
                live = None
            start = threading.Barrier(2)
            others = [index for index in indices if index != live][:2]
            won = list(pool.map(lambda index, start=start, live=live: swap(start, live, index), others))
            assert won.count(True) == 1
            assert live_index(es, alias) == others[won.index(True)]
    watching.set()
    watcher.join()
    assert wrong == []


def esvector(server_url: str, *args: str) -> Result:
    result = CliRunner().invoke(app, args, env={"ESVECTOR_URL": server_url}, prog_name="esvector")
    assert "Traceback" not in result.output
    return result


def lines_of(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_the_commands(es: Elasticsearch, alias: str, build: Build, server_url: str) -> None:
    one, two = build("one"), build("two")
    listed = lines_of(esvector(server_url, "versions", alias))
    assert [(line["index"], line["state"], line["previous"]) for line in listed] == [
        (one, "kept", None),
        (two, "live", one),
    ]
    back = esvector(server_url, "rollback", alias)
    assert lines_of(back) == [{"alias": alias, "index": one, "left": two, "documents": 1}]
    assert f"readers of {alias} now see {one} (1 documents) instead of {two}" in back.stderr
    again = esvector(server_url, "rollback", alias)
    assert again.exit_code == 1
    assert f"no version of {alias} was live before {one}" in again.stderr
    assert f"--to: {two}" in again.stderr
    assert "nothing was changed" in esvector(server_url, "rollback", alias, "--to", one).stderr
    unasked = esvector(server_url, "prune", alias, "--keep", "0")
    assert unasked.exit_code == 2
    assert "add --yes" in unasked.stderr
    assert es.indices.exists(index=two)
    pruned = esvector(server_url, "prune", alias, "--keep", "0", "--yes")
    assert pruned.exit_code == 0
    assert f"deleted {two} (kept, 1 documents" in pruned.stderr
    assert not es.indices.exists(index=two)
    assert "nothing to delete" in esvector(server_url, "prune", alias, "--keep", "0").stderr


def test_the_table_on_a_terminal_says_where_a_rollback_leads(
    es: Elasticsearch,
    alias: str,
    build: Build,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from esvector.cli.versions import _print_table

    monkeypatch.setenv("COLUMNS", "200")
    build("one")
    build("two")
    _print_table(versions(es, alias))
    first, second = capsys.readouterr().out.splitlines()[1:3]
    assert "kept (rollback)" in first
    assert "live" in second
