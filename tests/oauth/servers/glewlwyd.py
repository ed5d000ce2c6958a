"""Glewlwyd as Debian packages it, with sqlite, behind the paths that every server of the tests has.

``plugin`` of the settings is ``oidc`` or ``oauth2``; ``root`` is where the packages were unpacked.
Requests and responses of the token endpoint pass as they are.
"""

from __future__ import annotations

import atexit
import base64
import gzip
import json
import os
import socket
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import requests
from harness import Start, serve, settings

ROOT = Path(settings["root"])
PLUGIN = settings["plugin"]
SHARE = ROOT / "usr/share"
FOLDER = Path(tempfile.mkdtemp(prefix="keyrelay-oauth-"))
SCOPE = "api:read"
_secrets: dict[str, str] = {}
# Access tokens, and the clients that they were issued to.
_owners: dict[str, str] = {}
_http = requests.Session()
_http.trust_env = False

CONFIGURATION = """
port={port}
bind_address="127.0.0.1"
external_url="http://127.0.0.1:{port}"
login_url="login.html"
api_prefix="api"
static_files_path="{share}/glewlwyd/webapp/"
log_mode="console"
log_level="ERROR"
cookie_domain="127.0.0.1"
cookie_secure=0
session_expiration=2419200
session_key="GLEWLWYD2_SESSION_ID"
admin_scope="g_admin"
profile_scope="g_profile"
user_module_path="{lib}/user"
user_middleware_module_path="{lib}/user_middleware"
client_module_path="{lib}/client"
user_auth_scheme_module_path="{lib}/scheme"
plugin_module_path="{lib}/plugin"
hash_algorithm="SHA512"
database = {{ type = "sqlite3"; path = "{folder}/glewlwyd.db" }};
"""

COMMON = {
    "jwt-type": "sha",
    "jwt-key-size": "256",
    "key": "dummy-signing-key-of-the-test-server",
    "access-token-duration": settings["lifetime"],
    "refresh-token-duration": 86400,
    "code-duration": 600,
    "refresh-token-rolling": True,
    "auth-type-code-enabled": False,
    "auth-type-implicit-enabled": False,
    "auth-type-password-enabled": True,
    "auth-type-client-enabled": True,
    "auth-type-refresh-enabled": True,
    "introspection-revocation-allowed": True,
    "introspection-revocation-allow-target-client": True,
}
OIDC = {
    "iss": "http://127.0.0.1",
    "allow-non-oidc": True,
    "auth-type-token-enabled": False,
    "auth-type-id-token-enabled": True,
    "auth-type-none-enabled": False,
    "subject-type": "public",
    "name-claim": "no",
    "email-claim": "no",
    "scope-claim": "no",
    "address-claim": {"type": "no"},
    "refresh-token-one-use": "always",
    "resource-allowed": True,
    "resource-scope": {SCOPE: ["https://api.test.example"]},
    "request-parameter-allow": True,
    "client-pubkey-parameter": "pubkey",
    "client-jwks-parameter": "jwks",
}


def start() -> str:
    """Run glewlwyd; the base URL of its API."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    schema = gzip.decompress((SHARE / "doc/glewlwyd/database/init.sqlite3.sql.gz").read_bytes())
    with sqlite3.connect(FOLDER / "glewlwyd.db") as database:
        database.executescript(schema.decode())
    configuration = FOLDER / "glewlwyd.conf"
    lib = ROOT / "usr/lib/glewlwyd"
    configuration.write_text(CONFIGURATION.format(port=port, share=SHARE, lib=lib, folder=FOLDER))
    libraries = ":".join(str(one) for one in ROOT.glob("usr/lib/*-linux-gnu*"))
    process = subprocess.Popen(
        [ROOT / "usr/bin/glewlwyd", f"--config-file={configuration}"],
        env={**os.environ, "LD_LIBRARY_PATH": libraries},
        stdout=subprocess.DEVNULL,
    )
    atexit.register(process.kill)
    base = f"http://127.0.0.1:{port}/api"
    for _ in range(300):
        try:
            _http.get(f"{base}/scope/", timeout=60)
        except requests.ConnectionError:
            time.sleep(0.1)
        else:
            return base
    raise SystemExit("glewlwyd does not listen")


def send(method: str, path: str, document: Any) -> None:
    """A call of the administration's API."""
    answer = _http.request(method, f"{BASE}{path}", json=document, timeout=60)
    if answer.status_code != 200:
        raise SystemExit(f"glewlwyd: {method} {path}: {answer.status_code} {answer.text}")


def application(environ: dict[str, Any], begin: Start) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    length = int(environ.get("CONTENT_LENGTH") or 0)
    body = environ["wsgi.input"].read(length) if length else b""
    if path.startswith("/api/"):
        token = environ.get("HTTP_AUTHORIZATION", "").partition(" ")[2]
        if not _active(token):
            begin("401 Unauthorized", [("WWW-Authenticate", 'Bearer error="invalid_token"')])
            return [b""]
        begin("200 OK", [("Content-Type", "application/json")])
        return [json.dumps({"length": len(body)}).encode()]
    headers = {"Content-Type": environ.get("CONTENT_TYPE", "")}
    if "HTTP_AUTHORIZATION" in environ:
        headers["Authorization"] = environ["HTTP_AUTHORIZATION"]
    answer = requests.post(f"{BASE}/app{path}", data=body, headers=headers, timeout=60)
    if path == "/token" and answer.status_code == 200:
        _owners[answer.json()["access_token"]] = _caller(environ, body)
    begin(
        f"{answer.status_code} {answer.reason}",
        [(name, answer.headers[name]) for name in ("Content-Type",) if name in answer.headers],
    )
    return [answer.content]


def _caller(environ: dict[str, Any], body: bytes) -> str:
    """The client that a token call is from."""
    basic = environ.get("HTTP_AUTHORIZATION", "").removeprefix("Basic ")
    if basic:
        return base64.b64decode(basic).decode().partition(":")[0]
    form = parse_qs(body.decode())
    if "client_assertion" in form:
        payload = form["client_assertion"][0].split(".")[1]
        return str(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["iss"])
    return form["client_id"][0]


def _active(token: str) -> bool:
    """By introspection, which answers only the client that a token was issued to."""
    owner = _owners.get(token, "")
    if owner not in _secrets:
        return False
    answer = requests.post(
        f"{BASE}/app/introspect",
        data={"token": token},
        auth=(owner, _secrets[owner]),
        timeout=60,
    )
    return answer.status_code == 200 and answer.json()["active"] is True


def client(id: str, secret: str = "", jwks: Any = None, method: str = "") -> None:  # noqa: A002
    document: dict[str, Any] = {
        "client_id": id,
        "name": id,
        "enabled": True,
        "confidential": True,
        "client_secret": secret,
        "scope": [SCOPE],
        "authorization_type": ["client_credentials", "password", "refresh_token"],
        "token_endpoint_auth_method": ["client_secret_basic", "client_secret_post"],
    }
    if jwks is not None:
        methods = [method, "client_secret_basic"]  # the latter for introspection
        document |= {"jwks": jwks, "token_endpoint_auth_method": methods}
    send("POST", "/client/", document)
    _secrets[id] = secret


def secret(id: str, secret: str) -> None:  # noqa: A002  the name in the JSON
    document = _http.get(f"{BASE}/client/{id}", timeout=60).json()
    send("PUT", f"/client/{id}", {**document, "client_secret": secret})
    _secrets[id] = secret


def grant(id: str) -> dict[str, Any]:  # noqa: A002  the name in the JSON
    form = {"grant_type": "password", "username": "user", "password": "dummy-password"}
    answer = requests.post(
        f"{BASE}/app/token", data={**form, "scope": SCOPE}, auth=(id, _secrets[id]), timeout=60
    )
    return {"refresh_token": answer.json()["refresh_token"]}


def forget() -> None:
    with sqlite3.connect(FOLDER / "glewlwyd.db", timeout=60) as database:
        for table in ("gpo_refresh_token", "gpo_access_token", "gpg_refresh_token"):
            database.execute(f"UPDATE {table} SET {_ENABLED[table]} = 0")


_ENABLED = {
    "gpo_refresh_token": "gpor_enabled",
    "gpo_access_token": "gpoa_enabled",
    "gpg_refresh_token": "gpgr_enabled",
}

if __name__ == "__main__":
    BASE = start()
    _http.post(f"{BASE}/auth/", json={"username": "admin", "password": "password"}, timeout=60)
    send("POST", "/scope/", {"name": SCOPE, "display_name": SCOPE, "password_required": True})
    send(
        "POST",
        "/user/",
        {"username": "user", "password": "dummy-password", "scope": [SCOPE], "enabled": True},
    )
    send(
        "POST",
        "/mod/plugin/",
        {
            "module": "oidc" if PLUGIN == "oidc" else "oauth2-glewlwyd",
            "name": "app",
            "display_name": "app",
            "parameters": {**COMMON, **(OIDC if PLUGIN == "oidc" else {})},
        },
    )
    serve(
        application,
        {"client": client, "secret": secret, "grant": grant, "forget": forget},
    )
