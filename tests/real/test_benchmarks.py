"""The benchmarks run: one run of each on little data, and the shape of what they print. Figures are not judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.real

ROOT = Path(__file__).parents[2]


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=90, check=True)


# Not sentinel-200ms, which tends to fail over again and again: that takes a quarter of a minute to calm down.
@pytest.mark.parametrize(
    ("name", "peer"), [("crash-failover", "sentinel-1000ms"), ("planned-promote", "failover-command")]
)
def test_a_benchmark_prints_one_object_and_loses_nothing(name: str, peer: str) -> None:
    said = bench(name, "--json", "--runs", "1", "--data-mb", "1", "--peers", peer)

    found: dict[str, Any] = json.loads(said.stdout)
    assert (found["name"], found["unit"], found["runs"]) == (name, "ms", 1)
    assert 0 < found["ours"] == found["p99"] == found["max"] == found["spread"]["min"]
    assert found["writes"] > 0
    assert found["lost"] == 0
    assert {"data_mb", "redis", "cores", "writer"} <= found["config"].keys()
    theirs = found["peers"][peer]
    assert {"median", "min", "max", "lost", "full_resyncs", "samples"} <= theirs.keys()
    if found["peer_name"] == peer:
        assert found["peer"] == theirs["median"]
        assert found["ratio"] == round(found["peer"] / found["ours"], 1)
    else:
        assert found["peer"] is found["ratio"] is None


def test_a_stopped_primary_is_replaced_and_accepts_nothing_when_it_wakes_up() -> None:
    said = bench(
        *("hang-failover", "--json", "--runs", "1", "--data-mb", "1", "--peers", "nobody", "--load-seconds", "1"),
    )

    found: dict[str, Any] = json.loads(said.stdout)
    assert found["ours"] > 0
    assert (found["lost"], found["stale_writes"], found["false_failovers"]) == (0, 0, 0)


def test_replicas_attach_here_and_there() -> None:
    said = bench("attach-replica", "--json", "--runs", "1", "--data-mb", "1", "--replicas", "2")

    found: dict[str, Any] = json.loads(said.stdout)
    assert (found["name"], found["unit"]) == ("attach-replica", "s")
    assert found["replicas"]["2"]["ratio"] == found["ratio"]
    assert found["ours"] > 0
    assert found["peer"] > 0


def test_the_driver_for_threads_is_measured_against_its_peer() -> None:
    found: dict[str, Any] = json.loads(bench("northbound-threads", "--json", "--runs", "1").stdout)

    for said in found["servers"].values():
        assert {"set_key, 1 threads", "get_key, 8 threads", "publish, 1 threads"} <= said["cases"].keys()
        assert all(case["ours"] > 0 and case["peer"] > 0 for case in said["cases"].values())
        assert all(0 < share < 2 for share in said["telling"].values())


@pytest.mark.timeout(200)
@pytest.mark.parametrize("name", ["shard-failover", "shard-promote"])
def test_shards_of_a_cluster_are_measured_and_lose_nothing(name: str) -> None:
    command = [sys.executable, "-m", "benchmarks", name, "--json", "--runs", "1", "--peers", "nobody"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=180, check=True)

    found: dict[str, Any] = json.loads(said.stdout)
    assert found["ours"] > 0
    assert found["writes"] > 1000
    assert found["lost"] == 0


def test_without_a_name_they_are_listed() -> None:
    lines = bench().stdout.splitlines()

    assert {"crash-failover", "planned-promote", "hang-failover", "attach-replica", "cluster-create", "rebalance"} <= {
        line.split()[0] for line in lines
    }


@pytest.mark.timeout(300)
def test_a_failover_between_sites_is_measured_beside_doing_it_by_hand() -> None:
    arguments = ("site-failover", "--json", "--runs", "1", "--instances", "2", "--managers", "2")
    command = [sys.executable, "-m", "benchmarks", *arguments]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=True)

    found: dict[str, Any] = json.loads(said.stdout)
    case = found["instances"]["2"]
    assert case["in_order"]["median"] > 0
    assert case["floor"]["median"] > 0
    assert case["forced"]["median"] >= case["forced_beyond_the_lease"]["median"] + 5, "the lease is waited out"
    assert len(found["managers"]["2"]["samples"]) == 2
