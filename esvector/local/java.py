"""Finding a JDK that can run Elasticsearch, or fetching one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from esvector.errors import NodeError
from esvector.local.account import Account
from esvector.local.layout import make_folder, private_lock

__all__ = ["OLDEST", "Jdk", "find_java", "installed_jdks", "java_version"]

OLDEST = 21  # Elasticsearch 9 does not start on an older one.
_NEWEST_TESTED = 25
_FETCHED = ("temurin", "25")

_USUAL_FOLDERS = (
    "/usr/lib/jvm/*",
    "/usr/java/*",
    "/opt/java/*",
    "/opt/*jdk*",
    "/Library/Java/JavaVirtualMachines/*/Contents/Home",
    "/opt/homebrew/opt/openjdk*/libexec/openjdk.jdk/Contents/Home",
    "/usr/local/opt/openjdk*/libexec/openjdk.jdk/Contents/Home",
    "~/.sdkman/candidates/java/*",
    "~/.jdks/*",
)


@dataclass(frozen=True, slots=True)
class Jdk:
    """A JDK: its folder, its major version, and how it was found."""

    home: Path
    version: int
    origin: str


def java_version(home: Path, account: Account) -> int:
    """Return the major version of the JDK in ``home``, having run it as ``account``.

    Raises ValueError with the reason when it is not a JDK that this account can run, or is too old.
    """
    java = home / "bin" / "java"
    if not os.path.exists(java):  # unlike Path.exists, also answers where this user may not look
        raise ValueError("it has no bin/java")
    try:
        printed = account.try_run([str(java), "-version"])
    except PermissionError:
        raise ValueError(f"the account {account.name!r} cannot enter it") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ValueError(f"it does not run ({error})") from None
    version = _stated_version(home) or _major(printed)
    if version is None or version < OLDEST:
        raise ValueError(f"it is Java {version or 'of unknown version'}, and Elasticsearch needs {OLDEST} or newer")
    return version


def _stated_version(home: Path) -> int | None:
    try:
        release = (home / "release").read_text(errors="replace")
    except OSError:
        return None
    line = re.search(r"^JAVA_VERSION=.*$", release, re.MULTILINE)
    return _major(line[0]) if line else None


def _major(text: str) -> int | None:
    """Read 25 from 'version "25.0.3"', and 8 from the old style "1.8.0_412"."""
    match = re.search(r'"(?:1\.)?(\d+)', text)
    return int(match[1]) if match else None


def installed_jdks(environ: Mapping[str, str], folders: tuple[str, ...] = _USUAL_FOLDERS) -> Iterator[tuple[str, Path]]:
    """Yield (origin, folder) of what may be a JDK, in the order of preference."""
    for name in ("ES_JAVA_HOME", "JAVA_HOME"):
        if environ.get(name):
            yield name, Path(environ[name])
    found = {
        path.resolve() for pattern in folders for path in _expand(pattern) if os.path.exists(path / "bin" / "java")
    }
    for path in sorted(found, key=_preference):
        yield "installed", path
    on_path = shutil.which("java", path=environ.get("PATH", ""))
    if on_path:
        yield "PATH", Path(on_path).resolve().parent.parent


def _expand(pattern: str) -> list[Path]:
    expanded = Path(pattern).expanduser()
    root = Path(expanded.anchor)
    try:
        return list(root.glob(str(expanded.relative_to(root))))
    except OSError:
        return []


def _preference(home: Path) -> tuple[bool, int, str]:
    """Order: the newest of the tested versions first, versions newer than Elasticsearch knows last."""
    version = _stated_version(home) or 0
    return (version > _NEWEST_TESTED, -version, str(home))


def find_java(
    account: Account,
    downloads: Path,
    say: Callable[[str], None],
    environ: Mapping[str, str] | None = None,
    folders: tuple[str, ...] = _USUAL_FOLDERS,
) -> Jdk:
    """Return a JDK of version 21 or newer that ``account`` can run; fetch one into ``downloads`` when there is none.

    ``environ`` gives ES_JAVA_HOME, JAVA_HOME and PATH (default: the environment of this process). Raises NodeError when
    no JDK is found and none can be fetched; the message lists what was found and why it does not do.
    """
    environ = os.environ if environ is None else environ
    refused: dict[Path, str] = {}
    for origin, home in installed_jdks(environ, folders):
        if home in refused:
            continue
        try:
            version = java_version(home, account)
        except ValueError as reason:
            refused[home] = f"{home} ({origin}): {reason}"
            if origin == "ES_JAVA_HOME":
                say(f"Not using ES_JAVA_HOME={home}: {reason}.")
            continue
        return Jdk(home, version, origin)
    return _fetch(account, downloads, say, list(refused.values()))


def _fetch(account: Account, downloads: Path, say: Callable[[str], None], refused: list[str]) -> Jdk:
    import cjdk

    vendor, version = _FETCHED
    make_folder(downloads)
    say(f"No Java {OLDEST} or newer found; fetching {vendor} {version} (about 200 MB, once).")
    umask = os.umask(0o022)  # the account of root's server has to read it, and only root may change it
    try:
        with private_lock(downloads / "jdk.lock"):
            home = Path(cjdk.java_home(vendor=vendor, version=version, cache_dir=downloads / "jdk", progress=False))
        return Jdk(home, java_version(home, account), "fetched")
    except (cjdk.CjdkError, OSError, ValueError) as error:
        looked = "".join(f"\n  {line}" for line in refused) or " nothing"
        raise NodeError(
            f"Elasticsearch needs Java {OLDEST} or newer. Found:{looked}\n"
            f"Fetching {vendor} {version} did not work either: {error}",
            f"install a JDK, {OLDEST} to {_NEWEST_TESTED} (Debian, Ubuntu: apt install openjdk-21-jdk-headless; "
            "Fedora: dnf install java-21-openjdk-headless; macOS: brew install openjdk@21), "
            "or set ES_JAVA_HOME to the folder of one that you have",
        ) from error
    finally:
        os.umask(umask)
