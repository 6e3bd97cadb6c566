//! Blobs stored, taken over, damaged and abandoned.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use rustix::fs::CWD;

use super::*;

fn store() -> (tempfile::TempDir, BlobStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = BlobStore::ensure(dir.path()).unwrap();
    (dir, store)
}

fn files(store: &BlobStore) -> usize {
    fs::read_dir(&store.dir).unwrap().count()
}

#[test]
fn what_is_put_can_be_read_and_listed_and_removed() {
    let (_dir, store) = store();
    let blob = store.put(b"hello").unwrap();
    assert_eq!(blob, store.put(b"hello").unwrap());
    let mut text = String::new();
    store
        .open_digest(&blob.digest)
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text, "hello");
    assert_eq!(store.digests().unwrap(), [blob.digest]);
    assert_eq!(store.remove(&blob.digest).unwrap(), Some(5));
    assert_eq!(store.remove(&blob.digest).unwrap(), None);
    assert_eq!(files(&store), 0);
}

#[test]
fn an_unfinished_blob_has_no_name_and_leaves_nothing() {
    let (_dir, store) = store();
    let mut writer = store.writer().unwrap();
    writer.write_all(b"half").unwrap();
    assert_eq!(store.digests().unwrap(), []);
    drop(writer);
    assert_eq!(files(&store), 0);
}

#[test]
fn a_wrong_blob_is_not_stored() {
    let (_dir, store) = store();
    let digest = Digest::of(b"hello");
    for content in [&b"hell"[..], b"hellO", b"hello!"] {
        let result = store.put_reader(content, &digest, 5);
        assert!(matches!(result, Err(BlobError::Verify(_))), "{result:?}");
        let mut writer = store.writer().unwrap();
        writer.write_all(content).unwrap();
        assert!(matches!(
            writer.commit_as(&digest, 5),
            Err(BlobError::Verify(_))
        ));
    }
    assert_eq!(files(&store), 0);
    assert!(store.put_reader(&b"hello"[..], &digest, 5).is_ok());
}

#[test]
fn a_blob_changed_on_disk_is_noticed_when_read() {
    let (_dir, store) = store();
    let blob = store.put(b"hello").unwrap();
    fs::write(store.path(&blob.digest), b"hellO").unwrap();
    let error = io::copy(
        &mut store.open_digest(&blob.digest).unwrap(),
        &mut io::sink(),
    )
    .unwrap_err();
    assert!(VerifyError::in_io(&error).is_some());
}

#[test]
fn a_cut_off_blob_is_written_again() {
    let (_dir, store) = store();
    let blob = store.put(b"hello").unwrap();
    fs::write(store.path(&blob.digest), b"he").unwrap();
    store.put(b"hello").unwrap();
    assert_eq!(fs::read(store.path(&blob.digest)).unwrap(), b"hello");
}

#[test]
fn importing_shares_or_copies_and_always_checks() {
    let (from_dir, from) = store();
    let (_to_dir, to) = store();
    let blob = from.put(b"hello").unwrap();
    assert_eq!(to.import(&from, &blob.digest, 5).unwrap(), blob);
    assert_eq!(fs::read(to.path(&blob.digest)).unwrap(), b"hello");

    let path = from_dir.path().join("writable by others");
    fs::write(&path, b"world").unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
    let file = File::open(&path).unwrap();
    let digest = Digest::of(b"world");
    to.import_file(&file, &digest, 5).unwrap();
    assert_eq!(fs::metadata(to.path(&digest)).unwrap().nlink(), 1);

    let wrong = Digest::of(b"other");
    assert!(matches!(
        to.import_file(&file, &wrong, 5),
        Err(BlobError::Verify(_))
    ));
    assert!(!to.contains(&wrong));
    assert_eq!(files(&to), 2);
}

#[test]
fn what_is_not_a_regular_file_is_not_opened_for_ever() {
    let (_dir, store) = store();
    let digest = Digest::of(b"x");
    let path = store.path(&digest);
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    assert!(!store.contains(&digest));
    assert_eq!(
        store.open_file(&digest).unwrap_err().kind(),
        io::ErrorKind::InvalidData
    );
}

#[test]
fn only_partial_files_of_dead_writers_are_removed_and_those_at_once() {
    let (_dir, store) = store();
    let live = store.writer().unwrap();
    fs::write(store.dir.join(".kfactory-partial-dead"), b"half").unwrap();
    assert_eq!(store.remove_abandoned().unwrap(), 1);
    assert_eq!(files(&store), 1);
    live.commit().unwrap();
}

#[test]
fn a_writer_that_starts_while_others_clean_up_loses_nothing() {
    let (_dir, store) = store();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                store.remove_abandoned().unwrap();
            }
        });
        for number in 0..500 {
            let mut writer = store.writer().unwrap();
            writer.write_all(format!("{number}").as_bytes()).unwrap();
            writer.commit().unwrap();
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(files(&store), 500);
}

#[test]
fn a_damaged_blob_is_replaced_by_whoever_has_the_right_bytes() {
    let (dir, store) = store();
    let blob = store.put(b"hello").unwrap();
    let damage = || fs::write(store.path(&blob.digest), b"hellO").unwrap();
    let is_whole = || store.check(&blob.digest, blob.size).is_ok();
    damage();
    assert!(!is_whole());
    store.put(b"hello").unwrap();
    assert!(is_whole());
    damage();
    let whole = dir.path().join("whole");
    fs::write(&whole, b"hello").unwrap();
    let file = File::open(whole).unwrap();
    store.import_file(&file, &blob.digest, blob.size).unwrap();
    assert!(is_whole());
}

#[test]
fn a_store_without_a_directory_is_empty() {
    let dir = tempfile::tempdir().unwrap();
    let store = BlobStore::open(&dir.path().join("none"));
    assert_eq!(store.digests().unwrap(), []);
    let error = store.open_digest(&Digest::of(b"")).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}
