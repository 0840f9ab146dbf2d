"""`./run docs`: writes the reference anew from what the code says of itself. It looks at nothing but the code.

`pages` is pure, so that a test can tell whether somebody forgot to run it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import click
from cryptography.fernet import Fernet
from oslo_config import cfg

from redkeep.api.app import create_app
from redkeep.api.faults import NAMES
from redkeep.api.settings import ApiSettings
from redkeep.cli import main as cli
from redkeep.config import OPTIONS
from redkeep.northbound.memory import MemoryBus, MemoryExchange
from redkeep.ports import Store
from redkeep.vault import Vault

REFERENCE = Path(__file__).parent / "reference"
MADE = "<!-- Made by ./run docs from the code; edits are lost. -->"
WIDTH = 100

ABOUT_THE_API = """\
It is served on port 8779 unless told otherwise. The same is there as [an OpenAPI document](openapi.json).

Credentials are HTTP Basic or a token in `X-Auth-Token`; routes marked *open* need none. Bodies are JSON. A `202` means
that the request is on record; the status of the instance tells how it goes on.
"""

ABOUT_SETTINGS = """\
They stand in `redkeep.conf` in the state directory, or in the file that `--config-file` names, as `[group]` and
`name = value`. None is needed. A variable of the environment, `OS_<GROUP>__<NAME>` in capitals, is stronger than the
file.
All managers and agents of an installation must be given the same, but for what names a machine.
"""

Json = Mapping[str, Any]


def pages() -> dict[str, str]:
    """Every file of `docs/reference` by its name."""
    document = openapi()
    return {
        "api.md": api(document),
        "openapi.json": json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n",
        "settings.md": settings(OPTIONS),
        "cli.md": command_line(cli),
    }


def main() -> None:
    """Write them."""
    REFERENCE.mkdir(exist_ok=True)
    for name, text in pages().items():
        path = REFERENCE / name
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            click.echo(f"written: docs/reference/{name}")


def openapi() -> dict[str, Any]:
    """What the API says of itself. No door is opened for that, so the store may be missing."""
    nowhere = cast("Store", None)
    bus = MemoryBus(MemoryExchange(), name="docs")
    return create_app(ApiSettings(), nowhere, bus, Vault(Fernet.generate_key())).openapi()


# --- The API ---------------------------------------------------------------------------------------------------------


def api(document: Json) -> str:
    """Every route by noun, then what travels."""
    by_tag: dict[str, list[str]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            by_tag.setdefault(operation["tags"][0], []).append("\n".join(_route(method, path, operation)))
    shown = [f"## {_title(tag)}\n\n" + "\n".join(routes) for tag, routes in by_tag.items()]
    schemas = document["components"]["schemas"]
    bodies = ["\n".join(_schema(name, schema)) for name, schema in sorted(schemas.items()) if not _is_fault(name)]
    return "\n".join(
        (
            "# The REST API\n",
            MADE,
            "",
            document["info"]["summary"] + "\n",
            ABOUT_THE_API,
            *_faults(),
            *shown,
            "## What travels\n",
            *bodies,
        )
    )


def _faults() -> Iterator[str]:
    yield 'An error has this form, whatever went wrong: `{"itemNotFound": {"code": 404, "message": "..."}}`.\n'
    yield "| code | name |\n|---|---|"
    yield from (f"| {code} | `{name}` |" for code, name in NAMES.items())
    yield ""


def _route(method: str, path: str, operation: Json) -> Iterator[str]:
    yield f"### `{method.upper()} {path}`\n"
    is_open = "" if operation.get("security") else " *Open.*"
    yield _flat(operation.get("description") or operation["summary"]) + is_open + "\n"
    parameters = [one for one in operation.get("parameters", ()) if one["name"] not in ("project", "instance_id")]
    for one in parameters:
        need = "" if one.get("required") else ", optional"
        told = one.get("description") or one["schema"].get("description", "")
        yield f"- `{one['name']}` ({one['in']}, {_type(one['schema'])}{need}){': ' + _flat(told) if told else ''}"
    if body := operation.get("requestBody"):
        yield f"- body: {_type(body['content']['application/json']['schema'])}"
    answers = operation["responses"]
    for code, answer in answers.items():
        if int(code) < 400:
            content = answer.get("content", {}).get("application/json", {}).get("schema")
            yield f"- `{code}`: {_type(content) if content else 'no body'}"
    errors = [code for code in answers if int(code) >= 400]
    yield f"- errors: {', '.join(errors)}\n"


def _schema(name: str, schema: Json) -> Iterator[str]:
    yield f"### {name}\n"
    if told := schema.get("description"):
        yield _flat(told) + "\n"
    if "properties" not in schema:
        yield _type({key: value for key, value in schema.items() if key != "description"}) + "\n"
        return
    yield "| key | type | needed | meaning |\n|---|---|---|---|"
    for key, value in schema["properties"].items():
        needed = "yes" if key in schema.get("required", ()) else ""
        default = f" Default: `{json.dumps(value['default'])}`." if value.get("default") is not None else ""
        told = _flat(value.get("description", "")) + default
        yield f"| `{key}` | {_cell(_type(value))} | {needed} | {_cell(told.strip())} |"
    yield ""


def _type(schema: Json) -> str:
    """A JSON schema in a few words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return " or ".join(dict.fromkeys(_type(one) for one in schema[key]))
    if "allOf" in schema:
        return " and ".join(_type(one) for one in schema["allOf"])
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if "enum" in schema:
        return " or ".join(f"`{json.dumps(one)}`" for one in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return str(schema.get("type", "anything")) + _bounds(schema)


def _bounds(schema: Json) -> str:
    words = {
        "minimum": "at least",
        "exclusiveMinimum": "more than",
        "maximum": "at most",
        "minLength": "length at least",
        "maxLength": "length at most",
    }
    said = [f"{word} {int(schema[key])}" for key, word in words.items() if key in schema]
    said += [f"`{schema['pattern']}`"] if "pattern" in schema else []
    return f" ({', '.join(said)})" if said else ""


def _is_fault(name: str) -> bool:
    return name.removesuffix("Fault") in NAMES.values()


# --- The settings ----------------------------------------------------------------------------------------------------


def settings(options: Mapping[str, Sequence[cfg.Opt]]) -> str:
    """Every setting by group."""
    return "\n".join(
        (
            "# Settings\n",
            MADE,
            "",
            ABOUT_SETTINGS,
            *(line for group, named in options.items() for line in _group(group, named)),
        )
    )


def _group(group: str, options: Iterable[cfg.Opt]) -> Iterator[str]:
    yield f"## [{group}]\n"
    yield "| name | type | default | meaning |\n|---|---|---|---|"
    for one in options:
        default = "" if one.default in (None, []) else f"`{one.default}`"
        secret = " It is a secret." if one.secret else ""
        choices = getattr(one.type, "choices", None)
        told = "; ".join(f"`{name}`: {meaning}" for name, meaning in choices.items()) if choices else ""
        meaning = " ".join(part for part in (_flat(one.help), told) if part)
        yield f"| `{one.name}` | {_cell(_kind(one))} | {default} | {_cell(meaning + secret)} |"
    yield ""


def _kind(option: cfg.Opt) -> str:
    """The type in a few words, without the choices, which are told with their meaning."""
    kind = type(option.type).__name__
    many = "any number of " if option.multi else ""
    bounds = [f"from {low}" for low in [getattr(option.type, "min", None)] if low is not None]
    bounds += [f"to {high}" for high in [getattr(option.type, "max", None)] if high is not None]
    names = {
        "String": "text",
        "MultiString": "text",
        "HostAddress": "host or address",
        "Range": "range",
        "Float": "number",
        "Boolean": "yes or no",
    }
    return f"{many}{names.get(kind, kind.lower())}{' ' + ' '.join(bounds) if bounds else ''}"


# --- The command line ------------------------------------------------------------------------------------------------


def command_line(command: click.Command) -> str:
    """What --help says, of the command and each of its verbs."""
    return "\n".join(("# The command line\n", MADE, "", *_help(command, "redkeep", None)))


def _help(command: click.Command, name: str, parent: click.Context | None) -> Iterator[str]:
    more = {**command.context_settings, "terminal_width": WIDTH, "max_content_width": WIDTH}
    context = click.Context(command, info_name=name, parent=parent, **more)
    yield f"## `{context.command_path}`\n"
    yield f"```\n{command.get_help(context)}\n```\n"
    if isinstance(command, click.Group):
        for verb in command.list_commands(context):
            yield from _help(command.commands[verb], verb, context)


# --- Words -----------------------------------------------------------------------------------------------------------


def _title(tag: str) -> str:
    return tag.capitalize()


def _flat(text: str | None) -> str:
    return re.sub(r"\s+", " ", text or "").strip()


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    main()
