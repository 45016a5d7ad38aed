//! The kernel's rules about files, ports and signals.

use std::{fmt, path::PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, LandlockStatus,
    NetPort, PathBeneath, PathFd, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetError,
    RulesetStatus, Scope,
};

/// The newest rules that are asked for. A kernel that does not know them applies those it knows.
const NEWEST: ABI = ABI::V7;

/// What is allowed; nothing else is.
#[derive(Debug, Default)]
pub(super) struct Rules {
    /// Read, whole folders.
    pub(super) readable: Vec<PathBuf>,
    /// Executed.
    pub(super) executable: Vec<PathBuf>,
    /// Read and written, whole folders.
    pub(super) writable: Vec<PathBuf>,
    /// Devices that are read and written.
    pub(super) devices: Vec<PathBuf>,
    /// Port of the proxy.
    pub(super) port: Option<u16>,
}

/// What the kernel applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Applied {
    /// Version of its interface; 0 when it has none.
    pub(super) abi: u8,
}

impl Applied {
    /// Whether signals and abstract sockets are kept inside.
    pub(super) fn has_scopes(self) -> bool {
        self.abi >= ABI::V6 as u8
    }
}

impl fmt::Display for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.abi {
            0 => f.write_str("this kernel has none"),
            abi => write!(f, "ABI {abi}"),
        }
    }
}

/// Applies the rules to this process, for good.
pub(super) fn apply(rules: &Rules) -> Result<Applied, RulesetError> {
    let all = AccessFs::from_all(NEWEST);
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let mut created = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(all)?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?;
    let file = BitFlags::from(AccessFs::ReadFile);
    let execute = AccessFs::ReadFile | AccessFs::Execute;
    let device = AccessFs::ReadFile | AccessFs::WriteFile;
    let write =
        all & !(AccessFs::Execute | AccessFs::IoctlDev | AccessFs::MakeChar | AccessFs::MakeBlock);
    let lists = [
        (&rules.readable, read),
        (&rules.executable, execute),
        (&rules.writable, write),
        (&rules.devices, device),
    ];
    for (paths, access) in lists {
        for path in paths {
            // What is not there can't be allowed.
            let Ok(opened) = PathFd::new(path) else { continue };
            let access = if path.is_dir() { access } else { access & AccessFs::from_file(NEWEST) };
            let access = if access.is_empty() { file } else { access };
            created = created.add_rule(PathBeneath::new(opened, access))?;
        }
    }
    if let Some(port) = rules.port {
        created = created.add_rule(NetPort::new(port, AccessNet::ConnectTcp))?;
    }
    let status = created.restrict_self()?;
    let abi = match (status.ruleset, status.landlock) {
        (RulesetStatus::NotEnforced, _) => 0,
        (_, LandlockStatus::Available { effective_abi, .. }) => effective_abi as u8,
        _ => 0,
    };
    Ok(Applied { abi })
}
