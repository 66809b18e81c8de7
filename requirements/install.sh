#!/bin/sh
# usage: requirements/install.sh cpu|dev
# Makes .venv from exact, hashed requirements, byte-compiled. Does nothing where nothing changed.
# PYTHON names another interpreter than the newest of 3.13, 3.12, 3.11 that is found.
set -eu
cd "$(dirname "$0")/.."
kind=$1

fail() {
    echo "error: $1" >&2
    exit 1
}

system="$(uname -s) $(uname -m)"
[ "$system" = "Linux x86_64" ] ||
    fail "the locked requirements are for Linux x86_64, this is $system: use a container or a Linux machine"
getconf GNU_LIBC_VERSION >/dev/null 2>&1 ||
    fail "the locked requirements need glibc, which this Linux has not (musl, as in Alpine?)"

# 3.12, or PyPy's name and the like for what the locked wheels are not built for.
version_of() {
    "$1" -c 'import sys, sysconfig as c; n = sys.implementation.name
free = "-free-threaded" if c.get_config_var("Py_GIL_DISABLED") else ""
print(("" if n == "cpython" else n + "-") + "%d.%d" % sys.version_info[:2] + free)' 2>/dev/null || true
}

find_python() {
    if [ -n "${PYTHON:-}" ]; then set -- "$PYTHON"; else
        set -- python3.13 python3.12 python3.11 python3 python
    fi
    for candidate; do
        case "$(version_of "$candidate")" in
        3.11 | 3.12 | 3.13)
            command -v "$candidate"
            return
            ;;
        esac
    done
}

# One set-up at a time in this folder; a second one waits and finds it done.
if [ -z "${SETUP_LOCKED:-}" ] && command -v flock >/dev/null; then
    SETUP_LOCKED=1 exec flock .setup.lock sh requirements/install.sh "$kind"
fi

# What an up-to-date environment was made of; development includes cpu.
state() {
    echo "$PWD $(version_of .venv/bin/python) $(cat "requirements/$1.txt" requirements/cpu.txt | sha256sum)"
}
# Programs in an environment know its place: one that was moved, or of another Python, is made anew.
if [ -d .venv ] && { [ "$(cat .venv/.place 2>/dev/null)" != "$PWD" ] ||
    [ "$(version_of "${PYTHON:-.venv/bin/python}")" != "$(version_of .venv/bin/python)" ]; }; then
    [ -w .venv ] || fail "$PWD/.venv is of another place or Python, and not yours to remake"
    rm -rf .venv
fi
for ready in "$kind" dev; do
    if [ "$(cat ".venv/.ready-$ready" 2>/dev/null)" = "$(state "$ready")" ]; then exit 0; fi
done

python=$(find_python)
[ -n "$python" ] || fail "needs a Python from 3.11 to 3.13, found $(version_of "${PYTHON:-python3}" | sed 's/^$/none/'): install one, or name it with PYTHON=/path/to/python3"
if [ -z "$(version_of .venv/bin/python)" ] || [ ! -x .venv/uv/bin/uv ]; then
    echo "set-up: makes .venv with $($python --version)"
    rm -rf .venv
    "$python" -m venv .venv >/dev/null 2>&1 || {
        rm -rf .venv
        fail "$python can not make a virtual environment: install its venv module (Debian, Ubuntu: apt install python3-venv)"
    }
    echo "$PWD" >.venv/.place
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes \
        --target .venv/uv -r requirements/bootstrap.txt
fi
# uv does not read pip's settings: hand on those of the environment.
[ -z "${PIP_INDEX_URL:-}" ] || export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-$PIP_INDEX_URL}"
[ -z "${PIP_CERT:-}" ] || export SSL_CERT_FILE="${SSL_CERT_FILE:-$PIP_CERT}"
echo "set-up: installs requirements/$kind.txt (a minute or two)"
rm -f .venv/.ready-*
.venv/uv/bin/uv pip sync --quiet --python .venv/bin/python --require-hashes --compile-bytecode \
    "requirements/$kind.txt"
state "$kind" >".venv/.ready-$kind"
echo "set-up: done, $(du -sh .venv | cut -f 1)"
