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

/// A call's name, its answer, and its numbers on x86_64, i386, the generic table (aarch64, riscv64) and 32-bit arm.
struct Row(&'static str, Action, [i32; 4]);

/// The columns of [`Row`].
const X86_64: usize = 0;
const I386: usize = 1;
const GENERIC: usize = 2;
const ARM: usize = 3;

/// `clone3` is unknown because its flags are behind a pointer, where a filter cannot look. `ptrace` and `chroot` are allowed, as in
/// default containers.
#[rustfmt::skip]
const ROWS: &[Row] = &[
    Row("fsync", Action::Succeed, [74, 118, 82, 118]),
    Row("fdatasync", Action::Succeed, [75, 148, 83, 148]),
    Row("sync", Action::Succeed, [162, 36, 81, 36]),
    Row("syncfs", Action::Succeed, [306, 344, 267, 373]),
    Row("msync", Action::Succeed, [26, 144, 227, 144]),
    Row("sync_file_range", Action::Succeed, [277, 314, 84, 341]),
    Row("clone3", Action::Unknown, [435, 435, 435, 435]),
    Row("clone", Action::RefuseNamespaces, [56, 120, 220, 120]),
    Row("unshare", Action::RefuseNewNamespaces, [272, 310, 97, 337]),
    Row("socket", Action::RefuseVsock, [41, 359, 198, 281]),
    Row("mount", Action::Refuse, [165, 21, 40, 21]),
    Row("umount", Action::Refuse, [NONE, 22, NONE, NONE]),
    Row("umount2", Action::Refuse, [166, 52, 39, 52]),
    Row("pivot_root", Action::Refuse, [155, 217, 41, 218]),
    Row("setns", Action::Refuse, [308, 346, 268, 375]),
    Row("fsopen", Action::Refuse, [430, 430, 430, 430]),
    Row("fsconfig", Action::Refuse, [431, 431, 431, 431]),
    Row("fsmount", Action::Refuse, [432, 432, 432, 432]),
    Row("fspick", Action::Refuse, [433, 433, 433, 433]),
    Row("open_tree", Action::Refuse, [428, 428, 428, 428]),
    Row("move_mount", Action::Refuse, [429, 429, 429, 429]),
    Row("mount_setattr", Action::Refuse, [442, 442, 442, 442]),
    Row("open_tree_attr", Action::Refuse, [467, 467, 467, 467]),
    Row("init_module", Action::Refuse, [175, 128, 105, 128]),
    Row("finit_module", Action::Refuse, [313, 350, 273, 379]),
    Row("delete_module", Action::Refuse, [176, 129, 106, 129]),
    Row("bpf", Action::Refuse, [321, 357, 280, 386]),
    Row("perf_event_open", Action::Refuse, [298, 336, 241, 364]),
    Row("kexec_load", Action::Refuse, [246, 283, 104, 347]),
    Row("kexec_file_load", Action::Refuse, [320, NONE, 294, 401]),
    Row("add_key", Action::Refuse, [248, 286, 217, 309]),
    Row("request_key", Action::Refuse, [249, 287, 218, 310]),
    Row("keyctl", Action::Refuse, [250, 288, 219, 311]),
    Row("userfaultfd", Action::Refuse, [323, 374, 282, 388]),
    Row("io_uring_setup", Action::Refuse, [425, 425, 425, 425]),
    Row("io_uring_enter", Action::Refuse, [426, 426, 426, 426]),
    Row("io_uring_register", Action::Refuse, [427, 427, 427, 427]),
    Row("open_by_handle_at", Action::Refuse, [304, 342, 265, 371]),
    Row("fanotify_init", Action::Refuse, [300, 338, 262, 367]),
    Row("lookup_dcookie", Action::Refuse, [212, 253, 18, 249]),
    Row("nfsservctl", Action::Refuse, [180, 169, 42, 169]),
    Row("quotactl", Action::Refuse, [179, 131, 60, 131]),
    Row("quotactl_fd", Action::Refuse, [443, 443, 443, 443]),
    Row("acct", Action::Refuse, [163, 51, 89, 51]),
    Row("swapon", Action::Refuse, [167, 87, 224, 87]),
    Row("swapoff", Action::Refuse, [168, 115, 225, 115]),
    Row("reboot", Action::Refuse, [169, 88, 142, 88]),
    Row("syslog", Action::Refuse, [103, 103, 116, 103]),
    Row("vhangup", Action::Refuse, [153, 111, 58, 111]),
    Row("settimeofday", Action::Refuse, [164, 79, 170, 79]),
    Row("stime", Action::Refuse, [NONE, 25, NONE, NONE]),
    Row("clock_settime", Action::Refuse, [227, 264, 112, 262]),
    Row("clock_settime64", Action::Refuse, [NONE, 404, NONE, 404]),
    Row("clock_adjtime", Action::Refuse, [305, 343, 266, 372]),
    Row("clock_adjtime64", Action::Refuse, [NONE, 405, NONE, 405]),
    Row("adjtimex", Action::Refuse, [159, 124, 171, 124]),
    Row("iopl", Action::Refuse, [172, 110, NONE, NONE]),
    Row("ioperm", Action::Refuse, [173, 101, NONE, NONE]),
    Row("uselib", Action::Refuse, [134, 86, NONE, 86]),
    Row("vm86", Action::Refuse, [NONE, 166, NONE, NONE]),
    Row("vm86old", Action::Refuse, [NONE, 113, NONE, NONE]),
];

fn abi(name: &'static str, audit_arch: u32, column: usize) -> Abi {
    let rules = ROWS
        .iter()
        .filter_map(|Row(_, action, numbers)| {
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
