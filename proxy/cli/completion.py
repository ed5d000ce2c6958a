"""Completion of commands, options and names in the shell."""

from __future__ import annotations

import os
from pathlib import Path

import click
from click.shell_completion import get_completion_class

_SHELLS = ("bash", "fish", "zsh")


@click.command(
    short_help="Print a script for completion in the shell.",
    epilog="""\b
Put one of these where your shell begins:
  eval "$(keyrelay completion bash)"      in ~/.bashrc
  eval "$(keyrelay completion zsh)"       in ~/.zshrc
  keyrelay completion fish | source       in ~/.config/fish/config.fish
""",
)
@click.argument("shell", required=False, type=click.Choice(_SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str | None) -> None:
    """Print a script that completes commands, options, routes and providers.

    SHELL is that of the environment if not given.
    """
    if shell is None:
        shell = Path(os.environ.get("SHELL", "")).name
        if shell not in _SHELLS:
            raise click.UsageError(f"Name your shell: {', '.join(_SHELLS)}.")
    made = get_completion_class(shell)
    assert made is not None, "click has every one of the shells"
    root = ctx.find_root()
    click.echo(made(root.command, {}, "keyrelay", "_KEYRELAY_COMPLETE").source())
