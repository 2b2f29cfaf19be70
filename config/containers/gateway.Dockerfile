# The job gateway: API, workers that feed TorchServe, and the init container that fetches models.
#   docker build --file config/containers/gateway.Dockerfile --tag torchserve-diffusers-gateway:0.1.0 .
ARG PYTHON=python:3.11-slim-bookworm

FROM ${PYTHON} AS build
WORKDIR /build
# Locks change less often than code: theirs is a layer that is pulled once.
COPY config/containers/install.sh config/containers/
COPY config/locks config/locks
RUN config/containers/install.sh gateway libraries

FROM ${PYTHON}
LABEL org.opencontainers.image.title="torchserve-diffusers gateway" \
  org.opencontainers.image.licenses="Apache-2.0"
ENV PATH=/opt/venv/bin:$PATH \
  PYTHONPATH=/app/core:/app/costs:/app/gateway:/app/scripts \
  PYTHONDONTWRITEBYTECODE=1 \
  PYTHONUNBUFFERED=1 \
  HOME=/tmp
COPY --from=build /opt/venv /opt/venv
WORKDIR /app
COPY core/diffusion_core core/diffusion_core
COPY costs/diffusion_costs costs/diffusion_costs
COPY gateway/diffusion_gateway gateway/diffusion_gateway
COPY scripts/containers scripts/containers
COPY scripts/serving scripts/serving
COPY config/gateway.yaml config/gateway-production.yaml config/prices.yaml config/tags.yaml \
  config/budgets.yaml config/
# Nobody: no name, no home, nothing of the image that it may write.
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
ENTRYPOINT ["python", "-m", "diffusion_gateway"]
CMD ["serve", "--config", "/app/config/gateway-production.yaml", "--pid-file", "/run/gateway/gateway.pid"]
