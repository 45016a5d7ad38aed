//! A root folder that holds only what the code needs.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    sys::statvfs::{FsFlags, statvfs},
    unistd::{chdir, pivot_root},
};

/// Where the package lies inside.
pub(super) const PACKAGE: &str = "/skill";
/// The scratch folder inside.
pub(super) const SCRATCH: &str = "/tmp";
/// The devices inside: nothing, zeros, and random numbers.
pub(super) const DEVICES: [&str; 5] =
    ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];
/// Room for the folders and links of the root itself.
const ROOT_SIZE: &str = "size=1m,nr_inodes=4096,mode=755";
/// Files of the scratch folder, at most.
const SCRATCH_FILES: u64 = 4096;

/// What the root holds.
#[derive(Debug)]
pub(super) struct Contents<'a> {
    /// Files and folders of the system, read-only, at their own places.
    pub(super) readable: &'a [PathBuf],
    /// The folder of the package, read-only, at [`PACKAGE`].
    pub(super) package: &'a Path,
    /// Room in the scratch folder.
    pub(super) scratch_bytes: u64,
    /// Who owns the scratch folder.
    pub(super) owner: u32,
}

/// Makes the root in the folder `place`, which nobody but this process sees, and moves into it. The
/// rest of the system is gone for this process afterwards.
pub(super) fn enter(place: &Path, contents: &Contents<'_>) -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(told("a mount namespace"))?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .map_err(told("making mounts private"))?;
    tmpfs(place, ROOT_SIZE)?;

    let scratch = inside(place, Path::new(SCRATCH));
    fs::create_dir(&scratch)?;
    let size = format!(
        "size={},nr_inodes={SCRATCH_FILES},mode=700,uid={owner},gid={owner}",
        contents.scratch_bytes,
        owner = contents.owner
    );
    tmpfs(&scratch, &size)?;
    for path in contents.readable {
        read_only(path, &inside(place, path))?;
    }
    read_only(contents.package, &inside(place, Path::new(PACKAGE)))?;
    fs::create_dir(inside(place, Path::new("/dev")))?;
    for device in DEVICES.map(Path::new) {
        if device.exists() {
            bind(device, &inside(place, device))?;
        }
    }

    chdir(place)?;
    pivot_root(".", ".").map_err(told("pivot_root"))?;
    // The old root now lies over the new one.
    umount2(".", MntFlags::MNT_DETACH).map_err(told("leaving the old root"))?;
    chdir("/")?;
    let sealed = MsFlags::MS_REMOUNT
        | MsFlags::MS_BIND
        | MsFlags::MS_RDONLY
        | MsFlags::MS_NOSUID
        | MsFlags::MS_NODEV
        | MsFlags::MS_NOEXEC;
    mount(none, "/", none, sealed, none).map_err(told("sealing the root"))
}

fn told(what: &str) -> impl Fn(nix::errno::Errno) -> io::Error {
    move |error| io::Error::new(io::Error::from(error).kind(), format!("{what}: {error}"))
}

fn inside(place: &Path, path: &Path) -> PathBuf {
    place.join(path.strip_prefix("/").unwrap_or(path))
}

fn tmpfs(place: &Path, options: &str) -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("tmpfs"), place, Some("tmpfs"), flags, Some(options)).map_err(told("tmpfs"))
}

fn bind(source: &Path, target: &Path) -> io::Result<()> {
    if source.is_dir() {
        fs::create_dir_all(target)?;
    } else {
        if let Some(folder) = target.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::File::create(target)?;
    }
    let none = None::<&str>;
    mount(Some(source), target, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)
        .map_err(told(&format!("binding {}", source.display())))
}

fn read_only(source: &Path, target: &Path) -> io::Result<()> {
    bind(source, target)?;
    // What the source forbids must stay forbidden, or the system refuses.
    let kept = statvfs(target).map_err(told("statvfs"))?.flags();
    let same = [
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
        (FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
        (FsFlags::ST_NODIRATIME, MsFlags::MS_NODIRATIME),
        (FsFlags::ST_RELATIME, MsFlags::MS_RELATIME),
    ];
    let kept = same
        .into_iter()
        .filter(|(of_file_system, _)| kept.contains(*of_file_system))
        .fold(MsFlags::empty(), |flags, (_, of_mount)| flags | of_mount);
    let flags = MsFlags::MS_REMOUNT
        | MsFlags::MS_BIND
        | MsFlags::MS_RDONLY
        | MsFlags::MS_NOSUID
        | MsFlags::MS_NODEV
        | kept;
    let none = None::<&str>;
    mount(none, target, none, flags, none)
        .map_err(told(&format!("making {} read-only", source.display())))
}
