#!/usr/bin/busybox sh
# The first process of a virtual machine: makes it one in which programs feel at home, then does what it is told over the
# second serial port: a line with a deadline in seconds and a script in base64; the answer is a line with the exit code
# and the lengths of output and errors, then these.
/usr/bin/busybox --install -s
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin HOME=/root USER=root LOGNAME=root LANG=C.UTF-8 TERM=dumb

mount -t proc -o nosuid,nodev,noexec proc /proc
mount -t sysfs -o nosuid,nodev,noexec sysfs /sys
mount -t devtmpfs -o nosuid devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts -o ptmxmode=666,gid=5,mode=620 devpts /dev/pts
for folder in /dev/shm /tmp /run; do mount -t tmpfs -o mode=1777 tmpfs "$folder"; done
ln -s /proc/self/fd /dev/fd
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
mount -t tracefs tracefs /sys/kernel/tracing
mount -t securityfs securityfs /sys/kernel/security
mkdir -p /run/sshd /run/vm
chown 1000:1000 /home/alice
ip link set lo up
hostname node
# Those below it are named after the kernel that runs.
while read -r module; do insmod "/lib/modules/$module" || echo "init: $module isn't loaded" >/dev/kmsg; done </etc/modules
# There is a way to everywhere, and nobody at its end.
ip link set dummy0 up
ip addr add 198.51.100.2/24 dev dummy0
ip addr add 2001:db8::2/64 dev dummy0
ip route add default dev dummy0
ip -6 route add default dev dummy0

stty -F /dev/ttyS1 raw -echo
exec 3<>/dev/ttyS1
cd /root || exit
echo ready >&3
while read -r seconds script <&3; do
  # What an earlier one left in the background may still write into its own.
  rm -f /run/vm/*
  echo "$script" | base64 -d >/run/vm/script
  setsid timeout -s KILL "$seconds" bash /run/vm/script </dev/null >/run/vm/out 2>/run/vm/err 3<&-
  code=$?
  out=$(stat -c %s /run/vm/out) err=$(stat -c %s /run/vm/err)
  echo "$code $out $err" >&3
  head -c "$out" /run/vm/out >&3
  head -c "$err" /run/vm/err >&3
done
