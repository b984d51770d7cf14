#!/usr/bin/env bash
# What shows a mesh, on this machine and on loopback only: an OpenTelemetry Collector that takes its spans, Jaeger and
# Zipkin for traces, Prometheus for metrics. build.sh makes them the first time, which takes 15 minutes.
#
#   deploy/observability/up.sh [up]     start them, and serve until Ctrl-C (with --detach: in the background)
#   deploy/observability/up.sh down     stop them
#   deploy/observability/up.sh status   what runs; exit status 3 when nothing does
#
#   --port BASE         ports from BASE on (default 50300; the list is in deploy/observability/stack.py)
#   --sample PERCENT    of traces that nothing speaks for, how many are kept (default 10)
#   --decision-wait S   seconds from a trace's first span until it is kept or dropped (default 10)
#   --mesh DIR          state of the mesh whose metrics are scraped (default build/local, as of deploy/local.sh); it
#                       may start later and end before
#   --state DIR         logs, pids and data (default build/observability/state)
#   --detach            return when all are ready
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)

usage() {
  sed -n '2,/^set -euo/{/^set -euo/d;s/^# \{0,1\}//p;}' "${BASH_SOURCE[0]}"
}

bad_usage() {
  echo "up.sh: $*" >&2
  usage >&2
  exit 2
}

action='' detach=()
declare -A value=([port]=50300 [sample]=10 [decision-wait]=10 [mesh]=$root/build/local
  [state]=$root/build/observability/state)
while (($#)); do
  case $1 in
    up | down | status)
      [[ -z $action ]] || bad_usage "both $action and $1 given"
      action=$1
      ;;
    --port | --sample | --decision-wait | --mesh | --state)
      (($# >= 2)) || bad_usage "$1 needs a value"
      [[ -n $2 ]] || bad_usage "$1 is empty"
      value[${1#--}]=$2
      shift
      ;;
    --detach) detach=(--detach) ;;
    -h | --help)
      usage
      exit 0
      ;;
    *) bad_usage "unknown argument $1" ;;
  esac
  shift
done
action=${action:-up}
if ! [[ ${value[port]} =~ ^[1-9][0-9]{0,4}$ ]] || ((value[port] < 1024 || value[port] > 65500)); then
  bad_usage "--port is ${value[port]}; use 1024 to 65500"
fi
number='^[0-9]+(\.[0-9]+)?$'
if ! [[ ${value[sample]} =~ $number ]] || [[ $(printf '%s\n' "${value[sample]}" 100 | sort -g | tail -n 1) != 100 ]]; then
  bad_usage "--sample is ${value[sample]}; use 0 to 100"
fi
[[ ${value[decision-wait]} =~ $number ]] || bad_usage "--decision-wait is ${value[decision-wait]}; use seconds"

if [[ $action == up ]]; then
  "$here/build.sh"
fi
exec python3 "$here/stack.py" "$action" "${detach[@]}" --port="${value[port]}" --sample="${value[sample]}" \
  --decision-wait="${value[decision-wait]}" --mesh="$(realpath -m "${value[mesh]}")" --state="${value[state]}" \
  --cache="${EXPERTMESH_OBSERVABILITY:-$root/build/observability}"
