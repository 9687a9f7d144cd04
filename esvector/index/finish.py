"""The end of a run: what the server holds against what it acknowledged, and the report."""

from __future__ import annotations

from dataclasses import replace

from esvector.errors import VerificationError
from esvector.index.deadletters import DeadLetterFile
from esvector.index.load import Load
from esvector.types import IndexReport

__all__ = ["check_count", "defect", "final_report"]


def check_count(load: Load, index: str, before: int, count: int, *, update: bool) -> None:
    """Raise VerificationError unless ``count``, what ``index`` holds, is what was there ``before`` and what is new.

    Raises HopelessInputError when nothing of the input could be indexed, unless it is an ``update`` of an index that
    keeps what it has: that may have nothing to bring.
    """
    created, uncertain, counts = load.created, load.uncertain, load.ledger.counts
    if not before + created <= count <= before + created + uncertain:
        raise VerificationError(
            f"{index} holds {count} documents, but there were {before}, and the server acknowledged {created}"
            + (f" to {created + uncertain}" if uncertain else "")
            + " new ones",
            "see whether something else writes to it, and the server's log; then run the same command again",
        )
    if count == 0 or (counts.read == counts.dead + counts.filtered and not update):
        raise load.hopeless()


def final_report(known: IndexReport, load: Load, letters: DeadLetterFile, built: int | None) -> IndexReport:
    """Return the report of a run: what is ``known`` of it with the account of ``load``.

    Raises VerificationError unless it adds up.

    ``built`` is the number of documents of a new version. All of it is the job's: what is in it was indexed by it, in
    this attempt or an earlier one. None where a live index was updated.
    """
    counts = load.ledger.counts
    if built is not None:
        accepted = counts.read - counts.dead - counts.filtered
        counts = replace(counts, indexed=built, unchanged=0, superseded=accepted - built)
    report = replace(
        known,
        read=counts.read,
        indexed=counts.indexed,
        unchanged=counts.unchanged,
        superseded=counts.superseded,
        dead=counts.dead,
        filtered=counts.filtered,
        encoded=counts.encoded,
        truncated=counts.truncated,
        tokens=counts.tokens,
        seconds=load.seconds,
        dead_letters=str(letters.path) if letters.path else None,
        repeated_ids=tuple(load.repeated_ids),
        reasons=letters.reasons,
    )
    if not report.adds_up or counts.superseded < 0:
        raise defect(f"the report does not add up: {report}")
    return report


def defect(what: str) -> VerificationError:
    """Return the error of something that cannot be."""
    return VerificationError(what, "this is a defect of esvector: report it")
