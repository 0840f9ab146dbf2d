"""As much of the identity API v3 as the stock clients need to log in with a name and a password.

Not keystone: no domains, roles, services or projects to manage. A project is a name, its id is that name. What the
tokens are is `auth.py`'s business.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import Header, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field, model_validator

from redkeep.api.auth import Token
from redkeep.api.call import base_url_of, context_of
from redkeep.api.schemas import Absent
from redkeep.errors import Refused

DOMAIN = {"id": "default", "name": "Default"}
SERVICES = (
    ("database", "redkeep", "/v1.0/{project}"),
    ("block-storage", "redkeep-block-storage", "/v3/{project}"),
    ("volumev3", "redkeep-volume", "/v3/{project}"),
    ("identity", "redkeep-identity", "/identity/v3"),
)

SubjectToken = Annotated[str, Header(alias="X-Subject-Token", description="The token to look at")]


# --- On the wire --------------------------------------------------------------------------------------------------


class _UserOrder(BaseModel):
    """By name or by id, which are the same here. The domain does not matter."""

    name: str | None = None
    id: str | None = None
    password: str

    @property
    def key(self) -> str:
        return self.name or self.id or ""

    @model_validator(mode="after")
    def _is_named(self) -> _UserOrder:
        if not self.key:
            raise ValueError("names no user")
        return self


class _PasswordOrder(BaseModel):
    user: _UserOrder


class _IdentityOrder(BaseModel):
    methods: list[Literal["password"]] = Field(min_length=1)
    password: _PasswordOrder


class _ProjectOrder(BaseModel):
    name: str | None = None
    id: str | None = None


class _ScopeOrder(BaseModel):
    project: _ProjectOrder | None = None


class _AuthOrder(BaseModel):
    identity: _IdentityOrder
    scope: _ScopeOrder | Literal["unscoped"] | None = None

    @property
    def project(self) -> str | None:
        """What the token is to be good for; None: nothing in particular."""
        if not isinstance(self.scope, _ScopeOrder) or self.scope.project is None:
            return None
        return self.scope.project.id or self.scope.project.name


class LogIn(BaseModel):
    """`{"auth": {"identity": {"methods": ["password"], "password": {"user": ...}}, "scope": {"project": ...}}}`."""

    auth: _AuthOrder


class Named(BaseModel):
    id: str
    name: str


class InDomain(Named):
    domain: Named


class Endpoint(BaseModel):
    id: str
    interface: Literal["public"] = "public"
    region: str
    region_id: str
    url: str


class Service(BaseModel):
    id: str
    type: str
    name: str
    endpoints: list[Endpoint]


class TokenView(BaseModel):
    methods: list[str]
    user: InDomain
    issued_at: str
    expires_at: str
    project: InDomain | Absent = None
    roles: list[Named] | Absent = None
    catalog: list[Service] | Absent = None


class TokenReply(BaseModel):
    token: TokenView


# --- Calls --------------------------------------------------------------------------------------------------------


async def index(request: Request) -> JSONResponse:
    """All versions; 300, since there could be several."""
    return JSONResponse({"versions": {"values": [_v3(request)]}}, status_code=300)


async def show(request: Request) -> JSONResponse:
    """The version that is spoken here."""
    return JSONResponse({"version": _v3(request)})


async def log_in(request: Request, response: Response, body: LogIn) -> TokenReply:
    """A token for a name and a password. It comes in the header `X-Subject-Token`."""
    gate = context_of(request).gate
    user = body.auth.identity.password.user
    caller = await gate.login(user.key, user.password)
    response.headers["X-Subject-Token"], token = gate.issue(caller, body.auth.project)
    return TokenReply(token=_view(request, token))


async def validate(request: Request, subject: SubjectToken) -> TokenReply:
    """What a token is good for: one's own, or anyone's for the administrator."""
    gate = context_of(request).gate
    try:
        token = gate.read(subject)
    except Refused:
        # Not 401: it is not the caller's own credentials that are wrong.
        raise Refused("There is no such token, or it is no longer good.", kind="missing") from None
    if not request.state.caller.is_admin and token.user != request.state.caller.name:
        raise Refused("Only the administrator may look at the tokens of others.", kind="forbidden")
    return TokenReply(token=_view(request, token))


def _v3(request: Request) -> dict[str, Any]:
    return {
        "id": "v3.14",
        "status": "stable",
        "updated": "2020-04-07T00:00:00Z",
        "links": [{"rel": "self", "href": f"{base_url_of(request)}/identity/v3/"}],
        "media-types": [{"base": "application/json", "type": "application/vnd.openstack.identity-v3+json"}],
    }


def _view(request: Request, token: Token) -> TokenView:
    settings = context_of(request).settings
    view = TokenView(
        methods=["password"],
        user=_in_domain(token.user),
        issued_at=_instant(token.issued),
        expires_at=_instant(token.issued + settings.token_lifetime_seconds),
    )
    if token.project is None:
        return view
    role = "admin" if token.user == settings.admin_user else "member"
    scoped = {
        "project": _in_domain(token.project),
        "roles": [Named(id=role, name=role)],
        "catalog": catalogue(base_url_of(request), token.project, settings.region),
    }
    return view.model_copy(update=scoped)


def catalogue(base_url: str, project: str, region: str) -> list[Service]:
    """Where a project finds the services."""
    return [
        Service(
            id=name,
            type=kind,
            name=name,
            endpoints=[
                Endpoint(
                    id=f"{name}-public", region=region, region_id=region, url=base_url + path.format(project=project)
                )
            ],
        )
        for kind, name, path in SERVICES
    ]


def _in_domain(name: str) -> InDomain:
    return InDomain(id=name, name=name, domain=Named(**DOMAIN))


def _instant(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
