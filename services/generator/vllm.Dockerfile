# raglan/generator:<version>-vllm: the generator with vLLM in its process, on an NVIDIA GPU.
#
# The official image brings vLLM, PyTorch and CUDA; what it holds keeps its version, and what the
# generator needs besides comes at the versions that were tested with vLLM. VLLM_VERSION follows
# requirements/vllm-constraints.txt.
ARG VLLM_VERSION=0.32.0
ARG VLLM_IMAGE=vllm/vllm-openai:v${VLLM_VERSION}

FROM ${VLLM_IMAGE}
USER 0:0
COPY requirements/build.txt requirements/vllm-constraints.txt deploy/images/constraints_beside.py /src/
COPY services/common /src/common
COPY services/generator /src/generator
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    --mount=type=cache,target=/root/.cache/pip \
    python3 /src/constraints_beside.py /src/vllm-constraints.txt > /src/constraints.txt \
    && python3 -m venv /src/tools \
    && /src/tools/bin/pip install -r /src/build.txt \
    && /src/tools/bin/pip wheel --no-build-isolation --no-deps --wheel-dir /src \
         /src/common /src/generator \
    && python3 -m pip install -c /src/constraints.txt /src/raglan-*.whl /src/raglan_generator-*.whl \
    && rm -r /src
RUN groupadd --gid 10001 raglan \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/raglan \
       --shell /usr/sbin/nologin raglan \
    && install --directory --owner 10001 --group 10001 --mode 0750 \
       /var/lib/raglan /var/cache/raglan /var/cache/raglan/models
# What vLLM and its compilers keep goes to the volume of the models: the root is read-only.
ENV HOME=/var/cache/raglan/models \
    HF_HOME=/var/cache/raglan/models \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    RAGLAN_DATA=/var/lib/raglan \
    RAGLAN_GENERATOR_ENGINE=vllm \
    RAGLAN_GENERATOR_HOST=0.0.0.0 \
    RAGLAN_GENERATOR_METRICS_PORT=9100
WORKDIR /var/lib/raglan
USER 10001:10001
EXPOSE 7104 9100
VOLUME /var/cache/raglan/models
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=10s --start-period=600s --retries=3 \
    CMD exec raglan-health "127.0.0.1:${RAGLAN_GENERATOR_PORT:-7104}" --service generator
ENTRYPOINT ["raglan-generator"]
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="raglan/generator" \
      org.opencontainers.image.description="Question and passages to a cited answer, by vLLM" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.vendor="Raglan" \
      org.opencontainers.image.version="${VERSION}"
