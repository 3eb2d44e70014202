//! A rewrite of the append-only file in steps, with commands in between.

use ferrite_hybridlog::Held;
use ferrite_hybridlog::aof::{BaseWriter, Rewriter};
use ferrite_io_real::RealWorld;
use ferrite_keyspace::{Rest, Spaces, images};
use ferrite_telemetry::TraceBuffer;

use crate::harness::Node;

/// A bucket, or a piece of a large hash, at a time.
pub struct Walk {
    base: BaseWriter<RealWorld>,
    spaces: Spaces,
    covers: u64,
    cursor: u64,
    rests: Vec<Rest>,
    held: Held,
    /// Bytes of effects that the last step has made.
    pub bytes: usize,
}

impl Walk {
    pub async fn begin(rewriter: &Rewriter<RealWorld>, node: &mut Node) -> Self {
        let base = rewriter.begin().await.expect("a base");
        let mut pinned = node.worker.pin();
        let _alone = pinned.exclusive();
        Self {
            base,
            spaces: node.databases.spaces(),
            covers: rewriter.aof().position(),
            cursor: 0,
            rests: Vec::new(),
            held: Held::default(),
            bytes: 0,
        }
    }

    /// True at the end.
    pub async fn step(&mut self, node: &mut Node) -> bool {
        let mut effects = Vec::new();
        if let Some(rest) = self.rests.pop() {
            let put = rest.put(&node.worker.pin(), &self.held, &mut TraceBuffer::new(|| 0), &mut effects);
            match put {
                Ok(rest) => self.rests.extend(rest),
                Err((address, rest)) => {
                    self.held.insert(address, node.device.read_record(address).await.expect("a record").record);
                    self.rests.push(rest);
                }
            }
        } else {
            self.held.clear();
            self.cursor = loop {
                let scanned =
                    images(&node.worker.pin(), self.cursor, 1, &self.held, &self.spaces, &mut effects, &mut self.rests);
                let cold = match scanned {
                    Ok(next) => break next,
                    Err(cold) => cold,
                };
                for address in cold {
                    self.held.insert(address, node.device.read_record(address).await.expect("a record").record);
                }
            };
        }
        self.bytes = effects.len();
        self.base.append(&effects).await.expect("space");
        self.cursor == 0 && self.rests.is_empty()
    }

    pub async fn finish(self) {
        self.base.finish(self.covers).await.expect("in place");
    }
}
