//! Worker threads and their sockets on the real kernel.

use std::io::ErrorKind;
use std::time::Duration;

use ferrite_io::{Clock, Listener, Network, Stream, World};
use ferrite_io_real::{DiskChoice, RealWorld, WorkerError, run_worker, spawn_worker_thread};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const CHOICES: [DiskChoice; 2] = [DiskChoice::Auto, DiskChoice::IoThreads];

#[test]
fn two_workers_share_one_listening_socket() {
    for choice in CHOICES {
        let bound =
            run_worker(choice, async |world: RealWorld| world.network().bind("127.0.0.1:0".parse().unwrap()).unwrap())
                .unwrap();
        let address = bound.local_addr().unwrap();
        let workers: Vec<_> = (0..2)
            .map(|n| {
                let bound = bound.clone();
                spawn_worker_thread(&format!("worker-{n}"), Some(n), choice, async move |world: RealWorld| {
                    assert_eq!(world.network().bound_address(&bound).unwrap(), address);
                    let listener = world.network().listen(&bound).unwrap();
                    // Each serves one connection, so both must have been able to accept.
                    let (mut stream, peer) = listener.accept().await.unwrap();
                    assert_eq!(stream.peer_addr().unwrap(), peer);
                    let mut ping = [0; 4];
                    stream.read_exact(&mut ping).await.unwrap();
                    stream.write_all(&ping).await.unwrap();
                })
                .unwrap()
            })
            .collect();
        run_worker(choice, async |world: RealWorld| {
            let busy = world.network().bind(address).map(drop);
            assert_eq!(busy.unwrap_err().kind(), ErrorKind::AddrInUse);
            for _ in 0..2 {
                let mut stream = world.network().connect(address).await.unwrap();
                stream.write_all(b"ping").await.unwrap();
                let mut reply = [0; 4];
                stream.read_exact(&mut reply).await.unwrap();
                assert_eq!(&reply, b"ping");
            }
        })
        .unwrap();
        for worker in workers {
            worker.join().unwrap();
        }
    }
}

#[test]
fn the_worker_s_result_reaches_who_joins_and_who_awaits() {
    for choice in CHOICES {
        let joined = spawn_worker_thread("joined", None, choice, async |world: RealWorld| {
            world.clock().sleep(Duration::from_millis(1)).await;
            7
        });
        assert_eq!(joined.unwrap().join().unwrap(), 7);
        let awaited = spawn_worker_thread("awaited", None, choice, async |_: RealWorld| 8).unwrap();
        assert_eq!(run_worker(choice, |_| awaited).unwrap().unwrap(), 8);
    }
}

#[test]
fn a_panic_of_the_worker_or_of_a_task_reaches_the_joiner() {
    for choice in CHOICES {
        let worker = spawn_worker_thread("panics", None, choice, async |world: RealWorld| {
            if world.clock().unix_ns() > 0 {
                panic!("on purpose: {}", 1);
            }
        });
        let error = worker.unwrap().join().unwrap_err();
        assert!(matches!(&error, WorkerError::Panicked(message) if message == "on purpose: 1"), "{error}");

        let task = spawn_worker_thread("task panics", None, choice, async |world: RealWorld| {
            world.spawn(async {
                tokio::task::yield_now().await;
                panic!("in a task");
            });
            std::future::pending::<()>().await;
        });
        let error = task.unwrap().join().unwrap_err();
        assert!(matches!(&error, WorkerError::Panicked(message) if message == "in a task"), "{error}");
    }
}
