# shellcheck shell=bash
# What the demo's scripts share: where things lie, how a process of ours is known, how one waits.

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
demo=${CUSTODY_DEMO:-$top/.demo}
data=$demo/data
programs=${CARGO_TARGET_DIR:-$top/target}/debug
custodyd=$programs/custodyd
custody=$programs/custody
config=$demo/config.toml
# Where the data directory keeps the CA of the API's server certificate.
server_ca=$data/ca/x509-server-ca.pem
# shellcheck source=demo/stores.sh
source "$top/demo/stores.sh"

say() { printf '%s\n' "$*"; }
step() { printf '\n\033[1m%s\033[0m\n' "$*"; }
fail() {
  printf 'demo: %s\n' "$*" >&2
  exit 1
}

# wait_until SECONDS WHAT COMMAND…: asks until it is so.
wait_until() {
  local end=$((SECONDS + $1)) what=$2
  shift 2
  until "$@"; do
    ((SECONDS < end)) || fail "waited in vain until $what; see $demo/*.log"
    sleep 0.05
  done
}

# free_port: a port of loopback that nobody listens on, and that this demo hasn't taken yet. Tests take those below.
taken=' '
free_port() {
  local port
  while :; do
    port=$((24000 + RANDOM % 8000))
    [[ $taken != *" $port "* ]] || continue
    listener "$port" >/dev/null && continue
    taken+="$port "
    REPLY=$port
    return
  done
}

# listener PORT: inodes of the sockets that listen on it (proc(5)); fails when there is none.
listener() {
  local hex
  printf -v hex ':%04X' "$1"
  awk -v end="$hex" '$4 == "0A" && substr($2, length($2) - 4) == end { print $10; found = 1 } END { exit !found }' \
    /proc/net/tcp /proc/net/tcp6 2>/dev/null
}

# listens PID PORT: whether it is this process that listens there, not somebody else's.
listens() {
  local inode
  for inode in $(listener "$2"); do
    find "/proc/$1/fd" -lname "socket:\[$inode\]" 2>/dev/null | grep -q . && return 0
  done
  return 1
}

# A process is remembered with its start time: a number alone may have gone to somebody else's process since.
start_time() { awk '{ sub(/.*\) /, ""); print $20 }' "/proc/$1/stat" 2>/dev/null; }
remember() { printf '%s %s\n' "$2" "$(start_time "$2")" >"$demo/$1.pid"; }
# ours NAME: prints the process id when that process is still the one we started.
ours() {
  local pid started state
  [[ -e $demo/$1.pid ]] || return 1
  read -r pid started <"$demo/$1.pid" || return 1
  [[ -n $started && $(start_time "$pid") == "$started" ]] || return 1
  state=$(awk '{ sub(/.*\) /, ""); print $1 }' "/proc/$pid/stat" 2>/dev/null) || return 1
  [[ $state != Z ]] || return 1
  printf '%s\n' "$pid"
}
gone() { ! ours "$1" >/dev/null; }

# end NAME: SIGTERM, and SIGKILL when that isn't enough.
end() {
  local pid end=$((SECONDS + ${2:-30}))
  pid=$(ours "$1") || return 0
  kill -TERM "$pid" 2>/dev/null || true
  until gone "$1"; do
    if ((SECONDS >= end)); then
      kill -KILL "$pid" 2>/dev/null || true
      wait_until 10 "$1 is gone" gone "$1"
    fi
    sleep 0.05
  done
  rm -f "$demo/$1.pid"
}

# children_of PID: all processes below it.
children_of() {
  local child children
  read -r -a children < <(cat "/proc/$1/task/"*/children 2>/dev/null) || true
  for child in "${children[@]}"; do
    children_of "$child"
    printf '%s\n' "$child"
  done
}

stop_all() {
  local name pid child
  for name in web-1 db-1; do
    # A connection's own sshd outlives the listener: its processes are ended by their ids too.
    if pid=$(ours "$name"); then
      for child in $(children_of "$pid"); do kill -KILL "$child" 2>/dev/null || true; done
    fi
  done
  end custodyd
  end web-1
  end db-1
  for name in agent-web-1 agent-db-1; do
    end "$name"
    # What is pinned stays in the kernel.
    [[ ! -e $demo/$name/pins ]] || rm -rf "$(<"$demo/$name/pins")"
  done
  # After custodyd, which delivers to them.
  for name in loki opensearch kafka; do end "$name" 60; done
}

# These three look at start_custodyd's variables.
# shellcheck disable=SC2154
serves() { curl --silent --fail --max-time 5 --cacert "$server_ca" --output /dev/null "https://127.0.0.1:$api_port/healthz"; }
# shellcheck disable=SC2154
served_by_us() { listens "$pid" "$api_port" && listens "$pid" "$ssh_port" && serves; }
still_starting() { served_by_us || ! kill -0 "$pid" 2>/dev/null; }

# start_custodyd: starts it on the demo's data, in a session of its own, and returns once it serves.
start_custodyd() {
  local api_port ssh_port pid
  # shellcheck source=/dev/null
  source "$demo/ports"
  setsid "$custodyd" run --config "$config" >>"$demo/custodyd.log" 2>&1 </dev/null &
  pid=$!
  remember custodyd "$pid"
  wait_until 60 "custodyd serves" still_starting
  # It has served, or it is gone: asking once more could be too slow an answer on a busy machine.
  kill -0 "$pid" 2>/dev/null || {
    tail -n 20 "$demo/custodyd.log" >&2
    fail "custodyd ended at its start"
  }
}

# start_agent NODE: lets an agent join as the node, starts it, and returns once it is there.
start_agent() {
  local api_port dir=$demo/agent-$1 pins pid
  # shellcheck source=/dev/null
  source "$demo/ports"
  mkdir -p "$dir"
  pins=/sys/fs/bpf/custody-demo-$1-$api_port
  printf '%s\n' "$pins" >"$dir/pins"
  printf 'data = "%s"\npins = "%s"\n' "$dir/data" "$pins" >"$dir/agent.toml"
  as alice node token "$1" |
    "$custodyd" node join --config "$dir/agent.toml" --server "https://127.0.0.1:$api_port" --ca "$server_ca"
  setsid "$custodyd" node --config "$dir/agent.toml" >>"$demo/agent-$1.log" 2>&1 </dev/null &
  pid=$!
  remember "agent-$1" "$pid"
  wait_until 60 "the agent of $1 is there" agent_is_there "$1"
}
agent_is_there() { as alice events search --type node.joined --json 2>/dev/null | grep -q "\"name\":\"$1\""; }

# as NAME ARGUMENT…: the client of one of the demo's people.
as() {
  local who=$1
  shift
  CUSTODY_HOME=$demo/$who env -u SSH_AUTH_SOCK "$custody" "$@"
}

# ssh_as NAME ARGUMENT…: the stock client, with the configuration that `custody login` wrote.
ssh_as() {
  local who=$1
  shift
  env -u SSH_AUTH_SOCK ssh -F "$demo/$who/ssh_config" -o BatchMode=yes "$@"
}

# write_env: what a detached demo tells those who use it.
write_env() {
  local log_key restart agent_pid api_port ssh_port loki_port opensearch_port kafka_port
  # shellcheck source=/dev/null
  source "$demo/ports"
  log_key=$(curl --silent --fail --cacert "$server_ca" "https://127.0.0.1:$api_port/v1/authorities" |
    sed -n 's/.*"log_key" *: *"\([^"]*\)".*/\1/p')
  # alice's, for whom the nodes' bare names do as well.
  sed '/^Host /s/\*\.custody$/*.custody web-1 db-1/' "$demo/alice/ssh_config" >"$demo/ssh_config"
  [[ -n $log_key ]] || fail "the API doesn't tell the log's key"
  printf -v restart %q "$top/demo/restart.sh"
  [[ -z ${CUSTODY_DEMO:-} ]] || printf -v restart 'CUSTODY_DEMO=%q %s' "$demo" "$restart"
  {
    printf 'CUSTODY_SSH=%q\n' "127.0.0.1:$ssh_port"
    printf 'CUSTODY_SSH_CONFIG=%q\n' "$demo/ssh_config"
    printf 'CUSTODY_NODE=%q\n' web-1
    printf 'CUSTODY_LOGIN=%q\n' root
    printf 'CUSTODY_IDENTITY=%q\n' "$demo/alice/id"
    printf 'CUSTODY_API=%q\n' "https://127.0.0.1:$api_port"
    printf 'CUSTODY_CA=%q\n' "$server_ca"
    printf 'CUSTODY_CLIENT_CERT=%q\n' "$demo/alice/client.pem"
    printf 'CUSTODY_CLIENT_KEY=%q\n' "$demo/alice/client.key"
    printf 'CUSTODY_LOG_URL=%q\n' "https://127.0.0.1:$api_port/log"
    printf 'CUSTODY_LOG_KEY=%q\n' "$log_key"
    printf 'CUSTODY_DATA=%q\n' "$data"
    printf 'CUSTODY_PID=%q\n' "$(ours custodyd)"
    printf 'CUSTODY_RESTART=%q\n' "$restart"
    if agent_pid=$(ours agent-web-1); then printf 'CUSTODY_AGENT_PID=%q\n' "$agent_pid"; fi
    stores_env
  } >"$demo/env.new"
  mv "$demo/env.new" "$demo/env"
}
