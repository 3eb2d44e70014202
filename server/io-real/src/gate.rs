//! A future that is polled only when it was woken itself.
//!
//! A `LocalSet` polls its root future each time any of its tasks runs. The root of a worker waits for the end of the
//! server: polling that through its layers with every command is wasted.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

struct Gate {
    woken: AtomicBool,
    outer: AtomicWaker,
}

impl Wake for Gate {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.outer.wake();
    }
}

/// Runs `future`, polling it at first and then after each of its own wakes.
pub(crate) async fn gated<F: Future>(mut future: Pin<&mut F>) -> F::Output {
    let gate = Arc::new(Gate { woken: AtomicBool::new(true), outer: AtomicWaker::new() });
    let waker = Waker::from(gate.clone());
    poll_fn(|context| {
        // Registered before the look: a wake in between is not lost.
        gate.outer.register(context.waker());
        if gate.woken.swap(false, Ordering::AcqRel) {
            future.as_mut().poll(&mut Context::from_waker(&waker))
        } else {
            Poll::Pending
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::pin::pin;

    use super::*;

    #[test]
    fn only_its_own_wakes_poll_it() {
        let polls = Cell::new(0);
        let own = std::cell::RefCell::new(None);
        let inner = pin!(poll_fn(|context| {
            polls.set(polls.get() + 1);
            *own.borrow_mut() = Some(context.waker().clone());
            if polls.get() < 3 { Poll::Pending } else { Poll::Ready(7) }
        }));
        let mut outer = pin!(gated(inner));
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..5 {
            assert_eq!(outer.as_mut().poll(&mut context), Poll::Pending);
        }
        assert_eq!(polls.get(), 1, "nobody woke it");
        let wake = || own.borrow().as_ref().expect("it was polled").wake_by_ref();
        wake();
        assert_eq!(outer.as_mut().poll(&mut context), Poll::Pending);
        wake();
        assert_eq!(outer.as_mut().poll(&mut context), Poll::Ready(7));
        assert_eq!(polls.get(), 3);
    }
}
