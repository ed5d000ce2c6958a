"""Settings of the way to providers: an egress proxy, and further certificate authorities."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from proxy.config.fields import Line, Node, checked_by, listed
from proxy.config.secret import AnySecret, SecretSettings
from proxy.errors import ConfigValueError
from proxy.secrets.reference import parse_reference

DIRECT = "direct"
"""Value of ``egress_proxy`` for no proxy, where the whole file has one."""


def _check_url(text: str) -> None:
    """Check the URL of a proxy, or the reference to one."""
    if text == DIRECT:
        return
    if "://" not in text and not re.fullmatch(r"[^:]*:[0-9]*", text):
        try:
            parse_reference(text)
        except ConfigValueError as error:
            raise ConfigValueError(
                error.message, "write http://HOST:PORT, env:HTTPS_PROXY or file:/absolute/path"
            ) from None
        return
    if "@" in text:
        raise ConfigValueError(
            "a password does not belong in this file",
            "write {url: http://HOST:PORT, username: NAME, password: env:NAME}",
        )
    if "://" not in text:
        raise ConfigValueError("the scheme is missing", "write http://HOST:PORT")
    from proxy.upstream.egress_proxy import parse_proxy_url  # loads asyncio, for few files

    parse_proxy_url(text)


def _check_username(text: str) -> None:
    if ":" in text or not text:
        raise ConfigValueError(
            "a user name has at least one character and no colon (RFC 7617 section 2)",
            "write the password as password: env:NAME",
        )


def _check_no_proxy(text: str) -> None:
    if not text or not re.fullmatch(r"[!-~]+", text) or "," in text:
        raise ConfigValueError(
            "invalid host in no_proxy", "write [internal.example, 10.0.0.0/8], or [env:NO_PROXY]"
        )
    if text.startswith("env:"):
        parse_reference(text)
        return
    if "/" in text and (url := re.fullmatch(r"[a-z]+://([^/@]+?)(:[0-9]+)?/?", text)):
        raise ConfigValueError("an entry of no_proxy is a host", f"write {url[1]}")
    if "*" in text and text != "*":
        bare = text.replace("*", "").strip(".")
        raise ConfigValueError(
            "a wildcard in no_proxy matches nothing",
            f"write {bare or 'internal.example'}, which covers its subdomains",
        )
    if port := re.fullmatch(r"([^:]+|\[[^\]]+\]):[0-9]+", text):
        raise ConfigValueError("an entry of no_proxy has no port", f"write {port[1]}")


def _long_form(value: Any) -> Any:
    if value is False:
        raise ConfigValueError("off is read as false here", "write egress_proxy: direct")
    return {"url": value} if isinstance(value, str) else value


class EgressProxySettings(Node):
    """The HTTP proxy through which providers and token endpoints are reached."""

    url: Annotated[str, checked_by(_check_url)] = Field(
        description="`http://HOST:PORT`, or a reference to a URL, such as `env:HTTPS_PROXY`, which "
        "may have a user name and a password in it. `direct` for no proxy. HTTPS and SOCKS proxies "
        "are not supported.",
    )
    username: Annotated[Line, checked_by(_check_username)] | None = Field(
        default=None, description="User name for the proxy. None by default."
    )
    password: AnySecret | None = Field(
        default=None, description="The secret with the password for the proxy. None by default."
    )
    no_proxy: (
        Annotated[
            tuple[Annotated[str, checked_by(_check_no_proxy)], ...],
            BeforeValidator(listed, json_schema_input_type=str | tuple[str, ...]),
        ]
        | None
    ) = Field(
        default=None,
        description="Hosts that are reached without the proxy: names with their subdomains, "
        "addresses, networks as 10.0.0.0/8, `*`, and `env:NO_PROXY`. By default those of NO_PROXY "
        "if `url` is an environment variable, else none. This machine always is.",
    )

    @model_validator(mode="after")
    def _belong_together(self) -> EgressProxySettings:
        if self.url == DIRECT and {"username", "password", "no_proxy"} & self.model_fields_set:
            raise ConfigValueError("direct has no further settings", "remove them")
        if (self.username is None) != (self.password is None):
            raise ConfigValueError(
                "user name and password belong together", "write both, or none of them"
            )
        return self

    @property
    def reference(self) -> SecretSettings | None:
        """The secret with the URL, None if the URL is written out."""
        if self.url == DIRECT or "://" in self.url:
            return None
        return SecretSettings(references=(self.url,))

    @property
    def excluded(self) -> tuple[str, ...]:
        """Entries of ``no_proxy``, with the default."""
        if self.no_proxy is not None:
            return self.no_proxy
        return ("env:NO_PROXY",) if self.url.startswith("env:") else ()

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Add the short form, which ``_long_form`` accepts."""
        long = handler.resolve_ref_schema(handler(core_schema))
        return {
            "description": "The HTTP proxy through which providers are reached.",
            "anyOf": [
                {"type": "string"},
                {key: one for key, one in long.items() if key != "title"},
            ],
        }


AnyEgressProxy = Annotated[EgressProxySettings, BeforeValidator(_long_form)]


def check_ca_file(text: str) -> None:
    """Check the path of a file in PEM; the file is read by the loader."""
    if not text or not text.isprintable():
        raise ConfigValueError("invalid path of a file", "write /etc/ssl/certs/company.pem")
