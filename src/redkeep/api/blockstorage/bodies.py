"""What the bodies of requests to /v3 may look like, and in which words they are refused: those of Cinder, since its
clients show them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from redkeep.errors import Refused


@dataclass(frozen=True, slots=True)
class Field:
    """One key of a body."""

    required: bool = False
    nullable: bool = False
    least: int = 0
    most: int = 255
    pattern: str = ""
    blank: bool = True
    """White space alone will do."""
    boolean: bool = False

    @property
    def types(self) -> tuple[str, ...]:
        plain = "boolean" if self.boolean else "string"
        return (plain, "null") if self.nullable else (plain,)

    @property
    def schema(self) -> dict[str, Any]:
        """The same as JSON Schema, for the document."""
        if self.boolean:
            return {"type": list(self.types)}
        found: dict[str, Any] = {"type": list(self.types), "minLength": self.least, "maxLength": self.most}
        return found | ({"pattern": self.pattern} if self.pattern else {})


HOST = Field(least=1, pattern=r"^[a-zA-Z0-9\-._#@:/+\[\]]*$")
CLUSTER = Field(nullable=True)
BACKEND_ID = Field(nullable=True)
BINARY = Field(nullable=True, least=1)
REASON = Field(required=True, least=1, blank=False)

Form = Mapping[str, Field]


def schema_of(form: Form) -> dict[str, Any]:
    """As JSON Schema, for the document."""
    required = [name for name, field in form.items() if field.required]
    return {
        "type": "object",
        "properties": {name: field.schema for name, field in form.items()},
        "additionalProperties": False,
        **({"required": required} if required else {}),
    }


async def body_of(request: Request, form: Form) -> dict[str, Any]:
    """The body of a request, which has this form. Raises Refused, and what reading it raises."""
    raw = await request.body()
    if not raw.strip():
        raise Refused("Malformed request body: there is none, and it must be a JSON object.")
    try:
        body = json.loads(raw)
    except ValueError:
        raise Refused("Malformed request body") from None
    check(body, form)
    return dict(body)


def check(body: Any, form: Form) -> None:
    """Raises Refused, in Cinder's words."""
    if not isinstance(body, dict):
        raise Refused(f"{_shown(body)} is not of type 'object'")
    if unknown := sorted(set(body) - set(form)):
        names = ", ".join(_shown(name) for name in unknown[:5])
        verb = "was" if len(unknown) == 1 else "were"
        raise Refused(f"Additional properties are not allowed ({names} {verb} unexpected)")
    for name, field in form.items():
        if name in body:
            if wrong := _wrong(body[name], field):
                raise Refused(f"Invalid input for field/attribute {name}. Value: {str(body[name])[:300]}. {wrong}")
        elif field.required:
            raise Refused(f"'{name}' is a required property")


def _wrong(value: Any, field: Field) -> str:
    if value is None and field.nullable:
        return ""
    if field.boolean and isinstance(value, bool):
        return ""
    if field.boolean or not isinstance(value, str):
        return f"{_shown(value)} is not of type {', '.join(repr(one) for one in field.types)}"
    if len(value) < field.least:
        return f"{_shown(value)} is too short"
    if len(value) > field.most:
        return f"{_shown(value)} is too long"
    if field.pattern and not re.search(field.pattern, value):
        return f"{_shown(value)} does not match {field.pattern!r}"
    if not field.blank and not value.strip():
        return f"{_shown(value)} is blank"
    return ""


def _shown(value: Any) -> str:
    """As Python writes it, like the validator of Cinder; not longer than a message should be."""
    shown = repr(value)
    return shown if len(shown) <= 300 else f"{shown[:300]}..."
