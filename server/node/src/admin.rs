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
use crate::metrics;
use crate::node::Node;
use crate::page;

/// The classic text format's content type (Prometheus exposition format 0.0.4).
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
/// OpenMetrics's, without its parameters.
const OPENMETRICS: &str = "application/openmetrics-text";
const OPENMETRICS_TEXT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

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
    let (kind, page) = match wants_openmetrics(&accepted.join(",")) {
        true => (OPENMETRICS_TEXT, ferrite_otlp::render_openmetrics(&series)),
        false => (PROMETHEUS_TEXT, ferrite_otlp::render(&series)),
    };
    ([(CONTENT_TYPE, kind), (VARY, "accept")], page).into_response()
}

/// Whether OpenMetrics is what the scraper would rather have (RFC 9110, section 12.5.1). Without a word the classic format is.
fn wants_openmetrics(accept: &str) -> bool {
    let quality_of = |is_it: fn(&str) -> bool| {
        let ranges = accept.split(',').filter_map(|range| {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
            let quality = parts.find_map(|part| part.strip_prefix("q="));
            let quality = quality.map_or(Some(1.0), |quality| quality.parse::<f64>().ok())?;
            is_it(&kind).then_some(quality)
        });
        ranges.fold(0.0, f64::max)
    };
    let openmetrics = quality_of(|kind| kind == OPENMETRICS);
    openmetrics > 0.0 && openmetrics >= quality_of(|kind| kind == "text/plain")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scraper_chooses_the_format() {
        for (accept, openmetrics) in [
            ("", false),
            ("*/*", false),
            ("text/plain", false),
            ("application/openmetrics-text", true),
            ("Application/OpenMetrics-Text; version=1.0.0; charset=utf-8", true),
            ("application/openmetrics-text;q=0", false),
            ("text/plain;version=0.0.4, application/openmetrics-text;q=0.5", false),
            // A Prometheus of today.
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                 application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;q=0.3,\
                 text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
                true,
            ),
        ] {
            assert_eq!(wants_openmetrics(accept), openmetrics, "{accept}");
        }
    }
}
