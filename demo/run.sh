#!/usr/bin/env bash
# A session from login to replay: custodyd, two stock sshd, two people, one policy that denies. Ctrl-C ends all of it;
# DETACH=1 returns once all is up and has written .demo/env; CUSTODY_BUILT=1 takes the programs as they are;
# SINKS=loki,opensearch,kafka delivers the log there too, to servers that it starts; AGENT=1 runs the node's agent beside
# each target (as root); CUSTODY_DEMO is the demo's folder.
set -euo pipefail
# shellcheck source=demo/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

detach=${DETACH:-}
agent=${AGENT:-}
[[ -z $agent ]] || ((EUID == 0)) || fail "AGENT=1 needs root: the agent loads programs into the kernel"
read_stores
"$top/setup/install.sh" --programs
((${#stores[@]} == 0)) || with_progress "Fetching and building ${stores[*]} (some minutes the first time)" \
  "$top/setup/install.sh" --servers "${stores[@]}"
if [[ -z ${CUSTODY_BUILT:-} ]]; then
  step "Building (the first time takes some minutes)"
  (cd "$top" && cargo build --workspace --bins --quiet)
fi

if [[ -n ${CUSTODY_DEMO:-} && -e $demo && ! -e $demo/config.toml && -n $(ls -A "$demo") ]]; then
  fail "CUSTODY_DEMO=$demo holds something else than a demo, and would be emptied"
fi
stop_all
rm -rf "$demo"
mkdir -p "$demo"
chmod 700 "$demo"
# shellcheck disable=SC2329 # The trap calls it.
leave() {
  trap - EXIT INT TERM
  stop_all
}
trap leave EXIT
trap 'exit 130' INT TERM

password() { od -An -N16 -tx1 /dev/urandom | tr -d ' \n'; }

if ((${#stores[@]})); then
  step "Stores for what the log delivers"
  start_stores
fi

step "custodyd: keys, the log's first events, an administrator"
free_port && api_port=$REPLY
free_port && ssh_port=$REPLY
free_port && web_port=$REPLY
free_port && db_port=$REPLY
printf 'api_port=%s\nssh_port=%s\n' "$api_port" "$ssh_port" >>"$demo/ports"
cat >"$config" <<C
data = "$data"
name = "custody"
origin = "custody.demo/log"

[api]
listen = "127.0.0.1:$api_port"
names = ["localhost", "127.0.0.1"]

[ssh]
listen = "127.0.0.1:$ssh_port"
source_addresses = ["127.0.0.1"]
names = ["127.0.0.1"]
keyboard_interactive = true

[recording]
exec_bytes_max = 1048576
C
sink_settings >>"$config"
(umask 077 && password >"$demo/alice.password" && password >"$demo/bob.password")
# A pipe, not the file itself: the programs read one line that ends.
line_of() { printf '%s\n' "$(<"$1")"; }
line_of "$demo/alice.password" | "$custodyd" init --config "$config" --admin alice >"$demo/init.log"
start_custodyd
login() { line_of "$demo/$1.password" | as "$1" login --api "https://127.0.0.1:$api_port" --ca "$server_ca" --user "$1" --password-stdin; }
login alice

step "Two targets: stock sshd that trusts Custody's target CA"
# key NAME: the target's own host key.
key() {
  mkdir -p "$demo/$1/enrolled" /run/sshd
  ssh-keygen -q -t ed25519 -N '' -C "$1" -f "$demo/$1/host"
}
# run_target NAME PORT: starts it with the lines for its sshd_config that `node enroll` printed, and waits until it listens.
run_target() {
  local pid dir=$demo/$1
  cat >"$dir/sshd_config" <<C
Port $2
ListenAddress 127.0.0.1
HostKey $dir/host
PidFile none
UsePAM no
PermitRootLogin yes
PasswordAuthentication no
KbdInteractiveAuthentication no
AuthorizedKeysFile none
PrintLastLog no
Subsystem sftp internal-sftp
C
  grep -E '^ *(TrustedUserCAKeys|HostCertificate) ' "$dir/enroll" | tee -a "$dir/sshd_config"
  setsid /usr/sbin/sshd -D -f "$dir/sshd_config" -E "$demo/$1.log" </dev/null >/dev/null 2>&1 &
  pid=$!
  remember "$1" "$pid"
  wait_until 30 "$1 listens" listens "$pid" "$2"
}
demand=(--agent "${agent:+required}")
[[ -n $agent ]] || demand=()
say "web-1 shows a certificate of the host CA:"
key web-1
as alice node add web-1 "127.0.0.1:$web_port" --label tier=web "${demand[@]}"
as alice node enroll web-1 --host-key-pub "$demo/web-1/host.pub" --out "$demo/web-1/enrolled" >"$demo/web-1/enroll"
run_target web-1 "$web_port"
say "db-1 shows its own key, which is pinned:"
key db-1
as alice node add db-1 "127.0.0.1:$db_port" --label tier=db "${demand[@]}" --host-key "$demo/db-1/host.pub"
as alice node enroll db-1 --host-key-pub "$demo/db-1/host.pub" --out "$demo/db-1/enrolled" |
  grep -v '^HostCertificate ' >"$demo/db-1/enroll"
run_target db-1 "$db_port"

if [[ -n $agent ]]; then
  step "An agent beside each of them: what this kernel lets it see"
  "$custodyd" node --check
  start_agent web-1
  start_agent db-1
fi

step "A role, a person, a policy"
as alice role add operator --description "Runs the servers"
line_of "$demo/bob.password" | as alice user add bob --role operator --password-stdin
cat "$top/demo/operators.cedar"
as alice policy upload operators "$top/demo/operators.cedar"
login bob

step "bob works, with the stock ssh"
# try ARGUMENT…: shows a command and runs it.
try() {
  printf '$ ssh %s\n' "$*"
  ssh_as bob "$@"
}
# shellcheck disable=SC2016 # The target's shell expands it.
try root@web-1.custody 'echo "running as $(id -un) on web-1"; exit 0'
printf 'echo "this line is recorded and can be replayed"\nexit\n' | try -tt root@web-1.custody
try root@db-1.custody 'echo "a command on db-1 is allowed"'
if try -tt root@db-1.custody </dev/null; then
  fail "the policy should have denied a shell on db-1"
fi

step "What that left in the log"
as alice events search --user bob --limit 40

if [[ -n $agent ]]; then
  step "What web-1's kernel saw of bob's last session there"
  # The newest comes first.
  session=$(as alice sessions --json | grep -o '"session":"[^"]*"' | head -n 1 | cut -d '"' -f 4)
  as alice sessions tree "$session"
fi

step "The proof"
as alice verify "$data"

if ((${#stores[@]})); then
  step "The same in the stores"
  show_stores
fi

write_env
if [[ -n $detach ]]; then
  trap - EXIT INT TERM
  say ""
  say "Everything runs; $demo/env says where. 'make demo-stop' ends it."
  exit 0
fi

step "Everything runs. Commands to try:"
cat <<C
  ssh -F $demo/alice/ssh_config root@web-1.custody
  CUSTODY_HOME=$demo/alice $custody sessions                    # then: play ID
  CUSTODY_HOME=$demo/alice $custody events tail
  CUSTODY_HOME=$demo/alice $custody lock --user bob --reason "incident 4711"
C
((${#stores[@]} == 0)) || say "  CUSTODY_HOME=$demo/alice $custody sinks ls                      # then: pause, release, replay, verify"
say "Ctrl-C ends all of it."
wait_for_end() { while ours custodyd >/dev/null; do sleep 1; done; }
wait_for_end
fail "custodyd has ended by itself; see $demo/custodyd.log"
