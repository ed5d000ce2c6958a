"""``keyrelay ca``: the authority is made once, shown, and put into a bundle."""

from __future__ import annotations

import ssl
from pathlib import Path

from tests.support.command import keyrelay

PEM = "-----BEGIN CERTIFICATE-----"


def test_it_is_made_once_and_shown(tmp_path: Path) -> None:
    """The first call makes it, the next shows the same; the instructions name its file."""
    variables = {"XDG_DATA_HOME": str(tmp_path)}
    made = keyrelay("ca", variables=variables)
    file = tmp_path / "keyrelay" / "ca.pem"
    assert (made.code, made.err) == (0, "")
    assert made.out.startswith(f"Made {file}, valid for ")
    for word in ("curl --cacert", "NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
        assert word in made.out
    content = file.read_bytes()
    assert keyrelay("ca", variables=variables).out.startswith(f"There is {file}, ")
    assert keyrelay("ca", "--path", variables=variables).out == f"{file}\n"
    assert file.read_bytes() == content
    assert keyrelay("ca", "--renew", variables=variables).out.startswith(f"Made {file}, ")
    assert file.read_bytes() != content


def test_the_bundle_has_the_system_s_authorities(tmp_path: Path) -> None:
    """A program that is given it trusts keyrelay and everything that it trusted before."""
    variables = {"XDG_DATA_HOME": str(tmp_path)}
    done = keyrelay("ca", "--bundle", variables=variables)
    own = (tmp_path / "keyrelay" / "ca.pem").read_text()
    assert done.out.startswith(own)
    context = ssl.create_default_context()
    assert done.out.count(PEM) >= 1 + len(context.get_ca_certs())
    ssl.create_default_context(cadata=done.out)


def test_one_option_at_a_time(tmp_path: Path) -> None:
    """Usage error, and nothing is made."""
    done = keyrelay("ca", "--path", "--bundle", variables={"XDG_DATA_HOME": str(tmp_path)})
    assert done.code == 2
    assert not [*tmp_path.iterdir()]


def test_check_and_doctor_show_whether_a_certificate_is_there(tmp_path: Path) -> None:
    """Without the authority both name the command; with it doctor lists the certified names."""
    file = tmp_path / "routes.yaml"
    file.write_text("listen: https://127.0.0.1:8443\nroutes: {demo: {provider: demo}}\n")
    variables = {"XDG_DATA_HOME": str(tmp_path)}
    checked = keyrelay("check", "--strict", str(file), variables=variables)
    assert (checked.code, "keyrelay ca" in checked.err) == (1, True)
    assert "keyrelay ca" in keyrelay("doctor", "-c", str(file), variables=variables).out
    keyrelay("ca", variables=variables)
    assert keyrelay("check", "--strict", str(file), variables=variables).code == 0
    shown = keyrelay("doctor", "-c", str(file), variables=variables).out
    assert "demo.localhost" in shown
