"""Looking an index over: what is missing, wrong, slow or in danger, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from esvector.encode.encoder import Encoder
from esvector.errors import ConfigError, CredentialsError
from esvector.evaluate.findings import Finding
from esvector.evaluate.index_checks import (
    check_leftovers,
    check_mapping,
    check_memory,
    check_segments,
    check_settings,
    check_shards,
)
from esvector.evaluate.live import Live, look_up
from esvector.evaluate.vector_checks import (
    check_coverage,
    check_duplicates,
    check_encoder,
    check_norms,
    take_sample,
)
from esvector.search.exact import count_body, read_counts

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

__all__ = ["Diagnosis", "examine"]

_SAMPLE = 200
_MOST = 10_000  # hits of one search


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was found in the ``index`` behind ``alias``."""

    alias: str
    index: str
    findings: tuple[Finding, ...]

    @property
    def alarmed(self) -> bool:
        """Whether anything is wrong with the answers themselves."""
        return any(finding.level == "alarm" for finding in self.findings)


def examine(
    client: Elasticsearch,
    alias: str,
    *,
    sample: int = _SAMPLE,
    seed: int = 0,
    encode: bool = True,
    encoder: Encoder | None = None,
    devices: Sequence[str] = (),
    progress: Callable[[str, int, int], None] = lambda phase, done, total: None,
) -> Diagnosis:
    """Examine what is behind ``alias``; nothing is changed.

    ``sample`` documents, drawn by ``seed``, are looked at closely: with ``encode`` their stored texts are encoded again
    by the passport's encoder (or ``encoder``, if it is that one), on ``devices``, and compared with the stored vectors.
    What the credentials do not allow is a finding, too. Raises IndexNotFoundError where there is nothing to examine,
    ConfigError for a sample out of range.
    """
    if not 1 <= sample <= _MOST:
        raise ConfigError(f"the sample has {sample} documents", f"draw 1 to {_MOST:,}")
    live = look_up(client, alias)
    drawn = take_sample(client, live, sample, seed)
    checks: list[tuple[str, Callable[[], Finding | list[Finding]]]] = [
        ("coverage", lambda: check_coverage(client, live)),
        ("norms", lambda: check_norms(live, drawn)),
        ("duplicates", lambda: check_duplicates(client, live)),
        ("shards", lambda: check_shards(client, live)),
        ("segments", lambda: check_segments(client, live)),
        ("mapping", lambda: check_mapping(live, _vectors(client, live))),
        ("memory", lambda: check_memory(client, live)),
        ("settings", lambda: check_settings(live)),
        ("leftovers", lambda: check_leftovers(client, live)),
    ]
    if encode and drawn.ids:
        checks.insert(2, ("passport", lambda: check_encoder(live, drawn, encoder, devices)))
    findings: list[Finding] = []
    for number, (name, check) in enumerate(checks):
        progress(name, number, len(checks))
        findings += _run(name, check)
    return Diagnosis(alias, live.name, tuple(findings))


def _run(name: str, check: Callable[[], Finding | list[Finding]]) -> list[Finding]:
    try:
        found = check()
    except CredentialsError as error:  # a searcher's role may not look at nodes; the rest is worth knowing all the same
        return [Finding("note", name, f"not looked at: {error.message}", error.remedy)]
    return [found] if isinstance(found, Finding) else found


def _vectors(client: Elasticsearch, live: Live) -> int:
    answer = client.search(index=live.name, body=count_body(live.passport.vector_field, passages=live.passages))
    return read_counts(answer.body)[0].vectors
