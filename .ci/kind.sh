#!/usr/bin/env bash
# Prints a folder with kind, built from its Go module where it is not on the path; ends with 75 where
# it can not be had.
set -euo pipefail

if command -v kind >/dev/null; then
    dirname "$(command -v kind)"
    exit
fi
command -v go >/dev/null || exit 75
folder=${TMPDIR:-/tmp}/nextvlad-kind
[ -x "$folder/kind" ] || GOBIN=$folder GOFLAGS=-mod=mod go install sigs.k8s.io/kind@v0.32.0 >&2 || exit 75
echo "$folder"
