//! Compares `docs/query-language.md` with the operators that the parsers accept or reject by name.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use bson::{RawBson, RawDocumentBuf, rawdoc};

use crate::{Error, ErrorCode, Expression, Filter, Pipeline, Projection, Update, update::UPDATE_STAGES};

const PAGE: &str = include_str!("../../../docs/query-language.md");

/// The sources in which the parsers list operator names.
const SOURCES: [&str; 8] = [
    include_str!("aggregate/group.rs"),
    include_str!("aggregate/stage.rs"),
    include_str!("expression/call.rs"),
    include_str!("expression/parse.rs"),
    include_str!("filter/parse.rs"),
    include_str!("projection.rs"),
    include_str!("update.rs"),
    include_str!("update/parse.rs"),
];

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Status {
    Works,
    Refused,
}

type Names = BTreeSet<String>;

/// The names in the page's lists, by heading and by "Works" or "Refused".
fn documented() -> BTreeMap<(String, Status), Names> {
    let mut lists: BTreeMap<_, Names> = BTreeMap::new();
    for section in PAGE.split("\n## ").skip(1) {
        let (heading, text) = section.split_once('\n').unwrap();
        for paragraph in text.split("\n\n") {
            let status = match paragraph.trim_start() {
                text if text.starts_with("Works: ") => Status::Works,
                text if text.starts_with("Refused: ") => Status::Refused,
                _ => continue,
            };
            let names = paragraph.split('`').skip(1).step_by(2).map(str::to_owned);
            lists.entry((heading.to_owned(), status)).or_default().extend(names);
        }
    }
    lists
}

/// Each quoted word in the sources, as an operator. Most are none; the parsers decide.
fn candidates() -> Names {
    let is_name = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let words = SOURCES.iter().flat_map(|source| source.split('"')).map(|word| word.trim_start_matches('$'));
    words.filter(|word| is_name(word)).map(|word| format!("${word}")).collect()
}

/// The status of a name by the result of parsing it; `unknown` is true for unknown names.
fn status<T>(parsed: Result<T, Error>, refusal: &str, unknown: impl Fn(&Error) -> bool) -> Option<Status> {
    match parsed {
        Err(error) if unknown(&error) => None,
        Err(error) if error.code == ErrorCode::CommandNotSupported && error.message.starts_with(refusal) => {
            Some(Status::Refused)
        }
        _ => Some(Status::Works),
    }
}

fn one(name: &str, value: impl Into<RawBson>) -> RawDocumentBuf {
    let mut document = RawDocumentBuf::new();
    crate::append(&mut document, name, value.into().as_raw_bson_ref());
    document
}

fn stages(stage: RawDocumentBuf) -> Result<Pipeline, Error> {
    let mut array = bson::raw::RawArrayBuf::new();
    array.push(stage);
    Pipeline::parse(&array)
}

fn filter(name: &str) -> Option<Status> {
    let begins = |start: &'static str| move |error: &Error| error.message.starts_with(start);
    let refusal = format!("the query operator {name} ");
    let top = status(Filter::parse(&one(name, 1)), &refusal, begins("unknown top level operator: "));
    // After an operator, so that the fields of a DBRef (`$ref`) are not taken for operators.
    let mut operators = rawdoc! { "$eq": 1 };
    crate::append(&mut operators, name, RawBson::Int32(1).as_raw_bson_ref());
    let of_field = status(Filter::parse(&one("a", operators)), &refusal, begins("unknown operator: "));
    top.max(of_field)
}

fn update(name: &str) -> Option<Status> {
    let update = RawBson::Document(one(name, RawDocumentBuf::new()));
    let parsed = Update::parse_any(update.as_raw_bson_ref(), None);
    status(parsed, "the update operator", |error| error.message.starts_with("Unknown modifier: "))
}

fn update_stage(name: &str) -> Option<Status> {
    UPDATE_STAGES.contains(&name).then_some(Status::Works)
}

fn expression(name: &str) -> Option<Status> {
    let parsed = Expression::parse(RawBson::Document(one(name, 1)).as_raw_bson_ref());
    status(parsed, &format!("the expression {name} "), |error| error.code == ErrorCode::InvalidPipelineOperator)
}

fn variable(name: &str) -> Option<Status> {
    let name = format!("${name}");
    match Expression::parse(RawBson::String(name.clone()).as_raw_bson_ref()) {
        // The caller binds variables: only `$$NOW` always exists.
        Ok(Expression::Free { name, .. }) if name != "NOW" => None,
        parsed => status(parsed, &format!("the variable {name} "), |_| false),
    }
}

/// A projection operator is one that the projection parser treats differently from an expression.
fn projection(name: &str) -> Option<Status> {
    let message = |error: Error| error.message;
    let operated = Projection::parse(&one("a", one(name, 1)));
    let computed = Expression::parse(RawBson::Document(one(name, 1)).as_raw_bson_ref());
    let is_same = operated.as_ref().err().cloned().map(message) == computed.err().map(message);
    let unknown = |error: &Error| error.message.starts_with("Unknown expression ");
    if is_same { None } else { status(operated, &format!("{name} in the projection"), unknown) }
}

fn accumulator(name: &str) -> Option<Status> {
    let parsed = stages(rawdoc! { "$group": { "_id": 1, "a": one(name, 1) } });
    status(parsed, &format!("the accumulator {name} "), |error| error.code == ErrorCode::UnknownGroupOperator)
}

fn stage(name: &str) -> Option<Status> {
    let parsed = stages(one(name, 1));
    status(parsed, &format!("the pipeline stage {name} "), |error| error.code == ErrorCode::UnrecognizedStage)
}

#[test]
fn the_page_lists_every_supported_and_every_rejected_operator() {
    type Section = (&'static str, fn(&str) -> Option<Status>);
    let sections: [Section; 8] = [
        ("Filters", filter),
        ("Updates", update),
        ("Update pipelines", update_stage),
        ("Projections", projection),
        ("Expressions", expression),
        ("Variables", variable),
        ("Accumulators of `$group`", accumulator),
        ("Stages", stage),
    ];
    let documented = documented();
    let mut names = candidates();
    names.extend(documented.values().flatten().map(|name| name.replace("$$", "$")));
    let mut actual: BTreeMap<_, Names> = BTreeMap::new();
    for (heading, status) in sections {
        for name in &names {
            if let Some(status) = status(name) {
                let name = if heading == "Variables" { format!("${name}") } else { name.clone() };
                actual.entry((heading.to_owned(), status)).or_default().insert(name);
            }
        }
    }
    let headings = |lists: &BTreeMap<(String, Status), Names>| {
        lists.iter().map(|((heading, status), names)| format!("{heading}, {status:?}: {names:?}")).collect::<Vec<_>>()
    };
    assert_eq!(headings(&documented).join("\n"), headings(&actual).join("\n"));
}
