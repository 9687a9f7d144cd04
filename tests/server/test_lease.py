"""One run at a time on an alias, decided by the server."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from elasticsearch import Elasticsearch

from esvector import Indexer
from esvector.errors import LeaseError
from esvector.index.lease import LEASES_INDEX, Lease
from esvector.index.versions import live_index
from esvector.types import Progress
from tests.support.encoders import HashEncoder

BEAT = 0.2


def lease(es: Elasticsearch, alias: str, owner: str, **more: Any) -> Lease:
    return Lease(es, alias, owner=owner, beat=BEAT, **more)


def test_the_second_is_refused_while_the_first_lives(es: Elasticsearch, alias: str) -> None:
    with (
        lease(es, alias, "one"),
        pytest.raises(LeaseError, match=f"another run is changing {alias}"),
        lease(es, alias, "two"),
    ):
        pass
    with lease(es, alias, "two"):
        pass


def test_one_that_shows_no_life_is_taken_over_and_notices(es: Elasticsearch, alias: str) -> None:
    lost = threading.Event()
    stuck = lease(es, alias, "one", on_lost=lost.set)
    resume = threading.Event()
    # As a stopped process would be: no sign of life until it goes on.
    stuck._thread = threading.Thread(target=_after(resume, stuck._keep), daemon=True)
    with stuck, lease(es, alias, "two"):
        resume.set()
        assert lost.wait(20)


def _after(event: threading.Event, then: Callable[[], None]) -> Callable[[], None]:
    def run() -> None:
        assert event.wait(20)
        then()

    return run


def test_an_own_lease_that_was_left_behind_is_taken_at_once(es: Elasticsearch, alias: str) -> None:
    left = lease(es, alias, "one")
    left._thread = threading.Thread(target=lambda: None)
    left.__enter__()
    with lease(es, alias, "one"):
        pass


def test_of_many_at_once_one_gets_it(es: Elasticsearch, alias: str) -> None:
    together = threading.Barrier(6)
    hold = threading.Event()
    held: list[int] = []

    def run(number: int) -> bool:
        together.wait(20)
        try:
            with lease(es, alias, f"owner {number}"):
                held.append(number)
                assert hold.wait(20)
        except LeaseError:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        futures = [pool.submit(run, number) for number in range(6)]
        losers = [future for future in futures if _done_without(future, hold)]
        assert len(losers) == 5
        hold.set()
        assert sum(future.result(20) for future in futures) == len(held) == 1


def _done_without(future: Any, hold: threading.Event) -> bool:
    try:
        return future.result(BEAT * 15) is False
    except TimeoutError:
        return False


def test_its_index_is_out_of_the_way(es: Elasticsearch, alias: str) -> None:
    with lease(es, alias, "one"):
        assert LEASES_INDEX not in es.indices.get(index="*")


def test_two_indexers_on_one_alias(es: Elasticsearch, alias: str, tmp_path: Path) -> None:
    """The first goes on undisturbed, the second says why it does not start: on this machine, and on another."""
    refusals: list[str] = []

    def source() -> Iterator[dict[str, Any]]:
        for n in range(3000):
            if n == 2000:
                for state in (tmp_path / "one", tmp_path / "two"):
                    with pytest.raises(LeaseError) as refused:
                        Indexer(es, alias, encoder=HashEncoder(), state=state).run([{"id": "x", "text": "x"}])
                    refusals.append(refused.value.message)
            yield {"id": str(n), "text": f"text {n}"}

    report = Indexer(es, alias, encoder=HashEncoder(), state=tmp_path / "one").run(source())
    assert report.indexed == 3000
    assert "on this machine" in refusals[0]
    assert f"another run is changing {alias}" in refusals[1]


def test_a_lease_document_that_is_deleted_while_it_is_watched_is_no_obstacle(es: Elasticsearch, alias: str) -> None:
    left = lease(es, alias, "one")
    left._thread = threading.Thread(target=lambda: None)
    left.__enter__()
    second = lease(es, alias, "two")
    second._ended = _Deletes(es, alias)  # type: ignore[assignment]
    second._acquire()
    assert es.get(index=LEASES_INDEX, id=alias)["_source"]["owner"] == "two"
    assert second._beats == 2  # the first was for the document as it had been read


@pytest.mark.parametrize("options", [{"rebuild": True}, {"prune": True, "most_pruned": 1.0}])
def test_a_run_whose_lease_was_taken_does_nothing_more_that_readers_see(
    es: Elasticsearch, alias: str, tmp_path: Path, options: dict[str, Any]
) -> None:
    records = [{"id": str(n), "text": f"about {n}"} for n in range(30)]
    state: dict[str, Any] = {
        "encoder": HashEncoder(),
        "dead_letters": tmp_path / "d.jsonl",
        "state": tmp_path / "state",
    }
    first = Indexer(es, alias, **state).run(records).index

    def take(now: Progress) -> None:
        if now.phase == "verifying":
            es.index(index=LEASES_INDEX, id=alias, document={"owner": "another", "host": "h", "pid": 1, "beats": 1})

    with pytest.raises(LeaseError):
        Indexer(es, alias, **state, **options).run(records[:5] if "prune" in options else records, take)
    assert (live_index(es, alias), es.count(index=alias)["count"]) == (first, 30)


class _Deletes:
    """Takes the place of the event that a lease waits on between two looks."""

    def __init__(self, es: Elasticsearch, alias: str) -> None:
        self._es, self._alias = es, alias

    def wait(self, _seconds: float) -> None:
        self._es.delete(index=LEASES_INDEX, id=self._alias, refresh=True)
