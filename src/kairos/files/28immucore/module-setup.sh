#!/bin/bash
# dracut module: immucore mounts the system image, its overlays and its persistent directories.
# shellcheck disable=SC2154 # moddir, initdir and the systemd directories come from dracut

# Every image needs it.
check() {
    return 0
}

depends() {
    echo rootfs-block dm fs-lib lvm
}

installkernel() {
    hostonly='' instmods overlay
}

# Installs programs; an initramfs that misses one would only fail on the booting machine, so it fails the build.
require() {
    local program
    for program; do
        if ! command -v "$program" > /dev/null || ! inst_multiple "$program"; then
            derror "immucore: cannot install $program, which the initramfs needs"
            exit 1
        fi
    done
}

install() {
    require immucore kairos-agent sync udevadm blkid lsblk e2fsck mount umount rsync cryptsetup gawk awk \
        mkfs.ext2 mkfs.ext3 mkfs.ext4 mkfs.vfat
    inst_multiple -o mkfs.fat
    # Some builds of gawk open these at run time.
    inst_libdir_file "libsigsegv.so*"
    inst_libdir_file "libmpfr.so*"

    inst_script "$moddir/generator.sh" "$systemdutildir/system-generators/immucore-generator"
    inst_simple "$moddir/immucore.service" "$systemdsystemunitdir/immucore.service"
    mkdir -p "$initdir$systemdsystemunitdir/initrd.target.requires"
    ln -sfn ../immucore.service "$initdir$systemdsystemunitdir/initrd.target.requires/immucore.service"
    # Required by the unit, and not part of every dracut's systemd modules.
    inst_multiple -o "$systemdsystemunitdir/systemd-udev-settle.service"

    dracut_need_initqueue
}
