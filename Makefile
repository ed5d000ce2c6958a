# Needs make and Python 3.11 or later, nothing else; everything more goes into .venv.

VENV := .venv
CLIENTS := .venv-clients
OAUTH := .venv-oauth
# Programs of the authorization servers for make test-oauth.
SERVERS := tests/oauth/servers
DOCS := .venv-docs
CHARTS := .venv-charts
CLIENTS_ALL := .venv-clients-all
NODE := tests/clients/node
# The clients run in a network namespace of their own; that needs root, or to look like it.
ISOLATED = $(if $(filter 0,$(shell id -u)),,unshare --user --map-root-user)
PEERS := .venv-bench
# Compiling the pinned requirements is the one thing that wants a tool outside the pins.
LOCK := .venv-lock
BIN := $(VENV)/bin
CONFIG ?= config/routes.yaml
# The parts of the documentation's site, in the layout of the checkout
DOCUMENTS := README.md CHANGELOG.md CONTRIBUTING.md LICENSE Dockerfile docker-compose.yml docs \
	deploy examples
# Further words for the proxy or for pytest: make test ARGS="-k guard -x"
ARGS ?=
# How long make fuzz may take, about
SECONDS ?= 60
# A given PYTHON is tried first: make run PYTHON=/usr/local/bin/python3.12
PYTHON ?=
PYTHONS := $(PYTHON) python3.13 python3.12 python3.11 python3 python

SUITABLE := import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))
PIP_FLAGS := --disable-pip-version-check --no-input
UV_COMPILE = $(LOCK)/bin/uv pip compile --quiet --universal --python-version 3.11 \
	--generate-hashes --no-header --no-emit-index-url --no-emit-find-links

# $(call pip_install,ENVIRONMENT,ARGUMENTS): the name of each package as pip gets to it, so that
# minutes on a slow line are not silent; pip's warnings and errors as they are. The last line read
# is pip's status, which a pipe would swallow.
define pip_install
@{ PYTHONUNBUFFERED=1 $(1)/bin/python -m pip install $(PIP_FLAGS) $(2); echo "Status $$?"; } | { \
  shown=:; while read -r word name rest; do \
    case "$$word $$name" in \
      Collecting\ *) shown=echo; printf ' %s' "$${name%%[=<>;@]*}" ;; \
      Obtaining\ *) shown=echo; printf ' keyrelay' ;; \
      Installing\ collected) printf ' … writing' ;; \
      Status\ *) $$shown; exit "$$name" ;; \
    esac; \
  done; \
}
endef

define new_venv
	@for candidate in $(PYTHONS); do \
	  if "$$candidate" -c '$(SUITABLE)' >/dev/null 2>&1; then \
	    echo "Creating $(1) with $$("$$candidate" --version)"; \
	    exec "$$candidate" -m venv --clear $(1); \
	  fi; \
	done; \
	echo "No suitable Python: 3.11 or later with its venv module is needed." >&2; \
	echo "Looked for: $(PYTHONS)" >&2; \
	echo "On Debian and Ubuntu: apt-get install python3 python3-venv" >&2; \
	echo "Or name one: make PYTHON=/path/to/python3" >&2; \
	exit 1
endef

# Chromium and its driver, as Debian packages them; elsewhere name yours:
# make test-browser CHROMIUM=/path/to/chrome CHROMEDRIVER=/path/to/chromedriver
CHROMIUM ?= chromium
CHROMEDRIVER ?= chromedriver
export CHROMIUM CHROMEDRIVER
APT_GET := apt-get -qq -o Acquire::Retries=3

define need_browser
	@have() { command -v "$$CHROMIUM" && command -v "$$CHROMEDRIVER"; } >/dev/null; \
	have && exit 0; \
	if [ "$$CHROMIUM $$CHROMEDRIVER" != "chromium chromedriver" ]; then \
	  echo "Not to be found: $$CHROMIUM or $$CHROMEDRIVER" >&2; \
	  exit 1; \
	elif ! command -v apt-get >/dev/null; then root=missing; \
	elif [ "$$(id -u)" -eq 0 ]; then root=; \
	elif sudo -n true 2>/dev/null; then root="sudo -n"; \
	else root=missing; fi; \
	if [ "$$root" != missing ]; then \
	  echo "Installing chromium and chromium-driver with apt-get (once)"; \
	  $$root $(APT_GET) update && \
	  $$root env DEBIAN_FRONTEND=noninteractive $(APT_GET) install -y --no-install-recommends \
	    chromium chromium-driver >/dev/null && have && exit 0; \
	  echo "Chromium could not be installed." >&2; \
	else \
	  echo "No Chromium, and apt-get is not here or not permitted." >&2; \
	fi; \
	echo "The browser tests need Chromium and a ChromeDriver of the same version." >&2; \
	echo "On Debian: apt-get install chromium chromium-driver" >&2; \
	echo "Or name yours: make test-browser CHROMIUM=/path CHROMEDRIVER=/path" >&2; \
	exit 1
endef

define need_npm
	@command -v npm >/dev/null || { \
	  echo "These tests need npm. On Debian: apt-get install npm" >&2; exit 1; }
endef

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# Every target that `make help` shows.
.PHONY: $(shell sed -nE 's/^([a-z-]+):.*\#\# .*/\1/p' Makefile)

help: ## show these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' Makefile

run: $(VENV)/.run ## start the proxy on config/routes.yaml (CONFIG=… for another file)
	@exec $(BIN)/python -m proxy run --config $(CONFIG) $(ARGS)

test: $(VENV)/.dev ## run the tests
	@$(BIN)/python -m pytest -n auto $(ARGS)

check: $(VENV)/.dev ## everything a change must pass: format, lint, types, imports, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy --strict keyrelay.py proxy tests
	$(BIN)/lint-imports
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n auto $(ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

format: $(VENV)/.dev ## format the code and apply the safe fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test-long: $(VENV)/.dev ## run the tests in which minutes of real time pass
	@$(BIN)/python -m pytest -m long $(ARGS)

test-browser: $(VENV)/.dev examples/browser/node_modules/.installed ## drive a real Chromium against the proxy
	$(need_browser)
	@$(BIN)/python -m pytest -m browser tests/browser $(ARGS)

test-wheel: $(VENV)/.dev ## build the wheel and run its commands in an environment of its own
	@$(BIN)/python -m pytest -m wheel tests/wheel $(ARGS)

fuzz: $(VENV)/.dev ## throw random bytes at the proxy (SECONDS=60, ARGS="-k answers")
	@FUZZ_SECONDS=$(SECONDS) $(BIN)/python -m pytest -m fuzz tests/fuzz $(ARGS)

test-clients: $(CLIENTS_ALL)/.installed $(NODE)/node_modules/.all ## run every client of proxy/config/clients.yaml (ARGS="-k hume")
	@$(ISOLATED) $(CLIENTS_ALL)/bin/python -m pytest -n auto -m clients tests/clients $(ARGS)

test-clients-ci: $(CLIENTS)/.installed $(NODE)/node_modules/.ci ## run those that continuous integration runs
	@$(ISOLATED) $(CLIENTS)/bin/python -m pytest -n auto -m "clients and not clients_all" tests/clients $(ARGS)

client-pages: $(VENV)/.dev ## write docs/clients anew from proxy/config/clients.yaml
	@$(BIN)/python -m tests.clients.pages

docs: $(DOCS)/.installed ## build the documentation as a site in build/site, links checked
	@rm -rf build/docs build/site
	@mkdir -p build/docs
	@cp -R $(DOCUMENTS) build/docs/
	@rm -rf build/docs/examples/browser/node_modules build/docs/examples/browser/index.html
	@$(DOCS)/bin/zensical build --strict --clean
	@if grep -rlE '(src|href)="(https?:)?//[^"]+[.](js|css|woff2?)"' --include='*.html' build/site; then \
	  echo "These pages load scripts, styles or fonts from other hosts." >&2; exit 1; \
	fi
	@echo "Open build/site/index.html, or run: python3 -m http.server -d build/site"

test-oauth: $(VENV)/.dev $(OAUTH)/.installed ## run keyrelay against six real authorization servers
	@$(BIN)/python -m pytest -m oauth tests/oauth $(ARGS)

test-net: $(VENV)/.dev ## cut the links between hosts in network namespaces (Linux)
	@$(ISOLATED) $(BIN)/python -m pytest -m net tests/net $(ARGS)

bench: $(VENV)/.run ## measure keyrelay beside its peers (ARGS="--quick" or "--help")
	@$(BIN)/python -m benchmarks $(ARGS)

bench-peers: $(PEERS)/bin/python ## install the peers for make bench: apt-get, npm, pip
	@sh benchmarks/install_peers.sh $(PEERS)

bench-cold: $(VENV)/.run ## measure what a client waits after a pause (ARGS="--quick")
	@$(BIN)/python -m benchmarks.cold $(ARGS)

bench-memory: $(VENV)/.run ## measure memory while large bodies pass (ARGS="--size 64")
	@$(BIN)/python -m benchmarks.memory $(ARGS)

bench-inprocess: $(VENV)/.run ## measure a request without sockets (ARGS="--against ../other")
	@$(BIN)/python -m benchmarks.inprocess $(ARGS)

charts: $(CHARTS)/.installed ## draw the charts of docs/performance.md from its tables
	@$(CHARTS)/bin/python -m benchmarks.charts

schema: $(VENV)/.run ## write proxy/config/routes.schema.json anew from the settings
	@$(BIN)/python -c 'import json; from proxy.config.loader import schema; \
	print(json.dumps(schema(), indent=2))' > proxy/config/routes.schema.json.new
	@mv proxy/config/routes.schema.json.new proxy/config/routes.schema.json

lock: $(LOCK)/.installed ## resolve the requirement files anew (UPGRADE=1 for newer versions)
	$(UV_COMPILE) $(if $(UPGRADE),--upgrade) -o requirements-dev.txt pyproject.toml --group dev
	$(UV_COMPILE) -c requirements-dev.txt -o requirements.txt pyproject.toml
	$(UV_COMPILE) -c requirements-dev.txt -o requirements-build.txt --group build
	$(UV_COMPILE) $(if $(UPGRADE),--upgrade) -o requirements-clients-all.txt \
	  pyproject.toml --group clients-all
	$(UV_COMPILE) $(if $(UPGRADE),--upgrade) -c requirements.txt -o requirements-clients.txt \
	  pyproject.toml --group clients
	$(UV_COMPILE) $(if $(UPGRADE),--upgrade) -c requirements-dev.txt -o requirements-oauth.txt \
	  --group oauth
	$(UV_COMPILE) $(if $(UPGRADE),--upgrade) -o requirements-docs.txt --group docs
	$(UV_COMPILE) $(if $(UPGRADE),--upgrade) -o requirements-charts.txt --group charts

clean: ## remove what make has made
	rm -rf $(OAUTH) $(SERVERS)/node_modules .oauth-debian $(VENV) $(CLIENTS) $(CLIENTS_ALL) $(NODE)/node_modules $(DOCS) $(CHARTS) $(PEERS) $(LOCK) benchmarks/node_modules build dist keyrelay.egg-info htmlcov
	rm -rf examples/browser/node_modules examples/browser/dist .coverage .coverage.* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find proxy tests -name __pycache__ -type d -prune -exec rm -rf {} +

# An environment whose Python is gone (the system's was replaced) is made anew. Its stamps go first:
# make looks at them before it gets to the interpreter.
$(foreach made,$(VENV) $(OAUTH) $(CLIENTS) $(CLIENTS_ALL) $(DOCS) $(CHARTS) $(LOCK),$(shell \
  test -x $(made)/bin/python || rm -f $(made)/.run $(made)/.dev $(made)/.installed))

$(VENV)/bin/python:
	$(call new_venv,$(VENV))

$(CLIENTS)/bin/python:
	$(call new_venv,$(CLIENTS))

$(DOCS)/bin/python:
	$(call new_venv,$(DOCS))

$(CHARTS)/bin/python:
	$(call new_venv,$(CHARTS))

$(OAUTH)/bin/python:
	$(call new_venv,$(OAUTH))

$(PEERS)/bin/python:
	$(call new_venv,$(PEERS))

$(LOCK)/bin/python:
	$(call new_venv,$(LOCK))

$(VENV)/.run: requirements.txt requirements-build.txt pyproject.toml $(VENV)/bin/python
	@echo "Installing what keyrelay needs into $(VENV) (once)"
	$(call pip_install,$(VENV),--require-hashes -r requirements-build.txt -r requirements.txt)
	$(call pip_install,$(VENV),--no-deps --no-build-isolation --editable .)
	@touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.run
	@echo "Installing the development tools into $(VENV) (once)"
	$(call pip_install,$(VENV),--require-hashes -r requirements-dev.txt)
	@touch $@

$(CLIENTS_ALL)/bin/python:
	$(call new_venv,$(CLIENTS_ALL))

$(CLIENTS)/.installed: requirements-clients.txt $(CLIENTS)/bin/python
	@echo "Installing the providers' SDKs into $(CLIENTS) (once)"
	$(call pip_install,$(CLIENTS),--require-hashes -r requirements-clients.txt)
	@touch $@

$(DOCS)/.installed $(CHARTS)/.installed: .venv-%/.installed: requirements-%.txt .venv-%/bin/python
	@echo "Installing the tools of requirements-$*.txt into .venv-$* (once)"
	$(call pip_install,.venv-$*,--require-hashes -r $<)
	@touch $@

$(CLIENTS_ALL)/.installed: requirements-clients-all.txt $(CLIENTS_ALL)/bin/python
	@echo "Installing every client of Python into $(CLIENTS_ALL) (once)"
	$(call pip_install,$(CLIENTS_ALL),--require-hashes -r requirements-clients-all.txt)
	@touch $@

# No script of a package is run. What .ci needs is a part of .all.
NPM_CI = npm ci --prefix $(NODE) --ignore-scripts --no-audit --no-fund --loglevel=error
$(NODE)/node_modules/.all: $(NODE)/package-lock.json
	$(need_npm)
	@echo "Installing every client of npm into $(NODE) (once)"
	@$(NPM_CI) && touch $@ $(NODE)/node_modules/.ci

$(NODE)/node_modules/.ci: $(NODE)/package-lock.json
	$(need_npm)
	@echo "Installing some clients of npm into $(NODE) (once)"
	@$(NPM_CI) --omit=dev && touch $@

# Vite, the development server of the example and of the browser tests. No script of a package is run.
examples/browser/node_modules/.installed: examples/browser/package-lock.json
	$(need_npm)
	@echo "Installing Vite into examples/browser (once)"
	@npm ci --prefix examples/browser --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

$(OAUTH)/.installed: requirements-oauth.txt $(SERVERS)/package-lock.json \
  $(SERVERS)/unpack_glewlwyd.sh $(OAUTH)/bin/python
	$(need_npm)
	@echo "Installing the authorization servers into $(OAUTH), $(SERVERS), .oauth-debian (once)"
	$(call pip_install,$(OAUTH),--require-hashes -r requirements-oauth.txt)
	@npm ci --prefix $(SERVERS) --ignore-scripts --no-audit --no-fund --loglevel=error
	@sh $(SERVERS)/unpack_glewlwyd.sh .oauth-debian
	@touch $@

$(LOCK)/.installed: $(LOCK)/bin/python
	@echo "Installing the resolver into $(LOCK) (once)"
	$(call pip_install,$(LOCK),uv)
	@touch $@
