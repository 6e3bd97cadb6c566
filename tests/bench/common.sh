#!/bin/bash
# Shared by both sides of the benchmark; sourced, not run.

# Writes the peak memory of this process and all its descendants to $1, in KiB: `<sum> <largest single process>`.
# Shared pages count once per process, so the sum is an upper bound.
watch_memory() {
    exec awk -v root="$$" -v page=4 -v out="$1" '
        function sample(   list, line, f, n, i, pid, seen, grew, total) {
            delete parent; delete rss; delete mine
            list = "cat /proc/[0-9]*/stat 2>/dev/null"
            while ((list | getline line) > 0) {
                pid = line + 0
                sub(/^.*\) /, "", line)
                n = split(line, f, " ")
                parent[pid] = f[2]; rss[pid] = f[22] * page
            }
            close(list)
            mine[root] = 1
            do {
                grew = 0
                for (pid in parent) if (!(pid in mine) && (parent[pid] in mine)) { mine[pid] = 1; grew = 1 }
            } while (grew)
            total = 0
            for (pid in mine) {
                total += rss[pid]
                if (rss[pid] > largest) largest = rss[pid]
            }
            if (total > peak) peak = total
            print peak, largest > out
            close(out)
        }
        BEGIN { while (1) { sample(); if (system("sleep 0.5") != 0) exit } }'
}

now() { date +%s%N; }
as_seconds() { awk -v ns="$1" 'BEGIN { printf "%.1f", ns / 1e9 }'; }
