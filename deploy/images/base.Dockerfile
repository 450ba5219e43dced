# Two images that every other one begins with:
#
#   --target build   raglan/build: pip, the pinned versions, the wheels of `raglan`
#   (the last)       raglan/base:  Python, the user, the package `raglan`
#
# BASE_IMAGE is any Debian with Python 3.11 as `python3`, and its `venv`. Pin it by digest for a
# build that can be repeated: --build-arg BASE_IMAGE=python@sha256:...
#
# Whoever needs an index mirror or a proxy gives a pip configuration as the secret `pip_conf`; it is
# in no layer.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS make
COPY requirements/build.txt requirements/constraints.txt /tools/
COPY deploy/images/install.sh /tools/install
ENV PATH=/tools/bin:${PATH} \
    PIP_CONSTRAINT=/tools/constraints.txt \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    --mount=type=cache,target=/root/.cache/pip \
    python3 -m venv /tools && pip install -r /tools/build.txt
COPY services/common /src/common
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    --mount=type=cache,target=/root/.cache/pip \
    pip wheel --no-build-isolation --wheel-dir /wheels /src/common

# podman before 4.4 mounts a cached stage without its last step; this stage has no step to lack.
FROM make AS build

FROM ${BASE_IMAGE}
RUN groupadd --gid 10001 raglan \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/raglan \
       --shell /usr/sbin/nologin raglan \
    && install --directory --owner 10001 --group 10001 --mode 0750 \
       /var/lib/raglan /var/cache/raglan /var/cache/raglan/models \
    && python3 -m venv --without-pip /opt/raglan
RUN --mount=type=bind,from=build,source=/tools,target=/tools \
    --mount=type=bind,from=build,source=/wheels,target=/wheels \
    /tools/install raglan
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
      org.opencontainers.image.description="Python and what every Raglan service shares" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.vendor="Raglan" \
      org.opencontainers.image.version="${VERSION}"
