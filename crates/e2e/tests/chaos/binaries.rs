//! The four programs: found beside the tests, and built if they are missing or older than their sources.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Programs and their packages.
const PROGRAMS: [(&str, &str); 4] =
    [("wharf", "wharf"), ("gateway", "wharf-gateway"), ("normalizer", "wharf-normalizer"), ("api", "wharf-api")];

/// The folder of the programs, which are of the profile of the tests.
pub(crate) fn folder() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    // The tests are in `<target>/<profile>/deps`.
    let profile = own.ancestors().nth(2).unwrap().to_owned();
    let all_fresh = || PROGRAMS.iter().all(|(program, _)| is_fresh(&profile.join(program)));
    if !all_fresh() {
        // Tests may run as processes side by side: one builds, the others wait and find it done.
        let lock = File::create(profile.join(".e2e-build.lock")).unwrap();
        lock.lock().unwrap();
        if !all_fresh() {
            build(&profile);
        }
    }
    profile
}

/// Whether a program is younger than all its sources, which Cargo lists beside it.
fn is_fresh(program: &Path) -> bool {
    let modified = |path: &Path| fs::metadata(path).and_then(|data| data.modified()).ok();
    let (Some(built), Ok(sources)) = (modified(program), fs::read_to_string(program.with_extension("d"))) else {
        return false;
    };
    let Some((_, sources)) = sources.split_once(": ") else { return false };
    // A space within a path is escaped.
    let sources = sources.trim().replace("\\ ", "\0");
    sources.split(' ').all(|source| modified(Path::new(&source.replace('\0', " "))).is_some_and(|at| at <= built))
}

fn build(profile: &Path) {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let name = profile.file_name().and_then(|name| name.to_str()).unwrap();
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--profile", if name == "debug" { "dev" } else { name }]);
    for (_, package) in PROGRAMS {
        command.args(["--package", package]);
    }
    command.env("CARGO_TARGET_DIR", profile.parent().unwrap()).current_dir(env!("CARGO_MANIFEST_DIR"));
    assert!(command.status().unwrap().success(), "the programs do not build");
}
