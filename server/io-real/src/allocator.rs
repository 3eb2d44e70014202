//! The process's allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr::null_mut;

/// Alignments from here on are only asked for by who wants huge pages.
const HUGE_PAGE: usize = 2 << 20;

/// Buffers for transfers, aligned to pages, of so many bytes are mapped too. The system's allocator would keep them, freed, in
/// its heap: some copies of log pages are a good part of a small server's memory.
const LARGE: usize = 1 << 20;

/// The system's allocator, but for what is aligned to huge pages and for large transfer buffers: that is mapped, is zeroed only
/// as it is touched, and goes back to the kernel when it is freed. The former may be backed by huge pages (`MADV_HUGEPAGE`,
/// where the kernel's `transparent_hugepage/enabled` is not `never`); buffers do not live long enough to be worth the time that
/// the kernel may need to come by one.
pub struct Allocator;

impl Allocator {
    /// Has the system's allocator map what is large, too, and give back what is free at its heap's end. By itself it raises its
    /// bounds with the first large buffer that is freed, up to 32 and 64 MiB a thread, and keeps that much. To be called
    /// before there are other threads.
    pub fn bound_free_memory() {
        #[cfg(target_env = "gnu")]
        // SAFETY: these set two numbers of the allocator, which knows them.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE as libc::c_int);
            libc::mallopt(libc::M_TRIM_THRESHOLD, 4 * LARGE as libc::c_int);
        }
    }
}

fn is_mapped(layout: Layout) -> bool {
    layout.align() >= HUGE_PAGE || (layout.align() >= PAGE && layout.size() >= LARGE)
}

/// Null if the kernel has no more memory.
fn map(layout: Layout) -> *mut u8 {
    let (len, align) = (layout.size(), layout.align());
    let Some(room) = len.checked_add(align) else { return null_mut() };
    // SAFETY: a new anonymous mapping touches nothing that exists.
    let mapped = unsafe {
        libc::mmap(null_mut(), room, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
    };
    if mapped == libc::MAP_FAILED {
        return null_mut();
    }
    let before = mapped.cast::<u8>().align_offset(align);
    let after = align - before;
    // SAFETY: `before` and `after` cut what lies around the aligned `len` bytes from the mapping that was just made; both
    // begin at whole pages, since the mapping, the alignment and so their difference do, and `len` is rounded up by the
    // kernel. The advice changes no content; a kernel without huge pages refuses it, and the memory is as good.
    unsafe {
        let at = mapped.add(before);
        if before > 0 {
            libc::munmap(mapped, before);
        }
        let end = len.next_multiple_of(PAGE);
        if after > end - len {
            libc::munmap(at.add(end), after - (end - len));
        }
        if align >= HUGE_PAGE {
            libc::madvise(at, len, libc::MADV_HUGEPAGE);
        }
        at.cast()
    }
}

/// The kernel's page, the least that is mapped.
const PAGE: usize = 4096;

// SAFETY: what is not mapped goes to the system's allocator as it is. A mapping of `map` is `layout.size()`
// bytes at `layout.align()`, zeroed, and nobody else's until `dealloc` unmaps it; which of the two served a pointer follows
// from the layout, which `dealloc` and `realloc` get again.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_mapped(layout) {
            return map(layout);
        }
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if is_mapped(layout) {
            return map(layout);
        }
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        if is_mapped(layout) {
            // SAFETY: the mapping of `map` for this layout, which the caller gives up.
            unsafe { libc::munmap(at.cast(), layout.size().next_multiple_of(PAGE)) };
            return;
        }
        // SAFETY: the caller's promise, passed on.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, len: usize) -> *mut u8 {
        // SAFETY: the caller promises that `len`, rounded up to the alignment, is a valid size.
        let other = unsafe { Layout::from_size_align_unchecked(len, layout.align()) };
        if !is_mapped(layout) && !is_mapped(other) {
            // SAFETY: the caller's promise, passed on.
            return unsafe { System.realloc(at, layout, len) };
        }
        // SAFETY: the caller promises that the new size is not zero.
        let moved = unsafe { self.alloc(other) };
        if !moved.is_null() {
            // SAFETY: both are allocated, do not overlap, and have at least the smaller size.
            unsafe { moved.copy_from_nonoverlapping(at, layout.size().min(len)) };
            // SAFETY: the old one, which the caller gives up.
            unsafe { self.dealloc(at, layout) };
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(len: usize) -> Layout {
        Layout::from_size_align(len, HUGE_PAGE).expect("a layout")
    }

    /// How many bytes of this range are mapped, by the kernel's list.
    fn mapped(at: *mut u8, len: usize) -> usize {
        let range = at as usize..at as usize + len;
        let maps = std::fs::read_to_string("/proc/self/maps").expect("proc is there");
        maps.lines()
            .map(|line| {
                let (from, to) = line.split(' ').next().and_then(|range| range.split_once('-')).expect("a range");
                let at = |text| usize::from_str_radix(text, 16).expect("an address");
                at(to).min(range.end).saturating_sub(at(from).max(range.start))
            })
            .sum()
    }

    #[test]
    fn huge_pages_are_aligned_zeroed_and_given_back() {
        for len in [1, PAGE, HUGE_PAGE, 3 * HUGE_PAGE + 5] {
            // SAFETY: the layouts are those of the calls before, the accesses within their sizes.
            unsafe {
                let at = Allocator.alloc_zeroed(layout(len));
                assert!((at as usize).is_multiple_of(HUGE_PAGE) && *at == 0 && *at.add(len - 1) == 0);
                at.write(1);
                at.add(len - 1).write(2);
                let longer = Allocator.realloc(at, layout(len), len + HUGE_PAGE);
                assert!((longer as usize).is_multiple_of(HUGE_PAGE));
                assert_eq!(*longer, if len == 1 { 2 } else { 1 });
                assert_eq!((*longer.add(len - 1), *longer.add(len)), (2, 0));
                Allocator.dealloc(longer, layout(len + HUGE_PAGE));
                // Another thread may have mapped something there since; that is less than all of it.
                assert!(mapped(longer, len + HUGE_PAGE) < len + HUGE_PAGE, "it is still mapped");
            }
        }
    }

    #[test]
    fn what_cannot_be_mapped_is_null() {
        // SAFETY: the layout is not of size zero.
        assert!(unsafe { Allocator.alloc(layout(isize::MAX as usize - 2 * HUGE_PAGE)) }.is_null());
    }

    #[test]
    fn a_large_buffer_of_whole_pages_is_given_back_also_when_it_has_grown_to_that() {
        let layout = |len| Layout::from_size_align(len, PAGE).expect("a layout");
        // SAFETY: the layouts are those of the calls before, the accesses within their sizes.
        unsafe {
            let at = Allocator.alloc(layout(PAGE));
            at.write(7);
            at.add(PAGE - 1).write(9);
            let large = Allocator.realloc(at, layout(PAGE), 3 * LARGE);
            assert_eq!((*large, *large.add(PAGE - 1), large as usize % PAGE), (7, 9, 0));
            large.add(3 * LARGE - 1).write(1);
            let small = Allocator.realloc(large, layout(3 * LARGE), PAGE);
            assert_eq!((*small, *small.add(PAGE - 1)), (7, 9));
            assert!(mapped(large, 3 * LARGE) < 3 * LARGE, "it is still mapped");
            Allocator.dealloc(small, layout(PAGE));
        }
    }

    #[test]
    fn small_alignments_are_the_systems() {
        let layout = Layout::from_size_align(100, 64).expect("a layout");
        // SAFETY: the layouts are those of the calls before, the accesses within their sizes.
        unsafe {
            let at = Allocator.alloc(layout);
            at.add(99).write(7);
            let at = Allocator.realloc(at, layout, 1000);
            assert_eq!(*at.add(99), 7);
            Allocator.dealloc(at, Layout::from_size_align(1000, 64).expect("a layout"));
        }
    }
}
