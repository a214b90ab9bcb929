use std::fmt;

/// The result of anything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the server would have answered: its numeric code, the code's name, and a message that says what was wrong
/// and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// The kind of failure.
    pub code: ErrorCode,
    /// What was wrong, in the server's wording where it has one.
    pub message: String,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)*) => {
        /// MongoDB's numeric error codes, by their names in the server's `error_codes.yml`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum ErrorCode {
            $($(#[$doc])* $name,)*
            /// A failure that the server names only by a number, the place in its source.
            Location(i32),
        }

        impl ErrorCode {
            /// The name that the server gives the code.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                    Self::Location(_) => "Location",
                }
            }

            /// The code of a number.
            pub fn by_number(number: i32) -> Self {
                match number {
                    $($number => Self::$name,)*
                    other => Self::Location(other),
                }
            }

            /// The number that goes over the wire.
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
    /// A document that is not of the form it should have.
    FailedToParse = 9,
    /// A value of the wrong BSON type.
    TypeMismatch = 14,
    /// A document that is nested too deeply.
    Overflow = 15,
    /// Bytes that are not BSON.
    InvalidBson = 22,
    /// A path that leads through something that has no fields.
    PathNotViable = 28,
    /// Two parts of an update touch the same path.
    ConflictingUpdateOperators = 40,
    /// A field name that starts with a dollar sign.
    DollarPrefixedFieldName = 52,
    /// A document whose `_id` cannot be one.
    InvalidIdField = 53,
    /// An upsert whose filter gives one field twice.
    NotSingleValueField = 54,
    /// A field name that is empty where it must not be.
    EmptyFieldName = 56,
    /// Something that took too long.
    MaxTimeMsExpired = 50,
    /// An update that would change `_id`.
    ImmutableField = 66,
    /// Options, or stages, that do not go together.
    InvalidOptions = 72,
    /// A name that no database or collection may have.
    InvalidNamespace = 73,
    /// A database whose name differs from that of another one in case only.
    DatabaseDifferCase = 13297,
    /// An index that is not of a form that one can have.
    CannotCreateIndex = 67,
    /// An index of that name that has other options.
    IndexOptionsConflict = 85,
    /// An index of that name on other fields.
    IndexKeySpecsConflict = 86,
    /// An index that is not there.
    IndexNotFound = 27,
    /// An option that no index has, or not with that value.
    InvalidIndexSpecificationOption = 197,
    /// A document with several arrays that an index would lead through.
    CannotIndexParallelArrays = 171,
    /// Something of MongoDB's that Userkeep does not have.
    CommandNotSupported = 115,
    /// A write that other writes were faster than.
    WriteConflict = 112,
    /// An operation that would hold more memory than it may.
    QueryExceededMemoryLimitNoDiskUseAllowed = 292,
    /// An operation that was stopped because nobody waits for it.
    Interrupted = 11601,
    /// A document larger than 16 MiB.
    BsonObjectTooLarge = 10334,
    /// A change stream's place that is not one.
    InvalidResumeToken = 260,
    /// A change stream's place after which events are not kept any more.
    ChangeStreamHistoryLost = 286,
    /// A unique index holds the key already.
    DuplicateKey = 11000,
    /// A pipeline stage with other than one field.
    StageFieldCount = 40323,
    /// A pipeline stage that does not exist.
    UnrecognizedStage = 40324,
    /// Something that the server has and does not take in this place.
    QueryFeatureNotAllowed = 224,
    /// A value that is none of the type that it should become.
    ConversionFailure = 241,
    /// An expression that does not exist.
    InvalidPipelineOperator = 168,
    /// A field path that is not one.
    InvalidFieldPath = 16872,
    /// A projection that includes and excludes.
    MixedProjection = 31254,
    /// Two parts of a projection touch the same path.
    ProjectionPathCollision = 31249,
    /// A path in a projection that another one, already there, leads through.
    ProjectionParentCollision = 31250,
    /// A `$project` without fields.
    ProjectWithoutField = 51272,
    /// A `$group` that is not an object.
    GroupNotObject = 15947,
    /// A `$sort` that is not an object.
    SortNotObject = 15973,
    /// A direction of a sort that is not a number.
    SortOrderType = 15974,
    /// A `$limit` that is not a whole number of documents.
    InvalidLimit = 5_107_201,
    /// A `$skip` that is not a whole number of documents.
    InvalidSkip = 5_107_200,
    /// A `$group` without `_id`.
    GroupWithoutId = 15955,
    /// An accumulator that does not exist.
    UnknownGroupOperator = 15952,
    /// An accumulator with a list of operands.
    AccumulatorNotUnary = 40237,
    /// A `$group` field that is not an accumulator.
    GroupFieldNotAccumulator = 40234,
    /// A `$limit` of zero.
    LimitNotPositive = 15958,
    /// A `$count` that is not a field name.
    InvalidCountField = 40156,
    /// An `$unwind` that is not a path.
    InvalidUnwind = 28808,
    /// A sort that is not 1 or -1.
    InvalidSortOrder = 15975,
}

impl Error {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// A failure that the server names only by a number.
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

    /// Something that MongoDB has and this version of Userkeep refuses, by its name.
    pub fn unsupported(what: impl fmt::Display) -> Self {
        Self::new(ErrorCode::CommandNotSupported, format!("{what} is not supported by Userkeep"))
    }

    /// The number of the code, as in a reply's `code`.
    pub fn number(&self) -> i32 {
        self.code.number()
    }
}
