#!/bin/sh
# Made of scripts/launcher.sh by `make build`.
here=$(cd "$(dirname "$0")/.." && pwd) || exit 1
exec node "$here/dist/PROGRAM" "$@"
