"""Users of an instance, and its root, which for Redis is the user `default`.

A password can be handed out again here at any time: only digests are kept. Each change is recorded, then waited for, so
that a password that is returned works at once. When the servers take longer than `users_wait_seconds` the answer is
the same, and they follow.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated

from fastapi import Path, Response

from redkeep.api.call import Call, InstanceId, ThisCall, accepted
from redkeep.api.record import Scene, demand, look, poke, record
from redkeep.api.schemas import (
    ChangePasswords,
    CreateUsers,
    MadeUser,
    MadeUsers,
    RootOrder,
    RootReply,
    RootStatus,
    RootUser,
    UserList,
    UserReply,
    UserView,
)
from redkeep.decide import lifecycle
from redkeep.errors import OutcomeUnknown, Refused
from redkeep.model.instance import Group, RedisUser
from redkeep.model.operation import Kind, Operation, State
from redkeep.vault import digest, new_password

ROOT = "default"
RESERVED_PREFIX = "redkeep-"
POLL_SECONDS = (0.02, 0.05, 0.1, 0.2)
"""Pauses between two looks at the operation; the last one repeats."""

UserKey = Annotated[str, Path(description="The name of a user", examples=["app"])]
Users = tuple[RedisUser, ...]


# --- Looking ------------------------------------------------------------------------------------------------------


async def index(call: ThisCall, instance_id: InstanceId) -> UserList:
    """The users of an instance, root left out."""
    scene = await _scene(call, instance_id)
    return UserList(users=[UserView(name=user.name) for user in scene.group.users if not is_reserved(user.name)])


async def show(call: ThisCall, instance_id: InstanceId, user: UserKey) -> UserReply:
    """One user."""
    scene = await _scene(call, instance_id)
    return UserReply(user=UserView(name=_known(scene.group.users, user).name))


async def root_status(call: ThisCall, instance_id: InstanceId) -> RootStatus:
    """Whether somebody was given root's password."""
    scene = await _scene(call, instance_id)
    return RootStatus(rootEnabled=scene.group.root_enabled)


async def _scene(call: Call, instance_id: str) -> Scene:
    async with call.context.store.read() as tx:
        scene = await look(tx, call, instance_id)
    demand(lifecycle.has_users(scene.instance))
    return scene


# --- Changing -----------------------------------------------------------------------------------------------------


async def create(call: ThisCall, instance_id: InstanceId, body: CreateUsers) -> MadeUsers:
    """Add users. Passwords that are left out are made up, and shown in this answer only."""
    made_up = {user.name: new_password() for user in body.users if user.password is None}
    new = [RedisUser(user.name, digest(user.password or made_up[user.name])) for user in body.users]
    await _change(call, instance_id, lambda group: replace(group, users=with_users(group.users, new)))
    return MadeUsers(users=[MadeUser(name=user.name, password=made_up.get(user.name)) for user in new])


async def change_passwords(call: ThisCall, instance_id: InstanceId, body: ChangePasswords) -> Response:
    """Give users other passwords."""
    new = [RedisUser(user.name, digest(user.password)) for user in body.users]
    await _change(call, instance_id, lambda group: replace(group, users=with_passwords(group.users, new)))
    return accepted()


async def delete(call: ThisCall, instance_id: InstanceId, user: UserKey) -> Response:
    """Remove a user."""
    await _change(call, instance_id, lambda group: replace(group, users=without_user(group.users, user)))
    return accepted()


async def enable_root(call: ThisCall, instance_id: InstanceId, body: RootOrder | None = None) -> RootReply:
    """Give root (`default`) another password, and show it once."""
    password = (body.password if body else None) or new_password()
    await _change(call, instance_id, lambda group: with_root(group, password, enabled=True))
    return RootReply(user=RootUser(name=ROOT, password=password))


async def disable_root(call: ThisCall, instance_id: InstanceId) -> Response:
    """Give root a password that nobody knows."""
    await _change(call, instance_id, lambda group: with_root(group, new_password(), enabled=False))
    return accepted()


async def _change(call: Call, instance_id: str, change: Callable[[Group], Group]) -> None:
    async with call.context.store.begin() as tx:
        scene = await look(tx, call, instance_id, lock=True)
        demand(lifecycle.may_change_users(scene.instance))
        group = change(scene.group)
        operation = await record(tx, call, Kind.UPDATE_USERS, {}, about=scene.instance, rows=[group], now=scene.now)
    await poke(call.context, group.id)
    await _settled(call, operation)


async def _settled(call: Call, operation: Operation) -> None:
    """Wait until the servers have it, for as long as settings allow. Raises OutcomeUnknown when they refuse it."""
    found: Operation | None = operation
    try:
        async with asyncio.timeout(call.context.settings.users_wait_seconds):
            looks = 0
            while found and found.state.open:
                await asyncio.sleep(POLL_SECONDS[min(looks, len(POLL_SECONDS) - 1)])
                looks += 1
                async with call.context.store.read() as tx:
                    found = await tx.operation(operation.id)
    except TimeoutError:
        return
    if found and found.state is State.FAILED:
        raise OutcomeUnknown(f"The change of users is recorded, but not all servers took it: {found.error}.")


# --- Sets of users (pure) -----------------------------------------------------------------------------------------


def is_reserved(name: str) -> bool:
    """Not a tenant's to make or remove."""
    return name == ROOT or name.startswith(RESERVED_PREFIX)


def with_users(users: Users, new: Sequence[RedisUser]) -> Users:
    """The users and the new ones. Raises Refused."""
    names = [user.name for user in new]
    for name in names:
        if is_reserved(name):
            raise Refused(f"The user name {name} is reserved.")
        if names.count(name) > 1 or any(user.name == name for user in users):
            raise Refused(f"User {name} exists already.", kind="conflict")
    return (*users, *new)


def with_passwords(users: Users, new: Sequence[RedisUser]) -> Users:
    """The users, some with other passwords. Raises Refused."""
    changed = {_known(users, user.name).name: user for user in new}
    return tuple(changed.get(user.name, user) for user in users)


def without_user(users: Users, name: str) -> Users:
    """The users but one. Raises Refused."""
    gone = _known(users, name)
    return tuple(user for user in users if user is not gone)


def with_root(group: Group, password: str, *, enabled: bool) -> Group:
    """The group with another password for root."""
    root = RedisUser(ROOT, digest(password))
    others = tuple(user for user in group.users if user.name != ROOT)
    return replace(group, users=(root, *others), root_enabled=enabled)


def _known(users: Users, name: str) -> RedisUser:
    found = next((user for user in users if user.name == name and not is_reserved(name)), None)
    if found is None:
        raise Refused(f"User {name[:64]} cannot be found.", kind="missing")
    return found
