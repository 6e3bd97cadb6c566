//! A real registry on loopback, for every suite that needs one: `docker-registry` with a store in a temporary directory.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) const USER: &str = "keeper";
pub(crate) const PASSWORD: &str = "opensesame";
/// bcrypt of [`PASSWORD`], cheap on purpose.
const PASSWORD_HASH: &str = "$2y$05$xX2yAV6MncEae646btj4FuvLYI.t88Z3uLbJaEx1DGv1XN8na37lO";

/// What a registry is to be like.
#[derive(Debug, Default)]
pub(crate) struct Config {
    /// Takes [`USER`] and [`PASSWORD`] only.
    pub(crate) password: bool,
    /// Encrypted, with a certificate of the authority in `ca.pem` beside the store.
    pub(crate) tls: bool,
    /// Serves this store, and answers every request to write with 405, as a read-only mirror does.
    pub(crate) read_only: Option<PathBuf>,
}

/// A running `docker-registry`; stopped when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    /// `127.0.0.1:PORT`
    pub(crate) name: String,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) child: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// Starts a registry that keeps everything in `dir`, and waits until it listens.
    pub(crate) fn start(dir: tempfile::TempDir, config: &Config) -> Self {
        if config.password {
            let users = format!("{USER}:{PASSWORD_HASH}\n");
            std::fs::write(dir.path().join("htpasswd"), users).expect("written");
        }
        if config.tls {
            make_certificates(dir.path());
        }
        // Last, so that nobody else takes the port meanwhile.
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|free| free.local_addr())
            .expect("a free port")
            .port();
        let name = format!("127.0.0.1:{port}");
        let path = dir.path().join("config.yml");
        std::fs::write(&path, config.text(&name, dir.path())).expect("written");
        let log = std::fs::File::create(dir.path().join("log")).expect("log");
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("docker-registry starts");
        let mut server = Self { name, dir, child };
        server.wait();
        server
    }

    fn wait(&mut self) {
        let end = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(&self.name).is_err() {
            let lives = self.child.try_wait().is_ok_and(|ended| ended.is_none());
            assert!(
                lives && Instant::now() < end,
                "docker-registry does not listen on {}",
                self.name
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Returns a file beside the registry's store.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

impl Config {
    fn text(&self, name: &str, dir: &Path) -> String {
        let dir = dir.display();
        let auth = match self.password {
            true => format!("auth: {{htpasswd: {{realm: test, path: {dir}/htpasswd}}}}"),
            false => String::new(),
        };
        let tls = match self.tls {
            true => format!("tls: {{certificate: {dir}/server.pem, key: {dir}/server.key}}"),
            false => String::new(),
        };
        let (root, maintenance) = match &self.read_only {
            Some(root) => (
                root.display().to_string(),
                ", maintenance: {readonly: {enabled: true}}",
            ),
            None => (format!("{dir}/store"), ""),
        };
        format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {root}}}{maintenance}}}\n{auth}\n\
             http:\n  addr: {name}\n  secret: test\n  {tls}\n"
        )
    }
}

fn make_certificates(dir: &Path) {
    let script = "
        openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj '/CN=test authority'
        openssl req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj '/CN=127.0.0.1'
        printf 'subjectAltName=IP:127.0.0.1\\nbasicConstraints=CA:FALSE\\n' > server.ext
        openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem -days 2 -extfile server.ext
    ";
    run(Command::new("sh").args(["-ec", script]).current_dir(dir));
}

/// Runs a program that must succeed, and returns what it printed.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output().expect("the program starts");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{command:?} {}: {error}",
        output.status
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
