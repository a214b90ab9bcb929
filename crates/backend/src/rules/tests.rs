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
    let document = rawdoc! { "owner": "u1", "team": ["u2", "u1"], "n": 1_i64, "deep": { "x": true }, "nothing": null };
    let admin = rawdoc! { "role": "admin", "manages": ["a@x", "b@x"], "owner": "u1" };
    let cases = [
        (json!(true), Truth::True),
        (json!({}), Truth::True),
        (json!({ "owner": "%%user.id" }), Truth::True),
        (json!({ "owner": "%%user.id%%" }), Truth::True),
        (json!({ "team": "%%user.id" }), Truth::True),
        (json!({ "%%user.id": "u1" }), Truth::True),
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
    RuleGuard {
        rules: Arc::new(RuleSet::new(roles.into_iter().map(role).collect())),
        user: RuleUser { id: "u1".into(), custom_data: None },
        namespace: Namespace::new("db", "c"),
        span: tracing::Span::none(),
    }
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
