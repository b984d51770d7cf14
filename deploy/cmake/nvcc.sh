#!/usr/bin/env bash
# nvcc.sh NOTES COMMAND...: compiles, and keeps what ptxas says of registers and memory in the file NOTES.
set -euo pipefail
notes=$1
shift
if ! "$@" 2>"$notes.new"; then
  grep -v '^ptxas info' "$notes.new" >&2 || true
  rm -f "$notes.new"
  exit 1
fi
# Anything else is a warning that nvcc let pass.
if grep -vE '^(ptxas info|    [0-9]+ bytes stack frame)' "$notes.new" >&2; then
  exit 1
fi
mv "$notes.new" "$notes"
