//! What variables stand for that an operation brings with it: the time, and those of its `let`.

use std::{collections::HashMap, sync::Arc};

use bson::{DateTime, RawBson, raw::RawDocument};

use crate::{
    Error, Result, budget,
    document::{elements, empty},
    expression::Expression,
};

/// The variables of one operation, to be bound in what it is given before it is asked of documents: in one operation
/// `$$NOW` is the same for all of them
/// (<https://www.mongodb.com/docs/manual/reference/aggregation-variables/>).
#[derive(Debug, Clone)]
pub struct Variables(HashMap<String, Option<Arc<RawBson>>>);

impl Variables {
    /// Those that every operation has.
    pub fn at(now: DateTime) -> Self {
        Self(HashMap::from([("NOW".into(), Some(Arc::new(RawBson::DateTime(now))))]))
    }

    /// Adds those of a `let`, whose expressions see no document.
    ///
    /// # Errors
    /// Where a name is none that a variable may have, or its expression cannot be computed.
    pub fn with_let(mut self, named: &RawDocument) -> Result<Self> {
        for (name, value) in elements(named) {
            budget::charge(1)?;
            crate::expression::check_variable(name)?;
            let mut expression = Expression::parse(value)?;
            expression.bind(&self)?;
            let value = expression.evaluate(empty())?;
            self.0.insert(name.to_owned(), value.map(Arc::new));
        }
        Ok(self)
    }

    /// The value of a variable, if it has one.
    pub(crate) fn value(&self, name: &str) -> Result<Option<Arc<RawBson>>> {
        self.0.get(name).cloned().ok_or_else(|| undefined(name))
    }
}

pub(crate) fn undefined(name: &str) -> Error {
    Error::location(17276, format!("Use of undefined variable: {name}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use bson::{doc, raw::RawDocumentBuf, rawdoc};

    use super::*;
    use crate::Filter;

    fn bound(filter: &RawDocumentBuf) -> Result<Filter> {
        let variables = Variables::at(DateTime::from_millis(5)).with_let(&rawdoc! { "least": { "$add": [1, 1] } })?;
        let mut filter = Filter::parse(filter)?;
        filter.bind(&variables)?;
        Ok(filter)
    }

    #[test]
    fn a_filter_sees_the_time_and_what_let_names() {
        let filter = rawdoc! { "$expr": { "$and": [{ "$gte": ["$n", "$$least"] }, { "$lt": ["$at", "$$NOW"] }] } };
        let filter = bound(&filter).unwrap();
        let document = |n: i32, at| RawDocumentBuf::try_from(doc! { "n": n, "at": DateTime::from_millis(at) }).unwrap();
        assert!(filter.matches(&document(2, 4)));
        assert!(!filter.matches(&document(1, 4)));
        assert!(!filter.matches(&document(2, 5)));
    }

    #[test]
    fn a_variable_that_nothing_names_is_an_error() {
        let code = |filter| bound(&filter).unwrap_err().number();
        assert_eq!(code(rawdoc! { "$expr": { "$eq": ["$$most", 1] } }), 17276);
        assert_eq!(code(rawdoc! { "$expr": { "$eq": ["$$LATER", 1] } }), 17276);
        let unbound = Filter::parse(&rawdoc! { "$expr": "$$least" }).unwrap();
        assert_eq!(unbound.try_matches(empty()).unwrap_err().number(), 17276);
    }
}
