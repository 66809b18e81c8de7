# The workers of the statistics step on Dataflow, or on another engine of Beam that starts containers:
# the cpu image, with Beam's own start program. `make images IMAGES="cpu dataflow"` builds it.
ARG BASE_IMAGE
ARG BEAM_IMAGE=apache/beam_python3.11_sdk:2.77.0

FROM ${BEAM_IMAGE} AS beam

# hadolint ignore=DL3006
FROM ${BASE_IMAGE}
COPY --from=beam /opt/apache/beam/boot /opt/apache/beam/boot
# The start program asks pip whether Beam is there.
USER 0:0
RUN python3 -m ensurepip --default-pip >/dev/null 2>&1
USER 10001:10001
# All that a worker imports is here: it makes no environment of its own and installs nothing.
ENV RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT=1
# It writes its options into the folder that it starts in.
WORKDIR /tmp
ARG VERSION=0
ARG COMMIT=unknown
LABEL org.opencontainers.image.title="NeXtVLAD Pipeline, Beam workers" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${COMMIT}" \
    org.opencontainers.image.licenses="Apache-2.0"
ENTRYPOINT ["/opt/apache/beam/boot"]
