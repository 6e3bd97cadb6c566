//! A yip document as plain values: every key of the dialect, with the line of everything that can be wrong later.
//!
//! Spec: yip, "document schema".

/// A text and the line it begins on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Text {
    /// The text.
    pub value: String,
    /// The line, counted from 1.
    pub line: usize,
}

impl Text {
    /// Returns whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.value.is_empty()
    }
}

/// One file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Document {
    /// The file, as the user would name it.
    pub file: String,
    /// What the file calls itself; empty where it does not.
    pub name: String,
    /// Steps by stage, in the order of the file.
    pub stages: Vec<Stage>,
    /// Whether the file starts with `#cloud-config`.
    pub is_cloud_config: bool,
}

/// The steps of one stage in one file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stage {
    /// The stage's name.
    pub name: Text,
    /// Its steps.
    pub steps: Vec<Step>,
}

/// One step. What is left out is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Step {
    /// The line it begins on.
    pub line: usize,
    /// Its name.
    pub name: String,
    /// Names of steps to wait for.
    pub after: Vec<Text>,
    /// A shell condition.
    pub if_: Text,
    /// A regular expression for the distribution's name.
    pub only_os: Text,
    /// A regular expression for the distribution's version.
    pub only_os_version: Text,
    /// A regular expression for the architecture.
    pub only_arch: Text,
    /// `systemd` or `openrc`.
    pub only_service_manager: Text,
    /// Paths by kind of check.
    pub if_files: Vec<(Text, Vec<Text>)>,
    /// A regular expression for the machine's host name.
    pub node: Text,
    /// Name servers.
    pub dns: Option<Dns>,
    /// Files to fetch.
    pub downloads: Vec<Download>,
    /// A repository to clone.
    pub git: Option<Git>,
    /// Lines of account databases to have.
    pub ensure_entities: Vec<Entity>,
    /// Directories to have.
    pub directories: Vec<Directory>,
    /// Files to write.
    pub files: Vec<File>,
    /// Shell texts to run.
    pub commands: Vec<Text>,
    /// Lines of account databases not to have.
    pub delete_entities: Vec<Entity>,
    /// The host name.
    pub hostname: Text,
    /// Kernel parameters of the running machine.
    pub sysctl: Vec<(Text, Text)>,
    /// Accounts.
    pub users: Vec<(Text, User)>,
    /// SSH keys by user.
    pub authorized_keys: Vec<(Text, Vec<Text>)>,
    /// Kernel modules to load now.
    pub modules: Vec<Text>,
    /// Keys of timesyncd's configuration.
    pub timesyncd: Vec<(Text, Text)>,
    /// Units.
    pub systemctl: Option<Systemctl>,
    /// Variables.
    pub environment: Vec<(Text, Text)>,
    /// The file the variables go to.
    pub environment_file: Text,
    /// Arguments of systemd-firstboot.
    pub systemd_firstboot: Vec<(Text, Text)>,
    /// The line of a data source, which has no place in a build.
    pub datasource: Option<usize>,
    /// The line of a disk layout, which has no place in a build.
    pub layout: Option<usize>,
    /// Versions to hold packages at.
    pub package_pins: Vec<(Text, Text)>,
    /// Packages.
    pub packages: Option<Packages>,
    /// Images to unpack.
    pub unpack_images: Vec<UnpackImage>,
}

/// Name servers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dns {
    /// The line it begins on.
    pub line: usize,
    /// Addresses of servers.
    pub nameservers: Vec<Text>,
    /// Domains to search.
    pub search: Vec<Text>,
    /// Options of the resolver.
    pub options: Vec<Text>,
    /// The file to write.
    pub path: Text,
}

/// A file to fetch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Download {
    /// The line it begins on.
    pub line: usize,
    /// Where to.
    pub path: Text,
    /// Where from.
    pub url: Text,
    /// Mode and owner.
    pub access: Access,
    /// The longest it may take, in seconds.
    pub timeout_secs: u64,
}

/// Mode and owner of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// Permission bits; `None`: not given, which means none at all.
    pub permissions: Option<u32>,
    /// The user's number; -1 leaves it.
    pub owner: i64,
    /// The group's number; -1 leaves it.
    pub group: i64,
    /// `user` or `user:group`.
    pub owner_string: Text,
}

/// A repository to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Git {
    /// The line it begins on.
    pub line: usize,
    /// Where from.
    pub url: Text,
    /// Where to.
    pub path: Text,
    /// The branch.
    pub branch: Text,
    /// Whether no other branch is fetched.
    pub branch_only: bool,
    /// User name.
    pub username: Text,
    /// Password.
    pub password: Text,
    /// SSH private key.
    pub private_key: Text,
    /// Host key.
    pub public_key: Text,
    /// Whether the server may be anybody.
    pub insecure: bool,
}

/// A line of an account database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entity {
    /// The line it begins on.
    pub line: usize,
    /// The file; empty: the usual one.
    pub path: Text,
    /// YAML that says what the line holds.
    pub entity: Text,
}

/// A directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Directory {
    /// The line it begins on.
    pub line: usize,
    /// The directory.
    pub path: Text,
    /// Mode and owner.
    pub access: Access,
}

/// A file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct File {
    /// The line it begins on.
    pub line: usize,
    /// The file.
    pub path: Text,
    /// Mode and owner.
    pub access: Access,
    /// What it holds.
    pub content: Text,
    /// How the content is written.
    pub encoding: Text,
}

/// An account.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    /// The line it begins on.
    pub line: usize,
    /// What the account itself says its name is; the mapping's key counts.
    pub name: String,
    /// The password, plain or hashed.
    pub passwd: Text,
    /// Keys that may log in.
    pub ssh_authorized_keys: Vec<Text>,
    /// The comment field.
    pub gecos: String,
    /// The home directory.
    pub homedir: Text,
    /// Whether no home directory is made.
    pub no_create_home: bool,
    /// An existing group to belong to.
    pub primary_group: Text,
    /// More groups.
    pub groups: Vec<Text>,
    /// Read, and without effect.
    pub no_user_group: bool,
    /// Read, and without effect.
    pub system: bool,
    /// Read, and without effect.
    pub no_log_init: bool,
    /// The login shell.
    pub shell: Text,
    /// Whether the password is locked.
    pub lock_passwd: bool,
    /// The user's number.
    pub uid: Text,
}

/// Units.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Systemctl {
    /// Units to enable.
    pub enable: Vec<Text>,
    /// Units to disable.
    pub disable: Vec<Text>,
    /// Units to start, which nothing can do in a build.
    pub start: Vec<Text>,
    /// Units to mask.
    pub mask: Vec<Text>,
    /// Drop-ins.
    pub overrides: Vec<Override>,
}

/// A drop-in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Override {
    /// The line it begins on.
    pub line: usize,
    /// The unit.
    pub service: Text,
    /// What it holds.
    pub content: Text,
    /// The file's name.
    pub name: Text,
}

/// Packages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Packages {
    /// To install.
    pub install: Vec<Text>,
    /// To remove.
    pub remove: Vec<Text>,
    /// Whether to refresh the lists.
    pub refresh: bool,
    /// Whether to upgrade everything.
    pub upgrade: bool,
}

/// An image to unpack.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnpackImage {
    /// The line it begins on.
    pub line: usize,
    /// The image.
    pub source: Text,
    /// Where to.
    pub target: Text,
    /// Which of its platforms.
    pub platform: Text,
}
