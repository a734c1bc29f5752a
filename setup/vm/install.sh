#!/usr/bin/env bash
# Fetches the kernels that the node agent is tested on in virtual machines: the newest of Debian's cloud kernels of each
# series that apt offers, unpacked and never installed.
#
#   setup/vm/install.sh           fetches those of Debian 12
#   setup/vm/install.sh --later   fetches later ones, from Debian 13's backports
#   … --print                     prints where they lie, and does nothing else
#
# A folder a series, in it: vmlinuz, and modules/ with modules.dep.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=setup/cache.sh
source "$here/../cache.sh"
# shellcheck source=setup/backports.sh
source "$here/../backports.sh"

kernels=kernels series=(6.1 6.12)
if [[ ${1:-} == --later ]]; then
  kernels=kernels-later series=(6.18 7.3)
  shift
fi
cached "$kernels" "$here/install.sh"
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

# Debian 13's backports, where later ones are wanted.
apt=()

# newest SERIES: the name of the newest package of it, signed or not: it is the same kernel.
newest() {
  apt-cache "${apt[@]}" search --names-only "^linux-image-${1//./\\.}\\.[0-9].*-cloud-amd64(-unsigned)?\$" | cut -d ' ' -f 1 | sort -V | tail -n 1
}

# fetch SERIES FOLDER
fetch() {
  local package parts part version to=$2/$1
  package=$(newest "$1")
  if [[ -z $package ]]; then
    apt-get "${apt[@]}" update >/dev/null
    package=$(newest "$1")
  fi
  [[ -n $package ]] || fail "apt offers no cloud kernel $1: Debian has it, in main, security or backports"
  mkdir "$to"
  # Later ones are in three packages, of which that one only names the others.
  mapfile -t parts < <(apt-cache "${apt[@]}" depends "$package" | sed -n 's/^ *Depends: \(linux-\(binary\|modules\)-[0-9].*\)/\1/p')
  (cd "$to" && apt-get "${apt[@]}" download "$package" "${parts[@]}" >/dev/null 2>"$to/log") || fail "$(cat "$to/log")"
  for part in "$to"/*.deb; do dpkg -x "$part" "$to/unpacked"; done
  # Debian 13 has its modules below /usr.
  if [[ ! -e $to/unpacked/lib ]]; then ln -s usr/lib "$to/unpacked/lib"; fi
  version=$(cd "$to"/unpacked/lib/modules && echo *)
  # There, or beside its modules.
  mv "$to/unpacked/boot/vmlinuz-$version" "$to/vmlinuz" 2>"$to/log" || mv "$to/unpacked/lib/modules/$version/vmlinuz" "$to/vmlinuz"
  find "$to/unpacked/lib/modules/" -name '*.ko.xz' -exec xz --decompress {} +
  # The package leaves that to its installation. Without System.map, which it doesn't need on its own modules.
  (cd "$to/unpacked" && busybox depmod -b . "$version")
  mv "$to/unpacked/lib/modules/$version" "$to/modules"
  rm -r "$to/unpacked" "$to"/*.deb "$to/log"
}

fetch_all() {
  local one
  if [[ $kernels == kernels-later ]]; then
    backports "$1/apt"
    apt=("${REPLY[@]}")
  fi
  for one in "${series[@]}"; do fetch "$one" "$1"; done
  rm -rf "$1/apt"
}
make_once "$folder" fetch_all
