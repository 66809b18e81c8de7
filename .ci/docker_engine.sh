#!/usr/bin/env bash
# Has a Docker engine run and prints the base image to build from; ends with 75 where there can be
# no engine, and with 1 where there is one and no base image.
set -euo pipefail
cd "$(dirname "$0")/.."

start() {
    docker info >/dev/null 2>&1 && return
    [ "$(id -u)" = 0 ] || return 1
    if ! command -v dockerd >/dev/null; then
        command -v apt-get >/dev/null || return 1
        apt-get update -qq
        apt-get install -y -qq --no-install-recommends docker.io iptables >/dev/null || return 1
    fi
    nohup dockerd >/tmp/dockerd.log 2>&1 &
    for _ in $(seq 60); do
        docker info >/dev/null 2>&1 && return
        sleep 1
    done
    tail -20 /tmp/dockerd.log
    return 1
}

start >&2 || exit 75
base=$(sed -n 's/^ARG BASE_IMAGE=//p' docker/steps.Dockerfile)
if ! docker image inspect "$base" >/dev/null 2>&1 && ! docker pull --quiet "$base" >/dev/null 2>&1; then
    base=nextvlad-debian-base:bookworm
    docker image inspect "$base" >/dev/null 2>&1 || docker/debian_base.sh "$base" >&2
fi
echo "$base"
