#![allow(clippy::unwrap_used)]

use std::{fs, thread::sleep};

use super::*;
use crate::{Environment, Options, open_memory, stores::Stores};

const PROVIDERS: &str = r#"{ "anon-user": { "name": "anon-user", "type": "anon-user", "disabled": false } }"#;

/// An app whose definition is in a directory.
struct World {
    directory: tempfile::TempDir,
    reload: Reload,
    current: Arc<Current>,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("auth")).unwrap();
        fs::write(directory.path().join("auth/providers.json"), PROVIDERS).unwrap();
        let definition = Definition::load(directory.path(), &Secrets::default()).unwrap();
        let reload = Reload::new(&definition);
        let options = Options::default();
        let store = open_memory(&options, &Environment::system()).unwrap();
        let make =
            |current| Context::new("app", definition, Stores::of_one(store), Environment::system(), &options, current);
        Self { directory, reload, current: Current::new(make) }
    }

    /// Gives the definition a function.
    fn add(&self, name: &str) {
        let functions = self.directory.path().join("functions");
        fs::create_dir_all(&functions).unwrap();
        fs::write(functions.join(format!("{name}.js")), "exports = () => 1;").unwrap();
    }

    fn poll(&self) -> Option<Definition> {
        self.reload.poll(self.directory.path(), &Secrets::default()).unwrap()
    }

    fn read(&self) -> Definition {
        assert!(self.poll().is_none());
        sleep(QUIET);
        self.poll().unwrap()
    }
}

#[test]
fn several_watchers_read_files_only_when_they_are_quiet() {
    let world = World::new();
    assert!(world.poll().is_none());
    world.add("one");
    // Several watchers look at the files shortly after each other.
    assert!((0..3).all(|_| world.poll().is_none()));
    sleep(QUIET / 2);
    world.add("two");
    assert!((0..3).all(|_| world.poll().is_none()));
    sleep(QUIET * 2 / 3);
    assert!(world.poll().is_none(), "the second file is too new");
    sleep(QUIET / 2);
    assert!(world.poll().unwrap().functions.get("two").is_some());
    assert!(world.poll().is_none());
}

#[tokio::test]
async fn an_older_definition_does_not_replace_a_newer_one() {
    let world = World::new();
    world.add("one");
    let older = world.read();
    world.add("two");
    let newer = world.read();
    world.reload.apply(&world.current, newer).await.unwrap();
    world.reload.apply(&world.current, older).await.unwrap();
    assert!(world.current.get().definition.functions.get("two").is_some());
}

#[test]
fn a_definition_that_could_not_be_put_in_force_is_read_again() {
    let world = World::new();
    world.add("one");
    let definition = world.read();
    world.reload.try_again(definition.fingerprint);
    assert!(world.poll().is_none());
    sleep(QUIET);
    assert!(world.poll().is_none(), "a pause comes first");
    world.reload.seen().paused_until = None;
    assert!(world.poll().is_some());
    assert!(world.poll().is_none());
}
