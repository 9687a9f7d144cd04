from __future__ import annotations

import base64
import socket
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from esvector.cli.app import app
from esvector.client import connect, describe_server, refreshed_credentials
from esvector.errors import ConfigError, ConnectError

LOCAL = "http://localhost:9200"


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"ESVECTOR_URL": "http://elastic:s3cret@localhost:9200"}, "holds credentials"),
        ({"ESVECTOR_URL": "http://search.example.org:9200", "ESVECTOR_PASSWORD": "s3cret"}, "unencrypted"),
        ({"ESVECTOR_URL": "localhost:9200"}, "no http://"),
        ({"ESVECTOR_URL": "http://localhost"}, "no port"),
        ({"ESVECTOR_URL": "https://localhost:65536"}, "is not valid"),
        ({"ESVECTOR_URL": "https://[::1"}, "is not valid"),
        ({"ESVECTOR_URL": "http://localhost:9200,http://localhost:9200"}, "once"),
        ({"ESVECTOR_API_KEY": "s3cret key"}, "not valid"),
        ({"ESVECTOR_API_KEY": "s3cret\u2026"}, "not valid"),
        ({"ESVECTOR_PASSWORD": "s3cret\udcff"}, "not valid UTF-8"),
        ({"ESVECTOR_API_KEY": "s3cret", "ESVECTOR_PASSWORD": "s3cret"}, "both an API key and a password"),
        ({"ESVECTOR_USERNAME": "me"}, "without a password"),
        ({"ESVECTOR_PASSWORD": "s3cret", "ESVECTOR_PASSWORD_FILE": "/x"}, "both ESVECTOR_PASSWORD and"),
        ({"ESVECTOR_PASSWORD_FILE": "/no/such/s3cret"}, "ESVECTOR_PASSWORD_FILE .* cannot be read: No such file"),
        ({"ESVECTOR_API_KEY_FILE": "s3cret=="}, "ESVECTOR_API_KEY_FILE .* cannot be read: No such file"),
        ({"ESVECTOR_API_KEY_FILE": "s3cret\0"}, "ESVECTOR_API_KEY_FILE .* cannot be read"),
        ({"ESVECTOR_CA_CERTS": "/no/such/ca.pem"}, "/no/such/ca.pem, which is no file"),
    ],
)
def test_settings_that_cannot_be_right_are_named_and_secrets_are_not(environ: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as error:
        connect(environ=environ)
    assert "s3cret" not in everything_told_of(error.value)


def everything_told_of(error: BaseException | None) -> str:
    """Whatever a message, a traceback or a log of ``error`` may show, and of the errors that it came of."""
    told = ""
    while error is not None:
        told += "".join(traceback.format_exception(error)) + repr(error.args) + repr(vars(error))
        error = error.__cause__ or error.__context__
    return told


CANARY = "cAnArY"
PIECES = ["@", ":", "/", "//", "?", "#", ",", "\\", " ", "\n", "\t", "%40", "%3A", "[", "]", "[::1", ".", "&", "="]


@st.composite
def mistyped_addresses(draw: st.DrawFn) -> str:
    """Addresses around a password, most of them wrong; it is nowhere that a host is in one that is right."""
    password = "".join(
        draw(st.permutations([CANARY, *draw(st.lists(st.sampled_from([*PIECES, "1", "a", "ü"]), max_size=3))]))
    )
    scheme = draw(st.sampled_from(["https://", "http://", "https:/", "https//", "https:", "htps://", "", "HTTPS://"]))
    host = draw(st.sampled_from(["h", "h:9200", ":9200", "", "h:port", "[::1]:9200", "h:9200/es", "localhost:1"]))
    form = draw(
        st.sampled_from(
            [
                "{scheme}elastic:{password}@{host}",
                "{scheme}{password}@{host}",
                "{scheme}elastic:{password}@x@{host}",
                "{scheme}elastic%3A{password}%40{host}",
                "{scheme}{host}/?api_key={password}",
                "{scheme}{host}#{password}",
                "{scheme}{host}:{password}",
                "{scheme}{host}/{password}",
                "{scheme}elastic:{password}",
                "{scheme}@elastic:{password}",
                "{password}",
                "h:9200,{scheme}elastic:{password}@{host}",
                "http://localhost:1,{scheme}elastic:{password}@{host},http://localhost:2",
            ]
        )
    )
    return str(form.format(scheme=scheme, password=password, host=host))


@given(mistyped_addresses(), st.booleans(), st.booleans())
@settings(max_examples=300)
def test_no_message_holds_what_may_be_a_password_in_an_address(url: str, given: bool, secured: bool) -> None:
    environ = {"ESVECTOR_PASSWORD": "another"} if secured else {}
    try:
        with connect(url, environ) if given else connect(None, environ | {"ESVECTOR_URL": url}) as client:
            assert CANARY not in repr(client)
    except ConfigError as error:
        assert CANARY not in everything_told_of(error)  # noqa: PT017  # an address may also be right


@given(mistyped_addresses(), st.booleans())
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_command_line_does_not_show_one_either(url: str, given: bool) -> None:
    # Nothing is sent: an address that can be used is one of this machine where nothing listens, or has no such host.
    arguments = ["status", *(["--url", url] if given else [])]
    if _can_be_used(url):
        return
    done = CliRunner().invoke(app, arguments, env={"ESVECTOR_URL": None if given else url, "ESVECTOR_PASSWORD": None})
    assert done.exit_code == 2, done.output
    assert CANARY not in done.output
    assert CANARY not in everything_told_of(done.exception)


def _can_be_used(url: str) -> bool:
    try:
        connect(url or None, {}).close()
    except ConfigError:
        return False
    return True


@pytest.fixture
def closed_port() -> Iterator[int]:
    with socket.socket() as held:  # bound, so that nobody else can listen there
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def test_a_path_is_shown_nowhere_when_the_server_does_not_answer(
    closed_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Gateways have addresses of which the path is the secret."""
    with connect(f"http://localhost:{closed_port}/{CANARY}", {}) as client:
        with pytest.raises(ConnectError) as error:
            describe_server(client)
        assert CANARY not in everything_told_of(error.value)
        assert CANARY not in repr(client)
    assert "timeout" in caplog.text  # of the node, by the client's own log
    assert CANARY not in caplog.text


def test_credentials_from_the_environment_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("s3cret\n")
    for environ in ({"ESVECTOR_PASSWORD": "s3cret"}, {"ESVECTOR_PASSWORD_FILE": str(file)}):
        with connect(LOCAL, environ) as client:
            assert client._headers["authorization"] == "Basic ZWxhc3RpYzpzM2NyZXQ="
            assert "s3cret" not in repr(client)
    with connect(LOCAL, {"ESVECTOR_API_KEY": "abc\n"}) as client:
        assert client._headers["authorization"] == "ApiKey abc"


def test_an_argument_wins_over_the_environment_and_the_default_is_local() -> None:
    for url, environ, port in (
        ("http://localhost:9201", {"ESVECTOR_URL": "http://localhost:9202"}, 9201),
        (None, {"ESVECTOR_URL": "http://localhost:9202"}, 9202),
        (None, {}, 9200),
    ):
        with connect(url, environ) as client:
            assert [node.config.port for node in client.transport.node_pool.all()] == [port]


def test_several_addresses_are_each_checked() -> None:
    with connect("http://localhost:9201, http://127.0.0.1:9202", {}) as client:
        assert {node.config.port for node in client.transport.node_pool.all()} == {9201, 9202}
    for url in ("http://localhost:9201,", "http://localhost:9201,http://search.example.org:9200"):
        with pytest.raises(ConfigError):
            connect(url, {"ESVECTOR_API_KEY": "abc"})


def test_credentials_are_read_again_and_only_new_ones_count(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("old")
    with connect(LOCAL, {"ESVECTOR_API_KEY_FILE": str(file)}) as client:
        derived = client.options(request_timeout=7)
        assert refreshed_credentials(derived) is None
        file.write_text("new\n")
        renewed = refreshed_credentials(derived)
        assert renewed is not None
        assert renewed._headers["authorization"] == "ApiKey new"
        assert renewed._request_timeout == 7
        assert refreshed_credentials(renewed) is None
    with connect(LOCAL, {}) as nobody:
        assert refreshed_credentials(nobody) is None


@pytest.mark.parametrize(("user", "password"), [("elastic", "pässwort"), ("jürgen", "€uro"), ("a", "密码")])
def test_names_and_passwords_of_any_language_are_sent(tmp_path: Path, user: str, password: str) -> None:
    file = tmp_path / "password"
    file.write_text(password + "\n", encoding="utf-8-sig")
    for secret in ({"ESVECTOR_PASSWORD": password}, {"ESVECTOR_PASSWORD_FILE": str(file)}):
        client = connect("http://localhost:9200", {"ESVECTOR_USERNAME": user, **secret})
        kind, _, sent = client._headers["authorization"].partition(" ")
        assert (kind, base64.b64decode(sent).decode()) == ("Basic", f"{user}:{password}")


def test_certificates_in_place_of_their_file_are_not_printed() -> None:
    content = "-----BEGIN PRIVATE KEY-----\n" + "canary" * 1000
    with pytest.raises(ConfigError) as error:
        connect("https://localhost:9200", {"ESVECTOR_CA_CERTS": content})
    assert "canary" not in str(error.value)
    assert error.value.__cause__ is None


def test_an_authority_is_for_https(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.touch()
    environ = {"ESVECTOR_CA_CERTS": str(file)}
    connect("http://localhost:9200", environ)
    with pytest.raises(ConfigError, match="some https"):
        connect("http://localhost:9200,https://localhost:9201", environ)


@pytest.mark.parametrize("url", ["http://a..b:9200", f"http://{'a' * 64}.org:9200"])
def test_host_names_that_no_resolver_takes_are_refused(url: str) -> None:
    with pytest.raises(ConfigError):
        connect(url, {})
