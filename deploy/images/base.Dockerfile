# Two images that every other one begins with:
#
#   --target build   raglan/build: pip, the pinned versions, the source of the package `raglan`
#   (the last)       raglan/base:  Python, the user, what `raglan` depends on
#
# BASE_IMAGE is any Debian with Python 3.11 as `python3`, and its `venv`. Pin it by digest for a
# build that can be repeated: --build-arg BASE_IMAGE=python@sha256:...
#
# Whoever needs an index mirror or a proxy gives a pip configuration as the secret `pip_conf`; it is
# in no layer.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS build
COPY requirements/build.txt requirements/constraints.txt /tools/
COPY deploy/images/install.sh /tools/install
ENV PATH=/tools/bin:${PATH} \
    PIP_CONSTRAINT=/tools/constraints.txt \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    --mount=type=cache,target=/root/.cache/pip \
    python3 -m venv /tools && pip install -r /tools/build.txt
# The package without its code: what it depends on is built, and kept, until that changes.
COPY services/common/pyproject.toml /src/dependencies/
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    --mount=type=cache,target=/root/.cache/pip \
    mkdir -p /src/dependencies/src/raglan && touch /src/dependencies/src/raglan/__init__.py \
    && pip wheel --no-build-isolation --wheel-dir /wheels /src/dependencies \
    && rm /wheels/raglan-*.whl \
    && cd /wheels && sha256sum *.whl > SHA256SUMS
COPY services/common /src/common

FROM ${BASE_IMAGE}
RUN groupadd --gid 10001 raglan \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/raglan \
       --shell /usr/sbin/nologin raglan \
    && install --directory --owner 10001 --group 10001 --mode 0750 \
       /var/lib/raglan /var/cache/raglan /var/cache/raglan/models \
    && python3 -m venv --without-pip /opt/raglan
# Checksums of the wheels. For podman, which does not look at what a step mounts, they are also the reason
# to repeat the next step.
COPY --from=build /wheels/SHA256SUMS /opt/raglan/
RUN --mount=type=bind,from=build,source=/tools,target=/tools \
    --mount=type=bind,from=build,source=/wheels,target=/wheels \
    /tools/install --no-deps /wheels/*.whl
ENV PATH=/opt/raglan/bin:${PATH} \
    HOME=/var/lib/raglan \
    HF_HOME=/var/cache/raglan/models \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    RAGLAN_DATA=/var/lib/raglan
WORKDIR /var/lib/raglan
STOPSIGNAL SIGTERM
USER 10001:10001
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="raglan/base" \
      org.opencontainers.image.description="Python and what every Raglan service depends on" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.vendor="Raglan" \
      org.opencontainers.image.version="${VERSION}"
