"""The documents of one write: those without an outcome yet, in parts that are requests, and the account of the rest."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from esvector.index.bodies import cut, document_bytes, halves
from esvector.index.outcomes import Action, Outcome, classify_item
from esvector.index.packing import Block

__all__ = ["Answer", "Delivery", "Fate", "WriteResult", "read_fates"]

Fate = dict[str, Any]  # what an answer says about one operation: "status", and "error" where it failed

_CREATED = 201  # status of an item whose id was new; 200 is one that took another's place, or was deleted
_DROPPED = {"reason": "an ingest pipeline of the index dropped the document"}
# Of the outcomes in one answer, the one to act on first.
_URGENCY = (Action.STOP, Action.PAUSE, Action.SHRINK, Action.AGAIN, Action.ISOLATE)


@dataclass(slots=True)
class WriteResult:
    """What became of the documents of one delivery.

    ``created`` documents are new to the index; ``replaced`` ones took the place of an earlier record of their id;
    ``deleted`` ones are gone, ``absent`` ones were not there. ``uncertain`` ones are one or the other, because an
    answer was lost. ``superseded`` has the ids of those of which the index has a later version, and ``refused``
    (position, reason).
    """

    created: int = 0
    replaced: int = 0
    deleted: int = 0
    absent: int = 0
    uncertain: int = 0
    superseded: list[str] = field(default_factory=list)
    repeated_ids: list[str] = field(default_factory=list)
    refused: list[tuple[int, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Answer:
    """The outcome of a request, or of its documents that have none of their own yet, why, and how many they are.

    ``fates`` say what became of each operation, where the answer does; ``error`` is that of a request that failed.
    """

    outcome: Outcome
    reason: str = ""
    left: int = 0
    fates: list[Fate] | None = None
    error: Exception | None = None


class Delivery:
    """Parts of ``block`` of at most ``limit`` bytes, the first of which is the next request.

    A part is sent again as it is, byte for byte, unless some of its documents got an outcome or it has to be smaller.
    """

    def __init__(self, block: Block, limit: int, *, deletes: bool) -> None:
        self.block = block
        self.result = WriteResult()
        self.pending = len(block.ids)
        self.deletes = deletes
        self._sizes = document_bytes(block)
        self._parts = deque(cut(range(self.pending), self._sizes, limit))

    def next_part(self, limit: int) -> Sequence[int]:
        """Return the positions to send next, empty when all have their outcome; smaller ones where ``limit`` fell."""
        if not self._parts:
            return ()
        self._replace(cut(self._parts[0], self._sizes, limit))
        return self._parts[0]

    def size(self, part: Sequence[int]) -> int:
        """Bytes of ``part`` in a request."""
        return int(self._sizes[part].sum())

    def doubt(self) -> None:
        """The first part may have been applied: a later answer does not tell new documents from replaced ones."""
        self.block.uncertain.update(self._parts[0])

    def refuse(self, reason: str) -> None:
        """The server will never take the documents of the first part."""
        part = self._parts.popleft()
        self.result.refused += [(position, reason) for position in part]
        self.pending -= len(part)

    def halve(self) -> None:
        """Make two parts of the first one, by bytes."""
        if len(self._parts[0]) > 1:
            self._replace(halves(self._parts[0], self._sizes))

    def isolate(self) -> None:
        """Make a part of its own of the largest document of the first part."""
        part = self._parts[0]
        largest = int(self._sizes[part].argmax())
        self._replace([part[largest : largest + 1], [*part[:largest], *part[largest + 1 :]]])

    def settle(self, fates: Sequence[Fate]) -> Answer:
        """Account for the first part by what became of each of its documents; those without an outcome stay.

        Returns the most urgent outcome of those that stay, DONE where none does.
        """
        part = self._parts.popleft()
        if [fate["status"] for fate in fates].count(_CREATED) == len(part):
            self.result.created += len(part)
            self.pending -= len(part)
            return Answer(Outcome.DONE)
        left: list[int] = []
        said: dict[Action, tuple[Outcome, str]] = {}
        for position, fate in zip(part, fates, strict=True):
            error = fate.get("error") or {}
            outcome = classify_item(fate["status"], error)
            if fate.get("result") == "noop":  # 200, although nothing was done
                outcome, error = Outcome.POISON, _DROPPED
            match outcome.action:
                case Action.COUNT:
                    self._count(position, outcome, fate["status"])
                case Action.REFUSE:
                    self.result.refused.append((position, _explain(error)))
                case action:
                    left.append(position)
                    said.setdefault(action, (outcome, _explain(error)))
        self.pending -= len(part) - len(left)
        if not left:
            return Answer(Outcome.DONE)
        self._parts.appendleft(left)
        return Answer(*next(said[action] for action in _URGENCY if action in said), len(left))

    def _count(self, position: int, outcome: Outcome, status: int) -> None:
        result, id_ = self.result, self.block.ids[position]
        if outcome is Outcome.SUPERSEDED:
            result.superseded.append(id_)
            result.repeated_ids.append(id_)
        elif status == _CREATED:
            result.created += 1
        elif position in self.block.uncertain:
            result.uncertain += 1
        elif self.deletes:
            result.deleted += outcome is Outcome.DONE
            result.absent += outcome is Outcome.ABSENT
        else:
            result.replaced += 1
            result.repeated_ids.append(id_)

    def _replace(self, parts: Sequence[Sequence[int]]) -> None:
        self._parts.popleft()
        self._parts.extendleft(reversed([part for part in parts if len(part)]))


def read_fates(body: object, operations: int) -> list[Fate] | None:
    """Return what became of each operation in order; None for an answer that does not say so of every one."""
    items = body.get("items") if isinstance(body, dict) else None
    if not isinstance(items, list) or len(items) != operations:
        return None
    try:
        fates: list[Fate] = [fate for item in items for fate in item.values()]
        complete = len(fates) == operations and all(type(fate["status"]) is int for fate in fates)
    except (AttributeError, KeyError, TypeError):
        return None
    return fates if complete else None


def _explain(error: dict[str, Any]) -> str:
    cause = error.get("caused_by") or {}
    reason = str(error.get("reason", "no reason given"))
    return f"{reason} ({cause['reason']})" if cause.get("reason") and cause["reason"] not in reason else reason
