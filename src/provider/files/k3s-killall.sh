#!/bin/sh
# Stops k3s and everything it started on this machine. Configuration and data stay.

data=${K3S_DATA_DIR:-/var/lib/rancher/k3s}
if [ "$(id -u)" != 0 ]; then
    exec sudo --preserve-env=K3S_DATA_DIR "$0" "$@"
fi
# k3s brings tools that the system may lack.
for dir in "$data"/data/*/bin; do
    if [ -d "$dir" ]; then PATH=$PATH:$dir:$dir/aux; fi
done
export PATH

stop_services() {
    for unit in /etc/systemd/system/k3s*.service; do
        if [ -s "$unit" ]; then systemctl stop "${unit##*/}"; fi
    done
    for script in /etc/init.d/k3s*; do
        if [ -x "$script" ]; then "$script" stop; fi
    done
}

# The shims are what containers run under; they do not end with k3s.
shims() {
    ps -e -o pid= -o args= | awk -v data="$data/data/" 'index($2, data) == 1 && $2 ~ "/bin/containerd-shim" { print $1 }'
}

with_descendants() {
    ps -e -o pid= -o ppid= | awk -v top="$1" '
        { parent[$1] = $2 }
        END {
            for (pid in parent) {
                for (above = pid; above != top && (above in parent); above = parent[above]) continue
                if (above == top) print pid
            }
        }'
}

unmount_below() {
    while read -r _ place _; do
        case $place in "$1"*) echo "$place" ;; esac
    done </proc/self/mounts | sort -r | while read -r place; do
        if umount -f "$place"; then rmdir "$place" 2>/dev/null || rm -f "$place"; fi
    done
}

remove_network() {
    if command -v ip >/dev/null; then
        ip -o link show 2>/dev/null | awk -F': ' '/master cni0/ { sub(/@.*/, "", $2); print $2 }' | while read -r link; do
            ip link delete "$link"
        done
        for link in cni0 flannel.1 flannel-v6.1 kube-ipvs0 flannel-wg flannel-wg-v6; do
            ip link delete "$link" 2>/dev/null
        done
        ip netns show 2>/dev/null | awk '/cni-/ { print $1 }' | while read -r space; do
            ip netns delete "$space"
        done
    fi
    rm -rf /var/lib/cni
    for tables in iptables ip6tables; do
        if command -v $tables-save >/dev/null; then
            $tables-save | grep -v -e KUBE- -e CNI- | grep -iv flannel | $tables-restore
        fi
    done
}

stop_services
for shim in $(shims); do
    # shellcheck disable=SC2046 # one word for each process
    kill -9 $(with_descendants "$shim") 2>/dev/null
done
for prefix in /run/k3s /var/lib/kubelet/pods /var/lib/kubelet/plugins /run/netns/cni-; do
    unmount_below "$prefix"
done
remove_network
