#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use bson::{
    Bson, Document, doc,
    raw::{RawBsonRef, RawDocumentBuf},
    rawdoc,
};
use proptest::prelude::*;
use serde_json::{Value, json};
use store::{Guard, Namespace};

use super::*;
use crate::constants::Constants;

mod operators;

fn evaluate(expression: Value, document: &RawDocumentBuf, custom_data: Option<&RawDocumentBuf>) -> Truth {
    let context = Context::new("u1", custom_data.map(|data| &**data), document);
    Expression::parse(&expression, &Constants::default()).unwrap().evaluate(&context)
}

#[test]
fn expressions_are_true_false_or_unresolved() {
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
        // The filter gives the same result as the evaluation.
        let parsed = Expression::parse(&expression, &Constants::default()).unwrap();
        let nothing = RawDocumentBuf::new();
        let context = Context::new("u1", Some(&admin), &nothing);
        for wanted in [true, false] {
            match parsed.filter(&context, wanted) {
                Some(filter) => {
                    assert_eq!(filter.matches(&document), truth == Truth::from(wanted), "{expression}: {filter:?}");
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
fn unsupported_expressions_do_not_compile() {
    let refusals = [
        (json!({ "a": { "$regex": "x" } }), ".a", "the operator $regex is not supported yet"),
        (json!({ "a": { "%stringToOid": "%%user.id" } }), ".a", "the operator %stringToOid is not supported yet"),
        (json!({ "%or": [{ "%function": {} }] }), ".%or[0].%function", "the operator %function is not supported yet"),
        (json!({ "$who": 1 }), ".$who", "$who is not an operator"),
        (json!({ "a": "%%root.b" }), ".a", "the expansion %%root.b is not supported yet"),
        (json!({ "%%prevRoot.a": 1 }), ".%%prevRoot.a", "the expansion %%prevRoot.a is not supported yet"),
        (json!("x"), "", "an expression must be true, false or an object"),
        (json!({ "%and": {} }), ".%and", "%and takes an array of expressions"),
    ];
    for (expression, path, message) in refusals {
        let error = Expression::parse(&expression, &Constants::default()).unwrap_err();
        assert_eq!((error.path.as_str(), error.message.as_str()), (path, message), "{expression}");
    }
}

fn role(role: Value) -> Role {
    let parse = |key: &str| role.get(key).map(|value| Expression::parse(value, &Constants::default()).unwrap());
    Role {
        name: "role".into(),
        apply_when: parse("apply_when").unwrap_or(Expression::Constant(true)),
        document_filters: role.get("document_filters").map(|filters| DocumentFilters {
            read: filters.get("read").map(|value| Expression::parse(value, &Constants::default()).unwrap()),
            write: filters.get("write").map(|value| Expression::parse(value, &Constants::default()).unwrap()),
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
    RuleGuard::new(
        rules,
        RuleUser { id: "u1".into(), custom_data: custom_data.map(Arc::new) },
        Namespace::new("db", "c"),
    )
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

    // `apply_when` is evaluated on the stored document only.
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

/// For any roles, the filters match exactly the documents that the rules allow.
#[test]
fn filters_match_what_the_rules_allow() {
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
        rawdoc! { "owner": "u2", "public": [true] },
        rawdoc! { "owner": "u2", "public": [false, true] },
        rawdoc! { "owner": "u2", "public": [[true]] },
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
fn expressions_without_an_exact_filter_are_left_to_the_guard() {
    for expression in [json!({ "a": null }), json!({ "owner": "%%user.custom_data.pattern" })] {
        let pattern = bson::Regex { pattern: "u".try_into().unwrap(), options: "".try_into().unwrap() };
        let custom_data = rawdoc! { "pattern": pattern };
        assert_eq!(guard_of(vec![json!({ "read": expression })], Some(custom_data)).filters(), None, "{expression}");
    }
}

#[test]
fn expressions_without_an_exact_filter_are_narrowed_by_a_superset() {
    let custom_data = doc! { "pattern": pattern_of("u"), "none": [null, "red"] };
    let custom_data = RawDocumentBuf::try_from(custom_data).unwrap();
    let fields = |one: &str, other: &str| {
        Expression::Equal(expression::Operand::Field(Path::new(one)), expression::Operand::Field(Path::new(other)))
    };
    let parse = |expression: Value| Expression::parse(&expression, &Constants::default()).unwrap();
    let (ours, is_null) = (json!({ "owner": "%%user.id" }), json!({ "a": null }));
    // A document that may be read, and documents that may not be read and that the filter
    // excludes.
    for (expression, seen, left_out) in [
        (parse(is_null.clone()), rawdoc! { "a": null }, vec![rawdoc! {}, rawdoc! { "a": 1 }]),
        (
            parse(json!({ "a": "%%user.custom_data.none" })),
            rawdoc! { "a": "red" },
            vec![rawdoc! {}, rawdoc! { "a": "blue" }],
        ),
        (
            parse(json!({ "a": "%%user.custom_data.pattern" })),
            RawDocumentBuf::try_from(doc! { "a": pattern_of("u") }).unwrap(),
            vec![rawdoc! {}],
        ),
        (fields("a", "b"), rawdoc! { "a": 1, "b": 1 }, vec![rawdoc! { "a": 1 }, rawdoc! { "b": 1 }]),
        (
            Expression::All(vec![parse(ours.clone()), fields("a", "b")]),
            rawdoc! { "owner": "u1", "a": 1, "b": 1 },
            vec![rawdoc! { "owner": "u2", "a": 1, "b": 1 }],
        ),
        (parse(json!({ "%or": [ours.clone(), is_null] })), rawdoc! { "owner": "u1" }, vec![rawdoc! { "owner": "u2" }]),
        (
            parse(json!({ "%%false": { "a": "%%user.custom_data.none" } })),
            rawdoc! { "a": 1 },
            vec![rawdoc! {}, rawdoc! { "a": "red" }],
        ),
    ] {
        let role = Role { read: Some(expression.clone()), ..role(json!({})) };
        let user = RuleUser { id: "u1".into(), custom_data: Some(Arc::new(custom_data.clone())) };
        let guard = RuleGuard::new(Arc::new(RuleSet::new(vec![role])), user, Namespace::new("d", "c"));
        assert_eq!(guard.filters(), None, "{expression:?}");
        let superset = guard.superset().unwrap();
        assert!(guard.may_see(&seen) && superset.matches(&seen), "{expression:?}");
        for document in left_out {
            assert!(!guard.may_see(&document) && !superset.matches(&document), "{expression:?} {document:?}");
        }
    }
    // Field names that a server may interpret differently, alone or as a part, exclude no
    // document.
    for expression in [fields("a..b", "$c"), Expression::Any(vec![parse(ours), fields("", "$")])] {
        let superset = expression.superset(&Context::new("u1", None, &rawdoc! {}), true);
        assert_eq!(superset, Some(query::Filter::Always(true)), "{expression:?}");
    }
}

/// A flag that is both true and false would pass a check for one value and then grant what needs
/// the other.
#[test]
fn a_boolean_equals_a_boolean_only() {
    let document = rawdoc! {
        "yes": true, "list": [true], "both": [false, true], "nested": [[true]], "none": [], "text": "true", "one": 1,
        "flags": { "admin": true, "list": [true] }, "members": [{ "admin": true }, { "admin": false }], "0": { "0": true },
    };
    let truths = [
        ("yes", Truth::True),
        ("list", Truth::False),
        ("list.0", Truth::False),
        ("both", Truth::False),
        ("nested", Truth::False),
        ("none", Truth::False),
        ("text", Truth::False),
        ("one", Truth::False),
        ("flags.admin", Truth::True),
        ("flags.list", Truth::False),
        ("members.admin", Truth::False),
        ("members.0.admin", Truth::False),
        ("0.0", Truth::True),
        ("missing", Truth::Unresolved),
        ("members.missing", Truth::Unresolved),
    ];
    let opposite = |truth| match truth {
        Truth::True => Truth::False,
        Truth::False => Truth::True,
        Truth::Unresolved => Truth::Unresolved,
    };
    for (path, truth) in truths {
        for value in [json!(true), json!("%%true"), json!("%%user.custom_data.yes")] {
            let custom = format!("%%user.custom_data.{path}");
            for expression in [json!({ path: value.clone() }), json!({ custom: value })] {
                assert_eq!(evaluate(expression.clone(), &document, Some(&document)), truth, "{expression}");
                let negated = json!({ "%%false": expression });
                assert_eq!(evaluate(negated.clone(), &document, Some(&document)), opposite(truth), "{negated}");
            }
        }
    }
    for (expression, truth) in [
        (json!({ "yes": [true] }), Truth::False),
        (json!({ "list": [true] }), Truth::True),
        (json!({ "nested": [true] }), Truth::True),
        (json!({ "list": [true, "x"] }), Truth::False),
        (json!({ "yes": "%%user.custom_data.list" }), Truth::False),
        (json!({ "list": "%%user.custom_data.both" }), Truth::False),
        (json!({ "both": "%%user.custom_data.both" }), Truth::True),
        (json!({ "members.admin": "%%user.custom_data.members.admin" }), Truth::False),
        (json!({ "both": false }), Truth::False),
    ] {
        assert_eq!(evaluate(expression.clone(), &document, Some(&document)), truth, "{expression}");
    }
}

#[test]
fn a_flag_in_a_field_becomes_a_filter() {
    let filters = guard(vec![json!({ "apply_when": { "public": true }, "read": true })]).filters().cloned().unwrap();
    let (conditions, _) = filters.seen.conditions();
    assert!(conditions.iter().any(|condition| condition.path.as_str() == "public"), "{:?}", filters.seen);
}

#[test]
fn large_arrays_are_compared_by_their_keys() {
    let numbers = |from: i32| (from..from + 30_000).map(Bson::Int32).collect::<Vec<_>>();
    let raw = |document: Document| RawDocumentBuf::try_from(document).unwrap();
    let custom = raw(doc! { "teams": numbers(100_000), "meets": numbers(129_999) });
    let document = raw(doc! { "teams": numbers(130_000) });
    let begun = std::time::Instant::now();
    assert_eq!(evaluate(json!({ "teams": "%%user.custom_data.teams" }), &document, Some(&custom)), Truth::False);
    assert_eq!(evaluate(json!({ "teams": "%%user.custom_data.meets" }), &document, Some(&custom)), Truth::True);
    // 9 * 10^8 pairs would take minutes.
    assert!(begun.elapsed() < std::time::Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[test]
fn nothing_is_allowed_without_a_budget() {
    let document = rawdoc! { "a": (0..5000).collect::<Vec<i32>>().into_iter().fold(bson::raw::RawArrayBuf::new(), |mut all, item| {
        all.push(item);
        all
    }) };
    let context = Context::new("u1", None, &document);
    for expression in [json!(true), json!({ "a": 4999 }), json!({ "%%false": { "a": "x" } }), json!({ "%%true": {} })] {
        let expression = Expression::parse(&expression, &Constants::default()).unwrap();
        let budget = query::Budget::new(query::Limits { steps: Some(100), ..query::Limits::default() });
        budget.enter(|| {
            while query::budget::spend(10) {}
            assert!(!expression.allows(&context), "{expression:?}");
            assert_eq!(expression.filter(&context, true), None);
            assert_eq!(expression.superset(&context, true), None);
        });
        assert!(expression.allows(&context));
    }
    let large = Expression::parse(&json!({ "a": 4999 }), &Constants::default()).unwrap();
    let budget = query::Budget::new(query::Limits { steps: Some(1000), ..query::Limits::default() });
    assert!(!budget.enter(|| large.allows(&context)));
}

fn some_value() -> impl Strategy<Value = Bson> {
    let leaf = prop_oneof![
        4 => any::<bool>().prop_map(Bson::Boolean),
        1 => Just(Bson::Null),
        2 => prop_oneof![Just("u1"), Just("x"), Just("true")].prop_map(Bson::from),
        1 => (0..3).prop_map(Bson::Int32),
        1 => Just(Bson::Double(1.0)),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            2 => prop::collection::vec(inner.clone(), 0..3).prop_map(Bson::Array),
            1 => prop::collection::btree_map(prop_oneof![Just("a"), Just("b"), Just("0")], inner, 0..3)
                .prop_map(|fields| Bson::Document(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())),
        ]
    })
}

fn some_document() -> impl Strategy<Value = RawDocumentBuf> {
    prop::collection::btree_map(prop_oneof![Just("a"), Just("b"), Just("c")], some_value(), 0..4).prop_map(|fields| {
        let document: Document = fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        RawDocumentBuf::try_from(document).unwrap()
    })
}

/// Replaces some numbers by regular expressions and undefined values.
fn with_odd_values(document: &RawDocumentBuf) -> RawDocumentBuf {
    fn odd(value: Bson) -> Bson {
        match value {
            Bson::Int32(1) => pattern_of("x"),
            Bson::Int32(2) => Bson::Undefined,
            Bson::Array(items) => Bson::Array(items.into_iter().map(odd).collect()),
            Bson::Document(fields) => {
                Bson::Document(fields.into_iter().map(|(name, value)| (name, odd(value))).collect())
            }
            value => value,
        }
    }
    let document = Document::try_from(&**document).unwrap();
    let document: Document = document.into_iter().map(|(name, value)| (name, odd(value))).collect();
    RawDocumentBuf::try_from(document).unwrap()
}

fn pattern_of(text: &str) -> Bson {
    Bson::RegularExpression(bson::Regex { pattern: text.try_into().unwrap(), options: "".try_into().unwrap() })
}

fn some_path() -> impl Strategy<Value = &'static str> + Clone {
    prop_oneof![Just("a"), Just("b"), Just("a.b"), Just("a.0"), Just("a.b.a"), Just("c.a"), Just("a.0.b")]
}

/// Operators on a value; `operand` is a value that they may compare it with.
fn some_condition(operand: impl Strategy<Value = Value> + Clone + 'static) -> impl Strategy<Value = Value> {
    let order = prop_oneof![Just("%gt"), Just("$gte"), Just("%lt"), Just("$lte")];
    let bound = prop_oneof![Just(json!(0)), Just(json!(1.0)), Just(json!("x")), Just(json!("%%user.custom_data.a"))];
    let list = prop_oneof![
        3 => prop::collection::vec(operand.clone(), 0..3).prop_map(Value::from),
        1 => some_path().prop_map(|path| json!(format!("%%user.custom_data.{path}"))),
    ];
    let operator = prop_oneof![
        3 => (order, bound).prop_map(|(order, bound)| json!({ order: bound })),
        3 => (prop_oneof![Just("%in"), Just("$nin")], list).prop_map(|(name, list)| json!({ name: list })),
        2 => any::<bool>().prop_map(|exists| json!({ "%exists": exists })),
        2 => (prop_oneof![Just("%ne"), Just("$eq")], operand).prop_map(|(name, operand)| json!({ name: operand })),
    ];
    operator.prop_recursive(2, 4, 2, |inner| {
        prop_oneof![
            inner.clone().prop_map(|inner| json!({ "%not": inner })),
            prop::collection::vec(inner.clone(), 1..3).prop_map(|all| json!({ "%and": all })),
            prop::collection::vec(inner, 1..3).prop_map(|any| json!({ "$nor": any })),
        ]
    })
}

fn some_expression() -> impl Strategy<Value = Value> {
    let path = some_path();
    let side = prop_oneof![3 => path.clone().prop_map(str::to_owned), 1 => path.clone().prop_map(|path| format!("%%user.custom_data.{path}"))];
    let operand = prop_oneof![
        4 => prop_oneof![Just(json!(true)), Just(json!(false)), Just(json!("%%true")), Just(json!("%%false"))],
        2 => prop_oneof![Just(json!("x")), Just(json!(1)), Just(json!("%%user.id")), Just(json!(null))],
        2 => prop_oneof![Just(json!([true])), Just(json!([false, "x"])), Just(json!([[true]])), Just(json!({ "b": true }))],
        3 => path.prop_map(|path| json!(format!("%%user.custom_data.{path}"))),
    ];
    let equal = (side.clone(), operand.clone()).prop_map(|(side, operand)| json!({ side: operand }));
    let leaf = prop_oneof![2 => equal, 1 => (side, some_condition(operand)).prop_map(|(side, on)| json!({ side: on }))];
    leaf.prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|inner| json!({ "%%false": inner })),
            inner.clone().prop_map(|inner| json!({ "%%true": inner })),
            prop::collection::vec(inner.clone(), 0..3).prop_map(|all| json!({ "%and": all })),
            prop::collection::vec(inner, 0..3).prop_map(|any| json!({ "%or": any })),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(10_000) })]

    /// A filter matches exactly the documents for which the expression has the truth value, also
    /// after it was serialized and parsed by a server.
    #[test]
    fn a_filter_matches_if_the_expression_has_the_truth_value(
        expression in some_expression(), document in some_document(), custom_data in prop::option::of(some_document()),
    ) {
        let parsed = Expression::parse(&expression, &Constants::default()).unwrap();
        let nothing = RawDocumentBuf::new();
        let of = |document| Context::new("u1", custom_data.as_deref(), document);
        let truth = parsed.evaluate(&of(&document));
        for wanted in [true, false] {
            let Some(filter) = parsed.filter(&of(&nothing), wanted) else { continue };
            prop_assert_eq!(filter.matches(&document), truth == Truth::from(wanted), "{:?}", filter);
            let sent = query::Filter::parse(&filter.to_document()).unwrap();
            prop_assert_eq!(sent.matches(&document), truth == Truth::from(wanted), "{:?}", sent);
        }
    }

    /// A superset filter never excludes a document that a rule allows.
    #[test]
    fn a_superset_matches_if_the_expression_has_the_truth_value(
        expression in some_expression(), pair in prop::option::of((some_path(), some_path())), document in some_document(),
        custom_data in prop::option::of(some_document()), patterns in any::<bool>(),
    ) {
        let mut parsed = Expression::parse(&expression, &Constants::default()).unwrap();
        if let Some((one, other)) = pair {
            let [one, other] = [one, other].map(|path| expression::Operand::Field(Path::new(path)));
            parsed = Expression::Any(vec![Expression::Asserts(patterns, Box::new(Expression::Equal(one, other))), parsed]);
        }
        let with_odd = |document: RawDocumentBuf| if patterns { with_odd_values(&document) } else { document };
        let (document, custom_data) = (with_odd(document), custom_data.map(with_odd));
        let nothing = RawDocumentBuf::new();
        let of = |document| Context::new("u1", custom_data.as_deref(), document);
        let truth = parsed.evaluate(&of(&document));
        for wanted in [true, false] {
            let superset = parsed.superset(&of(&nothing), wanted).unwrap();
            let sent = query::Filter::parse(&superset.to_document()).unwrap();
            if let Some(exact) = parsed.filter(&of(&nothing), wanted) {
                prop_assert_eq!(exact.matches(&document), superset.matches(&document), "{:?}", superset);
            }
            if truth == Truth::from(wanted) {
                prop_assert!(superset.matches(&document) && sent.matches(&document), "{:?} {:?}", parsed, superset);
            }
        }
    }

    #[test]
    fn a_guards_superset_matches_every_readable_document(
        parts in prop::collection::vec((some_expression(), prop::option::of(some_expression()), prop::option::of(some_expression()), any::<bool>()), 1..4),
        document in some_document(), custom_data in prop::option::of(some_document()), patterns in any::<bool>(),
    ) {
        let with_odd = |document: RawDocumentBuf| if patterns { with_odd_values(&document) } else { document };
        let (document, custom_data) = (with_odd(document), custom_data.map(with_odd));
        let roles = parts.into_iter().map(|(apply_when, read, write, is_filtered)| {
            let mut allowed = serde_json::Map::new();
            allowed.extend(read.map(|read| ("read".to_owned(), read)));
            allowed.extend(write.map(|write| ("write".to_owned(), write)));
            let mut role = if is_filtered {
                json!({ "document_filters": allowed, "read": true, "write": true })
            } else {
                Value::Object(allowed)
            };
            role["apply_when"] = apply_when;
            role
        });
        let guard = guard_of(roles.collect(), custom_data);
        if let Some(superset) = guard.superset()
            && guard.may_see(&document)
        {
            prop_assert!(superset.matches(&document), "{:?}", superset);
        }
    }

    /// Comparing pairs and looking up keys give the same result.
    #[test]
    fn large_and_small_operands_are_compared_in_the_same_way(left in prop::collection::vec(some_value(), 0..30), right in prop::collection::vec(some_value(), 0..30)) {
        let equal = |a: &Bson, b: &Bson| {
            let pair = RawDocumentBuf::try_from(doc! { "a": a, "b": b }).unwrap();
            query::equal(pair.get("a").unwrap().unwrap(), pair.get("b").unwrap().unwrap())
        };
        let holds = left.iter().any(|a| right.iter().any(|b| !matches!(a, Bson::Boolean(_)) && equal(a, b)));
        let (document, custom) = (doc! { "v": &left }, doc! { "v": &right });
        let raw = |document: &Document| RawDocumentBuf::try_from(document).unwrap();
        let truth = evaluate(json!({ "v": "%%user.custom_data.v" }), &raw(&document), Some(&raw(&custom)));
        // The arrays themselves are values too, and so are items that are arrays.
        let whole = |array: &[Bson], items: &[Bson]| items.iter().any(|item| equal(item, &Bson::Array(array.to_vec())));
        if !whole(&left, &right) && !whole(&right, &left) && !equal(&Bson::Array(left.clone()), &Bson::Array(right.clone())) {
            prop_assert_eq!(truth, Truth::from(holds));
        }
    }
}
