//! Measures applying an archive to a directory, and capturing a directory as if it were an upper directory.
//!
//!     cargo run --release -p kfactory-layers --example measure -- ROOTFS.tar EMPTY_DIR

use std::error::Error;
use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Instant;

use kfactory_layers::apply::{ApplyOptions, apply};
use kfactory_layers::diff::{CaptureOptions, Snapshot, capture_upper, capture_walk};
use kfactory_layers::root::Root;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (archive, dir) = arguments
        .next()
        .zip(arguments.next())
        .ok_or("usage: measure ROOTFS.tar EMPTY_DIR")?;
    let mut out = io::stdout().lock();
    let root = Root::open(&dir)?;

    let start = Instant::now();
    let applied = apply(&root, File::open(archive)?, &ApplyOptions::default())?;
    let seconds = start.elapsed().as_secs_f64();
    let rate = applied.bytes as f64 / 1e6 / seconds;
    writeln!(
        out,
        "apply          {seconds:6.3} s  {rate:7.0} MB/s  {} entries",
        applied.entries
    )?;

    let options = CaptureOptions::default();
    let start = Instant::now();
    let captured = capture_upper(&dir, &[], &options, io::sink())?;
    let seconds = start.elapsed().as_secs_f64();
    let rate = captured.bytes as f64 / 1e6 / seconds;
    writeln!(
        out,
        "capture_upper  {seconds:6.3} s  {rate:7.0} MB/s  {} entries",
        captured.entries
    )?;

    let start = Instant::now();
    let snapshot = Snapshot::take(&root, options.exclude)?;
    let seconds = start.elapsed().as_secs_f64();
    writeln!(out, "Snapshot::take {seconds:6.3} s")?;

    let start = Instant::now();
    capture_walk(&snapshot, &root, &options, io::sink())?;
    let seconds = start.elapsed().as_secs_f64();
    writeln!(out, "capture_walk   {seconds:6.3} s  nothing changed")?;
    Ok(())
}
