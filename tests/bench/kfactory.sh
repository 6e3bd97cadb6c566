#!/bin/bash
# Our side of the benchmark: converts the base, then converts it again, and prints one JSON object with the seconds of
# each part, from the events that `--progress json` writes. Runs as a plain user with a sub-id range.

set -euo pipefail
# shellcheck source=tests/bench/common.sh
. "$(dirname "$0")/common.sh"

usage() {
    cat >&2 << 'USAGE'
usage: kfactory.sh PROGRAM BASE DEST BINARIES

  PROGRAM   the kfactory program
  BASE      image in a registry to start from, such as 127.0.0.1:5300/debian:12
  DEST      where to push, such as 127.0.0.1:5300/bench/kfactory:v1.0.0
  BINARIES  directory with the Kairos programs, laid out as in the image

environment:
  KF_BENCH_STORAGE  directory for the store, on a local file system; must be empty or absent (required)
USAGE
    exit 2
}

[ $# -eq 4 ] || usage
program=$1 base=$2 dest=$3 binaries=$4
storage=${KF_BENCH_STORAGE:-}
[ -n "$storage" ] || usage
if [ -n "$(ls -A "$storage" 2> /dev/null)" ]; then
    echo "kfactory.sh: $storage is not empty: an earlier run would be measured too" >&2
    exit 1
fi
mkdir -p "$storage"
events=$storage/events

convert() {
    "$program" convert "$base" "$dest" --framework "dir:$binaries" --store "$storage/store" --progress json \
        > "$storage/result" 2> "$events" || {
        echo "kfactory.sh: the conversion failed" >&2
        tail -n 5 "$events" >&2
        exit 1
    }
}

# Prints the sum of the seconds of all events that have both texts.
sum() {
    grep -F -- "$1" "$events" | grep -F -- "$2" | sed -n 's/.*"seconds":\([0-9.e-]*\).*/\1/p' |
        awk '{ s += $1 } END { printf "%.3f", s }'
}
# Prints when the first, or the last, event with a text came, in seconds since the start.
when() { grep -F -- "$2" "$events" | "$1" -n 1 | sed -n 's/.*"elapsed":\([0-9.]*\).*/\1/p'; }
calc() { awk "BEGIN { printf \"%.1f\", $1 }"; }

memory=$storage/memory
watch_memory "$memory" &
watcher=$!
trap 'kill "$watcher" 2> /dev/null || true' EXIT

TIMEFORMAT='%U %S'
start=$(now)
cpu=$({ time convert; } 2>&1)
whole=$(as_seconds $(($(now) - start)))
kill "$watcher" 2> /dev/null || true
cp "$events" "$storage/events.first"

download=$(calc "$(sum '"transfer-done"' '"verb":"download"') + $(sum '"command-done"' '--quiet update"')")
step() { sum '"step-done"' "\"step\":\"$1\""; }
packages=$(calc "$(step installPackages) - $download")
kernel=$(calc "$(step installKernel)")
initrd=$(calc "$(step initrd)")
pull=$(calc "$(when head '"step-started"')")
steps=$(sum '"step-done"' '"step"')
files=$(calc "$steps - $(step installPackages) - $kernel - $initrd")
# What is left to do when the last step has ended: everything before it was hidden behind the steps.
rest=$(calc "$whole - $(when tail '"step-done"')")

start=$(now)
convert
warm=$(as_seconds $(($(now) - start)))
grep -q '"event":"step-started"' "$events" && {
    echo "kfactory.sh: the second conversion ran a step" >&2
    exit 1
}

read -r peak largest < "$memory"
cpu=$(awk '{ printf "%.1f", $1 + $2 }' <<< "$cpu")
cat << JSON
{"tool":"kfactory","tool_version":"$("$program" --version | cut -d ' ' -f 2)","pull_seconds":$pull,"download_seconds":$download,"packages_seconds":$packages,"kernel_seconds":$kernel,"initrd_seconds":$initrd,"files_seconds":$files,"commit_push_seconds":$rest,"overhead_seconds":$(calc "$whole - $packages - $kernel - $initrd - $download"),"whole_seconds":$whole,"whole_without_download_seconds":$(calc "$whole - $download"),"whole_cpu_seconds":$cpu,"warm_seconds":$warm,"peak_rss_mib":$((peak / 1024)),"largest_process_rss_mib":$((largest / 1024))}
JSON
