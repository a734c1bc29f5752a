# shellcheck shell=bash
# Sourced: what is built from Go modules needs Go.

# need_go FOLDER: ends with a word to people where there is no Go for the module in that folder.
need_go() {
  command -v go >/dev/null || {
    printf 'setup: go is not there: install Go %s or later and put it on PATH\n' "$(sed -n 's/^go //p' "$1/go.mod")" >&2
    exit 1
  }
}

# build_go FOLDER ARGUMENT…: go build in that folder. With the same flags everywhere: what several modules need is compiled once.
build_go() {
  (cd "$1" && CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' "${@:2}")
}
