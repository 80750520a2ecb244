//! The `wharf` binary: found, brought up to date if need be, and started with nothing from the outside.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// A command of `wharf` with an empty environment: what a developer has exported must not change a test.
pub(crate) fn wharf(arguments: &[&str]) -> Command {
    let mut command = Command::new(path());
    command.env_clear().args(arguments);
    command
}

/// Runs a command to its end.
pub(crate) fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Finished {
    let output = wharf(arguments).envs(environment.iter().copied()).output();
    Finished::from(output.unwrap_or_else(|error| panic!("wharf {arguments:?} does not start: {error}")))
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Finished {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

fn path() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| match std::env::var_os("WHARF_BIN") {
        Some(given) => {
            let given = PathBuf::from(given);
            assert!(given.is_file(), "WHARF_BIN names no file: {}", given.display());
            given
        }
        None => beside_the_tests(),
    })
}

/// The tests are in `<target>/<profile>/deps`. Building a workspace's tests builds its binaries too; building this
/// package alone does not, and may leave an old one there.
fn beside_the_tests() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let profile = own.ancestors().nth(2).unwrap().to_owned();
    let binary = profile.join(format!("wharf{}", std::env::consts::EXE_SUFFIX));
    if is_fresh(&binary) {
        return binary;
    }
    // Tests may run as processes side by side: one builds, the others wait and find it done.
    let lock = File::create(profile.join(".e2e-build.lock")).unwrap();
    lock.lock().unwrap();
    if !is_fresh(&binary) {
        build(&profile);
    }
    assert!(binary.is_file(), "the build made no {}", binary.display());
    binary
}

/// Whether the binary is younger than all its sources, which Cargo lists beside it.
fn is_fresh(binary: &Path) -> bool {
    let modified = |path: &Path| fs::metadata(path).and_then(|data| data.modified()).ok();
    let (Some(built), Ok(sources)) = (modified(binary), fs::read_to_string(binary.with_extension("d"))) else {
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
    command.args(["build", "--quiet", "--package", "wharf", "--profile", if name == "debug" { "dev" } else { name }]);
    command.env("CARGO_TARGET_DIR", profile.parent().unwrap()).current_dir(env!("CARGO_MANIFEST_DIR"));
    let status = command.status().unwrap();
    assert!(status.success(), "wharf does not build");
}
