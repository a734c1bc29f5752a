# shellcheck shell=bash
# Sourced: where lies what is fetched or built once, and how it gets there whole.

# cached NAME FILE…: the folder of what is made from these files is REPLY. It lies outside the work tree and is named by
# what stands in them: a changed list makes a new one, a fresh clone finds the old one.
cached() {
  local name=$1 hash
  shift
  hash=$(cat "$@" | sha256sum | cut -c1-16)
  REPLY=${XDG_CACHE_HOME:-$HOME/.cache}/custody/$name-$hash
}

# make_once FOLDER COMMAND…: unless FOLDER is there, runs COMMAND with an empty folder as its last argument and moves
# that into place when it has succeeded. Whoever wants the same at the same time waits for the first.
make_once() {
  local folder=$1
  shift
  [[ ! -e $folder/complete ]] || return 0
  mkdir -p "${folder%/*}"
  (
    exec 9>"$folder.lock"
    flock 9
    [[ ! -e $folder/complete ]] || exit 0
    printf 'setup: making %s\n' "$folder" >&2
    made=$(mktemp -d "$folder.XXXXXX")
    trap 'rm -rf "$made"' EXIT
    "$@" "$made"
    touch "$made/complete"
    mv -T "$made" "$folder"
  )
}
