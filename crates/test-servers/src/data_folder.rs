//! PostgreSQL's data folders: made and prepared once, then copied.
//!
//! Making one takes a second, preparing it with migrations longer; a copy takes some hundredths. Prepared
//! folders are kept in Cargo's target folder, so `cargo clean` removes them. A template is never changed: other
//! contents need another name.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, chown};
use std::path::{Path, PathBuf};

/// To be changed with the way in which folders are made: templates of another format are not taken.
const FORMAT: u32 = 1;

/// PostgreSQL refuses to run as root. Then it runs as nobody, to whom the folder is given.
pub(crate) const NOBODY: u32 = 65534;

/// Whom a server of ours has to run as, if not as ourselves.
pub(crate) fn other_user() -> Option<u32> {
    rustix::process::geteuid().is_root().then_some(NOBODY)
}

/// The template of this name. The first who asks makes it with `make`, which returns a data folder to copy from and
/// whatever keeps it alive; others, be they other processes, wait for that. It is there as a whole or not at all.
pub(crate) fn template<T>(name: &str, version: &str, make: impl FnOnce() -> (PathBuf, T)) -> PathBuf {
    let plain = |character: char| character.is_ascii_alphanumeric() || "-_.".contains(character);
    assert!(!name.is_empty() && name.chars().all(plain), "a template's name is letters, digits, - _ . only: {name:?}");
    let parent = parent();
    let template = parent.join(format!("{name}-{version}-{FORMAT}"));
    if template.is_dir() {
        return template;
    }
    let failed = |error: io::Error| -> ! { panic!("{}: {error}", template.display()) };
    fs::create_dir_all(&parent).unwrap_or_else(|error| failed(error));
    let lock = File::create(parent.join(format!("{name}-{version}-{FORMAT}.lock")));
    let lock = lock.unwrap_or_else(|error| failed(error));
    lock.lock().unwrap_or_else(|error| failed(error));
    if !template.is_dir() {
        let (made, _keep) = make();
        let copying = tempfile::Builder::new().prefix(".making-").tempdir_in(&parent);
        let copying = copying.unwrap_or_else(|error| failed(error));
        let whole = copying.path().join("data");
        copy(&made, &whole, None);
        fs::rename(&whole, &template).unwrap_or_else(|error| failed(error));
    }
    template
}

/// A test's program is `<target>/<profile>/deps/<name>`.
fn parent() -> PathBuf {
    let own = std::env::current_exe().ok();
    let target = own.as_deref().and_then(|own| {
        let deps = own.parent().filter(|folder| folder.ends_with("deps"))?;
        deps.ancestors().nth(2)
    });
    match target {
        Some(target) => target.join("test-servers"),
        None => std::env::temp_dir().join(format!("wharf-test-servers-{}", rustix::process::geteuid().as_raw())),
    }
}

/// Copies a data folder, and gives it to `owner`.
pub(crate) fn copy(from: &Path, to: &Path, owner: Option<u32>) {
    copy_folder(from, to, owner)
        .unwrap_or_else(|error| panic!("{} cannot be copied to {}: {error}", from.display(), to.display()));
}

fn copy_folder(from: &Path, to: &Path, owner: Option<u32>) -> io::Result<()> {
    // PostgreSQL refuses a data folder that others may read.
    DirBuilder::new().mode(0o700).create(to)?;
    chown(to, owner, owner)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy_folder(&from, &to, owner)?;
        } else {
            fs::copy(&from, &to)?;
            chown(&to, owner, owner)?;
        }
    }
    Ok(())
}
