//! The profile of macOS's own sandbox for one execution.

use std::path::Path;

use super::policy::Policy;

/// What of the system every program reads.
const SYSTEM: [&str; 7] = [
    "/usr/lib",
    "/usr/share",
    "/System/Library",
    "/System/Volumes/Preboot/Cryptexes",
    "/Library/Frameworks",
    "/private/var/db/timezone",
    "/private/etc/ssl",
];
const DEVICES: [&str; 4] = ["/dev/null", "/dev/zero", "/dev/random", "/dev/urandom"];

/// The profile: everything is denied but reading the interpreter and the package, writing the
/// scratch folder, and the port of the proxy.
pub(super) fn profile(policy: &Policy, scratch: &Path, proxy_port: Option<u16>) -> String {
    let mut lines = vec![
        "(version 1)".to_owned(),
        "(deny default)".to_owned(),
        "(allow process-fork)".to_owned(),
        "(allow signal (target same-sandbox))".to_owned(),
        "(allow sysctl-read)".to_owned(),
        "(allow file-read-metadata)".to_owned(),
    ];
    let mut allow = |what: &str, filter: &str, path: &Path| {
        lines.push(format!("(allow {what} ({filter} {}))", quoted(&path.to_string_lossy())));
    };
    for program in &policy.interpreter.executable {
        allow("process-exec", "literal", program);
    }
    let system = SYSTEM.iter().map(Path::new);
    let needed = policy.interpreter.readable.iter().map(AsRef::as_ref);
    for folder in system.chain(needed).chain([policy.package.as_path()]) {
        allow("file-read*", "subpath", folder);
    }
    for device in DEVICES.map(Path::new) {
        allow("file-read* file-write-data", "literal", device);
    }
    allow("file-read* file-write*", "subpath", scratch);
    if let Some(port) = proxy_port {
        lines.push(format!("(allow network-outbound (remote tcp \"localhost:{port}\"))"));
    }
    lines.join("\n")
}

/// A text of the profile's language.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::sandbox::interpreter::Interpreter;

    #[test]
    fn the_profile_denies_what_it_does_not_name() {
        let interpreter = Interpreter {
            program: "/opt/python".into(),
            arguments: Vec::new(),
            readable: vec!["/opt/lib".into()],
            executable: vec!["/opt/python".into()],
            reserves_memory: false,
        };
        let policy = Policy::new(interpreter, "a.py", PathBuf::from("/p\") (allow default"));
        let text = profile(&policy, Path::new("/scratch"), None);
        assert!(text.starts_with("(version 1)\n(deny default)\n"));
        assert!(text.contains("(allow process-exec (literal \"/opt/python\"))"));
        assert!(text.contains("(subpath \"/p\\\") (allow default\")"), "{text}");
        assert!(text.contains("(allow file-read* file-write* (subpath \"/scratch\"))"));
        assert!(!text.contains("network"));
        let text = profile(&policy, Path::new("/scratch"), Some(3128));
        assert!(text.ends_with("(allow network-outbound (remote tcp \"localhost:3128\"))"));
    }
}
