#!/bin/bash
# The other side of the benchmark: does with rootless buildah what a Kairos conversion of Debian 12 does, and prints
# one JSON object with the seconds of each part.
#
# Runs as a plain user with a sub-id range; buildah with chroot isolation and the overlay driver. Two phases give two
# commits, as kairos-init's stages do. Packages are downloaded before they are installed, so that the mirror's speed
# stands apart from the work; the archives lie outside the image and are never committed. Progress goes to stderr.

set -euo pipefail
# shellcheck source=tests/bench/common.sh
. "$(dirname "$0")/common.sh"

usage() {
    cat >&2 << 'USAGE'
usage: buildah.sh BASE DEST PACKAGES DRACUT BINARIES

  BASE      image in a registry to start from, such as 127.0.0.1:5300/debian:12
  DEST      repository to push to, such as 127.0.0.1:5300/bench/buildah; the tags are `install` and `init`
  PACKAGES  file with one base package per line
  DRACUT    directory with dracut's configuration and modules, laid out as in the image
  BINARIES  directory with the Kairos programs, laid out as in the image

environment:
  KF_BENCH_STORAGE  directory for buildah's storage, on a local file system; must be empty or absent (required)
  KF_BENCH_LOG      file for the output of all commands (default: $KF_BENCH_STORAGE/log)
USAGE
    exit 2
}

[ $# -eq 5 ] || usage
base=$1 dest=$2 packages_file=$3 dracut_dir=$4 binaries_dir=$5
storage=${KF_BENCH_STORAGE:-}
[ -n "$storage" ] || usage
if [ -n "$(ls -A "$storage" 2> /dev/null)" ]; then
    echo "buildah.sh: $storage is not empty: an earlier run would be measured too" >&2
    exit 1
fi
mkdir -p "$storage/run" "$storage/archives"
log=${KF_BENCH_LOG:-$storage/log}
kernel_packages=(linux-image-amd64 firmware-linux-free)
mapfile -t base_packages < "$packages_file"

# The user's own configuration of containers must not decide what is measured.
export CONTAINERS_STORAGE_CONF=$storage/storage.conf XDG_RUNTIME_DIR=$storage/run BUILDAH_ISOLATION=chroot
cat > "$CONTAINERS_STORAGE_CONF" << STORAGE
[storage]
driver = "overlay"
graphroot = "$storage/graph"
runroot = "$storage/run"
STORAGE

# CPU time of all descendants that have ended, in clock ticks. Unlike seconds it does not depend on who else is working.
ticks() { awk '{ print $16 + $17 }' "/proc/$$/stat"; }
whole_start=$(now)
declare -A seconds=() cpu=()

# Runs a command as part `$1`, and adds what it took to that part.
part() {
    local name=$1 start end ticks_before
    shift
    echo "[$name] $*" | tr '\n' ' ' | cut -c 1-150 >&2
    start=$(now) ticks_before=$(ticks)
    if ! "$@" >> "$log" 2>&1; then
        echo "buildah.sh: part $name failed: $*" >&2
        tail -n 30 "$log" >&2
        exit 1
    fi
    end=$(now)
    seconds[$name]=$((${seconds[$name]:-0} + end - start))
    cpu[$name]=$((${cpu[$name]:-0} + $(ticks) - ticks_before))
}

inside() {
    buildah run --env DEBIAN_FRONTEND=noninteractive --volume "$storage/archives:/var/cache/apt/archives" \
        "$container" -- "$@"
}
apt() { inside apt-get -y -o Dpkg::Use-Pty=0 -o DPkg::Options::=--force-confold "$@"; }
shell() { inside /bin/sh -euc "$1"; }
from() { container=$(buildah from --quiet --pull-always --tls-verify=false "$1"); }
from_local() { container=$(buildah from --quiet --pull-never "$1"); }
# The container stays: ext4 passes over inodes that were freed in the last five minutes, one by one, and makes every new file of
# whoever is measured next ten times slower.
commit() { buildah commit --quiet --format oci "$container" "$1"; }
push() { buildah push --quiet --tls-verify=false "$1" "docker://$2"; }

services='
systemctl enable fail2ban systemd-timesyncd ssh systemd-networkd
systemctl mask systemd-firstboot.service
chown root:root /usr/bin/sudo
chmod 4755 /usr/bin/sudo
mkdir -p /snap'

cleanup='
rm -f /var/lib/dbus/machine-id /etc/ssh/ssh_host_*_key*
: > /etc/machine-id
rm -rf /var/cache/apt/*.bin /var/lib/apt/lists/* /tmp/* /var/tmp/*'

# The initrd that the kernel package left behind goes first, as in kairos-init.
# shellcheck disable=SC2016 # expanded by the shell in the container
initrd='
kernel=$(ls /lib/modules | sort -V | tail -n 1)
ln -sf "vmlinuz-$kernel" /boot/vmlinuz
rm -f /boot/initrd* /boot/initramfs*
depmod -a "$kernel"
dracut -f /boot/initrd "$kernel"'

: > "$log"
memory=$storage/memory
watch_memory "$memory" &
watcher=$!
trap 'kill "$watcher" 2> /dev/null || true' EXIT

part pull from "$base"
part download apt update
part download apt --download-only upgrade
part download apt --download-only --no-install-recommends install "${base_packages[@]}" "${kernel_packages[@]}"
part packages apt upgrade
part packages apt --no-install-recommends install "${base_packages[@]}"
part download apt update
part kernel apt upgrade
part kernel apt --no-install-recommends install "${kernel_packages[@]}"
part files buildah copy --quiet "$container" "$dracut_dir" /
part files buildah copy --quiet "$container" "$binaries_dir" /
part commit commit bench-install

part commit from_local bench-install
part initrd shell "$initrd"
part files shell "$services"
part files shell "$cleanup"
part commit commit bench-init
part push push bench-install "$dest:install"
part push push bench-init "$dest:init"
whole=$(($(now) - whole_start))
kill "$watcher" 2> /dev/null || true

# What the initrd really is, which the configuration only asks for. Not part of the times.
from_local bench-init
initrd_bytes=$(shell 'stat -c %s /boot/initrd')
magic=$(shell 'od -A n -t x1 -N 6 /boot/initrd | tr -d " \n"')
case $magic in
    fd377a585a00*) compressor=xz ;;
    1f8b*) compressor=gzip ;;
    28b52ffd*) compressor=zstd ;;
    30373037*) compressor=none ;;
    *)
        echo "buildah.sh: unknown compression of the initrd: $magic" >&2
        exit 1
        ;;
esac
case $compressor in
    none) unpack='cat' ;;
    *) unpack="$compressor -dc" ;;
esac
raw_bytes=$(shell "$unpack < /boot/initrd | wc -c")
kernel=$(shell 'ls /lib/modules')
# How often the triggers of packages built an initrd that nobody uses.
triggered=$(grep -c '^dracut: Generating /boot/initrd.img' "$log" || true)

hertz=$(getconf CLK_TCK)
as_cpu_seconds() { awk -v t="$1" -v hz="$hertz" 'BEGIN { printf "%.1f", t / hz }'; }
read -r peak largest < "$memory"
{
    printf '{"tool":"buildah","tool_version":"%s"' "$(buildah --version | cut -d ' ' -f 3)"
    for name in pull download packages kernel initrd files commit push; do
        printf ',"%s_seconds":%s' "$name" "$(as_seconds "${seconds[$name]:-0}")"
        printf ',"%s_cpu_seconds":%s' "$name" "$(as_cpu_seconds "${cpu[$name]:-0}")"
        all_ticks=$((${all_ticks:-0} + ${cpu[$name]:-0}))
    done
    printf ',"whole_cpu_seconds":%s' "$(as_cpu_seconds "$all_ticks")"
    printf ',"whole_without_download_cpu_seconds":%s' "$(as_cpu_seconds $((all_ticks - cpu[download])))"
    printf ',"whole_seconds":%s' "$(as_seconds "$whole")"
    printf ',"whole_without_download_seconds":%s' "$(as_seconds $((whole - seconds[download])))"
    printf ',"peak_rss_mib":%d,"largest_process_rss_mib":%d' $((peak / 1024)) $((largest / 1024))
    printf ',"initrd_bytes":%s,"initrd_raw_bytes":%s' "$initrd_bytes" "$raw_bytes"
    printf ',"initrd_compressor":"%s","initrds_by_triggers":%s' "$compressor" "$triggered"
    printf ',"kernel":"%s"}\n' "$kernel"
}
