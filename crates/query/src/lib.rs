//! MongoDB's query language over raw BSON: comparison, filters, updates, projections, sorts,
//! aggregation, and the index keys of documents.
//!
//! Nothing in this crate does I/O. An [`Environment`] supplies the time and new ids. Filters,
//! updates and the other specifications are parsed once and then used for many documents; parsing
//! returns the server's errors.
//!
//! All functions expect validated documents: call [`validate`](fn@validate) on bytes from outside
//! first. In a document that was not validated, an unreadable element ends the iteration over its
//! fields.
//!
//! The work counts against the [`Budget`] that the thread has entered, see [`budget`]. A function
//! without an error in its signature returns an incomplete result if the budget is exhausted, so
//! the caller checks the budget afterwards.
//!
//! ```
//! use bson::rawdoc;
//! use query::{Filter, Projection, Sort};
//!
//! let filter = Filter::parse(&rawdoc! { "type": "perennial" }).unwrap();
//! let sort = Sort::parse(&rawdoc! { "name": 1 }).unwrap();
//! let projection = Projection::parse(&rawdoc! { "name": 1 }).unwrap();
//!
//! let plants = [
//!     rawdoc! { "name": "thyme", "type": "perennial" },
//!     rawdoc! { "name": "basil", "type": "annual" },
//!     rawdoc! { "name": "fern", "type": "perennial" },
//! ];
//! let mut found: Vec<_> = plants.iter().filter(|plant| filter.matches(plant)).collect();
//! sort.sort(&mut found);
//! let first = projection.apply(found[0], &filter).unwrap();
//! assert_eq!(first, rawdoc! { "name": "fern" });
//! ```

pub mod aggregate;
pub mod budget;
mod compare;
mod decimal;
mod difference;
mod distinct;
mod document;
#[cfg(test)]
mod documented;
mod error;
mod expression;
mod filter;
mod index;
mod key;
mod names;
mod number;
mod path;
mod path_tree;
mod projection;
mod regex;
mod sort;
mod sorting;
mod total;
mod types;
mod update;
mod validate;
mod variables;

pub use aggregate::{Documents, Pipeline, Run};
pub use budget::{Budget, Limits, MemoryPool};
pub use compare::{compare, compare_documents, equal};
pub use difference::difference;
pub use distinct::distinct;
pub use document::{MAX_DOCUMENT_SIZE, MAX_NESTING_DEPTH, append, elements, get, integer, type_name};
pub use error::{Error, ErrorCode, Result};
pub use expression::Expression;
pub use filter::{BitTest, Bits, Candidates, Filter, PathFilter, Predicate, Schema};
pub use index::{Bounds, IndexKey, IndexKeys, KeyPattern, KeyRange};
pub use key::encode as encode_key;
pub use number::Number;
pub use path::Path;
pub use projection::Projection;
pub use regex::Regex;
pub use sort::{Sort, SortKey};
pub use types::TypeSet;
pub use update::{Environment, Update, prepare_insert};
pub use validate::{EXTENDED_JSON_NAMES, shown_path, validate, validate_form, validate_names};
pub use variables::Variables;
