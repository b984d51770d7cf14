#!/usr/bin/env bash
# A mesh on this machine: one router and some expert services on loopback.
#
#   deploy/local.sh [up]     install what is missing, build, start, run the main job, keep serving
#                            until Ctrl-C (with --detach: in the background)
#   deploy/local.sh down     stop it
#   deploy/local.sh status   what runs, and what it serves; exit status 3 when nothing runs
#
#   --model DIR    Hugging Face checkpoint to serve (default: deploy/demo_model, a small trained one)
#   --prompt TEXT  what the model writes on from, as the main job; a model that cannot be decoded here, or has
#                  no tokenizer.json, gets batches of random tokens instead, checked against a reference
#   --nodes N      expert services (default 4)
#   --replicas R   nodes that hold each expert (default 1; of the demo model 2, so that one may die)
#   --port BASE    router on BASE, nodes on BASE+1..., metrics on BASE+100... (default 50050)
#   --state DIR    logs, pids and mesh.json (default build/local)
#   --detach       return when the main job is done, and leave the mesh running
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
host=127.0.0.1
ready_seconds=600

usage() {
  sed -n '2,/^set -euo/{/^set -euo/d;s/^# \{0,1\}//p;}' "${BASH_SOURCE[0]}"
}

die() {
  echo "local.sh: $*" >&2
  exit 1
}

bad_usage() {
  echo "local.sh: $*" >&2
  usage >&2
  exit 2
}

bold='' plain=''
if [[ -t 1 ]]; then
  bold=$'\e[1m' plain=$'\e[0m'
fi
say() {
  printf '%s%s%s\n' "$bold" "$*" "$plain"
}

# --- Arguments -------------------------------------------------------------------------------------

action=up model='' prompt='And the king said unto ' nodes=4 replicas='' base=50050 state=$root/build/local detach=0
action_given=0
while (($#)); do
  case $1 in
    up | down | status)
      ((!action_given)) || bad_usage "both $action and $1 given"
      action=$1 action_given=1
      ;;
    --model | --prompt | --nodes | --replicas | --port | --state)
      (($# >= 2)) || bad_usage "$1 needs a value"
      case $1 in
        --model) model=$2 ;;
        --prompt) prompt=$2 ;;
        --nodes) nodes=$2 ;;
        --replicas) replicas=$2 ;;
        --port) base=$2 ;;
        --state) state=$2 ;;
      esac
      shift
      ;;
    --detach) detach=1 ;;
    -h | --help)
      usage
      exit 0
      ;;
    *) bad_usage "unknown argument $1" ;;
  esac
  shift
done
[[ $nodes =~ ^[1-9][0-9]?$ ]] || bad_usage "--nodes is $nodes; use 1 to 99"
if ! [[ $base =~ ^[1-9][0-9]{0,4}$ ]] || ((base < 1024 || base + 100 + nodes > 65535)); then
  bad_usage "--port is $base; use 1024 to $((65535 - 100 - nodes))"
fi
[[ -n $prompt ]] || bad_usage "--prompt is empty; give some text to go on from"
# Of the demo model float32 is as fast, and gives the text that transformers gives.
compute_dtype=auto
if [[ -z $model ]]; then
  model=$root/deploy/demo_model compute_dtype=f32
  replicas=${replicas:-$((nodes > 1 ? 2 : 1))}
fi
replicas=${replicas:-1}
if ! [[ $replicas =~ ^[1-9][0-9]?$ ]] || ((replicas > nodes)); then
  bad_usage "--replicas is $replicas; use 1 to $nodes, the nodes"
fi
if [[ $action == up ]]; then
  [[ -f $model/config.json ]] || bad_usage "--model is $model; there is no config.json in it"
  model=$(cd "$model" && pwd)
fi
[[ -n $state ]] || bad_usage "--state is empty; name a folder"
if [[ $action == up ]]; then
  mkdir -p "$state/logs"
fi
if [[ -d $state ]]; then
  state=$(cd "$state" && pwd)
fi
logs=$state/logs
pids=$state/pids

# --- Processes -------------------------------------------------------------------------------------
# One line a process in $pids: name, pid, and when it started (in clock ticks since boot), so that a
# pid that was given to someone else meanwhile is never taken for ours.

started_at() {
  local stat
  { stat=$(<"/proc/$1/stat"); } 2>/dev/null || return 1
  # The second field, (name), may hold spaces; a zombie has ended.
  read -r -a stat <<<"${stat##*) }"
  [[ ${stat[0]} != Z ]] || return 1
  printf '%s' "${stat[19]}"
}

alive() { # pid, start
  [[ $(started_at "$1") == "$2" ]]
}

# Lines of $pids whose process runs.
running() {
  [[ -f $pids ]] || return 0
  local name pid start
  while read -r name pid start; do
    if alive "$pid" "$start"; then
      printf '%s %s %s\n' "$name" "$pid" "$start"
    fi
  done <"$pids"
}

# Asks everything in $pids to end, waits, and kills what did not.
stop_all() {
  local name pid start list
  list=$(running)
  while read -r name pid start; do
    if [[ -n $pid ]]; then
      # The router goes first, so that it does not report nodes as lost.
      kill -TERM "$pid" 2>/dev/null || true
      # A stopped process would not see it.
      kill -CONT "$pid" 2>/dev/null || true
    fi
  done <<<"$(sort -r <<<"$list")"
  local tries=0
  while [[ -n $(running) ]] && ((tries++ < 150)); do
    sleep 0.1
  done
  while read -r name pid start; do
    if [[ -n $pid ]]; then
      kill -KILL "$pid" 2>/dev/null || true
    fi
  done <<<"$(running)"
  while [[ -n $(running) ]]; do
    sleep 0.05
  done
  rm -f "$pids" "$state/mesh.json" "$state"/*.port
}

# launch NAME COMMAND...: in the background, in a session of its own so that Ctrl-C reaches only us.
launch() {
  local name=$1
  shift
  rm -f "$state/$name.port"
  setsid "$@" --port-file "$state/$name.port" </dev/null >"$logs/$name.log" 2>&1 9>&- &
  local pid=$!
  children[$pid]=$name
  local start
  start=$(started_at "$pid") || start=0
  printf '%s %s %s\n' "$name" "$pid" "$start" >>"$pids"
}

# --- down and status -------------------------------------------------------------------------------

# One `up` at a time works on a state folder, and holds this lock for as long as it lives.
lock() { # seconds to wait
  exec 9>"$state/lock"
  flock -w "$1" 9 || die "another deploy/local.sh up is at work on $state; stop that one with Ctrl-C"
}

down() {
  if [[ -z $(running) ]]; then
    if [[ -f $state/lock ]]; then
      # One that is still building has nothing to stop yet.
      lock 0
    fi
    rm -f "$pids" "$state/mesh.json"
    echo "Nothing is running in $state."
    return
  fi
  # Tells an `up` that serves in another terminal why its router ends.
  : >"$state/stopping"
  stop_all
  echo "Stopped the mesh of $state."
}

status() {
  local list router cli
  list=$(running)
  if [[ -z $list || ! -f $state/mesh.json ]]; then
    echo "Nothing is running in $state."
    return 3
  fi
  local name pid start known=0
  while read -r name pid start; do
    known=$((known + 1))
    if alive "$pid" "$start"; then
      echo "$name  pid $pid"
    else
      echo "$name  ended; see $logs/$name.log"
    fi
  done <"$pids"
  router=$(sed -n 's/.*"router": "\([^"]*\)".*/\1/p' "$state/mesh.json")
  cli=$(binary expertmesh)
  echo
  "$cli" topology --router "$router"
  # Fewer running than started: not well.
  (($(wc -l <<<"$list") == known))
}

# --- up --------------------------------------------------------------------------------------------

# Where the build left a program.
binary() {
  local path
  path=$(find "$root/build/release" -maxdepth 4 -type f -name "$1" -perm -u+x -print -quit 2>/dev/null)
  [[ -n $path ]] || die "no program $1 in $root/build/release; run deploy/local.sh up"
  printf '%s' "$path"
}

refuse_ports_in_use() {
  local port i
  local ports=("$base")
  for ((i = 1; i <= nodes; i++)); do ports+=($((base + i))); done
  for ((i = 0; i <= nodes; i++)); do ports+=($((base + 100 + i))); done
  for port in "${ports[@]}"; do
    if (exec 3<>"/dev/tcp/$host/$port") 2>/dev/null; then
      die "port $port of $host is in use; stop what listens there or choose others with --port"
    fi
  done
}

# Runs a step with its output in a log, shown when it fails (or as it comes, on a terminal).
step() { # log name, command...
  local log=$logs/$1.log
  shift
  if [[ -t 1 && $1 == cmake && $2 == --build ]]; then
    "$@" || die "failed: $*"
  elif ! "$@" >"$log" 2>&1; then
    tail -n 30 "$log" >&2
    die "failed: $* (whole output: $log)"
  fi
}

build() {
  "$root/deploy/packages.sh" install
  say "Building (build/release)"
  # A first build is quicker with precompiled headers; a tree that somebody works on keeps its settings.
  local first=()
  [[ -f $root/build/release/CMakeCache.txt ]] || first=(-DEXPERTMESH_PRECOMPILE=ON)
  step configure cmake -S "$root" --preset release "${first[@]}"
  step build cmake --build "$root/build/release" --target expertmesh-router expertmesh-expert expertmesh
  router_bin=$(binary expertmesh-router)
  expert_bin=$(binary expertmesh-expert)
  cli_bin=$(binary expertmesh)
}

start_processes() {
  local cores threads i list=''
  cores=$(nproc)
  threads=$((cores / nodes > 1 ? cores / nodes : 1))
  say "Starting $nodes nodes and a router on $host:$base"
  : >"$pids"
  for ((i = 0; i < nodes; i++)); do
    list+=${list:+,}$host:$((base + 1 + i))
    launch "node$i" "$expert_bin" --model "$model" --shard "$i/$nodes" \
      --replicas "$replicas" --compute-dtype "$compute_dtype" \
      --listen "$host:$((base + 1 + i))" --metrics-listen "$host:$((base + 101 + i))" \
      --node-id "node$i" --threads "$threads"
  done
  launch router "$router_bin" --model "$model" --nodes "$list" --compute-dtype "$compute_dtype" \
    --listen "$host:$base" --metrics-listen "$host:$((base + 100))"
  write_mesh_json "$list"
}

json_list() {
  local IFS=,
  local item out=''
  for item in $1; do
    out+=${out:+, }\"$item\"
  done
  printf '[%s]' "$out"
}

write_mesh_json() {
  local i metrics=''
  for ((i = 1; i <= nodes; i++)); do metrics+=${metrics:+,}$host:$((base + 100 + i)); done
  local escaped=${model//\\/\\\\}
  cat >"$state/mesh.json.tmp" <<JSON
{
  "router": "$host:$base",
  "nodes": $(json_list "$1"),
  "metrics": "$host:$((base + 100))",
  "node_metrics": $(json_list "$metrics"),
  "model": "${escaped//\"/\\\"}"
}
JSON
  mv "$state/mesh.json.tmp" "$state/mesh.json"
}

# Runs a program so that a signal to this script is acted on at once, and not when the program ends.
attended() {
  "$@" 9>&- &
  helper=$!
  local code=0
  wait "$helper" || code=$?
  helper=0
  return "$code"
}

wait_until_ready() {
  "$cli_bin" health --router "$host:$base" --wait "$ready_seconds" >"$logs/health.log" 2>&1 9>&- &
  helper=$!
  local ended=0 code=0 name
  wait -n -p ended "$helper" "${!children[@]}" || code=$?
  if [[ $ended != "$helper" ]]; then
    name=${children[$ended]}
    tail -n 15 "$logs/$name.log" >&2
    die "$name ended while starting (whole output: $logs/$name.log)"
  fi
  helper=0
  if ((code)); then
    tail -n 15 "$logs/health.log" >&2
    die "the mesh was not ready after $ready_seconds s (logs: $logs)"
  fi
}

# Text, where that is possible; else batches of tokens through every layer, checked against a reference.
main_job() {
  if [[ -f $model/tokenizer.json ]]; then
    echo
    local code=0
    attended "$cli_bin" generate --router "$host:$base" --model "$model" --prompt "$prompt" \
      --max-tokens 300 --temperature 0.7 --top-p 0.95 --seed 1 --echo --report || code=$?
    if ((code == 0)); then
      writes=1
    fi
    # 3: a model of a kind that cannot be decoded here.
    if ((code != 3)); then
      return "$code"
    fi
    say "No text of this model; sending batches of tokens instead"
  fi
  attended "$cli_bin" demo --router "$host:$base" --model "$model" --callers 4
}

show_how_to_write() {
  local node pid quoted
  read -r node pid _ < <(grep '^node' "$pids")
  printf -v quoted '%q' "$model"
  cat <<TEXT

${bold}Try next${plain}
  PATH=${cli_bin%/*}:\$PATH
  expertmesh generate --router $host:$base --model $quoted --prompt 'Thus saith the LORD'
  expertmesh generate --router $host:$base --model $quoted --chat --temperature 0.7
  expertmesh generate --router $host:$base --model $quoted --bench
TEXT
  if ((replicas > 1)); then
    echo "  kill -9 $pid    # $node; its experts have a replica, and the text goes on"
  fi
}

show_how_to_call() {
  cat <<TEXT

The mesh serves on $host:$base. State and logs: $state
TEXT
  if ((writes)); then
    show_how_to_write
  fi
  cat <<TEXT

${bold}Python${plain}
  deploy/venv.sh
  build/venv/bin/python -c '
import expertmesh, numpy
with expertmesh.Client("$host:$base") as client:
    model = client.describe()
    layer = model.layers[0].layer
    x = numpy.random.default_rng(0).standard_normal((4, model.d_model), dtype=numpy.float32)
    options = expertmesh.ForwardOptions(return_routing=True)
    result = client.forward(layer, x, options)
    print(result.output.shape, result.expert_ids[0])
'
${bold}C++${plain}
  cmake --build build/release && cmake --install build/release --prefix build/install
  cmake -S client/cpp/examples -B build/examples -DCMAKE_PREFIX_PATH=\$PWD/build/install
  cmake --build build/examples && build/examples/forward $host:$base
${bold}grpcurl${plain}
  grpcurl -plaintext $host:$base expertmesh.v1.Router/DescribeModel
  grpcurl -plaintext $host:$base expertmesh.v1.Control/GetTopology

TEXT
}

# Serves until Ctrl-C, or until the router ends.
serve() {
  echo "Serving; Ctrl-C stops it."
  local ended name
  while true; do
    ended=0
    wait -n -p ended "${!children[@]}" || true
    name=${children[$ended]}
    if [[ -f $state/stopping ]]; then
      echo "Stopped by deploy/local.sh down."
      return 0
    fi
    if [[ $name == router ]]; then
      die "the router ended (log: $logs/router.log); stopping the nodes"
    fi
    echo "$name ended (log: $logs/$name.log); the rest goes on." >&2
    unset "children[$ended]"
  done
}

up() {
  if [[ -n $(running) ]]; then
    die "a mesh is running in $state; stop it with deploy/local.sh down, or give another --state"
  fi
  lock 10
  rm -f "$state/stopping"
  refuse_ports_in_use
  build
  trap on_exit EXIT
  trap 'interrupted 130' INT
  trap 'interrupted 143' TERM HUP
  start_processes
  wait_until_ready
  main_job || die "the main job failed (logs: $logs)"
  show_how_to_call
  if ((detach)); then
    trap - EXIT INT TERM HUP
    echo "It runs in the background; stop it with deploy/local.sh down."
    return
  fi
  serving=1
  serve
}

on_exit() {
  local code=$?
  trap - EXIT
  # A second Ctrl-C must not leave processes behind.
  trap '' INT TERM HUP
  if ((helper)); then
    kill "$helper" 2>/dev/null || true
  fi
  stop_all
  exit "$code"
}

# Ctrl-C is how serving is meant to end; before that it is a start that failed.
interrupted() { # exit status of a start that was broken off
  echo
  if ((serving)); then
    echo "Stopping."
    exit 0
  fi
  exit "$1"
}

# Processes we started, name by pid; a program that we wait for; whether the mesh serves; whether the model has
# written a text.
declare -A children=()
helper=0 serving=0 writes=0
case $action in
  up) up ;;
  down) down ;;
  status) status ;;
esac
