//! Who may use which route: one table, looked at before each handler.
//!
//! A route that is not in it answers nobody (405), and a test takes the routes from the router and fails for one without a policy,
//! or a policy without a route.

use std::sync::LazyLock;

use axum::http::Method;
use utoipa::openapi::{
    Components, Content, OpenApi, Ref, RefOr, ResponseBuilder,
    path::Operation,
    security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
};

use crate::index::keys::Scope;

/// What a caller must be allowed to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Anybody may: nothing of the documents is told.
    Nothing,
    /// The caller must have this scope.
    Scope(Scope),
}

/// What holds for one route.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Its method; `GET` stands for `HEAD` too.
    pub method: Method,
    /// Its path, as the router has it.
    pub path: &'static str,
    /// Who may use it.
    pub needs: Needs,
    /// It can be answered from memory while the database is away. Then a key will do that the database confirmed within the
    /// stale window; elsewhere one must have been confirmed within five seconds.
    pub from_memory: bool,
}

impl Policy {
    /// Of a route that anybody may use.
    fn public(method: Method, path: &'static str) -> Self {
        Self { method, path, needs: Needs::Nothing, from_memory: true }
    }

    /// Of a route that needs a scope.
    fn scoped(method: Method, path: &'static str, scope: Scope) -> Self {
        Self { method, path, needs: Needs::Scope(scope), from_memory: false }
    }

    /// It can be answered from memory.
    fn also_from_memory(self) -> Self {
        Self { from_memory: true, ..self }
    }
}

/// Those that are asked most come first.
static POLICIES: LazyLock<Vec<Policy>> = LazyLock::new(|| {
    vec![
        Policy::scoped(Method::GET, "/api/search", Scope::Search).also_from_memory(),
        Policy::scoped(Method::POST, "/api/search", Scope::Search).also_from_memory(),
        Policy::public(Method::GET, "/api/health"),
        Policy::scoped(Method::GET, "/api/sources", Scope::Search).also_from_memory(),
        Policy::scoped(Method::GET, "/api/sources/{source_id}", Scope::Search).also_from_memory(),
        Policy::scoped(Method::PATCH, "/api/sources/{source_id}", Scope::SourcesWrite),
        Policy::scoped(Method::DELETE, "/api/sources/{source_id}", Scope::SourcesWrite),
        Policy::scoped(Method::GET, "/api/pages", Scope::Search),
        Policy::scoped(Method::GET, "/api/pages/{page_id}", Scope::Search),
        Policy::scoped(Method::GET, "/api/chunks/{chunk_id}", Scope::Search),
        Policy::scoped(Method::GET, "/api/keys", Scope::Admin),
        Policy::scoped(Method::POST, "/api/keys", Scope::Admin),
        Policy::scoped(Method::DELETE, "/api/keys/{key_id}", Scope::Admin),
        Policy::public(Method::GET, "/"),
        Policy::public(Method::GET, "/assets/{name}"),
        Policy::public(Method::GET, "/openapi.json"),
        Policy::public(Method::GET, "/docs"),
        Policy::public(Method::GET, "/docs/"),
        Policy::public(Method::GET, "/docs/{*rest}"),
    ]
});

/// Every policy.
#[must_use]
pub fn all() -> &'static [Policy] {
    &POLICIES
}

/// The policy of a route; `path` is the router's, with its open parts in braces.
#[must_use]
pub fn of(method: &Method, path: &str) -> Option<&'static Policy> {
    let method = if *method == Method::HEAD { &Method::GET } else { method };
    POLICIES.iter().find(|policy| policy.path == path && policy.method == *method)
}

/// Says in the API's description what keys there are, which route needs which scope, and how one without is answered.
pub(super) fn describe(api: &mut OpenApi) {
    let components = api.components.get_or_insert_with(Components::new);
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("A key: dsk_…"));
    components.add_security_scheme("bearer", SecurityScheme::Http(bearer.build()));
    let header = ApiKeyValue::with_description("X-API-Key", "The same key");
    components.add_security_scheme("api_key", SecurityScheme::ApiKey(ApiKey::Header(header)));
    for policy in all() {
        let Some(item) = api.paths.paths.get_mut(policy.path) else { continue };
        let operation = match policy.method {
            Method::GET => &mut item.get,
            Method::POST => &mut item.post,
            Method::PUT => &mut item.put,
            Method::PATCH => &mut item.patch,
            Method::DELETE => &mut item.delete,
            _ => continue,
        };
        if let (Some(operation), Needs::Scope(scope)) = (operation, policy.needs) {
            describe_operation(operation, scope);
        }
    }
}

fn describe_operation(operation: &mut Operation, scope: Scope) {
    let security = ["bearer", "api_key"].map(|scheme| SecurityRequirement::new(scheme, [scope.name()]));
    operation.security = Some(security.into());
    let refusals = [
        ("401", "No key where one is needed, or one that is unknown, revoked or expired".to_owned()),
        ("403", format!("The key lacks the scope {}", scope.name())),
    ];
    for (status, description) in refusals {
        let problem = Content::new(Some(Ref::from_schema_name("Problem")));
        let response = ResponseBuilder::new().description(description).content("application/problem+json", problem);
        operation.responses.responses.entry(status.to_owned()).or_insert_with(|| RefOr::T(response.build()));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The routes of the router itself, as its `Debug` shows them: paths by their number, then the methods of each number.
    fn routes_of_the_router() -> BTreeSet<(String, String)> {
        let shown = format!("{:?}", super::super::all_routes());
        let node = shown.split_once("node: Node { paths: {").expect("the paths of the router").1;
        let node = node.split_once('}').map_or(node, |_| &node[..node.find("} }").expect("their end")]);
        let mut routes = BTreeSet::new();
        for entry in node.split("RouteId(").skip(1) {
            let (id, path) = entry.split_once("): \"").expect("a route and its path");
            let path = path.split_once('"').expect("a path in quotes").0;
            let endpoint = shown.split_once(&format!("RouteId({id}): MethodRouter(")).expect("a route of methods").1;
            let allowed = endpoint.split_once("allow_header: Bytes(b\"").expect("the methods of a route").1;
            for method in allowed.split_once('"').expect("methods in quotes").0.split(',') {
                routes.insert((method.to_owned(), path.to_owned()));
            }
        }
        routes.retain(|(method, _)| method != "HEAD");
        routes
    }

    #[test]
    fn every_route_has_one_policy_and_every_policy_a_route() {
        let policies: Vec<_> = all().iter().map(|policy| (policy.method.to_string(), policy.path.to_owned())).collect();
        let different: BTreeSet<_> = policies.iter().cloned().collect();
        assert_eq!(different.len(), policies.len(), "a route has two policies: {policies:?}");
        assert_eq!(routes_of_the_router(), different, "routes on the left, policies on the right");
    }

    #[test]
    fn the_list_of_routes_is_whole() {
        let routes = routes_of_the_router();
        let description = serde_json::to_value(super::super::openapi()).expect("JSON");
        for (path, item) in description["paths"].as_object().expect("paths") {
            for method in item.as_object().expect("methods").keys() {
                assert!(
                    routes.contains(&(method.to_uppercase(), path.clone())),
                    "{method} {path} is not in {routes:?}"
                );
            }
        }
        for path in ["/", "/assets/{name}", "/docs", "/openapi.json"] {
            assert!(routes.contains(&("GET".to_owned(), path.to_owned())), "{path} is not in {routes:?}");
        }
    }

    #[test]
    fn only_what_tells_nothing_of_documents_is_public() {
        let public: Vec<_> = all().iter().filter(|policy| policy.needs == Needs::Nothing).map(|one| one.path).collect();
        let expected = ["/api/health", "/", "/assets/{name}", "/openapi.json", "/docs", "/docs/", "/docs/{*rest}"];
        assert_eq!(public, expected);
    }

    #[test]
    fn head_is_get_and_another_method_has_no_policy() {
        assert!(of(&Method::HEAD, "/api/search").is_some_and(|policy| policy.method == Method::GET));
        assert!(of(&Method::PUT, "/api/search").is_none() && of(&Method::GET, "/api/unknown").is_none());
    }
}
