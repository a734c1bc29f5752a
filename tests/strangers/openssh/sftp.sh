#!/bin/sh
# sftp for OpenSSH's regression tests: where one speaks to a server beside it (-D SERVER), it goes by SSH to that server:
# a channel for each, and one connection for all, since they are many.

over=
previous=
for argument; do
  shift
  if [ "$previous" = -D ]; then
    over=yes
    # The server that sshd is configured with is the subsystem; another is run by its path (-s PATH).
    [ "$argument" = "$SFTPSERVER" ] || set -- "$@" -s "$argument"
  elif [ "$argument" != -D ]; then
    set -- "$@" "$argument"
  fi
  previous=$argument
done
if [ -n "$over" ]; then
  set -- -o ControlMaster=auto -o "ControlPath=$OBJ/master" -o ControlPersist=20 "$@"
  set -- -S "$SSH" -F "$OBJ/ssh_proxy" "$@" somehost
fi
exec sftp "$@"
