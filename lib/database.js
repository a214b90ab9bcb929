"use strict";

/** The page about the parts of the SDK that Userkeep does not include. */
const PAGE = "userkeep/docs/realm-database.md";

/** Returns the error for a part of the Realm database, such as `Realm.open()`. */
function unavailable(part) {
  return new Error(`${part} belongs to the Realm database, which Userkeep does not include: see ${PAGE}`);
}

/** Creates a function that throws when it is called. `name` is its path under `Realm`. */
function stub(name) {
  const throwing = () => {
    throw unavailable(`Realm.${name}`);
  };
  return Object.defineProperty(throwing, "name", { value: name.split(".").at(-1) });
}

/**
 * Creates a class that throws when it is constructed or called. Models and errors can extend it,
 * and `instanceof` is false. It is a plain function, because calling a class throws a
 * `TypeError`.
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

/** Returns a rejected promise with the methods of the SDK's `ProgressRealmPromise`. */
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

/** The SDK's log levels: numbers by name and names by number, as in a TypeScript enumeration. */
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

/** The static methods of `Realm` for database files. */
const statics = {
  open,
  deleteFile: stub("deleteFile()"),
  exists: stub("exists()"),
  schemaVersion: stub("schemaVersion()"),
  createTemplateObject: stub("createTemplateObject()"),
  copyBundledRealmFiles: stub("copyBundledRealmFiles()"),
};

/** Creates `Realm.App.Sync`, the entry to Device Sync. */
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

/** The Realm database's names under `Realm`. Enumerations and unit conversions work. */
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

/**
 * Creates `Realm.Types`: working classes of `BSON` and JavaScript, and stubs of the database's.
 */
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
