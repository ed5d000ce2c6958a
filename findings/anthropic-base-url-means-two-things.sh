#!/bin/sh
# @anthropic-ai/sdk 1.14.0 and @ai-sdk/anthropic 4.0.105 (npm) read the same variable
# ANTHROPIC_BASE_URL and take it for two different things.
#
# Seen: with the same value the one posts to /v1/messages, the other to /messages. No value suits both.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{"private": true, "type": "module"}' > package.json
npm install --silent --no-audit --no-fund --ignore-scripts \
  @anthropic-ai/sdk@1.14.0 @ai-sdk/anthropic@4.0.105 ai@7.0.173 zod@4.6.7
cat > finding.mjs <<'PROGRAM'
import http from "node:http";

const seen = [];
const server = http.createServer((request, response) => {
  seen.push(request.url);
  response.writeHead(400, { "Content-Type": "application/json" });
  response.end(JSON.stringify({ type: "error", error: { type: "dummy", message: "dummy" } }));
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
process.env.ANTHROPIC_BASE_URL = `http://127.0.0.1:${server.address().port}`;
process.env.ANTHROPIC_API_KEY = "unused";

const { default: Anthropic } = await import("@anthropic-ai/sdk");
const { generateText } = await import("ai");
const { anthropic } = await import("@ai-sdk/anthropic");
const model = "claude-haiku-4-5";
const messages = [{ role: "user", content: "Hello" }];
await new Anthropic().messages.create({ model, max_tokens: 8, messages }).catch(() => {});
await generateText({ model: anthropic(model), prompt: "Hello", maxRetries: 0 }).catch(() => {});
server.close();
console.log(`@anthropic-ai/sdk: ${seen[0]}; @ai-sdk/anthropic: ${seen[1]}`);
process.exit(seen.join() === "/v1/messages,/messages" ? 0 : 1);
PROGRAM
node finding.mjs
