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

# Finds packages and builds; deploy/supervisor starts, watches and ends the programs.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build_folder=$root/build/release
supervisor=(python3 "$root/deploy/supervisor")

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
# For the demo model float32 is as fast, and gives the text that transformers gives.
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

# --- Build -----------------------------------------------------------------------------------------

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
  [[ -f $build_folder/CMakeCache.txt ]] || first=(-DEXPERTMESH_PRECOMPILE=ON)
  step configure cmake -S "$root" --preset release "${first[@]}"
  step build cmake --build "$build_folder" --target expertmesh-router expertmesh-expert expertmesh
}

# --- Hand over -------------------------------------------------------------------------------------

up() {
  # The supervisor needs Python, which is one of the packages.
  command -v python3 >/dev/null || "$root/deploy/packages.sh" install
  # One `up` at a time works on a state folder. The supervisor takes this lock, and inherits it at the end.
  exec 9>"$state/lock"
  "${supervisor[@]}" claim --state="$state" --port="$base" --nodes="$nodes" --lock-fd=9
  build
  local flags=()
  if ((detach)); then
    flags=(--detach)
  fi
  exec "${supervisor[@]}" up --state="$state" --build="$build_folder" --model="$model" \
    --compute-dtype="$compute_dtype" --prompt="$prompt" --nodes="$nodes" --replicas="$replicas" \
    --port="$base" "${flags[@]}"
}

need_python() {
  command -v python3 >/dev/null || die "there is no python3; deploy/local.sh up installs it"
}

case $action in
  up) up ;;
  down)
    need_python
    exec "${supervisor[@]}" down --state="$state"
    ;;
  status)
    need_python
    exec "${supervisor[@]}" status --state="$state" --build="$build_folder"
    ;;
esac
