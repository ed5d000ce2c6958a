"""Grammar shared by several modules, as parts of regular expressions.

Upper-case names follow the rules of the RFCs. Those that end in ``_CHARS`` are the inside of a
character class: ``[{NAME_CHARS}]+``, with further characters before them, since a ``-`` ends them.
Bytes patterns use their ``encode()``.
"""

from __future__ import annotations

import re
from typing import Final

# RFC 9110 section 5.6.2: tchar, the characters of a token.
NAME_CHARS: Final = r"!#$%&'*+.^_`|~0-9A-Za-z-"

TOKEN = re.compile(rf"[{NAME_CHARS}]+")
"""A token, such as a field name or a method (RFC 9110 section 5.6.2)."""

# RFC 9110 section 5.5: field-content, with the tab and the space within it.
FIELD_CHARS: Final = r"\t\x20-\x7e\x80-\xff"

FIELD_VALUE = re.compile(rf"[{FIELD_CHARS}]*".encode())
"""A field value; any other byte would end the field line or be rejected."""

# RFC 5234 appendix B.1: VCHAR, visible ASCII.
VISIBLE_CHARS: Final = r"\x21-\x7e"

# RFC 3986 section 3.3: pchar without percent escapes.
PATH_CHARS: Final = r"A-Za-z0-9._~!$&'()*+,;=:@-"

# RFC 3986 appendix B: authority, as delimited in any URI.
AUTHORITY: Final = r"[^/?#]*"

METHOD = re.compile(r"[A-Z][A-Z-]{0,31}")
"""A request method as configured: registered methods are upper case (RFC 9110 section 16.1.1)."""

PORT = re.compile(r"[0-9]{1,5}")
"""Digits of a port; the range is checked by the caller."""
