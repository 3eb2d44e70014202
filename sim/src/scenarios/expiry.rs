//! Keys whose time comes while nobody asks for them.

use std::net::SocketAddr;
use std::time::Duration;

use ferrite_node::config::AppendFsync;

use super::node::workers;
use crate::client::RawClient;
use crate::plan::FaultPlan;
use crate::resp::Reply;
use crate::rng::SimRng;
use crate::runner::{Scenario, ScenarioFuture};
use crate::server::serve;
use crate::sim::{Host, Sim};
use crate::world::SimWorld;

/// What expires, expires within this many milliseconds.
const SHORT_MS: u64 = 2_000;
/// The active cycle is at most so late: a cycle, a tick of the wheel, and slow disks.
const LATE_MS: u64 = 2_000;
const KEYS: u64 = 150;

/// Expired keys go, on every tier, though nobody reads them, and do not come back after a power loss.
pub(super) const EXPIRY: Scenario = Scenario {
    name: "expiry",
    about: "keys expire on all tiers while nobody asks, and stay away after a power loss; DBSIZE is exact",
    // A clock that jumps would make keys expire at other times than the model says.
    faults: |plan| FaultPlan {
        net_reset: false,
        net_clog: false,
        clock_jump: false,
        clock_drift: false,
        ..plan.without_disk_errors()
    },
    marks: &["a page became read-only", "a record was read from disk"],
    run: |sim| -> ScenarioFuture { Box::pin(keys_expire(sim)) },
};

async fn keys_expire(sim: Sim) {
    let server = sim.add_host("server");
    let address = SocketAddr::new(server.ip(), 6379);
    let mut rng = sim.rng("expiry");
    let count = rng.between(1, 2) as usize;
    let start = move |world: SimWorld| async move { serve(world, workers(address, AppendFsync::Always, count)).await };
    server.spawn(start);
    let client = sim.add_host("client");
    let set = client.spawn(move |world| async move { set_keys(connect(&world, address).await, rng).await });
    let (staying, expired) = set.await.expect("the client's host stays up");
    check(&client, address, &staying, Some(expired)).await;
    server.power_loss();
    sim.sleep(Duration::from_millis(50)).await;
    server.boot();
    server.spawn(start);
    check(&client, address, &staying, None).await;
}

type Staying = Vec<String>;

pub(super) async fn connect(world: &SimWorld, address: SocketAddr) -> RawClient {
    for _ in 0..1000 {
        if let Ok(client) = RawClient::connect(world, address).await {
            return client;
        }
        madsim::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the server does not listen");
}

/// Sets keys of every fate; gives those that stay and the number of those that expire. Ends when all have expired.
async fn set_keys(mut client: RawClient, mut rng: SimRng) -> (Staying, u64) {
    let mut staying = Vec::new();
    let mut expired = 0;
    for number in 0..KEYS {
        let key = format!("key:{number}");
        let value = "v".repeat(rng.between(1, 500) as usize);
        // Long enough that what becomes of it comes before it expires, whatever the disk does.
        let (soon, late) = (rng.between(SHORT_MS / 2, SHORT_MS).to_string(), "3600000");
        ok(&mut client, &["SET", &key, &value], Reply::ok()).await;
        let one = Reply::Int(1);
        match rng.below(5) {
            0 => staying.push(key),
            1 => {
                ok(&mut client, &["PEXPIRE", &key, &soon], one.clone()).await;
                ok(&mut client, &["PEXPIRE", &key, late], one).await;
                staying.push(key);
            }
            2 => {
                ok(&mut client, &["PEXPIRE", &key, &soon], one.clone()).await;
                ok(&mut client, &["PERSIST", &key], one).await;
                staying.push(key);
            }
            3 => {
                ok(&mut client, &["PEXPIRE", &key, &soon], one.clone()).await;
                ok(&mut client, &["DEL", &key], one).await;
            }
            _ => {
                ok(&mut client, &["PEXPIRE", &key, late], one.clone()).await;
                ok(&mut client, &["PEXPIRE", &key, &soon], one).await;
                expired += 1;
            }
        }
    }
    madsim::time::sleep(Duration::from_millis(SHORT_MS + LATE_MS)).await;
    (staying, expired)
}

async fn ok(client: &mut RawClient, command: &[&str], expected: Reply) {
    let reply = client.command(command).await.expect("the server answers");
    assert_eq!(reply, expected, "{command:?}");
}

/// The server holds these keys and no other, and has counted what expired, before any of them is asked for.
async fn check(client: &Host, address: SocketAddr, staying: &Staying, expired: Option<u64>) {
    let staying = staying.clone();
    let checked = client.spawn(move |world| async move {
        let mut client = connect(&world, address).await;
        ok(&mut client, &["DBSIZE"], Reply::Int(staying.len() as i64)).await;
        if let Some(expired) = expired {
            let Reply::Bulk(info) = client.command(&["INFO", "stats"]).await.expect("the server answers") else {
                panic!("INFO answers a bulk string")
            };
            let info = String::from_utf8(info).expect("INFO is text");
            assert!(info.contains(&format!("\r\nexpired_keys:{expired}\r\n")), "{expired} expired; {info}");
        }
        for key in &staying {
            ok(&mut client, &["EXISTS", key], Reply::Int(1)).await;
        }
    });
    checked.await.expect("the client's host stays up");
}
