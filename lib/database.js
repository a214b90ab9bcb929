"use strict";

/** The page about the parts of the SDK that are not here. */
const PAGE = "userkeep/docs/realm-database.md";

/** The error for the use of a part of the Realm database, as `Realm.open()`. */
function unavailable(part) {
  return new Error(`${part} belongs to the Realm database, which Userkeep does not include: see ${PAGE}`);
}

/** A function of the Realm database, which throws when it is called. `name` is its path under `Realm`. */
function stub(name) {
  const throwing = () => {
    throw unavailable(`Realm.${name}`);
  };
  return Object.defineProperty(throwing, "name", { value: name.split(".").at(-1) });
}

/**
 * A class of the Realm database: models and errors may extend it, and `instanceof` is false. It throws when it is
 * constructed or called, for which it is a plain function: a class that is called throws a `TypeError` of its own.
 */
function stubClass(name, Parent) {
  function Stub() {
    throw unavailable(`Realm.${name}`);
  }
  Object.defineProperty(Stub, "name", { value: name.split(".").at(-1) });
  if (Parent) {
    Object.setPrototypeOf(Stub, Parent);
    Object.setPrototypeOf(Stub.prototype, Parent.prototype);
  }
  return Stub;
}

/** A rejected promise with the methods of the SDK's `ProgressRealmPromise`. */
function open() {
  const rejected = Promise.reject(unavailable("Realm.open()"));
  return Object.assign(rejected, { progress: () => rejected, cancel: () => {} });
}

const Collection = stubClass("Collection");
const OrderedCollection = stubClass("OrderedCollection", Collection);
const List = stubClass("List", OrderedCollection);
const RealmSet = stubClass("Set", OrderedCollection);
const Results = stubClass("Results", OrderedCollection);
const Dictionary = stubClass("Dictionary", Collection);
const Counter = stubClass("Counter");
const RealmObject = Object.assign(stubClass("Object"), { allowValuesArrays: false });
const SchemaParseError = stubClass("SchemaParseError", Error);
const SyncError = stubClass("SyncError", Error);

const EARTH_RADIUS_KM = 6378.1;
const EARTH_RADIUS_MILES = 3963.16760121;

/** The levels of the SDK's log by number and number by level, as TypeScript makes them of an enumeration. */
const NumericLogLevel = {};
["All", "Trace", "Debug", "Detail", "Info", "Warn", "Error", "Fatal", "Off"].forEach((name, number) => {
  NumericLogLevel[name] = number;
  NumericLogLevel[number] = name;
});

const ConnectionState = {
  Disconnected: "disconnected",
  Connecting: "connecting",
  Connected: "connected",
};

const OpenRealmBehaviorType = {
  DownloadBeforeOpen: "downloadBeforeOpen",
  OpenImmediately: "openImmediately",
};

const OpenRealmTimeOutBehavior = {
  OpenLocalRealm: "openLocalRealm",
  ThrowException: "throwException",
};

const SubscriptionSetState = {
  Pending: "pending",
  Complete: "complete",
  Error: "error",
  Superseded: "superseded",
};

/** The static methods of `Realm` that work on database files. */
const statics = {
  open,
  deleteFile: stub("deleteFile()"),
  exists: stub("exists()"),
  schemaVersion: stub("schemaVersion()"),
  createTemplateObject: stub("createTemplateObject()"),
  copyBundledRealmFiles: stub("copyBundledRealmFiles()"),
};

/** Device Sync, which is `Realm.App.Sync`. */
function makeSync() {
  const BaseSubscriptionSet = stubClass("App.Sync.BaseSubscriptionSet");
  const Sync = stubClass("App.Sync");
  for (const method of [
    "setLogLevel",
    "setLogger",
    "getAllSyncSessions",
    "getSyncSession",
    "setUserAgent",
    "enableSessionMultiplexing",
    "initiateClientReset",
    "reconnect",
  ]) {
    Sync[method] = stub(`App.Sync.${method}()`);
  }
  return Object.assign(Sync, {
    openLocalRealmBehavior: { type: OpenRealmBehaviorType.OpenImmediately },
    downloadBeforeOpenBehavior: {
      type: OpenRealmBehaviorType.DownloadBeforeOpen,
      timeOut: 30_000,
      timeOutBehavior: OpenRealmTimeOutBehavior.ThrowException,
    },
    ConnectionState,
    BaseSubscriptionSet,
    NumericLogLevel,
    MutableSubscriptionSet: stubClass("App.Sync.MutableSubscriptionSet", BaseSubscriptionSet),
    SubscriptionSet: stubClass("App.Sync.SubscriptionSet", BaseSubscriptionSet),
    SubscriptionSetState,
    SubscriptionsState: SubscriptionSetState,
    Subscription: stubClass("App.Sync.Subscription"),
    Session: stubClass("App.Sync.Session"),
  });
}

/** The names of the Realm database under `Realm`. Enumerations have the SDK's values, and unit conversions work. */
const names = {
  ClientResetError: stubClass("ClientResetError", SyncError),
  ClientResetMode: {
    Manual: "manual",
    DiscardUnsyncedChanges: "discardUnsyncedChanges",
    RecoverUnsyncedChanges: "recoverUnsyncedChanges",
    RecoverOrDiscardUnsyncedChanges: "recoverOrDiscardUnsyncedChanges",
  },
  Collection,
  CompensatingWriteError: stubClass("CompensatingWriteError", SyncError),
  ConnectionState,
  Counter,
  Dictionary,
  List,
  NumericLogLevel,
  Object: RealmObject,
  OpenRealmBehaviorType,
  OpenRealmTimeOutBehavior,
  OrderedCollection,
  ProgressDirection: { Download: "download", Upload: "upload" },
  ProgressMode: {
    ReportIndefinitely: "reportIndefinitely",
    ForCurrentlyOutstandingWork: "forCurrentlyOutstandingWork",
  },
  ProgressRealmPromise: stubClass("ProgressRealmPromise"),
  PropertySchemaParseError: stubClass("PropertySchemaParseError", SchemaParseError),
  ProxyType: { HTTP: "http", HTTPS: "https" },
  RealmEvent: { Change: "change", Schema: "schema", BeforeNotify: "beforenotify" },
  Results,
  SchemaParseError,
  SessionState: { Invalid: "invalid", Active: "active", Inactive: "inactive" },
  SessionStopPolicy: { AfterUpload: "after-upload", Immediately: "immediately", Never: "never" },
  Set: RealmSet,
  SubscriptionSetState,
  SyncError,
  UpdateMode: { Never: "never", Modified: "modified", All: "all" },
  WaitForSync: { FirstTime: "first-time", Always: "always", Never: "never" },
  index: stub("index()"),
  kmToRadians: (kilometers) => kilometers / EARTH_RADIUS_KM,
  mapTo: stub("mapTo()"),
  miToRadians: (miles) => miles / EARTH_RADIUS_MILES,
};

/** `Realm.Types`: the classes of `BSON` and JavaScript's own, which work, and those of the Realm database. */
function makeTypes({ Decimal128, ObjectId, UUID }) {
  return {
    Decimal128,
    ObjectId,
    UUID,
    Counter,
    Date,
    Data: ArrayBuffer,
    List,
    Set: RealmSet,
    Dictionary,
    LinkingObjects: Results,
  };
}

module.exports = { NumericLogLevel, makeSync, makeTypes, names, statics, unavailable };
