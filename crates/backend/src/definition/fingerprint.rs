//! The state of a definition's files, to find out if one has changed.

use std::{
    collections::hash_map::DefaultHasher,
    fs,
    hash::{Hash, Hasher},
    path::{Path, PathBuf},
};

use super::files::{MAX_DEPTH, MAX_ENTRIES, is_ignored};

/// A digest of the names, sizes, times of change and numbers of all files of a definition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Fingerprint(u64);

impl Fingerprint {
    /// Returns the state of the files in a directory, without reading them.
    pub(crate) fn of(directory: &Path) -> Self {
        let mut files = Vec::new();
        collect(directory, directory, &mut Vec::new(), &mut files);
        // The order of a directory's entries can change without a change of the files.
        files.sort_unstable();
        let mut hasher = DefaultHasher::new();
        files.hash(&mut hasher);
        Self(hasher.finish())
    }
}

/// `above` are the canonical paths of the directories that contain `directory`.
fn collect(root: &Path, directory: &Path, above: &mut Vec<PathBuf>, files: &mut Vec<u64>) {
    let Ok(canonical) = directory.canonicalize() else { return };
    if above.len() > MAX_DEPTH || above.contains(&canonical) {
        return;
    }
    let Ok(entries) = fs::read_dir(directory) else { return };
    above.push(canonical);
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if is_ignored(&name) || files.len() >= MAX_ENTRIES {
            continue;
        }
        let path = entry.path();
        // Follows links, as reading the definition does.
        let Ok(metadata) = fs::metadata(&path) else { continue };
        let mut hasher = DefaultHasher::new();
        // One root may be given as different paths.
        path.strip_prefix(root).unwrap_or(&path).hash(&mut hasher);
        if metadata.is_dir() {
            collect(root, &path, above, files);
        } else {
            metadata.len().hash(&mut hasher);
            metadata.modified().ok().hash(&mut hasher);
            hash_identity(&metadata, &mut hasher);
        }
        files.push(hasher.finish());
    }
    above.pop();
}

/// Adds what differs after a file was replaced by one of the same size and time.
#[cfg(unix)]
fn hash_identity(metadata: &fs::Metadata, hasher: &mut DefaultHasher) {
    use std::os::unix::fs::MetadataExt as _;

    (metadata.dev(), metadata.ino(), metadata.ctime(), metadata.ctime_nsec()).hash(hasher);
}

#[cfg(not(unix))]
fn hash_identity(_metadata: &fs::Metadata, _hasher: &mut DefaultHasher) {}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    #[cfg(unix)]
    fn a_file_of_the_same_size_and_time_is_another_one() {
        let directory = tempfile::tempdir().unwrap();
        let (file, other) = (directory.path().join("a.js"), directory.path().join("b.tmp"));
        fs::write(&file, "1").unwrap();
        let before = Fingerprint::of(directory.path());
        let time = fs::metadata(&file).unwrap().modified().unwrap();
        fs::write(&other, "2").unwrap();
        fs::File::options().write(true).open(&other).unwrap().set_modified(time).unwrap();
        fs::rename(&other, &file).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().modified().unwrap(), time);
        assert_ne!(Fingerprint::of(directory.path()), before);
    }

    #[test]
    #[cfg(unix)]
    fn the_path_of_the_root_does_not_matter() {
        let directory = tempfile::tempdir().unwrap();
        let (root, link) = (directory.path().join("one"), directory.path().join("link"));
        fs::create_dir(&root).unwrap();
        fs::write(root.join("a.js"), "1").unwrap();
        std::os::unix::fs::symlink(&root, &link).unwrap();
        assert_eq!(Fingerprint::of(&root), Fingerprint::of(&link));
    }
}
