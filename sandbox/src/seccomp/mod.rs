//! The system call filter of a sandbox: what is refused, and what does nothing.
//!
//! The refusals are those of a default container, which image builds are used to. The calls that wait for a disk succeed without doing
//! it: a throw-away root filesystem gains nothing from them, and package managers make thousands.
//!
//! The program is assembled here: it has four different answers and speaks a second ABI, while a `seccompiler` filter has one
//! answer and kills other ABIs.

use std::io;
use std::os::fd::OwnedFd;

mod table;

pub use table::Action;
use table::{Abi, Rule};

/// Offsets in `struct seccomp_data`: the call's number, the ABI, and the low half of the first argument (little-endian).
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENT_0: u32 = 16;
/// The low half of the second argument.
const ARGUMENT_1: u32 = 24;

/// Classic BPF operations (linux/bpf_common.h).
const LOAD_WORD: u16 = 0x20;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_AT_LEAST: u16 = 0x35;
const JUMP_ANY_BIT: u16 = 0x45;
const JUMP_ALWAYS: u16 = 0x05;
const RETURN: u16 = 0x06;

/// Answers (linux/seccomp.h).
const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;
const KILL_PROCESS: u32 = 0x8000_0000;

/// System call numbers of the x32 ABI have this bit.
const X32_BIT: u32 = 0x4000_0000;

/// Every `CLONE_NEW*` flag of clone(2); they mean the same in unshare(2) and setns(2).
const NAMESPACE_FLAGS: u32 = 0x7e02_0000;

/// `CLONE_NEWTIME`, which only unshare(2) takes: in clone(2) these bits are the exit signal.
const NEW_TIME: u32 = 0x80;

/// Asks for a file's extents (linux/fs.h); of file systems that have none to tell it fails with EOPNOTSUPP.
const FS_IOC_FIEMAP: u32 = 0xc020_660b;

/// `AF_VSOCK`: reaches the host around every network namespace.
const AF_VSOCK: u32 = 40;

/// One instruction (`struct sock_filter`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Instruction {
    code: u16,
    if_true: u8,
    if_false: u8,
    value: u32,
}

impl Instruction {
    fn to_bytes(self) -> [u8; 8] {
        let [c0, c1] = self.code.to_ne_bytes();
        let [v0, v1, v2, v3] = self.value.to_ne_bytes();
        [c0, c1, self.if_true, self.if_false, v0, v1, v2, v3]
    }
}

fn load(offset: u32) -> Instruction {
    Instruction {
        code: LOAD_WORD,
        if_true: 0,
        if_false: 0,
        value: offset,
    }
}

fn answer(value: u32) -> Instruction {
    Instruction {
        code: RETURN,
        if_true: 0,
        if_false: 0,
        value,
    }
}

/// Skips `count` instructions unless the test `code` of the loaded word against `value` holds.
fn unless(code: u16, value: u32, count: u8) -> Instruction {
    Instruction {
        code,
        if_true: 0,
        if_false: count,
        value,
    }
}

fn errno(number: i32) -> u32 {
    ERRNO | u32::try_from(number).unwrap_or(0)
}

/// Returns the filter for this machine's ABIs as the bytes `bwrap --seccomp` reads, or nothing on machines it has no table for.
pub fn program() -> Option<Vec<u8>> {
    let abis = table::abis();
    if abis.is_empty() {
        return None;
    }
    Some(
        assemble(&abis)
            .into_iter()
            .flat_map(Instruction::to_bytes)
            .collect(),
    )
}

/// Returns a memory file that holds [`program`], to be read from its start.
///
/// # Errors
///
/// The memory file cannot be made, or `Unsupported` on machines without a table.
pub fn memory_file() -> io::Result<OwnedFd> {
    let program = program().ok_or(io::ErrorKind::Unsupported)?;
    crate::sys::memory_file("seccomp", &program)
}

/// Returns a filter that holds requests to clone a file (ioctl_ficlone(2)) for a listener and allows everything else; nothing on
/// machines this crate has no table for. Of the ABIs, the machine's own: whoever uses another copies by itself.
pub(crate) fn clone_requests() -> Vec<[u8; 8]> {
    let native = std::env::consts::ARCH;
    let Some(native) = table::all().into_iter().find(|abi| abi.name == native) else {
        return Vec::new();
    };
    let number = u32::try_from(libc::SYS_ioctl).unwrap_or(u32::MAX);
    let request = u32::try_from(libc::FICLONE).unwrap_or(u32::MAX);
    [
        load(ARCH),
        unless(JUMP_EQUAL, native.audit_arch, 5),
        load(NUMBER),
        unless(JUMP_EQUAL, number, 3),
        load(ARGUMENT_1),
        unless(JUMP_EQUAL, request, 1),
        answer(libc::SECCOMP_RET_USER_NOTIF),
        answer(ALLOW),
    ]
    .map(Instruction::to_bytes)
    .to_vec()
}

fn assemble(abis: &[Abi]) -> Vec<Instruction> {
    let mut program = vec![load(ARCH)];
    for abi in abis {
        let body = abi_body(abi);
        program.push(Instruction {
            code: JUMP_EQUAL,
            if_true: 1,
            if_false: 0,
            value: abi.audit_arch,
        });
        // Conditional jumps reach 255 instructions only.
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
        program.push(Instruction {
            code: JUMP_ALWAYS,
            if_true: 0,
            if_false: 0,
            value: length,
        });
        program.extend(body);
    }
    program.push(answer(KILL_PROCESS));
    program
}

fn abi_body(abi: &Abi) -> Vec<Instruction> {
    let mut body = vec![load(NUMBER)];
    if abi.has_x32 {
        body.extend([
            unless(JUMP_AT_LEAST, X32_BIT, 1),
            answer(errno(libc::ENOSYS)),
        ]);
    }
    for Rule { number, action } in &abi.rules {
        let check = match action {
            Action::Succeed => vec![answer(errno(0))],
            Action::Refuse => vec![answer(errno(libc::EPERM))],
            Action::Unknown => vec![answer(errno(libc::ENOSYS))],
            Action::RefuseNamespaces => refuse_argument(JUMP_ANY_BIT, NAMESPACE_FLAGS),
            Action::RefuseNewNamespaces => {
                refuse_argument(JUMP_ANY_BIT, NAMESPACE_FLAGS | NEW_TIME)
            }
            Action::RefuseVsock => refuse_argument(JUMP_EQUAL, AF_VSOCK),
            Action::HidePlacesOnDisk => {
                let places = unless(JUMP_EQUAL, FS_IOC_FIEMAP, 1);
                argument_check(ARGUMENT_1, places, libc::EOPNOTSUPP)
            }
        };
        let length = u8::try_from(check.len()).unwrap_or(u8::MAX);
        body.push(unless(JUMP_EQUAL, *number, length));
        body.extend(check);
    }
    body.push(answer(ALLOW));
    body
}

/// Refuses when the test of the first argument holds, allows otherwise.
fn refuse_argument(code: u16, value: u32) -> Vec<Instruction> {
    argument_check(ARGUMENT_0, unless(code, value, 1), libc::EPERM)
}

/// Fails with `error` when `test` of the argument at `offset` holds, allows otherwise.
fn argument_check(offset: u32, test: Instruction, error: i32) -> Vec<Instruction> {
    vec![load(offset), test, answer(errno(error)), answer(ALLOW)]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would answer: an interpreter of the instructions used here.
    fn run(program: &[Instruction], arch: u32, number: u32, argument: u32) -> u32 {
        let mut word = 0;
        let mut at = 0;
        loop {
            let instruction = program[at];
            at += 1;
            let jump = |holds: bool| {
                usize::from(if holds {
                    instruction.if_true
                } else {
                    instruction.if_false
                })
            };
            match instruction.code {
                LOAD_WORD => {
                    word = match instruction.value {
                        NUMBER => number,
                        ARCH => arch,
                        _ => argument,
                    }
                }
                JUMP_EQUAL => at += jump(word == instruction.value),
                JUMP_AT_LEAST => at += jump(word >= instruction.value),
                JUMP_ANY_BIT => at += jump(word & instruction.value != 0),
                JUMP_ALWAYS => at += instruction.value as usize,
                RETURN => return instruction.value,
                other => panic!("unknown instruction {other:#x}"),
            }
        }
    }

    fn abi(name: &str) -> Abi {
        table::all()
            .into_iter()
            .find(|abi| abi.name == name)
            .unwrap()
    }

    #[test]
    fn every_rule_of_every_abi_gets_its_answer() {
        let abis = table::all();
        let program = assemble(&abis);
        assert!(
            program.len() <= 4096,
            "the kernel takes no more instructions"
        );
        for abi in &abis {
            for rule in &abi.rules {
                let expected = match rule.action {
                    Action::Succeed => errno(0),
                    Action::Refuse => errno(libc::EPERM),
                    Action::Unknown => errno(libc::ENOSYS),
                    _ => ALLOW,
                };
                assert_eq!(
                    run(&program, abi.audit_arch, rule.number, 0),
                    expected,
                    "{} {}",
                    abi.name,
                    rule.number
                );
            }
        }
    }

    #[test]
    fn namespaces_are_refused_and_threads_are_not() {
        let abi = abi("x86_64");
        let program = assemble(std::slice::from_ref(&abi));
        const CLONE: u32 = 56;
        const UNSHARE: u32 = 272;
        let clone = |flags| run(&program, abi.audit_arch, CLONE, flags);
        assert_eq!(clone(0x003d_0f00), ALLOW);
        assert_eq!(clone(17), ALLOW);
        assert_eq!(clone(0x1000_0000 | 17), errno(libc::EPERM));
        assert_eq!(run(&program, abi.audit_arch, UNSHARE, 0x200), ALLOW);
        assert_eq!(
            run(&program, abi.audit_arch, UNSHARE, 0x80),
            errno(libc::EPERM)
        );
    }

    #[test]
    fn vsock_is_refused_and_other_sockets_are_not() {
        let abi = abi("x86_64");
        let program = assemble(std::slice::from_ref(&abi));
        assert_eq!(run(&program, abi.audit_arch, 41, 40), errno(libc::EPERM));
        assert_eq!(run(&program, abi.audit_arch, 41, 2), ALLOW);
    }

    #[test]
    fn files_have_no_places_on_disk_and_other_requests_are_let_through() {
        let abi = abi("x86_64");
        let program = assemble(std::slice::from_ref(&abi));
        let ioctl = |request| run(&program, abi.audit_arch, 16, request);
        assert_eq!(ioctl(FS_IOC_FIEMAP), errno(libc::EOPNOTSUPP));
        assert_eq!(ioctl(0x5401), ALLOW);
    }

    #[test]
    fn other_abis_are_killed_and_x32_is_unknown() {
        let abi = abi("x86_64");
        let program = assemble(std::slice::from_ref(&abi));
        assert_eq!(run(&program, 0x1234_5678, 0, 0), KILL_PROCESS);
        assert_eq!(
            run(&program, abi.audit_arch, X32_BIT | 1, 0),
            errno(libc::ENOSYS)
        );
        assert_eq!(run(&program, abi.audit_arch, 1, 0), ALLOW);
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_native_table_agrees_with_the_c_library() {
        let native = table::abis().remove(0);
        let action = |number: libc::c_long| {
            let number = u32::try_from(number).unwrap();
            native
                .rules
                .iter()
                .find(|rule| rule.number == number)
                .map(|rule| rule.action)
        };
        let table = [
            (libc::SYS_fsync, Action::Succeed),
            (libc::SYS_fdatasync, Action::Succeed),
            (libc::SYS_sync, Action::Succeed),
            (libc::SYS_syncfs, Action::Succeed),
            (libc::SYS_msync, Action::Succeed),
            (libc::SYS_sync_file_range, Action::Succeed),
            (libc::SYS_clone3, Action::Unknown),
            (libc::SYS_clone, Action::RefuseNamespaces),
            (libc::SYS_unshare, Action::RefuseNewNamespaces),
            (libc::SYS_socket, Action::RefuseVsock),
            (libc::SYS_ioctl, Action::HidePlacesOnDisk),
            (libc::SYS_mount, Action::Refuse),
            (libc::SYS_umount2, Action::Refuse),
            (libc::SYS_pivot_root, Action::Refuse),
            (libc::SYS_setns, Action::Refuse),
            (libc::SYS_init_module, Action::Refuse),
            (libc::SYS_finit_module, Action::Refuse),
            (libc::SYS_delete_module, Action::Refuse),
            (libc::SYS_add_key, Action::Refuse),
            (libc::SYS_request_key, Action::Refuse),
            (libc::SYS_keyctl, Action::Refuse),
            (libc::SYS_bpf, Action::Refuse),
            (libc::SYS_perf_event_open, Action::Refuse),
            (libc::SYS_kexec_load, Action::Refuse),
            (libc::SYS_reboot, Action::Refuse),
            (libc::SYS_swapon, Action::Refuse),
            (libc::SYS_swapoff, Action::Refuse),
            (libc::SYS_userfaultfd, Action::Refuse),
            (libc::SYS_open_by_handle_at, Action::Refuse),
            (libc::SYS_acct, Action::Refuse),
            (libc::SYS_quotactl, Action::Refuse),
            (libc::SYS_settimeofday, Action::Refuse),
            (libc::SYS_clock_settime, Action::Refuse),
            (libc::SYS_clock_adjtime, Action::Refuse),
            (libc::SYS_adjtimex, Action::Refuse),
            (libc::SYS_fanotify_init, Action::Refuse),
            (libc::SYS_syslog, Action::Refuse),
            (libc::SYS_vhangup, Action::Refuse),
            (libc::SYS_io_uring_setup, Action::Refuse),
            (libc::SYS_io_uring_enter, Action::Refuse),
            (libc::SYS_io_uring_register, Action::Refuse),
            (libc::SYS_fsopen, Action::Refuse),
            (libc::SYS_fsconfig, Action::Refuse),
            (libc::SYS_fsmount, Action::Refuse),
            (libc::SYS_fspick, Action::Refuse),
            (libc::SYS_open_tree, Action::Refuse),
            (libc::SYS_move_mount, Action::Refuse),
            (libc::SYS_mount_setattr, Action::Refuse),
        ];
        for (number, expected) in table {
            assert_eq!(action(number), Some(expected), "system call {number}");
        }
        for number in [
            libc::SYS_read,
            libc::SYS_ptrace,
            libc::SYS_chroot,
            libc::SYS_execve,
            libc::SYS_fchownat,
        ] {
            assert_eq!(action(number), None, "system call {number}");
        }
    }
}
