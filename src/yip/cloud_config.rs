//! The `#cloud-config` form: its keys become steps of the stages that run at boot.
//!
//! Spec: yip, "`#cloud-config` form".

use super::decode;
use super::fields::Fields;
use super::problem::Problems;
use super::schema::{Access, File, Stage, Step, Text};
use super::yaml::Node;

/// Lines among which the header must be.
const HEADER_LINES: usize = 10;

/// Returns whether the first line that is neither blank nor another comment is the header.
pub(super) fn has_header(text: &str) -> bool {
    text.lines()
        .take(HEADER_LINES)
        .map(str::trim_end)
        .find(|line| !line.is_empty() && (*line == "#cloud-config" || !line.starts_with('#')))
        .is_some_and(|line| line == "#cloud-config")
}

/// Reads the keys of the form and returns the stages they become, followed by what the file's own `stages` add.
pub(super) fn stages(fields: &mut Fields<'_>, problems: &mut Problems) -> Vec<Stage> {
    let line = fields.line();
    let mut users = fields.list("users", problems, decode::user);
    let keys = fields.texts("ssh_authorized_keys", problems);
    let mut files = fields.list("write_files", problems, file);
    files.extend(fields.list("milpa_files", problems, file));
    let hostname = fields.text("hostname", problems);
    let commands = fields.texts("runcmd", problems);
    let devices = growpart(fields, problems);
    let own = decode::stages(fields, problems);
    // The dialect reads it and then forgets it: names of steps begin with the file's path.
    fields.string("name", problems);

    let (mut here, mut network) = (Vec::new(), Vec::new());
    let mut share = |name: Text, own: Vec<Text>| {
        let is_remote =
            |key: &Text| key.value.starts_with("github") || key.value.starts_with("gitlab");
        let all = own.into_iter().chain(keys.iter().cloned());
        let (remote, local): (Vec<Text>, Vec<Text>) = all.partition(is_remote);
        if !local.is_empty() {
            here.push((name.clone(), local));
        }
        if !remote.is_empty() {
            network.push((name, remote));
        }
    };
    for user in &mut users {
        let name = Text {
            value: user.name.clone(),
            line: user.line,
        };
        share(name, std::mem::take(&mut user.ssh_authorized_keys));
    }
    if users.is_empty() {
        share(
            Text {
                value: "root".into(),
                line,
            },
            Vec::new(),
        );
    }
    let named = users.into_iter().map(|user| {
        (
            Text {
                value: user.name.clone(),
                line: user.line,
            },
            user,
        )
    });
    let first = Step {
        line,
        users: named.collect(),
        authorized_keys: here,
        files,
        commands,
        ..Step::default()
    };
    let grow = devices.into_iter().map(|device| Step {
        line: device.line,
        layout: Some(device.line),
        ..Step::default()
    });
    let stage = |name: &str, steps: Vec<Step>| Stage {
        name: Text {
            value: name.into(),
            line,
        },
        steps,
    };
    let mut out = vec![
        stage("boot", std::iter::once(first).chain(grow).collect()),
        stage(
            "initramfs",
            vec![Step {
                line: hostname.line.max(line),
                hostname,
                ..Step::default()
            }],
        ),
        stage(
            "network",
            vec![Step {
                line,
                authorized_keys: network,
                ..Step::default()
            }],
        ),
    ];
    for stage in own {
        match out
            .iter_mut()
            .find(|known| known.name.value == stage.name.value)
        {
            Some(known) => known.steps.extend(stage.steps),
            None => out.push(stage),
        }
    }
    out
}

fn growpart(fields: &mut Fields<'_>, problems: &mut Problems) -> Vec<Text> {
    let Some(node) = fields.node("growpart") else {
        return Vec::new();
    };
    let Some(mut inner) = Fields::open(node, "`growpart`", problems) else {
        return Vec::new();
    };
    inner.string("mode", problems);
    let devices = inner.texts("devices", problems);
    inner.finish(problems);
    devices
}

/// Reads a file, whose permissions are octal text here and whose owner is a name.
fn file(node: &Node, problems: &mut Problems) -> Option<File> {
    let mut fields = Fields::open(node, "a file", problems)?;
    let f = &mut fields;
    let permissions = f.text("permissions", problems);
    let bits = if permissions.is_empty() {
        Some(0)
    } else {
        octal(&permissions.value)
    };
    if bits.is_none() {
        problems.error_with(
            permissions.line,
            "`permissions` are not octal digits",
            "write \"0644\"",
        );
    }
    let file = File {
        line: f.line(),
        path: f.path("path", problems),
        content: f.text("content", problems),
        encoding: f.text("encoding", problems),
        access: Access {
            permissions: bits,
            owner_string: f.text("owner", problems),
            ..Access::default()
        },
    };
    fields.finish(problems);
    Some(file)
}

fn octal(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    u32::from_str_radix(digits, 8)
        .ok()
        .filter(|_| !digits.starts_with('+'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_found_behind_blank_lines_and_other_comments_only() {
        assert!(has_header("#cloud-config\nusers: []\n"));
        assert!(has_header("## template: jinja\n\n#cloud-config  \n"));
        assert!(!has_header("name: x\n#cloud-config\n"));
        assert!(!has_header("# cloud-config\nname: x\n"));
        assert!(!has_header(&format!("{}#cloud-config\n", "\n".repeat(10))));
    }
}
