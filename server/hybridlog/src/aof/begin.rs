//! Where the replay of a segment begins if a checkpoint stands for the first part of it.

use ferrite_io::{AlignedBuf, File};

use super::frame::{HEADER, Header, Kind};
use super::segment::{HEADER_LEN, SECTOR, SegmentHeader};

/// Bytes that are looked through on each side of where the first wanted frame would be without marks. Each mark in front of
/// it moves it by less than a sector and a half. Near it there is one, since a checkpoint syncs the log up to its position.
const WINDOW: u64 = 1 << 20;

/// Offset and position of a mark that is not behind the frame at `position`: whole frames follow it. `None`: none is near, so
/// the segment is read from its beginning.
pub(super) async fn mark_before<F: File>(
    file: &F,
    file_len: u64,
    header: SegmentHeader,
    position: u64,
) -> Option<(u64, u64)> {
    let least = HEADER_LEN + position.saturating_sub(header.base);
    let from = least.checked_sub(WINDOW)? / SECTOR * SECTOR;
    if from <= HEADER_LEN || from >= file_len {
        return None;
    }
    let len = (file_len - from).min(2 * WINDOW) as usize;
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        let done = file.read_at(AlignedBuf::zeroed(len - bytes.len()), from + bytes.len() as u64).await;
        match done.result {
            Ok(read) if read > 0 => bytes.extend_from_slice(&done.buf[..read]),
            // What cannot be read is met again by who needs it.
            _ => return None,
        }
    }
    let mark = |sector: usize| {
        let bytes = bytes[sector..].first_chunk::<HEADER>()?;
        let mark = Header::decode(bytes, header.salt).filter(|header| header.kind == Kind::Mark)?;
        (mark.position <= position).then_some((from + sector as u64, mark.position))
    };
    (0..bytes.len()).step_by(SECTOR as usize).rev().find_map(mark)
}

#[cfg(test)]
mod tests {
    use ferrite_io::{Disk, OpenMode};

    use super::super::replay::{Extent, replay};
    use super::super::testing::{TestWorld, run};
    use super::super::tests::{command, effect, process, segment};
    use super::*;
    use crate::aof::{Effect, FsyncPolicy};
    use crate::datadir::ReplayOnly;

    const FRAMES: u32 = 40;
    const LEN: usize = 100_000;

    /// What is applied of a segment whose first part is not wanted, and where reading it began.
    fn replayed(world: &TestWorld, apply_from: u64) -> (Vec<Vec<u8>>, u64) {
        run(&world.clock, async {
            let file = world.disk.open(&segment(), OpenMode::ReadOnly).await.expect("it is there");
            let start = file.read_at(AlignedBuf::zeroed(HEADER_LEN as usize), 0).await.buf;
            let header = SegmentHeader::decode(&start).expect("a header");
            let mut seen = Vec::new();
            let mut each = ReplayOnly(async |effect: Effect<'_>| {
                let mut bytes = Vec::new();
                effect.encode_into(&mut bytes);
                seen.push(bytes);
                Ok::<(), String>(())
            });
            let extent = Extent { apply_from, ..Extent::default() };
            let begin = replay(&file, header, extent, 1 << 16, &mut each).await.expect("intact").begin;
            (seen, begin)
        })
    }

    /// Each frame has a mark in front of it if it was synced, and else all have one together.
    fn written(synced: bool) -> (TestWorld, Vec<u64>) {
        let world = TestWorld::default();
        let policy = if synced { FsyncPolicy::Always } else { FsyncPolicy::No };
        let positions = process(&world, policy, async |aof, _| {
            let mut positions = Vec::new();
            for number in 0..FRAMES {
                positions.push(aof.position());
                let position = command(&aof, &effect(number, LEN)).await.expect("space");
                if synced {
                    aof.wait_durable(position).await.expect("durable");
                }
            }
            aof.close().await.expect("closes");
            positions
        });
        (world, positions)
    }

    #[test]
    fn what_a_checkpoint_stands_for_is_passed_over_and_nothing_behind_it() {
        for synced in [true, false] {
            let (world, positions) = written(synced);
            for (first, &position) in positions.iter().enumerate() {
                let (seen, begin) = replayed(&world, position);
                let expected: Vec<_> = (first as u32..FRAMES).map(|number| effect(number, LEN)).collect();
                assert_eq!(seen, expected, "from frame {first}");
                if position <= WINDOW {
                    assert_eq!(begin, HEADER_LEN);
                } else if synced && position > 2 * WINDOW {
                    assert!(position < begin + LEN as u64, "begun at {begin} for {position}");
                }
            }
            let beyond = replayed(&world, u64::MAX >> 1);
            assert_eq!(beyond, (Vec::new(), HEADER_LEN));
        }
    }

    #[test]
    fn what_is_passed_over_may_be_damaged() {
        let (world, positions) = written(true);
        let mut bytes = world.disk.bytes(&segment());
        bytes[HEADER_LEN as usize + 10_000] ^= 1;
        world.disk.put(&segment(), &bytes);
        let (seen, begin) = replayed(&world, positions[30]);
        assert_eq!(seen.len(), 10);
        assert!(begin > 2 * WINDOW);
    }
}
