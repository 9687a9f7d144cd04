from __future__ import annotations

from pathlib import Path

import pytest

from esvector.client import connect, refreshed_credentials
from esvector.errors import ConfigError

LOCAL = "http://localhost:9200"


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"ESVECTOR_URL": "http://elastic:secret@localhost:9200"}, "holds credentials"),
        ({"ESVECTOR_URL": "http://search.example.org:9200", "ESVECTOR_PASSWORD": "secret"}, "unencrypted"),
        ({"ESVECTOR_URL": "localhost:9200"}, "is no address"),
        ({"ESVECTOR_API_KEY": "secret", "ESVECTOR_PASSWORD": "secret"}, "both an API key and a password"),
        ({"ESVECTOR_USERNAME": "me"}, "without a password"),
        ({"ESVECTOR_PASSWORD": "secret", "ESVECTOR_PASSWORD_FILE": "/x"}, "both ESVECTOR_PASSWORD and"),
        ({"ESVECTOR_PASSWORD_FILE": "/no/such/file"}, "/no/such/file, which cannot be read"),
        ({"ESVECTOR_CA_CERTS": "/no/such/ca.pem"}, "/no/such/ca.pem, which is no file"),
    ],
)
def test_settings_that_cannot_be_right_are_named_and_secrets_are_not(environ: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as error:
        connect(environ=environ)
    assert "secret" not in str(error.value)


def test_credentials_from_the_environment_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("s3cret\n")
    for environ in ({"ESVECTOR_PASSWORD": "s3cret"}, {"ESVECTOR_PASSWORD_FILE": str(file)}):
        with connect(LOCAL, environ) as client:
            assert client._headers["authorization"] == "Basic ZWxhc3RpYzpzM2NyZXQ="
            assert "s3cret" not in repr(client)
    with connect(LOCAL, {"ESVECTOR_API_KEY": "abc"}) as client:
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
