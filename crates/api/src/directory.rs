//! Changing the directory, and `/v1/directory/import`, which changes much of it at once.
//!
//! What is written depends on what was read, so a change that somebody else came before is planned again. It runs to its
//! end when its caller hangs up.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use actix_web::web::{Data, Payload};
use actix_web::{HttpResponse, rt};
use common::directory::{Directory, Entry};
use common::keys::KeyRing;
use ports::Unavailable;
use ports::directory::{DirectoryStore, Updated, update};
use serde::Serialize;

use crate::import::Import;
use crate::plan::plan;
use crate::problem::Problem;
use crate::{State, body, log};

/// The directory as it was read last. It is read again after a change, by whomever: to read it all takes long where there
/// are many tenants.
pub(crate) struct Snapshots {
    store: Arc<dyn DirectoryStore>,
    last: Mutex<Arc<Directory>>,
}

impl Snapshots {
    pub(crate) fn new(store: Arc<dyn DirectoryStore>) -> Self {
        // As a new store is.
        Self { store, last: Mutex::default() }
    }

    /// The whole directory as of now.
    pub(crate) async fn snapshot(&self) -> Result<Arc<Directory>, Unavailable> {
        let revision = self.store.revision().await?;
        let last = Arc::clone(&self.last());
        if last.revision == revision {
            return Ok(last);
        }
        let read = Arc::new(self.store.snapshot().await?);
        self.last().clone_from(&read);
        Ok(read)
    }

    fn last(&self) -> MutexGuard<'_, Arc<Directory>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Serialize)]
struct Imported {
    changed: usize,
    revision: u64,
}

/// `POST /v1/directory/import`
pub(crate) async fn import(state: Data<State>, body: Payload) -> Result<HttpResponse, Problem> {
    let import: Import = body::read(body, "times are RFC 3339, providers are `meta`, `twilio`, `generic`").await?;
    let warnings = import.warnings();
    let (updated, ()) =
        change(&state, move |current, ring| Ok((plan(&import, current, ring).map_err(Problem::invalid)?, ()))).await?;
    for warning in warnings {
        tracing::warn!("imported with a doubt: {warning}");
    }
    log::target(format!("{} entries", updated.changed));
    Ok(HttpResponse::Ok().json(Imported { changed: updated.changed, revision: updated.revision }))
}

/// Writes what `plan` makes of the directory, to the end, and returns what it says beside that. The log is told what was
/// changed.
pub(crate) async fn change<T: Send + 'static>(
    state: &Data<State>,
    mut plan: impl FnMut(&Directory, &KeyRing) -> Result<(Vec<Entry>, T), Problem> + Send + 'static,
) -> Result<(Updated, T), Problem> {
    let state = state.clone();
    let changing = rt::spawn(async move {
        let mut said = None;
        let planned = |current: &Directory| {
            let (entries, more) = plan(current, &(state.keys)())?;
            said = Some((more, log::Changes::of(current, &entries)));
            Ok::<_, Problem>(entries)
        };
        let updated = update(&*state.directory.store, planned).await?;
        if updated.changed > 0 {
            tracing::info!(changed = updated.changed, revision = updated.revision, "directory changed");
        }
        said.map(|said| (updated, said)).ok_or_else(|| Problem::internal("nothing was planned"))
    });
    let changed =
        changing.await.map_err(|_| Problem::internal("the change broke off; it may or may not be written"))?;
    let (updated, (said, changes)) = changed?;
    changes.note();
    Ok((updated, said))
}
