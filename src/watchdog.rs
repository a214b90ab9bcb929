//! Measures how long the event loop is blocked, for tests.

use napi_derive::napi;

/// Returns the CPU time of the calling thread in microseconds; zero on systems that do not provide
/// it.
#[napi]
pub(crate) fn thread_cpu_time() -> f64 {
    #[cfg(unix)]
    {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
    }
    #[cfg(not(unix))]
    0.0
}
