//! MongoDB's language over raw BSON: comparison, filters, updates, projections, sorts, aggregation.
//!
//! Nothing here does I/O. What a caller must supply from outside (the time, new ids) comes in through
//! [`Environment`]. Documents are taken as validated: bytes from outside pass [`validate`] first, and after that
//! an element that cannot be read ends the iteration of its document instead of failing every comparison.

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
