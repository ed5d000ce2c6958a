"""The command line of exec: what is keyrelay's, and what is the command's."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.command import Done, keyrelay


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "Write -- before the command: keyrelay exec hume -- python app.py"),
        (("demo", "true"), "Write -- before the command"),
        (("demo", "--"), "The command is missing behind --."),
        (("--frobnicate", "--", "true"), "No such option"),
        (("humee", "--", "true"), 'did you mean "hume"?'),
        (("acme", "-c", "routes.yaml", "--", "true"), "There is no route acme in routes.yaml"),
        (("-c", "absent.yaml", "--", "true"), "no such file"),
    ],
)
def test_misuse_is_exit_2(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    """Nothing is started."""
    (tmp_path / "routes.yaml").write_text("routes: {demo: {provider: demo}}\n")
    done = keyrelay("exec", *arguments, cwd=tmp_path)
    assert (done.code, done.out) == (2, "")
    assert words in " ".join(done.err.split())


def test_what_follows_the_dashes_is_the_command_word_for_word() -> None:
    """Options, blanks and further dashes are its own, --help included."""
    words = ["-c", "--help", "a  b", "--", "-x", ""]
    done = keyrelay("exec", "demo", "--", "printf", "%s|", *words)
    assert done == Done(0, "|".join([*words, ""]), "")


def test_help_shows_where_the_dashes_go() -> None:
    """It needs no command."""
    done = keyrelay("exec", "--help")
    assert done.code == 0
    assert done.out.startswith(
        "Usage: keyrelay exec [OPTIONS] [FILE] [PROVIDER]... -- COMMAND [ARGUMENT]...\n"
    )
    assert "  keyrelay exec hume -- python app.py\n" in done.out
