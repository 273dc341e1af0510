#!/bin/sh
# load.sh CLUSTER IMAGE…: those of Docker's images that a kind cluster's nodes lack, as one stream in which layers that
# they share are once: `kind load docker-image` writes a tar first, into a temporary folder that is memory on many machines.
set -eu
cluster=$1
shift
for node in $(kind get nodes --name "$cluster"); do
    missing=
    for image in "$@"; do
        here=$(docker image inspect --format '{{.Id}}' "$image")
        there=$(docker exec "$node" crictl inspecti --output go-template --template '{{.status.id}}' "$image" 2> /dev/null || :)
        [ "$here" = "$there" ] || missing="$missing $image"
    done
    [ -n "$missing" ] || continue
    echo "loading$missing onto $node"
    docker save $missing | kind load image-archive --name "$cluster" --nodes "$node" /dev/stdin
done
