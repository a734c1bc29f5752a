# shellcheck shell=bash
# Sourced: which of the JDKs of this machine runs which server.

# Versions that a server runs on, from and to. Without a SecurityManager (gone since JDK 24) the three older ones don't start.
declare -A jdk_of=([kafka]='17 23' [opensearch-2]='17 23' [opensearch-3]='21 99' [elasticsearch]='17 23' [ssh]='17 99')

# jdk_for SERVER: the home of the newest JDK of this machine that runs it is REPLY; fails when there is none.
jdk_for() {
  local from to home version best=0
  read -r from to <<<"${jdk_of[$1]}"
  for home in ${JAVA_HOME:+"$JAVA_HOME"} /usr/lib/jvm/*; do
    [[ -x $home/bin/javac && -e $home/release ]] || continue
    version=$(sed -n 's/^JAVA_VERSION="\([0-9]*\).*/\1/p' "$home/release")
    if ((version >= from && version <= to && version > best)); then
      best=$version
      REPLY=$home
    fi
  done
  ((best > 0))
}

# jdk_package SERVER: the Debian package of such a JDK is REPLY; fails when Debian has none.
jdk_package() {
  local from to version
  read -r from to <<<"${jdk_of[$1]}"
  for version in 25 21 17; do
    ((version >= from && version <= to)) || continue
    REPLY=openjdk-$version-jdk-headless
    apt-cache show "$REPLY" >/dev/null 2>&1 && return 0
  done
  return 1
}
