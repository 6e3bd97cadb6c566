//! Measures what the default compression levels were chosen by.
//!
//! `cargo run --release -p kfactory-layers --example compress -- FILE [THREADS]` streams FILE (a tar of a root filesystem,
//! say) through a `LayerWriter` with every setting, and back through the decoder. It prints, per setting: the throughput
//! on the wall clock and per second of CPU (what to compare on a busy machine), both with hashing; the size; the peak
//! memory; and the throughput of decoding. Each runs three times and the best counts: other programs only slow one down.
// This program's output is its result.
#![allow(clippy::print_stdout, reason = "a measurement prints what it measured")]

use std::fs::{self, File};
use std::io::{self, Seek};
use std::time::{Duration, Instant};

use kfactory_layers::compress::{Compression, MAX_THREADS, decoder, default_threads};
use kfactory_layers::layer::LayerWriter;
use rustix::time::{ClockId, clock_gettime};

const RUNS: usize = 3;

const SETTINGS: [&str; 12] = [
    "none", "gzip:1", "gzip:2", "gzip:3", "gzip:4", "gzip:5", "gzip:6", "gzip:9", "zstd:1",
    "zstd:3", "zstd:6", "zstd:9",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("usage: compress FILE [THREADS]")?;
    let threads = match args.next() {
        Some(threads) => threads.parse::<usize>()?.clamp(1, MAX_THREADS),
        None => default_threads(),
    };
    let size = fs::metadata(&path)?.len();
    println!("{path}: {} MB, {threads} threads", size / 1_000_000);
    println!("setting     MB/s MB/cpu-s      bytes  ratio MiB peak decode MB/s");
    for setting in SETTINGS {
        measure(setting, &path, size, threads)?;
    }
    Ok(())
}

fn measure(
    setting: &str,
    path: &str,
    size: u64,
    threads: usize,
) -> Result<(), Box<dyn std::error::Error>> {
    let compression: Compression = setting.parse()?;
    let mut blob = tempfile::tempfile()?;
    reset_peak();
    let encode = best(|| {
        blob.set_len(0)?;
        blob.rewind()?;
        let mut writer = LayerWriter::new(&blob, compression, threads)?;
        io::copy(&mut File::open(path)?, &mut writer)?;
        writer.finish().map(drop)
    })?;
    let peak = peak_mib();
    let decode = best(|| {
        blob.rewind()?;
        let copied = io::copy(&mut decoder(&blob)?, &mut io::sink())?;
        if copied == size {
            Ok(())
        } else {
            Err(io::ErrorKind::InvalidData.into())
        }
    })?;
    let blob_size = blob.metadata()?.len();
    println!(
        "{setting:<8} {:>7.0} {:>8.0} {blob_size:>10} {:>6.3} {peak:>8} {:>11.0}",
        rate(size, encode.wall),
        rate(size, encode.cpu),
        blob_size as f64 / size as f64,
        rate(size, decode.wall),
    );
    Ok(())
}

struct Cost {
    wall: Duration,
    cpu: Duration,
}

fn best(mut run: impl FnMut() -> io::Result<()>) -> io::Result<Cost> {
    let mut best = Cost {
        wall: Duration::MAX,
        cpu: Duration::MAX,
    };
    for _ in 0..RUNS {
        let (start, cpu) = (Instant::now(), cpu_time());
        run()?;
        best.wall = best.wall.min(start.elapsed());
        best.cpu = best.cpu.min(cpu_time() - cpu);
    }
    Ok(best)
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

fn rate(bytes: u64, time: Duration) -> f64 {
    bytes as f64 / 1e6 / time.as_secs_f64()
}

fn reset_peak() {
    // Where the kernel does not offer it, the peak is that of all settings so far.
    let _ = fs::write("/proc/self/clear_refs", "5");
}

fn peak_mib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = peak.and_then(|peak| peak.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}
