//! `/api/apps`: whose signatures count. Secrets go in and never come out.

use std::collections::BTreeMap;
use std::time::Duration;

use actix_web::http::header::LOCATION;
use actix_web::web::{Data, Path, Payload};
use actix_web::{HttpRequest, HttpResponse};
use common::clock::rfc3339;
use common::directory::{App, Directory, Entry};
use common::update::Provider;
use common::{AppId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::directory::change;
use crate::import::{Import, ImportApp};
use crate::plan::plan;
use crate::problem::{FieldError, Problem};
use crate::query::Query;
use crate::{State, body, log};

/// Meta tries to deliver for seven days; what it signed with the old secret may come until then.
const OVERLAP_HOURS: u32 = 8 * 24;
/// Secrets of an app at once.
const MAX_SECRETS: usize = 4;
const MAX_LIMIT: usize = 1000;
const DEFAULT_LIMIT: usize = 100;

/// An app as callers see it.
#[derive(Serialize)]
struct Shown<'d> {
    id: &'d AppId,
    provider: Provider,
    default: bool,
    account: Option<&'d str>,
    public_url: Option<&'d str>,
    /// Newest first. None at all: the app is retired, and nothing is accepted for it.
    secrets: Vec<ShownSecret>,
    verify_tokens: usize,
    numbers: usize,
}

#[derive(Serialize)]
struct ShownSecret {
    #[serde(with = "rfc3339::option")]
    accepted_until: Option<Timestamp>,
}

#[derive(Serialize)]
struct Page<'d> {
    data: Vec<Shown<'d>>,
    /// The id to ask on from; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<&'d AppId>,
}

/// How many numbers of each app have an owner at a moment.
fn numbers(directory: &Directory, at: Timestamp) -> BTreeMap<&AppId, usize> {
    let mut numbers = BTreeMap::new();
    for entry in directory.entries.values() {
        if let Entry::Number(number) = entry
            && number.owner_at(at).is_some()
        {
            *numbers.entry(&number.app).or_default() += 1;
        }
    }
    numbers
}

fn shown<'d>(app: &'d App, numbers: &BTreeMap<&AppId, usize>, now: Timestamp) -> Shown<'d> {
    let accepted = app.secrets.iter().filter(|secret| secret.accepted_until.is_none_or(|end| now < end));
    Shown {
        id: &app.id,
        provider: app.provider,
        default: app.default,
        account: app.account.as_deref(),
        public_url: app.public_url.as_deref(),
        secrets: accepted.map(|secret| ShownSecret { accepted_until: secret.accepted_until }).collect(),
        verify_tokens: app.verify_tokens.len(),
        numbers: numbers.get(&app.id).copied().unwrap_or_default(),
    }
}

fn known<'d>(directory: &'d Directory, id: &str) -> Result<&'d App, Problem> {
    let id: AppId = id.parse().map_err(|_| Problem::not_found())?;
    directory.app(&id).ok_or_else(Problem::not_found)
}

/// Refuses to change what the next start would set back.
fn refuse_configured(state: &State, id: &str) -> Result<(), Problem> {
    if !state.configured_apps.iter().any(|configured| configured == id) {
        return Ok(());
    }
    Err(Problem::conflict(
        "the secrets and tokens of this app are configured (WHATSAPP_APP_SECRET, TWILIO_AUTH_TOKEN, WEBHOOK_SECRET and \
         their second ones): change them there and start again, or take them out of the configuration first",
    ))
}

/// `GET /api/apps`
pub(crate) async fn list(state: Data<State>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let mut query = Query::parse(request.query_string(), &["after", "limit"]);
    let after = query.read("after", |text| text.parse::<AppId>().map_err(|error| error.to_string()));
    let limit = query.number("limit", 1..=MAX_LIMIT).unwrap_or(DEFAULT_LIMIT);
    query.finish()?;
    let (directory, now) = (state.directory.snapshot().await?, state.clock.now());
    let apps = directory.entries.values();
    let apps = apps.filter_map(|entry| if let Entry::App(app) = entry { Some(app) } else { None });
    let apps = apps.filter(|app| after.as_ref().is_none_or(|after| app.id > *after));
    let mut found: Vec<&App> = apps.take(limit + 1).collect();
    let is_more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| is_more).map(|app| &app.id);
    let numbers = numbers(&directory, now);
    Ok(HttpResponse::Ok().json(Page { data: found.iter().map(|app| shown(app, &numbers, now)).collect(), next }))
}

/// `GET /api/apps/{id}`
pub(crate) async fn show(state: Data<State>, id: Path<String>) -> Result<HttpResponse, Problem> {
    answer(&state, &id, HttpResponse::Ok()).await
}

async fn answer(
    state: &State,
    id: &str,
    mut response: actix_web::HttpResponseBuilder,
) -> Result<HttpResponse, Problem> {
    let directory = state.directory.snapshot().await?;
    let now = state.clock.now();
    Ok(response.json(shown(known(&directory, id)?, &numbers(&directory, now), now)))
}

/// `POST /api/apps`
pub(crate) async fn create(state: Data<State>, body: Payload) -> Result<HttpResponse, Problem> {
    let app: ImportApp = body::read(body, "the provider is `meta`, `twilio` or `generic`").await?;
    let id = app.id.clone();
    let import = Import { apps: vec![app], ..Import::default() };
    change(&state, move |current, ring| {
        if import.apps[0].id.parse().is_ok_and(|id| current.app(&id).is_some()) {
            return Err(Problem::conflict("there is an app of this id"));
        }
        Ok((plan(&import, current, ring).map_err(Problem::invalid)?, ()))
    })
    .await?;
    let mut response = HttpResponse::Created();
    response.insert_header((LOCATION, format!("/api/apps/{id}")));
    log::target(&id);
    answer(&state, &id, response).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Changes {
    #[serde(default)]
    default: Option<bool>,
    #[serde(default)]
    account: Option<String>,
    #[serde(default)]
    public_url: Option<String>,
    #[serde(default)]
    verify_tokens: Option<Vec<String>>,
}

/// `PUT /api/apps/{id}`: what is left out stays. Secrets change by [`rotate`].
pub(crate) async fn update(state: Data<State>, id: Path<String>, body: Payload) -> Result<HttpResponse, Problem> {
    let changes: Changes = body::read(body, "`default` is true or false, `verify_tokens` a list of texts").await?;
    if changes.verify_tokens.is_some() {
        refuse_configured(&state, &id)?;
    }
    let own = id.clone();
    change(&state, move |current, ring| {
        let mut app = known(current, &own)?.clone();
        app.default = changes.default.unwrap_or(app.default);
        app.account = changes.account.clone().or(app.account);
        app.public_url = changes.public_url.clone().or(app.public_url);
        if let Some(tokens) = &changes.verify_tokens {
            let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
            app.verify_tokens = App::create(app.id.clone(), app.provider, &[], &tokens, ring).verify_tokens;
        }
        crate::plan::check_app(&app, changes.verify_tokens.as_deref(), current).map_err(Problem::invalid)?;
        let is_new = current.app(&app.id) != Some(&app);
        Ok((is_new.then_some(Entry::App(app)).into_iter().collect(), ()))
    })
    .await?;
    answer(&state, &id, HttpResponse::Ok()).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rotation {
    secret: String,
    /// How long the secrets before it are accepted too; 0 ends them now.
    #[serde(default)]
    overlap_hours: Option<u32>,
}

/// `POST /api/apps/{id}/secrets`: makes a secret the newest one.
pub(crate) async fn rotate(state: Data<State>, id: Path<String>, body: Payload) -> Result<HttpResponse, Problem> {
    refuse_configured(&state, &id)?;
    let rotation: Rotation = body::read(body, "`overlap_hours` is a whole number").await?;
    crate::plan::check_secret("secret", &rotation.secret).map_err(|error| Problem::invalid(vec![error]))?;
    let hours = rotation.overlap_hours.unwrap_or(OVERLAP_HOURS);
    let (own, now) = (id.clone(), state.clock.now());
    change(&state, move |current, ring| {
        let mut app = known(current, &own)?.clone();
        app.rotate(&rotation.secret, now.plus(Duration::from_hours(hours.into())), now, ring);
        app.secrets.retain(|secret| secret.accepted_until.is_none_or(|end| now < end));
        if app.secrets.len() > MAX_SECRETS {
            let message = format!("there are {MAX_SECRETS} already; end older ones with `overlap_hours: 0`");
            return Err(Problem::invalid(vec![FieldError::new("secret", message)]));
        }
        Ok((vec![Entry::App(app)], ()))
    })
    .await?;
    answer(&state, &id, HttpResponse::Created()).await
}

/// `DELETE /api/apps/{id}`: no signature of it is accepted any more. It stays in the list, as numbers name it.
pub(crate) async fn retire(state: Data<State>, id: Path<String>) -> Result<HttpResponse, Problem> {
    refuse_configured(&state, &id)?;
    let (own, now) = (id.clone(), state.clock.now());
    change(&state, move |current, _| {
        let app = known(current, &own)?;
        let numbers = numbers(current, now).get(&app.id).copied().unwrap_or_default();
        if numbers > 0 {
            return Err(Problem::conflict(format!("{numbers} numbers of this app have an owner; release them first")));
        }
        let retired = App { secrets: Vec::new(), verify_tokens: Vec::new(), default: false, ..app.clone() };
        let is_new = *app != retired;
        Ok((is_new.then_some(Entry::App(retired)).into_iter().collect(), ()))
    })
    .await?;
    answer(&state, &id, HttpResponse::Ok()).await
}
