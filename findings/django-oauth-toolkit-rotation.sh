#!/bin/sh
# django-oauth-toolkit 3.4.1 revokes the access token that was issued with a refresh token as soon as
# the refresh token is used, by default. A second process that shares the refresh token, and still
# uses that access token, is refused from this moment on.
#
# Seen:
#   before: True
#   refresh: 200
#   after: False
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    django==5.2.19 django-oauth-toolkit==3.4.1
cat >"$folder/run.py" <<'END'
import base64
from datetime import timedelta

import django
from django.conf import settings

settings.configure(
    ALLOWED_HOSTS=["*"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "oauth2_provider"],
    MIGRATION_MODULES={"auth": None, "contenttypes": None, "oauth2_provider": None},
    ROOT_URLCONF="oauth2_provider.urls",
    SECRET_KEY="dummy-key",
    USE_TZ=True,
)
django.setup()

from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client
from django.utils import timezone
from oauth2_provider.models import AccessToken, Application, RefreshToken

call_command("migrate", verbosity=0, run_syncdb=True)
user = User.objects.create(username="user")
application = Application.objects.create(
    client_id="app",
    client_secret="dummy-secret",
    client_type="confidential",
    authorization_grant_type="authorization-code",
    redirect_uris="http://127.0.0.1/",
)
end = timezone.now() + timedelta(hours=1)
access = AccessToken.objects.create(
    user=user, application=application, token="dummy-access", expires=end, scope="read"
)
RefreshToken.objects.create(
    user=user, application=application, token="dummy-refresh", access_token=access
)


def good():
    token = AccessToken.objects.filter(token="dummy-access").first()
    return token is not None and token.is_valid()


print(f"before: {good()}")
pair = base64.b64encode(b"app:dummy-secret").decode()
response = Client().post(
    "/token/",
    {"grant_type": "refresh_token", "refresh_token": "dummy-refresh"},
    HTTP_AUTHORIZATION=f"Basic {pair}",
)
print(f"refresh: {response.status_code}")
print(f"after: {good()}")
END
seen=$("$folder/venv/bin/python" "$folder/run.py")
echo "$seen"
test "$seen" = "before: True
refresh: 200
after: False"
