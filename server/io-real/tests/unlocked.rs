//! Locked memory may be refused (RLIMIT_MEMLOCK). A file of its own: all threads of the process are refused it.

use ferrite_io::{AlignedBuf, BLOCK, Disk, File, OpenMode, World};
use ferrite_io_real::{DiskChoice, RealWorld, run_worker};

#[test]
fn a_map_is_a_copy_where_memory_may_not_be_locked() {
    forbid_locked_memory();
    run_worker(DiskChoice::IoThreads, async |world: RealWorld| {
        let dir = tempfile::tempdir().unwrap();
        let file = world.disk().open(&dir.path().join("log"), OpenMode::Device).await.unwrap();
        let mut page = AlignedBuf::zeroed(2 * BLOCK);
        page[BLOCK..].fill(7);
        file.write_at(page, 0).await.result.unwrap();
        let map = file.map(0, 2 * BLOCK).await.unwrap();
        assert!(map.is_copy() && world.disk().map_copies());
        assert!(map.as_ref()[..BLOCK].iter().all(|byte| *byte == 0));
        assert!(map.as_ref()[BLOCK..].iter().all(|byte| *byte == 7));
    })
    .unwrap();
}

/// Sets the process's limit to 0 and drops the right to exceed it from this thread and those that it starts.
fn forbid_locked_memory() {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // capset(2): version 3 of the header, this thread; two sets of (effective, permitted, inheritable).
    let header = [0x2008_0522_u32, 0];
    let no_capabilities = [0_u32; 6];
    // SAFETY: every pointer is to a live object of the layout that the call expects.
    unsafe {
        assert_eq!(libc::setrlimit(libc::RLIMIT_MEMLOCK, &none), 0);
        assert_eq!(libc::syscall(libc::SYS_capset, header.as_ptr(), no_capabilities.as_ptr()), 0);
    }
}
