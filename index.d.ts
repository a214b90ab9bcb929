import type * as bson from "bson";

import database = require("./lib/database.js");

/** The App Services half of MongoDB's Realm Node.js SDK, and the backend that was behind it. */
declare class Realm {
  /** @deprecated Always throws: Userkeep does not include the Realm database. */
  constructor(pathOrConfiguration?: string | Realm.Configuration);

  /**
   * Closes every app that is open in this thread, and has the default log written to standard error again. Resolves when
   * the stores are closed.
   */
  static shutdown(): Promise<void>;

  /**
   * Sets the level of the log of all apps, backends and servers that have no `logger` option, open ones too; `info` at
   * the start. `detail` is the same as `info`; `all` and `trace` the same as `debug`; and `fatal` the same as `off`,
   * because no line is fatal.
   *
   * @param category - all lines are of the category `Realm.App`, so only this one and `Realm`, which includes it, have an
   * effect. @default "Realm"
   * @throws AssertionError for another level or category than the SDK's
   * @example
   * Realm.setLogLevel("debug");
   */
  static setLogLevel(level: Realm.App.Sync.LogLevel | Realm.NumericLogLevel, category?: Realm.LogCategory): void;

  /**
   * Takes the log of all apps, backends and servers that have no `logger` option, open ones too, instead of standard
   * error. A function of exactly two parameters is called with level and message, any other with one object. The levels
   * are `error`, `warn`, `info` and `debug`.
   *
   * @throws TypeAssertionError if it is not a function
   * @example
   * Realm.setLogger(({ category, level, message }) => console.log(`[${category} - ${level}] ${message}`));
   */
  static setLogger(callback: Realm.LoggerCallback2): void;
  /** @deprecated The SDK's form with two parameters. */
  static setLogger(callback: Realm.LoggerCallback1): void;

  /**
   * The same as `shutdown`, for tests: deletes no users.
   *
   * @throws unless `flags.ALLOW_CLEAR_TEST_STATE` is set
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

  // The members of an open Realm, which there never is here.
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
  /** A class that may be called without `new`. */
  type Callable<Class extends abstract new (...args: never) => unknown> = Class &
    ((...args: ConstructorParameters<Class>) => InstanceType<Class>);

  export import Realm = RealmItself;

  const flags: {
    /** True to throw when the deprecated global `Realm` is read. @default false */
    THROW_ON_GLOBAL_REALM: boolean;
    /** True to allow `clearTestState()`. @default false */
    ALLOW_CLEAR_TEST_STATE: boolean;
    /** @deprecated Has no effect: Userkeep does not include the Realm database. */
    ALLOW_VALUES_ARRAYS: boolean;
  };

  /**
   * The classes of the `bson` package. Each may also be called without `new`, as the SDK's could, and values of any
   * version of `bson` from 4 on are accepted wherever a value is.
   *
   * A JSON value is never taken for a value of a class: `_bsontype` in a plain object is a field like any other.
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

  // biome-ignore lint/suspicious/noExplicitAny: the SDK's own default, which accepts any shape
  type DefaultObject = Record<string, any>;

  // ----- App

  /** How the logged-in users are kept between runs. */
  const MetadataMode: {
    /** In a file that only its owner may read. The default. */
    readonly NoEncryption: "noEncryption";
    /** In a file encrypted under `encryptionKey`. */
    readonly Encryption: "encryption";
    /** @deprecated The same as `InMemory`. */
    readonly NoMetadata: "noMetadata";
    /** Not at all. */
    readonly InMemory: "inMemory";
  };
  type MetadataMode = (typeof MetadataMode)[keyof typeof MetadataMode];
  /** The types of single values, as those of an enumeration. */
  namespace MetadataMode {
    type NoEncryption = "noEncryption";
    type Encryption = "encryption";
    type NoMetadata = "noMetadata";
    type InMemory = "inMemory";
  }

  /** How the logged-in users are kept between runs. */
  type Metadata = {
    mode: MetadataMode;
    /** 64 bytes; required with `Encryption`. */
    encryptionKey?: ArrayBuffer | ArrayBufferView;
  };

  /** The levels of the log, for the option `logger`. */
  type LogLevel = "debug" | "info" | "warn" | "error";

  /** What was logged: a message, and what else is known, as `request_id` of a server's request. */
  type LogRecord = { message: string; [field: string]: unknown };

  /**
   * Takes the log: a function of level, of what was logged as one line of text, and of its parts; or an object with the
   * methods of `console`. With a `level` that is one of `LogLevel` it hears of nothing below.
   */
  type AppLogger =
    | (((level: LogLevel, text: string, record: LogRecord) => void) & { level?: string })
    | (Partial<Record<LogLevel | "log", (text: string) => void>> & { level?: string });

  /** What an app is opened with. Options beat environment variables, which beat defaults. */
  type AppConfiguration = {
    /** The app's id. Names the app, its files, and what is shared between several `App`s. */
    id: string;
    /**
     * The directory of the app definition, as `appservices pull` or `realm-cli pull` exported it. Else
     * `USERKEEP_DEFINITION`, else `./userkeep`, else a built-in definition for development.
     */
    definition?: string;
    /**
     * Where users and documents are kept: `"sqlite:PATH"`, a connection string of MongoDB (`"mongodb://…"`, `"mongodb+srv://…"`,
     * https://www.mongodb.com/docs/manual/reference/connection-string/), or `"memory:"` for nowhere. Else `USERKEEP_STORE`, else the
     * file `.userkeep/<id>.sqlite` under `baseFilePath`.
     *
     * `socketTimeoutMS` in a connection string is how long an operation may take (30 s), `serverSelectionTimeoutMS` how long to look for a
     * server (15 s).
     */
    store?: string;
    /**
     * Where the documents of data sources are that are not in the store, by the names that `mongoClient` takes; each as `store`. Else
     * `USERKEEP_DATA_SOURCE_<NAME>`, with the name in upper case and other characters than letters and digits as `_`.
     */
    dataSources?: Record<string, string>;
    /** Where the directory `.userkeep` is; the working directory if missing. */
    baseFilePath?: string;
    /** How the logged-in users are kept between runs. */
    metadata?: Metadata;
    /** Takes the log; `null` for none. Else warnings and one line at the start go to standard error. */
    logger?: AppLogger | null;
    /** The most documents that a query may return; beyond it the query fails with code 4304. @default 50000 */
    maxDocuments?: number;
    /**
     * The most bytes of BSON that the answer to a user's query may have; beyond it the query fails with code 4304.
     * @default 33554432
     */
    maxAnswerBytes?: number;
    /**
     * How long one operation of a user may take, in milliseconds; beyond it the operation fails with MongoDB's code 50
     * and writes nothing. (On MongoDB a write that was sent before may still be applied.) The operator's own operations
     * are not limited. @default 10000
     */
    maxTimeMS?: number;
    /**
     * The most documents that one write of a user may change; a larger one, or one of more than 32 MB, fails with code
     * 4304 and writes nothing. @default 10000
     */
    maxWriteDocuments?: number;
    /**
     * What acknowledged writes survive: `"process"` the death of the process at once and a power cut within 100 ms, `"full"` a power
     * cut at once, for the price of syncing the disk at each commit. @default "process"
     */
    durability?: "full" | "process";
    /**
     * How long change events are kept, to be taken up again by `watch({ resumeAfter })`: no longer than so many seconds, and no more
     * than so many bytes. @default { seconds: 86400, bytes: 268435456 }
     */
    changeRetention?: { seconds?: number; bytes?: number };
    /**
     * True to name the app in the tokens as their audience (`aud`, the app's id), so that services that verify them can check it.
     * Processes of versions that do not know `aud` refuse such tokens: set it when none of them share the store any more. Tokens
     * without `aud` are always accepted, and tokens of another app never. @default false
     */
    tokenAudience?: boolean;
    /**
     * The URL of a backend elsewhere, as `userkeep serve` offers it. Else `USERKEEP_BASE_URL`, unless `store` or `definition`
     * name a backend in this process. Certificates of `NODE_EXTRA_CA_CERTS` are trusted beside the system's.
     */
    baseUrl?: string;
    /** Milliseconds that a request over HTTP may take. Means nothing to a backend in the process. @default 60000 */
    timeout?: number;
    /** Accepted for the SDK's sake. */
    multiplexSessions?: boolean;
    /** Accepted for the SDK's sake; requests are made natively. */
    fetch?: (...args: never[]) => unknown;
    /** @deprecated Accepted for the SDK's sake. */
    app?: LocalAppConfiguration;
  };

  /** @deprecated Has no effect. */
  type LocalAppConfiguration = { name?: string; version?: string };

  type AppChangeCallback = () => void;

  /**
   * An app: its backend, and the users who are known on this device.
   *
   * Several `App`s of one id, definition and store share one backend and its users.
   *
   * @typeParam FunctionsFactoryType - the app's functions, as `user.functions` has them
   * @typeParam CustomDataType - the shape of `user.customData`
   */
  class App<
    FunctionsFactoryType extends DefaultFunctionsFactory = DefaultFunctionsFactory,
    CustomDataType extends DefaultObject = DefaultObject,
  > {
    /** The app that is open under an id, else a new one. */
    static get(id: string): App;
    /** @deprecated The same as `get`. */
    static getApp(id: string): App;
    static readonly Credentials: typeof Credentials;

    /**
     * Opens an app. Nothing is written before the first call that changes something.
     *
     * @throws where the configuration, the definition or a file cannot be used, with all that is wrong
     */
    constructor(configOrId: AppConfiguration | string);

    readonly id: string;

    /** The backend's URL, without a trailing slash; empty if the backend is in this process. */
    get baseUrl(): string;

    /**
     * Accepts the URL that the app has. The base URL of an open app cannot change.
     *
     * @throws for another URL, and for `null`, which is the SDK's default
     */
    updateBaseUrl(newUrl: string | null): Promise<void>;

    /**
     * Logs in, and makes the user current. Anonymous credentials use an anonymous user again who is logged in.
     *
     * Rejects with code 4349 and the message `unauthorized` for an unknown user as for a wrong password.
     */
    logIn(credentials: Credentials): Promise<User<FunctionsFactoryType, CustomDataType>>;

    /** Registering, confirming and resetting of e-mail/password users. */
    readonly emailPasswordAuth: Auth.EmailPasswordAuth;

    /** The user who logged in last or was switched to; else one who is still logged in, else `null`. */
    readonly currentUser: User<FunctionsFactoryType, CustomDataType> | null;

    /** All users who are known on this device, logged in or out, by their ids. */
    readonly allUsers: Readonly<Record<string, User<FunctionsFactoryType, CustomDataType>>>;

    /** Makes a user current. @throws `User is no longer valid or is logged out` */
    switchUser(user: AnyUser): void;

    /** Logs a user out if need be, and forgets the user on this device. Done here before the backend is asked. */
    removeUser(user: AnyUser): Promise<void>;

    /** Deletes a user on the backend and on this device. The document of the user's custom data stays. */
    deleteUser(user: AnyUser): Promise<void>;

    /** Calls back when somebody logs in or out, is switched to, or is deleted. */
    addListener(callback: AppChangeCallback): void;
    removeListener(callback: AppChangeCallback): void;
    removeAllListeners(): void;

    /** Lets go of the backend. The last `App` that shares it closes the store. */
    close(): Promise<void>;
  }

  namespace App {
    type Credentials = RealmItself.Credentials;
    export import Sync = database.Sync;
  }

  // ----- Credentials

  /** The authentication providers, by their types. */
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
  /** The types of single values, as those of an enumeration. */
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

  /** What somebody logs in with. */
  class Credentials {
    private constructor();
    /** A user without a name. @param reuse - whether one who is logged in is used again; true if missing */
    static anonymous(reuse?: boolean): Credentials;
    static emailPassword(credentials: { email: string; password: string }): Credentials;
    static emailPassword(email: string, password: string): Credentials;
    static apiKey(key: string): Credentials;
    static apple(token: string): Credentials;
    static facebook(token: string): Credentials;
    static google(tokenObject: { authCode: string } | { idToken: string }): Credentials;
    static jwt(token: string): Credentials;
    static function(payload: object): Credentials;
  }

  // ----- User

  /** Whether a user can make requests. */
  const UserState: {
    /** @deprecated Never returned. */
    readonly Active: "active";
    readonly LoggedIn: "LoggedIn";
    readonly LoggedOut: "LoggedOut";
    readonly Removed: "Removed";
  };
  type UserState = (typeof UserState)[keyof typeof UserState];
  /** The types of single values, as those of an enumeration. */
  namespace UserState {
    type Active = "active";
    type LoggedIn = "LoggedIn";
    type LoggedOut = "LoggedOut";
    type Removed = "Removed";
  }

  /** One way in which a user logs in. */
  interface UserIdentity {
    id: string;
    providerType: ProviderType;
  }

  /** What the providers told of a user, under the names that they use. */
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

  type UserChangeCallback = () => void;
  // biome-ignore lint/suspicious/noExplicitAny: a user of any app
  type AnyUser = User<any, any, any>;

  /** A user as it is on this device. Several objects may stand for one user: compare their ids. */
  class User<
    UserFunctionsFactoryType extends DefaultFunctionsFactory = DefaultFunctionsFactory,
    UserCustomDataType extends DefaultObject = DefaultObject,
    UserProfileDataType extends DefaultUserProfileData = DefaultUserProfileData,
  > {
    private constructor();
    readonly app: App;
    /** 24 hexadecimal digits. */
    readonly id: string;
    /** @deprecated The first identity's provider. */
    readonly providerType: ProviderType;
    readonly deviceId: string | null;
    readonly state: UserState;
    readonly isLoggedIn: boolean;
    readonly identities: UserIdentity[];
    /** The access token, which lives 30 minutes; empty when logged out. */
    readonly accessToken: string | null;
    /** The refresh token; empty when logged out. */
    readonly refreshToken: string | null;
    /**
     * The user's custom data as it was when the access token was made: it changes with a log-in,
     * `refreshCustomData()` or a refresh of the token, and not when the document does. `{}` if there is none. A new
     * object each time, which may be changed without effect. After a restart it is as it was when the app was closed
     * or the process ended; if the process was killed, as it was up to 1 s before.
     *
     * @see https://www.mongodb.com/docs/atlas/device-sdks/sdk/node/users/access-custom-user-data/
     */
    readonly customData: UserCustomDataType;
    /** What the providers told of the user. */
    readonly profile: UserProfileDataType;
    /**
     * The app's functions as methods. As a value, this is an object without properties.
     *
     * The names of `Object.prototype` (`toString`, `hasOwnProperty`), names that libraries read from any object (`then`,
     * `toJSON`, `toBSON`, `inspect`, `asymmetricMatch`, `nodeType`, `tagName`, `hasAttribute`), and names with characters
     * other than letters, digits, `_`, `-` and `/` are not among the methods. Call such functions with `callFunction`.
     *
     * @example
     * const total = await user.functions.sum(1, 2);
     */
    readonly functions: UserFunctionsFactoryType;
    readonly apiKeys: Auth.ApiKeyAuth;

    /** Logs out: on this device at once, then on the backend. An anonymous user is gone for good. */
    logOut(): Promise<void>;
    /** Links another identity. */
    linkCredentials(credentials: Credentials): Promise<void>;
    /** Calls one of the app's functions. */
    callFunction(name: string, ...args: unknown[]): Promise<unknown>;
    /** Gets a new access token, and resolves to the custom data as it is now. */
    refreshCustomData(): Promise<UserCustomDataType>;
    /** @deprecated */
    push(serviceName: string): PushClient;
    /**
     * A data source of the app. Asks nothing of the backend, which knows the data source only when it is used.
     *
     * @throws where the name is empty
     */
    mongoClient(serviceName: string): MongoDBService;
    /** Calls back when the user's tokens, data or state change. */
    addListener(callback: UserChangeCallback): void;
    removeListener(callback: UserChangeCallback): void;
    removeAllListeners(): void;
  }

  // ----- Functions, authentication, push

  type AppServicesFunction<R, A extends unknown[]> = (...args: A) => Promise<R>;
  /** @deprecated */
  type RealmFunction<R, A extends unknown[]> = AppServicesFunction<R, A>;
  // biome-ignore lint/suspicious/noExplicitAny: functions take what their app says that they take
  type DefaultFunctionsFactory = { [name: string]: AppServicesFunction<unknown, any[]> };

  type ApiKey = { _id: string; name: string; disabled: boolean };
  type SecretApiKey = ApiKey & { key: string };

  namespace Auth {
    type ApiKey = RealmItself.ApiKey;

    /** E-mail/password users. */
    class EmailPasswordAuth {
      private constructor();
      /**
       * Registers a user, who may then log in. Addresses are case-sensitive; a password has 6 to 128 characters.
       *
       * Rejects with code 4348 and `name already in use` for an address that is registered.
       */
      registerUser(details: { email: string; password: string }): Promise<void>;
      confirmUser(details: { token: string; tokenId: string }): Promise<void>;
      resendConfirmationEmail(details: { email: string }): Promise<void>;
      retryCustomConfirmation(details: { email: string }): Promise<void>;
      resetPassword(details: { password: string; token: string; tokenId: string }): Promise<void>;
      sendResetPasswordEmail(details: { email: string }): Promise<void>;
      callResetPasswordFunction(details: { email: string; password: string }, ...args: unknown[]): Promise<void>;
    }

    /** A user's API keys. */
    class ApiKeyAuth {
      private constructor();
      create(keyName: string): Promise<SecretApiKey>;
      fetch(keyId: string): Promise<ApiKey>;
      fetchAll(): Promise<ApiKey[]>;
      delete(keyId: string): Promise<void>;
      enable(keyId: string): Promise<void>;
      disable(keyId: string): Promise<void>;
    }
  }

  export import EmailPasswordAuth = Auth.EmailPasswordAuth;
  export import ApiKeyAuth = Auth.ApiKeyAuth;

  /** @deprecated A user's registration for push notifications. */
  class PushClient {
    private constructor();
    register(token: string): Promise<void>;
    deregister(): Promise<void>;
  }

  // ----- MongoDB

  /** A data source. */
  type MongoDBService = {
    serviceName: string;
    db(databaseName: string): MongoDBDatabase;
  };

  /** A database of a data source. */
  type MongoDBDatabase = {
    name: string;
    // biome-ignore lint/suspicious/noExplicitAny: the SDK's own default, which accepts any document
    collection<T extends MongoDB.Document = any>(collectionName: string): MongoDB.MongoDBCollection<T>;
  };

  /** A data source, as `user.mongoClient()` returns it. */
  type MongoDB = MongoDBService;

  namespace MongoDB {
    type Document<IdType = unknown> = { _id: IdType };
    /** A document to insert, whose `_id` is made if it has none. */
    type NewDocument<T extends Document> = Omit<T, "_id"> & Partial<Pick<T, "_id">>;

    type Filter = Record<string, unknown>;
    /** Update operators, a replacement, or a pipeline of `$set`, `$unset`, `$project` and `$replaceWith`. */
    type Update = Record<string, unknown> | AggregatePipelineStage[];
    type AggregatePipelineStage = Record<string, unknown>;

    type FindOneOptions = {
      /** Which fields to answer with. */
      readonly projection?: Record<string, unknown>;
      /** In which order; of several the first is taken. */
      readonly sort?: Record<string, unknown>;
    };
    type FindOptions = FindOneOptions & {
      /** How many documents at most. */
      readonly limit?: number;
    };
    type FindOneAndModifyOptions = FindOneOptions & {
      /** Whether to insert where nothing matches. */
      readonly upsert?: boolean;
      /** Whether to answer with the document as it has become, and not as it was. */
      readonly returnNewDocument?: boolean;
    };
    type CountOptions = { readonly limit?: number };
    type UpdateOptions = { readonly upsert?: boolean; readonly arrayFilters?: Filter[] };

    type InsertOneResult<IdType> = { readonly insertedId: IdType };
    type InsertManyResult<IdType> = { readonly insertedIds: IdType[] };
    type DeleteResult = { readonly deletedCount: number };
    type UpdateResult<IdType> = {
      readonly matchedCount: number;
      readonly modifiedCount: number;
      /** Only where a document was inserted. */
      readonly upsertedId?: IdType;
    };

    type OperationType = "insert" | "delete" | "replace" | "update" | "drop" | "rename" | "dropDatabase" | "invalidate";
    type DocumentNamespace = { db: string; coll: string };
    /** Empty for a user on MongoDB if the collection has no pre-images (`changeStreamPreAndPostImages`). */
    type UpdateDescription = { updatedFields?: Record<string, unknown>; removedFields?: string[] };
    type ChangeEventId = unknown;
    type DocumentKey<IdType> = { _id: IdType } & Record<string, unknown>;
    type BaseChangeEvent<T extends OperationType> = {
      _id: ChangeEventId;
      operationType: T;
      clusterTime: bson.Timestamp;
      txnNumber?: bson.Long;
      lsid?: Record<string, unknown>;
    };
    type InsertEvent<T extends Document> = {
      ns: DocumentNamespace;
      documentKey: DocumentKey<T["_id"]>;
      fullDocument: T;
    } & BaseChangeEvent<"insert">;
    type UpdateEvent<T extends Document> = {
      ns: DocumentNamespace;
      documentKey: DocumentKey<T["_id"]>;
      updateDescription: UpdateDescription;
      fullDocument?: T;
    } & BaseChangeEvent<"update">;
    type ReplaceEvent<T extends Document> = {
      ns: DocumentNamespace;
      documentKey: DocumentKey<T["_id"]>;
      fullDocument: T;
    } & BaseChangeEvent<"replace">;
    type DeleteEvent<T extends Document> = {
      ns: DocumentNamespace;
      documentKey: DocumentKey<T["_id"]>;
    } & BaseChangeEvent<"delete">;
    type DropEvent = { ns: DocumentNamespace } & BaseChangeEvent<"drop">;
    type RenameEvent = { ns: DocumentNamespace; to: DocumentNamespace } & BaseChangeEvent<"rename">;
    type DropDatabaseEvent = { ns: Omit<DocumentNamespace, "coll"> } & BaseChangeEvent<"dropDatabase">;
    type InvalidateEvent = BaseChangeEvent<"invalidate">;
    type ChangeEvent<T extends Document> =
      | InsertEvent<T>
      | UpdateEvent<T>
      | ReplaceEvent<T>
      | DeleteEvent<T>
      | DropEvent
      | RenameEvent
      | DropDatabaseEvent
      | InvalidateEvent;
    /** After which event to go on: the `_id` of an event of the same user, collection and app. Not of the SDK. */
    type WatchOptionsResume = { resumeAfter?: ChangeEventId };
    type WatchOptionsIds<T extends Document> = { ids: T["_id"][]; filter?: never } & WatchOptionsResume;
    type WatchOptionsFilter = { ids?: never; filter: Filter } & WatchOptionsResume;

    /**
     * A collection, under the rules of the app.
     *
     * A document that the user may not read does not match a filter. A write that the rules refuse rejects with code
     * 4314 and `insert`, `update` or `delete not permitted`, and nothing is changed. What MongoDB refuses rejects with
     * code 4311 and MongoDB's own code in `serverCode`.
     *
     * @typeParam T - the shape of its documents
     */
    class MongoDBCollection<T extends Document> {
      private constructor();
      readonly serviceName: string;
      readonly databaseName: string;
      readonly name: string;

      /** The documents that match: an array, and an error where there are more than `maxDocuments`. */
      find(filter?: Filter, options?: FindOptions): Promise<T[]>;
      /** The first document that matches, or `null`. */
      findOne(filter?: Filter, options?: FindOneOptions): Promise<T | null>;
      /** Updates the first document that matches, and resolves to it as it was, unless `returnNewDocument` is set. */
      findOneAndUpdate(filter: Filter, update: Update, options?: FindOneAndModifyOptions): Promise<T | null>;
      /** Replaces the first document that matches, but for its `_id`. */
      findOneAndReplace(filter: Filter, replacement: unknown, options?: FindOneAndModifyOptions): Promise<T | null>;
      /** Deletes the first document that matches, and resolves to it. */
      findOneAndDelete(filter?: Filter, options?: FindOneOptions): Promise<T | null>;
      /** Runs the documents that the user may read through a pipeline; resolves to an array. */
      // biome-ignore lint/suspicious/noExplicitAny: what comes out is up to the pipeline
      aggregate(pipeline: AggregatePipelineStage[]): Promise<any>;
      /** How many documents match, of those that the user may read. */
      count(filter?: Filter, options?: CountOptions): Promise<number>;
      /** Inserts a document. A duplicate `_id` rejects with code 4311 and `serverCode` 11000. */
      insertOne(document: NewDocument<T>): Promise<InsertOneResult<T["_id"]>>;
      /** Inserts documents in their order; those before a duplicate stay. */
      insertMany(documents: NewDocument<T>[]): Promise<InsertManyResult<T["_id"]>>;
      /** Deletes the first document that matches. */
      deleteOne(filter?: Filter): Promise<DeleteResult>;
      /** Deletes all documents that match; every one, without a filter. */
      deleteMany(filter?: Filter): Promise<DeleteResult>;
      /** Updates the first document that matches. */
      updateOne(filter: Filter, update: Update, options?: UpdateOptions): Promise<UpdateResult<T["_id"]>>;
      /** Updates all documents that match. */
      updateMany(filter: Filter, update: Update, options?: UpdateOptions): Promise<UpdateResult<T["_id"]>>;
      /**
       * The changes of the collection as MongoDB's change events, in the order in which they were committed
       * (https://www.mongodb.com/docs/manual/reference/change-events/): `insert`, `update`, `replace` and `delete`. `fullDocument` is the
       * version that the change has made.
       *
       * It is followed from when the first event is asked for. An event is told if the user may read the version that it
       * carries, of a deletion the last one, at the time when it is told; what is left out says nothing. The generator ends on
       * `return()`, also while an event is waited for, when the user logs out and when the app is closed. Over HTTP it goes on by
       * itself after an interruption.
       *
       * @param options.ids - only of documents with one of these `_id`s
       * @param options.filter - only events that match, as `{ operationType: "insert", "fullDocument.type": "perennial" }`
       * @param options.resumeAfter - all events after one, as long as they are kept (`changeRetention`)
       * @throws code 4301 when the session ends elsewhere; `serverCode` 286 where the events that come next are not kept any
       * more, 260 if `resumeAfter` is not a token of this user, collection and app
       */
      watch(options?: WatchOptionsResume): AsyncGenerator<ChangeEvent<T>>;
      watch(options: WatchOptionsIds<T>): AsyncGenerator<ChangeEvent<T>>;
      watch(options: WatchOptionsFilter): AsyncGenerator<ChangeEvent<T>>;
    }
  }

  export import MongoDBCollection = MongoDB.MongoDBCollection;
  export import WatchOptionsFilter = MongoDB.WatchOptionsFilter;
  export import WatchOptionsIds = MongoDB.WatchOptionsIds;

  namespace Services {
    export { MongoDB, type MongoDBDatabase, type PushClient as Push };
  }

  // ----- The Realm database, which Userkeep does not include: its types, and stubs that throw when they are used

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

  /** What an operation rejects with. */
  type AppError = Error & {
    /** The SDK's number for it. */
    code: number;
    /** The name of the code. */
    errorCode: string;
    /** MongoDB's own code, where a query or a write failed. */
    serverCode?: number;
    /** Over HTTP, the status of the answer. */
    status?: number;
    /** Over HTTP, where the operator finds the log of the request, if the backend says so. */
    link?: string;
    /** Over HTTP, after how many seconds it is worth asking again, if the backend refuses for a while (status 429). */
    retryAfter?: number;
  };

  /** A check that failed. */
  class AssertionError extends Error {
    constructor(message?: string);
  }

  /** A value of the wrong type. */
  class TypeAssertionError extends AssertionError {
    constructor(expected: string, value: unknown, name?: string);
  }

  // ----- The operator's handle

  /** What a backend is opened with, as its operator. */
  type BackendConfiguration = Pick<
    AppConfiguration,
    | "baseFilePath"
    | "changeRetention"
    | "dataSources"
    | "definition"
    | "durability"
    | "logger"
    | "maxAnswerBytes"
    | "maxDocuments"
    | "maxTimeMS"
    | "maxWriteDocuments"
    | "store"
    | "tokenAudience"
  > & {
    /** The app's id, if the definition does not have it. */
    id?: string;
  };

  /**
   * An index, in the shape of MongoDB's `createIndexes`
   * (https://www.mongodb.com/docs/manual/reference/command/createIndexes/).
   */
  interface IndexDescription {
    /** Its fields in order, each ascending (1) or descending (-1). */
    key: Record<string, number>;
    /** Its name, unique in the collection; made of the fields if missing. */
    name?: string;
    /** Whether two documents may not have the same values. */
    unique?: boolean;
    /** Whether documents without any of the fields are left out. */
    sparse?: boolean;
    /** Which documents it holds; all if missing. Not together with `sparse`. */
    partialFilterExpression?: MongoDB.Document;
    /**
     * After how many seconds from the time in its field, of an array the earliest, a document is removed. That happens within a minute,
     * while anything is written in the process.
     */
    expireAfterSeconds?: number;
  }

  /** How a query was answered, in the terms of MongoDB's `explain`. */
  interface Explanation {
    /**
     * `IDHACK` for one `_id`, `IXSCAN` by an index, `COLLSCAN` through all documents, `EOF` where there is no such collection.
     */
    stage: "COLLSCAN" | "EOF" | "IDHACK" | "IXSCAN";
    /** The index's name, or those of several where the branches of an `$or` were looked up by them. */
    index: string | null;
    /** Whether the index gave the order that was asked for. */
    sortedByIndex: boolean;
    /** In how many ranges of the index was looked; 0 for all of it. */
    ranges: number;
    /** How many documents were read. */
    examined: number;
    /** How many of them were the answer. */
    returned: number;
  }

  /** A collection as its operator has it, with its indexes. */
  interface AdministeredCollection<T extends MongoDB.Document> extends MongoDB.MongoDBCollection<T> {
    /**
     * Makes indexes, over what the collection holds too: all of them, or none. One that is there already is left as it is.
     *
     * @returns their names
     * @throws what is wrong with one; where one of the same name or fields has other options; `E11000` where a unique one finds
     * a key twice. Text, geo, hashed and wildcard indexes and collations are refused.
     */
    createIndexes(indexes: IndexDescription[]): Promise<string[]>;
    /** The indexes, that on `_id` first. None of a collection that does not exist. */
    indexes(): Promise<(IndexDescription & { v: number; name: string })[]>;
    /**
     * Removes an index by its name.
     *
     * @throws where there is none
     */
    dropIndex(name: string): Promise<void>;
    /** Answers a query and tells how it was answered. */
    explain(filter?: MongoDB.Filter, options?: MongoDB.FindOptions): Promise<Explanation>;
  }

  /** How far something is that takes long. */
  interface Progress {
    /** What is being done: the name of a collection, of an index. */
    stage: string;
    /** How many of the steps of it are done; about. */
    done: number;
    /** How many there are; 0 where nobody knows. */
    total: number;
  }

  /** Is told at the beginning, and then ten times a second, how far something is. */
  interface ProgressOptions {
    onProgress?: (progress: Progress) => void;
  }

  /** A backend as its operator has it: as the system user, under no rules. */
  interface Backend {
    /**
     * A collection, for seeding and administration.
     *
     * @param options.service - the data source; `mongodb-atlas` if missing
     */
    // biome-ignore lint/suspicious/noExplicitAny: as for a user's collection
    collection<T extends MongoDB.Document = any>(
      databaseName: string,
      collectionName: string,
      options?: { service?: string },
    ): AdministeredCollection<T>;
    /**
     * Makes a new key to sign tokens with; its id, which is the `kid` of the tokens. The keys before verify until their last
     * token has expired.
     */
    rotateKeys(): Promise<string>;
    /**
     * Copies the store into a file, with users and sessions, as it is at one moment, while it goes on being written. The copy can
     * be opened as a store; it has a history of its own, so that `resumeAfter` of the original means nothing to it.
     *
     * @throws where there is a file of that name already
     */
    backup(file: string, options?: ProgressOptions): Promise<void>;
    /**
     * Writes a dump into an empty directory, as mongodump does: `DATABASE/COLLECTION.bson` and `.metadata.json`
     * (https://www.mongodb.com/docs/database-tools/mongodump/). What is written meanwhile may be in it or not.
     *
     * @returns how many documents it has
     */
    export(directory: string, options?: ProgressOptions): Promise<number>;
    /**
     * Reads such a dump in. A document that is there already, the same to the byte, is left as it is, so that what was interrupted can
     * be begun again; one that is another is never overwritten.
     *
     * @param options.ignoreIndexes - leaves out indexes of kinds that there are not here, and reports them
     * @throws with the file, and with the place in it, where a document is none or another one has its key; what was written
     * before stays. What can be told beforehand is, and then nothing is written.
     */
    import(
      directory: string,
      options?: ProgressOptions & { ignoreIndexes?: boolean },
    ): Promise<{ written: number; unchanged: number; reported: string[] }>;
    /**
     * Carries all that the store has, users and sessions too, to another store: documents to the byte, and indexes. Compares both by
     * count and hash. What is there already, the same to the byte, is left as it is, so that what was interrupted can be begun again.
     * Nobody else should write to either meanwhile.
     *
     * @param to - `sqlite:PATH` or `mongodb://…`
     * @param options.databases - of these databases alone
     * @param options.ignoreIndexes - leaves out indexes of kinds that Userkeep does not have, and reports them
     * @throws where the other store has another document of an `_id`, or documents of its own in one of the collections
     */
    migrate(
      to: string,
      options?: ProgressOptions & { databases?: string[]; ignoreIndexes?: boolean },
    ): Promise<{ collections: number; written: number; unchanged: number; reported: string[] }>;
    /**
     * Looks for what is wrong with the store: damage, indexes that do not agree with the documents, change events that do not
     * agree with what has become of them.
     *
     * @param options.repair - makes indexes anew first, and answers with what is still wrong
     */
    check(options?: ProgressOptions & { repair?: boolean }): Promise<{ what: string; isOfIndex: boolean }[]>;
    /** Lets go of the backend. */
    close(): Promise<void>;
  }

  /** Opens a backend as its operator. Shares it with the apps of the same id, definition and store. */
  function openBackend(options: BackendConfiguration): Promise<Backend>;

  // ----- Over HTTP

  /** What a backend is offered with over HTTP. */
  type ServerConfiguration = Omit<BackendConfiguration, "id"> & {
    /** The app's id, if the definition does not have it. Requests for another one are refused. */
    app?: string;
    /** The address to listen on. @default "127.0.0.1" */
    host?: string;
    /** The port to listen on; 0 picks one. @default 3000 */
    port?: number;
    /** The URL under which clients reach the server, as behind a proxy; the bound address if missing. */
    publicUrl?: string;
    /**
     * The largest body of a request as it is sent, in bytes. Larger ones are refused with status 413, and so are arguments that
     * have more than 18 MB as BSON. Bodies of `auth/…` are limited to 64 kB, or to 1 MB if they carry data of the application,
     * and others over 64 kB need a valid access token. @default 67108864
     */
    maxBodySize?: number;
    /** To speak TLS: the file of the certificate and of what signed it, in PEM. */
    tlsCert?: string;
    /** And the file of its key, in PEM. */
    tlsKey?: string;
    /**
     * The networks of proxies that are believed about the address of a client (`X-Forwarded-For`), as `"10.0.0.0/8"`. Of
     * nobody else the address is taken from a header.
     */
    trustProxy?: string | string[];
    /**
     * The networks from which so many people make requests, as the application's own servers, that they are not held up
     * together after failed log-ins and many new users, and have no share of connections, bodies and answers. A single account still
     * is held up after failed log-ins.
     */
    unlimited?: string | string[];
    /**
     * Milliseconds that a client may take to send a request's headers, to send a body beyond what its size allows for, to
     * ask again over its connection, and to read its answer, before it is cut. @default 30000
     */
    clientTimeout?: number;
    /** The port of a listener for the operator: `/healthz`, and `/metrics` for Prometheus. None if missing. */
    metricsPort?: number;
    /** The address of that listener. @default "127.0.0.1" */
    metricsHost?: string;
  };

  /** A server that listens. */
  interface Server {
    /** Where it listens, without a trailing slash. */
    readonly url: string;
    /** Where the operator reaches `/healthz` and `/metrics`, if they are on. */
    readonly metricsUrl?: string;
    /** Takes no more requests, and waits for those that are under way, but no longer than ten seconds. */
    close(): Promise<void>;
  }

  /**
   * Offers a backend over HTTP with the App Services client API, so that `realm-web` works against it: its `baseUrl` is
   * the server's `url`. Keeps the process alive until it is closed.
   */
  function serve(options: ServerConfiguration): Promise<Server>;
}

// A block of its own: one with an export list exports nothing else.
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
