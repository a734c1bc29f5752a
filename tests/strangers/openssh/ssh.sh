#!/bin/sh
# ssh for OpenSSH's regression tests. Directly it is the stock client as it is called. Through the proxy
# (CUSTODY_LINES.listener and .inetd hold the lines of ssh_config that lead to a node) it is the same client with those
# lines before the test's own: whatever host a test names, its sshd is behind the proxy then.

# What a test tries one by one is what the proxy has of it (ALGORITHMS, one a line): on both ways, so that they compare.
for argument; do
  if [ "$argument" = -Q ]; then
    ssh "$@" | grep -Fx -f "$ALGORITHMS"
    exit
  fi
done

# through FILE: the name of a configuration with our lines first. A test whose client starts `sshd -i` by itself has a
# ProxyCommand in its file: its sshd is started by the tests' own listener then.
through() {
  kind=listener
  if grep -qi '^[[:space:]]*proxycommand' "$1"; then kind=inetd; fi
  printf 'Include %s\nInclude %s\n' "$CUSTODY_LINES.$kind" "$1" >"$1.through.$$"
  mv "$1.through.$$" "$1.through"
  echo "$1.through"
}

# A connection by another port, or by a command of its own, goes to sshd by a forward that is tested: that one is the
# way through the proxy.
elsewhere=${CUSTODY_LINES:-yes}
[ "$elsewhere" = yes ] || elsewhere=
previous=
for argument; do
  case $previous$argument in
    -p"$TEST_SSH_PORT" | -oPort[\ =]"$TEST_SSH_PORT") ;;
    -p[0-9]* | -oPort[\ =]* | -o[Pp]roxy[Cc]ommand*) elsewhere=yes ;;
  esac
  # In `-p PORT` and `-o OPTION` the value is the next word.
  case $argument in
    -p | -o) previous=$argument ;;
    *) previous= ;;
  esac
done
[ -z "$elsewhere" ] || exec ssh "$@"

previous=
for argument; do
  shift
  word=$argument
  case $previous in
    -*F) case $argument in "$OBJ"/ssh_*) word=$(through "$argument") ;; esac ;;
  esac
  case $argument in
    -*F"$OBJ"/ssh_*) word=${argument%%F/*}F$(through "${argument#*F}") ;;
  esac
  previous=$argument
  set -- "$@" "$word"
done
exec ssh "$@"
