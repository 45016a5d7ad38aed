//! What attacks want: files, a process, servers of the host.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, UdpSocket},
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            fs::PermissionsExt as _,
            net::{SocketAddr, UnixListener},
        },
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use serde_json::{Value, json};

/// What stands in the secret file.
pub(crate) const SECRET: &str = "a secret of the host";
/// A variable of the runner that no skill may see.
pub(crate) const VARIABLE: &str = "EVO_TEST_SECRET";

/// Everything that an attack is aimed at. It lies outside `/tmp`, which every sandbox has for itself.
pub(crate) struct World {
    folder: tempfile::TempDir,
    victim: Child,
    ports: Ports,
    /// Connections and messages that came from code to servers it may not reach.
    contacts: Arc<AtomicUsize>,
    abstract_name: String,
}

struct Ports {
    tcp: u16,
    tcp6: u16,
    udp: u16,
    allowed: u16,
    named: u16,
}

impl World {
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("evo-attack-").tempdir_in("/var/tmp").unwrap();
        let place = folder.path();
        open(place);
        for (path, text) in [
            ("secret", SECRET),
            ("own", "a long text"),
            ("home/.evo/tokens.toml", "token"),
            ("other/scratch/secret", "of another skill"),
        ] {
            write(&place.join(path), text);
        }
        fs::create_dir(place.join("folder")).unwrap();
        open(&place.join("folder"));
        let victim = Command::new("/bin/sleep")
            .arg("600")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let contacts = Arc::new(AtomicUsize::new(0));
        let abstract_name = format!("evo-attack-{}-{}", std::process::id(), victim.id());
        unix(UnixListener::bind(place.join("socket")).unwrap(), &contacts);
        open(&place.join("socket"));
        let address = SocketAddr::from_abstract_name(&abstract_name).unwrap();
        unix(UnixListener::bind_addr(&address).unwrap(), &contacts);
        // A machine without IPv6 has nothing to attack there.
        let tcp6 = TcpListener::bind("[::1]:0").map_or(9, |listener| tcp(listener, &contacts));
        let ports = Ports {
            tcp: tcp(TcpListener::bind("127.0.0.1:0").unwrap(), &contacts),
            tcp6,
            udp: udp(&contacts),
            allowed: web(),
            named: tcp(TcpListener::bind("127.0.0.1:0").unwrap(), &contacts),
        };
        Self { folder, victim, ports, contacts, abstract_name }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn secret(&self) -> PathBuf {
        self.path("secret")
    }

    /// Port of the server that skills may reach through their proxy.
    pub(crate) fn allowed(&self) -> u16 {
        self.ports.allowed
    }

    /// Port of a server inside, of which skills may use the name.
    pub(crate) fn named(&self) -> u16 {
        self.ports.named
    }

    /// What the programs are told.
    pub(crate) fn parameters(&self) -> Value {
        let victim = self.victim.id();
        let setuid = if Path::new("/usr/bin/su").exists() { "/usr/bin/su" } else { "/bin/su" };
        let maps = fs::read_to_string(format!("/proc/{victim}/maps")).unwrap_or_default();
        json!({
            "secret": self.secret(),
            "own": self.path("own"),
            "home": self.path("home"),
            "other_scratch": self.path("other/scratch"),
            "folder": self.path("folder"),
            "unix": self.path("socket"),
            "abstract": self.abstract_name,
            "victim": victim,
            "victim_address": maps.split('-').next().unwrap_or_default(),
            "port": self.ports.tcp,
            "port6": self.ports.tcp6,
            "udp": self.ports.udp,
            "allowed": self.ports.allowed,
            "named": self.ports.named,
            "variable": VARIABLE,
            "mark": SECRET,
            "zones": Path::new("/usr/share/zoneinfo/Europe/Berlin").exists(),
            "setuid": setuid,
            "is_root": nix::unistd::geteuid().is_root(),
        })
    }

    /// What code did here, if it did anything.
    pub(crate) fn damage(&mut self) -> Option<String> {
        if let Ok(Some(status)) = self.victim.try_wait() {
            return Some(format!("the other process was ended: {status}"));
        }
        let written = fs::read_dir(self.path("folder")).unwrap().count();
        if written > 0 {
            return Some(format!("{written} files were written outside"));
        }
        let about = fs::metadata(self.path("own")).unwrap();
        if about.len() == 0 || about.permissions().mode() & 0o777 != 0o666 {
            return Some("a file outside was changed".to_owned());
        }
        match self.contacts.load(Ordering::Relaxed) {
            0 => None,
            count => Some(format!("{count} contacts with servers of the host")),
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.victim.kill().ok();
        self.victim.wait().ok();
    }
}

/// Whether a process lives that was started with this mark in its environment.
pub(crate) fn lives(mark: &str) -> bool {
    fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
    })
}

fn write(path: &Path, text: &str) {
    let parent = path.parent().unwrap();
    fs::create_dir_all(parent).unwrap();
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
    open(parent);
}

/// Everybody may do everything with it: only the sandbox is in the way.
fn open(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
}

fn tcp(listener: TcpListener, contacts: &Arc<AtomicUsize>) -> u16 {
    let (port, contacts) = (listener.local_addr().unwrap().port(), contacts.clone());
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            contacts.fetch_add(1, Ordering::Relaxed);
            let asked = stream.read(&mut [0; 1000]).is_ok();
            if asked {
                stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nhost loopback").ok();
            }
        }
    });
    port
}

fn udp(contacts: &Arc<AtomicUsize>) -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (port, contacts) = (socket.local_addr().unwrap().port(), contacts.clone());
    thread::spawn(move || {
        while let Ok((_, from)) = socket.recv_from(&mut [0; 1000]) {
            contacts.fetch_add(1, Ordering::Relaxed);
            socket.send_to(b"host", from).ok();
        }
    });
    port
}

fn unix(listener: UnixListener, contacts: &Arc<AtomicUsize>) {
    let contacts = contacts.clone();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            contacts.fetch_add(1, Ordering::Relaxed);
            let asked = stream.read(&mut [0; 1000]).is_ok();
            if asked {
                stream.write_all(b"host").ok();
            }
        }
    });
}

/// A server that says what it was asked for, and redirects where it is told to.
fn web() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut bytes = vec![0; 4000];
            let length = stream.read(&mut bytes).unwrap_or(0);
            let head = String::from_utf8_lossy(&bytes[..length]).into_owned();
            let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
            let host =
                head.lines().find_map(|line| line.strip_prefix("Host: ")).unwrap_or_default();
            let body = format!(r#"{{"path": "{path}", "host": "{host}"}}"#);
            let answer = match path.strip_prefix("/redirect?to=") {
                Some(to) => {
                    format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n")
                }
                None => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n", body.len()),
            };
            let body = if path.starts_with("/redirect") { "" } else { &body };
            stream.write_all(format!("{answer}Connection: close\r\n\r\n{body}").as_bytes()).ok();
        }
    });
    port
}
