#!/bin/sh
# install.sh LOCK: what an image installs. With PYTORCH_INDEX, PyTorch is that index's build for CPUs, and the libraries
# of CUDA and Triton, which are most of an image otherwise, stay away.
set -eu
install() { pip install --no-cache-dir --no-deps --root-user-action ignore "$@"; }

if [ -z "${PYTORCH_INDEX:-}" ]; then
    install --requirement "$1"
else
    install --index-url "$PYTORCH_INDEX" "$(grep '^torch==' "$1")+cpu"
    sed -E '/^(torch|triton)==|^(cuda|nvidia)-/d' "$1" > "$1.rest"
    install --requirement "$1.rest"
    rm "$1.rest"
fi
