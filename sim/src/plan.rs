//! The fault plan: which classes of faults are on in one run.

use std::fmt;

use crate::rng::SimRng;

/// Makes the plan, its draw and its text from one list, so that a new switch cannot be forgotten in one of them.
macro_rules! fault_plan {
    ($($(#[doc = $doc:literal])* $name:ident,)*) => {
        /// Switches, one a class of faults. Swarm testing (Groce et al., ISSTA 2012): each is on in half of the
        /// seeds, since a run with every fault at once hides what a few of them would show.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct FaultPlan {
            $($(#[doc = $doc])* pub $name: bool,)*
        }

        impl FaultPlan {
            /// Each class on with p = 0.5.
            pub fn draw(seed: u64) -> Self {
                let mut rng = SimRng::derive(seed, "plan");
                Self { $($name: rng.one_in(2),)* }
            }

            /// Every class on.
            pub fn all() -> Self {
                Self { $($name: true,)* }
            }

            /// The names of the classes that are on.
            pub fn names(&self) -> Vec<&'static str> {
                let mut names = Vec::new();
                $(if self.$name { names.push(stringify!($name)); })*
                names
            }

            /// Switches one class by its name; false if there is none of that name.
            pub fn set(&mut self, class: &str, on: bool) -> bool {
                match class {
                    $(stringify!($name) => self.$name = on,)*
                    _ => return false,
                }
                true
            }
        }
    };
}

fault_plan! {
    /// Messages take milliseconds instead of microseconds.
    net_delay,
    /// A direction of a connection stands still for up to seconds.
    net_clog,
    /// A connection is reset.
    net_reset,
    /// Messages arrive in pieces, often of one byte.
    net_split,
    /// Socket buffers of a few bytes: back-pressure at every write.
    net_tiny_buffers,
    /// Some I/O takes tens of milliseconds and is overtaken by later ones.
    disk_latency,
    /// A read fails with EIO.
    disk_read_error,
    /// A write fails with EIO; a part of it may have happened.
    disk_write_error,
    /// A sync fails with EIO, and un-synced data may be gone although it can still be read.
    disk_sync_error,
    /// A read gives a flipped bit.
    disk_bit_rot,
    /// A read gives another block of the same file.
    disk_misdirected_read,
    /// A read gives what was durable, not what was written since.
    disk_stale_read,
    /// The disk is full at times. The scenario sets the capacity.
    disk_full,
    /// Power loss keeps later writes and loses earlier ones.
    power_reorder,
    /// Power loss keeps some 512-byte sectors of a write.
    power_tear,
    /// Power loss leaves garbage where nothing had been synced.
    power_garbage,
    /// The wall clock jumps both ways.
    clock_jump,
    /// The wall clock runs faster or slower than the monotonic one.
    clock_drift,
    /// A read gives fewer bytes than there are.
    disk_short_read,
}

impl FaultPlan {
    /// No faults.
    pub fn none() -> Self {
        Self::default()
    }

    /// A connection that survives is the point; and bytes one by one would cost time without meeting the disk.
    pub fn with_quiet_network(self) -> Self {
        Self { net_reset: false, net_split: false, net_tiny_buffers: false, ..self }
    }

    /// Without the faults by which a disk returns or keeps wrong data, or none: what a scenario excludes whose oracle
    /// expects every operation to succeed.
    pub fn without_disk_errors(mut self) -> Self {
        self.disk_read_error = false;
        self.disk_short_read = false;
        self.disk_write_error = false;
        self.disk_sync_error = false;
        self.disk_bit_rot = false;
        self.disk_misdirected_read = false;
        self.disk_stale_read = false;
        self.disk_full = false;
        self
    }
}

impl fmt::Display for FaultPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.names();
        if names.is_empty() { write!(f, "no faults") } else { write!(f, "{}", names.join(" ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_is_on_in_about_half_of_the_seeds() {
        let classes = FaultPlan::all().names();
        for class in classes {
            let on = (0..400).filter(|&seed| FaultPlan::draw(seed).names().contains(&class)).count();
            assert!((120..280).contains(&on), "{class} is on in {on} of 400 seeds");
        }
    }

    #[test]
    fn switches_are_reached_by_name() {
        let mut plan = FaultPlan::none();
        assert!(plan.set("net_reset", true) && plan.net_reset);
        assert!(!plan.set("no_such_class", true));
        assert_eq!(plan.to_string(), "net_reset");
    }
}
