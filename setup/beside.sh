#!/usr/bin/env bash
# Runs a command while setup/install.sh works beside it, and waits for both: `setup/beside.sh make build`. What the setup
# says is shown when it fails.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

said=$(mktemp)
trap 'rm -f "$said"' EXIT
"$here/install.sh" >"$said" 2>&1 &
setup=$!
"$@"
code=$?
wait "$setup" || {
  printf 'setup/install.sh failed:\n' >&2
  cat "$said" >&2
  exit 1
}
exit "$code"
