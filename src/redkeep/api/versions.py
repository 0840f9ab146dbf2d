"""Versions of the API, in one place; and whether this process can work."""

from __future__ import annotations

from fastapi import Request
from fastapi.responses import JSONResponse

from redkeep.api.blockstorage import versions as block_storage
from redkeep.api.call import base_url_of, context_of
from redkeep.api.schemas import ApiVersion, ApiVersionReply, Health, Link


async def index(request: Request) -> JSONResponse:
    """All versions of all APIs that are spoken here; 300, since there are several. The block storage API's first, as
    its clients want it."""
    # They also want `version` and `min_version` from every entry; that of the database API has no microversions.
    database = {**_v1(request).model_dump(), "version": "", "min_version": ""}
    return JSONResponse({"versions": [block_storage.document(request), database]}, status_code=300)


async def show(request: Request) -> ApiVersionReply:
    """The version of the database API."""
    return ApiVersionReply(version=_v1(request))


async def health(request: Request) -> Health:
    """The store can be reached."""
    async with context_of(request).store.read() as tx:
        await tx.now()
    return Health()


def _v1(request: Request) -> ApiVersion:
    return ApiVersion(
        id="v1.0",
        status="CURRENT",
        updated="2012-08-01T00:00:00Z",
        links=[Link(href=f"{base_url_of(request)}/v1.0/", rel="self")],
    )
