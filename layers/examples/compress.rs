//! Measures what the default compression levels were chosen by.
//!
//! `cargo run --release -p kfactory-layers --example compress -- FILE [THREADS]` compresses FILE (a tar of a root
//! filesystem, say) with every setting and prints the throughput of a whole [`LayerWriter`] (both digests included), the size,
//! and what decoding it again takes. Every setting runs three times; the best run counts, since other programs only slow one down.
// This program's output is its result.
#![allow(clippy::print_stdout)]

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use kfactory_layers::compress::{Compression, MAX_THREADS, decoder, default_threads};
use kfactory_layers::layer::LayerWriter;

const RUNS: usize = 3;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("usage: compress FILE [THREADS]")?;
    let threads = match args.next() {
        Some(threads) => threads.parse::<usize>()?.clamp(1, MAX_THREADS),
        None => default_threads(),
    };
    let tar = std::fs::read(&path)?;
    println!("{path}: {} MB, {threads} threads", tar.len() / 1_000_000);
    println!(
        "{:>9} {:>8} {:>10} {:>6} {:>8}",
        "setting", "MB/s", "bytes", "ratio", "decode"
    );
    let settings = [
        "none", "gzip:1", "gzip:2", "gzip:3", "gzip:4", "gzip:5", "gzip:6", "gzip:9", "zstd:1",
        "zstd:3", "zstd:6", "zstd:9",
    ];
    for setting in settings {
        measure(setting, &tar, threads)?;
    }
    Ok(())
}

fn measure(setting: &str, tar: &[u8], threads: usize) -> Result<(), Box<dyn std::error::Error>> {
    let compression: Compression = setting.parse()?;
    let mut blob = Vec::new();
    let encode = best(|| {
        blob = compress(tar, compression, threads)?;
        Ok(())
    })?;
    let mut size = 0;
    let decode = best(|| {
        size = io::copy(&mut decoder(&blob[..])?, &mut io::sink())?;
        Ok(())
    })?;
    if size != tar.len() as u64 {
        return Err(format!("{setting}: decoded {size} bytes").into());
    }
    println!(
        "{setting:>9} {:>8.0} {:>10} {:>6.3} {:>8.0}",
        rate(tar.len(), encode),
        blob.len(),
        blob.len() as f64 / tar.len() as f64,
        rate(tar.len(), decode),
    );
    Ok(())
}

fn compress(mut tar: &[u8], compression: Compression, threads: usize) -> io::Result<Vec<u8>> {
    let mut writer = LayerWriter::new(Vec::with_capacity(tar.len()), compression, threads)?;
    // In pieces, as a tar writer delivers them.
    let mut piece = vec![0; 64 * 1024];
    loop {
        let len = tar.read(&mut piece)?;
        if len == 0 {
            break;
        }
        writer.write_all(&piece[..len])?;
    }
    let (blob, _) = writer.finish()?;
    Ok(blob)
}

fn best(mut run: impl FnMut() -> io::Result<()>) -> io::Result<Duration> {
    let mut best = Duration::MAX;
    for _ in 0..RUNS {
        let start = Instant::now();
        run()?;
        best = best.min(start.elapsed());
    }
    Ok(best)
}

fn rate(bytes: usize, time: Duration) -> f64 {
    bytes as f64 / 1e6 / time.as_secs_f64()
}
