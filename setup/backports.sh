# shellcheck shell=bash
# Sourced: Debian 13 and its backports beside this machine's own lists, from the same mirror. Nothing of them is installed.

# backports FOLDER: keeps its lists in that folder. The options by which apt uses them are REPLY.
backports() {
  local lists=$1 mirror suite key=/usr/share/keyrings/debian-archive-keyring.gpg
  # shellcheck disable=SC2016 # apt-get expands it.
  mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' | head -n 1)
  if [[ -z $mirror ]]; then
    printf 'setup: apt has no list of Debian: run apt-get update\n' >&2
    return 1
  fi
  mkdir -p "$lists/lists/partial" "$lists/cache/archives/partial"
  for suite in trixie trixie-backports; do
    printf 'deb [signed-by=%s] %s %s main\n' "$key" "$mirror" "$suite"
  done >"$lists/sources.list"
  REPLY=(-o "Dir::Etc::SourceList=$lists/sources.list" -o Dir::Etc::SourceParts=- -o "Dir::State::Lists=$lists/lists" -o "Dir::Cache=$lists/cache")
  apt-get "${REPLY[@]}" update >/dev/null 2>"$lists/log" || {
    cat "$lists/log" >&2
    return 1
  }
}
