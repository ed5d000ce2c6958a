// @node-oauth/oauth2-server behind express-oauth-server. The model revokes the whole record with a
// refresh token, the access token beside it included.
import ExpressOAuthServer from "@node-oauth/express-oauth-server";
import express from "express";
import { randomUUID } from "node:crypto";
import { serve, settings } from "./harness.js";

const clients = {};
let records = [];

const model = {
  getClient: (id, secret) => {
    const client = clients[id];
    return client && (secret === null || client.secret === secret) ? client : null;
  },
  getUserFromClient: () => ({ id: "user" }),
  saveToken: (token, client, user) => {
    const record = { ...token, client, user };
    records.push(record);
    return record;
  },
  getAccessToken: (token) => records.find((one) => one.accessToken === token) ?? null,
  getRefreshToken: (token) => records.find((one) => one.refreshToken === token) ?? null,
  revokeToken: (token) => {
    const before = records.length;
    records = records.filter((one) => one.refreshToken !== token.refreshToken);
    return records.length < before;
  },
  validateScope: (user, client, scope) => {
    const asked = scope ?? ["api:read"];
    return asked.every((one) => one === "api:read") && asked;
  },
};

const oauth = new ExpressOAuthServer({
  model,
  accessTokenLifetime: settings.lifetime,
  refreshTokenLifetime: 86400,
});

await serve({
  mount: (app) => app.post("/token", express.urlencoded({ extended: false }), oauth.token()),
  verify: (token) => (model.getAccessToken(token)?.accessTokenExpiresAt ?? 0) > new Date(),
  control: {
    client({ id, secret }) {
      clients[id] = { id, secret, grants: ["client_credentials", "refresh_token"] };
    },
    secret({ id, secret }) {
      clients[id].secret = secret;
    },
    grant({ id }) {
      const past = new Date(0);
      const refreshToken = randomUUID();
      records.push({
        accessToken: randomUUID(),
        accessTokenExpiresAt: past,
        refreshToken,
        refreshTokenExpiresAt: new Date(Date.now() + 86400e3),
        scope: ["api:read"],
        client: clients[id],
        user: { id: "user" },
      });
      return { refresh_token: refreshToken };
    },
    revoke({ token }) {
      records = records.filter((one) => one.accessToken !== token);
    },
    forget() {
      records = [];
    },
  },
});
