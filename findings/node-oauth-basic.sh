#!/bin/sh
# @node-oauth/oauth2-server 5.3.0 does not undo the form-encoding of id and secret in Basic
# authorization, which RFC 6749 section 2.3.1 requires of clients: a client that follows the RFC is
# refused if its secret holds a character that the encoding changes, such as the + / = of Base64.
#
# Seen, with the secret "a+b/c==" of the client "app":
#   plain: 200
#   encoded: 401
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init --yes >/dev/null
npm install --ignore-scripts --no-audit --no-fund --loglevel=error \
    @node-oauth/oauth2-server@5.3.0 >/dev/null
cat >run.cjs <<'END'
const Server = require("@node-oauth/oauth2-server");
const secret = "a+b/c==";
const client = { id: "app", grants: ["client_credentials"] };
const server = new Server({
  model: {
    getClient: (id, given) => (id === "app" && given === secret ? client : null),
    getUserFromClient: () => ({ id: 1 }),
    saveToken: (token, of, user) => ({ ...token, client: of, user }),
    getAccessToken: () => null,
  },
});
const ask = async (pair) => {
  const body = "grant_type=client_credentials";
  const request = new Server.Request({
    method: "POST",
    query: {},
    headers: {
      authorization: `Basic ${Buffer.from(pair).toString("base64")}`,
      "content-type": "application/x-www-form-urlencoded",
      "content-length": String(body.length),
    },
    body: { grant_type: "client_credentials" },
  });
  const response = new Server.Response({});
  await server.token(request, response).catch(() => {});
  return response.status;
};
(async () => {
  console.log(`plain: ${await ask(`app:${secret}`)}`);
  console.log(`encoded: ${await ask(`app:${encodeURIComponent(secret)}`)}`);
})();
END
seen=$(node run.cjs)
echo "$seen"
test "$seen" = "plain: 200
encoded: 401"
