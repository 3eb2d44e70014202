//! What commands leave to the node because it takes time: other workers' recorders, sleep, files, the end.

use std::sync::atomic::Ordering::Relaxed;

use ferrite_commands::server::{config, persistence, shutdown};
use ferrite_commands::{Deferred, Shutdown, otel};
use ferrite_io::{AlignedBuf, Clock, Disk, File, OpenMode, World};
use ferrite_resp::Reply;
use ferrite_telemetry::schema::ExceptionType;
use ferrite_telemetry::{Exception, StackTrace};

use crate::failure::Failure;
use crate::session::Connection;
use crate::traces;

/// Does what was asked and writes the reply.
pub(crate) async fn perform<W: World>(connection: &mut Connection<W>, deferred: Deferred) {
    let node = connection.worker.node.clone();
    match deferred {
        Deferred::Traces(query) => {
            let mut reply = Reply::new(&mut connection.output, connection.session.protocol);
            match traces::answer(&node, query) {
                Some(lines) => otel::write_traces(&mut reply, &lines),
                None => otel::write_keys_not_recorded(&mut reply),
            }
        }
        Deferred::Sleep(duration) => {
            connection.worker.world.clock().sleep(duration).await;
            Reply::new(&mut connection.output, connection.session.protocol).ok();
        }
        Deferred::ConfigRewrite => {
            let result = rewrite(&connection.worker.world, &node).await.map_err(|failure| {
                if let Some(exception) = failure.exception {
                    connection.record_exception(exception);
                }
                failure.text
            });
            let mut reply = Reply::new(&mut connection.output, connection.session.protocol);
            config::write_rewritten(&mut reply, result);
        }
        Deferred::Save => {
            let saved = node.saves.save().await;
            persistence::write_saved(&mut Reply::new(&mut connection.output, connection.session.protocol), saved);
        }
        Deferred::Shutdown(Shutdown::Begin { save, .. }) => {
            connection.session.close_after_reply = true;
            if let Some(save) = save {
                // The first one counts.
                let _ = node.save_at_end.set(save);
            }
            node.shutdown.raise();
        }
        Deferred::Shutdown(Shutdown::Abort) => {
            shutdown::write_abort(&mut Reply::new(&mut connection.output, connection.session.protocol));
        }
    }
}

/// CONFIG REWRITE: the file's new text is written beside it, synced, and takes its place at once.
///
/// # Errors
/// That there is no file, or that it holds what cannot be rewritten, is for its owner to mend; what the disk refuses is an
/// exception.
async fn rewrite<W: World>(world: &W, node: &crate::node::Node) -> Result<(), Failure> {
    let expected = |text: String| Failure { text, exception: None };
    let Some((path, render)) = &node.config_file else {
        return Err(expected("The server is running without a config file".to_owned()));
    };
    let mut config = node.live.applied_to(node.config.clone());
    config.server.slowlog_log_slower_than = node.slowlog.slower_than_us();
    config.server.slowlog_max_len = node.slowlog.max_len();
    let encodings = &node.databases.encodings;
    config.server.hash_max_listpack_entries = encodings.hash_max_listpack_entries.load(Relaxed);
    config.server.hash_max_listpack_value = encodings.hash_max_listpack_value.load(Relaxed);
    let limits = &node.databases.limits;
    config.server.maxmemory = limits.maxmemory.load(Relaxed);
    config.server.maxmemory_policy = limits.policy();
    config.server.maxmemory_samples = limits.samples.load(Relaxed);
    config.server.lfu_log_factor = limits.lfu_log_factor.load(Relaxed);
    config.server.lfu_decay_time = limits.lfu_decay_time.load(Relaxed);
    config.aof.appendfsync = match node.fsync_policy() {
        ferrite_hybridlog::aof::FsyncPolicy::Always => crate::config::AppendFsync::Always,
        ferrite_hybridlog::aof::FsyncPolicy::EverySec => crate::config::AppendFsync::Everysec,
        ferrite_hybridlog::aof::FsyncPolicy::No => crate::config::AppendFsync::No,
    };
    let at = |error: std::io::Error| {
        let text = format!("Rewriting config file: {}: {error}", path.display());
        let stack = Some(StackTrace::capture());
        Failure { exception: Some(Exception { kind: ExceptionType::ConfigFile, message: text.clone(), stack }), text }
    };
    let disk = world.disk();
    let old = disk.open(path, OpenMode::ReadOnly).await.map_err(at)?;
    let len = old.len().await.map_err(at)? as usize;
    let done = old.read_at(AlignedBuf::zeroed(len), 0).await;
    let read = done.result.map_err(at)?;
    let text = String::from_utf8_lossy(&done.buf[..read]).into_owned();
    let new = render(&text, &config).map_err(expected)?;
    let temporary = path.with_extension("toml.new");
    let file = disk.open(&temporary, OpenMode::Sequential).await.map_err(at)?;
    file.set_len(0).await.map_err(at)?;
    file.write_at(AlignedBuf::copy_of(new.as_bytes()), 0).await.result.map_err(at)?;
    file.sync().await.map_err(at)?;
    disk.rename(&temporary, path).await.map_err(at)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(std::path::Path::new("."));
    disk.sync_dir(directory).await.map_err(at)
}
