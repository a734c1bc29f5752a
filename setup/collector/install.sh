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
# shellcheck source=setup/go.sh
source "$here/../go.sh"

cached collector "$here"/go.{mod,sum} "$here/main.go"
folder=$REPLY
if [[ ${1:-} == --print ]]; then
  printf '%s\n' "$folder"
  exit 0
fi

need_go "$here"
build() { build_go "$here" -o "$1/collector" .; }
make_once "$folder" build
