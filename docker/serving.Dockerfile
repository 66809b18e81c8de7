# The prediction server. `make images` builds it; by hand, and to run it on an exported model:
#   docker build -f docker/serving.Dockerfile -t nextvlad-serving:<digest> .
#   docker run --rm -p 8080:8080 -v <serving_model folder>:/model:ro nextvlad-serving:<digest>
# On Vertex AI, AIP_STORAGE_URI and the other AIP_ variables take the place of the defaults below.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS packages
ARG CA_CERTIFICATES=
ARG PIP_INDEX_URL=
COPY docker/install_packages.sh requirements/bootstrap.txt requirements/serving.txt /build/
RUN sh /build/install_packages.sh /build/serving.txt

FROM ${BASE_IMAGE}
COPY --from=packages /layers/tensorflow /
COPY --from=packages /layers/rest /
ENV PATH=/opt/venv/bin:${PATH} PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    TF_CPP_MIN_LOG_LEVEL=2 HOME=/tmp AIP_STORAGE_URI=/model AIP_HTTP_PORT=8080
WORKDIR /app
COPY trainer trainer
COPY components/__init__.py components/__init__.py
COPY components/download components/download
COPY components/serving components/serving
RUN python3 -m compileall -q --invalidation-mode unchecked-hash .
ARG VERSION=0
ARG COMMIT=unknown
LABEL org.opencontainers.image.title="NeXtVLAD Pipeline, prediction server" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${COMMIT}" \
    org.opencontainers.image.licenses="Apache-2.0"
USER 10001:10001
EXPOSE 8080
# Exec form: the server itself gets SIGTERM, and answers what it has begun.
ENTRYPOINT ["python3", "-m", "components.serving"]
