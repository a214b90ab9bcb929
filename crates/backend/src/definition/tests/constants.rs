//! The environment, values and secrets, and the templates that insert them.

use super::*;

const SECRET: &str = "hidden-text";

fn load_with(files: &[(&str, &str)], secrets: &Secrets) -> Result<Definition, DefinitionError> {
    let mut all = vec![PROVIDERS];
    all.extend(files);
    let directory = write(&all);
    Definition::load(directory.path(), secrets)
}

fn given(name: &str, text: &str) -> Secrets {
    Secrets::new([(name.to_owned(), text.to_owned())])
}

/// Returns the message of the only problem.
fn problem(files: &[(&str, &str)]) -> String {
    let error = load_with(files, &Secrets::default()).unwrap_err();
    assert_eq!(error.problems.len(), 1, "{error}");
    error.problems[0].to_string()
}

#[test]
fn values_are_any_json() {
    let definition = load_with(
        &[
            ("values/a.json", r#"{ "id": "1", "name": "a", "from_secret": false, "private": true, "value": "x" }"#),
            ("values/b.json", r#"{ "name": "b", "value": { "$oid": "not one", "list": [1, null] } }"#),
            ("values/c.json", r#"{ "name": "c", "value": null }"#),
            ("environments/qa.json", r#"{ "values": { "on": true, "n": 1 } }"#),
            ("realm_config.json", r#"{ "environment": "qa" }"#),
        ],
        &Secrets::default(),
    )
    .unwrap();
    assert_eq!(definition.reported, []);
    assert_eq!(definition.values["a"], "x");
    assert_eq!(definition.values["b"], serde_json::json!({ "$oid": "not one", "list": [1, null] }));
    assert_eq!(definition.values["c"], Value::Null);
    assert_eq!(definition.values.len(), 3);
    assert_eq!(definition.environment.tag, "qa");
    assert_eq!(definition.environment.values["on"], true);
}

#[test]
fn a_wrong_value_is_one_problem_that_does_not_show_it() {
    for (text, expected) in [
        (r#"{ "name": 5, "value": "v" }"#, "values/v.json at $.name: expected a string, got 5"),
        (r#"{ "value": "v" }"#, "values/v.json at $.name: is required: the name of the value"),
        (r#"{ "name": "", "value": "v" }"#, "values/v.json at $.name: is required: the name of the value"),
        (r#"{ "name": "v" }"#, "values/v.json at $.value: is required: any JSON, or the name of a secret"),
        (
            r#"{ "name": "v", "from_secret": true, "value": 123456 }"#,
            "values/v.json at $.value: expected the name of a secret, got a number",
        ),
        (
            r#"{ "name": "v", "from_secret": true, "value": "" }"#,
            "values/v.json at $.value: expected the name of a secret, got a string",
        ),
        (
            r#"{ "name": "v", "from_secret": "yes", "value": "v" }"#,
            r#"values/v.json at $.from_secret: expected true or false, got "yes""#,
        ),
        ("[]", "values/v.json at $: expected an object, got an array"),
        ("{", "values/v.json: is not JSON: EOF while parsing an object at line 1 column 1"),
    ] {
        assert_eq!(problem(&[("values/v.json", text)]), expected);
    }
    let twice =
        [("values/a.json", r#"{ "name": "v", "value": 1 }"#), ("values/b.json", r#"{ "name": "v", "value": 2 }"#)];
    assert_eq!(problem(&twice), "values/b.json at $.name: another file has a value 'v' too");
    assert_eq!(
        problem(&[("environments/no-environment.json", r#"{ "values": [] }"#)]),
        "environments/no-environment.json at $.values: expected an object, got an array"
    );
    let nested = ("values/old/v.json", r#"{ "name": "v" }"#);
    assert_eq!(check(&[PROVIDERS, nested]), ["warning: values/old/v.json: the file is not known and not used"]);
    let deep = format!(r#"{{ "name": "v", "value": {}{} }}"#, "[".repeat(10_000), "]".repeat(10_000));
    assert!(problem(&[("values/v.json", &deep)]).contains("is not JSON: recursion limit exceeded"));
}

#[test]
fn an_environment_without_values_is_reported() {
    let definition = load_with(&[("root_config.json", r#"{ "environment": "qb" }"#)], &Secrets::default()).unwrap();
    assert_eq!(definition.reported.len(), 1);
    assert_eq!(
        definition.reported[0].to_string(),
        "root_config.json at $.environment: the environment 'qb' has no file environments/qb.json, \
         and so no values; did you mean 'qa'?"
    );
    assert_eq!(definition.environment.tag, "qb");
    assert_eq!(
        problem(&[("root_config.json", r#"{ "environment": 5 }"#)]),
        "root_config.json at $.environment: expected a string, got 5"
    );
}

const USER: (&str, &str) = ("values/key.json", r#"{ "name": "key", "from_secret": true, "value": "the-key" }"#);

/// Writes a definition with `secrets.json` of a mode.
#[cfg(unix)]
fn with_file(text: &str, mode: u32) -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let directory = write(&[PROVIDERS, USER, ("secrets.json", text)]);
    fs::set_permissions(directory.path().join("secrets.json"), fs::Permissions::from_mode(mode)).unwrap();
    directory
}

#[test]
fn secrets_given_by_name_precede_the_file_and_the_variables() {
    let value = |secrets: &Secrets| load_with(&[USER], secrets).map(|definition| definition.values["key"].clone());
    let variable = |name: &str, text: &str| Secrets::default().with_variables([(name.to_owned(), text.to_owned())]);
    assert_eq!(value(&given("the-key", "g")).unwrap(), "g");
    assert_eq!(value(&variable("USERKEEP_SECRET_the-key", "v")).unwrap(), "v");
    assert_eq!(value(&variable("USERKEEP_SECRET_THE_KEY", "V")).unwrap(), "V");
    let both = given("the-key", "g").with_variables([("USERKEEP_SECRET_THE_KEY".to_owned(), "v".to_owned())]);
    assert_eq!(value(&both).unwrap(), "g");
    // An empty text would be a secret that all users know.
    let empty = given("the-key", "").with_variables([("USERKEEP_SECRET_THE_KEY".to_owned(), "v".to_owned())]);
    assert_eq!(value(&empty).unwrap(), "v");
    for secrets in
        [given("the-key", ""), given("THE_KEY", "g"), variable("the-key", "v"), variable("SECRET_THE_KEY", "v")]
    {
        assert!(value(&secrets).is_err(), "{secrets:?}");
    }
    #[cfg(unix)]
    {
        let directory = with_file(r#"{ "the-key": "f", "unused": "u" }"#, 0o600);
        let value = |secrets: &Secrets| Definition::load(directory.path(), secrets).unwrap().values["key"].clone();
        assert_eq!(value(&Secrets::default()), "f");
        assert_eq!(value(&given("the-key", "g")), "g");
        assert_eq!(value(&variable("USERKEEP_SECRET_the-key", "v")), "f");
    }
}

#[cfg(unix)]
#[test]
fn a_file_of_secrets_that_others_can_read_is_refused() {
    let problems = |text: &str, mode: u32| {
        let directory = with_file(text, mode);
        let error = Definition::load(directory.path(), &given("the-key", "g")).unwrap_err();
        assert!(!format!("{error} {error:?}").contains(SECRET), "{error}");
        error.problems.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let text = format!(r#"{{ "the-key": "{SECRET}" }}"#);
    for mode in [0o644, 0o640, 0o602, 0o660] {
        assert_eq!(
            problems(&text, mode),
            [format!(
                "secrets.json: cannot be used: its mode is {mode:04o}, so other users have access to it; run chmod 600 on it"
            )]
        );
    }
    let directory = with_file(&text, 0o400);
    assert!(Definition::load(directory.path(), &Secrets::default()).is_ok());
    for (text, expected) in [
        (format!(r#"{{ "a": {{ "b": "{SECRET}" }} }}"#), "secrets.json at $.a: expected a string, got an object"),
        (r#"{ "a": 8675309 }"#.to_owned(), "secrets.json at $.a: expected a string, got a number"),
        (format!(r#"["{SECRET}"]"#), "secrets.json at $: expected an object of strings, got an array"),
        (format!(r#""{SECRET}""#), "secrets.json at $: expected an object of strings, got a string"),
        (
            format!(r#"{{ "a": "{SECRET}", "a": "x" }}"#),
            "secrets.json at $.a: the name is there twice, and only one of the two would be used",
        ),
        (format!(r#"{{ "a": "{SECRET}"#), "secrets.json: is not JSON: EOF while parsing a string at line 1 column 19"),
        (format!("{SECRET} = 5"), "secrets.json: is not JSON: expected value at line 1 column 1"),
    ] {
        assert_eq!(problems(&text, 0o600), [expected]);
    }
}

#[test]
fn missing_secrets_are_one_problem_and_a_check_goes_on() {
    let files = [
        ("values/a.json", r#"{ "name": "a", "from_secret": true, "value": "one" }"#),
        ("values/b.json", r#"{ "name": "b", "from_secret": true, "value": "two" }"#),
        ("values/c.json", r#"{ "name": "c", "from_secret": true, "value": "two" }"#),
        ("functions/config.json", r#"[{ "name": "f", "can_evaluate": { "%%values.a": "x" } }]"#),
        ("functions/f.js", "exports = 1"),
    ];
    let message = "values/a.json at $.value: missing secrets: 'one' (used by values/a.json), 'two' (used by values/b.json, \
         values/c.json); give each one in the option 'secrets', in secrets.json beside the definition's files, or in an \
         environment variable such as USERKEEP_SECRET_ONE";
    assert_eq!(problem(&files), message);
    let mut all = vec![PROVIDERS];
    all.extend(files);
    assert_eq!(check(&all), [format!("warning: {message}")]);
    let secrets = Secrets::new([("one".to_owned(), "1".to_owned()), ("two".to_owned(), "2".to_owned())]);
    assert_eq!(load_with(&files, &secrets).unwrap().reported, []);
}

#[test]
fn the_text_of_a_secret_is_never_shown() {
    let secrets = given("the-key", SECRET);
    assert!(!format!("{secrets:?}").contains(SECRET));
    let condition =
        r#"[{ "name": "f", "can_evaluate": { "%%request.requestHeaders.key": { "%in": ["%%values.key"] } } }]"#;
    let rules = r#"{ "roles": [{ "name": "r", "apply_when": { "key": "%%values.key" }, "read": true }] }"#;
    let used = [USER, ("functions/config.json", condition), ("data_sources/m/d/c/rules.json", rules)];
    let definition = load_with(&used, &secrets).unwrap();
    assert_eq!(definition.values["key"], SECRET);
    assert!(!format!("{definition:?}").contains(SECRET));

    // Wrong uses, whose messages show values of other kinds.
    for (file, text) in [
        ("functions/config.json", r#"[{ "name": "f", "private": "%(%%values.key)" }]"#),
        ("functions/config.json", r#"[{ "name": "../%(%%values.key)" }]"#),
        ("functions/config.json", r#"[{ "name": "f", "can_evaluate": { "a": { "%in": "%%values.key" } } }]"#),
        ("functions/config.json", r#"[{ "name": "f", "can_evaluate": { "a": "%%values.key.b" } }]"#),
        ("data_sources/m/d/%(/rules.json", r#"{ "collection": "%(%%values.key)" }"#),
        ("realm_config.json", r#"{ "name": "%( %%values.key )" }"#),
        ("values/other.json", r#"{ "name": "o", "value": "%(%%values.key)" }"#),
    ] {
        let error = load_with(&[USER, (file, text)], &secrets).unwrap_err();
        assert!(!format!("{error} {error:?}").contains(SECRET), "{error}");
    }
    let long = "ä".repeat(501);
    let reported = load_with(&[USER], &given("the-key", &long)).unwrap().reported;
    assert_eq!(reported.len(), 1);
    assert_eq!(
        reported[0].to_string(),
        "values/key.json at $.value: the secret 'the-key' has more than 500 characters, the limit of App Services"
    );
    assert_eq!(load_with(&[USER], &given("the-key", &long[..1000])).unwrap().reported, []);
}

#[test]
fn templates_insert_strings_and_keep_the_text_around_them() {
    let name = |name: &str| {
        let root = format!(r#"{{ "name": {}, "environment": "qa" }}"#, Value::from(name));
        let files = [
            ("realm_config.json", root.as_str()),
            (
                "environments/qa.json",
                r#"{ "values": { "a": "A", "on": true, "deep": { "x": "X" }, "t": "%(%%environment.values.a)" } }"#,
            ),
            ("values/v.json", r#"{ "name": "v", "value": "V-%(%%environment.values.a)" }"#),
            ("values/n.json", r#"{ "name": "n", "value": 1 }"#),
        ];
        match load_with(&files, &Secrets::default()) {
            Ok(definition) => definition.name.unwrap(),
            Err(error) => {
                assert_eq!((error.problems.len(), error.problems[0].path.as_str()), (1, "$.name"), "{error}");
                error.problems[0].message.clone()
            }
        }
    };
    for (text, expected) in [
        ("%(%%environment.values.a)", "A"),
        ("<%(%%environment.values.a)-%( %%values.v )>", "<A-V-A>"),
        ("%(%%environment.tag)", "qa"),
        ("%(%%environment.values.deep.x)", "X"),
        // The inserted text is not replaced again.
        ("%(%%environment.values.t)", "%(%%environment.values.a)"),
        ("100 %(of all) %() %", "100 %(of all) %() %"),
        ("%(%%environment.values.on)", "%%environment.values.on is a boolean, and a template can insert only a string"),
        ("%(%%values.n)", "%%values.n is a number, and a template can insert only a string"),
        ("%(%%environment)", "%%environment is an object, and a template can insert only a string"),
        ("%(%%environment.values.b)", "the environment has no value for %%environment.values.b; did you mean 'a'?"),
        ("%(%%values.none)", "there is no value 'none'"),
        ("%(%%user.id)", "%%user.id is neither an environment value nor a value"),
        ("%(%%values.v", "a template has no closing parenthesis"),
    ] {
        assert_eq!(name(text), expected, "{text}");
    }
}

#[test]
fn templates_are_not_replaced_in_sources_or_by_other_values() {
    let template = "exports = () => '%(%%values.none)'";
    let manifest = format!(r#"[{{ "name": "f", "run_as_user_id_script_source": "{template}" }}]"#);
    let definition =
        load_with(&[("functions/config.json", &manifest), ("functions/f.js", template)], &Secrets::default()).unwrap();
    let function = definition.functions.get("f").unwrap();
    assert_eq!(function.source.as_deref(), Some(template));
    assert_eq!(function.run_as, RunAs::Script(template.to_owned()));
    assert_eq!(
        problem(&[
            ("values/a.json", r#"{ "name": "a", "value": "%(%%values.b)" }"#),
            ("values/b.json", r#"{ "name": "b", "value": "%%values.a" }"#)
        ]),
        "values/a.json at $.value: a value cannot refer to %%values.b, which is another value"
    );
}
