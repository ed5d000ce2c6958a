// oidc-provider, with its in-memory adapter. Refresh tokens rotate; their reuse revokes the grant.
import { generateKeyPairSync } from "node:crypto";
import Provider from "oidc-provider";
import { createMemoryAdapter } from "oidc-provider/lib/adapters/memory_adapter.js";
import { calculateJwkThumbprint, createLocalJWKSet, exportJWK, jwtVerify } from "jose";
import { serve, settings } from "./harness.js";

const ISSUER = "http://127.0.0.1";
const API = "urn:keyrelay:test-api";
const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
const key = { ...(await exportJWK(privateKey)), alg: "RS256", use: "sig", kid: "one" };
const keys = createLocalJWKSet({ keys: [{ kty: key.kty, n: key.n, e: key.e, kid: "one" }] });
let adapters = createMemoryAdapter();
let clients = {};
const made = new Map();

class Adapter {
  constructor(model) {
    this.model = model;
  }
  get inner() {
    if (!made.has(this.model)) made.set(this.model, adapters(this.model));
    return made.get(this.model);
  }
  find(id) {
    return this.model === "Client" ? clients[id] : this.inner.find(id);
  }
  upsert(...all) {
    return this.inner.upsert(...all);
  }
  consume(id) {
    return this.inner.consume(id);
  }
  destroy(id) {
    return this.inner.destroy(id);
  }
  findByUid(id) {
    return this.inner.findByUid(id);
  }
  findByUserCode(id) {
    return this.inner.findByUserCode(id);
  }
  revokeByGrantId(id) {
    return this.inner.revokeByGrantId(id);
  }
}

const lifetime = () => settings.lifetime;
const provider = new Provider(ISSUER, {
  adapter: Adapter,
  jwks: { keys: [key] },
  scopes: ["openid", "offline_access", "api:read"],
  rotateRefreshToken: () => true,
  clientAuthMethods: ["client_secret_basic", "client_secret_post", "private_key_jwt", "client_secret_jwt"],
  enabledJWA: {
    clientAuthSigningAlgValues: ["HS256", "RS256", "PS256", "ES256", "EdDSA", "Ed25519"],
    dPoPSigningAlgValues: ["ES256", "EdDSA", "Ed25519"],
  },
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    dPoP: { enabled: true, nonceSecret: Buffer.alloc(32, 1), requireNonce: () => Boolean(settings.nonce) },
    introspection: { enabled: true },
    revocation: { enabled: true },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: (context, resource) => ({
        scope: "api:read",
        audience: resource,
        accessTokenFormat: "jwt",
        accessTokenTTL: settings.lifetime,
      }),
    },
  },
  findAccount: (context, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  routes: { token: "/token", revocation: "/revoke", introspection: "/introspect" },
  ttl: { AccessToken: lifetime, ClientCredentials: lifetime, RefreshToken: 86400, Grant: 86400 },
});

async function good(token, request) {
  if (token.split(".").length === 3) {
    try {
      await jwtVerify(token, keys, { issuer: ISSUER });
      return true;
    } catch {
      return false;
    }
  }
  const found =
    (await provider.AccessToken.find(token)) ?? (await provider.ClientCredentials.find(token));
  if (!found?.isValid) return false;
  return !found.jkt || proven(found.jkt, token, request);
}

// RFC 9449 section 7: the proof is for this token, method and address.
async function proven(jkt, token, request) {
  const { createHash } = await import("node:crypto");
  const { EmbeddedJWK } = await import("jose");
  try {
    const { payload, protectedHeader } = await jwtVerify(request.get("dpop"), EmbeddedJWK, {
      typ: "dpop+jwt",
    });
    const url = `http://${request.get("host")}${request.originalUrl.split("?")[0]}`;
    return (
      (await calculateJwkThumbprint(protectedHeader.jwk)) === jkt &&
      payload.ath === createHash("sha256").update(token).digest("base64url") &&
      payload.htm === request.method &&
      payload.htu === url
    );
  } catch {
    return false;
  }
}

await serve({
  mount: (app) => app.use(provider.callback()),
  verify: good,
  control: {
    client({ id, secret, method, jwks, dpop }) {
      const asymmetric = method === "private_key_jwt";
      clients[id] = {
        client_id: id,
        ...(asymmetric ? { jwks } : { client_secret: secret }),
        redirect_uris: [`${ISSUER}/none`],
        response_types: ["code"],
        grant_types: ["client_credentials", "refresh_token", "authorization_code"],
        token_endpoint_auth_method: method ?? "client_secret_basic",
        scope: "openid offline_access api:read",
        dpop_bound_access_tokens: Boolean(dpop),
      };
    },
    secret({ id, secret }) {
      clients[id] = { ...clients[id], client_secret: secret };
    },
    async grant({ id }) {
      const grant = new provider.Grant({ accountId: "user", clientId: id });
      grant.addOIDCScope("openid offline_access api:read");
      const refresh = new provider.RefreshToken({
        accountId: "user",
        client: await provider.Client.find(id),
        clientId: id,
        grantId: await grant.save(),
        gty: "authorization_code",
        scope: "openid offline_access api:read",
        rotations: 0,
        iiat: Math.floor(Date.now() / 1000),
      });
      return { refresh_token: await refresh.save() };
    },
    forget() {
      adapters = createMemoryAdapter();
      made.clear();
    },
  },
});
