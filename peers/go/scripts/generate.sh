#!/bin/sh
# Writes the Go code of wire.capnp and conformance.capnp below the folder $1 (default: this module).
#
# The results are checked in, so that users need neither this script nor the capnp compiler.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
root=$(cd "$here/../.." && pwd)
out=$(mkdir -p "${1:-$here}" && cd "${1:-$here}" && pwd)
build="$here/build"
mkdir -p "$build/annotated"
cd "$here"

command -v capnp >/dev/null || { echo "the capnp compiler is missing; on Debian install capnproto" >&2; exit 1; }
go build -o "$build/capnpc-go" capnproto.org/go/capnp/v3/capnpc-go
std="$(go list -m -f '{{.Dir}}' capnproto.org/go/capnp/v3)/std"

# generate SCHEMA PACKAGE FOLDER
generate() {
    name=$(basename "$1")
    # Go's compiler wants to know the package of a file. Ids depend on the file id and on names only, so they stay.
    # List(Void) has no code in capnpc-go v3.1.0-alpha.2 ("no new function for VoidList"): an AnyPointer lies in the
    # same place, and capnp.VoidList(pointer.List()) reads it.
    sed -e "s|^@0x[0-9a-f]*;|&\\nusing Go = import \"/go.capnp\";\\n\$Go.package(\"$2\");\\n\$Go.import(\"lahja-capn.example/peer/$3\");|" \
        -e 's|:List(Void)|:AnyPointer|' "$1" > "$build/annotated/$name"
    mkdir -p "$out/$3"
    (cd "$build/annotated" && capnp compile -I"$std" -o- "$name") > "$build/$name.request"
    (cd "$out/$3" && "$build/capnpc-go" -promises=false -schemas=false -structstrings=false < "$build/$name.request")
    gofmt -w "$out/$3/$name.go"
}

generate "$root/capnp/lahja_capn/wire.capnp" wirecapnp internal/wirecapnp
generate "$root/tests/vectors/conformance.capnp" events conformance/events
