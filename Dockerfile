# The image of every Evertoken process: worker, beat, Flower and the commands.
# Build: docker build -t evertoken .

FROM python:3.13.14-slim-trixie AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ONLY_BINARY=:all: PYTHONDONTWRITEBYTECODE=1
WORKDIR /build
# requirements-telemetry.lock adds what sends traces and errors elsewhere.
ARG LOCK=requirements.lock
RUN python -m venv /opt/evertoken
COPY deploy/requirements.lock deploy/requirements-telemetry.lock deploy/requirements-dev.lock ./
# The build tool's pin stands in the developers' lock; the rest of that lock stays out of the image.
RUN sed -n '/^setuptools==/,/[^\\]$/p' requirements-dev.lock > build.lock \
    && pip install --quiet --require-hashes --requirement build.lock \
    && /opt/evertoken/bin/pip install --quiet --require-hashes --requirement "$LOCK"
COPY . .
RUN pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist . \
    && /opt/evertoken/bin/pip install --quiet --no-deps dist/*.whl \
    && /opt/evertoken/bin/pip uninstall --quiet --yes pip

FROM python:3.13.14-slim-trixie
RUN groupadd --system --gid 10001 evertoken \
    && useradd --system --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/evertoken evertoken \
    && install --directory --owner=evertoken --group=evertoken --mode=0700 /var/lib/evertoken
COPY --from=build /opt/evertoken /opt/evertoken
# The root file system may be read-only: all that is written goes to /var/lib/evertoken (keep it) and /tmp (do not).
ENV PATH=/opt/evertoken/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    EVERTOKEN_JOURNAL_DIR=/var/lib/evertoken/journal \
    EVERTOKEN_RUN_DIR=/tmp/evertoken
LABEL org.opencontainers.image.title="Evertoken" \
      org.opencontainers.image.description="Keeps the TikTok Business tokens of many creators alive" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="MIT"
WORKDIR /var/lib/evertoken
USER 10001:10001
VOLUME ["/var/lib/evertoken"]
STOPSIGNAL SIGTERM
# A worker, beat, desk or exporter that works touches a file there every half minute. Flower does not, so it needs a check
# of its own: docker-compose.yml has one.
HEALTHCHECK --interval=30s --timeout=5s --retries=3 --start-period=60s \
    CMD ["sh", "-c", "find \"$EVERTOKEN_RUN_DIR\" -type f -mmin -2 | grep -q ."]
CMD ["celery", "-A", "worker", "doctor"]
