//! The variables of an operation: `$$NOW` and those of its `let` option.

use std::{collections::HashMap, sync::Arc};

use bson::{DateTime, RawBson, raw::RawDocument};

use crate::{
    Error, Result, budget,
    document::{elements, empty},
    expression::Expression,
};

/// The variables of one operation.
///
/// The caller binds them in a filter, update, projection or pipeline before it runs over
/// documents. So `$$NOW` has the same value for all documents of the operation
/// (<https://www.mongodb.com/docs/manual/reference/aggregation-variables/>).
///
/// ```
/// use bson::{DateTime, rawdoc};
/// use query::{Filter, Variables};
///
/// let variables = Variables::at(DateTime::now()).with_let(&rawdoc! { "least": 2 }).unwrap();
/// let mut filter = Filter::parse(&rawdoc! { "$expr": { "$gte": ["$n", "$$least"] } }).unwrap();
/// filter.bind(&variables).unwrap();
/// assert!(filter.matches(&rawdoc! { "n": 3 }));
/// ```
#[derive(Debug, Clone)]
pub struct Variables(HashMap<String, Option<Arc<RawBson>>>);

impl Variables {
    /// Creates the variables that every operation has: `$$NOW` with the given time.
    pub fn at(now: DateTime) -> Self {
        Self(HashMap::from([("NOW".into(), Some(Arc::new(RawBson::DateTime(now))))]))
    }

    /// Adds the variables of a `let` option: a document of expressions by name. The expressions
    /// see the variables before them, but no document.
    ///
    /// # Errors
    /// Fails if a name is not a valid variable name, or if an expression cannot be evaluated.
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

    /// Returns the value of a variable, `None` if its expression has no value. Fails with 17276 if
    /// the variable is undefined.
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
    fn a_filter_sees_the_time_and_let_variables() {
        let filter = rawdoc! { "$expr": { "$and": [{ "$gte": ["$n", "$$least"] }, { "$lt": ["$at", "$$NOW"] }] } };
        let filter = bound(&filter).unwrap();
        let document = |n: i32, at| RawDocumentBuf::try_from(doc! { "n": n, "at": DateTime::from_millis(at) }).unwrap();
        assert!(filter.matches(&document(2, 4)));
        assert!(!filter.matches(&document(1, 4)));
        assert!(!filter.matches(&document(2, 5)));
    }

    #[test]
    fn an_undefined_variable_is_an_error() {
        let code = |filter| bound(&filter).unwrap_err().number();
        assert_eq!(code(rawdoc! { "$expr": { "$eq": ["$$most", 1] } }), 17276);
        assert_eq!(code(rawdoc! { "$expr": { "$eq": ["$$LATER", 1] } }), 17276);
        let unbound = Filter::parse(&rawdoc! { "$expr": "$$least" }).unwrap();
        assert_eq!(unbound.try_matches(empty()).unwrap_err().number(), 17276);
    }
}
