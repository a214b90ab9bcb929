//! The error type: MongoDB's error codes with a message.

use std::fmt;

/// The result of a fallible function of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error as the server would report it: its numeric code, the code's name, and a message that
/// names the fault and its place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// The error code.
    pub code: ErrorCode,
    /// The message, in the server's wording if the server has this error.
    pub message: String,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)*) => {
        /// MongoDB's numeric error codes, by their names in the server's `error_codes.yml`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum ErrorCode {
            $($(#[$doc])* $name,)*
            /// An error that the server identifies only by a number, which stands for a place in
            /// its source.
            Location(i32),
        }

        impl ErrorCode {
            /// Returns the server's name of the code: `Location` for a code that has only a
            /// number.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                    Self::Location(_) => "Location",
                }
            }

            /// Returns the code with a number; unknown numbers become
            /// [`Location`](Self::Location).
            pub fn by_number(number: i32) -> Self {
                match number {
                    $($number => Self::$name,)*
                    other => Self::Location(other),
                }
            }

            /// Returns the code's number, as sent to clients.
            pub fn number(self) -> i32 {
                match self {
                    $(Self::$name => $number,)*
                    Self::Location(number) => number,
                }
            }
        }
    };
}

codes! {
    /// A value that the operation cannot use.
    BadValue = 2,
    /// A document that does not have the expected form.
    FailedToParse = 9,
    /// A value of the wrong BSON type.
    TypeMismatch = 14,
    /// A document that is nested too deeply.
    Overflow = 15,
    /// Bytes that are not valid BSON.
    InvalidBson = 22,
    /// A path that leads through a value without fields.
    PathNotViable = 28,
    /// Two parts of an update affect the same path.
    ConflictingUpdateOperators = 40,
    /// A field name that starts with a dollar sign.
    DollarPrefixedFieldName = 52,
    /// A document with an invalid `_id`.
    InvalidIdField = 53,
    /// An upsert whose filter specifies one field twice.
    NotSingleValueField = 54,
    /// An empty field name where a name is required.
    EmptyFieldName = 56,
    /// The operation exceeded its time limit.
    MaxTimeMsExpired = 50,
    /// An update that would change `_id`.
    ImmutableField = 66,
    /// Options or stages that cannot be combined.
    InvalidOptions = 72,
    /// An invalid name of a database or collection.
    InvalidNamespace = 73,
    /// A database whose name differs from that of another one only in case.
    DatabaseDifferCase = 13297,
    /// An invalid index specification.
    CannotCreateIndex = 67,
    /// An index of that name exists with other options.
    IndexOptionsConflict = 85,
    /// An index of that name exists on other fields.
    IndexKeySpecsConflict = 86,
    /// An index that does not exist.
    IndexNotFound = 27,
    /// An unknown index option, or an invalid value of one.
    InvalidIndexSpecificationOption = 197,
    /// A document with several arrays on the paths of one index.
    CannotIndexParallelArrays = 171,
    /// A feature of MongoDB that Userkeep does not support.
    CommandNotSupported = 115,
    /// A write that conflicts with a concurrent write.
    WriteConflict = 112,
    /// An operation of a transaction that was aborted.
    NoSuchTransaction = 251,
    /// An operation of a transaction that was committed.
    TransactionCommitted = 256,
    /// A transaction whose writes exceed its size limit.
    TransactionTooLarge = 257,
    /// An operation that would exceed its memory limit.
    QueryExceededMemoryLimitNoDiskUseAllowed = 292,
    /// An operation that was cancelled.
    Interrupted = 11601,
    /// A document larger than 16 MiB.
    BsonObjectTooLarge = 10334,
    /// An invalid resume token.
    InvalidResumeToken = 260,
    /// A resume token whose following events are no longer kept.
    ChangeStreamHistoryLost = 286,
    /// A unique index already contains the key.
    DuplicateKey = 11000,
    /// A pipeline stage that does not have exactly one field.
    StageFieldCount = 40323,
    /// An unknown pipeline stage.
    UnrecognizedStage = 40324,
    /// A feature that the server does not allow in this place.
    QueryFeatureNotAllowed = 224,
    /// A value that cannot be converted to the requested type.
    ConversionFailure = 241,
    /// An unknown expression operator.
    InvalidPipelineOperator = 168,
    /// An invalid field path.
    InvalidFieldPath = 16872,
    /// A projection that both includes and excludes fields.
    MixedProjection = 31254,
    /// A projection path that leads through an earlier path of the projection.
    ProjectionPathCollision = 31249,
    /// A projection path that equals an earlier one, or that an earlier one leads through.
    ProjectionParentCollision = 31250,
    /// A `$project` without fields.
    ProjectWithoutField = 51272,
    /// A `$group` that is not an object.
    GroupNotObject = 15947,
    /// A `$sort` that is not an object.
    SortNotObject = 15973,
    /// A sort direction that is not a number.
    SortOrderType = 15974,
    /// A `$limit` that is not a valid number of documents.
    InvalidLimit = 5_107_201,
    /// A `$skip` that is not a valid number of documents.
    InvalidSkip = 5_107_200,
    /// A `$group` without `_id`.
    GroupWithoutId = 15955,
    /// An unknown accumulator.
    UnknownGroupOperator = 15952,
    /// An accumulator with a list of operands.
    AccumulatorNotUnary = 40237,
    /// A `$group` field that is not an accumulator.
    GroupFieldNotAccumulator = 40234,
    /// A `$limit` of zero.
    LimitNotPositive = 15958,
    /// A `$count` that is not a valid field name.
    InvalidCountField = 40156,
    /// An invalid `$unwind`.
    InvalidUnwind = 28808,
    /// A sort direction other than 1 and -1.
    InvalidSortOrder = 15975,
}

impl Error {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// Creates an error that the server identifies only by a number.
    pub(crate) fn location(number: i32, message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Location(number), message)
    }

    pub(crate) fn bad_value(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::BadValue, message)
    }

    pub(crate) fn parse(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::FailedToParse, message)
    }

    pub(crate) fn type_mismatch(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::TypeMismatch, message)
    }

    /// Creates the error for a feature of MongoDB that Userkeep does not support. `what` names the
    /// feature: `the pipeline stage $lookup`.
    pub fn unsupported(what: impl fmt::Display) -> Self {
        Self::new(ErrorCode::CommandNotSupported, format!("{what} is not supported by Userkeep"))
    }

    /// Returns the number of the code, as in the `code` field of a reply.
    pub fn number(&self) -> i32 {
        self.code.number()
    }
}
