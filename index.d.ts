import type * as bson from "bson";

import database = require("./lib/database.js");

/**
 * The App Services half of MongoDB's Realm Node.js SDK, with the backend included.
 *
 * @see https://www.mongodb.com/docs/atlas/device-sdks/sdk/node/app-services/
 * @example
 * ```ts
 * const app = new Realm.App({ id: "my-app" });
 * const user = await app.logIn(Realm.Credentials.anonymous());
 * console.log(user.id, user.customData);
 * await app.close();
 * ```
 */
declare class Realm {
  /** @deprecated Always throws: Userkeep does not include the Realm database. */
  constructor(pathOrConfiguration?: string | Realm.Configuration);

  /**
   * Closes every app that is open in this thread, and sends the default log to standard error
   * again. Resolves when the stores are closed.
   *
   * @example
   * ```ts
   * process.once("SIGTERM", () => Realm.shutdown());
   * ```
   */
  static shutdown(): Promise<void>;

  /**
   * Sets the log level of all apps, backends and servers without a `logger` option, including
   * open ones. The initial level is `info`.
   *
   * The log has four levels: `error`, `warn`, `info` and `debug`. The SDK's level `detail` is
   * equal to `info`, `all` and `trace` are equal to `debug`, and `fatal` is equal to `off`.
   *
   * @param category - every line has the category `Realm.App`, so only this category and its
   * parent `Realm` have an effect. @default "Realm"
   * @throws AssertionError if the SDK has no such level or category
   * @example
   * ```ts
   * Realm.setLogLevel("debug");
   * ```
   */
  static setLogLevel(level: Realm.App.Sync.LogLevel | Realm.NumericLogLevel, category?: Realm.LogCategory): void;

  /**
   * Sends the log of all apps, backends and servers without a `logger` option, including open
   * ones, to a callback instead of standard error.
   *
   * A function with exactly two parameters receives the level and the message. Any other
   * function receives one object.
   *
   * @throws TypeAssertionError if `callback` is not a function
   * @example
   * ```ts
   * Realm.setLogger(({ category, level, message }) => {
   *   console.log(`[${category} - ${level}] ${message}`);
   * });
   * ```
   */
  static setLogger(callback: Realm.LoggerCallback2): void;
  /** @deprecated The SDK's form with two parameters. */
  static setLogger(callback: Realm.LoggerCallback1): void;

  /**
   * Does the same as `shutdown()`, for tests. Deletes no users.
   *
   * @throws unless `flags.ALLOW_CLEAR_TEST_STATE` is true
   * @example
   * ```ts
   * Realm.flags.ALLOW_CLEAR_TEST_STATE = true;
   * await Realm.clearTestState();
   * ```
   */
  static clearTestState(): Promise<void>;

  /** @deprecated Has no effect: Userkeep does not include the Realm database. */
  static defaultPath: string;
  /** @deprecated Always rejects: Userkeep does not include the Realm database. */
  static open(pathOrConfiguration?: string | Realm.Configuration): Realm.ProgressRealmPromise;
  /** @deprecated Always throws: Userkeep does not include the Realm database. */
  static deleteFile(configuration: Realm.Configuration): void;
  /** @deprecated Always throws: Userkeep does not include the Realm database. */
  static exists(pathOrConfiguration: string | Realm.Configuration): boolean;
  /** @deprecated Always throws: Userkeep does not include the Realm database. */
  static schemaVersion(path: string, encryptionKey?: ArrayBuffer | ArrayBufferView): number;
  /** @deprecated Always throws: Userkeep does not include the Realm database. */
  static createTemplateObject<T extends Record<string, unknown>>(objectSchema: Realm.ObjectSchema): T;
  /** @deprecated Always throws: Userkeep does not include the Realm database. */
  static copyBundledRealmFiles(): void;

  // The members of an open Realm, which Userkeep never returns.
  readonly syncSession: database.SyncSession | null;
  readonly isEmpty: boolean;
  readonly path: string;
  readonly isReadOnly: boolean;
  readonly isInMemory: boolean;
  readonly schema: Realm.CanonicalObjectSchema[];
  readonly schemaVersion: number;
  readonly isInTransaction: boolean;
  readonly isInMigration: boolean;
  readonly isClosed: boolean;
  readonly subscriptions: database.SubscriptionSet;
  close(): void;
  create<T = Realm.DefaultObject>(
    type: string,
    values: Partial<T> | Partial<Realm.Unmanaged<T>>,
    mode?: Realm.UpdateMode | boolean,
  ): Realm.Object<T> & T;
  create<T extends Realm.AnyRealmObject>(
    type: database.Constructor<T>,
    values: Partial<T> | Partial<Realm.Unmanaged<T>>,
    mode?: Realm.UpdateMode | boolean,
  ): T;
  delete(subject: unknown): void;
  deleteModel(name: string): void;
  deleteAll(): void;
  objectForPrimaryKey<T = Realm.DefaultObject>(type: string, primaryKey: T[keyof T]): (Realm.Object<T> & T) | null;
  objectForPrimaryKey<T extends Realm.AnyRealmObject>(type: database.Constructor<T>, primaryKey: T[keyof T]): T | null;
  objects<T = Realm.DefaultObject>(type: string): Realm.Results<Realm.Object<T> & T>;
  objects<T extends Realm.AnyRealmObject>(type: database.Constructor<T>): Realm.Results<T>;
  addListener(eventName: Realm.RealmEventName, callback: Realm.RealmListenerCallback): void;
  removeListener(eventName: Realm.RealmEventName, callback: Realm.RealmListenerCallback): void;
  removeAllListeners(eventName?: Realm.RealmEventName): void;
  write<T>(callback: () => T): T;
  beginTransaction(): void;
  commitTransaction(): void;
  cancelTransaction(): void;
  compact(): boolean;
  writeCopyTo(configuration: Realm.Configuration): void;
}

import RealmItself = Realm;

declare namespace Realm {
  /**
   * A class that can also be called without `new`.
   *
   * @example
   * ```ts
   * const UUID: Realm.Callable<typeof Realm.BSON.UUID> = Realm.BSON.UUID;
   * const id = UUID();
   * ```
   */
  type Callable<Class extends abstract new (...args: never) => unknown> = Class &
    ((...args: ConstructorParameters<Class>) => InstanceType<Class>);

  export import Realm = RealmItself;

  /**
   * Switches of the SDK.
   *
   * @example
   * ```ts
   * Realm.flags.THROW_ON_GLOBAL_REALM = true;
   * ```
   */
  const flags: {
    /** True to throw when the deprecated global `Realm` is read. @default false */
    THROW_ON_GLOBAL_REALM: boolean;
    /** True to allow `clearTestState()`. @default false */
    ALLOW_CLEAR_TEST_STATE: boolean;
    /** @deprecated Has no effect: Userkeep does not include the Realm database. */
    ALLOW_VALUES_ARRAYS: boolean;
  };

  /**
   * The classes of the `bson` package. Each can also be called without `new`, as in the SDK.
   *
   * Methods accept values of any version of `bson` from 4 on. A plain object, for example from
   * JSON, is never a value of a class: its `_bsontype` is an ordinary field.
   *
   * @see https://www.mongodb.com/docs/manual/reference/bson-types/
   * @example
   * ```ts
   * const _id = new Realm.BSON.ObjectId("63c1b2a1f0e1d2c3b4a59687");
   * const price = Realm.BSON.Decimal128.fromString("9.99");
   * console.log(Realm.BSON.EJSON.stringify({ _id, price }));
   * ```
   */
  namespace BSON {
    const ObjectId: Callable<typeof bson.ObjectId>;
    type ObjectId = bson.ObjectId;
    const Decimal128: Callable<typeof bson.Decimal128>;
    type Decimal128 = bson.Decimal128;
    const UUID: Callable<typeof bson.UUID>;
    type UUID = bson.UUID;
    const Binary: Callable<typeof bson.Binary>;
    type Binary = bson.Binary;
    const Long: Callable<typeof bson.Long>;
    type Long = bson.Long;
    const Int32: Callable<typeof bson.Int32>;
    type Int32 = bson.Int32;
    const Double: Callable<typeof bson.Double>;
    type Double = bson.Double;
    const Timestamp: Callable<typeof bson.Timestamp>;
    type Timestamp = bson.Timestamp;
    const BSONRegExp: Callable<typeof bson.BSONRegExp>;
    type BSONRegExp = bson.BSONRegExp;
    const BSONSymbol: Callable<typeof bson.BSONSymbol>;
    type BSONSymbol = bson.BSONSymbol;
    const Code: Callable<typeof bson.Code>;
    type Code = bson.Code;
    const DBRef: Callable<typeof bson.DBRef>;
    type DBRef = bson.DBRef;
    const MinKey: Callable<typeof bson.MinKey>;
    type MinKey = bson.MinKey;
    const MaxKey: Callable<typeof bson.MaxKey>;
    type MaxKey = bson.MaxKey;
    const ObjectID: Callable<typeof bson.ObjectId>;
    type ObjectID = bson.ObjectId;
    const EJSON: typeof bson.EJSON;
    type EJSON = typeof bson.EJSON;
  }

  /**
   * The default shape of custom data: an object with any fields.
   *
   * @example
   * ```ts
   * const data: Realm.DefaultObject = user.customData;
   * console.log(data.favoriteColor);
   * ```
   */
  // biome-ignore lint/suspicious/noExplicitAny: the SDK's own default, which accepts any shape
  type DefaultObject = Record<string, any>;

  // ----- App

  /**
   * The ways to keep logged-in users between two runs of the process.
   *
   * @example
   * ```ts
   * const metadata = { mode: Realm.MetadataMode.InMemory };
   * const app = new Realm.App({ id: "my-app", metadata });
   * ```
   */
  const MetadataMode: {
    /** In a file that only its owner can read. The default. */
    readonly NoEncryption: "noEncryption";
    /** In a file that is encrypted with `encryptionKey`. */
    readonly Encryption: "encryption";
    /** @deprecated The same as `InMemory`. */
    readonly NoMetadata: "noMetadata";
    /** Not at all: a restart begins without users. */
    readonly InMemory: "inMemory";
  };
  type MetadataMode = (typeof MetadataMode)[keyof typeof MetadataMode];
  /** The types of the single values, as in an enumeration. */
  namespace MetadataMode {
    type NoEncryption = "noEncryption";
    type Encryption = "encryption";
    type NoMetadata = "noMetadata";
    type InMemory = "inMemory";
  }

  /**
   * Settings of the session file, which keeps the logged-in users between two runs.
   *
   * @example
   * ```ts
   * import { scryptSync } from "node:crypto";
   *
   * const encryptionKey = scryptSync(process.env.SESSION_SECRET ?? "", "my-app", 64);
   * const metadata: Realm.Metadata = { mode: Realm.MetadataMode.Encryption, encryptionKey };
   * ```
   */
  type Metadata = {
    /** The way to keep the users. @default "noEncryption" */
    mode: MetadataMode;
    /** 64 bytes; required with `Encryption`. */
    encryptionKey?: ArrayBuffer | ArrayBufferView;
  };

  /**
   * The levels that a `logger` receives.
   *
   * @example
   * ```ts
   * const level: Realm.LogLevel = "warn";
   * ```
   */
  type LogLevel = "debug" | "info" | "warn" | "error";

  /**
   * A log entry: the message and further fields, such as `request_id` of a request to a server.
   *
   * @example
   * ```ts
   * const logger = (level: Realm.LogLevel, text: string, record: Realm.LogRecord) => {
   *   console.log(JSON.stringify({ level, ...record }));
   * };
   * const app = new Realm.App({ id: "my-app", logger });
   * ```
   */
  type LogRecord = {
    /** The message, without the other fields. */
    message: string;
    [field: string]: unknown;
  };

  /**
   * The receiver of the log: a function, or an object with the methods of `console`.
   *
   * A function receives the level, the entry as one line of text, and the entry as an object. If
   * the property `level` is a `LogLevel`, the receiver gets no entries below that level.
   *
   * @example
   * ```ts
   * const logger: Realm.AppLogger = Object.assign(
   *   (level: Realm.LogLevel, text: string) => console.log(level, text),
   *   { level: "warn" },
   * );
   * const app = new Realm.App({ id: "my-app", logger });
   * ```
   */
  type AppLogger =
    | (((level: LogLevel, text: string, record: LogRecord) => void) & { level?: string })
    | (Partial<Record<LogLevel | "log", (text: string) => void>> & { level?: string });

  /**
   * Options of an app. They have priority over environment variables, which have priority over
   * defaults.
   *
   * @example
   * ```ts
   * const configuration: Realm.AppConfiguration = {
   *   id: "my-app",
   *   definition: "./userkeep",
   *   store: "sqlite:data/app.sqlite",
   *   maxTimeMS: 5_000,
   * };
   * const app = new Realm.App(configuration);
   * ```
   */
  type AppConfiguration = {
    /** The app's id. It names the app and its files; `App`s with one id can share a backend. */
    id: string;
    /**
     * Directory of the app definition, as exported by `appservices pull` or `realm-cli pull`.
     * @default `USERKEEP_DEFINITION`, else `./userkeep`, else a built-in definition for
     * development, which is an error if `NODE_ENV` is `production`
     */
    definition?: string;
    /**
     * Store of users and documents: `"sqlite:PATH"`, a MongoDB connection string
     * (`"mongodb://…"` or `"mongodb+srv://…"`), or `"memory:"` to keep nothing.
     *
     * In a connection string, `socketTimeoutMS` limits an operation (30 s), and
     * `serverSelectionTimeoutMS` limits the search for a server (15 s).
     *
     * @default `USERKEEP_STORE`, else the file `.userkeep/<id>.sqlite` under `baseFilePath`
     * @see https://www.mongodb.com/docs/manual/reference/connection-string/
     */
    store?: string;
    /**
     * Stores of data sources whose documents are not in `store`. The keys are the names for
     * `mongoClient()`, the values have the format of `store`.
     * @default `USERKEEP_DATA_SOURCE_<NAME>` of each data source. `<NAME>` is in upper case, with
     * `_` for characters other than letters and digits
     */
    dataSources?: Record<string, string>;
    /** Parent of the directory `.userkeep`. @default the working directory */
    baseFilePath?: string;
    /** Settings of the session file. @default `{ mode: "noEncryption" }` */
    metadata?: Metadata;
    /**
     * Receiver of the log; `null` for none.
     * @default the log of `Realm.setLogger()`, which writes to standard error
     */
    logger?: AppLogger | null;
    /**
     * Maximum number of documents that a query may return. A query with more fails with code
     * 4304. Applies to the operator too. @default 50000
     */
    maxDocuments?: number;
    /**
     * Maximum size of the result of a user's query, in bytes of BSON. A larger result fails with
     * code 4304. @default 33554432
     */
    maxAnswerBytes?: number;
    /**
     * Time limit of one operation of a user, in milliseconds. An operation that takes longer
     * fails with MongoDB's code 50 and writes nothing. On MongoDB, a write that was already sent
     * may still be applied. The operator has no time limit. @default 10000
     */
    maxTimeMS?: number;
    /**
     * Maximum number of documents that one write of a user may change. A larger write, or one of
     * more than 32 MB, fails with code 4304 and writes nothing. @default 10000
     */
    maxWriteDocuments?: number;
    /**
     * Durability of acknowledged writes on SQLite. With `"process"`, a write survives the end of
     * the process at once and a power failure after 100 ms. With `"full"`, it survives both at
     * once; each commit then waits for the disk. @default "process"
     */
    durability?: "full" | "process";
    /**
     * Retention of change events for `watch({ resumeAfter })` on SQLite. Events beyond the age
     * in seconds or the total size in bytes are removed. On MongoDB, the oplog decides.
     * @default { seconds: 86400, bytes: 268435456 }
     */
    changeRetention?: { seconds?: number; bytes?: number };
    /**
     * Retention of log entries: older ones are deleted, and the oldest if all together are larger.
     * With 0 bytes, there is no log. @default { seconds: 864000, bytes: 67108864 }
     */
    logRetention?: { seconds?: number; bytes?: number };
    /**
     * True to reload the definition when its files change, for development. Functions, rules,
     * values and providers change together; requests and calls that have begun keep the former
     * ones. A definition with an error stays out of force, and the log has the reason. The app's
     * id and the stores of data sources need a restart. @default false
     */
    watchDefinition?: boolean;
    /**
     * True to add the app's id to tokens as their audience (`aud`), for services that verify
     * tokens. Versions of Userkeep that do not know `aud` reject such tokens, so no process of
     * such a version may share the store. Tokens without `aud` are always accepted; tokens of
     * another app are rejected. @default false
     */
    tokenAudience?: boolean;
    /**
     * Threads and limits of the app's functions. @default one thread, 5 minutes and 350 MB
     */
    functions?: FunctionConfiguration;
    /**
     * Secrets of the definition by their names, for values with `from_secret`. They take
     * precedence over the file `secrets.json` of the definition, and that over environment
     * variables. No log and no error shows them.
     * @default `USERKEEP_SECRET_<NAME>` of each secret. `<NAME>` is in upper case, with `_` for
     * characters other than letters and digits
     */
    secrets?: Record<string, string>;
    /**
     * URL of a remote backend, served by `userkeep serve` or `serve()`. The client trusts the
     * certificates in `NODE_EXTRA_CA_CERTS` in addition to the system's.
     * @default `USERKEEP_BASE_URL`, unless `store` or `definition` is set; else none, for a
     * backend in this process
     */
    baseUrl?: string;
    /**
     * Time limit of a request to `baseUrl`, in milliseconds. Has no effect on a backend in this
     * process. @default 60000
     */
    timeout?: number;
    /** Has no effect. Accepted for compatibility with the SDK. */
    multiplexSessions?: boolean;
    /** Has no effect: the addon makes the requests. Accepted for compatibility with the SDK. */
    fetch?: (...args: never[]) => unknown;
    /** @deprecated Has no effect. Accepted for compatibility with the SDK. */
    app?: LocalAppConfiguration;
  };

  /**
   * Options of the threads that run the app's functions. A thread starts with the first call.
   * Apps that share a backend need the same options.
   *
   * @see https://www.mongodb.com/docs/atlas/app-services/functions/
   * @example
   * ```ts
   * const functions: Realm.FunctionConfiguration = {
   *   threads: 2,
   *   timeLimit: 10_000,
   *   memoryLimit: 128,
   *   env: ["TZ"],
   * };
   * const app = new Realm.App({ id: "my-app", functions, secrets: { mailKey: "k3y" } });
   * ```
   */
  type FunctionConfiguration = {
    /**
     * Number of threads, from 0 to 64. Up to as many more start while functions block theirs for
     * more than a second. With 0, functions run on the calling thread, for debugging: a function
     * that blocks is then not ended, and there is no memory limit.
     * @default 1, or one per core for `serve()`
     */
    threads?: number;
    /**
     * Time limit of a call in milliseconds; the wait for a thread has the same limit. A longer
     * call fails with `execution time limit exceeded` (4341, `ExecutionTimeLimitExceeded`).
     * @default 300000
     */
    timeLimit?: number;
    /**
     * Memory limit of a thread in MB, at least 32. If a thread exceeds it, the thread ends, and
     * the calls on it fail with `memory limit exceeded` (4313, `FunctionExecutionError`).
     * @default 350
     */
    memoryLimit?: number;
    /**
     * Names of the environment variables that functions find in `process.env`. The others are
     * out of their reach, unless `threads` is 0. @default []
     */
    env?: string[];
  };

  /** @deprecated Has no effect. */
  type LocalAppConfiguration = { name?: string; version?: string };

  /**
   * A listener of an app. It takes no arguments.
   *
   * @example
   * ```ts
   * const onChange: Realm.AppChangeCallback = () => console.log(app.currentUser?.id);
   * app.addListener(onChange);
   * ```
   */
  type AppChangeCallback = () => void;

  /**
   * An app: its backend and the users that are known on this device.
   *
   * `App`s with the same id, definition and store share one backend and its users.
   *
   * @typeParam FunctionsFactoryType - the app's functions, as `user.functions` has them
   * @typeParam CustomDataType - the shape of `user.customData`
   * @see https://www.mongodb.com/docs/atlas/device-sdks/sdk/node/app-services/
   * @example
   * ```ts
   * type CustomData = { favoriteColor?: string };
   * const app = new Realm.App<Realm.DefaultFunctionsFactory, CustomData>({ id: "my-app" });
   * const { customData } = await app.logIn(Realm.Credentials.anonymous());
   * console.log(customData.favoriteColor);
   * ```
   */
  class App<
    FunctionsFactoryType extends DefaultFunctionsFactory = DefaultFunctionsFactory,
    CustomDataType extends DefaultObject = DefaultObject,
  > {
    /**
     * Returns the app that is open under an id, else opens one with default options.
     *
     * @throws if a new app cannot be opened, as the constructor does
     * @example
     * ```ts
     * const app = Realm.App.get("my-app");
     * ```
     */
    static get(id: string): App;
    /** @deprecated The same as `get`. */
    static getApp(id: string): App;
    /** The same class as `Realm.Credentials`. */
    static readonly Credentials: typeof Credentials;

    /**
     * Opens an app. An id alone selects the app that is already open under this id. Opening
     * writes nothing; the first change does.
     *
     * @throws if an option, the definition or a file is invalid. The message lists all problems
     * @throws if the app is already open with other options
     * @example
     * ```ts
     * const app = new Realm.App({ id: "my-app", store: "sqlite:data/app.sqlite" });
     * ```
     */
    constructor(configOrId: AppConfiguration | string);

    /** The app's id. */
    readonly id: string;

    /** The backend's URL without a trailing slash; empty if the backend is in this process. */
    get baseUrl(): string;

    /**
     * Accepts only the current URL: the base URL of an open app cannot change. To use another
     * backend, close the app and open it with the option `baseUrl`.
     *
     * Rejects for any other URL. `null` stands for no URL, which is a backend in this process.
     *
     * @example
     * ```ts
     * await app.updateBaseUrl(app.baseUrl);
     * ```
     */
    updateBaseUrl(newUrl: string | null): Promise<void>;

    /**
     * Logs in a user and makes it the current user.
     *
     * Anonymous credentials reuse an anonymous user that is logged in on this device, unless
     * they were created with `anonymous(false)`.
     *
     * Rejects with code 4349 and `unauthorized` for an unknown user or a wrong password, with
     * 4316 (`AuthProviderNotFound`) if the provider is not enabled or not supported, and with
     * 4345 (`UserDisabled`) for a disabled user. Over HTTP, failed log-ins are rate limited; the
     * error then has `status` 429 and `retryAfter`.
     *
     * @see https://www.mongodb.com/docs/atlas/device-sdks/sdk/node/users/authenticate-users/
     * @example
     * ```ts
     * const credentials = Realm.Credentials.emailPassword("ada@example.com", "passw0rd");
     * const user = await app.logIn(credentials);
     * ```
     */
    logIn(credentials: Credentials): Promise<User<FunctionsFactoryType, CustomDataType>>;

    /** Registers users with an e-mail address and a password. */
    readonly emailPasswordAuth: Auth.EmailPasswordAuth;

    /**
     * The user that logged in last or to which `switchUser()` switched. After its log-out, the
     * next user that is still logged in; `null` if there is none.
     */
    readonly currentUser: User<FunctionsFactoryType, CustomDataType> | null;

    /** All users that are known on this device, logged in or out, by their ids. */
    readonly allUsers: Readonly<Record<string, User<FunctionsFactoryType, CustomDataType>>>;

    /**
     * Makes a logged-in user the current user.
     *
     * @throws `User is no longer valid or is logged out`
     * @throws `User does not exist` if it is a user of another app
     * @see https://www.mongodb.com/docs/atlas/device-sdks/sdk/node/users/multi-user-applications/
     * @example
     * ```ts
     * for (const other of Object.values(app.allUsers)) {
     *   if (other.isLoggedIn) {
     *     app.switchUser(other);
     *   }
     * }
     * ```
     */
    switchUser(user: AnyUser): void;

    /**
     * Logs out a user, if it is logged in, and forgets it on this device. The device forgets the
     * user at once, and the backend ends the session after that.
     *
     * Rejects with code 4100 and `User has already been removed`.
     *
     * @example
     * ```ts
     * await app.removeUser(user);
     * console.log(user.state); // "Removed"
     * ```
     */
    removeUser(user: AnyUser): Promise<void>;

    /**
     * Deletes a user on the backend and forgets it on this device. The document with the user's
     * custom data stays.
     *
     * Rejects with code 4101 and `User must be logged in to be deleted.`
     *
     * @see https://www.mongodb.com/docs/atlas/device-sdks/sdk/node/manage-users/
     * @example
     * ```ts
     * await app.deleteUser(user);
     * ```
     */
    deleteUser(user: AnyUser): Promise<void>;

    /**
     * Adds a listener that runs after a log-in, a log-out, a switch of users and a deletion.
     *
     * @throws if the callback is already a listener
     * @example
     * ```ts
     * app.addListener(() => console.log(`current user: ${app.currentUser?.id}`));
     * ```
     */
    addListener(callback: AppChangeCallback): void;
    /**
     * Removes a listener. Does nothing if the callback is not a listener.
     *
     * @example
     * ```ts
     * const onFirstChange = () => app.removeListener(onFirstChange);
     * app.addListener(onFirstChange);
     * ```
     */
    removeListener(callback: AppChangeCallback): void;
    /**
     * Removes all listeners of this object.
     *
     * @example
     * ```ts
     * app.removeAllListeners();
     * ```
     */
    removeAllListeners(): void;

    /**
     * Closes the app. The last `App` that shares a backend also closes its store.
     *
     * @example
     * ```ts
     * await app.close();
     * ```
     */
    close(): Promise<void>;
  }

  /** Other names of the SDK for credentials and for Device Sync. */
  namespace App {
    type Credentials = RealmItself.Credentials;
    export import Sync = database.Sync;
  }

  // ----- Credentials

  /**
   * The authentication providers by type. `AnonUser` and `LocalUserPass` are supported.
   *
   * @see https://www.mongodb.com/docs/atlas/device-sdks/sdk/node/users/authenticate-users/
   * @example
   * ```ts
   * const isAnonymous = user.identities.every(
   *   ({ providerType }) => providerType === Realm.ProviderType.AnonUser,
   * );
   * ```
   */
  const ProviderType: {
    readonly AnonUser: "anon-user";
    readonly ApiKey: "api-key";
    readonly LocalUserPass: "local-userpass";
    readonly CustomFunction: "custom-function";
    readonly CustomToken: "custom-token";
    readonly OAuth2Google: "oauth2-google";
    readonly OAuth2Facebook: "oauth2-facebook";
    readonly OAuth2Apple: "oauth2-apple";
  };
  type ProviderType = (typeof ProviderType)[keyof typeof ProviderType];
  /** The types of the single values, as in an enumeration. */
  namespace ProviderType {
    type AnonUser = "anon-user";
    type ApiKey = "api-key";
    type LocalUserPass = "local-userpass";
    type CustomFunction = "custom-function";
    type CustomToken = "custom-token";
    type OAuth2Google = "oauth2-google";
    type OAuth2Facebook = "oauth2-facebook";
    type OAuth2Apple = "oauth2-apple";
  }

  /**
   * Credentials for a log-in. Create them with one of the static methods.
   *
   * @see https://www.mongodb.com/docs/atlas/device-sdks/sdk/node/users/authenticate-users/
   * @example
   * ```ts
   * const credentials = Realm.Credentials.emailPassword("ada@example.com", "passw0rd");
   * const user = await app.logIn(credentials);
   * ```
   */
  class Credentials {
    private constructor();
    /**
     * Creates credentials of an anonymous user.
     *
     * @param reuse - false to create another user, even if an anonymous user is logged in on this
     * device. @default true
     * @example
     * ```ts
     * const guest = await app.logIn(Realm.Credentials.anonymous(false));
     * ```
     */
    static anonymous(reuse?: boolean): Credentials;
    /**
     * Creates credentials of a user that was registered with `emailPasswordAuth.registerUser()`.
     *
     * @throws TypeAssertionError if the address or the password is not a string
     * @example
     * ```ts
     * const account = { email: "ada@example.com", password: "passw0rd" };
     * const user = await app.logIn(Realm.Credentials.emailPassword(account));
     * ```
     */
    static emailPassword(credentials: { email: string; password: string }): Credentials;
    /** Takes the address and the password as two arguments. */
    static emailPassword(email: string, password: string): Credentials;
    /**
     * Creates credentials with a user's API key. The provider is not supported yet: a log-in
     * rejects with code 4316.
     *
     * @example
     * ```ts
     * const credentials = Realm.Credentials.apiKey(process.env.API_KEY ?? "");
     * ```
     */
    static apiKey(key: string): Credentials;
    /**
     * Creates credentials with an id token of Apple. The provider is not supported yet: a log-in
     * rejects with code 4316.
     *
     * @example
     * ```ts
     * const credentials = Realm.Credentials.apple(process.env.APPLE_ID_TOKEN ?? "");
     * ```
     */
    static apple(token: string): Credentials;
    /**
     * Creates credentials with an access token of Facebook. The provider is not supported yet: a
     * log-in rejects with code 4316.
     *
     * @example
     * ```ts
     * const credentials = Realm.Credentials.facebook(process.env.FACEBOOK_TOKEN ?? "");
     * ```
     */
    static facebook(token: string): Credentials;
    /**
     * Creates credentials with an authorization code or an id token of Google. The provider is
     * not supported yet: a log-in rejects with code 4316.
     *
     * @throws if both or neither of `authCode` and `idToken` are given
     * @example
     * ```ts
     * const credentials = Realm.Credentials.google({ idToken: process.env.GOOGLE_ID_TOKEN ?? "" });
     * ```
     */
    static google(tokenObject: { authCode: string } | { idToken: string }): Credentials;
    /**
     * Creates credentials with a JSON web token of another issuer. The provider is not supported
     * yet: a log-in rejects with code 4316.
     *
     * @example
     * ```ts
     * const credentials = Realm.Credentials.jwt(process.env.JWT ?? "");
     * ```
     */
    static jwt(token: string): Credentials;
    /**
     * Creates credentials for the app's authentication function. A log-in rejects with code 4346
     * and the message of the function if the function throws.
     *
     * @param payload - the argument of the function, without a field `options`
     * @see https://www.mongodb.com/docs/atlas/app-services/authentication/custom-function/
     * @example
     * ```ts
     * const credentials = Realm.Credentials.function({ username: "ada" });
     * ```
     */
    static function(payload: object): Credentials;
  }

  // ----- User

  /**
   * The states of a user on this device. Only a user in the state `LoggedIn` can make requests.
   *
   * @example
   * ```ts
   * if (user.state === Realm.UserState.LoggedOut) {
   *   console.log(`${user.id} must log in again`);
   * }
   * ```
   */
  const UserState: {
    /** @deprecated Never returned. */
    readonly Active: "active";
    /** The user has a session. */
    readonly LoggedIn: "LoggedIn";
    /** The user is known on this device, but has no session. */
    readonly LoggedOut: "LoggedOut";
    /** The user is no longer known on this device. */
    readonly Removed: "Removed";
  };
  type UserState = (typeof UserState)[keyof typeof UserState];
  /** The types of the single values, as in an enumeration. */
  namespace UserState {
    type Active = "active";
    type LoggedIn = "LoggedIn";
    type LoggedOut = "LoggedOut";
    type Removed = "Removed";
  }

  /**
   * An identity of a user with one authentication provider.
   *
   * @example
   * ```ts
   * const identity: Realm.UserIdentity = user.identities[0];
   * console.log(identity.providerType); // "local-userpass"
   * ```
   */
  interface UserIdentity {
    /** The id of the identity, which is not the user's id. */
    id: string;
    /** The authentication provider. */
    providerType: ProviderType;
  }

  /**
   * The profile of a user from its authentication providers. An e-mail/password user has `email`;
   * an anonymous user has an empty profile. The fields keep the provider's own names.
   *
   * @see https://www.mongodb.com/docs/atlas/device-sdks/sdk/node/manage-users/
   * @example
   * ```ts
   * const profile: Realm.DefaultUserProfileData = user.profile;
   * console.log(profile.email);
   * ```
   */
  type DefaultUserProfileData = {
    name?: string;
    email?: string;
    pictureUrl?: string;
    firstName?: string;
    lastName?: string;
    gender?: string;
    birthday?: string;
    minAge?: string;
    maxAge?: string;
  } & { [key: string]: unknown };

  /**
   * A listener of a user. It takes no arguments.
   *
   * @example
   * ```ts
   * const onChange: Realm.UserChangeCallback = () => console.log(user.state);
   * user.addListener(onChange);
   * ```
   */
  type UserChangeCallback = () => void;

  /**
   * A user of any app, with any functions, custom data and profile.
   *
   * @example
   * ```ts
   * const greet = (anyUser: Realm.AnyUser) => console.log(`Hello, ${anyUser.profile.email}`);
   * greet(user);
   * ```
   */
  // biome-ignore lint/suspicious/noExplicitAny: a user of any app
  type AnyUser = User<any, any, any>;

  /**
   * A user on this device. Several objects can stand for one user: compare their ids.
   *
   * @see https://www.mongodb.com/docs/atlas/device-sdks/sdk/node/manage-users/
   * @example
   * ```ts
   * const user = await app.logIn(Realm.Credentials.anonymous());
   * console.log(user.id, user.isLoggedIn);
   * ```
   */
  class User<
    UserFunctionsFactoryType extends DefaultFunctionsFactory = DefaultFunctionsFactory,
    UserCustomDataType extends DefaultObject = DefaultObject,
    UserProfileDataType extends DefaultUserProfileData = DefaultUserProfileData,
  > {
    private constructor();
    /** The app that returned this object. */
    readonly app: App;
    /** The user's id: 24 hexadecimal digits. */
    readonly id: string;
    /** @deprecated The provider of the first identity. */
    readonly providerType: ProviderType;
    /** The id of this device on the backend. */
    readonly deviceId: string | null;
    /** The state of the user on this device. */
    readonly state: UserState;
    /** True if the state is `LoggedIn`. */
    readonly isLoggedIn: boolean;
    /** The identities of the user, one for each authentication provider. */
    readonly identities: UserIdentity[];
    /** The access token (JWT), which is valid for 30 minutes; empty after a log-out. */
    readonly accessToken: string | null;
    /** The refresh token (JWT); empty after a log-out. */
    readonly refreshToken: string | null;
    /**
     * The user's custom data at the time when the access token was issued; `{}` without a
     * document. It changes with a log-in, with `refreshCustomData()` and with a refresh of the
     * token, but not with the document.
     *
     * Each read returns a new object; changes to it have no effect. The data survives a restart.
     * After a kill of the process, it may be up to 1 s older than before.
     *
     * @see https://www.mongodb.com/docs/atlas/device-sdks/sdk/node/users/access-custom-user-data/
     * @example
     * ```ts
     * const { favoriteColor } = user.customData;
     * ```
     */
    readonly customData: UserCustomDataType;
    /** The profile of the user from its authentication providers. */
    readonly profile: UserProfileDataType;
    /**
     * The app's functions as methods. As a value, this is an object without properties.
     *
     * Functions with certain names are not available as methods. Call them with
     * `callFunction()`:
     * - names of `Object.prototype`, such as `toString` and `hasOwnProperty`
     * - names that libraries read from any object: `then`, `toJSON`, `toBSON`, `inspect`,
     *   `asymmetricMatch`, `nodeType`, `tagName`, `hasAttribute`
     * - names with characters other than letters, digits, `_`, `-` and `/`
     *
     * Each call resolves and rejects as one of `callFunction()` does.
     *
     * @see https://www.mongodb.com/docs/atlas/app-services/functions/
     * @example
     * ```ts
     * const total = await user.functions.sum(1, 2);
     * ```
     */
    readonly functions: UserFunctionsFactoryType;
    /** The API keys of the user. */
    readonly apiKeys: Auth.ApiKeyAuth;

    /**
     * Logs out the user, on this device at once and then on the backend. Resolves if the user is
     * already logged out. An anonymous user is removed and cannot log in again.
     *
     * Rejects if the backend cannot be reached; the user is then logged out on this device.
     *
     * @example
     * ```ts
     * await user.logOut();
     * console.log(user.isLoggedIn); // false
     * ```
     */
    logOut(): Promise<void>;
    /**
     * Links another identity to the user. Not supported yet.
     *
     * Rejects with code 4347 and `linking identities is not supported yet`, with code 4101 if the
     * user is logged out, and with code 4105 for anonymous credentials.
     *
     * @see https://www.mongodb.com/docs/atlas/device-sdks/sdk/node/users/link-identities/
     * @example
     * ```ts
     * await user.linkCredentials(Realm.Credentials.emailPassword("ada@example.com", "passw0rd"));
     * ```
     */
    linkCredentials(credentials: Credentials): Promise<void>;
    /**
     * Calls one of the app's functions and resolves to its result. Arguments and results keep
     * their BSON types; `undefined` arrives as `null`.
     *
     * Rejects with the function's message and code 4313 (`FunctionExecutionError`) if it throws or
     * its condition is not met, with 4325 (`FunctionNotFound`) if there is no such function or it
     * is private, with 4341 (`ExecutionTimeLimitExceeded`) after the time limit, and with code
     * 4101 if the user is logged out.
     *
     * @see https://www.mongodb.com/docs/atlas/app-services/functions/
     * @example
     * ```ts
     * const total = await user.callFunction("sum", 1, 2);
     * ```
     */
    callFunction(name: string, ...args: unknown[]): Promise<unknown>;
    /**
     * Refreshes the access token and resolves to the current custom data.
     *
     * Rejects with code 4101 and `The user is not logged in`, and with code 4301 if the session
     * has ended.
     *
     * @see https://www.mongodb.com/docs/atlas/device-sdks/sdk/node/users/access-custom-user-data/
     * @example
     * ```ts
     * const { favoriteColor } = await user.refreshCustomData();
     * ```
     */
    refreshCustomData(): Promise<UserCustomDataType>;
    /** @deprecated Userkeep has no push notifications. */
    push(serviceName: string): PushClient;
    /**
     * Returns a data source of the app, without a request. If the definition does not name the
     * data source, the methods of its collections reject with code 4313.
     *
     * @param serviceName - usually `"mongodb-atlas"`
     * @throws if the name is empty
     * @see https://www.mongodb.com/docs/atlas/device-sdks/sdk/node/app-services/
     * @example
     * ```ts
     * const plants = user.mongoClient("mongodb-atlas").db("example").collection<Plant>("plants");
     * ```
     */
    mongoClient(serviceName: string): MongoDBService;
    /**
     * Adds a listener that runs when the user's tokens, custom data or state change.
     *
     * @throws if the callback is already a listener of this object
     * @example
     * ```ts
     * user.addListener(() => console.log(user.state, user.customData));
     * ```
     */
    addListener(callback: UserChangeCallback): void;
    /**
     * Removes a listener of this object. Does nothing if the callback is not a listener.
     *
     * @example
     * ```ts
     * const onFirstChange = () => user.removeListener(onFirstChange);
     * user.addListener(onFirstChange);
     * ```
     */
    removeListener(callback: UserChangeCallback): void;
    /**
     * Removes all listeners of this object.
     *
     * @example
     * ```ts
     * user.removeAllListeners();
     * ```
     */
    removeAllListeners(): void;
  }

  // ----- Functions, authentication, push

  /**
   * A function of the app, as `user.functions` has it.
   *
   * @typeParam R - the type of its result
   * @typeParam A - the types of its arguments
   * @example
   * ```ts
   * type Functions = {
   *   sum: Realm.AppServicesFunction<number, [number, number]>;
   * };
   * const app = new Realm.App<Functions>({ id: "my-app" });
   * ```
   */
  type AppServicesFunction<R, A extends unknown[]> = (...args: A) => Promise<R>;
  /** @deprecated The same as `AppServicesFunction`. */
  type RealmFunction<R, A extends unknown[]> = AppServicesFunction<R, A>;
  /**
   * The default type of `user.functions`: any function name, with any arguments.
   *
   * @example
   * ```ts
   * const functions: Realm.DefaultFunctionsFactory = user.functions;
   * const total = await functions.sum(1, 2);
   * ```
   */
  // biome-ignore lint/suspicious/noExplicitAny: the app defines the arguments
  type DefaultFunctionsFactory = { [name: string]: AppServicesFunction<unknown, any[]> };

  /**
   * An API key without its value.
   *
   * @example
   * ```ts
   * const keys: Realm.ApiKey[] = await user.apiKeys.fetchAll();
   * console.log(keys.filter(({ disabled }) => !disabled).map(({ name }) => name));
   * ```
   */
  type ApiKey = {
    /** The key's id: 24 hexadecimal digits. */
    _id: string;
    /** The name of the key, unique for its user. */
    name: string;
    /** True if a log-in with the key is rejected. */
    disabled: boolean;
  };
  /**
   * A new API key with its value, which only `create()` returns.
   *
   * @example
   * ```ts
   * const { key }: Realm.SecretApiKey = await user.apiKeys.create("ci");
   * ```
   */
  type SecretApiKey = ApiKey & {
    /** The value for `Credentials.apiKey()`. */
    key: string;
  };

  /** The clients of the authentication providers. */
  namespace Auth {
    type ApiKey = RealmItself.ApiKey;

    /**
     * The e-mail/password provider, as `app.emailPasswordAuth`.
     *
     * Users are confirmed automatically. Confirmation by e-mail and password resets are not
     * supported yet. Every method rejects with code 4316 if the provider is not enabled.
     *
     * @see https://www.mongodb.com/docs/atlas/device-sdks/sdk/node/users/manage-email-password-users/
     * @example
     * ```ts
     * const account = { email: "ada@example.com", password: "passw0rd" };
     * await app.emailPasswordAuth.registerUser(account);
     * const user = await app.logIn(Realm.Credentials.emailPassword(account));
     * ```
     */
    class EmailPasswordAuth {
      private constructor();
      /**
       * Registers a user, who can then log in, unless the confirmation function leaves the user
       * pending. An address has 1 to 128 characters and is case-sensitive; a password has 6 to 128
       * characters.
       *
       * Rejects with code 4348 and `name already in use` if the address is registered, with code
       * 4347 if the address or the password is invalid or the user is not confirmed, and with code
       * 4313 if the user creation function refuses the user.
       *
       * @example
       * ```ts
       * const account = { email: "ada@example.com", password: "passw0rd" };
       * await app.emailPasswordAuth.registerUser(account);
       * ```
       */
      registerUser(details: { email: string; password: string }): Promise<void>;
      /**
       * Confirms a user with the token that the confirmation function got. A token is valid for 30
       * minutes, once.
       *
       * Rejects with code 4353 if the token is unknown, used or expired, and with code 4347 and
       * `invalid token data` if it is not a token.
       *
       * @example
       * ```ts
       * const { searchParams } = new URL("https://example.com/confirm?token=a&tokenId=b");
       * const token = searchParams.get("token") ?? "";
       * const tokenId = searchParams.get("tokenId") ?? "";
       * await app.emailPasswordAuth.confirmUser({ token, tokenId });
       * ```
       */
      confirmUser(details: { token: string; tokenId: string }): Promise<void>;
      /**
       * Sends the confirmation e-mail again. Not supported yet: users are confirmed at once or by
       * a function.
       *
       * Rejects with code 4343 and `already confirmed`, with code 4344 for an unknown address, and
       * with code 4347 and `please use confirm via function` for a user who is not confirmed.
       *
       * @example
       * ```ts
       * await app.emailPasswordAuth.resendConfirmationEmail({ email: "ada@example.com" });
       * ```
       */
      resendConfirmationEmail(details: { email: string }): Promise<void>;
      /**
       * Runs the confirmation function again, for a user who is not confirmed.
       *
       * Rejects with code 4344 for an unknown address, with code 4343 and `already confirmed`, and
       * with code 4347 if the function does not confirm the user or the app has no such function.
       *
       * @example
       * ```ts
       * await app.emailPasswordAuth.retryCustomConfirmation({ email: "ada@example.com" });
       * ```
       */
      retryCustomConfirmation(details: { email: string }): Promise<void>;
      /**
       * Sets a new password with the token that the reset function got, and ends all sessions of
       * the user. A token is valid for 30 minutes, once.
       *
       * Rejects with code 4353 if the token is unknown, used or expired, and with code 4347 if it
       * is not a token or the password is invalid.
       *
       * @example
       * ```ts
       * const { searchParams } = new URL("https://example.com/reset?token=a&tokenId=b");
       * const token = searchParams.get("token") ?? "";
       * const tokenId = searchParams.get("tokenId") ?? "";
       * await app.emailPasswordAuth.resetPassword({ password: "n3w passw0rd", token, tokenId });
       * ```
       */
      resetPassword(details: { password: string; token: string; tokenId: string }): Promise<void>;
      /**
       * Sends an e-mail with a token for `resetPassword()`. Not supported yet.
       *
       * Rejects with code 4347 and `please use reset password via function` or `error processing
       * request`, and with code 4344 for an unknown address.
       *
       * @example
       * ```ts
       * await app.emailPasswordAuth.sendResetPasswordEmail({ email: "ada@example.com" });
       * ```
       */
      sendResetPasswordEmail(details: { email: string }): Promise<void>;
      /**
       * Calls the app's function for password resets. If the function answers `success`, the
       * password is set and all sessions of the user end.
       *
       * Rejects with code 4344 for an unknown address, with code 4347 if the password is invalid,
       * and with code 4351 if the function does not reset the password or the app has none.
       *
       * @param args - further arguments of the function
       * @see https://www.mongodb.com/docs/atlas/app-services/authentication/email-password/
       * @example
       * ```ts
       * const details = { email: "ada@example.com", password: "n3w passw0rd" };
       * await app.emailPasswordAuth.callResetPasswordFunction(details, "a security answer");
       * ```
       */
      callResetPasswordFunction(details: { email: string; password: string }, ...args: unknown[]): Promise<void>;
    }

    /**
     * The API keys of a user, as `user.apiKeys`. Not supported yet: every method rejects with
     * code 4316 (`AuthProviderNotFound`).
     *
     * @see https://www.mongodb.com/docs/atlas/device-sdks/sdk/node/users/manage-user-api-keys/
     * @example
     * ```ts
     * const { key } = await user.apiKeys.create("ci");
     * const sameUser = await app.logIn(Realm.Credentials.apiKey(key));
     * ```
     */
    class ApiKeyAuth {
      private constructor();
      /**
       * Creates a key. Only this call returns its value.
       *
       * @example
       * ```ts
       * const { _id, key } = await user.apiKeys.create("ci");
       * ```
       */
      create(keyName: string): Promise<SecretApiKey>;
      /**
       * Returns one key by its id, without its value.
       *
       * Rejects if `keyId` is not 24 hexadecimal digits.
       *
       * @example
       * ```ts
       * const { name } = await user.apiKeys.fetch("5eb5931548d79bc784adf46e");
       * ```
       */
      fetch(keyId: string): Promise<ApiKey>;
      /**
       * Returns all keys of the user, without their values.
       *
       * @example
       * ```ts
       * const names = (await user.apiKeys.fetchAll()).map(({ name }) => name);
       * ```
       */
      fetchAll(): Promise<ApiKey[]>;
      /**
       * Deletes a key.
       *
       * Rejects if `keyId` is not 24 hexadecimal digits.
       *
       * @example
       * ```ts
       * for (const { _id } of await user.apiKeys.fetchAll()) {
       *   await user.apiKeys.delete(_id);
       * }
       * ```
       */
      delete(keyId: string): Promise<void>;
      /**
       * Enables a key after `disable()`.
       *
       * Rejects if `keyId` is not 24 hexadecimal digits.
       *
       * @example
       * ```ts
       * await user.apiKeys.enable("5eb5931548d79bc784adf46e");
       * ```
       */
      enable(keyId: string): Promise<void>;
      /**
       * Disables a key. A log-in with a disabled key is rejected.
       *
       * Rejects if `keyId` is not 24 hexadecimal digits.
       *
       * @example
       * ```ts
       * await user.apiKeys.disable("5eb5931548d79bc784adf46e");
       * ```
       */
      disable(keyId: string): Promise<void>;
    }
  }

  export import EmailPasswordAuth = Auth.EmailPasswordAuth;
  export import ApiKeyAuth = Auth.ApiKeyAuth;

  /** @deprecated The registration of a user for push notifications. Every method rejects. */
  class PushClient {
    private constructor();
    /** @deprecated Rejects with code 4318 (`ServiceNotFound`). */
    register(token: string): Promise<void>;
    /** @deprecated Rejects with code 4318 (`ServiceNotFound`). */
    deregister(): Promise<void>;
  }

  // ----- MongoDB

  /**
   * A data source of the app, as `user.mongoClient()` returns it.
   *
   * @example
   * ```ts
   * const service: Realm.MongoDBService = user.mongoClient("mongodb-atlas");
   * const plants = service.db("example").collection<Plant>("plants");
   * ```
   */
  type MongoDBService = {
    /** The name of the data source. */
    serviceName: string;
    /** Returns a database, without a request. */
    db(databaseName: string): MongoDBDatabase;
  };

  /**
   * A database of a data source.
   *
   * @example
   * ```ts
   * const database: Realm.MongoDBDatabase = user.mongoClient("mongodb-atlas").db("example");
   * console.log(await database.collection("plants").count());
   * ```
   */
  type MongoDBDatabase = {
    /** The name of the database. */
    name: string;
    /** Returns a collection, without a request. `T` is the shape of its documents. */
    // biome-ignore lint/suspicious/noExplicitAny: the SDK's own default: any document
    collection<T extends MongoDB.Document = any>(collectionName: string): MongoDB.MongoDBCollection<T>;
  };

  /**
   * A data source of the app: the SDK's name for `MongoDBService`.
   *
   * @example
   * ```ts
   * const mongodb: Realm.MongoDB = user.mongoClient("mongodb-atlas");
   * console.log(mongodb.serviceName); // "mongodb-atlas"
   * ```
   */
  type MongoDB = MongoDBService;

  /** The types of collections: filters, updates, options, results and change events. */
  namespace MongoDB {
    /**
     * A stored document, which has an `_id`.
     *
     * @example
     * ```ts
     * type Plant = Realm.MongoDB.Document<Realm.BSON.ObjectId> & { name: string };
     * ```
     */
    type Document<IdType = unknown> = { _id: IdType };
    /**
     * A document to insert. If it has no `_id`, the backend creates an `ObjectId`.
     *
     * @example
     * ```ts
     * const lily: Realm.MongoDB.NewDocument<Plant> = { name: "lily", type: "perennial" };
     * const { insertedId } = await plants.insertOne(lily);
     * ```
     */
    type NewDocument<T extends Document> = Omit<T, "_id"> & Partial<Pick<T, "_id">>;

    /**
     * A query filter of MongoDB.
     *
     * @see https://www.mongodb.com/docs/manual/reference/operator/query/
     * @example
     * ```ts
     * const filter: Realm.MongoDB.Filter = { type: "perennial", height: { $gte: 60 } };
     * const tall = await plants.find(filter);
     * ```
     */
    type Filter = Record<string, unknown>;
    /**
     * Update operators, a replacement document, or a pipeline of `$set`, `$unset`, `$project` and
     * `$replaceWith`.
     *
     * @see https://www.mongodb.com/docs/manual/reference/operator/update/
     * @example
     * ```ts
     * const update: Realm.MongoDB.Update = { $inc: { height: 5 }, $set: { type: "annual" } };
     * await plants.updateOne({ name: "basil" }, update);
     * ```
     */
    type Update = Record<string, unknown> | AggregatePipelineStage[];
    /**
     * A stage of an aggregation pipeline.
     *
     * @see https://www.mongodb.com/docs/manual/reference/operator/aggregation-pipeline/
     * @example
     * ```ts
     * const match: Realm.MongoDB.AggregatePipelineStage = { $match: { type: "perennial" } };
     * const matching = await plants.aggregate([match]);
     * ```
     */
    type AggregatePipelineStage = Record<string, unknown>;

    /**
     * Options of `findOne()` and `findOneAndDelete()`.
     *
     * @example
     * ```ts
     * const options: Realm.MongoDB.FindOneOptions = { sort: { height: -1 } };
     * const tallest = await plants.findOne({}, options);
     * ```
     */
    type FindOneOptions = {
      /** The fields of the result: 1 to include a field, 0 to exclude it. */
      readonly projection?: Record<string, unknown>;
      /** The order of the matching documents: 1 is ascending, -1 is descending. */
      readonly sort?: Record<string, unknown>;
    };
    /**
     * Options of `find()`.
     *
     * @example
     * ```ts
     * const options: Realm.MongoDB.FindOptions = { sort: { name: 1 }, limit: 10 };
     * const firstTen = await plants.find({}, options);
     * ```
     */
    type FindOptions = FindOneOptions & {
      /** The maximum number of documents in the result. */
      readonly limit?: number;
    };
    /**
     * Options of `findOneAndUpdate()` and `findOneAndReplace()`.
     *
     * @example
     * ```ts
     * const options: Realm.MongoDB.FindOneAndModifyOptions = { returnNewDocument: true };
     * const taller = await plants.findOneAndUpdate({ name: "lily" }, { $inc: { height: 5 } }, options);
     * ```
     */
    type FindOneAndModifyOptions = FindOneOptions & {
      /** True to insert a document if none matches. @default false */
      readonly upsert?: boolean;
      /** True to return the changed document instead of the original. @default false */
      readonly returnNewDocument?: boolean;
    };
    /**
     * Options of `count()`.
     *
     * @example
     * ```ts
     * const options: Realm.MongoDB.CountOptions = { limit: 1 };
     * const isEmpty = (await plants.count({}, options)) === 0;
     * ```
     */
    type CountOptions = {
      /** The number at which counting stops. */
      readonly limit?: number;
    };
    /**
     * Options of `updateOne()` and `updateMany()`.
     *
     * @example
     * ```ts
     * const options: Realm.MongoDB.UpdateOptions = { upsert: true };
     * await plants.updateOne({ name: "sage" }, { $set: { type: "perennial" } }, options);
     * ```
     */
    type UpdateOptions = {
      /** True to insert a document if none matches. @default false */
      readonly upsert?: boolean;
      /** The filters for the placeholders `$[name]` in the update. */
      readonly arrayFilters?: Filter[];
    };

    /**
     * The result of `insertOne()`.
     *
     * @example
     * ```ts
     * const result: Realm.MongoDB.InsertOneResult<Realm.BSON.ObjectId> = await plants.insertOne({
     *   name: "lily",
     *   type: "perennial",
     * });
     * console.log(result.insertedId.toHexString());
     * ```
     */
    type InsertOneResult<IdType> = {
      /** The `_id` of the document. */
      readonly insertedId: IdType;
    };
    /**
     * The result of `insertMany()`.
     *
     * @example
     * ```ts
     * const result: Realm.MongoDB.InsertManyResult<Realm.BSON.ObjectId> = await plants.insertMany([
     *   { name: "lily", type: "perennial" },
     *   { name: "basil", type: "annual" },
     * ]);
     * console.log(result.insertedIds.length); // 2
     * ```
     */
    type InsertManyResult<IdType> = {
      /** The `_id`s of the documents, in their order. */
      readonly insertedIds: IdType[];
    };
    /**
     * The result of `deleteOne()` and `deleteMany()`.
     *
     * @example
     * ```ts
     * const result: Realm.MongoDB.DeleteResult = await plants.deleteMany({ type: "annual" });
     * console.log(`deleted ${result.deletedCount} plants`);
     * ```
     */
    type DeleteResult = {
      /** The number of deleted documents. */
      readonly deletedCount: number;
    };
    /**
     * The result of `updateOne()` and `updateMany()`.
     *
     * @example
     * ```ts
     * const update = { $set: { type: "perennial" } };
     * const result: Realm.MongoDB.UpdateResult<Realm.BSON.ObjectId> = await plants.updateOne(
     *   { name: "sage" },
     *   update,
     *   { upsert: true },
     * );
     * console.log(result.matchedCount, result.upsertedId);
     * ```
     */
    type UpdateResult<IdType> = {
      /** The number of documents that match the filter. */
      readonly matchedCount: number;
      /** The number of documents that the update changed. */
      readonly modifiedCount: number;
      /** The `_id` of the inserted document; missing without an insertion. */
      readonly upsertedId?: IdType;
    };

    /**
     * The types of change events. A stream has the types `insert`, `update`, `replace` and
     * `delete`.
     *
     * @see https://www.mongodb.com/docs/manual/reference/change-events/
     * @example
     * ```ts
     * const operationType: Realm.MongoDB.OperationType = "insert";
     * const inserts = plants.watch({ filter: { operationType } });
     * ```
     */
    type OperationType = "insert" | "delete" | "replace" | "update" | "drop" | "rename" | "dropDatabase" | "invalidate";
    /**
     * The namespace of a change event.
     *
     * @example
     * ```ts
     * const namespace: Realm.MongoDB.DocumentNamespace = { db: "example", coll: "plants" };
     * ```
     */
    type DocumentNamespace = {
      /** The name of the database. */
      db: string;
      /** The name of the collection. */
      coll: string;
    };
    /**
     * The changes of an update event. It is empty for a user on MongoDB if the collection has no
     * pre-images (`changeStreamPreAndPostImages`).
     *
     * @see https://www.mongodb.com/docs/manual/reference/change-events/update/
     * @example
     * ```ts
     * for await (const change of plants.watch()) {
     *   if (change.operationType === "update") {
     *     const { updatedFields }: Realm.MongoDB.UpdateDescription = change.updateDescription;
     *     console.log(updatedFields);
     *   }
     * }
     * ```
     */
    type UpdateDescription = {
      /** The new values of changed fields, by their dotted paths. */
      updatedFields?: Record<string, unknown>;
      /** The dotted paths of removed fields. */
      removedFields?: string[];
    };
    /**
     * The resume token of a change event, which is its `_id`. It is opaque.
     *
     * @example
     * ```ts
     * let last: Realm.MongoDB.ChangeEventId;
     * for await (const change of plants.watch({ resumeAfter: last })) {
     *   last = change._id;
     * }
     * ```
     */
    type ChangeEventId = unknown;
    /**
     * The key of the changed document.
     *
     * @example
     * ```ts
     * for await (const change of plants.watch()) {
     *   if (change.operationType === "delete") {
     *     const { _id }: Realm.MongoDB.DocumentKey<Realm.BSON.ObjectId> = change.documentKey;
     *     console.log(`deleted ${_id.toHexString()}`);
     *   }
     * }
     * ```
     */
    type DocumentKey<IdType> = { _id: IdType } & Record<string, unknown>;
    /**
     * The fields of every change event.
     *
     * @example
     * ```ts
     * type Event = Realm.MongoDB.BaseChangeEvent<Realm.MongoDB.OperationType>;
     * const log = ({ operationType, clusterTime }: Event) => {
     *   console.log(operationType, clusterTime.getHighBits());
     * };
     * for await (const change of plants.watch()) {
     *   log(change);
     * }
     * ```
     */
    type BaseChangeEvent<T extends OperationType> = {
      /** The resume token, for `watch({ resumeAfter })`. */
      _id: ChangeEventId;
      /** The type of the event. */
      operationType: T;
      /** The time of the commit; its high bits are seconds since the Unix epoch. */
      clusterTime: bson.Timestamp;
      /** The number of the transaction, on MongoDB. */
      txnNumber?: bson.Long;
      /** The id of the MongoDB session of the transaction, on MongoDB. */
      lsid?: Record<string, unknown>;
    };
    /**
     * The event of an inserted document.
     *
     * @example
     * ```ts
     * const onInsert = ({ fullDocument }: Realm.MongoDB.InsertEvent<Plant>) => {
     *   console.log(`new: ${fullDocument.name}`);
     * };
     * for await (const change of plants.watch()) {
     *   if (change.operationType === "insert") {
     *     onInsert(change);
     *   }
     * }
     * ```
     */
    type InsertEvent<T extends Document> = {
      ns: DocumentNamespace;
      documentKey: DocumentKey<T["_id"]>;
      fullDocument: T;
    } & BaseChangeEvent<"insert">;
    /**
     * The event of a document that was changed by update operators.
     *
     * @example
     * ```ts
     * const onUpdate = (change: Realm.MongoDB.UpdateEvent<Plant>) => {
     *   console.log(change.documentKey._id, change.updateDescription.updatedFields);
     * };
     * for await (const change of plants.watch()) {
     *   if (change.operationType === "update") {
     *     onUpdate(change);
     *   }
     * }
     * ```
     */
    type UpdateEvent<T extends Document> = {
      ns: DocumentNamespace;
      documentKey: DocumentKey<T["_id"]>;
      updateDescription: UpdateDescription;
      fullDocument?: T;
    } & BaseChangeEvent<"update">;
    /**
     * The event of a document that was replaced.
     *
     * @example
     * ```ts
     * const onReplace = ({ fullDocument }: Realm.MongoDB.ReplaceEvent<Plant>) => {
     *   console.log(`replaced by ${fullDocument.name}`);
     * };
     * for await (const change of plants.watch()) {
     *   if (change.operationType === "replace") {
     *     onReplace(change);
     *   }
     * }
     * ```
     */
    type ReplaceEvent<T extends Document> = {
      ns: DocumentNamespace;
      documentKey: DocumentKey<T["_id"]>;
      fullDocument: T;
    } & BaseChangeEvent<"replace">;
    /**
     * The event of a deleted document. It has no `fullDocument`.
     *
     * @example
     * ```ts
     * const onDelete = ({ documentKey }: Realm.MongoDB.DeleteEvent<Plant>) => {
     *   console.log(`deleted ${documentKey._id.toHexString()}`);
     * };
     * for await (const change of plants.watch()) {
     *   if (change.operationType === "delete") {
     *     onDelete(change);
     *   }
     * }
     * ```
     */
    type DeleteEvent<T extends Document> = {
      ns: DocumentNamespace;
      documentKey: DocumentKey<T["_id"]>;
    } & BaseChangeEvent<"delete">;
    /** @deprecated The event of a dropped collection, which streams do not contain. */
    type DropEvent = { ns: DocumentNamespace } & BaseChangeEvent<"drop">;
    /** @deprecated The event of a renamed collection, which streams do not contain. */
    type RenameEvent = { ns: DocumentNamespace; to: DocumentNamespace } & BaseChangeEvent<"rename">;
    /** @deprecated The event of a dropped database, which streams do not contain. */
    type DropDatabaseEvent = { ns: Omit<DocumentNamespace, "coll"> } & BaseChangeEvent<"dropDatabase">;
    /** @deprecated The event of an invalid stream, which streams do not contain. */
    type InvalidateEvent = BaseChangeEvent<"invalidate">;
    /**
     * A change event of a collection, as `watch()` yields it.
     *
     * @see https://www.mongodb.com/docs/manual/reference/change-events/
     * @example
     * ```ts
     * const print = (change: Realm.MongoDB.ChangeEvent<Plant>) => {
     *   if (change.operationType === "insert" || change.operationType === "replace") {
     *     console.log(change.fullDocument.name);
     *   }
     * };
     * for await (const change of plants.watch()) {
     *   print(change);
     * }
     * ```
     */
    type ChangeEvent<T extends Document> =
      | InsertEvent<T>
      | UpdateEvent<T>
      | ReplaceEvent<T>
      | DeleteEvent<T>
      | DropEvent
      | RenameEvent
      | DropDatabaseEvent
      | InvalidateEvent;
    /**
     * The option of `watch()` to resume a stream. The SDK does not have it.
     *
     * @example
     * ```ts
     * const { value: change } = await plants.watch().next();
     * const options: Realm.MongoDB.WatchOptionsResume = { resumeAfter: change?._id };
     * const later = plants.watch(options);
     * ```
     */
    type WatchOptionsResume = {
      /** The `_id` of an event of the same user, collection and app. */
      resumeAfter?: ChangeEventId;
    };
    /**
     * The options of `watch()` to select documents.
     *
     * @example
     * ```ts
     * const ids = [new Realm.BSON.ObjectId("63c1b2a1f0e1d2c3b4a59687")];
     * const options: Realm.MongoDB.WatchOptionsIds<Plant> = { ids };
     * const changes = plants.watch(options);
     * ```
     */
    type WatchOptionsIds<T extends Document> = { ids: T["_id"][]; filter?: never } & WatchOptionsResume;
    /**
     * The options of `watch()` to select events. The filter applies to the event, so fields of
     * the document begin with `fullDocument.`.
     *
     * @example
     * ```ts
     * const filter = { operationType: "insert", "fullDocument.type": "perennial" };
     * const options: Realm.MongoDB.WatchOptionsFilter = { filter };
     * const inserts = plants.watch(options);
     * ```
     */
    type WatchOptionsFilter = { ids?: never; filter: Filter } & WatchOptionsResume;

    /**
     * A collection under the rules of the app.
     *
     * A document that the user cannot read does not match a filter. Every method rejects with
     * - code 4301 (`InvalidSession`) if the session has ended
     * - code 4305 for an operator that users cannot use, such as `$regex`
     * - code 4311 for an error of the database, with MongoDB's own code in `serverCode`
     * - code 4314 (`NoMatchingRuleFound`) if no rule allows the operation. A write then rejects
     *   with `insert not permitted`, `update not permitted` or `delete not permitted`, and
     *   changes nothing
     *
     * @typeParam T - the shape of its documents
     * @see https://www.mongodb.com/docs/atlas/device-sdks/sdk/node/app-services/
     * @example
     * ```ts
     * const plants = user.mongoClient("mongodb-atlas").db("example").collection<Plant>("plants");
     * await plants.insertOne({ name: "lily", type: "perennial" });
     * const perennials = await plants.find({ type: "perennial" });
     * ```
     */
    class MongoDBCollection<T extends Document> {
      private constructor();
      /** The name of the data source. */
      readonly serviceName: string;
      /** The name of the database. */
      readonly databaseName: string;
      /** The name of the collection. */
      readonly name: string;

      /**
       * Returns an array of the documents that match.
       *
       * Rejects with code 4304 if there are more than `maxDocuments` or if they are larger than
       * `maxAnswerBytes`.
       *
       * @see https://www.mongodb.com/docs/manual/reference/method/db.collection.find/
       * @example
       * ```ts
       * const options = { projection: { _id: 0, name: 1 }, sort: { height: -1 }, limit: 3 };
       * const tallest = await plants.find({ type: "perennial" }, options);
       * ```
       */
      find(filter?: Filter, options?: FindOptions): Promise<T[]>;
      /**
       * Returns the first document that matches, or `null`.
       *
       * @see https://www.mongodb.com/docs/manual/reference/method/db.collection.findOne/
       * @example
       * ```ts
       * const lily = await plants.findOne({ name: "lily" });
       * console.log(lily?.height);
       * ```
       */
      findOne(filter?: Filter, options?: FindOneOptions): Promise<T | null>;
      /**
       * Updates the first document that matches. Returns the original document, or the changed
       * one with `returnNewDocument`; `null` if none matches.
       *
       * @see https://www.mongodb.com/docs/manual/reference/method/db.collection.findOneAndUpdate/
       * @example
       * ```ts
       * const update = { $inc: { height: 5 } };
       * const options = { returnNewDocument: true };
       * const taller = await plants.findOneAndUpdate({ name: "lily" }, update, options);
       * ```
       */
      findOneAndUpdate(filter: Filter, update: Update, options?: FindOneAndModifyOptions): Promise<T | null>;
      /**
       * Replaces the first document that matches, except its `_id`. Returns the original
       * document, or the new one with `returnNewDocument`; `null` if none matches.
       *
       * @see https://www.mongodb.com/docs/manual/reference/method/db.collection.findOneAndReplace/
       * @example
       * ```ts
       * const replacement = { name: "thyme", type: "perennial" };
       * const original = await plants.findOneAndReplace({ name: "basil" }, replacement);
       * ```
       */
      findOneAndReplace(filter: Filter, replacement: unknown, options?: FindOneAndModifyOptions): Promise<T | null>;
      /**
       * Deletes the first document that matches and returns it; `null` if none matches.
       *
       * @see https://www.mongodb.com/docs/manual/reference/method/db.collection.findOneAndDelete/
       * @example
       * ```ts
       * const oldest = await plants.findOneAndDelete({ type: "annual" }, { sort: { _id: 1 } });
       * ```
       */
      findOneAndDelete(filter?: Filter, options?: FindOneOptions): Promise<T | null>;
      /**
       * Runs a pipeline on the documents that the user can read. Returns an array.
       *
       * Rejects with `serverCode` 115 for a stage that is not supported.
       *
       * @see https://www.mongodb.com/docs/manual/reference/method/db.collection.aggregate/
       * @example
       * ```ts
       * const heights = await plants.aggregate([
       *   { $group: { _id: "$type", height: { $sum: "$height" } } },
       *   { $sort: { _id: 1 } },
       * ]);
       * ```
       */
      // biome-ignore lint/suspicious/noExplicitAny: the pipeline decides the type of the result
      aggregate(pipeline: AggregatePipelineStage[]): Promise<any>;
      /**
       * Returns the number of documents that match and that the user can read.
       *
       * @example
       * ```ts
       * const perennials = await plants.count({ type: "perennial" });
       * ```
       */
      count(filter?: Filter, options?: CountOptions): Promise<number>;
      /**
       * Inserts a document.
       *
       * Rejects with code 4311 and `serverCode` 11000 if a unique index, such as that on `_id`,
       * already has the key.
       *
       * @see https://www.mongodb.com/docs/manual/reference/method/db.collection.insertOne/
       * @example
       * ```ts
       * const { insertedId } = await plants.insertOne({ name: "lily", type: "perennial" });
       * ```
       */
      insertOne(document: NewDocument<T>): Promise<InsertOneResult<T["_id"]>>;
      /**
       * Inserts documents in their order.
       *
       * Rejects with code 4311 and `serverCode` 11000 at the first duplicate key; the documents
       * before it stay.
       *
       * @see https://www.mongodb.com/docs/manual/reference/method/db.collection.insertMany/
       * @example
       * ```ts
       * const { insertedIds } = await plants.insertMany([
       *   { name: "lily", type: "perennial" },
       *   { name: "basil", type: "annual" },
       * ]);
       * ```
       */
      insertMany(documents: NewDocument<T>[]): Promise<InsertManyResult<T["_id"]>>;
      /**
       * Deletes the first document that matches.
       *
       * @see https://www.mongodb.com/docs/manual/reference/method/db.collection.deleteOne/
       * @example
       * ```ts
       * const { deletedCount } = await plants.deleteOne({ name: "basil" });
       * ```
       */
      deleteOne(filter?: Filter): Promise<DeleteResult>;
      /**
       * Deletes all documents that match. Without a filter, it deletes every document that the
       * user can read.
       *
       * @see https://www.mongodb.com/docs/manual/reference/method/db.collection.deleteMany/
       * @example
       * ```ts
       * const { deletedCount } = await plants.deleteMany({ type: "annual" });
       * ```
       */
      deleteMany(filter?: Filter): Promise<DeleteResult>;
      /**
       * Updates the first document that matches.
       *
       * @see https://www.mongodb.com/docs/manual/reference/method/db.collection.updateOne/
       * @example
       * ```ts
       * const update = { $set: { type: "perennial" } };
       * const { upsertedId } = await plants.updateOne({ name: "sage" }, update, { upsert: true });
       * ```
       */
      updateOne(filter: Filter, update: Update, options?: UpdateOptions): Promise<UpdateResult<T["_id"]>>;
      /**
       * Updates all documents that match: all of them, or none if the update fails.
       *
       * @see https://www.mongodb.com/docs/manual/reference/method/db.collection.updateMany/
       * @example
       * ```ts
       * const { modifiedCount } = await plants.updateMany({}, { $inc: { height: 1 } });
       * ```
       */
      updateMany(filter: Filter, update: Update, options?: UpdateOptions): Promise<UpdateResult<T["_id"]>>;
      /**
       * Watches the collection. Yields MongoDB's change events `insert`, `update`, `replace` and
       * `delete` in the order of the commits. `fullDocument` is the version after the change.
       *
       * The stream starts when the first event is requested, that is, with the first call of
       * `next()`. An event arrives if the user can read the version that it carries; for a
       * deletion, the last version. The rules are evaluated when the event is sent.
       *
       * The generator ends on `return()`, also during a call of `next()`, when the user logs out
       * and when the app closes. Over HTTP, the stream continues by itself after an
       * interruption.
       *
       * Rejects with code 4301 if the session ends elsewhere, with `serverCode` 286 if the next
       * events are no longer kept, and with `serverCode` 260 if `resumeAfter` is not a token of
       * this user, collection and app.
       *
       * @param options.ids - selects documents by their `_id`
       * @param options.filter - selects events
       * @param options.resumeAfter - continues after this event, within `changeRetention`
       * @see https://www.mongodb.com/docs/manual/reference/change-events/
       * @example
       * ```ts
       * const filter = { operationType: "insert", "fullDocument.type": "perennial" };
       * for await (const change of plants.watch({ filter })) {
       *   if (change.operationType === "insert") {
       *     console.log(change.fullDocument.name);
       *   }
       * }
       * ```
       */
      watch(options?: WatchOptionsResume): AsyncGenerator<ChangeEvent<T>>;
      watch(options: WatchOptionsIds<T>): AsyncGenerator<ChangeEvent<T>>;
      watch(options: WatchOptionsFilter): AsyncGenerator<ChangeEvent<T>>;
    }
  }

  export import MongoDBCollection = MongoDB.MongoDBCollection;
  export import WatchOptionsFilter = MongoDB.WatchOptionsFilter;
  export import WatchOptionsIds = MongoDB.WatchOptionsIds;

  /** Other names of the SDK for the types of data sources. */
  namespace Services {
    export { MongoDB, type MongoDBDatabase, type PushClient as Push };
  }

  // ----- The Realm database, which Userkeep does not include: its types, and stubs that throw

  export import AnyCollection = database.AnyCollection;
  export import AnyDictionary = database.AnyDictionary;
  export import AnyList = database.AnyList;
  export import AnyRealmObject = database.AnyRealmObject;
  export import AnyResults = database.AnyResults;
  export import AnySet = database.AnySet;
  export import BaseConfiguration = database.BaseConfiguration;
  export import BaseObjectSchema = database.BaseObjectSchema;
  export import BaseSyncConfiguration = database.BaseSyncConfiguration;
  export import CanonicalGeoPoint = database.CanonicalGeoPoint;
  export import CanonicalGeoPolygon = database.CanonicalGeoPolygon;
  export import CanonicalObjectSchema = database.CanonicalObjectSchema;
  export import CanonicalObjectSchemaProperty = database.CanonicalPropertySchema;
  export import CanonicalPropertiesTypes = database.CanonicalPropertiesTypes;
  export import CanonicalPropertySchema = database.CanonicalPropertySchema;
  export import ClientResetAfterCallback = database.ClientResetAfterCallback;
  export import ClientResetBeforeCallback = database.ClientResetBeforeCallback;
  export import ClientResetConfig = database.ClientResetConfig;
  export import ClientResetDiscardUnsyncedChangesConfiguration = database.ClientResetDiscardUnsyncedChangesConfiguration;
  export import ClientResetError = database.ClientResetError;
  export import ClientResetFallbackCallback = database.ClientResetFallbackCallback;
  export import ClientResetManualConfiguration = database.ClientResetManualConfiguration;
  export import ClientResetMode = database.ClientResetMode;
  export import ClientResetRecoverOrDiscardUnsyncedChangesConfiguration = database.ClientResetRecoverOrDiscardUnsyncedChangesConfiguration;
  export import ClientResetRecoverUnsyncedChangesConfiguration = database.ClientResetRecoverUnsyncedChangesConfiguration;
  export import ClientResetRecoveryConfiguration = database.ClientResetRecoverUnsyncedChangesConfiguration;
  export import Collection = database.Collection;
  export import CollectionChangeCallback = database.CollectionChangeCallback;
  export import CollectionChangeSet = database.CollectionChangeSet;
  export import CollectionPropertyTypeName = database.CollectionPropertyTypeName;
  export import CompensatingWriteError = database.CompensatingWriteError;
  export import CompensatingWriteInfo = database.CompensatingWriteInfo;
  export import Configuration = database.Configuration;
  export import ConfigurationWithoutSync = database.ConfigurationWithoutSync;
  export import ConfigurationWithSync = database.ConfigurationWithSync;
  export import ConnectionNotificationCallback = database.ConnectionNotificationCallback;
  export import ConnectionState = database.ConnectionState;
  export import Counter = database.Counter;
  export import Dictionary = database.Dictionary;
  export import DictionaryChangeCallback = database.DictionaryChangeCallback;
  export import DictionaryChangeSet = database.DictionaryChangeSet;
  export import ErrorCallback = database.ErrorCallback;
  export import EstimateProgressNotificationCallback = database.EstimateProgressNotificationCallback;
  export import FlexibleSyncConfiguration = database.FlexibleSyncConfiguration;
  export import GeoBox = database.GeoBox;
  export import GeoCircle = database.GeoCircle;
  export import GeoPoint = database.GeoPoint;
  export import GeoPolygon = database.GeoPolygon;
  export import GeoPosition = database.GeoPosition;
  export import index = database.index;
  export import IndexDecorator = database.IndexDecorator;
  export import IndexedType = database.IndexedType;
  export import InitialSubscriptions = database.InitialSubscriptions;
  export import kmToRadians = database.kmToRadians;
  export import List = database.List;
  export import LogCategory = database.LogCategory;
  export import LogEntry = database.LogEntry;
  export import Logger = database.Logger;
  export import LoggerCallback = database.LoggerCallback;
  export import LoggerCallback1 = database.LoggerCallback1;
  export import LoggerCallback2 = database.LoggerCallback2;
  export import mapTo = database.mapTo;
  export import MapToDecorator = database.MapToDecorator;
  export import MigrationCallback = database.MigrationCallback;
  export import MigrationOptions = database.MigrationOptions;
  export import miToRadians = database.miToRadians;
  export import Mixed = database.Types.Mixed;
  export import NumericLogLevel = database.NumericLogLevel;
  export import ObjectChangeCallback = database.ObjectChangeCallback;
  export import ObjectChangeSet = database.ObjectChangeSet;
  export import ObjectClass = database.RealmObjectConstructor;
  export import ObjectSchema = database.ObjectSchema;
  export import ObjectSchemaProperty = database.PropertySchema;
  export import ObjectType = database.ObjectType;
  export import OpenRealmBehaviorConfiguration = database.OpenRealmBehaviorConfiguration;
  export import OpenRealmBehaviorType = database.OpenRealmBehaviorType;
  export import OpenRealmTimeOutBehavior = database.OpenRealmTimeOutBehavior;
  export import OrderedCollection = database.OrderedCollection;
  export import PartitionBasedSyncProgressNotificationCallback = database.PartitionBasedSyncProgressNotificationCallback;
  export import PartitionSyncConfiguration = database.PartitionSyncConfiguration;
  export import PresentationPropertyTypeName = database.PresentationPropertyTypeName;
  export import PrimaryKey = database.PrimaryKey;
  export import PrimitivePropertyTypeName = database.PrimitivePropertyTypeName;
  export import ProgressDirection = database.ProgressDirection;
  export import ProgressMode = database.ProgressMode;
  export import ProgressNotificationCallback = database.ProgressNotificationCallback;
  export import ProgressRealmPromise = database.ProgressRealmPromise;
  export import PropertiesTypes = database.PropertiesTypes;
  export import PropertySchema = database.PropertySchema;
  export import PropertySchemaCommon = database.PropertySchemaCommon;
  export import PropertySchemaParseError = database.PropertySchemaParseError;
  export import PropertySchemaShorthand = database.PropertySchemaShorthand;
  export import PropertySchemaStrict = database.PropertySchemaStrict;
  export import PropertyType = database.PropertyTypeName;
  export import PropertyTypeName = database.PropertyTypeName;
  export import ProxyType = database.ProxyType;
  export import RealmEvent = database.RealmEvent;
  export import RealmEventName = database.RealmEventName;
  export import RealmListenerCallback = database.RealmListenerCallback;
  export import RealmObjectConstructor = database.RealmObjectConstructor;
  export import RelationshipPropertyTypeName = database.RelationshipPropertyTypeName;
  export import Results = database.Results;
  export import SchemaParseError = database.SchemaParseError;
  export import SessionState = database.SessionState;
  export import SessionStopPolicy = database.SessionStopPolicy;
  export import ShorthandPrimitivePropertyTypeName = database.ShorthandPrimitivePropertyTypeName;
  export import SortDescriptor = database.SortDescriptor;
  export import SSLConfiguration = database.SSLConfiguration;
  export import SSLVerifyCallback = database.SSLVerifyCallback;
  export import SSLVerifyObject = database.SSLVerifyObject;
  export import SubscriptionSetState = database.SubscriptionSetState;
  export import SyncConfiguration = database.SyncConfiguration;
  export import SyncError = database.SyncError;
  export import SyncProxyConfig = database.SyncProxyConfig;
  export import Types = database.Types;
  export import Unmanaged = database.Unmanaged;
  export import UpdateMode = database.UpdateMode;
  export import UserTypeName = database.UserTypeName;
  export import WaitForSync = database.WaitForSync;

  // ----- Errors

  /**
   * The error of a rejected operation. If a request failed in the network or took too long, its
   * `cause` is that failure, with Node's `code` such as `ECONNREFUSED` if there is one.
   *
   * @example
   * ```ts
   * try {
   *   await app.logIn(Realm.Credentials.emailPassword("ada@example.com", "wrong"));
   * } catch (error) {
   *   const { code, errorCode } = error as Realm.AppError;
   *   console.log(code, errorCode); // 4349 InvalidPassword
   * }
   * ```
   */
  type AppError = Error & {
    /** The SDK's number of the error, such as 4349. */
    code: number;
    /** The name of the code, such as `InvalidPassword`. */
    errorCode: string;
    /** MongoDB's own code of a failed query or write. */
    serverCode?: number;
    /** The status of the HTTP response, with a remote backend. */
    status?: number;
    /** URL of the request's log for the operator, if a remote backend reports one. */
    link?: string;
    /** Seconds to wait before the next attempt, if a remote backend limits requests. */
    retryAfter?: number;
  };

  /**
   * An error of a failed check, for example of an unknown log level.
   *
   * @example
   * ```ts
   * try {
   *   Realm.setLogLevel(JSON.parse('"loud"'));
   * } catch (error) {
   *   console.log(error instanceof Realm.AssertionError); // true
   * }
   * ```
   */
  class AssertionError extends Error {
    constructor(message?: string);
  }

  /**
   * An error of an argument with the wrong type.
   *
   * @example
   * ```ts
   * try {
   *   Realm.Credentials.apiKey(JSON.parse("42"));
   * } catch (error) {
   *   console.log(error instanceof Realm.TypeAssertionError); // true
   * }
   * ```
   */
  class TypeAssertionError extends AssertionError {
    constructor(expected: string, value: unknown, name?: string);
  }

  // ----- The operator's handle

  /**
   * Options of `openBackend()`: those of an app with its backend in this process.
   *
   * @example
   * ```ts
   * const configuration: Realm.BackendConfiguration = {
   *   definition: "./userkeep",
   *   store: "sqlite:data/app.sqlite",
   * };
   * const backend = await openBackend(configuration);
   * ```
   */
  type BackendConfiguration = Pick<
    AppConfiguration,
    | "baseFilePath"
    | "changeRetention"
    | "dataSources"
    | "definition"
    | "durability"
    | "functions"
    | "logRetention"
    | "logger"
    | "maxAnswerBytes"
    | "maxDocuments"
    | "maxTimeMS"
    | "maxWriteDocuments"
    | "secrets"
    | "store"
    | "tokenAudience"
    | "watchDefinition"
  > & {
    /** The app's id. Required if the definition has no `app_id`. */
    id?: string;
  };

  /**
   * An entry of the log: a call of a function, a log-in, or a failed request. Optional fields are
   * missing if they do not apply. Values of fields such as `password`, tokens, and the secrets of
   * the definition are replaced by `***`.
   *
   * @see https://www.mongodb.com/docs/atlas/app-services/logs/
   * @example
   * ```ts
   * const entries: Realm.AppLogEntry[] = await backend.admin.logs({ type: "function" });
   * for (const { name, durationMS, error } of entries) {
   *   console.log(name, durationMS, error ?? "OK");
   * }
   * ```
   */
  interface AppLogEntry {
    /** The id of the entry. */
    id: BSON.ObjectId;
    /**
     * The kind of request: `AUTH`, `API_KEY`, `FUNCTION`, `SERVICE_FUNCTION` for a data source,
     * `SERVICE_STREAM_FUNCTION` for its change streams, `PUSH`, or `API`.
     */
    type: string;
    /** The request's id, which the answer over HTTP has as `X-Request-Id` and in its `link`. */
    requestId: string;
    /** The time at which the request began. */
    started: Date;
    /** The time at which it ended. */
    completed: Date;
    /** The duration in milliseconds, with a resolution of a microsecond. */
    durationMS: number;
    /** The id of the user who made the request, if the session is open. */
    user?: string;
    /** The network address of the client, if the request came over HTTP. */
    remoteAddress?: string;
    /** The status that the answer has over HTTP; 499 if the client did not wait for it. */
    status: number;
    /** The message of the error. Missing if the request succeeded. */
    error?: string;
    /** The name of the error's code. */
    errorCode?: string;
    /** MongoDB's code of the error. */
    serverCode?: number;
    /** The cause of an internal error, for the operator. */
    detail?: string;
    /** The stack of a function's error. */
    stack?: string;
    /** The function's name. */
    name?: string;
    /** The data source of the function. */
    service?: string;
    /**
     * The arguments of the function, unless it has `disable_arg_logs` or they exceed 4 kB.
     */
    // biome-ignore lint/suspicious/noExplicitAny: functions take any arguments
    arguments?: any[];
    /** The size of arguments beyond 4 kB, in bytes. */
    argumentBytes?: number;
    /** The reason of a call that no client made: `operator`, or the name of a hook. */
    hook?: string;
    /** The request about users, such as `login`, `refresh` or `register`. */
    event?: string;
    /** The authentication provider. */
    provider?: string;
    /** The console lines of the call: the last 25, of up to 512 bytes each. */
    messages?: AppLogMessage[];
    /** The number of earlier console lines. */
    droppedMessages?: number;
    /** The HTTP method of a request that was rejected before it was carried out. */
    method?: string;
    /** The path of such a request, without the query. */
    path?: string;
    /**
     * The number of other entries of the same client that were left out, because the client had
     * too many. Such an entry stands for all of them.
     */
    leftOut?: number;
  }

  /**
   * A console line of a function.
   *
   * @example
   * ```ts
   * const [{ messages = [] }] = await backend.admin.logs({ type: "function", limit: 1 });
   * const warnings: Realm.AppLogMessage[] = messages.filter(({ level }) => level === "warn");
   * ```
   */
  interface AppLogMessage {
    /** The method of `console`: `info` for `log` too. */
    level: "debug" | "error" | "info" | "warn";
    /** The text, on one line. */
    text: string;
  }

  /**
   * A query of the log. Each option narrows it.
   *
   * @example
   * ```ts
   * const query: Realm.AppLogQuery = { type: ["function", "auth"], from: new Date(2024, 0), limit: 10 };
   * const entries = await backend.admin.logs(query);
   * ```
   */
  interface AppLogQuery {
    /**
     * Types of entries, or `auth`, `function`, `service` and `trigger` for the types of each
     * family. @default all
     */
    type?: string | string[];
    /** True to find only failures. @default false */
    errors?: boolean;
    /** The id of the user who made the request. @default all users */
    user?: string;
    /** The time after which the request started. @default all */
    from?: Date | string | number;
    /** The time at which the request started at the latest. @default all */
    to?: Date | string | number;
    /** The id of the request, or the `link` of an error over HTTP. @default all */
    request?: string;
    /** Maximum number of entries, the newest ones, from 1 to 10 000. @default 100 */
    limit?: number;
  }

  /**
   * The operator's API of a backend.
   *
   * @example
   * ```ts
   * const admin: Realm.Admin = backend.admin;
   * console.log(await admin.logs({ errors: true, limit: 10 }));
   * ```
   */
  interface Admin {
    /**
     * Returns entries of the log, newest first. Entries are written within about 100 ms. An
     * unknown option or type is an error.
     *
     * @see https://www.mongodb.com/docs/atlas/app-services/logs/
     * @example
     * ```ts
     * const [last] = await backend.admin.logs({ errors: true, limit: 1 });
     * console.log(last?.error, last?.stack);
     * ```
     */
    logs(query?: AppLogQuery): Promise<AppLogEntry[]>;
    /**
     * Yields entries as they are written, until the loop ends. `from` defaults to now.
     *
     * @example
     * ```ts
     * for await (const entry of backend.admin.followLogs({ type: "function" })) {
     *   console.log(entry.name, entry.messages);
     * }
     * ```
     */
    followLogs(query?: Omit<AppLogQuery, "limit">): AsyncGenerator<AppLogEntry, void, void>;
    /**
     * Calls a function, also a private one, without its condition (`can_evaluate`). A function
     * that throws is a result with `error`.
     *
     * Rejects with `FunctionNotFound` or `UserNotFound`.
     *
     * @param options.user - the id of the user to run as. @default the system user
     * @example
     * ```ts
     * const { value, error, messages } = await backend.admin.runFunction("sum", [2, 3]);
     * console.log(value, error?.message, messages);
     * ```
     */
    runFunction(
      name: string,
      // biome-ignore lint/suspicious/noExplicitAny: functions take any arguments
      args?: any[],
      options?: { user?: string },
    ): Promise<FunctionReport>;
  }

  /**
   * The result of a function that the operator called, with `value` or `error`.
   *
   * @example
   * ```ts
   * const report: Realm.FunctionReport = await backend.admin.runFunction("sum", [2, 3]);
   * console.log(report.error?.stack ?? report.value);
   * ```
   */
  interface FunctionReport {
    /** The value that the function returned. */
    // biome-ignore lint/suspicious/noExplicitAny: functions return any value
    value?: any;
    /** The error that the function threw. */
    error?: { message: string; errorCode: string; stack?: string };
    /** The console lines: the last 25, of up to 512 bytes each. */
    messages: AppLogMessage[];
    /** The number of earlier console lines. */
    droppedMessages: number;
  }

  /**
   * An index, in the shape of MongoDB's `createIndexes`.
   *
   * @see https://www.mongodb.com/docs/manual/reference/command/createIndexes/
   * @example
   * ```ts
   * const byName: Realm.IndexDescription = { key: { type: 1, name: 1 }, unique: true };
   * await backend.collection("example", "plants").createIndexes([byName]);
   * ```
   */
  interface IndexDescription {
    /** The indexed fields in order: 1 is ascending, -1 is descending. */
    key: Record<string, number>;
    /** The name, unique in the collection. @default the fields, such as `type_1_name_1` */
    name?: string;
    /** True if two documents cannot have the same values. @default false */
    unique?: boolean;
    /** True to leave out documents without any of the fields. @default false */
    sparse?: boolean;
    /** The filter of the indexed documents. Cannot be used with `sparse`. @default all */
    partialFilterExpression?: MongoDB.Document;
    /**
     * Time to live of a document, in seconds from the date in the indexed field. For an array,
     * the earliest date applies. A document is removed within a minute after it has expired,
     * while the process writes anything.
     */
    expireAfterSeconds?: number;
  }

  /**
   * The plan and the cost of a query, in the terms of MongoDB's `explain`.
   *
   * @see https://www.mongodb.com/docs/manual/reference/explain-results/
   * @example
   * ```ts
   * const plan: Realm.Explanation = await backend
   *   .collection("example", "plants")
   *   .explain({ type: "annual" });
   * if (plan.stage === "COLLSCAN") {
   *   console.log(`no index: ${plan.examined} documents examined`);
   * }
   * ```
   */
  interface Explanation {
    /**
     * `IDHACK` for one `_id`, `IXSCAN` for an index, `COLLSCAN` for a scan of all documents,
     * `EOF` for a collection that does not exist.
     */
    stage: "COLLSCAN" | "EOF" | "IDHACK" | "IXSCAN";
    /** The name of the index; several names if the branches of an `$or` use different ones. */
    index: string | null;
    /** True if the index provides the order of `sort`. */
    sortedByIndex: boolean;
    /** The number of ranges of the index that were scanned; 0 for the whole index. */
    ranges: number;
    /** The number of documents that were read. */
    examined: number;
    /** The number of documents in the result. */
    returned: number;
  }

  /**
   * A collection for the operator, under no rules, with methods for its indexes.
   *
   * @example
   * ```ts
   * const all: Realm.AdministeredCollection<Plant> = backend.collection("example", "plants");
   * await all.createIndexes([{ key: { name: 1 } }]);
   * await all.insertOne({ name: "lily", type: "perennial" });
   * ```
   */
  interface AdministeredCollection<T extends MongoDB.Document> extends MongoDB.MongoDBCollection<T> {
    /**
     * Creates indexes on new and existing documents: all of them, or none. An index that already
     * exists stays as it is.
     *
     * Rejects if an index is invalid, if one with the same name or fields has other options, and
     * with `E11000` if a unique index finds a duplicate key. Text, geo, hashed and wildcard
     * indexes and collations are not supported.
     *
     * @returns the names of the indexes
     * @example
     * ```ts
     * const all = backend.collection("example", "plants");
     * const [name] = await all.createIndexes([{ key: { type: 1, name: 1 }, unique: true }]);
     * console.log(name); // "type_1_name_1"
     * ```
     */
    createIndexes(indexes: IndexDescription[]): Promise<string[]>;
    /**
     * Returns the indexes, with the index on `_id` first. The array is empty if the collection
     * does not exist.
     *
     * @example
     * ```ts
     * const indexes = await backend.collection("example", "plants").indexes();
     * console.log(indexes.map(({ name }) => name));
     * ```
     */
    indexes(): Promise<(IndexDescription & { v: number; name: string })[]>;
    /**
     * Drops an index by its name.
     *
     * Rejects if the index does not exist.
     *
     * @example
     * ```ts
     * await backend.collection("example", "plants").dropIndex("type_1_name_1");
     * ```
     */
    dropIndex(name: string): Promise<void>;
    /**
     * Runs a query and returns its plan and its cost.
     *
     * @example
     * ```ts
     * const all = backend.collection("example", "plants");
     * const { stage, index } = await all.explain({ type: "annual" }, { sort: { name: 1 } });
     * ```
     */
    explain(filter?: MongoDB.Filter, options?: MongoDB.FindOptions): Promise<Explanation>;
  }

  /**
   * Progress of a maintenance task.
   *
   * @example
   * ```ts
   * const onProgress = ({ stage, done, total }: Realm.Progress) => {
   *   console.log(stage, total > 0 ? `${Math.floor((100 * done) / total)}%` : "");
   * };
   * await backend.backup("backup.sqlite", { onProgress });
   * ```
   */
  interface Progress {
    /** The current stage: the name of a collection or of an index. */
    stage: string;
    /** The approximate number of completed steps of the stage. */
    done: number;
    /** The number of steps of the stage; 0 if it is unknown. */
    total: number;
  }

  /**
   * The option to observe a maintenance task.
   *
   * @example
   * ```ts
   * const options: Realm.ProgressOptions = { onProgress: ({ stage }) => console.log(stage) };
   * await backend.export("dump", options);
   * ```
   */
  interface ProgressOptions {
    /** Runs at the beginning, and then ten times a second. */
    onProgress?: (progress: Progress) => void;
  }

  /**
   * A backend for its operator: the system user, under no rules.
   *
   * Of the limits for users, only `maxDocuments` applies.
   *
   * @example
   * ```ts
   * const backend: Realm.Backend = await openBackend({ id: "my-app" });
   * await backend.collection("example", "plants").insertOne({ name: "lily" });
   * await backend.close();
   * ```
   */
  interface Backend {
    /**
     * The operator's API: the log, and calls of functions.
     *
     * @example
     * ```ts
     * const failures = await backend.admin.logs({ errors: true });
     * ```
     */
    readonly admin: Admin;
    /**
     * Returns a collection for seeding and administration, without a request.
     *
     * @param options.service - the data source. @default "mongodb-atlas"
     * @example
     * ```ts
     * const all = backend.collection<Plant>("example", "plants");
     * await all.insertMany([{ name: "lily", type: "perennial" }]);
     * ```
     */
    // biome-ignore lint/suspicious/noExplicitAny: as for a user's collection
    collection<T extends MongoDB.Document = any>(
      databaseName: string,
      collectionName: string,
      options?: { service?: string },
    ): AdministeredCollection<T>;
    /**
     * Creates a new key to sign tokens. The previous keys verify tokens until the last token of
     * each has expired.
     *
     * @returns the id of the key, which is the `kid` of the tokens
     * @example
     * ```ts
     * const kid = await backend.rotateKeys();
     * console.log(`tokens are signed with ${kid}`);
     * ```
     */
    rotateKeys(): Promise<string>;
    /**
     * Copies the store, with users and sessions, into a file, while the application writes to
     * the store. The copy has the state of one moment and can be opened as a store. It has its
     * own history of changes, so `resumeAfter` tokens of the original are not valid there.
     *
     * Rejects if the file exists, and for a store on MongoDB (use `mongodump`).
     *
     * @see https://www.mongodb.com/docs/database-tools/mongodump/
     * @example
     * ```ts
     * await backend.backup("backup.sqlite");
     * const copy = await openBackend({ id: "my-app", store: "sqlite:backup.sqlite" });
     * ```
     */
    backup(file: string, options?: ProgressOptions): Promise<void>;
    /**
     * Writes a dump into an empty directory, as mongodump does: `DATABASE/COLLECTION.bson` and
     * `DATABASE/COLLECTION.metadata.json`. The dump may or may not contain writes that happen
     * during the export.
     *
     * @returns the number of documents
     * @see https://www.mongodb.com/docs/database-tools/mongodump/
     * @example
     * ```ts
     * const count = await backend.export("dump");
     * console.log(`exported ${count} documents`);
     * ```
     */
    export(directory: string, options?: ProgressOptions): Promise<number>;
    /**
     * Imports a dump of `export()` or mongodump. It skips an identical document that already
     * exists, and never overwrites a different one. An interrupted import can be repeated.
     *
     * Rejects with the file and the position of an invalid document, or of one whose key another
     * document has. Documents that were written before stay. Problems that can be found in
     * advance reject before anything is written.
     *
     * @param options.ignoreIndexes - true to leave out indexes of unsupported kinds and report
     * them. @default false
     * @example
     * ```ts
     * const { written, unchanged, reported } = await backend.import("dump");
     * console.log(`${written} documents are new, ${unchanged} existed`, reported);
     * ```
     */
    import(
      directory: string,
      options?: ProgressOptions & { ignoreIndexes?: boolean },
    ): Promise<{ written: number; unchanged: number; reported: string[] }>;
    /**
     * Copies the whole store to another one, with users, sessions and indexes, and compares both
     * by count and hash. It skips identical documents that already exist, so an interrupted
     * migration can be repeated. Nothing else may write to either store in the meantime.
     *
     * Rejects if the other store has a different document with the same `_id`, or additional
     * documents in one of the collections.
     *
     * @param to - `sqlite:PATH` or a MongoDB connection string
     * @param options.databases - the databases to copy. @default all
     * @param options.ignoreIndexes - true to leave out indexes of unsupported kinds and report
     * them. @default false
     * @example
     * ```ts
     * const { written } = await backend.migrate("mongodb://localhost/?replicaSet=rs0");
     * console.log(`copied ${written} documents`);
     * ```
     */
    migrate(
      to: string,
      options?: ProgressOptions & { databases?: string[]; ignoreIndexes?: boolean },
    ): Promise<{ collections: number; written: number; unchanged: number; reported: string[] }>;
    /**
     * Checks the store for damage, for indexes that do not agree with the documents, and for
     * change events that do not agree with the documents.
     *
     * Rejects for a store on MongoDB.
     *
     * @param options.repair - true to rebuild indexes first. @default false
     * @returns the remaining faults; `isOfIndex` is true if a rebuild of indexes can repair one
     * @example
     * ```ts
     * for (const { what } of await backend.check({ repair: true })) {
     *   console.error(what);
     * }
     * ```
     */
    check(options?: ProgressOptions & { repair?: boolean }): Promise<{ what: string; isOfIndex: boolean }[]>;
    /**
     * Closes the handle. The last app or handle that shares the backend also closes its store.
     *
     * @example
     * ```ts
     * await backend.close();
     * ```
     */
    close(): Promise<void>;
  }

  /**
   * Opens a backend for its operator. It shares the backend with the apps of the same id,
   * definition and store.
   *
   * Rejects if an option, the definition or the store is invalid. The message lists all problems.
   *
   * @example
   * ```ts
   * const backend = await openBackend({ id: "my-app", definition: "./userkeep" });
   * await backend.collection("example", "plants").createIndexes([{ key: { name: 1 } }]);
   * await backend.close();
   * ```
   */
  function openBackend(options: BackendConfiguration): Promise<Backend>;

  // ----- Over HTTP

  /**
   * Options of `serve()`: those of the backend, and those of the server.
   *
   * @example
   * ```ts
   * const configuration: Realm.ServerConfiguration = {
   *   app: "my-app",
   *   port: 3000,
   *   publicUrl: "https://users.example.com",
   *   trustProxy: "10.0.0.0/8",
   *   metricsPort: 9100,
   * };
   * const server = await serve(configuration);
   * ```
   */
  type ServerConfiguration = Omit<BackendConfiguration, "id"> & {
    /**
     * The app's id. Required if the definition has no `app_id`. Requests for another app are
     * rejected.
     */
    app?: string;
    /** Address to listen on. @default "127.0.0.1" */
    host?: string;
    /** Port to listen on; 0 picks a free one. @default 3000 */
    port?: number;
    /** URL that clients use, for example that of a proxy. @default the bound address */
    publicUrl?: string;
    /**
     * Maximum size of a request body as it is sent, in bytes. A larger body is rejected with
     * status 413, and so are arguments of more than 18 MB of BSON. Bodies of `auth/…` are limited
     * to 64 kB, or to 1 MB if they carry application data. Other bodies of more than 64 kB need a
     * valid access token. @default 67108864
     */
    maxBodySize?: number;
    /** File with the TLS certificate and its chain, in PEM. Needs `tlsKey`. @default no TLS */
    tlsCert?: string;
    /** File with the key of the TLS certificate, in PEM. Needs `tlsCert`. @default no TLS */
    tlsKey?: string;
    /**
     * Networks of trusted proxies, such as `"10.0.0.0/8"`. Only their `X-Forwarded-For` header
     * sets the client's address. @default none
     */
    trustProxy?: string | string[];
    /**
     * Networks that are exempt from the limits per address, for example those of the
     * application's own servers: the limits for failed log-ins, new users, connections, bodies
     * and responses. The limit for failed log-ins to one account still applies. @default none
     */
    unlimited?: string | string[];
    /**
     * Time limit for a client, in milliseconds: to send the headers, to send the body (longer for
     * a large one), to send the next request on a connection, and to read the response. After
     * that, the server closes the connection. @default 30000
     */
    clientTimeout?: number;
    /**
     * Port of a listener for the operator, with `/healthz` and, for Prometheus, `/metrics`.
     * @default no listener
     */
    metricsPort?: number;
    /** Address of the listener for the operator. @default "127.0.0.1" */
    metricsHost?: string;
  };

  /**
   * A running server.
   *
   * @example
   * ```ts
   * const server: Realm.Server = await serve({ app: "my-app", port: 0 });
   * console.log(`listening at ${server.url}`);
   * process.once("SIGTERM", () => server.close());
   * ```
   */
  interface Server {
    /** URL of the server, without a trailing slash: `publicUrl` or the bound address. */
    readonly url: string;
    /** URL of the listener for the operator, with `metricsPort`. */
    readonly metricsUrl?: string;
    /**
     * Stops accepting requests, and waits up to 10 s for those in progress. Then releases the
     * backend.
     *
     * @example
     * ```ts
     * await server.close();
     * ```
     */
    close(): Promise<void>;
  }

  /**
   * Serves a backend over HTTP with the App Services client API. Clients, such as `realm-web`,
   * use the server's `url` as `baseUrl`. The server keeps the process alive until it is closed.
   *
   * Rejects if an option, the definition or the store is invalid, and if it cannot listen on the
   * port.
   *
   * @example
   * ```ts
   * const server = await serve({ app: "my-app", port: 3000 });
   * const app = new Realm.App({ id: "my-app", baseUrl: server.url });
   * ```
   */
  function serve(options: ServerConfiguration): Promise<Server>;
}

// A separate block, because a block with an export list exports nothing else.
declare namespace Realm {
  import RealmObject = database.RealmObject;
  import RealmSet = database.RealmSet;

  export { RealmItself as default, RealmObject as Object, RealmSet as Set };
}

declare global {
  /** @deprecated Import it: `import Realm from "userkeep"`. */
  // biome-ignore lint/suspicious/noRedeclare: the global scope is another one
  export import Realm = RealmItself;
}

export = Realm;
