//! Which system call gets which answer, with its number in each ABI.

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It returns 0 and nothing is done.
    Succeed,
    /// It fails with EPERM.
    Refuse,
    /// It fails with ENOSYS, upon which C libraries use the older call.
    Unknown,
    /// It fails with EPERM when asked for new namespaces, in clone(2)'s way of asking.
    RefuseNamespaces,
    /// It fails with EPERM when asked for new namespaces, in unshare(2)'s way of asking.
    RefuseNewNamespaces,
    /// It fails with EPERM for `AF_VSOCK`.
    RefuseVsock,
    /// It fails with EOPNOTSUPP when asked where a file is on the disk (`FS_IOC_FIEMAP`).
    HidePlacesOnDisk,
}

/// The rules of one ABI.
#[derive(Debug, Clone)]
pub(super) struct Abi {
    /// As in `std::env::consts::ARCH`, for those that have a name there.
    pub(super) name: &'static str,
    /// `AUDIT_ARCH_*` (linux/audit.h).
    pub(super) audit_arch: u32,
    /// Numbers with the x32 bit belong to a third ABI.
    pub(super) has_x32: bool,
    pub(super) rules: Vec<Rule>,
}

/// One call of one ABI.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rule {
    pub(super) number: u32,
    pub(super) action: Action,
}

/// A call that an ABI does not have.
const NONE: i32 = -1;

/// A call's answer, and its numbers on x86_64, i386, the generic table (aarch64, riscv64) and 32-bit arm.
struct Row(Action, [i32; 4]);

/// The columns of [`Row`].
const X86_64: usize = 0;
const I386: usize = 1;
const GENERIC: usize = 2;
const ARM: usize = 3;

/// `clone3` is unknown because its flags are behind a pointer, where a filter cannot look. `ptrace` and `chroot` are allowed, as in
/// default containers. dpkg asks where its lists are on the disk, to read them in that order, and asks again with every package for those
/// that have no place there yet: without syncs, all of them.
#[rustfmt::skip]
const ROWS: &[Row] = &[
    Row(Action::Succeed, [74, 118, 82, 118]), // fsync
    Row(Action::Succeed, [75, 148, 83, 148]), // fdatasync
    Row(Action::Succeed, [162, 36, 81, 36]), // sync
    Row(Action::Succeed, [306, 344, 267, 373]), // syncfs
    Row(Action::Succeed, [26, 144, 227, 144]), // msync
    Row(Action::Succeed, [277, 314, 84, 341]), // sync_file_range
    Row(Action::Unknown, [435, 435, 435, 435]), // clone3
    Row(Action::RefuseNamespaces, [56, 120, 220, 120]), // clone
    Row(Action::RefuseNewNamespaces, [272, 310, 97, 337]), // unshare
    Row(Action::RefuseVsock, [41, 359, 198, 281]), // socket
    Row(Action::HidePlacesOnDisk, [16, 54, 29, 54]), // ioctl
    Row(Action::Refuse, [165, 21, 40, 21]), // mount
    Row(Action::Refuse, [NONE, 22, NONE, NONE]), // umount
    Row(Action::Refuse, [166, 52, 39, 52]), // umount2
    Row(Action::Refuse, [155, 217, 41, 218]), // pivot_root
    Row(Action::Refuse, [308, 346, 268, 375]), // setns
    Row(Action::Refuse, [430, 430, 430, 430]), // fsopen
    Row(Action::Refuse, [431, 431, 431, 431]), // fsconfig
    Row(Action::Refuse, [432, 432, 432, 432]), // fsmount
    Row(Action::Refuse, [433, 433, 433, 433]), // fspick
    Row(Action::Refuse, [428, 428, 428, 428]), // open_tree
    Row(Action::Refuse, [429, 429, 429, 429]), // move_mount
    Row(Action::Refuse, [442, 442, 442, 442]), // mount_setattr
    Row(Action::Refuse, [467, 467, 467, 467]), // open_tree_attr
    Row(Action::Refuse, [175, 128, 105, 128]), // init_module
    Row(Action::Refuse, [313, 350, 273, 379]), // finit_module
    Row(Action::Refuse, [176, 129, 106, 129]), // delete_module
    Row(Action::Refuse, [321, 357, 280, 386]), // bpf
    Row(Action::Refuse, [298, 336, 241, 364]), // perf_event_open
    Row(Action::Refuse, [246, 283, 104, 347]), // kexec_load
    Row(Action::Refuse, [320, NONE, 294, 401]), // kexec_file_load
    Row(Action::Refuse, [248, 286, 217, 309]), // add_key
    Row(Action::Refuse, [249, 287, 218, 310]), // request_key
    Row(Action::Refuse, [250, 288, 219, 311]), // keyctl
    Row(Action::Refuse, [323, 374, 282, 388]), // userfaultfd
    Row(Action::Refuse, [425, 425, 425, 425]), // io_uring_setup
    Row(Action::Refuse, [426, 426, 426, 426]), // io_uring_enter
    Row(Action::Refuse, [427, 427, 427, 427]), // io_uring_register
    Row(Action::Refuse, [304, 342, 265, 371]), // open_by_handle_at
    Row(Action::Refuse, [300, 338, 262, 367]), // fanotify_init
    Row(Action::Refuse, [212, 253, 18, 249]), // lookup_dcookie
    Row(Action::Refuse, [180, 169, 42, 169]), // nfsservctl
    Row(Action::Refuse, [179, 131, 60, 131]), // quotactl
    Row(Action::Refuse, [443, 443, 443, 443]), // quotactl_fd
    Row(Action::Refuse, [163, 51, 89, 51]), // acct
    Row(Action::Refuse, [167, 87, 224, 87]), // swapon
    Row(Action::Refuse, [168, 115, 225, 115]), // swapoff
    Row(Action::Refuse, [169, 88, 142, 88]), // reboot
    Row(Action::Refuse, [103, 103, 116, 103]), // syslog
    Row(Action::Refuse, [153, 111, 58, 111]), // vhangup
    Row(Action::Refuse, [164, 79, 170, 79]), // settimeofday
    Row(Action::Refuse, [NONE, 25, NONE, NONE]), // stime
    Row(Action::Refuse, [227, 264, 112, 262]), // clock_settime
    Row(Action::Refuse, [NONE, 404, NONE, 404]), // clock_settime64
    Row(Action::Refuse, [305, 343, 266, 372]), // clock_adjtime
    Row(Action::Refuse, [NONE, 405, NONE, 405]), // clock_adjtime64
    Row(Action::Refuse, [159, 124, 171, 124]), // adjtimex
    Row(Action::Refuse, [172, 110, NONE, NONE]), // iopl
    Row(Action::Refuse, [173, 101, NONE, NONE]), // ioperm
    Row(Action::Refuse, [134, 86, NONE, 86]), // uselib
    Row(Action::Refuse, [NONE, 166, NONE, NONE]), // vm86
    Row(Action::Refuse, [NONE, 113, NONE, NONE]), // vm86old
];

fn abi(name: &'static str, audit_arch: u32, column: usize) -> Abi {
    let rules = ROWS
        .iter()
        .filter_map(|Row(action, numbers)| {
            Some(Rule {
                number: u32::try_from(numbers[column]).ok()?,
                action: *action,
            })
        })
        .collect();
    Abi {
        name,
        audit_arch,
        has_x32: name == "x86_64",
        rules,
    }
}

/// Returns every ABI there is a table for.
pub(super) fn all() -> Vec<Abi> {
    vec![
        abi("x86_64", 0xc000_003e, X86_64),
        abi("i386", 0x4000_0003, I386),
        abi("aarch64", 0xc000_00b7, GENERIC),
        abi("arm", 0x4000_0028, ARM),
        abi("riscv64", 0xc000_00f3, GENERIC),
    ]
}

/// Returns the ABIs that this machine's kernel runs, the native one first; none where there is no table.
pub(super) fn abis() -> Vec<Abi> {
    let wanted: &[&str] = match std::env::consts::ARCH {
        "x86_64" => &["x86_64", "i386"],
        "aarch64" => &["aarch64", "arm"],
        "riscv64" => &["riscv64"],
        _ => &[],
    };
    all()
        .into_iter()
        .filter(|abi| wanted.contains(&abi.name))
        .collect()
}
