//! Whatever tree is described reads back.

use proptest::prelude::*;

use super::{bootable, expected, plain, seen, write};
use crate::artifact::guid::Guid;
use crate::artifact::iso::{Content, Disc, Hybrid, Tree, reader};

fn name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        "[abAB][-_.+ab]{0,3}".prop_map(String::into_bytes),
        "[a-z]{1,8}\\.[a-z]{0,4}".prop_map(String::into_bytes),
        "\\PC{1,20}".prop_map(String::into_bytes),
        (60..=255usize, any::<bool>()).prop_map(|(len, dot)| {
            let mut name = vec![b'l'; len];
            name[len / 2] = if dot { b'.' } else { b'n' };
            name
        }),
        prop::collection::vec(1..=255u8, 1..40),
    ]
}

#[derive(Debug, Clone)]
enum Thing {
    Dir,
    Bytes(usize),
    Later(u64),
    Link(Vec<Vec<u8>>, bool),
}

fn thing() -> impl Strategy<Value = Thing> {
    prop_oneof![
        Just(Thing::Dir),
        (0..5000usize).prop_map(Thing::Bytes),
        (0..10_000u64).prop_map(Thing::Later),
        (prop::collection::vec(name(), 1..12), any::<bool>())
            .prop_map(|(names, is_absolute)| Thing::Link(names, is_absolute)),
    ]
}

/// Trees with whatever [`Tree`] takes of what is tried.
fn tree() -> impl Strategy<Value = Tree> {
    let paths = prop::collection::vec(
        (prop::collection::vec(name(), 1..5), 0..0o10_000u32, thing()),
        0..60,
    );
    (paths, 0..12usize).prop_map(|(paths, depth)| {
        let mut tree = Tree::new();
        let deep = "deep/".repeat(depth);
        for (at, (names, mode, thing)) in paths.into_iter().enumerate() {
            let prefix = if at % 5 == 0 { deep.as_bytes() } else { b"" };
            let path = [prefix, &names.join(&b'/')].concat();
            let _ = match thing {
                Thing::Dir => tree.dir(path, mode).map(|()| None),
                Thing::Bytes(len) => {
                    let content = Content::Bytes(vec![b'x'; len]);
                    tree.file(path, mode, content).map(Some)
                }
                Thing::Later(size) => tree.file(path, mode, Content::Later(size)).map(Some),
                Thing::Link(names, is_absolute) => {
                    let mut target = names.join(&b'/');
                    if is_absolute {
                        target.insert(0, b'/');
                    }
                    // Slashes in a row do not survive.
                    let doubled = target.windows(2).any(|two| two == b"//");
                    match doubled || target.ends_with(b"/") {
                        true => Ok(None),
                        false => tree.symlink(path, target).map(|()| None),
                    }
                }
            };
        }
        tree
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn every_tree_reads_back_as_it_was_described(tree in tree(), boots in any::<bool>()) {
        let disc = plain(tree);
        let disc = Disc { hybrid: boots.then(|| Hybrid {
            boot_code: None,
            disk: Guid::new(1),
            iso: Guid::new(2),
            esp: Guid::new(3),
        }), ..disc };
        let region = write(&disc, 0);
        let image = reader::read(&region).expect("readable");
        let wanted = expected(&disc, 0);
        let found = seen(&region, &image.primary);
        prop_assert_eq!(found.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>());
        prop_assert!(found == wanted);
        let links = wanted.values().filter(|entry| entry.0 & 0o170_000 == 0o120_000).count();
        let joliet = image.joliet.expect("Joliet");
        prop_assert_eq!(joliet.entries.len(), wanted.len() - links);
        if let Some(gpt) = image.gpt {
            let gpt = gpt.expect("sound");
            let partition = region.part(&[gpt.partitions[0].extent()]).expect("on the disk");
            let inner = reader::read(&partition).expect("readable");
            prop_assert!(seen(&partition, &inner.primary) == wanted);
        }
    }

    #[test]
    fn the_same_description_gives_the_same_bytes(tree in tree()) {
        let finish = |disc: Disc| disc.lay_out().expect("laid out").finish(0).expect("finished");
        let disc = bootable(tree);
        prop_assert_eq!(finish(disc.clone()), finish(disc));
    }
}
