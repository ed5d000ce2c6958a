"""The command for the local authority of TLS listeners."""

from __future__ import annotations

import shlex
import time
from pathlib import Path

import click

from proxy.clock import format_span

_TRUST = """\
Keyrelay issues the certificates of its TLS listeners (listen: https://127.0.0.1:8443) by it. It can
certify localhost, names below it and loopback addresses, and nothing else. No program trusts it by
itself; point those to it that are to use https://localhost:8443:

  curl                  curl --cacert {path} https://localhost:8443/-/health
  Node                  NODE_EXTRA_CA_CERTS={path}
  Python, OpenSSL, Go   SSL_CERT_FILE={path}
  requests              REQUESTS_CA_BUNDLE={path}
  Chromium on Linux     certutil -d sql:$HOME/.pki/nssdb -A -t C,, -n keyrelay -i {path}
  Firefox               Settings, Certificates, View, Authorities, Import; or policies.json:
                        {{"policies": {{"Certificates": {{"Install": ["{path}"]}}}}}}

SSL_CERT_FILE and REQUESTS_CA_BUNDLE take the place of the system's authorities. For a program that
calls other hosts as well, let them name a file with both: keyrelay ca --bundle > bundle.pem"""


@click.command(
    short_help="Make the authority for TLS on loopback.",
    epilog="""\b
Examples:
  keyrelay ca                       make it, or show where it is
  curl --cacert "$(keyrelay ca --path)" https://localhost:8443/-/health
  keyrelay ca --bundle > bundle.pem
""",
)
@click.option("--path", is_flag=True, help="Print the path of its certificate, and nothing else.")
@click.option(
    "--bundle", is_flag=True, help="Print its certificate and the system's authorities, in PEM."
)
@click.option("--renew", is_flag=True, help="Replace it. Tools then have to trust the new one.")
def ca(path: bool, bundle: bool, renew: bool) -> None:
    """Make the certificate authority of TLS listeners, unless there is one, and show how to trust
    it.

    Its certificate and key are in the user's data directory ($XDG_DATA_HOME/keyrelay, else
    ~/.local/share/keyrelay), for you alone. Nothing is installed anywhere.
    """
    from proxy.secrets import local_authority
    from proxy.upstream.authorities import system_authorities

    if path + bundle + renew > 1:
        raise click.UsageError("Choose one of --path, --bundle and --renew.")
    made = renew or not local_authority.exists()
    if made:
        local_authority.create(time.time(), replace=renew)
    authority, file = local_authority.load(), local_authority.certificate_file()
    if path:
        click.echo(file)
    elif bundle:
        click.echo(authority.certificate.decode("ascii").rstrip("\n"))
        click.echo(system_authorities().rstrip("\n"))
    else:
        left = format_span(authority.expires - time.time())
        click.echo(f"{'Made' if made else 'There is'} {file}, valid for {left}.")
        click.echo(_TRUST.format(path=_quoted(file)))


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
