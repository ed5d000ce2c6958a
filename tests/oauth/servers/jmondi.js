// @jmondi/oauth2-server with in-memory repositories. A refresh revokes the token pair it came with.
import { AuthorizationServer, DateInterval, generateRandomToken } from "@jmondi/oauth2-server";
import { handleExpressError, handleExpressResponse, requestFromExpress } from "@jmondi/oauth2-server/express";
import express from "express";
import jwt from "jsonwebtoken";
import { serve, settings } from "./harness.js";

const KEY = "dummy-signing-key-of-the-test-server";
const clients = {};
let tokens = new Map();
const scopes = { "api:read": { name: "api:read" } };

const server = new AuthorizationServer(
  {
    getByIdentifier: async (id) => clients[id],
    isClientValid: async (grant, client, secret) => client.secret === secret,
  },
  {
    issueToken: async (client, granted, user) => ({
      accessToken: generateRandomToken(),
      accessTokenExpiresAt: new DateInterval(`${settings.lifetime}s`).getEndDate(),
      refreshToken: null,
      refreshTokenExpiresAt: null,
      client,
      user,
      scopes: granted,
    }),
    issueRefreshToken: async (token) => {
      token.refreshToken = generateRandomToken();
      token.refreshTokenExpiresAt = new DateInterval("1d").getEndDate();
      tokens.set(token.accessToken, token);
      return token;
    },
    persist: async (token) => tokens.set(token.accessToken, token),
    // As the library's own examples do it.
    revoke: async (token) => {
      token.accessTokenExpiresAt = new Date(0);
      token.refreshTokenExpiresAt = new Date(0);
    },
    isRefreshTokenRevoked: async (token) => Date.now() > token.refreshTokenExpiresAt?.getTime(),
    getByRefreshToken: async (id) => {
      for (const token of tokens.values()) if (token.refreshToken === id) return token;
      throw new Error("no such refresh token");
    },
    getByAccessToken: async (id) => tokens.get(id),
  },
  {
    getAllByIdentifiers: async (names) => names.map((name) => scopes[name]).filter(Boolean),
    finalize: async (asked) => asked,
  },
  KEY,
);
const lifetime = new DateInterval(`${settings.lifetime}s`);
server.enableGrantTypes(["client_credentials", lifetime], ["refresh_token", lifetime]);

const answering = (call) => async (request, response) => {
  try {
    handleExpressResponse(response, await call(requestFromExpress(request)));
  } catch (error) {
    handleExpressError(error, response);
  }
};

await serve({
  mount: (app) => {
    const form = express.urlencoded({ extended: false });
    app.post("/token", form, answering((request) => server.respondToAccessTokenRequest(request)));
    app.post("/revoke", form, answering((request) => server.revoke(request)));
  },
  verify: (token) => {
    try {
      const kept = tokens.get(jwt.verify(token, KEY).jti);
      return kept !== undefined && kept.accessTokenExpiresAt > new Date();
    } catch {
      return false;
    }
  },
  control: {
    client({ id, secret }) {
      clients[id] = {
        id,
        name: id,
        secret,
        redirectUris: [],
        allowedGrants: ["client_credentials", "refresh_token"],
        scopes: Object.values(scopes),
      };
    },
    secret({ id, secret }) {
      clients[id].secret = secret;
    },
    grant({ id }) {
      const accessToken = generateRandomToken();
      const refreshToken = generateRandomToken();
      const end = new DateInterval("1d").getEndDate();
      tokens.set(accessToken, {
        accessToken,
        accessTokenExpiresAt: new Date(0),
        refreshToken,
        refreshTokenExpiresAt: end,
        client: clients[id],
        user: { id: "user" },
        scopes: [],
      });
      const text = jwt.sign(
        {
          client_id: id,
          access_token_id: accessToken,
          refresh_token_id: refreshToken,
          scope: "",
          user_id: "user",
          expire_time: Math.ceil(end.getTime() / 1000),
        },
        KEY,
      );
      return { refresh_token: text };
    },
    forget() {
      tokens = new Map();
    },
  },
});
