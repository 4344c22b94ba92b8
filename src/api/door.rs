//! What every request passes before its handler, in this order: who asks and whether it may, how often it has asked, how long it may take;
//! and what happens when a handler panics.
//!
//! One function and not a layer for each step, since a layer puts the request on the heap and its answer through one more future.

use std::{any::Any, panic::AssertUnwindSafe, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::{Request, State as Shared},
    http::Response,
    middleware::{self, Next},
    response::IntoResponse,
};
use futures::FutureExt;

use super::{
    State,
    identity::Identity,
    observe::{observe, observe_all},
    respond::Problem,
    shape,
};

/// Puts the steps before `routes`, and the observation of every request before all.
pub(super) fn guard(routes: Router<Arc<State>>, state: &Arc<State>) -> Router<Arc<State>> {
    let Some(cors) = shape::cors(&state.cors_origins) else {
        let both = async |Shared(state): Shared<Arc<State>>, request: Request, next: Next| {
            observe(&state.leaving, request, |request| admit(Arc::clone(&state), request, next)).await
        };
        return routes.layer(middleware::from_fn_with_state(Arc::clone(state), both));
    };
    // Between the two: a browser's question before its request has no key, and it must be able to read refusals.
    let admit = |Shared(state): Shared<Arc<State>>, request: Request, next: Next| admit(state, request, next);
    routes
        .layer(middleware::from_fn_with_state(Arc::clone(state), admit))
        .layer(cors)
        .layer(middleware::from_fn_with_state(state.leaving.clone(), observe_all))
}

async fn admit(state: Arc<State>, request: Request, next: Next) -> Response<Body> {
    match AssertUnwindSafe(pass(&state, request, next)).catch_unwind().await {
        Ok(Ok(response)) => response,
        Ok(Err(problem)) => problem.into_response(),
        Err(panic) => answer_panic(&*panic),
    }
}

async fn pass(state: &State, request: Request, next: Next) -> Result<Response<Body>, Problem> {
    let request = state.access.identify(request).await?;
    let counted = state.limits.count(&request).await;
    let identity = request.extensions().get::<Identity>().cloned();
    let mut response = match counted.refusal() {
        Some(refusal) => refusal.into_response(),
        None => match tokio::time::timeout(state.deadline, next.run(request)).await {
            Ok(response) => response,
            // The connections it held are checked, and closed where they are dead.
            Err(_) => Problem::deadline().into_response(),
        },
    };
    counted.show(&mut response);
    if let Some(identity) = identity {
        identity.keep_private(&mut response);
    }
    Ok(response)
}

fn answer_panic(panic: &(dyn Any + Send)) -> Response<Body> {
    let message = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    tracing::error!(panic = message.unwrap_or("without a message"), "a handler panicked");
    Problem::internal().into_response()
}
