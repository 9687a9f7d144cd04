"""Finding a JDK among folders that look like one."""

from __future__ import annotations

from pathlib import Path

import pytest

from esvector.errors import NodeError
from esvector.local.account import Account
from esvector.local.java import find_java, installed_jdks, java_version

ME = Account(name="me")


def make_jdk(home: Path, version: str | None, *, runs: bool = True, prints: str = "") -> Path:
    """Make a folder that looks like a JDK; ``version`` goes into its ``release`` file."""
    java = home / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text(f"#!/bin/sh\necho '{prints}' >&2\nexit {0 if runs else 3}\n")
    java.chmod(0o755)
    if version is not None:
        (home / "release").write_text(f'IMPLEMENTOR="Test"\nJAVA_VERSION="{version}"\nJAVA_RUNTIME_VERSION="9"\n')
    return home


def find(tmp_path: Path, environ: dict[str, str], *, said: list[str] | None = None) -> Path:
    said = [] if said is None else said
    return find_java(ME, tmp_path / "downloads", said.append, environ, (str(tmp_path / "jvm" / "*"),)).home


@pytest.mark.parametrize(
    ("stated", "printed", "expected"),
    [("25.0.3", "", 25), ("21", "", 21), (None, 'openjdk version "24.0.1" 2025-04-15', 24)],
)
def test_version_is_read_from_the_release_file_or_asked(
    tmp_path: Path, stated: str | None, printed: str, expected: int
) -> None:
    assert java_version(make_jdk(tmp_path / "jdk", stated, prints=printed), ME) == expected


@pytest.mark.parametrize(
    ("stated", "printed", "reason"),
    [
        ("17.0.15", "", "Java 17"),
        ("1.8.0_412", "", "Java 8"),
        (None, 'version "11.0.2"', "Java 11"),
        (None, "?", "unknown"),
    ],
)
def test_too_old_is_refused_with_its_version(tmp_path: Path, stated: str | None, printed: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        java_version(make_jdk(tmp_path / "jdk", stated, prints=printed), ME)


def test_a_jdk_that_does_not_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not run"):
        java_version(make_jdk(tmp_path / "jdk", "25", runs=False), ME)


def test_a_jdk_that_may_not_be_run_is_refused(tmp_path: Path) -> None:
    home = make_jdk(tmp_path / "jdk", "25")
    (home / "bin" / "java").chmod(0o644)
    with pytest.raises(ValueError, match="account 'me' cannot"):
        java_version(home, ME)


def test_the_named_jdk_comes_first(tmp_path: Path) -> None:
    named, other = make_jdk(tmp_path / "named", "21"), make_jdk(tmp_path / "other", "25")
    make_jdk(tmp_path / "jvm" / "a", "25")
    assert find(tmp_path, {"ES_JAVA_HOME": str(named), "JAVA_HOME": str(other)}) == named
    assert find(tmp_path, {"JAVA_HOME": str(other)}) == other


def test_a_named_jdk_that_does_not_do_is_passed_over_and_said(tmp_path: Path) -> None:
    old, good = make_jdk(tmp_path / "old", "17.0.1"), make_jdk(tmp_path / "jvm" / "a", "25")
    said: list[str] = []
    assert find(tmp_path, {"ES_JAVA_HOME": str(old)}, said=said) == good
    assert len(said) == 1
    assert str(old) in said[0]
    assert "Java 17" in said[0]


def test_of_the_installed_the_newest_tested_comes_first_and_unknown_versions_last(tmp_path: Path) -> None:
    for version in ("17", "21", "25", "27"):
        make_jdk(tmp_path / "jvm" / version, version)
    found = [path.name for _, path in installed_jdks({}, (str(tmp_path / "jvm" / "*"),))]
    assert found == ["25", "21", "17", "27"]


def test_java_on_the_path_is_followed_to_its_home(tmp_path: Path) -> None:
    home = make_jdk(tmp_path / "somewhere", "21")
    links = tmp_path / "links"
    links.mkdir()
    (links / "java").symlink_to(home / "bin" / "java")
    assert find(tmp_path, {"PATH": str(links)}) == home


def test_without_any_the_message_lists_what_was_found_and_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import cjdk

    def no_network(**_: object) -> Path:
        raise cjdk.InstallError("Download failed: no route to host")

    monkeypatch.setattr("cjdk.java_home", no_network)
    old = make_jdk(tmp_path / "jvm" / "a", "17")
    with pytest.raises(NodeError) as caught:
        find(tmp_path, {"JAVA_HOME": str(tmp_path / "missing")})
    assert f"{tmp_path / 'missing'} (JAVA_HOME): it has no bin/java" in caught.value.message
    assert f"{old} (installed): it is Java 17" in caught.value.message
    assert "no route to host" in caught.value.message
    assert "ES_JAVA_HOME" in caught.value.remedy
    assert "apt install" in caught.value.remedy


def test_a_fetched_jdk_is_checked_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = make_jdk(tmp_path / "fetched", "25")
    monkeypatch.setattr("cjdk.java_home", lambda **_: fetched)
    assert find(tmp_path, {}) == fetched
    (fetched / "bin" / "java").unlink()
    with pytest.raises(NodeError, match="no bin/java"):
        find(tmp_path, {})
