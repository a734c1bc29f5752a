#!/usr/bin/env bash
# Builds the OpenTelemetry Collector, which the benchmark stands beside, in the versions that go.mod and go.sum pin: some
# minutes, once.
#
#   setup/collector/install.sh           builds it
#   setup/collector/install.sh --print   prints where it lies, and does nothing else
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=setup/cache.sh
source "$here/../cache.sh"

cached collector "$here"/go.{mod,sum} "$here/main.go"
folder=$REPLY
if [[ ${1:-} == --print ]]; then
  printf '%s\n' "$folder"
  exit 0
fi

command -v go >/dev/null || {
  printf 'setup: go is not there: install Go %s or later and put it on PATH\n' "$(sed -n 's/^go //p' "$here/go.mod")" >&2
  exit 1
}
build() { (cd "$here" && CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o "$1/collector" .); }
make_once "$folder" build
