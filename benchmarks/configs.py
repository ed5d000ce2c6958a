"""What each proxy is told: the same job in the words of each.

`/api/…`, `/live/…` and `/tls/…` lead to three providers, the prefix stripped, one key header added,
connections kept on both sides, one worker, each exchange logged, nothing buffered.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KEY = "dummy-key"
KEY_HEADER = "X-Api-Key"
BODY = b'{"text": "%b"}' % (b"x" * 1012)  # 1 KiB of JSON


@dataclass(frozen=True, slots=True)
class Job:
    """Where a proxy listens and where it leads.

    folder     its own, for whatever it writes
    api        port of the provider of 1 KB answers
    live       port of the provider of WebSockets, events and large bodies
    tls        port of the provider of 1 KB answers over TLS, whose name is localhost
    authority  the file with the certificate that the TLS provider's one is to be verified with
    clients    how many connections of clients it has to expect
    """

    folder: Path
    port: int
    api: int
    live: int
    tls: int
    authority: Path
    clients: int = 1024

    @property
    def origins(self) -> dict[str, str]:
        """The provider behind each prefix."""
        return {
            "api": f"http://127.0.0.1:{self.api}",
            "live": f"http://127.0.0.1:{self.live}",
            "tls": f"https://localhost:{self.tls}",
        }


def nginx(job: Job) -> str:
    upstreams = "".join(
        f"  upstream {name} {{ server 127.0.0.1:{port};"
        " keepalive 512; keepalive_requests 100000000; }\n"
        for name, port in (("api", job.api), ("live", job.live), ("tls", job.tls))
    )
    # Two for each client, and the sixteenth below which nginx begins to close waiting ones.
    connections = 9 * job.clients // 4
    return (
        _nginx_begin(job.folder, connections)
        + f"""\
  access_log {job.folder}/access.log combined buffer=64k flush=1s;
  map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
{upstreams}\
  server {{
    listen 127.0.0.1:{job.port} backlog=4096;
    client_max_body_size 0;
    proxy_http_version 1.1;
    proxy_set_header Host $proxy_host;
    proxy_set_header Connection $connection_upgrade;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header {KEY_HEADER} {KEY};
    proxy_buffering off;
    proxy_request_buffering off;
    proxy_read_timeout 1h;
    location /api/ {{ proxy_pass http://api/; }}
    location /live/ {{ proxy_pass http://live/; }}
    location /tls/ {{
      proxy_pass https://tls/;
      proxy_ssl_verify on;
      proxy_ssl_trusted_certificate {job.authority};
      proxy_ssl_name localhost;
      proxy_ssl_server_name on;
    }}
  }}
}}
"""
    )


def nginx_provider(folder: Path, port: int, tls_port: int, certificate: Path) -> str:
    """1 KB for every request, cheaper than any proxy can ask for it."""
    return (
        _nginx_begin(folder, 8192)
        + f"""\
  access_log off;
  default_type application/json;
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    listen 127.0.0.1:{tls_port} ssl backlog=4096;
    ssl_certificate {certificate};
    ssl_certificate_key {certificate};
    location / {{ return 200 '{BODY.decode()}'; }}
  }}
}}
"""
    )


def _nginx_begin(folder: Path, connections: int) -> str:
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"  {kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    return f"""\
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log error;
events {{ worker_connections {connections}; }}
http {{
  keepalive_requests 100000000;
  keepalive_timeout 1h;
{paths}"""


def haproxy(job: Job) -> str:
    tls_options = (
        f" ssl verify required ca-file {job.authority} verifyhost localhost sni str(localhost)"
    )
    backends = "".join(
        f"""
backend {name}
  http-request replace-path /{name}(/.*) \\1
  http-request set-header {KEY_HEADER} {KEY}
  server one 127.0.0.1:{port}{tls}
"""
        for name, port, tls in (
            ("api", job.api, ""),
            ("live", job.live, ""),
            ("tls", job.tls, tls_options),
        )
    )
    return f"""\
global
  nbthread 1
  maxconn {job.clients}
  tune.pool-low-fd-ratio 90
  tune.pool-high-fd-ratio 95
  log stdout format raw local0

defaults
  mode http
  log global
  option httplog
  option http-no-delay
  http-reuse always
  timeout connect 10s
  timeout client 1h
  timeout server 1h
  timeout tunnel 1h

frontend door
  bind 127.0.0.1:{job.port} backlog 4096
  use_backend api if {{ path_beg /api/ }}
  use_backend live if {{ path_beg /live/ }}
  use_backend tls if {{ path_beg /tls/ }}
{backends}"""


def caddy(job: Job) -> str:
    handlers = ""
    for name, origin in job.origins.items():
        tls = f"tls_trusted_ca_certs {job.authority}" if name == "tls" else ""
        handlers += f"""
	handle_path /{name}/* {{
		reverse_proxy {origin} {{
			header_up Host {{upstream_hostport}}
			header_up {KEY_HEADER} {KEY}
			flush_interval -1
			transport http {{
				keepalive_idle_conns_per_host 512
				compression off
				{tls}
			}}
		}}
	}}
"""
    return f"""\
{{
	admin off
	auto_https off
}}
:{job.port} {{
	bind 127.0.0.1
	log {{
		output file {job.folder}/access.log
	}}
{handlers}}}
"""


def envoy(job: Job) -> str:
    """Envoy's configuration, as JSON."""
    ports = {"api": job.api, "live": job.live, "tls": job.tls}
    routes = [
        {
            "match": {"prefix": f"/{name}/"},
            "route": {
                "cluster": name,
                "prefix_rewrite": "/",
                "host_rewrite_literal": origin.partition("://")[2],
                "timeout": "0s",
                "idle_timeout": "3600s",
            },
        }
        for name, origin in job.origins.items()
    ]
    manager = {
        "@type": _ENVOY + "filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "codec_type": "HTTP1",
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "stream_idle_timeout": "0s",
        "access_log": [
            {
                "name": "file",
                "typed_config": {
                    "@type": _ENVOY + "access_loggers.file.v3.FileAccessLog",
                    "path": f"{job.folder}/access.log",
                },
            }
        ],
        "http_filters": [
            {
                "name": "router",
                "typed_config": {"@type": _ENVOY + "filters.http.router.v3.Router"},
            }
        ],
        "route_config": {
            "request_headers_to_add": [
                {
                    "header": {"key": KEY_HEADER, "value": KEY},
                    "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
                }
            ],
            "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}],
        },
    }
    listener = {
        "address": _envoy_address(job.port),
        "tcp_backlog_size": 4096,
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    clusters = [_envoy_cluster(name, port, job.authority) for name, port in ports.items()]
    return json.dumps({"static_resources": {"listeners": [listener], "clusters": clusters}})


_ENVOY = "type.googleapis.com/envoy.extensions."


def _envoy_address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _envoy_cluster(name: str, port: int, authority: Path) -> dict[str, Any]:
    most = {"max_connections": 100_000, "max_pending_requests": 100_000, "max_requests": 100_000}
    endpoint = {"endpoint": {"address": _envoy_address(port)}}
    cluster: dict[str, Any] = {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "10s",
        "circuit_breakers": {"thresholds": [most]},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    if name == "tls":
        names = [{"san_type": "DNS", "matcher": {"exact": "localhost"}}]
        cluster["transport_socket"] = {
            "name": "tls",
            "typed_config": {
                "@type": _ENVOY + "transport_sockets.tls.v3.UpstreamTlsContext",
                "sni": "localhost",
                "common_tls_context": {
                    "validation_context": {
                        "trusted_ca": {"filename": str(authority)},
                        "match_typed_subject_alt_names": names,
                    }
                },
            },
        }
    return cluster


def keyrelay(job: Job) -> str:
    """The key is read from a file ``key`` in the job's folder."""
    return routes(job.port, job.origins, job.folder / "key")


def routes(port: int, origins: Mapping[str, str], key: Path) -> str:
    """Keyrelay's routes file: where each name leads, all with the key of one file."""
    named = "".join(
        f"  {name}:\n"
        f"    upstream: {origin}\n"
        f"    secrets: {{key: file:{key}}}\n"
        f'    auth: [{{header: {KEY_HEADER}, value: "{{key}}"}}]\n'
        for name, origin in origins.items()
    )
    return f"listen: 127.0.0.1:{port}\nroutes:\n{named}"


def on_free_ports(shipped: str, ports: list[int]) -> str:
    """The shipped routes, at these ports instead of those that they name, in their order."""
    fresh = iter(ports)
    pattern = re.compile(r"(?m)^(\s*listen: 127\.0\.0\.1:)\d+$")
    return pattern.sub(lambda found: f"{found[1]}{next(fresh)}", shipped)
