//! A server that speaks MongoDB's wire protocol
//! (<https://www.mongodb.com/docs/manual/reference/mongodb-wire-protocol/>) and returns canned
//! replies, for benchmarks of the connection to a server. It prints its connection string.
//!
//! In databases whose names begin with `userkeep`, it stores inserted documents and answers every
//! query with all of them, which is enough for an app with one user. In all other databases, a
//! query by `_id` returns one document, a query with a limit of 1000 returns 1000 documents, and
//! any other query returns none.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex},
};

use bson::{DateTime, RawDocument, RawDocumentBuf, Timestamp, doc, oid::ObjectId, raw::RawArrayBuf, rawdoc};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

const OP_REPLY: u32 = 1;
const OP_QUERY: u32 = 2004;
const OP_MSG: u32 = 2013;

type Kept = Arc<Mutex<HashMap<String, Vec<RawDocumentBuf>>>>;

fn sample(index: i32) -> RawDocumentBuf {
    let document = doc! {
        "_id": ObjectId::new(),
        "userId": ObjectId::new().to_hex(),
        "index": index,
        "favoriteColor": "pink",
        "name": "Ada Lovelace",
        "email": format!("user{index}@example.com"),
        "visits": index * 3,
        "joined": DateTime::from_millis(1_700_000_000_000),
        "address": { "street": "12 Example Street", "city": "London", "zip": "N1 9GU" },
        "tags": ["alpha", "beta", "gamma"],
    };
    RawDocumentBuf::try_from(document).unwrap()
}

fn cursor(namespace: &str, documents: &[RawDocumentBuf]) -> RawDocumentBuf {
    let mut batch = RawArrayBuf::new();
    documents.iter().for_each(|document| batch.push(document.clone()));
    rawdoc! { "cursor": { "firstBatch": batch, "id": 0_i64, "ns": namespace }, "ok": 1.0 }
}

static ONE: LazyLock<RawDocumentBuf> = LazyLock::new(|| cursor("bench.c", &[sample(1)]));
static MANY: LazyLock<RawDocumentBuf> = LazyLock::new(|| cursor("bench.c", &(0..1000).map(sample).collect::<Vec<_>>()));
static NONE: LazyLock<RawDocumentBuf> = LazyLock::new(|| cursor("bench.c", &[]));

fn hello() -> RawDocumentBuf {
    rawdoc! {
        "helloOk": true, "ismaster": true, "isWritablePrimary": true, "setName": "canned", "secondary": false,
        "hosts": [], "maxBsonObjectSize": 16_777_216, "maxMessageSizeBytes": 48_000_000, "maxWriteBatchSize": 100_000,
        "localTime": DateTime::now(), "logicalSessionTimeoutMinutes": 30, "connectionId": 1, "minWireVersion": 0,
        "maxWireVersion": 25, "readOnly": false, "ok": 1.0, "operationTime": Timestamp { time: 1, increment: 1 },
    }
}

fn answer(command: &RawDocument, documents: &[&RawDocument], kept: &Kept) -> RawDocumentBuf {
    let (name, target) = query::elements(command).next().unwrap();
    let database = command.get_str("$db").unwrap_or("admin");
    let namespace = || format!("{database}.{}", target.as_str().unwrap_or_default());
    let is_kept = database.starts_with("userkeep");
    match name {
        "hello" | "isMaster" | "ismaster" => hello(),
        "find" if is_kept => match kept.lock().unwrap().get(&namespace()) {
            Some(documents) => cursor(&namespace(), documents),
            None => NONE.clone(),
        },
        "find" => {
            let filter = command.get_document("filter").unwrap();
            match query::get(command, "limit").and_then(query::integer) {
                _ if query::get(filter, "_id").is_some() => ONE.clone(),
                Some(1000) => MANY.clone(),
                _ => NONE.clone(),
            }
        }
        "insert" => {
            let inline = command.get_array("documents").ok().into_iter().flatten().flatten();
            let inline = inline.filter_map(bson::RawBsonRef::as_document);
            let all: Vec<_> = inline.chain(documents.iter().copied()).map(RawDocument::to_owned).collect();
            let count = all.len() as i32;
            if is_kept {
                kept.lock().unwrap().entry(namespace()).or_default().extend(all);
            }
            rawdoc! { "n": count, "ok": 1.0 }
        }
        "update" => rawdoc! { "n": 1, "nModified": 1, "ok": 1.0 },
        "delete" => rawdoc! { "n": 1, "ok": 1.0 },
        "aggregate" | "listIndexes" | "listCollections" => NONE.clone(),
        _ => rawdoc! { "ok": 1.0 },
    }
}

async fn serve(stream: TcpStream, kept: Kept) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let (from, mut to) = stream.into_split();
    let mut from = BufReader::with_capacity(64 * 1024, from);
    let mut message = Vec::new();
    loop {
        let length = from.read_u32_le().await.ok()? as usize;
        message.resize(length - 4, 0);
        from.read_exact(&mut message).await.ok()?;
        let number = |at: usize| u32::from_le_bytes(message[at..at + 4].try_into().unwrap());
        let (request, code) = (number(0), number(8));
        let body = |at: usize| RawDocument::from_bytes(&message[at..at + number(at) as usize]).unwrap();
        let answer = match code {
            OP_QUERY => hello(),
            _ => {
                // The body, and the documents of a write beside it.
                let (mut command, mut documents) = (None, Vec::new());
                let mut at = 16;
                while at < message.len() {
                    let (kind, size) = (message[at], number(at + 1) as usize);
                    if kind == 0 {
                        command = Some(body(at + 1));
                    } else {
                        let name = message[at + 5..].iter().position(|byte| *byte == 0).unwrap();
                        let mut inner = at + 5 + name + 1;
                        while inner < at + 1 + size {
                            documents.push(body(inner));
                            inner += number(inner) as usize;
                        }
                    }
                    at += 1 + size;
                }
                answer(command.unwrap(), &documents, &kept)
            }
        };
        let mut reply = Vec::with_capacity(answer.as_bytes().len() + 40);
        let head = if code == OP_QUERY { 36 } else { 21 };
        reply.extend(((head + answer.as_bytes().len()) as u32).to_le_bytes());
        reply.extend(0_u32.to_le_bytes());
        reply.extend(request.to_le_bytes());
        if code == OP_QUERY {
            reply.extend(OP_REPLY.to_le_bytes());
            reply.extend([8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
        } else {
            reply.extend(OP_MSG.to_le_bytes());
            reply.extend([0; 5]);
        }
        reply.extend(answer.as_bytes());
        to.write_all(&reply).await.ok()?;
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("mongodb://{}/?directConnection=true", listener.local_addr().unwrap());
        let kept = Kept::default();
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, Arc::clone(&kept)));
        }
    });
}
