//! Pages that compaction has left behind are in checkpoints, and a start goes on with them.

use super::*;
use crate::compaction::Compactor;

#[test]
fn what_was_left_behind_is_there_after_a_restart_and_is_named_by_a_check() {
    let world = TestWorld::default();
    let shape = Shape { page_size: 4096, index_buckets: 4, seed: 1 };
    let mut left_at = 0;
    let main = async {
        let mut process = Process::new(&world, shape);
        let recovered = recover_data_dir(&world, &config(), &mut process).await.expect("a first start");
        let store = process.store();
        let files = create_log(&store, &world, Path::new(LOG)).await.expect("the log");
        let device = LogDevice::new(store.clone(), world.clone(), files.clone());
        let mut compactor = Compactor::new(store.clone(), files.clone());
        world.spawn(flush_task(store.clone(), world.clone(), files, |_| {}));
        for key in 0..9 {
            process.set(&device, 0, key, &[key; 3000]).await;
        }
        while store.stats().head < 4 * 4096 {
            ferrite_io::Clock::sleep(&world.clock, std::time::Duration::from_millis(1)).await;
        }
        // The page of the second key, and what is below and above it is given up.
        left_at = store.log.page_around(4200).0;
        assert!(compactor.leave(4200) && !compactor.leave(8000));
        store.log.quarantine.link(store.index.entry_of(process.handle.pin().key(0, b"linked").hash), 4200);
        store.log.regions.shift_begin(3 * 4096);
        let mut taking = recovered.checkpoints.begin(&process.handle, || {}).await.expect("a sound disk");
        while taking.step(&process.handle, 1) {}
        taking.write().await.expect("a sound disk");
        taking.cut(&process.handle.pin().exclusive(), 0, Vec::new());
        taking.settle(&device, Path::new(LOG)).await.expect("a sound disk");
        taking.finish().await.expect("a sound disk");
        let pinned = recovered.checkpoints.pinned().await;
        assert_eq!(pinned.quarantined, Some(vec![(4096, 8192)]));
        // Once all is forgotten it is in the file for the checkpoint's sake.
        process.handle.pin().exclusive().forget_all();
        compactor.free(&pinned).await.expect("a sound disk");
        assert_eq!(store.stats().file_bytes, store.stats().tail - 3 * 4096 + 4096);
        compactor.free(&crate::checkpoint::Pinned::nothing()).await.expect("a sound disk");
        assert_eq!(store.stats().file_bytes, store.stats().tail - 3 * 4096);
    };
    // The file as it was before that page was given back.
    let whole = world.clone();
    run_with(&world.clock, main, world.tasks());
    let found = damage_found(&whole);
    let offset = 4096 + left_at;
    assert!(
        found[0].contains(&format!("data/hybrid.log is damaged at offset {offset}: compaction could not read")),
        "{found:?}"
    );
    let main = async {
        let mut process = Process::new(&world, Shape { index_buckets: 64, ..shape });
        recover_data_dir(&world, &config(), &mut process).await.expect("it can be used");
        let files = open_log(&process.store(), &world, Path::new(LOG)).await.expect("the log");
        let device = LogDevice::new(process.store(), world.clone(), files);
        let stats = process.store().stats();
        assert_eq!((stats.quarantined_pages, stats.left_bytes, stats.begin), (1, 4096, 3 * 4096));
        let found = |at: u64| device.read_record(at);
        assert!(found(4200).await.is_err(), "no record begins there, and that is no sign that it was compacted away");
        let linked = process.handle.pin().key(0, b"linked").hash;
        assert_eq!(process.store().index.find(linked).map(|slot| slot.address()), Some(4200));
        // Below it all is gone; what lies above is there.
        assert_eq!(process.get(&device, 0, 0).await, None);
        assert_eq!(process.get(&device, 0, 8).await.map(|found| found.0), Some(vec![8; 3000]));
    };
    run_with(&world.clock, main, world.tasks());
}
