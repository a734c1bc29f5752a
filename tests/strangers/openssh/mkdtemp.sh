#!/bin/sh
# mkdtemp TEMPLATE, as OpenSSH's regression tests build it.
exec mktemp --directory "${TMPDIR:-/tmp}/$1"
