//! Where the process's memory comes from, and how it gets back to the system: mimalloc, without huge
//! pages, which stay whole for as long as anything is left in them.
//!
//! glibc keeps what is as large as the buffers of a connection on no list of its thread: each costs a
//! search, and leaves a hole between what idle connections keep. `benches/README.md` has what this is
//! worth, and what it is to keep large futures [`apart`].

use std::alloc::{GlobalAlloc, Layout};
use std::ffi::{c_int, c_long};
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use libmimalloc_sys as mi;

#[global_allocator]
static ALLOCATOR: Mimalloc = Mimalloc;

/// The alignment that whatever is no smaller has in any case (`MI_MAX_ALIGN_SIZE`).
const ALIGNED: usize = 16;

/// Asks for an alignment only where it must. The crate that is made for this asks each time, and then
/// mimalloc takes a longer way for all sizes but powers of two: a thirtieth of what a small answer costs.
struct Mimalloc;

impl Mimalloc {
    fn is_plain(layout: Layout) -> bool {
        layout.align() <= ALIGNED && layout.align() <= layout.size()
    }
}

#[expect(
    unsafe_code,
    reason = "an allocator can't be anything else; each call is passed on as it is"
)]
unsafe impl GlobalAlloc for Mimalloc {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        unsafe {
            match Self::is_plain(layout) {
                true => mi::mi_malloc(layout.size()).cast(),
                false => mi::mi_malloc_aligned(layout.size(), layout.align()).cast(),
            }
        }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        unsafe {
            match Self::is_plain(layout) {
                true => mi::mi_zalloc(layout.size()).cast(),
                false => mi::mi_zalloc_aligned(layout.size(), layout.align()).cast(),
            }
        }
    }

    #[inline]
    unsafe fn dealloc(&self, memory: *mut u8, _layout: Layout) {
        unsafe { mi::mi_free(memory.cast()) }
    }

    #[inline]
    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        unsafe {
            match layout.align() <= ALIGNED && layout.align() <= size {
                true => mi::mi_realloc(memory.cast(), size).cast(),
                false => mi::mi_realloc_aligned(memory.cast(), size, layout.align()).cast(),
            }
        }
    }
}

/// How soon memory goes back to the system after a crowd.
const SOON: Duration = Duration::from_secs(1);
/// mimalloc's option for how long it keeps what is free, and how long that is here, in milliseconds. By
/// itself it keeps it for a second.
const PURGE_DELAY: (c_int, c_long) = (15, 10);

/// Has memory go back to the system sooner than by itself; to be called once.
pub fn settle() {
    let (option, delay) = PURGE_DELAY;
    #[expect(unsafe_code, reason = "it is C, and asks nothing but that this be the allocator")]
    unsafe {
        mi::mi_option_set(option, delay);
    }
}

/// Gives back what this thread has freed and not used since, again and again. By itself that happens when
/// it next allocates, which a worker with nothing but idle connections may never do.
pub async fn give_back() {
    loop {
        tokio::time::sleep(SOON).await;
        #[expect(unsafe_code, reason = "it is C, and asks nothing but that this be the allocator")]
        unsafe {
            mi::mi_collect(false);
        }
    }
}

/// A future that is large and rare, apart from the one that waits for it: it takes no room in what that
/// one keeps all its life, nor on the stack, where each poll of that one would touch every page of it.
#[inline(never)]
pub fn apart<'a, Work>(
    make: impl FnOnce() -> Work,
) -> Pin<Box<dyn Future<Output = Work::Output> + Send + 'a>>
where
    Work: Future + Send + 'a,
{
    Box::pin(make())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Options have no names here but numbers, which another version may give to others.
    #[test]
    #[expect(unsafe_code, reason = "it is C")]
    fn the_option_is_the_one_that_is_meant() {
        let (option, delay) = PURGE_DELAY;
        assert_eq!(unsafe { mi::mi_version() } / 10_000, 3, "look for mi_option_purge_delay again");
        assert_ne!(unsafe { mi::mi_option_get(option) }, delay);
        settle();
        assert_eq!(unsafe { mi::mi_option_get(option) }, delay);
    }

    #[test]
    #[expect(unsafe_code, reason = "an allocator can't be asked otherwise")]
    fn memory_is_aligned_and_keeps_what_is_in_it() {
        for align in (0..13).map(|power| 1 << power) {
            for size in (1..100).chain([120, 500, 1216, 4000, 8192, 70_000]) {
                let layout = Layout::from_size_align(size, align).unwrap();
                // SAFETY: what is read was written or asked to be zero, and is given back once.
                unsafe {
                    let memory = ALLOCATOR.alloc_zeroed(layout);
                    assert_eq!((memory.addr() % align, *memory.add(size - 1)), (0, 0));
                    memory.write(7);
                    let larger = ALLOCATOR.realloc(memory, layout, 3 * size);
                    assert_eq!((larger.addr() % align, *larger), (0, 7), "{size} by {align}");
                    let again = ALLOCATOR.alloc(layout);
                    assert_eq!(again.addr() % align, 0);
                    ALLOCATOR.dealloc(again, layout);
                    let larger_layout = Layout::from_size_align(3 * size, align).unwrap();
                    ALLOCATOR.dealloc(larger, larger_layout);
                }
            }
        }
    }
}
