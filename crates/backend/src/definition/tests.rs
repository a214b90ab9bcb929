#![allow(clippy::unwrap_used)]

use std::fs;

use super::*;

mod constants;
mod functions;

/// True if users of `local-userpass` are confirmed on registration.
fn confirms_automatically(definition: &Definition) -> bool {
    let provider = definition.providers.get("local-userpass").unwrap();
    format!("{provider:?}").contains("confirmation: Automatic")
}

fn write(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = directory.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    directory
}

const PROVIDERS: (&str, &str) = (
    "auth/providers.json",
    r#"{ "anon-user": { "name": "anon-user", "type": "anon-user", "disabled": false },
         "local-userpass": { "name": "local-userpass", "type": "local-userpass", "config": { "autoConfirm": true, "resetPasswordUrl": "" }, "disabled": false },
         "api-key": { "name": "api-key", "type": "api-key", "disabled": true } }"#,
);
const SOURCE: (&str, &str) = ("data_sources/m/config.json", r#"{ "name": "m", "type": "mongodb-atlas" }"#);
const RULES: &str = r#"{ "database": "app", "collection": "people", "filters": [],
    "roles": [{ "name": "own", "apply_when": { "userId": "%%user.id" }, "read": true, "write": true, "insert": true, "delete": true, "search": true }] }"#;

#[cfg(target_os = "linux")]
#[test]
fn only_regular_files_of_a_limited_size_are_read_and_loops_of_links_once() {
    use std::os::unix::fs::symlink;
    let directory = write(&[PROVIDERS, SOURCE, ("data_sources/m/app/people/rules.json", RULES)]);
    let at = |path: &str| directory.path().join(path);
    // With links back from several directories, each level would have several times as many.
    for number in 0..6 {
        symlink(directory.path(), at(&format!("functions{number}"))).unwrap();
        symlink("..", at(&format!("data_sources/up{number}"))).unwrap();
    }
    // A directory may be used twice.
    symlink("m/app", at("data_sources/m/other")).unwrap();
    let begun = std::time::Instant::now();
    let _ = Definition::check(directory.path(), &Secrets::default());
    assert!(begun.elapsed() < std::time::Duration::from_secs(5), "{:?}", begun.elapsed());

    let file = at("auth/custom_user_data.json");
    let problem = || Definition::load(directory.path(), &Secrets::default()).unwrap_err().to_string();
    rustix::fs::mknodat(rustix::fs::CWD, &file, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
    assert!(
        problem().contains("auth/custom_user_data.json: cannot be read: it is not a regular file"),
        "{}",
        problem()
    );
    fs::remove_file(&file).unwrap();
    symlink("/dev/zero", &file).unwrap();
    assert!(
        problem().contains("auth/custom_user_data.json: cannot be read: it is not a regular file"),
        "{}",
        problem()
    );
    fs::remove_file(&file).unwrap();
    fs::File::create(&file).unwrap().set_len(16 * 1024 * 1024 + 1).unwrap();
    assert!(problem().contains("cannot be read: it has more than 16777216 bytes"), "{}", problem());
}

fn load(files: &[(&str, &str)]) -> Result<Definition, DefinitionError> {
    let directory = write(files);
    Definition::load(directory.path(), &Secrets::default())
}

#[test]
fn both_layouts_load() {
    let custom = r#"{ "enabled": true, "mongo_service_name": "mongodb-atlas", "database_name": "app", "collection_name": "people", "user_id_field": "userId" }"#;
    for root in [
        (
            "realm_config.json",
            r#"{ "app_id": "myapp-abcde", "config_version": 20210101, "name": "My", "location": "US-VA", "provider_region": "aws-us-east-1", "deployment_model": "GLOBAL" }"#,
        ),
        (
            "root_config.json",
            r#"{ "app_id": "myapp-abcde", "name": "My", "deployment_model": "LOCAL", "environment": "" }"#,
        ),
    ] {
        let definition = load(&[
            root,
            PROVIDERS,
            ("auth/custom_user_data.json", custom),
            (
                "data_sources/mongodb-atlas/config.json",
                r#"{ "name": "mongodb-atlas", "type": "mongodb-atlas", "version": 1, "config": {} }"#,
            ),
            ("data_sources/mongodb-atlas/app/people/rules.json", RULES),
            ("data_sources/mongodb-atlas/app/people/relationships.json", "{}"),
            ("data_sources/mongodb-atlas/default_rule.json", r#"{ "roles": [], "filters": [] }"#),
            ("functions/config.json", "[]"),
            ("graphql/config.json", "{}"),
            ("http_endpoints/config.json", "[]"),
            ("sync/config.json", "{}"),
            ("environments/no-environment.json", r#"{ "values": {} }"#),
        ])
        .unwrap();
        assert_eq!(definition.reported, [], "{root:?}");
        assert_eq!(definition.app_id.as_deref(), Some("myapp-abcde"));
        assert!(definition.providers.is_enabled("anon-user") && confirms_automatically(&definition));
        assert_eq!(definition.custom_user_data.unwrap().namespace, Namespace::new("app", "people"));
        let service = &definition.services["mongodb-atlas"];
        assert!(service.rules(&Namespace::new("app", "people")).is_some());
        assert!(
            service.rules(&Namespace::new("app", "other")).is_none(),
            "a default rule without roles does not apply"
        );
    }
}

#[test]
fn features_whose_loss_would_widen_access_are_errors_with_file_and_path() {
    let role = |more: &str| format!(r#"{{ "roles": [{{ "name": "r", "apply_when": {{}}, "read": true{more} }}] }}"#);
    let rules = "data_sources/m/d/c/rules.json";
    let cases = [
        (rules, role(r#", "fields": { "a": { "read": true } }"#), "$.roles[0].fields"),
        (rules, role(r#", "additional_fields": { "read": true }"#), "$.roles[0].additional_fields"),
        (rules, role(r#", "write": { "a": { "%oidToString": "%%user.id" } }"#), "$.roles[0].write.a"),
        (rules, role(r#", "document_filters": { "read": { "%or": [{ "%%root.x": 1 }] }, "write": true }"#), "$.roles[0].document_filters.read.%or[0].%%root.x"),
        (rules, r#"{ "filters": [{ "name": "f", "apply_when": {}, "query": {} }] }"#.into(), "$.filters"),
        (rules, r#"{ "roles": {} }"#.into(), "$.roles"),
        (rules, r#"{ "roles": [{ "name": "r", "read": true }] }"#.into(), "$.roles[0].apply_when"),
        (rules, "{ nonsense".into(), ""),
        ("data_sources/m/d/c/schema.json", r#"{ "bsonType": "object" }"#.into(), ""),
        ("auth/custom_user_data.json", r#"{ "enabled": true, "mongo_service_name": "m", "database_name": "d", "collection_name": "c" }"#.into(), "$.user_id_field"),
        ("auth/custom_user_data.json", r#"{ "enabled": "yes" }"#.into(), "$.enabled"),
        (
            "auth/custom_user_data.json",
            r#"{ "enabled": true, "mongo_service_name": "m", "database_name": "d", "collection_name": "c", "user_id_field": "u", "on_user_creation_function_name": 5 }"#.into(),
            "$.on_user_creation_function_name",
        ),
        ("auth/providers.json", r#"{ "local-userpass": { "disabled": false, "domain_restrictions": ["x.org"] } }"#.into(), "$.local-userpass.domain_restrictions"),
        ("config.json", r#"{ "security": {} }"#.into(), ""),
        ("realm_config.json", r#"{ "allowed_request_origins": [1] }"#.into(), "$.allowed_request_origins[0]"),
        ("realm_config.json", r#"{ "name": "%(%%environment.values.name)" }"#.into(), "$.name"),
        (rules, role(r#", "write": false, "delete": true, "write": true"#), "$.roles[0].write"),
        (rules, role(r#", "wr\u0069te": false, "write": false"#), "$.roles[0].write"),
        (rules, role(r#", "write": { "a": 1, "b": 2, "a": 3 }"#), "$.roles[0].write.a"),
        (rules, role(r#", "write": { "x": { "$regularExpression": { "pattern": "a", "options": "q" } } }"#), "$.roles[0].write.x"),
        ("auth/providers.json", r#"{ "anon-user": { "disabled": true, "disabled": false } }"#.into(), "$.anon-user.disabled"),
        ("environments/no-environment.json", r#"{ "values": { "a": 1, "a": 2 } }"#.into(), "$.values.a"),
        ("data_sources/m/d/c/indexes.json", r#"[{ "key": { "a": 1 }, "unique": false, "unique": true }]"#.into(), "$[0].unique"),
        ("data_sources/m/d/c/collection.json", r#"{ "capped": true }"#.into(), "$.capped"),
        ("data_sources/m/d/c/collection.json", "[]".into(), "$"),
        ("data_sources/m/d/c/collection.json", r#"{ "changeStreamPreAndPostImages": true }"#.into(), "$.changeStreamPreAndPostImages"),
        (
            "data_sources/m/d/c/collection.json",
            r#"{ "changeStreamPreAndPostImages": { "enabled": 1 } }"#.into(),
            "$.changeStreamPreAndPostImages.enabled",
        ),
        (
            "data_sources/m/d/c/collection.json",
            r#"{ "changeStreamPreAndPostImages": { "enabled": true, "expireAfterSeconds": 60 } }"#.into(),
            "$.changeStreamPreAndPostImages.expireAfterSeconds",
        ),
        ("functions/config.json", r#"[{ "name": "f", "private": true, "private": false }]"#.into(), "$[0].private"),
    ];
    for (file, text, path) in cases {
        let mut files = vec![PROVIDERS, SOURCE];
        files.retain(|(name, _)| *name != file);
        files.push((file, &text));
        let error = load(&files).unwrap_err();
        assert_eq!(error.problems.len(), 1, "{error}");
        assert_eq!((error.problems[0].file.as_str(), error.problems[0].path.as_str()), (file, path), "{error}");
        assert!(error.to_string().contains(file));
    }
    assert!(load(&[]).unwrap_err().to_string().contains("auth/providers.json"));
}

#[test]
fn every_duplicate_name_is_reported() {
    let error = load(&[
        PROVIDERS,
        (
            "data_sources/m/d/c/rules.json",
            r#"{ "roles": [], "filters": [], "roles": [{ "name": "r", "name": "s", "apply_when": {} }] }"#,
        ),
        ("realm_config.json", r#"{ "name": "a", "name": "b" }"#),
    ])
    .unwrap_err();
    let places: Vec<_> = error.problems.iter().map(|problem| problem.path.as_str()).collect();
    assert_eq!(places, ["$.roles", "$.roles[0].name", "$.name"]);
    assert!(error.to_string().contains("realm_config.json at $.name: the name is there twice"), "{error}");
}

#[test]
fn unsupported_features_are_reported_and_the_rest_loads() {
    let definition = load(&[
        ("auth/providers.json", r#"{ "custom-token": { "disabled": false }, "local-userpass": { "disabled": false, "config": { "emailConfirmationUrl": "x", "other": 1 } } }"#),
        ("triggers/t.json", "{}"),
        ("functions/config.json", r#"[{ "name": "f" }]"#),
        ("functions/f.js", "exports = 1"),
        ("data_sources/m/d/c/rules.json", r#"{ "database": "elsewhere", "roles": [{ "name": "r", "apply_when": true, "read": true, "colour": "red" }] }"#),
        ("notes.json", "{}"),
    ])
    .unwrap();
    let reported: Vec<_> =
        definition.reported.iter().map(|problem| (problem.file.as_str(), problem.path.as_str())).collect();
    assert_eq!(
        reported,
        [
            ("auth/providers.json", "$.custom-token"),
            ("auth/providers.json", "$.local-userpass.config.autoConfirm"),
            ("auth/providers.json", "$.local-userpass.config.other"),
            ("data_sources/m/d/c/rules.json", "$.database"),
            ("data_sources/m/d/c/rules.json", "$.roles[0].insert"),
            ("data_sources/m/d/c/rules.json", "$.roles[0].delete"),
            ("data_sources/m/d/c/rules.json", "$.roles[0].search"),
            ("data_sources/m/d/c/rules.json", "$.roles[0].colour"),
            ("triggers/t.json", ""),
        ]
    );
    assert!(
        !confirms_automatically(&definition),
        "users that need confirmation by e-mail are never confirmed automatically"
    );
}

/// Returns the problems of a definition as `check` prints them.
fn check(files: &[(&str, &str)]) -> Vec<String> {
    let problems = Definition::check(write(files).path(), &Secrets::default()).problems;
    let kind = |problem: &Problem| if problem.severity == Severity::Refused { "error" } else { "warning" };
    problems.iter().map(|problem| format!("{}: {problem}", kind(problem))).collect()
}

#[test]
fn a_check_finds_the_functions_that_other_files_mention() {
    let manifest = r#"[
        { "name": "byName", "private": true },
        { "name": "byId", "id": "6500000000000000000000aa", "private": true },
        { "name": "alone", "private": true }
    ]"#;
    let directory = write(&[
        PROVIDERS,
        ("functions/config.json", manifest),
        ("triggers/t.json", r#"{ "function_name": "byName" }"#),
        ("triggers/u.json", r#"{ "event_processors": [{ "function_id": "6500000000000000000000aa" }] }"#),
    ]);
    let mentioned = Definition::check(directory.path(), &Secrets::default()).mentioned_functions;
    assert_eq!(mentioned.into_iter().collect::<Vec<_>>(), ["byId", "byName"]);
}

#[test]
fn warnings_are_listed_beside_errors() {
    let problems = check(&[
        PROVIDERS,
        ("data_sources/m/d/c/schema.json", r#"{ "bsonType": "object" }"#),
        ("triggers/t.json", "{}"),
        ("triggers/u.json", "{}"),
    ]);
    assert_eq!(
        problems.iter().map(|problem| problem.split(':').next().unwrap()).collect::<Vec<_>>(),
        ["error", "warning", "warning"],
        "{problems:?}"
    );
    assert!(!Definition::check(write(&[]).path(), &Secrets::default()).allows_any_origin);
    assert!(Definition::check(write(&[PROVIDERS]).path(), &Secrets::default()).allows_any_origin);
}

#[test]
fn a_misspelled_key_is_one_problem_with_its_suggestion() {
    let rules = "data_sources/m/d/c/rules.json";
    let role = |role: &str| check(&[PROVIDERS, (rules, &format!(r#"{{ "roles": [{role}] }}"#))]);
    let permissions = r#""read": true, "write": true, "insert": true, "delete": true, "search": true"#;
    for (key, suffix) in [
        // Similar to the missing key, different from it, and similar with another unknown key.
        ("applyWhen", ""),
        ("when", ""),
        ("apply_wen", r#", "colour": "red""#),
    ] {
        let problems = role(&format!(r#"{{ "name": "r", "{key}": {{}}, {permissions}{suffix} }}"#));
        assert!(
            problems[0].starts_with(&format!("error: {rules} at $.roles[0].apply_when: is required")),
            "{problems:?}"
        );
        assert!(problems[0].ends_with(&format!("the key '{key}' beside it is not known and not used")), "{problems:?}");
        assert_eq!(problems.len(), if suffix.is_empty() { 1 } else { 2 }, "{problems:?}");
    }
    let problems =
        role(&format!(r#"{{ "name": "r", "apply_when": {{}}, {} }}"#, permissions.replace("insert", "inserts")));
    assert_eq!(
        problems,
        [format!(
            "warning: {rules} at $.roles[0].insert: is missing, which means true if writing is allowed; \
             the key 'inserts' beside it is not known and not used"
        )]
    );
    let problems = role(&format!(r#"{{ "name": "r", "apply_when": {{}}, {} }}"#, permissions.replace("read", "raed")));
    assert_eq!(
        problems,
        [format!("warning: {rules} at $.roles[0].raed: the key is not known and not used; did you mean 'read'?")]
    );
    assert_eq!(
        check(&[("auth/providers.json", r#"{ "anon_user": { "disabled": false, "colour": 1 } }"#)]),
        [
            "warning: auth/providers.json at $.anon_user: the provider is not known and not used; did you mean 'anon-user'?"
        ]
    );
}

#[test]
fn one_mistake_is_one_problem_and_shows_the_value() {
    let custom = |text: &str| check(&[PROVIDERS, SOURCE, ("auth/custom_user_data.json", text)]);
    for (text, expected) in [
        (r#"{ "enabled": "yes" }"#, r#"at $.enabled: expected true or false, got "yes""#),
        (
            r#"{ "enabled": "%(%%environment.values.on)" }"#,
            "at $.enabled: the environment has no value for %%environment.values.on",
        ),
        (
            r#"{ "enabled": true, "database_name": 5, "collection_name": "c", "user_id_field": "u" }"#,
            "at $.database_name: expected a string, got 5",
        ),
        ("[]", "at $: expected an object, got an array"),
        ("{", ": is not JSON: EOF while parsing an object at line 1 column 1"),
    ] {
        assert_eq!(
            custom(text),
            [format!(
                "error: auth/custom_user_data.json{}{expected}",
                if expected.starts_with(':') { "" } else { " " }
            )]
        );
    }
    for (text, expected) in [
        ("{", "error: auth/providers.json: is not JSON: EOF while parsing an object at line 1 column 1"),
        ("[]", "error: auth/providers.json at $: expected an object, got an array"),
        (
            r#"{ "anon-user": { "disabled": { "a": 1 } } }"#,
            "error: auth/providers.json at $.anon-user.disabled: expected true or false, got an object",
        ),
    ] {
        assert_eq!(check(&[("auth/providers.json", text)]), [expected]);
    }
    let rules = |text: &str| check(&[PROVIDERS, ("data_sources/m/d/c/rules.json", text)]);
    assert_eq!(
        rules(r#"{ "roles": ["r"] }"#),
        [r#"error: data_sources/m/d/c/rules.json at $.roles[0]: expected an object, got "r""#]
    );
}

#[test]
fn custom_data_needs_a_defined_data_source() {
    let custom = |enabled: bool, name: &str| {
        format!(
            r#"{{ "enabled": {enabled}, {name} "database_name": "d", "collection_name": "c", "user_id_field": "u" }}"#
        )
    };
    let with = |sources: &[&str], text: &str| {
        let paths: Vec<_> = sources.iter().map(|name| format!("data_sources/{name}/config.json")).collect();
        let mut files = vec![PROVIDERS, ("auth/custom_user_data.json", text)];
        files.extend(paths.iter().map(|path| (path.as_str(), "{}")));
        load(&files)
    };
    let source = |sources: &[&str], text: &str| with(sources, text).map(|it| it.custom_user_data.unwrap().service);
    for none in ["", r#""mongo_service_name": "","#] {
        assert_eq!(source(&["other"], &custom(true, none)).unwrap(), "other");
        for sources in [&["a", "b"][..], &[]] {
            let error = source(sources, &custom(true, none)).unwrap_err().to_string();
            assert!(error.contains("$.mongo_service_name: is required"), "{error}");
        }
    }
    let named = r#""mongo_service_name": "mongodb-atls","#;
    let error = source(&["a", "mongodb-atlas"], &custom(true, named)).unwrap_err();
    assert_eq!(error.problems.len(), 1, "{error}");
    assert!(
        error.to_string().contains(
            "there is no data source 'mongodb-atls': the definition has the data sources 'a', 'mongodb-atlas'; \
             did you mean 'mongodb-atlas'?"
        ),
        "{error}"
    );
    let error = source(&[], &custom(true, named)).unwrap_err().to_string();
    assert!(error.contains("the definition has no data source"), "{error}");
    assert!(with(&[], &custom(false, named)).unwrap().custom_user_data.is_none());
    // A data source may have rules without a `config.json`. If the rules are not JSON, that is the
    // only problem.
    let rules = "data_sources/mongodb-atls/d/c/rules.json";
    let problems = check(&[PROVIDERS, ("auth/custom_user_data.json", &custom(true, named)), (rules, "{")]);
    assert!(problems.len() == 1 && problems[0].contains(rules), "{problems:?}");
}

#[test]
fn files_outside_of_an_export_are_ignored() {
    let comments = "// comments\n{ \"a\": 1, \"a\": 2, }";
    for path in ["tsconfig.json", "src/app.json", "functions/tsconfig.json", "graphql/x/y.json", "empty/x.json"] {
        assert_eq!(check(&[PROVIDERS, (path, comments)]), [""; 0], "{path}");
    }
    for path in [
        "notes.json",
        "data_sources/m/d/config.json",
        "data_sources/m/d/c/x.json",
        "auth/x.json",
        "triggers/x.json",
        "values/x.json",
        "environments/x.json",
        "environments/no-environment.json",
    ] {
        assert_eq!(check(&[PROVIDERS, (path, "")]), [""; 0], "{path}");
    }
    // Known files are errors, and misspelled ones are warnings.
    assert_eq!(
        check(&[PROVIDERS, ("realm_config.json", "")]),
        ["error: realm_config.json: is not JSON: EOF while parsing a value at line 1 column 0"]
    );
    for (path, expected) in [
        ("relm_config.json", "; did you mean 'realm_config.json'?"),
        ("data_source/m/d/c/rules.json", "; did you mean 'data_sources'?"),
        ("data_sources/m/d/c/rule.json", "; did you mean 'rules.json'?"),
        ("auth/provider.json", "; did you mean 'providers.json'?"),
        ("data_sources/m/d/notes.json", ""),
        ("data_sources/m/d/c/tsconfig.json", ""),
        ("data_sources/m/d/c/colection.json", "; did you mean 'collection.json'?"),
    ] {
        assert_eq!(
            check(&[PROVIDERS, (path, comments)]),
            [format!("warning: {path}: the file is not known and not used{expected}")]
        );
    }
    assert_eq!(check(&[PROVIDERS, ("data_sources/m/d/c/relationships.json", comments)]), [""; 0]);
}

#[test]
fn files_that_are_not_used_need_not_be_readable() {
    let comments = "{ // comment\n}";
    for path in ["triggers/tsconfig.json", "environments/production.json"] {
        assert_eq!(
            check(&[PROVIDERS, (path, comments)]),
            [format!(
                "warning: {path}: the file is not used, and is not JSON: key must be a string at line 1 column 3"
            )]
        );
        let directory = write(&[PROVIDERS, (path, "")]);
        fs::write(directory.path().join(path), [b'"', 0xff, b'"']).unwrap();
        let problems = Definition::check(directory.path(), &Secrets::default()).problems;
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].severity, Severity::Reported);
        assert_eq!(problems[0].file, path);
        assert!(problems[0].message.starts_with("the file is not used, and cannot be read: "), "{problems:?}");
    }
    for text in [r#"{ "a": 1, "a": 2 }"#, r#"{ "a": "%(%%environment.values.none)" }"#] {
        let problems = check(&[PROVIDERS, ("triggers/x.json", text)]);
        assert!(problems.iter().all(|problem| problem.starts_with("warning: triggers/x.json")), "{problems:?}");
    }
    // The values of the selected environment are used, and so is every other file of an export.
    let root = ("root_config.json", r#"{ "environment": "production" }"#);
    let problems = check(&[PROVIDERS, root, ("environments/production.json", comments)]);
    assert!(problems[0].starts_with("error: environments/production.json: is not JSON"), "{problems:?}");
    let directory = write(&[PROVIDERS]);
    fs::create_dir_all(directory.path().join("data_sources/m/d/c")).unwrap();
    fs::write(directory.path().join("data_sources/m/d/c/rules.json"), [0xff]).unwrap();
    let error = Definition::load(directory.path(), &Secrets::default()).unwrap_err().to_string();
    assert!(error.contains("data_sources/m/d/c/rules.json: cannot be read: "), "{error}");
}

#[test]
fn a_trigger_with_an_undefined_data_source_is_reported() {
    let trigger =
        |name: &str| format!(r#"{{ "name": "t", "config": {{ "service_name": "{name}", "database": "d" }} }}"#);
    let problems = |name: &str| check(&[PROVIDERS, SOURCE, ("triggers/t.json", &trigger(name))]);
    assert_eq!(problems("m"), ["warning: triggers/t.json: triggers do not run yet"]);
    assert_eq!(
        problems("mm"),
        [
            "warning: triggers/t.json: triggers do not run yet",
            "warning: triggers/t.json at $.config.service_name: there is no data source 'mm': \
             the definition has the data sources 'm'; did you mean 'm'?"
        ]
    );
    // Other kinds of triggers have no data source.
    let scheduled = ("triggers/t.json", r#"{ "name": "t", "config": { "schedule": "* * * * *" } }"#);
    assert_eq!(check(&[PROVIDERS, scheduled]), ["warning: triggers/t.json: triggers do not run yet"]);
}

#[test]
fn indexes_that_can_never_be_created_are_errors() {
    let file = "data_sources/m/d/c/indexes.json";
    let problems = |text: &str| check(&[PROVIDERS, (file, text)]);
    let numbered = |count: usize| {
        let indexes: Vec<_> = (0..count).map(|number| format!(r#"{{ "key": {{ "f{number}": 1 }} }}"#)).collect();
        indexes.join(",")
    };
    assert_eq!(problems(&format!("[{}]", numbered(63))), [""; 0]);
    // An index that exists already does not count.
    let existing = r#"{ "key": { "_id": 1 } }, { "key": { "f0": 1 } }"#;
    assert_eq!(problems(&format!("[{}, {existing}]", numbered(63))), [""; 0]);
    assert_eq!(
        problems(&format!("[{}]", numbered(70))),
        [format!("error: {file} at $[63]: too many indexes: a collection has up to 64, including the one on _id")]
    );
    for (text, expected) in [
        (r#"[{ "key": { "_id": -1 } }]"#, "$[0]: the index on _id alone is ascending"),
        (r#"[{ "key": { "a": 1 }, "name": "_id_" }]"#, "$[0]: the index name '_id_' is for"),
        (
            r#"[{ "key": { "a": 1 }, "name": "x" }, { "key": { "b": 1 }, "name": "x" }]"#,
            "$[1]: the index $[0] has the same name 'x'",
        ),
        (
            r#"[{ "key": { "a": 1 } }, { "key": { "a": 1 }, "name": "x" }]"#,
            "$[1]: the index $[0] has the same fields and options",
        ),
        (
            r#"[{ "key": { "a": 1 } }, { "key": { "a": 1 }, "name": "x", "expireAfterSeconds": 5 }]"#,
            "$[1]: the index $[0] has the same fields and options",
        ),
        (r#"[{ "key": { "a": "2dsphere" } }]"#, "$[0]: "),
    ] {
        let problems = problems(text);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].starts_with(&format!("error: {file} at {expected}")), "{problems:?}");
    }
    let text = r#"[{ "key": { "a": 1 } }, { "key": { "a": 1 }, "name": "b", "unique": true }, { "key": { "_id": -1, "a": 1 } }]"#;
    assert_eq!(problems(text), [""; 0]);
}

#[test]
fn names_that_mongodb_rejects_are_errors() {
    let long = "x".repeat(64);
    for (database, collection, place) in [
        ("a b", "c", "data_sources/m/a b"),
        ("a.b", "c", "data_sources/m/a.b"),
        (&long, "c", &format!("data_sources/m/{long}")),
        ("d", "a$b", "data_sources/m/d/a$b"),
        ("d", "system.c", "data_sources/m/d/system.c"),
        ("d", "c.", "data_sources/m/d/c."),
    ] {
        for (file, text) in [("rules.json", r#"{ "roles": [] }"#), ("indexes.json", "[]"), ("collection.json", "{}")] {
            let path = format!("data_sources/m/{database}/{collection}/{file}");
            let problems = check(&[PROVIDERS, (&path, text)]);
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert!(
                problems[0].starts_with(&format!("error: {place}: Invalid namespace specified '{database}.")),
                "{problems:?}"
            );
        }
        // The files of a directory are one problem.
        let files = ["rules.json", "indexes.json"].map(|file| format!("data_sources/m/{database}/{collection}/{file}"));
        assert_eq!(check(&[PROVIDERS, (&files[0], "{}"), (&files[1], "[]")]).len(), 1);
    }
    let custom = |enabled: bool, database: &str, collection: &str| {
        let text = format!(
            r#"{{ "enabled": {enabled}, "mongo_service_name": "m", "database_name": "{database}", "collection_name": "{collection}", "user_id_field": "u" }}"#
        );
        check(&[PROVIDERS, SOURCE, ("auth/custom_user_data.json", &text)])
    };
    for (database, collection, path) in
        [("a b", "c", "$.database_name"), ("a b", "c$", "$.database_name"), ("d", "c$", "$.collection_name")]
    {
        let problems = custom(true, database, collection);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(
            problems[0]
                .starts_with(&format!("error: auth/custom_user_data.json at {path}: Invalid namespace specified")),
            "{problems:?}"
        );
        assert_eq!(custom(false, database, collection), [""; 0]);
    }
}

#[test]
fn a_misspelled_confirmation_is_one_problem() {
    let providers = |config: &str| {
        check(&[("auth/providers.json", &format!(r#"{{ "local-userpass": {{ "config": {config} }} }}"#))])
    };
    let at = "auth/providers.json at $.local-userpass.config";
    let only = "without automatic confirmation or a confirmation function, registration is rejected: \
                mails are not supported yet";
    assert_eq!(
        providers(r#"{ "autoConfrim": true }"#),
        [format!(
            "warning: {at}.autoConfirm: is missing, and {only}; the key 'autoConfrim' beside it is not known and not used"
        )]
    );
    assert_eq!(providers("{}"), [format!("warning: {at}.autoConfirm: is missing, and {only}")]);
    assert_eq!(providers(r#"{ "autoConfirm": false }"#), [format!("warning: {at}: {only}")]);
    assert_eq!(
        providers(r#"{ "autoConfirm": true, "runConfirmationFunction": true }"#),
        [
            format!("warning: {at}.autoConfirm: is not used, because a confirmation function is enabled"),
            format!("warning: {at}.confirmationFunctionName: is missing, so registration is rejected"),
        ]
    );
    assert_eq!(
        providers(r#"{ "autoConfirm": "yes" }"#),
        [format!(r#"error: {at}.autoConfirm: expected true or false, got "yes""#)]
    );
}

#[test]
fn a_hook_without_its_function_is_reported() {
    let config = r#"{ "autoConfirm": true, "runResetFunction": true, "resetFunctionName": "reset" }"#;
    let providers = format!(
        r#"{{ "local-userpass": {{ "config": {config} }}, "custom-function": {{ "config": {{ "authFunctionName": "logIn" }} }} }}"#
    );
    let custom_data = r#"{ "enabled": true, "mongo_service_name": "m", "database_name": "d", "collection_name": "c", "user_id_field": "u", "on_user_creation_function_name": "create" }"#;
    let files = [("auth/providers.json", providers.as_str()), SOURCE, ("auth/custom_user_data.json", custom_data)];
    assert_eq!(
        check(&files),
        [
            "warning: auth/custom_user_data.json at $.on_user_creation_function_name: the definition has no function 'create', so no user can be created",
            "warning: auth/providers.json at $.local-userpass.config.resetFunctionName: the definition has no function 'reset', so passwords cannot be reset",
            "warning: auth/providers.json at $.custom-function.config.authFunctionName: the definition has no function 'logIn', so log-ins with it are rejected",
        ]
    );
    let manifest = r#"[{ "name": "create" }, { "name": "logIn" }, { "name": "reset" }]"#;
    let sources = ["create", "logIn", "reset"].map(|name| (format!("functions/{name}.js"), "exports = () => 1;"));
    let sources = sources.iter().map(|(path, source)| (path.as_str(), *source));
    let all: Vec<_> = files.into_iter().chain([("functions/config.json", manifest)]).chain(sources).collect();
    assert_eq!(check(&all), [""; 0]);
}

#[test]
fn values_of_the_environment_replace_their_templates() {
    let definition = load(&[
        PROVIDERS,
        SOURCE,
        ("realm_config.json", r#"{ "name": "app-%(%%environment.values.suffix)", "environment": "testing" }"#),
        ("environments/testing.json", r#"{ "values": { "suffix": "test", "db": "app" } }"#),
        ("environments/no-environment.json", r#"{ "values": { "suffix": "none" } }"#),
        (
            "auth/custom_user_data.json",
            r#"{ "enabled": true, "mongo_service_name": "m", "database_name": "%(%%environment.values.db)", "collection_name": "c", "user_id_field": "u" }"#,
        ),
    ])
    .unwrap();
    assert_eq!(definition.name.as_deref(), Some("app-test"));
    assert_eq!(definition.custom_user_data.unwrap().namespace, Namespace::new("app", "c"));
}

#[test]
fn a_collection_has_pre_images_if_its_file_enables_them() {
    let pre_images = |text: &str| {
        let definition = load(&[PROVIDERS, ("data_sources/m/d/c/collection.json", text)]).unwrap();
        assert_eq!(definition.reported, []);
        definition.services.get("m").map(|service| service.pre_images.clone()).unwrap_or_default()
    };
    let enabled = |enabled: bool| format!(r#"{{ "changeStreamPreAndPostImages": {{ "enabled": {enabled} }} }}"#);
    assert_eq!(pre_images(&enabled(true)), [Namespace::new("d", "c")]);
    assert_eq!(pre_images(&enabled(false)), []);
    assert_eq!(pre_images("{}"), []);
    let missing = r#"{ "changeStreamPreAndPostImages": {} }"#;
    let error = load(&[PROVIDERS, ("data_sources/m/d/c/collection.json", missing)]).unwrap_err().to_string();
    assert!(error.contains("$.changeStreamPreAndPostImages.enabled: is missing"), "{error}");
}

#[test]
fn the_development_definition_loads_without_warnings() {
    assert_eq!(Definition::development().unwrap().reported, []);
}

#[test]
fn a_data_source_may_have_a_read_preference() {
    let preference = |config: &str| {
        let config = format!(r#"{{ "name": "mongodb-atlas", "type": "mongodb-atlas", "config": {config} }}"#);
        let definition = load(&[PROVIDERS, ("data_sources/mongodb-atlas/config.json", &config)])?;
        Ok::<_, DefinitionError>(definition.services["mongodb-atlas"].read_preference.clone())
    };
    assert_eq!(preference(r#"{ "clusterName": "Cluster0", "wireProtocolEnabled": false }"#).unwrap(), None);
    // An export without a read preference contains this.
    let usual = preference(r#"{ "readPreference": "primary", "readPreferenceTagSets": [{}] }"#).unwrap().unwrap();
    assert_eq!((usual.mode.as_str(), usual.tag_sets.len()), ("primary", 0));
    let near = r#"{ "readPreference": "nearest", "readPreferenceTagSets": [{ "region": "eu" }, [{ "name": "disk", "value": "ssd" }], {}] }"#;
    let near = preference(near).unwrap().unwrap();
    assert_eq!(near.mode, "nearest");
    assert_eq!((near.tag_sets[0]["region"].as_str(), near.tag_sets[1]["disk"].as_str()), ("eu", "ssd"));
    for (config, expected) in [
        (r#"{ "readPreference": "nearby" }"#, "'nearby' is not a read preference"),
        (r#"{ "readPreference": "primary", "readPreferenceTagSets": [{ "a": "b" }] }"#, "does not go with tag sets"),
        (r#"{ "readPreference": "nearest", "readPreferenceTagSets": ["eu"] }"#, "$.config.readPreferenceTagSets[0]"),
    ] {
        let error = preference(config).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
