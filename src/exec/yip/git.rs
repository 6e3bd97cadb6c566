//! Repositories: cloned by this machine's git into a scratch directory, then put into the tree.
//!
//! The clone runs outside the sandbox because images rarely have git; nothing of the repository is run, and of this
//! machine's configuration nothing is read. A clone that is in the image already is updated by the image's own git.

use std::path::Path;
use std::process::{Command, Stdio};

use base64::Engine as _;
use kfactory_layers::root::Root;

use super::Context;
use super::tree;
use crate::error::{Context as _, Error, Kind, Result};
use crate::exec::command::PROXY_VARIABLES;
use crate::pace::{IDLE, LEAST_RATE};
use crate::step::GitAuth;

/// Transports that lead to another machine; others read files of this one, or run programs.
const TRANSPORTS: &str = "http:https:ssh:git";
const DIRECTORY_MODE: u32 = 0o755;

/// What to clone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) url: &'a str,
    pub(super) path: &'a str,
    /// `None`: the one that the repository itself prefers, as most yip programs have it.
    pub(super) branch: Option<&'a str>,
    pub(super) branch_only: bool,
    pub(super) auth: Option<&'a GitAuth>,
}

/// Clones, or brings up to date.
pub(super) fn clone(context: &Context<'_>, wanted: Wanted<'_>) -> Result<()> {
    let root = &context.target.root;
    if root.exists(format!("{}/.git", wanted.path))? {
        return update(context, wanted);
    }
    if !context.env.has_network() {
        return Err(Error::user("the build has no network").hint("leave out `--network none`"));
    }
    let scratch = tempfile::tempdir_in(&context.env.scratch)
        .context(|| "making a directory for the clone".into())?;
    let work = scratch.path().join("work");
    let git = Git::new(scratch.path(), wanted)?;
    let mut clone = vec!["clone", "--quiet", "--template="];
    if let Some(branch) = wanted.branch {
        clone.extend(["--branch", branch]);
    }
    if wanted.branch_only {
        clone.push("--single-branch");
    }
    let place = work.display().to_string();
    clone.extend(["--", wanted.url, &place]);
    git.run(&clone, scratch.path()).map_err(|error| {
        let what = match wanted.branch {
            Some(branch) => format!("branch {branch} of "),
            None => String::new(),
        };
        error.context(format!("cannot clone {what}{}", shown(wanted.url)))
    })?;
    // The index remembers times and inodes of this machine's files; read again from the commit, it knows none.
    std::fs::remove_file(work.join(".git/index")).context(|| "preparing the clone".into())?;
    git.run(&["read-tree", "HEAD"], &work)?;
    tree::missing_directories(root, Path::new(wanted.path), DIRECTORY_MODE, (0, 0))?;
    copy_into(root, &work, Path::new(wanted.path))
}

/// Updates with the image's git: the repository is the image's, and so what it may make git run stays in the sandbox.
fn update(context: &Context<'_>, wanted: Wanted<'_>) -> Result<()> {
    if !context.succeeds("command -v git >/dev/null")? {
        return Err(Error::user(format!(
            "{} holds a repository already, and the image has no git to update it",
            wanted.path
        ))
        .hint("install git in an earlier step, or remove the directory first"));
    }
    if wanted.auth.is_some() {
        return Err(Error::user(format!(
            "{} holds a repository already, which is updated without logging in",
            wanted.path
        ))
        .hint("remove the directory in an earlier step"));
    }
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "'\\''"));
    let place = quoted(wanted.path);
    let git = format!("git -c safe.directory='*' -c core.logAllRefUpdates=false -C {place}");
    // As for a clone: no moment of this build, and no times and inodes of its files.
    context.shell_verbatim(&format!(
        "{git} fetch --quiet {} {} && {git} reset --quiet --hard FETCH_HEAD && \
         rm -f {place}/.git/FETCH_HEAD {place}/.git/ORIG_HEAD {place}/.git/index && {git} read-tree HEAD",
        quoted(wanted.url),
        quoted(wanted.branch.unwrap_or("HEAD"))
    ))
}

/// git with an environment of its own.
struct Git {
    env: Vec<(String, String)>,
}

impl Git {
    fn new(scratch: &Path, wanted: Wanted<'_>) -> Result<Self> {
        let mut env: Vec<(String, String)> = [
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_ALLOW_PROTOCOL", TRANSPORTS),
            ("GIT_LFS_SKIP_SMUDGE", "1"),
            ("LC_ALL", "C"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        let mut config = vec![
            ("core.logAllRefUpdates".to_owned(), "false".to_owned()),
            ("core.hooksPath".to_owned(), "/dev/null".to_owned()),
            ("gc.auto".to_owned(), "0".to_owned()),
            ("http.lowSpeedLimit".to_owned(), LEAST_RATE.to_string()),
            ("http.lowSpeedTime".to_owned(), IDLE.as_secs().to_string()),
        ];
        if let Some(auth) = wanted.auth {
            if let (Some(user), Some(password)) = (&auth.username, &auth.password) {
                let pair = format!("{user}:{}", password.reveal());
                let packed = base64::engine::general_purpose::STANDARD.encode(pair);
                config.push((
                    "http.extraHeader".to_owned(),
                    format!("Authorization: Basic {packed}"),
                ));
            }
            if auth.insecure {
                config.push(("http.sslVerify".to_owned(), "false".to_owned()));
            }
            env.push((
                "GIT_SSH_COMMAND".to_owned(),
                ssh(scratch, wanted.url, auth)?,
            ));
        }
        env.push(("GIT_CONFIG_COUNT".to_owned(), config.len().to_string()));
        for (index, (key, value)) in config.into_iter().enumerate() {
            env.push((format!("GIT_CONFIG_KEY_{index}"), key));
            env.push((format!("GIT_CONFIG_VALUE_{index}"), value));
        }
        Ok(Self { env })
    }

    fn run(&self, arguments: &[&str], dir: &Path) -> Result<()> {
        let mut command = Command::new("git");
        command
            .args(arguments)
            .current_dir(dir)
            .env_clear()
            .stdin(Stdio::null());
        for name in PROXY_VARIABLES.iter().chain(&["PATH"]) {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .env("HOME", dir);
        let output = command.output().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                Error::user("`git` is not on the PATH: the step clones a repository")
                    .hint("install git on this machine")
            }
            _ => Error::from_source(&error).context("starting git"),
        })?;
        if output.status.success() {
            return Ok(());
        }
        let lines = String::from_utf8_lossy(&output.stderr);
        let lines = lines
            .lines()
            .map(|line| kfactory_sandbox::printable(line.as_bytes()).to_string());
        Err(Error::new(
            Kind::Step,
            format!("`git {}` {}", arguments[0], output.status),
        )
        .output(lines.collect()))
    }
}

/// Returns the ssh command that logs in as asked, with its files in `scratch`.
fn ssh(scratch: &Path, url: &str, auth: &GitAuth) -> Result<String> {
    use std::os::unix::fs::PermissionsExt as _;
    let put = |name: &str, text: &str| -> Result<String> {
        let path = scratch.join(name);
        let doing = || format!("writing {}", path.display());
        std::fs::write(&path, text).context(doing)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).context(doing)?;
        Ok(path.display().to_string())
    };
    let mut command = "ssh -F /dev/null -o BatchMode=yes".to_owned();
    if let Some(key) = &auth.private_key {
        let text = format!("{}\n", key.reveal().trim_end());
        command.push_str(&format!(
            " -o IdentitiesOnly=yes -i '{}'",
            put("key", &text)?
        ));
    }
    if auth.insecure {
        command.push_str(" -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null");
    } else if let Some(key) = &auth.public_key {
        let line = format!("{} {}\n", host_of(url), key.trim());
        command.push_str(&format!(
            " -o StrictHostKeyChecking=yes -o UserKnownHostsFile='{}'",
            put("known_hosts", &line)?
        ));
    }
    Ok(command)
}

/// Returns the host of a URL, or of `user@host:path`, as known_hosts names it.
fn host_of(url: &str) -> String {
    if let Ok(parsed) = reqwest::Url::parse(url)
        && let Some(host) = parsed.host_str()
    {
        return match parsed.port() {
            Some(port) if port != 22 => format!("[{host}]:{port}"),
            _ => host.to_owned(),
        };
    }
    let rest = url.split_once('@').map_or(url, |(_, rest)| rest);
    rest.split(':').next().unwrap_or(rest).to_owned()
}

fn shown(url: &str) -> String {
    match reqwest::Url::parse(url) {
        Ok(mut parsed) => {
            let _ = parsed.set_password(None);
            parsed.to_string()
        }
        Err(_) => url.to_owned(),
    }
}

/// Copies a directory of this machine into the tree, owned by root.
fn copy_into(root: &Root, from: &Path, to: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    for entry in walkdir::WalkDir::new(from).min_depth(1).sort_by_file_name() {
        let entry = entry.map_err(|error| Error::from_source(&error))?;
        let relative = entry
            .path()
            .strip_prefix(from)
            .map_err(|error| Error::from_source(&error))?;
        let place = to.join(relative);
        let doing = || format!("copying {}", place.display());
        let kind = entry.file_type();
        if kind.is_dir() {
            root.create_dir_all(&place, DIRECTORY_MODE)?;
        } else if kind.is_symlink() {
            root.symlink(std::fs::read_link(entry.path()).context(doing)?, &place)?;
        } else {
            let mode = entry
                .metadata()
                .map_err(|error| Error::from_source(&error))?
                .permissions()
                .mode();
            let mode = if mode & 0o100 == 0 { 0o644 } else { 0o755 };
            let content = std::fs::File::open(entry.path()).context(doing)?;
            root.copy_in(content, &place, mode, 0, 0)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_named_as_known_hosts_names_them() {
        assert_eq!(host_of("git@github.com:me/x.git"), "github.com");
        assert_eq!(host_of("ssh://git@h:2222/x"), "[h]:2222");
        assert_eq!(host_of("ssh://git@h/x"), "h");
    }

    #[test]
    fn a_tree_is_copied_with_its_links_and_programs() {
        use std::os::unix::fs::PermissionsExt as _;
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::create_dir(from.path().join("d")).unwrap();
        std::fs::write(from.path().join("d/run"), "x").unwrap();
        std::fs::set_permissions(
            from.path().join("d/run"),
            std::fs::Permissions::from_mode(0o700),
        )
        .unwrap();
        std::os::unix::fs::symlink("d/run", from.path().join("link")).unwrap();
        let root = Root::open(to.path()).unwrap();
        root.create_dir_all("/srv", 0o755).unwrap();
        copy_into(&root, from.path(), Path::new("/srv")).unwrap();
        let mode = std::fs::metadata(to.path().join("srv/d/run"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o755);
        assert_eq!(
            std::fs::read_link(to.path().join("srv/link")).unwrap(),
            Path::new("d/run")
        );
    }
}
