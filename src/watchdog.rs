//! How long the event loop is held: for tests that check it.

use napi_derive::napi;

/// The CPU time that the calling thread has taken so far, in microseconds; zero where the system does not tell it.
#[napi]
pub fn thread_cpu_time() -> f64 {
    #[cfg(unix)]
    {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
    }
    #[cfg(not(unix))]
    0.0
}
