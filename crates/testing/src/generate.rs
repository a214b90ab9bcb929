//! Generates random documents and operations, from few names and few values, so that operations
//! often match.

use bson::{Binary, Bson, DateTime, Document, Timestamp, bson, doc, oid::ObjectId, spec::BinarySubtype};
use rand::{Rng, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;

use crate::case::Case;

/// The number of documents that the reads of a batch share.
const SHARED: usize = 24;

const PATHS: &[&str] = &["a", "b", "c", "a.b", "a.c", "b.a", "a.0", "a.1", "a.b.c", "a.0.b", "b.a.0", "a.b.0.c"];

const TYPES: &[&str] = &[
    "double",
    "string",
    "object",
    "array",
    "binData",
    "objectId",
    "bool",
    "date",
    "null",
    "regex",
    "int",
    "timestamp",
    "long",
    "decimal",
    "minKey",
    "maxKey",
    "number",
];

/// A deterministic source of cases: the same seed and batch give the same cases.
pub struct Generator(ChaCha8Rng);

impl Generator {
    pub fn new(seed: u64, batch: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(batch);
        Self(random)
    }

    fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        *all.choose(&mut self.0).expect("a choice of something")
    }

    fn below(&mut self, end: usize) -> usize {
        self.0.random_range(0..end)
    }

    fn one_in(&mut self, times: u32) -> bool {
        self.0.random_ratio(1, times)
    }

    fn several<T>(&mut self, most: usize, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let count = 1 + self.below(most);
        (0..count).map(|_| make(self)).collect()
    }

    fn path(&mut self) -> String {
        self.pick(PATHS).to_owned()
    }

    fn scalar(&mut self) -> Bson {
        match self.below(28) {
            0..8 => Bson::Int32(self.0.random_range(-2..5)),
            8..11 => Bson::String(self.pick(&["", "a", "b", "ab", "A", "ä", "1", "aab"]).to_owned()),
            11 => Bson::Int64(self.pick(&[0, 1, -1, 2, 1 << 53, (1 << 53) + 1, i64::MAX, i64::MIN, 1 << 31])),
            12 | 13 => Bson::Double(self.pick(&[
                0.0,
                -0.0,
                1.0,
                1.5,
                -2.5,
                9_007_199_254_740_992.0,
                f64::NAN,
                f64::INFINITY,
                1e300,
                0.1,
            ])),
            14 => Bson::Decimal128(
                self.pick(&["0", "1", "1.0", "1.5", "0.1", "-2.5", "NaN", "Infinity", "1E+3", "9007199254740993"])
                    .parse()
                    .expect("a decimal"),
            ),
            15 | 16 => Bson::Null,
            17 | 18 => Bson::Boolean(self.below(2) == 0),
            19 => Bson::DateTime(DateTime::from_millis(self.pick(&[0, 1, 1_700_000_000_000, -1]))),
            20 => Bson::ObjectId(ObjectId::from_bytes([self.pick(&[1, 2]); 12])),
            21 => Bson::Timestamp(Timestamp { time: 1, increment: self.pick(&[1, 2]) }),
            22 => Bson::Binary(Binary {
                subtype: self.pick(&[BinarySubtype::Generic, BinarySubtype::UserDefined(0x80)]),
                bytes: self.pick::<&[u8]>(&[&[], &[1], &[3, 1]]).to_vec(),
            }),
            23 => self.pick_key(),
            _ => Bson::Int32(i32::from(self.pick::<i8>(&[1, 2, 3, 5]))),
        }
    }

    fn pick_key(&mut self) -> Bson {
        if self.one_in(2) { Bson::MinKey } else { Bson::MaxKey }
    }

    fn value(&mut self, depth: usize) -> Bson {
        match self.below(10) {
            0 | 1 if depth > 0 => {
                let count = self.below(4);
                Bson::Array((0..count).map(|_| self.value(depth - 1)).collect())
            }
            2 | 3 if depth > 0 => Bson::Document(self.fields(depth - 1)),
            _ => self.scalar(),
        }
    }

    fn fields(&mut self, depth: usize) -> Document {
        let mut names = ["a", "b", "c"];
        let mut document = Document::new();
        for _ in 0..self.below(4) {
            let place = self.below(names.len());
            names.swap(0, place);
            document.insert(names[0], self.value(depth));
        }
        document
    }

    fn document(&mut self, id: i32) -> Document {
        let mut document = doc! { "_id": id };
        document.extend(self.fields(3));
        document
    }

    // Filters.

    fn filter(&mut self, depth: usize) -> Document {
        let mut filter = Document::new();
        for _ in 0..=usize::from(self.one_in(3)) {
            match self.below(14) {
                0 if depth > 0 => {
                    let operator = self.pick(&["$and", "$or", "$nor"]);
                    let branches = self.several(3, |this| Bson::Document(this.filter(depth - 1)));
                    filter.insert(operator, branches);
                }
                1 => drop(filter.insert("$expr", self.expression(3))),
                2 if depth > 0 => drop(filter.insert("$jsonSchema", self.schema(2))),
                3 => drop(filter.insert("_id", self.conditions(0, true))),
                _ => drop(filter.insert(self.path(), self.conditions(depth, true))),
            }
        }
        filter
    }

    fn conditions(&mut self, depth: usize, whole: bool) -> Bson {
        if whole && self.one_in(4) {
            return self.value(2);
        }
        let mut conditions = Document::new();
        for _ in 0..=usize::from(self.one_in(4)) {
            let (operator, operand) = self.condition(depth);
            conditions.insert(operator, operand);
            if operator == "$regex" && self.one_in(2) {
                conditions.insert("$options", self.pick(&["", "i", "m", "s", "x", "is"]));
            }
        }
        Bson::Document(conditions)
    }

    fn condition(&mut self, depth: usize) -> (&'static str, Bson) {
        let operator = self.pick(&[
            "$eq",
            "$ne",
            "$gt",
            "$gte",
            "$lt",
            "$lte",
            "$gt",
            "$lte",
            "$in",
            "$nin",
            "$exists",
            "$type",
            "$size",
            "$mod",
            "$all",
            "$elemMatch",
            "$elemMatch",
            "$not",
            "$regex",
            "$bitsAllSet",
            "$bitsAnySet",
            "$bitsAllClear",
            "$bitsAnyClear",
        ]);
        let operand = match operator {
            "$in" | "$nin" => {
                // A bare regular expression would be an equality of an upsert, on which servers
                // disagree.
                let mut candidates = self.several(3, |this| this.value(1));
                if self.one_in(6) {
                    candidates.push(self.regex());
                }
                Bson::Array(candidates)
            }
            "$exists" => Bson::Boolean(self.below(2) == 0),
            "$type" => match self.below(3) {
                0 => Bson::Array(self.several(2, |this| Bson::String(this.pick(TYPES).to_owned()))),
                1 => Bson::Int32(self.pick(&[1, 2, 3, 4, 8, 10, 16, 18, -1])),
                _ => Bson::String(self.pick(TYPES).to_owned()),
            },
            "$size" => Bson::Int32(self.0.random_range(0..4)),
            "$mod" => bson!([self.pick(&[1, 2, 3]), self.pick(&[0, 1])]),
            "$all" => {
                if depth > 0 && self.one_in(4) {
                    Bson::Array(self.several(2, |this| {
                        let inner = this.elem_match(depth - 1);
                        Bson::Document(doc! { "$elemMatch": inner })
                    }))
                } else {
                    Bson::Array(self.several(3, |this| this.value(1)))
                }
            }
            "$elemMatch" => Bson::Document(self.elem_match(depth.saturating_sub(1))),
            "$not" => {
                if depth == 0 || self.one_in(6) {
                    self.regex()
                } else {
                    self.conditions(depth - 1, false)
                }
            }
            "$regex" => Bson::String(self.pick(&["a", "^a", "b$", "^$", "A", ".b", "[ab]+", "a|1"]).to_owned()),
            operator if operator.starts_with("$bits") => {
                if self.one_in(2) {
                    Bson::Int32(self.pick(&[0, 1, 2, 3, 5, 64]))
                } else {
                    Bson::Array(self.several(2, |this| Bson::Int32(this.pick(&[0, 1, 2, 7, 63]))))
                }
            }
            _ => self.value(2),
        };
        (operator, operand)
    }

    fn elem_match(&mut self, depth: usize) -> Document {
        if self.one_in(2) {
            match self.conditions(depth, false) {
                Bson::Document(conditions) => conditions,
                _ => Document::new(),
            }
        } else {
            let mut filter = Document::new();
            filter.insert(self.path(), self.conditions(depth, true));
            filter
        }
    }

    fn regex(&mut self) -> Bson {
        Bson::RegularExpression(bson::Regex {
            pattern: self.pick(&["a", "^a", "B"]).try_into().expect("no zero"),
            options: self.pick(&["", "i"]).try_into().expect("no zero"),
        })
    }

    fn schema(&mut self, depth: usize) -> Document {
        let mut schema = Document::new();
        for _ in 0..=self.below(2) {
            match self.below(9) {
                0 => drop(schema.insert("required", vec![self.pick(&["a", "b", "c"])])),
                1 | 2 if depth > 0 => {
                    let name = self.pick(&["a", "b", "c"]);
                    let inner = self.schema(depth - 1);
                    schema.insert("properties", doc! { name: inner });
                }
                3 => drop(schema.insert("bsonType", self.pick(TYPES))),
                4 => drop(schema.insert("minimum", self.0.random_range(-1..3))),
                5 => drop(schema.insert("maxItems", self.0.random_range(0..3))),
                6 => {
                    schema.insert("enum", vec![self.scalar()]);
                }
                7 if depth > 0 => drop(schema.insert("items", self.schema(depth - 1))),
                8 if depth > 0 => drop(schema.insert("not", self.schema(depth - 1))),
                _ => drop(schema.insert("minLength", self.0.random_range(0..3))),
            }
        }
        schema
    }

    // Expressions.

    fn field(&mut self) -> Bson {
        Bson::String(format!("${}", self.pick(&["a", "b", "c", "a.b", "a.c", "b.a", "_id", "a.b.c"])))
    }

    fn constant(&mut self) -> Bson {
        let value = self.value(1);
        if matches!(value, Bson::Array(_) | Bson::Document(_)) { bson!({ "$literal": value }) } else { value }
    }

    fn expression(&mut self, depth: usize) -> Bson {
        if depth == 0 || self.one_in(5) {
            return if self.one_in(3) { self.constant() } else { self.field() };
        }
        let less = depth - 1;
        match self.below(6) {
            0 => self.of_anything(less),
            1 => self.of_numbers(less),
            2 => self.of_texts(less),
            3 => self.of_arrays(less),
            4 => self.of_objects(less),
            _ => self.of_conditions(less),
        }
    }

    /// Returns a field if it has a type, and otherwise a value of that type.
    fn guarded(&mut self, depth: usize, test: impl FnOnce(Bson) -> Bson, instead: Bson) -> Bson {
        if self.one_in(10) {
            return self.expression(depth);
        }
        if self.one_in(4) {
            return instead;
        }
        let field = self.field();
        bson!({ "$cond": [test(field.clone()), field, instead] })
    }

    fn number(&mut self, depth: usize) -> Bson {
        if depth > 0 && self.one_in(3) {
            return self.of_numbers(depth - 1);
        }
        let instead = self.pick(&[-1.5, 0.0, 1.0, 2.0, 3.0, 10.0]);
        let instead = if self.one_in(2) { Bson::Int32(instead as i32) } else { Bson::Double(instead) };
        self.guarded(depth, |field| bson!({ "$isNumber": field }), instead)
    }

    fn text(&mut self, depth: usize) -> Bson {
        if depth > 0 && self.one_in(3) {
            return self.of_texts(depth - 1);
        }
        let instead = Bson::String(self.pick(&["", "a", "Ab", "a,b", "äb", "aab"]).to_owned());
        self.guarded(depth, |field| bson!({ "$eq": [{ "$type": field }, "string"] }), instead)
    }

    fn array(&mut self, depth: usize) -> Bson {
        if depth > 0 && self.one_in(4) {
            return self.of_arrays(depth - 1);
        }
        let instead = Bson::Array(self.several(3, Self::scalar));
        self.guarded(depth, |field| bson!({ "$isArray": [field] }), instead)
    }

    fn object(&mut self, depth: usize) -> Bson {
        let instead = bson!({ "$literal": { "a": 1, "b": "x" } });
        self.guarded(depth, |field| bson!({ "$eq": [{ "$type": field }, "object"] }), instead)
    }

    fn of_anything(&mut self, depth: usize) -> Bson {
        let operator =
            self.pick(&["$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$cmp", "$type", "$isNumber", "$isArray"]);
        if operator == "$type" || operator == "$isNumber" {
            return bson!({ operator: self.expression(depth) });
        }
        if operator == "$isArray" {
            return bson!({ operator: [self.expression(depth)] });
        }
        bson!({ operator: [self.expression(depth), self.expression(depth)] })
    }

    fn of_numbers(&mut self, depth: usize) -> Bson {
        let operator = self.pick(&[
            "$add",
            "$add",
            "$multiply",
            "$subtract",
            "$subtract",
            "$divide",
            "$mod",
            "$abs",
            "$ceil",
            "$floor",
            "$round",
            "$trunc",
            "$sqrt",
            "$exp",
            "$ln",
            "$log10",
            "$pow",
            "$log",
            "$toInt",
            "$toLong",
            "$toDouble",
            "$toDecimal",
            "$toBool",
        ]);
        match operator {
            "$add" | "$multiply" => {
                let mut operands = self.several(2, |this| this.number(depth));
                operands.push(self.number(depth));
                bson!({ operator: operands })
            }
            "$subtract" | "$divide" | "$mod" | "$pow" | "$log" => {
                bson!({ operator: [self.number(depth), self.number(depth)] })
            }
            "$round" | "$trunc" if self.one_in(2) => {
                bson!({ operator: [self.number(depth), self.pick(&[-1, 0, 1])] })
            }
            _ => bson!({ operator: self.number(depth) }),
        }
    }

    fn of_texts(&mut self, depth: usize) -> Bson {
        match self.below(14) {
            0 => bson!({ "$concat": [self.text(depth), self.text(depth)] }),
            1 => bson!({ "$toUpper": self.text(depth) }),
            2 => bson!({ "$toLower": self.text(depth) }),
            3 => bson!({ "$substrCP": [self.text(depth), self.pick(&[0, 1, 2]), self.pick(&[0, 1, 5])] }),
            4 => bson!({ "$substrBytes": [self.text(depth), self.pick(&[0, 1, 2]), self.pick(&[0, 1, -1])] }),
            5 => bson!({ "$strLenCP": self.text(depth) }),
            6 => bson!({ "$strLenBytes": self.text(depth) }),
            7 => bson!({ "$indexOfCP": [self.text(depth), self.text(depth)] }),
            8 => bson!({ "$split": [self.text(depth), self.pick(&["a", ",", "ab"])] }),
            9 => bson!({ "$trim": { "input": self.text(depth) } }),
            10 => {
                bson!({ "$replaceAll": { "input": self.text(depth), "find": self.pick(&["a", "b"]), "replacement": "x" } })
            }
            11 => bson!({ "$regexMatch": { "input": self.text(depth), "regex": self.pick(&["a", "^A", "b$"]) } }),
            12 => bson!({ "$strcasecmp": [self.text(depth), self.text(depth)] }),
            _ => bson!({ "$toString": self.number(depth) }),
        }
    }

    fn of_arrays(&mut self, depth: usize) -> Bson {
        match self.below(16) {
            0 => bson!({ "$size": self.array(depth) }),
            1 => bson!({ "$arrayElemAt": [self.array(depth), self.pick(&[0, 1, -1, 7])] }),
            2 => bson!({ "$concatArrays": [self.array(depth), self.array(depth)] }),
            3 => bson!({ "$slice": [self.array(depth), self.pick(&[1, 2, -1])] }),
            4 => bson!({ "$in": [self.expression(depth), self.array(depth)] }),
            5 => bson!({ "$reverseArray": self.array(depth) }),
            6 => bson!({ "$setUnion": [self.array(depth), self.array(depth)] }),
            7 => bson!({ "$setDifference": [self.array(depth), self.array(depth)] }),
            8 => bson!({ "$map": { "input": self.array(depth), "as": "x", "in": { "$type": "$$x" } } }),
            9 => {
                bson!({ "$filter": { "input": self.array(depth), "as": "x", "cond": { "$gt": ["$$x", self.scalar()] } } })
            }
            10 => bson!({ "$reduce": {
                "input": self.array(depth), "initialValue": [], "in": { "$concatArrays": [["$$this"], "$$value"] },
            } }),
            11 => bson!({ "$range": [self.pick(&[0, 1]), self.pick(&[0, 3, -2]), self.pick(&[1, 2, -1])] }),
            12 => bson!({ "$first": self.array(depth) }),
            13 => bson!({ "$indexOfArray": [self.array(depth), self.scalar()] }),
            14 => bson!({ "$allElementsTrue": [self.array(depth)] }),
            _ => bson!({ "$setIsSubset": [self.array(depth), self.array(depth)] }),
        }
    }

    fn of_objects(&mut self, depth: usize) -> Bson {
        match self.below(4) {
            0 => bson!({ "$mergeObjects": [self.object(depth), self.object(depth)] }),
            1 => bson!({ "$objectToArray": self.object(depth) }),
            2 => bson!({ "x": self.computed(depth), "y": { "z": self.computed(depth) } }),
            _ => bson!({ "$arrayToObject": { "$objectToArray": self.object(depth) } }),
        }
    }

    fn of_conditions(&mut self, depth: usize) -> Bson {
        match self.below(7) {
            0 => bson!({ "$and": [self.expression(depth), self.expression(depth)] }),
            1 => bson!({ "$or": [self.expression(depth), self.expression(depth)] }),
            2 => bson!({ "$not": [self.expression(depth)] }),
            3 => bson!({ "$cond": [self.expression(depth), self.expression(depth), self.expression(depth)] }),
            4 => bson!({ "$ifNull": [self.expression(depth), self.expression(depth)] }),
            5 => bson!({ "$switch": {
                "branches": [{ "case": self.expression(depth), "then": self.expression(depth) }],
                "default": self.expression(depth),
            } }),
            _ => bson!({ "$let": { "vars": { "v": self.expression(depth) }, "in": ["$$v", "$$v.a"] } }),
        }
    }

    // Results of queries.

    /// Returns an expression for a projection, in which a plain number would keep the field
    /// instead.
    fn computed(&mut self, depth: usize) -> Bson {
        match self.expression(depth) {
            value @ (Bson::Document(_) | Bson::String(_)) => value,
            value => bson!({ "$literal": value }),
        }
    }

    fn projection(&mut self) -> Document {
        let mut projection = Document::new();
        let including = self.below(2) == 0;
        for _ in 0..=self.below(3) {
            let path = self.path();
            let value = match self.below(10) {
                0 if !(including && path.contains('.')) => bson!({ "$slice": self.pick(&[1, -1, 0, 2]) }),
                1 if !(including && path.contains('.')) => {
                    bson!({ "$slice": [self.pick(&[0, 1, -2]), self.pick(&[1, 2])] })
                }
                2 if including && !path.contains('.') => Bson::Document(doc! { "$elemMatch": self.elem_match(1) }),
                3 if including && !path.contains('.') => self.computed(2),
                _ => Bson::Int32(i32::from(including)),
            };
            projection.insert(path, value);
        }
        if self.one_in(4) {
            projection.insert("_id", if including { self.below(2) as i32 } else { 0 });
        }
        projection
    }

    fn sort(&mut self) -> Document {
        let mut sort = Document::new();
        for _ in 0..=self.below(2) {
            sort.insert(self.path(), self.pick(&[1, -1]));
        }
        // The order of equal documents differs between servers.
        sort.insert("_id", 1);
        sort
    }

    fn read(&mut self) -> Document {
        match self.below(10) {
            0 => doc! { "distinct": "c", "key": self.path(), "query": self.filter(1) },
            1 => doc! { "count": "c", "query": self.filter(2) },
            2 | 3 => {
                let expression = self.computed(3);
                doc! { "aggregate": "c", "pipeline": [{ "$sort": { "_id": 1 } }, { "$project": { "r": expression } }], "cursor": {} }
            }
            _ => {
                let mut find = doc! { "find": "c", "filter": self.filter(2) };
                let sort = if self.one_in(2) {
                    self.sort()
                } else {
                    doc! { "_id": 1 }
                };
                find.insert("sort", sort);
                if self.one_in(3) {
                    find.insert("projection", self.projection());
                } else if self.one_in(3) {
                    find.insert("limit", self.0.random_range(1..8));
                    find.insert("skip", self.0.random_range(0..4));
                }
                find
            }
        }
    }

    // Updates.

    fn update_path(&mut self) -> String {
        match self.below(12) {
            0 => self.pick(&["a.$", "a.$.b", "b.a.$"]).to_owned(),
            1 => self.pick(&["a.$[]", "a.$[].b", "a.b.$[]"]).to_owned(),
            2 => self.pick(&["a.$[x]", "a.$[x].b"]).to_owned(),
            _ => self.path(),
        }
    }

    fn action(&mut self) -> (&'static str, Bson) {
        let operator = self.pick(&[
            "$set",
            "$set",
            "$set",
            "$unset",
            "$inc",
            "$mul",
            "$min",
            "$max",
            "$rename",
            "$push",
            "$push",
            "$pull",
            "$pullAll",
            "$addToSet",
            "$pop",
            "$bit",
            "$setOnInsert",
        ]);
        let operand = match operator {
            "$unset" => Bson::String(String::new()),
            "$inc" | "$mul" => self.pick_number(),
            "$rename" => Bson::String(self.pick(&["a", "b", "c", "d", "b.c", "c.a"]).to_owned()),
            "$push" if self.one_in(2) => {
                let count = self.below(4);
                let each: Vec<Bson> = (0..count).map(|_| self.value(1)).collect();
                let mut push = doc! { "$each": each };
                if self.one_in(2) {
                    push.insert("$position", self.0.random_range(-2..4));
                }
                if self.one_in(2) {
                    push.insert("$slice", self.0.random_range(-3..4));
                }
                if self.one_in(3) {
                    let sort = if self.one_in(2) {
                        Bson::Int32(self.pick(&[1, -1]))
                    } else {
                        bson!({ "b": self.pick(&[1, -1]) })
                    };
                    push.insert("$sort", sort);
                }
                Bson::Document(push)
            }
            "$addToSet" if self.one_in(2) => bson!({ "$each": self.several(3, |this| this.value(1)) }),
            "$pull" if self.one_in(2) => self.conditions(1, false),
            "$pullAll" => Bson::Array(self.several(3, |this| this.value(1))),
            "$pop" => Bson::Int32(self.pick(&[1, -1])),
            "$bit" => bson!({ self.pick(&["and", "or", "xor"]): self.pick(&[1, 2, 5]) }),
            _ => self.value(2),
        };
        (operator, operand)
    }

    fn pick_number(&mut self) -> Bson {
        match self.below(5) {
            0 => Bson::Double(self.pick(&[0.5, -1.0, f64::NAN])),
            1 => Bson::Int64(self.pick(&[1, i64::MAX, -1])),
            2 => Bson::Decimal128(self.pick(&["1.5", "1"]).parse().expect("a decimal")),
            _ => Bson::Int32(self.pick(&[1, 2, -1, i32::MAX])),
        }
    }

    fn update(&mut self) -> (Bson, Option<Vec<Bson>>) {
        if self.one_in(12) {
            return (Bson::Document(self.fields(2)), None);
        }
        if self.one_in(6) {
            let stage = match self.below(4) {
                0 => doc! { "$set": { self.path(): self.expression(2) } },
                1 => doc! { "$unset": self.pick(&["a", "b", "c"]) },
                2 => doc! { "$replaceWith": { "$mergeObjects": [{ "_id": "$_id" }, self.object(1)] } },
                _ => doc! { "$project": { self.path(): 1, "d": self.computed(2) } },
            };
            return (bson!([stage]), None);
        }
        let mut update = Document::new();
        let mut filters = false;
        for _ in 0..=usize::from(self.one_in(3)) {
            let (operator, operand) = self.action();
            let path = if ["$rename", "$setOnInsert"].contains(&operator) { self.path() } else { self.update_path() };
            filters |= path.contains("$[x]");
            match update.get_document_mut(operator) {
                Ok(actions) => drop(actions.insert(path, operand)),
                Err(_) => drop(update.insert(operator, doc! { path: operand })),
            }
        }
        let filters = filters.then(|| {
            let name = self.pick(&["x", "x.b"]);
            vec![Bson::Document(doc! { name: self.conditions(1, true) })]
        });
        (Bson::Document(update), filters)
    }

    /// Returns an update of the document `id`, if the filter matches it too.
    fn statement(&mut self, id: i32) -> Document {
        let mut query = doc! { "_id": id };
        if self.one_in(2) {
            let mut filter = self.filter(1);
            filter.remove("_id");
            query.extend(filter);
        }
        let (update, filters) = self.update();
        let multi = !matches!(&update, Bson::Document(update) if update.keys().all(|key| !key.starts_with('$')));
        let mut statement = doc! { "q": query, "u": update };
        if self.one_in(5) {
            statement.insert("upsert", true);
        }
        if multi && self.one_in(4) {
            statement.insert("multi", true);
        }
        if let Some(filters) = filters {
            statement.insert("arrayFilters", filters);
        }
        statement
    }

    /// Returns a command that changes one of several documents, or deletes some.
    fn change(&mut self) -> Document {
        if self.one_in(4) {
            return doc! { "delete": "c", "deletes": [{ "q": self.filter(1), "limit": self.below(2) as i32 }] };
        }
        let mut command = doc! { "findAndModify": "c", "query": self.filter(1), "sort": self.sort() };
        if self.one_in(6) {
            command.insert("remove", true);
        } else {
            let (update, filters) = self.update();
            command.insert("update", update);
            command.insert("new", self.below(2) == 0);
            if self.one_in(5) {
                command.insert("upsert", true);
            }
            if let Some(filters) = filters {
                command.insert("arrayFilters", filters);
            }
        }
        if self.one_in(3) {
            command.insert("fields", doc! { self.pick(&["a", "b.c"]): 1, "c": 1 });
        }
        command
    }

    // Indexes.

    /// Returns indexes of all kinds. No document violates them by its values alone.
    #[allow(dead_code, reason = "the comparison with the other server uses no indexes")]
    pub fn indexes(&mut self, count: usize) -> Vec<Document> {
        (0..count).map(|_| self.index()).collect()
    }

    fn index(&mut self) -> Document {
        let mut key = Document::new();
        for _ in 0..=self.below(3) {
            key.insert(self.path(), self.pick(&[1, -1]));
        }
        let mut index = doc! { "key": key };
        match self.below(4) {
            0 => drop(index.insert("sparse", true)),
            1 => {
                let condition = match self.below(3) {
                    0 => bson!({ "$exists": true }),
                    1 => bson!({ "$gt": self.scalar() }),
                    _ => bson!({ "$lte": self.scalar() }),
                };
                index.insert("partialFilterExpression", doc! { self.path(): condition });
            }
            _ => {}
        }
        index
    }

    // Batches.

    /// Returns reads of the same documents.
    pub fn reads(&mut self, count: usize) -> Vec<Case> {
        let documents: Vec<Document> = (0..SHARED as i32).map(|id| self.document(id)).collect();
        (0..count).map(|_| Case { documents: documents.clone(), command: self.read() }).collect()
    }

    /// Returns updates of one document each.
    pub fn updates(&mut self, count: usize) -> Vec<Case> {
        (0..count as i32)
            .map(|id| {
                // Now and then the document does not exist.
                let documents = if self.one_in(8) { Vec::new() } else { vec![self.document(id)] };
                let statement = self.statement(id);
                Case { documents, command: doc! { "update": "c", "updates": [statement] } }
            })
            .collect()
    }

    /// Returns changes of a few documents; each case runs alone.
    pub fn changes(&mut self, count: usize) -> Vec<Case> {
        (0..count)
            .map(|_| Case { documents: (0..3).map(|id| self.document(id)).collect(), command: self.change() })
            .collect()
    }
}
