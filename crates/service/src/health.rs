//! Liveness, readiness and metrics of a process, as every listener serves them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};

use actix_web::http::header::CACHE_CONTROL;
use actix_web::web::{self, Data, ServiceConfig};
use actix_web::{HttpResponse, Responder};
use serde::Serialize;

use crate::telemetry::Metrics;

/// What a process depends on, and whether it is there.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    checks: Arc<RwLock<BTreeMap<&'static str, Check>>>,
    draining: Arc<AtomicBool>,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Check {
    ok: bool,
    required: bool,
}

#[derive(Serialize)]
struct Body {
    status: &'static str,
    checks: BTreeMap<&'static str, Check>,
}

impl Readiness {
    /// Nothing is checked yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reports on a dependency. Without a required one the process is not ready.
    pub fn report(&self, name: &'static str, required: bool, ok: bool) {
        let mut checks = self.checks.write().unwrap_or_else(PoisonError::into_inner);
        let before = checks.insert(name, Check { ok, required });
        if before.is_some_and(|check| check.ok != ok) {
            tracing::info!(check = name, ok, "readiness changed");
        }
    }

    /// Turns readiness off for good, so that balancers stop sending before the listener closes.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether every required dependency is there.
    pub fn is_ready(&self) -> bool {
        let checks = self.checks.read().unwrap_or_else(PoisonError::into_inner);
        !self.draining.load(Ordering::Acquire) && checks.values().all(|check| check.ok || !check.required)
    }

    fn body(&self) -> Body {
        let checks = self.checks.read().unwrap_or_else(PoisonError::into_inner).clone();
        let degraded = checks.values().any(|check| !check.ok);
        let status = match (self.is_ready(), degraded) {
            (false, _) => "not_ready",
            (true, true) => "degraded",
            (true, false) => "ready",
        };
        Body { status, checks }
    }
}

async fn live() -> impl Responder {
    HttpResponse::Ok().insert_header((CACHE_CONTROL, "no-store")).json(serde_json::json!({"status": "ok"}))
}

async fn ready(readiness: Data<Readiness>) -> impl Responder {
    let body = readiness.body();
    let mut response = if readiness.is_ready() { HttpResponse::Ok() } else { HttpResponse::ServiceUnavailable() };
    response.insert_header((CACHE_CONTROL, "no-store")).json(body)
}

/// Adds `/health`, `/health/live`, `/ready` and `/health/ready`.
pub fn health_routes(readiness: Readiness) -> impl Fn(&mut ServiceConfig) + Clone {
    move |config| {
        config
            .app_data(Data::new(readiness.clone()))
            .route("/health", web::get().to(live))
            .route("/health/live", web::get().to(live))
            .route("/ready", web::get().to(ready))
            .route("/health/ready", web::get().to(ready));
    }
}

/// The metrics page.
pub fn metrics_response(metrics: &Metrics) -> HttpResponse {
    HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(metrics.render())
}

/// Adds `/metrics` without a token: for the admin listener.
pub fn metrics_route(metrics: Metrics) -> impl Fn(&mut ServiceConfig) + Clone {
    move |config| {
        let metrics = metrics.clone();
        config.route(
            "/metrics",
            web::get().to(move || {
                let metrics = metrics.clone();
                async move { metrics_response(&metrics) }
            }),
        );
    }
}
