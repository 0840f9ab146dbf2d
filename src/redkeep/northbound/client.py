"""What every client is, whatever it faces: one server, a primary with replicas, or a cluster.

It knows how a command is tried again. Who owns what, and how that is found out, is for `group.py` and `cluster.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Sequence
from types import TracebackType
from typing import Any, Self

from redkeep.decide.routing import NOT_RUN, Failure, GiveUp, PassOn, Retry, RetryAt, What, after_failure
from redkeep.errors import OutcomeUnknown, RedkeepError, Refused, Unavailable
from redkeep.model.topology import Address, Topology
from redkeep.northbound.link import Bell, Pause
from redkeep.northbound.nodes import Node
from redkeep.northbound.wire import Argument, Connection, Login, Reply, ServerError

log = logging.getLogger(__name__)

TIMEOUT = 5.0
WAIT_SHARE = 0.8
"""Of a command's time, what replicas may take to confirm it: the answer must come back as well."""
QUIET = 1.0
"""Seconds without a look after which the next one comes without a pause."""

_NOT_SHARED = frozenset(
    {"AUTH", "HELLO", "MONITOR", "QUIT", "RESET", "SELECT"}
    | {"MULTI", "EXEC", "DISCARD", "WATCH", "UNWATCH", "ASKING", "READONLY", "READWRITE"}
    | {"SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE", "UNSUBSCRIBE", "PUNSUBSCRIBE", "SUNSUBSCRIBE"}
    | {"BLPOP", "BRPOP", "BRPOPLPUSH", "BLMOVE", "BLMPOP", "BZPOPMIN", "BZPOPMAX", "BZMPOP"}
)
"""Commands that change the connection or hold it up, which here belongs to many tasks."""

OnTopology = Callable[[Topology], None]
Command = tuple[Argument, ...]
_Send = Callable[[Connection, float], "asyncio.Future[Reply]"]
"""Puts a command, or several, on a connection; the reply is due in so many seconds."""


class Client(ABC):
    """Made by `connect`. `on_topology` is called with every new view of the servers, from the loop."""

    hearing: type[Any] | None = None
    """What subscribers hear with, if not with connections of their own."""

    def __init__(self, login: Login, on_topology: OnTopology | None = None) -> None:
        self.on_topology = on_topology
        self.on_trouble: Callable[[str], None] | None = None
        """Told, from the loop, of everything that hints at another topology: who reports that on sets it."""
        self.login = login
        self.version: tuple[int, ...] = ()
        self.confirm = False
        """Have writes confirmed by a majority even before any news asks for it."""
        """Of the server that answered first."""
        self._nodes: dict[Address, Node] = {}
        self._keepers: dict[Address, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self._moved = Bell()
        self._loop = asyncio.get_running_loop()

    # --- for applications ------------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def mode(self) -> str:
        """`single`, `replicated` or `cluster`."""

    @property
    @abstractmethod
    def topology(self) -> Topology:
        """The servers as they are believed to be. Of a cluster: its members as replicas, and no primary."""

    @property
    @abstractmethod
    def primaries(self) -> tuple[Address, ...]:
        """Those who take writes, in a stable order."""

    @abstractmethod
    def owner(self, slot: int) -> Address | None:
        """Whom a command on that slot is sent to."""

    def stand_ins(self, slot: int) -> list[Address]:  # noqa: ARG002 (who owns nothing by slots has none)
        """Who else of that shard can be heard from: its replicas that are connected, in any order."""
        return []

    @abstractmethod
    async def ready(self, timeout: float) -> None:
        """Wait until it can be written to. Raises Unavailable after `timeout` seconds, or ServerError."""

    @property
    def sharded(self) -> bool:
        """Messages stay within a shard: a cluster's bus broadcasts all others to every node, and takes its time."""
        return self.mode == "cluster" and self.version >= (7,)

    @property
    def confirmations(self) -> int:
        """How many replicas must have what a command wrote before its answer is passed on."""
        return 0

    async def execute(self, *args: Argument, retry: Retry = "if_not_run", timeout: float = TIMEOUT) -> Reply:
        """Run a command where its first key lives; its reply as RESP3 says it (bytes, int, list, dict, ...).

        Raises ServerError when Redis refuses the command; when `timeout` seconds are over or `retry` forbids another
        attempt, Unavailable if it certainly did not run and OutcomeUnknown if nobody can know. That is also said of
        what ran, but was not confirmed by enough replicas: it may be lost together with the primary.
        """
        refuse_if_not_shared(args)
        slot = self._slot(args)
        if wanted := self.confirmations:
            wait = ("WAIT", wanted, max(1, int(timeout * 1000 * WAIT_SHARE)))
            reply, confirmed = await self.send_many(slot, [args, wait], retry=retry, timeout=timeout)
            if confirmed < wanted:
                raise OutcomeUnknown(f"the primary has it, {confirmed} of {wanted} replicas have confirmed it in time")
            return reply
        return await self.send(slot, args, retry=retry, timeout=timeout)

    async def send(self, slot: int, args: Command, *, retry: Retry = "if_not_run", timeout: float = TIMEOUT) -> Reply:
        """The same for a caller that knows the slot, and that the command may be shared."""
        node = self._node(slot)
        deadline = self._loop.time() + timeout
        if node is not None and (connection := node.data) is not None:
            try:
                return await connection.send(*args, timeout=timeout)
            except (ServerError, OutcomeUnknown, Unavailable) as error:
                first: RedkeepError = error
        else:
            first = Unavailable(self._no_node(node))
        return await self.go_on(slot, args, first, node, retry=retry, deadline=deadline)

    async def send_many(
        self, slot: int, commands: Sequence[Command], *, retry: Retry = "if_not_run", timeout: float = TIMEOUT
    ) -> list[Reply]:
        """Commands on one slot in one write; all replies, or the first error. They are no transaction."""
        node = self._node(slot)
        deadline = self._loop.time() + timeout
        try:
            if node is None or node.data is None:
                raise Unavailable(self._no_node(node))
            replies = await node.data.send_many(commands, timeout=timeout)
        except (OutcomeUnknown, Unavailable) as error:
            outcome: list[Reply] = [error] * len(commands)
        else:
            outcome = replies
        return await self.go_on_many(slot, commands, outcome, node, retry=retry, deadline=deadline)

    async def send_each(self, commands: Sequence[tuple[int, Command]], *, timeout: float = TIMEOUT) -> list[Reply]:
        """Reads, each on its own slot, all under way at once; all replies, or the first error."""
        if len(commands) == 1:
            slot, args = commands[0]
            return [await self.send(slot, args, retry="always", timeout=timeout)]
        return await asyncio.gather(*(self.send(at, one, retry="always", timeout=timeout) for at, one in commands))

    def in_background(self, work: Callable[[Client], Coroutine[Any, Any, Any]], *, seconds: float) -> None:
        """Have it tried until it succeeds, for so many seconds, or until the client is closed."""
        self._begin(self._keep_trying(work, self._loop.time() + seconds))

    async def _keep_trying(self, work: Callable[[Client], Coroutine[Any, Any, Any]], deadline: float) -> None:
        pause = Pause(first=0.05, longest=1.0)
        while self._loop.time() < deadline:
            try:
                await work(self)
            except (ServerError, Unavailable, OutcomeUnknown) as error:
                log.info("in the background: %s", error)
                await pause.sleep()
            else:
                return

    def node_at(self, address: Address) -> Node | None:
        """How that server is held, if it is one of ours."""
        return self._nodes.get(address)

    def doubt(self, what: str) -> None:
        """Somebody has met something that hints at another topology."""
        self._want_look()
        if self.on_trouble is not None:
            self.on_trouble(what)

    def random_nodes(self) -> list[Node]:
        """Those that are connected, in any order."""
        alive = [node for node in self._nodes.values() if node.alive]
        random.shuffle(alive)
        return alive

    async def close(self) -> None:
        """End all connections. What waits for a reply gets OutcomeUnknown, what waits for a primary Unavailable."""
        self._closed = True
        self._moved.ring()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    # --- a command that failed -------------------------------------------------------------------------------------

    async def go_on(
        self, slot: int, args: Command, error: RedkeepError, node: Node | None, *, retry: Retry, deadline: float
    ) -> Reply:
        """What `send` does after its first attempt, made on `node`, ended in `error`. `deadline` is loop time."""

        def put(connection: Connection, left: float) -> asyncio.Future[Reply]:
            return connection.send(*args, timeout=left)

        def ask(connection: Connection, left: float) -> asyncio.Future[Reply]:
            connection.send("ASKING", timeout=left).add_done_callback(_ignored)  # leaves in the same write
            return connection.send(*args, timeout=left)

        attempt, may_have_run = 0, False
        while True:
            attempt += 1
            asked: Node | None = None
            moved = self._node(slot) is not node
            if isinstance(error, ServerError):
                asked = self._met(node, error, moved=moved, slot=slot)
                moved = moved or self._node(slot) is not node
            failure = _failure(error, moved=moved or asked is not None, may_have_run=may_have_run)
            may_have_run |= failure.ran is None
            await self._recover(failure, error, retry, attempt, deadline)
            node = asked or self._node(slot)
            try:
                return await self._attempt(node, ask if asked else put, deadline)
            except (ServerError, OutcomeUnknown, Unavailable) as again:
                error = again

    async def go_on_many(
        self,
        slot: int,
        commands: Sequence[Command],
        outcome: list[Reply],
        node: Node | None,
        *,
        retry: Retry,
        deadline: float,
    ) -> list[Reply]:
        """Try those again whose outcome says that they did not run, or, with `retry` always, may not have run."""
        for n, reply in enumerate(outcome):
            if not isinstance(reply, RedkeepError):
                continue
            if isinstance(reply, ServerError) and reply.code not in NOT_RUN:
                raise reply
            outcome[n] = await self.go_on(slot, commands[n], reply, node, retry=retry, deadline=deadline)
        return outcome

    async def _attempt(self, node: Node | None, send: _Send, deadline: float) -> Reply:
        if node is None or node.data is None:
            raise Unavailable(self._no_node(node))
        return await send(node.data, deadline - self._loop.time())

    def _no_node(self, node: Node | None) -> str:
        if self._closed:
            return "the client is closed"
        return "no primary is known" if node is None else f"{node.address}: not connected"

    async def _recover(
        self, failure: Failure, error: RedkeepError, retry: Retry, attempt: int, deadline: float
    ) -> None:
        """Return when the next attempt is due; raise when there is none."""
        chance = random.random()  # noqa: S311 (spreads load; no secret)
        now = self._loop.time()
        if self._closed:
            deadline = now
        match after_failure(failure, retry=retry, attempt=attempt, now=now, deadline=deadline, chance=chance):
            case PassOn():
                raise error
            case GiveUp(kind):
                self._want_look()  # for those who come after
                raise kind(f"{error} (attempt {attempt})") from error
            case RetryAt(moment, look_first):
                if look_first:
                    self._want_look()
                if moment > now:
                    await self._moved.wait(moment - now)

    # --- what a kind of client knows -------------------------------------------------------------------------------

    @abstractmethod
    def _slot(self, args: Command) -> int:
        """Of the command's first key."""

    @abstractmethod
    def _node(self, slot: int) -> Node | None:
        """Whom to send to."""

    @abstractmethod
    def _met(self, node: Node | None, error: ServerError, *, moved: bool, slot: int) -> Node | None:
        """Learn from an error reply of `node`. Returns who is to be ASKed, if that is what it said."""

    @abstractmethod
    def _want_look(self) -> None:
        """Look soon who owns what."""

    def _begin(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(_report)
        return task


def refuse_if_not_shared(args: tuple[Argument, ...]) -> None:
    """Raises Refused for a command that must not be sent over a connection that others use too."""
    command = args[0]
    if isinstance(command, bytes):
        command = command.decode(errors="replace")
    if str(command).upper() in _NOT_SHARED:
        raise Refused(f"{command} cannot be used on a shared connection", kind="unsupported")


def _failure(error: RedkeepError, *, moved: bool, may_have_run: bool) -> Failure:
    match error:
        case ServerError():
            return Failure(What.ANSWERED, error.code, moved, may_have_run)
        case OutcomeUnknown():
            return Failure(What.LOST, moved=moved, may_have_run=may_have_run)
        case _:
            return Failure(What.NOT_WRITTEN, moved=moved, may_have_run=may_have_run)


def _ignored(future: asyncio.Future[Reply]) -> None:
    """ASKING itself never fails alone: the command behind it tells."""
    if not future.cancelled():
        future.exception()


def _report(task: asyncio.Task[None]) -> None:
    """A task of ours that ends by itself is a bug: without it the client no longer follows."""
    with contextlib.suppress(asyncio.CancelledError):
        error = task.exception()
        if error is not None:
            log.error("the client no longer follows its servers", exc_info=error)
