#!/bin/sh
# usage: docker/debian_base.sh [NAME]    (as root, on Debian or Ubuntu)
# Makes a base image with Python 3.11 from Debian's packages, for where no registry of images can be
# reached: make images BASE_IMAGE=NAME. Certificates that this machine trusts beside the public ones
# are trusted in the image too.
set -eu
name=${1:-nextvlad-debian-base:bookworm}
fail() {
    echo "error: $1" >&2
    exit 1
}
[ "$(id -u)" = 0 ] || fail "$0 makes a root file system: run it as root"
if ! command -v debootstrap >/dev/null; then
    command -v apt-get >/dev/null || fail "debootstrap is not there, install it"
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends debootstrap >/dev/null
fi
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
debootstrap --variant=minbase --include=python3.11,python3.11-venv,python3-pip,ca-certificates \
    bookworm "$root" http://deb.debian.org/debian >"$root.log" 2>&1 ||
    { tail -5 "$root.log" >&2; fail "debootstrap failed, see $root.log"; }
rm -f "$root.log"
if ls /usr/local/share/ca-certificates/*.crt >/dev/null 2>&1; then
    cp /usr/local/share/ca-certificates/*.crt "$root/usr/local/share/ca-certificates/"
    chroot "$root" update-ca-certificates >/dev/null 2>&1
fi
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/usr/share/doc/* \
    "$root"/usr/share/man/* "$root"/usr/share/locale/* "$root"/var/log/*
tar -C "$root" -c . | docker import --change 'CMD ["python3"]' - "$name" >/dev/null
echo "$name: $(docker image inspect --format '{{.Size}}' "$name" | awk '{printf "%.0f MB", $1 / 1e6}')"
