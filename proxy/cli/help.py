"""The command that shows the help of the others."""

from __future__ import annotations

import click

from proxy.config.document import display_key
from proxy.config.unknown_keys import suggest


def _complete_commands(
    ctx: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[str]:
    return [name for name in _group(ctx).list_commands(ctx) if name.startswith(incomplete)]


@click.command("help", short_help="Show the help of a command, or list all.")
@click.argument("command", required=False, shell_complete=_complete_commands)
@click.pass_context
def show_help(ctx: click.Context, command: str | None) -> None:
    """Show what a command does, or list all of them. The same as COMMAND --help."""
    above = ctx.find_root()
    if command is None:
        click.echo(above.get_help())
        return
    group = _group(ctx)
    found = group.get_command(above, command)
    if found is None:
        advice = suggest(command, group.list_commands(above))
        raise click.UsageError(f"There is no command {display_key(command)}; {advice}")
    click.echo(found.get_help(click.Context(found, above, command)))


def _group(ctx: click.Context) -> click.Group:
    group = ctx.find_root().command
    assert isinstance(group, click.Group), "the command belongs to a group"
    return group
