//! The cable: carries one direction of a connection, in pieces and after delays drawn from the seed.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use super::conn::Conn;
use crate::log::{Event, fingerprint};
use crate::rng::SimRng;
use crate::sim::lock;
use crate::world::Latency;

#[derive(PartialEq, Eq)]
enum Work {
    Data,
    Fin,
    Over,
}

/// Runs until the writer has finished and everything has arrived, or the connection is reset.
pub(super) async fn run(conn: Arc<Conn>, from: usize, mut rng: SimRng) {
    loop {
        match next_work(&conn, from).await {
            Work::Over => return,
            Work::Fin => {
                delay(&conn, &mut rng).await;
                deliver_fin(&conn, from);
                return;
            }
            Work::Data => {
                delay(&conn, &mut rng).await;
                if conn.core.faults().net_reset && rng.one_in(400) {
                    conn.reset("fault");
                    return;
                }
                deliver(&conn, from, &mut rng);
            }
        }
    }
}

async fn next_work(conn: &Conn, from: usize) -> Work {
    poll_fn(|cx| {
        let mut state = lock(&conn.state);
        if state.reset {
            return Poll::Ready(Work::Over);
        }
        let pipe = &mut state.pipes[from];
        let room = pipe.received.len() < conn.capacity[from] || pipe.reader_gone;
        if !pipe.sending.is_empty() && room {
            return Poll::Ready(Work::Data);
        }
        if pipe.sending.is_empty() && pipe.fin {
            return Poll::Ready(Work::Fin);
        }
        pipe.pump = Some(cx.waker().clone());
        Poll::Pending
    })
    .await
}

async fn delay(conn: &Conn, rng: &mut SimRng) {
    let faults = conn.core.faults();
    if faults.net_clog && rng.one_in(200) {
        madsim::time::sleep(Duration::from_millis(rng.between(50, 3000))).await;
    } else if faults.net_delay {
        Latency::draw(rng).wait().await;
    } else {
        Latency::Turns(rng.below(4)).wait().await;
    }
}

fn deliver(conn: &Conn, from: usize, rng: &mut SimRng) {
    let mut state = lock(&conn.state);
    if state.reset {
        return;
    }
    let severed = state.severed[1 - from];
    let pipe = &mut state.pipes[from];
    if pipe.reader_gone && !severed {
        drop(state);
        conn.reset("data for a closed socket");
        return;
    }
    let most = pipe.sending.len().min(conn.capacity[from].saturating_sub(pipe.received.len()));
    if most == 0 {
        return;
    }
    let len = if conn.core.faults().net_split {
        match rng.below(4) {
            0 => 1,
            1 => most,
            _ => rng.between(1, most as u64) as usize,
        }
    } else {
        most
    };
    let bytes: Vec<u8> = pipe.sending.drain(..len).collect();
    let to = conn.addresses[1 - from];
    conn.core.record(Event::Deliver { conn: conn.id, to, len, hash: fingerprint(&bytes) });
    pipe.received.extend(bytes);
    pipe.wake_reader();
    pipe.wake_writer();
}

fn deliver_fin(conn: &Conn, from: usize) {
    let mut state = lock(&conn.state);
    // A dead host's tasks are dropped after its power went; their good-bye must not leave it.
    if state.reset || state.severed[from] {
        return;
    }
    conn.core.record(Event::Fin { conn: conn.id, to: conn.addresses[1 - from] });
    state.pipes[from].fin_delivered = true;
    state.pipes[from].wake_reader();
}
