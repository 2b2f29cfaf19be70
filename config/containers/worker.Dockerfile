# TorchServe and what archives need to be served; never a model, which comes in a volume.
#   docker build --file config/containers/worker.Dockerfile --tag torchserve-diffusers-worker:0.1.0 .
# For machines without a GPU, with TORCH_INDEX naming the index of torch's CPU builds:
#   docker build --file config/containers/worker.Dockerfile --tag torchserve-diffusers-worker-cpu:0.1.0 \
#     --build-arg DEVICE=cpu --build-arg TORCH_INDEX="$TORCH_INDEX" .
# torch brings CUDA's libraries; the driver comes with the machine.
ARG PYTHON=python:3.11-slim-bookworm

FROM ${PYTHON}
ARG DEVICE=cuda
ARG TORCH_INDEX=
LABEL org.opencontainers.image.title="torchserve-diffusers worker" \
  org.opencontainers.image.licenses="Apache-2.0"
# The version of a Debian release changes with its security updates, which are wanted.
# hadolint ignore=DL3008
RUN apt-get update \
  && apt-get install -y --no-install-recommends openjdk-17-jre-headless libgomp1 \
  && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY requirements.txt setup.cfg ./
COPY config/containers/install.sh config/containers/
COPY config/locks config/locks
COPY scripts/containers/requirements.py scripts/containers/
# Layers of their own: torch is gigabytes and changes seldom.
# hadolint ignore=DL3059
RUN config/containers/install.sh worker-${DEVICE} torch
# hadolint ignore=DL3059
RUN config/containers/install.sh worker-${DEVICE} libraries
# An archive brings its own code: of the repository only what starts and watches TorchServe is here.
COPY core/diffusion_core core/diffusion_core
COPY scripts/containers scripts/containers
COPY scripts/serving scripts/serving
COPY config/metrics.yaml config/metrics.yaml
COPY config/containers/worker config/containers/worker
ENV PATH=/opt/venv/bin:$PATH \
  PYTHONPATH=/app/core:/app/scripts \
  PYTHONDONTWRITEBYTECODE=1 \
  PYTHONUNBUFFERED=1 \
  HOME=/tmp \
  HF_HUB_OFFLINE=1 \
  NVIDIA_VISIBLE_DEVICES=all \
  NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001
EXPOSE 8080 8082
STOPSIGNAL SIGTERM
ENTRYPOINT ["python", "-m", "containers.serve"]
# Of a model cache at /models, as containers.fetch fills it.
CMD ["--models", "/etc/diffusion/models.json", "--cache", "/models/archives", "--used", "/models/used"]
