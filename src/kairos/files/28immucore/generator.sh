#!/bin/sh
# systemd generator of the initramfs: prepares the mount unit of the root for images on slow media.
#   immucore-generator NORMAL-DIR [EARLY-DIR LATE-DIR]

units="${1:-/run/systemd/generator}"

mkdir -p "$units/sysroot.mount.d"
cat > "$units/sysroot.mount.d/timeout.conf" << UNIT
[Mount]
TimeoutSec=300
UNIT

# Ubuntu 22.04 has a broken dependency without this link.
wants="$units/initrd-root-fs.target.wants"
if [ ! -e "$wants/sysroot.mount" ] && [ ! -L "$wants/sysroot.mount" ]; then
    mkdir -p "$wants"
    ln -s ../sysroot.mount "$wants/sysroot.mount"
fi
