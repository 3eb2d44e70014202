//! What commands leave to the node because it takes time: other workers' recorders, sleep, files, the end.

use ferrite_commands::server::{config, shutdown};
use ferrite_commands::{Deferred, Shutdown, TracesQuery, otel};
use ferrite_io::{AlignedBuf, Clock, Disk, File, OpenMode, World};
use ferrite_resp::Reply;
use ferrite_telemetry::render;

use crate::session::Connection;

/// Does what was asked and writes the reply.
pub(crate) async fn perform<W: World>(connection: &mut Connection<W>, deferred: Deferred) {
    let node = connection.worker.node.clone();
    match deferred {
        Deferred::Traces(query) => {
            let lines = traces(&node, query);
            otel::write_traces(&mut Reply::new(&mut connection.output, connection.session.protocol), &lines);
        }
        Deferred::Sleep(duration) => {
            connection.worker.world.clock().sleep(duration).await;
            Reply::new(&mut connection.output, connection.session.protocol).ok();
        }
        Deferred::ConfigRewrite => {
            let result = rewrite(&connection.worker.world, &node).await;
            let mut reply = Reply::new(&mut connection.output, connection.session.protocol);
            config::write_rewritten(&mut reply, result);
        }
        Deferred::Shutdown(Shutdown::Begin { .. }) => {
            connection.session.close_after_reply = true;
            node.shutdown.raise();
        }
        Deferred::Shutdown(Shutdown::Abort) => {
            shutdown::write_abort(&mut Reply::new(&mut connection.output, connection.session.protocol));
        }
    }
}

/// The text trees of the traces asked for, from every worker's flight recorder, the newest first.
fn traces(node: &crate::node::Node, query: TracesQuery) -> Vec<String> {
    let mut found = match query {
        TracesQuery::Last(count) => node.traces(|ring| ring.last(count)),
        TracesQuery::Get(id) => node.traces(|ring| ring.find(id)),
    };
    if let TracesQuery::Last(count) = query {
        found.truncate(count);
    }
    found.iter().flat_map(render).collect()
}

/// CONFIG REWRITE: the file's new text is written beside it, synced, and takes its place at once.
async fn rewrite<W: World>(world: &W, node: &crate::node::Node) -> Result<(), String> {
    let Some((path, render)) = &node.config_file else {
        return Err("The server is running without a config file".to_owned());
    };
    let mut config = node.live.applied_to(node.config.clone());
    config.server.slowlog_log_slower_than = node.slowlog.slower_than_us();
    config.server.slowlog_max_len = node.slowlog.max_len();
    config.aof.appendfsync = match node.fsync_policy() {
        ferrite_hybridlog::aof::FsyncPolicy::Always => crate::config::AppendFsync::Always,
        ferrite_hybridlog::aof::FsyncPolicy::EverySec => crate::config::AppendFsync::Everysec,
        ferrite_hybridlog::aof::FsyncPolicy::No => crate::config::AppendFsync::No,
    };
    let at = |error: std::io::Error| format!("Rewriting config file: {}: {error}", path.display());
    let disk = world.disk();
    let old = disk.open(path, OpenMode::ReadOnly).await.map_err(at)?;
    let len = old.len().await.map_err(at)? as usize;
    let done = old.read_at(AlignedBuf::zeroed(len), 0).await;
    let read = done.result.map_err(at)?;
    let text = String::from_utf8_lossy(&done.buf[..read]).into_owned();
    let new = render(&text, &config)?;
    let temporary = path.with_extension("toml.new");
    let file = disk.open(&temporary, OpenMode::Sequential).await.map_err(at)?;
    file.set_len(0).await.map_err(at)?;
    file.write_at(AlignedBuf::copy_of(new.as_bytes()), 0).await.result.map_err(at)?;
    file.sync().await.map_err(at)?;
    disk.rename(&temporary, path).await.map_err(at)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(std::path::Path::new("."));
    disk.sync_dir(directory).await.map_err(at)
}
