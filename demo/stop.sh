#!/usr/bin/env bash
# Ends a detached demo and leaves no process of it.
set -euo pipefail
# shellcheck source=demo/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
stop_all
rm -f "$demo/env"
