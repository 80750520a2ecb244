//! The programs: found, brought up to date if need be, and started with nothing from the outside.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// The programs and their packages. `wharf` is the one that `WHARF_BIN` names; the others are beside it.
const PROGRAMS: [(&str, &str); 4] =
    [("wharf", "wharf"), ("gateway", "wharf-gateway"), ("normalizer", "wharf-normalizer"), ("api", "wharf-api")];

/// A command of `wharf` with an empty environment: what a developer has exported must not change a test.
pub(crate) fn wharf(arguments: &[&str]) -> Command {
    let mut command = program("wharf");
    command.args(arguments);
    command
}

/// The same of any program.
pub(crate) fn program(name: &str) -> Command {
    let path = folder().join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    assert!(path.is_file(), "there is no {}", path.display());
    let mut command = Command::new(path);
    command.env_clear();
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

/// Where the programs are.
fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| match std::env::var_os("WHARF_BIN") {
        Some(given) => {
            let given = PathBuf::from(given);
            assert!(given.is_file(), "WHARF_BIN names no file: {}", given.display());
            given.parent().unwrap().to_owned()
        }
        None => beside_the_tests(),
    })
}

/// The tests are in `<target>/<profile>/deps`. Building a workspace's tests builds its binaries too; building this
/// package alone does not, and may leave old ones there. All are built at once: whoever runs one target of tests mostly
/// runs the others as well.
fn beside_the_tests() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let profile = own.ancestors().nth(2).unwrap().to_owned();
    let binaries = PROGRAMS.map(|(name, _)| profile.join(format!("{name}{}", std::env::consts::EXE_SUFFIX)));
    let are_fresh = || binaries.iter().all(|binary| is_fresh(binary));
    if !are_fresh() {
        // Tests may run as processes side by side: one builds, the others wait and find it done.
        let lock = File::create(profile.join(".e2e-build.lock")).unwrap();
        lock.lock().unwrap();
        if !are_fresh() {
            build(&profile);
        }
    }
    profile
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
    command.args(["build", "--quiet", "--profile", if name == "debug" { "dev" } else { name }]);
    command.args(PROGRAMS.iter().flat_map(|(_, package)| ["--package", package]));
    command.env("CARGO_TARGET_DIR", profile.parent().unwrap()).current_dir(env!("CARGO_MANIFEST_DIR"));
    let status = command.status().unwrap();
    assert!(status.success(), "the programs do not build");
}
