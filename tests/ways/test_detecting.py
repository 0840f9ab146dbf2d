"""The managers of a running Redkeep look at the northbound's topology: one of them leads, and another takes over."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from redis import Redis
from tests.ways.test_up import Tree, eventually, tree

from redkeep.config import load
from redkeep.northbound.detector import HA_TOPIC, LEASE, STATE
from redkeep.services import _northbound
from redkeep.vault import Vault

pytestmark = [pytest.mark.real, pytest.mark.timeout(400)]
PATIENCE = 90.0
"""Seconds: a manager's process alone may take half a minute to start on a busy machine."""


def control(running: Tree) -> Redis:
    """The control Redis, as an operator reaches it."""
    config = load(running.state, None, (("northbound", "port", running.northbound_port),))
    found = _northbound(config, Vault.open(config.key_file, create=False))
    return Redis(
        host=found.address.host,
        port=found.address.port,
        password=found.password,
        decode_responses=True,
        socket_timeout=5,
    )


@contextmanager
def another_manager(running: Tree, name: str) -> Iterator[subprocess.Popen[bytes]]:
    overrides = (f"northbound.port={running.northbound_port}", f"manager.name={name}")
    with running.log_file.open("a") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "redkeep", "manager", "--state-dir", str(running.state)]
            + [word for one in overrides for word in ("--override", one)],
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)


def announcement(redis: Redis) -> dict[str, Any]:
    """What is heard next on the HA topic."""
    with redis.pubsub(ignore_subscribe_messages=True) as hearing:  # type: ignore[no-untyped-call]
        hearing.subscribe(HA_TOPIC)
        heard = eventually(lambda: hearing.get_message(timeout=0.2), PATIENCE, "an announcement")
    found: dict[str, Any] = json.loads(heard["data"])
    return found


def test_one_manager_announces_the_topology_and_another_goes_on_when_it_dies() -> None:
    with ExitStack() as stack:
        running = stack.enter_context(tree())
        running.up()
        redis = stack.enter_context(control(running))
        first = eventually(lambda: redis.get(LEASE), PATIENCE, "a leader")
        generation = int(eventually(lambda: redis.hget(STATE, "generation"), PATIENCE, "a generation"))
        assert announcement(redis)["generation"] == generation

        stack.enter_context(another_manager(running, "second"))
        eventually(lambda: {"detector:second", f"detector:{first}"} <= names(redis), PATIENCE, "both detectors")
        announcement(redis)
        assert redis.get(LEASE) == first

        assert running.process is not None
        running.process.send_signal(signal.SIGSTOP)  # it would start the manager again
        try:
            running.part("manager").kill()
            eventually(lambda: redis.get(LEASE) == "second", PATIENCE, "another leader")
            assert announcement(redis)["generation"] == generation
        finally:
            running.process.send_signal(signal.SIGCONT)


def names(redis: Redis) -> set[str]:
    return {str(one["name"]) for one in redis.client_list()}
