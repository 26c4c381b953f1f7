"""The command `tinydancer`. Each command's module is imported when the command is called."""

from __future__ import annotations

import importlib
import os
import sys

import click

from tinydancer import __version__
from tinydancer.errors import TinyDancerError

# Command → its module and its function there, in the order of the help.
COMMANDS = {
    "up": "local:up",
    "down": "local:down",
    "status": "local:status",
    "dsn": "local:dsn",
    "psql": "local:psql",
    "demo": "demo:demo",
    "install": "database:install",
    "upgrade": "database:upgrade",
    "reembed": "database:reembed",
    "fit-cascade": "database:fit_cascade",
    "build-native": "database:build_native",
    "serve": "engine:serve",
    "ping": "engine:ping",
    "models": "models:models",
    "eval": "evaluate:evaluate",
}


class _Commands(click.Group):
    """Finds commands by name, so that one does not pay for the imports of all."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, function = COMMANDS[cmd_name].split(":")
        command: click.Command = getattr(
            importlib.import_module(f"tinydancer.cli.{module}"), function
        )
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tinydancer")
def tinydancer() -> None:
    """Route requests to AI agents, in SQL.

    `tinydancer demo` shows it on a database of its own. `tinydancer up` starts a PostgreSQL and
    an engine that stay; `tinydancer install` puts it into a PostgreSQL that you have.
    """


def main() -> None:
    """Run the command; a failure is a message and a hint, and exit code 1 (2 for wrong usage)."""
    if os.geteuid() == 0:
        # What root fetches, the system user who runs the engine has to read.
        os.environ.setdefault("XDG_CACHE_HOME", "/var/cache")
    try:
        sys.exit(tinydancer.main(prog_name="tinydancer", standalone_mode=False))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(141)
    except TinyDancerError as error:
        _fail(error.message, error.detail, error.hint)
    except OSError as error:
        if error.filename is None:
            raise
        _fail(f"{error.filename}: {error.strerror}", "", "")
    except Exception as error:
        psycopg = sys.modules.get("psycopg")
        if psycopg is None or not isinstance(error, psycopg.Error):
            raise
        diagnosis = error.diag
        _fail(
            (diagnosis.message_primary or str(error)).strip(),
            diagnosis.message_detail or "",
            diagnosis.message_hint or "",
        )


def _fail(message: str, detail: str, hint: str) -> None:
    click.secho("Error: ", fg="red", bold=True, nl=False, err=True)
    click.echo(message, err=True)
    if detail:
        click.echo("\n".join(f"  {line}" for line in detail.splitlines()), err=True)
    if hint:
        click.secho("Hint: ", fg="cyan", bold=True, nl=False, err=True)
        click.echo(hint, err=True)
    sys.exit(1)
