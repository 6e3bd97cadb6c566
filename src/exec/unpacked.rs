//! Package archives without compression, ready by the time dpkg wants them.
//!
//! dpkg decompresses one package at a time, and while it does nothing else happens. So archives are decompressed as soon as they
//! are there, beside whatever runs. apt compares an archive's size with what its lists say, so the decompressed ones take their
//! places only when dpkg begins: it opens each archive when its turn comes, and whichever it finds is right.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, mpsc};

use crate::distro::apt::deb;

/// An archive that is in its place.
#[derive(Debug)]
pub(super) struct Archive {
    /// Its file name.
    pub(super) name: String,
    /// Whether it is for a later installation than the next one.
    pub(super) later: bool,
}

/// The decompressed archives of one run.
#[derive(Debug)]
pub(super) struct Unpacked {
    /// Where apt has its archives.
    archives: PathBuf,
    /// Where decompressed ones wait for dpkg.
    waiting: PathBuf,
    /// Where those for later installations wait until that is the next one.
    later: PathBuf,
    /// Exists while dpkg runs on archives that apt has checked.
    dpkg_runs: PathBuf,
    /// Names of what has been decompressed and not been removed yet.
    whole: Mutex<Vec<String>>,
    /// How many packages dpkg is still to unpack. Until then it wants every core; when it configures them, one.
    to_unpack: Mutex<usize>,
    all_unpacked: Condvar,
    stopped: AtomicBool,
}

impl Unpacked {
    /// Prepares for archives in `archives`. What is whole waits in `waiting`, a directory on the same file system, until the file
    /// `dpkg_runs` appears; whoever makes that file moves what waits then. Directories below `waiting` are for this type's use.
    pub(super) fn new(archives: PathBuf, waiting: PathBuf, dpkg_runs: PathBuf) -> Self {
        Self {
            archives,
            later: waiting.join("later"),
            waiting,
            dpkg_runs,
            whole: Mutex::default(),
            to_unpack: Mutex::default(),
            all_unpacked: Condvar::new(),
            stopped: AtomicBool::new(false),
        }
    }

    /// Decompresses the archives that `archives` brings until there are no more. Several threads may share the work.
    ///
    /// What cannot be decompressed is left to dpkg, which does it or says what is wrong.
    pub(super) fn work(&self, archives: &Mutex<mpsc::Receiver<Archive>>) {
        crate::priority::lower();
        loop {
            let next = archives.lock().expect("no panic while held").recv();
            let Ok(archive) = next else { return };
            if archive.later {
                let unpacking = self.to_unpack.lock().expect("no panic while held");
                let _unpacked = self.all_unpacked.wait_while(unpacking, |count| *count > 0);
            }
            if self.stopped.load(Ordering::Relaxed) {
                return;
            }
            // What cannot be decompressed is dpkg's matter.
            let _ = self.decompress(archive);
        }
    }

    fn decompress(&self, archive: Archive) -> io::Result<()> {
        let name = &archive.name;
        let from = File::open(self.archives.join(name))?;
        fs::create_dir_all(&self.later)?;
        let partial = tempfile::NamedTempFile::new_in(&self.later)?;
        let mut to = io::BufWriter::with_capacity(1 << 18, partial.as_file());
        deb::decompress(from, &mut to)?;
        to.into_inner()?;
        readable(partial.as_file())?;
        // From here to its name in the list, or dpkg could end in between and its archive would stay where it took it from.
        let mut whole = self.whole.lock().expect("no panic while held");
        if archive.later {
            partial.persist(self.later.join(name))?;
        } else {
            let waiting = self.waiting.join(name);
            partial.persist(&waiting)?;
            if self.dpkg_runs.exists() {
                // Unless it has been moved already.
                let _ = fs::rename(&waiting, self.archives.join(name));
            }
        }
        whole.push(archive.name);
        Ok(())
    }

    /// Says that what was for later is for the next installation. Nothing may be working then.
    pub(super) fn next(&self) {
        for name in self.whole.lock().expect("no panic while held").iter() {
            let _ = fs::rename(self.later.join(name), self.waiting.join(name));
        }
    }

    /// Says how many packages the next installation unpacks: what is for later waits for them.
    pub(super) fn will_unpack(&self, count: usize) {
        *self.to_unpack.lock().expect("no panic while held") = count;
    }

    /// Looks at a line of dpkg's.
    pub(super) fn saw(&self, line: &str) {
        if line.starts_with("Unpacking ") {
            let mut count = self.to_unpack.lock().expect("no panic while held");
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.all_unpacked.notify_all();
            }
        }
    }

    /// Says that dpkg has ended: what it took is not needed again.
    pub(super) fn dpkg_ended(&self) {
        self.will_unpack(0);
        self.all_unpacked.notify_all();
        if !self.dpkg_runs.exists() {
            return;
        }
        remove(&self.dpkg_runs);
        let mut whole = self.whole.lock().expect("no panic while held");
        whole.retain(|name| {
            let waits = [&self.waiting, &self.later]
                .iter()
                .any(|dir| dir.join(name).exists());
            if !waits {
                remove(&self.archives.join(name));
            }
            waits
        });
    }

    /// Ends the work early: its result is not wanted any more.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.will_unpack(0);
        self.all_unpacked.notify_all();
    }
}

/// The sandbox reads it as another user.
fn readable(file: &File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    file.set_permissions(fs::Permissions::from_mode(0o644))
}

fn remove(path: &Path) {
    // Only space: the run's directory goes as a whole in the end.
    let _ = fs::remove_file(path);
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &[u8] = b"!<arch>\n";

    fn files(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn archives_change_places_only_while_dpkg_runs() {
        let dir = tempfile::tempdir().unwrap();
        let [archives, waiting, runs] =
            ["archives", "waiting", "runs"].map(|name| dir.path().join(name));
        for dir in [&archives, &waiting] {
            fs::create_dir(dir).unwrap();
        }
        let unpacked = Unpacked::new(archives.clone(), waiting.clone(), runs.clone());
        let work = |name: &str, later| {
            fs::write(archives.join(name), EMPTY).unwrap();
            let (sender, receiver) = mpsc::channel();
            for name in [name, "missing.deb"].map(str::to_owned) {
                sender.send(Archive { name, later }).unwrap();
            }
            drop(sender);
            unpacked.work(&Mutex::new(receiver));
        };
        work("before.deb", false);
        assert_eq!(files(&waiting), ["before.deb", "later"]);

        fs::write(&runs, "").unwrap();
        work("while.deb", false);
        work("later.deb", true);
        assert_eq!(files(&waiting), ["before.deb", "later"]);

        unpacked.dpkg_ended();
        assert_eq!(files(&archives), ["before.deb", "later.deb"]);
        assert!(!runs.exists());
        unpacked.next();
        assert_eq!(files(&waiting), ["before.deb", "later", "later.deb"]);
    }

    #[test]
    fn what_is_for_later_waits_until_everything_else_is_unpacked() {
        let dir = tempfile::tempdir().unwrap();
        let [archives, waiting, runs] =
            ["archives", "waiting", "runs"].map(|name| dir.path().join(name));
        for dir in [&archives, &waiting] {
            fs::create_dir(dir).unwrap();
        }
        for name in ["now.deb", "later.deb"] {
            fs::write(archives.join(name), EMPTY).unwrap();
        }
        let unpacked = Unpacked::new(archives, waiting.clone(), runs);
        unpacked.will_unpack(2);
        let (sender, receiver) = mpsc::channel();
        for (name, later) in [
            ("now.deb".to_owned(), false),
            ("later.deb".to_owned(), true),
        ] {
            sender.send(Archive { name, later }).unwrap();
        }
        drop(sender);
        std::thread::scope(|scope| {
            let receiver = Mutex::new(receiver);
            let unpacked = &unpacked;
            let worker = scope.spawn(move || unpacked.work(&receiver));
            unpacked.saw("Unpacking one (1) ...");
            unpacked.saw("Setting up one (1) ...");
            while !waiting.join("now.deb").exists() {
                std::thread::yield_now();
            }
            assert!(!waiting.join("later/later.deb").exists() && !worker.is_finished());
            unpacked.saw("Unpacking two (1) ...");
            worker.join().unwrap();
        });
        assert!(waiting.join("later/later.deb").exists());
    }

    #[test]
    fn an_archive_that_becomes_whole_as_dpkg_ends_does_not_stay() {
        for _ in 0..200 {
            let dir = tempfile::tempdir().unwrap();
            let [archives, waiting, runs] =
                ["archives", "waiting", "runs"].map(|name| dir.path().join(name));
            for dir in [&archives, &waiting] {
                fs::create_dir(dir).unwrap();
            }
            fs::write(archives.join("late.deb"), EMPTY).unwrap();
            fs::write(&runs, "").unwrap();
            let unpacked = Unpacked::new(archives.clone(), waiting.clone(), runs);
            let (sender, receiver) = mpsc::channel();
            let (name, later) = ("late.deb".to_owned(), false);
            sender.send(Archive { name, later }).unwrap();
            drop(sender);
            std::thread::scope(|scope| {
                scope.spawn(|| unpacked.work(&Mutex::new(receiver)));
                unpacked.dpkg_ended();
            });
            // Either it was taken and is gone, or it waits for the next time.
            let waits = waiting.join("late.deb").exists();
            let named = unpacked.whole.lock().unwrap().clone();
            assert_eq!(named, if waits { vec!["late.deb"] } else { vec![] });
            assert_eq!(archives.join("late.deb").exists(), waits);
        }
    }
}
