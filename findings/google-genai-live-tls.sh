#!/bin/sh
# google-genai 3.6.1 (PyPI): a Live session uses TLS although the base URL is http://, or ws://.
#
# Seen: the first byte that arrives at a plain TCP server is 0x16, a TLS handshake record, for both;
# requests of the same client over HTTP arrive in plain text.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check google-genai==3.6.1
cat > finding.py <<'PROGRAM'
import asyncio

from google import genai

seen = []


async def serve(reader, writer):
    data = await reader.read(64)
    seen.append("TLS" if data[:1] == b"\x16" else data.split(b" ")[0].decode())
    writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    await writer.drain()
    writer.close()


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    client = genai.Client(api_key="unused", http_options={"base_url": f"http://{host}"})
    try:
        await client.aio.models.generate_content(model="gemini-2.5-flash", contents="Hello")
    except Exception as error:
        print(f"request: {type(error).__name__}")
    for scheme in ("http", "ws"):
        options = {"base_url": f"{scheme}://{host}"}
        client = genai.Client(api_key="unused", http_options=options)
        try:
            async with client.aio.live.connect(model="gemini-live-2.5-flash-preview"):
                print("connected")
        except Exception as error:
            print(f"{scheme}: {type(error).__name__}")
    print(seen)
    return seen == ["POST", "TLS", "TLS"]


raise SystemExit(0 if asyncio.run(main()) else 1)
PROGRAM
venv/bin/python finding.py
