"""What ``esvector tune`` chooses on a real index, stores, and leaves behind."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from elasticsearch import Elasticsearch

from esvector import Indexer
from esvector.errors import ConfigError, IndexingError, LeaseError
from esvector.evaluate import tune as tuning
from esvector.evaluate.live import look_up
from esvector.evaluate.sample_copy import COPY_MARK
from esvector.evaluate.tune import CopyOptions, TuneReport, tune
from esvector.index.job import job
from esvector.index.settings import store_settings
from esvector.types import SearchSettings
from tests.server.test_recall import DIMS, GRAPH, mapping
from tests.support.commands import lines_of, run_command, until
from tests.support.encoders import HashEncoder

ALIAS = "tune-tests"


def indexer(es: Elasticsearch, alias: str, folder: Path, **more: Any) -> Indexer:
    return Indexer(es, alias, encoder=HashEncoder(DIMS), dead_letters=folder / "dead.jsonl", **more)


@pytest.fixture(scope="module", autouse=True)
def index(es: Elasticsearch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    order = random.Random(3)
    records = [
        {"id": f"d{i}", "text": f"document number {i}", "year": order.randrange(1990, 2025)} for i in range(3000)
    ]
    options = mapping({**GRAPH, "type": "int8_hnsw"})
    indexer(es, ALIAS, tmp_path_factory.mktemp("dead"), mapping=options, graph="inline").run(records)
    yield
    for name in es.indices.get(index=f"{ALIAS}*", expand_wildcards="all"):
        es.indices.delete(index=name)


@pytest.fixture(autouse=True)
def untuned(es: Elasticsearch) -> Iterator[None]:
    """Each test begins with an index that nobody has tuned, and leaves no copy."""
    store_settings(es, ALIAS, None)
    yield
    assert copies(es) == []


def copies(es: Elasticsearch) -> list[str]:
    return sorted(es.indices.get(index=f"{ALIAS}{COPY_MARK}*", expand_wildcards="all"))


def tuned(es: Elasticsearch, **more: Any) -> TuneReport:
    return tune(es, ALIAS, **{"sample": 15, **more})


def meta(es: Elasticsearch) -> dict[str, Any]:
    mappings = es.indices.get_mapping(index=ALIAS)
    return dict(next(iter(mappings.values()))["mappings"]["_meta"])


def test_the_choice_finds_enough_is_stored_and_found_by_whoever_looks_up_the_index(es: Elasticsearch) -> None:
    before = meta(es)
    report = tuned(es, recall=0.8)
    assert report.chosen is not None
    assert report.chosen.interval.low >= 0.8
    assert report.stored
    settings = look_up(es, ALIAS).passport.search
    assert settings == report.settings == SearchSettings(
        report.chosen.num_candidates, 10, report.chosen.oversample, round(report.chosen.recall, 4)
    )  # fmt: skip
    after = meta(es)
    assert {name: value for name, value in after.items() if name != "esvector"} == {
        name: value for name, value in before.items() if name != "esvector"
    }
    passport = {name: value for name, value in after["esvector"].items() if name != "search"}
    assert passport == {name: value for name, value in before["esvector"].items() if name != "search"}


def test_the_frontier_grows_and_the_choice_is_no_dearer_than_anything_else_that_is_good_enough(
    es: Elasticsearch,
) -> None:
    report = tuned(es, recall=0.7, store=False)
    assert report.chosen is not None
    recalls = [trial.recall for trial in report.frontier]
    times = [trial.latency.p50 for trial in report.frontier]
    assert recalls == sorted(recalls)
    assert times == sorted(times)
    good = [trial.latency.p50 for trial in report.trials if trial.meets(report.goal)]
    assert report.chosen.latency.p50 <= 1.05 * min(good)
    candidates = {trial.num_candidates for trial in report.trials}
    assert min(candidates) == 10
    assert max(candidates) == 1000
    assert {trial.oversample for trial in report.trials} == {1, 2, 3}


def test_nothing_is_stored_in_a_dry_run_or_where_nothing_is_good_enough(es: Elasticsearch) -> None:
    assert tuned(es, recall=0.5, store=False).chosen is not None
    assert look_up(es, ALIAS).passport.search is None
    report = tuned(es, recall=0.5, p95=1e-6)
    assert (report.chosen, report.settings, report.stored) == (None, None, False)
    assert report.nearest is not None
    assert look_up(es, ALIAS).passport.search is None


def test_under_a_filter_the_worst_counts(es: Elasticsearch) -> None:
    free = tuned(es, recall=0.5, store=False)
    both = tuned(es, recall=0.5, store=False, where=[None, "year >= 2020"])
    assert len(both.trials) == len(free.trials)
    assert {trial.where for trial in both.trials} <= {None, "year >= 2020"}
    for alone, worst in zip(free.trials, both.trials, strict=True):
        assert worst.interval.low <= alone.interval.low


def test_other_types_are_tried_on_copies_that_are_gone_afterwards(es: Elasticsearch) -> None:
    report = tuned(es, recall=0.5, copy=CopyOptions(1500, ("hnsw", "bbq_hnsw"), m=(8, 16)), store=False)
    assert 1400 < report.copied < 1600
    copied = {(trial.vector_type, trial.m) for trial in report.trials if not trial.live}
    assert copied == {("hnsw", 8), ("hnsw", 16), ("bbq_hnsw", 8), ("bbq_hnsw", 16)}
    size = {trial.vector_type: trial.bytes_per_million for trial in report.trials if trial.m in (4, 16)}
    assert size["bbq_hnsw"] < size["int8_hnsw"] < size["hnsw"]
    assert all(trial.live for trial in report.frontier)
    assert report.chosen is not None
    assert report.chosen.live, "the settings of a search cannot change the type of the vectors"


def test_a_copy_is_gone_after_an_error_and_after_ctrl_c(es: Elasticsearch, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []

    for error in (KeyboardInterrupt, RuntimeError):

        def stop(*_: Any, error: type[BaseException] = error, **__: Any) -> None:
            seen.append(copies(es))
            raise error

        monkeypatch.setattr(tuning, "find_truth", stop)
        with pytest.raises(error):
            tuning._measure_copies(es, look_up(es, ALIAS), [], 10, CopyOptions(200, ("hnsw",)), 0, lambda *_: None)
    assert [len(names) for names in seen] == [1, 1]
    assert copies(es) == []


def test_a_command_that_is_interrupted_leaves_no_copy(es: Elasticsearch, server_url: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "esvector", "tune", ALIAS, "--url", server_url, "--dry-run"]
    with (tmp_path / "said").open("wb") as said:
        process = subprocess.Popen([*command, "--types", "hnsw", "--sample", "30"], stdout=said, stderr=said)
    try:
        until(lambda: copies(es) or process.poll() is not None, "a copy")
        assert process.poll() is None, (tmp_path / "said").read_text()
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130, (tmp_path / "said").read_text()
    finally:
        process.kill()
        process.wait()
    assert copies(es) == []


def test_a_type_that_does_not_suit_the_vectors_is_refused(es: Elasticsearch) -> None:
    with pytest.raises(ConfigError, match="bbq_disk is no graph"):
        tuned(es, copy=CopyOptions(100, ("bbq_disk",)))
    with pytest.raises(ConfigError, match="m is 513"):
        tuned(es, copy=CopyOptions(100, ("hnsw",), m=(513,)))
    for wrong in ({"recall": 0}, {"recall": 1.1}, {"p95": 0}, {"k": 0}):
        with pytest.raises(ConfigError):
            tuned(es, **wrong)


def test_settings_are_not_written_while_a_run_is_changing_the_alias(es: Elasticsearch, tmp_path: Path) -> None:
    settings = SearchSettings(50)
    with job(es, ALIAS, tmp_path / "other", threading.Event()), pytest.raises(LeaseError):
        store_settings(es, ALIAS, settings, state=tmp_path / "mine")
    assert look_up(es, ALIAS).passport.search is None
    with pytest.raises(IndexingError, match="measured on tune-tests-000009"):
        store_settings(es, ALIAS, settings, index="tune-tests-000009")


def test_settings_stay_with_their_version_and_survive_runs_on_it(es: Elasticsearch, alias: str, tmp_path: Path) -> None:
    records = [{"id": str(n), "text": f"text {n}"} for n in range(20)]
    indexer(es, alias, tmp_path).run(records)
    settings = SearchSettings(77, 10, 2.0, 0.99)
    assert store_settings(es, alias, settings) == f"{alias}-000001"
    report = indexer(es, alias, tmp_path).run([*records, {"id": "new", "text": "new"}])
    assert (report.index, report.indexed) == (f"{alias}-000001", 1)
    assert look_up(es, alias).passport.search == settings, "the same vectors, and some more"
    other = HashEncoder(DIMS, "other")
    Indexer(es, alias, encoder=other, dead_letters=tmp_path / "dead.jsonl").run(records)
    live = look_up(es, alias)
    assert (live.name, live.passport.search) == (f"{alias}-000002", None), "other vectors: measured anew"


def test_the_command(es: Elasticsearch, server_url: str, tmp_path: Path) -> None:
    plot = tmp_path / "frontier.png"
    args = ("tune", ALIAS, "--recall", "0.5", "--sample", "20")
    done = run_command(server_url, *args, "--plot", str(plot), "--dry-run")
    assert done.exit_code == 0, done.output
    (found,) = lines_of(done)
    assert found["chosen"]["recall"] >= 0.5
    assert not found["stored"]
    assert "not stored" in done.stderr
    assert plot.read_bytes().startswith(b"\x89PNG")
    done = run_command(server_url, *args, "--apply")
    assert "searches use it from now on" in done.stderr
    assert look_up(es, ALIAS).passport.search is not None
    done = run_command(server_url, *args, "--p95", "0.001ms")
    assert done.exit_code == 1
    assert "nothing that was tried reaches" in done.stderr
    assert "nearest: num_candidates" in done.stderr
    assert run_command(server_url, *args, "--p95", "soon").exit_code == 2
    assert run_command(server_url, *args, "--plot", "x.txt").exit_code == 2
