#!/usr/bin/env bash
# Starts custodyd again on the demo's data after it was stopped or killed; returns once it serves, with a new .demo/env.
set -euo pipefail
# shellcheck source=demo/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
[[ -e $demo/ports ]] || fail "there is no demo to start again: run 'make demo DETACH=1'"
end custodyd
start_custodyd
write_env
