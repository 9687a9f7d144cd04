"""Connecting to Elasticsearch: address, credentials, TLS, version, and its errors in our words, all in one place."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from esvector.errors import (
    ConfigError,
    CredentialsError,
    NotElasticsearchError,
    ServerUnreachableError,
    ServerVersionError,
)
from esvector.forks import OwnTransport, refuse_inherited

if TYPE_CHECKING:
    from elasticsearch import ApiError, Elasticsearch

__all__ = [
    "DEFAULT_URL",
    "MINIMUM_VERSION",
    "Server",
    "address",
    "connect",
    "describe_server",
    "error_details",
    "error_reason",
    "error_type",
    "explain_errors",
    "refreshed_credentials",
]

DEFAULT_URL = "http://localhost:9200"
MINIMUM_VERSION = (8, 19)
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
_ADDRESS = re.compile(
    r"(?P<scheme>https?)://(?P<host>[\w-]{1,63}(\.[\w-]{1,63})*\.?|\[[0-9a-f:.]+(%25[\w.-]+)?\])(:(?P<port>[0-9]{1,5}))?(/[\w.~/-]*)?",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Server:
    """What the server can do, by its version (feature gates: elasticsearch-facts, section 8)."""

    version: tuple[int, int, int]

    def __str__(self) -> str:
        return ".".join(map(str, self.version))

    @property
    def takes_packed_vectors(self) -> bool:
        """Whether float vectors may come as base64 of big-endian float32 (since 9.3)."""
        return self.version >= (9, 3)

    @property
    def takes_bfloat16(self) -> bool:
        """Whether a vector field may have the element type bfloat16 (since 9.3)."""
        return self.version >= (9, 3)

    @property
    def hides_source_vectors(self) -> bool:
        """Whether ``index.mapping.exclude_source_vectors`` exists (since 9.2)."""
        return self.version >= (9, 2)


@dataclass(frozen=True, slots=True)
class _Credentials:
    """Who we are: an API key, or a user name and password, or nobody. Never shown."""

    api_key: str | None = field(default=None, repr=False)
    basic_auth: str | None = field(default=None, repr=False)  # as base64: the client knows ASCII only (9.5.1)


def connect(url: str | None = None, environ: Mapping[str, str] | None = None) -> Elasticsearch:
    """Return a client for ``url`` (else ESVECTOR_URL, else http://localhost:9200); nothing is sent yet.

    ``url`` may be several addresses of one cluster, separated by commas: a node that is down is left out for a while.
    Credentials come from ``environ`` (default: the environment of this process), or from a file that it names, never
    from the address or an argument:
    ESVECTOR_API_KEY or ESVECTOR_API_KEY_FILE; ESVECTOR_USERNAME with ESVECTOR_PASSWORD or ESVECTOR_PASSWORD_FILE.
    ESVECTOR_CA_CERTS names the certificate authority of an https address. Raises ConfigError for settings that
    contradict each other or would send credentials in the clear to another machine.

    The client may be used by several threads, and on both sides of a fork: each process has connections of its own.
    """
    from elasticsearch import Elasticsearch, OrjsonSerializer

    from esvector.connections import BulkSerializer, OwnNode

    settings = os.environ if environ is None else environ

    class ConnectedElasticsearch(Elasticsearch):
        """Remembers where its credentials come from, as do the clients that ``options`` derives from it."""

        credentials = staticmethod(lambda: _credentials(settings))

    credentials = _credentials(settings)
    urls = _addresses(url, settings, secured=credentials != _Credentials())
    # Not given and None are two things to the client where ca_certs is concerned (9.5.1), and it takes none with http.
    ca_certs, secure = _ca_certs(settings), urls[0].lower().startswith("https")
    trust: dict[str, Any] = {"ca_certs": ca_certs} if ca_certs and secure else {}
    with suppress(ValueError):  # its message may quote an address
        return ConnectedElasticsearch(
            urls,
            api_key=credentials.api_key,
            basic_auth=credentials.basic_auth,
            request_timeout=60,
            serializers={"application/json": OrjsonSerializer(), "application/x-ndjson": BulkSerializer()},
            transport_class=OwnTransport,  # type: ignore[arg-type]  # it forwards to one
            node_class=OwnNode,
            **trust,
        )
    raise ConfigError(
        "the client does not accept the addresses of Elasticsearch", "check the host names, and name each address once"
    )


def refreshed_credentials(client: Elasticsearch) -> Elasticsearch | None:
    """Read the credentials of ``client`` again from where ``connect`` found them, such as a file changed meanwhile.

    Returns a client with the new ones, over the same connections; None when they are those that ``client`` has, or
    when it was not made by ``connect``. Raises ConfigError when they cannot be read.
    """
    read = getattr(client, "credentials", None)
    if read is None:
        return None
    credentials: _Credentials = read()
    if credentials.api_key:
        renewed = client.options(api_key=credentials.api_key)
    elif credentials.basic_auth:
        renewed = client.options(basic_auth=credentials.basic_auth)
    else:
        return None
    # The client keeps its credentials nowhere else (9.5.1).
    same = renewed._headers.get("authorization") == client._headers.get("authorization")
    return None if same else renewed


def address(client: Elasticsearch) -> str:
    """Return the client's addresses for messages; they never hold credentials."""
    return ", ".join(
        f"{node.config.scheme}://{node.config.host}:{node.config.port}" for node in client.transport.node_pool.all()
    )


def describe_server(client: Elasticsearch) -> Server:
    """Ask the server for its version. Raises a ConnectError when it is unusable, too old or no Elasticsearch.

    ``GET /`` is missing in the trimmed distribution (9.5.3), so the version comes from the node's own information;
    both need the cluster privilege ``monitor``.
    """
    with explain_errors(client):
        answer = client.nodes.info(node_id="_local", filter_path="nodes.*.version")
    versions = [node["version"] for node in answer.get("nodes", {}).values()]
    if not versions:
        raise NotElasticsearchError(f"the server at {address(client)} names no version", "check ESVECTOR_URL")
    parts = [int(part) for part in versions[0].split("-")[0].split(".")]
    server = Server((parts[0], parts[1], parts[2]))
    if server.version < MINIMUM_VERSION:
        minimum = ".".join(map(str, MINIMUM_VERSION))
        raise ServerVersionError(
            f"the server at {address(client)} is Elasticsearch {server}; esvector needs {minimum} or newer",
            "upgrade the server",
        )
    return server


@contextmanager
def explain_errors(client: Elasticsearch) -> Iterator[None]:
    """Turn the client's errors into ours where we know what to do about them; others pass through."""
    import elasticsearch
    from elastic_transport import TlsError

    where = address(client)
    refuse_inherited(client.transport)
    try:
        yield
    except elasticsearch.UnsupportedProductError as error:
        raise NotElasticsearchError(
            f"what answers at {where} is not Elasticsearch", "check ESVECTOR_URL (OpenSearch and proxies don't count)"
        ) from error
    except TlsError as error:
        raise ServerUnreachableError(
            f"no trusted TLS connection to {where}: {error.message}",
            "set ESVECTOR_CA_CERTS to the certificate authority's file, and use the host name of the certificate",
        ) from error
    except elasticsearch.ConnectionTimeout as error:
        raise ServerUnreachableError(f"{where} did not answer in time", "check that the server is healthy") from error
    except elasticsearch.ConnectionError as error:
        raise ServerUnreachableError(
            f"no Elasticsearch answers at {where}: {error.message}",
            "start one with 'esvector node start', or set ESVECTOR_URL to yours",
        ) from error
    except elasticsearch.SerializationError as error:
        raise NotElasticsearchError(
            f"what answers at {where} does not speak Elasticsearch's JSON", "check ESVECTOR_URL"
        ) from error
    except elasticsearch.ApiError as error:
        if (known := _explain_api_error(error, where)) is not None:
            raise known from error
        raise


def error_type(error: ApiError) -> str:
    """Type of the server's error, such as "index_not_found_exception"; "" where the answer has none."""
    return str(error_details(error).get("type", ""))


def error_details(error: ApiError) -> dict[str, Any]:
    """Return the server's error object, {} where the answer has none."""
    body = error.body if isinstance(error.body, dict) else {}
    inner = body.get("error")
    return inner if isinstance(inner, dict) else {}


def error_reason(error: ApiError) -> str:
    """Most telling reason in the server's answer: the root cause's where there is one."""
    inner = error_details(error)
    if not inner:
        body = error.body if isinstance(error.body, dict) else {}
        return str(body.get("error") or error)
    roots = inner.get("root_cause") or [inner]
    return str(roots[0].get("reason") or inner.get("reason") or error)


def _explain_api_error(error: ApiError, where: str) -> Exception | None:
    if error_type(error) == "media_type_header_exception":
        from importlib.metadata import version

        installed = version("elasticsearch")
        major = installed.split(".")[0]
        return ServerVersionError(
            f"the server at {where} does not speak to the installed client (elasticsearch {installed})",
            f"upgrade the server to {major}.x, or: pip install 'elasticsearch<{major}'",
        )
    if error.status_code == 401:
        return CredentialsError(
            f"{where} refuses the credentials (401)",
            "set ESVECTOR_API_KEY, or ESVECTOR_USERNAME and ESVECTOR_PASSWORD (or ..._FILE)",
        )
    # The answer to a HEAD request has no body that would say "security_exception".
    if error.status_code == 403 and error_type(error) != "cluster_block_exception":
        return CredentialsError(f"{where} refuses the action: {error_reason(error)}", "ask for the missing privilege")
    return None


def _credentials(environ: Mapping[str, str]) -> _Credentials:
    api_key = _secret(environ, "ESVECTOR_API_KEY")
    password = _secret(environ, "ESVECTOR_PASSWORD")
    username = environ.get("ESVECTOR_USERNAME") or ("elastic" if password else None)
    if api_key and password:
        raise ConfigError("both an API key and a password are set", "unset ESVECTOR_API_KEY or ESVECTOR_PASSWORD")
    if username and not password:
        raise ConfigError(
            "ESVECTOR_USERNAME is set without a password", "set ESVECTOR_PASSWORD or ESVECTOR_PASSWORD_FILE"
        )
    # What cannot be in a header would be quoted by the error of whoever is to send it.
    if api_key and not re.fullmatch(r"[!-~]+", api_key := api_key.strip()):
        raise ConfigError(
            "the API key is not valid: it contains a space, a line break or a character that is not ASCII",
            "set ESVECTOR_API_KEY to the key in the form that Elasticsearch calls 'encoded'",
        )
    if username and password and any("\ud800" <= character <= "\udfff" for character in username + password):
        raise ConfigError("the user name or the password is not valid UTF-8", "set them in UTF-8")
    basic_auth = base64.b64encode(f"{username}:{password}".encode()).decode() if username and password else None
    return _Credentials(api_key, basic_auth)


def _ca_certs(environ: Mapping[str, str]) -> str | None:
    path = environ.get("ESVECTOR_CA_CERTS") or None
    if path is None or os.path.isfile(path):
        return path
    # The value may be the certificates themselves, with a key among them.
    shown = "the content of a file" if "-----" in path or "\n" in path else path
    raise ConfigError(f"ESVECTOR_CA_CERTS names {shown}, which is no file", "set it to the path of a PEM file")


def _secret(environ: Mapping[str, str], name: str) -> str | None:
    value, file = environ.get(name), environ.get(f"{name}_FILE")
    if value and file:
        raise ConfigError(f"both {name} and {name}_FILE are set", "unset one of them")
    if not file:
        return value or None
    try:
        return Path(file).read_text(encoding="utf-8-sig").strip() or None
    except OSError as error:
        reason = error.strerror
    except ValueError:
        reason = "it is not a text file in UTF-8"
    # The value may be the secret itself instead of a path, so neither this message nor a cause of it has it.
    raise ConfigError(
        f"{name}_FILE names a file that cannot be read: {reason}",
        f"set {name}_FILE to the path of a file that holds it",
    )


def _addresses(url: str | None, environ: Mapping[str, str], *, secured: bool) -> list[str]:
    """Return the addresses to connect to. Raises ConfigError; a message never quotes what may hold a password."""
    given = url or environ.get("ESVECTOR_URL") or DEFAULT_URL
    source = "given" if url else "in ESVECTOR_URL"
    if "@" in given:  # before it is cut: there may be a comma in a password, too
        raise ConfigError(
            f"the address {source} holds credentials, which end up in logs",
            "write https://host:9200, and set ESVECTOR_USERNAME and ESVECTOR_PASSWORD (or ..._FILE) instead",
        )
    urls = [part.strip() for part in given.split(",")]
    for number, one in enumerate(urls, 1):
        which = f"the address {source}" if len(urls) == 1 else f"address {number} of {len(urls)} {source}"
        _check_address(one, which, secured=secured)
    if len({one.lower().startswith("https") for one in urls}) > 1:
        raise ConfigError(f"some of the addresses {source} are http and some https", "give all of them the same scheme")
    return urls


def _check_address(url: str, which: str, *, secured: bool) -> None:
    found = _ADDRESS.fullmatch(url)
    if found is None or not 0 < int(found["port"] or 443) < 2**16:
        raise ConfigError(
            f"{which} is not valid" if "://" in url else f"{which} is not valid: it has no http:// or https://",
            "write it as https://host:9200, and separate several by commas",
        )
    scheme, host = found["scheme"].lower(), found["host"].lower()
    if scheme == "http" and found["port"] is None:
        raise ConfigError(f"{which} is not valid: it has no port", "write it as http://host:9200")
    if secured and scheme == "http" and host not in _LOOPBACK:
        raise ConfigError(f"credentials would go to {host} unencrypted", "use an https address")
