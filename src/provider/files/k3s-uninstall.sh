#!/bin/sh
# Stops the k3s @role@ and removes what it keeps on this machine. The program and its services belong to the image, which is
# read-only: an upgrade to an image without k3s removes them.

service=@service@
data=${K3S_DATA_DIR:-/var/lib/rancher/k3s}
if [ "$(id -u)" != 0 ]; then
    exec sudo --preserve-env=K3S_DATA_DIR "$0" "$@"
fi

/usr/bin/k3s-killall.sh
if command -v systemctl >/dev/null; then
    systemctl disable "$service"
    systemctl reset-failed "$service"
fi
if command -v rc-update >/dev/null; then
    rc-update delete "$service" default
fi
# A mount of the persistent partition cannot be removed, what it holds can.
for dir in /etc/rancher/k3s "$data" /var/lib/kubelet /run/k3s /run/flannel; do
    if [ -d "$dir" ]; then find "$dir" -xdev -mindepth 1 -delete; fi
done
