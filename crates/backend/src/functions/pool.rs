//! The JavaScript threads that run functions, and the calls that wait for them.
//!
//! A thread takes one call at a time, when its event loop is free, so a call never waits behind a
//! function that blocks its thread while another thread is free. A watchdog asks threads with work
//! to yield, starts spare ones, and ends those that exceed the time limit.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use bson::{RawBson, oid::ObjectId};
use tokio::sync::oneshot;

use super::{
    FunctionOptions, Invocation,
    queue::{Choice, Queue},
};
use crate::{Error, ErrorCode, Result};

/// The maximum number of calls that wait for a thread, in total and of one user.
const MOST_WAITING: usize = 1000;
const MOST_WAITING_OF_ONE: usize = 250;

/// The maximum size of the arguments of all waiting calls, in bytes.
const MOST_WAITING_BYTES: usize = 256 * 1024 * 1024;

/// The maximum number of calls that run on one thread at the same time.
const MOST_RUNNING: usize = 256;

/// The maximum number of calls of one user that run at the same time. Functions can wait for
/// minutes, so a few users must not fill all threads: a user also gets at most half of the places
/// that are still free.
const MOST_RUNNING_OF_ONE: usize = 64;

/// The size of the arguments up to which a call does not wait for memory, in bytes.
const SMALL_CALL: usize = 4 * 1024;

/// Time without yielding after which a thread takes no new calls, and a spare one starts.
const STUCK_AFTER: Duration = Duration::from_secs(1);

/// Interval of the watchdog while calls run.
const WATCH_INTERVAL: Duration = Duration::from_millis(100);

/// Interval of the checks of a thread that is to take no more calls.
const DRAIN_INTERVAL: Duration = Duration::from_millis(10);

/// Time without calls after which a spare thread ends.
const SPARE_LIFETIME: Duration = Duration::from_secs(10);

/// Seconds after which a client should try again if too many calls wait.
const RETRY_AFTER: u64 = 2;

/// The number of a thread that runs functions.
pub type HostId = u32;

/// The number of a call.
pub type CallId = u64;

/// A thread that runs functions.
pub trait FunctionHost: Send + Sync {
    /// Asks the thread to call [`FunctionPool::take`] as soon as it is free. Does not block.
    fn wake(&self);

    /// Asks the thread to stop a call whose result is not wanted any more. Does not block.
    fn cancel(&self, call: CallId);
}

/// The environment that starts and ends threads: an open app, or the operator's handle.
pub trait HostStarter: Send + Sync {
    /// Starts a thread, which then attaches itself with [`FunctionPool::attach`]. Does not block.
    fn start(&self, host: HostId);

    /// Ends a thread, whatever it does. Does not block.
    fn end(&self, host: HostId);
}

/// The reason why a thread ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostEnd {
    /// It exceeded its memory limit.
    Memory,
    /// It was ended because a call exceeded its time limit.
    Time,
    /// Its app was closed.
    Closed,
    /// It ended for another reason, or could not start.
    Other,
}

impl HostEnd {
    /// Returns the error of the calls that ran on the thread.
    fn error(self) -> Error {
        match self {
            Self::Memory => Error::of_thread("memory limit exceeded"),
            Self::Time => time_is_over(),
            Self::Closed => Error::of_thread("The app has been closed"),
            Self::Other => Error::of_thread("the thread of the function ended"),
        }
    }
}

fn time_is_over() -> Error {
    Error::new(ErrorCode::ExecutionTimeLimitExceeded, "execution time limit exceeded")
}

/// A call that waits or runs.
struct PendingCall {
    invocation: Arc<Invocation>,
    reply: oneshot::Sender<Result<RawBson>>,
    /// The time at which it was queued, or taken by its thread.
    since: Instant,
    host: Option<HostId>,
}

/// An environment that starts threads.
#[derive(Clone)]
struct Starter {
    id: u32,
    /// True if it runs functions on its own thread, which cannot be ended.
    is_thread: bool,
    /// True if it closes and starts no more threads.
    is_closing: bool,
    starter: Arc<dyn HostStarter>,
}

struct Host {
    starter: u32,
    /// True if the thread can be ended.
    can_end: bool,
    /// `None` until the thread is attached, and after it has detached.
    thread: Option<Arc<dyn FunctionHost>>,
    running: usize,
    /// The number of unanswered [`FunctionHost::wake`]s, and since when the oldest is unanswered.
    woken: usize,
    woken_since: Instant,
    /// True if the thread must answer before it counts as idle: it may still run a call that was
    /// given up.
    must_answer: bool,
    /// The size of the arguments of its running calls, in bytes.
    running_bytes: usize,
    /// The time of the last call.
    used_at: Instant,
    is_stuck: bool,
    /// True if the thread has been asked to end, or has detached.
    is_ending: bool,
    /// True if the thread takes no more calls, because its environment is closing.
    is_draining: bool,
}

impl Host {
    fn is_free(&self) -> bool {
        self.thread.is_some()
            && !self.is_stuck
            && !self.is_ending
            && !self.is_draining
            && self.running + self.woken < MOST_RUNNING
    }

    fn end_call(&mut self, invocation: &Invocation) {
        self.running = self.running.saturating_sub(1);
        self.running_bytes = self.running_bytes.saturating_sub(invocation.bytes());
    }

    fn wake(&mut self) {
        if let Some(thread) = &self.thread {
            if self.woken == 0 {
                self.woken_since = Instant::now();
            }
            self.woken += 1;
            thread.wake();
        }
    }
}

/// The running calls of one user: their number, and the size of their arguments in bytes.
#[derive(Clone, Copy, Default)]
struct Running {
    calls: usize,
    bytes: usize,
}

#[derive(Default)]
struct State {
    options: FunctionOptions,
    starters: Vec<Starter>,
    hosts: HashMap<HostId, Host>,
    calls: HashMap<CallId, PendingCall>,
    /// The running calls of each user.
    running_of: HashMap<ObjectId, Running>,
    waiting: Queue,
    waiting_bytes: usize,
    next_call: CallId,
    next_host: HostId,
    next_starter: u32,
    is_watched: bool,
    is_closed: bool,
}

/// The threads that run the functions of one app.
pub struct FunctionPool(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// Signalled when the first call arrives, and when the pool closes.
    busy: Condvar,
}

impl std::fmt::Debug for FunctionPool {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("FunctionPool").finish_non_exhaustive()
    }
}

impl FunctionPool {
    pub(crate) fn new(options: FunctionOptions) -> Self {
        let state = State { options, ..State::default() };
        Self(Arc::new(Shared { state: Mutex::new(state), busy: Condvar::new() }))
    }

    /// Takes the options of another app that shares the pool: the larger number of threads, and
    /// the limits that it sets.
    pub fn join(&self, options: FunctionOptions) {
        let mut state = self.0.state();
        let usual = FunctionOptions::default();
        state.options.threads = state.options.threads.max(options.threads);
        if options.time_limit != usual.time_limit {
            state.options.time_limit = options.time_limit;
        }
        if options.memory_limit != usual.memory_limit {
            state.options.memory_limit = options.memory_limit;
        }
    }

    /// Returns the longest time that the hooks of one request can take: each waits for a thread,
    /// and then runs.
    pub(crate) fn longest_hooks(&self) -> Duration {
        self.0.state().options.time_limit * 4
    }

    /// Adds an environment that can start threads, or that runs functions on its own thread if
    /// `is_thread` is true. One that sets limits of its own is preferred to others. Returns its
    /// number.
    pub fn add_starter(&self, starter: Arc<dyn HostStarter>, is_thread: bool, sets_limits: bool) -> u32 {
        let mut state = self.0.state();
        state.next_starter += 1;
        let id = state.next_starter;
        let place = if sets_limits { 0 } else { state.starters.len() };
        state.starters.insert(place, Starter { id, is_thread, is_closing: false, starter });
        if !state.waiting.is_empty() {
            state.dispatch();
        }
        id
    }

    /// Waits until the threads of an environment run no calls, if another one can start threads
    /// for the calls that follow.
    pub async fn drain(&self, starter: u32) {
        let deadline = Instant::now() + self.0.state().options.time_limit;
        while self.0.state().drain(starter) && Instant::now() < deadline {
            tokio::time::sleep(DRAIN_INTERVAL).await;
        }
    }

    /// Removes an environment, whose threads end with it. Calls on them fail.
    pub fn remove_starter(&self, starter: u32) {
        let mut state = self.0.state();
        state.starters.retain(|held| held.id != starter);
        let ended: Vec<HostId> =
            state.hosts.iter().filter(|(_, host)| host.starter == starter).map(|(id, _)| *id).collect();
        for host in ended {
            state.remove_host(host, HostEnd::Closed);
        }
        state.dispatch();
    }

    /// Attaches a thread that was started, which can take calls from now on. Returns false if it
    /// is not wanted any more and must end.
    pub fn attach(&self, host: HostId, thread: Arc<dyn FunctionHost>) -> bool {
        let mut state = self.0.state();
        let waiting = state.waiting.len();
        let Some(held) = state.hosts.get_mut(&host).filter(|host| !host.is_ending) else { return false };
        held.thread = Some(thread);
        for _ in 0..waiting.min(MOST_RUNNING) {
            held.wake();
        }
        true
    }

    /// Detaches a thread whose environment has ended. The reason follows with
    /// [`host_ended`](Self::host_ended).
    pub fn detach(&self, host: HostId) {
        if let Some(host) = self.0.state().hosts.get_mut(&host) {
            host.thread = None;
            host.is_ending = true;
        }
    }

    /// Notes that a thread has ended. The calls on it fail, and another one starts if calls wait.
    pub fn host_ended(&self, host: HostId, reason: HostEnd) {
        let mut state = self.0.state();
        let has_started = state.hosts.get(&host).is_some_and(|host| host.thread.is_some() || host.is_ending);
        state.remove_host(host, reason);
        if has_started {
            state.dispatch();
        } else if !state.hosts.values().any(|host| !host.is_ending) {
            // The next one would fail in the same way.
            state.fail_waiting(&HostEnd::Other.error());
        }
    }

    /// Takes the next call for a thread, which must be the current thread; `None` if no call
    /// waits.
    pub fn take(&self, host: HostId) -> Option<(CallId, Arc<Invocation>)> {
        let mut state = self.0.state();
        let state = &mut *state;
        let held = state.hosts.get_mut(&host)?;
        held.woken = held.woken.saturating_sub(1);
        held.woken_since = Instant::now();
        held.must_answer = false;
        if std::mem::take(&mut held.is_stuck) {
            // The calls that arrived in the meantime did not wake the thread.
            for _ in 0..state.waiting.len().min(MOST_RUNNING.saturating_sub(held.running)) {
                held.wake();
            }
        }
        if held.is_ending || held.is_draining || held.running >= MOST_RUNNING {
            return None;
        }
        let room = state.options.running_bytes().saturating_sub(held.running_bytes);
        let room = if held.running == 0 { usize::MAX } else { room };
        let id = state.next_waiting(room)?;
        let call = state.calls.get_mut(&id)?;
        call.host = Some(host);
        call.since = Instant::now();
        let held = state.hosts.get_mut(&host)?;
        held.running += 1;
        held.running_bytes += call.invocation.bytes();
        held.used_at = Instant::now();
        if let Some(user) = call.invocation.payer {
            let running = state.running_of.entry(user).or_default();
            running.calls += 1;
            running.bytes += call.invocation.bytes();
        }
        Some((id, Arc::clone(&call.invocation)))
    }

    /// Returns a running call, for the operations that it begins.
    pub fn running(&self, call: CallId) -> Option<Arc<Invocation>> {
        self.0.state().calls.get(&call).filter(|call| call.host.is_some()).map(|call| Arc::clone(&call.invocation))
    }

    /// Ends a call with its result.
    pub fn finish(&self, call: CallId, result: Result<RawBson>) {
        let mut state = self.0.state();
        let Some(ended) = state.remove_call(call) else { return };
        let is_waiting = !state.waiting.is_empty();
        if let Some(host) = ended.host.and_then(|host| state.hosts.get_mut(&host)) {
            host.end_call(&ended.invocation);
            // The thread is free to take a call that was meant for another one.
            if is_waiting && host.woken == 0 {
                host.wake();
            }
        }
        let _ = ended.reply.send(result);
    }

    /// Runs a function on one of the threads, and waits for its result.
    ///
    /// # Errors
    /// The error of the function, `ExecutionTimeLimitExceeded`, and an error if too many calls
    /// wait, or if nothing can run functions.
    pub(crate) async fn call(&self, invocation: Arc<Invocation>) -> Result<RawBson> {
        let (reply, result) = oneshot::channel();
        self.0.push(invocation, reply)?;
        result.await.unwrap_or_else(|_| Err(HostEnd::Other.error()))
    }

    /// Fails all calls. Threads must be ended by their environments.
    pub(crate) fn close(&self) {
        let mut state = self.0.state();
        state.is_closed = true;
        state.waiting.drain();
        state.waiting_bytes = 0;
        for (_, call) in state.calls.drain() {
            let _ = call.reply.send(Err(HostEnd::Closed.error()));
        }
        self.0.busy.notify_all();
    }
}

impl Drop for FunctionPool {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(self: &Arc<Self>, invocation: Arc<Invocation>, reply: oneshot::Sender<Result<RawBson>>) -> Result<()> {
        let mut state = self.state();
        if state.is_closed || state.starters.is_empty() {
            let message = "functions cannot run: no process that can run JavaScript has the app open";
            return Err(Error::of_thread(message));
        }
        state.check_room(&invocation)?;
        let id = state.next_call;
        state.next_call += 1;
        state.waiting_bytes += invocation.bytes();
        state.waiting.push(invocation.payer, id);
        let call = PendingCall { invocation, reply, since: Instant::now(), host: None };
        state.calls.insert(id, call);
        state.dispatch();
        if state.is_watched {
            self.busy.notify_one();
        } else {
            let watchdog = Arc::downgrade(self);
            let thread = std::thread::Builder::new().name("userkeep-calls".to_owned());
            state.is_watched = thread.spawn(move || watch(&watchdog)).is_ok();
        }
        Ok(())
    }

    /// Waits until calls run, or for the next check. Returns false if the pool is closed.
    fn wait(&self) -> bool {
        let mut state = self.state();
        while state.calls.is_empty() && !state.must_watch() && !state.is_closed {
            state = self.busy.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        !state.is_closed
    }
}

/// Watches the calls of a pool until it is closed.
fn watch(pool: &Weak<Shared>) {
    loop {
        let Some(shared) = pool.upgrade() else { return };
        if !shared.wait() {
            return;
        }
        shared.state().check(Instant::now());
        drop(shared);
        std::thread::sleep(WATCH_INTERVAL);
    }
}

impl State {
    /// Removes the next call to run from the queue: that of the next user who does not have too
    /// many running calls, and whose arguments have at most `room` bytes.
    fn next_waiting(&mut self, room: usize) -> Option<CallId> {
        let places = self.hosts.values().filter(|host| host.is_free() || host.running > 0);
        let free: usize = places.map(|host| MOST_RUNNING.saturating_sub(host.running)).sum();
        let Self { waiting, waiting_bytes, calls, running_of, options, .. } = self;
        let half_of_bytes = options.running_bytes() / 2;
        let mut unwanted = Vec::new();
        let taken = waiting.take(|id| {
            let Some(call) = calls.get(&id) else { return Choice::Drop };
            let bytes = call.invocation.bytes();
            if call.reply.is_closed() {
                unwanted.push(id);
                return Choice::Drop;
            }
            let running = call.invocation.payer.and_then(|user| running_of.get(&user)).copied().unwrap_or_default();
            let has_too_many = running.calls >= MOST_RUNNING_OF_ONE.min((free / 2).max(1));
            let is_too_large = bytes > room || running.bytes > 0 && running.bytes + bytes > half_of_bytes;
            if has_too_many || bytes > SMALL_CALL && is_too_large { Choice::Wait } else { Choice::Take }
        });
        let gone: Vec<PendingCall> = unwanted.into_iter().filter_map(|id| calls.remove(&id)).collect();
        let left = gone.iter().chain(taken.and_then(|id| calls.get(&id)));
        let bytes: usize = left.map(|call| call.invocation.bytes()).sum();
        *waiting_bytes = waiting_bytes.saturating_sub(bytes);
        taken
    }

    /// Removes a call that runs or waits.
    fn remove_call(&mut self, id: CallId) -> Option<PendingCall> {
        let call = self.calls.remove(&id)?;
        if let (Some(user), Some(_)) = (call.invocation.payer, call.host)
            && let Entry::Occupied(mut running) = self.running_of.entry(user)
        {
            let held = running.get_mut();
            held.calls = held.calls.saturating_sub(1);
            held.bytes = held.bytes.saturating_sub(call.invocation.bytes());
            if held.calls == 0 {
                running.remove();
            }
        }
        Some(call)
    }

    fn check_room(&self, invocation: &Invocation) -> Result<()> {
        // A string of separators needs eight times its size as a list. Code of V8 that reaches the
        // limit of the heap in one step would end the process, and not only the thread.
        let most = self.options.running_bytes();
        if invocation.bytes() > most && self.options.threads > 0 {
            let limit = self.options.memory_limit;
            let message = format!(
                "the arguments have more than {most} bytes, which functions with a memory limit of {limit} MB cannot take"
            );
            return Err(Error::new(ErrorCode::InvalidParameter, message));
        }
        let is_full = self.waiting.len() >= MOST_WAITING
            || self.waiting_bytes + invocation.bytes() > MOST_WAITING_BYTES
            || (invocation.payer.is_some() && self.waiting.len_of(invocation.payer) >= MOST_WAITING_OF_ONE);
        if is_full {
            return Err(Error::retry_later("too many function calls are waiting; try again later", RETRY_AFTER));
        }
        Ok(())
    }

    /// True if threads must be watched although no call runs or waits.
    fn must_watch(&self) -> bool {
        self.hosts.values().any(|host| host.thread.is_some() && !host.is_ending && (host.must_answer || host.is_stuck))
    }

    /// Wakes the free thread with the least work, and starts one if none is idle.
    fn dispatch(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let least = self.hosts.iter().filter(|(_, host)| host.is_free());
        let least =
            least.min_by_key(|(_, host)| host.running + host.woken).map(|(id, host)| (*id, host.running + host.woken));
        let is_busy = least.is_none_or(|(_, load)| load > 0);
        if let Some((id, _)) = least
            && let Some(host) = self.hosts.get_mut(&id)
        {
            host.wake();
        }
        let usable = self.hosts.values().filter(|host| !host.is_ending && !host.is_draining && !host.is_stuck).count();
        let living = self.hosts.values().filter(|host| !host.is_ending).count();
        let wanted = self.options.threads.max(1) as usize;
        if is_busy && usable < wanted && living < wanted * 2 {
            self.start_host();
        }
    }

    fn start_host(&mut self) {
        // Threads that can be ended are better than that of an application.
        let runs = |held: &Starter| self.hosts.values().any(|host| host.starter == held.id);
        let is_usable = |held: &&Starter| !(held.is_closing || held.is_thread && runs(held));
        let usable = self.starters.iter().filter(is_usable).min_by_key(|held| held.is_thread);
        let Some(Starter { id, is_thread, starter: start, .. }) = usable.cloned() else { return };
        self.next_host += 1;
        let host = Host {
            starter: id,
            can_end: !is_thread,
            thread: None,
            running: 0,
            woken: 0,
            woken_since: Instant::now(),
            must_answer: false,
            running_bytes: 0,
            used_at: Instant::now(),
            is_stuck: false,
            is_ending: false,
            is_draining: false,
        };
        self.hosts.insert(self.next_host, host);
        start.start(self.next_host);
    }

    /// Removes a thread. The calls on it fail.
    fn remove_host(&mut self, host: HostId, reason: HostEnd) {
        if self.hosts.remove(&host).is_some() {
            self.fail_calls_on(host, reason);
        }
    }

    fn fail_waiting(&mut self, error: &Error) {
        self.waiting_bytes = 0;
        for call in self.waiting.drain().into_iter().filter_map(|id| self.calls.remove(&id)) {
            let _ = call.reply.send(Err(error.clone()));
        }
    }

    /// Checks that threads yield and that calls keep their time limit.
    fn check(&mut self, now: Instant) {
        let mut is_any_stuck = false;
        for host in self.hosts.values_mut().filter(|host| host.thread.is_some() && !host.is_ending) {
            if host.woken > 0 {
                host.is_stuck = now.duration_since(host.woken_since) >= STUCK_AFTER;
            } else if host.running > 0 || host.must_answer {
                host.wake();
            }
            is_any_stuck |= host.is_stuck;
        }
        self.end_late_calls(now);
        self.end_lost_hosts();
        self.end_spare_host(now);
        // Calls whose thread is stuck move to another one.
        if is_any_stuck || !self.waiting.is_empty() {
            self.dispatch();
        }
    }

    /// Ends threads that do not yield and run no call that could still end: their calls have been
    /// given up, or they run code that a call has left behind.
    fn end_lost_hosts(&mut self) {
        let is_lost = |host: &Host| host.is_stuck && host.running == 0 && host.can_end && !host.is_ending;
        let lost: Vec<HostId> = self.hosts.iter().filter(|(_, host)| is_lost(host)).map(|(id, _)| *id).collect();
        for host in lost {
            self.end_host(host);
        }
    }

    /// True if the threads of an environment still run calls, and another environment goes on.
    /// They take no more calls then.
    fn drain(&mut self, starter: u32) -> bool {
        for held in self.starters.iter_mut().filter(|held| held.id == starter) {
            held.is_closing = true;
        }
        if self.is_closed || self.starters.iter().all(|held| held.is_closing) {
            return false;
        }
        let mut is_running = false;
        for host in self.hosts.values_mut().filter(|host| host.starter == starter) {
            host.is_draining = true;
            is_running |= host.running > 0;
        }
        self.dispatch();
        is_running
    }

    /// Ends a thread that was started while others did not yield.
    fn end_spare_host(&mut self, now: Instant) {
        let usable = self.hosts.values().filter(|host| !host.is_ending && !host.is_stuck);
        if usable.count() <= self.options.threads.max(1) as usize {
            return;
        }
        let is_spare =
            |host: &Host| host.thread.is_some() && !host.is_ending && !host.is_stuck && host.running + host.woken == 0;
        let spare = self.hosts.iter().find(|(_, host)| is_spare(host) && now - host.used_at >= SPARE_LIFETIME);
        if let Some(spare) = spare.map(|(id, _)| *id) {
            self.end_host(spare);
        }
    }

    /// Ends the calls that exceed their time limit or are not wanted any more.
    fn end_late_calls(&mut self, now: Instant) {
        let time_limit = self.options.time_limit;
        let is_late = |call: &PendingCall| {
            let own = call.invocation.time_limit.unwrap_or(time_limit);
            now.duration_since(call.since) >= own.min(time_limit) || self.is_unwanted(call)
        };
        let late: Vec<(CallId, Option<HostId>)> =
            self.calls.iter().filter(|(_, call)| is_late(call)).map(|(id, call)| (*id, call.host)).collect();
        for (id, host) in late {
            self.expire(id, host);
        }
    }

    /// True for a hook whose client has disconnected, so that nothing comes of its answer. A
    /// user's own call continues, because its writes are wanted. So does a hook that does not
    /// yield, which only the end of its thread could stop: it keeps its place until its time is
    /// over.
    fn is_unwanted(&self, call: &PendingCall) -> bool {
        let is_stuck = call.host.and_then(|host| self.hosts.get(&host)).is_some_and(|host| host.is_stuck);
        call.invocation.hook.is_some() && call.reply.is_closed() && !is_stuck
    }

    /// Ends a call that exceeds the time limit or is not wanted any more. If its thread is stuck,
    /// the thread ends too.
    fn expire(&mut self, id: CallId, host: Option<HostId>) {
        // It can have failed with its thread.
        let Some(call) = self.remove_call(id) else { return };
        match host.and_then(|host| Some((host, self.hosts.get_mut(&host)?))) {
            None => {
                self.waiting.remove(call.invocation.payer, id);
                self.waiting_bytes = self.waiting_bytes.saturating_sub(call.invocation.bytes());
            }
            Some((host, held)) => {
                held.end_call(&call.invocation);
                held.must_answer = true;
                if held.is_stuck && held.can_end {
                    self.end_host(host);
                } else if let Some(thread) = &held.thread {
                    thread.cancel(id);
                }
            }
        }
        let _ = call.reply.send(Err(time_is_over()));
    }

    /// Ends a thread. The calls on it fail.
    fn end_host(&mut self, host: HostId) {
        let Some(held) = self.hosts.get_mut(&host) else { return };
        held.is_ending = true;
        if let Some(held) = self.starters.iter().find(|starter| starter.id == held.starter) {
            held.starter.end(host);
        }
        self.fail_calls_on(host, HostEnd::Time);
    }

    fn fail_calls_on(&mut self, host: HostId, reason: HostEnd) {
        let ended: Vec<CallId> =
            self.calls.iter().filter(|(_, call)| call.host == Some(host)).map(|(id, _)| *id).collect();
        for call in ended.into_iter().filter_map(|id| self.remove_call(id)) {
            let _ = call.reply.send(Err(reason.error()));
        }
    }
}

#[cfg(test)]
mod tests;
