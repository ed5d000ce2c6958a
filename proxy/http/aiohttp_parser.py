"""aiohttp's parsers, imported without the client and server around them.

Those are nine tenths of the package, and of its share of a start's time and memory. The data path
needs the parsers alone; the rest of aiohttp is imported when something else of it is first used.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
from types import ModuleType
from typing import Any

_LOCK = threading.RLock()


def _import_parsers() -> None:
    """Import ``aiohttp.http_parser`` below a package whose own module has not been executed."""
    spec = importlib.util.find_spec("aiohttp")
    if "aiohttp" in sys.modules or spec is None:
        return
    package = importlib.util.module_from_spec(spec)
    sys.modules["aiohttp"] = package
    try:
        importlib.import_module("aiohttp.http_parser")
    except ImportError:
        # It needs more of its package than today: import everything, as usual.
        for name in [name for name in sys.modules if name.split(".")[0] == "aiohttp"]:
            del sys.modules[name]
    else:
        _complete_on_use(package)


def _complete_on_use(package: ModuleType) -> None:
    """Execute the package's own module as soon as an attribute is read that it does not have yet.

    ``__path__`` is such an attribute: the import of another submodule begins with reading it.
    """
    attributes = vars(package)
    path = attributes.pop("__path__")
    begun = False

    def complete(name: str) -> Any:
        nonlocal begun
        # Another thread waits for the end; this one asks meanwhile for what is not there yet.
        with _LOCK:
            if not begun:
                begun = True
                attributes["__path__"] = path
                assert package.__spec__ is not None, "find_spec made it"
                assert package.__spec__.loader is not None, "a regular package has a loader"
                package.__spec__.loader.exec_module(package)
                del attributes["__getattr__"]
            if name not in attributes:
                raise AttributeError(f"module 'aiohttp' has no attribute {name!r}", name=name)
            return attributes[name]

    attributes["__getattr__"] = complete


_import_parsers()

from aiohttp.http_exceptions import (  # noqa: E402  behind the import that is their purpose
    BadHttpMethod,
    HttpProcessingError,
    InvalidURLError,
    LineTooLong,
)
from aiohttp.http_parser import HttpRequestParser, HttpResponseParser  # noqa: E402

__all__ = [
    "BadHttpMethod",
    "HttpProcessingError",
    "HttpRequestParser",
    "HttpResponseParser",
    "InvalidURLError",
    "LineTooLong",
]
