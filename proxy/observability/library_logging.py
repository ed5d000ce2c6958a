"""What libraries have to say, without their words: those quote what came from elsewhere.

Only for the admin listener, the demo provider and traces. The data path has nothing of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from aiohttp.http_exceptions import HttpProcessingError


def types_only(name: str, sentence: str, warn: Callable[[str], object]) -> logging.Logger:
    """A logger for one server. ``warn`` gets ``sentence`` and of which type a failure was.

    It is in no tree of loggers, so nobody else gets what would be said.
    """
    logger = logging.Logger(name, logging.WARNING)  # noqa: LOG001  in no tree
    logger.addHandler(_TypesOnly(sentence, warn))
    return logger


def take_over(name: str, sentence: str, warn: Callable[[str], object]) -> None:
    """The same for all loggers of a library, which it names ``name`` and below, for good.

    They stay taken over, by whoever came last: a thread of the library's may outlive its user.
    """
    logger = logging.getLogger(name)
    logger.handlers = [_TypesOnly(sentence, warn)]
    logger.setLevel(logging.WARNING)
    logger.propagate = False


class _TypesOnly(logging.Handler):
    """A request that is none is the client's failure and answered with 400: nothing is said."""

    def __init__(self, sentence: str, warn: Callable[[str], object]) -> None:
        super().__init__()
        self._sentence = sentence
        self._warn = warn

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, HttpProcessingError):
            what = record.levelname.lower() if error is None else type(error).__name__
            self._warn(f"{self._sentence} ({what})")
