"""Versions of an index behind an alias: create beside the live one, verify, swap in one atomic step."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from esvector.client import error_reason, error_type, explain_errors
from esvector.errors import ConfigError, IndexingError
from esvector.index.inspect import PREVIOUS_KEY
from esvector.index.repeating import Repeating, once
from esvector.passport import META_KEY, Passport

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

__all__ = [
    "Version",
    "begin_loading",
    "check_alias",
    "check_deletable",
    "check_ours",
    "create_version",
    "delete_version",
    "end_loading",
    "list_versions",
    "live_index",
    "loading_alias",
    "move_alias",
    "serve_version",
]

HIGHEST_KEY = "esvector_highest"  # in the live index's _meta: highest number of the versions deleted so far

_ALIAS = re.compile(r"[a-z0-9][a-z0-9_.+-]{0,199}")


@dataclass(frozen=True, slots=True)
class Version:
    """One index of an alias; ``live`` is what readers see."""

    index: str
    live: bool


def loading_alias(index: str) -> str:
    """Return the alias that a load writes through: gone with its index, so a write can never create one by itself."""
    return f"{index}-loading"


# ``repeat``, below, says how long a server in trouble is waited for; without it, an error is raised at once.


def begin_loading(client: Elasticsearch, index: str, repeat: Repeating | None = None) -> None:
    """Let ``index`` be written to through its loading alias."""
    (repeat or once(client))(lambda: client.indices.put_alias(index=index, name=loading_alias(index)))


def end_loading(client: Elasticsearch, index: str, repeat: Repeating | None = None) -> None:
    """Take the loading alias away again; one that is gone already is fine."""
    tolerant = client.options(ignore_status=404).indices
    (repeat or once(client))(lambda: tolerant.delete_alias(index=index, name=loading_alias(index)))


def check_alias(alias: str) -> None:
    """Raise ConfigError for a name that Elasticsearch would refuse."""
    if not _ALIAS.fullmatch(alias):
        raise ConfigError(
            f"{alias!r} cannot be the name of an index",
            "use lower-case letters, digits, - _ and . (at most 200 characters, a letter or digit first)",
        )


def live_index(client: Elasticsearch, alias: str) -> str | None:
    """Return the index behind ``alias``, None where there is no such alias.

    Raises IndexingError when the name is a concrete index or an alias of several.
    """
    with explain_errors(client):
        if not client.indices.exists_alias(name=alias):
            if client.indices.exists(index=alias):
                raise IndexingError(
                    f"{alias} is an index, not an alias, so it cannot be replaced without a gap",
                    "index into another name, or delete that index first",
                )
            return None
        indices = sorted(client.indices.get_alias(name=alias))
    if len(indices) > 1:
        raise IndexingError(f"the alias {alias} points to {', '.join(indices)}", "let it point to one index only")
    return indices[0]


def check_ours(client: Elasticsearch, alias: str, index: str) -> None:
    """Raise IndexingError where ``index``, which readers of ``alias`` see, is no version that esvector made of it.

    A copy of one under another name (shrunk, restored, reindexed by Kibana) is none: it could not be updated.
    """
    with explain_errors(client):
        ours = _numbered(alias, index) and META_KEY in _meta(client, index)
    if not ours:
        raise IndexingError(
            f"the alias {alias} leads to {index}, which is not a version that esvector made: its readers would lose it",
            f"index into another name, or add --take-over (in Python: take_over=True) to move the alias; then "
            f"'esvector rollback {alias}' leads back to {index}",
        )


def list_versions(client: Elasticsearch, alias: str) -> list[Version]:
    """Every version of ``alias``, oldest first."""
    return [
        Version(name, alias in facts["aliases"])
        for name, facts in _numbered_indices(client, alias).items()
        if META_KEY in facts["mappings"].get("_meta", {}) or loading_alias(name) in facts["aliases"]
    ]


def _numbered_indices(client: Elasticsearch, alias: str) -> dict[str, Any]:
    """Aliases and mappings of every index with the name of a version of ``alias``, in the order of their names."""
    with explain_errors(client):
        found = client.indices.get(index=f"{alias}-*", features="aliases,mappings", expand_wildcards="open,hidden")
    return {name: facts for name, facts in sorted(found.items()) if _numbered(alias, name)}


def _numbered(alias: str, index: str) -> bool:
    return re.fullmatch(re.escape(alias) + r"-\d{6,}", index) is not None


def create_version(
    client: Elasticsearch,
    alias: str,
    body: Mapping[str, Any],
    in_the_end: Mapping[str, Any] | None = None,
    repeat: Repeating | None = None,
) -> str:
    """Create the next version of ``alias`` with ``body`` (settings and mappings) and return its name.

    ``in_the_end`` is what the index shall become once it is loaded, where that is another body (from
    ``esvector.index.graph.loading_body``) and not known to be taken: the server is asked for that first, so that it
    refuses it now and not when everything is loaded. A name is not used again after its index was deleted. Raises
    ConfigError when the server refuses the mapping, when other indices are called as versions are, and when a template
    of the cluster would show the index to readers at once.
    """
    import elasticsearch

    repeat = repeat or once(client)
    # The client's own retries would hide that an attempt's answer was lost.
    client = client.options(max_retries=0, retry_on_status=(), retry_on_timeout=False)
    number = repeat(lambda: _highest_number(client, alias))
    strangers = repeat(lambda: _numbered_indices(client, alias)).keys() - {
        version.index for version in repeat(lambda: list_versions(client, alias))
    }
    if strangers:
        raise ConfigError(
            f"{min(strangers)} is named like a version of {alias}, but esvector did not make it",
            "index into another name",
        )
    while True:
        number += 1
        index = f"{alias}-{number:06d}"
        try:
            if in_the_end is not None and in_the_end != body:
                _try_out(client, alias, in_the_end, repeat)
            if _create(client, index, body, repeat):
                _check_unseen(client, alias, index, repeat)
                return index
        except elasticsearch.BadRequestError as error:
            raise ConfigError(
                f"the server refuses the mapping of {index}: {error_reason(error)}", "check --mapping and --field"
            ) from error


def _create(client: Elasticsearch, index: str, body: Mapping[str, Any], repeat: Repeating) -> bool:
    """Create ``index``, open for loading; False when it is another run's, which took the number in this moment."""
    attempts = 0

    def create() -> bool:
        nonlocal attempts
        attempts += 1
        if _add(client, index, {**body, "aliases": {loading_alias(index): {}}}):
            return True
        # An attempt whose answer was lost has made it: the lease keeps other runs away, and nothing is in it yet.
        return attempts > 1 and _is_fresh(client, index)

    return repeat(create)


def _check_unseen(client: Elasticsearch, alias: str, index: str, repeat: Repeating) -> None:
    """Raise ConfigError, and delete ``index``, where readers of ``alias`` see it although it was only just made."""
    if alias in repeat(lambda: client.indices.get_alias(index=index))[index]["aliases"]:
        repeat(lambda: client.options(ignore_status=404).indices.delete(index=index))
        raise ConfigError(
            f"an index template of the cluster gives the alias {alias} to {index}, so readers would see it half-built",
            "take the alias out of the template (GET _index_template): esvector moves it when the index is complete",
        )


def _try_out(client: Elasticsearch, alias: str, body: Mapping[str, Any], repeat: Repeating) -> None:
    """See whether the server takes ``body``, by an index that is never a version, whatever happens to this process."""
    tolerant = client.options(ignore_status=404).indices
    trial = f"{alias}-trial-{uuid.uuid4().hex}"
    settings = {**body.get("settings", {})}
    settings["index"] = {**settings.get("index", {}), "hidden": True}
    mappings = {name: value for name, value in body.get("mappings", {}).items() if name != "_meta"}
    for index in repeat(lambda: _trials(client, alias)):  # of runs that died amid it
        repeat(partial(tolerant.delete, index=index))
    repeat(lambda: _add(client, trial, {**body, "settings": settings, "mappings": mappings}))
    repeat(lambda: tolerant.delete(index=trial))


def _trials(client: Elasticsearch, alias: str) -> list[str]:
    found = client.indices.get(index=f"{alias}-trial-*", features="aliases", expand_wildcards="open,hidden")
    return [name for name in found if re.fullmatch(re.escape(alias) + r"-trial-[0-9a-f]{32}", name)]


def _add(client: Elasticsearch, index: str, body: Mapping[str, Any]) -> bool:
    """Create an index; False where there is one of this name."""
    import elasticsearch

    try:
        client.indices.create(index=index, body=dict(body))
    except elasticsearch.BadRequestError as error:
        if error_type(error) == "resource_already_exists_exception":
            return False
        raise
    return True


def _is_fresh(client: Elasticsearch, index: str) -> bool:
    opened = client.indices.exists_alias(index=index, name=loading_alias(index))
    return bool(opened) and client.indices.stats(index=index, metric="docs")["_all"]["total"]["docs"]["count"] == 0


def serve_version(
    client: Elasticsearch,
    alias: str,
    index: str,
    previous: str | None,
    passport: Passport,
    settings: Mapping[str, Any],
    repeat: Repeating | None = None,
) -> None:
    """Make ``index`` the one that readers of ``alias`` see, in place of ``previous``, in one atomic step.

    Raises IndexingError when the alias was moved by somebody else meanwhile; readers then see what they saw.
    """
    repeat = repeat or once(client)
    facts = passport.ready().to_meta()
    meta = repeat(lambda: _meta(client, index)) | {PREVIOUS_KEY: previous}
    repeat(lambda: client.indices.put_settings(index=index, body={"index": dict(settings)}))
    repeat(lambda: client.indices.put_mapping(index=index, body={"_meta": meta | facts}))
    done = {"remove": {"index": index, "alias": loading_alias(index), "must_exist": True}}
    move_alias(client, alias, previous, index, [done], repeat)


def move_alias(
    client: Elasticsearch,
    alias: str,
    previous: str | None,
    index: str,
    more: Sequence[Mapping[str, Any]] = (),
    repeat: Repeating | None = None,
) -> None:
    """Let ``alias`` point to ``index`` instead of ``previous`` (None: to nothing), with ``more`` actions, all or none.

    What the alias has besides an index (filter, routing, whether it is hidden) stays as it is.

    Raises IndexingError when the alias was moved by somebody else meanwhile; then nothing has changed.
    """
    import elasticsearch

    def move() -> None:
        # Of two that add the first index at once, the server refuses the second: an alias has one index to write to.
        add: dict[str, Any] = {"index": index, "alias": alias, "is_write_index": True}
        actions: list[Mapping[str, Any]] = [{"add": add}, *more]
        try:
            if previous is not None:
                found = client.indices.get_alias(index=previous, name=alias)[previous]["aliases"][alias]
                add.update({name: value for name, value in found.items() if name != "is_write_index"})
                # Without must_exist a failing remove is answered 200 and the rest applied (9.5.3).
                actions.insert(0, {"remove": {"index": previous, "alias": alias, "must_exist": True}})
            client.indices.update_aliases(actions=actions)
        except (elasticsearch.ApiError, elasticsearch.TransportError) as error:
            if live_index(client, alias) == index:
                return  # it was applied, and only its answer was lost; a repeated attempt then finds nothing to remove
            if isinstance(error, elasticsearch.NotFoundError) or _two_write_indices(error):
                raise IndexingError(
                    f"the alias {alias} no longer points to {previous or 'nothing'}: another run moved it meanwhile",
                    "check 'esvector status', then run the same command again",
                ) from error
            raise

    (repeat or once(client))(move)


def delete_version(client: Elasticsearch, index: str) -> None:
    """Delete an index that is not live; one that is gone already is fine. Its number is not given to another one.

    Raises IndexingError as ``check_deletable``.
    """
    alias, _, number = index.rpartition("-")
    check_deletable(client, index)
    with explain_errors(client):
        live = live_index(client, alias)
        # The numbers below the live one's are never given again as it is.
        if live is not None and _number(live) < int(number) > (_meta(client, live).get(HIGHEST_KEY) or 0):
            client.indices.put_mapping(index=live, body={"_meta": _meta(client, live) | {HIGHEST_KEY: int(number)}})
        client.options(ignore_status=404).indices.delete(index=index)


def check_deletable(client: Elasticsearch, index: str) -> None:
    """Raise IndexingError where readers see ``index``, by the alias of its versions or by another one."""
    with explain_errors(client):
        found = client.options(ignore_status=404).indices.get_alias(index=index)
    aliases = found[index]["aliases"].keys() if found.meta.status == 200 else set()
    if others := sorted(aliases - {loading_alias(index)}):
        raise IndexingError(
            f"readers of {', '.join(others)} see {index}, so it cannot be deleted",
            "let the alias lead to another index first",
        )


def _highest_number(client: Elasticsearch, alias: str) -> int:
    """Return the highest number that a version of ``alias`` has or, as its live version remembers, has had."""
    with explain_errors(client):
        live = live_index(client, alias)
        remembered = int(_meta(client, live).get(HIGHEST_KEY) or 0) if live else 0
    return max([remembered, *(_number(version.index) for version in list_versions(client, alias))])


def _number(index: str) -> int:
    number = index.rpartition("-")[2]
    return int(number) if number.isdigit() else 0


def _two_write_indices(error: Exception) -> bool:
    import elasticsearch

    return isinstance(error, elasticsearch.ApiError) and "more than one write index" in error_reason(error)


def _meta(client: Elasticsearch, index: str) -> dict[str, Any]:
    mapping = client.indices.get_mapping(index=index)
    return dict(mapping[index]["mappings"].get("_meta", {}))
