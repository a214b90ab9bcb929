//! Operators, constants, and the conditions of functions.

use super::*;
use crate::constants::{EnvironmentValues, Values};

#[test]
fn operators_compare_within_a_type_and_are_unresolved_otherwise() {
    let document = rawdoc! {
        "n": 5, "text": "m", "scores": [1, 9], "mixed": ["a", 1], "none": [], "nothing": null, "yes": true,
        "date": bson::DateTime::from_millis(1000), "nan": f64::NAN, "flags": [true, false], "deep": [{ "n": 3 }],
    };
    let custom = rawdoc! { "level": 4, "levels": [4], "list": ["m", "x"], "flags": [true], "role": "admin" };
    let (yes, no, unknown) = (Truth::True, Truth::False, Truth::Unresolved);
    let cases = [
        (json!({ "n": { "%gt": 4 } }), yes),
        (json!({ "n": { "$gt": 5 } }), no),
        (json!({ "n": { "%gte": 5.0 } }), yes),
        (json!({ "n": { "%lt": 5 } }), no),
        (json!({ "n": { "%lte": "%%user.custom_data.level" } }), no),
        (json!({ "%%user.custom_data.level": { "%lt": 5, "%gt": 3 } }), yes),
        (json!({ "n": { "%and": [{ "$gt": 0 }, { "$lte": 4 }] } }), no),
        (json!({ "n": { "%or": [{ "$lt": 0 }, 5] } }), yes),
        (json!({ "n": { "%nor": [{ "$lt": 0 }, 4] } }), yes),
        (json!({ "text": { "%gt": "a" } }), yes),
        (json!({ "date": { "%lt": { "$date": "1970-01-01T00:00:02Z" } } }), yes),
        (json!({ "deep.n": { "%gte": 3 } }), yes),
        (json!({ "scores": { "%gt": 8 } }), yes),
        (json!({ "scores": { "%gt": 9 } }), no),
        (json!({ "mixed": { "%gt": 0 } }), yes),
        // Values of other types, even if a comparison of types would have a result.
        (json!({ "mixed": { "%gt": 1 } }), unknown),
        (json!({ "text": { "%gt": 1 } }), unknown),
        (json!({ "nothing": { "%lte": 1 } }), unknown),
        (json!({ "none": { "%lt": 1 } }), unknown),
        (json!({ "nan": { "%lt": 1 } }), unknown),
        (json!({ "n": { "%gt": "%%user.custom_data.levels" } }), unknown),
        (json!({ "n": { "%gt": "%%user.custom_data.role" } }), unknown),
        (json!({ "missing": { "%gt": 1 } }), unknown),
        (json!({ "n": { "%not": { "%gt": 4 } } }), no),
        (json!({ "text": { "%not": { "%gt": 1 } } }), unknown),
        (json!({ "n": { "%eq": 5 } }), yes),
        (json!({ "n": { "%ne": 5 } }), no),
        (json!({ "n": { "%ne": 6 } }), yes),
        (json!({ "missing": { "%ne": 6 } }), unknown),
        (json!({ "n": { "%ne": "%%user.custom_data.missing" } }), unknown),
        (json!({ "text": { "%in": ["a", "m"] } }), yes),
        (json!({ "text": { "$in": [] } }), no),
        (json!({ "text": { "%in": ["%%user.custom_data.role", "a"] } }), no),
        (json!({ "text": { "%in": "%%user.custom_data.list" } }), yes),
        (json!({ "text": { "%nin": "%%user.custom_data.list" } }), no),
        (json!({ "text": { "%in": "%%user.custom_data.role" } }), unknown),
        (json!({ "text": { "%nin": "%%user.custom_data.role" } }), unknown),
        (json!({ "text": { "%nin": "%%user.custom_data.missing" } }), unknown),
        (json!({ "missing": { "%nin": ["a"] } }), unknown),
        (json!({ "missing": { "%in": [] } }), unknown),
        (json!({ "scores": { "%in": [9] } }), yes),
        (json!({ "n": { "%in": [[5]] } }), no),
        (json!({ "yes": { "%in": [true, "x"] } }), yes),
        (json!({ "flags": { "%in": [true] } }), no),
        (json!({ "n": { "%exists": true } }), yes),
        (json!({ "n": { "%exists": "%%false" } }), no),
        (json!({ "nothing": { "%exists": true } }), yes),
        (json!({ "none": { "%exists": true } }), yes),
        (json!({ "missing": { "%exists": true } }), no),
        (json!({ "missing": { "%exists": false } }), yes),
        (json!({ "%%user.custom_data.missing": { "%exists": false } }), yes),
        (json!({ "%not": { "n": 5 } }), no),
        (json!({ "%not": { "missing": 5 } }), unknown),
        (json!({ "%nor": [{ "n": 4 }, { "missing": 5 }] }), unknown),
        (json!({ "$nor": [{ "n": 4 }, false] }), yes),
    ];
    for (expression, truth) in cases {
        assert_eq!(evaluate(expression.clone(), &document, Some(&custom)), truth, "{expression}");
        let parsed = Expression::parse(&expression, &Constants::default()).unwrap();
        let nothing = RawDocumentBuf::new();
        let context = Context::new("u1", Some(&custom), &nothing);
        for wanted in [true, false] {
            if let Some(filter) = parsed.filter(&context, wanted) {
                assert_eq!(filter.matches(&document), truth == Truth::from(wanted), "{expression}: {filter:?}");
            }
        }
    }
}

#[test]
fn operators_become_filters_if_a_filter_is_exact() {
    let nothing = RawDocumentBuf::new();
    let context = Context::new("u1", None, &nothing);
    for (expression, of_true, of_false) in [
        (json!({ "n": { "%gt": 4 } }), true, false),
        (json!({ "n": { "%in": ["a", 1] } }), true, true),
        (json!({ "n": { "%in": [true] } }), true, true),
        (json!({ "n": { "%in": [true, false] } }), false, false),
        (json!({ "n": { "%in": [null] } }), false, false),
        (json!({ "n": { "%exists": true } }), true, true),
    ] {
        let parsed = Expression::parse(&expression, &Constants::default()).unwrap();
        let found = [true, false].map(|truth| parsed.filter(&context, truth).is_some());
        assert_eq!(found, [of_true, of_false], "{expression}");
    }
    let odd = Expression::Exists(expression::Operand::Field(Path::new("a.$b")));
    assert_eq!(odd.filter(&context, true), None);
    assert_eq!(odd.superset(&context, false), Some(query::Filter::Always(true)));
}

#[test]
fn misused_operators_do_not_compile() {
    for (expression, path, message) in [
        (json!({ "%gt": 1 }), ".%gt", r#"%gt has no operand: write { "field": { "%gt": … } }"#),
        (json!({ "a": { "%gt": 1, "b": 2 } }), ".a.b", "'b' is a field beside operators, which an operand cannot have"),
        (json!({ "a": { "%gt": 1, "$size": 2 } }), ".a.$size", "the operator $size is not supported yet"),
        (json!({ "a": { "%gt": 1, "$who": 2 } }), ".a.$who", "$who is not an operator"),
        (json!({ "a": { "%gt": null } }), ".a.%gt", "%gt takes a number, a string, a date, an ObjectId or a timestamp"),
        (json!({ "a": { "%gt": { "%lt": 1 } } }), ".a.%gt", "the operator %lt cannot be part of a value"),
        (json!({ "a": { "%in": 1 } }), ".a.%in", "%in takes a list, or an expansion whose value is a list"),
        (json!({ "a": { "%in": "b" } }), ".a.%in", "%in takes a list, or an expansion whose value is a list"),
        (json!({ "a": { "%in": [{ "%gt": 1 }] } }), ".a.%in[0]", "the operator %gt cannot be part of a value"),
        (json!({ "a": { "%exists": 1 } }), ".a.%exists", "%exists takes true or false"),
        (json!({ "a": { "%exists": "%%user.id" } }), ".a.%exists", "%exists takes true or false"),
        (json!({ "a": { "%and": { "%gt": 1 } } }), ".a.%and", "%and takes an array of expressions"),
        (json!({ "%not": [true] }), ".%not", "an expression must be true, false or an object"),
        (json!({ "a": "%%values.none" }), ".a", "there is no value 'none'"),
        (json!({ "a": "%%environment.none" }), ".a", "there is no %%environment.none: it has 'tag' and 'values'"),
        (json!({ "a": "%%user.data.email" }), ".a", "the expansion %%user.data.email is not supported yet"),
    ] {
        let error = Expression::parse(&expression, &Constants::default()).unwrap_err();
        assert_eq!((error.path.as_str(), error.message.as_str()), (path, message), "{expression}");
    }
}

fn constants() -> Constants {
    let mut values = Values::default();
    values.add("admins", json!(["u1", "u2"]), false);
    values.add("limits", json!({ "level": 3, "id": { "$oid": "x" } }), false);
    values.add("a.b", json!("dotted"), false);
    values.add("key", json!("hidden-text"), true);
    let environment = json!({ "open": true, "url": "https://example.com" });
    let environment = EnvironmentValues { tag: "testing".into(), values: environment.as_object().unwrap().clone() };
    Constants { environment, values }
}

#[test]
fn constants_of_the_definition_are_values() {
    let document = rawdoc! { "owner": "u2", "n": 4, "key": "hidden-text" };
    for (expression, truth) in [
        (json!({ "owner": { "%in": "%%values.admins" } }), Truth::True),
        (json!({ "%%user.id": "%%values.admins" }), Truth::True),
        (json!({ "n": { "%gt": "%%values.limits.level" } }), Truth::True),
        (json!({ "%%values.admins.1": "u2" }), Truth::True),
        (json!({ "%%values.a.b": "dotted" }), Truth::True),
        (json!({ "key": "%%values.key" }), Truth::True),
        (json!({ "%%environment.tag": "production" }), Truth::False),
        (json!({ "%%environment.values.open": true }), Truth::True),
        (json!({ "%%environment": { "%exists": true } }), Truth::True),
    ] {
        let parsed = Expression::parse(&expression, &constants()).unwrap();
        assert_eq!(parsed.evaluate(&Context::new("u1", None, &document)), truth, "{expression}");
    }
    for (expression, message) in [
        (json!({ "a": "%%values.admin" }), "there is no value 'admin'; did you mean 'admins'?"),
        (json!({ "a": "%%values.limits.none" }), "the value 'limits' has no field 'none'"),
        (
            json!({ "a": { "%gt": "%%values.admins" } }),
            "%gt takes a number, a string, a date, an ObjectId or a timestamp",
        ),
        (json!({ "a": { "%in": "%%values.key" } }), "%in takes a list, or an expansion whose value is a list"),
        (
            json!({ "a": "%%environment.values.opn" }),
            "the environment has no value for %%environment.values.opn; did you mean 'open'?",
        ),
        // Names that Extended JSON reserves are not interpreted, and rejected in documents.
        (json!({ "a": "%%values.limits" }), "the value cannot be converted to BSON"),
    ] {
        assert_eq!(Expression::parse(&expression, &constants()).unwrap_err().message, message, "{expression}");
    }
}

#[test]
fn a_secret_is_not_shown_in_an_expression() {
    let expression = json!({ "a": { "%in": ["%%values.key"] }, "b": { "%gte": "%%values.key" }, "c": "%%values.key" });
    let condition = Condition::parse(&expression, &constants()).unwrap();
    let shown = format!("{condition:?}");
    assert!(shown.contains("%%values.key") && !shown.contains("hidden-text"), "{shown}");
    assert!(!format!("{:?}", constants()).contains("hidden-text"));
}

fn condition(value: Value) -> Condition {
    Condition::parse(&value, &constants()).unwrap()
}

#[test]
fn a_condition_is_about_the_user_the_request_and_the_first_argument() {
    let user = rawdoc! {
        "id": "u1", "type": "normal", "data": { "email": "ann@example.com" }, "custom_data": { "role": "admin" },
        "identities": [{ "id": "1", "provider_type": "anon-user" }, { "id": "2", "provider_type": "api-key" }],
    };
    let request = rawdoc! {
        "remoteIPAddress": "10.0.0.1", "httpMethod": "POST",
        "requestHeaders": { "X-Api-Key": ["hidden-text"], "Accept": ["text/html", "text/plain"] },
    };
    let argument = rawdoc! { "password": "p", "items": [{ "n": 1 }], "flag": true };
    for (expression, expected) in [
        (json!(true), true),
        (json!(false), false),
        (json!({ "%%user.id": "u1" }), true),
        (json!({ "%%user.id": { "%in": "%%values.admins" } }), true),
        (json!({ "%%user.type": "server" }), false),
        (json!({ "%%user.data.email": { "%in": ["ann@example.com", "bob@example.com"] } }), true),
        (json!({ "%%user.custom_data.role": "admin" }), true),
        (json!({ "%%user.custom_data.role": "%%user.custom_data.none" }), false),
        (json!({ "%not": { "%%user.custom_data.none": "x" } }), false),
        (json!({ "%%user.identities.provider_type": "api-key" }), true),
        (json!({ "%%user.identities.provider_type": { "%nin": ["api-key"] } }), false),
        (json!({ "%%user": { "%exists": true } }), true),
        (json!({ "%%request.remoteIPAddress": { "$in": ["10.0.0.1"] } }), true),
        (json!({ "%%request.httpMethod": "post" }), false),
        (json!({ "%%request.requestHeaders.x-api-key": "%%values.key" }), true),
        (json!({ "%%request.requestHeaders.X-API-KEY": { "%exists": true } }), true),
        (json!({ "%%request.requestHeaders.accept": "text/plain" }), true),
        (json!({ "%%request.requestHeaders.accept": "text" }), false),
        (json!({ "%%request.requestHeaders.cookie": { "%exists": true } }), false),
        (json!({ "%%environment.tag": "testing" }), true),
        (json!({ "password": { "$exists": true } }), true),
        (json!({ "items.n": { "%gte": 1 } }), true),
        (json!({ "flag": "%%true" }), true),
        (json!({ "id": "u1" }), false),
        (json!({ "other": { "%exists": false } }), true),
    ] {
        let parsed = condition(expression.clone());
        let argument = Some(RawBsonRef::Document(&argument));
        assert_eq!(parsed.allows(&user, &request, argument), expected, "{expression}");
    }
    // Without a document as the first argument, its fields are missing.
    for argument in [None, Some(RawBsonRef::String("password")), Some(RawBsonRef::Null)] {
        assert!(!condition(json!({ "password": { "$exists": true } })).allows(&user, &request, argument));
        assert!(!condition(json!({ "%not": { "password": "x" } })).allows(&user, &request, argument));
    }
    // A value of the caller never becomes an operator, a path or an expansion.
    let crafted = rawdoc! { "id": { "%exists": true }, "data": { "email": "%%user.id" } };
    for expression in [json!({ "%%user.id": "u1" }), json!({ "%%user.data.email": "%%user.id" })] {
        assert!(!condition(expression).allows(&crafted, &request, None));
    }
    let headers = rawdoc! { "requestHeaders": "x-api-key" };
    assert!(
        !condition(json!({ "%%request.requestHeaders.x-api-key": { "%exists": true } })).allows(&user, &headers, None)
    );
}

#[test]
fn a_condition_names_no_document_and_calls_no_function() {
    for (expression, path, message) in [
        (
            json!({ "%%root.owner": "%%user.id" }),
            ".%%root.owner",
            "the expansion %%root.owner names a document, but the condition of a function has none",
        ),
        (
            json!({ "a": "%%prevRoot" }),
            ".a",
            "the expansion %%prevRoot names a document, but the condition of a function has none",
        ),
        (json!({ "%%args.x": 1 }), ".%%args.x", "the expansion %%args.x is not supported yet"),
        (json!({ "%%users": 1 }), ".%%users", "the expansion %%users is not supported yet"),
        (json!({ "%%true": { "%function": {} } }), ".%%true.%function", "the operator %function is not supported yet"),
        (json!([]), "", "an expression must be true, false or an object"),
    ] {
        let error = Condition::parse(&expression, &constants()).unwrap_err();
        assert_eq!((error.path.as_str(), error.message.as_str()), (path, message), "{expression}");
    }
}

#[test]
fn a_condition_says_if_it_needs_custom_data() {
    for (expression, needs) in [
        (json!({ "%%user.custom_data.role": "admin" }), true),
        (json!({ "a": { "%in": "%%user.custom_data" } }), true),
        (json!({ "%not": { "%%user": { "%exists": true } } }), true),
        (json!({ "%%user.data.custom_data": "x", "custom_data": 1 }), false),
        (json!({ "%%user.id": "u1" }), false),
    ] {
        assert_eq!(condition(expression.clone()).needs_custom_data(), needs, "{expression}");
    }
}

#[test]
fn a_condition_allows_nothing_without_a_budget() {
    let numbers: Vec<i32> = (0..5000).collect();
    let list = numbers.iter().fold(bson::raw::RawArrayBuf::new(), |mut all, item| {
        all.push(*item);
        all
    });
    let user = rawdoc! { "id": "u1", "data": { "list": list } };
    let mut values = Values::default();
    values.add("list", json!(numbers), false);
    let constants = Constants { values, ..Constants::default() };
    for list in ["%%user.data.list", "%%values.list"] {
        for on in [json!({ "%gt": 4998 }), json!({ "%in": [4999] }), json!(4999)] {
            let expression = json!({ list: on });
            let condition = Condition::parse(&expression, &constants).unwrap();
            let budget = query::Budget::new(query::Limits { steps: Some(1000), ..query::Limits::default() });
            assert!(!budget.enter(|| condition.allows(&user, &rawdoc! {}, None)), "{expression}");
            assert!(condition.allows(&user, &rawdoc! {}, None), "{expression}");
        }
    }
}
