"""A client that follows one replication group: it writes to whoever is primary, and hears when that changes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Coroutine, Iterable
from types import TracebackType
from typing import Self

from redkeep.decide.following import Following, Look, hear, see
from redkeep.decide.routing import REFUSES_WRITES, Failure, GiveUp, PassOn, Retry, RetryAt, What, after_failure, pause
from redkeep.errors import OutcomeUnknown, RedkeepError, Refused, Unavailable
from redkeep.model.topology import Address, Topology
from redkeep.northbound.link import Bell
from redkeep.northbound.nodes import Node, look_at
from redkeep.northbound.wire import Argument, Login, Reply, ServerError

log = logging.getLogger(__name__)

TIMEOUT = 5.0
LOOKS_BEFORE_LAST_RESORT = 10
"""Looks in vain, by then over about a second, before a replaced primary is better than none."""
QUIET = 1.0
"""Seconds without a look after which the next one comes without a pause."""
UNTOLD_LOOK = 2.0
"""Seconds between looks while no news has ever come, as when nobody manages the group."""

_NOT_SHARED = frozenset(
    {"AUTH", "HELLO", "MONITOR", "QUIT", "RESET", "SELECT"}
    | {"MULTI", "EXEC", "DISCARD", "WATCH", "UNWATCH"}
    | {"SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE", "UNSUBSCRIBE", "PUNSUBSCRIBE", "SUNSUBSCRIBE"}
    | {"BLPOP", "BRPOP", "BRPOPLPUSH", "BLMOVE", "BLMPOP", "BZPOPMIN", "BZPOPMAX", "BZMPOP"}
)
"""Commands that change the connection or hold it up, which here belongs to many tasks."""

_NO_LETTING_IN = frozenset({"WRONGPASS", "NOAUTH"})

OnTopology = Callable[[Topology], None]


async def connect(
    seeds: Iterable[Address | str],
    *,
    username: str | None = None,
    password: str | None = None,
    name: str = "redkeep-client",
    timeout: float = TIMEOUT,
    on_topology: OnTopology | None = None,
) -> Client:
    """A client of the group that these servers (`host:port`, any of the group) belong to, connected to its primary.

    Raises Unavailable when no primary was found in `timeout` seconds, ServerError when the credentials are wrong.
    """
    addresses = [Address.parse(seed) if isinstance(seed, str) else seed for seed in seeds]
    client = Client(addresses, Login(username, password, name), on_topology)
    try:
        await client.ready(timeout)
    except BaseException:
        await client.close()
        raise
    return client


class Client:
    """Made by `connect`. `on_topology` is called with every new view of the group, from the loop."""

    def __init__(self, seeds: Iterable[Address], login: Login, on_topology: OnTopology | None = None) -> None:
        self.on_topology = on_topology
        self._login = login
        self._state = Following.begin(list(seeds))
        self._nodes: dict[Address, Node] = {}
        self._keepers: dict[Address, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._primary: Node | None = None
        self._closed = False
        self._refusing: set[Address] = set()
        """Those that refused a write since the primary last changed."""
        self._refusal: ServerError | None = None
        self._moved = Bell()
        self._looks = 0
        """Looks in a row: paces the next one."""
        self._look_wanted = asyncio.Event()
        self._look_wanted.set()
        self._loop = asyncio.get_running_loop()
        self._begin(self._look_whenever_wanted())

    # --- for applications ------------------------------------------------------------------------------------------

    @property
    def topology(self) -> Topology:
        """The group as it is believed to be. Epoch 0 and no group id until the first news."""
        return self._state.topology

    async def execute(self, *args: Argument, retry: Retry = "if_not_run", timeout: float = TIMEOUT) -> Reply:
        """Run a command on the primary; its reply as RESP3 says it (bytes, int, list, dict, ...).

        Raises ServerError when Redis refuses the command; when `timeout` seconds are over or `retry` forbids another
        attempt, Unavailable if it certainly did not run and OutcomeUnknown if nobody can know.
        """
        refuse_if_not_shared(args)
        deadline = self._loop.time() + timeout
        attempt = 0
        may_have_run = False
        while True:
            node = self._primary
            attempt += 1
            try:
                return await self._attempt(node, args, deadline)
            except (ServerError, OutcomeUnknown, Unavailable) as error:
                failure = self._failure(node, error, may_have_run)
                may_have_run |= failure.ran is None
                await self._recover(node, failure, error, retry, attempt, deadline)

    async def close(self) -> None:
        """End all connections. What waits for a reply gets OutcomeUnknown, what waits for a primary Unavailable."""
        self._closed = True
        self._primary = None
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

    async def ready(self, timeout: float) -> None:
        """Wait until the primary can be written to. Raises Unavailable after `timeout` seconds, or ServerError."""
        deadline = self._loop.time() + timeout
        while not (self._primary and self._primary.alive):
            if self._refusal is not None:
                raise self._refusal
            if self._loop.time() >= deadline:
                raise Unavailable(f"no primary among {', '.join(map(str, sorted(self._state.known)))}")
            await self._moved.wait(deadline - self._loop.time())

    # --- a command -------------------------------------------------------------------------------------------------

    async def _attempt(self, node: Node | None, args: tuple[Argument, ...], deadline: float) -> Reply:
        if node is None:
            raise Unavailable("the client is closed" if self._closed else "no primary is known")
        if node.data is None:
            raise Unavailable(f"{node.address}: not connected")
        return await node.data.send(*args, timeout=deadline - self._loop.time())

    def _failure(self, node: Node | None, error: RedkeepError, may_have_run: bool) -> Failure:
        moved = self._primary is not node
        match error:
            case ServerError():
                return Failure(What.ANSWERED, error.code, moved, may_have_run)
            case OutcomeUnknown():
                return Failure(What.LOST, moved=moved, may_have_run=may_have_run)
            case _:
                return Failure(What.NOT_WRITTEN, moved=moved, may_have_run=may_have_run)

    async def _recover(
        self, node: Node | None, failure: Failure, error: RedkeepError, retry: Retry, attempt: int, deadline: float
    ) -> None:
        """Return when the next attempt is due; raise when there is none."""
        if node is not None and failure.code in REFUSES_WRITES and not failure.moved:
            self._refusing.add(node.address)
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

    # --- who is primary --------------------------------------------------------------------------------------------

    def _want_look(self) -> None:
        self._look_wanted.set()

    async def _look_whenever_wanted(self) -> None:
        """Looks follow each other with growing pauses, starting over when something changed or all was quiet."""
        in_vain, last = 0, 0.0
        while True:
            await self._until_look_is_wanted()
            if self._loop.time() - last > QUIET:
                self._looks = 0
            if self._looks:
                await self._moved.wait(pause(self._looks, random.random()))  # noqa: S311
            self._look_wanted.clear()
            self._looks += 1
            before = self._state.topology
            looks = await self._look()
            last = self._loop.time()
            if self._state.topology is not before:  # news came meanwhile: what was seen may be older
                self._want_look()
                continue
            resort = in_vain >= LOOKS_BEFORE_LAST_RESORT
            self._believe(see(self._state, looks, refusing=self._refusing, last_resort=resort))
            if any(look.address == self.topology.primary and look.primary is None for look in looks):
                in_vain = 0
            else:
                in_vain += 1
                self._want_look()

    async def _until_look_is_wanted(self) -> None:
        """Once news has come, news tells of every change; until then nobody says that a replica has joined."""
        patience = None if self.topology.group_id else UNTOLD_LOOK
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._look_wanted.wait()

    async def _look(self) -> list[Look]:
        answers = await asyncio.gather(*map(self._ask, self._state.candidates))
        looks = [answer for answer in answers if isinstance(answer, Look)]
        refusals = [answer for answer in answers if isinstance(answer, ServerError) and answer.code in _NO_LETTING_IN]
        self._refusal = refusals[0] if refusals and not looks else None
        if self._refusal is not None:
            self._moved.ring()
        return looks

    async def _ask(self, address: Address) -> Look | ServerError | None:
        node = self._nodes.get(address)
        try:
            return await (node.look() if node else look_at(address, self._login))
        except ServerError as error:
            return error
        except (Unavailable, OutcomeUnknown, ValueError) as error:
            log.debug("%s does not say who it is: %s", address, error)
            return None

    def _hear(self, news: Topology) -> None:
        self._believe(hear(self._state, news, primary_alive=self._primary is not None and self._primary.alive))

    def _believe(self, state: Following) -> None:
        old, self._state = self._state, state
        if state.topology == old.topology:
            return
        self._looks = 0
        if state.topology.primary != old.topology.primary:
            self._refusing.clear()
        self._reconcile(state.topology)
        self._moved.ring()
        if self.on_topology is not None:
            self._loop.call_soon(self.on_topology, state.topology)

    # --- connections -----------------------------------------------------------------------------------------------

    def _reconcile(self, topology: Topology) -> None:
        """Connections to all who are in the group, the primary first, and to nobody else."""
        for address in topology.nodes:
            if address not in self._nodes:
                node = Node(address, self._login, on_news=self._hear, on_change=self._changed)
                self._nodes[address] = node
                self._keepers[address] = self._begin(node.run())
        for address in self._nodes.keys() - set(topology.nodes):
            del self._nodes[address]
            self._keepers.pop(address).cancel()
        self._primary = self._nodes[topology.primary] if topology.primary else None
        if self._primary is not None and not self._primary.alive:
            self._primary.nudge()

    def _changed(self, node: Node) -> None:
        """A connection of that server was opened or lost. News may have been missed meanwhile, so look."""
        self._want_look()
        if node is self._primary:
            self._looks = 0
            self._moved.ring()

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


def _report(task: asyncio.Task[None]) -> None:
    """A task of ours that ends by itself is a bug: without it the client no longer follows."""
    with contextlib.suppress(asyncio.CancelledError):
        error = task.exception()
        log.error("the client no longer follows its group", exc_info=error)
