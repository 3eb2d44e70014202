//! Logical addresses: 48 bits, never reused, the same in memory and on disk.

/// A 48-bit logical address in the log. 0 is no address.
pub type Address = u64;

/// Bits of an address.
pub const ADDRESS_BITS: u32 = 48;
/// The largest address and the mask that cuts one out of a word.
pub const ADDRESS_MASK: u64 = (1 << ADDRESS_BITS) - 1;
/// The first record's address. What lies below is skipped, so that 0 can mean "none".
pub const FIRST_ADDRESS: Address = 64;
/// Bytes before address 0 in the log file: its header.
pub const FILE_HEADER: u64 = 4096;

/// Where an address lies in the log file.
pub(crate) fn file_offset(address: Address) -> u64 {
    FILE_HEADER + address
}

/// Page arithmetic for one page size.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paging {
    shift: u32,
}

impl Paging {
    pub(crate) fn new(page_size: usize) -> Self {
        debug_assert!(page_size.is_power_of_two());
        Self { shift: page_size.trailing_zeros() }
    }

    #[inline]
    pub(crate) fn size(self) -> usize {
        1 << self.shift
    }

    #[inline]
    pub(crate) fn page(self, address: Address) -> u64 {
        address >> self.shift
    }

    #[inline]
    pub(crate) fn offset(self, address: Address) -> usize {
        (address & ((1 << self.shift) - 1)) as usize
    }

    #[inline]
    pub(crate) fn start(self, page: u64) -> Address {
        page << self.shift
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn page_and_offset_make_up_the_address() {
        let paging = Paging::new(4096);
        let address = 3 * 4096 + 72;
        assert_eq!((paging.page(address), paging.offset(address)), (3, 72));
        assert_eq!(paging.start(3) + 72, address);
        assert_eq!(file_offset(0), FILE_HEADER);
    }
}

/// Where the page of an address of the log ends, whose pages have had these sizes, each from an address on; and whether nothing
/// may have been written from there to its end: after a restart with larger pages the log goes on where one of them begins.
pub(crate) fn page_in(eras: &[(Address, u64)], address: Address) -> (Address, bool) {
    let next = eras.partition_point(|&(from, _)| from <= address);
    let (_, size) = eras[next.saturating_sub(1)];
    let is_left_out = |&(from, larger): &(Address, u64)| address.is_multiple_of(size) && address + larger > from;
    ((address / size + 1) * size, eras.get(next).is_some_and(is_left_out))
}

/// What a page is of which nothing was written.
pub(crate) fn is_unwritten(page: &[u8]) -> bool {
    page.iter().all(|&byte| byte == 0)
}
