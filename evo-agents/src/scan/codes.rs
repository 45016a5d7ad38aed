//! Every code that a finding can have.

use evo_common::stage::Severity::{self, High, Warning};

/// A code, and what it stands for.
#[derive(Debug, Clone, Copy)]
pub struct Code {
    /// As it stands in a finding.
    pub code: &'static str,
    /// The worst severity that it comes with.
    pub severity: Severity,
    /// What is found, for people.
    pub what: &'static str,
}

const fn code(code: &'static str, severity: Severity, what: &'static str) -> Code {
    Code { code, severity, what }
}

/// All codes, by what they are about.
pub const CODES: &[Code] = &[
    code(
        "fake_prerequisite",
        High,
        "People are told to get a program by hand before the skill works: from a paste site, a link shortener, a raw address or a page on a free host, as an archive with a program in it, or as a command to copy into a terminal",
    ),
    code(
        "locked_archive",
        High,
        "An archive whose password stands beside it, or that is locked itself, so that no scanner looks inside",
    ),
    code(
        "download_and_run",
        High,
        "Something is fetched from a raw address, paste site, shortener or tunnel, without encryption, out of sight or by a tool of the system that is not meant for it, and run; or code from the network is given to an interpreter",
    ),
    code(
        "shell_pipe",
        Warning,
        "The installer of a host that is no well-known vendor's is piped into a shell",
    ),
    code(
        "untrusted_packages",
        High,
        "Packages are installed from a raw address, paste site or tunnel (another index than the usual one is a warning)",
    ),
    code(
        "remote_instructions",
        High,
        "The agent is to follow what a server says: from a raw address, paste site or tunnel (from any other host it is a warning)",
    ),
    code(
        "encoded_command",
        High,
        "Base64, hex, rot13 or compressed data is decoded and run, in any language, also over variables and files",
    ),
    code(
        "obfuscated_code",
        High,
        "Names are put together at run time, the code was run through an obfuscator, or long unreadable texts stand in code that executes data",
    ),
    code(
        "webhook_exfiltration",
        High,
        "Data goes to a request collector, or to a chat channel that is written into the skill",
    ),
    code(
        "data_exfiltration",
        High,
        "The environment, secrets or files of the machine are sent away: as a body, a file, over a raw address or in names that are looked up",
    ),
    code(
        "context_exfiltration",
        High,
        "The agent is to send its conversation, memory, instructions or secrets to an address, also in the address of a picture",
    ),
    code(
        "credential_store",
        High,
        "Private keys and stored credentials are read (a file with credentials that goes nowhere is a warning)",
    ),
    code("browser_data", High, "Passwords, cookies or the key of a browser's store are read"),
    code("wallet_access", High, "Files, extensions or keys of a wallet are read or sent"),
    code("asks_for_secrets", High, "People are asked for the phrase or key of a wallet"),
    code(
        "spyware",
        High,
        "Keys, screen, microphone or clipboard are watched and sent, or addresses in the clipboard exchanged",
    ),
    code(
        "cloud_metadata",
        High,
        "The credentials of a cloud machine are asked of its metadata service (its mere name is a warning)",
    ),
    code(
        "secret",
        High,
        "A private key, an access token or a URL with a password is written into a file; placeholders pass",
    ),
    code("reverse_shell", High, "A shell of the machine is bound to a connection"),
    code(
        "remote_control",
        High,
        "A server is asked for commands again and again, and they are run",
    ),
    code(
        "tunnel",
        High,
        "The machine is opened to connections from outside through a tunnel to an unknown place",
    ),
    code(
        "persistence",
        High,
        "A fetched, encoded or hidden command is added to timers, sign-in, shell profiles or services, or a key to those that may sign in (an ordinary timer is a warning)",
    ),
    code(
        "agent_hooks",
        High,
        "Commands are planted that the agent's program runs by itself, or its limits are lifted",
    ),
    code(
        "security_disabled",
        High,
        "Firewall, virus scanner, policy or log are switched off or wiped",
    ),
    code(
        "anti_analysis",
        High,
        "It behaves differently in a virtual machine, sandbox or debugger, or waits before it runs something hidden",
    ),
    code(
        "destructive",
        High,
        "What belongs to the user or the system is deleted, overwritten or encrypted",
    ),
    code("crypto_miner", High, "The machine is made to mine crypto money"),
    code("privilege_escalation", High, "It takes rights over the whole machine"),
    code(
        "prompt_override",
        High,
        "The agent is told to drop its instructions or limits, or is addressed as if by its system or maker",
    ),
    code(
        "conceals_from_user",
        High,
        "The agent is to act and hide it from its user (acting without asking is a warning)",
    ),
    code(
        "self_modification",
        High,
        "Orders are written into SOUL.md, AGENTS.md, CLAUDE.md, MEMORY.md and the like (an ordinary change of these files is a warning)",
    ),
    code(
        "tool_poisoning",
        High,
        "The agent is made to use its tools in a way that serves somebody else: secrets as parameters, changed recipients",
    ),
    code(
        "hidden_text",
        High,
        "Text that people can't see: invisible and direction-turning characters, comments and styles that hide orders, text out of sight",
    ),
    code("lookalike_host", High, "A host is made to be mistaken for a well-known one"),
    code(
        "undeclared_host",
        High,
        "A package of Evo names a host that is neither an endpoint's nor in `runtime.network`",
    ),
    code(
        "undeclared_env",
        Warning,
        "A script reads a secret from a variable that no document of the package names",
    ),
    code(
        "undeclared_binary",
        Warning,
        "A script runs a program that `requires.bins` does not list",
    ),
    code("program_file", High, "A compiled program or an installer, which can't be checked"),
    code(
        "disguised_file",
        High,
        "A file is something else than its name says, or a program hangs behind a picture",
    ),
    code(
        "archive_inside",
        High,
        "An archive with programs, or whose files would land outside of it (any other archive is a warning)",
    ),
    code("link", High, "A link that leads out of the package (any other link is a warning)"),
    code(
        "binary_file",
        Warning,
        "Neither text nor a known kind of picture, sound, font or document",
    ),
    code(
        "partly_scanned",
        Warning,
        "More than is read: the first MiB of a file, 2,000 files or 64 MiB of a package",
    ),
];
