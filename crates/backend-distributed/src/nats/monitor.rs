//! A server's monitoring endpoint: the only place where it says whether it syncs before it acknowledges.

use std::time::Duration;

use common::Timestamp;
use ports::Unavailable;
use serde::Deserialize;

use crate::OpenError;

const TIMEOUT: Duration = Duration::from_secs(3);

/// The part of `/varz` that matters.
#[derive(Debug, Deserialize)]
struct Variables {
    server_id: String,
    #[serde(with = "common::clock::rfc3339")]
    now: Timestamp,
    #[serde(default)]
    jetstream: Option<JetStream>,
}

#[derive(Debug, Default, Deserialize)]
struct JetStream {
    #[serde(default)]
    config: JetStreamConfig,
}

#[derive(Debug, Default, Deserialize)]
struct JetStreamConfig {
    #[serde(default)]
    sync_always: bool,
}

/// An error unless `connected` is behind one of the endpoints, and every server that answers syncs each write. One that
/// does not answer now takes no messages either.
pub(super) async fn syncs_every_write(urls: &str, connected: &str) -> Result<(), OpenError> {
    let mut is_connected_known = false;
    let mut silent = None;
    for url in endpoints(urls) {
        let variables = match ask(url).await {
            Ok(variables) => variables,
            Err(error @ OpenError::Unavailable(_)) => {
                silent = Some(error);
                continue;
            }
            Err(error) => return Err(error),
        };
        is_connected_known |= variables.server_id == connected;
        if !variables.jetstream.unwrap_or_default().config.sync_always {
            return Err(OpenError::Unsuitable(format!(
                "the NATS server at {url} acknowledges before it syncs, so a power cut loses what was answered 200: \
                 set `sync_interval: always` in its jetstream block (deploy/nats.conf), or, for development only, \
                 nats.unsafe_lazy_sync = true"
            )));
        }
    }
    if is_connected_known {
        return Ok(());
    }
    // It may be the one.
    if let Some(error) = silent {
        return Err(error);
    }
    Err(OpenError::Unsuitable(
        "nats.monitor_url is not the monitoring endpoint of the NATS server that nats.url leads to; name those of all \
         servers, separated by commas"
            .to_owned(),
    ))
}

/// The clock of the first server that answers.
pub(super) async fn clock(urls: &str) -> Option<Timestamp> {
    for url in endpoints(urls) {
        if let Ok(variables) = ask(url).await {
            return Some(variables.now);
        }
    }
    None
}

fn endpoints(urls: &str) -> impl Iterator<Item = &str> {
    urls.split(',').map(|url| url.trim().trim_end_matches('/')).filter(|url| !url.is_empty())
}

async fn ask(url: &str) -> Result<Variables, OpenError> {
    let silent = |error: reqwest::Error| {
        let why = innermost(&error);
        Unavailable::new(
            "the monitoring endpoint of NATS",
            format!("{url} does not answer as one ({why}); look at nats.monitor_url"),
        )
    };
    let client = reqwest::Client::builder().timeout(TIMEOUT).build().map_err(silent)?;
    let response = client.get(format!("{url}/varz")).send().await.and_then(reqwest::Response::error_for_status);
    let variables = response.map_err(silent)?.json::<Variables>().await;
    variables.map_err(|_| {
        OpenError::Unsuitable(format!(
            "{url} does not answer as the monitoring endpoint of a NATS server does; look at nats.monitor_url"
        ))
    })
}

/// What lies under an error; the layers above name the address again.
fn innermost(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), innermost)
}
