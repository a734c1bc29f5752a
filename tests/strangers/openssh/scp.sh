#!/bin/sh
# scp for OpenSSH's regression tests: where one speaks to a server beside it (-D SERVER, or a program in place of ssh), it
# goes by SSH, a channel for each, and one connection for all, since they are many. What pretends to be a malicious server
# (SCPTESTMODE) stays as it is.

[ -z "$SCPTESTMODE" ] || exec scp "$@"
over=
previous=
for argument; do
  shift
  case $previous:$argument in
    -S:*/scp-ssh-wrapper.scp | -D:*) over=yes ;;
    -S:*) set -- "$@" -S "$argument" ;;
    *:-S | *:-D) ;;
    *) set -- "$@" "$argument" ;;
  esac
  previous=$argument
done
if [ -n "$over" ]; then
  set -- -o ControlMaster=auto -o "ControlPath=$OBJ/master" -o ControlPersist=20 "$@"
  set -- -S "$SSH" -F "$OBJ/ssh_proxy" "$@"
fi
exec scp "$@"
