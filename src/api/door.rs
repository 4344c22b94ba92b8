//! What every request passes before its handler, in this order: who asks and whether it may, how often it has asked, how long it may take;
//! and what happens when a handler panics.
//!
//! One function and not a layer for each step, since a layer puts the request on the heap and its answer through one more future.

use std::{any::Any, panic::AssertUnwindSafe, pin::pin, sync::Arc, time::Duration};

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
    // Pinned here, since what is moved into one future after the other is copied, and has room in each.
    contain(pin!(pass(&state, request, next))).await.unwrap_or_else(IntoResponse::into_response)
}

/// Makes a panic of `work` a problem.
pub(super) async fn contain<T>(work: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
    AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|panic| Err(tell(&*panic)))
}

/// Gives `work` up when its time is over. The connections it held are checked, and closed where they are dead.
pub(super) async fn within<T>(deadline: Duration, work: impl Future<Output = T>) -> Result<T, Problem> {
    tokio::time::timeout(deadline, work).await.map_err(|_| Problem::deadline())
}

async fn pass(state: &State, request: Request, next: Next) -> Result<Response<Body>, Problem> {
    let request = state.access.identify(request).await?;
    let counted = state.limits.count(&request).await;
    let identity = request.extensions().get::<Identity>().cloned();
    let mut response = match counted.refusal() {
        Some(refusal) => refusal.into_response(),
        None => within(state.deadline, next.run(request)).await.unwrap_or_else(IntoResponse::into_response),
    };
    counted.show(&mut response);
    if let Some(identity) = identity {
        identity.keep_private(&mut response);
    }
    Ok(response)
}

fn tell(panic: &(dyn Any + Send)) -> Problem {
    let message = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    tracing::error!(panic = message.unwrap_or("without a message"), "a handler panicked");
    Problem::internal()
}
