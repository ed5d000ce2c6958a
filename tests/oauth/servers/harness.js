// What every authorization server of the tests has beside its own endpoints:
//   /api/…       a protected resource, which asks the server itself whether a token is good
//   /control/…   JSON calls by which a test arranges things: clients, grants, lost stores
//   /~NAME/…     the server's own paths once more, with calls counted under a name
// Configuration comes as one JSON argument: {"port": 0, "lifetime": 4}. The line "ready PORT" on
// stdout is the sign that it listens.
import express from "express";

export const settings = { port: 0, lifetime: 4, ...JSON.parse(process.argv[2] ?? "{}") };

// verify(token, request): whether the resource takes it. control: name -> function of the body.
export async function serve({ mount, verify, control }) {
  const app = express();
  const calls = {};
  app.use((request, response, next) => {
    const [counted, name] = /^\/~([^/]+)/.exec(request.url) ?? [];
    if (name) {
      calls[name] = (calls[name] ?? 0) + 1;
      request.url = request.url.slice(counted.length);
    }
    next();
  });
  app.use("/api", express.raw({ type: () => true, limit: "10mb" }), async (request, response) => {
    const [scheme, token] = (request.get("authorization") ?? "").split(" ");
    const good = /^(bearer|dpop)$/i.test(scheme) && (await verify(token ?? "", request));
    if (!good) {
      response.set("WWW-Authenticate", 'Bearer error="invalid_token"').status(401).end();
      return;
    }
    response.json({ length: request.body?.length ?? 0 });
  });
  app.get("/control/calls", (request, response) => response.json(calls));
  app.post("/control/:name", express.json(), async (request, response) => {
    response.json((await control[request.params.name](request.body)) ?? {});
  });
  mount(app);
  const server = app.listen(settings.port, "127.0.0.1", () => {
    console.log(`ready ${server.address().port}`);
  });
}
