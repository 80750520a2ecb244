//! Every route with the scopes that open it: the only place where a route becomes reachable.

use actix_web::guard::fn_guard;
use actix_web::http::Method;
use actix_web::web::{self, ServiceConfig};
use actix_web::{Handler, Responder, Route};
use common::access::Scope;

use crate::access::{Caller, changes_something};
use crate::problem::Problem;
use crate::{
    actions, apps, directory, events, messages, metrics_page, numbers, parked, raw, statistics, tenants, tokens,
    webhooks,
};

const ADMIN: &[Scope] = &[Scope::Admin];
const OPERATOR: &[Scope] = &[Scope::Admin, Scope::Operator];
const READER: &[Scope] = &[Scope::Admin, Scope::Operator, Scope::TenantReader];
const ANYONE: &[Scope] = &Scope::ALL;

/// One method of one path.
pub(crate) struct ApiRoute {
    pub(crate) method: Method,
    pub(crate) pattern: String,
    /// The scopes that open it. Whose data it shows is up to its handler.
    pub(crate) scopes: &'static [Scope],
    /// Whether each use is written down.
    pub(crate) is_logged: bool,
    /// The answer where the path names what cannot be.
    pub(crate) unnamed: fn() -> Problem,
    handler: Box<dyn Fn() -> Route + Send + Sync>,
}

fn route<F, Args>(method: Method, pattern: &str, scopes: &'static [Scope], handler: F) -> ApiRoute
where
    F: Handler<Args> + Clone + Send + Sync,
    Args: actix_web::FromRequest + 'static,
    F::Output: Responder + 'static,
{
    let of = method.clone();
    ApiRoute {
        is_logged: changes_something(&method),
        method,
        pattern: pattern.to_owned(),
        scopes,
        unnamed: Problem::not_found,
        // A handler runs only for a caller that the guard has let in: what it does not find here stays closed.
        handler: Box::new(move || {
            let let_in = fn_guard(|context| context.req_data().contains::<Caller>());
            web::method(of.clone()).guard(let_in).to(handler.clone())
        }),
    }
}

/// All routes behind the guard.
pub(crate) fn all(metrics: bool, prefix: &str) -> Vec<ApiRoute> {
    use Method as M;
    let mut routes = vec![
        route(M::GET, "/messages", READER, messages::list),
        route(M::GET, "/stats", READER, messages::stats),
        route(M::GET, "/v1/events", READER, events::read),
        route(M::POST, "/v1/directory/import", ADMIN, directory::import),
        route(M::GET, "/api/tenants", OPERATOR, tenants::list),
        route(M::POST, "/api/tenants", ADMIN, tenants::create),
        route(M::GET, "/api/tenants/{tenant}", ANYONE, tenants::show),
        route(M::PUT, "/api/tenants/{tenant}", OPERATOR, tenants::update),
        route(M::DELETE, "/api/tenants/{tenant}", ADMIN, tenants::offboard),
        route(M::PUT, "/api/tenants/{tenant}/numbers/{number}", OPERATOR, numbers::assign),
        route(M::DELETE, "/api/tenants/{tenant}/numbers/{number}", OPERATOR, numbers::release),
        route(M::GET, "/api/apps", OPERATOR, apps::list),
        route(M::POST, "/api/apps", ADMIN, apps::create),
        route(M::GET, "/api/apps/{id}", OPERATOR, apps::show),
        route(M::PUT, "/api/apps/{id}", ADMIN, apps::update),
        route(M::DELETE, "/api/apps/{id}", ADMIN, apps::retire),
        route(M::POST, "/api/apps/{id}/secrets", ADMIN, apps::rotate),
        route(M::GET, "/api/tokens", ADMIN, tokens::list),
        route(M::POST, "/api/tokens", ADMIN, tokens::create),
        route(M::GET, "/api/tokens/self", ANYONE, tokens::own),
        route(M::DELETE, "/api/tokens/{id}", ADMIN, tokens::revoke),
        route(M::GET, "/api/actions", OPERATOR, actions::list),
        route(M::GET, "/api/parked", READER, parked::list),
        route(M::GET, "/api/parked/groups", OPERATOR, parked::groups),
        route(M::POST, "/api/parked/release", OPERATOR, parked::release),
        route(M::GET, "/api/webhooks", READER, webhooks::list),
        // A look at what somebody wrote.
        ApiRoute { is_logged: true, unnamed: raw::no_reference, ..route(M::GET, "/api/raw/{id}", READER, raw::show) },
        route(M::GET, "/api/security", OPERATOR, statistics::security),
    ];
    if !prefix.is_empty() {
        routes.push(route(M::GET, &format!("{prefix}/stats"), OPERATOR, statistics::stats));
    }
    if metrics {
        routes.push(route(M::GET, "/metrics", OPERATOR, metrics_page));
    }
    routes
}

/// Makes them reachable.
pub(crate) fn register(routes: &[ApiRoute], config: &mut ServiceConfig) {
    let mut rest = routes;
    while let Some(first) = rest.first() {
        // The methods of a path stand together.
        let (same, others) = rest.split_at(rest.iter().take_while(|route| route.pattern == first.pattern).count());
        let resource = same.iter().fold(web::resource(first.pattern.as_str()), |it, route| it.route((route.handler)()));
        config.service(resource);
        rest = others;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_documented_with_its_scopes() {
        let documented = include_str!("../../../docs/api.md").lines().filter(|line| line.starts_with("| `"));
        let mut documented: Vec<_> = documented.map(|line| line.split(" | ").take(2).collect::<Vec<_>>()).collect();
        let word = |scopes: &[Scope]| match scopes.len() {
            1 => "admin",
            2 => "operator",
            3 => "reader",
            _ => "all",
        };
        for route in all(true, "/api/v1/whatsapp-hardened") {
            let name = format!("| `{} {}`", route.method, route.pattern);
            let found = documented.iter().position(|row| row[0] == name).unwrap_or_else(|| panic!("{name} is missing"));
            assert!(documented.remove(found)[1].starts_with(word(route.scopes)), "{name}");
        }
        documented
            .retain(|row| row[0].starts_with("| `GET /") || row[0].starts_with("| `P") || row[0].starts_with("| `D"));
        assert!(documented.is_empty(), "there is no such route: {documented:?}");
    }
}
