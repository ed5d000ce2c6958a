"""Authlib's Flask integration, with in-memory models that revoke a record as a whole."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from typing import Any

from authlib.integrations.flask_oauth2 import AuthorizationServer, ResourceProtector
from authlib.oauth2.rfc6749 import ClientMixin, TokenMixin, grants
from authlib.oauth2.rfc6750 import BearerTokenValidator
from authlib.oauth2.rfc7009 import RevocationEndpoint
from authlib.oauth2.rfc7523 import JWTBearerClientAssertion, JWTBearerGrant
from flask import Flask, jsonify, request
from harness import serve, settings
from joserfc.jwk import KeySet

LIFETIME = settings["lifetime"]
app = Flask(__name__)
clients: dict[str, Client] = {}
tokens: list[Token] = []


@dataclass
class Client(ClientMixin):
    client_id: str
    client_secret: str
    method: str
    jwks: dict[str, Any] | None = None

    def get_client_id(self) -> str:
        return self.client_id

    def get_default_redirect_uri(self) -> str:
        return ""

    def get_allowed_scope(self, scope: str) -> str:
        return " ".join(one for one in (scope or "").split() if one == "api:read")

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        return False

    def check_client_secret(self, client_secret: str) -> bool:
        return secrets.compare_digest(self.client_secret, client_secret)

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        wanted = {
            "private_key_jwt": {"client_assertion_jwt"},
            "client_secret_jwt": {"client_assertion_jwt"},
        }
        return method in wanted.get(self.method, {"client_secret_basic", "client_secret_post"})

    def check_response_type(self, response_type: str) -> bool:
        return False

    def check_grant_type(self, grant_type: str) -> bool:
        return True


@dataclass
class Token(TokenMixin):
    client: Client
    access_token: str
    scope: str
    refresh_token: str = ""
    expires_in: int = LIFETIME
    issued_at: float = field(default_factory=time.time)
    revoked: bool = False

    def check_client(self, client: Client) -> bool:
        return client.client_id == self.client.client_id

    def get_scope(self) -> str:
        return self.scope

    def get_expires_in(self) -> int:
        return self.expires_in

    def is_expired(self) -> bool:
        return time.time() > self.issued_at + self.expires_in

    def is_revoked(self) -> bool:
        return self.revoked

    def get_user(self) -> Any:
        return "user"

    def get_client(self) -> Client:
        return self.client


class RefreshGrant(grants.RefreshTokenGrant):
    TOKEN_ENDPOINT_AUTH_METHODS = (
        "client_secret_basic",
        "client_secret_post",
        "client_assertion_jwt",
    )
    INCLUDE_NEW_REFRESH_TOKEN = True

    def authenticate_refresh_token(self, refresh_token: str) -> Token | None:
        found = [one for one in tokens if one.refresh_token == refresh_token and not one.revoked]
        return found[0] if found else None

    def authenticate_user(self, refresh_token: Token) -> Any:
        return "user"

    def revoke_old_credential(self, refresh_token: Token) -> None:
        refresh_token.revoked = True


class ClientGrant(grants.ClientCredentialsGrant):
    TOKEN_ENDPOINT_AUTH_METHODS = RefreshGrant.TOKEN_ENDPOINT_AUTH_METHODS


class AssertionGrant(JWTBearerGrant):
    def resolve_issuer_client(self, issuer: str) -> Client:
        return clients[issuer]

    def resolve_client_key(self, client: Client, headers: Any, payload: Any) -> Any:
        return KeySet.import_key_set(client.jwks)

    def authenticate_user(self, subject: str) -> Any:
        return "user"

    def has_granted_permission(self, client: Client, user: Any) -> bool:
        return True


class Assertion(JWTBearerClientAssertion):
    def __init__(self, token_url: str) -> None:
        super().__init__(token_url, validate_jti=True)
        self.seen: set[str] = set()

    def validate_jti(self, claims: dict[str, Any], jti: str) -> bool:
        fresh = jti not in self.seen
        self.seen.add(jti)
        return fresh

    def resolve_client_public_key(self, client: Client, headers: Any = None) -> Any:
        if client.jwks is None:
            return client.client_secret
        return KeySet.import_key_set(client.jwks)


class Revocation(RevocationEndpoint):
    def query_token(self, token_string: str, token_type_hint: str | None) -> Token | None:
        found = [one for one in tokens if token_string in (one.access_token, one.refresh_token)]
        return found[0] if found else None

    def revoke_token(self, token: Token, request: Any) -> None:
        token.revoked = True


class Validator(BearerTokenValidator):
    def authenticate_token(self, token_string: str) -> Token | None:
        return next((one for one in tokens if one.access_token == token_string), None)


def save(token: dict[str, Any], request: Any) -> None:
    tokens.append(
        Token(
            request.client,
            token["access_token"],
            token.get("scope", ""),
            token.get("refresh_token", ""),
        )
    )


app.config["OAUTH2_REFRESH_TOKEN_GENERATOR"] = True
app.config["OAUTH2_TOKEN_EXPIRES_IN"] = {
    "client_credentials": LIFETIME,
    "refresh_token": LIFETIME,
    "urn:ietf:params:oauth:grant-type:jwt-bearer": LIFETIME,
}
server = AuthorizationServer(app, query_client=clients.get, save_token=save)
server.register_grant(ClientGrant)
server.register_grant(RefreshGrant)
server.register_grant(AssertionGrant)
server.register_endpoint(Revocation)
protect = ResourceProtector()
protect.register_token_validator(Validator())


@app.post("/token")
def token() -> Any:
    return server.create_token_response()


@app.post("/revoke")
def revoke() -> Any:
    return server.create_endpoint_response("revocation")


@app.route("/api/<path:rest>", methods=["GET", "POST"])
@protect()
def api(rest: str) -> Any:
    return jsonify(length=len(request.get_data()))


def client(id: str, secret: str = "", method: str = "", jwks: Any = None) -> None:  # noqa: A002
    clients[id] = Client(id, secret, method, jwks)


def secret(id: str, secret: str) -> None:  # noqa: A002  the name in the JSON
    clients[id].client_secret = secret


def grant(id: str) -> dict[str, Any]:  # noqa: A002  the name in the JSON
    record = Token(clients[id], secrets.token_urlsafe(), "api:read", secrets.token_urlsafe())
    tokens.append(record)
    return {"refresh_token": record.refresh_token}


def audience(url: str) -> None:
    """The address as clients know it, which assertions have to name."""
    for method in ("client_assertion_jwt",):
        server.register_client_auth_method(method, Assertion(url))


if __name__ == "__main__":
    # The grants name the method, so it has to be there before any client is authenticated.
    audience("http://127.0.0.1/token")
    serve(
        app.wsgi_app,
        {
            "client": client,
            "secret": secret,
            "grant": grant,
            "forget": tokens.clear,
            "audience": audience,
        },
    )
