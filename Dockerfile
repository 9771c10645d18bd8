# The explorer with its demo pictures. CPU by default:
#   docker build -t virtual-neuron-explorer .
# For a GPU, PyPI's CUDA build of PyTorch, on the same base or on one with CUDA tools:
#   docker build --build-arg TORCH_INDEX= -t virtual-neuron-explorer:cuda .
#   docker build --build-arg TORCH_INDEX= --build-arg BASE=nvidia/cuda:13.0.1-base-ubuntu24.04 .
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
SHELL ["/bin/sh", "-eu", "-c"]
# Debian's security updates must not be held back by pinned versions.
# hadolint ignore=DL3008
RUN if ! python3 -c 'import ensurepip' 2>/dev/null; then \
      apt-get update; \
      apt-get install -y --no-install-recommends python3 python3-venv; \
      rm -rf /var/lib/apt/lists/*; \
    fi; \
    python3 -m venv /opt/venv
COPY requirements.txt /tmp/
# The last section of the file serves tests alone.
RUN sed '/^# Checks/,$d' /tmp/requirements.txt > /tmp/runtime.txt; \
    /opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check \
      ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} --requirement /tmp/runtime.txt

FROM ${BASE}
SHELL ["/bin/sh", "-eu", "-c"]
# hadolint ignore=DL3008
RUN apt-get update; \
    command -v python3 >/dev/null || apt-get install -y --no-install-recommends python3; \
    apt-get install -y --no-install-recommends tuxpaint-stamps-default gcompris-qt-data; \
    rm -rf /var/lib/apt/lists/*; \
    install -d -o 10001 -g 10001 -m 0700 /cache; \
    install -d -o 10001 -g 10001 /data
COPY --from=build /opt/venv /opt/venv
WORKDIR /app
COPY . .
# Workspaces of one's own: an explorer.toml in the volume /data, beside the pictures.
RUN ln -s /data/explorer.toml explorer.toml; \
    /opt/venv/bin/python -m compileall -q explorer
ENV PATH=/opt/venv/bin:$PATH \
    HOME=/cache/home \
    EXPLORER_CACHE_DIR=/cache \
    PYTHONUNBUFFERED=1
USER 10001:10001
VOLUME ["/cache", "/data"]
EXPOSE 8501
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8501/_stcore/health', timeout=4)"]
CMD ["python", "-m", "explorer", "serve", "--host", "0.0.0.0"]
