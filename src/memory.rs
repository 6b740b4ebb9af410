//! Where the process's memory comes from, and how it gets back to the system: mimalloc, without huge
//! pages, which stay whole for as long as anything is left in them.
//!
//! A request takes and gives back two buffers of 8 KiB, hyper's, one for each side. glibc keeps what is
//! that large on no list of its thread: each costs a search, and leaves a hole between what idle
//! connections keep. `benches/README.md` has what this is worth.

use std::time::Duration;

use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// How soon memory goes back to the system after a crowd.
const SOON: Duration = Duration::from_secs(1);

/// Gives back what this thread has freed and not used since, again and again. By itself that happens when
/// it next allocates, which a worker with nothing but idle connections may never do.
pub async fn give_back() {
    loop {
        tokio::time::sleep(SOON).await;
        #[expect(unsafe_code, reason = "it is C, and asks nothing but that this be the allocator")]
        unsafe {
            libmimalloc_sys::mi_collect(false);
        }
    }
}
