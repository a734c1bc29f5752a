#!/usr/bin/env bash
# Fetches an OpenSSH server that is later than this machine's, with the libraries that it needs: from Debian 13's backports, unpacked
# and never installed. Its parts share the work otherwise than those of Debian 12's (from 9.8 on, and from 10.3 on again).
#
#   setup/openssh/later.sh           fetches it
#   setup/openssh/later.sh --print   prints where it lies (sshd, and what that runs), and does nothing else
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=setup/cache.sh
source "$here/../cache.sh"
# shellcheck source=setup/backports.sh
source "$here/../backports.sh"

cached openssh-later "$here/later.sh"
folder=$REPLY
if [[ ${1:-} == --print ]]; then
  printf '%s\n' "$folder"
  exit 0
fi

libraries=(libaudit1 libc6 libcap-ng0 libcom-err2 libcrypt1 libgssapi-krb5-2 libk5crypto3 libkeyutils1 libkrb5-3 libkrb5support0
  libpam0g libpcre2-8-0 libselinux1 libsqlite3-0 libssl3t64 libwrap0 libwtmpdb0 libzstd1 zlib1g)
parts=(sbin/sshd lib/openssh/sshd-session lib/openssh/sshd-auth)

# launcher PROGRAM NAME OPTION…: runs a program by its own loader, with nothing of this machine's: as the same process.
launcher() {
  local words
  printf -v words ' "%s"' "$loader" --library-path "$found" --argv0 "\$0" "$1" "${@:3}"
  printf '#!/bin/sh\nexec%s "$@"\n' "$words" >"$made/$2"
  chmod 755 "$made/$2"
}

fetch() {
  # The paths in the launchers are those of where all this will lie.
  local made=$1 root=$folder/root loader found library part apt
  backports "$made/apt"
  apt=("${REPLY[@]}")
  mkdir "$made/packages"
  (cd "$made/packages" && apt-get "${apt[@]}" download openssh-server/trixie-backports "${libraries[@]}") >"$made/log" 2>&1 || {
    tail -n 20 "$made/log" >&2
    return 1
  }
  for part in "$made"/packages/*.deb; do dpkg -x "$part" "$made/root"; done
  loader=$(cd "$made/root" && echo usr/lib*/ld-linux-*.so.*)
  found=$root/$(cd "$made/root" && echo usr/lib/*-linux-gnu)
  for part in "${parts[@]}"; do
    library=$("$made/root/$loader" --library-path "$made/root/${found#"$root/"}" --list "$made/root/usr/$part" | grep -vF "$made/root" | grep -v vdso || true)
    if [[ -n $library ]]; then
      printf 'setup: the later OpenSSH needs more of Debian 13 than setup/openssh/later.sh names: %s\n' "$library" >&2
      return 1
    fi
  done
  loader=$root/$loader
  launcher "$root/usr/sbin/sshd" sshd -o "SshdSessionPath=$folder/sshd-session" -o "SshdAuthPath=$folder/sshd-auth"
  launcher "$root/usr/lib/openssh/sshd-session" sshd-session
  launcher "$root/usr/lib/openssh/sshd-auth" sshd-auth
  rm -rf "$made/apt" "$made/packages" "$made/log"
}
make_once "$folder" fetch
