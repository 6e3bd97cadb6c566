//! The examples at the end of a command's help and manual page.

pub(super) const CONVERT: &str = "\
Examples:
  kfactory convert ubuntu:24.04 ghcr.io/me/os:v1.0.0
      Pull, convert and push; the version comes from the tag.
  kfactory convert debian:12 --version v1.0.0
      Keep the result in the store, under the name that is printed.
  kfactory convert debian:12 ghcr.io/me/os:v1.0.0 oci-archive:os.tar:v1.0.0
      Write the same image to two places.
  kfactory convert tar:rootfs.tar oci:out:v1.0.0 --compression zstd --skip-step sshHardening
      Start from a root filesystem, leave a step out.
  kfactory convert debian:12 ghcr.io/me/os:v1.0.0 --print-recipe > os.yaml; kfactory convert -f os.yaml
      Keep the request in a file.";

pub(super) const PLAN: &str = "\
Examples:
  kfactory plan debian:12 --version v1.0.0
      Every step, package and rule of the conversion.
  kfactory plan -f os.yaml --output json
      The same for programs.
  kfactory plan debian:12 --version v1.0.0 --output yip
      As a yip document.";

pub(super) const COPY: &str = "\
Examples:
  kfactory copy ghcr.io/me/os:v1.0.0 oci-archive:os.tar:v1.0.0
      Take an image along as a file.
  kfactory copy oci-archive:os.tar:v1.0.0 registry.lan:5000/os:v1.0.0
      Push it elsewhere.
  kfactory copy store:debian-12-kairos:v1.0.0 oci:out:v1.0.0
      Take a result out of the store.";

pub(super) const UNPACK: &str = "\
Examples:
  kfactory unpack ghcr.io/me/os:v1.0.0 rootfs
      The root filesystem, with owners as far as this user may set them.
  kfactory unpack oci:out:v1.0.0 rootfs --ledger owners.jsonl
      Write down what the image says where the tree cannot show it.";

pub(super) const RESTORE: &str = "\
Examples:
  kfactory unpack oci:out:v1.0.0 rootfs --ledger owners.jsonl
      What a plain user does first.
  kfactory restore rootfs --ledger owners.jsonl
      As root: make it the tree that root would have unpacked.";

pub(super) const INSPECT: &str = "\
Examples:
  kfactory inspect ghcr.io/me/os:v1.0.0
      Layers, what made them, and what makes it a Kairos image.
  kfactory inspect --json oci:out:v1.0.0 | jq '.layers[].size'
      The same for programs.";

pub(super) const VALIDATE: &str = "\
Examples:
  kfactory validate ghcr.io/me/os:v1.0.0
      Every rule that is broken, with its remedy; the exit code is 1 when one of them is an error.
  kfactory validate dir:rootfs --output sarif > report.sarif
      An unpacked tree, for a code host.
  kfactory validate --rules
      What is demanded.";

pub(super) const PARITY: &str = "\
Examples:
  kfactory parity oci:new:v1.0.1 --against ghcr.io/me/os:v1.0.0
      What changed between two results, by the step that changed it.
  kfactory parity oci:out:v1.0.0 --upstream quay.io/kairos/debian:12-core-amd64-generic-v3.6.0
      Where a result differs from what kairos-init made, and whether that is intended.";

pub(super) const ISO: &str = "\
Examples:
  kfactory iso ghcr.io/me/os:v1.0.0
      kairos-debian-12-core-amd64-generic-v1.0.0.iso here, with its checksum.
  kfactory iso oci:out:v1.0.0 -o os.iso --cloud-config install.yaml
      Install unattended, if the configuration says so.
  kfactory iso store:debian-12-kairos:v1.0.0 -o os.iso --squash-compression zstd:3
      Make it fast rather than small.";

pub(super) const NETBOOT: &str = "\
Examples:
  kfactory netboot ghcr.io/me/os:v1.0.0 -o boot
      Kernel, initrd, root filesystem and an iPXE script in a new directory.
  kfactory netboot serve boot --address 0.0.0.0:8090
      Serve it; `chain http://HOST:8090/boot.ipxe` at iPXE's prompt boots a machine.
  kfactory netboot store:debian-12-kairos:v1.0.0 -o boot --cloud-config install.yaml
      Install unattended, if the configuration says so.";

pub(super) const RAW: &str = "\
Examples:
  kfactory raw ghcr.io/me/os:v1.0.0 --cloud-config user.yaml --size 32G
      kairos-debian-12-core-amd64-generic-v1.0.0.raw here, with its checksum.
  kfactory raw oci:out:v1.0.0 -o os.qcow2 --cloud-config user.yaml --size 32G
      The same for QEMU; `.vhd`, `.vmdk`, `.tar.gz` (Google) and `.gz` (MAAS) are known too.
  kfactory raw store:debian-12-kairos:v1.0.0 -o disk.raw --boot uefi
      No larger than what is in it: the machine's disk must have the room that the first boot needs.
  kfactory raw ghcr.io/me/os-rpi4:v1.0.0 -o card.raw --platform linux/arm64 --overlay-uefi fat
      For a Raspberry Pi, whose model the image says; the directory may bring a config.txt.";

pub(super) const ARTIFACT_VERIFY: &str = "\
Examples:
  kfactory artifact verify os.iso
      What is wrong with a medium, with its remedy; the exit code is 1 when it would not boot.
  kfactory artifact verify disk.raw --strict
      The same of a disk; warnings count, too.
  kfactory artifact verify boot --output json
      Network boot files, for programs.
  kfactory artifact verify --rules
      What is demanded.";

pub(super) const FRAMEWORK_BUILD: &str = "\
Examples:
  kfactory framework build -o oci:framework
      Upstream's releases, to carry to a machine without access to them.
  kfactory framework build --framework go:immucore=v0.20.4 -o registry.lan:5000/framework:v1
      Build them from their Go modules, one of them at another version.";
