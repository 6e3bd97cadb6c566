//! The kfactory program: enters the stage where a command needs one, then hands over to the library.

use std::process::ExitCode;

/// musl's allocator takes one lock for all threads; with two compressing threads it is many times slower.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Nothing before this line may start a thread: a process with threads cannot enter a user namespace.
    ExitCode::from(u8::try_from(kfactory::cli::main()).unwrap_or(70))
}
