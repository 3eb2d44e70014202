//! The page on the admin port, in a real browser: what it shows, that keys and mouse lead through it, what it never does.

use ferrite_integration::browser::Browser;
use ferrite_integration::server::Server;
use ferrite_integration::{free_port, http};
use redis::aio::MultiplexedConnection;
use serde_json::{Value, json};

/// A key that would be a script, if anything took it for one.
const HOSTILE: &str = "<img src=x onerror=\"document.title='taken'\">";

/// Regions so small that some reads go to disk.
const TINY_REGIONS: [&str; 4] =
    ["--storage.mutable_region_size_mb", "0.25", "--storage.read_only_region_size_mb", "0.25"];

async fn some_commands(connection: &mut MultiplexedConnection) {
    let value = "v".repeat(1000);
    let mut sets = redis::pipe();
    (0..1200).for_each(|number| _ = sets.cmd("SET").arg(format!("user:{number}")).arg(&value).ignore());
    sets.exec_async(connection).await.expect("SET works");
    for number in (0..1200).step_by(40) {
        redis::cmd("GET").arg(format!("user:{number}")).exec_async(connection).await.expect("GET works");
    }
    redis::cmd("SET").arg(HOSTILE).arg("x").exec_async(connection).await.expect("SET works");
    let failed = redis::cmd("INCR").arg("user:1").exec_async(connection).await;
    failed.expect_err("it is no number");
}

/// Keeps a picture where a person can look at it.
async fn picture(browser: &mut Browser, name: &str) {
    let encoded = browser.screenshot().await;
    assert!(encoded.len() > 10_000, "{name} is empty");
    if let Ok(folder) = std::env::var("FERRITE_SCREENSHOTS") {
        let path = std::path::Path::new(&folder).join(format!("{name}.png.base64"));
        std::fs::write(path, encoded).expect("the folder is there");
    }
}

fn ready(view: &str) -> String {
    format!("document.querySelector('main')?.dataset.ready === '{view}'")
}

#[tokio::test]
async fn the_page_leads_from_the_list_to_a_trace_and_from_latency_to_its_exemplars() {
    let server = Server::start(&TINY_REGIONS).await;
    let mut connection = server.connect().await;
    some_commands(&mut connection).await;
    let page = format!("http://127.0.0.1:{}/", server.admin_port);
    let mut browser = Browser::start().await;

    // The list, by keys alone; what clients send stays text.
    browser.open(&page, "light", &ready("recent")).await;
    let rows = browser.value("document.querySelectorAll('tbody tr').length").await;
    assert_eq!(rows, json!(100));
    let text = browser.value("document.querySelector('tbody').innerText").await;
    assert!(text.as_str().is_some_and(|text| text.contains(HOSTILE)), "{text}");
    assert_eq!(browser.value("document.querySelectorAll('main img').length").await, json!(0));
    let light = browser.value("getComputedStyle(document.body.parentElement).backgroundColor").await;
    picture(&mut browser, "recent-light").await;
    for key in ["j", "j", "k", "Enter"] {
        browser.press(key).await;
    }
    browser.until("location.hash.startsWith('#/trace/')").await;
    browser.until("document.querySelectorAll('button.row').length >= 6").await;
    let at = "document.querySelector('button.row[aria-selected=true]').textContent";
    let root = browser.value(at).await;
    browser.value("document.querySelector('button.row').focus()").await;
    browser.press("ArrowDown").await;
    assert_ne!(browser.value(at).await, root);
    let link = browser.value("location.href").await.as_str().expect("an address").to_owned();

    // A permalink is enough, in the dark too.
    browser.open("about:blank", "dark", "location.href === 'about:blank'").await;
    browser.open(&link, "dark", "document.querySelectorAll('button.row').length >= 6").await;
    let dark = browser.value("getComputedStyle(document.body.parentElement).backgroundColor").await;
    assert_ne!(light, dark);
    let details = browser.value("document.querySelector('aside').innerText").await;
    assert!(details.as_str().is_some_and(|text| text.contains("ferrite.connection.id")), "{details}");
    picture(&mut browser, "trace-dark").await;

    // Filters are a part of the address.
    let filtered = format!("{page}?1#/recent?tier=disk&cmd=get");
    browser.open(&filtered, "light", &ready("recent")).await;
    let statements = browser.value("[...document.querySelectorAll('td.statement')].map((td) => td.innerText)").await;
    let statements = statements.as_array().expect("a list");
    assert!(!statements.is_empty() && statements.iter().all(|text| text.as_str().unwrap().starts_with("GET user:")));
    let failed = format!("{page}?2#/failed");
    browser.open(&failed, "light", &ready("failed")).await;
    let text = browser.value("document.querySelector('tbody').innerText").await;
    assert!(text.as_str().is_some_and(|text| text.contains("ERR value is not an integer")), "{text}");
    assert_eq!(browser.value("document.querySelectorAll('tbody tr').length").await, json!(1));

    // The tail shows what comes.
    browser.open(&format!("{page}?3#/recent?live=1"), "light", &ready("recent")).await;
    redis::cmd("SET").arg("later").arg("x").exec_async(&mut connection).await.expect("SET works");
    browser.until("document.querySelector('tbody').innerText.includes('SET later')").await;

    // An exemplar opens its trace.
    browser.open(&format!("{page}?4#/latency"), "light", &ready("latency")).await;
    browser.until("document.querySelectorAll('table').length === 2").await;
    picture(&mut browser, "latency-light").await;
    assert!(
        browser.value("document.querySelectorAll('.histo a').length").await.as_u64().is_some_and(|count| count > 3)
    );
    browser.value("document.querySelector('.histo a').focus()").await;
    browser.press("Enter").await;
    browser.until("location.hash.startsWith('#/trace/') && document.querySelectorAll('button.row').length > 3").await;

    browser.open(&format!("{page}?5#/state"), "dark", &ready("state")).await;
    let text = browser.value("document.querySelector('main').innerText").await;
    for part in ["mutable", "read_only", "disk", "traceidratio", "off: telemetry.enabled is false"] {
        assert!(text.as_str().is_some_and(|text| text.contains(part)), "{part}: {text}");
    }
    picture(&mut browser, "state-dark").await;
    assert_eq!(browser.value("document.title").await, json!("State – Ferrite"));
    assert_eq!(browser.complaints, Vec::<String>::new());
}

#[tokio::test]
async fn the_page_asks_for_the_password_and_scrapers_need_none() {
    let metrics_port = free_port();
    let own = ["--admin.metrics_port", &metrics_port.to_string()];
    let server = Server::start(&[&own[..], &["--telemetry.redaction.keys", "hash"]].concat()).await;
    let mut connection = server.connect().await;
    redis::cmd("SET").arg("secret:key").arg("x").exec_async(&mut connection).await.expect("SET works");
    let traces = http::get(server.admin_port, "/api/traces?cmd=SET").await.expect("no password yet");
    let traces: Value = serde_json::from_slice(&traces).expect("JSON");
    let statement = traces["traces"][0]["statement"].as_str().expect("a SET");
    assert!(statement.starts_with("SET #") && !traces.to_string().contains("secret"), "{traces}");

    let set = redis::cmd("CONFIG").arg("SET").arg("requirepass").arg("pass:word").exec_async(&mut connection).await;
    set.expect("CONFIG SET works");
    for path in ["/", "/page.js", "/api/state", "/api/traces", "/api/latency"] {
        assert_eq!(http::get(server.admin_port, path).await, None, "{path}");
    }
    for port in [server.admin_port, metrics_port] {
        assert_eq!(http::get(port, "/healthz").await.as_deref(), Some(&b"ok\n"[..]));
        assert!(http::get(port, "/metrics").await.is_some_and(|page| page.starts_with(b"# HELP")));
    }
    // The page is not on the listener for scrapers.
    assert_eq!(http::get(metrics_port, "/icon.svg").await, None);

    let mut browser = Browser::start().await;
    // `default:pass:word`
    let header = json!({ "headers": { "Authorization": "Basic ZGVmYXVsdDpwYXNzOndvcmQ=" } });
    browser.call("Network.setExtraHTTPHeaders", header).await;
    browser.open(&format!("http://127.0.0.1:{}/#/state", server.admin_port), "light", &ready("state")).await;
    let text = browser.value("document.querySelector('main').innerText").await;
    assert!(text.as_str().is_some_and(|text| text.contains("hashed")), "{text}");
    assert_eq!(browser.complaints, Vec::<String>::new());
}
