//! A JavaScript function that any thread can call. It runs on the thread of its environment
//! (<https://nodejs.org/api/n-api.html#asynchronous-thread-safe-function-calls>).
//!
//! napi-rs has such functions too, but its feature for them creates an additional function in each
//! environment, which Node counts as an open handle until the environment ends. The feature is
//! therefore off, and this module uses Node's interface.

#![allow(unsafe_code, reason = "Node's interface consists of unsafe functions over pointers")]

use std::{
    ffi::c_void,
    ptr::null_mut,
    sync::{Arc, Mutex, PoisonError},
};

use napi::{
    Env, JsError, JsValue,
    bindgen_prelude::{FromNapiValue, Function, JsValuesTupleIntoVec, retain_current_module_for_unload_safety},
    check_status, sys,
};

/// The function. It is released on drop.
pub(crate) struct Wake<A: JsValuesTupleIntoVec + 'static> {
    shared: Arc<CallbackState<A>>,
}

struct CallbackState<A> {
    /// `None` after the function is released or its environment has ended. Node frees the function
    /// only after [`finalize`], which waits for this lock.
    raw: Mutex<Option<Raw>>,
    arguments: Box<dyn Fn(&Env) -> A + Send + Sync>,
}

struct Raw(sys::napi_threadsafe_function);

// SAFETY: any thread may call and release a thread-safe function.
unsafe impl Send for Raw {}

impl<A> CallbackState<A> {
    fn with<T>(&self, run: impl FnOnce(&mut Option<Raw>) -> T) -> T {
        run(&mut self.raw.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<A: JsValuesTupleIntoVec + 'static> Wake<A> {
    /// Prepares a function for calls from any thread. For each call, `arguments` runs on the
    /// environment's thread. The function does not keep the process alive.
    ///
    /// # Errors
    /// If Node cannot create the function.
    pub(crate) fn new(
        env: &Env,
        function: &Function<'_, A, ()>,
        arguments: impl Fn(&Env) -> A + Send + Sync + 'static,
    ) -> napi::Result<Self> {
        // Threads outlive the environments, and Node would unload the addon with the last
        // environment.
        retain_current_module_for_unload_safety();
        let shared = Arc::new(CallbackState { raw: Mutex::new(None), arguments: Box::new(arguments) });
        let name = env.create_string("Userkeep")?;
        let context = Arc::into_raw(Arc::clone(&shared)).cast_mut().cast::<c_void>();
        let mut raw = null_mut();
        // SAFETY: the values belong to `env`, on whose thread this runs. `context` is valid until
        // `finalize`.
        let status = unsafe {
            sys::napi_create_threadsafe_function(
                env.raw(),
                function.raw(),
                null_mut(),
                name.raw(),
                0,
                1,
                context,
                Some(finalize::<A>),
                context,
                Some(call::<A>),
                &raw mut raw,
            )
        };
        if status != sys::Status::napi_ok {
            // SAFETY: Node has not taken the reference that `into_raw` created.
            drop(unsafe { Arc::from_raw(context.cast_const().cast::<CallbackState<A>>()) });
        }
        check_status!(status, "Userkeep cannot create its function for other threads")?;
        shared.with(|held| *held = Some(Raw(raw)));
        let wake = Self { shared };
        wake.keep_alive(env, false);
        Ok(wake)
    }

    /// Schedules a call of the function, unless it is released.
    pub(crate) fn call(&self) {
        self.shared.with(|held| {
            let Some(Raw(raw)) = held else { return };
            // SAFETY: a function that is not released cannot be freed while the lock is held.
            let status = unsafe {
                sys::napi_call_threadsafe_function(*raw, null_mut(), sys::ThreadsafeFunctionCallMode::nonblocking)
            };
            if status != sys::Status::napi_ok {
                // The environment is ending, and this call has released our reference to the
                // function.
                *held = None;
            }
        });
    }

    /// Sets whether the function keeps the process alive. Must be called on the environment's
    /// thread.
    pub(crate) fn keep_alive(&self, env: &Env, keep: bool) {
        self.shared.with(|held| {
            let Some(Raw(raw)) = held else { return };
            // SAFETY: as in `call`; `env` is the environment that created the function.
            unsafe {
                if keep {
                    sys::napi_ref_threadsafe_function(env.raw(), *raw);
                } else {
                    sys::napi_unref_threadsafe_function(env.raw(), *raw);
                }
            }
        });
    }

    /// Releases the function. Calls that are already scheduled still run.
    pub(crate) fn release(&self) {
        self.shared.with(|held| {
            let Some(Raw(raw)) = held.take() else { return };
            // SAFETY: as in `call`. It is released only once, because it has been taken.
            unsafe { sys::napi_release_threadsafe_function(raw, sys::ThreadsafeFunctionReleaseMode::release) };
        });
    }
}

impl<A: JsValuesTupleIntoVec + 'static> Drop for Wake<A> {
    fn drop(&mut self) {
        self.release();
    }
}

/// Called by Node on the environment's thread before it frees the function.
unsafe extern "C" fn finalize<A>(_: sys::napi_env, context: *mut c_void, _: *mut c_void) {
    // SAFETY: `context` is the reference that `new` created. Node calls this once.
    let shared = unsafe { Arc::from_raw(context.cast_const().cast::<CallbackState<A>>()) };
    shared.with(|held| *held = None);
}

unsafe extern "C" fn call<A: JsValuesTupleIntoVec>(
    env: sys::napi_env,
    function: sys::napi_value,
    context: *mut c_void,
    _: *mut c_void,
) {
    // Without an environment, Node only empties the queue, and `finalize` has run.
    if env.is_null() || function.is_null() {
        return;
    }
    // SAFETY: `context` is valid until `finalize`, and `function` is the function that was passed
    // to `new`.
    let (shared, function) = unsafe {
        (&*context.cast_const().cast::<CallbackState<A>>(), Function::<A, ()>::from_napi_value(env, function))
    };
    let environment = Env::from_raw(env);
    if let Err(error) = function.and_then(|function| function.call((shared.arguments)(&environment))) {
        // SAFETY: `env` is the environment of this call.
        unsafe { sys::napi_fatal_exception(env, JsError::from(error).into_value(env)) };
    }
}
