#![allow(clippy::unwrap_used, clippy::panic)]

use std::{fs, time::Duration};

use bson::rawbson;

use super::*;
use crate::{
    Definition, Environment, LogQuery, Options, Secrets,
    functions::{CallId, FunctionHost, HostId, HostStarter},
    open_memory,
    stores::Stores,
};

const CONFIG: &str = r#"[{ "name": "secret", "disable_arg_logs": true, "run_as_user_id_script_source": "exports = () => 1" },
    { "name": "open", "run_as_user_id_script_source": "exports = () => 1" }]"#;

/// A thread of functions, whose calls the test ends.
struct Thread;

impl HostStarter for Thread {
    fn start(&self, _host: HostId) {}
    fn end(&self, _host: HostId) {}
}

impl FunctionHost for Thread {
    fn wake(&self) {}
    fn cancel(&self, _call: CallId) {}
}

/// Returns an app with two functions, and its thread.
async fn app() -> (Arc<Context>, HostId) {
    let directory = tempfile::tempdir().unwrap();
    for (path, text) in [
        ("auth/providers.json", r#"{ "anon-user": { "name": "anon-user", "type": "anon-user", "disabled": false } }"#),
        ("functions/config.json", CONFIG),
        ("functions/secret.js", "exports = () => 1"),
        ("functions/open.js", "exports = () => 1"),
    ] {
        let path = directory.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let definition = Definition::load(directory.path(), &Secrets::default()).unwrap();
    let (environment, options) = (Environment::system(), Options::default());
    let stores = Stores::of_one(open_memory(&options, &environment).unwrap());
    let make = |current| Context::new("app", definition, stores, environment, &options, current);
    let context = crate::context::Current::new(make).get();
    context.prepare().await.unwrap();
    context.functions.add_starter(Arc::new(Thread), false, false);
    (context, 1)
}

fn start(context: &Arc<Context>, name: &'static str) -> tokio::task::JoinHandle<Result<RawDocumentBuf>> {
    let context = Arc::clone(context);
    let mut arguments = RawArrayBuf::new();
    arguments.push("PRIVATE");
    tokio::spawn(async move { run_for_operator(&context, name, arguments, None).await })
}

/// Returns the next call that the thread gets.
async fn next(context: &Arc<Context>, host: HostId) -> (CallId, Arc<Invocation>) {
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(1)).await;
        if let Some(call) = context.functions.take(host) {
            return call;
        }
    }
    panic!("the thread gets no call");
}

async fn entries(context: &Context) -> Vec<RawDocumentBuf> {
    context.logs.search(&LogQuery::default()).await.unwrap()
}

fn line(text: &str) -> RawDocumentBuf {
    rawdoc! { "messages": [{ "level": "info", "text": text }], "dropped": 0 }
}

/// Runs a function of which the script and the function itself write a line. Returns the entry.
async fn entry_of(name: &'static str, answer: RawBson) -> RawDocumentBuf {
    let (context, host) = app().await;
    let call = start(&context, name);
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert!(context.functions.attach(host, Arc::new(Thread)));
    let (id, script) = next(&context, host).await;
    script.set_console(&line("of the script"));
    let is_user = matches!(answer, RawBson::Document(_));
    context.functions.finish(id, Ok(answer));
    if is_user {
        let (id, function) = next(&context, host).await;
        function.set_console(&line("of the function"));
        context.functions.finish(id, Ok(RawBson::Int32(1)));
    }
    call.await.unwrap().unwrap();
    let [entry] = entries(&context).await.try_into().unwrap();
    assert_eq!(entry.get_str("name").unwrap(), name);
    entry
}

fn lines(entry: &RawDocument) -> RawBson {
    RawBson::Array(entry.get_array("messages").unwrap().to_owned())
}

fn info(texts: &[&str]) -> RawBson {
    let lines = texts.iter().map(|text| rawdoc! { "level": "info", "text": *text });
    RawBson::Array(lines.collect())
}

#[tokio::test]
async fn a_script_has_no_entry_of_its_own() {
    let system = || rawbson!({ "runAsSystem": true });
    let secret = entry_of("secret", system()).await;
    assert!(secret.get("arguments").unwrap().is_none());
    assert_eq!(lines(&secret), info(&["of the script", "of the function"]));
    let open = entry_of("open", system()).await;
    assert!(open.get("arguments").unwrap().is_some());
    // The script fails.
    let failed = entry_of("secret", RawBson::Int32(5)).await;
    assert!(failed.get("arguments").unwrap().is_none());
    assert!(failed.get_str("error").unwrap().contains("error finding user"));
    assert_eq!(lines(&failed), info(&["of the script"]));
}

#[tokio::test]
async fn a_call_for_which_nobody_waits_has_an_entry() {
    let (context, _) = app().await;
    let call = start(&context, "open");
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert!(entries(&context).await.is_empty());
    call.abort();
    assert!(call.await.is_err());
    let [entry] = entries(&context).await.try_into().unwrap();
    assert_eq!((entry.get_str("name").unwrap(), entry.get_i32("status").unwrap()), ("open", 499));
    assert!(entry.get_str("error").unwrap().starts_with("canceled"));
}
