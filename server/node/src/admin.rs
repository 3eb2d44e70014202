//! The admin port: `/metrics` for Prometheus, `/healthz` for probes. A World task, like everything else.

use std::sync::Arc;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use ferrite_io::{Listener, Network, World};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;

/// The text format's content type (Prometheus exposition format 0.0.4).
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Renders the whole `/metrics` page.
pub type RenderMetrics = Arc<dyn Fn() -> String + Send + Sync>;

fn router(metrics: RenderMetrics) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/metrics", get(move || async move { ([(CONTENT_TYPE, PROMETHEUS_TEXT)], metrics()).into_response() }))
}

/// Serves the admin port on this worker until the worker ends.
pub async fn serve<W: World>(world: W, bound: <W::Network as Network>::Bound, metrics: RenderMetrics) {
    let listener = match world.network().listen(&bound) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "the admin port cannot be listened on");
            return;
        }
    };
    let router = router(metrics);
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the admin port could not accept a connection");
                crate::pause_after_failed_accept(&world).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(router.clone());
        world.spawn(async move {
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                tracing::debug!(%error, "an admin connection ended early");
            }
        });
    }
}
