//! io_uring may be refused (seccomp).

// A thread of its own: what it is refused must not be refused to the others.
#![allow(clippy::disallowed_methods)]

use ferrite_io::{AlignedBuf, Disk, File, OpenMode, World};
use ferrite_io_real::{DiskChoice, RealWorld, WorkerError, probe_io_uring, run_worker};

/// Runs `test` on a thread that may not set up an io_uring, as under Docker's default seccomp profile.
fn without_io_uring(test: impl FnOnce() + Send + 'static) {
    std::thread::spawn(|| {
        let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
        let call_is = |call: i64| libc::sock_filter {
            jf: 1,
            ..statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, call as u32)
        };
        let filter = [
            statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0), // the call's number
            call_is(libc::SYS_io_uring_setup),
            statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
            statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
        ];
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
        // SAFETY: the program points to `filter`, which outlives the call; the filter holds for this thread.
        unsafe {
            assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
            assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program), 0);
        }
        test();
    })
    .join()
    .unwrap();
}

#[test]
fn where_io_uring_is_forbidden_threads_serve_and_say_why() {
    without_io_uring(|| {
        let why = probe_io_uring().unwrap_err().to_string();
        assert!(why.contains("io_uring_setup") && why.contains("seccomp"), "{why}");
        run_worker(DiskChoice::Auto, async |world: RealWorld| {
            assert_eq!(world.disk().backend(), "io-threads");
            assert_eq!(world.disk().fallback_reason(), Some(&*why));
            let dir = tempfile::tempdir().unwrap();
            let file = world.disk().open(&dir.path().join("aof"), OpenMode::Sequential).await.unwrap();
            assert_eq!(file.write_at(AlignedBuf::copy_of(b"frame"), 0).await.result.unwrap(), 5);
        })
        .unwrap();
        let chosen = run_worker(DiskChoice::IoUring, async |_: RealWorld| ());
        assert!(matches!(&chosen, Err(WorkerError::Start(error)) if error.to_string() == *why), "{chosen:?}");
    });
}
