#!/bin/sh
# Writes the Go code of wire.capnp and conformance.capnp below the folder $1 (default: this module). The results are
# checked in, so that users need neither this script nor what it calls.
#
# LAHJA_CAPN is the command lahja-capn, in one or more words (it is not quoted below, on purpose); by default that of
# the repository's own environment, else that on the path.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
root=$(cd "$here/../.." && pwd)
out=$(mkdir -p "${1:-$here}" && cd "${1:-$here}" && pwd)
if [ -z "${LAHJA_CAPN:-}" ]; then
    LAHJA_CAPN="$root/.venv/bin/lahja-capn"
    [ -x "$LAHJA_CAPN" ] || LAHJA_CAPN=lahja-capn
fi
command -v capnp >/dev/null || { echo "the capnp compiler is missing; on Debian install capnproto" >&2; exit 1; }
$LAHJA_CAPN --version >/dev/null || {
    echo "lahja-capn is missing: install the Python package of this repository, or set LAHJA_CAPN" >&2; exit 1; }

temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT
cd "$here"
go build -o "$temporary/capnpc-go" capnproto.org/go/capnp/v3/capnpc-go
std="$(go list -m -f '{{.Dir}}' capnproto.org/go/capnp/v3)/std"

# generate SCHEMA PACKAGE FOLDER
generate() {
    name=$(basename "$1")
    $LAHJA_CAPN annotate-go "$1" --package "$2" --import "lahja-capn.example/peer/$3" -o "$temporary/annotated"
    # List(Void) has no code in capnpc-go v3.1.0-alpha.2 ("no new function for VoidList"): an AnyPointer lies in the
    # same place, and capnp.VoidList(pointer.List()) reads it.
    sed 's|:List(Void)|:AnyPointer|' "$temporary/annotated/$name" > "$temporary/$name"
    mkdir -p "$out/$3"
    (cd "$temporary" && capnp compile -I"$std" -o- "$name") > "$temporary/request"
    (cd "$out/$3" && "$temporary/capnpc-go" -promises=false -schemas=false -structstrings=false < "$temporary/request")
    gofmt -w "$out/$3/$name.go"
}

generate "$root/capnp/lahja_capn/wire.capnp" wirecapnp internal/wirecapnp
generate "$root/tests/vectors/conformance.capnp" events conformance/events
(cd "$root/tests/vectors" && $LAHJA_CAPN table conformance.capnp --language go --package events \
    --type Everything --type Count --type Blob --type Late --type Evolving --type Ask --type Answer \
    -o "$out/conformance/events/rows.go")
