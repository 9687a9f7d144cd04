"""Which version a rollback leads to, and which ones pruning deletes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from esvector.errors import IndexingError, IndexNotFoundError
from esvector.index.history import prunable, rollback_target
from esvector.index.inspect import VersionStatus


def version(number: int, state: str = "kept", previous: int | None = None) -> VersionStatus:
    return VersionStatus(
        alias="a",
        index=name(number),
        state=state,
        documents=1,
        model="m",
        kind="symmetric",
        similarity="cosine",
        dims=3,
        vector_type="int8_hnsw",
        disk_bytes=1,
        memory_bytes=None,
        health="green",
        created="2026-01-01T00:00:00+00:00",
        previous=name(previous) if previous else None,
        passport={},
    )


def name(number: int) -> str:
    return f"a-{number:06d}"


# 2 was bad: readers went back to 1, and 3 was made from there.
AFTER_A_BAD_ONE = [version(1), version(2, previous=1), version(3, "live", previous=1), version(4, "unfinished")]


def names(versions: list[VersionStatus]) -> list[str]:
    return [version.index for version in versions]


def test_a_rollback_leads_to_what_readers_saw_before_and_not_to_the_newest() -> None:
    assert rollback_target(AFTER_A_BAD_ONE, "a", name(3)) == name(1)
    assert rollback_target(AFTER_A_BAD_ONE, "a", name(3), to=name(2)) == name(2)


def test_rollbacks_end_at_the_first_version() -> None:
    found = [
        replace(AFTER_A_BAD_ONE[0], state="live"),
        *AFTER_A_BAD_ONE[1:2],
        replace(AFTER_A_BAD_ONE[2], state="kept"),
    ]
    with pytest.raises(IndexingError, match=r"was live before a-000001\nchoose one with --to: a-000002, a-000003"):
        rollback_target(found, "a", name(1))


@pytest.mark.parametrize(("keep", "doomed"), [(0, [1, 2]), (1, [2]), (2, []), (5, [])])
def test_pruning_keeps_where_rollbacks_lead_and_then_the_newest(keep: int, doomed: list[int]) -> None:
    assert names(prunable(AFTER_A_BAD_ONE, keep)) == [name(number) for number in doomed]
    assert names(prunable(AFTER_A_BAD_ONE, keep, unfinished=True)) == [name(number) for number in [*doomed, 4]]


def test_pruning_follows_the_chain_and_survives_a_broken_one() -> None:
    chain = [version(1), version(2, previous=1), version(3), version(4, previous=2), version(5, "live", previous=4)]
    assert names(prunable(chain, 2)) == [name(1), name(3)]
    assert names(prunable(chain, 3)) == [name(3)]
    circle = [version(1, previous=2), version(2, "live", previous=1)]
    assert prunable(circle, 1) == []


def test_nothing_is_pruned_where_nothing_is_live() -> None:
    with pytest.raises(IndexNotFoundError, match="it is not known which is wanted"):
        prunable([version(1), version(2, "unfinished")], 0, unfinished=True)
    assert names(prunable([version(1, "unfinished")], unfinished=True)) == [name(1)]
