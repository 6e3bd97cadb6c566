//! What conditions and templates can know of the image: read from its own files, never from the machine that builds.

use kfactory_layers::root::Root;
use kfactory_sandbox::CancelToken;

use super::template::{self, Failure, Rendered, Value};
use crate::distro::{Arch, OsRelease};
use crate::error::Result;

/// The name that every command of a build sees as that of its machine.
const HOSTNAME: &str = "localhost";
const SYSTEM_DIRS: [&str; 4] = ["/sbin", "/bin", "/usr/sbin", "/usr/bin"];

/// Values that belong to the building machine, and what they are.
const REFUSED: &[(&str, &str)] = &[
    ("kernel", "the kernel of the machine that builds"),
    ("product", "the hardware of the machine that builds"),
    ("board", "the hardware of the machine that builds"),
    ("chassis", "the hardware of the machine that builds"),
    ("bios", "the hardware of the machine that builds"),
    ("cpu", "the hardware of the machine that builds"),
    ("memory", "the hardware of the machine that builds"),
    ("storage", "the hardware of the machine that builds"),
    ("network", "the hardware of the machine that builds"),
    ("sysinfo", "the moment of the build"),
    ("Random", "another text in every build"),
];

/// Facts of the image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct System {
    /// os-release's `PRETTY_NAME`.
    pub name: String,
    /// os-release's `ID`.
    pub vendor: String,
    /// The version that conditions look at.
    pub version: String,
    /// The release, with what the version leaves out.
    pub release: String,
    /// The architecture, as `amd64`.
    pub architecture: String,
    /// os-release's `ID_LIKE`.
    pub id_like: String,
    /// Whether there is a `systemctl`.
    pub has_systemd: bool,
    /// Whether there is an `openrc`.
    pub has_openrc: bool,
}

impl System {
    /// Reads the facts of the tree at `root`.
    ///
    /// # Errors
    ///
    /// A file cannot be read.
    pub fn read(root: &Root, arch: Arch) -> Result<Self> {
        let text = |path: &str| -> Result<String> {
            Ok(match root.metadata_opt(path)? {
                Some(found) if found.is_file() => {
                    String::from_utf8_lossy(&root.read_opt(path)?.unwrap_or_default())
                        .trim()
                        .to_owned()
                }
                _ => String::new(),
            })
        };
        let os = match text("/etc/os-release")? {
            found if found.is_empty() => text("/usr/lib/os-release")?,
            found => found,
        };
        let has = |name: &str| -> Result<bool> {
            for dir in SYSTEM_DIRS {
                if root.exists(format!("{dir}/{name}"))? {
                    return Ok(true);
                }
            }
            Ok(false)
        };
        let mut system = Self::from_os_release(&os, arch);
        system.release = match system.vendor.as_str() {
            "debian" => text("/etc/debian_version")?,
            "ubuntu" => number_in(&system.name),
            "almalinux" | "rocky" | "centos" => {
                number_in(&text(&format!("/etc/{}-release", system.vendor))?)
            }
            "rhel" => number_in(&text("/etc/redhat-release")?),
            _ => String::new(),
        };
        if matches!(system.vendor.as_str(), "almalinux" | "rocky") {
            system.version = system
                .release
                .split('.')
                .next()
                .unwrap_or_default()
                .to_owned();
        }
        system.has_systemd = has("systemctl")?;
        system.has_openrc = has("openrc")?;
        Ok(system)
    }

    /// Takes what os-release alone says.
    pub fn from_os_release(text: &str, arch: Arch) -> Self {
        let release = OsRelease::parse(text);
        let get = |key| release.get(key).unwrap_or_default().to_owned();
        Self {
            name: get("PRETTY_NAME"),
            vendor: get("ID"),
            version: get("VERSION_ID"),
            id_like: get("ID_LIKE"),
            architecture: arch.to_string(),
            ..Self::default()
        }
    }

    /// Renders a template, or returns the text itself and why, of which one reason is that `stop` is cancelled.
    ///
    /// # Errors
    ///
    /// It asks for the building machine: the line within the text, counted from 0, and what it asks for.
    pub fn render(
        &self,
        text: &str,
        stop: Option<&CancelToken>,
    ) -> std::result::Result<(String, Option<String>), (usize, String)> {
        let data = Value::map([("Values", self.values())]);
        outcome(template::render(text, &data, stop))
    }

    /// As [`render`](Self::render), for a host name, whose templates have data of their own.
    ///
    /// # Errors
    ///
    /// As for [`render`](Self::render), and whatever else is wrong with it.
    pub fn render_hostname(
        &self,
        text: &str,
        stop: Option<&CancelToken>,
    ) -> std::result::Result<String, (usize, String)> {
        match outcome(template::render(text, &hostname_data(), stop))? {
            (text, None) => Ok(text),
            (_, Some(why)) => Err((0, why)),
        }
    }

    fn values(&self) -> Value {
        let refused = |what: &str| Value::Refused(format!("it asks for {what}"));
        // What is not known is no key at all, and reads as `<no value>`.
        let known = [
            ("name", &self.name),
            ("vendor", &self.vendor),
            ("version", &self.version),
            ("release", &self.release),
            ("architecture", &self.architecture),
        ];
        let known = known.into_iter().filter(|(_, text)| !text.is_empty());
        let os = Value::map(known.map(|(key, text)| (key, Value::text(text))));
        let Value::Map(mut values) = Value::map([
            ("os", os),
            ("node", node()),
            // Made of the machine ID, which an image has none of.
            ("ProtectedID", Value::text("")),
        ]) else {
            return Value::Nil;
        };
        for (name, what) in REFUSED {
            values.insert((*name).to_owned(), refused(what));
        }
        Value::Map(values)
    }
}

fn node() -> Value {
    let hardware = || Value::Refused("it asks for the machine that builds".to_owned());
    Value::map([
        ("hostname", Value::text(HOSTNAME)),
        ("hypervisor", hardware()),
        ("timezone", hardware()),
    ])
}

fn hostname_data() -> Value {
    let random = || Value::Refused("it asks for another text in every build".to_owned());
    Value::map([
        ("UUID", random()),
        ("Random", random()),
        ("MachineID", Value::text("")),
        ("ProtectedID", Value::text("")),
    ])
}

fn outcome(
    rendered: std::result::Result<Rendered, Failure>,
) -> std::result::Result<(String, Option<String>), (usize, String)> {
    match rendered {
        Ok(rendered) => Ok((rendered.text, rendered.kept.map(|failure| failure.message))),
        Err(failure) => Err((failure.line, failure.message)),
    }
}

/// Says what a chain of fields asks for, where a build must not answer.
pub(super) fn refusal(path: &[String]) -> Option<&'static str> {
    match path {
        [values, group, ..] if values == "Values" => match group.as_str() {
            "node" => matches!(
                path.get(2).map(String::as_str),
                Some("hypervisor" | "timezone")
            )
            .then_some("the machine that builds"),
            group => REFUSED
                .iter()
                .find(|(name, _)| *name == group)
                .map(|(_, what)| *what),
        },
        _ => None,
    }
}

/// Returns the first run of digits and dots behind a blank or a parenthesis.
fn number_in(text: &str) -> String {
    let is_part = |c: char| c.is_ascii_digit() || c == '.';
    let starts = text.char_indices().filter(|(_, c)| matches!(c, ' ' | '('));
    starts
        .map(|(at, _)| {
            text[at + 1..]
                .chars()
                .take_while(|c| is_part(*c))
                .collect::<String>()
        })
        .find(|number| !number.is_empty())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        let root = Root::open(dir.path()).unwrap();
        (dir, root)
    }

    #[test]
    fn the_version_of_rebuilds_is_the_major_number_of_their_own_file() {
        let os = "ID=\"rocky\"\nVERSION_ID=\"9.4\"\nPRETTY_NAME=\"Rocky Linux 9.4\"\n";
        let (_dir, root) = tree(&[
            ("etc/os-release", os),
            ("etc/rocky-release", "Rocky Linux release 9.4 (Blue Onyx)\n"),
        ]);
        let system = System::read(&root, Arch::Amd64).unwrap();
        assert_eq!(
            (system.version.as_str(), system.release.as_str()),
            ("9", "9.4")
        );
        let (_dir, root) = tree(&[("etc/os-release", os)]);
        assert_eq!(System::read(&root, Arch::Amd64).unwrap().version, "");
    }

    #[test]
    fn templates_see_the_image_and_not_the_building_machine() {
        let system = System::from_os_release(
            "ID=debian\nVERSION_ID=12\nPRETTY_NAME=\"Debian 12\"\n",
            Arch::Arm64,
        );
        let text =
            "{{ .Values.os.name }}/{{ .Values.os.architecture }}/{{ .Values.node.hostname }}";
        assert_eq!(
            system.render(text, None).unwrap().0,
            "Debian 12/arm64/localhost"
        );
        for text in [
            "{{ .Values.cpu.cores }}",
            "{{ .Values.Random }}",
            "{{ with .Values }}{{ .kernel.release }}{{ end }}",
        ] {
            assert!(system.render(text, None).is_err(), "{text}");
        }
        assert!(system.render_hostname("node-{{ .UUID }}", None).is_err());
        assert_eq!(
            system
                .render_hostname("node{{ .MachineID }}", None)
                .unwrap(),
            "node"
        );
    }
}
