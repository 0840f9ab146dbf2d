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


@pytest.mark.parametrize(
    ("name", "peer"), [("crash-failover", "sentinel-200ms"), ("planned-promote", "failover-command")]
)
def test_a_benchmark_prints_one_object_and_loses_nothing(name: str, peer: str) -> None:
    said = bench(name, "--json", "--runs", "1", "--data-mb", "1", "--peers", peer)

    found: dict[str, Any] = json.loads(said.stdout)
    assert (found["name"], found["unit"], found["runs"]) == (name, "ms", 1)
    assert 0 < found["ours"] == found["p99"] == found["max"] == found["spread"]["min"]
    assert found["writes"] > 0
    assert found["lost"] == 0
    assert list(found["peers"]) == [peer] == [found["peer_name"]]
    theirs = found["peers"][peer]
    assert found["peer"] == theirs["median"] == theirs["min"] == theirs["max"]
    assert found["ratio"] == round(found["peer"] / found["ours"], 1)
    assert {"lost", "full_resyncs", "samples"} <= theirs.keys()
    assert {"data_mb", "redis", "cores", "writer"} <= found["config"].keys()


def test_without_a_name_they_are_listed() -> None:
    lines = bench().stdout.splitlines()

    assert {"crash-failover", "planned-promote"} <= {line.split()[0] for line in lines}
