ARG PYTHON_VERSION=3.13

FROM python:${PYTHON_VERSION}-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
# Without pip in it: what runs later cannot install anything into its own environment.
RUN python -m venv --without-pip /opt/keyrelay
# Before the source, so that a change of code does not install everything again.
COPY requirements.txt requirements-build.txt ./
RUN pip install --require-hashes -r requirements-build.txt \
    && pip --python /opt/keyrelay/bin/python install --require-hashes -r requirements.txt
COPY pyproject.toml README.md LICENSE keyrelay.py ./
COPY proxy ./proxy
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && pip --python /opt/keyrelay/bin/python install --no-deps /wheels/*.whl

# The same image again, since the environment points at its interpreter.
FROM python:${PYTHON_VERSION}-slim
LABEL org.opencontainers.image.title="keyrelay" \
      org.opencontainers.image.description="An authenticating reverse proxy" \
      org.opencontainers.image.licenses="Apache-2.0"
# The last two keep the working directory and a home directory out of the import path.
ENV PATH=/opt/keyrelay/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PYTHONSAFEPATH=1 \
    PYTHONNOUSERSITE=1
# Every command in the container uses this file and finds the process by a record in this directory,
# as the user has no home. On a read-only file system mount a tmpfs there.
ENV KEYRELAY_CONFIG=/etc/keyrelay/routes.yaml \
    XDG_RUNTIME_DIR=/run/keyrelay
RUN install --directory --mode=0700 --owner=65532 --group=65532 /run/keyrelay
COPY --from=build /opt/keyrelay /opt/keyrelay
# The mode that a checkout gave it may be one that keyrelay refuses.
COPY --chmod=0644 config/routes.yaml /etc/keyrelay/routes.yaml
# By number, so that Kubernetes' runAsNonRoot can tell. It owns /run/keyrelay alone.
USER 65532:65532
WORKDIR /etc/keyrelay
# No port is published: keyrelay listens on the loopback of the network it shares with the
# application (see docker-compose.yml), and beyond it only with an inbound_token.
# At the address in force, which the record has, whatever `listen` or --listen is.
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s --retries=3 \
    CMD ["keyrelay", "health"]
ENTRYPOINT ["keyrelay"]
CMD ["run"]
