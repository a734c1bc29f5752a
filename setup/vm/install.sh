#!/usr/bin/env bash
# Fetches the kernels that the node agent is tested on in virtual machines: the newest of Debian's cloud kernels of each
# series that apt offers, unpacked and never installed.
#
#   setup/vm/install.sh           fetches them
#   setup/vm/install.sh --print   prints where they lie, and does nothing else
#
# A folder a series, in it: vmlinuz, config, and modules/ with modules.dep.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=setup/cache.sh
source "$here/../cache.sh"

cached kernels "$here/install.sh"
folder=$REPLY
if [[ ${1:-} == --print ]]; then
  printf '%s\n' "$folder"
  exit 0
fi

fail() {
  printf 'setup: %s\n' "$*" >&2
  exit 1
}
for program in busybox:busybox-static xz:xz-utils qemu-system-x86_64:qemu-system-x86; do
  command -v "${program%:*}" >/dev/null || fail "${program%:*} is not there: install Debian's package ${program#*:}"
done

# newest SERIES: the name of the newest package of it, signed or not: it is the same kernel.
newest() {
  apt-cache search --names-only "^linux-image-${1//./\\.}\\.[0-9].*-cloud-amd64(-unsigned)?\$" | cut -d ' ' -f 1 | sort -V | tail -n 1
}

# fetch SERIES FOLDER
fetch() {
  local package version to=$2/$1
  package=$(newest "$1")
  if [[ -z $package ]]; then
    apt-get update >/dev/null
    package=$(newest "$1")
  fi
  [[ -n $package ]] || fail "apt offers no cloud kernel $1: Debian 12 has it, in main or in security"
  mkdir "$to"
  (cd "$to" && apt-get download "$package" >/dev/null 2>"$to/log") || fail "$(cat "$to/log")"
  dpkg -x "$to"/*.deb "$to/unpacked"
  version=$(cd "$to"/unpacked/lib/modules && echo *)
  mv "$to/unpacked/boot/vmlinuz-$version" "$to/vmlinuz"
  mv "$to/unpacked/boot/config-$version" "$to/config"
  find "$to/unpacked/lib/modules" -name '*.ko.xz' -exec xz --decompress {} +
  # The package leaves that to its installation. Without System.map, which it doesn't need on its own modules.
  (cd "$to/unpacked" && busybox depmod -b . "$version")
  mv "$to/unpacked/lib/modules/$version" "$to/modules"
  rm -r "$to/unpacked" "$to"/*.deb "$to/log"
}

fetch_all() {
  local series
  for series in 6.1 6.12; do fetch "$series" "$1"; done
}
make_once "$folder" fetch_all
