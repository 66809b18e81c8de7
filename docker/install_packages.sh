#!/bin/sh
# usage: install_packages.sh REQUIREMENTS.txt    (in an image's build, as root)
# Installs exact, hashed requirements into /opt/venv, byte-compiled, then lays them out below /layers
# in the order in which they change: TensorFlow, CUDA, the rest. CA_CERTIFICATES (PEM) is trusted
# beside the system's certificates, PIP_INDEX_URL is the package index; neither reaches the image.
set -eu
here=$(dirname "$0")
requirements=$1

# pip and uv would each trust a list of their own.
cp /etc/ssl/certs/ca-certificates.crt /tmp/certificates.pem
printf '\n%s\n' "${CA_CERTIFICATES:-}" >>/tmp/certificates.pem
export SSL_CERT_FILE=/tmp/certificates.pem PIP_CERT=/tmp/certificates.pem
if [ -n "${PIP_INDEX_URL:-}" ]; then
    export PIP_INDEX_URL UV_DEFAULT_INDEX="$PIP_INDEX_URL"
fi

python3 -m venv /tmp/bootstrap
/tmp/bootstrap/bin/python -m pip install --quiet --disable-pip-version-check --no-cache-dir \
    --require-hashes --target /tmp/uv -r "$here/bootstrap.txt"
python3 -m venv --without-pip /opt/venv
# A compiled file that says nothing of its source's time stays good however layers are unpacked.
PYC_INVALIDATION_MODE=UNCHECKED_HASH /tmp/uv/bin/uv pip sync --quiet --no-cache \
    --python /opt/venv/bin/python --require-hashes --compile-bytecode "$requirements"
packages=$(echo /opt/venv/lib/python3*/site-packages)

# What no step opens: headers for building TensorFlow's own extensions, a compiler's front end that
# TensorFlow names and never imports, tests of libraries, and the symbols that debuggers read.
rm -rf "$packages/tensorflow/include" "$packages/clang"
for library in numba numpy/_core numpy/lib numpy/ma pyarrow matplotlib google/genai h5py; do
    rm -rf "$packages/$library/tests"
done
apt-get update -qq
apt-get install -y -qq --no-install-recommends binutils >/dev/null
for library in tensorflow/libtensorflow_cc.so.2 tensorflow/libtensorflow_framework.so.2; do
    [ ! -f "$packages/$library" ] || strip --strip-unneeded "$packages/$library"
done
# Not what wheels bring of others' libraries (*.libs), whose files were patched after linking.
for library in apache_beam av cryptography fastavro fontTools h5py kiwisolver llvmlite pyarrow uvloop \
    zstandard; do
    [ ! -d "$packages/$library" ] ||
        find "$packages/$library" -name '*.so*' -type f -exec strip --strip-unneeded {} +
done

for part in tensorflow nvidia; do
    mkdir -p "/layers/$part$packages"
    [ ! -d "$packages/$part" ] || mv "$packages/$part" "/layers/$part$packages/"
done
mkdir -p /layers/rest/opt
mv /opt/venv /layers/rest/opt/
