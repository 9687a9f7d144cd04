"""Which index a run writes to: the live one, an unfinished one of the same making, or a new version."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from esvector.client import explain_errors
from esvector.errors import ConfigError
from esvector.index.passages import complete_options
from esvector.index.repeating import Repeating, once
from esvector.index.versions import loading_alias
from esvector.passport import Passport
from esvector.types import PassageOptions
from esvector.vectors import ElementType

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

__all__ = [
    "BLOCKED_KEY",
    "LOAD_KEY",
    "Making",
    "Target",
    "choose_target",
    "find_targets",
    "lift_block",
    "raise_generation",
    "update_meta",
]

LOAD_KEY = "esvector_load"
BLOCKED_KEY = "esvector_blocked"
"""In ``_meta`` of an index that a run has closed to writers, so that a later one can open it if that run died."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Making:
    """The options that decide, beside the encoder, what the documents of an index look like.

    Attributes:
        text_fields: fields whose text is encoded.
        vector_field: field that holds the vector.
        element_type: how the field keeps a vector.
        id_field: field with a record's id; None for ``_id``, else ``id``, else one made from the content.
        given: field in which a record brings its own vector.
        passages: how documents are cut; None where a document has one vector.
        template: the mapping that the index was made from.
        field_types: Elasticsearch types by field name, over everything else.
    """

    text_fields: tuple[str, ...]
    vector_field: str
    element_type: ElementType
    id_field: str | None = None
    given: str | None = None
    passages: PassageOptions | None = None
    template: Mapping[str, Any] = field(default_factory=dict)
    field_types: Mapping[str, str] = field(default_factory=dict)

    def to_meta(self, generation: int) -> dict[str, Any]:
        """As part of the ``_meta`` object of a mapping: what the passport does not say, and ``generation``."""
        own = {name: getattr(self, name) for name in _OWN}
        return {LOAD_KEY: {"generation": generation, **own}}


_OWN = ("id_field", "given", "template", "field_types")


@dataclass(frozen=True, slots=True)
class Target:
    """An index that a run can write to.

    Attributes:
        index: its name.
        uuid: its id: another index of this name has another.
        live: whether readers see it.
        passport: what made its vectors.
        making: the options that decide the rest.
        generation: of the last run that wrote to it; the versions of its documents begin with it.
        blocked: whether a run has closed it to writers.
        loading: whether a run has it open for loading, or left it so.
    """

    index: str
    uuid: str
    live: bool
    passport: Passport
    making: Making
    generation: int
    blocked: bool = False
    loading: bool = False


def find_targets(client: Elasticsearch, alias: str) -> list[Target]:
    """Return the versions of ``alias`` that a run can go on with, the newest first.

    One whose passport cannot be read, or that an older esvector made, is left out: it can only be replaced.
    """
    with explain_errors(client):
        found = client.indices.get(
            index=f"{alias}-*", features="aliases,mappings,settings", expand_wildcards="open,hidden"
        )
    name = re.compile(re.escape(alias) + r"-\d{6,}")
    versions = sorted((index for index in found if name.fullmatch(index)), reverse=True)
    targets = (_target(index, alias, found[index]) for index in versions)
    return [target for target in targets if target is not None]


def choose_target(
    targets: Sequence[Target], making: Making, same_encoder: Callable[[Passport], bool], *, rebuild: bool
) -> Target | None:
    """Return the live version to update, else the unfinished one to go on with; None when a new one has to be built.

    Only one that was made by the same encoder and options will do, and with ``rebuild`` not the live one. The live one
    comes first: a source may be a part of what is in it, and of an unfinished version it would be all.
    """
    live = next((target for target in targets if target.live), None)
    if live is not None and not rebuild:
        if _alike(making, live) and same_encoder(live.passport):
            return live
        _log.info("%s was made by another encoder or with other options: a new version is built", live.index)
    for target in targets:
        if target is live:
            break
        # The swap ends the loading: with a crash just before it, a version is ready and yet nobody was ever served it.
        unserved = target.passport.state == "building" or target.loading
        if unserved and _alike(making, target) and same_encoder(target.passport):
            return target
    return None


def raise_generation(client: Elasticsearch, target: Target, repeat: Repeating | None = None) -> Target:
    """Begin a new run on ``target``: every document that it writes beats those of the runs before.

    ``repeat`` says how long a server in trouble is waited for; without it, an error is raised at once.
    """
    generation = target.generation + 1
    update_meta(client, target.index, target.making.to_meta(generation), repeat)
    return replace(target, generation=generation)


def update_meta(client: Elasticsearch, index: str, changes: Mapping[str, Any], repeat: Repeating | None = None) -> None:
    """Change parts of an index's ``_meta``, which the server replaces as a whole."""

    def update() -> None:
        mappings = client.indices.get_mapping(index=index)[index]["mappings"]
        client.indices.put_mapping(index=index, body={"_meta": {**mappings.get("_meta", {}), **changes}})

    (repeat or once(client))(update)


def lift_block(client: Elasticsearch, index: str, repeat: Repeating) -> None:
    """Open ``index`` to writers again, after a run that closed it."""
    repeat(lambda: client.indices.put_settings(index=index, settings={"index.blocks.write": None}))
    update_meta(client, index, {BLOCKED_KEY: False}, repeat)


def _alike(making: Making, target: Target) -> bool:
    """Whether ``target`` was made as ``making`` says; what that leaves open of passages is up to the encoder."""
    cut = making.passages
    if cut is not None and target.making.passages is not None:
        try:
            making = replace(making, passages=complete_options(cut, target.passport.encoder))
        except ConfigError:  # they do not fit this encoder, so it is not the one that is wanted
            return False
    return making == target.making


def _target(index: str, alias: str, facts: Mapping[str, Any]) -> Target | None:
    meta = facts["mappings"].get("_meta") or {}
    try:
        passport = Passport.from_meta(meta)
    except ConfigError as error:
        _log.warning("%s cannot be changed, only replaced: %s", index, error.message)
        return None
    load = meta.get(LOAD_KEY)
    if passport is None or load is None:
        return None
    making = Making(
        text_fields=passport.text_fields,
        vector_field=passport.vector_field,
        element_type=passport.element_type,
        passages=passport.passages,
        **{name: load[name] for name in _OWN},
    )
    return Target(
        index=index,
        uuid=facts["settings"]["index"]["uuid"],
        live=alias in facts["aliases"],
        passport=passport,
        making=making,
        generation=int(load["generation"]),
        blocked=bool(meta.get(BLOCKED_KEY)),
        loading=loading_alias(index) in facts["aliases"],
    )
