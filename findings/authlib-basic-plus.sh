#!/bin/sh
# Authlib 1.9.10 undoes %XX in the id and secret of Basic authorization but leaves "+", although RFC
# 6749 section 2.3.1 names the form-encoding, in which "+" is a blank. A secret with a blank arrives
# only from clients that write it as %20.
#
# Seen, with the secret "a b" of the client "app":
#   a%20b: 'a b'
#   a+b: 'a+b'
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check Authlib==1.9.10
cat >"$folder/run.py" <<'END'
import base64

from authlib.oauth2.rfc6749.util import extract_basic_authorization

for secret in ("a%20b", "a+b"):
    pair = base64.b64encode(f"app:{secret}".encode()).decode()
    _, given = extract_basic_authorization({"Authorization": f"Basic {pair}"})
    print(f"{secret}: {given!r}")
END
seen=$("$folder/venv/bin/python" "$folder/run.py")
echo "$seen"
test "$seen" = "a%20b: 'a b'
a+b: 'a+b'"
