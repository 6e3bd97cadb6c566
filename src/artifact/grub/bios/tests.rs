//! Cores made of samples, whose every field is known, and of this machine's GRUB, compared with what its own tool makes.

use std::collections::BTreeSet;

use liblzma::stream::{Action, Filters, LzmaOptions, Stream};
use proptest::prelude::*;

use super::*;
use crate::artifact::grub::Files as _;
use crate::artifact::grub::sample::{Host, Memory, has_grub_pc};
use crate::artifact::judge::judge;

const DIR: &str = "usr/lib/grub/i386-pc";
const DECOMPRESSOR_BYTES: usize = 0xb00;

/// An ELF32 file with one program header, which loads `content` at 0x9000.
fn elf(kind: u16, content: &[u8]) -> Vec<u8> {
    let mut elf = vec![0; 84];
    elf[..6].copy_from_slice(b"\x7fELF\x01\x01");
    let mut put = |at: usize, field: &[u8]| elf[at..at + field.len()].copy_from_slice(field);
    put(16, &kind.to_le_bytes());
    put(28, &52u32.to_le_bytes());
    put(42, &32u16.to_le_bytes());
    put(44, &1u16.to_le_bytes());
    put(52, &1u32.to_le_bytes());
    put(56, &84u32.to_le_bytes());
    put(60, &0x9000u32.to_le_bytes());
    put(68, &u32::try_from(content.len()).unwrap().to_le_bytes());
    elf.extend(content);
    elf
}

fn boot_sector() -> Vec<u8> {
    let mut sector = vec![0x11; SECTOR];
    sector[0x66..0x68].copy_from_slice(&[0xeb, 5]);
    sector[SECTOR - 2..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

/// An image with a GRUB of four modules: `top` needs `left` and `right`, which need `base`.
fn sample() -> Memory {
    let files = [
        ("boot.img", boot_sector()),
        ("boot_hybrid.img", boot_sector()),
        ("cdboot.img", vec![0xcd; 2048]),
        ("diskboot.img", vec![0xdb; SECTOR]),
        ("kernel.img", elf(2, b"the kernel..")),
        ("lzma_decompress.img", vec![0xde; DECOMPRESSOR_BYTES]),
        (
            "moddep.lst",
            b"top: right left\nleft: base\nright: base\nbase:\n".to_vec(),
        ),
        ("top.mod", elf(1, b"top")),
        ("left.mod", elf(1, b"left")),
        ("right.mod", elf(1, b"right")),
        ("base.mod", elf(1, b"base")),
    ];
    Memory(
        files
            .map(|(name, bytes)| (format!("{DIR}/{name}"), bytes))
            .into(),
    )
}

fn spec(modules: &[&str]) -> CoreSpec {
    CoreSpec {
        prefix: "/boot/grub2".to_owned(),
        config: "set a=b\n".to_owned(),
        modules: modules.iter().map(|&name| name.to_owned()).collect(),
        if_there: vec!["unheard_of".to_owned()],
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// Unpacks a core as its decompressor would, by the sizes that are written in it.
fn unpacked(core: &[u8], decompressor: usize) -> Vec<u8> {
    let stage = &core[SECTOR..];
    let (packed, bytes) = (u32_at(stage, 8) as usize, u32_at(stage, 12) as usize);
    let mut options = LzmaOptions::new_preset(9).unwrap();
    options
        .dict_size(1 << 16)
        .literal_context_bits(3)
        .literal_position_bits(0)
        .position_bits(2);
    let mut filters = Filters::new();
    filters.lzma1(&options);
    let mut stream = Stream::new_raw_decoder(&filters).unwrap();
    let mut payload = vec![0; bytes];
    let packed = &stage[decompressor..decompressor + packed];
    stream.process(packed, &mut payload, Action::Run).unwrap();
    assert_eq!(stream.total_out(), bytes as u64);
    payload
}

/// Returns the kernel in a payload, and the type and content of each object behind it.
fn objects(payload: &[u8]) -> (Vec<u8>, Vec<(u32, Vec<u8>)>) {
    let info = (0..payload.len() - 12)
        .rev()
        .find(|&at| {
            payload[at..].starts_with(b"mimg\x0c\0\0\0")
                && at + u32_at(payload, at + 8) as usize == payload.len()
        })
        .expect("a module info that spans the rest");
    let mut rest = &payload[info + 12..];
    let mut objects = Vec::new();
    while !rest.is_empty() {
        let (object, behind) = rest.split_at(u32_at(rest, 4) as usize);
        objects.push((u32_at(object, 0), object[8..].to_vec()));
        rest = behind;
    }
    (payload[..info].to_vec(), objects)
}

#[test]
fn a_core_unpacks_to_kernel_modules_commands_and_prefix() {
    let sample = sample();
    let core = Modules::find(&sample)
        .unwrap()
        .core(&spec(&["top"]))
        .unwrap();
    let (kernel, objects) = objects(&unpacked(core.bytes(), DECOMPRESSOR_BYTES));
    assert_eq!(kernel, b"the kernel..");
    let padded = |name: &str| {
        let mut module = sample.0[&format!("{DIR}/{name}.mod")].clone();
        module.resize(module.len().next_multiple_of(4), 0);
        (0, module)
    };
    let wanted = [
        padded("base"),
        padded("right"),
        padded("left"),
        padded("top"),
        (2, b"set a=b\n\0\0\0\0".to_vec()),
        (3, b"/boot/grub2\0".to_vec()),
    ];
    assert_eq!(objects, wanted);
}

#[test]
fn a_core_is_whole_sectors_and_tells_where_its_rest_lies() {
    let sample = sample();
    let core = Modules::find(&sample)
        .unwrap()
        .core(&spec(&["base"]))
        .unwrap();
    assert_eq!(core.bytes().len() as u64, core.sectors() * 512);
    let placed = core.at(2048);
    assert_eq!(u64_at(&placed, 500), 2049);
    assert_eq!(
        u64::from(u16::from_le_bytes([placed[508], placed[509]])),
        core.sectors() - 1
    );
    assert_eq!(placed[..500], core.bytes()[..500]);
    assert_eq!(placed[508..], core.bytes()[508..]);
    assert_eq!(u32_at(&placed, 512 + 0x10), 0, "no Reed-Solomon code");
}

#[test]
fn a_disks_mbr_tells_where_the_core_is_and_mends_the_drive_number() {
    let sample = sample();
    let modules = Modules::find(&sample).unwrap();
    let code = modules.mbr_code(0x1_0000_0800).unwrap();
    assert_eq!(u64_at(&code, 0x5c), 0x1_0000_0800);
    assert_eq!(code[0x66..0x68], [0x90, 0x90]);
    let mut same = boot_sector();
    same[0x5c..0x68].copy_from_slice(&code[0x5c..0x68]);
    assert_eq!(code, same[..code.len()]);
}

#[test]
fn an_el_torito_image_is_a_block_of_boot_code_and_a_core() {
    let sample = sample();
    let modules = Modules::find(&sample).unwrap();
    let image = modules.el_torito(&spec(&["top"])).unwrap();
    let core = modules.core(&spec(&["top"])).unwrap();
    assert_eq!(image, [&[0xcd; 2048], core.bytes()].concat());
}

#[test]
fn what_does_not_fit_is_refused_by_its_name() {
    let cases: [(&str, Option<Vec<u8>>, &str); 11] = [
        ("kernel.img", Some(b"raw".to_vec()), "no 32-bit ELF program"),
        ("kernel.img", Some(elf(2, b"x")[..84].to_vec()), "cut off"),
        ("cdboot.img", Some(vec![0; 512]), "2048 bytes"),
        ("diskboot.img", None, "does not exist"),
        ("boot.img", Some(vec![0; 512]), "signature"),
        ("boot_hybrid.img", Some(vec![0; 511]), "512 bytes"),
        ("lzma_decompress.img", Some(vec![0; 4096]), "too large"),
        ("lzma_decompress.img", Some(vec![0; 4]), "cut off"),
        (
            "moddep.lst",
            Some(b"left: base\nbase:\n".to_vec()),
            "\"top\"",
        ),
        ("base.mod", Some(b"\x1f\x8b".to_vec()), "relocatable"),
        ("base.mod", None, "does not exist"),
    ];
    for (name, content, why) in cases {
        let mut sample = sample();
        let path = format!("{DIR}/{name}");
        match content {
            Some(content) => sample.0.insert(path, content),
            None => sample.0.remove(&path),
        };
        let modules = Modules::find(&sample).unwrap();
        let made = modules
            .el_torito(&spec(&["top"]))
            .and_then(|_| modules.hybrid_mbr())
            .and_then(|_| modules.mbr_code(1).map(drop));
        let text = made.expect_err(name).to_string();
        assert!(text.contains(name) && text.contains(why), "{name}: {text}");
    }
}

#[test]
fn a_core_that_has_no_room_below_the_kernel_is_refused() {
    let mut sample = sample();
    let mut noise = 1u32;
    let content: Vec<u8> = (0..0x8_0000)
        .map(|_| {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (noise >> 24) as u8
        })
        .collect();
    sample.0.insert(format!("{DIR}/base.mod"), elf(1, &content));
    let refused = Modules::find(&sample).unwrap().core(&spec(&["base"]));
    assert!(refused.unwrap_err().to_string().contains("392704"));
}

#[test]
fn an_image_without_grub_for_bios_is_told_where_it_was_looked_for_and_what_brings_it() {
    let empty = Memory::default();
    assert!(Modules::find_opt(&empty).is_none());
    let error = Modules::find(&empty).unwrap_err();
    let shown = format!("{error}");
    assert!(shown.contains("/usr/share/grub2/i386-pc"), "{shown}");
}

#[test]
fn modules_that_need_each_other_are_taken_once() {
    let closure = closure::Closure::new("a: b\nb: a\n");
    assert_eq!(
        closure.of(["a", "b"].into_iter()),
        Ok(vec!["b".to_owned(), "a".to_owned()])
    );
}

proptest! {
    #[test]
    fn no_kernel_makes_it_panic(content in proptest::collection::vec(any::<u8>(), 0..200), at in 0usize..84, byte: u8) {
        let mut damaged = elf(2, &content);
        damaged[at] = byte;
        let _ = kernel::flat(&damaged);
        let _ = kernel::flat(&content);
    }
}

#[test]
fn the_core_of_this_machines_grub_holds_what_its_own_tool_puts_there() {
    if !has_grub_pc() {
        return;
    }
    let modules = Modules::find(&Host).unwrap();
    for spec in [CoreSpec::live(), CoreSpec::disk(3)] {
        let dir = tempfile::tempdir().unwrap();
        let theirs = dir.path().join("core.img");
        let known =
            String::from_utf8(Host.read(&format!("{DIR}/moddep.lst")).unwrap().unwrap()).unwrap();
        let closure = closure::Closure::new(&known);
        let there = spec.if_there.iter().filter(|name| closure.knows(name));
        let names = spec.modules.iter().chain(there).map(String::as_str);
        let dir = Host::path(DIR);
        let fixed = ["--directory", dir.to_str().unwrap(), "--format", "i386-pc"];
        let given = [
            "--prefix",
            &spec.prefix,
            "--output",
            theirs.to_str().unwrap(),
        ];
        let args: Vec<&str> = fixed.into_iter().chain(given).chain(names).collect();
        if judge("grub-mkimage", &args).is_none() {
            return;
        }
        let theirs = std::fs::read(&theirs).unwrap();
        let ours = modules.core(&spec).unwrap();
        let decompressor = Host
            .read(&format!("{DIR}/lzma_decompress.img"))
            .unwrap()
            .unwrap()
            .len();
        let (their_kernel, their_objects) = objects(&unpacked(&theirs, decompressor));
        let (our_kernel, our_objects) = objects(&unpacked(ours.bytes(), decompressor));
        assert_eq!(our_kernel, their_kernel);
        // In another order, but each after what it needs.
        let set = |objects: Vec<(u32, Vec<u8>)>| objects.into_iter().collect::<BTreeSet<_>>();
        assert_eq!(our_objects.last(), their_objects.last());
        assert_eq!(our_objects.len(), their_objects.len());
        assert_eq!(set(our_objects), set(their_objects));
        // Both begin with the same sector and decompressor, but for sizes.
        assert_eq!(ours.bytes()[..500], theirs[..500]);
        assert_eq!(
            ours.bytes()[512 + 16..512 + decompressor],
            theirs[512 + 16..512 + decompressor]
        );
    }
}

#[test]
fn the_same_modules_make_the_same_bytes() {
    if !has_grub_pc() {
        return;
    }
    let make = || {
        Modules::find(&Host)
            .unwrap()
            .el_torito(&CoreSpec::live())
            .unwrap()
    };
    assert_eq!(make(), make());
}
