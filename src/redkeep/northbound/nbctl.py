"""Tables and channels on the command line, for people: `nbctl --seeds 127.0.0.1:6379 get ports p1`.

Exit status: 0 done, 1 not found or refused, 2 wrong usage, 3 not reached, or nobody knows whether it ran.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence

from redkeep.errors import OutcomeUnknown, Refused, Unavailable
from redkeep.northbound.client import Client
from redkeep.northbound.cluster import ClusterClient
from redkeep.northbound.connecting import connect
from redkeep.northbound.messages import Message
from redkeep.northbound.publishing import Publisher
from redkeep.northbound.subscribing import Notice, Subscriber
from redkeep.northbound.tables import Tables
from redkeep.northbound.wire import ServerError

Command = Callable[[Client, argparse.Namespace], Awaitable[None]]


def _print(text: str) -> None:
    """Whatever bytes it is made of, and at once, for pipes."""
    sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape") + b"\n")
    sys.stdout.buffer.flush()


async def _get(client: Client, asked: argparse.Namespace) -> None:
    """print one value"""
    _print(await Tables(client).get_key(asked.table, asked.key, asked.topic))


async def _set(client: Client, asked: argparse.Namespace) -> None:
    """write one value, tell those who watch"""
    await Tables(client, tell=True).set_key(asked.table, asked.key, asked.value, asked.topic)


async def _delete(client: Client, asked: argparse.Namespace) -> None:
    """remove one key, tell those who watch"""
    await Tables(client, tell=True).delete_key(asked.table, asked.key, asked.topic)


async def _keys(client: Client, asked: argparse.Namespace) -> None:
    """print the keys of a table"""
    for key in await Tables(client).get_all_keys(asked.table, asked.topic):
        _print(key)


async def _entries(client: Client, asked: argparse.Namespace) -> None:
    """print the keys and values of a table, one JSON pair per line"""
    async for key, value in Tables(client).iterate(asked.table, asked.topic):
        _print(json.dumps([key, value]))


async def _id(client: Client, asked: argparse.Namespace) -> None:
    """print the next unique id of a table"""
    _print(str(await Tables(client).allocate_unique_key(asked.table)))


async def _publish(client: Client, asked: argparse.Namespace) -> None:
    """publish JSON on a channel; print the message's id"""
    try:
        data = json.loads(asked.data)
    except ValueError as error:
        raise Refused(f"{asked.data!r} is not JSON: {error}") from error
    _print(await Publisher(client).publish(asked.channel, data))


async def _watch(client: Client, asked: argparse.Namespace) -> None:
    """print the messages of a channel (a topic, or table:<name>) until interrupted, or so many"""
    enough = asyncio.Event()
    left = asked.count

    def heard(message: Message) -> None:
        nonlocal left
        _print(json.dumps({"id": message.id, "channel": message.channel, "data": message.data}))
        left -= 1
        if left == 0:
            enough.set()

    async def noticed(notice: Notice) -> None:
        sys.stderr.write(f"{notice.kind}\n")
        if notice.kind == "recovered":
            await subscriber.subscribe(asked.channel, heard, after=subscriber.position(asked.channel))

    async with Subscriber(client, on_notice=noticed) as subscriber:
        await subscriber.subscribe(asked.channel, heard, after=asked.after)
        await enough.wait()


async def _topology(client: Client, _: argparse.Namespace) -> None:
    """print who is who, as JSON"""
    said: dict[str, object] = {"mode": client.mode, "redis": ".".join(map(str, client.version))}
    if isinstance(client, ClusterClient):
        said["members"] = [
            {
                "address": str(one.address),
                "role": "replica" if one.primary_id else "primary",
                "slots": sum(last - first + 1 for first, last in one.ranges),
                "failed": one.failed,
            }
            for one in sorted(client.view.members, key=lambda one: one.address)
        ]
    else:
        said |= client.topology.to_news()
    _print(json.dumps(said, indent=2))


COMMANDS: Mapping[str, tuple[Command, tuple[str, ...]]] = {
    "get": (_get, ("table", "key")),
    "set": (_set, ("table", "key", "value")),
    "delete": (_delete, ("table", "key")),
    "keys": (_keys, ("table",)),
    "entries": (_entries, ("table",)),
    "id": (_id, ("table",)),
    "publish": (_publish, ("channel", "data")),
    "watch": (_watch, ("channel",)),
    "topology": (_topology, ()),
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="nbctl", description="Look at and change what is in a northbound.")
    seeds = os.environ.get("NBCTL_SEEDS", "127.0.0.1:6379")
    parser.add_argument("--seeds", default=seeds, metavar="HOST:PORT,...", help=f"any of the servers ({seeds})")
    parser.add_argument("--username", default=os.environ.get("NBCTL_USERNAME"))
    parser.add_argument("--tls", action="store_true", help="encrypt; implied by --ca and --cert")
    parser.add_argument("--ca", metavar="FILE", help="who signs the servers' certificates")
    parser.add_argument("--cert", metavar="FILE", help="our own certificate")
    parser.add_argument("--key", metavar="FILE", help="its key, if that is a file of its own")
    parser.add_argument("--timeout", type=float, default=5.0, help="seconds to reach the servers (5)")
    parser.epilog = "The password is taken from the variable NBCTL_PASSWORD."
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="COMMAND")
    for name, (command, positions) in COMMANDS.items():
        verb = verbs.add_parser(name, help=command.__doc__, description=command.__doc__)
        for position in positions:
            verb.add_argument(position)
        if "table" in positions and name != "id":
            verb.add_argument("--topic")
        if name == "watch":
            verb.add_argument("--after", metavar="ID", help="first those after this id; 0-0 for all that are kept")
            verb.add_argument("--count", type=int, default=-1, help="end after so many")
    return parser


async def _run(asked: argparse.Namespace) -> None:
    async with await connect(
        asked.seeds.split(","),
        username=asked.username,
        password=os.environ.get("NBCTL_PASSWORD"),
        name="nbctl",
        tls=asked.tls,
        ca=asked.ca,
        cert=asked.cert,
        key=asked.key,
        timeout=asked.timeout,
    ) as client:
        await COMMANDS[asked.verb][0](client, asked)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit status."""
    parser = _parser()
    asked = parser.parse_args(arguments)
    try:
        asyncio.run(_run(asked))
    except ValueError as error:
        parser.error(str(error))
    except (Refused, ServerError) as error:
        sys.stderr.write(f"nbctl: {error}\n")
        return 1
    except (Unavailable, OutcomeUnknown) as error:
        sys.stderr.write(f"nbctl: {error}\n")
        return 3
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
