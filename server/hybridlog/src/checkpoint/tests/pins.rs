//! What of the log checkpoints need, when one of them cannot be read for a while.

use super::*;
use crate::address::FIRST_ADDRESS;

#[test]
fn a_checkpoint_that_could_not_be_read_keeps_everything_only_until_it_can() {
    let world = TestWorld::default();
    let shape = Shape { page_size: 4096, index_buckets: 4, seed: 1 };
    let begin = 8192;
    let main = async {
        let mut process = Process::new(&world, shape);
        let recovered = recover_data_dir(&world, &config(), &mut process).await.expect("a first start");
        let store = process.store();
        let files = create_log(&store, &world, Path::new(LOG)).await.expect("the log");
        let device = LogDevice::new(store.clone(), world.clone(), files.clone());
        world.spawn(flush_task(store.clone(), world.clone(), files, |_| {}));
        for key in 0..10 {
            process.set(&device, 0, key, &[key; 3000]).await;
        }
        while store.stats().head < begin {
            ferrite_io::Clock::sleep(&world.clock, std::time::Duration::from_millis(1)).await;
        }
        store.log.regions.shift_begin(begin);
        let mut taking = recovered.checkpoints.begin(&process.handle, || {}).await.expect("a sound disk");
        while taking.step(&process.handle, 1) {}
        taking.write().await.expect("a sound disk");
        taking.cut(&process.handle.pin().exclusive(), 0, Vec::new());
        taking.settle(&device, Path::new(LOG)).await.expect("a sound disk");
        taking.finish().await.expect("a sound disk");
        assert_eq!(recovered.checkpoints.pinned().await.from, Some(begin));
    };
    run_with(&world.clock, main, world.tasks());
    let [path] = &checkpoint_files(&world)[..] else { panic!("one was taken") };
    let whole = world.disk.bytes(path);
    let main = async {
        let mut process = Process::new(&world, shape);
        let recovered = recover_data_dir(&world, &config(), &mut process).await.expect("it is whole");
        let mut damaged = whole.clone();
        *damaged.last_mut().expect("it is not empty") ^= 1;
        world.disk.put(path, &damaged);
        let needed = async || recovered.checkpoints.pinned().await.from;
        assert_eq!(needed().await, Some(FIRST_ADDRESS), "nobody knows what it needs");
        assert_eq!(needed().await, Some(FIRST_ADDRESS));
        world.disk.put(path, &whole);
        assert_eq!(needed().await, Some(begin));
        // What is known is not asked for again.
        world.disk.put(path, &damaged);
        assert_eq!(needed().await, Some(begin));
    };
    run_with(&world.clock, main, world.tasks());
}
