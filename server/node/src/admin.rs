//! The admin port: `/metrics` for Prometheus, `/healthz` for probes, the page. World tasks, on a thread that need not be a worker's.

use std::rc::Rc;
use std::sync::Arc;

use axum::Router;
use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, CONTENT_TYPE, VARY};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use ferrite_io::{Listener, Network, World};
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;

use crate::admin_connections::Connections;
use crate::exposition::Exposition;
use crate::metrics;
use crate::node::Node;
use crate::page;

/// What every admin listener has, and the page if there is a clock for it.
pub(crate) fn router(node: Arc<Node>, page: Option<fn() -> u64>) -> Router {
    let of_page = page.map(|monotonic_ns| page::router(node.clone(), monotonic_ns));
    let metrics = move |headers: HeaderMap| async move { metrics_page(&node, &headers) };
    let router = Router::new().route("/healthz", get(|| async { "ok\n" })).route("/metrics", get(metrics));
    match of_page {
        Some(page) => router.merge(page),
        None => router,
    }
}

fn metrics_page(node: &Node, headers: &HeaderMap) -> Response {
    let series = metrics::collect(node);
    let accepted: Vec<&str> = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let format = Exposition::chosen(&accepted.join(","), node.config.admin.native_histograms);
    let page = match format {
        Exposition::Classic => ferrite_otlp::render(&series).into_bytes(),
        Exposition::OpenMetrics => ferrite_otlp::render_openmetrics(&series).into_bytes(),
        Exposition::Protobuf => ferrite_otlp::render_protobuf(&series),
    };
    ([(CONTENT_TYPE, format.content_type()), (VARY, "accept")], page).into_response()
}

/// Serves the admin port until the World's runtime ends.
pub async fn serve<W: World>(world: W, bound: <W::Network as Network>::Bound, router: Router) {
    let listener = match world.network().listen(&bound) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "the admin port cannot be listened on");
            return;
        }
    };
    let connections = Rc::new(Connections::default());
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the admin port could not accept a connection");
                crate::pause_after_failed_accept(&world).await;
                continue;
            }
        };
        let Some(connection) = connections.admit() else {
            tracing::debug!("an admin connection found no room");
            continue;
        };
        let routes = TowerToHyperService::new(router.clone());
        let (connections, clock) = (Rc::clone(&connections), world.clock().clone());
        world.spawn(async move {
            let service = service_fn(|request| connection.answer(routes.call(request)));
            let served = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            match connections.bounded(&clock, &connection, served).await {
                Some(Ok(())) => {}
                Some(Err(error)) => tracing::debug!(%error, "an admin connection ended early"),
                None => tracing::debug!("an admin connection asked for nothing and was closed"),
            }
        });
    }
}
