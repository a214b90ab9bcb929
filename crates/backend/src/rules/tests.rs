#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use bson::{raw::RawDocumentBuf, rawdoc};
use serde_json::{Value, json};
use store::{Guard, Namespace};

use super::*;

fn evaluate(expression: Value, document: &RawDocumentBuf, custom_data: Option<&RawDocumentBuf>) -> Truth {
    let context = Context { user_id: "u1", custom_data: custom_data.map(|data| &**data), document };
    Expression::parse(&expression).unwrap().evaluate(&context)
}

#[test]
fn expressions_come_to_true_false_or_unresolved() {
    let document = rawdoc! { "owner": "u1", "team": ["u2", "u1"], "nested": [["u1"]], "n": 1_i64, "deep": { "x": true }, "nothing": null };
    let admin = rawdoc! { "role": "admin", "manages": ["a@x", "b@x"], "owner": "u1" };
    let cases = [
        (json!(true), Truth::True),
        (json!({}), Truth::True),
        (json!({ "owner": "%%user.id" }), Truth::True),
        (json!({ "owner": "%%user.id%%" }), Truth::True),
        (json!({ "team": "%%user.id" }), Truth::True),
        (json!({ "%%user.id": "u1" }), Truth::True),
        (json!({ "nested": "%%user.id" }), Truth::False),
        (json!({ "nested": ["u1"] }), Truth::True),
        (json!({ "owner": ["u2", "u1"] }), Truth::True),
        (json!({ "n": 1, "deep.x": true }), Truth::True),
        (json!({ "deep.x": "%%true" }), Truth::True),
        (json!({ "owner": "u2" }), Truth::False),
        (json!({ "missing": "%%user.id" }), Truth::Unresolved),
        (json!({ "missing": null }), Truth::Unresolved),
        (json!({ "nothing": null }), Truth::True),
        (json!({ "%%user.custom_data.role": "admin" }), Truth::True),
        (json!({ "%%user.custom_data.manages": "a@x" }), Truth::True),
        (json!({ "owner": "%%user.custom_data.owner" }), Truth::True),
        (json!({ "%%user.custom_data.missing": "x" }), Truth::Unresolved),
        (json!({ "%or": [{ "missing": 1 }, { "owner": "u1" }] }), Truth::True),
        (json!({ "%or": [{ "missing": 1 }, { "owner": "u2" }] }), Truth::Unresolved),
        (json!({ "%and": [{ "missing": 1 }, { "owner": "u2" }] }), Truth::False),
        (json!({ "%and": [{ "missing": 1 }, { "owner": "u1" }] }), Truth::Unresolved),
        (json!({ "%%false": { "owner": "u2" } }), Truth::True),
        (json!({ "%%false": { "missing": 1 } }), Truth::Unresolved),
        (json!({ "%%true": { "owner": "u2" } }), Truth::False),
        (json!({ "%or": [] }), Truth::False),
    ];
    for (expression, truth) in cases {
        assert_eq!(evaluate(expression.clone(), &document, Some(&admin)), truth, "{expression}");
        // A store that is asked by a filter is told neither more nor less.
        let parsed = Expression::parse(&expression).unwrap();
        let context = Context { user_id: "u1", custom_data: Some(&admin), document: &RawDocumentBuf::new() };
        for wanted in [true, false] {
            match parsed.filter(&context, wanted) {
                Some(filter) => {
                    assert_eq!(filter.matches(&document), truth == Truth::from(wanted), "{expression}: {filter:?}")
                }
                None => assert!(expression.to_string().contains("null"), "{expression} is not a filter"),
            }
        }
    }
    assert_eq!(evaluate(json!({ "%%user.custom_data.role": "admin" }), &document, None), Truth::Unresolved);
}

#[test]
fn a_value_never_becomes_an_operator_or_a_path() {
    let document = rawdoc! { "owner": { "$ne": 1 }, "name": "%%user.id" };
    let crafted = rawdoc! { "x": { "$ne": null }, "y": "owner" };
    assert_eq!(evaluate(json!({ "owner": "%%user.id" }), &document, None), Truth::False);
    assert_eq!(evaluate(json!({ "%%user.id": "%%user.custom_data.x" }), &document, Some(&crafted)), Truth::False);
    assert_eq!(evaluate(json!({ "name": "%%user.id" }), &document, None), Truth::False);
}

#[test]
fn what_is_not_understood_does_not_compile() {
    let refusals = [
        (json!({ "a": { "$gt": 1 } }), ".a", "the operator $gt is not supported yet"),
        (json!({ "a": { "%stringToOid": "%%user.id" } }), ".a", "the operator %stringToOid is not supported yet"),
        (json!({ "%or": [{ "%not": {} }] }), ".%or[0].%not", "the operator %not is not supported yet"),
        (json!({ "$who": 1 }), ".$who", "$who is not an operator"),
        (json!({ "a": "%%root.b" }), ".a", "the expansion %%root.b is not supported yet"),
        (json!({ "%%prevRoot.a": 1 }), ".%%prevRoot.a", "the expansion %%prevRoot.a is not supported yet"),
        (json!("x"), "", "an expression must be true, false or an object"),
        (json!({ "%and": {} }), ".%and", "%and takes an array of expressions"),
    ];
    for (expression, path, message) in refusals {
        let error = Expression::parse(&expression).unwrap_err();
        assert_eq!((error.path.as_str(), error.message.as_str()), (path, message), "{expression}");
    }
}

fn role(role: Value) -> Role {
    let parse = |key: &str| role.get(key).map(|value| Expression::parse(value).unwrap());
    Role {
        name: "role".into(),
        apply_when: parse("apply_when").unwrap_or(Expression::Constant(true)),
        document_filters: role.get("document_filters").map(|filters| DocumentFilters {
            read: filters.get("read").map(|value| Expression::parse(value).unwrap()),
            write: filters.get("write").map(|value| Expression::parse(value).unwrap()),
        }),
        read: parse("read"),
        write: parse("write"),
        insert: parse("insert"),
        delete: parse("delete"),
    }
}

fn guard(roles: Vec<Value>) -> RuleGuard {
    guard_of(roles, None)
}

fn guard_of(roles: Vec<Value>, custom_data: Option<RawDocumentBuf>) -> RuleGuard {
    let rules = Arc::new(RuleSet::new(roles.into_iter().map(role).collect()));
    RuleGuard::new(rules, RuleUser { id: "u1".into(), custom_data }, Namespace::new("db", "c"))
}

#[test]
fn reading_follows_the_documents_first_role() {
    let mine = rawdoc! { "owner": "u1" };
    let other = rawdoc! { "owner": "u2" };
    let own = json!({ "owner": "%%user.id" });
    let cases = [
        (vec![json!({ "apply_when": own, "read": true })], true, false),
        (vec![json!({ "read": true, "document_filters": { "read": own, "write": false } })], true, false),
        (vec![json!({ "write": true, "document_filters": { "write": own } })], true, false),
        (vec![json!({ "read": false, "write": own })], true, false),
        (vec![json!({ "read": true, "document_filters": {} })], false, false),
        (vec![json!({ "apply_when": own, "read": false }), json!({ "read": true })], false, true),
        (vec![json!({})], false, false),
    ];
    for (roles, sees_mine, sees_other) in cases {
        let guard = guard(roles.clone());
        assert_eq!((guard.may_see(&mine), guard.may_see(&other)), (sees_mine, sees_other), "{roles:?}");
    }
}

#[test]
fn writing_must_be_allowed_before_and_after() {
    let mine = rawdoc! { "owner": "u1", "x": 1 };
    let mine_changed = rawdoc! { "owner": "u1", "x": 2 };
    let given_away = rawdoc! { "owner": "u2", "x": 1 };
    let own = json!({ "owner": "%%user.id" });
    let denied = |guard: &RuleGuard, before: Option<&RawDocumentBuf>, after: Option<&RawDocumentBuf>| {
        guard.check_write(before.map(|before| &**before), after.map(|after| &**after)).err().map(|denied| denied.0)
    };

    let filtered = guard(vec![json!({ "write": true, "document_filters": { "write": own, "read": own } })]);
    assert_eq!(denied(&filtered, Some(&mine), Some(&mine_changed)), None);
    assert_eq!(denied(&filtered, Some(&mine), Some(&given_away)).unwrap(), "update not permitted");
    assert_eq!(denied(&filtered, Some(&given_away), Some(&mine)).unwrap(), "update not permitted");
    assert_eq!(denied(&filtered, None, Some(&given_away)).unwrap(), "insert not permitted");
    assert_eq!(denied(&filtered, Some(&given_away), None).unwrap(), "delete not permitted");
    assert_eq!(denied(&filtered, Some(&mine), None), None);

    // apply_when picks the role by the stored document alone.
    let by_role = guard(vec![json!({ "apply_when": own, "write": true })]);
    assert_eq!(denied(&by_role, Some(&mine), Some(&given_away)), None);
    assert_eq!(denied(&by_role, None, Some(&given_away)).unwrap(), "insert not permitted");

    let no_inserts = guard(vec![json!({ "write": true, "insert": false, "delete": false })]);
    assert_eq!(denied(&no_inserts, Some(&mine), Some(&given_away)), None);
    assert_eq!(denied(&no_inserts, None, Some(&mine)).unwrap(), "insert not permitted");
    assert_eq!(denied(&no_inserts, Some(&mine), None).unwrap(), "delete not permitted");

    let read_only = guard(vec![json!({ "read": true, "write": false, "insert": true, "delete": true })]);
    assert_eq!(denied(&read_only, None, Some(&mine)).unwrap(), "insert not permitted");
    assert_eq!(denied(&read_only, Some(&mine), None).unwrap(), "delete not permitted");
    assert_eq!(denied(&guard(vec![]), Some(&mine), Some(&mine)).unwrap(), "update not permitted");
}

/// Whatever the roles are, the filters match what the rules allow of a document as it is.
#[test]
fn filters_say_what_the_rules_say() {
    let admin = rawdoc! { "role": "admin", "teams": ["red", "blue"] };
    let expressions = [
        json!(true),
        json!(false),
        json!({ "owner": "%%user.id" }),
        json!({ "owner": "u2", "public": true }),
        json!({ "team": "%%user.custom_data.teams" }),
        json!({ "%%user.custom_data.role": "admin" }),
        json!({ "%%user.custom_data.role": "guest" }),
        json!({ "%or": [{ "public": true }, { "owner": "%%user.id" }] }),
        json!({ "%%false": { "public": true } }),
        json!({ "deep.list.x": 1 }),
    ];
    let documents = [
        rawdoc! {},
        rawdoc! { "owner": "u1" },
        rawdoc! { "owner": ["u2", "u1"], "public": false },
        rawdoc! { "owner": "u2", "public": true, "team": "red" },
        rawdoc! { "owner": null, "team": ["green", "blue"] },
        rawdoc! { "deep": [{ "list": [{ "x": 1.0 }] }], "public": "yes" },
        rawdoc! { "deep": { "list": { "x": [1, 2] } }, "team": [["red"]] },
    ];
    let mut told = 0;
    for a in &expressions {
        for b in &expressions {
            for roles in [
                vec![json!({ "apply_when": a, "read": b, "write": a })],
                vec![
                    json!({ "apply_when": a, "read": true, "write": b, "delete": a }),
                    json!({ "read": b, "write": false }),
                ],
                vec![json!({ "document_filters": { "read": a, "write": b }, "read": true, "write": true })],
            ] {
                let guard = guard_of(roles.clone(), Some(admin.clone()));
                let filters = guard.filters().unwrap();
                for document in &documents {
                    let asked =
                        |filter: &query::Filter| query::Filter::parse(&filter.to_document()).unwrap().matches(document);
                    let written =
                        |after: Option<&bson::raw::RawDocument>| guard.check_write(Some(document), after).is_ok();
                    assert_eq!(asked(&filters.seen), guard.may_see(document), "{roles:?} {document:?}");
                    assert_eq!(asked(&filters.updatable), written(Some(document)), "{roles:?} {document:?}");
                    assert_eq!(asked(&filters.deletable), written(None), "{roles:?} {document:?}");
                    told += usize::from(guard.may_see(document));
                }
            }
        }
    }
    assert!(told > 100, "{told}");
}

#[test]
fn what_no_filter_says_is_left_to_the_guard() {
    for expression in [json!({ "a": null }), json!({ "owner": "%%user.custom_data.pattern" })] {
        let pattern = bson::Regex { pattern: "u".try_into().unwrap(), options: "".try_into().unwrap() };
        let custom_data = rawdoc! { "pattern": pattern };
        assert_eq!(guard_of(vec![json!({ "read": expression })], Some(custom_data)).filters(), None, "{expression}");
    }
}
