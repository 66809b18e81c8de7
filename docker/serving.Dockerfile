# syntax=docker/dockerfile:1
# The prediction server. From the repository's root:
#   docker build -f docker/serving.Dockerfile -t nextvlad-serving:<digest> .
#   docker run --rm -p 8080:8080 -v <serving_model folder>:/model:ro nextvlad-serving:<digest>
# On Vertex AI, AIP_STORAGE_URI and the other AIP_ variables take the place of the defaults below.
ARG BASE=python:3.11-slim-bookworm
FROM ${BASE} AS packages
COPY requirements/serving.txt /tmp/serving.txt
RUN python -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --require-hashes -r /tmp/serving.txt

FROM ${BASE}
RUN useradd --uid 10001 --create-home serving
COPY --from=packages /opt/venv /opt/venv
WORKDIR /app
COPY trainer trainer
COPY components/__init__.py components/__init__.py
COPY components/download components/download
COPY components/serving components/serving
RUN /opt/venv/bin/python -m compileall -q trainer components
ENV TF_CPP_MIN_LOG_LEVEL=2 PYTHONUNBUFFERED=1 AIP_STORAGE_URI=/model AIP_HTTP_PORT=8080
USER serving
EXPOSE 8080
# Exec form: the server itself gets SIGTERM, and answers what it has begun.
ENTRYPOINT ["/opt/venv/bin/python", "-m", "components.serving"]
