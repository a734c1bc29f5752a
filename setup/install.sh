#!/usr/bin/env bash
# Puts what the demo and the tests need onto a Debian machine that has only language toolchains. Run as root.
# Quick when all is there, and the same however often it runs.
#
#   setup/install.sh                  everything
#   setup/install.sh --programs       only what the demo needs
#   setup/install.sh --servers NAME…  that, and servers that the demo delivers to: loki, opensearch, kafka
#   setup/install.sh --packages       only Debian's packages; the rest takes minutes the first time (setup/beside.sh)
#   setup/install.sh --print-python   prints where the Python environment lies, and does nothing else
#   setup/install.sh --print-go       prints where the Go tools lie, and does nothing else
#   setup/install.sh --print-readers  prints where lie the programs that read our pictures and alerts, and does nothing else
#   setup/install.sh --print-ssh-go   prints where the SSH client in Go lies, and does nothing else
#   setup/install.sh --print-npm      prints where the npm packages lie, and does nothing else
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# shellcheck source=setup/cache.sh
source "$here/cache.sh"
# shellcheck source=setup/go.sh
source "$here/go.sh"
# shellcheck source=setup/java/jdk.sh
source "$here/java/jdk.sh"

fail() {
  printf 'setup: %s\n' "$*" >&2
  exit 1
}

requirements=$here/requirements.txt
cached python "$requirements"
environment=$REPLY

# Verifiers, a witness and another log by others, and our three small programs on their libraries: named by all they are
# built from, so that a stale one can't be run.
proof=$here/../tests/proof
verify=$here/../docs/verify/go
cached go "$proof"/go.{mod,sum} "$proof"/{,*/}*.go "$verify"/go.{mod,sum} "$verify"/*.go
go_tools=$REPLY

# Prometheus' engine on our metrics and alerts, Compose's parser on our compose.yaml.
readers=$here/../tests/readers
cached readers "$readers"/go.{mod,sum} "$readers"/*/*.go
reader_programs=$REPLY

# An SSH client on Go's own library.
ssh_go=$here/../tests/ssh_go
cached ssh-go "$ssh_go"/go.{mod,sum} "$ssh_go"/*.go
ssh_go_program=$REPLY

cached npm "$here"/npm/package.json "$here"/npm/package-lock.json
npm_packages=$REPLY

case ${1:-} in
  --print-npm)
    printf '%s\n' "$npm_packages"
    exit 0
    ;;
  --print-python)
    printf '%s\n' "$environment"
    exit 0
    ;;
  --print-go)
    printf '%s\n' "$go_tools"
    exit 0
    ;;
  --print-ssh-go)
    printf '%s\n' "$ssh_go_program"
    exit 0
    ;;
  --print-readers)
    printf '%s\n' "$reader_programs"
    exit 0
    ;;
esac

# Which servers of others are wanted, by the folders of setup/java.
servers=(kafka opensearch-2 opensearch-3 elasticsearch)
if [[ ${1:-} == --servers ]]; then
  servers=()
  for name in "${@:2}"; do
    case $name in
      loki) ;;
      # The one that runs on the JDK that Debian 12 has.
      opensearch) servers+=(opensearch-2) ;;
      kafka) servers+=(kafka) ;;
      *) fail "there is no server $name to deliver to: there are loki, opensearch and kafka" ;;
    esac
  done
fi

command -v cargo >/dev/null || fail "cargo is not there: install Rust $(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$here/../Cargo.toml") or later and put it on PATH"
command -v cc >/dev/null || need_cc=1

# program → Debian package
declare -A package=(
  [/usr/sbin/sshd]=openssh-server [ssh]=openssh-client [curl]=curl [rsync]=rsync [strace]=strace
  [openssl]=openssl [script]=bsdutils [xauth]=xauth [mount]=mount [mkfs.ext4]=e2fsprogs
)
missing=()
for program in "${!package[@]}"; do
  command -v "$program" >/dev/null || missing+=("${package[$program]}")
done
[[ -z ${need_cc:-} ]] || missing+=(build-essential)
command -v cmake >/dev/null || missing+=(cmake)
# librdkafka, the sink for Kafka, links OpenSSL: for TLS and for SCRAM.
command -v pkg-config >/dev/null || missing+=(pkg-config)
[[ -e /usr/include/openssl/ssl.h ]] || missing+=(libssl-dev)
# The node agent's programs for the kernel are compiled by clang, with libbpf's headers.
compgen -c clang | grep -qxE 'clang(-1[4-9])?' || missing+=(clang-16)
[[ -e /usr/include/bpf/bpf_helpers.h ]] || missing+=(libbpf-dev)
if [[ ${1:-} == --servers ]]; then
  ((${#servers[@]} == 0)) || command -v mvn >/dev/null || missing+=(maven)
  [[ " ${servers[*]} " != *" kafka "* ]] || command -v kcat >/dev/null || missing+=(kcat)
elif [[ ${1:-} != --programs ]]; then
  python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
  for program in mvn:maven kcat:kcat dockerd:docker.io debootstrap:debootstrap rsyslogd:rsyslog nginx:nginx-light \
    haproxy:haproxy git:git sshfs:sshfs plink:putty-tools puttygen:putty-tools dbclient:dropbear-bin mosh:mosh \
    nc.openbsd:netcat-openbsd qemu-system-x86_64:qemu-system-x86 busybox:busybox-static xz:xz-utils \
    sudo:sudo tmux:tmux iptables:iptables strip:binutils mkfs.btrfs:btrfs-progs auditd:auditd rclone:rclone ruby:ruby tinysshd:tinysshd; do
    command -v "${program%:*}" >/dev/null || missing+=("${program#*:}")
  done
  for module in lmnsd_gtls:gnutls lmnsd_ossl:openssl omelasticsearch:elasticsearch omkafka:kafka; do
    compgen -G "/usr/lib/*/rsyslog/${module%:*}.so" >/dev/null || missing+=("rsyslog-${module#*:}")
  done
  [[ -e /usr/include/libssh/libssh.h ]] || missing+=(libssh-dev)
  for library in net/sftp:ruby-net-sftp ed25519:ruby-ed25519 bcrypt_pbkdf:ruby-bcrypt-pbkdf; do
    ruby -e "require '${library%:*}'" 2>/dev/null || missing+=("${library#*:}")
  done
  compgen -G "/usr/lib/*/faketime/libfaketimeMT.so.1" >/dev/null || missing+=(libfaketime)
  command -v node >/dev/null || missing+=(nodejs)
  command -v npm >/dev/null || missing+=(npm)
fi
if [[ ${1:-} != --programs ]]; then
  for server in "${servers[@]}"; do
    jdk_for "$server" && continue
    # What isn't Debian's either is said when that server is fetched.
    if jdk_package "$server"; then missing+=("$REPLY"); fi
  done
fi
if ((${#missing[@]})); then
  command -v apt-get >/dev/null || fail "not there, and no apt-get to install it: ${missing[*]}"
  ((EUID == 0)) || fail "not there: ${missing[*]}. Run 'apt-get install ${missing[*]}' as root"
  printf 'setup: installing %s\n' "${missing[*]}" >&2
  export DEBIAN_FRONTEND=noninteractive
  # Installing openssh-server must not start the machine's own sshd: the tests start theirs.
  install_packages() { apt-get install -y --no-install-recommends "${missing[@]}" >/dev/null; }
  policy=/usr/sbin/policy-rc.d
  if [[ ! -e $policy ]]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    trap 'rm -f "$policy"' EXIT
  else
    policy=
  fi
  install_packages 2>/dev/null || {
    apt-get update >/dev/null
    install_packages
  }
  [[ -z $policy ]] || rm -f "$policy"
fi

[[ ${1:-} != --programs && ${1:-} != --packages ]] || exit 0
if [[ ${1:-} == --servers ]]; then
  ((${#servers[@]} == 0)) || "$here/java/install.sh" "${servers[@]}"
  [[ " ${*:2} " != *" loki "* ]] || "$here/loki/install.sh"
  exit 0
fi

if [[ ! -e $environment/complete ]]; then
  printf 'setup: making the Python environment %s\n' "$environment" >&2
  mkdir -p "$(dirname "$environment")"
  # Made in place, since a virtual environment knows its own path; one that was cut short is thrown away first.
  rm -rf "$environment"
  python3 -m venv "$environment"
  "$environment/bin/pip" install --quiet --disable-pip-version-check --requirement "$requirements"
  touch "$environment/complete"
fi

build_go_tools() {
  local tools
  need_go "$proof"
  mapfile -t tools < <(cd "$proof" && go list tool)
  build_go "$proof" -o "$1/" "${tools[@]}" ./...
  build_go "$verify" -o "$1/" .
}
make_once "$go_tools" build_go_tools

build_ssh_go() {
  build_go "$ssh_go" -o "$1/ssh-go" .
}
make_once "$ssh_go_program" build_ssh_go

build_readers() {
  build_go "$readers" -o "$1/" ./...
  # Its package is called cmd.
  build_go "$readers" -o "$1/compose" github.com/compose-spec/compose-go/v2/cmd
}
make_once "$reader_programs" build_readers

install_npm_packages() {
  cp "$here"/npm/package.json "$here"/npm/package-lock.json "$1/"
  (cd "$1" && npm ci --ignore-scripts --no-audit --no-fund --silent)
}
make_once "$npm_packages" install_npm_packages

"$here/java/install.sh"
"$here/docker/install.sh"
"$here/openssh/install.sh"
"$here/openssh/later.sh"
"$here/loki/install.sh"
"$here/vm/install.sh"
