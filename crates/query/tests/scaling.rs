//! Tests of the cost of operations: four times the input takes about four times as many steps of
//! the budget, and every operation stops soon after its budget is exhausted.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use bson::{
    RawBson,
    raw::{RawArrayBuf, RawBsonRef, RawDocument, RawDocumentBuf},
    rawdoc,
};
use query::{
    Budget, Error, Filter, KeyPattern, Limits, Path, Pipeline, Projection, Result, Sort, Update, append, difference,
    distinct,
};
use support::Fixed;

/// The work of an operation on one input.
type Work = Box<dyn Fn() -> Result<()>>;

/// Creates an operation for an input of some size.
type Operation = fn(usize) -> Work;

fn array<T: Into<RawBson>>(count: usize, item: impl Fn(usize) -> T) -> RawArrayBuf {
    let mut array = RawArrayBuf::new();
    (0..count).for_each(|place| array.push(item(place).into()));
    array
}

fn document<T: Into<RawBson>>(count: usize, field: impl Fn(usize) -> (String, T)) -> RawDocumentBuf {
    let mut document = RawDocumentBuf::new();
    for place in 0..count {
        let (name, value) = field(place);
        append(&mut document, &name, &value.into());
    }
    document
}

fn numbers(count: usize) -> RawArrayBuf {
    array(count, |place| place as i32)
}

/// Numbers that [`numbers`] does not contain.
fn others(count: usize) -> RawArrayBuf {
    array(count, |place| -(place as i32) - 1)
}

/// `{ f0: value, f1: value, … }`
fn fields<T: Into<RawBson>>(count: usize, value: impl Fn(usize) -> T) -> RawDocumentBuf {
    document(count, |place| (format!("f{place}"), value(place)))
}

fn of<T: Into<RawBson>>(name: &str, value: T) -> RawDocumentBuf {
    let mut document = RawDocumentBuf::new();
    append(&mut document, name, &value.into());
    document
}

fn filtering(filter: RawDocumentBuf, document: RawDocumentBuf) -> Work {
    Box::new(move || Filter::parse(&filter)?.try_matches(&document).map(drop))
}

fn positioning(filter: RawDocumentBuf, document: RawDocumentBuf) -> Work {
    let update = Update::parse(&rawdoc! { "$set": { "a.$": 1 } }).unwrap();
    Box::new(move || update.apply(&document, &Filter::parse(&filter)?, &Fixed).map(drop))
}

fn updating(update: RawDocumentBuf, document: RawDocumentBuf) -> Work {
    Box::new(move || Update::parse(&update)?.apply(&document, &Filter::all(), &Fixed).map(drop))
}

fn projecting(projection: RawDocumentBuf, document: RawDocumentBuf) -> Work {
    Box::new(move || Projection::parse(&projection)?.apply(&document, &Filter::all()).map(drop))
}

fn running(stage: RawDocumentBuf, documents: Vec<RawDocumentBuf>) -> Work {
    running_all(vec![stage], documents)
}

fn running_all(stages: Vec<RawDocumentBuf>, documents: Vec<RawDocumentBuf>) -> Work {
    let stages = array(stages.len(), |place| stages[place].clone());
    Box::new(move || {
        let pipeline = Pipeline::parse(&stages)?;
        pipeline.run(documents.iter().cloned()).try_for_each(|document| document.map(drop))
    })
}

fn computing(expression: RawDocumentBuf, document: RawDocumentBuf) -> Work {
    running(rawdoc! { "$replaceWith": { "x": expression } }, vec![document])
}

fn bounding(filter: RawDocumentBuf) -> Work {
    let index = KeyPattern::of(Path::new("_id"));
    Box::new(move || {
        index.bounds(&Filter::parse(&filter)?, false);
        query::budget::charge(1)
    })
}

fn conditions(operator: &str, condition: &str, count: usize) -> RawDocumentBuf {
    let condition = |place: usize| of("a", of(condition, place as i32));
    of(operator, array(count, condition))
}

fn many(count: usize) -> Vec<RawDocumentBuf> {
    (0..count)
        .map(|place| rawdoc! { "_id": place as i32, "n": (place * 7919 % 1009) as i32, "text": "x".repeat(50) })
        .collect()
}

fn dotted(count: usize) -> RawDocumentBuf {
    document(count, |place| (format!("f{place}.x"), 1))
}

/// Operations that combine a list from a client with another list, by name.
const OPERATIONS: &[(&str, Operation)] = &[
    ("$in", |n| filtering(rawdoc! { "a": { "$in": numbers(n) } }, rawdoc! { "a": others(n) })),
    ("$nin", |n| filtering(rawdoc! { "a": { "$nin": numbers(n) } }, rawdoc! { "a": others(n) })),
    ("$all", |n| filtering(rawdoc! { "a": { "$all": numbers(n) } }, rawdoc! { "a": numbers(n) })),
    ("position of $all", |n| positioning(rawdoc! { "a": { "$all": numbers(n) } }, rawdoc! { "a": numbers(n) })),
    ("$and of $ne", |n| filtering(conditions("$and", "$ne", n), rawdoc! { "a": others(n) })),
    ("$or of $eq", |n| filtering(conditions("$or", "$eq", n), rawdoc! { "a": others(n) })),
    ("$nor of $eq", |n| filtering(conditions("$nor", "$eq", n), rawdoc! { "a": others(n) })),
    ("$elemMatch of $in", |n| {
        filtering(rawdoc! { "a": { "$elemMatch": { "$in": numbers(n) } } }, rawdoc! { "a": others(n) })
    }),
    ("many operators on one path", |n| {
        let long = "a".repeat(n);
        filtering(of(&long, document(n, |place| ("$gte".to_owned(), place as i32))), rawdoc! { "a": 1 })
    }),
    ("schema: enum", |n| {
        let schema = rawdoc! { "properties": { "a": { "items": { "enum": numbers(n) } } } };
        filtering(rawdoc! { "$jsonSchema": schema }, rawdoc! { "a": numbers(n) })
    }),
    ("schema: properties", |n| {
        let schema = rawdoc! { "properties": fields(n, |_| rawdoc! { "bsonType": "int" }) };
        filtering(rawdoc! { "$jsonSchema": schema }, fields(n, |place| place as i32))
    }),
    ("schema: required", |n| {
        let schema = rawdoc! { "required": array(n, |place| format!("f{place}")) };
        filtering(rawdoc! { "$jsonSchema": schema }, fields(n, |place| place as i32))
    }),
    ("schema: uniqueItems", |n| {
        filtering(
            rawdoc! { "$jsonSchema": { "properties": { "a": { "uniqueItems": true } } } },
            rawdoc! { "a": numbers(n) },
        )
    }),
    ("$set", |n| updating(rawdoc! { "$set": fields(n, |_| 1) }, fields(n, |_| 2))),
    ("$set of new fields", |n| updating(rawdoc! { "$set": fields(n, |_| 1) }, rawdoc! {})),
    ("$set in one document", |n| {
        let set = document(n, |place| (format!("a.f{place}"), 1));
        updating(rawdoc! { "$set": set }, rawdoc! { "a": fields(n, |_| 2) })
    }),
    ("$set of items", |n| {
        let set = document(n, |place| (format!("a.{place}"), 1));
        updating(rawdoc! { "$set": set }, rawdoc! { "a": numbers(n) })
    }),
    ("$unset", |n| updating(rawdoc! { "$unset": fields(n, |_| 1) }, fields(n, |_| 2))),
    ("$rename", |n| {
        let renamed = document(n, |place| (format!("f{place}"), format!("g{place}")));
        updating(rawdoc! { "$rename": renamed }, fields(n, |_| 2))
    }),
    ("$addToSet", |n| updating(rawdoc! { "$addToSet": { "a": { "$each": others(n) } } }, rawdoc! { "a": numbers(n) })),
    ("$pullAll", |n| updating(rawdoc! { "$pullAll": { "a": others(n) } }, rawdoc! { "a": numbers(n) })),
    ("$pull of $in", |n| updating(rawdoc! { "$pull": { "a": { "$in": others(n) } } }, rawdoc! { "a": numbers(n) })),
    ("$push with $sort", |n| {
        updating(rawdoc! { "$push": { "a": { "$each": others(n), "$sort": 1 } } }, rawdoc! { "a": numbers(n) })
    }),
    ("array filters", |n| {
        let filters = array(1, |_| rawdoc! { "x": { "$in": numbers(n) } });
        let document = rawdoc! { "a": numbers(n) };
        Box::new(move || {
            let update = rawdoc! { "$set": { "a.$[x]": 1 }, "$inc": { "b": 1 } };
            let update = Update::parse_any(RawBsonRef::Document(&update), Some(&filters))?;
            update.apply(&document, &Filter::all(), &Fixed).map(drop)
        })
    }),
    ("upsert", |n| {
        let filter = fields(n, |place| place as i32);
        let update = Update::parse(&rawdoc! { "$set": { "a": 1 } }).unwrap();
        Box::new(move || update.upsert(&Filter::parse(&filter)?, &Fixed).map(drop))
    }),
    ("projection", |n| projecting(fields(n, |_| 1), fields(n, |_| 2))),
    ("projection of nested fields", |n| projecting(dotted(n), fields(n, |_| rawdoc! { "x": 1, "y": 1 }))),
    ("projection by nested documents", |n| {
        projecting(fields(n, |_| rawdoc! { "x": 1 }), fields(n, |_| rawdoc! { "x": 1, "y": 1 }))
    }),
    ("projection of $slice", |n| projecting(fields(n, |_| rawdoc! { "$slice": 1 }), fields(n, |_| numbers(2)))),
    ("projection of expressions", |n| projecting(fields(n, |_| rawdoc! { "$add": [1, 1] }), fields(n, |_| 1))),
    ("$addFields", |n| running(rawdoc! { "$addFields": fields(n, |_| "x") }, vec![fields(n, |_| 1)])),
    ("$addFields of nested fields", |n| running(rawdoc! { "$addFields": dotted(n) }, vec![fields(n, |_| 1)])),
    ("$project", |n| running(rawdoc! { "$project": fields(n, |_| rawdoc! { "$literal": 1 }) }, vec![fields(n, |_| 1)])),
    ("$unset stage", |n| running(rawdoc! { "$unset": array(n, |place| format!("f{place}")) }, vec![fields(n, |_| 1)])),
    ("$unwind", |n| running(rawdoc! { "$unwind": "$a" }, vec![rawdoc! { "a": numbers(n) }])),
    ("$group", |n| running(rawdoc! { "$group": { "_id": "$n", "all": { "$push": "$n" } } }, many(n))),
    ("$addToSet of $group", |n| running(rawdoc! { "$group": { "_id": 1, "all": { "$addToSet": "$_id" } } }, many(n))),
    ("$sort", |n| running(rawdoc! { "$sort": { "n": 1 } }, many(n))),
    ("$sort and $limit", |n| running_all(vec![rawdoc! { "$sort": { "n": 1 } }, rawdoc! { "$limit": 5 }], many(n))),
    ("$setDifference", |n| computing(rawdoc! { "$setDifference": ["$a", others(n)] }, rawdoc! { "a": numbers(n) })),
    ("$setUnion", |n| computing(rawdoc! { "$setUnion": ["$a", others(n)] }, rawdoc! { "a": numbers(n) })),
    ("$setIntersection", |n| {
        computing(rawdoc! { "$setIntersection": ["$a", numbers(n)] }, rawdoc! { "a": numbers(n) })
    }),
    ("$mergeObjects", |n| {
        computing(rawdoc! { "$mergeObjects": "$a" }, rawdoc! { "a": array(n, |place| of(&format!("f{place}"), 1)) })
    }),
    ("$arrayToObject", |n| {
        let pair = |place| rawdoc! { "k": format!("f{place}"), "v": 1 };
        computing(rawdoc! { "$arrayToObject": "$a" }, rawdoc! { "a": array(n, pair) })
    }),
    ("$let", |n| {
        let vars = document(n, |place| (format!("v{place}"), 1));
        let body = array(n, |place| format!("$$v{place}"));
        computing(rawdoc! { "$let": { "vars": vars, "in": body } }, rawdoc! {})
    }),
    ("$indexOfBytes", |n| {
        let text = format!("{}c", "a".repeat(n));
        computing(rawdoc! { "$indexOfBytes": ["$a", format!("{}b", "a".repeat(n / 2))] }, rawdoc! { "a": text })
    }),
    ("$trim", |n| {
        let chars = format!("{}a", "b".repeat(n));
        computing(rawdoc! { "$trim": { "input": "$a", "chars": chars } }, rawdoc! { "a": "a".repeat(n) })
    }),
    ("$regexFindAll", |n| {
        computing(
            rawdoc! { "$size": { "$regexFindAll": { "input": "$a", "regex": "a" } } },
            rawdoc! { "a": "a".repeat(n / 8) },
        )
    }),
    ("bounds of $in", |n| bounding(rawdoc! { "_id": { "$in": numbers(n) } })),
    ("bounds of $in twice", |n| {
        let one = |numbers| rawdoc! { "_id": { "$in": numbers } };
        bounding(rawdoc! { "$and": [one(numbers(n)), one(array(n, |place| place as i32 + 1))] })
    }),
    ("bounds of many conditions", |n| {
        let one = |place: usize| rawdoc! { "_id": { "$gte": place as i32 } };
        bounding(rawdoc! { "$and": array(n, one), "_id": { "$in": numbers(n) } })
    }),
    ("difference", |n| {
        let (before, after) = (fields(n, |place| place as i32), fields(n, |place| place as i32 + 1));
        Box::new(move || {
            difference(&before, &after);
            query::budget::charge(1)
        })
    }),
    ("distinct", |n| {
        let document = rawdoc! { "a": numbers(n) };
        Box::new(move || {
            distinct([&*document as &RawDocument], "a");
            query::budget::charge(1)
        })
    }),
    ("sort by many paths", |n| {
        let (sort, document) = (fields(n / 16, |_| 1), fields(n / 16, |place| place as i32));
        Box::new(move || {
            Sort::parse(&sort)?.key(&document);
            query::budget::charge(1)
        })
    }),
];

/// Operations whose number of steps is quadratic, as in the server. Their budget stops them.
const QUADRATIC: &[&str] = &["$regexFindAll", "sort by many paths"];

fn steps(operation: &dyn Fn() -> Result<()>) -> u64 {
    let budget = Budget::default();
    budget.enter(operation).unwrap();
    budget.steps()
}

#[test]
fn the_number_of_steps_is_linear_in_the_input() {
    let size = 2_000;
    let mut wrong = Vec::new();
    for (name, operation) in OPERATIONS.iter().filter(|(name, _)| !QUADRATIC.contains(name)) {
        let (few, many) = (steps(&operation(size)), steps(&operation(4 * size)));
        // An operation that charges almost nothing is as wrong as one that charges too much.
        if few < size as u64 / 64 || many > 6 * few {
            wrong.push(format!("{name}: {few} steps for {size} items, {many} for {}", 4 * size));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Steps may miss work that is not charged; time does not.
#[test]
fn large_inputs_take_little_time() {
    for (name, operation) in OPERATIONS.iter().filter(|(name, _)| !QUADRATIC.contains(name)) {
        let operation = operation(40_000);
        let begun = Instant::now();
        operation().unwrap();
        let taken = begun.elapsed();
        assert!(taken < Duration::from_secs(8), "{name} takes {taken:?}");
    }
}

/// Runs an operation with a limit of steps; returns the code of its error and the time it took.
fn stopped(operation: &dyn Fn() -> Result<()>, steps: u64) -> (Option<i32>, Duration) {
    let budget = Budget::new(Limits { steps: Some(steps), ..Limits::default() });
    let begun = Instant::now();
    let error = budget.enter(operation).err().map(|error| error.number());
    (error, begun.elapsed())
}

#[test]
fn every_operation_stops_when_its_budget_is_exhausted() {
    let mut wrong = Vec::new();
    for (name, operation) in OPERATIONS {
        let operation = operation(40_000);
        let begun = Instant::now();
        operation().ok();
        let whole = begun.elapsed();
        let (error, taken) = stopped(&operation, 1_000);
        if error != Some(50) || taken > whole * 3 + Duration::from_millis(500) {
            wrong.push(format!("{name}: {error:?} after {taken:?} of {whole:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Operations whose result is expensive by definition: only the budget stops them.
#[test]
fn hostile_operations_stop() {
    let nested = |depth: usize, count: usize| {
        (0..depth).fold(rawdoc! { "x": 1 }, |inner, _| rawdoc! { "a": array(count, |_| inner.clone()) })
    };
    let unwinds = vec![rawdoc! { "$unwind": "$a" }, rawdoc! { "$unwind": "$b" }, rawdoc! { "$unwind": "$c" }];
    let wide = rawdoc! { "a": numbers(1000), "b": numbers(1000), "c": numbers(1000) };
    let condition = |place: usize| of(&format!("a.{}", "0.".repeat(60) + &place.to_string()), 2);
    let winding = (0..60).fold(rawdoc! { "0": 1 }, |inner, _| rawdoc! { "0": [inner] });
    let paths = array(50_000, |place| rawdoc! { "a": { "$ne": "x" }, "b": { "$ne": format!("y{place}") } });
    let hostile: Vec<(&str, Work)> = vec![
        ("three $unwind", running_all(unwinds, vec![wide.clone()])),
        (
            "$and of $ne on two paths",
            filtering(rawdoc! { "$and": paths }, rawdoc! { "a": numbers(20_000), "b": numbers(20_000) }),
        ),
        ("a winding path", filtering(of("$or", array(8, condition)), rawdoc! { "a": [winding] })),
        ("schemas without rules", {
            let schemas = array(50_000, |_| rawdoc! {});
            let schema = rawdoc! { "properties": { "a": { "items": { "allOf": schemas } } } };
            filtering(rawdoc! { "$jsonSchema": schema }, rawdoc! { "a": numbers(50_000) })
        }),
        ("many patterns", {
            let patterns = array(500, |place| {
                RawBson::RegularExpression(bson::Regex {
                    pattern: format!("(x+x+)+{place}").try_into().unwrap(),
                    options: "".try_into().unwrap(),
                })
            });
            filtering(rawdoc! { "a": { "$in": patterns } }, rawdoc! { "a": array(1000, |_| "x".repeat(30)) })
        }),
        ("$reduce with text that grows", {
            let reduce = rawdoc! { "input": "$a", "initialValue": "", "in": { "$concat": ["$$value", "0123456789"] } };
            computing(rawdoc! { "$reduce": reduce }, rawdoc! { "a": numbers(50_000) })
        }),
        ("$map of $$ROOT", computing(rawdoc! { "$map": { "input": "$a", "in": "$$ROOT" } }, wide)),
        ("$replaceAll that grows", {
            let replace = rawdoc! { "input": "$a", "find": "a", "replacement": "$a" };
            computing(rawdoc! { "$replaceAll": replace }, rawdoc! { "a": "a".repeat(3_000) })
        }),
        ("an update of all items in arrays of arrays", {
            updating(rawdoc! { "$set": { "a.$[].a.$[].a.$[].x": "x".repeat(100) }, "$inc": { "b": 1 } }, nested(3, 30))
        }),
        ("paths with a long beginning", projecting(of(&"a".repeat(100_000), fields(5_000, |_| 1)), rawdoc! {})),
        ("keys with a large field", {
            let (index, document) = (
                KeyPattern::parse(&rawdoc! { "big": 1, "a": 1 }).unwrap(),
                rawdoc! { "big": "x".repeat(100_000), "a": numbers(5_000) },
            );
            Box::new(move || index.keys(&document).map(drop))
        }),
    ];
    let mut wrong = Vec::new();
    for (name, operation) in hostile {
        let (error, taken) = stopped(&operation, 20_000);
        if error != Some(50) || taken > Duration::from_secs(3) {
            wrong.push(format!("{name}: {error:?} after {taken:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_cost_of_writing_a_nested_filter_is_linear_in_its_depth() {
    let nest = |inner: RawDocumentBuf, _| rawdoc! { "$and": [{ "a": 1 }, { "a": 2 }, inner] };
    let filter = (0..50).fold(rawdoc! { "a": 3 }, nest);
    assert_eq!(Filter::parse(&filter).unwrap().to_document(), filter);
}

#[test]
fn stages_respect_the_memory_limit() {
    let budget = || Budget::new(Limits { bytes: Some(1_000_000), ..Limits::default() });
    let run = |stages: Vec<RawDocumentBuf>, count| budget().enter(&*running_all(stages, many(count)));
    let sort = || rawdoc! { "$sort": { "n": 1 } };
    assert!(run(vec![sort()], 1_000).is_ok());
    let long = rawdoc! { "$concat": array(20, |_| "$text") };
    for stage in [
        sort(),
        rawdoc! { "$group": { "_id": "$_id" } },
        rawdoc! { "$group": { "_id": 1, "all": { "$push": "$$ROOT" } } },
        rawdoc! { "$group": { "_id": 1, "all": { "$addToSet": "$_id" } } },
        rawdoc! { "$group": { "_id": "$n", "first": { "$first": "$$ROOT" }, "max": { "$max": long } } },
    ] {
        let error = run(vec![stage.clone()], 20_000).err();
        assert_eq!(error.map(|error| error.number()), Some(292), "{stage:?}");
    }
    // `$count` holds no documents, and `$sort` with a limit only the ones that it returns.
    assert!(run(vec![rawdoc! { "$count": "n" }], 20_000).is_ok());
    assert!(run(vec![sort(), rawdoc! { "$skip": 5 }, rawdoc! { "$limit": 100 }], 20_000).is_ok());
}

#[test]
fn a_sort_with_a_limit_returns_the_first_documents_of_the_whole_sort() {
    let answers = |stages: &[RawDocumentBuf]| {
        let stages = array(stages.len(), |place| stages[place].clone());
        Pipeline::parse(&stages).unwrap().run(many(5_000).into_iter()).collect::<Result<Vec<_>>>().unwrap()
    };
    let sort = rawdoc! { "$sort": { "n": -1 } };
    let whole = answers(std::slice::from_ref(&sort));
    assert_eq!(answers(&[sort.clone(), rawdoc! { "$limit": 333 }]), whole[..333]);
    assert_eq!(answers(&[sort, rawdoc! { "$skip": 10 }, rawdoc! { "$limit": 90 }]), whole[10..100]);
}

#[test]
fn a_pipeline_ends_with_its_first_error() {
    let stages = array(1, |_| rawdoc! { "$replaceWith": { "$cond": ["$n", "$$ROOT", 1] } });
    let pipeline = Pipeline::parse(&stages).unwrap();
    let answers: Vec<_> = pipeline.run(many(3).into_iter().chain(many(3))).collect();
    assert!(answers.len() == 1 && answers[0].is_err());
    // An error in the input is not skipped.
    let stages = array(1, |_| rawdoc! { "$skip": 1 });
    let pipeline = Pipeline::parse(&stages).unwrap();
    let failed = Error { code: query::ErrorCode::BadValue, message: "x".into() };
    let input = [Err(failed.clone()), Ok(rawdoc! {})].into_iter();
    assert_eq!(pipeline.run_on(input, &query::Run::default()).collect::<Vec<_>>(), [Err(failed)]);
}

#[test]
fn a_pipeline_does_nothing_before_the_first_document_is_taken() {
    let stages = array(1, |_| rawdoc! { "$sort": { "n": 1 } });
    let pipeline = Pipeline::parse(&stages).unwrap();
    let taken = std::cell::Cell::new(0);
    let input = many(10).into_iter().inspect(|_| taken.set(taken.get() + 1));
    let mut documents = pipeline.run(input);
    assert_eq!(taken.get(), 0);
    assert!(documents.next().is_some());
    assert_eq!(taken.get(), 10);
}
