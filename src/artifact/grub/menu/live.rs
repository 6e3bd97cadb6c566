//! The menu of live media.

use super::args::{bytes_in_cmdline, shell, words};
use crate::artifact::names::LIVE_LABEL;
use crate::distro::Arch;
use crate::error::{Error, Result};

/// What the menu of a live medium depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveMenu {
    /// The architecture of the medium.
    pub arch: Arch,
    /// The volume identifier, which the initrd searches for.
    pub label: String,
    /// The root file system, a file in the top directory of the medium.
    pub squashfs: String,
    /// The kernel's consoles; the last one is `/dev/console`.
    pub console: String,
    /// More kernel arguments, behind all others of each entry.
    pub cmdline: String,
}

/// The consoles of an entry.
#[derive(Debug, Clone, Copy)]
enum Console {
    Chosen,
    /// A screen and all that can be said there.
    Debug,
}

/// What an entry differs from the others in.
#[derive(Debug, Clone, Copy)]
struct Entry {
    title: &'static str,
    mode: &'static [&'static str],
    console: Console,
    /// Without the images and overlays of an installed system.
    is_plain_live: bool,
}

const fn entry(title: &'static str, mode: &'static [&'static str]) -> Entry {
    Entry {
        title,
        mode,
        console: Console::Chosen,
        is_plain_live: true,
    }
}

const ENTRIES: [Entry; 6] = [
    entry("Kairos", &["install-mode"]),
    entry("Kairos (manual)", &[]),
    entry(
        "kairos (interactive install)",
        &["install-mode-interactive"],
    ),
    entry(
        "Kairos (remote recovery mode)",
        &["kairos.remote_recovery_mode"],
    ),
    Entry {
        is_plain_live: false,
        ..entry(
            "Kairos (boot local node from livecd)",
            &["kairos.boot_live_mode"],
        )
    },
    Entry {
        console: Console::Debug,
        ..entry("Kairos (debug)", &[])
    },
];

const RAM_TITLE: &str = "Kairos (boot to RAM)";
const RAM_NOTES: [&str; 3] = [
    "The system runs from memory; what is not on a partition is lost when it ends.",
    "Partitions for configuration and data are made on a disk that is empty or has them.",
    "Without a configuration that names a user nobody can log in.",
];
const RAM: Entry = Entry {
    is_plain_live: false,
    ..entry(RAM_TITLE, &["kairos.ram", "kairos.ram.create_partitions"])
};

const DEBUG_CONSOLE: [&str; 4] = ["console=tty0", "rd.debug", "rd.shell", "rd.immucore.debug"];

const HEAD: &str = r#"# Boot menu of the live medium.

set default=0
set timeout=10
set timeout_style=menu

# GRUB was read from the medium, but some ways of starting it do not say so.
if [ ! -f "(${root})/boot/kernel" ]; then
    search --no-floppy --file --set=root /boot/kernel
fi

set font="(${root})/boot/${grub_cpu}/loader/grub2/fonts/unicode.pf2"
if [ -f "${font}" ]; then
    if loadfont "${font}"; then
        set gfxmode=auto
        terminal_output gfxterm
    fi
fi
"#;

/// One board needs more arguments. Its firmware names it; machines of other kinds are not asked, as a GRUB that cannot ask
/// stops with an error before the menu.
const BOARD: &str = "Thor";
const BOARD_ARGS: &str =
    "pd_ignore_unused clk_ignore_unused console=ttyUTC0,115200 earlycon=tegra_utc,mmio32,0xc5a0000";

const TEXT_MODE: &str = r#"
if [ "${grub_platform}" = "efi" ]; then
    menuentry "Text mode" --hotkey=t {
        terminal_output console
    }
fi
"#;

impl LiveMenu {
    /// Returns the menu that every medium of Kairos has.
    pub fn new(arch: Arch) -> Self {
        Self {
            arch,
            label: LIVE_LABEL.to_owned(),
            squashfs: "rootfs.squashfs".to_owned(),
            console: "console=ttyS0 console=tty1".to_owned(),
            cmdline: String::new(),
        }
    }

    /// Returns the text of `/boot/grub2/grub.cfg`.
    ///
    /// # Errors
    ///
    /// Arguments that GRUB cannot hand to the kernel unchanged, or more than the kernel takes.
    pub fn text(&self) -> Result<String> {
        let given = Given {
            root: words("the label", &format!("root=live:CDLABEL={}", self.label))?,
            squashfs: words("the name", &format!("rd.live.squashimg={}", self.squashfs))?,
            console: words("`--live-console`", &self.console)?,
            cmdline: words("`--cmdline`", &self.cmdline)?,
        };
        let mut text = HEAD.to_owned();
        if self.arch == Arch::Arm64 {
            text += &board();
        }
        for entry in &ENTRIES {
            text += "\n";
            text += &self.entry(entry, &given, "")?;
        }
        text += &format!("\nsubmenu \"{RAM_TITLE}\" {{\n");
        text += &format!("    set default={}\n", RAM_NOTES.len());
        for note in RAM_NOTES {
            text += &format!("    menuentry \"{note}\" {{\n        true\n    }}\n");
        }
        text += &self.entry(&RAM, &given, "    ")?;
        text += "}\n";
        text += TEXT_MODE;
        Ok(text)
    }

    fn entry(&self, entry: &Entry, given: &Given, indent: &str) -> Result<String> {
        let args = self.args(entry, given);
        self.check(&args)?;
        Ok(format!(
            "{indent}menuentry \"{}\" {{\n\
             {indent}    echo \"Loading the kernel ...\"\n\
             {indent}    linux \"(${{root}})\"/boot/kernel{}\n\
             {indent}    echo \"Loading the initrd ...\"\n\
             {indent}    initrd \"(${{root}})\"/boot/initrd\n\
             {indent}}}\n",
            entry.title, args.line,
        ))
    }

    fn args(&self, entry: &Entry, given: &Given) -> Args {
        let mut args = Args::default();
        args.add(&["cdroot"]);
        args.add(&given.root);
        args.add(&["rd.live.dir=/"]);
        args.add(&given.squashfs);
        args.add(&["net.ifnames=1"]);
        match entry.console {
            Console::Chosen => args.add(&given.console),
            Console::Debug => args.add(&DEBUG_CONSOLE),
        }
        if entry.is_plain_live {
            args.add(&["rd.cos.disable"]);
        }
        args.add(&["vga=795"]);
        if self.arch == Arch::Amd64 {
            args.add(&["nomodeset"]);
        }
        args.add(entry.mode);
        args.add(&["selinux=0"]);
        if self.arch == Arch::Arm64 {
            args.add_variable("board_args", BOARD_ARGS);
        }
        args.add(&["rd.live.overlay.overlayfs"]);
        args.add(&given.cmdline);
        args
    }

    /// Refuses what the kernel would cut off: `COMMAND_LINE_SIZE` of its architectures, the last byte a zero, and what GRUB puts
    /// before the arguments.
    fn check(&self, args: &Args) -> Result<()> {
        const BEFORE: usize = "BOOT_IMAGE=(hd31,gpt128)/boot/kernel".len();
        let most = match self.arch {
            Arch::Amd64 | Arch::Arm64 => 2047,
            Arch::Riscv64 => 1023,
        };
        let bytes = BEFORE + args.bytes;
        if bytes > most {
            return Err(Error::usage("the kernel arguments of the live menu are too long")
                .context_below(format!(
                    "with those that the live system needs they are {bytes} bytes; the kernel takes {most}"
                ))
                .hint("shorten `--cmdline` or `--live-console`"));
        }
        Ok(())
    }
}

fn board() -> String {
    format!(
        r#"
set model=
set board_args=
if [ "${{grub_platform}}" = "efi" ]; then
    smbios --type 4 --get-string 5 --set model
fi
if [ "${{model}}" = "{BOARD}" ]; then
    set board_args="{BOARD_ARGS}"
fi
export board_args
"#
    )
}

/// The arguments of an entry.
#[derive(Debug, Default)]
struct Args {
    /// As GRUB's shell reads them, each with a blank before it.
    line: String,
    /// The most bytes that they take in the kernel's command line.
    bytes: usize,
}

impl Args {
    fn add(&mut self, words: &[impl AsRef<str>]) {
        for word in words.iter().map(AsRef::as_ref) {
            self.line += " ";
            self.line += &shell(word);
            self.bytes += 1 + bytes_in_cmdline(word);
        }
    }

    /// Adds the words of a variable of the menu, at most those of `value`; unquoted, so that nothing is left where it is empty.
    fn add_variable(&mut self, name: &str, value: &str) {
        self.line += &format!(" ${{{name}}}");
        self.bytes += 1 + value.len();
    }
}

/// What was given, in words.
struct Given {
    root: Vec<String>,
    squashfs: Vec<String>,
    console: Vec<String>,
    cmdline: Vec<String>,
}
