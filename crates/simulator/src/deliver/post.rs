//! One POST and its answer. Only HTTP: whether an answer is good or bad is decided by the caller.

use std::{net::IpAddr, time::Duration};

use reqwest::{
    Body, Client, Method, Request, Url,
    header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT},
    redirect,
};
use tokio::time::Instant;

use super::{DeliverError, Delivery, Job};

/// Meta's header for the signature.
pub(super) const SIGNATURE: &str = "x-hub-signature-256";
const SIGNATURE_NAME: HeaderName = HeaderName::from_static(SIGNATURE);
/// The body of the answer that counts as an acknowledgement.
const ACKNOWLEDGEMENT: &[u8] = b"OK";

/// What came back.
pub(super) enum Answer {
    /// A complete answer; `taken` if its body is `OK`.
    Status { code: u16, taken: bool },
    /// No answer, or not all of it, in time.
    Transport(reqwest::Error),
}

impl Answer {
    pub(super) fn code(&self) -> Option<u16> {
        match self {
            Self::Status { code, .. } => Some(*code),
            Self::Transport(_) => None,
        }
    }
}

/// A finished try.
pub(super) struct Outcome {
    pub(super) slot: usize,
    pub(super) job: Job,
    pub(super) answer: Answer,
    /// From just before the request to the end of the answer.
    pub(super) took: Duration,
}

/// Sends to one address over clients that differ in their source address.
pub(super) struct Poster {
    url: Url,
    clients: Vec<Client>,
}

impl Poster {
    pub(super) fn new(delivery: &Delivery) -> Result<Self, DeliverError> {
        let url = Url::parse(&delivery.url)
            .map_err(|error| DeliverError::Url { url: delivery.url.clone(), source: error.into() })?;
        let headers = headers(&delivery.headers)?;
        let secure = url.scheme() == "https";
        let client = |address| client(delivery, &headers, address, secure);
        let clients = if delivery.local_addresses.is_empty() {
            vec![client(None)?]
        } else {
            let used = delivery.local_addresses.iter().take(delivery.connections.max(1));
            used.map(|address| client(Some(*address))).collect::<Result<_, _>>()?
        };
        Ok(Self { url, clients })
    }

    /// Sends over the connection `slot`.
    pub(super) async fn post(&self, slot: usize, job: Job) -> Outcome {
        let start = Instant::now();
        let answer = self.send(slot, &job).await.unwrap_or_else(Answer::Transport);
        Outcome { slot, job, answer, took: start.elapsed() }
    }

    async fn send(&self, slot: usize, job: &Job) -> Result<Answer, reqwest::Error> {
        let mut request = Request::new(Method::POST, self.url.clone());
        request.headers_mut().insert(SIGNATURE_NAME, job.signature.clone());
        *request.body_mut() = Some(Body::from(job.body.clone()));
        let response = self.clients[slot % self.clients.len()].execute(request).await?;
        let code = response.status().as_u16();
        // Read to the end in any case, or the connection could not be used again.
        let taken = response.bytes().await? == ACKNOWLEDGEMENT;
        Ok(Answer::Status { code, taken })
    }
}

fn headers(more: &[(String, String)]) -> Result<HeaderMap, DeliverError> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(USER_AGENT, HeaderValue::from_static("facebookexternalua"));
    for (name, value) in more {
        let unusable = || DeliverError::Header { name: name.clone() };
        let key: HeaderName = name.parse().map_err(|_| unusable())?;
        headers.insert(key, value.parse().map_err(|_| unusable())?);
    }
    Ok(headers)
}

fn client(
    delivery: &Delivery,
    headers: &HeaderMap,
    address: Option<IpAddr>,
    secure: bool,
) -> Result<Client, DeliverError> {
    let builder = Client::builder()
        .default_headers(headers.clone())
        .timeout(delivery.timeout)
        .pool_max_idle_per_host(delivery.connections.max(1))
        .redirect(redirect::Policy::none())
        .no_proxy()
        .local_address(address);
    // Without TLS no roots are needed; loading the system's takes long and fails where there are none.
    let builder = if secure { builder } else { builder.tls_certs_only([]) };
    builder.build().map_err(DeliverError::Client)
}
