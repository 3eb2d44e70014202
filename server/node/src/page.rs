//! The page on the admin port: its files, and the data that they show, under `/api`.
//!
//! Nothing here changes anything, and every answer is what OTEL.TRACES, INFO and the metrics tell too: shaped and redacted as
//! they are. With `requirepass` the page asks for that password. Without one it answers only under an address or `localhost`:
//! a site whose name was made to point here is kept from reading it through a visitor's browser.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, RawQuery, Request, State};
use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderName, REFERRER_POLICY,
    WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ferrite_commands::{TracesWanted, server::slowlog};
use ferrite_otlp::traces_data;
use ferrite_telemetry::TraceId;
use serde_json::{Value as Json, json};

use crate::figures;
use crate::listing::{Listing, listed};
use crate::node::Node;
use crate::traces::gather;

/// Everything comes from here, and nothing in a file is a script or a style of its own.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Path, content type, content.
const FILES: &[(&str, &str, &str)] = &[
    ("/", "text/html; charset=utf-8", include_str!("page/index.html")),
    ("/page.css", "text/css; charset=utf-8", include_str!("page/page.css")),
    ("/icon.svg", "image/svg+xml", include_str!("page/icon.svg")),
    ("/page.js", JAVASCRIPT, include_str!("page/page.js")),
    ("/dom.js", JAVASCRIPT, include_str!("page/dom.js")),
    ("/list.js", JAVASCRIPT, include_str!("page/list.js")),
    ("/trace.js", JAVASCRIPT, include_str!("page/trace.js")),
    ("/figures.js", JAVASCRIPT, include_str!("page/figures.js")),
];
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// The page and its data, behind the password.
pub(crate) fn router(node: Arc<Node>, monotonic_ns: fn() -> u64) -> Router {
    let mut router = Router::new()
        .route("/api/traces", get(traces))
        .route("/api/traces/{id}", get(trace))
        .route("/api/latency", get(async |State(node): State<Arc<Node>>| answer(figures::latency(&node))))
        .route(
            "/api/state",
            get(async move |State(node): State<Arc<Node>>| answer(figures::state(&node, monotonic_ns()))),
        );
    for &(path, kind, content) in FILES {
        let file = move || async move { ([(CONTENT_TYPE, kind), (CACHE_CONTROL, "no-cache")], content) };
        router = router.route(path, get(file));
    }
    router.layer(middleware::from_fn_with_state(node.clone(), guard)).with_state(node)
}

fn answer(data: Json) -> Response {
    ([(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")], data.to_string()).into_response()
}

fn refusal(status: StatusCode, text: &str) -> Response {
    (status, answer(json!({ "error": text }))).into_response()
}

/// The newest traces of a view, as far as they match.
async fn traces(State(node): State<Arc<Node>>, RawQuery(query): RawQuery) -> Response {
    let slower_than_us = node.slowlog.slower_than_us();
    let slow_us = if slower_than_us > 0 { slower_than_us } else { slowlog::SLOWER_THAN_US_DEFAULT };
    let wanted = match Listing::read(&query.unwrap_or_default()).wanted(slow_us as u64 * 1000) {
        Ok(wanted) => wanted,
        Err(mistake) => return refusal(StatusCode::BAD_REQUEST, mistake),
    };
    match gather(&node, wanted) {
        None => refusal(StatusCode::BAD_REQUEST, "Keys are not recorded: telemetry.redaction.keys is drop."),
        Some(found) => {
            let traces: Vec<Json> = found.traces.iter().map(|trace| listed(trace, &node.shape)).collect();
            answer(json!({ "traces": traces, "remark": found.remark }))
        }
    }
}

/// Each tree with this id, as OTLP/JSON.
async fn trace(State(node): State<Arc<Node>>, Path(id): Path<String>) -> Response {
    let Some(id) = TraceId::parse(id.as_bytes()) else {
        return refusal(StatusCode::BAD_REQUEST, "A trace id has 32 lower-case hexadecimal digits, not all zero.");
    };
    let resource = node.config.telemetry.resource();
    let found = gather(&node, TracesWanted::Get(id)).map(|found| found.traces).unwrap_or_default();
    let traces: Vec<Json> = found.iter().map(|trace| traces_data(trace, &node.shape, &resource)).collect();
    answer(json!({ "traces": traces }))
}

/// Lets in who knows the password, and tells browsers what the page may do.
async fn guard(State(node): State<Arc<Node>>, request: Request, next: Next) -> Response {
    let password = node.live.requirepass.lock().clone();
    let mut response = match password {
        Some(password) if !knows(&password, request.headers()) => {
            let mut asked = refusal(StatusCode::UNAUTHORIZED, "The password of requirepass is needed.");
            let basic = HeaderValue::from_static("Basic realm=\"Ferrite\", charset=\"UTF-8\"");
            asked.headers_mut().insert(WWW_AUTHENTICATE, basic);
            asked
        }
        None if !is_address(request.headers()) => refusal(
            StatusCode::FORBIDDEN,
            "Without a password (server.requirepass) this page is served under an address or localhost alone.",
        ),
        _ => next.run(request).await,
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Basic authentication (RFC 7617) by the password; any name goes with it, as a password has no user in Redis.
fn knows(password: &[u8], headers: &HeaderMap) -> bool {
    let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let Some((scheme, credentials)) = given.and_then(|given| given.split_once(' ')) else { return false };
    let Ok(decoded) = BASE64.decode(credentials.trim()) else { return false };
    let colon = decoded.iter().position(|byte| *byte == b':');
    scheme.eq_ignore_ascii_case("basic") && colon.is_some_and(|at| same(&decoded[at + 1..], password))
}

/// In a time that does not tell how far they are the same.
fn same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

/// Whether the browser was sent here by an address, and not by a name that anyone could have made.
fn is_address(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(HOST).and_then(|host| host.to_str().ok()) else { return true };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What all files may take together.
    const BUNDLE_BYTES_MAX: usize = 200_000;

    #[test]
    fn the_bundle_is_small_and_asks_nobody_else() {
        let bytes: usize = FILES.iter().map(|(_, _, content)| content.len()).sum();
        assert!(bytes < BUNDLE_BYTES_MAX, "{bytes} bytes");
        for (path, _, content) in FILES {
            let addresses = content.split("http").filter(|rest| rest.starts_with("://") || rest.starts_with("s://"));
            let others = addresses.filter(|rest| !rest.starts_with("://www.w3.org/2000/svg"));
            assert_eq!(others.count(), 0, "{path} leads elsewhere");
            assert!(!content.contains("innerHTML") && !content.contains(" style="), "{path} goes around the policy");
        }
    }

    #[test]
    fn only_the_password_counts() {
        let header = |value: &str| {
            let value = HeaderValue::from_str(value).expect("a header");
            HeaderMap::from_iter([(AUTHORIZATION, value)])
        };
        let basic = |text: &str| header(&format!("Basic {}", BASE64.encode(text)));
        assert!(knows(b"se:cret", &basic("default:se:cret")));
        assert!(knows(b"se:cret", &basic(":se:cret")));
        for wrong in [basic("default:secret"), basic("se:cret"), basic("a:se:crets"), header("Bearer x"), header("x")] {
            assert!(!knows(b"se:cret", &wrong), "{wrong:?}");
        }
        assert!(!knows(b"x", &HeaderMap::new()));
    }

    #[test]
    fn names_that_anyone_could_have_made_are_told_from_addresses() {
        for (host, is) in [
            ("127.0.0.1:9090", true),
            ("localhost:9090", true),
            ("[::1]:9090", true),
            ("10.0.0.7", true),
            ("evil.example:9090", false),
            ("127.0.0.1.evil.example", false),
        ] {
            let headers = HeaderMap::from_iter([(HOST, HeaderValue::from_static(host))]);
            assert_eq!(is_address(&headers), is, "{host}");
        }
    }
}
