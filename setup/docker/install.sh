#!/usr/bin/env bash
# Makes the base that the test of our image builds upon, in place of Debian's own image from a registry: the same
# distribution as this machine's (its programs need its C library), by debootstrap from the mirror that apt uses.
#
#   setup/docker/install.sh           makes it
#   setup/docker/install.sh --print   prints where it lies (base.tar), and does nothing else
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=setup/cache.sh
source "$here/../cache.sh"

# shellcheck source=/dev/null
codename=$(source /etc/os-release && printf '%s' "${VERSION_CODENAME:-}")
cached "debian-$codename" "$here/install.sh"
folder=$REPLY
if [[ ${1:-} == --print ]]; then
  printf '%s\n' "$folder"
  exit 0
fi

bootstrap() {
  local mirror
  # shellcheck disable=SC2016 # apt-get expands it.
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' "Codename: $codename" | head -n 1)
  debootstrap --variant=minbase --include=ca-certificates "$codename" "$1/base" ${mirror:+"$mirror"} >"$1/log" 2>&1 || {
    tail -n 20 "$1/log" >&2
    printf 'setup: debootstrap failed\n' >&2
    return 1
  }
  tar --create --file "$1/base.tar" --directory "$1/base" --exclude './dev/*' --exclude './var/cache/apt/*' \
    --exclude './var/lib/apt/lists/*' .
  rm -rf "$1/base" "$1/log"
}
make_once "$folder" bootstrap
