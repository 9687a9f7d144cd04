"""Three real nodes as one cluster, of which a test kills, pauses and starts again what it likes."""

from __future__ import annotations

from collections.abc import Iterator

import elasticsearch
import pytest
from elasticsearch import Elasticsearch, helpers

from esvector.local.health import ask_health
from tests.support.cluster import Cluster, RealNode, Server, real_node, three_nodes

INDEX = "kept-000001"

pytestmark = pytest.mark.nightly


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with three_nodes() as cluster:
        with Elasticsearch(cluster.nodes[0].url, request_timeout=60) as client:
            client.indices.create(index=INDEX, settings={"number_of_shards": 3, "number_of_replicas": 1})
            helpers.bulk(client, ({"_index": INDEX, "_id": str(n), "n": n} for n in range(300)), refresh=True)
        cluster.wait("green", nodes=3)
        yield cluster


def ids(node: RealNode) -> set[str]:
    with Elasticsearch(node.url, request_timeout=60) as client:
        client.indices.refresh(index=INDEX)
        return {hit["_id"] for hit in helpers.scan(client, index=INDEX)}


def test_they_are_one_cluster_on_loopback(cluster: Cluster) -> None:
    assert [ids(node) for node in cluster.nodes] == [{str(n) for n in range(300)}] * 3
    assert [len(node.pids) for node in cluster.nodes] == [1, 1, 1]
    assert cluster.url == ",".join(node.url for node in cluster.nodes)


def test_one_that_is_killed_is_replaced_and_comes_back_with_its_data(cluster: Cluster) -> None:
    victim = cluster.primary_of(INDEX)
    victim.kill()
    assert victim.pids == []
    cluster.wait("yellow", nodes=2)
    assert cluster.primary_of(INDEX) is not victim
    survivor = next(node for node in cluster.nodes if node is not victim)
    assert ids(survivor) == {str(n) for n in range(300)}
    port = victim.port
    victim.start()
    cluster.wait("green", nodes=3)
    assert victim.port == port
    assert ids(victim) == {str(n) for n in range(300)}


def test_one_that_stands_still_keeps_its_connections(cluster: Cluster) -> None:
    node = cluster.nodes[1]
    with Elasticsearch(node.url, request_timeout=2, max_retries=0) as client:
        assert client.count(index=INDEX)["count"] == 300
        with node.paused(), pytest.raises(elasticsearch.ConnectionTimeout):
            client.count(index=INDEX)
        assert client.options(request_timeout=60).count(index=INDEX)["count"] == 300
    cluster.wait("green", nodes=3)


def test_the_master_dies_and_another_is_elected(cluster: Cluster) -> None:
    """Last: it does not come back."""
    master = cluster.master()
    master.kill()
    cluster.wait("yellow", nodes=2)
    assert cluster.master() is not master


def test_a_node_of_ones_own_takes_settings() -> None:
    with real_node({"http.max_content_length": "1mb"}) as node:
        assert ask_health(node.url) is not None
        with Elasticsearch(node.url) as client, pytest.raises(elasticsearch.ApiError) as error:
            client.index(index="large", document={"text": "x" * 2_000_000})
        assert error.value.status_code == 413
        home = node.layout.home
        Server(home).terminate()  # by its folder alone, as for a node that another started
        assert ask_health(node.url) is None
        node.start()
        node.wait()
    assert node.pids == []
    assert not home.exists()
