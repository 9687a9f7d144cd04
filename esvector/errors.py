"""The one tree of errors.

::

    EsvectorError
    ├── ConfigError             an option, profile, template or credential setting cannot be used as given
    ├── MissingExtraError       an optional package is not installed (also an ImportError)
    ├── ConnectError            Elasticsearch cannot be used
    │   ├── ServerUnreachableError      nothing answers, or not in time, or not over this TLS
    │   ├── NotElasticsearchError       something answers, but it is not Elasticsearch
    │   ├── ServerVersionError          the server is too old, or speaks another major version than the client
    │   └── CredentialsError            the server refuses the credentials (401) or the action (403)
    ├── SourceError             an input cannot be read (missing, cut, not the format it claims)
    ├── EncoderError            a model cannot be loaded or gave vectors that cannot be used
    │   ├── EncoderMismatchError        the encoder at hand is not the one that made the index
    │   └── DeviceLostError             the device that encodes failed, and takes no more work in this process
    ├── IndexingError           a run failed as a whole; readers still see what they saw before
    │   ├── HopelessInputError          most of the records are refused
    │   ├── LeaseError                  another run is changing the same alias
    │   ├── SourceChangedError          the input is not the one that an interrupted run had read
    │   ├── VerificationError           what the server holds is not what it acknowledged
    │   └── InterruptedRun              the run was stopped from outside
    ├── SearchError             a search cannot be answered, or not completely
    │   ├── IndexNotFoundError          no such alias, or one that esvector did not make
    │   ├── DocumentNotFoundError       no document of that id, or none with a vector
    │   ├── FilterError                 a filter expression cannot be understood (has ``position``)
    │   │   └── UnknownFieldError       it names a field that the mapping does not have
    │   └── PartialResultsError         some shards failed or ran out of time
    ├── QualityError            a search is not as good as was demanded
    └── NodeError               the local node cannot be fetched, started or stopped

An error says what happened and which value it was; ``remedy`` says what to do. Errors of the Elasticsearch client pass
through untouched unless esvector knows more (see ``esvector.client``).
"""

from __future__ import annotations

from importlib.util import find_spec

__all__ = [
    "ConfigError",
    "ConnectError",
    "CredentialsError",
    "DeviceLostError",
    "DocumentNotFoundError",
    "EncoderError",
    "EncoderMismatchError",
    "EsvectorError",
    "FilterError",
    "HopelessInputError",
    "IndexNotFoundError",
    "IndexingError",
    "InterruptedRun",
    "LeaseError",
    "MissingExtraError",
    "NodeError",
    "NotElasticsearchError",
    "PartialResultsError",
    "QualityError",
    "SearchError",
    "ServerUnreachableError",
    "ServerVersionError",
    "SourceChangedError",
    "SourceError",
    "UnknownFieldError",
    "VerificationError",
    "require",
]


class EsvectorError(Exception):
    """What went wrong (``message``) and what to do about it (``remedy``, may be empty)."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message, remedy)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}\n{self.remedy}" if self.remedy else self.message


class ConfigError(EsvectorError):
    """An option, profile, template or credential setting cannot be used as given."""


class MissingExtraError(EsvectorError, ImportError):
    """An optional package is not installed."""


class ConnectError(EsvectorError):
    """Elasticsearch cannot be used."""


class ServerUnreachableError(ConnectError):
    """Nothing answers at the address, or not in time, or not over this TLS."""


class NotElasticsearchError(ConnectError):
    """Something answers at the address, but it is not Elasticsearch."""


class ServerVersionError(ConnectError):
    """The server is too old, or speaks another major version than the installed client."""


class CredentialsError(ConnectError):
    """The server refuses the credentials (401) or the action (403)."""


class SourceError(EsvectorError):
    """An input cannot be read."""


class EncoderError(EsvectorError):
    """A model cannot be loaded, or gave vectors that cannot be used."""


class EncoderMismatchError(EncoderError):
    """The encoder at hand is not the one that made the index."""


class DeviceLostError(EncoderError):
    """The device that encodes failed, and takes no more work in this process."""


class IndexingError(EsvectorError):
    """A run failed as a whole; readers still see what they saw before."""


class HopelessInputError(IndexingError):
    """Most of the records are refused: the options or the mapping are wrong rather than the records."""


class LeaseError(IndexingError):
    """Another run is changing the same alias."""


class SourceChangedError(IndexingError):
    """The input is not the one that an interrupted run had read."""


class VerificationError(IndexingError):
    """What the server holds is not what it acknowledged."""


class InterruptedRun(IndexingError):
    """The run was stopped from outside."""


class SearchError(EsvectorError):
    """A search cannot be answered, or not completely."""


class IndexNotFoundError(SearchError):
    """No such alias, or one that esvector did not make."""


class DocumentNotFoundError(SearchError):
    """No document of that id, or none with a vector."""


class FilterError(SearchError):
    """A filter expression cannot be understood; ``position`` counts characters of the expression from 0."""

    def __init__(self, message: str, remedy: str = "", position: int | None = None) -> None:
        super().__init__(message, remedy)
        self.position = position


class UnknownFieldError(FilterError):
    """A filter names a field that the mapping does not have."""


class PartialResultsError(SearchError):
    """Some shards failed or ran out of time, so the result would not be complete."""


class QualityError(EsvectorError):
    """A search is not as good as was demanded."""


class NodeError(EsvectorError):
    """The local node cannot be fetched, started or stopped."""


def require(extra: str, *modules: str) -> None:
    """Raise MissingExtraError unless every one of ``modules`` can be imported; ``extra`` is what installs them."""
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise MissingExtraError(
            f"this needs {', '.join(missing)}, which {'are' if len(missing) > 1 else 'is'} not installed",
            f"pip install 'esvector[{extra}]'",
        )
