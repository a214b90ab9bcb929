// The types of the Realm database, which Userkeep does not include. With them, files compile that
// use both halves of the SDK. Constructing or calling one of these classes and functions throws an
// error that names it, unless its documentation says that it works.
import Realm = require("../index.js");

type DefaultObject = Realm.DefaultObject;

// biome-ignore lint/suspicious/noExplicitAny: the SDK's own wildcard
type Any = any;

/** The names of the properties of `T` whose values are of a type. */
type KeysOf<T, Value> = { [K in keyof T]: T[K] extends Value ? K : never }[keyof T];
type NullableKeysOf<T, Value> = { [K in keyof T]: Exclude<T[K], null | undefined> extends Value ? K : never }[keyof T];

declare namespace database {
  // ----- Schemas

  type PrimitivePropertyTypeName =
    | "bool"
    | "int"
    | "float"
    | "double"
    | "decimal128"
    | "objectId"
    | "string"
    | "data"
    | "date"
    | "mixed"
    | "uuid";
  type CollectionPropertyTypeName = "list" | "dictionary" | "set";
  type RelationshipPropertyTypeName = "object" | "linkingObjects";
  type PresentationPropertyTypeName = "counter";
  type PropertyTypeName = PrimitivePropertyTypeName | CollectionPropertyTypeName | RelationshipPropertyTypeName;
  type ShorthandPrimitivePropertyTypeName = PrimitivePropertyTypeName | PresentationPropertyTypeName;
  type UserTypeName = string;
  type IndexedType = boolean | "full-text";
  type PrimaryKey = null | number | string | Realm.BSON.ObjectId | Realm.BSON.UUID;

  type PropertySchemaShorthand = string;
  type PropertySchema = {
    type: PropertyTypeName;
    objectType?: PrimitivePropertyTypeName | UserTypeName;
    presentation?: PresentationPropertyTypeName;
    property?: string;
    optional?: boolean;
    indexed?: IndexedType;
    mapTo?: string;
    default?: unknown;
  };
  type PropertySchemaCommon = {
    presentation: never;
    indexed?: IndexedType;
    mapTo?: string;
    default?: unknown;
  };
  type PropertySchemaStrict = PropertySchemaCommon &
    (
      | { type: Exclude<PrimitivePropertyTypeName, "mixed" | "int">; optional?: boolean }
      | { type: "int"; optional?: boolean; presentation?: "counter" }
      | { type: "mixed"; optional?: true }
      | {
          type: CollectionPropertyTypeName;
          objectType: Exclude<PrimitivePropertyTypeName, "mixed">;
          optional?: boolean;
        }
      | { type: CollectionPropertyTypeName; objectType: "mixed"; optional?: true }
      | { type: "list" | "set"; objectType: UserTypeName; optional?: false }
      | { type: "dictionary" | "object"; objectType: UserTypeName; optional?: true }
      | { type: "linkingObjects"; objectType: UserTypeName; property: string; optional?: false }
    );
  type PropertiesTypes = { [key: string]: PropertySchema | PropertySchemaShorthand };
  type CanonicalPropertySchema = {
    name: string;
    type: PropertyTypeName;
    objectType?: string;
    presentation?: PresentationPropertyTypeName;
    optional: boolean;
    indexed: IndexedType;
    mapTo: string;
    property?: string;
    default?: unknown;
  };
  type CanonicalPropertiesTypes<K extends symbol | number | string = string> = Record<K, CanonicalPropertySchema>;

  type BaseObjectSchema = {
    name: string;
    primaryKey?: string;
    embedded?: boolean;
    asymmetric?: boolean;
    properties: unknown;
  };
  type ObjectSchema = BaseObjectSchema & { properties: PropertiesTypes };
  type CanonicalObjectSchema<T = DefaultObject> = BaseObjectSchema & {
    properties: CanonicalPropertiesTypes<keyof T>;
    ctor?: RealmObjectConstructor;
  };
  type Constructor<T = unknown> = new (...args: Any) => T;
  type RealmObjectConstructor<T extends RealmObject = RealmObject> = {
    new (...args: Any): T;
    schema?: ObjectSchema;
  };
  type ObjectType = string | RealmObjectConstructor;

  // ----- Objects

  enum UpdateMode {
    Never = "never",
    Modified = "modified",
    All = "all",
  }

  /** The properties of a model that are plain values. */
  type OmittedRealmTypes<T> = Omit<
    T,
    | keyof AnyRealmObject
    | KeysOf<T, (...args: never) => unknown>
    | KeysOf<T, AnyCollection>
    | KeysOf<T, AnyDictionary>
    | NullableKeysOf<T, Counter>
  >;

  /** The values from which an object of a model is made. */
  type Unmanaged<T, RequiredProperties extends keyof OmittedRealmTypes<T> = never> = Partial<OmittedRealmTypes<T>> &
    Pick<OmittedRealmTypes<T>, RequiredProperties> & {
      [K in KeysOf<T, AnyList>]?: T[K] extends List<infer Item> ? Array<Item | Unmanaged<Item>> : never;
    } & {
      [K in KeysOf<T, AnyDictionary>]?: T[K] extends Dictionary<infer Item> ? { [key: string]: Item } : never;
    } & {
      [K in KeysOf<T, AnySet>]?: T[K] extends RealmSet<infer Item> ? Array<Item | Unmanaged<Item>> : never;
    } & { [K in NullableKeysOf<T, Counter>]?: Counter | number | Exclude<T[K], Counter> };

  type ObjectChangeSet<T> = { deleted: boolean; changedProperties: (keyof T)[] };
  type ObjectChangeCallback<T> = (object: RealmObject<T> & T, changes: ObjectChangeSet<T>) => void;
  type AnyRealmObject = RealmObject<Any>;

  /** The base class of models. Models can be declared; constructing one throws. */
  class RealmObject<T = DefaultObject, RequiredProperties extends keyof OmittedRealmTypes<T> = never> {
    static allowValuesArrays: boolean;
    static primaryKey?: string;
    static embedded?: boolean;
    static asymmetric?: boolean;
    /** @deprecated Always throws: Userkeep does not include the Realm database. */
    constructor(realm: Realm, values: Unmanaged<T, RequiredProperties>);
    keys(): string[];
    entries(): [string, unknown][];
    toJSON(key?: string, cache?: unknown): DefaultObject;
    isValid(): boolean;
    objectSchema(): CanonicalObjectSchema<T>;
    linkingObjects<Source = DefaultObject>(
      objectType: string,
      propertyName: string,
    ): Results<RealmObject<Source> & Source>;
    linkingObjects<Source extends AnyRealmObject>(
      objectType: Constructor<Source>,
      propertyName: string,
    ): Results<Source>;
    linkingObjectsCount(): number;
    addListener(callback: ObjectChangeCallback<T>, keyPaths?: string | string[]): void;
    removeListener(callback: ObjectChangeCallback<T>): void;
    removeAllListeners(): void;
    getPropertyType(propertyName: string): string;
  }

  type IndexDecorator = (target: unknown, memberName: string) => void;
  type MapToDecorator = (propertyName: string) => (target: unknown, memberName: string) => void;
  const index: IndexDecorator;
  const mapTo: MapToDecorator;

  // ----- Collections

  abstract class Collection<
    KeyType = unknown,
    ValueType = unknown,
    EntryType = [KeyType, ValueType],
    T = ValueType,
    ChangeCallbackType = unknown,
  > implements Iterable<T>
  {
    abstract keys(): Iterable<KeyType>;
    abstract values(): Iterable<ValueType>;
    abstract entries(): Iterable<EntryType>;
    abstract [Symbol.iterator](): Iterator<T>;
    abstract isValid(): boolean;
    addListener(callback: ChangeCallbackType, keyPaths?: string | string[]): void;
    removeListener(callback: ChangeCallbackType): void;
    removeAllListeners(): void;
  }
  type AnyCollection = Collection<Any, Any, Any, Any, Any>;

  type SortDescriptor = string | [string, boolean];
  type CollectionChangeSet = {
    insertions: number[];
    deletions: number[];
    newModifications: number[];
    oldModifications: number[];
  };
  type CollectionChangeCallback<T = unknown, EntryType extends [unknown, unknown] = [unknown, unknown]> = (
    collection: OrderedCollection<T, EntryType>,
    changes: CollectionChangeSet,
  ) => void;

  /** The methods of arrays that ordered collections have. */
  type ArrayMethods<T> = Pick<
    ReadonlyArray<T>,
    | "at"
    | "concat"
    | "every"
    | "filter"
    | "find"
    | "findIndex"
    | "flat"
    | "flatMap"
    | "forEach"
    | "includes"
    | "indexOf"
    | "join"
    | "lastIndexOf"
    | "map"
    | "reduce"
    | "reduceRight"
    | "slice"
    | "some"
  >;

  interface OrderedCollection<T = unknown, EntryType extends [unknown, unknown] = [number, T]>
    extends ArrayMethods<T> {}
  abstract class OrderedCollection<T = unknown, EntryType extends [unknown, unknown] = [number, T]> extends Collection<
    number,
    T,
    EntryType,
    T,
    CollectionChangeCallback<T, EntryType>
  > {
    [n: number]: T;
    length: number;
    readonly type: string;
    readonly optional: boolean;
    toJSON(): DefaultObject[];
    keys(): Generator<number>;
    values(): Generator<T>;
    entries(): Generator<EntryType>;
    [Symbol.iterator](): IterableIterator<T>;
    isValid(): boolean;
    description(): string;
    isEmpty(): boolean;
    min(property?: string): number | Date | undefined;
    max(property?: string): number | Date | undefined;
    sum(property?: string): number;
    avg(property?: string): number | undefined;
    filtered(queryString: string, ...args: unknown[]): Results<T>;
    sorted(reverse?: boolean): Results<T>;
    sorted(descriptor: SortDescriptor[]): Results<T>;
    sorted(descriptor: string, reverse?: boolean): Results<T>;
    snapshot(): Results<T>;
  }

  class List<T = unknown> extends OrderedCollection<T, [number, T]> {
    pop(): T | undefined;
    push(...items: T[]): number;
    shift(): T | undefined;
    unshift(...items: T[]): number;
    splice(start: number, deleteCount?: number): T[];
    splice(start: number, deleteCount: number, ...items: T[]): T[];
    remove(index: number): void;
    move(from: number, to: number): void;
    swap(index1: number, index2: number): void;
  }
  type AnyList = List<Any>;

  /** `Realm.Set`. */
  class RealmSet<T = unknown> extends OrderedCollection<T, [T, T]> {
    readonly size: number;
    add(value: T): this;
    delete(value: T): boolean;
    clear(): void;
    has(value: T): boolean;
  }
  type AnySet = RealmSet<Any>;

  class Results<T = unknown> extends OrderedCollection<T, [number, T]> {
    update(propertyName: keyof Unmanaged<T>, value: Unmanaged<T>[typeof propertyName]): void;
    subscribe(options?: SubscriptionOptions): Promise<this>;
    unsubscribe(): void;
  }
  type AnyResults = Results<Any>;

  type DictionaryChangeSet = { deletions: string[]; modifications: string[]; insertions: string[] };
  type DictionaryChangeCallback<T = unknown> = (dictionary: Dictionary<T>, changes: DictionaryChangeSet) => void;
  class Dictionary<T = unknown> extends Collection<string, T, [string, T], [string, T], DictionaryChangeCallback<T>> {
    [key: string]: Any;
    [Symbol.iterator](): Generator<[string, T]>;
    keys(): Generator<string>;
    values(): Generator<T>;
    entries(): Generator<[string, T]>;
    isValid(): boolean;
    set(elements: { [key: string]: T }): this;
    set(key: string, value: T): this;
    remove(key: string | string[]): this;
    toJSON(key?: string, cache?: unknown): DefaultObject;
  }
  type AnyDictionary = Dictionary<Any>;

  class Counter {
    readonly value: number;
    increment(by?: number): void;
    decrement(by?: number): void;
    set(value: number): void;
  }

  // ----- Geospatial queries

  type GeoPosition = [number, number] | [number, number, number];
  interface CanonicalGeoPoint {
    coordinates: GeoPosition;
    type: "Point";
  }
  interface CanonicalGeoPolygon {
    coordinates: GeoPosition[][];
    type: "Polygon";
  }
  type GeoPoint = { latitude: number; longitude: number; altitude?: number } | CanonicalGeoPoint | GeoPosition;
  type GeoCircle = { center: GeoPoint; distance: number };
  type GeoPolygon = { outerRing: GeoPoint[]; holes?: GeoPoint[][] } | CanonicalGeoPolygon;
  type GeoBox = { bottomLeft: GeoPoint; topRight: GeoPoint };
  /**
   * Converts kilometers to radians on the earth's surface. Works.
   *
   * @example
   * ```ts
   * const radians = Realm.kmToRadians(10);
   * ```
   */
  function kmToRadians(km: number): number;
  /**
   * Converts miles to radians on the earth's surface. Works.
   *
   * @example
   * ```ts
   * const radians = Realm.miToRadians(10);
   * ```
   */
  function miToRadians(mi: number): number;

  // ----- Opening

  type RealmEventName = "change" | "schema" | "beforenotify";
  enum RealmEvent {
    Change = "change",
    Schema = "schema",
    BeforeNotify = "beforenotify",
  }
  type RealmListenerCallback = (realm: Realm, name: RealmEvent, schema?: CanonicalObjectSchema[]) => void;

  type MigrationCallback = (oldRealm: Realm, newRealm: Realm) => void;
  type MigrationOptions = { resolveEmbeddedConstraints?: boolean };
  type BaseConfiguration = {
    path?: string;
    schema?: (RealmObjectConstructor<AnyRealmObject> | ObjectSchema)[];
    schemaVersion?: number;
    inMemory?: boolean;
    readOnly?: boolean;
    fifoFilesFallbackPath?: string;
    sync?: SyncConfiguration;
    shouldCompact?: (totalBytes: number, usedBytes: number) => boolean;
    deleteRealmIfMigrationNeeded?: boolean;
    disableFormatUpgrade?: boolean;
    encryptionKey?: ArrayBuffer | ArrayBufferView | Int8Array;
    onMigration?: MigrationCallback;
    onFirstOpen?: (realm: Realm) => void;
    migrationOptions?: MigrationOptions;
    excludeFromIcloudBackup?: boolean;
  };
  type ConfigurationWithSync = BaseConfiguration & { sync: SyncConfiguration };
  type ConfigurationWithoutSync = BaseConfiguration & { sync?: never };
  type Configuration = ConfigurationWithSync | ConfigurationWithoutSync;

  class ProgressRealmPromise implements Promise<Realm> {
    cancel(): void;
    progress(callback: ProgressNotificationCallback): this;
    then: Promise<Realm>["then"];
    catch: Promise<Realm>["catch"];
    finally: Promise<Realm>["finally"];
    readonly [Symbol.toStringTag]: string;
  }

  // ----- Device Sync

  type PartitionValue = string | number | Realm.BSON.ObjectId | Realm.BSON.UUID | null;
  enum OpenRealmBehaviorType {
    DownloadBeforeOpen = "downloadBeforeOpen",
    OpenImmediately = "openImmediately",
  }
  enum OpenRealmTimeOutBehavior {
    OpenLocalRealm = "openLocalRealm",
    ThrowException = "throwException",
  }
  type OpenRealmBehaviorConfiguration = {
    type: OpenRealmBehaviorType;
    timeOut?: number;
    timeOutBehavior?: OpenRealmTimeOutBehavior;
  };
  enum SessionStopPolicy {
    AfterUpload = "after-upload",
    Immediately = "immediately",
    Never = "never",
  }
  enum ClientResetMode {
    Manual = "manual",
    DiscardUnsyncedChanges = "discardUnsyncedChanges",
    RecoverUnsyncedChanges = "recoverUnsyncedChanges",
    RecoverOrDiscardUnsyncedChanges = "recoverOrDiscardUnsyncedChanges",
  }
  type ErrorCallback = (session: SyncSession, error: SyncError | ClientResetError) => void;
  type ClientResetFallbackCallback = (session: SyncSession, path: string) => void;
  type ClientResetBeforeCallback = (localRealm: Realm) => void;
  type ClientResetAfterCallback = (localRealm: Realm, remoteRealm: Realm) => void;
  type ClientResetManualConfiguration = { mode: ClientResetMode.Manual; onManual?: ClientResetFallbackCallback };
  type ClientResetDiscardUnsyncedChangesConfiguration = {
    mode: ClientResetMode.DiscardUnsyncedChanges;
    onAfter?: ClientResetAfterCallback;
    onBefore?: ClientResetBeforeCallback;
  };
  type ClientResetRecoverUnsyncedChangesConfiguration = {
    mode: ClientResetMode.RecoverUnsyncedChanges;
    onAfter?: ClientResetAfterCallback;
    onBefore?: ClientResetBeforeCallback;
    onFallback?: ClientResetFallbackCallback;
  };
  type ClientResetRecoverOrDiscardUnsyncedChangesConfiguration = {
    mode: ClientResetMode.RecoverOrDiscardUnsyncedChanges;
    onAfter?: ClientResetAfterCallback;
    onBefore?: ClientResetBeforeCallback;
    onFallback?: ClientResetFallbackCallback;
  };
  type ClientResetConfig =
    | ClientResetManualConfiguration
    | ClientResetDiscardUnsyncedChangesConfiguration
    | ClientResetRecoverUnsyncedChangesConfiguration
    | ClientResetRecoverOrDiscardUnsyncedChangesConfiguration;
  type SSLVerifyObject = {
    serverAddress: string;
    serverPort: number;
    pemCertificate: string;
    acceptedByOpenSSL: boolean;
    depth: number;
  };
  type SSLVerifyCallback = (sslVerifyObject: SSLVerifyObject) => boolean;
  type SSLConfiguration = {
    validate?: boolean;
    certificatePath?: string;
    validateCertificates?: SSLVerifyCallback;
  };
  enum ProxyType {
    HTTP = "http",
    HTTPS = "https",
  }
  type SyncProxyConfig = { address: string; port: number; type: ProxyType };
  type BaseSyncConfiguration = {
    user: Realm.AnyUser;
    newRealmFileBehavior?: OpenRealmBehaviorConfiguration;
    existingRealmFileBehavior?: OpenRealmBehaviorConfiguration;
    onError?: ErrorCallback;
    customHttpHeaders?: Record<string, string>;
    ssl?: SSLConfiguration;
    clientReset?: ClientResetConfig;
    cancelWaitsOnNonFatalError?: boolean;
    proxyConfig?: SyncProxyConfig;
  };
  type InitialSubscriptions = {
    update: (mutableSubscriptions: MutableSubscriptionSet, realm: Realm) => void;
    rerunOnOpen?: boolean;
  };
  type FlexibleSyncConfiguration = BaseSyncConfiguration & {
    flexible: true;
    partitionValue?: never;
    initialSubscriptions?: InitialSubscriptions;
  };
  type PartitionSyncConfiguration = BaseSyncConfiguration & {
    flexible?: never;
    partitionValue: PartitionValue;
    initialSubscriptions?: never;
  };
  type SyncConfiguration = FlexibleSyncConfiguration | PartitionSyncConfiguration;

  enum ProgressDirection {
    Download = "download",
    Upload = "upload",
  }
  enum ProgressMode {
    ReportIndefinitely = "reportIndefinitely",
    ForCurrentlyOutstandingWork = "forCurrentlyOutstandingWork",
  }
  type PartitionBasedSyncProgressNotificationCallback = (transferred: number, transferable: number) => void;
  type EstimateProgressNotificationCallback = (estimate: number) => void;
  type ProgressNotificationCallback =
    | EstimateProgressNotificationCallback
    | PartitionBasedSyncProgressNotificationCallback;
  enum ConnectionState {
    Disconnected = "disconnected",
    Connecting = "connecting",
    Connected = "connected",
  }
  type ConnectionNotificationCallback = (newState: ConnectionState, oldState: ConnectionState) => void;
  enum SessionState {
    Invalid = "invalid",
    Active = "active",
    Inactive = "inactive",
  }
  class SyncSession {
    private constructor();
    readonly config: SyncConfiguration;
    readonly state: SessionState;
    readonly url: string;
    readonly user: Realm.User;
    readonly connectionState: ConnectionState;
    isConnected(): boolean;
    pause(): void;
    resume(): void;
    reconnect(): void;
    addProgressNotification(
      direction: ProgressDirection,
      mode: ProgressMode,
      callback: ProgressNotificationCallback,
    ): void;
    removeProgressNotification(callback: ProgressNotificationCallback): void;
    addConnectionNotification(callback: ConnectionNotificationCallback): void;
    removeConnectionNotification(callback: ConnectionNotificationCallback): void;
    downloadAllServerChanges(timeoutMs?: number): Promise<void>;
    uploadAllLocalChanges(timeoutMs?: number): Promise<void>;
  }

  enum SubscriptionSetState {
    Pending = "pending",
    Complete = "complete",
    Error = "error",
    Superseded = "superseded",
  }
  enum WaitForSync {
    FirstTime = "first-time",
    Always = "always",
    Never = "never",
  }
  type SubscriptionOptions = { name?: string; throwOnUpdate?: boolean; behavior?: WaitForSync; timeout?: number };
  class Subscription {
    private constructor();
    readonly id: Realm.BSON.ObjectId;
    readonly createdAt: Date;
    readonly updatedAt: Date;
    readonly name: string | null;
    readonly objectType: string;
    readonly queryString: string;
  }
  abstract class BaseSubscriptionSet {
    readonly isEmpty: boolean;
    readonly version: number;
    readonly state: SubscriptionSetState;
    readonly error: string | null;
    readonly length: number;
    findByName(name: string): Subscription | null;
    findByQuery<T>(query: Results<T & RealmObject<T>>): Subscription | null;
    [Symbol.iterator](): IterableIterator<Subscription>;
  }
  class MutableSubscriptionSet extends BaseSubscriptionSet {
    add(query: AnyResults, options?: SubscriptionOptions): Subscription;
    remove(query: AnyResults): boolean;
    removeByName(name: string): boolean;
    removeSubscription(subscription: Subscription): boolean;
    removeByObjectType(objectType: string): number;
    removeAll(): number;
    removeUnnamed(): number;
  }
  class SubscriptionSet extends BaseSubscriptionSet {
    waitForSynchronization(): Promise<void>;
    update(callback: (mutableSubscriptions: MutableSubscriptionSet, realm: Realm) => void): Promise<void>;
  }

  /** `Realm.App.Sync`. */
  // biome-ignore lint/complexity/noStaticOnlyClass: as in the SDK
  class Sync {
    static setLogLevel(app: Realm.App, level: SDKLogLevel): void;
    static setLogger(app: Realm.App, logger: Logger): void;
    static getAllSyncSessions(user: Realm.User): SyncSession[];
    static getSyncSession(user: Realm.User, partitionValue: PartitionValue): SyncSession | null;
    static setUserAgent(app: Realm.App, userAgent: string): void;
    static enableSessionMultiplexing(app: Realm.App): void;
    static initiateClientReset(app: Realm.App, path: string): void;
    static reconnect(app: Realm.App): void;
    static openLocalRealmBehavior: Readonly<OpenRealmBehaviorConfiguration>;
    static downloadBeforeOpenBehavior: Readonly<OpenRealmBehaviorConfiguration>;
  }
  namespace Sync {
    export import BaseSubscriptionSet = database.BaseSubscriptionSet;
    export import ConnectionState = database.ConnectionState;
    export import LogLevel = database.SDKLogLevel;
    export import MutableSubscriptionSet = database.MutableSubscriptionSet;
    export import NumericLogLevel = database.NumericLogLevel;
    export import PartitionValue = database.PartitionValue;
    export import Session = database.SyncSession;
    export import Subscription = database.Subscription;
    export import SubscriptionOptions = database.SubscriptionOptions;
    export import SubscriptionSet = database.SubscriptionSet;
    export import SubscriptionSetState = database.SubscriptionSetState;
    /** @deprecated The same as `SubscriptionSetState`. */
    export import SubscriptionsState = database.SubscriptionSetState;
  }

  // ----- The SDK's log

  /** The SDK's log levels by name. */
  type SDKLogLevel = "all" | "trace" | "debug" | "detail" | "info" | "warn" | "error" | "fatal" | "off";
  /**
   * The SDK's log levels by number.
   *
   * @example
   * ```ts
   * Realm.setLogLevel(Realm.NumericLogLevel.Warn);
   * ```
   */
  enum NumericLogLevel {
    All = 0,
    Trace = 1,
    Debug = 2,
    Detail = 3,
    Info = 4,
    Warn = 5,
    Error = 6,
    Fatal = 7,
    Off = 8,
  }
  /**
   * The SDK's log categories. Userkeep logs with the category `Realm.App`.
   *
   * @example
   * ```ts
   * const category: Realm.LogCategory = "Realm.App";
   * Realm.setLogLevel("debug", category);
   * ```
   */
  type LogCategory =
    | "Realm"
    | "Realm.Storage"
    | "Realm.Storage.Transaction"
    | "Realm.Storage.Query"
    | "Realm.Storage.Object"
    | "Realm.Storage.Notification"
    | "Realm.Sync"
    | "Realm.Sync.Client"
    | "Realm.Sync.Client.Session"
    | "Realm.Sync.Client.Changeset"
    | "Realm.Sync.Client.Network"
    | "Realm.Sync.Client.Reset"
    | "Realm.Sync.Server"
    | "Realm.App"
    | "Realm.SDK";
  /**
   * A log entry, as a callback of `Realm.setLogger()` receives it.
   *
   * @example
   * ```ts
   * Realm.setLogger(({ level, message }: Realm.LogEntry) => console.log(level, message));
   * ```
   */
  type LogEntry = { category: LogCategory; level: SDKLogLevel; message: string };
  /** @deprecated The SDK's form of a callback with two parameters. */
  type LoggerCallback1 = (level: SDKLogLevel, message: string) => void;
  /**
   * A callback of `Realm.setLogger()`.
   *
   * @example
   * ```ts
   * const callback: Realm.LoggerCallback2 = (entry) => console.log(JSON.stringify(entry));
   * Realm.setLogger(callback);
   * ```
   */
  type LoggerCallback2 = (entry: LogEntry) => void;
  /**
   * A callback of `Realm.setLogger()`, in either form.
   *
   * @example
   * ```ts
   * const callback: Realm.LoggerCallback = (entry: Realm.LogEntry) => console.log(entry.message);
   * ```
   */
  type LoggerCallback = LoggerCallback1 | LoggerCallback2;
  type Logger = (level: NumericLogLevel, message: string) => void;

  // ----- Errors

  class SchemaParseError extends Error {}
  class PropertySchemaParseError extends SchemaParseError {
    objectName: string;
    propertyName: string;
  }
  class SyncError extends Error {
    isOk: boolean;
    code?: number;
    category: string;
    reason?: string;
    logUrl: string;
    userInfo: Record<string, string>;
    isFatal: boolean;
  }
  class ClientResetError extends SyncError {
    config: Configuration;
  }
  class CompensatingWriteError extends SyncError {
    writes: CompensatingWriteInfo[];
  }
  type CompensatingWriteInfo = { objectName: string; reason: string; primaryKey: PrimaryKey };

  // ----- Types of properties

  /** `Realm.Types`. */
  namespace Types {
    type Bool = boolean;
    type String = string;
    type Int = number;
    type Float = number;
    type Double = number;
    export import Decimal128 = Realm.BSON.Decimal128;
    export import ObjectId = Realm.BSON.ObjectId;
    export import UUID = Realm.BSON.UUID;
    export import Counter = database.Counter;
    type Date = globalThis.Date;
    // biome-ignore lint/suspicious/noShadowRestrictedNames: the SDK's name
    const Date: DateConstructor;
    type Data = ArrayBuffer;
    const Data: ArrayBufferConstructor;
    export import List = database.List;
    // biome-ignore lint/suspicious/noShadowRestrictedNames: the SDK's name
    export import Set = database.RealmSet;
    export import Dictionary = database.Dictionary;
    type Mixed = unknown;
    type LinkingObjects<ObjectTypeT, _LinkingPropertyName> = Results<ObjectTypeT>;
    const LinkingObjects: typeof Results;
  }
}

export = database;
