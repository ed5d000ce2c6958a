"""``keyrelay help``; with files beside it: tests.cli.test_found_file."""

from __future__ import annotations

from click.testing import CliRunner

from proxy.cli.main import main


def test_every_command_has_the_help_of_its_option() -> None:
    """``help NAME`` and ``NAME --help`` print the same."""
    runner = CliRunner()
    listed = runner.invoke(main, ["help"])
    assert listed.output == runner.invoke(main, ["--help"]).output
    for name in main.commands:
        helped = runner.invoke(main, ["help", name])
        assert (helped.exit_code, helped.output) == (
            0,
            runner.invoke(main, [name, "--help"]).output,
        )


def test_an_unknown_command_gets_a_suggestion() -> None:
    """And the exit status of wrong usage."""
    done = CliRunner().invoke(main, ["help", "explian"])
    assert done.exit_code == 2
    assert "explain" in done.output
