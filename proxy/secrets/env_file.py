"""Files with variables, as ``--env-file`` names them: ``NAME=value``, a line each.

The values are kept beside the environment of this process and not in it, so that no child process
inherits them.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from pathlib import Path

from dotenv.parser import parse_stream

from proxy.errors import ConfigError, Finding
from proxy.secrets.file import read_file
from proxy.secrets.source import SourceError

# Files of other programs have names with dots and hyphens; quotes, $ and colons are of other
# syntaxes.
_NAME = re.compile(r"[\w.-]+")


def read_env_files(paths: Iterable[Path]) -> dict[str, str]:
    """Return the variables of all files; of a name in several files, the last one's. Blocking.

    Values are literal: ``$NAME`` is not expanded. Raises ConfigError, with every finding, for a
    file that cannot be read or has an invalid line, or to which other users have access.
    """
    values: dict[str, str] = {}
    findings: list[Finding] = []
    for path in paths:
        try:
            text = read_file(str(path.absolute())).decode("utf-8-sig")
        except SourceError as error:
            remedy, _, message = str(error).rpartition(": ")
            findings.append(Finding(str(path), 0, 0, message, remedy))
            continue
        except UnicodeDecodeError:
            findings.append(Finding(str(path), 0, 0, "invalid UTF-8", "save the file as UTF-8"))
            continue
        for binding in parse_stream(io.StringIO(text)):
            if binding.error or (
                binding.key is not None
                and (binding.value is None or not _NAME.fullmatch(binding.key))
            ):
                findings.append(
                    Finding(
                        str(path),
                        binding.original.line,
                        1,
                        "invalid line",
                        "write NAME=value; a value with spaces or # in quotes",
                    )
                )
            elif binding.key is not None and binding.value is not None:
                values[binding.key] = binding.value
    if findings:
        raise ConfigError(findings)
    return values
