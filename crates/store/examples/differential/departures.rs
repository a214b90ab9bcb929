//! Where the server that is compared with is known to depart from MongoDB, and the page of its manual that says how it should be
//! (below <https://www.mongodb.com/docs/manual/>).

use bson::{Bson, Document, bson};

use super::support::case::{Case, Outcome};

/// What a difference comes from.
pub struct Departure {
    /// The page, and what the server does instead.
    pub page: &'static str,
    /// Whether it shows in what the two answered.
    shows: fn(&Case, &Outcome, &Outcome) -> bool,
    /// The case without it: with that, the two must agree.
    without: Option<fn(&Case) -> Case>,
}

/// All that are known.
pub const KNOWN: &[Departure] = &[
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
        page: "reference/operator: which of several failures is told depends on the order of computing",
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
        page: "reference/operator/query/expr: which condition of several is asked first is the server's choice",
        shows: |case, ours, theirs| {
            (ours.failure.is_none() || theirs.failure.is_none())
                && ours.failure.or(theirs.failure).is_some_and(|code| matches!(code, 2 | 14 | 241) || code > 10_000)
                && case.command.to_string().contains("$expr")
        },
        without: None,
    },
    Departure {
        page: "reference/operator/aggregation/add: one operand without an array is an error",
        shows: |case, ours, theirs| {
            ours.failure.is_none() && theirs.failure == Some(2) && case.command.to_string().contains("$add")
        },
        without: None,
    },
    Departure {
        page: "reference/operator/aggregation/subtract: no number can be taken from a date",
        shows: |case, ours, theirs| {
            ours.failure.is_none() && theirs.failure == Some(2) && case.command.to_string().contains("$subtract")
        },
        without: None,
    },
    Departure {
        page: "reference/operator/aggregation/abs: that of the least int64 is a double",
        shows: |_, ours, theirs| ours.failure == Some(28680) && theirs.failure.is_none(),
        without: None,
    },
    Departure {
        page: "reference/bson-type-comparison-order: the subtype of binary data, and the least and the greatest key, do not count",
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
        page: "reference/operator/update/mul: a product that is equal but of another type, or no number, is counted otherwise",
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
        page: "reference/operator/aggregation/multiply: what is beyond an int64, or a decimal, is rounded otherwise, as in add",
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
        page: "reference/operator/aggregation/subtract: infinite decimals, and integers at the ends of an int64, are computed otherwise",
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
        page: "reference/operator/projection/slice: not in the documents of an array, and of no array but a field",
        shows: |case, _, theirs| {
            let projection = case.command.get_document("projection").ok();
            let is_slice = |value: &Bson| value.as_document().is_some_and(|value| value.contains_key("$slice"));
            let slices = || projection.into_iter().flatten().filter(|(_, value)| is_slice(value));
            slices().any(|(path, _)| path.contains('.') || theirs.failure == Some(2))
        },
        without: None,
    },
    Departure {
        page: "reference/operator/update/positional-all: two paths may change one item",
        shows: |case, ours, theirs| {
            ours.failure == Some(40) && theirs.failure.is_none() && case.command.to_string().contains(".$[")
        },
        without: None,
    },
    Departure {
        page: "reference/operator/query/jsonSchema: minimum is compared otherwise",
        shows: |case, _, _| without_field(&case.command, "minimum") != case.command,
        without: Some(|case| Case {
            documents: case.documents.clone(),
            command: without_field(&case.command, "minimum"),
        }),
    },
    Departure {
        page: "reference/operator/aggregation: what has no value stays undefined in an array, and leaves no empty document",
        shows: |case, _, _| case.command.to_string().contains('$'),
        without: Some(|case| Case { documents: case.documents.clone(), command: with_values(&case.command) }),
    },
    Departure {
        page: "reference/operator/update/pop: a path through what has no fields is no error",
        shows: |case, ours, theirs| {
            ours.failure != theirs.failure
                && [ours.failure, theirs.failure].contains(&Some(28))
                && case.command.to_string().contains("$pop")
        },
        without: None,
    },
    Departure {
        page: "reference/command/findAndModify: an update that is wrong is only an error if a document matches",
        shows: |case, ours, theirs| {
            case.command.contains_key("findAndModify")
                && matches!(ours.failure, Some(2 | 9 | 40 | 53))
                && ours.failure != theirs.failure
                && theirs.leaves_as(ours)
        },
        without: None,
    },
    Departure {
        page: "reference/operator/aggregation: an expression that is not of its form is only an error for a document",
        shows: |_, ours, theirs| ours.failure == Some(16020) && theirs.failure.is_none(),
        without: None,
    },
    Departure {
        page: "reference/operator/aggregation/pow: the power of integers is another type, or rounded otherwise",
        shows: |case, _, _| case.command.to_string().contains("$pow"),
        without: Some(|case| Case {
            documents: case.documents.clone(),
            command: with_name(&case.command, "$pow", "$subtract"),
        }),
    },
    Departure {
        page: "reference/operator/query/bitsAllSet: a double or a decimal that is whole has no bits",
        shows: |case, _, _| case.command.to_string().contains("$bits"),
        without: Some(|case| Case {
            documents: case.documents.iter().map(with_integers).collect(),
            command: case.command.clone(),
        }),
    },
    Departure {
        page: "reference/operator/query/elemMatch: an array in an array is no document",
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
        page: "reference/operator/aggregation/mergeObjects: an operand that is no object is no error",
        shows: |_, ours, theirs| ours.failure == Some(40400) && theirs.failure.is_none(),
        without: None,
    },
    Departure {
        page: "reference/operator/query/all: in an upsert its conditions are taken for equalities, and in a replacement all are",
        shows: |case, ours, theirs| {
            [ours.failure, theirs.failure].contains(&Some(54))
                && ours.failure != theirs.failure
                && case.command.to_string().contains("upsert")
        },
        without: None,
    },
    Departure {
        page: "reference/operator/update/mul: a value that is no number has code 2 in an array that $[] leads through",
        shows: |case, ours, theirs| {
            ours.failure == Some(14) && theirs.failure == Some(2) && case.command.to_string().contains(".$[")
        },
        without: None,
    },
    Departure {
        page: "tutorial/query-for-null-fields: an item that an array does not have is null",
        shows: |case, _, _| has_index(&case.command),
        without: Some(|case| Case { documents: case.documents.clone(), command: without_indexes(&case.command) }),
    },
];

impl Departure {
    /// Whether the case can be told without it.
    pub fn is_of_the_case(&self) -> bool {
        self.without.is_some()
    }

    /// The case that must show no difference if this is all that there is to it.
    pub fn without(&self, case: &Case) -> Case {
        self.without.map_or_else(|| case.clone(), |without| without(case))
    }

    pub fn shows(&self, case: &Case, ours: &Outcome, theirs: &Outcome) -> bool {
        (self.shows)(case, ours, theirs)
    }
}

/// Whether a string anywhere in a value is of a kind.
fn mentions(value: &Bson, is: &dyn Fn(&str) -> bool) -> bool {
    match value {
        Bson::String(text) => is(text),
        Bson::Array(items) => items.iter().any(|item| mentions(item, is)),
        Bson::Document(fields) => fields.values().any(|value| mentions(value, is)),
        _ => false,
    }
}

/// How many paths the operators of a command's update change.
fn paths_of_update(command: &Document) -> usize {
    let statement = command.get_array("updates").ok().and_then(|updates| updates.first()?.as_document());
    let operators = match statement {
        Some(statement) => statement.get_document("u"),
        None => command.get_document("update"),
    };
    let operators = operators.into_iter().flat_map(Document::values);
    operators.filter_map(Bson::as_document).map(Document::len).sum()
}

/// Whether a path anywhere in a command names an item by its place.
fn has_index(command: &Document) -> bool {
    without_indexes(command) != *command
}

/// A document with fields renamed or left out, and values made others, wherever they are. What `change` makes of a value is not
/// looked into again.
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

/// A document with values made others, wherever they are.
fn with_values_changed(document: &Document, change: &dyn Fn(&Bson) -> Option<Bson>) -> Document {
    rewritten(document, &|name| Some(name.to_owned()), change)
}

/// A command whose paths name no items by their places.
fn without_indexes(command: &Document) -> Document {
    rewritten(command, &|name| Some(name.replace(".0", ".zero").replace(".1", ".one")), &|_| None)
}

/// A command with another name for a field, wherever it is.
fn with_name(command: &Document, old: &str, new: &str) -> Document {
    rewritten(command, &|name| Some(if name == old { new } else { name }.to_owned()), &|_| None)
}

/// A command without a field, wherever it is.
fn without_field(command: &Document, field: &str) -> Document {
    rewritten(command, &|name| (name != field).then(|| name.to_owned()), &|_| None)
}

fn is_dotted_reference(text: &str) -> bool {
    text.starts_with('$') && text.contains('.')
}

/// A command whose references are to fields and variables alone.
fn with_short_references(command: &Document) -> Document {
    with_values_changed(command, &|value| {
        let text = value.as_str().filter(|text| is_dotted_reference(text))?;
        Some(Bson::String(text.split('.').next()?.to_owned()))
    })
}

/// A command whose references, and whose operators that may give no value, all have values.
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

/// A document whose numbers are integers, where they are whole.
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

/// A document whose arrays hold no arrays.
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

/// A document without values that are compared or computed otherwise.
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

/// A document whose arrays all hold something, and either documents or other values.
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

/// The same, and where a sort leads through an array and further, with only those of its items that it leads into.
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

/// Whether a path has a value there, or may have several.
fn leads_into(value: &Bson, path: &[&str]) -> bool {
    match (path, value) {
        ([], _) | (_, Bson::Array(_)) => true,
        ([field, rest @ ..], Bson::Document(document)) => {
            document.get(field).is_some_and(|value| leads_into(value, rest))
        }
        _ => false,
    }
}

/// A find whose projection has no `$slice`.
fn without_slices(command: &Document) -> Document {
    let mut command = command.clone();
    if let Ok(projection) = command.get_document_mut("projection") {
        let is_slice = |value: &Bson| value.as_document().is_some_and(|value| value.contains_key("$slice"));
        *projection = projection.clone().into_iter().filter(|(_, value)| !is_slice(value)).collect();
    }
    command
}

/// A document's fields in the order of their names.
fn sorted(document: &Document) -> String {
    let mut fields: Vec<String> = document.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    fields.sort();
    fields.join(", ")
}
