"""The command `redkeep`. Each verb says with --help what it does; this module only puts things together."""

from __future__ import annotations

import asyncio
import importlib
import logging
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import click

from redkeep import __version__
from redkeep.config import Config, default_state_dir, load
from redkeep.errors import RedkeepError

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


def settings_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What every verb that reads the settings takes."""
    for option in (
        click.option("--verbose", "-v", is_flag=True, help="Say more of what happens."),
        click.option("--config-file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Settings."),
        click.option(
            "--state-dir",
            type=click.Path(file_okay=False, path_type=Path),
            default=default_state_dir,
            show_default="$XDG_STATE_HOME/redkeep or ~/.local/state/redkeep",
            help="Where Redkeep keeps everything.",
        ),
    ):
        command = option(command)
    return command


@click.group(context_settings=CONTEXT)
@click.version_option(__version__, prog_name="redkeep")
def main() -> None:
    """A managed Redis for your own machines.

    `redkeep up` runs all of it on this machine. Beyond one machine run `redkeep api`, any number of `redkeep manager`,
    and one `redkeep agent` per host, with a PostgreSQL and a Redis that all of them reach.
    """


@main.command()
@settings_options
@click.option("--port", type=click.IntRange(1, 65535), help="Port of the REST API.  [default: 8779]")
@click.option("--northbound-port", type=click.IntRange(1, 65535), help="Port of the control Redis.  [default: 8778]")
@click.option("--auth", type=click.Choice(["basic", "noauth"]), help="How callers are known.  [default: basic]")
def up(
    state_dir: Path,
    config_file: Path | None,
    verbose: bool,
    port: int | None,
    northbound_port: int | None,
    auth: str | None,
) -> None:
    """Run Redkeep in the foreground: API, manager, agent and a control Redis.

    The first start makes an administrator with a password, and writes clouds.yaml and openrc for the stock clients into
    the state directory. Stop it with Ctrl-C: the Redis servers go on, and the next start finds them as they were.
    """
    from redkeep.up import up as serve  # noqa: PLC0415 (a verb loads what it needs, so that --help is quick)

    overrides = (("api", "port", port), ("northbound", "port", northbound_port), ("api", "auth", auth))
    config = _load(state_dir, config_file, verbose, overrides)
    arguments = [
        *("--state-dir", str(config.state_dir)),
        *(("--config-file", str(config_file)) if config_file else ()),
        *(("--verbose",) if verbose else ()),
        *("--override", f"api.port={config.listen.port}"),
        *("--override", f"api.auth={config.api.auth}"),
        *("--override", f"northbound.port={config.northbound_port}"),
    ]
    _run(serve(config, arguments))


@main.command()
@settings_options
def init(state_dir: Path, config_file: Path | None, verbose: bool) -> None:
    """Make the key and the administrator, for services that run apart from each other.

    `redkeep up` does the same at its first start. Copy secret.key to every machine of the installation, and htpasswd to
    those with an API. Saying it again changes nothing.
    """
    from redkeep.bootstrap import first_start  # noqa: PLC0415
    from redkeep.vault import Vault  # noqa: PLC0415

    config = _load(state_dir, config_file, verbose)
    config.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        password = first_start(config, Vault.open(config.key_file))
    except RedkeepError as error:
        raise click.ClickException(str(error)) from None
    if password:
        click.echo(f"Administrator: {config.api.admin_user}, password: {password} (shown this once).")
    click.echo(f"The key is {config.key_file}; clouds.yaml and openrc are beside it.")


def service(name: str, summary: str) -> None:
    """Make the verb that runs one service."""

    @main.command(name, help=summary)
    @settings_options
    @click.option("--override", multiple=True, metavar="GROUP.OPTION=VALUE", help="One setting, before the file's.")
    def run(state_dir: Path, config_file: Path | None, verbose: bool, override: tuple[str, ...]) -> None:
        config = _load(state_dir, config_file, verbose, [_parse_override(text) for text in override])
        module = importlib.import_module(f"redkeep.services.{name}")  # only what it needs: it starts in half the time
        _run(module.run(config))


service("api", "Run the REST API: it records what is asked for, and never acts.")
service("manager", "Run a manager: it looks, decides and acts under leases. Any number may run.")
service("agent", "Run the agent of this host: it owns the redis-server processes and their files.")


@main.command()
@settings_options
@click.option("--json", "as_json", is_flag=True, help="Print the facts as JSON.")
def status(state_dir: Path, config_file: Path | None, verbose: bool, as_json: bool) -> None:
    """Show all instances: role, lag, health. Exit status 1 when something is not well."""
    from redkeep.status import fetch, render  # noqa: PLC0415

    config = _load(state_dir, config_file, verbose)
    found = _run(fetch(config))
    click.echo(render(found, as_json=as_json))
    sys.exit(0 if found.well else 1)


@main.command()
@settings_options
@click.option("--to", "target", metavar="SITE", help="A `backend_id`, or `default`.  [default: the only other site]")
@click.option("--dry-run", is_flag=True, help="Change nothing: say of each instance whether it would survive.")
@click.option(
    "--forced/--in-order", default=None, help="Do not ask the old site, or lose nothing.  [default: as it is]"
)
@click.option("--json", "as_json", is_flag=True, help="Print the facts as JSON.")
def failover(
    state_dir: Path,
    config_file: Path | None,
    verbose: bool,
    target: str | None,
    dry_run: bool,
    forced: bool | None,
    as_json: bool,
) -> None:
    """Fail the backend over to another site, and watch until every manager has followed.

    With --dry-run nobody moves, and the exit status is 1 when an instance would not survive.
    """
    from redkeep.failover import fail_over, rehearse  # noqa: PLC0415

    config = _load(state_dir, config_file, verbose)
    text, well = _run(
        rehearse(config, target, as_json=as_json)
        if dry_run
        else fail_over(config, target, forced=forced, as_json=as_json, say=lambda line: click.echo(line, err=True))
    )
    click.echo(text)
    sys.exit(0 if well else 1)


@main.command()
@settings_options
def doctor(state_dir: Path, config_file: Path | None, verbose: bool) -> None:
    """Say what is missing on this machine, and how to get it. Exit status 1 when Redkeep cannot run."""
    from redkeep.doctor import examine  # noqa: PLC0415

    findings = examine(_load(state_dir, config_file, verbose))
    for one in findings:
        mark = (
            click.style("ok  ", fg="green") if one.fine else click.style("FAIL" if one.fatal else "hint", fg="yellow")
        )
        click.echo(f"{mark}  {one.what}: {one.found}{f' -> {one.way_out}' if one.way_out else ''}")
    sys.exit(1 if any(one.fatal for one in findings) else 0)


@main.command()
@click.option("--keep", is_flag=True, help="Leave the state directory behind.")
@click.option("--sites", is_flag=True, help="Show two sites and three managers instead: failover and back, under load.")
@click.option("--instances", type=click.IntRange(1, 200), default=50, help="With --sites: how many.  [default: 50]")
def demo(keep: bool, sites: bool, instances: int) -> None:
    """Show the main job on real servers: replicate, promote, kill, restart; with figures. Takes about a minute."""
    if sites:
        from redkeep.demo_sites import run as run_sites  # noqa: PLC0415

        sys.exit(_run(run_sites(instances=instances)))
    from redkeep.demo import run  # noqa: PLC0415

    sys.exit(_run(run(keep=keep)))


def _load(state_dir: Path, config_file: Path | None, verbose: bool, overrides: Any = ()) -> Config:
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        return load(state_dir, config_file, overrides)
    except RedkeepError as error:
        raise click.ClickException(str(error)) from None


def _parse_override(text: str) -> tuple[str, str, str]:
    name, equals, value = text.partition("=")
    group, dot, option = name.partition(".")
    if not (equals and dot):
        raise click.BadParameter(f"{text!r} is not GROUP.OPTION=VALUE", param_hint="--override")
    return group, option, value


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    """Run to the end; what Redkeep raises on purpose is told in one line."""
    try:
        return asyncio.run(work)
    except RedkeepError as error:
        raise click.ClickException(str(error)) from None
    except KeyboardInterrupt:
        sys.exit(130)
