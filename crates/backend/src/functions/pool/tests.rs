#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicUsize, Ordering};

use bson::raw::{RawArrayBuf, RawDocumentBuf};

use super::*;

/// A program that starts threads, which the test controls.
#[derive(Default)]
struct Program {
    started: Mutex<Vec<HostId>>,
    ended: Mutex<Vec<HostId>>,
}

impl HostStarter for Program {
    fn start(&self, host: HostId) {
        self.started.lock().unwrap().push(host);
    }

    fn end(&self, host: HostId) {
        self.ended.lock().unwrap().push(host);
    }
}

#[derive(Default)]
struct Thread {
    wakes: AtomicUsize,
    cancelled: Mutex<Vec<CallId>>,
}

impl FunctionHost for Thread {
    fn wake(&self) {
        self.wakes.fetch_add(1, Ordering::SeqCst);
    }

    fn cancel(&self, call: CallId) {
        self.cancelled.lock().unwrap().push(call);
    }
}

struct World {
    pool: Arc<FunctionPool>,
    program: Arc<Program>,
    starter: u32,
    context: Arc<crate::context::Context>,
}

/// Returns the context of an app with a store in memory, whose own pool is not used.
fn context() -> Arc<crate::context::Context> {
    let options = crate::Options::default();
    let store = crate::open_memory(&options, &crate::Environment::system()).unwrap();
    let definition = crate::Definition::development().unwrap();
    let stores = crate::stores::Stores::of_one(store);
    let environment = crate::Environment::system();
    let make = |current| crate::context::Context::new("app", definition, stores, environment, &options, current);
    crate::context::Current::new(make).get()
}

impl World {
    fn new(threads: u32, time_limit: Duration) -> Self {
        let pool = Arc::new(FunctionPool::new(FunctionOptions { threads, time_limit, ..FunctionOptions::default() }));
        let program = Arc::new(Program::default());
        let starter = pool.add_starter(Arc::clone(&program) as _, false, false);
        Self { pool, program, starter, context: context() }
    }

    fn call(&self, name: &str) -> tokio::task::JoinHandle<Result<RawBson>> {
        self.call_of(name, None)
    }

    fn call_of(&self, name: &str, caller: Option<bson::oid::ObjectId>) -> tokio::task::JoinHandle<Result<RawBson>> {
        self.call_with(name, caller, RawArrayBuf::new())
    }

    fn call_with(
        &self,
        name: &str,
        payer: Option<bson::oid::ObjectId>,
        arguments: RawArrayBuf,
    ) -> tokio::task::JoinHandle<Result<RawBson>> {
        self.run(self.invocation(name, payer, arguments))
    }

    fn invocation(&self, name: &str, payer: Option<bson::oid::ObjectId>, arguments: RawArrayBuf) -> Invocation {
        Invocation {
            name: name.to_owned(),
            arguments,
            user: RawDocumentBuf::new(),
            request: None,
            caller: None,
            payer,
            is_system: false,
            time_limit: None,
            hook: None,
            transactions: super::super::Transactions::default(),
            record: crate::logs::CallRecord::default(),
            context: Arc::clone(&self.context),
        }
    }

    fn run(&self, invocation: Invocation) -> tokio::task::JoinHandle<Result<RawBson>> {
        let pool = Arc::clone(&self.pool);
        tokio::spawn(async move { pool.call(Arc::new(invocation)).await })
    }

    fn started(&self) -> Vec<HostId> {
        self.program.started.lock().unwrap().clone()
    }

    fn attach(&self, host: HostId) -> Arc<Thread> {
        let thread = Arc::new(Thread::default());
        assert!(self.pool.attach(host, Arc::clone(&thread) as _));
        thread
    }
}

async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_call_starts_a_thread_which_takes_it() {
    let world = World::new(1, Duration::from_secs(60));
    let call = world.call("one");
    settle().await;
    assert_eq!(world.started(), [1]);
    let thread = world.attach(1);
    assert_eq!(thread.wakes.load(Ordering::SeqCst), 1);
    let (id, invocation) = world.pool.take(1).unwrap();
    assert_eq!(invocation.name, "one");
    assert!(world.pool.take(1).is_none());
    assert!(world.pool.running(id).is_some());
    world.pool.finish(id, Ok(RawBson::Int32(5)));
    assert_eq!(call.await.unwrap(), Ok(RawBson::Int32(5)));
    assert!(world.pool.running(id).is_none());
}

#[tokio::test]
async fn a_call_may_have_a_shorter_time_limit_than_others() {
    let world = World::new(1, Duration::from_secs(60));
    let limited = |limit| Invocation { time_limit: Some(limit), ..world.invocation("one", None, RawArrayBuf::new()) };
    let (short, long) = (world.run(limited(Duration::from_millis(200))), world.run(limited(Duration::from_secs(600))));
    let other = world.call("other");
    settle().await;
    let thread = world.attach(1);
    let calls: Vec<_> = std::iter::from_fn(|| world.pool.take(1)).map(|(id, _)| id).collect();
    assert_eq!(calls.len(), 3);
    assert_eq!(short.await.unwrap().unwrap_err().code, ErrorCode::ExecutionTimeLimitExceeded);
    assert_eq!(*thread.cancelled.lock().unwrap(), [calls[0]]);
    for (id, call) in calls.into_iter().skip(1).zip([long, other]) {
        world.pool.finish(id, Ok(RawBson::Null));
        assert_eq!(call.await.unwrap(), Ok(RawBson::Null));
    }
}

#[tokio::test]
async fn no_more_threads_start_than_are_wanted() {
    let world = World::new(2, Duration::from_secs(60));
    let calls: Vec<_> = (0..10).map(|_| world.call("one")).collect();
    settle().await;
    assert_eq!(world.started(), [1, 2]);
    world.attach(1);
    world.attach(2);
    // A thread takes the calls that were meant for the other one.
    let mut taken = 0;
    while let Some((id, _)) = world.pool.take(1) {
        world.pool.finish(id, Ok(RawBson::Null));
        taken += 1;
    }
    assert_eq!(taken, 10);
    for call in calls {
        assert_eq!(call.await.unwrap(), Ok(RawBson::Null));
    }
}

#[tokio::test]
async fn a_thread_that_does_not_yield_gets_no_calls_and_ends_with_the_time_limit() {
    let world = World::new(1, Duration::from_millis(2500));
    let stuck = world.call("loop");
    settle().await;
    world.attach(1);
    world.pool.take(1).unwrap();
    // The watchdog asks the thread to yield, and starts a spare one after a second.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let next = world.call("next");
    settle().await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(world.started(), [1, 2]);
    world.attach(2);
    let (id, invocation) = world.pool.take(2).unwrap();
    assert_eq!(invocation.name, "next");
    world.pool.finish(id, Ok(RawBson::Null));
    assert_eq!(next.await.unwrap(), Ok(RawBson::Null));
    let error = stuck.await.unwrap().unwrap_err();
    assert_eq!(error.code, ErrorCode::ExecutionTimeLimitExceeded);
    assert_eq!(*world.program.ended.lock().unwrap(), [1]);
}

#[tokio::test]
async fn a_call_that_waits_too_long_is_cancelled_and_its_thread_stays() {
    let world = World::new(1, Duration::from_millis(300));
    let slow = world.call("slow");
    settle().await;
    let thread = world.attach(1);
    let (id, _) = world.pool.take(1).unwrap();
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        world.pool.take(1);
    }
    assert_eq!(slow.await.unwrap().unwrap_err().code, ErrorCode::ExecutionTimeLimitExceeded);
    assert_eq!(*thread.cancelled.lock().unwrap(), [id]);
    assert!(world.program.ended.lock().unwrap().is_empty());
    // Its result comes too late, and does no harm.
    world.pool.finish(id, Ok(RawBson::Null));
}

#[tokio::test]
async fn calls_fail_with_their_thread_and_waiting_ones_get_another() {
    let world = World::new(1, Duration::from_secs(60));
    let running = world.call("running");
    settle().await;
    world.attach(1);
    world.pool.take(1).unwrap();
    let waiting = world.call("waiting");
    settle().await;
    world.pool.detach(1);
    world.pool.host_ended(1, HostEnd::Memory);
    let error = running.await.unwrap().unwrap_err();
    assert_eq!((error.code, &*error.message), (ErrorCode::FunctionExecutionError, "memory limit exceeded"));
    assert_eq!(world.started(), [1, 2]);
    world.attach(2);
    let (id, _) = world.pool.take(2).unwrap();
    world.pool.finish(id, Ok(RawBson::Null));
    assert_eq!(waiting.await.unwrap(), Ok(RawBson::Null));
}

#[tokio::test]
async fn a_thread_that_cannot_start_fails_the_calls_instead_of_starting_for_ever() {
    let world = World::new(1, Duration::from_secs(60));
    let call = world.call("one");
    settle().await;
    world.pool.host_ended(1, HostEnd::Other);
    assert!(call.await.unwrap().is_err());
    assert_eq!(world.started(), [1]);
}

#[tokio::test]
async fn the_queue_is_bounded_in_total_and_for_one_user() {
    let world = World::new(1, Duration::from_secs(60));
    let user = Some(bson::oid::ObjectId::new());
    let calls: Vec<_> = (0..MOST_WAITING_OF_ONE).map(|_| world.call_of("one", user)).collect();
    settle().await;
    let refused = world.call_of("one", user).await.unwrap().unwrap_err();
    assert_eq!(refused.retry_after, Some(RETRY_AFTER));
    let others: Vec<_> = (MOST_WAITING_OF_ONE..MOST_WAITING).map(|_| world.call("other")).collect();
    settle().await;
    assert!(world.call("other").await.unwrap().is_err());
    world.pool.close();
    for call in calls.into_iter().chain(others) {
        assert!(call.await.unwrap().is_err());
    }
}

#[tokio::test]
async fn one_user_cannot_fill_a_thread() {
    let world = World::new(1, Duration::from_secs(60));
    let greedy = Some(bson::oid::ObjectId::new());
    let calls: Vec<_> = (0..MOST_RUNNING_OF_ONE + 10).map(|_| world.call_of("greedy", greedy)).collect();
    settle().await;
    let other = world.call_of("other", Some(bson::oid::ObjectId::new()));
    settle().await;
    world.attach(1);
    let mut taken = Vec::new();
    while let Some((id, invocation)) = world.pool.take(1) {
        taken.push((id, invocation.name.clone()));
    }
    assert_eq!(taken.len(), MOST_RUNNING_OF_ONE + 1);
    let other_call = taken.iter().position(|(_, name)| name == "other").unwrap();
    assert_eq!(other_call, 1);
    let (last, _) = taken.remove(other_call);
    world.pool.finish(last, Ok(RawBson::Null));
    assert_eq!(other.await.unwrap(), Ok(RawBson::Null));
    // Each call that ends makes room for the next one.
    let mut running: Vec<CallId> = taken.into_iter().map(|(id, _)| id).collect();
    while let Some(id) = running.pop().or_else(|| world.pool.take(1).map(|(id, _)| id)) {
        world.pool.finish(id, Ok(RawBson::Null));
    }
    for call in calls {
        assert_eq!(call.await.unwrap(), Ok(RawBson::Null));
    }
}

#[tokio::test]
async fn calls_need_an_environment_and_fail_when_it_goes() {
    let world = World::new(1, Duration::from_secs(60));
    let call = world.call("one");
    settle().await;
    world.attach(1);
    world.pool.take(1).unwrap();
    world.pool.remove_starter(world.starter);
    assert!(call.await.unwrap().is_err());
    let error = world.call("two").await.unwrap().unwrap_err();
    assert_eq!(error.code, ErrorCode::FunctionExecutionError);
    // A thread that attaches too late is not wanted.
    assert!(!world.pool.attach(1, Arc::new(Thread::default())));
}

#[tokio::test]
async fn a_thread_that_loops_after_its_call_was_given_up_ends() {
    let world = World::new(1, Duration::from_millis(200));
    let call = world.call("loop");
    settle().await;
    let thread = world.attach(1);
    let (id, _) = world.pool.take(1).unwrap();
    // The time limit is over before the thread counts as stuck.
    assert_eq!(call.await.unwrap().unwrap_err().code, ErrorCode::ExecutionTimeLimitExceeded);
    assert_eq!(*thread.cancelled.lock().unwrap(), [id]);
    tokio::time::sleep(Duration::from_millis(1800)).await;
    assert_eq!(*world.program.ended.lock().unwrap(), [1]);
}

#[tokio::test]
async fn calls_with_large_arguments_run_one_after_the_other_on_a_thread() {
    let world = World::new(1, Duration::from_secs(60));
    let large = || {
        let mut arguments = RawArrayBuf::new();
        arguments.push("x".repeat(15 * 1024 * 1024).as_str());
        world.call_with("large", None, arguments)
    };
    let calls = [large(), large(), world.call_of("small", Some(bson::oid::ObjectId::new()))];
    settle().await;
    world.attach(1);
    let (first, invocation) = world.pool.take(1).unwrap();
    assert_eq!(invocation.name, "large");
    let (small, invocation) = world.pool.take(1).unwrap();
    assert_eq!(invocation.name, "small");
    assert!(world.pool.take(1).is_none());
    world.pool.finish(small, Ok(RawBson::Null));
    world.pool.finish(first, Ok(RawBson::Null));
    let (second, _) = world.pool.take(1).unwrap();
    world.pool.finish(second, Ok(RawBson::Null));
    for call in calls {
        assert_eq!(call.await.unwrap(), Ok(RawBson::Null));
    }
}

#[tokio::test]
async fn arguments_that_are_large_for_the_memory_limit_are_refused() {
    let world = World::new(1, Duration::from_secs(60));
    let mut arguments = RawArrayBuf::new();
    arguments.push("x".repeat(22 * 1024 * 1024).as_str());
    let error = world.call_with("large", None, arguments).await.unwrap().unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidParameter);
    assert!(error.message.contains("350 MB"), "{error}");
    assert!(world.started().is_empty());
}

#[tokio::test]
async fn calls_end_before_the_threads_of_an_app_that_closes_if_another_app_goes_on() {
    let world = World::new(1, Duration::from_secs(60));
    let call = world.call("one");
    settle().await;
    world.attach(1);
    let (id, _) = world.pool.take(1).unwrap();
    let other = Arc::new(Program::default());
    world.pool.add_starter(Arc::clone(&other) as _, false, false);
    let (pool, starter) = (Arc::clone(&world.pool), world.starter);
    let closing = tokio::spawn(async move {
        pool.drain(starter).await;
        pool.remove_starter(starter);
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    // Later calls get a thread of the other app.
    let next = world.call("next");
    settle().await;
    assert_eq!(*other.started.lock().unwrap(), [2]);
    world.pool.finish(id, Ok(RawBson::Int32(1)));
    assert_eq!(call.await.unwrap(), Ok(RawBson::Int32(1)));
    closing.await.unwrap();
    world.attach(2);
    let (id, _) = world.pool.take(2).unwrap();
    world.pool.finish(id, Ok(RawBson::Null));
    assert_eq!(next.await.unwrap(), Ok(RawBson::Null));
}

#[tokio::test]
async fn an_app_that_joins_brings_its_threads_and_the_limits_that_it_sets() {
    let world = World::new(1, FunctionOptions::default().time_limit);
    let usual = FunctionOptions::default();
    world.pool.join(FunctionOptions { threads: 3, time_limit: Duration::from_secs(1), ..usual });
    world.pool.join(usual);
    let options = world.pool.0.state().options;
    assert_eq!((options.threads, options.time_limit.as_secs(), options.memory_limit), (3, 1, usual.memory_limit));
    // Its environment is preferred, because its threads have its memory limit.
    let preferred = Arc::new(Program::default());
    world.pool.add_starter(Arc::clone(&preferred) as _, false, true);
    let call = world.call("one");
    settle().await;
    assert_eq!((world.started(), preferred.started.lock().unwrap().len()), (vec![], 1));
    world.pool.close();
    assert!(call.await.unwrap().is_err());
}

#[tokio::test]
async fn users_take_turns() {
    let world = World::new(1, Duration::from_secs(10));
    let user = |number: u8| Some(bson::oid::ObjectId::from_bytes([number; 12]));
    let mut calls: Vec<_> = (0..5).map(|_| world.call_of("many", user(1))).collect();
    settle().await;
    calls.push(world.call_of("one", user(2)));
    calls.push(world.call_of("one", user(3)));
    settle().await;
    world.attach(1);
    let names: Vec<String> =
        std::iter::from_fn(|| world.pool.take(1)).map(|(_, invocation)| invocation.name.clone()).collect();
    assert_eq!(names, ["many", "one", "one", "many", "many", "many", "many"]);
}

#[tokio::test]
async fn a_user_takes_at_most_half_of_the_places_that_are_free() {
    let world = World::new(1, Duration::from_secs(10));
    let mut calls = Vec::new();
    for number in 1..=6 {
        let user = Some(bson::oid::ObjectId::from_bytes([number; 12]));
        calls.extend((0..70).map(|_| world.call_of("slow", user)));
        settle().await;
        if number == 1 {
            world.attach(1);
        }
        let taken = std::iter::from_fn(|| world.pool.take(1)).count();
        assert!(taken > 0, "user {number} got no place");
    }
}

#[tokio::test]
async fn a_hook_is_stopped_when_nothing_waits_for_it_and_the_call_of_a_user_is_not() {
    let world = World::new(1, Duration::from_secs(60));
    let hook = || Invocation {
        hook: Some(super::super::HookCall::of_nothing()),
        ..world.invocation("hook", None, RawArrayBuf::new())
    };
    let (running, other) = (world.run(hook()), world.call("other"));
    settle().await;
    let thread = world.attach(1);
    let (stopped, _) = world.pool.take(1).unwrap();
    let (kept, _) = world.pool.take(1).unwrap();
    let waiting = world.run(hook());
    settle().await;
    [&running, &other, &waiting].into_iter().for_each(tokio::task::JoinHandle::abort);
    tokio::time::sleep(WATCH_INTERVAL * 4).await;
    assert_eq!(*thread.cancelled.lock().unwrap(), [stopped]);
    assert!(world.pool.running(stopped).is_none());
    assert!(world.pool.running(kept).is_some());
    assert_eq!(world.pool.0.state().calls.len(), 1);
}
