"""django-oauth-toolkit with its defaults: a refresh revokes the access token before it at once."""

from __future__ import annotations

import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import django
from django.conf import settings as django_settings
from harness import serve, settings

_DATABASE = Path(tempfile.mkdtemp(prefix="keyrelay-oauth-")) / "db.sqlite3"

django_settings.configure(
    ALLOWED_HOSTS=["*"],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": str(_DATABASE),
            "OPTIONS": {"timeout": 20, "transaction_mode": "IMMEDIATE"},
        }
    },
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "oauth2_provider",
    ],
    LOGGING_CONFIG=None,
    # Tables from the models as they are: replaying their history takes many seconds.
    MIGRATION_MODULES={"auth": None, "contenttypes": None, "oauth2_provider": None},
    # Hashing on purpose cheaply: a test asks for many tokens on a small machine.
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
    OAUTH2_PROVIDER={
        "ACCESS_TOKEN_EXPIRE_SECONDS": settings["lifetime"],
        "SCOPES": {"api:read": "reading"},
    },
    ROOT_URLCONF=__name__,
    SECRET_KEY="dummy-key-of-the-test-server",
    USE_TZ=True,
)
django.setup()

from django.contrib.auth.models import User  # noqa: E402  models need the set-up
from django.core.management import call_command  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.http import HttpRequest, HttpResponse, JsonResponse  # noqa: E402
from django.urls import path, re_path  # noqa: E402
from django.utils import timezone  # noqa: E402
from django.views.decorators.csrf import csrf_exempt  # noqa: E402
from oauth2_provider.models import AccessToken, Application, RefreshToken  # noqa: E402
from oauth2_provider.oauth2_backends import get_oauthlib_core  # noqa: E402
from oauth2_provider.views import RevokeTokenView, TokenView  # noqa: E402
from oauthlib.common import generate_token  # noqa: E402


@csrf_exempt
def api(request: HttpRequest) -> HttpResponse:
    good, _ = get_oauthlib_core().verify_request(request, scopes=[])
    if not good:
        challenge = {"WWW-Authenticate": 'Bearer error="invalid_token"'}
        return HttpResponse(status=401, headers=challenge)
    return JsonResponse({"length": len(request.body)})


urlpatterns = [
    path("token", TokenView.as_view()),
    path("revoke", RevokeTokenView.as_view()),
    re_path("^api/", api),
]


def client(id: str, secret: str) -> None:  # noqa: A002  the name in the JSON
    kind = "client-credentials"
    Application.objects.filter(client_id=id).delete()
    Application.objects.create(
        client_id=id,
        client_secret=secret,
        client_type="confidential",
        authorization_grant_type=kind,
    )


def secret(id: str, secret: str) -> None:  # noqa: A002  the name in the JSON
    application = Application.objects.get(client_id=id)
    application.client_secret = secret
    application.save()


def grant(id: str) -> dict[str, Any]:  # noqa: A002  the name in the JSON
    user, _ = User.objects.get_or_create(username="user")
    application = Application.objects.get(client_id=id)
    # One application of the toolkit has one grant type, which refresh tokens go with.
    Application.objects.filter(pk=application.pk).update(
        authorization_grant_type="authorization-code"
    )
    access = AccessToken.objects.create(
        user=user,
        application=application,
        token=generate_token(),
        expires=timezone.now() + timedelta(seconds=settings["lifetime"]),
        scope="api:read",
    )
    token = generate_token()
    RefreshToken.objects.create(
        user=user, application=application, token=token, access_token=access
    )
    return {"refresh_token": token}


def forget() -> None:
    RefreshToken.objects.all().delete()
    AccessToken.objects.all().delete()


if __name__ == "__main__":
    call_command("migrate", verbosity=0, run_syncdb=True)
    import sqlite3

    with sqlite3.connect(_DATABASE) as database:
        database.execute("PRAGMA journal_mode=WAL")
    application = get_wsgi_application()
    serve(
        application,
        {"client": client, "secret": secret, "grant": grant, "forget": forget},
    )
