//! How many connections the admin port has, and how long one may keep silent: whoever can reach it must not be able to hold it, nor
//! the process's memory, with connections that ask for nothing.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use ferrite_io::Clock;
use futures_util::future::{Either, select};
use tokio::sync::Notify;

/// Connections at a time. A browser has half a dozen, a scraper one.
const CONNECTIONS_MAX: usize = 128;
/// In which a connection's first request must have come.
const FIRST_REQUEST_MAX: Duration = Duration::from_secs(10);
/// Without a request, for one that has had any: longer than scrapers wait between two.
const QUIET_MAX: Duration = Duration::from_secs(75);

/// The connections of one listener, the oldest first.
#[derive(Default)]
pub(crate) struct Connections(RefCell<VecDeque<Rc<Connection>>>);

/// One of them.
#[derive(Default)]
pub(crate) struct Connection {
    requests: Cell<u64>,
    /// Requests that were not answered yet.
    open: Cell<u64>,
    /// It has to go.
    closed: Notify,
}

impl Connections {
    /// A place for one more. Where there is none, the oldest that asks for nothing goes; `None`: all of them do.
    pub(crate) fn admit(&self) -> Option<Rc<Connection>> {
        let mut all = self.0.borrow_mut();
        if all.len() >= CONNECTIONS_MAX {
            let silent = all.iter().position(|other| other.open.get() == 0)?;
            if let Some(other) = all.remove(silent) {
                other.closed.notify_one();
            }
        }
        let connection = Rc::<Connection>::default();
        all.push_back(Rc::clone(&connection));
        Some(connection)
    }

    /// Serves a connection until it ends, keeps silent for too long, or has to make room.
    pub(crate) async fn bounded<T>(
        &self,
        clock: &impl Clock,
        connection: &Rc<Connection>,
        served: impl Future<Output = T>,
    ) -> Option<T> {
        let ended = match select(pin!(served), pin!(connection.overdue(clock))).await {
            Either::Left((outcome, _)) => Some(outcome),
            Either::Right(_) => None,
        };
        self.0.borrow_mut().retain(|other| !Rc::ptr_eq(other, connection));
        ended
    }
}

impl Connection {
    /// Counts the request as open until it is answered.
    pub(crate) async fn answer<T>(&self, answered: impl Future<Output = T>) -> T {
        self.requests.set(self.requests.get() + 1);
        self.open.set(self.open.get() + 1);
        let answer = answered.await;
        self.open.set(self.open.get() - 1);
        answer
    }

    async fn overdue(&self, clock: &impl Clock) {
        loop {
            let before = self.requests.get();
            let allowed = if before == 0 { FIRST_REQUEST_MAX } else { QUIET_MAX };
            match select(pin!(self.closed.notified()), pin!(clock.sleep(allowed))).await {
                Either::Left(_) => return,
                Either::Right(_) if self.requests.get() == before && self.open.get() == 0 => return,
                Either::Right(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_silent_connection_makes_room_and_busy_ones_stay() {
        let connections = Connections::default();
        let all: Vec<_> = (0..CONNECTIONS_MAX).map(|_| connections.admit().expect("there is room")).collect();
        all[0].open.set(1);
        let next = connections.admit().expect("the second makes room");
        let left = connections.0.borrow();
        assert!(Rc::ptr_eq(&left[0], &all[0]) && Rc::ptr_eq(&left[1], &all[2]) && left.len() == CONNECTIONS_MAX);
        assert!(left.iter().any(|other| Rc::ptr_eq(other, &next)));
        left.iter().for_each(|connection| connection.open.set(1));
        drop(left);
        assert!(connections.admit().is_none());
    }
}
