#!/usr/bin/env bash
# Fetches Kafka, OpenSearch and Elasticsearch from Maven Central: each a folder with a pom.xml, and the hashes of all
# jars that it must bring (jars.sha256), and a launcher of a page. And SSH clients (ssh), which need no launcher.
#
#   setup/java/install.sh [NAME…]        all of them, or those
#   setup/java/install.sh --print NAME   prints where one lies, and does nothing else
#   setup/java/install.sh --lock NAME    writes its jars.sha256 anew, after its pom.xml was changed
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=setup/cache.sh
source "$here/../cache.sh"
# shellcheck source=setup/java/jdk.sh
source "$here/jdk.sh"

declare -A launcher=([kafka]=Kafka [opensearch-2]=OpenSearch [opensearch-3]=OpenSearch [elasticsearch]=Elasticsearch)

fail() {
  printf 'setup: %s\n' "$*" >&2
  exit 1
}

# folder_of NAME: where it lies is REPLY.
folder_of() {
  cached "$1" "$here/$1/pom.xml" "$here/$1/jars.sha256" ${launcher[$1]:+"$here/${launcher[$1]}.java"} "$here/install.sh"
}

# jars NAME FOLDER
jars() {
  command -v mvn >/dev/null || fail "mvn is not there: install Maven and put it on PATH"
  mvn --quiet --batch-mode --no-transfer-progress --file "$here/$1/pom.xml" \
    org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
    -DincludeScope=runtime -DoutputDirectory="$2/lib" >"$2/maven.log" 2>&1 || {
    cat "$2/maven.log" >&2
    fail "Maven can't fetch the jars of $1"
  }
  rm "$2/maven.log"
}

sums() { (cd "$1/lib" && LC_ALL=C sha256sum -- *.jar); }

# install NAME FOLDER
install() {
  local name=$1 folder=$2
  jars "$name" "$folder"
  sums "$folder" | diff "$here/$name/jars.sha256" - >&2 || fail "the jars of $name are not those of $name/jars.sha256"
  [[ -n ${launcher[$name]:-} ]] || return 0
  "$jdk/bin/javac" -proc:none -cp "$folder/lib/*" -d "$folder/classes" "$here/${launcher[$name]}.java"
  # An archive of classes (see rehearse) takes them from jars only.
  "$jdk/bin/jar" --create --file "$folder/lib/launcher.jar" -C "$folder/classes" .
  rm -r "$folder/classes"
}

# rehearse NAME FOLDER: starts and stops it once, so that an archive of the classes that it loads halves the time of later
# starts. The archive names the jars by their paths: so this comes after the folder has got its own.
rehearse() {
  local folder=$2 stage
  [[ -n ${launcher[$1]:-} ]] || return 0
  [[ ! -e $folder/classes.jsa ]] || return 0
  stage=$(mktemp -d "$folder/rehearsal.XXXXXX")
  timeout 300 "$folder/jdk/bin/java" -Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 \
    -XX:ArchiveClassesAtExit="$stage/classes.jsa" -Drehearsal=true -cp "$folder/lib/*" "${launcher[$1]}" \
    "$stage/node" network.host=127.0.0.1 http.port=0 transport.port=0 >"$stage/log" 2>&1 || true
  [[ -e $stage/classes.jsa ]] || {
    tail -n 40 "$stage/log" >&2
    fail "$1 doesn't start"
  }
  mv "$stage/classes.jsa" "$folder/classes.jsa"
  rm -rf "$stage"
}

case ${1:-} in
  --print)
    folder_of "$2"
    printf '%s\n' "$REPLY"
    exit 0
    ;;
  --lock)
    made=$(mktemp -d)
    trap 'rm -rf "$made"' EXIT
    jars "$2" "$made"
    sums "$made" >"$here/$2/jars.sha256"
    exit 0
    ;;
esac

(($#)) || set -- kafka opensearch-2 opensearch-3 elasticsearch ssh
for name in "$@"; do
  jdk_for "$name" || fail "$name needs a JDK of a version from ${jdk_of[$name]/ / to }, and none is in JAVA_HOME or /usr/lib/jvm"
  jdk=$REPLY
  folder_of "$name"
  make_once "$REPLY" install "$name"
  # Which JDK it runs on is the machine's matter, not the cached folder's: linked anew each time.
  ln -sfn "$jdk" "$REPLY/jdk"
  rehearse "$name" "$REPLY"
done
