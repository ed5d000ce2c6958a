#!/bin/sh
# oidc-provider 9.13.3 answers a client credentials request for a scope that it does not know with 200
# and without the field "scope", although RFC 6749 section 5.1 allows the omission only where
# everything that was asked for was granted. The token has no scope: a client cannot tell.
#
# Seen, with the known scope "read":
#   read: 200 scope="read"
#   admin: 200 scope=undefined
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init --yes >/dev/null
npm install --ignore-scripts --no-audit --no-fund --loglevel=error oidc-provider@9.13.3 >/dev/null
cat >run.mjs <<'END'
import Provider from "oidc-provider";

const provider = new Provider("http://127.0.0.1", {
  clients: [
    {
      client_id: "app",
      client_secret: "dummy-secret",
      grant_types: ["client_credentials"],
      redirect_uris: [],
      response_types: [],
    },
  ],
  scopes: ["read"],
  features: { clientCredentials: { enabled: true }, devInteractions: { enabled: false } },
});
const server = provider.listen(0, "127.0.0.1", async () => {
  for (const scope of ["read", "admin"]) {
    const response = await fetch(`http://127.0.0.1:${server.address().port}/token`, {
      method: "POST",
      headers: { authorization: `Basic ${Buffer.from("app:dummy-secret").toString("base64")}` },
      body: new URLSearchParams({ grant_type: "client_credentials", scope }),
    });
    const document = await response.json();
    console.log(`${scope}: ${response.status} scope=${JSON.stringify(document.scope)}`);
  }
  server.close();
  server.closeAllConnections();
});
END
seen=$(node --no-warnings run.mjs 2>/dev/null | grep scope=)
echo "$seen"
test "$seen" = 'read: 200 scope="read"
admin: 200 scope=undefined'
