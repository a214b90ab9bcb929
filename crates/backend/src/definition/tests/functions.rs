//! Functions: their manifest and their sources.

use super::*;

fn functions(files: &[(&str, &str)]) -> Functions {
    let mut all = vec![PROVIDERS];
    all.extend(files);
    load(&all).unwrap().functions
}

/// Returns the problems of the functions as `check` prints them.
fn problems(files: &[(&str, &str)]) -> Vec<String> {
    let mut all = vec![PROVIDERS];
    all.extend(files);
    check(&all)
}

const MANIFEST: &str = "functions/config.json";

#[test]
fn functions_have_their_settings_and_sources() {
    let manifest = r#"[
        { "name": "plain" },
        { "id": "1", "name": "a/b", "private": true, "run_as_system": true, "disable_arg_logs": true, "can_evaluate": {} },
        { "name": "as-user", "run_as_user_id": "u1", "run_as_user_id_script_source": "", "can_evaluate": { "%%user.id": "u1" } },
        { "name": "scripted", "run_as_user_id_script_source": "exports = () => 'u2'", "run_as_user_id": " " }
    ]"#;
    let functions = functions(&[
        (MANIFEST, manifest),
        ("functions/plain.js", "\u{feff} exports = 1"),
        ("functions/a/b.js", "exports = 2"),
        ("functions/as-user.js", "exports = 3"),
        ("functions/scripted.js", "exports = 4"),
        ("functions/package.json", "{ not read"),
        ("functions/node_modules/x/index.js", "module.exports = 5"),
        ("functions/.hidden.js", "exports = 6"),
        ("other.js", "exports = 7"),
    ]);
    assert!(functions.has_package());
    let names: Vec<_> = functions.iter().map(|function| function.name.as_str()).collect();
    assert_eq!(names, ["a/b", "as-user", "plain", "scripted"]);
    let plain = functions.get("plain").unwrap();
    assert_eq!((plain.source.as_deref(), plain.file.as_str()), (Some(" exports = 1"), "functions/plain.js"));
    assert!(!plain.private && plain.log_arguments && plain.condition.is_none() && plain.run_as == RunAs::Caller);
    let nested = functions.get("a/b").unwrap();
    assert_eq!((nested.source.as_deref(), nested.file.as_str()), (Some("exports = 2"), "functions/a/b.js"));
    assert!(nested.private && !nested.log_arguments && nested.condition.is_none() && nested.run_as == RunAs::System);
    let as_user = functions.get("as-user").unwrap();
    assert_eq!(as_user.run_as, RunAs::User("u1".into()));
    let allows = |id: &str| {
        let user = bson::rawdoc! { "id": id };
        as_user.condition.as_ref().unwrap().allows(&user, &bson::rawdoc! {}, None)
    };
    assert!(allows("u1") && !allows("u2"));
    assert_eq!(functions.get("scripted").unwrap().run_as, RunAs::Script("exports = () => 'u2'".into()));
    assert!(functions.get("none").is_none());
}

#[test]
fn functions_of_the_older_layout_load() {
    let files = [
        ("functions/f/config.json", r#"{ "id": "1", "name": "f", "private": true }"#),
        ("functions/f/source.js", "exports = 1"),
        ("functions/f/helper.js", "exports = 2"),
        ("functions/g/config.json", r#"{ "name": "other", "run_as_system": true }"#),
        // The current layout has a nested function of this name.
        ("functions/h/source.js", "exports = 3"),
        ("functions/tool/config.json", r#"{ "rules": {} }"#),
    ];
    let functions = functions(&files);
    let found: Vec<_> = functions.iter().map(|it| (it.name.as_str(), it.file.as_str(), it.source.is_some())).collect();
    assert_eq!(
        found,
        [
            ("f", "functions/f/source.js", true),
            ("f/helper", "functions/f/helper.js", true),
            ("g", "functions/g/source.js", false),
            ("h/source", "functions/h/source.js", true),
        ]
    );
    assert!(functions.get("f").unwrap().private && functions.get("g").unwrap().run_as == RunAs::System);
    assert_eq!(
        problems(&files),
        [
            "warning: functions/g/config.json at $.name: differs from the name of its directory, which is used",
            "warning: functions/tool/config.json: the file is not known and not used",
            "warning: functions/config.json: the definition has no source of 'g'; a call of it fails",
            "warning: functions/config.json: not listed here, so that all users may call it: 'f/helper', 'h/source'",
        ]
    );
}

#[test]
fn ambiguous_or_wrong_entries_are_errors_with_their_place() {
    let entry =
        |entry: &str| problems(&[(MANIFEST, &format!(r#"[{{ "name": "f" }}, {entry}]"#)), ("functions/f.js", "")]);
    for (text, expected) in [
        (r#"{ "name": "f" }"#, "$[1].name: the function 'f' is listed twice"),
        (r#"{ "name": 5 }"#, "$[1].name: expected a string, got 5"),
        (r#"{ "private": true }"#, "$[1].name: is required: the name of the function"),
        (r#""f""#, r#"$[1]: expected an object, got "f""#),
        (r#"{ "name": "g", "private": "yes" }"#, r#"$[1].private: expected true or false, got "yes""#),
        (r#"{ "name": "g", "run_as_system": 1 }"#, "$[1].run_as_system: expected true or false, got 1"),
        (
            r#"{ "name": "g", "run_as_user_id": "u", "run_as_user_id_script_source": "s" }"#,
            "$[1].run_as_user_id: cannot be combined with run_as_user_id_script_source",
        ),
        (
            r#"{ "name": "g", "can_evaluate": { "%or": [{ "%%root.a": 1 }] } }"#,
            "$[1].can_evaluate.%or[0].%%root.a: the expansion %%root.a names a document, but the condition of a function has none",
        ),
        (
            r#"{ "name": "g", "can_evaluate": { "%function": { "name": "f" } } }"#,
            "$[1].can_evaluate.%function: the operator %function is not supported yet",
        ),
        (
            r#"{ "name": "g", "can_evaluate": null }"#,
            "$[1].can_evaluate: an expression must be true, false or an object",
        ),
        (
            r#"{ "name": "g", "can_evaluate": { "dirty": true, "input": "{\"a\": 1}", "error": null } }"#,
            "$[1].can_evaluate: contains the state of an editor: expected the expression itself",
        ),
    ] {
        let errors: Vec<_> = entry(text).into_iter().filter(|problem| problem.starts_with("error")).collect();
        assert_eq!(errors, [format!("error: {MANIFEST} at {expected}")], "{text}");
    }
    for name in ["../f", "a/../f", "..", ".", "a//b", "/f", "f/", "a\\b", "a\\u0000b", "a\\nb"] {
        let name = name.replace('\\', if name.contains("\\u") || name.contains("\\n") { "\\" } else { "\\\\" });
        let problems = entry(&format!(r#"{{ "name": "{name}" }}"#));
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].contains("is not the name of a function"), "{problems:?}");
        assert!(problems[0].starts_with("error: functions/config.json at $[1].name: "), "{problems:?}");
    }
    assert_eq!(
        problems(&[(MANIFEST, r#""f""#)]),
        [format!("error: {MANIFEST} at $: expected a list of functions, got a string")]
    );
    assert_eq!(problems(&[(MANIFEST, "{}")]), [""; 0]);
    let older = ("functions/f/config.json", r#"{ "name": "f" }"#);
    assert_eq!(
        problems(&[(MANIFEST, r#"[{ "name": "f" }]"#), older, ("functions/f.js", "")]),
        [format!("error: functions/f/config.json: the function 'f' is listed in {MANIFEST} too")]
    );
    assert_eq!(
        problems(&[older, ("functions/f.js", ""), ("functions/f/source.js", "")]),
        ["error: functions/f.js: the function 'f' has the source functions/f/source.js too"]
    );
    assert!(problems(&[("functions/f/config.json", "{"), ("functions/f/source.js", "")])[0].starts_with("error: "));
}

#[test]
fn residue_of_the_editor_is_no_condition() {
    for residue in [r#"{ "dirty": false, "input": "{}", "error": null }"#, r#"{ "input": "" }"#] {
        let files = [
            (MANIFEST, format!(r#"[{{ "name": "f", "can_evaluate": {residue} }}]"#)),
            ("functions/f.js", String::new()),
        ];
        let files = files.each_ref().map(|(path, text)| (*path, text.as_str()));
        assert!(functions(&files).get("f").unwrap().condition.is_none());
        assert_eq!(
            problems(&files),
            [format!(
                "warning: {MANIFEST} at $[0].can_evaluate: contains the state of an empty editor, and so no condition"
            )]
        );
    }
    // Arguments may have these names.
    let named = r#"[{ "name": "f", "can_evaluate": { "dirty": false } }]"#;
    assert!(functions(&[(MANIFEST, named)]).get("f").unwrap().condition.is_some());
}

#[test]
fn the_system_user_beats_another_one() {
    let manifest =
        r#"[{ "name": "f", "run_as_system": true, "run_as_user_id": "u", "run_as_user_id_script_source": "s" }]"#;
    let files = [(MANIFEST, manifest), ("functions/f.js", "")];
    assert_eq!(functions(&files).get("f").unwrap().run_as, RunAs::System);
    assert_eq!(
        problems(&files),
        [format!(
            "warning: {MANIFEST} at $[0].run_as_system: the function runs as the system user, and not as the user that is named too"
        )]
    );
}

#[test]
fn a_manifest_with_very_many_entries_is_read_in_time() {
    let entries: Vec<_> = (0..100_000).map(|number| format!(r#"{{ "name": "f{number}", "private": true }}"#)).collect();
    let manifest = format!("[{}]", entries.join(","));
    let begun = std::time::Instant::now();
    let definition = load(&[PROVIDERS, (MANIFEST, &manifest)]).unwrap();
    assert!(begun.elapsed() < std::time::Duration::from_secs(20), "{:?}", begun.elapsed());
    assert_eq!(definition.functions.iter().count(), 100_000);
    assert_eq!(definition.reported.len(), 1);
    assert!(definition.reported[0].message.contains("and 99990 more"), "{:?}", definition.reported);
    let nested =
        format!(r#"[{{ "name": "f", "can_evaluate": {}true{} }}]"#, r#"{ "%not": "#.repeat(5000), "}".repeat(5000));
    let problems = problems(&[(MANIFEST, &nested)]);
    assert!(problems.len() == 1 && problems[0].contains("recursion limit exceeded"), "{problems:?}");
    let nested =
        format!(r#"[{{ "name": "f", "can_evaluate": {}true{} }}]"#, r#"{ "%not": "#.repeat(100), "}".repeat(100));
    assert!(functions(&[(MANIFEST, &nested)]).get("f").unwrap().condition.is_some());
}

#[cfg(unix)]
#[test]
fn sources_that_cannot_be_read_are_missing_and_loops_end() {
    use std::os::unix::fs::symlink;
    let directory = write(&[PROVIDERS, ("functions/f.js", "exports = 1"), ("functions/bytes.js", "")]);
    let at = |path: &str| directory.path().join("functions").join(path);
    fs::write(at("bytes.js"), [0xff, 0xfe]).unwrap();
    fs::File::create(at("large.js")).unwrap().set_len(16 * 1024 * 1024 + 1).unwrap();
    symlink("/dev/zero", at("device.js")).unwrap();
    symlink("..", at("up")).unwrap();
    symlink(".", at("here")).unwrap();
    symlink("loop.js", at("loop.js")).unwrap();
    let definition = Definition::load(directory.path(), &Secrets::default()).unwrap();
    let found: Vec<_> = definition.functions.iter().map(|it| (it.name.as_str(), it.source.is_some())).collect();
    let expected = [("bytes", false), ("device", false), ("f", true), ("large", false), ("loop", false)];
    assert_eq!(found, expected);
    let reported: Vec<_> = definition.reported.iter().map(ToString::to_string).collect();
    for expected in [
        "functions/bytes.js: cannot be read: it is not UTF-8",
        "functions/device.js: cannot be read: it is not a regular file",
        "functions/large.js: cannot be read: it has more than 16777216 bytes",
        "functions/config.json: the definition has no source of 'bytes', 'device', 'large', 'loop'; a call of it fails",
    ] {
        assert!(reported.iter().any(|problem| problem == expected), "{expected} {reported:?}");
    }
}
