//! The state of a definition's files, to find out if one has changed.

use std::{
    collections::hash_map::DefaultHasher,
    fs,
    hash::{Hash, Hasher},
    path::{Path, PathBuf},
};

use super::files::{MAX_DEPTH, MAX_ENTRIES, is_ignored};

/// A digest of the names, sizes and times of change of all files of a definition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Fingerprint(u64);

impl Fingerprint {
    /// Returns the state of the files in a directory, without reading them.
    pub(crate) fn of(directory: &Path) -> Self {
        let mut files = Vec::new();
        collect(directory, &mut Vec::new(), &mut files);
        // The order of a directory's entries can change without a change of the files.
        files.sort_unstable();
        let mut hasher = DefaultHasher::new();
        files.hash(&mut hasher);
        Self(hasher.finish())
    }
}

/// `above` are the canonical paths of the directories that contain `directory`.
fn collect(directory: &Path, above: &mut Vec<PathBuf>, files: &mut Vec<u64>) {
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
        path.hash(&mut hasher);
        if metadata.is_dir() {
            collect(&path, above, files);
        } else {
            metadata.len().hash(&mut hasher);
            metadata.modified().ok().hash(&mut hasher);
        }
        files.push(hasher.finish());
    }
    above.pop();
}
