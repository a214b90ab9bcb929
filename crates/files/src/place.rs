//! Checks the directory of a store. The locks, the shared memory and the log need a local,
//! writable directory.

use std::{
    io,
    path::{Path, PathBuf},
};

/// The kernel's names of network file systems.
const NETWORK: [&str; 18] = [
    "9p",
    "afs",
    "ceph",
    "cifs",
    "coda",
    "gfs2",
    "glusterfs",
    "gpfs",
    "kafs",
    "lustre",
    "ncpfs",
    "nfs",
    "nfs4",
    "ocfs2",
    "smb",
    "smb2",
    "smb3",
    "smbfs",
];

/// The names of FUSE programs that mount network file systems.
const NETWORK_PROGRAMS: [&str; 8] = ["ceph", "gcsfuse", "glusterfs", "nfs", "rclone", "s3fs", "smb", "sshfs"];

/// Rejects a directory on a network file system. For a missing directory, the nearest existing
/// parent is checked.
///
/// # Errors
/// If the file system is a network file system; the error has its name.
pub fn refuse_network(directory: &Path) -> io::Result<()> {
    // Only Linux has this file.
    let Ok(mounts) = std::fs::read_to_string("/proc/self/mountinfo") else { return Ok(()) };
    match file_system_of(&mounts, &existing(directory)) {
        Some(name) if is_network(name) => Err(io::Error::other(format!(
            "it is on the network file system {name}, on which neither the locks nor the log are reliable"
        ))),
        _ => Ok(()),
    }
}

/// Rejects a read-only directory.
///
/// # Errors
/// If the directory is not writable; the error has its path and the system's reason.
pub fn refuse_read_only(directory: &Path) -> io::Result<()> {
    let directory = existing(directory);
    #[cfg(unix)]
    rustix::fs::access(&directory, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK)
        .map_err(|error| io::Error::other(format!("the directory {} is read-only ({error})", directory.display())))?;
    #[cfg(not(unix))]
    if std::fs::metadata(&directory)?.permissions().readonly() {
        return Err(io::Error::other(format!("the directory {} is read-only", directory.display())));
    }
    Ok(())
}

/// Returns the nearest existing ancestor of a directory, or the directory itself, as a canonical
/// path.
fn existing(directory: &Path) -> PathBuf {
    let absolute = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
    absolute.ancestors().find_map(|ancestor| ancestor.canonicalize().ok()).unwrap_or(absolute)
}

fn is_network(name: &str) -> bool {
    match name.strip_prefix("fuse.") {
        Some(program) => NETWORK_PROGRAMS.iter().any(|known| program.contains(known)),
        None => NETWORK.contains(&name),
    }
}

/// Returns the name of the file system that a path is on
/// (<https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html>).
fn file_system_of<'m>(mounts: &'m str, path: &Path) -> Option<&'m str> {
    let mut best: Option<(usize, &str)> = None;
    for line in mounts.lines() {
        let Some((before, after)) = line.split_once(" - ") else { continue };
        let (Some(point), Some(name)) = (before.split(' ').nth(4), after.split(' ').next()) else { continue };
        let point = PathBuf::from(unescape(point));
        let length = point.as_os_str().len();
        // Of several mounts at one mount point, the last one is on top.
        if path.starts_with(&point) && best.is_none_or(|(other, _)| length >= other) {
            best = Some((length, name));
        }
    }
    best.map(|(_, name)| name)
}

/// Decodes white space and backslashes, which the file escapes as three octal digits.
fn unescape(point: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(point.to_owned(), |point, (escaped, character)| point.replace(escaped, character))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 27 0:40 / /mnt/share rw,relatime shared:5 master:2 - nfs4 server:/export rw,vers=4.2
31 30 254:1 / /mnt/share/local rw - xfs /dev/vdb rw
32 27 0:41 / /mnt/my\\040disk rw - cifs //server/share rw
33 27 0:42 / /home/ada/remote rw - fuse.sshfs ada@server:/ rw
34 27 0:43 / /home/ada/vault rw - fuse.gocryptfs vault rw
35 32 254:2 / /mnt/my\\040disk rw - ext4 /dev/vdc rw
";

    #[test]
    fn a_path_is_on_the_nearest_and_last_mount() {
        let name = |path: &str| file_system_of(MOUNTS, Path::new(path)).unwrap();
        assert_eq!(name("/srv/data"), "ext4");
        assert_eq!(name("/mnt/share/data"), "nfs4");
        assert_eq!(name("/mnt/shared"), "ext4");
        assert_eq!(name("/mnt/share/local/x"), "xfs");
        assert_eq!(name("/mnt/my disk/x"), "ext4");
        assert_eq!(name("/home/ada/remote"), "fuse.sshfs");
        assert_eq!(file_system_of("nonsense\n", Path::new("/")), None);
    }

    #[test]
    fn recognizes_network_file_systems_by_name() {
        for name in ["nfs", "nfs4", "cifs", "9p", "fuse.sshfs", "fuse.rclone", "ceph"] {
            assert!(is_network(name), "{name}");
        }
        for name in ["ext4", "xfs", "btrfs", "overlay", "tmpfs", "fuse.gocryptfs", "virtiofs", "zfs"] {
            assert!(!is_network(name), "{name}");
        }
        refuse_network(Path::new("does/not/exist")).unwrap();
    }
}
