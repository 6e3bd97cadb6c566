//! Which work may wait: compression in the background must not take processor time from what people wait for.

/// How much less than the rest background work counts; the scheduler gives it about a tenth where both want a core.
const NICE: i32 = 10;

/// Lowers the priority of the calling thread and of those it starts from now on.
///
/// Where that is refused, the work is done at the usual priority.
pub(crate) fn lower() {
    // On Linux a priority belongs to a thread, whatever POSIX says of processes.
    let _ = rustix::process::setpriority_process(None, NICE);
}
