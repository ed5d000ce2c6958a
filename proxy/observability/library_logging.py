"""Replace log messages of libraries by fixed text: they quote data from clients and servers.

For the admin listener, the demo provider and traces. The data path uses no logging of libraries.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from proxy.http.aiohttp_parser import HttpProcessingError


def types_only(name: str, sentence: str, warn: Callable[[str], object]) -> logging.Logger:
    """Return a logger for one server: ``warn`` receives ``sentence`` and the exception's type.

    The logger is outside the tree of loggers, so that no other handler receives the records.
    """
    logger = logging.Logger(name, logging.WARNING)  # noqa: LOG001  in no tree
    logger.addHandler(_TypesOnly(sentence, warn))
    return logger


def take_over(name: str, sentence: str, warn: Callable[[str], object]) -> None:
    """Do the same for the loggers of a library, ``name`` and below, for the whole process.

    The last call applies. It is never undone: a thread of the library may outlive its user.
    """
    logger = logging.getLogger(name)
    logger.handlers = [_TypesOnly(sentence, warn)]
    logger.setLevel(logging.WARNING)
    logger.propagate = False


class _TypesOnly(logging.Handler):
    """Reports types of exceptions; not invalid requests, a client's error with status 400."""

    def __init__(self, sentence: str, warn: Callable[[str], object]) -> None:
        super().__init__()
        self._sentence = sentence
        self._warn = warn

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, HttpProcessingError):
            what = record.levelname.lower() if error is None else type(error).__name__
            self._warn(f"{self._sentence} ({what})")
