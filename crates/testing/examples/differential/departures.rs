//! The known departures of the compared server from MongoDB, each with the page of the manual that
//! states the correct behaviour (below <https://www.mongodb.com/docs/manual/>).

use bson::{Bson, Document, bson};

use testing::case::{Case, Outcome};

/// A known cause of differences.
pub(crate) struct Departure {
    /// The page of the manual, and the behaviour of the server.
    pub page: &'static str,
    /// True if the departure may explain the outcomes of the two servers.
    shows: fn(&Case, &Outcome, &Outcome) -> bool,
    /// Returns the case without the departure, for which the servers must agree.
    without: Option<fn(&Case) -> Case>,
}

/// All known departures.
pub(crate) const KNOWN: &[Departure] = &[
    Departure {
        page: "reference/operator/aggregation: an expression's failure has code 2 instead of a number of its own",
        shows: |_, ours, theirs| {
            let is_of_expression = |code| code > 10_000 || matches!(code, 14 | 15);
            theirs.failure == Some(2) && ours.failure.is_some_and(is_of_expression) && ours.leaves_as(theirs)
        },
        without: None,
    },
    Departure {
        page: "core/field-paths: a path through an array has no value, instead of an array of what its documents have",
        shows: |case, _, _| mentions(&Bson::Document(case.command.clone()), &is_dotted_reference),
        without: Some(|case| Case { documents: case.documents.clone(), command: with_short_references(&case.command) }),
    },
    Departure {
        page: "reference/operator: which of several failures is reported depends on the order of evaluation",
        shows: |case, ours, theirs| {
            let of_expression =
                |outcome: &Outcome| outcome.failure.is_some_and(|code| matches!(code, 14 | 241) || code > 10_000);
            let has_condition = case.command.to_string().contains("$expr");
            (of_expression(ours) && of_expression(theirs))
                || ((has_condition || paths_of_update(&case.command) > 1)
                    && ours.failure.is_some()
                    && theirs.failure.is_some())
        },
        without: None,
    },
    Departure {
        page: "reference/operator/aggregation/concatArrays: an operand without a value is an error, instead of null",
        shows: |_, ours, theirs| theirs.failure == Some(28664) && ours.failure.is_none(),
        without: None,
    },
    Departure {
        page: "reference/operator/query/expr: the server chooses the order in which it evaluates conditions",
        shows: |case, ours, theirs| {
            (ours.failure.is_none() || theirs.failure.is_none())
                && ours.failure.or(theirs.failure).is_some_and(|code| matches!(code, 2 | 14 | 241) || code > 10_000)
                && case.command.to_string().contains("$expr")
        },
        without: None,
    },
    Departure {
        page: "reference/operator/aggregation/add: a single operand outside an array is an error",
        shows: |case, ours, theirs| {
            ours.failure.is_none() && theirs.failure == Some(2) && case.command.to_string().contains("$add")
        },
        without: None,
    },
    Departure {
        page: "reference/operator/aggregation/subtract: a number cannot be subtracted from a date",
        shows: |case, ours, theirs| {
            ours.failure.is_none() && theirs.failure == Some(2) && case.command.to_string().contains("$subtract")
        },
        without: None,
    },
    Departure {
        page: "reference/operator/aggregation/abs: the result for the least int64 is a double",
        shows: |_, ours, theirs| ours.failure == Some(28680) && theirs.failure.is_none(),
        without: None,
    },
    Departure {
        page: "reference/bson-type-comparison-order: the subtype of binary data, and MinKey and MaxKey, are ignored",
        shows: |case, _, _| {
            let all = case.to_string();
            ["$minKey", "$maxKey", "$binary"].iter().any(|rare| all.contains(rare))
        },
        without: Some(|case| Case {
            documents: case.documents.iter().map(without_rare_values).collect(),
            command: without_rare_values(&case.command),
        }),
    },
    Departure {
        page: "reference/method/cursor.sort: an array without items is not less than null, and items that are no documents, or that a \
               longer path does not lead into, count for nothing",
        shows: |case, _, _| case.command.contains_key("sort"),
        without: Some(|case| Case {
            documents: case.documents.iter().map(|document| with_sorted_items(document, &case.command)).collect(),
            command: case.command.clone(),
        }),
    },
    Departure {
        page: "reference/operator/update/positional: a whole array that matched, or an upsert, has a position",
        shows: |case, ours, theirs| {
            ours.failure == Some(2)
                && matches!(theirs.failure, None | Some(28 | 11000))
                && case.command.to_string().contains(".$")
        },
        without: None,
    },
    Departure {
        page: "reference/operator/update/mul: an equal product of another type, or NaN, is counted differently",
        shows: |case, ours, theirs| {
            let command = case.command.to_string();
            ours.failure.is_none() && theirs.failure.is_none() && (command.contains("$mul") || command.contains("$inc"))
        },
        without: Some(|case| Case {
            documents: case.documents.iter().map(without_rare_values).collect(),
            command: case.command.clone(),
        }),
    },
    Departure {
        page: "reference/operator/aggregation/toLower: a double has six digits",
        shows: |case, _, _| {
            let command = case.command.to_string();
            ["$toLower", "$toUpper", "$substr"].iter().any(|operator| command.contains(operator))
        },
        without: Some(|case| Case {
            documents: case.documents.clone(),
            command: ["$toLower", "$toUpper", "$substrCP", "$substrBytes"]
                .iter()
                .fold(case.command.clone(), |command, operator| with_name(&command, operator, "$and")),
        }),
    },
    Departure {
        page: "reference/operator/aggregation/multiply: results beyond an int64, and decimals, are rounded differently, as in add",
        shows: |case, _, _| {
            let command = case.command.to_string();
            command.contains("$multiply") || command.contains("$add")
        },
        without: Some(|case| Case {
            documents: case.documents.clone(),
            command: with_name(&with_name(&case.command, "$multiply", "$and"), "$add", "$and"),
        }),
    },
    Departure {
        page: "reference/operator/aggregation/subtract: infinite decimals, and integers near the limits of an int64, are computed differently",
        shows: |case, _, _| {
            let command = case.command.to_string();
            ["$subtract", "$add", "$log", "$ln"].iter().any(|operator| command.contains(operator))
        },
        without: Some(|case| Case {
            documents: case.documents.iter().map(without_rare_values).collect(),
            command: without_rare_values(&case.command),
        }),
    },
    Departure {
        page: "reference/operator/aggregation/project: a number computes a field, instead of keeping it",
        shows: |case, _, _| {
            let stages = case.command.get_array("pipeline").ok();
            let stages =
                stages.into_iter().flatten().filter_map(|stage| stage.as_document()?.get_document("$project").ok());
            stages
                .flat_map(Document::values)
                .any(|value| matches!(value, Bson::Int32(_) | Bson::Int64(_) | Bson::Double(_)))
        },
        without: None,
    },
    Departure {
        page: "reference/operator/aggregation/slice: a projection of $slice and computed fields keeps the others",
        shows: |case, _, _| {
            let projection = case.command.get_document("projection").ok();
            let is_slice = |value: &Bson| value.as_document().is_some_and(|value| value.contains_key("$slice"));
            projection.is_some_and(|projection| projection.len() > 1 && projection.values().any(is_slice))
        },
        without: Some(|case| Case { documents: case.documents.clone(), command: without_slices(&case.command) }),
    },
    Departure {
        page: "reference/command/find: a path into a nested projection collides with it",
        shows: |_, ours, theirs| ours.failure.is_none() && theirs.failure == Some(31249),
        without: None,
    },
    Departure {
        page: "reference/operator/projection/slice: not applied in the documents of an array, and to no array but a field",
        shows: |case, _, theirs| {
            let projection = case.command.get_document("projection").ok();
            let is_slice = |value: &Bson| value.as_document().is_some_and(|value| value.contains_key("$slice"));
            let slices = || projection.into_iter().flatten().filter(|(_, value)| is_slice(value));
            slices().any(|(path, _)| path.contains('.') || theirs.failure == Some(2))
        },
        without: None,
    },
    Departure {
        page: "reference/operator/update/positional-all: two paths may change one element",
        shows: |case, ours, theirs| {
            ours.failure == Some(40) && theirs.failure.is_none() && case.command.to_string().contains(".$[")
        },
        without: None,
    },
    Departure {
        page: "reference/operator/query/jsonSchema: minimum is compared differently",
        shows: |case, _, _| without_field(&case.command, "minimum") != case.command,
        without: Some(|case| Case {
            documents: case.documents.clone(),
            command: without_field(&case.command, "minimum"),
        }),
    },
    Departure {
        page: "reference/operator/aggregation: a missing value stays undefined in an array, and leaves no empty document",
        shows: |case, _, _| case.command.to_string().contains('$'),
        without: Some(|case| Case { documents: case.documents.clone(), command: with_values(&case.command) }),
    },
    Departure {
        page: "reference/operator/update/pop: a path through a value without fields is no error",
        shows: |case, ours, theirs| {
            ours.failure != theirs.failure
                && [ours.failure, theirs.failure].contains(&Some(28))
                && case.command.to_string().contains("$pop")
        },
        without: None,
    },
    Departure {
        page: "reference/command/findAndModify: an invalid update is only an error if a document matches",
        shows: |case, ours, theirs| {
            case.command.contains_key("findAndModify")
                && matches!(ours.failure, Some(2 | 9 | 40 | 53))
                && ours.failure != theirs.failure
                && theirs.leaves_as(ours)
        },
        without: None,
    },
    Departure {
        page: "reference/operator/aggregation: an invalid expression is only an error if there is a document",
        shows: |_, ours, theirs| ours.failure == Some(16020) && theirs.failure.is_none(),
        without: None,
    },
    Departure {
        page: "reference/operator/aggregation/pow: the power of integers has another type, or is rounded differently",
        shows: |case, _, _| case.command.to_string().contains("$pow"),
        without: Some(|case| Case {
            documents: case.documents.clone(),
            command: with_name(&case.command, "$pow", "$subtract"),
        }),
    },
    Departure {
        page: "reference/operator/query/bitsAllSet: an integral double or decimal has no bits",
        shows: |case, _, _| case.command.to_string().contains("$bits"),
        without: Some(|case| Case {
            documents: case.documents.iter().map(with_integers).collect(),
            command: case.command.clone(),
        }),
    },
    Departure {
        page: "reference/operator/query/elemMatch: an array in an array is not treated as a document",
        shows: |case, _, _| case.command.to_string().contains("$elemMatch"),
        without: Some(|case| Case {
            documents: case.documents.iter().map(without_nested_arrays).collect(),
            command: case.command.clone(),
        }),
    },
    Departure {
        page: "reference/command/update: a pipeline's upsert keeps the order of the filter's fields",
        shows: |case, ours, theirs| {
            let sorted = |outcome: &Outcome| outcome.left.iter().map(sorted).collect::<Vec<_>>();
            case.command.to_string().contains("upsert") && ours.failure.is_none() && sorted(ours) == sorted(theirs)
        },
        without: None,
    },
    Departure {
        page: "reference/command/update: a replacement by the same document counts as modified",
        shows: |case, ours, theirs| {
            ours.left == theirs.left
                && case.command.contains_key("update")
                && theirs.reply.get_i32("nModified").ok() == Some(1)
        },
        without: None,
    },
    Departure {
        page: "reference/method/db.collection.update: $expr in an upsert is only an error if nothing matches",
        shows: |_, ours, _| ours.failure == Some(224),
        without: None,
    },
    Departure {
        page: "reference/operator/aggregation/mergeObjects: an operand that is not an object is no error",
        shows: |_, ours, theirs| ours.failure == Some(40400) && theirs.failure.is_none(),
        without: None,
    },
    Departure {
        page: "reference/operator/query/all: in an upsert its conditions count as equalities, and in a replacement all conditions do",
        shows: |case, ours, theirs| {
            [ours.failure, theirs.failure].contains(&Some(54))
                && ours.failure != theirs.failure
                && case.command.to_string().contains("upsert")
        },
        without: None,
    },
    Departure {
        page: "reference/operator/update/mul: a value that is not a number causes code 2 in an array under $[]",
        shows: |case, ours, theirs| {
            ours.failure == Some(14) && theirs.failure == Some(2) && case.command.to_string().contains(".$[")
        },
        without: None,
    },
    Departure {
        page: "tutorial/query-for-null-fields: an element beyond the end of an array is null",
        shows: |case, _, _| has_index(&case.command),
        without: Some(|case| Case { documents: case.documents.clone(), command: without_indexes(&case.command) }),
    },
];

impl Departure {
    /// True if the departure can be removed from the case alone, whatever the outcomes are.
    pub(crate) fn is_of_the_case(&self) -> bool {
        self.without.is_some()
    }

    /// Returns the case without this departure. If nothing else differs, the servers agree on it.
    pub(crate) fn without(&self, case: &Case) -> Case {
        self.without.map_or_else(|| case.clone(), |without| without(case))
    }

    pub(crate) fn shows(&self, case: &Case, ours: &Outcome, theirs: &Outcome) -> bool {
        (self.shows)(case, ours, theirs)
    }
}

/// True if a string anywhere in a value satisfies a predicate.
fn mentions(value: &Bson, is: &dyn Fn(&str) -> bool) -> bool {
    match value {
        Bson::String(text) => is(text),
        Bson::Array(items) => items.iter().any(|item| mentions(item, is)),
        Bson::Document(fields) => fields.values().any(|value| mentions(value, is)),
        _ => false,
    }
}

/// The number of paths that the update operators of a command change.
fn paths_of_update(command: &Document) -> usize {
    let statement = command.get_array("updates").ok().and_then(|updates| updates.first()?.as_document());
    let operators = match statement {
        Some(statement) => statement.get_document("u"),
        None => command.get_document("update"),
    };
    let operators = operators.into_iter().flat_map(Document::values);
    operators.filter_map(Bson::as_document).map(Document::len).sum()
}

/// True if a path anywhere in a command contains an array index.
fn has_index(command: &Document) -> bool {
    without_indexes(command) != *command
}

/// Rewrites a document at every depth: `name` renames or removes fields, and `change` replaces
/// values. A replaced value is not rewritten again.
fn rewritten(
    document: &Document,
    name: &dyn Fn(&str) -> Option<String>,
    change: &dyn Fn(&Bson) -> Option<Bson>,
) -> Document {
    fn value_of(value: &Bson, name: &dyn Fn(&str) -> Option<String>, change: &dyn Fn(&Bson) -> Option<Bson>) -> Bson {
        change(value).unwrap_or_else(|| match value {
            Bson::Array(items) => Bson::Array(items.iter().map(|item| value_of(item, name, change)).collect()),
            Bson::Document(fields) => Bson::Document(rewritten(fields, name, change)),
            other => other.clone(),
        })
    }
    let fields = document.iter().filter_map(|(field, value)| Some((name(field)?, value_of(value, name, change))));
    fields.collect()
}

/// Replaces values of a document at every depth.
fn with_values_changed(document: &Document, change: &dyn Fn(&Bson) -> Option<Bson>) -> Document {
    rewritten(document, &|name| Some(name.to_owned()), change)
}

/// Returns a command without array indexes in its paths.
fn without_indexes(command: &Document) -> Document {
    rewritten(command, &|name| Some(name.replace(".0", ".zero").replace(".1", ".one")), &|_| None)
}

/// Renames a field of a command at every depth.
fn with_name(command: &Document, old: &str, new: &str) -> Document {
    rewritten(command, &|name| Some(if name == old { new } else { name }.to_owned()), &|_| None)
}

/// Removes a field of a command at every depth.
fn without_field(command: &Document, field: &str) -> Document {
    rewritten(command, &|name| (name != field).then(|| name.to_owned()), &|_| None)
}

fn is_dotted_reference(text: &str) -> bool {
    text.starts_with('$') && text.contains('.')
}

/// Cuts the references of a command to their first part.
fn with_short_references(command: &Document) -> Document {
    with_values_changed(command, &|value| {
        let text = value.as_str().filter(|text| is_dotted_reference(text))?;
        Some(Bson::String(text.split('.').next()?.to_owned()))
    })
}

/// Returns a command in which no reference or operator lacks a value.
fn with_values(command: &Document) -> Document {
    const MAYBE: [&str; 7] = ["$arrayElemAt", "$cond", "$first", "$ifNull", "$let", "$reduce", "$switch"];
    with_values_changed(command, &|value| match value {
        Bson::String(text) if text.starts_with('$') => Some(bson!({ "$ifNull": [text, 7] })),
        Bson::Document(fields) if fields.keys().any(|name| MAYBE.contains(&name.as_str())) => {
            Some(bson!({ "$ifNull": [with_values(fields), 7] }))
        }
        _ => None,
    })
}

/// Converts integral numbers of a document to integers.
fn with_integers(document: &Document) -> Document {
    with_values_changed(document, &|value| {
        let number = match value {
            Bson::Double(number) => *number,
            Bson::Decimal128(number) => number.to_string().parse().ok()?,
            _ => return None,
        };
        (number.fract() == 0.0).then_some(Bson::Int64(number as i64))
    })
}

/// Replaces arrays in arrays.
fn without_nested_arrays(document: &Document) -> Document {
    with_values_changed(document, &|value| {
        let without = |item: &Bson| match item {
            Bson::Array(_) => Bson::Int32(0),
            Bson::Document(fields) => Bson::Document(without_nested_arrays(fields)),
            other => other.clone(),
        };
        Some(Bson::Array(value.as_array()?.iter().map(without).collect()))
    })
}

/// Replaces values that the server compares or computes differently.
fn without_rare_values(document: &Document) -> Document {
    with_values_changed(document, &|value| {
        let is_rare = match value {
            Bson::MinKey | Bson::MaxKey | Bson::Binary(_) => return Some(Bson::String(format!("{value:?}"))),
            Bson::Double(number) => !number.is_finite() || *number == 0.0,
            Bson::Decimal128(number) => number.to_string().starts_with(['0', '-', 'N', 'I']),
            Bson::Int64(number) => number.unsigned_abs() > 1 << 50,
            _ => false,
        };
        is_rare.then_some(Bson::Int32(7))
    })
}

/// Makes every array of a document non-empty, and either all documents or no documents.
fn with_full_arrays(document: &Document) -> Document {
    with_values_changed(document, &|value| {
        let items = value.as_array()?;
        if items.is_empty() {
            return Some(Bson::Array(vec![Bson::Null]));
        }
        let documents = items.iter().filter_map(Bson::as_document);
        let documents: Vec<Bson> = documents.map(|item| Bson::Document(with_full_arrays(item))).collect();
        (!documents.is_empty()).then_some(Bson::Array(documents))
    })
}

/// Returns the same, and removes the array elements that no sort path leads into.
fn with_sorted_items(document: &Document, command: &Document) -> Document {
    let mut document = with_full_arrays(document);
    for path in command.get_document("sort").into_iter().flat_map(Document::keys) {
        let parts: Vec<&str> = path.split('.').collect();
        if let [array, rest @ ..] = &parts[..]
            && rest.len() > 1
            && let Ok(items) = document.get_array_mut(array)
            && items.iter().any(|item| leads_into(item, rest))
        {
            items.retain(|item| leads_into(item, rest));
        }
    }
    document
}

/// True if a path has a value, or may have several.
fn leads_into(value: &Bson, path: &[&str]) -> bool {
    match (path, value) {
        ([], _) | (_, Bson::Array(_)) => true,
        ([field, rest @ ..], Bson::Document(document)) => {
            document.get(field).is_some_and(|value| leads_into(value, rest))
        }
        _ => false,
    }
}

/// Returns a `find` without `$slice` in its projection.
fn without_slices(command: &Document) -> Document {
    let mut command = command.clone();
    if let Ok(projection) = command.get_document_mut("projection") {
        let is_slice = |value: &Bson| value.as_document().is_some_and(|value| value.contains_key("$slice"));
        *projection = projection
            .clone()
            .into_iter()
            // A projection of `$slice` alone becomes empty, which also keeps all fields.
            .filter(|(_, value)| !is_slice(value))
            .collect();
    }
    command
}

/// Returns the fields of a document as text, sorted by name.
fn sorted(document: &Document) -> String {
    let mut fields: Vec<String> = document.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    fields.sort();
    fields.join(", ")
}
