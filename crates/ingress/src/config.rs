//! What can be set about the gateway.

use std::num::NonZero;
use std::time::Duration;

use common::update::Provider;
use ports::admission::{SenderLimit, SenderLimits};

use crate::front::Front;

/// Limits and times of the gateway.
#[derive(Clone, Debug)]
pub struct Config {
    /// The largest body, in bytes. Meta sends up to 3 MB.
    pub max_body_bytes: usize,
    /// How long the whole body may take.
    pub body_timeout: Duration,
    /// How long after the last byte of the body the answer goes out at the latest.
    pub deadline: Duration,
    /// Verified webhooks per second.
    pub global_limit_per_second: u32,
    /// Requests per second from one address, verified or not.
    pub per_ip_limit_per_second: u32,
    /// Verified webhooks per second of one tenant; `None` is as many as of all together.
    pub tenant_limit_per_second: Option<NonZero<u32>>,
    /// Webhooks with a wrong signature that are kept in a minute, for those who look why.
    pub keep_refused_per_minute: u32,
    /// New messages of one sender per window, for each provider; what is over is parked.
    pub sender_limits: SenderLimits,
    /// Updates older than this are parked: Meta retries for 7 days.
    pub max_event_age: Duration,
    /// How long admission may take before the gateway goes on without it.
    pub admission_budget: Duration,
    /// How often request records are published.
    pub record_interval: Duration,
    /// The most bytes of bodies held at once over all requests.
    pub max_buffered_bytes: usize,
    /// What stands in front of the routes of earlier services, which are served under it too; empty for none.
    pub prefix: String,
    /// Where providers believe to send (`https://hooks.example.com`), unless their app says otherwise. Twilio signs it.
    pub public_url: Option<String>,
    /// Providers whose signatures are not asked for. Never in production.
    pub unsigned: Vec<Provider>,
    /// Who may come, and how.
    pub front: Front,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_body_bytes: 4 << 20,
            body_timeout: Duration::from_secs(3),
            deadline: Duration::from_millis(1800),
            global_limit_per_second: 500,
            per_ip_limit_per_second: 50,
            tenant_limit_per_second: None,
            keep_refused_per_minute: 0,
            sender_limits: SenderLimits::all(SenderLimit { max: 100, window: Duration::from_hours(1) }),
            max_event_age: Duration::from_hours(8 * 24),
            admission_budget: Duration::from_millis(20),
            record_interval: Duration::from_secs(1),
            max_buffered_bytes: 256 << 20,
            prefix: "/api/v1/whatsapp-hardened".to_owned(),
            public_url: None,
            unsigned: Vec::new(),
            front: Front::default(),
        }
    }
}
