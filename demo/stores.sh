# shellcheck shell=bash disable=SC2154 # lib.sh says where things lie; ports are read from the demo's file.
# Sourced by lib.sh: the stores that the demo delivers to when SINKS names them. Each is a server of others on loopback,
# with its data in the demo's folder; Loki has the configuration and the alerts of docker/compose.yaml.

# The sinks' own names for where they deliver to.
loki_tenant=custody
opensearch_stream=logs-custody.events-default
kafka_topic=custody-events

# Which are wanted is `stores`: SINKS=loki,opensearch,kafka.
read_stores() {
  local name
  IFS=, read -r -a stores <<<"${SINKS:-}"
  for name in "${stores[@]}"; do
    [[ $name =~ ^(loki|opensearch|kafka)$ ]] || fail "SINKS names $name: there are loki, opensearch and kafka, with commas between"
  done
}

# with_progress WHAT COMMAND…: tells how long it has been at it; what the command says is shown when it fails.
with_progress() {
  local what=$1 said begun=$SECONDS pid code=0
  shift
  said=$(mktemp)
  "$@" >"$said" 2>&1 &
  pid=$!
  if [[ -t 2 ]]; then
    while kill -0 "$pid" 2>/dev/null; do
      printf '\r%s … %d s' "$what" $((SECONDS - begun)) >&2
      sleep 1
    done
    printf '\r\033[K' >&2
  else
    printf '%s …\n' "$what" >&2
  fi
  wait "$pid" || code=$?
  ((code == 0)) || cat "$said" >&2
  rm -f "$said"
  return "$code"
}

# run_store NAME PORT READY PROGRAM ARGUMENT…: starts it, and waits until it listens itself and the command READY succeeds.
run_store() {
  local name=$1 port=$2 ready=$3 pid end=$((SECONDS + 180))
  shift 3
  setsid "$@" >"$demo/$name.log" 2>&1 </dev/null &
  pid=$!
  remember "$name" "$pid"
  until listens "$pid" "$port" && "$ready"; do
    if ! kill -0 "$pid" 2>/dev/null || ((SECONDS >= end)); then
      tail -n 20 "$demo/$name.log" >&2
      fail "$name doesn't serve; see $demo/$name.log"
    fi
    sleep 0.1
  done
}

answers() { curl --silent --fail --max-time 5 --output /dev/null "$@"; }
loki_is_ready() { answers "http://127.0.0.1:$loki_port/ready"; }
opensearch_is_ready() { answers "http://127.0.0.1:$opensearch_port/_cluster/health?wait_for_status=yellow&timeout=1s"; }
kafka_is_ready() { kcat -b "127.0.0.1:$kafka_port" -L -m 5 >/dev/null 2>&1; }

start_loki() {
  local dir=$demo/loki text program
  program=$("$top/setup/loki/install.sh" --print)/loki
  mkdir -p "$dir/rules/$loki_tenant"
  cp "$top/schemas/loki/alerts.yaml" "$dir/rules/$loki_tenant/"
  text=$(<"$top/docker/loki.yaml")
  printf '%s\n' "${text//: \/loki/: $dir}" >"$dir/loki.yaml"
  # Loopback only, and no looking for others of its kind.
  run_store loki "$loki_port" loki_is_ready "$program" -config.file="$dir/loki.yaml" -log.level=warn \
    -server.http-listen-address=127.0.0.1 -server.http-listen-port="$loki_port" \
    -server.grpc-listen-address=127.0.0.1 -server.grpc-listen-port="$loki_grpc_port" \
    -ingester.lifecycler.addr=127.0.0.1 -frontend.instance-addr=127.0.0.1 -memberlist.bind-addr=127.0.0.1 \
    -query-scheduler.use-scheduler-ring=false -ingester.min-ready-duration=0s -ingester.final-sleep=0s
}

# java_store NAME FOLDER PORT READY HEAP ARGUMENT…: a launcher of setup/java.
java_store() {
  local name=$1 home port=$3 ready=$4 heap=$5
  home=$("$top/setup/java/install.sh" --print "$2")
  shift 5
  mkdir -p "$demo/$name/tmp"
  run_store "$name" "$port" "$ready" "$home/jdk/bin/java" -Xms"$heap" -Xmx"$heap" -XX:+UseSerialGC -XX:TieredStopAtLevel=1 \
    -Djava.io.tmpdir="$demo/$name/tmp" -Dorg.slf4j.simpleLogger.defaultLogLevel=warn \
    -XX:SharedArchiveFile="$home/classes.jsa" -cp "$home/lib/*" "$@"
}

start_opensearch() {
  java_store opensearch opensearch-2 "$opensearch_port" opensearch_is_ready 512m OpenSearch "$demo/opensearch/node" \
    http.port="$opensearch_port" transport.port="$opensearch_transport_port" network.host=127.0.0.1 \
    cluster.routing.allocation.disk.threshold_enabled=false
}

start_kafka() {
  mkdir -p "$demo/kafka"
  cat >"$demo/kafka/server.properties" <<P
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$kafka_controller_port
listeners=PLAINTEXT://127.0.0.1:$kafka_port,CONTROLLER://127.0.0.1:$kafka_controller_port
advertised.listeners=PLAINTEXT://127.0.0.1:$kafka_port
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs=$demo/kafka/data
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
P
  java_store kafka kafka "$kafka_port" kafka_is_ready 256m Kafka "$demo/kafka"
}

# start_stores: those of `stores`, each on free ports that stand in the demo's file of ports.
start_stores() {
  local name port ports
  for name in "${stores[@]}"; do
    case $name in
      loki) ports="loki_port loki_grpc_port" ;;
      opensearch) ports="opensearch_port opensearch_transport_port" ;;
      kafka) ports="kafka_port kafka_controller_port" ;;
    esac
    for port in $ports; do
      free_port
      printf -v "$port" %s "$REPLY"
      printf '%s=%s\n' "$port" "$REPLY" >>"$demo/ports"
    done
    say "$name"
    "start_$name"
  done
}

# sink_settings: the sinks' part of the daemon's configuration.
sink_settings() {
  local name
  for name in "${stores[@]}"; do
    printf '\n[[sink]]\nname = "%s"\n[sink.%s]\n' "$name" "$name"
    case $name in
      loki) printf 'endpoint = { url = "http://127.0.0.1:%s" }\ntenant = "%s"\n' "$loki_port" "$loki_tenant" ;;
      opensearch) printf 'endpoint = { url = "http://127.0.0.1:%s" }\nstream = "%s"\n' "$opensearch_port" "$opensearch_stream" ;;
      kafka) printf 'brokers = ["127.0.0.1:%s"]\ntopic = "%s"\n' "$kafka_port" "$kafka_topic" ;;
    esac
  done
}

# shown COMMAND…: shows a command as one can type it, and runs it.
shown() {
  local word line='$'
  for word; do
    [[ $word =~ ^[A-Za-z0-9_./:=,-]+$ ]] || word=${word@Q}
    line+=" $word"
  done
  say "$line"
  "$@"
  say ""
}

# show_stores: that everything is there, proved by the program, and asked of each store itself.
show_stores() {
  local name
  local as_alice=(env "CUSTODY_HOME=$demo/alice" "$custody")
  shown "${as_alice[@]}" sinks ls
  for name in "${stores[@]}"; do
    shown "${as_alice[@]}" sinks verify "$name"
  done
  for name in "${stores[@]}"; do
    case $name in
      loki)
        shown curl --silent --get --header "X-Scope-OrgID: $loki_tenant" "http://127.0.0.1:$loki_port/loki/api/v1/query" \
          --data-urlencode 'query=sum by (type) (count_over_time({job="custody"} | user="bob" [1h]))'
        ;;
      opensearch)
        shown curl --silent --header 'Content-Type: application/json' \
          "http://127.0.0.1:$opensearch_port/logs-custody.events-*/_search?size=0&filter_path=aggregations.types.buckets" \
          --data '{"query":{"term":{"user.name":"bob"}},"aggs":{"types":{"terms":{"field":"custody.type"}}}}'
        ;;
      kafka)
        shown kcat -q -X isolation.level=read_committed -b "127.0.0.1:$kafka_port" -t "$kafka_topic" -C -e -c 3 -f '%k %h\n'
        ;;
    esac
  done
}

# stores_env: their part of what a demo tells those who use it.
stores_env() {
  [[ -z ${loki_port:-} ]] || printf 'LOKI_URL=%q\nLOKI_TENANT=%q\n' "http://127.0.0.1:$loki_port" "$loki_tenant"
  [[ -z ${opensearch_port:-} ]] ||
    printf 'OPENSEARCH_URL=%q\nOPENSEARCH_STREAM=%q\n' "http://127.0.0.1:$opensearch_port" "$opensearch_stream"
  [[ -z ${kafka_port:-} ]] || printf 'KAFKA_BOOTSTRAP=%q\nKAFKA_TOPIC=%q\n' "127.0.0.1:$kafka_port" "$kafka_topic"
}
