#!/usr/bin/env bash
# Runs a test program with as many threads as the machine has use for: cargo's runner in `make test`. What is tried end to end (e2e)
# keeps each processor busy by itself; other programs wait for timeouts and for servers half of the time.
set -euo pipefail
processors=$(nproc)
case ${1##*/} in
  e2e-*) threads=$processors ;;
  sinks-*) threads=$((processors * 3 / 2)) ;;
  *) threads=$((processors * 2)) ;;
esac
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-$threads}
exec "$@"
