"""``python -m proxy``: the command without an installed script."""

from .cli import main

main(prog_name="keyrelay")
