//! What is traced of a server's own life: its starts and its end.

use super::*;

/// A part of a server's life that has a trace of its own.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    FirstStart,
    Shutdown,
    /// On the data of the life before, whose last write is torn.
    Restart,
    /// On a checkpoint and the write after it.
    RestartFromCheckpoint,
    /// The newest checkpoint is damaged: on the one before it, and all writes since.
    RestartFromOlderCheckpoint,
}

/// Lives up to this part and gives to the report what `tracing` made of it.
async fn live(sim: Sim, wanted: Part) {
    let queue = Arc::new(ExportQueue::new(100, 100));
    let spans = ColdSpans {
        queue: queue.clone(),
        sampling: Sampling::by_head(Probability::AlwaysOn, true),
        seed: sim.seed(),
        monotonic_ns: <<SimWorld as World>::Clock as Clock>::monotonic_source(),
    };
    let settings = LogSettings { filter: "off".to_owned(), format: LogFormat::Text, unix_ns: || 0 };
    // A simulation has one thread, and is alone on it.
    let subscriber = subscriber(&settings, std::io::sink, None, Some(spans)).expect("the filter is valid");
    let _while_this_runs = tracing::subscriber::set_default(subscriber);
    let happened = |part: Part| {
        let spans = queue.take().into_iter().flat_map(|queued| queued.into_spans().0);
        let spans: Vec<Span> = spans.map(|span| Span::from(&span)).collect();
        if part == wanted {
            sim.span(canonical(&spans));
        }
        part == wanted
    };

    let host = sim.add_host("server");
    let address = SocketAddr::new(host.ip(), 6379);
    let boot = |host: &Host| {
        let started = host.spawn(move |world| async move {
            let starting = start(&world, config(address, AppendFsync::Always));
            starting.ready().await;
            starting.node
        });
        async { started.await.expect("no power loss is planned") }
    };
    let node = boot(&host).await;
    if happened(Part::FirstStart) {
        return;
    }
    let connected = sim.add_host("client").spawn(move |world| async move {
        let mut client = RawClient::connect(&world, address).await.expect("the server listens");
        if wanted == Part::RestartFromCheckpoint {
            assert_eq!(client.command(&["SET", "before", "it"]).await.expect("answers"), Reply::ok());
            assert_eq!(client.command(&["SAVE"]).await.expect("answers"), Reply::ok());
        }
        if wanted == Part::RestartFromOlderCheckpoint {
            for value in ["before", "between"] {
                assert_eq!(client.command(&["SET", "it", value]).await.expect("answers"), Reply::ok());
                assert_eq!(client.command(&["SAVE"]).await.expect("answers"), Reply::ok());
            }
        }
        assert_eq!(client.command(&["SET", "key", "value"]).await.expect("answers"), Reply::ok());
        client
    });
    let _client = connected.await.expect("no power loss is planned");
    node.shutdown.raise();
    sim.sleep(Duration::from_secs(1)).await;
    if happened(Part::Shutdown) {
        return;
    }
    host.kill();
    if wanted == Part::RestartFromOlderCheckpoint {
        let manifest = String::from_utf8(host.peek("/data/MANIFEST").expect("it is written")).expect("a text");
        let mut names = manifest.lines().filter_map(|line| line.strip_prefix("checkpoint ")?.split(' ').next());
        let newest = names.next_back().expect("there are two");
        host.corrupt(&format!("/data/{newest}"), |bytes| bytes[100] ^= 1);
    }
    if wanted == Part::Restart {
        host.corrupt("/data/appendonly-1.aof", |bytes| {
            let end = bytes.iter().rposition(|&byte| byte != 0).expect("it has a header") + 1;
            bytes.resize(bytes.len().max(end + 5), 0);
            bytes[end..end + 5].fill(0xff);
        });
    }
    host.boot();
    boot(&host).await;
    assert!(happened(wanted));
}

macro_rules! lives {
    ($($name:ident($part:expr))*) => {
        pub const LIVES: &[Scenario] = &[$(Scenario {
            name: stringify!($name),
            about: "a part of a server's life",
            faults: |_| FaultPlan::none(),
            marks: &[],
            run: |sim| -> ScenarioFuture { Box::pin(live(sim, $part)) },
        }),*];
    };
}

lives! {
    first_start(Part::FirstStart)
    shutdown(Part::Shutdown)
    restart(Part::Restart)
    restart_from_checkpoint(Part::RestartFromCheckpoint)
    restart_from_older_checkpoint(Part::RestartFromOlderCheckpoint)
}
