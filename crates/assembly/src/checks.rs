//! What can be found out about an installation without changing anything of it, for `wharf doctor`.
//!
//! Each question is asked once and briefly, whatever the answer to the one before was: a person wants all that is wrong
//! at once. One exception to "without changing": databases of an embedded data folder that are older than this program
//! are brought up to date, as by any start.

use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use backend_distributed::nats::Nats;
use backend_distributed::postgres::Postgres;
use backend_distributed::redis::RedisAdmission;
use backend_embedded::{DataFolder, Embedded, FolderError, InProcessAdmission, InProcessAdmissionConfig};
use common::directory::{Directory, OpenDirectory};
use common::keys::KeyRing;
use common::{Clock, SystemClock, Timestamp};
use ports::directory::DirectoryStore;
use service::keys::KeyFile;

use crate::bootstrap;
use crate::config::{BackendKind, Config};

/// How long a server has to answer a question.
const PATIENCE: Duration = Duration::from_secs(10);

/// Clocks further apart than this are worth a word, and further than that a failure.
const CLOCKS_APART: Duration = Duration::from_secs(2);
const CLOCKS_BROKEN: Duration = Duration::from_secs(30);

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grade {
    /// As it should be.
    Ok,
    /// Worth knowing, or not known.
    Warning,
    /// It does not work like this.
    Failed,
}

/// The answer to one question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub grade: Grade,
    /// What was looked at.
    pub subject: &'static str,
    /// What was found, and what to do about it.
    pub text: String,
}

impl Finding {
    /// As it should be.
    pub fn ok(subject: &'static str, text: impl Into<String>) -> Self {
        Self { grade: Grade::Ok, subject, text: text.into() }
    }

    /// Worth knowing.
    pub fn warning(subject: &'static str, text: impl Into<String>) -> Self {
        Self { grade: Grade::Warning, subject, text: text.into() }
    }

    /// It does not work like this.
    pub fn failed(subject: &'static str, text: impl Into<String>) -> Self {
        Self { grade: Grade::Failed, subject, text: text.into() }
    }
}

/// Looks at everything that a configuration names: keys, backend, directory, secrets.
pub async fn check(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    let directory = match config.backend.kind {
        BackendKind::Embedded => embedded(config, &mut findings).await,
        BackendKind::Distributed => distributed(config, &mut findings).await,
    };
    let ring = keys(config, directory.as_ref(), &mut findings);
    secrets(config, directory.as_ref(), ring.as_deref(), &mut findings);
    findings
}

/// An error with its causes, on one line. Many an error repeats its cause in its own text: that is said once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    text
}

/// The answer, or why there is none.
async fn asked<T, E>(question: impl Future<Output = Result<T, E>>) -> Result<T, String>
where
    E: std::error::Error,
{
    match tokio::time::timeout(PATIENCE, question).await {
        Ok(answer) => answer.map_err(|error| chain(&error)),
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

/// The databases of the data folder. Returns the directory if it can be read now.
async fn embedded(config: &Config, findings: &mut Vec<Finding>) -> Option<Directory> {
    const SUBJECT: &str = "data folder";
    let path = &config.data_dir;
    let Ok(data_file) = config.data_file() else { return None };
    if !path.exists() {
        let text = format!("{} is not there yet; the first `wharf up` makes it", path.display());
        findings.push(Finding::warning(SUBJECT, text));
        return None;
    }
    let folder = match DataFolder::lock(path) {
        Ok(folder) => folder,
        Err(FolderError::InUse(_)) => {
            let text = format!(
                "{} is in use by a running wharf, so its databases are not opened; its /ready says how it is",
                path.display()
            );
            findings.push(Finding::ok(SUBJECT, text));
            return None;
        }
        Err(error) => {
            findings.push(Finding::failed(SUBJECT, chain(&error)));
            return None;
        }
    };
    if !data_file.exists() {
        match bootstrap::complete(folder.path(), &data_file) {
            Ok(()) => findings.push(Finding::ok(SUBJECT, format!("{} is empty and free", path.display()))),
            Err(error) => findings.push(Finding::failed(SUBJECT, format!("{error:#}"))),
        }
        return None;
    }
    if let Err(error) = bootstrap::complete(folder.path(), &data_file) {
        findings.push(Finding::failed(SUBJECT, format!("{error:#}")));
        return None;
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let databases = match Embedded::open(&folder, &data_file, clock).await {
        Ok(databases) => databases,
        Err(error) => {
            let text = format!("the databases do not open: {}; restore a backup", chain(&error));
            findings.push(Finding::failed(SUBJECT, text));
            return None;
        }
    };
    let directory = asked(databases.directory.snapshot()).await;
    databases.close().await;
    match directory {
        Ok(directory) => {
            findings.push(Finding::ok(SUBJECT, format!("{} is free, its databases open", path.display())));
            Some(directory)
        }
        Err(error) => {
            findings.push(Finding::failed(SUBJECT, format!("the directory cannot be read: {error}")));
            None
        }
    }
}

/// NATS, Redis and PostgreSQL. Returns the directory as the database has it, else as the stream has it.
async fn distributed(config: &Config, findings: &mut Vec<Finding>) -> Option<Directory> {
    let on_stream = nats(config, findings).await;
    redis(config, findings).await;
    let in_database = postgres(config, findings).await;
    findings.push(match (&on_stream, &in_database) {
        (_, Some(database)) if database.revision == 0 => {
            Finding::warning("directory", "nobody has written it yet; start `api` (or `wharf up`)")
        }
        (Some(Ok(stream)), Some(database)) => compare(stream, database),
        (Some(Err(error)), _) => Finding::failed("directory", format!("the stream cannot be read: {error}")),
        _ => Finding::warning("directory", "stream and database cannot be compared while one of them cannot be read"),
    });
    in_database.or(on_stream.and_then(Result::ok))
}

/// The directory as the stream has it; `None` if NATS cannot be asked.
async fn nats(config: &Config, findings: &mut Vec<Finding>) -> Option<Result<Directory, String>> {
    const SUBJECT: &str = "NATS";
    let settings = config.nats("wharf");
    let (is_lazy, is_asked) = (settings.allow_lazy_sync, settings.monitor_url.is_some());
    let nats = match asked(Nats::connect(settings)).await {
        Ok(nats) => nats,
        Err(error) => {
            findings
                .push(Finding::failed(SUBJECT, format!("not reached: {error}; look at nats.url and at the server")));
            return None;
        }
    };
    match asked(nats.verify()).await {
        Ok(()) if is_lazy && config.is_lazy_sync_allowed() => findings.push(Finding::warning(
            SUBJECT,
            "usable, but nats.unsafe_lazy_sync is set: webhooks that were answered 200 can be lost in a power cut",
        )),
        Ok(()) if !is_asked => findings.push(Finding::warning(
            SUBJECT,
            "usable, but whether it syncs is not known: set nats.monitor_url (WHARF__NATS__MONITOR_URL)",
        )),
        Ok(()) => findings.push(Finding::ok(SUBJECT, "version, limits, sync and streams are as they must be")),
        Err(error) => findings.push(Finding::failed(SUBJECT, error)),
    }
    clock(SUBJECT, nats.clock().await, findings);
    let directory = asked(async { nats.directory().snapshot().await }).await;
    nats.close().await;
    Some(directory)
}

async fn redis(config: &Config, findings: &mut Vec<Finding>) {
    const SUBJECT: &str = "Redis";
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let local = Arc::new(InProcessAdmission::new(InProcessAdmissionConfig::default(), clock));
    findings.push(match RedisAdmission::new(config.redis_url(), local) {
        Err(error) => Finding::failed(SUBJECT, format!("redis.url: {}", chain(&error))),
        Ok(redis) => match tokio::time::timeout(PATIENCE, redis.ping()).await {
            Ok(true) => Finding::ok(SUBJECT, "answers"),
            _ => Finding::warning(
                SUBJECT,
                "does not answer: webhooks are taken all the same, but limits hold for each gateway alone and \
                 duplicates cost work; look at redis.url and at the server",
            ),
        },
    });
}

async fn postgres(config: &Config, findings: &mut Vec<Finding>) -> Option<Directory> {
    const SUBJECT: &str = "PostgreSQL";
    let postgres = match asked(Postgres::connect(config.postgres())).await {
        Ok(postgres) => postgres,
        Err(error) => {
            let text = format!("not reached: {error}; look at postgres.url and at the server");
            findings.push(Finding::failed(SUBJECT, text));
            return None;
        }
    };
    clock(SUBJECT, postgres.clock().await, findings);
    let verified = asked(postgres.verify()).await;
    let directory = match verified {
        Ok(()) => {
            findings.push(Finding::ok(SUBJECT, "version and tables are as they must be"));
            let read = asked(async { postgres.directory().snapshot().await }).await;
            read.map_err(|error| {
                findings.push(Finding::failed("directory", format!("the table cannot be read: {error}")));
            })
            .ok()
        }
        Err(error) => {
            findings.push(Finding::failed(SUBJECT, error));
            None
        }
    };
    postgres.close().await;
    directory
}

/// This machine's clock beside a server's. Times of receipt come from gateways, their ages from servers.
fn clock(server: &str, there: Option<Timestamp>, findings: &mut Vec<Finding>) {
    let Some(there) = there else { return };
    let here = SystemClock.now();
    let apart = here.since(there).max(there.since(here));
    let text = format!("this machine and {server} are {:.1} s apart", apart.as_secs_f64());
    findings.push(if apart > CLOCKS_BROKEN {
        Finding::failed("clocks", format!("{text}; set the clocks by NTP"))
    } else if apart > CLOCKS_APART {
        Finding::warning("clocks", format!("{text}; set the clocks by NTP"))
    } else {
        Finding::ok("clocks", text)
    });
}

fn compare(stream: &Directory, database: &Directory) -> Finding {
    const SUBJECT: &str = "directory";
    if stream == database {
        return Finding::ok(SUBJECT, format!("complete on the stream, revision {}", stream.revision));
    }
    Finding::failed(
        SUBJECT,
        format!(
            "the stream has revision {} with {} entries, the database {} with {}; `api` publishes what is missing every \
             few seconds: is it running?",
            stream.revision,
            stream.entries.len(),
            database.revision,
            database.entries.len()
        ),
    )
}

/// The key file: there, readable, nobody else's, and of this directory.
fn keys(config: &Config, directory: Option<&Directory>, findings: &mut Vec<Finding>) -> Option<Arc<KeyRing>> {
    const SUBJECT: &str = "keys";
    let path = config.key_file();
    if !path.exists() {
        let is_empty = directory.is_none_or(|directory| directory.entries.is_empty());
        findings.push(match config.backend.kind {
            _ if !is_empty => Finding::failed(
                SUBJECT,
                format!(
                    "{} is missing, but what is stored is sealed under its keys; put the copy back",
                    path.display()
                ),
            ),
            BackendKind::Embedded => {
                Finding::warning(SUBJECT, format!("{} is not there yet; the first `wharf up` makes it", path.display()))
            }
            BackendKind::Distributed => Finding::failed(
                SUBJECT,
                format!("{} is missing; run `wharf migrate` once, and give each process a copy", path.display()),
            ),
        });
        return None;
    }
    let ring = match KeyFile::open(&path) {
        Ok(keys) => keys.ring(),
        Err(error) => {
            findings.push(Finding::failed(SUBJECT, chain(&error)));
            return None;
        }
    };
    let opens = directory.map(|directory| OpenDirectory::open(directory, &ring));
    findings.push(match opens {
        Some(Err(error)) => Finding::failed(SUBJECT, format!("{}: {error}", path.display())),
        _ if is_open_to_others(&path) => {
            Finding::warning(SUBJECT, format!("{0} is readable by others; chmod 600 {0}", path.display()))
        }
        Some(Ok(_)) => Finding::ok(SUBJECT, format!("{} opens the directory", path.display())),
        None => Finding::ok(SUBJECT, format!("{} is readable", path.display())),
    });
    Some(ring)
}

#[cfg(unix)]
fn is_open_to_others(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).is_ok_and(|data| data.permissions().mode() & 0o077 != 0)
}

#[cfg(not(unix))]
fn is_open_to_others(_path: &Path) -> bool {
    false
}

/// Whether any app can sign.
fn secrets(config: &Config, directory: Option<&Directory>, ring: Option<&KeyRing>, findings: &mut Vec<Finding>) {
    const SUBJECT: &str = "secrets";
    let configured = !config.apps().is_empty();
    let opened = directory.zip(ring).and_then(|(directory, ring)| OpenDirectory::open(directory, ring).ok());
    findings.push(match opened {
        Some(directory) if directory.has_any_secrets() => Finding::ok(SUBJECT, "an app has a secret"),
        _ if configured => Finding::ok(SUBJECT, "configured in the environment or the file"),
        None if directory.is_some() || config.data_dir.exists() || config.backend.kind == BackendKind::Distributed => {
            Finding::warning(SUBJECT, "not known: the directory cannot be read from here")
        }
        _ => Finding::failed(
            SUBJECT,
            "no app has a secret, so every webhook is refused; set WHATSAPP_APP_SECRET and WHATSAPP_VERIFY_TOKEN, or \
             register apps with `wharf tenants import FILE`",
        ),
    });
}

impl Display for Grade {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "FAILED",
        })
    }
}

#[cfg(test)]
mod tests;
