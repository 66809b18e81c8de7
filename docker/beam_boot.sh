#!/bin/sh
# usage: docker/beam_boot.sh VERSION [NAME]
# Makes an image with Beam's start program of workers, from its source, for where Beam's own images
# can not be reached: make images BEAM_IMAGE=NAME. Needs Go.
set -eu
version=$1
name=${2:-nextvlad-beam-boot:$version}
command -v go >/dev/null || { echo "error: Go is not there, install it" >&2; exit 1; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir -p "$folder/opt/apache/beam"
GOBIN="$folder/opt/apache/beam" CGO_ENABLED=0 GOFLAGS=-trimpath \
    go install "github.com/apache/beam/sdks/v2/python/container@v$version"
mv "$folder/opt/apache/beam/container" "$folder/opt/apache/beam/boot"
tar -C "$folder" -c opt | docker import - "$name" >/dev/null
echo "$name: Beam's start program"
