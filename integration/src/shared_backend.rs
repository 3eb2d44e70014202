//! One [`Backend`] for all tests of a file that run at the same time: the first to come starts it, the last to go ends it.
//! They tell their traces apart by service name and trace id.

use std::panic;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;

use tokio::runtime;
use tokio::sync::{Mutex, oneshot};

use crate::backend::Backend;

/// Where telemetry goes and where it is read back. The containers live as long as somebody has this.
pub struct SharedBackend {
    /// See [`Backend::endpoint`].
    pub endpoint: String,
    /// See [`Backend::jaeger_port`].
    pub jaeger_port: u16,
    /// The thread ends the containers when the other half goes.
    in_use: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl SharedBackend {
    /// The one that runs, or a new one. A failed start fails the test that tried; the next one tries again.
    pub async fn get() -> Arc<Self> {
        static RUNNING: Mutex<Weak<SharedBackend>> = Mutex::const_new(Weak::new());
        let mut running = RUNNING.lock().await;
        if let Some(shared) = running.upgrade() {
            return shared;
        }
        let started = Arc::new(Self::start().await);
        *running = Arc::downgrade(&started);
        started
    }

    /// On a runtime of its own: a test's ends with the test, and what runs on it too.
    async fn start() -> Self {
        let (tell, told) = oneshot::channel();
        let (in_use, unused) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let runtime = runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let backend = Backend::start().await;
                let _ = tell.send((backend.endpoint.clone(), backend.jaeger_port));
                // An error is what it waits for.
                let _ = unused.await;
            });
        });
        match told.await {
            Ok((endpoint, jaeger_port)) => Self { endpoint, jaeger_port, in_use: Some(in_use), thread: Some(thread) },
            Err(_) => panic::resume_unwind(thread.join().expect_err("it ended without an answer")),
        }
    }
}

impl Drop for SharedBackend {
    fn drop(&mut self) {
        drop(self.in_use.take());
        // Its panic has been printed.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
