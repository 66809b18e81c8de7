# The image of the pipeline's steps: with KIND=cpu for every step on CPUs, with KIND=gpu for training
# and evaluation on GPUs. `make images` builds it and says what each layer costs; by hand:
#   docker build -f docker/steps.Dockerfile --build-arg KIND=cpu -t nextvlad-cpu:<digest> .
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS packages
ARG KIND=cpu
ARG CA_CERTIFICATES=
ARG PIP_INDEX_URL=
COPY docker/install_packages.sh requirements/bootstrap.txt requirements/${KIND}.txt /build/
RUN sh /build/install_packages.sh /build/${KIND}.txt

FROM ${BASE_IMAGE}
# What changes least comes first: a new commit costs the last layers alone, to build and to pull.
COPY --from=packages /layers/tensorflow /
COPY --from=packages /layers/nvidia /
COPY --from=packages /layers/rest /
# Any user may run a step, with a read-only root: what libraries keep goes to /tmp.
ENV PATH=/opt/venv/bin:${PATH} PYTHONPATH=/app PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 TF_CPP_MIN_LOG_LEVEL=2 \
    HOME=/tmp USER=steps MPLCONFIGDIR=/tmp/matplotlib
WORKDIR /app
COPY trainer trainer
COPY components components
RUN python3 -m compileall -q --invalidation-mode unchecked-hash .
ARG KIND=cpu
ARG VERSION=0
ARG COMMIT=unknown
RUN case "${COMMIT}" in unknown) ;; *) echo "${COMMIT}" >REVISION ;; esac
LABEL org.opencontainers.image.title="NeXtVLAD Pipeline, ${KIND} steps" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${COMMIT}" \
    org.opencontainers.image.licenses="Apache-2.0"
# By number, as Kubernetes' runAsNonRoot asks. No ENTRYPOINT: KFP brings its own command.
USER 10001:10001
