#!/usr/bin/env bash
# Builds Grafana Loki from its Go module, in the versions that go.mod and go.sum pin: some minutes, once.
#
#   setup/loki/install.sh           builds it
#   setup/loki/install.sh --print   prints where it lies, and does nothing else
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=setup/cache.sh
source "$here/../cache.sh"
# shellcheck source=setup/go.sh
source "$here/../go.sh"

cached loki "$here/go.mod" "$here/go.sum"
folder=$REPLY
if [[ ${1:-} == --print ]]; then
  printf '%s\n' "$folder"
  exit 0
fi

need_go "$here"
build() { build_go "$here" -o "$1/" github.com/grafana/loki/v3/cmd/loki; }
make_once "$folder" build
