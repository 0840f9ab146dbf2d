"""The northbound on the command line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from redkeep.northbound import nbctl
from redkeep.testing.servers import free_port, redis_process

pytestmark = pytest.mark.real

Say = Callable[..., tuple[int, str, str]]


@pytest.fixture
def say(capfdbinary: pytest.CaptureFixture[bytes]) -> Iterator[Say]:
    with redis_process() as server:

        def run(*words: str) -> tuple[int, str, str]:
            status = nbctl.main(["--seeds", str(server.address), *words])
            out, err = capfdbinary.readouterr()
            return status, out.decode(), err.decode()

        yield run


def test_a_conversation(say: Say) -> None:
    assert say("set", "ports", "p1", "é", "--topic", "red") == (0, "", "")
    assert say("set", "ports", "p2", "down")[0] == 0
    assert say("get", "ports", "p1") == (0, "é\n", "")
    assert sorted(say("keys", "ports")[1].split()) == ["p1", "p2"]
    assert sorted(map(json.loads, say("entries", "ports")[1].splitlines())) == [["p1", "é"], ["p2", "down"]]
    assert say("delete", "ports", "p2")[0] == 0
    assert [say("id", "ports")[1] for _ in range(2)] == ["1\n", "2\n"]
    status, said, _ = say("watch", "table:ports", "--after", "0-0", "--count", "2")
    assert status == 0
    assert [json.loads(line)["data"]["action"] for line in said.splitlines()] == ["set", "delete"]


def test_what_goes_wrong_is_said_and_in_the_status(say: Say) -> None:
    status, out, err = say("get", "ports", "none")
    assert (status, out) == (1, "")
    assert err == "nbctl: there is no table 'ports'\n"
    assert say("publish", "a", "{no json")[0] == 1
    assert nbctl.main(["--seeds", f"127.0.0.1:{free_port()}", "--timeout", "0.1", "topology"]) == 3
    with pytest.raises(SystemExit) as caught:
        nbctl.main(["--seeds", "nonsense", "topology"])
    assert caught.value.code == 2


def test_publishing_prints_the_id_and_topology_who_is_who(say: Say) -> None:
    status, id_, _ = say("publish", "news", '{"n": 1}')
    assert status == 0
    assert json.loads(say("watch", "news", "--after", "0-0", "--count", "1")[1])["id"] == id_.strip()
    assert json.loads(say("topology")[1])["mode"] == "single"
