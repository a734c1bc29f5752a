#!/usr/bin/env bash
# Fetches OpenSSH's own regression tests and builds its security key in software: those of the version that is
# installed, from the source package of the mirrors that apt uses.
#
#   setup/openssh/install.sh           fetches and builds them
#   setup/openssh/install.sh --print   prints where they lie (regress/, sk-dummy.so), and does nothing else
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=setup/cache.sh
source "$here/../cache.sh"

# The package's version: epoch:upstream-revision.
version=$(dpkg-query --show --showformat '${Version}' openssh-client)
upstream=${version#*:}
upstream=${upstream%-*}
cached "openssh-$upstream" "$here/install.sh"
folder=$REPLY
if [[ ${1:-} == --print ]]; then
  printf '%s\n' "$folder"
  exit 0
fi

# The machine's own lines, for sources in place of programs. Its lists of packages stay as they are.
sources_of_apt() {
  local apt=$1 file
  mkdir -p "$apt/parts" "$apt/lists/partial" "$apt/archives/partial"
  for file in /etc/apt/sources.list.d/*.sources; do
    [[ ! -e $file ]] || sed 's/^Types:.*/Types: deb-src/' "$file" >"$apt/parts/${file##*/}"
  done
  for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
    [[ ! -e $file ]] || sed -n 's/^deb /deb-src /p' "$file" >"$apt/parts/${file##*/}"
  done
}

fetch() {
  local made=$1 apt=$1/apt options
  sources_of_apt "$apt"
  options=(-o Dir::Etc::sourcelist=/dev/null -o "Dir::Etc::sourceparts=$apt/parts" -o "Dir::State::lists=$apt/lists"
    -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o APT::Sandbox::User=root)
  (
    # One of several mirrors may have no sources: what counts is whether the package comes.
    apt-get "${options[@]}" update || true
    # A mirror has the newest revision only, which may be another than the one that is installed.
    cd "$apt/archives"
    apt-get "${options[@]}" source --download-only --tar-only "openssh=$version" ||
      apt-get "${options[@]}" source --download-only --tar-only openssh
  ) >"$made/log" 2>&1 || {
    tail -n 20 "$made/log" >&2
    printf 'setup: the source of openssh %s could not be fetched\n' "$version" >&2
    return 1
  }
  mkdir "$made/source"
  tar --extract --file "$apt/archives/"openssh_*.orig.tar.* --directory "$made/source" --strip-components 1
  cp -r "$made/source/regress" "$made/regress"
  build_security_key "$made/source" >"$made/log" 2>&1 || {
    tail -n 20 "$made/log" >&2
    printf "setup: OpenSSH's security key in software could not be built\n" >&2
    return 1
  }
  mv "$made/source/$security_key" "$made/"
  rm -rf "$apt" "$made/log" "$made/source"
}

# What OpenSSH's own tests take in place of a FIDO authenticator (PROTOCOL.u2f: the middleware).
security_key=regress/misc/sk-dummy/sk-dummy.so
build_security_key() {
  (
    cd "$1"
    ./configure --without-zlib
    make openbsd-compat/libopenbsd-compat.a "$security_key"
  )
}
make_once "$folder" fetch
